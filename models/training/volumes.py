"""Scalar volumes, from files of the usual kinds or from formulas.

A volume is an array (z, y, x) with a voxel spacing (x, y, z) and an isovalue that shows a good
surface. Files are `.npz` (one array), `.npy`, `.raw`, `.nrrd` and `.nhdr` (pynrrd), `.nii` and
`.nii.gz` (nibabel). A JSON file beside it supplies what the file does not say: `NAME.json`, or the
entry NAME of `volumes.json`, with `shape_zyx` and `dtype` (required for `.raw`), `spacing_xyz` and
`isovalue`.
"""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ifv_jax.engine.plain_path import local
from models.training import volume_facts, volume_files
from models.training.volume_files import CONVERTERS, IMAGES, SUFFIXES, stem, suffix

LARGEST = 1e36
"""Largest magnitude of a value. Larger ones mark "no data", or overflow in float32."""


class Volume(NamedTuple):
    """A scalar field on a regular grid. Its inside is where it is larger than the isovalue.

    Attributes:
      name: name of the volume.
      values: float32 (z, y, x), scaled to [0, 1].
      spacing: distance of voxels along x, y, z.
      isovalue: the isovalue on the scale of `values`.
    """

    name: str
    values: np.ndarray
    spacing: tuple[float, float, float]
    isovalue: float


def read(path: str | Path) -> Volume:
    """Reads a volume from a file.

    Args:
      path: the file.

    Returns:
      The volume.

    Raises:
      FileNotFoundError: there is no such file.
      ImportError: the package that reads the file is not installed.
      ValueError: the file cannot be read.
    """
    path = local(path)
    if not path.is_file():
        raise FileNotFoundError(f"expected a volume at {path}, got no such file")
    if suffix(path) not in SUFFIXES:
        convert = CONVERTERS.get(suffix(path), "save it as one of these").format(stem=stem(path))
        raise ValueError(f"expected a file {', '.join(SUFFIXES)}, got {path}; {convert}")
    try:
        facts = volume_facts.read(path)
        found = volume_files.read(path, facts)
        values, spacing = _three_axes(found)
        if "shape_zyx" in facts and tuple(facts["shape_zyx"]) != values.shape:
            raise ValueError(f"shape_zyx is {facts['shape_zyx']}, the array's {values.shape}")
        spacing = volume_facts.spacing(facts.get("spacing_xyz", spacing))
        return _scaled(stem(path), values, spacing, volume_facts.isovalue(facts.get("isovalue")))
    except ImportError:
        raise
    except Exception as error:  # each library has its own exception for each kind of damage
        why = str(error) if type(error) is ValueError else f"{type(error).__name__}: {error}"
        raise ValueError(
            f"expected a volume in {path}, got none that can be read ({why}); "
            "mend the file or its .json, or take it away"
        ) from error


def read_folder(folder: str | Path) -> list[Volume]:
    """Reads all volumes of a folder.

    Args:
      folder: the folder.

    Returns:
      The volumes, ordered by name.

    Raises:
      FileNotFoundError: there is no volume.
      ValueError: a file cannot be read, or two files have the same name.
    """
    folder = local(folder)
    files = sorted(p for p in folder.glob("*") if p.is_file() and not p.name.startswith("."))
    paths = [path for path in files if suffix(path) in SUFFIXES]
    parts = {volume_files.data_file(path) for path in paths if suffix(path) == ".nhdr"}
    paths = [path for path in paths if path not in parts]
    others = [path for path in files if suffix(path) in CONVERTERS and suffix(path) not in IMAGES]
    stems = [stem(path) for path in paths]
    for path in others:
        if stem(path) not in stems:
            read(path)  # raises, and says how to convert the file
    if not paths:
        raise FileNotFoundError(f"expected volumes ({', '.join(SUFFIXES)}) in {folder}, got none")
    for name in stems:
        if stems.count(name) > 1:
            names = ", ".join(path.name for path in paths if stem(path) == name)
            raise ValueError(
                f"expected one file for each volume in {folder}, got {names}; take one away"
            )
    return [read(path) for path in paths]


def _three_axes(found: volume_files.Found) -> tuple[np.ndarray, Any]:
    """Removes axes of length 1 beside the three, from the values and the spacing."""
    values = found.values
    spacing = [1.0] * values.ndim if found.spacing is None else list(found.spacing)
    if values.ndim > 3 and len(spacing) == values.ndim:
        spacing = [s for s, n in zip(spacing, values.shape[::-1], strict=True) if n > 1]
        values = values.squeeze()
    if values.ndim != 3 or min(values.shape) < 2:
        raise ValueError(
            f"a volume (z, y, x) is wanted, two voxels or more along each axis, not shape "
            f"{found.values.shape}: save one scalar field at one time"
        )
    if not volume_facts.is_numeric(values.dtype):
        raise ValueError(f"real numbers are wanted, not {values.dtype}")
    return values, spacing


