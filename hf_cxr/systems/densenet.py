"""DenseNet under torchvision's and timm's names of weights, so that DenseNet-121's ImageNet weights fit as they are.

Huang, Liu, van der Maaten and Weinberger, "Densely Connected Convolutional Networks", CVPR 2017: each layer gets the
outputs of all layers of its block before it, concatenated; between blocks half of the channels and half of the side go
on. This is the variant with bottlenecks and compression (DenseNet-BC).

B = images, K = channels, h, w = grid.
"""

import re
from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

SIZES = ("growth_rate", "depths", "width", "bottleneck")  # arguments of `DenseNet`, and keys of a config that has one

# torchvision's first files have "denselayer1.norm.1.weight" for "denselayer1.norm1.weight".
OLD_NAME = re.compile(r"(denselayer\d+\.(?:norm|conv))\.([12])\.")


class DenseNet(nn.Module):
    """Images (B, 3, S, S) to features (B, K, h, w), behind the last ReLU; the grid is S / 2^(1 + blocks), rounded up.

    Args:
        growth_rate: channels that each layer adds.
        depths: layers of each block; DenseNet-121 has 6, 12, 24, 16.
        width: channels of the first convolution.
        bottleneck: channels of a layer's 1x1 convolution, as a multiple of ``growth_rate``.

    Attributes:
        num_features: K.
    """

    def __init__(self, growth_rate: int, depths: Sequence[int], width: int, bottleneck: int = 4):
        super().__init__()
        self.features = nn.Sequential()
        self.features.add_module("conv0", nn.Conv2d(3, width, 7, stride=2, padding=3, bias=False))
        self.features.add_module("norm0", nn.BatchNorm2d(width))
        self.features.add_module("relu0", nn.ReLU(inplace=True))
        self.features.add_module("pool0", nn.MaxPool2d(3, stride=2, padding=1))
        channels = width
        for number, depth in enumerate(depths, start=1):
            self.features.add_module(f"denseblock{number}", _DenseBlock(channels, depth, growth_rate, bottleneck))
            channels += depth * growth_rate
            if number < len(depths):
                self.features.add_module(f"transition{number}", _transition(channels))
                channels //= 2
        self.features.add_module("norm5", nn.BatchNorm2d(channels))
        self.features.add_module("relu5", nn.ReLU())  # not in place: heat maps keep its output
        self.num_features = channels

    def forward(self, pixel_values: Tensor) -> Tensor:
        return self.features(pixel_values)


class _DenseLayer(nn.Module):
    def __init__(self, channels: int, growth_rate: int, bottleneck: int):
        super().__init__()
        self.norm1 = nn.BatchNorm2d(channels)
        self.conv1 = nn.Conv2d(channels, bottleneck * growth_rate, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(bottleneck * growth_rate)
        self.conv2 = nn.Conv2d(bottleneck * growth_rate, growth_rate, 3, padding=1, bias=False)

    def forward(self, features: Tensor) -> Tensor:
        features = self.conv1(F.relu(self.norm1(features), inplace=True))
        return self.conv2(F.relu(self.norm2(features), inplace=True))


class _DenseBlock(nn.Module):
    def __init__(self, channels: int, depth: int, growth_rate: int, bottleneck: int):
        super().__init__()
        for number in range(depth):
            layer = _DenseLayer(channels + number * growth_rate, growth_rate, bottleneck)
            self.add_module(f"denselayer{number + 1}", layer)

    def forward(self, features: Tensor) -> Tensor:
        parts = [features]
        for layer in self.children():
            parts.append(layer(torch.cat(parts, dim=1)))
        return torch.cat(parts, dim=1)


def _transition(channels: int) -> nn.Sequential:
    layers = nn.Sequential()
    layers.add_module("norm", nn.BatchNorm2d(channels))
    layers.add_module("relu", nn.ReLU(inplace=True))
    layers.add_module("conv", nn.Conv2d(channels, channels // 2, 1, bias=False))
    layers.add_module("pool", nn.AvgPool2d(2, stride=2))
    return layers


def modern_name(name: str) -> str:
    """Today's name of a DenseNet's weight; any other name as it is.

    >>> modern_name("features.denseblock1.denselayer1.norm.1.weight")
    'features.denseblock1.denselayer1.norm1.weight'
    """
    return OLD_NAME.sub(r"\1\2.", name)


def modern_names(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights of a DenseNet under today's names."""
    return {modern_name(name): weight for name, weight in state_dict.items()}
