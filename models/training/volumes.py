"""Scalar volumes: files of the usual kinds, and analytic ones for which no file is needed.

A volume is an array (z, y, x) with a voxel spacing (x, y, z) and an isovalue that shows a good
surface. Files: `.npz` (one array called `volume`), `.npy`, `.raw`, `.nrrd`. What a file does not
say stands in a JSON beside it: `NAME.json`, or an entry NAME of `volumes.json`, with `shape_zyx`
and `dtype` (needed for `.raw`), `spacing_xyz`, `isovalue`.
"""

import importlib
import json
import zipfile
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

SUFFIXES = (".npz", ".npy", ".raw", ".nrrd")


class Volume(NamedTuple):
    """A scalar field on a regular grid; inside is where it is larger than the isovalue."""

    name: str
    values: np.ndarray  # (z, y, x) float32, scaled to [0, 1]
    spacing: tuple[float, float, float]  # x, y, z
    isovalue: float  # on the scale of `values`


def read(path: str | Path) -> Volume:
    """One file."""
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"expected a volume at {path}, got no such file")
    if path.suffix not in SUFFIXES:
        raise ValueError(f"expected a file {', '.join(SUFFIXES)}, got {path.name}")
    facts = _facts(path)
    try:
        values, spacing = _values(path, facts)
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise ValueError(f"expected a volume in {path}, got none that can be read ({error})") from (
            error
        )
    if values.ndim != 3 or min(values.shape) < 2:
        raise ValueError(f"expected a volume (z, y, x) in {path}, got shape {values.shape}")
    values = np.asarray(values, np.float32)
    if not np.isfinite(values).all():
        raise ValueError(f"expected finite values in {path}, got nan or infinity")
    spacing = tuple(float(s) for s in facts.get("spacing_xyz", spacing))
    return _scaled(path.stem, values, spacing, facts.get("isovalue"))


def read_folder(folder: str | Path) -> list[Volume]:
    """All volumes of a folder, by name."""
    folder = Path(folder)
    paths = sorted(p for p in folder.glob("*") if p.suffix in SUFFIXES)
    if not paths:
        raise FileNotFoundError(f"expected volumes ({', '.join(SUFFIXES)}) in {folder}, got none")
    return [read(path) for path in paths]


def _facts(path: Path) -> dict[str, Any]:
    own = path.with_suffix(".json")
    if own.is_file():
        return dict(json.loads(own.read_text()))
    common = path.with_name("volumes.json")
    if common.is_file():
        return dict(json.loads(common.read_text()).get(path.stem, {}))
    return {}


def _values(path: Path, facts: dict[str, Any]) -> tuple[np.ndarray, tuple[float, ...]]:
    if path.suffix == ".npz":
        with np.load(path, allow_pickle=False) as arrays:
            return arrays["volume"], (1.0, 1.0, 1.0)
    if path.suffix == ".npy":
        return np.load(path, allow_pickle=False), (1.0, 1.0, 1.0)
    if path.suffix == ".raw":
        if not {"shape_zyx", "dtype"} <= set(facts):
            raise ValueError(f"shape_zyx and dtype are wanted in {path.with_suffix('.json').name}")
        return np.fromfile(path, facts["dtype"]).reshape(facts["shape_zyx"]), (1.0, 1.0, 1.0)
    try:
        nrrd = importlib.import_module("nrrd")
    except ImportError as error:
        raise ImportError(
            f"expected the package pynrrd to read {path}, got none; pip install 'ifv-jax[nrrd]'"
        ) from error
    values, header = nrrd.read(str(path), index_order="C")
    directions = header.get("space directions")
    spacing = header.get("spacings", np.ones(3))
    if directions is not None:
        spacing = np.linalg.norm(np.asarray(directions, float), axis=1)
    return values, tuple(float(s) for s in spacing)


def _scaled(name: str, values: np.ndarray, spacing, isovalue: float | None) -> Volume:
    low, high = float(values.min()), float(values.max())
    if low == high:
        raise ValueError(f"expected a volume that varies, got {name}, which is {low} everywhere")
    scaled = (values - low) / (high - low)
    level = 0.5 if isovalue is None else (isovalue - low) / (high - low)
    if not 0 < level < 1:
        raise ValueError(f"expected an isovalue between {low} and {high} for {name}: {isovalue}")
    return Volume(name, scaled.astype(np.float32), spacing, level)


