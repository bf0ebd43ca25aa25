"""A reader of PyTorch's checkpoints (`.pth`, `.pt`, `.pth.tar`, `.ckpt`, `.bin`) that runs no code.

A checkpoint is a pickle, which could call any function. PyTorch's reader with `weights_only`
accepts only a few classes. This module also accepts classes that are mere records and numbers.
"""

import argparse
import collections
import datetime
import importlib
import pathlib
import pickle
import re
import types
import warnings
import zipfile
from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np

from models import npz, state_dict
from models.stored import Shape, Stored, check_plausible, looks_like

_NUMPY = ("numpy._core.multiarray", "numpy.core.multiarray")  # of NumPy 2 and NumPy 1
_UNKNOWN = re.compile(r"(?:GLOBAL|but got|function) (<[^>]+>|[\w.]+)")
_OPERAND = re.compile(r"Unsupported operand \d+")


def stored(path: Path) -> Stored:
    """Opens the state dict in a checkpoint.

    Args:
      path: the checkpoint.

    Returns:
      The arrays by the names in the file.

    Raises:
      FileNotFoundError: there is no such file.
      ImportError: PyTorch is not installed.
      ValueError: the file cannot be read, or contains something else.
    """
    if not path.is_file():
        raise FileNotFoundError(f"expected a PyTorch checkpoint at {path}, got no such file")
    try:
        # By name, because PyTorch is no dependency of this project or of its type checks.
        torch = importlib.import_module("torch")
    except ImportError as error:
        raise ImportError(
            f"expected PyTorch to read {path}, got none installed; install torch, or save the "
            "state dict as .npz where PyTorch is: numpy.savez(file, **{k: v.numpy() ...})"
        ) from error
    tensors = state_dict.find(_load(torch, path), _is_array, path)
    shapes = {name: _shape(torch, name, tensor, path) for name, tensor in tensors.items()}

    def read(names: Collection[str]) -> dict[str, np.ndarray]:
        return {name: _numbers(torch, tensors[name]) for name in names}

    return Stored(shapes, read)


def _load(torch: Any, path: Path) -> Any:
    try:
        if zipfile.is_zipfile(path):
            with path.open("rb") as file, zipfile.ZipFile(file) as archive:
                npz.check_archive(archive)
                if any(name.endswith("/constants.pkl") for name in archive.namelist()):
                    raise _TorchScriptError
        with torch.serialization.safe_globals(_harmless()), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about protocols; the message below names them
            return torch.load(path, map_location="cpu", weights_only=True)
    except _TorchScriptError:
        raise ValueError(
            f"expected a PyTorch checkpoint with a state dict, got {path}, a compiled TorchScript "
            "module; save its weights: torch.save(torch.jit.load(FILE).state_dict(), OTHER)"
        ) from None
    except Exception as error:  # each kind of damage has its own exception
        refused = _refused(torch, path, error)
        if refused:
            raise ValueError(
                f"expected a PyTorch checkpoint of tensors, numbers and text, got {path}, which "
                f"also holds {refused}: opening that could run any code; if you trust the file, "
                "save its state dict alone, where that class is installed: "
                "torch.save(torch.load(FILE, weights_only=False)['state_dict'], OTHER)"
            ) from error
        operand, why = _OPERAND.search(str(error)), looks_like(path)
        if operand and not why and (zipfile.is_zipfile(path) or path.read_bytes()[:1] == b"\x80"):
            raise ValueError(
                f"expected a PyTorch checkpoint in the pickle protocol 2, got {path}, which cannot "
                f"be read ({operand[0]}); save it again by torch.save without `pickle_protocol`, "
                "or, if it is damaged, fetch it again"
            ) from error
        why = why or f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"
        raise ValueError(
            f"expected a PyTorch checkpoint with a state dict, got {path}, which cannot be read "
            f"({why}); the file is damaged: fetch it again"
        ) from error


class _TorchScriptError(Exception):
    pass


def _refused(torch: Any, path: Path, error: Exception) -> str | None:
    """Names the classes that PyTorch refused; returns None if that was not the reason."""
    if not isinstance(error, pickle.UnpicklingError):
        return None
    try:
        with torch.serialization.safe_globals(_harmless()):
            names = torch.serialization.get_unsafe_globals_in_checkpoint(path)
    except Exception:  # files in the format before 2020, or damaged
        names = _UNKNOWN.findall(str(error))
    return ", ".join(dict.fromkeys(names)) or None


def _harmless() -> list[Any]:
    """Lists records, paths, dates, NumPy's numbers and arrays, which often accompany weights."""
    multiarray = importlib.import_module(_NUMPY[0])
    made = [
        (getattr(multiarray, f), f"{m}.{f}") for m in _NUMPY for f in ("scalar", "_reconstruct")
    ]
    dtypes = {type(np.dtype(kind)) for kind in "?bhilqBHILQefdgFDSU"}
    arrays = [np.ndarray, np.dtype, (_latin1, "_codecs.encode")]
    records = [argparse.Namespace, types.SimpleNamespace, collections.defaultdict]
    records += [collections.deque, list, dict, set, frozenset, complex, slice]
    paths = [pathlib.Path, pathlib.PosixPath, pathlib.WindowsPath, pathlib.PurePosixPath]
    paths += [pathlib.PureWindowsPath, (pathlib.PosixPath, "pathlib._local.PosixPath")]
    dates = [datetime.datetime, datetime.date, datetime.timedelta]
    return [*made, *dtypes, *arrays, *records, *paths, *dates]


def _latin1(text: str, encoding: str) -> bytes:
    """Replaces `codecs.encode` for the bytes of NumPy's numbers, without any other encoding."""
    if encoding not in ("latin1", "latin-1"):
        raise pickle.UnpicklingError(f"expected bytes in latin1, got {encoding}")
    return text.encode("latin1")


def _is_array(value: Any) -> bool:
    return isinstance(value, np.ndarray) or hasattr(value, "is_quantized")


def _shape(torch: Any, name: str, tensor: Any, path: Path) -> Shape:
    if isinstance(tensor, np.ndarray):
        return Shape(tensor.shape, tensor.dtype)
    what = None
    if tensor.is_quantized:
        what = "a quantized tensor"
    elif tensor.layout != torch.strided:
        what = "a sparse tensor"
    elif tensor.is_meta:
        what = "a tensor without numbers (on the device `meta`)"
    elif type(tensor) not in (torch.Tensor, torch.nn.Parameter):
        what = f"a {type(tensor).__name__}"
    if what:
        raise ValueError(
            f"expected plain tensors in {path}, got {what} as {name}; save the network in floating "
            "point: dense, not quantized, on the CPU"
        )
    try:
        dtype = np.dtype(str(tensor.dtype).removeprefix("torch."))
    except TypeError:  # bfloat16 and smaller dtypes become float32
        dtype = np.dtype(np.float32 if tensor.dtype.is_floating_point else np.void)
    shape = Shape(tuple(tensor.shape), dtype)
    try:
        # A tensor that was expanded has more elements than numbers.
        check_plausible(shape.nbytes, tensor.untyped_storage().nbytes(), name)
    except ValueError as error:
        raise ValueError(
            f"expected tensors that lie in {path}, got one that does not: {error}; fetch it again"
        ) from error
    return shape


def _numbers(torch: Any, tensor: Any) -> np.ndarray:
    if isinstance(tensor, np.ndarray):
        return tensor
    tensor = tensor.detach().resolve_conj().resolve_neg()
    if tensor.dtype.is_floating_point and tensor.dtype not in (torch.float32, torch.float64):
        tensor = tensor.float()
    return tensor.numpy()
