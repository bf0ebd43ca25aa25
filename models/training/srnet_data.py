"""Pairs of geometry images in low and high resolution, of random views of volumes."""

import functools
import hashlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np

from models import weights_io
from models.srnet import SCALE
from models.training import isosurface, volumes
from models.training.volumes import Volume

TEST_VOLUMES = ("engine", "neghip", "tooth")
"""Names of volumes that are never trained on."""

LEAST_FILLED = 0.5
"""Smallest part of a crop that a surface fills. For a view it is half of that."""

ISOVALUES = (0.8, 1.25)
"""Range of factors on a volume's own isovalue."""


class Pairs(NamedTuple):
    """Views of volumes. Both resolutions show the same window.

    Attributes:
      low: mask in [0, 1], normal and depth, (n, s, s, 5).
      high: the same and ambient occlusion, (n, 4 s, 4 s, 6).
    """

    low: np.ndarray
    high: np.ndarray


def analytic() -> list[Volume]:
    """Makes volumes that need no file. Some have the noise of a scanner, as most real ones do.

    Returns:
      The volumes.
    """
    blobs = [volumes.metaballs(seed=seed) for seed in range(2)]
    clean = [volumes.marschner_lobb(), volumes.gyroid(), *blobs]
    sharp = [volumes.machine_part(seed=seed) for seed in range(4)]
    soft = [volumes.metaballs(seed=seed) for seed in range(2, 7)]  # noise pits their surfaces more
    noise = (0.01, 0.02, 0.03, 0.05, 0.003, 0.006, 0.012, 0.025, 0.05)
    scans = [volumes.scanned(v, noise[i], seed=i) for i, v in enumerate(sharp + soft)]
    return clean + scans


def split(found: Sequence[Volume]) -> tuple[list[Volume], list[Volume]]:
    """Splits volumes into those for training and those for testing.

    Args:
      found: volumes from files.

    Returns:
      (training, test). Analytic volumes belong to the training. If no test volume is among the
      files, one more analytic volume is the test.
    """
    test = [v for v in found if v.name in TEST_VOLUMES] or [volumes.metaballs(seed=9)]
    train = [v for v in found if v.name not in TEST_VOLUMES] + analytic()
    return train, test


def views(volume: Volume, count: int, size: int, seed: int, folder: Path | None = None) -> Pairs:
    """Renders views of one volume, or reads them if they were rendered before.

    Args:
      volume: the volume.
      count: number of views.
      size: side of a view in high resolution, in pixels.
      seed: seed of the cameras and isovalues.
      folder: folder in which views are kept; None keeps nothing.

    Returns:
      The views.

    Raises:
      ValueError: too few views show a surface.
    """
    path = None
    if folder is not None:
        mark = hashlib.sha256(volume.values.tobytes() + repr((volume[2:], count, size)).encode())
        path = folder / f"{volume.name}_{seed}_{mark.hexdigest()[:12]}.npz"
        if path.is_file():
            try:
                arrays = weights_io.load_arrays(path)
                return Pairs(arrays["low"], arrays["high"])
            except (ValueError, KeyError) as error:
                print(f"rendering again: {error}", flush=True)
    made = list(_views(volume, count, size, seed))
    pairs = Pairs(*(np.stack(images) for images in zip(*made, strict=True)))
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_suffix(".tmp")
        with temporary.open("wb") as file:
            np.savez(file, low=pairs.low, high=pairs.high)
        os.replace(temporary, path)
    return pairs


def _views(volume: Volume, count: int, size: int, seed: int) -> Iterator[Pairs]:
    found = 0
    for attempt in range(20 * count):
        key_view, key_level = jax.random.split(jax.random.fold_in(jax.random.key(seed), attempt))
        factor = jax.random.uniform(key_level, minval=ISOVALUES[0], maxval=ISOVALUES[1])
        level = float(np.clip(volume.isovalue * factor, 0.02, 0.98))
        scene = isosurface.scene(volume, level)
        view = isosurface.random_view(key_view, scene)
        low = np.asarray(isosurface.render(scene, view, size // SCALE))
        if low[..., 0].mean() < LEAST_FILLED / 2:
            continue
        yield Pairs(low[..., :5], np.asarray(isosurface.render(scene, view, size)))
        found += 1
        if found == count:
            return
    raise ValueError(
        f"expected {count} views of {volume.name} that show something, got {found} in "
        f"{20 * count} attempts; choose another isovalue than {volume.isovalue:.3f} (of 0 to 1)"
    )


def crops(pairs: Pairs, crop: int) -> np.ndarray:
    """Finds crops that a surface fills well enough, every second pixel.

    Args:
      pairs: the views.
      crop: side of a crop in low resolution, in pixels.

    Returns:
      (view, y, x) of each crop in low resolution, integers (n, 3).
    """
    mask = pairs.low[..., 0]
    windows = np.lib.stride_tricks.sliding_window_view(mask, (crop, crop), axis=(1, 2))
    filled = windows[:, ::2, ::2].mean((-1, -2)) >= LEAST_FILLED
    return np.argwhere(filled) * [1, 2, 2]


def batch(pairs: Pairs, places: np.ndarray, crop: int) -> Pairs:
    """Cuts out crops.

    Args:
      pairs: the views.
      places: (view, y, x) of each crop in low resolution, (n, 3).
      crop: side of a crop in low resolution, in pixels.

    Returns:
      The crops in both resolutions.
    """
    low = [pairs.low[i, y : y + crop, x : x + crop] for i, y, x in places]
    big, high = SCALE * crop, pairs.high
    fine = [high[i, SCALE * y :, SCALE * x :][:big, :big] for i, y, x in places]
    return Pairs(np.stack(low), np.stack(fine))


def mirrored(pairs: Pairs, rng: np.random.Generator) -> Pairs:
    """Applies a random symmetry of the square to each pair, also to its normals.

    Args:
      pairs: the crops.
      rng: random generator.

    Returns:
      The mirrored crops.
    """
    made = []
    for low, high in zip(pairs.low, pairs.high, strict=True):
        across, along, swap = rng.integers(2, size=3)
        made.append((_mirror(low, across, along, swap), _mirror(high, across, along, swap)))
    return Pairs(*(np.stack(images) for images in zip(*made, strict=True)))


def _mirror(image: np.ndarray, across: int, along: int, swap: int) -> np.ndarray:
    """Mirrors an image (s, s, c) and its normals. x points right, y points up, rows go down."""
    image = image.copy()
    if across:
        image = image[:, ::-1].copy()
        image[..., 1] *= -1
    if along:
        image = image[::-1].copy()
        image[..., 2] *= -1
    if swap:
        image = image.swapaxes(0, 1).copy()
        image[..., 1:3] = -image[..., 2:0:-1]
    return image


def concatenate(parts: Sequence[Pairs]) -> Pairs:
    """Concatenates the views of several volumes.

    Args:
      parts: views of each volume.

    Returns:
      All views.
    """
    return Pairs(*functools.reduce(lambda a, b: map(np.concatenate, zip(a, b, strict=True)), parts))
