"""Subspaces of feature space: the critical space as a value, and the merging of two subspaces.

A subspace is an orthonormal basis (n, u) in columns, u = 0 allowed. Which basis means nothing:
compare projectors. Bases are NumPy float64 on the host, since small angles want float64; only
`project` and `fraction_outside` are JAX functions, and can be traced. How a critical space is found
is in `ifv_jax.critical_kernel`.

A. V. Knyazev and M. E. Argentati, "Principal Angles between Subspaces in an A-Based Scalar
Product", SIAM J. Sci. Comput. 23(6), 2002: Algorithm 3.1 with A = I is `principal_pairs`.
"""

import os
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ifv_jax.checks import (
    InputError,
    as_array,
    as_host,
    check_integer,
    check_kind,
    check_real,
    describe,
)

_FILE_FORMAT = 1

MOST_FEATURES = 50_000
"""Its square in float64 takes 20 GB: a larger number is a mistake."""


class CriticalSpace(NamedTuple):
    """An orthogonal decomposition of feature space into C and U; a pytree of host arrays."""

    basis: np.ndarray  # B, float64 (n, d): orthonormal basis of C, d = n - u >= 1
    complement: np.ndarray  # float64 (n, u): orthonormal basis of U
    tau: float  # threshold of Algorithm 1 that gave U; NaN if it did not
    offset: np.ndarray  # float64 (u,): median |<rh, u_j>| over samples, in [0, 1]; NaN if unknown


def critical_space_from_complement(
    complement, *, response=None, tau: float = float("nan")
) -> CriticalSpace:
    """The critical space orthogonal to U.

    Args:
      complement: (n, u), orthonormal basis of U within 1e-6; 0 <= u < n.
      response: (N, n), responses r_i, for `offset`. The basis of U is then rotated so that its
        vectors explain as much of the rh_i = r_i / |r_i| as they can, the first one most: since
        <r, u> is constant for each u in U, a single vector then carries all of the offset. Samples
        with r_i = 0 are left out. None: offsets are NaN.
      tau: threshold that gave U, for the record.

    Restricting the inversion to C is exact where k = 0 or the offset is 0; it is off by a few
    degrees for an offset of a few percent (a class that was never seen, with a constant logit far
    from zero), and breaks down for a large one.
    Raises: `InputError` if U is not orthonormal, has no complement, or does not fit the responses.
    """
    do = "Vectors are columns, and something has to be left for the critical space."
    complement = as_host(complement, "a basis of U of shape (n, u) with u < n", do)
    if complement.ndim != 2 or complement.shape[1] >= complement.shape[0]:
        raise InputError(
            "a basis of U of shape (n, u) with u < n",
            f"shape {complement.shape}",
            do,
        )
    _check_orthonormal(complement, "U")
    n, u = complement.shape
    tau = _check_tau(tau)
    offset = np.full(u, np.nan)
    if response is not None:
        do = "Pass the responses of the samples whose Jacobians gave U."
        response = as_host(response, f"finite responses of shape (N, {n})", do)
        if response.ndim != 2 or response.shape[1] != n or not np.isfinite(response).all():
            raise InputError(
                f"finite responses of shape (N, {n})",
                f"shape {response.shape}, finite: {np.isfinite(response).all()}",
                do,
            )
        length = np.linalg.norm(response, axis=1, keepdims=True)
        along = (response / np.where(length > 0, length, 1))[length[:, 0] > 0] @ complement
        if along.size:
            rotation = np.linalg.svd(along)[2].T
            complement = complement @ rotation
            offset = np.median(np.abs(along @ rotation), axis=0)
    # The sign of a basis vector means nothing; fixed, so that it does not depend on LAPACK.
    largest = np.abs(complement).argmax(axis=0)
    complement = complement * np.where(complement[largest, np.arange(u)] < 0, -1.0, 1.0)
    basis = np.linalg.qr(complement, mode="complete")[0][:, u:] if u else np.eye(n)
    return CriticalSpace(basis, complement, tau, offset)


def _check_tau(tau) -> float:
    if isinstance(tau, float) and np.isnan(tau):  # unknown
        return float("nan")
    return check_real(
        tau, "tau", "a threshold >= 0, or NaN where none is known", least=0, do="Leave it out."
    )


def full_space(features: int) -> CriticalSpace:
    """All of feature space as critical space: no trivial solutions, U = 0 and B = I."""
    features = check_integer(features, "number of features", least=1, most=MOST_FEATURES)
    return critical_space_from_complement(np.zeros((features, 0)))


