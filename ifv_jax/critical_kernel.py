"""Algorithm 1: the directions of feature space to which no input responds (Eq. 4, Sec. 2.2).

If J(v)^T u = 0 for every v, then u is a trivial solution of the inversion, and objectives are
determined only up to multiples of u. U is the space of such u, and C is its orthogonal complement.
Algorithm 1 approximates U from sampled Jacobians for one threshold tau. The search over tau is in
`ifv_jax.critical_candidates`. Everything runs on the host in float64, because the matrices are
n x n and the number of vectors differs from sample to sample.
"""

from collections.abc import Sequence
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import ArrayLike, Float64

from ifv_jax.checks import InputError, as_host, check_key, check_kind, check_real, describe
from ifv_jax.subspaces import merge

Tree = Literal["balanced", "sequential"]
"""How subspaces are merged, see `approximate_kernel`."""

Order = jax.Array | np.ndarray | Sequence[int] | None
"""The order of merging: a permutation, a PRNG key to draw one, or None."""


class Spectra(NamedTuple):
    """Left singular vectors and singular values of N Jacobians, by ascending singular value.

    Attributes:
      vectors: float64 (N, n, n); vectors[i, :, j] belongs to values[i, j].
      values: float64 (N, n), >= 0.
    """

    vectors: Float64[np.ndarray, "samples n n"]
    values: Float64[np.ndarray, "samples n"]

    @property
    def quotients(self) -> Float64[np.ndarray, "samples n"]:
        """sigma_ij / sigma_max,i in [0, 1], float64 (N, n); zero for a Jacobian that is zero."""
        largest = self.values[:, -1:]
        return np.where(largest > 0, self.values / np.where(largest > 0, largest, 1), 0.0)


def spectra(gram: Float64[ArrayLike, "samples n n"]) -> Spectra:
    """Computes singular values and left singular vectors of Jacobians from their Gram matrices.

    Args:
      gram: float64 (N, n, n), J_i J_i^T for each sample, or (W J)(W J)^T if Algorithm 1 shall see
        W J.

    Returns:
      The spectra. Values below about 1e-7 of the largest are rounding errors, even in float64.

    Raises:
      InputError: the shape or dtype is another one, or a matrix is not finite or not symmetric.
    """
    do = "Pass J @ J.T for each sample, stacked, such as `linearize_all(...).gram`."
    as_host(gram, "Gram matrices of shape (N, n, n), N >= 1", do)
    gram = np.asarray(gram)
    if gram.ndim != 3 or gram.shape[1] != gram.shape[2] or 0 in gram.shape:
        raise InputError(
            "Gram matrices of shape (N, n, n), N >= 1",
            f"shape {gram.shape}",
            do,
        )
    if gram.dtype != np.float64:
        raise InputError(
            "Gram matrices in float64",
            f"dtype {gram.dtype}",
            "Squaring J in float32 loses the small singular values: compute it in float64.",
        )
    bad = np.flatnonzero(~np.isfinite(gram).all(axis=(1, 2)))
    if bad.size:
        raise InputError(
            "finite Gram matrices",
            f"NaN or infinity in sample {bad[0]} ({bad.size} such)",
            "Drop the samples whose Jacobian is not finite.",
        )
    transposed = gram.transpose(0, 2, 1)
    scale = np.abs(gram).max(axis=(1, 2), keepdims=True)
    if (np.abs(gram - transposed) > 1e-6 * scale).any():
        raise InputError(
            "symmetric Gram matrices", "one that is not", "Pass J @ J.T, not J or J.T @ J."
        )
    # Scaled, so that tiny Jacobians do not lead to denormal numbers.
    scale = np.where(scale > 0, scale, 1.0)
    squares, vectors = np.linalg.eigh((gram / 2 + transposed / 2) / scale)
    return Spectra(vectors, np.sqrt(np.maximum(squares, 0.0)) * np.sqrt(scale[:, :, 0]))


