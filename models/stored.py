"""Arrays in a file: what they are called and their shapes first, their numbers only when asked for.

A header can claim anything, and a small file can unpack to gigabytes. So `weights_io` compares the
names and shapes of a `Stored` with what a network wants before it reads any data.
"""

import os
from collections.abc import Callable, Collection, Mapping
from typing import Any, NamedTuple

import numpy as np

DEFLATE = 1100  # at most: one byte of Deflate holds 1032
SMALL = 256 << 20  # bytes in memory that are read whatever the file's size
DENSE = 50  # weights and volumes hardly ever pack better than this


class Shape(NamedTuple):
    """What a header says of an array."""

    shape: tuple[int, ...]
    dtype: np.dtype

    @property
    def nbytes(self) -> int:
        """Bytes in memory."""
        return size(self.shape) * self.dtype.itemsize


class Stored(NamedTuple):
    """Arrays by name: their shapes, and a function that reads those with the given names."""

    shapes: Mapping[str, Shape]
    read: Callable[[Collection[str]], dict[str, np.ndarray]]

    def renamed(self, names: Mapping[str, str]) -> "Stored":
        """Those arrays whose old name stands in `names`, by their new ones."""
        back = {new: old for old, new in names.items()}

        def read(wanted: Collection[str]) -> dict[str, np.ndarray]:
            arrays = self.read([back[name] for name in wanted])
            return {name: arrays[back[name]] for name in wanted}

        return Stored({new: self.shapes[old] for new, old in back.items()}, read)


def in_memory(arrays: Mapping[str, Any]) -> Stored:
    """Arrays that are there already."""
    shapes = {name: Shape(tuple(a.shape), np.dtype(a.dtype)) for name, a in arrays.items()}
    return Stored(shapes, lambda names: {name: np.asarray(arrays[name]) for name in names})


def size(shape: Collection[int]) -> int:
    """The product, exact however large (NumPy's overflows)."""
    product = 1
    for length in shape:
        product *= int(length)
    return product


def check_plausible(unpacked: int, packed: int, what: str) -> None:
    """Raise if `packed` bytes of a file claim to hold `unpacked` bytes of numbers."""
    if unpacked > DEFLATE * packed + SMALL:
        raise ValueError(
            f"{what} claims {megabytes(unpacked)}, more than {megabytes(packed)} can hold"
        )
    if unpacked > SMALL and unpacked > DENSE * packed:
        raise ValueError(
            f"{what} unpacks {megabytes(packed)} to {megabytes(unpacked)}, nearly all of it the "
            "same number"
        )


def megabytes(count: int) -> str:
    """A number of bytes to read."""
    if count < 1024:
        return f"{count} bytes"
    power = min((count.bit_length() - 1) // 10, 4)
    return f"{count / 1024**power:,.1f} {('KiB', 'MiB', 'GiB', 'TiB')[power - 1]}"


def looks_like(path: str | os.PathLike) -> str | None:
    """What a file really is that often stands where a checkpoint should, in words, or None."""
    with open(path, "rb") as file:
        start = file.read(64)
    if start.startswith(b"version https://git-lfs"):
        return "a pointer of Git LFS, not the file itself: fetch it by `git lfs pull`"
    if start.lstrip().lower().startswith((b"<!doctype", b"<html")):
        return "a web page, not the file itself: download it from the address of the file"
    if not start:
        return "an empty file: fetch it again"
    return None
