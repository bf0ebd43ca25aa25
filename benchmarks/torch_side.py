"""The networks of `vs_pytorch` in PyTorch, from the same files as ours."""

# PyTorch is optional: without it this file is not imported.
# pyright: reportMissingImports=false

from collections.abc import Callable
from typing import NamedTuple

import torch

from benchmarks import torch_googlenet
from benchmarks.networks import TABLE_1
from benchmarks.torch_densenet import TorchDenseNet
from benchmarks.torch_fv import max_mean
from models import densenet_porting, porting


class TorchNetwork(NamedTuple):
    """A layer's aggregated features: images (B, 3, size, size) in [0, 1] -> (B, features)."""

    apply: Callable[[torch.Tensor], torch.Tensor]
    size: int
    features: int


def network(layer_name: str, path: str) -> TorchNetwork:
    """GN4c, DNde or DNcl, channels last, weights frozen."""
    arrays, layer = porting.read_state_dict(path), TABLE_1[layer_name].tap
    if layer_name == "GN4c":
        net = torch_googlenet.networks("bvlc", arrays)
        net.arrays = {key: _last(value) for key, value in net.arrays.items()}
        return TorchNetwork(
            lambda x: max_mean(torch_googlenet.forward(net, x, layer)[layer]), 224, 512
        )
    depth, growth_rate, classes = densenet_porting.architecture(arrays, path)
    module = TorchDenseNet(depth, growth_rate, classes).eval().requires_grad_(False)
    state = {key: torch.from_numpy(value) for key, value in arrays.items()}
    module.load_state_dict(state, strict=False)  # without the counters of batch normalization
    for parameter in module.parameters():
        parameter.data = _last(parameter.data)
    mean, std = (
        torch.tensor(x)[:, None, None]
        for x in (densenet_porting.DICE_MEAN, densenet_porting.DICE_STD)
    )
    # Behind dense block 3 the head is computed, too, but costs next to nothing.

    def apply(images: torch.Tensor) -> torch.Tensor:
        features = module((images - mean) / std)[layer]
        return features if layer == "logits" else max_mean(features)

    return TorchNetwork(apply, 32, apply(torch.full((1, 3, 32, 32), 0.5)).shape[1])


def _last(tensor: torch.Tensor) -> torch.Tensor:
    if tensor.ndim == 4:
        return tensor.contiguous(memory_format=torch.channels_last)
    return tensor
