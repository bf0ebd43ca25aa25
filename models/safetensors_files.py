"""A reader of `.safetensors` files, whose header contains names, dtypes and shapes."""

import importlib
from collections.abc import Collection
from pathlib import Path

import jax.numpy as jnp
import numpy as np

from models.stored import Shape, Stored, looks_like

_DTYPES = {"F64": np.float64, "F32": np.float32, "F16": np.float16, "BF16": jnp.bfloat16}
_DTYPES |= {"I64": np.int64, "I32": np.int32, "I16": np.int16, "I8": np.int8, "BOOL": np.bool_}
_DTYPES |= {"U64": np.uint64, "U32": np.uint32, "U16": np.uint16, "U8": np.uint8}


def stored(path: Path) -> Stored:
    """Opens a `.safetensors` file.

    Args:
      path: the file.

    Returns:
      The arrays by the names in the file.

    Raises:
      FileNotFoundError: there is no such file.
      ImportError: the package safetensors is not installed.
      ValueError: the file cannot be read, or contains other than plain numbers.
    """
    if not path.is_file():
        raise FileNotFoundError(f"expected a safetensors file at {path}, got no such file")
    try:
        # By name, because it is no dependency of this project or of its type checks.
        library = importlib.import_module("safetensors")
    except ImportError as error:
        raise ImportError(
            f"expected the package safetensors to read {path}, got none; "
            "pip install 'ifv-jax[safetensors]'"
        ) from error

    try:
        with library.safe_open(str(path), framework="np") as file:  # compares sizes with the file's
            slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118
            found = {name: (tuple(s.get_shape()), s.get_dtype()) for name, s in slices.items()}
    except Exception as error:
        raise _unreadable(path, error) from error
    for name, (_, kind) in found.items():
        if kind not in _DTYPES:
            raise ValueError(
                f"expected plain numbers in {path}, got {kind} as {name}; "
                "save the network in float32, float16 or bfloat16"
            )
    shapes = {name: Shape(shape, np.dtype(_DTYPES[kind])) for name, (shape, kind) in found.items()}

    def read(names: Collection[str]) -> dict[str, np.ndarray]:
        try:
            with library.safe_open(str(path), framework="np") as file:
                return {name: file.get_tensor(name) for name in names}
        except Exception as error:
            raise _unreadable(path, error) from error

    return Stored(shapes, read)


def _unreadable(path: Path, error: Exception) -> ValueError:
    return ValueError(
        f"expected weights in {path}, got a file that cannot be read "
        f"({looks_like(path) or error}); the file is damaged: fetch it again"
    )
