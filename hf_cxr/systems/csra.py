"""CSRA: class-specific residual attention over the last grid of any backbone that transformers knows.

Zhu and Wu, "Residual Attention: A Simple but Effective Method for Multi-Label Recognition" (ICCV 2021), arXiv
2108.02456, equations 1 to 5, and its repository Kevinz-code/CSRA.

A finding c has a classifier m_c. Its score at each place n of the backbone's last grid is s_n = x_n . m_c, and

    logit_c = mean_n s_n + lam * sum_n softmax(T s)_n s_n + b_c

the mean, as global average pooling and a linear layer have it, and lam times an attention of the finding's own over
the grid. T -> infinity makes that attention the maximum; lam = 0 leaves average pooling. Several heads, each with
classifiers and a separate temperature (`TEMPERATURES`), are added up.

Stated there: the equations, and the temperatures of 1, 2, 4, 6 and 8 heads. lam 0.1 is what an entry of CXR-LT 2026
took. Left open and chosen here: each finding has a bias b_c, where the loss's no-information optimum goes. The
repository divides each m_c by its norm; not so here, and lam = 0 is a plain linear classifier.

A backbone's grid is what its own classifier pools, normalised as that one would be: ConvNeXt and BEiT norm what was
pooled, and their norm acts on each place here. Class and register tokens are left out.

B = images, C = findings, D = features, N = places of the grid, h, w = its sides, S = side of the image in pixels.
"""

from collections.abc import Mapping, Sequence
from typing import ClassVar

import torch
from huggingface_hub.dataclasses import strict
from torch import nn
from transformers import AutoConfig, AutoModelForImageClassification, PreTrainedConfig, PreTrainedModel
from transformers.configuration_utils import SubConfigSpec
from transformers.modeling_outputs import ImageClassifierOutput
from transformers.utils import can_return_tuple

from hf_cxr.systems.grids import as_grid
from hf_cxr.systems.initial_weights import check_same_backbone, load_part
from hf_cxr.systems.output_layer import OutputLayer

MAX = "max"  # the temperature of a head that takes the maximum
# Number of heads -> their temperatures, as the paper has them.
TEMPERATURES: dict[int, tuple[float | str, ...]] = {
    1: (1.0,),
    2: (1.0, MAX),
    4: (1.0, 2.0, 4.0, MAX),
    6: (1.0, 2.0, 3.0, 4.0, 5.0, MAX),
    8: (1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, MAX),
}
# Backbones that norm what they have pooled -> their norm.
LATE_NORM = {
    "beit": "pooler.layernorm",
    "data2vec-vision": "pooler.layernorm",
    "convnext": "layernorm",
    "convnextv2": "layernorm",
}


@strict
class CSRAConfig(PreTrainedConfig):
    """A backbone, and the attention over its last grid.

    Args:
        backbone_config: model_type of the backbone and its options, such as {"model_type": "convnextv2", "depths":
            [3, 3, 9, 3]}; a Swin-T if left out.
        lam: weight of the attention relative to the mean, at least 0; 0 is average pooling.
        temperature: of the softmax, above 0, or "max", its limit: the maximum over the grid. For one head.
        heads: 1, 2, 4, 6 or 8; several have the temperatures of the paper, 1 to max.
        initializer_range: standard deviation of the classifiers at the start.
    """

    model_type = "csra"
    sub_configs_defaults: ClassVar = {"backbone_config": SubConfigSpec(config_class=AutoConfig, model_type="swin")}

    backbone_config: dict | PreTrainedConfig | None = None
    image_size: int = 224
    lam: float | int = 0.1
    temperature: float | int | str = 1.0
    heads: int = 1
    initializer_range: float | int = 0.02

    def __post_init__(self, **kwargs):
        super().__post_init__(**kwargs)
        self.backbone_config.image_size = self.image_size
        self.backbone_config.architectures = []  # where it has two classifiers, transformers chooses by this list
        if not self.lam >= 0:
            raise ValueError(f"lam is {self.lam}; it must be at least 0")
        number = isinstance(self.temperature, int | float)
        if self.temperature != MAX and not (number and self.temperature > 0):
            raise ValueError(f"temperature is {self.temperature!r}; it must be above 0, or {MAX}")
        if self.heads not in TEMPERATURES:
            raise ValueError(f"heads is {self.heads}; it must be one of {', '.join(map(str, TEMPERATURES))}")
        if self.heads > 1 and self.temperature != CSRAConfig.temperature:
            raise ValueError(f"temperature is for one head, and {self.heads} have their own; leave it out")

    @property
    def temperatures(self) -> tuple[float | str, ...]:
        """One for each head."""
        return (self.temperature,) if self.heads == 1 else TEMPERATURES[self.heads]


