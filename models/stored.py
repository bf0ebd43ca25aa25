"""Arrays in a file: names and shapes are read at once, numbers only on request.

A header can claim anything, and a small file can unpack to gigabytes. So `weights_io` compares the
names and shapes of a `Stored` with those that a network needs before it reads any data.
"""

import os
from collections.abc import Callable, Collection, Mapping
from typing import Any, NamedTuple

import numpy as np

DEFLATE = 1100
"""Bound on the compression of Deflate, in which one byte encodes at most 1032."""

SMALL = 256 << 20
"""Number of bytes in memory that are read whatever the size of the file."""

DENSE = 50
"""Compression that weights and volumes hardly ever exceed."""


class Shape(NamedTuple):
    """The shape and dtype of an array according to a header."""

    shape: tuple[int, ...]
    dtype: np.dtype

    @property
    def nbytes(self) -> int:
        """Number of bytes in memory."""
        return size(self.shape) * self.dtype.itemsize


class Stored(NamedTuple):
    """Arrays by name.

    Attributes:
      shapes: shape and dtype of each array.
      read: reads the arrays with the given names.
    """

    shapes: Mapping[str, Shape]
    read: Callable[[Collection[str]], dict[str, np.ndarray]]

    def renamed(self, names: Mapping[str, str]) -> "Stored":
        """Renames arrays.

        Args:
          names: old name -> new name. Other arrays are left out.

        Returns:
          The arrays by their new names.
        """
        back = {new: old for old, new in names.items()}

        def read(wanted: Collection[str]) -> dict[str, np.ndarray]:
            arrays = self.read([back[name] for name in wanted])
            return {name: arrays[back[name]] for name in wanted}

        return Stored({new: self.shapes[old] for new, old in back.items()}, read)


def in_memory(arrays: Mapping[str, Any]) -> Stored:
    """Wraps arrays that are in memory.

    Args:
      arrays: the arrays by name.

    Returns:
      The same arrays as `Stored`.
    """
    shapes = {name: Shape(tuple(a.shape), np.dtype(a.dtype)) for name, a in arrays.items()}
    return Stored(shapes, lambda names: {name: np.asarray(arrays[name]) for name in names})


def size(shape: Collection[int]) -> int:
    """Computes the number of entries, exactly (NumPy's product overflows).

    Args:
      shape: lengths of the axes.

    Returns:
      The product.
    """
    product = 1
    for length in shape:
        product *= int(length)
    return product


def check_plausible(unpacked: int, packed: int, what: str) -> None:
    """Refuses a file that claims to contain more numbers than it can.

    Args:
      unpacked: number of bytes of the numbers.
      packed: number of bytes of the file.
      what: what is checked, for the message.

    Raises:
      ValueError: the claim is not plausible.
    """
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
    """Formats a number of bytes.

    Args:
      count: the number.

    Returns:
      The number with a unit.
    """
    if count < 1024:
        return f"{count} bytes"
    power = min((count.bit_length() - 1) // 10, 4)
    return f"{count / 1024**power:,.1f} {('KiB', 'MiB', 'GiB', 'TiB')[power - 1]}"


def looks_like(path: str | os.PathLike) -> str | None:
    """Recognizes files that often lie where a checkpoint should be.

    Args:
      path: the file.

    Returns:
      A description of what the file is, or None if it is not recognized.
    """
    with open(path, "rb") as file:
        start = file.read(64)
    if start.startswith(b"version https://git-lfs"):
        return "a pointer of Git LFS, not the file itself: fetch it by `git lfs pull`"
    if start.lstrip().lower().startswith((b"<!doctype", b"<html")):
        return "a web page, not the file itself: download it from the address of the file"
    if not start:
        return "an empty file: fetch it again"
    return None
