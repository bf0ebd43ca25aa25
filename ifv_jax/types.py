"""Types of the public interface, and the glossary of the paper's symbols.

Source: Reinbold & Westermann, "Inverting the Feature Visualization Process for Feedforward Neural
Networks", arXiv 2007.10757. Unlike in the paper, everything but the network's variables has a
leading batch axis, written `batch`.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax

PyTree = Any
"""Nested containers of arrays, as JAX understands them."""

Device = Any
"""A `jax.Device`, which type checkers do not accept as a type."""

ApplyFn = Callable[[PyTree, jax.Array], jax.Array]
"""A network up to the tapped layer: (variables, images (batch, H, W, C)) -> activations."""

AggregateFn = Callable[[jax.Array], jax.Array]
"""The aggregation A: activations (batch, h, w, features) -> feature response (batch, features)."""


class Symbol(NamedTuple):
    """One row of the glossary.

    Attributes:
      symbol: the symbol in the paper.
      name: its name in the code.
      equation: its meaning, and where the paper defines it.
    """

    symbol: str
    name: str
    equation: str


SYMBOLS = (
    Symbol("v", "v", "the parameters FV optimizes; any array, or pytree of arrays (Sec. 2)"),
    Symbol("phi", "Parametrization", "x = phi(v), onto the valid inputs (Sec. 2)"),
    Symbol("N", "ApplyFn", "the network up to the tapped layer (Sec. 2)"),
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
"""The glossary."""
