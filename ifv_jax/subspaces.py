"""Subspaces of feature space: their principal angles, and the merging of two into one.

A subspace is given by the orthonormal columns (n, u) of a basis; u = 0 is allowed. Only the span
matters. Bases are NumPy float64 on the host, because small angles need float64.

Source: A. V. Knyazev and M. E. Argentati, "Principal Angles between Subspaces in an A-Based Scalar
Product", SIAM J. Sci. Comput. 23(6), 2002. `principal_pairs` is Algorithm 3.1 with A = I.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float64

from ifv_jax.checks import InputError


def check_orthonormal(basis: Float64[np.ndarray, "n u"], name: str) -> None:
    """Checks that the columns of a basis are orthonormal within 1e-6.

    Args:
      basis: float64 (n, u).
      name: name of the subspace, for the message.

    Raises:
      InputError: they are not.
    """
    error = np.abs(basis.T @ basis - np.eye(basis.shape[1])).max(initial=0.0)
    if not error < 1e-6:  # also for NaN
        raise InputError(
            f"an orthonormal basis of {name}",
            f"inner products off by {error:.1g}",
            "Orthonormalize the columns, for instance with numpy.linalg.qr.",
        )


class PrincipalPairs(NamedTuple):
    """Pairs of unit vectors of two subspaces, in mutually orthogonal planes, by ascending angle.

    Attributes:
      angles: float64 (k,), radians in [0, pi / 2].
      left: float64 (n, k), orthonormal vectors of the first subspace.
      right: float64 (n, k), orthonormal vectors of the second subspace.
    """

    angles: Float64[np.ndarray, " k"]
    left: Float64[np.ndarray, "n k"]
    right: Float64[np.ndarray, "n k"]


def principal_pairs(p: Float64[np.ndarray, "n a"], q: Float64[np.ndarray, "n b"]) -> PrincipalPairs:
    """Computes principal angles and vectors of two subspaces (Knyazev & Argentati 2002).

    Angles below 45 degrees are computed from their sines and larger ones from their cosines,
    because cos(1e-9) rounds to one.

    Args:
      p: orthonormal basis of the first subspace, float64 (n, a).
      q: orthonormal basis of the second subspace, float64 (n, b).

    Returns:
      k = min(a, b) pairs.
    """
    if p.shape[1] < q.shape[1]:
        angles, right, left = principal_pairs(q, p)
        return PrincipalPairs(angles, left, right)
    _, sines, z = np.linalg.svd(q - p @ (p.T @ q), full_matrices=False)
    sines, z = sines[::-1], z[::-1].T
    small = int(np.sum(sines**2 < 0.5))
    right_small = q @ z[:, :small]
    left_small = p @ (p.T @ right_small)
    left_small /= np.linalg.norm(left_small, axis=0)  # the cosines, above 0.7
    # Deviation from the paper: the large angles are computed from the remainder of the small ones
    # instead of from a second decomposition of everything. Thus no pair is found twice, or missed,
    # at 45 degrees.
    rest = q @ z[:, small:]
    y, cosines, w = np.linalg.svd(p.T @ rest, full_matrices=False)
    angles = np.concatenate([np.arcsin(sines[:small]), np.arccos(np.clip(cosines, 0, 1))])
    return PrincipalPairs(
        angles, np.hstack([left_small, p @ y]), np.hstack([right_small, rest @ w.T])
    )


def merge(
    p: Float64[np.ndarray, "n a"],
    q: Float64[np.ndarray, "n b"],
    *,
    weight: float = 0.5,
    max_angle_deg: float = 45.0,
) -> Float64[np.ndarray, "n u"]:
    """Computes the middle of what two subspaces roughly have in common.

    Principal pairs with a large angle are dropped. The others are replaced by their spherical
    linear interpolation. The result is orthonormal because the pairs lie in mutually orthogonal
    planes.

    Args:
      p: orthonormal basis of the first subspace, float64 (n, a).
      q: orthonormal basis of the second subspace, float64 (n, b).
      weight: position of the result in [0, 1]; 0 gives p and 1 gives q.
      max_angle_deg: degrees in (0, 90]. Pairs of this angle or more are dropped.

    Returns:
      An orthonormal basis, float64 (n, u).
    """
    pairs = principal_pairs(p, q)
    near = pairs.angles < np.deg2rad(max_angle_deg)
    angles, left, right = pairs.angles[near], pairs.left[:, near], pairs.right[:, near]
    return left * _sine_ratio(1 - weight, angles) + right * _sine_ratio(weight, angles)


def _sine_ratio(fraction: float, angles: Float64[np.ndarray, " k"]) -> Float64[np.ndarray, " k"]:
    """Computes sin(fraction * angle) / sin(angle), which is `fraction` at angle 0."""
    return fraction * np.sinc(fraction * angles / np.pi) / np.sinc(angles / np.pi)
