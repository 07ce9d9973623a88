"""DNet: two convolutions that quarter an image of 1024 pixels, in front of DenseNet-121.

Gündel et al., "Learning to recognize abnormalities in chest X-rays with location-aware dense networks", 2018,
arXiv:1803.04565.

What the paper states: DenseNet-121 behind two additional convolutions of stride 2 with 3x3 kernels, 3 of them each, so
that 1024 pixels enter it as 256; a weighted binary cross-entropy. DNetLoc, its larger system, has 35 outputs: 12
labels of the PLCO trial besides the 14 of ChestX-ray14, and places; each data set's loss is masked where it has no
labels. On the official list the paper reports a macro AUC of 0.807.

What cannot be built again here: whatever uses PLCO, whose images and labels are given out on request alone. This is
DNet on the labels of ChestX-ray14, and 0.807 is not its figure.

What it leaves open, as far as we know it: padding, norms and activations of the two convolutions, and where they
start.

What was chosen: padding 1, no norm and no activation between them or behind them, so that DenseNet-121 gets values as
its ImageNet weights expect them. They start as a blur of each channel (1 2 1 in each direction), so that the first
step sees the image at a quarter of its size; both are trained. Global mean pooling and one linear layer follow, as in
DenseNet-121.

B = images, C = findings, D = features, S = side of the image in pixels.
"""

from collections.abc import Mapping

import torch
from huggingface_hub.dataclasses import strict
from torch import Tensor, nn
from transformers import PreTrainedConfig, PreTrainedModel
from transformers import initialization as init
from transformers.modeling_outputs import ImageClassifierOutput

from hf_cxr.systems.densenet import SIZES, DenseNet, modern_names
from hf_cxr.systems.initial_weights import load_part
from hf_cxr.systems.sizes import check_sizes

CHANNELS = 3  # of an image, and kernels of each of the two convolutions


@strict
class DNetConfig(PreTrainedConfig):
    """Sizes of the DenseNet; the defaults are DenseNet-121's. See the module for the paper.

    Args:
        image_size: side of the image in pixels; the paper's is 1024.
        growth_rate: channels that each layer adds.
        depths: layers of each dense block.
        width: channels of the DenseNet's first convolution.
        bottleneck: channels of a layer's 1x1 convolution, as a multiple of growth_rate.
    """

    model_type = "dnet"

    image_size: int = 1024
    num_channels: int = CHANNELS
    growth_rate: int = 32
    depths: list[int] | tuple[int, ...] = (6, 12, 24, 16)
    width: int = 64
    bottleneck: int = 4

    def __post_init__(self, **kwargs):
        check_sizes(**{name: getattr(self, name) for name in SIZES})
        super().__post_init__(**kwargs)


class DNet(PreTrainedModel):
    """Logits (B, C) of images (B, 3, S, S), see the module."""

    config_class = DNetConfig
    base_model_prefix = "densenet"
    main_input_name = "pixel_values"

    def __init__(self, config: DNetConfig):
        super().__init__(config)
        self.reduction = nn.Sequential(
            *(nn.Conv2d(CHANNELS, CHANNELS, 3, stride=2, padding=1, bias=False) for _ in range(2))
        )
        self.densenet = DenseNet(**{name: getattr(config, name) for name in SIZES})
        self.classifier = nn.Linear(self.densenet.num_features, config.num_labels)
        self.post_init()

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if any(module is layer for layer in self.reduction):
            init.copy_(module.weight, _blur().to(module.weight))
        elif isinstance(module, nn.Conv2d):
            init.kaiming_normal_(module.weight)

    def forward(self, pixel_values: Tensor) -> ImageClassifierOutput:
        places_BDhw = self.densenet(self.reduction(pixel_values))
        return ImageClassifierOutput(logits=self.classifier(places_BDhw.mean(dim=(2, 3))))

    def load_backbone(self, state_dict: Mapping[str, Tensor], config: PreTrainedConfig) -> None:
        """Start the DenseNet from another model's weights, as torchvision and timm name them; the rest stays.

        Raises:
            ValueError: weights are missing or have another shape.
        """
        load_part(self.densenet, modern_names(state_dict), "DenseNet")


def _blur() -> Tensor:
    """Weights (3, 3, 3, 3) of a convolution that blurs each channel and mixes none."""
    line = torch.tensor([1.0, 2.0, 1.0]) / 4
    return torch.eye(CHANNELS)[:, :, None, None] * torch.outer(line, line)
