"""The networks of `vs_pytorch` in PyTorch, from the same files as ours."""

# PyTorch is optional: without it this file is not imported.
# pyright: reportMissingImports=false

from collections.abc import Callable

import torch

from benchmarks import torch_googlenet
from benchmarks.torch_densenet import TorchDenseNet
from models import densenet_porting, porting


def network(name: str, path: str, layer: str) -> tuple[Callable, int]:
    """(images (B, 3, H, W) in [0, 1] -> activations of the layer, image size), channels last."""
    arrays = porting.read_state_dict(path)
    if name == "googlenet":
        net = torch_googlenet.networks("bvlc", arrays)
        net.arrays = {key: _last(value) for key, value in net.arrays.items()}
        return (lambda images: torch_googlenet.forward(net, images, layer)[layer]), 224
    depth, growth_rate, classes = densenet_porting.architecture(arrays, path)
    module = TorchDenseNet(depth, growth_rate, classes).eval().requires_grad_(False)
    state = {key: torch.from_numpy(value) for key, value in arrays.items()}
    module.load_state_dict(state, strict=False)  # without the counters of batch normalization
    module = module.to(memory_format=torch.channels_last)
    mean, std = (
        torch.tensor(x)[:, None, None]
        for x in (densenet_porting.DICE_MEAN, densenet_porting.DICE_STD)
    )
    # All of its layers up to block 3 are wanted; what follows, the head, costs next to nothing.
    return (lambda images: module((images - mean) / std)[layer]), 32


def _last(tensor: torch.Tensor) -> torch.Tensor:
    if tensor.ndim == 4:
        return tensor.contiguous(memory_format=torch.channels_last)
    return tensor
