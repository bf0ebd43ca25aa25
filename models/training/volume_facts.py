"""The facts in a JSON file beside a volume: shape, kind of numbers, spacing and isovalue."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np

from ifv_jax.checks import InputError, check_integers
from models.training.volume_files import stem

KEYS = ("shape_zyx", "dtype", "spacing_xyz", "isovalue")
_ALIKE = ("spacing", "iso", "shape", "dtype")
"""A name that begins so and is no key is a mistake."""


def read(path: Path) -> dict[str, Any]:
    """Reads the facts in the JSON file beside a volume, and checks the shape and the dtype.

    Args:
      path: the file of the volume.

    Returns:
      The facts by name; empty if there is no JSON file.

    Raises:
      ValueError: the JSON file cannot be read, or a fact is not valid.
    """
    own, common = path.with_name(f"{stem(path)}.json"), path.with_name("volumes.json")
    file = own if own.is_file() else common
    if not file.is_file():
        return {}
    try:
        facts = json.loads(file.read_text(encoding="utf-8"))
        facts = facts if file == own else facts.get(stem(path), {})
        facts = dict(facts.items())
    except (ValueError, AttributeError, RecursionError) as error:
        raise ValueError(f"{file.name} is no JSON of names and values: {error}") from error
    for name in facts:
        if name not in KEYS and name.lower().startswith(_ALIKE):
            raise ValueError(f"{file.name} says {name}, which is none of {', '.join(KEYS)}")
    shape, dtype = facts.get("shape_zyx"), facts.get("dtype")
    if shape is not None:
        try:
            check_integers(shape, "shape_zyx", 3, "Correct it.")
        except InputError as error:
            raise ValueError(f"shape_zyx is to be three whole numbers, not {shape!r}") from error
    if dtype is not None and not (isinstance(dtype, str) and is_numeric(np.dtype(dtype))):
        raise ValueError(f"dtype is to be one of real numbers, not {dtype!r}")
    return facts


def is_numeric(dtype: np.dtype) -> bool:
    """Tells whether a dtype is one of real numbers or booleans.

    Args:
      dtype: the dtype.

    Returns:
      True if it is.
    """
    return dtype.kind in "biuf" and dtype.subdtype is None


def _number(value: Any) -> float:
    """Checks a finite real number; strings and booleans are refused."""
    if isinstance(value, bool) or not isinstance(value, int | float | np.number):
        raise ValueError(f"a number is wanted, not {value!r}")
    if not math.isfinite(float(value)):
        raise ValueError(f"a finite number is wanted, not {value}")
    return float(value)


def spacing(value: Any) -> tuple[float, float, float]:
    """Checks the spacing of voxels.

    Args:
      value: three numbers.

    Returns:
      Three positive numbers, x, y and z.

    Raises:
      ValueError: the value is something else.
    """
    try:
        if len(value) != 3 or isinstance(value, str | dict):
            raise ValueError("three numbers are wanted")
        x, y, z = (_number(s) for s in value)
        if not 1e-30 < min(x, y, z) <= max(x, y, z) < 1e30:
            raise ValueError("positive numbers are wanted")
    except (TypeError, ValueError, OverflowError) as error:
        raise ValueError(f"spacing_xyz is {value!r}: {error}") from error
    return x, y, z


def isovalue(value: Any) -> float | None:
    """Checks an isovalue.

    Args:
      value: a number, or None.

    Returns:
      A finite number, or None.

    Raises:
      ValueError: the value is something else.
    """
    try:
        return None if value is None else _number(value)
    except (ValueError, OverflowError) as error:
        raise ValueError(f"isovalue is {value!r}: {error}") from error
