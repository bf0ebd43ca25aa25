"""Weights of other frameworks, renamed and transposed into Flax variables.

DenseNet-BC in PyTorch, with the module names of github deeplearning-wisc/dice (and of the older
andreasveit/densenet-pytorch): `conv1`, `block1.layer.0.bn1/conv1/bn2/conv2`, `trans1.bn1/conv1`,
`bn1`, `fc`. Kernels turn from (O, C, 3, 3) to (3, 3, C, O), and (O, C) to (C, O).
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

DICE_MEAN = (0.4914, 0.4822, 0.4465)
DICE_STD = (0.2023, 0.1994, 0.2010)

_NORM = {
    "weight": ("params", "scale"),
    "bias": ("params", "bias"),
    "running_mean": ("batch_stats", "mean"),
    "running_var": ("batch_stats", "var"),
}


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


def densenet_names(blocks: int, per_block: int) -> Iterator[tuple[str, str]]:
    """(PyTorch's name, Flax name) of each array of a DenseNet-BC."""

    def norm(torch_name, flax_name):
        for old, (collection, new) in _NORM.items():
            yield f"{torch_name}.{old}", f"{collection}/{flax_name}/{new}"

    yield "conv1.weight", "params/conv1/kernel"
    for block in range(1, blocks + 1):
        for i in range(per_block):
            old, new = f"block{block}.layer.{i}", f"dense{block}_layer{i + 1}"
            for j in (1, 2):
                yield from norm(f"{old}.bn{j}", f"{new}/norm{j}")
                yield f"{old}.conv{j}.weight", f"params/{new}/conv{j}/kernel"
        if block < blocks:
            yield from norm(f"trans{block}.bn1", f"trans{block}/norm")
            yield f"trans{block}.conv1.weight", f"params/trans{block}/conv/kernel"
    yield from norm("bn1", "head_norm")
    yield "fc.weight", "params/head/kernel"
    yield "fc.bias", "params/head/bias"


def densenet_shape(state: Mapping[str, np.ndarray], source: str | Path) -> tuple[int, int, int]:
    """Depth, growth rate and classes of the DenseNet-BC that a state dict belongs to."""
    first = "block1.layer.0.conv1.weight"
    for name, axes in (("conv1.weight", 4), (first, 4), ("fc.weight", 2)):
        if name not in state or state[name].ndim != axes:
            got = weights_io.describe(state[name]) if name in state else "none"
            raise ValueError(
                f"expected the array {name} with {axes} axes, as in a DenseNet-BC, in {source}, "
                f"got {got}; rename the arrays as models/porting.py lists them"
            )
    per_block = 1
    while first.replace("0", str(per_block)) in state:
        per_block += 1
    growth_rate, classes = state["conv1.weight"].shape[0] // 2, state["fc.weight"].shape[0]
    return 6 * per_block + 4, growth_rate, classes


def densenet_variables(
    state: Mapping[str, np.ndarray],
    template: Any,
    per_block: int,
    source: str | Path,
    mean: tuple[float, ...] = DICE_MEAN,
    std: tuple[float, ...] = DICE_STD,
) -> dict[str, Any]:
    """PyTorch's arrays as variables of the shapes in `template` (nested, with shapes and dtypes).

    `mean` and `std` are those by which the images were normalized in the training.
    """
    wanted = weights_io.flatten(template)
    names = dict(densenet_names(3, per_block))
    # Compared by PyTorch's names and shapes, so that an error speaks of the file.
    weights_io.check(
        state, {old: _in_torch(new, wanted[new]) for old, new in names.items()}, source
    )
    flat = {"constants/mean": np.asarray(mean, np.float32)}
    flat["constants/std"] = np.asarray(std, np.float32)
    for old, new in names.items():
        array = state[old]
        # (O, C, h, w) -> (h, w, C, O), the 1 x 1 of a pointwise kernel dropped; (O, C) -> (C, O).
        array = array.transpose(2, 3, 1, 0) if array.ndim == 4 else array.T
        flat[new] = np.ascontiguousarray(array).reshape(wanted[new].shape)
    return weights_io.fit(flat, template, source)


def _in_torch(name: str, array: Any) -> jax.ShapeDtypeStruct:
    """Shape of the Flax array `name` in PyTorch."""
    shape = array.shape
    if len(shape) == 4:
        shape = (shape[3], shape[2], *shape[:2])
    elif len(shape) == 2:
        shape = shape[::-1] if name == "params/head/kernel" else (*shape[::-1], 1, 1)
    return jax.ShapeDtypeStruct(shape, array.dtype)
