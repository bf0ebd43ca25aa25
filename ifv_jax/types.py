"""The words of the paper and the shapes they stand for.

Reinbold & Westermann, "Inverting the Feature Visualization Process for Feedforward Neural
Networks", arXiv 2007.10757. A leading batch axis (written `batch`) is added to everything but the
network's variables.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax

PyTree = Any
Device = Any
"""A `jax.Device`; JAX's own name is not usable as a type."""
ApplyFn = Callable[[PyTree, jax.Array], jax.Array]
"""A network up to the tapped layer: (variables, images (batch, H, W, C)) -> activations."""

AggregateFn = Callable[[jax.Array], jax.Array]
"""A: activations (batch, h, w, features) -> feature response (batch, features)."""


class Symbol(NamedTuple):
    """One row of the glossary."""

    symbol: str
    name: str
    equation: str


SYMBOLS = (
    Symbol("v", "v", "the parameters FV optimizes; any array, or pytree of arrays (Sec. 2)"),
    Symbol("phi", "Parametrization", "x = phi(v), onto the valid inputs (Sec. 2)"),
    Symbol("N", "ApplyFn", "network, up to the tapped layer (Sec. 2)"),
    Symbol("A", "AggregateFn", "activations -> one value per feature (Sec. 2.3)"),
    Symbol("f", "Response", "f = A . N . phi (Sec. 2)"),
    Symbol("r", "response", "feature response r = f(v) (Sec. 2)"),
    Symbol("J", "Jacobian.matrix", "Jacobian of f at v, n x m (Sec. 2)"),
    Symbol("t", "target", "target objective, |t| = 1 (Eq. 1)"),
    Symbol("k", "cosine_power", "power of the cosine term (Sec. 2)"),
    Symbol("S_k", "significance", "S_k(r, t) = <r, t> |cos(r, t)|^k (Sec. 2)"),
    Symbol("W", "weight_matrix", "W(r) = (k + 1) I - k rh rh^T, rh = r / |r| (Sec. 2.1)"),
    Symbol("C", "CriticalSpace.basis", "critical space, C = U^perp (Eq. 4)"),
    Symbol("U", "CriticalSpace.complement", "intersection over v of the cokernels of J (Eq. 4)"),
    Symbol("tau", "tau", "threshold on sigma / sigma_max (Algorithm 1)"),
    Symbol("sigma", "singular_values", "singular values of W J, ascending (Opt. 3)"),
    Symbol("a_i^2", "coefficients", "squared coefficients of t in the singular basis (Sec. 3.5)"),
)