def check_spectra(spectra) -> Spectra:
    """Checks that the arrays of `Spectra` fit each other.

    Args:
      spectra: the value to check.

    Returns:
      The same value.

    Raises:
      InputError: it is not a `Spectra`, or the shapes of its arrays do not fit.
    """
    do = "Make them with `ifv_jax.spectra`."
    check_kind(spectra, Spectra, "spectra", do)
    vectors, values = np.shape(spectra.vectors), np.shape(spectra.values)
    if len(values) != 2 or 0 in values or vectors != (*values, values[1]):
        got = f"shapes {vectors} and {values}"
        raise InputError("vectors (N, n, n) and values (N, n) of Spectra", got, do)
    return spectra


def approximate_kernel(
    spectra: Spectra,
    tau: float,
    *,
    order: Order = None,
    tree: Tree = "balanced",
    max_angle_deg: float = 45.0,
) -> Float64[np.ndarray, "n u"]:
    """Runs Algorithm 1, which finds the subspace U on which all Jacobians nearly vanish.

    Args:
      spectra: singular vectors and values of N Jacobians.
      tau: threshold >= 0. U_i is spanned by the vectors with sigma_ij <= tau * sigma_max,i. A
        Jacobian that is zero restricts nothing.
      order: order of merging, on which the result depends: a permutation of N integers, a PRNG key
        to draw one, or None for the order of the samples.
      tree: "balanced" merges neighbours, then neighbours among the results, and so on; a subspace
        without a neighbour waits for the next level. "sequential" merges each subspace into the
        result so far.
      max_angle_deg: degrees in (0, 90]. Pairs of this principal angle or more are dropped.

    Returns:
      An orthonormal basis of U, float64 (n, u); u may be 0.

    Raises:
      InputError: the threshold, order, tree or angle is not valid.
    """
    check_spectra(spectra)
    do = "Useful ones lie between 1e-6 and 0.1."
    tau = check_real(tau, "tau", "a threshold tau >= 0", least=0, do=do)
    if not isinstance(tree, str) or tree not in ("balanced", "sequential"):
        raise InputError('tree "balanced" or "sequential"', repr(tree), "Choose one of them.")
    do = "The default is 45."
    max_angle_deg = check_real(
        max_angle_deg, "max_angle_deg", "degrees in (0, 90]", above=0, most=90, do=do
    )
    samples, n, _ = spectra.vectors.shape
    permutation = merge_order(order, samples)
    inside = spectra.quotients <= tau
    if not inside.any(axis=1).all():  # one U_i is empty, so the result is
        return np.zeros((n, 0))

    # (subspace, number of the U_i merged into it)
    level = [(spectra.vectors[i][:, inside[i]], 1) for i in permutation]
    while len(level) > 1:
        pairs = len(level) // 2 if tree == "balanced" else 1
        merged = []
        for (p, count_p), (q, count_q) in zip(
            level[: 2 * pairs : 2], level[1 : 2 * pairs : 2], strict=True
        ):
            weight = count_q / (count_p + count_q)
            both = merge(p, q, weight=weight, max_angle_deg=max_angle_deg)
            if both.shape[1] == 0:
                return both
            merged.append((both, count_p + count_q))
        level = merged + level[2 * pairs :]
    # Rounding errors of the mergers add up. This is the closest orthonormal basis of the span.
    left, _, right = np.linalg.svd(level[0][0], full_matrices=False)
    return left @ right


def merge_order(order: Order, samples: int) -> np.ndarray:
    """Turns an order of merging into a permutation.

    Args:
      order: a permutation, which is checked, a PRNG key to draw one, or None for the identity.
      samples: N, the number of samples.

    Returns:
      Integers (N,) that contain each of 0..N-1 once.

    Raises:
      InputError: `order` is none of these.
    """
    if order is None:
        return np.arange(samples)
    do = "Pass None, a permutation such as numpy.random.permutation(N), or a PRNG key."
    dtype = getattr(order, "dtype", None)
    typed = dtype is not None and jnp.issubdtype(dtype, jax.dtypes.prng_key)
    if typed or (isinstance(order, jax.Array) and dtype == jnp.uint32):
        return np.asarray(jax.random.permutation(check_key(order), samples))
    expected = f"a merge order that holds each of 0..{samples - 1} once"
    as_host(order, expected, do)
    permutation = np.asarray(order)
    if (
        permutation.dtype.kind not in "iu"
        or permutation.shape != (samples,)
        or not np.array_equal(np.sort(permutation), np.arange(samples))
    ):
        raise InputError(
            expected,
            describe(order),
            do,
        )
    return permutation
