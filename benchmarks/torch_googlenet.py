"""Both GoogLeNets in plain PyTorch, computed from arrays by Caffe's or torchvision's names."""

# PyTorch is optional: without it this file is not imported.
# pyright: reportMissingImports=false

import numpy as np
import torch
from torch.nn import functional as F

from models.googlenet import BRANCHES, INCEPTIONS

TORCH_BRANCHES: dict[str, str] = dict(
    zip(
        BRANCHES,
        ("branch1", "branch2.0", "branch2.1", "branch3.0", "branch3.1", "branch4.1"),
        strict=True,
    )
)


class Caffe:
    """BVLC's: biases, local response normalization."""

    def __init__(self, arrays):
        self.arrays = {name: torch.from_numpy(np.asarray(a)) for name, a in arrays.items()}

    def preprocess(self, images):
        """Pixels in [0, 1] (B, 3, H, W) to what the first layer takes."""
        x = 255 * images.flip(1)
        return x - torch.tensor([104.0, 117.0, 123.0])[:, None, None]

    def conv(self, name, x, stride=1):
        """The convolution of a layer by our name, with its ReLU."""
        stem = {"conv1": "conv1/7x7_s2", "conv2_reduce": "conv2/3x3_reduce", "conv2": "conv2/3x3"}
        name = stem.get(name, name.replace("inception", "inception_"))
        weight, bias = self.arrays[f"{name}/weight"], self.arrays[f"{name}/bias"]
        return F.relu(F.conv2d(x, weight, bias, stride, weight.shape[-1] // 2))

    def norm(self, x):
        """Local response normalization."""
        return F.local_response_norm(x, 5, alpha=1e-4, beta=0.75, k=1.0)

    def pool4(self, x):
        """The fourth pool."""
        return F.max_pool2d(x, 3, 2, ceil_mode=True)

    def head(self, x):
        """The classifier."""
        return F.linear(
            x, self.arrays["loss3/classifier/weight"], self.arrays["loss3/classifier/bias"]
        )


class Torchvision(Caffe):
    """torchvision's: batch normalization, 3x3 for 5x5, `transform_input`."""

    def preprocess(self, images):
        """ImageNet's mean and deviation, then `transform_input`."""
        mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
        x = (images - mean[:, None, None]) / std[:, None, None]
        return x * (std / 0.5)[:, None, None] + ((mean - 0.5) / 0.5)[:, None, None]

    def conv(self, name: str, x, stride=1):
        """Convolution, batch normalization, ReLU."""
        renamed = {"conv2_reduce": "conv2", "conv2": "conv3"}
        name = renamed.get(name, name)
        module, _, branch = name.partition("/")
        if branch:
            name = f"{module}.{TORCH_BRANCHES[branch]}"
        weight = self.arrays[f"{name}.conv.weight"]
        x = F.conv2d(x, weight, None, stride, weight.shape[-1] // 2)
        mean, variance, scale, shift = (
            self.arrays[f"{name}.bn.{n}"] for n in ("running_mean", "running_var", "weight", "bias")
        )
        return F.relu(F.batch_norm(x, mean, variance, scale, shift, eps=1e-3))

    def norm(self, x):
        """There is none."""
        return None

    def pool4(self, x):
        """Its window is 2, not 3."""
        return F.max_pool2d(x, 2, 2, ceil_mode=True)

    def head(self, x):
        """The classifier."""
        return F.linear(x, self.arrays["fc.weight"], self.arrays["fc.bias"])


def forward(net, images: torch.Tensor, upto: str = "logits") -> dict[str, torch.Tensor]:
    """Every layer up to `upto` by its name in `models.googlenet.layer_names`, channels second.

    Images (B, 3, H, W), pixels in [0, 1].
    """
    taps: dict[str, torch.Tensor] = {}
    x = net.preprocess(images)
    stem = (
        ("conv1", lambda x: net.conv("conv1", x, 2)),
        ("pool1", lambda x: F.max_pool2d(x, 3, 2, ceil_mode=True)),
        ("norm1", net.norm),
        ("conv2_reduce", lambda x: net.conv("conv2_reduce", x)),
        ("conv2", lambda x: net.conv("conv2", x)),
        ("norm2", net.norm),
        ("pool2", lambda x: F.max_pool2d(x, 3, 2, ceil_mode=True)),
    )
    for name, step in stem:
        y = step(x)
        if y is not None:
            x = taps[name] = y
    for module in INCEPTIONS:
        reduced = {"3x3": "3x3_reduce", "5x5": "5x5_reduce"}
        for branch in BRANCHES:
            source = taps[f"{module}/{reduced[branch]}"] if branch in reduced else x
            if branch == "pool_proj":
                source = F.max_pool2d(x, 3, 1, 1, ceil_mode=True)
            taps[f"{module}/{branch}"] = net.conv(f"{module}/{branch}", source)
        outputs = ("1x1", "3x3", "5x5", "pool_proj")
        x = taps[module] = torch.cat([taps[f"{module}/{name}"] for name in outputs], 1)
        if module == upto:
            return taps
        if module == "inception3b":
            x = taps["pool3"] = F.max_pool2d(x, 3, 2, ceil_mode=True)
        if module == "inception4e":
            x = taps["pool4"] = net.pool4(x)
    taps["pool5"] = x.mean((2, 3))
    taps["logits"] = net.head(taps["pool5"])
    return taps


def networks(variant, arrays):
    """The network of a variant, from arrays by the names of its files."""
    return {"bvlc": Caffe, "torchvision": Torchvision}[variant](arrays)
