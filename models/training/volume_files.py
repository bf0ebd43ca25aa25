"""A reader of files of scalar volumes: arrays (z, y, x) and their spacing (x, y, z).

Sizes are compared with what the file can contain before any data is read. Exceptions of all kinds
are raised; `volumes.read` adds the path.
"""

import bz2
import gzip
import importlib
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from models import npz
from models.stored import check_plausible, megabytes, size

SUFFIXES = (".npz", ".npy", ".raw", ".nrrd", ".nhdr", ".nii", ".nii.gz")
_PYVISTA = (
    "convert it by pyvista: m = pyvista.read(FILE); numpy.save('{stem}.npy', "
    "m.active_scalars.reshape(m.dimensions[::-1])), with m.spacing as spacing_xyz in {stem}.json"
)
_ITK = "convert it by SimpleITK: SimpleITK.WriteImage(SimpleITK.ReadImage(FILE), '{stem}.nrrd')"
_TIFF = "convert it by tifffile: numpy.save('{stem}.npy', tifffile.imread(FILE))"
CONVERTERS = {
    **dict.fromkeys((".vti", ".vtk", ".vtu", ".vtr", ".vts", ".pvti"), _PYVISTA),
    **dict.fromkeys((".mhd", ".mha", ".dcm", ".hdr", ".img", ".gipl", ".mgz", ".mnc"), _ITK),
    **dict.fromkeys((".tif", ".tiff"), _TIFF),
}
"""Usual kinds of volumes that this module does not read, and how to convert them."""

IMAGES = (".tif", ".tiff", ".hdr", ".img")
"""Kinds that may also be pictures, or files of other programs."""


class Found(NamedTuple):
    """The content of a file.

    Attributes:
      values: (z, y, x), perhaps with further axes of length 1.
      spacing: one number per axis, the fastest axis first; None if the file does not say it.
    """

    values: np.ndarray
    spacing: Any = None


def suffix(path: Path) -> str:
    """Returns the suffix of a path in lower case. `.nii.gz` is one suffix.

    Args:
      path: the path.
    """
    return ".nii.gz" if path.name.lower().endswith(".nii.gz") else path.suffix.lower()


def stem(path: Path) -> str:
    """Returns the name of a file without its suffix.

    Args:
      path: the path.
    """
    return path.name[: len(path.name) - len(suffix(path))]


def read(path: Path, facts: dict[str, Any]) -> Found:
    """Reads a file.

    Args:
      path: the file.
      facts: the facts in the JSON file beside it.

    Returns:
      The content.
    """
    readers: dict[str, Callable[[], Found]] = {
        ".npz": lambda: _npz(path),
        ".npy": lambda: Found(npz.npy(path)),
        ".raw": lambda: _raw(path, facts),
        ".nrrd": lambda: _nrrd(path),
        ".nhdr": lambda: _nrrd(path),
        ".nii": lambda: _nifti(path),
        ".nii.gz": lambda: _nifti(path),
    }
    return readers[suffix(path)]()


def data_file(path: Path) -> Path | None:
    """Finds the file that contains the numbers of a `.nhdr`.

    Args:
      path: the `.nhdr`.

    Returns:
      The path of the data; None if it is not named.
    """
    for line in path.read_bytes()[: 1 << 16].decode("latin1").splitlines():
        field, _, value = line.partition(":")
        if field.strip().lower() in ("data file", "datafile"):
            return path.parent / value.strip()
    return None


def _library(name: str, package: str, extra: str, path: Path) -> Any:
    try:
        # By name, because it is no dependency of this project or of its type checks.
        return importlib.import_module(name)
    except ImportError as error:
        raise ImportError(
            f"expected the package {package} to read {path}, got none; "
            f"pip install 'ifv-jax[{extra}]'"
        ) from error


def _npz(path: Path) -> Found:
    stored = npz.stored(path)
    names = list(stored.shapes)
    overlooked = [n for n in names if n.lower().startswith(("spacing", "iso", "affine"))]
    if overlooked or (len(names) != 1 and "volume" not in names):
        raise ValueError(
            f"it holds {', '.join(names) or 'no array'}, where one array called volume is wanted: "
            "write spacing_xyz and isovalue into the .json beside it"
        )
    name = "volume" if "volume" in names else names[0]
    return Found(stored.read([name])[name])


def _raw(path: Path, facts: dict[str, Any]) -> Found:
    if not {"shape_zyx", "dtype"} <= set(facts):
        raise ValueError(f"shape_zyx and dtype are wanted in {stem(path)}.json")
    shape, dtype = facts["shape_zyx"], np.dtype(facts["dtype"])
    wanted, there = size(shape) * dtype.itemsize, path.stat().st_size
    if wanted != there:
        raise ValueError(
            f"shape_zyx {shape} of {dtype} is {wanted} bytes, and the file has {there}: "
            "correct the .json, or cut off a header"
        )
    return Found(np.fromfile(path, dtype).reshape(shape))


def _nrrd(path: Path) -> Found:
    nrrd = _library("nrrd", "pynrrd", "nrrd", path)
    with path.open("rb") as file:
        header = nrrd.read_header(file)
        place = file.tell()
    data = data_file(path)
    packed = (data or path).stat().st_size - (0 if data else place)
    count, encoding = size(header["sizes"]), str(header["encoding"])
    if min(header["sizes"], default=0) < 1 or count > 1100 * packed:
        raise ValueError(f"sizes {list(header['sizes'])} in a file of {megabytes(packed)}")
    module = {"gz": gzip, "gzip": gzip, "bz2": bz2, "bzip2": bz2}.get(encoding)
    if module is not None:
        content = (data or path).read_bytes()[0 if data else place :]
        skipped = max(0, int(header.get("byte skip", header.get("byteskip", 0))))
        if len(_unpacked(module, content, most := 8 * count + skipped)) > most:
            raise ValueError(f"more data than the sizes {list(header['sizes'])} need")
    values, header = nrrd.read(str(path), index_order="C")
    directions = header.get("space directions")
    if directions is None:
        return Found(values, header.get("spacings"))
    return Found(values, np.linalg.norm(np.asarray(directions, float), axis=1))


def _nifti(path: Path) -> Found:
    nibabel = _library("nibabel", "nibabel", "nifti", path)
    content = path.read_bytes()
    packed = suffix(path).endswith(".gz")
    start = _unpacked(gzip, content, 540) if packed else content[:540]
    kind = nibabel.Nifti1Image
    if 540 in (int.from_bytes(start[:4], order) for order in ("little", "big")):
        kind = nibabel.Nifti2Image
    # Not checked, because nibabel's check would replace a spacing of 0 by 1.
    header = kind.header_class(start[: kind.header_class.sizeof_hdr], check=False)
    shape = header.get_data_shape()
    wanted = int(header["vox_offset"]) + size(shape) * header.get_data_dtype().itemsize
    if packed:
        check_plausible(wanted, len(content), f"the header's shape {shape}")
        content = _unpacked(gzip, content, wanted)
    if len(content) < wanted:
        raise ValueError(f"the header announces {wanted} bytes, and {len(content)} are there")
    image = kind.from_bytes(content)
    # The axes are x, y, z. nibabel applies the header's slope and intercept.
    return Found(np.asanyarray(image.dataobj).T, header.get_zooms())


def _unpacked(module: Any, packed: bytes, most: int) -> bytes:
    """Unpacks the beginning of a stream, one byte more than `most` if there are more."""
    with module.open(io.BytesIO(packed)) as file:
        return file.read(most + 1)