class ResidualAttention(nn.Module):
    """Features of a grid (B, N, D), in any order of places, to logits (B, C)."""

    def __init__(self, width: int, findings: int, *, lam: float, temperatures: Sequence[float | str]):
        super().__init__()
        self.lam, self.temperatures = lam, tuple(temperatures)
        self.heads = nn.ModuleList(nn.Linear(width, findings, bias=False) for _ in temperatures)
        self.bias = nn.Parameter(torch.zeros(findings))

    def forward(self, feature_BND: torch.Tensor) -> torch.Tensor:
        logit_BC = self.bias
        for head, temperature in zip(self.heads, self.temperatures, strict=True):
            score_BNC = head(feature_BND)
            logit_BC = logit_BC + score_BNC.mean(dim=1) + self.lam * attended(score_BNC, temperature)
        return logit_BC

    @torch.no_grad()
    def start(self, std: float, bias_C: torch.Tensor | None = None) -> None:
        """Start again: weights normal, the bias as given or 0."""
        for head in self.heads:
            nn.init.normal_(head.weight, std=std)
        nn.init.zeros_(self.bias)
        if bias_C is not None:
            self.bias.copy_(bias_C)


def attended(score_BNC: torch.Tensor, temperature: float | str) -> torch.Tensor:
    """Each finding's scores over the grid (B, N, C), weighted by their own softmax: (B, C)."""
    if temperature == MAX:
        return score_BNC.amax(dim=1)
    return (score_BNC * torch.softmax(temperature * score_BNC, dim=1)).sum(dim=1)


class CSRAForImageClassification(PreTrainedModel):
    """A backbone, a `ResidualAttention` over its last grid, and an `OutputLayer`."""

    config_class = CSRAConfig
    config: CSRAConfig
    base_model_prefix = "backbone"
    main_input_name = "pixel_values"
    supports_gradient_checkpointing = True
    _supports_sdpa = True
    own_outputs = "attention"

    def __init__(self, config: CSRAConfig):
        super().__init__(config)
        # The backbone as its own classifier has it: without a pooler that is not trained.
        classifier = AutoModelForImageClassification.from_config(config.backbone_config, trust_remote_code=False)
        self.backbone = classifier.base_model
        self.config._attn_implementation_internal = self.backbone.config._attn_implementation
        self.grid = nn.Identity()  # what heat maps are made of
        self.attention = ResidualAttention(
            width_of(self.backbone), config.num_labels, lam=config.lam, temperatures=config.temperatures
        )
        self.classifier = OutputLayer(config.num_labels)
        self.post_init()

    @can_return_tuple
    def forward(self, pixel_values: torch.Tensor, **kwargs) -> ImageClassifierOutput:
        """Logits (B, C) of normalised images (B, 3, S, S); ``kwargs`` are those of the backbone."""
        outputs = self.backbone(pixel_values, **kwargs)
        grid_BDhw = self.grid(last_grid(self.backbone, outputs.last_hidden_state, pixel_values.shape[-1]))
        return ImageClassifierOutput(
            logits=self.classifier(self.attention(grid_BDhw.flatten(2).transpose(1, 2))),
            hidden_states=outputs.hidden_states,
            attentions=getattr(outputs, "attentions", None),
        )

    def set_attn_implementation(self, attn_implementation: str, **kwargs) -> None:
        """That of the backbone, where it has one: the attention over the grid is not of this kind."""
        if self.backbone._supports_sdpa:
            self.backbone.set_attn_implementation(attn_implementation, **kwargs)
        self.config._attn_implementation_internal = self.backbone.config._attn_implementation

    def start_outputs(self, bias_C: torch.Tensor) -> None:
        """Start the attention again, with this bias (C,)."""
        self.attention.start(self.config.initializer_range, bias_C)

    def load_backbone(self, state_dict: Mapping[str, torch.Tensor], config: PreTrainedConfig) -> None:
        """Take the weights of a saved model of the backbone's architecture; the attention stays as it is.

        Args:
            state_dict: of the saved model.
            config: of the saved model.

        Raises:
            ValueError: another architecture, other sizes, or weights that do not fit.
        """
        own = self.config.backbone_config
        check_same_backbone(own, config, kinds=(own.model_type,), options="model_kwargs.backbone_config")
        load_part(self.backbone, state_dict, "backbone")

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        if isinstance(module, ResidualAttention):
            module.start(self.config.initializer_range)
        elif isinstance(module, OutputLayer):
            module.reset()


def last_grid(backbone: PreTrainedModel, hidden: torch.Tensor, side: int) -> torch.Tensor:
    """A backbone's last hidden state as a grid (B, D, h, w), normed, without class and register tokens.

    Args:
        backbone: whose state it is.
        hidden: (B, T, D), or (B, D, h, w).
        side: of the image, in pixels.

    Raises:
        ValueError: see `as_grid`.
    """
    grid_BDhw = as_grid(backbone, hidden, side)
    return norm_after_pooling(backbone)(grid_BDhw.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


def norm_after_pooling(backbone: PreTrainedModel) -> nn.Module:
    """The norm that a backbone applies to what it has pooled; one that changes nothing if it has none."""
    layer: nn.Module = backbone
    for part in LATE_NORM.get(backbone.config.model_type, "").split("."):
        layer = getattr(layer, part, None) if part else nn.Identity()
    return nn.Identity() if layer is None else layer


def width_of(backbone: PreTrainedModel) -> int:
    """D, the channels of a backbone's last hidden state."""
    config = backbone.config
    if hasattr(backbone, "num_features"):
        return backbone.num_features
    if getattr(config, "hidden_sizes", None):
        return config.hidden_sizes[-1]
    return config.hidden_size if hasattr(config, "hidden_size") else config.hidden_dim
