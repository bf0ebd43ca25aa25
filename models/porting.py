"""Weights of other frameworks: read from their files, renamed and transposed into Flax variables.

Kernels turn from (O, C, h, w) to (h, w, C, O), matrices from (O, C) to (C, O). Which array is which
stands in `densenet_porting` and `googlenet_porting`; `caffe` reads Caffe's files.
"""

import importlib
import pickle
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from models import weights_io

_NORM = {
    "weight": ("params", "scale"),
    "bias": ("params", "bias"),
    "running_mean": ("batch_stats", "mean"),
    "running_var": ("batch_stats", "var"),
}


def norm_names(torch_name: str, flax_name: str) -> Iterator[tuple[str, str]]:
    """(PyTorch's name, Flax name) of the arrays of one batch normalization."""
    for old, (collection, new) in _NORM.items():
        yield f"{torch_name}.{old}", f"{collection}/{flax_name}/{new}"


def read_state_dict(path: str | Path) -> dict[str, np.ndarray]:
    """Arrays of a PyTorch checkpoint (.pth.tar, .pth, .pt) or of an .npz, by PyTorch's names."""
    path = Path(path)
    if path.suffix == ".npz":
        arrays = weights_io.load_arrays(path)
    else:
        arrays = _read_torch(path)
    return {
        name.removeprefix("module."): array
        for name, array in arrays.items()
        if not name.endswith("num_batches_tracked")
    }


def _read_torch(path: Path) -> dict[str, np.ndarray]:
    if not path.is_file():
        raise FileNotFoundError(f"expected a PyTorch checkpoint at {path}, got no such file")
    try:
        # By name: PyTorch is no dependency of this project, nor of its type checks.
        torch = importlib.import_module("torch")
    except ImportError as error:
        raise ImportError(
            f"expected PyTorch to read {path}, got none installed; install torch, or save the "
            "state dict as .npz where PyTorch is: numpy.savez(file, **{k: v.numpy() ...})"
        ) from error
    try:
        # weights_only: a checkpoint is a pickle, which else could run any code.
        content = torch.load(path, map_location="cpu", weights_only=True)
        state = content.get("state_dict", content)
        return {name: value.numpy() for name, value in state.items()}
    except (
        OSError,
        RuntimeError,
        EOFError,
        AttributeError,
        pickle.UnpicklingError,
        zipfile.BadZipFile,
    ) as error:
        raise ValueError(
            f"expected a PyTorch checkpoint with a state dict, got {path}, which cannot be read "
            f"({type(error).__name__}); fetch it again"
        ) from error


def port(
    state: Mapping[str, np.ndarray],
    names: Mapping[str, str],
    template: Any,
    source: str | Path,
    constants: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Arrays by foreign names as variables of the shapes in `template` (nested).

    `names` maps each foreign name to its Flax name, `params/conv1/kernel`; `constants` are arrays
    by Flax names that no file holds.
    """
    wanted = weights_io.flatten(template)
    # Compared by the foreign names and shapes, so that an error speaks of the file.
    weights_io.check(state, {old: _foreign(new, wanted[new]) for old, new in names.items()}, source)
    flat = {name: np.asarray(value, np.float32) for name, value in (constants or {}).items()}
    for old, new in names.items():
        array = state[old]
        # (O, C, h, w) -> (h, w, C, O), the 1 x 1 of a pointwise kernel dropped; (O, C) -> (C, O).
        array = array.transpose(2, 3, 1, 0) if array.ndim == 4 else array.T
        flat[new] = np.ascontiguousarray(array).reshape(wanted[new].shape)
    return weights_io.fit(flat, template, source)


def _foreign(name: str, array: Any) -> jax.ShapeDtypeStruct:
    """Shape of the Flax array `name` in PyTorch and in Caffe."""
    shape = array.shape
    if len(shape) == 4:
        shape = (shape[3], shape[2], *shape[:2])
    elif len(shape) == 2:
        shape = shape[::-1] if name == "params/head/kernel" else (*shape[::-1], 1, 1)
    return jax.ShapeDtypeStruct(shape, array.dtype)
