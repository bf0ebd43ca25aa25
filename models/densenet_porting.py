"""DenseNet-BC of PyTorch: the names of its arrays, and its architecture by their shapes.

The module names are those of github deeplearning-wisc/dice (and of the older
andreasveit/densenet-pytorch): `conv1`, `block1.layer.0.bn1/conv1/bn2/conv2`, `trans1.bn1/conv1`,
`bn1`, `fc`.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from models import porting, weights_io
from models.porting import norm_names
from models.stored import Stored

DICE_MEAN = (0.4914, 0.4822, 0.4465)
DICE_STD = (0.2023, 0.1994, 0.2010)


def array_names(blocks: int, per_block: int) -> Iterator[tuple[str, str]]:
    """Yields (PyTorch's name, Flax name) of each array of a DenseNet-BC.

    Args:
      blocks: number of dense blocks.
      per_block: number of dense layers in each block.
    """
    yield "conv1.weight", "params/conv1/kernel"
    for block in range(1, blocks + 1):
        for i in range(per_block):
            old, new = f"block{block}.layer.{i}", f"dense{block}_layer{i + 1}"
            for j in (1, 2):
                yield from norm_names(f"{old}.bn{j}", f"{new}/norm{j}")
                yield f"{old}.conv{j}.weight", f"params/{new}/conv{j}/kernel"
        if block < blocks:
            yield from norm_names(f"trans{block}.bn1", f"trans{block}/norm")
            yield f"trans{block}.conv1.weight", f"params/trans{block}/conv/kernel"
    yield from norm_names("bn1", "head_norm")
    yield "fc.weight", "params/head/kernel"
    yield "fc.bias", "params/head/bias"


def architecture(state: Mapping[str, Any], source: str | Path) -> tuple[int, int, int]:
    """Reads the architecture of a DenseNet-BC off its state dict.

    Args:
      state: the arrays, or only their shapes and dtypes, by PyTorch's names.
      source: the file, for messages.

    Returns:
      Depth, growth rate and number of classes.

    Raises:
      ValueError: this is no state dict of a DenseNet-BC.
    """
    first = "block1.layer.0.conv1.weight"
    for name, axes in (("conv1.weight", 4), (first, 4), ("fc.weight", 2)):
        if name not in state or len(state[name].shape) != axes:
            got = weights_io.describe(state[name]) if name in state else "none"
            raise ValueError(
                f"expected the array {name} with {axes} axes, as in a DenseNet-BC, in {source}, "
                f"got {got}; rename the arrays as models/densenet_porting.py lists them"
            )
    per_block = 1
    while first.replace("0", str(per_block)) in state:
        per_block += 1
    growth_rate, classes = state["conv1.weight"].shape[0] // 2, state["fc.weight"].shape[0]
    return 6 * per_block + 4, growth_rate, classes


def variables(
    state: Mapping[str, np.ndarray] | Stored,
    template: Any,
    per_block: int,
    source: str | Path,
    mean: tuple[float, ...] = DICE_MEAN,
    std: tuple[float, ...] = DICE_STD,
) -> dict[str, Any]:
    """Turns PyTorch's arrays into variables.

    Args:
      state: the arrays by PyTorch's names.
      template: shapes and dtypes of the variables, nested.
      per_block: number of dense layers in each block.
      source: the file, for messages.
      mean: mean by which the images were normalized in the training.
      std: standard deviation by which they were normalized.

    Returns:
      The variables, nested.

    Raises:
      CheckError: an array is missing, superfluous, misshapen or impossible.
    """
    constants = {"constants/mean": mean, "constants/std": std}
    return porting.port(state, dict(array_names(3, per_block)), template, source, constants)
