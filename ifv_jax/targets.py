"""Target objectives t: unit vectors in feature space that Feature Visualization shall reach.

Sampled targets are non-negative, and their Hoyer sparseness is uniform on [0, 1]: it ranges from
all features at once to a single one. Source: P. O. Hoyer, "Non-negative Matrix Factorization with
Sparseness Constraints", JMLR 5 (2004), which defines sparseness in Sec. 3.1 and the projection in
Sec. 3.3 ("Projection Operator").

These functions run on the host, once per experiment, and `jax.jit` cannot trace them. Both the
draws and the projection use NumPy in float64 and are rounded to float32 at the end. Therefore
nothing is compiled, and a key gives the same targets on every device.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float, Float32, Float64

from ifv_jax.checks import InputError, as_host, check_indices, check_integer, check_key

LARGEST = 2**31
"""Largest number of entries in a batch of targets. It takes 16 GB to draw as many."""


def sample_targets(
    key: jax.Array,
    count: int,
    *,
    features: int,
    among: Sequence[int] | np.ndarray | None = None,
    canonical: int = 0,
) -> Float32[Array, "{count} {features}"]:
    """Samples targets whose sparseness is uniform on [0, 1] (Sec. 3.2 of the paper).

    Args:
      key: PRNG key.
      count: number of targets in all, >= 1.
      features: n, the dimension of feature space, >= 1.
      among: indices of the features to use, or None for all. The other features are zero, and the
        sparseness refers to the used ones alone. A single feature gives that canonical vector.
      canonical: number of targets, out of `count`, that are canonical vectors (sparseness 1) of
        different features drawn at random. They come last. The paper uses 150 of 300 for GN4c and
        10 of 300 for DNcl.

    Returns:
      float32 (count, features), non-negative rows of unit length. No feature is favoured: the
      distribution does not change when features are permuted.

    Raises:
      InputError: a count, an index or the key is not valid.
    """
    key_sparseness, key_point, key_canonical = jax.random.split(check_key(key), 3)
    count = check_integer(count, "count", least=1)
    features, chosen = _check_among(among, features)
    canonical = check_integer(canonical, "canonical", least=0)
    if canonical > min(count, chosen.size):
        raise InputError(
            f"at most {min(count, chosen.size)} canonical targets, all different",
            f"canonical={canonical} with count={count} and {chosen.size} features",
            "Lower `canonical`, or raise `count`, of which they are a part.",
        )
    _check_size(count, features)
    parts = []
    if count > canonical:
        sparseness = _generator(key_sparseness).random(count - canonical)
        parts.append(sample_sparse(key_point, sparseness, features=features, among=chosen))
    if canonical:
        which = np.argsort(_generator(key_canonical).random(chosen.size))[:canonical]
        parts.append(canonical_targets(chosen[which], features=features))
    return jnp.asarray(np.concatenate(parts))


def sample_sparse(
    key: jax.Array,
    sparseness: Float[ArrayLike, " count"],
    *,
    features: int,
    among: Sequence[int] | np.ndarray | None = None,
) -> Float32[Array, "count {features}"]:
    """Samples targets of given sparseness. `sample_targets` is built on this function.

    Args:
      key: PRNG key for the points that are projected.
      sparseness: (count,), each in [0, 1]. A single feature has no sparseness, and ignores it.
      features: n, the dimension of feature space, >= 1.
      among: indices of the features to use, or None for all, as in `sample_targets`.

    Returns:
      float32 (count, features), non-negative rows of unit length. Their sparseness over the used
      features is the given one within float32 rounding, well below 1e-5.

    Raises:
      InputError: a sparseness, an index or the key is not valid.
    """
    key = check_key(key)
    features, chosen = _check_among(among, features)
    sparseness = _check_sparseness(sparseness)
    # Hoyer leaves the distribution of the point open. Here its direction is uniform.
    point = _absolute_normal(_generator(key), (sparseness.size, chosen.size))
    targets = np.zeros((sparseness.size, features))
    targets[:, chosen] = project_sparseness(point, sparseness)
    return jnp.asarray(targets, jnp.float32)


def project_sparseness(
    points: Float[ArrayLike, "count n"], sparseness: Float[ArrayLike, " count"]
) -> Float64[np.ndarray, "count n"]:
    """Projects points onto the non-negative unit vectors of given sparseness (Hoyer, Sec. 3.3).

    Args:
      points: (count, n), finite.
      sparseness: (count,), each in [0, 1].

    Returns:
      float64 (count, n) with |t|_2 = 1 and |t|_1 = sqrt(n) - sparseness (sqrt(n) - 1). Where the
      constraint requires equal entries of a point to differ, their position decides.

    Raises:
      InputError: the shapes do not fit, or a value is not valid.
    """
    do = "Pass as many rows as there are values of sparseness."
    points = as_host(points, "points of shape (count, n), one for each sparseness", do)
    sparseness = _check_sparseness(sparseness)
    if points.ndim != 2 or points.shape[0] != sparseness.size or points.shape[1] < 1:
        raise InputError(
            f"points of shape ({sparseness.size}, n), one for each sparseness",
            f"shape {points.shape}",
            do,
        )
    if not np.isfinite(points).all():
        raise InputError("finite points", "NaN or infinity", "Drop those rows first.")
    n = points.shape[1]
    length1 = (np.sqrt(n) - sparseness * (np.sqrt(n) - 1))[:, None]

    kept = np.ones(points.shape, bool)  # entries not yet fixed at zero
    s = points + (length1 - points.sum(1, keepdims=True)) / n  # onto the plane sum(s) = |t|_1
    for _ in range(n):
        # The sphere |s|_2 = 1 and the plane of the kept entries intersect in a smaller sphere
        # around the plane's midpoint. Since s - midpoint is orthogonal to the midpoint, the
        # quadratic equation of the paper for the step alpha has this closed solution.
        size = kept.sum(1, keepdims=True)
        midpoint = np.where(kept, length1 / size, 0.0)
        away = np.where(kept, s - midpoint, 0.0)
        away = np.where(_length(away) > 1e-14, away, _tie_break(kept))
        radius = np.sqrt(np.maximum(0.0, 1 - length1**2 / size))
        s = midpoint + away * radius / np.maximum(_length(away), 1e-300)
        negative = s < 0
        if not negative.any():
            break
        kept &= ~negative
        # Back onto the plane sum(s) = |t|_1, now among fewer entries.
        s = np.where(kept, s, 0.0)
        excess = (s.sum(1, keepdims=True) - length1) / kept.sum(1, keepdims=True)
        s = np.where(kept, s - excess, 0.0)
    s = np.where(s > 1e-14, s, 0.0)  # smaller entries are rounding errors
    return s / _length(s)


def canonical_targets(
    indices: Sequence[int] | np.ndarray, *, features: int
) -> Float32[Array, "count {features}"]:
    """Makes canonical vectors, which have one feature each and sparseness 1.

    Args:
      indices: the feature of each target, distinct integers in [0, features).
      features: n, the dimension of feature space, >= 1.

    Returns:
      float32 (len(indices), features).

    Raises:
      InputError: indices are not integers, repeat, or lie outside [0, features).
    """
    features = check_integer(features, "features", least=1)
    chosen = list(check_indices(indices, "indices", count=features))
    _check_size(len(chosen), features)
    targets = np.zeros((len(chosen), features), np.float32)
    targets[np.arange(len(chosen)), chosen] = 1
    return jnp.asarray(targets)


def random_targets(
    key: jax.Array, count: int, *, features: int
) -> Float32[Array, "{count} {features}"]:
    """Samples directions uniformly on the non-negative part of the unit sphere.

    They are the random baseline: guesses made without any knowledge of the input. Unlike those of
    `sample_targets`, they are hardly ever sparse.

    Args:
      key: PRNG key.
      count: number of directions, >= 1.
      features: n, the dimension of feature space, >= 1.

    Returns:
      float32 (count, features), non-negative rows of unit length.

    Raises:
      InputError: a count or the key is not valid.
    """
    count = check_integer(count, "count", least=1)
    features = check_integer(features, "features", least=1)
    _check_size(count, features)
    # The direction of a normal vector is uniform on the sphere; reflecting it keeps it uniform.
    point = _absolute_normal(_generator(check_key(key)), (count, features))
    point[_length(point)[:, 0] == 0] = 1  # hardly ever happens, even for n = 1
    return jnp.asarray(point / _length(point), jnp.float32)


def hoyer_sparseness(t: Float[ArrayLike, "*batch n"]) -> Float64[np.ndarray, "*batch"]:
    """Computes (sqrt(n) - |t|_1 / |t|_2) / (sqrt(n) - 1), Hoyer's sparseness (Sec. 3.1).

    Args:
      t: (..., n) with n >= 2, of any length, but finite and not zero.

    Returns:
      float64 (...), in [0, 1] up to rounding: 0 if all features are equal, 1 for a single one.

    Raises:
      InputError: the sparseness of a vector is not defined.
    """
    t = as_host(t, "vectors (..., n) over n >= 2 features", "Pass an array of them.")
    if t.ndim < 1 or t.shape[-1] < 2:
        raise InputError(
            "vectors (..., n) over n >= 2 features",
            f"shape {t.shape}",
            "One feature has no sparseness.",
        )
    length = np.linalg.norm(t, axis=-1)
    if not (np.isfinite(length) & (length > 0)).all():
        raise InputError(
            "finite vectors that are not zero",
            "a zero or non-finite vector",
            "Drop it first: its sparseness is not defined.",
        )
    root = np.sqrt(t.shape[-1])
    return (root - np.abs(t).sum(-1) / length) / (root - 1)


def _generator(key: jax.Array) -> np.random.Generator:
    """Makes a NumPy generator whose stream is determined by the words of a JAX key."""
    words = np.asarray(jax.random.key_data(key)).tolist()
    return np.random.Generator(np.random.Philox(np.random.SeedSequence(words)))


def _absolute_normal(generator: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
    """Draws |N(0, 1)| by inversion, because NumPy may change the stream of its normal draws."""
    from scipy.special import ndtri  # The import takes half a second, so it waits until here.

    return ndtri((1 + generator.random(shape)) / 2)


def _length(rows: np.ndarray) -> np.ndarray:
    return np.linalg.norm(rows, axis=1, keepdims=True)


def _tie_break(kept: np.ndarray) -> np.ndarray:
    """Returns a direction of zero sum that raises the first kept entry of each row."""
    first = kept & (np.cumsum(kept, axis=1) == 1)
    return np.where(kept, first - 1.0 / kept.sum(1, keepdims=True), 0.0)


def _check_size(count: int, features: int) -> None:
    if count * features > LARGEST:
        raise InputError(
            f"at most {LARGEST:g} numbers in all",
            f"{count} targets over {features} features",
            "Draw fewer at a time.",
        )


def _check_among(among, features) -> tuple[int, np.ndarray]:
    """Returns the number of features and the indices of the used ones, all by default."""
    features = check_integer(features, "features", least=1, most=LARGEST)
    if among is None:
        return features, np.arange(features)
    return features, np.asarray(check_indices(among, "among", count=features))


def _check_sparseness(sparseness) -> np.ndarray:
    expected = "sparseness of shape (count,), each in [0, 1]"
    do = "0 means all features alike, 1 a single feature."
    array = as_host(sparseness, expected, do)
    if array.ndim != 1 or array.size == 0 or not ((array >= 0) & (array <= 1)).all():
        raise InputError(
            expected,
            f"shape {array.shape}"
            + (f", {array.min():g} to {array.max():g}" if array.size else ""),
            do,
        )
    return array
