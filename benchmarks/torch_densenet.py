"""A DenseNet-BC in plain PyTorch, with the state-dict names of `models.densenet_porting`."""

# PyTorch is optional: without it this file is not imported.
# pyright: reportMissingImports=false

import torch
from torch import nn
from torch.nn import functional


class Bottleneck(nn.Module):
    """BN-ReLU-conv1x1-BN-ReLU-conv3x3, appended to its input."""

    def __init__(self, channels, growth_rate):
        super().__init__()
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv1 = nn.Conv2d(channels, 4 * growth_rate, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(4 * growth_rate)
        self.conv2 = nn.Conv2d(4 * growth_rate, growth_rate, 3, padding=1, bias=False)

    def forward(self, x):
        """(B, C, H, W) -> (B, C + k, H, W)."""
        new = self.conv2(functional.relu(self.bn2(self.conv1(functional.relu(self.bn1(x))))))
        return torch.cat([x, new], 1)


class Transition(nn.Module):
    """BN-ReLU-conv1x1-average pool 2."""

    def __init__(self, channels):
        super().__init__()
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv1 = nn.Conv2d(channels, channels // 2, 1, bias=False)

    def forward(self, x):
        """(B, C, H, W) -> (B, C/2, H/2, W/2)."""
        return functional.avg_pool2d(self.conv1(functional.relu(self.bn1(x))), 2)


class Block(nn.Module):
    """The layers of a dense block."""

    def __init__(self, channels, growth_rate, count):
        super().__init__()
        layers = [Bottleneck(channels + i * growth_rate, growth_rate) for i in range(count)]
        self.layer = nn.Sequential(*layers)


class TorchDenseNet(nn.Module):
    """The whole network."""

    def __init__(self, depth, growth_rate, classes):
        super().__init__()
        count, channels = (depth - 4) // 6, 2 * growth_rate
        self.conv1 = nn.Conv2d(3, channels, 3, padding=1, bias=False)
        for block in (1, 2, 3):
            setattr(self, f"block{block}", Block(channels, growth_rate, count))
            channels += count * growth_rate
            if block < 3:
                setattr(self, f"trans{block}", Transition(channels))
                channels //= 2
        self.bn1 = nn.BatchNorm2d(channels)
        self.fc = nn.Linear(channels, classes)

    def forward(self, x):
        """All layers, by the names of `models.densenet.layer_names`."""
        taps = {"conv1": (x := self.conv1(x))}
        for block in (1, 2, 3):
            for i, layer in enumerate(getattr(self, f"block{block}").layer):
                taps[f"dense{block}/layer{i + 1}"] = x = layer(x)
            taps[f"dense{block}"] = x
            if block < 3:
                taps[f"trans{block}"] = x = getattr(self, f"trans{block}")(x)
        taps["head_norm"] = x = functional.relu(self.bn1(x))
        taps["logits"] = self.fc(x.mean((2, 3)))
        return taps


def randomize(net, seed):
    """Weights and running statistics as after a training: nothing zero, nothing one."""
    generator = torch.Generator().manual_seed(seed)

    def uniform(tensor, low, high):
        tensor.uniform_(low, high, generator=generator)

    with torch.no_grad():
        for module in net.modules():
            if isinstance(module, nn.BatchNorm2d):
                uniform(module.weight, 0.5, 1.5)
                uniform(module.running_var, 0.5, 1.5)
                uniform(module.bias, -0.5, 0.5)
                uniform(module.running_mean, -0.5, 0.5)
            elif isinstance(module, (nn.Conv2d, nn.Linear)):
                bound = (6 / module.weight[0].numel()) ** 0.5
                uniform(module.weight, -bound, bound)
    return net.eval()
