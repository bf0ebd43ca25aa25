"""f = A . N . phi and S_k on top: from parameters to the response, and to the objective of FV."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ifv_jax import aggregation, checks, significance
from ifv_jax.checks import InputError
from ifv_jax.checks.job import check_variables, images_of
from ifv_jax.checks.network import (
    activations,
    aggregated,
    check_aggregate,
    check_apply,
    check_layout,
    innermost,
)
from ifv_jax.engine import fingerprints, rewriting
from ifv_jax.parametrization import Parametrization
from ifv_jax.types import AggregateFn, ApplyFn, PyTree


@dataclass(frozen=True)
class Response:
    """f: (variables, v) -> r (batch, n), for a batch of independent inputs. See `make_response`.

    Two responses are equal, and share what is compiled for them, when their parts are the same
    objects: make one and keep it.

    Raises: InputError where parts are of a wrong kind, or do not fit the network once it is traced.
    """

    apply: ApplyFn
    parametrization: Parametrization
    aggregation: AggregateFn
    features: tuple[int, ...] | None = None
    rewrite: bool = field(default=True, metadata={fingerprints.NEUTRAL: True})

    def __post_init__(self):
        check_apply(self.apply)
        checks.check_kind(
            self.parametrization,
            Parametrization,
            "parametrization",
            "Make one, e.g. with `sigmoid_pixels((32, 32, 3))`.",
        )
        check_aggregate(self.aggregation)
        if self.features is not None:
            features = checks.check_indices(self.features, "features")
            object.__setattr__(self, "features", features)
        checks.check_kind(self.rewrite, bool, "rewrite", "Leave it out, or pass False.")

    def __call__(
        self, variables: PyTree, v: PyTree, view: Callable[[jax.Array], jax.Array] | None = None
    ) -> jax.Array:
        """r = f(v): (batch, ...) -> (batch, n); `view` changes the images before they are seen."""
        images = images_of(self.parametrization, v, self._rewritten)
        return self.of_images(variables, images if view is None else view(images))

    def plainly(self, variables: PyTree, v: PyTree) -> jax.Array:
        """The same with nothing rewritten, and with a closer look at the layout: for checks."""
        images = images_of(self.parametrization, v, lambda function: function)
        return self._chosen(self._respond(variables, images, thorough=True))

    def of_images(self, variables: PyTree, images: jax.Array) -> jax.Array:
        """The same for images in [0, 1], (batch, H, W, C) -> (batch, n)."""
        check_variables(variables)
        # Otherwise GPUs multiply in TF32, ten bits, which leaves more optima poor
        # (docs/speed.md). The user's own setting wins.
        chosen = jax.config.jax_default_matmul_precision  # pyright: ignore[reportAttributeAccessIssue]
        with jax.default_matmul_precision(chosen or "float32"):
            r = self._rewritten(self._respond)(variables, images)
        return self._chosen(r)

    def _chosen(self, r: jax.Array) -> jax.Array:
        """The features that are looked at, of all."""
        if self.features is None:
            return r
        if max(self.features) >= r.shape[1]:
            raise InputError(
                f"features below {r.shape[1]}, the number of the layer's features",
                f"feature {max(self.features)}",
                "Leave out `features` to use them all.",
            )
        first, last = self.features[0], self.features[-1]
        if self.features == tuple(range(first, last + 1)):
            return r[:, first : last + 1]  # A plain slice lets XLA drop what it does not need.
        return r[:, np.asarray(self.features)]

    def _respond(
        self, variables: PyTree, images: jax.Array, *, thorough: bool = False
    ) -> jax.Array:
        found = activations(self.apply, variables, images)
        if innermost(self.aggregation) in aggregation.SPATIAL:
            check_layout(self.apply, variables, images, found.shape, thorough=thorough)
        return aggregated(self.aggregation, found)

    def _rewritten(self, function: Callable[..., Any]) -> Callable[..., Any]:
        if self.rewrite and jax.default_backend() == "cpu":
            return rewriting.on_cpu(function)
        return function

    def feature_count(self, variables: PyTree) -> int:
        """n, found by abstract evaluation: nothing is computed, but shape errors surface here."""
        check_variables(variables)
        image = jax.ShapeDtypeStruct((2, *self.parametrization.shape), jnp.float32)
        return _of_images.eval_shape(self, variables, image).shape[1]


# Jitted, it is traced once for all the times that its shape is asked for.
_of_images = jax.jit(Response.of_images, static_argnums=0)


@dataclass(frozen=True)
class Objective:
    """S_k(f(v), t): (variables, v, t) -> (batch,). See `make_objective`."""

    response: Response
    cosine_power: float

    def __post_init__(self):
        do = "Make one with `make_response(apply, parametrization)`."
        checks.check_kind(self.response, Response, "response", do)
        k = significance.check_cosine_power(self.cosine_power)
        object.__setattr__(self, "cosine_power", k)

    def __call__(self, variables: PyTree, v: PyTree, t: jax.Array) -> jax.Array:
        """S_k(f(v), t), (batch,)."""
        return self.of_response(self.response(variables, v), t)

    def look(self, variables: PyTree, v: PyTree, t: jax.Array, view=None):
        """(r (batch, n), S (batch,), dS/dv like v); one pass, since samples are independent."""

        def total(v):
            r = self.response(variables, v, view)
            s = self.of_response(r, t)
            return s.sum(), (r, s)

        (_, (r, s)), gradient = jax.value_and_grad(total, has_aux=True)(v)
        return r, s, gradient

    def value_and_grad(self, variables: PyTree, v: PyTree, t: jax.Array, view=None):
        """(S (batch,), dS/dv like v)."""
        _, s, gradient = self.look(variables, v, t, view)
        return s, gradient

    def of_response(self, r: jax.Array, t) -> jax.Array:
        """S of a response in float32 or wider: its powers would lose what half precision has."""
        do = "One target is a row over the features of the response; see `ifv_jax.sample_targets`."
        t = checks.as_array(t, f"targets of shape {r.shape}", do)
        r = r.astype(jnp.promote_types(r.dtype, jnp.float32))
        return significance.significance(r, t.astype(r.dtype), cosine_power=self.cosine_power)


def make_response(
    apply: ApplyFn,
    parametrization: Parametrization,
    aggregate: AggregateFn = aggregation.max_mean,
    *,
    features=None,
    rewrite: bool = True,
) -> Response:
    """Composes f = A . N . phi.

    Args:
      apply: pure (variables, images (batch, H, W, C) in [0, 1]) -> activations, in inference mode:
        the samples of a batch must not influence each other. Weights that it closes over are
        constants of the compiled program: changed in place later, they stay what they were. Pass
        them as `variables`.
      parametrization: e.g. `sigmoid_pixels((32, 32, 3))`.
      aggregate: e.g. `max_mean`; `identity` for logits.
      features: indices of the features to look at, in this order; all by default.
      rewrite: on the CPU, compute the gradients of convolutions and max pools in a form that XLA
        runs several times faster, and divisions in one that has the same bits on any number of
        devices (`ifv_jax/engine/rewriting.py`). With False the network runs as it is written, and
        results may differ in the last bits between numbers of devices.
    Raises: InputError for parts of a wrong kind.
    """
    return Response(apply, parametrization, aggregate, features, rewrite)


def make_objective(response: Response, *, cosine_power: float = 2.0) -> Objective:
    """S_k on top of a response; k = 2 is the paper's default, k = 0 drops the cosine term."""
    return Objective(response, cosine_power)