# Analytic volumes


def marschner_lobb(size: int = 64, frequency: float = 6.0, alpha: float = 0.25) -> Volume:
    """The test signal of Marschner and Lobb 1994."""
    x, y, z = _grid(size)
    ripple = np.cos(2 * np.pi * frequency * np.cos(np.pi * np.hypot(x, y) / 2))
    values = (1 - np.sin(np.pi * z / 2) + alpha * (1 + ripple)) / (2 * (1 + alpha))
    return _scaled("marschner_lobb", values, (1.0, 1.0, 1.0), 0.5)


def gyroid(size: int = 64, periods: float = 2.0) -> Volume:
    """Schoen's triply periodic minimal surface, as a sheet of some thickness within a ball."""
    x, y, z = (np.pi * periods * c for c in _grid(size))
    field = np.sin(x) * np.cos(y) + np.sin(y) * np.cos(z) + np.sin(z) * np.cos(x)
    ball = 4 * (1 - np.linalg.norm(_grid(size), axis=0))
    return _scaled("gyroid", np.minimum(0.6 - np.abs(field), ball), (1.0, 1.0, 1.0), 0.0)


def metaballs(size: int = 64, count: int = 12, seed: int = 0) -> Volume:
    """A sum of Gaussian bumps (Blinn 1982) at random places."""
    rng = np.random.default_rng(seed)
    grid = np.stack(_grid(size), -1)
    values = np.zeros((size,) * 3)
    for _ in range(count):
        centre, radius = rng.uniform(-0.6, 0.6, 3), rng.uniform(0.12, 0.35)
        values += np.exp(-np.sum((grid - centre) ** 2, -1) / radius**2)
    return _scaled(f"metaballs_{seed}", values, (1.0, 1.0, 1.0), 0.5)


def machine_part(size: int = 96, seed: int = 0) -> Volume:
    """A block with bores, slots and bosses along its axes: plane faces, sharp edges, holes."""
    rng = np.random.default_rng(seed)
    grid = np.stack(_grid(size), -1)
    # Signed distances, negative inside; min unites, max cuts.
    distance = np.max(np.abs(grid) - rng.uniform(0.35, 0.75, 3), -1)
    for kind in rng.permutation(["boss", "bore", "bore", "bore", "slot", "slot", "boss", "bore"]):
        axis, centre = rng.integers(3), rng.uniform(-0.6, 0.6, 3)
        across = np.delete(grid - centre, axis, -1)
        if kind == "slot":
            distance = np.maximum(distance, -np.max(np.abs(across) - rng.uniform(0.05, 0.3, 2), -1))
            continue
        cylinder = np.linalg.norm(across, axis=-1) - rng.uniform(0.08, 0.35)
        if kind == "bore":
            distance = np.maximum(distance, -cylinder)
        else:
            height = np.abs(grid[..., axis]) - rng.uniform(0.5, 0.9)
            distance = np.minimum(distance, np.maximum(cylinder, height))
    soft = 1 / (1 + np.exp(distance * size / 1.5))  # an edge as wide as a scanner's, a few voxels
    return _scaled(f"machine_part_{seed}", soft, (1.0, 1.0, 1.0), 0.5)


def scanned(volume: Volume, noise: float, seed: int = 0) -> Volume:
    """The volume as a scanner gives it: white noise of a standard deviation, 8 bits."""
    rng = np.random.default_rng(seed)
    noisy = volume.values + noise * rng.standard_normal(volume.values.shape)
    values = np.round(255 * np.clip(noisy, 0, 1)) / 255
    return volume._replace(name=f"{volume.name}_scanned", values=values.astype(np.float32))


def _grid(size: int) -> tuple[np.ndarray, ...]:
    axis = np.linspace(-1, 1, size)
    z, y, x = np.meshgrid(axis, axis, axis, indexing="ij")
    return x, y, z
