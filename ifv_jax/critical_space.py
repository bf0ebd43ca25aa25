"""The critical space as a value: making, applying, saving and loading it.

Feature space is the orthogonal sum of the critical space C and its complement U. Both are given by
orthonormal columns, of which only the span matters: compare projectors. The bases are NumPy float64
on the host. `project` and `fraction_outside` are JAX functions and can be traced. Algorithm 1,
which finds critical spaces, is in `ifv_jax.critical_kernel`.
"""

import os
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float, Float64

from ifv_jax.checks import (
    InputError,
    as_array,
    as_host,
    check_integer,
    check_kind,
    check_real,
    describe,
)
from ifv_jax.subspaces import check_orthonormal

_FILE_FORMAT = 1

MOST_FEATURES = 50_000
"""Largest n of `full_space`. Its square in float64 takes 20 GB."""


class CriticalSpace(NamedTuple):
    """An orthogonal decomposition of feature space into C and U; a pytree of host arrays.

    Attributes:
      basis: B, an orthonormal basis of C, float64 (n, d) with d = n - u >= 1.
      complement: an orthonormal basis of U, float64 (n, u).
      tau: threshold of Algorithm 1 that gave U, or NaN if U came from elsewhere.
      offset: median of |<rh, u_j>| over samples, float64 (u,) in [0, 1], or NaN if unknown.
    """

    basis: Float64[np.ndarray, "n d"]
    complement: Float64[np.ndarray, "n u"]
    tau: float
    offset: Float64[np.ndarray, " u"]


def critical_space_from_complement(
    complement: Float[ArrayLike, "n u"],
    *,
    response: Float[ArrayLike, "samples n"] | None = None,
    tau: float = float("nan"),
) -> CriticalSpace:
    """Makes the critical space that is orthogonal to U.

    Restricting the inversion to C is exact where k = 0 or the offset is 0. An offset of a few
    percent costs a few degrees; such an offset arises for a class that was never seen and has a
    constant logit far from zero. For a large offset the restriction breaks down.

    Args:
      complement: basis of U, (n, u) with 0 <= u < n, orthonormal within 1e-6.
      response: responses r_i, (N, n), from which `offset` is computed; None leaves it NaN. The
        basis of U is rotated such that its vectors explain as much of the rh_i = r_i / |r_i| as
        possible, the first one most. Since <r, u> is constant for each u in U, a single vector then
        carries the whole offset. Samples with r_i = 0 are left out.
      tau: threshold that gave U, for the record.

    Returns:
      The critical space.

    Raises:
      InputError: U is not orthonormal, is all of feature space, or does not fit the responses.
    """
    do = "Vectors are columns, and something has to be left for the critical space."
    complement = as_host(complement, "a basis of U of shape (n, u) with u < n", do)
    if complement.ndim != 2 or complement.shape[1] >= complement.shape[0]:
        raise InputError(
            "a basis of U of shape (n, u) with u < n",
            f"shape {complement.shape}",
            do,
        )
    check_orthonormal(complement, "U")
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
    # The sign of a basis vector is arbitrary. It is fixed, so that it does not depend on LAPACK.
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
    """Makes all of feature space the critical space: no trivial solutions, U = 0 and B = I.

    Args:
      features: n, the dimension of feature space.

    Returns:
      The critical space.

    Raises:
      InputError: n is not an integer in [1, MOST_FEATURES].
    """
    features = check_integer(features, "number of features", least=1, most=MOST_FEATURES)
    return critical_space_from_complement(np.zeros((features, 0)))


def check_critical_space(space) -> CriticalSpace:
    """Checks that the arrays of a `CriticalSpace` fit each other. Only shapes are compared.

    Args:
      space: the value to check.

    Returns:
      The same value.

    Raises:
      InputError: it is not a `CriticalSpace`, or its shapes do not fit.
    """
    do = "Make one with `critical_space_from_complement`, `choose_space` or `load_space`."
    check_kind(space, CriticalSpace, "space", do)
    basis, complement = np.shape(space.basis), np.shape(space.complement)
    fits = len(basis) == len(complement) == 2 and basis[0] == complement[0]
    if not fits or basis[1] + complement[1] != basis[0]:
        got = f"arrays of shape {basis} and {complement}"
        raise InputError("a critical space: basis (n, d), complement (n, n - d)", got, do)
    return space


def project(space: CriticalSpace, t: Float[ArrayLike, "*batch n"]) -> Float[Array, "*batch n"]:
    """Projects directions onto C and renormalizes them: the part of an objective to recover.

    Args:
      space: the critical space.
      t: directions (..., n) of any length.

    Returns:
      Unit vectors (..., n) in the dtype of t. A vector is zero where t is zero or, up to rounding,
      in U, because no direction is left there. It is not finite where t is not.

    Raises:
      InputError: t is over another number of features.
    """
    t = _directions(space, t)
    return _project(jnp.asarray(space.basis), t)


def fraction_outside(
    space: CriticalSpace, t: Float[ArrayLike, "*batch n"]
) -> Float[Array, "*batch"]:
    """Computes |P_U t|^2 / |t|^2, the part of an objective that FV cannot show.

    Args:
      space: the critical space.
      t: directions (..., n) of any length.

    Returns:
      Fractions (...) in [0, 1], in the dtype of t; 0 where t is zero, NaN where t is not finite.

    Raises:
      InputError: t is over another number of features.
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
    """Scales t to a largest entry of 1, so that squares neither overflow nor underflow."""
    largest = jnp.max(jnp.abs(t), axis=-1, keepdims=True)
    return t / jnp.where(largest > 0, largest, 1)


def _matmul(a: jax.Array, b: jax.Array) -> jax.Array:
    # Otherwise GPUs round the factors to TF32, which has ten bits.
    return jnp.matmul(a, b, precision=jax.lax.Precision.HIGHEST)


def save_space(path: str | os.PathLike, space: CriticalSpace) -> None:
    """Writes a critical space as an npz file, whole or not at all.

    Args:
      path: the file, which is replaced if it exists.
      space: the critical space.

    Raises:
      InputError: the file cannot be written, or an argument is of another kind.
    """
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
    """Reads a critical space that `save_space` wrote.

    Args:
      path: the file.
      features: the required number of features n; None accepts any.

    Returns:
      The critical space.

    Raises:
      InputError: the file is missing, damaged, of another kind, or over another n.
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
    check_orthonormal(np.hstack([basis, complement]), "C and U")
    return CriticalSpace(basis, complement, float(values["tau"]), offset)
