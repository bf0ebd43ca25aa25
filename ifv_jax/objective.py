"""f = A . N . phi and S_k on top: from parameters to the response, and to the objective of FV."""

from collections.abc import Callable
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np

from ifv_jax import aggregation, rewriting, significance
from ifv_jax.errors import InputError
from ifv_jax.parametrization import Parametrization
from ifv_jax.types import AggregateFn, ApplyFn, PyTree


@dataclass(frozen=True)
class Response:
    """f: (variables, v) -> r (batch, n), for a batch of independent inputs. See `make_response`.

    Two responses are equal, and share what is compiled for them, when their parts are the same
    objects: make one and keep it.
    """

    apply: ApplyFn
    parametrization: Parametrization
    aggregation: AggregateFn
    features: tuple[int, ...] | None = None

    def __call__(
        self, variables: PyTree, v: PyTree, view: Callable[[jax.Array], jax.Array] | None = None
    ) -> jax.Array:
        """r = f(v): (batch, ...) -> (batch, n); `view` changes the images before they are seen."""
        images = _rewritten(self.parametrization.apply)(v)
        return self.of_images(variables, images if view is None else view(images))

    def of_images(self, variables: PyTree, images: jax.Array) -> jax.Array:
        """The same for images in [0, 1], (batch, H, W, C) -> (batch, n)."""
        # A GPU would else round the factors of products to TF32, ten bits: more of the optima
        # found so are poor (docs/performance.md). Who has chosen a precision knows better.
        chosen = jax.config.jax_default_matmul_precision  # pyright: ignore[reportAttributeAccessIssue]
        with jax.default_matmul_precision(chosen or "float32"):
            r = _rewritten(self._respond)(variables, images)
        if r.ndim != 2 or r.shape[0] != images.shape[0]:
            raise InputError(
                f"a response of shape ({images.shape[0]}, features) after aggregation",
                f"shape {r.shape}",
                "Tap a layer with one leading batch axis and pass a fitting aggregation.",
            )
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

    def _respond(self, variables: PyTree, images: jax.Array) -> jax.Array:
        return self.aggregation(self.apply(variables, images))

    def feature_count(self, variables: PyTree) -> int:
        """n, found by abstract evaluation: nothing is computed, but shape errors surface here."""
        image = jax.ShapeDtypeStruct((2, *self.parametrization.shape), jnp.float32)
        return _of_images.eval_shape(self, variables, image).shape[1]


def _rewritten(function: Callable[..., jax.Array]) -> Callable[..., jax.Array]:
    return rewriting.on_cpu(function) if jax.default_backend() == "cpu" else function


# Jitted, it is traced once for all the times that its shape is asked for.
_of_images = jax.jit(Response.of_images, static_argnums=0)


@dataclass(frozen=True)
class Objective:
    """S_k(f(v), t): (variables, v, t) -> (batch,). See `make_objective`."""

    response: Response
    cosine_power: float

    def __call__(self, variables: PyTree, v: PyTree, t: jax.Array) -> jax.Array:
        """S_k(f(v), t), (batch,)."""
        r = self.response(variables, v)
        return significance.significance(r, t.astype(r.dtype), cosine_power=self.cosine_power)

    def look(self, variables: PyTree, v: PyTree, t: jax.Array, view=None):
        """(r (batch, n), S (batch,), dS/dv like v); one pass, since samples are independent."""

        def total(v):
            r = self.response(variables, v, view)
            s = significance.significance(r, t.astype(r.dtype), cosine_power=self.cosine_power)
            return s.sum(), (r, s)

        (_, (r, s)), gradient = jax.value_and_grad(total, has_aux=True)(v)
        return r, s, gradient

    def value_and_grad(self, variables: PyTree, v: PyTree, t: jax.Array, view=None):
        """(S (batch,), dS/dv like v)."""
        _, s, gradient = self.look(variables, v, t, view)
        return s, gradient


def make_response(
    apply: ApplyFn,
    parametrization: Parametrization,
    aggregate: AggregateFn = aggregation.max_mean,
    *,
    features=None,
) -> Response:
    """Composes f = A . N . phi.

    Args:
      apply: pure (variables, images (batch, H, W, C) in [0, 1]) -> activations, in inference mode:
        the samples of a batch must not influence each other.
      parametrization: e.g. `sigmoid_pixels((32, 32, 3))`.
      aggregate: e.g. `max_mean`; `identity` for logits.
      features: indices of the features to look at, in this order; all by default.
    """
    if not callable(apply):
        raise InputError(
            "a function (variables, images) -> activations",
            f"{type(apply).__name__}",
            "For Flax pass e.g. `lambda variables, x: model.apply(variables, x)`.",
        )
    if features is not None:
        features = tuple(int(i) for i in np.asarray(features).ravel())
        if not features or min(features) < 0 or len(set(features)) != len(features):
            raise InputError(
                "distinct, non-negative feature indices, at least one",
                f"{features!r}",
                "Leave out `features` to use them all.",
            )
    return Response(apply, parametrization, aggregate, features)


def make_objective(response: Response, *, cosine_power: float = 2.0) -> Objective:
    """S_k on top of a response; k = 2 is the paper's default, k = 0 drops the cosine term."""
    return Objective(response, significance.check_cosine_power(cosine_power))