def check_critical_space(space) -> CriticalSpace:
    """A `CriticalSpace` whose arrays fit each other; only shapes are looked at."""
    do = "Make one with `critical_space_from_complement`, `choose_space` or `load_space`."
    check_kind(space, CriticalSpace, "space", do)
    basis, complement = np.shape(space.basis), np.shape(space.complement)
    fits = len(basis) == len(complement) == 2 and basis[0] == complement[0]
    if not fits or basis[1] + complement[1] != basis[0]:
        got = f"arrays of shape {basis} and {complement}"
        raise InputError("a critical space: basis (n, d), complement (n, n - d)", got, do)
    return space


def project(space: CriticalSpace, t) -> jax.Array:
    """Directions projected onto C and renormalized: what of an objective can be recovered.

    Args: t: (..., n), of any length.
    Returns: (..., n) in the dtype of t, unit length. Zero where t is zero or, up to rounding, in U
      (there is no direction then); not finite where t is not.
    Raises: `InputError` if t is over another number of features.
    """
    t = _directions(space, t)
    return _project(jnp.asarray(space.basis), t)


def fraction_outside(space: CriticalSpace, t) -> jax.Array:
    """|P_U t|^2 / |t|^2, in [0, 1]: the part of an objective that FV cannot show.

    Args: t: (..., n). Returns: (...), in the dtype of t; 0 where t is zero, NaN where not finite.
    Raises: `InputError` if t is over another number of features.
    """
    t = _directions(space, t)
    return _fraction_outside(jnp.asarray(space.complement), t)


@jax.jit
def _project(basis: jax.Array, t: jax.Array) -> jax.Array:
    basis, t = basis.astype(t.dtype), _scaled(t)
    inner = _matmul(t, basis)
    inner2 = jnp.sum(inner * inner, axis=-1, keepdims=True)
    rounding = 16 * jnp.finfo(t.dtype).eps * t.shape[-1] ** 0.5
    nothing = inner2 <= rounding**2 * jnp.sum(t * t, axis=-1, keepdims=True)  # NaN stays NaN
    return jnp.where(nothing, 0, _matmul(inner, basis.T) / jnp.sqrt(jnp.where(nothing, 1, inner2)))


@jax.jit
def _fraction_outside(complement: jax.Array, t: jax.Array) -> jax.Array:
    t = _scaled(t)
    outer, total = _matmul(t, complement.astype(t.dtype)), jnp.sum(t * t, axis=-1)
    return jnp.sum(outer * outer, axis=-1) / jnp.where(total == 0, 1, total)


def _directions(space: CriticalSpace, t) -> jax.Array:
    n = check_critical_space(space).basis.shape[0]
    expected = f"directions (..., {n}) over the features of the critical space"
    do = "Use the critical space that was found for this network and layer."
    t = as_array(t, expected, do)
    if t.ndim < 1 or t.shape[-1] != n:
        raise InputError(expected, f"shape {t.shape}", do)
    return t if jnp.issubdtype(t.dtype, jnp.floating) else t.astype(jnp.float32)


def _scaled(t: jax.Array) -> jax.Array:
    """t with a largest entry of 1, so that squares neither overflow nor underflow."""
    largest = jnp.max(jnp.abs(t), axis=-1, keepdims=True)
    return t / jnp.where(largest > 0, largest, 1)


def _matmul(a: jax.Array, b: jax.Array) -> jax.Array:
    # GPUs would otherwise round the factors to TF32, ten bits.
    return jnp.matmul(a, b, precision=jax.lax.Precision.HIGHEST)


def save_space(path: str | os.PathLike, space: CriticalSpace) -> None:
    """Write a critical space as an npz file, whole or not at all; replaces an existing file."""
    path = _file(path)
    check_critical_space(space)
    partial = f"{path}.partial"
    try:
        with open(partial, "wb") as file:
            np.savez(file, format=_FILE_FORMAT, **space._asdict())
        os.replace(partial, path)
    except OSError as error:
        raise InputError(
            "a file that can be written",
            f"{path} ({error.strerror})",
            "Name a file in a folder that exists and is yours.",
        ) from error


def _file(path) -> str:
    if not isinstance(path, str | os.PathLike) or not os.fspath(path):
        raise InputError("the name of a file as `path`", describe(path), 'Pass e.g. "space.npz".')
    return os.path.expanduser(os.fsdecode(path))


