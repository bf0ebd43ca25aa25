"""A reader of `.npz` and `.npy` files that checks their headers before it reads their data.

NumPy trusts a header: one that claims 40 TB ends in `MemoryError`, and a file of 2 MB that unpacks
to 2 GiB is read whole. This module compares each size with what the file can contain.
"""

import os
import zipfile
from collections.abc import Collection
from pathlib import Path
from typing import IO

import numpy as np

from models.stored import Shape, Stored, check_plausible


def stored(path: Path) -> Stored:
    """Opens an `.npz`.

    Args:
      path: the file.

    Returns:
      The arrays.

    Raises:
      Exception: of any kind, if the file is no valid `.npz`; the caller adds the path.
    """
    with path.open("rb") as file, zipfile.ZipFile(file) as archive:
        shapes = {name: shape for name, (shape, _) in _members(archive).items()}
    # Each array may be plausible while their sum is not.
    check_plausible(sum(s.nbytes for s in shapes.values()), path.stat().st_size, "the whole file")

    def read(names: Collection[str]) -> dict[str, np.ndarray]:
        with path.open("rb") as file, zipfile.ZipFile(file) as archive:
            members = _members(archive)
            arrays = {}
            for name in names:
                shape, info = members[name]
                if shape != shapes[name]:
                    raise ValueError(f"the file changed while {name} was read")
                with archive.open(info) as member:
                    arrays[name] = np.lib.format.read_array(member, allow_pickle=False)
                    if member.read(1):  # also makes `zipfile` compare the checksum
                        raise ValueError(f"{name} is longer than its header says")
            return arrays

    return Stored(shapes, read)


def npy(path: Path) -> np.ndarray:
    """Reads the array of an `.npy` after a check of its header.

    Args:
      path: the file.

    Returns:
      The array.

    Raises:
      ValueError: the header does not fit the file.
    """
    total = path.stat().st_size
    with path.open("rb") as file:
        shape = header(file)
        there = total - file.tell()
        if shape.nbytes != there:
            raise ValueError(
                f"the header announces {shape.dtype} {shape.shape}, {shape.nbytes} bytes, "
                f"and {there} are there"
            )
        file.seek(0)
        return np.lib.format.read_array(file, allow_pickle=False)


def header(file: IO[bytes]) -> Shape:
    """Reads the header of an `.npy` and leaves the file at the data.

    Args:
      file: the file, at its beginning.

    Returns:
      Shape and dtype.

    Raises:
      ValueError: the array does not consist of plain numbers.
    """
    version = np.lib.format.read_magic(file)
    readers = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }
    if version not in readers:
        raise ValueError(f"version {version} of NumPy's format holds no plain numbers")
    shape, _, dtype = readers[version](file)
    if dtype.hasobject or dtype.names is not None or dtype.subdtype is not None:
        raise ValueError(f"{dtype} is no plain number: Python objects are not opened")
    if any(length < 0 for length in shape):
        raise ValueError(f"the shape {shape} has a negative length")
    return Shape(tuple(int(length) for length in shape), dtype)


def _members(archive: zipfile.ZipFile) -> dict[str, tuple[Shape, zipfile.ZipInfo]]:
    """Lists name, shape and place of each array."""
    found: dict[str, tuple[Shape, zipfile.ZipInfo]] = {}
    check_archive(archive)
    for info in archive.infolist():
        if info.is_dir() or not info.filename.endswith(".npy"):
            raise ValueError(f"it holds {info.filename}, which is no array (.npy)")
        name = info.filename.removesuffix(".npy")
        if name in found:
            raise ValueError(f"it holds {name} twice")
        try:
            with archive.open(info) as member:
                shape = header(member)
                there = info.file_size - member.tell()
        except Exception as error:
            raise ValueError(f"{name}: {type(error).__name__}: {error}") from error
        if shape.nbytes != there:
            raise ValueError(
                f"the header of {name} announces {shape.dtype} {shape.shape}, {shape.nbytes} "
                f"bytes, and {there} are there"
            )
        found[name] = shape, info
    return found


def check_archive(archive: zipfile.ZipFile) -> None:
    """Refuses a zip file with a member that claims more bytes than the file can contain.

    Args:
      archive: the zip file.

    Raises:
      ValueError: a claim is not plausible.
    """
    assert archive.fp is not None
    there = os.fstat(archive.fp.fileno()).st_size
    for info in archive.infolist():
        if info.compress_size > there or (
            info.compress_type == zipfile.ZIP_STORED and info.file_size != info.compress_size
        ):
            raise ValueError(f"{info.filename} claims to be larger than the file")
        check_plausible(info.file_size, info.compress_size, info.filename)
