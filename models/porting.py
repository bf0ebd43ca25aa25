"""Weights of other frameworks, read from their files and turned into Flax variables.

Kernels are transposed from (O, C, h, w) to (h, w, C, O) and matrices from (O, C) to (C, O). The
names of the arrays are in `densenet_porting` and `googlenet_porting`; `caffe` reads Caffe's files.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ifv_jax.engine.plain_path import local
from models import safetensors_files, state_dict, torch_files, weights_io
from models.stored import Stored

_NORM = {
    "weight": ("params", "scale"),
    "bias": ("params", "bias"),
    "running_mean": ("batch_stats", "mean"),
    "running_var": ("batch_stats", "var"),
}


def norm_names(torch_name: str, flax_name: str) -> Iterator[tuple[str, str]]:
    """Yields (PyTorch's name, Flax name) of the arrays of one batch normalization.

    Args:
      torch_name: name of the module in PyTorch.
      flax_name: name of the module in Flax.
    """
    for old, (collection, new) in _NORM.items():
        yield f"{torch_name}.{old}", f"{collection}/{flax_name}/{new}"


def stored(path: str | Path) -> Stored:
    """Opens a checkpoint or an `.npz`.

    Args:
      path: a checkpoint of PyTorch (`.pth.tar`, `.pth`, `.pt`, ...), a `.safetensors` or an `.npz`.

    Returns:
      The arrays by PyTorch's names, without the prefixes that wrappers of modules add to all names.
    """
    path = local(path)
    suffix = path.suffix.lower()
    if suffix == ".npz":
        found = weights_io.stored(path)
    elif suffix == ".safetensors":
        found = safetensors_files.stored(path)
    else:
        found = torch_files.stored(path)
    return found.renamed(state_dict.strip(found.shapes, path))


def read_state_dict(path: str | Path) -> dict[str, np.ndarray]:
    """Reads all arrays of a checkpoint.

    Args:
      path: see `stored`.

    Returns:
      The arrays by name; floating point is converted to float32.
    """
    found = stored(path)
    return {
        name: array.astype(np.float32) if jnp.issubdtype(array.dtype, np.floating) else array
        for name, array in found.read(list(found.shapes)).items()
    }


def port(
    state: Mapping[str, np.ndarray] | Stored,
    names: Mapping[str, str],
    template: Any,
    source: str | Path,
    constants: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Turns arrays with foreign names into Flax variables.

    Args:
      state: the arrays by their foreign names.
      names: foreign name -> Flax name, such as `params/conv1/kernel`.
      template: shapes and dtypes of the variables, nested.
      source: the file, for messages.
      constants: arrays by their Flax names that the file does not contain.

    Returns:
      The variables, nested.

    Raises:
      CheckError: an array is missing, superfluous, misshapen or impossible.
    """
    wanted = weights_io.flatten(template)
    # The foreign names and shapes are compared, so that a message uses those of the file.
    foreign = {old: _foreign(new, wanted[new]) for old, new in names.items()}
    arrays = weights_io.take(state, foreign, source)
    flat = {name: np.asarray(value, np.float32) for name, value in (constants or {}).items()}
    for old, new in names.items():
        array = arrays.pop(old)
        # (O, C, h, w) -> (h, w, C, O), the 1 x 1 of a pointwise kernel dropped; (O, C) -> (C, O).
        array = array.transpose(2, 3, 1, 0) if array.ndim == 4 else array.T
        flat[new] = np.ascontiguousarray(array).reshape(wanted[new].shape)
    return weights_io.fit(flat, template, source)


def _foreign(name: str, array: Any) -> jax.ShapeDtypeStruct:
    """Computes the shape of a Flax array in PyTorch and in Caffe."""
    shape = array.shape
    if len(shape) == 4:
        shape = (shape[3], shape[2], *shape[:2])
    elif len(shape) == 2:
        shape = shape[::-1] if name == "params/head/kernel" else (*shape[::-1], 1, 1)
    return jax.ShapeDtypeStruct(shape, array.dtype)