def _scaled(name: str, values: np.ndarray, spacing, isovalue: float | None) -> Volume:
    least, most = values.min(), values.max()
    if not (np.isfinite(least) and np.isfinite(most)):
        raise ValueError(f"expected finite values in {name}, got nan or infinity")
    low, high = float(least), float(most)
    if max(-low, high) > LARGEST:
        raise ValueError(
            f"expected values below {LARGEST:g} in {name}, got {low} to {high}; "
            "put a usual value where there is no data"
        )
    if least == most:
        raise ValueError(f"expected a volume that varies, got {name}, which is {low} everywhere")
    scaled = np.empty(values.shape, np.float32)
    whole = values.dtype.kind in "iu"
    extent = float(int(most) - int(least)) if whole else high - low
    for slice_in, slice_out in zip(values, scaled, strict=True):
        if whole:  # modulo 2^64 the difference is exact for every width and sign
            wide = slice_in.astype(np.uint64) - np.asarray(least).astype(np.uint64)
        else:
            wide = slice_in.astype(float) - low
        slice_out[...] = wide / extent
    level = 0.5 if isovalue is None else (isovalue - low) / extent
    if not 0 < level < 1:
        raise ValueError(f"expected an isovalue between {low} and {high} for {name}: {isovalue}")
    return Volume(name, scaled, spacing, level)


# Analytic volumes


def marschner_lobb(size: int = 64, frequency: float = 6.0, alpha: float = 0.25) -> Volume:
    """Makes the test signal of Marschner and Lobb 1994.

    Args:
      size: number of voxels along each axis.
      frequency: f_M in the source.
      alpha: alpha in the source.

    Returns:
      The volume.
    """
    x, y, z = _grid(size)
    ripple = np.cos(2 * np.pi * frequency * np.cos(np.pi * np.hypot(x, y) / 2))
    values = (1 - np.sin(np.pi * z / 2) + alpha * (1 + ripple)) / (2 * (1 + alpha))
    return _scaled("marschner_lobb", values, (1.0, 1.0, 1.0), 0.5)


def gyroid(size: int = 64, periods: float = 2.0) -> Volume:
    """Makes Schoen's triply periodic minimal surface, as a thick sheet within a ball.

    Args:
      size: number of voxels along each axis.
      periods: number of periods along each axis.

    Returns:
      The volume.
    """
    x, y, z = (np.pi * periods * c for c in _grid(size))
    field = np.sin(x) * np.cos(y) + np.sin(y) * np.cos(z) + np.sin(z) * np.cos(x)
    ball = 4 * (1 - np.linalg.norm(_grid(size), axis=0))
    return _scaled("gyroid", np.minimum(0.6 - np.abs(field), ball), (1.0, 1.0, 1.0), 0.0)


def metaballs(size: int = 64, count: int = 12, seed: int = 0) -> Volume:
    """Makes a sum of Gaussian bumps (Blinn 1982) at random places.

    Args:
      size: number of voxels along each axis.
      count: number of bumps.
      seed: seed of places and radii.

    Returns:
      The volume.
    """
    rng = np.random.default_rng(seed)
    grid = np.stack(_grid(size), -1)
    values = np.zeros((size,) * 3)
    for _ in range(count):
        centre, radius = rng.uniform(-0.6, 0.6, 3), rng.uniform(0.12, 0.35)
        values += np.exp(-np.sum((grid - centre) ** 2, -1) / radius**2)
    return _scaled(f"metaballs_{seed}", values, (1.0, 1.0, 1.0), 0.5)


def machine_part(size: int = 96, seed: int = 0) -> Volume:
    """Makes a block with bores, slots and bosses along its axes: plane faces, sharp edges, holes.

    Args:
      size: number of voxels along each axis.
      seed: seed of the shape.

    Returns:
      The volume.
    """
    rng = np.random.default_rng(seed)
    grid = np.stack(_grid(size), -1)
    # Signed distances are negative inside. Their minimum is a union, their maximum a cut.
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
    """Imitates a scanner: white noise and 8 bits.

    Args:
      volume: the volume.
      noise: standard deviation of the noise.
      seed: seed of the noise.

    Returns:
      The noisy volume.
    """
    rng = np.random.default_rng(seed)
    noisy = volume.values + noise * rng.standard_normal(volume.values.shape)
    values = np.round(255 * np.clip(noisy, 0, 1)) / 255
    return volume._replace(name=f"{volume.name}_scanned", values=values.astype(np.float32))


def _grid(size: int) -> tuple[np.ndarray, ...]:
    axis = np.linspace(-1, 1, size)
    z, y, x = np.meshgrid(axis, axis, axis, indexing="ij")
    return x, y, z
