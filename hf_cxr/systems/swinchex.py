"""SwinCheX: a Swin with a separate small network for each finding, ending in two outputs, absent and present.

Taslimi, Taslimi, Fathi, Salehi and Rohban, "SwinCheX: Multi-label classification on chest X-ray images with
transformers" (2022), arXiv 2206.04246, and its repository rohban-lab/SwinCheX.

Stated there: Swin-L with ImageNet-22k weights at 224 pixels; 14 heads of sizes 1536-384-48-48-2 with ReLU between,
chosen among none to three hidden layers; the sum of the findings' two-way cross-entropies with label smoothing 0.1;
AdamW at 5e-4 for 512 images, in proportion to the batch (3.1e-5 for its 32), weight decay 0.05, 20 epochs of warm-up,
then cosine, 300 epochs at most; gradient norms cut at 5; RandAugment (m9), random erasing 0.25, colour jitter 0.4.
Macro AUC 0.810.

Its splits: 69,438 images for training, 17,086 for validation and 25,596 for test, disjoint by patient. The last is the
release's own test list.

The repository differs: it scores the test set after every epoch, next to validation, and prints the highest
test accuracy so far, so a checkpoint may have been chosen on test; which one gave 0.810 is not stated.

Left open and chosen here: weights of the heads start as He et al. 2015 have it, so that heads of every width pass a
signal on (the repository takes a standard deviation of 0.02 for every layer); a last bias starts at the loss's
no-information optimum, half of it for present and minus half for absent. A test image is scored once, by a checkpoint
that validation chose.

**One logit is enough.** With outputs z0 (absent) and z1 (present), softmax(z0, z1)[1] = sigmoid(z1 - z0). So the
finding's logit is z1 - z0; two-way cross-entropy with label smoothing e is binary cross-entropy with the target
y (1 - e) + e / 2, which is what ``--loss bce --label_smoothing_factor e`` computes, on known cells alone. The sum over
findings is their mean times C: AdamW does not see that factor, a cut of gradient norms does.

B = images, C = findings, D = features, S = side of the image in pixels.
"""

from collections.abc import Mapping, Sequence
from itertools import pairwise

import torch
from huggingface_hub.dataclasses import strict
from torch import nn
from transformers import PreTrainedConfig, SwinConfig, SwinModel, SwinPreTrainedModel
from transformers.modeling_outputs import ImageClassifierOutput
from transformers.utils import can_return_tuple

from hf_cxr.systems.initial_weights import check_same_backbone, load_part
from hf_cxr.systems.output_layer import OutputLayer

MOST_LAYERS, WIDEST = 8, 65_536  # of a head: a config.json may come from a stranger


@strict
class SwinCheXConfig(SwinConfig):
    """The options of a Swin, and the sizes of its heads.

    Args:
        head_sizes: hidden layers of each finding's head, from the features on; [] is a linear head. Left out, a 4th, a
            32nd and a 32nd of the backbone's last width, at least 2: 384, 48, 48 for Swin-L.
    """

    model_type = "swinchex"

    head_sizes: list[int] | tuple[int, ...] | None = None

    def __post_init__(self, **kwargs):
        super().__post_init__(**kwargs)
        if self.head_sizes is None:
            self.head_sizes = [max(2, self.hidden_size // share) for share in (4, 32, 32)]
        if len(self.head_sizes) > MOST_LAYERS or not all(1 <= size <= WIDEST for size in self.head_sizes):
            raise ValueError(
                f"head_sizes is {self.head_sizes!s:.60}; it must be at most {MOST_LAYERS} widths of 1 to {WIDEST:,}"
            )


class TwoWayHeads(nn.Module):
    """A network for each finding: features (B, D) to outputs for absent and present, (B, C, 2)."""

    def __init__(self, findings: int, sizes: Sequence[int]):
        super().__init__()
        self.heads = nn.ModuleList(_head([*sizes, 2]) for _ in range(findings))

    def forward(self, feature_BD: torch.Tensor) -> torch.Tensor:
        return torch.stack([head(feature_BD) for head in self.heads], dim=1)

    @torch.no_grad()
    def start(self, bias_C: torch.Tensor | None = None) -> None:
        """Start again: He et al. 2015, "Delving Deep into Rectifiers"; the last bias so that z1 - z0 is the bias."""
        for place, head in enumerate(self.heads):
            for layer in head:
                if isinstance(layer, nn.Linear):
                    nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
                    nn.init.zeros_(layer.bias)
            if bias_C is not None:
                head[-1].bias.copy_(torch.stack([-bias_C[place], bias_C[place]]) / 2)


def _head(sizes: Sequence[int]) -> nn.Sequential:
    layers: list[nn.Module] = []
    for width, after in pairwise(sizes):
        layers += [nn.Linear(width, after), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


class SwinCheXForImageClassification(SwinPreTrainedModel):
    """A Swin, a `TwoWayHeads` and an `OutputLayer`; a finding's logit is present minus absent."""

    config_class = SwinCheXConfig
    config: SwinCheXConfig
    own_outputs = "heads"

    def __init__(self, config: SwinCheXConfig):
        super().__init__(config)
        self.swin = SwinModel(config)
        self.heads = TwoWayHeads(config.num_labels, [config.hidden_size, *config.head_sizes])
        self.classifier = OutputLayer(config.num_labels)
        self.post_init()

    @can_return_tuple
    def forward(self, pixel_values: torch.Tensor, **kwargs) -> ImageClassifierOutput:
        """Logits (B, C) of normalised images (B, 3, S, S); ``kwargs`` are those of `SwinModel`."""
        outputs = self.swin(pixel_values, **kwargs)
        return ImageClassifierOutput(
            logits=self.logits_of(outputs.pooler_output),
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
        )

    def logits_of(self, feature_BD: torch.Tensor) -> torch.Tensor:
        """Logits (B, C) of pooled features (B, D)."""
        absent_BC, present_BC = self.heads(feature_BD).unbind(dim=2)
        return self.classifier(present_BC - absent_BC)

    def start_outputs(self, bias_C: torch.Tensor) -> None:
        """Start the heads again, with logits around this bias (C,)."""
        self.heads.start(bias_C)

    def load_backbone(self, state_dict: Mapping[str, torch.Tensor], config: PreTrainedConfig) -> None:
        """Take the weights of a saved Swin; the heads stay as they are.

        Args:
            state_dict: of a saved Swin or SwinCheX.
            config: of the saved model.

        Raises:
            ValueError: another architecture, other sizes, or weights that do not fit.
        """
        check_same_backbone(self.config, config, kinds=("swin", "swinchex"), options="model_kwargs")
        load_part(self.swin, state_dict, "Swin")

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        if isinstance(module, TwoWayHeads):
            module.start()
        elif isinstance(module, OutputLayer):
            module.reset()
        else:
            super()._init_weights(module)
