"""Wang 2017: ResNet-50, a transition layer, log-sum-exp pooling and a linear prediction layer.

Wang, Peng, Lu, Lu, Bagheri and Summers, "ChestX-ray8: Hospital-scale Chest X-ray Database and Benchmarks on
Weakly-Supervised Classification and Localization of Common Thorax Diseases", CVPR 2017.

What the paper states: an ImageNet network without its last layers, of which ResNet-50 was the best; a transition layer
that brings its output to S x S x D, D = 2048 for ResNet-50; log-sum-exp pooling,

    x_p = x* + 1/r log(1/n sum over the n places of exp(r (x - x*))),    x* = max |x|,

with r = 10 as the best of 0.1, 0.5, 1, 5, 8, 10, 12; a fully connected prediction layer; a cross-entropy whose sides
are weighted by the labels of each batch (`hf_cxr.losses`: ``w_cel``); SGD with 80 images a step, about 10,000 steps,
at 1024 pixels. The heat map of a finding is the transition layer's output, its channels weighted by the finding's
weights in the prediction layer.

What it leaves open: learning rate, momentum, schedule, augmentation, and which layers the transition is made of.

What was chosen: the transition is a 1x1 convolution, batch norm and ReLU, so that the scale which r multiplies is
about 1 from the first step. ResNet-50 is the one of transformers, which has its strides in the 3x3 convolutions, and
``downsample_in_bottleneck`` moves them to the 1x1 ones, where the paper's Caffe model had them. x* cancels in exact
arithmetic; here it is max x, which never overflows.

B = images, C = findings, D = channels of the transition, h, w = its grid, S = side of the image in pixels.
"""

import math
from collections.abc import Mapping

import torch
from huggingface_hub.dataclasses import strict
from torch import Tensor, nn
from transformers import PreTrainedConfig, PreTrainedModel, ResNetConfig, ResNetModel
from transformers import initialization as init
from transformers.modeling_outputs import ImageClassifierOutput

from hf_cxr.systems.initial_weights import load_part
from hf_cxr.systems.sizes import check_sizes

# Options that the ResNet gets as they are.
OF_RESNET = ("embedding_size", "hidden_sizes", "depths", "layer_type", "hidden_act", "downsample_in_bottleneck")


def log_sum_exp_pooling(features_BDhw: Tensor, r: float) -> Tensor:
    """``1/r log mean over places of exp(r x)``, (B, D): between the mean (r to 0) and the maximum (r to infinity).

    Float32, or float64 if the features are.

    >>> x = torch.tensor([0.0, 1.0]).view(1, 1, 1, 2)
    >>> [round(log_sum_exp_pooling(x, r).item(), 3) for r in (0.01, 10, 1000)]
    [0.501, 0.931, 0.999]
    """
    x = features_BDhw.to(torch.promote_types(features_BDhw.dtype, torch.float32)).flatten(2)
    largest = x.amax(dim=2, keepdim=True)
    # By expm1 and log1p: a small r leaves differences that exp rounds away.
    return largest.squeeze(2) + torch.expm1(r * (x - largest)).mean(dim=2).log1p() / r


@strict
class Wang2017Config(PreTrainedConfig):
    """Sizes of the ResNet and of what follows it. See the module for the paper.

    Args:
        image_size: side of the image in pixels; the paper's is 1024.
        embedding_size: channels of the first convolution.
        hidden_sizes: channels of each stage.
        depths: layers of each stage.
        layer_type: bottleneck (ResNet-50) or basic.
        hidden_act: activation of the ResNet.
        downsample_in_bottleneck: strides are in the 1x1 convolutions, as in the paper's Caffe model. Weights on the
            Hub (microsoft/resnet-50) have them in the 3x3 ones.
        transition_size: D, channels of the transition layer; the paper's is 2048.
        lse_r: r of the log-sum-exp pooling, above 0; towards 0 it is the mean, towards infinity the maximum.
    """

    model_type = "wang2017"

    image_size: int = 1024
    num_channels: int = 3
    embedding_size: int = 64
    hidden_sizes: list[int] | tuple[int, ...] = (256, 512, 1024, 2048)
    depths: list[int] | tuple[int, ...] = (3, 4, 6, 3)
    layer_type: str = "bottleneck"
    hidden_act: str = "relu"
    downsample_in_bottleneck: bool = False
    transition_size: int = 2048
    lse_r: float | int = 10.0

    def __post_init__(self, **kwargs):
        if not 0 < self.lse_r < math.inf:
            raise ValueError(f"lse_r is {self.lse_r}; it must be finite and above 0")
        sizes = ("embedding_size", "hidden_sizes", "depths", "transition_size")
        check_sizes(**{name: getattr(self, name) for name in sizes})
        if len(self.depths) != len(self.hidden_sizes):
            raise ValueError(f"depths has {len(self.depths)} stages and hidden_sizes {len(self.hidden_sizes)}")
        super().__post_init__(**kwargs)


class _Body(nn.Module):
    """Everything before the prediction layer: images (B, 3, S, S) to pooled features (B, D)."""

    def __init__(self, config: Wang2017Config):
        super().__init__()
        self.resnet = ResNetModel(ResNetConfig(**{key: getattr(config, key) for key in OF_RESNET}))
        self.transition = nn.Sequential(
            nn.Conv2d(config.hidden_sizes[-1], config.transition_size, 1, bias=False),
            nn.BatchNorm2d(config.transition_size),
            nn.ReLU(),
        )
        self.r = config.lse_r

    def forward(self, pixel_values: Tensor) -> Tensor:
        places_BDhw = self.transition(self.resnet(pixel_values).last_hidden_state)
        return log_sum_exp_pooling(places_BDhw, self.r)


class Wang2017(PreTrainedModel):
    """Logits (B, C) of images (B, 3, S, S), see the module."""

    config_class = Wang2017Config
    base_model_prefix = "body"
    main_input_name = "pixel_values"

    def __init__(self, config: Wang2017Config):
        super().__init__(config)
        self.body = _Body(config)
        self.classifier = nn.Linear(config.transition_size, config.num_labels)
        self.post_init()

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, nn.Conv2d):
            init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, pixel_values: Tensor) -> ImageClassifierOutput:
        return ImageClassifierOutput(logits=self.classifier(self.body(pixel_values)))

    def load_backbone(self, state_dict: Mapping[str, Tensor], config: PreTrainedConfig) -> None:
        """Start the ResNet from another model's weights, such as microsoft/resnet-50's; the rest stays as it is.

        Raises:
            ValueError: weights are missing, have another shape, or belong to a ResNet with its strides elsewhere.
        """
        theirs, ours = getattr(config, "downsample_in_bottleneck", None), self.config.downsample_in_bottleneck
        if theirs is not None and theirs != ours:
            raise ValueError(
                f"downsample_in_bottleneck is {theirs} for these weights and {ours} for this model; "
                f"set model_kwargs.downsample_in_bottleneck to {str(theirs).lower()}"
            )
        load_part(self.body.resnet, state_dict, "ResNet")
