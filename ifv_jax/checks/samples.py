"""The check, before a job begins, that the samples of a batch do not influence each other.

In training mode a network normalizes over its batch (BatchNorm) or draws noise by position in the
batch (Dropout under a fixed key). All results would then be wrong with the status OK. They would
also differ between the CPU, where samples are computed alone, and a GPU, where they are computed
together. For most networks the traced program is proof enough (`ifv_jax.checks.independence`). The
others are compiled with little optimization and evaluated on two different samples: each alone and
beside the other, in both orders, and twice.
"""

import logging
import weakref
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ifv_jax.checks import independence, is_concrete
from ifv_jax.checks.errors import InputError
from ifv_jax.checks.job import check_variables
from ifv_jax.checks.network import OUT_OF_RESOURCES
from ifv_jax.engine import programs
from ifv_jax.types import PyTree

log = logging.getLogger(__name__)

TOLERANCE = 1e-3
"""Largest allowed difference of float32 responses, relative to the largest response.

Rounding depends on the batch; 2e-7 was measured on the CPU. Noise and statistics of the batch
change a response by percents.
"""

CONTRASTS = (10.0, 100.0)
"""Factors by which new starts are multiplied for the two samples: little and much contrast."""

_TRAINING = (
    "Put it into inference mode: `.eval()` for NNX, `use_running_average=True` and "
    "`deterministic=True` without `mutable` for Linen, no Dropout, no statistics over the batch."
)

_seen: "weakref.WeakKeyDictionary[Any, dict]" = weakref.WeakKeyDictionary()
_warned: "weakref.WeakSet[Any]" = weakref.WeakSet()


def check_network(response, variables: PyTree) -> int:
    """Checks the network of a response, once for each response and shapes of weights.

    While a user's `jit` traces, and if weights lie on other hosts, the samples are not compared.

    Args:
      response: the response.
      variables: the network's weights.

    Returns:
      n, the number of features.

    Raises:
      InputError: the network does not fit, or the samples of a batch influence each other.
    """
    check_variables(variables)
    leaves = jax.tree.leaves(variables)
    if not is_concrete(leaves) or not all(
        getattr(leaf, "is_fully_addressable", True) for leaf in leaves
    ):
        return response.feature_count(variables)
    if not any(np.ndim(leaf) for leaf in leaves) and response not in _warned:
        _warned.add(response)
        log.warning(
            "No array is among the variables: if the network has weights, they are constants of "
            "the compiled program, and changing them in place later changes nothing. Pass them "
            "as `variables`."
        )
    kind = programs.kind(variables)
    seen = _seen.setdefault(response, {})
    if kind not in seen:
        seen[kind] = _looked_at(response, variables)
    return seen[kind]


def _looked_at(response, variables: PyTree) -> int:
    try:
        pair, three = (_program(response, variables, batch) for batch in (2, 3))
    except (InputError, *OUT_OF_RESOURCES):
        raise
    except Exception:  # for example an initialization that cannot be traced
        n = response.feature_count(variables)
        _look(response, variables)
        return n
    weights = len(jax.tree.leaves(variables))
    places = [independence.Same()] * weights
    places += [independence.Samples(0)] * (len(pair.jaxpr.invars) - weights)
    if not (independence.independent(pair, places, 2) and independence.same_program(pair, three)):
        _look(response, variables)
    result: Any = pair.out_avals[0]
    return result.shape[1]


def _program(response, variables: PyTree, batch: int):
    init = response.parametrization.init
    v = jax.eval_shape(lambda key: init(key, batch), jax.random.key(0))
    return jax.make_jaxpr(response.plainly)(variables, v)


def _look(response, variables: PyTree) -> None:
    """Compares the responses to two samples, alone and together."""
    try:
        a, b = (_sample(response, number) for number in range(2))
        pairs = [_join(*pair) for pair in ((a, b), (b, a), (a, a))]
    except Exception as error:
        log.warning("Samples were not compared: no parameters could be drawn (%r).", error)
        return
    evaluate = jax.jit(response.plainly, compiler_options=_quickly())
    dtypes = _dtypes(jax.make_jaxpr(response.plainly)(variables, a).jaxpr)
    run: Callable[[PyTree], np.ndarray] = lambda v: np.asarray(  # noqa: E731
        evaluate(variables, v), np.float64
    )
    try:
        alone = [run(a)[0], run(b)[0]]
        (ab, ba, aa), again = map(run, pairs), run(pairs[0])
    except OUT_OF_RESOURCES as error:
        log.warning("Samples were not compared, for want of resources (%s).", error)
        return
    tolerance = max(TOLERANCE, *(16 * float(jnp.finfo(dtype).eps) for dtype in dtypes))
    chosen = jax.config.jax_default_matmul_precision  # pyright: ignore[reportAttributeAccessIssue]
    if chosen not in (None, "float32", "highest"):
        tolerance = max(tolerance, 16 * float(jnp.finfo(jnp.bfloat16).eps))
    largest = max(np.abs(r[np.isfinite(r)]).max(initial=0) for r in (*alone, ab, ba, aa))
    for what, one, other in (
        ("the same batch twice", ab, again),
        ("a sample twice in one batch", aa[0], aa[1]),
        ("a sample in the first and in the second place of a batch", ab, ba[::-1]),
        ("a sample alone and beside another", np.stack(alone), ab),
        ("a sample alone and beside itself", alone[0], aa[0]),
    ):
        finite = np.isfinite(one) & np.isfinite(other)  # the others get a status later
        apart = np.abs(one[finite] - other[finite]).max(initial=0)
        if apart > tolerance * largest:
            raise InputError(
                "a network whose samples do not influence each other",
                f"responses to {what} that differ by {apart:.3g}, of at most {largest:.3g}",
                _TRAINING,
            )


def _sample(response, number: int) -> PyTree:
    v = response.parametrization.init(jax.random.key(number), 1)
    return jax.tree.map(lambda a: CONTRASTS[number] * jnp.asarray(a), v)


def _join(*samples: PyTree) -> PyTree:
    return jax.tree.map(lambda *leaves: jnp.concatenate(leaves), *samples)


def _quickly() -> dict[str, Any] | None:
    """Returns options that halve XLA's compile time on the CPU; None on other backends."""
    return {"xla_backend_optimization_level": 0} if jax.default_backend() == "cpu" else None


def _dtypes(jaxpr) -> set:
    """Collects the floating dtypes in which a program computes; the coarsest one rounds most."""
    found = set()
    for eqn in jaxpr.eqns:
        for atom in eqn.outvars:
            dtype = getattr(atom.aval, "dtype", None)
            if dtype is not None and jnp.issubdtype(dtype, jnp.floating):
                found.add(jnp.dtype(dtype))
        for inner in independence.programs_inside(eqn):
            found |= _dtypes(inner)
    return found
