"""Both GoogLeNets in plain PyTorch, computed from arrays by Caffe's or torchvision's names."""

# PyTorch is optional: without it this file is not imported.
# pyright: reportMissingImports=false

import numpy as np
import torch
from torch.nn import functional as F

from models.googlenet import BRANCHES, INCEPTIONS
from models.googlenet_porting import caffe_names, torchvision_names

TORCH_BRANCHES = dict(
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
        x = 255 * images.flip(1)
        return x - torch.tensor([104.0, 117.0, 123.0])[:, None, None]

    def conv(self, name, x, stride=1):
        stem = {"conv1": "conv1/7x7_s2", "conv2_reduce": "conv2/3x3_reduce", "conv2": "conv2/3x3"}
        name = stem.get(name, name.replace("inception", "inception_"))
        weight, bias = self.arrays[f"{name}/weight"], self.arrays[f"{name}/bias"]
        return F.relu(F.conv2d(x, weight, bias, stride, weight.shape[-1] // 2))

    def norm(self, x):
        return F.local_response_norm(x, 5, alpha=1e-4, beta=0.75, k=1.0)

    def pool4(self, x):
        return F.max_pool2d(x, 3, 2, ceil_mode=True)

    def head(self, x):
        return F.linear(
            x, self.arrays["loss3/classifier/weight"], self.arrays["loss3/classifier/bias"]
        )


class Torchvision(Caffe):
    """torchvision's: batch normalization, 3x3 for 5x5, `transform_input`."""

    def preprocess(self, images):
        mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
        x = (images - mean[:, None, None]) / std[:, None, None]
        # transform_input
        return x * (std / 0.5)[:, None, None] + ((mean - 0.5) / 0.5)[:, None, None]

    def conv(self, name, x, stride=1):
        name = {"conv2_reduce": "conv2", "conv2": "conv3"}.get(name, name)
        module, _, branch = name.partition("/")
        if branch:
            name = f"{module}.{TORCH_BRANCHES[branch]}"
        weight = self.arrays[f"{name}.conv.weight"]
        x = F.conv2d(x, weight, None, stride, weight.shape[-1] // 2)
        names = ("running_mean", "running_var", "weight", "bias")
        return F.relu(F.batch_norm(x, *(self.arrays[f"{name}.bn.{n}"] for n in names), eps=1e-3))

    def norm(self, x):
        return None

    def pool4(self, x):
        return F.max_pool2d(x, 2, 2, ceil_mode=True)

    def head(self, x):
        return F.linear(x, self.arrays["fc.weight"], self.arrays["fc.bias"])


def forward(net, images):
    """Every layer by its name in `models.googlenet.layer_names`; images (B, H, W, 3) in [0, 1]."""
    taps = {}

    def keep(name, x):
        if x is not None:
            taps[name] = x
            return x
        return previous

    with torch.no_grad():
        x = net.preprocess(torch.from_numpy(np.asarray(images)).permute(0, 3, 1, 2))
        x = keep("conv1", net.conv("conv1", x, 2))
        previous = x = keep("pool1", F.max_pool2d(x, 3, 2, ceil_mode=True))
        x = keep("norm1", net.norm(x))
        x = keep("conv2_reduce", net.conv("conv2_reduce", x))
        previous = x = keep("conv2", net.conv("conv2", x))
        x = keep("norm2", net.norm(x))
        x = keep("pool2", F.max_pool2d(x, 3, 2, ceil_mode=True))
        for module in INCEPTIONS:
            pooled = F.max_pool2d(x, 3, 1, 1, ceil_mode=True)
            inputs = {"3x3": "3x3_reduce", "5x5": "5x5_reduce"}
            for branch in BRANCHES:
                source = taps[f"{module}/{inputs[branch]}"] if branch in inputs else x
                if branch == "pool_proj":
                    source = pooled
                taps[f"{module}/{branch}"] = net.conv(f"{module}/{branch}", source)
            outputs = ("1x1", "3x3", "5x5", "pool_proj")
            x = taps[module] = torch.cat([taps[f"{module}/{name}"] for name in outputs], 1)
            if module == "inception3b":
                x = keep("pool3", F.max_pool2d(x, 3, 2, ceil_mode=True))
            if module == "inception4e":
                x = keep("pool4", net.pool4(x))
        x = keep("pool5", x.mean((2, 3)))
        keep("logits", net.head(x))
    return {name: (x.permute(0, 2, 3, 1) if x.ndim == 4 else x).numpy() for name, x in taps.items()}


def networks(variant, arrays):
    return {"bvlc": Caffe, "torchvision": Torchvision}[variant](arrays)


def names(variant):
    return dict(caffe_names() if variant == "bvlc" else torchvision_names())