def load_space(path: str | os.PathLike, *, features: int | None = None) -> CriticalSpace:
    """Read a critical space that `save_space` wrote.

    Args: features: the n that is needed; None takes any.
    Raises: `InputError` for a file that is missing, damaged, of another kind, or over another n.
    """
    path = _file(path)
    if features is not None:
        features = check_integer(features, "features", least=1)
    wanted = f"a critical space at {path}"
    again = "Write it with `ifv_jax.save_space`."
    try:
        # Opened here, because `numpy.load` leaves a damaged file open.
        with open(path, "rb") as opened, np.load(opened, allow_pickle=False) as file:
            values = {name: file[name] for name in ("format", *CriticalSpace._fields)}
    except FileNotFoundError as error:
        raise InputError(wanted, "no such file", again) from error
    except Exception as error:  # a damaged archive can raise almost anything
        raise InputError(wanted, f"something unreadable ({error!r})", again) from error
    if values["format"].shape != () or values["format"] != _FILE_FORMAT:
        raise InputError(f"file format {_FILE_FORMAT}", f"{values['format']}", again)
    basis, complement, offset = values["basis"], values["complement"], values["offset"]
    n = basis.shape[0] if basis.ndim == 2 else -1
    fits = complement.ndim == 2 and complement.shape[0] == n and values["tau"].shape == ()
    if (
        not fits
        or complement.shape[1] + basis.shape[1] != n
        or offset.shape != complement.shape[1:]
    ):
        raise InputError(wanted, f"arrays of shape {basis.shape} and {complement.shape}", again)
    if features is not None and n != features:
        raise InputError(
            f"a critical space over {features} features",
            f"one over {n} in {path}",
            "Load the one that was found for this network and layer.",
        )
    _check_orthonormal(np.hstack([basis, complement]), "C and U")
    return CriticalSpace(basis, complement, float(values["tau"]), offset)


def _check_orthonormal(basis: np.ndarray, name: str) -> None:
    error = np.abs(basis.T @ basis - np.eye(basis.shape[1])).max(initial=0.0)
    if not error < 1e-6:  # also for NaN
        raise InputError(
            f"an orthonormal basis of {name}",
            f"inner products off by {error:.1g}",
            "Orthonormalize the columns, for instance with numpy.linalg.qr.",
        )


class PrincipalPairs(NamedTuple):
    """Pairs of unit vectors of two subspaces, in mutually orthogonal planes, by ascending angle."""

    angles: np.ndarray  # float64 (k,), radians in [0, pi / 2]
    left: np.ndarray  # float64 (n, k), orthonormal
    right: np.ndarray  # float64 (n, k), orthonormal


def principal_pairs(p: np.ndarray, q: np.ndarray) -> PrincipalPairs:
    """Principal angles and vectors of two subspaces (Knyazev & Argentati 2002).

    Args: p: (n, a), q: (n, b), orthonormal, float64.
    Returns: `PrincipalPairs` with k = min(a, b).

    cos(1e-9) rounds to one: angles below 45 degrees are taken from their sines, those above from
    their cosines.
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
    # Unlike in the paper the large angles come from what the small ones left over, not from a
    # second decomposition of everything: so no pair is met twice, or lost, at 45 degrees.
    rest = q @ z[:, small:]
    y, cosines, w = np.linalg.svd(p.T @ rest, full_matrices=False)
    angles = np.concatenate([np.arcsin(sines[:small]), np.arccos(np.clip(cosines, 0, 1))])
    return PrincipalPairs(
        angles, np.hstack([left_small, p @ y]), np.hstack([right_small, rest @ w.T])
    )


def merge(
    p: np.ndarray, q: np.ndarray, *, weight: float = 0.5, max_angle_deg: float = 45.0
) -> np.ndarray:
    """The middle of what two subspaces roughly have in common: (n, a), (n, b) -> (n, u).

    Principal pairs of `max_angle_deg` (degrees, in (0, 90]) or more are dropped; the others are
    replaced by their spherical linear interpolation, `weight` = 0 giving p and 1 giving q. The
    result is orthonormal because the pairs lie in mutually orthogonal planes.
    """
    pairs = principal_pairs(p, q)
    near = pairs.angles < np.deg2rad(max_angle_deg)
    angles, left, right = pairs.angles[near], pairs.left[:, near], pairs.right[:, near]
    return left * _sine_ratio(1 - weight, angles) + right * _sine_ratio(weight, angles)


def _sine_ratio(fraction: float, angles: np.ndarray) -> np.ndarray:
    """sin(fraction * angle) / sin(angle), with its limit `fraction` at angle 0."""
    return fraction * np.sinc(fraction * angles / np.pi) / np.sinc(angles / np.pi)
