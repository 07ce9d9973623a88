"""In the manner of Yao 2017: a compact DenseNet from scratch, and an LSTM that decides one finding after the other.

Yao, Poblenz, Dagunts, Covington, Bernard and Lyman, "Learning to diagnose from scratch by exploiting dependencies
among labels", 2017, arXiv:1710.10501. Its full text was not available: what follows "states" is from its abstract and
from descriptions of it, so this is "in the manner of" and not a reproduction.

What the paper states: a DenseNet trained from scratch; an LSTM over the labels in a fixed order, with a sigmoid at
each step that depends on the image and on the earlier labels; training by maximum likelihood with Adam; greedy
decisions at test; the order of the labels matters little. Its macro AUC of 0.803 is on a random split of its own.

What was not found: growth rate, depth and width of the DenseNet, size of the LSTM, how the image enters it (from
memory: as its first state), the order itself, and what a step does with an unknown label (its data have none).

What was chosen:

- The chain rule, with the image x and labels y in a fixed order: p(y | x) = product over t of p(y_t | x,
  y_1..y_(t-1)). The LSTM's first state is a linear map of the image's features, and every step gets them again, so
  that the last finding is not decided from what 13 steps left of them. Each step also gets the finding before and its
  label, and each finding has output weights of its own.
- ``known_labels`` are the labels that are given to the chain. In training `CXRTrainer` gives the true ones (teacher
  forcing). Where a label is unknown the chain uses its own decision, as it does everywhere at test: present if the
  conditional probability is above 0.5. So training on labels that are all unknown and testing are the same pass. A
  label between 0 and 1 (mixup) gives a point between both inputs.
- The loss is ``bce``: its sum over the labels of an image is -log p(y | x), so its minimum is maximum likelihood. Any
  other loss that takes logits runs too, and is then not maximum likelihood.

What the outputs mean. At test the logit of finding t is that of p(y_t = 1 | x, the model's own decisions before t).
Those decisions depend on the image alone, so the output is a score of the image, and a calibration, which is fitted
on validation images run in the same way and folded into `OutputLayer`, makes it a marginal probability: of all images
with an output of 0.3, 30 % have the finding. It does not make the conditional probabilities right: after calibration
the product over the findings is not p(y | x), and the outputs do not answer "given that the patient has an effusion".
Decisions and `label_set_log_probability` use the logits before calibration, so folding one in changes no decision.

The validation loss during training is that of the greedy outputs, not the likelihood.

B = images, C = findings, D = features of the image, H = size of the LSTM's state, E = size of its input, S = side of
the image in pixels.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from huggingface_hub.dataclasses import strict
from torch import Tensor, nn
from transformers import PreTrainedConfig, PreTrainedModel
from transformers import initialization as init
from transformers.modeling_outputs import ImageClassifierOutput

from hf_cxr.systems.densenet import SIZES, DenseNet, modern_names
from hf_cxr.systems.initial_weights import load_part
from hf_cxr.systems.output_layer import OutputLayer
from hf_cxr.systems.sizes import check_sizes

LABEL_STD, OUTPUT_STD = 0.1, 0.02  # of the first labels' inputs and output weights: small, so the image comes first


@strict
class Yao2017Config(PreTrainedConfig):
    """Sizes of the DenseNet and of the LSTM, and the order of the findings. See the module for the paper.

    Args:
        image_size: side of the image in pixels; the paper's is 512, from memory.
        growth_rate: channels that each layer adds.
        depths: layers of each dense block.
        width: channels of the DenseNet's first convolution.
        bottleneck: channels of a layer's 1x1 convolution, as a multiple of growth_rate.
        state_size: H, size of the LSTM's state.
        input_size: E, size of the LSTM's input.
        label_order: names of all findings in the order in which they are decided; left out, the data's order. Not
            read if there is one finding.
    """

    model_type = "yao2017"

    image_size: int = 512
    num_channels: int = 3
    growth_rate: int = 12
    depths: list[int] | tuple[int, ...] = (6, 12, 24, 16)
    width: int = 24
    bottleneck: int = 4
    state_size: int = 128
    input_size: int = 64
    label_order: list[str] | tuple[str, ...] | None = None

    def __post_init__(self, **kwargs):
        check_sizes(**{name: getattr(self, name) for name in (*SIZES, "state_size", "input_size")})
        super().__post_init__(**kwargs)


class LabelDecoder(nn.Module):
    """Features (B, D) and whatever labels are known to conditional logits (B, C), one finding after the other."""

    def __init__(self, features: int, order: Sequence[int], state_size: int, input_size: int):
        super().__init__()
        findings = len(order)
        self.order = tuple(order)
        self.first_hidden = nn.Linear(features, state_size)
        self.first_cell = nn.Linear(features, state_size)
        self.image = nn.Linear(features, input_size)
        self.labels = nn.Embedding(2 * findings + 1, input_size)  # finding c absent, c present, ...; the start
        self.step = nn.LSTMCell(input_size, state_size)
        self.outputs = nn.Linear(state_size, findings)

    def forward(self, feature_BD: Tensor, known_BC: Tensor | None = None) -> Tensor:
        """The logit of each finding, given those before it.

        Args:
            feature_BD: of the images.
            known_BC: labels that the chain uses as they are: 1, 0, or between; NaN, or None for all, where it uses its
                own decision.
        """
        label_LE = self.labels(torch.arange(self.labels.num_embeddings, device=feature_BD.device))
        image_BE = self.image(feature_BD)
        state = (self.first_hidden(feature_BD).tanh(), self.first_cell(feature_BD))
        before_BE = label_LE[-1]
        logits: dict[int, Tensor] = {}
        for finding in self.order:
            state = self.step(image_BE + before_BE, state)
            logits[finding] = self.outputs(state[0])[:, finding]
            present_B = (logits[finding].detach() > 0).to(label_LE.dtype)
            if known_BC is not None:
                known_B = known_BC[:, finding].to(label_LE.dtype)
                present_B = torch.where(known_B.isnan(), present_B, known_B)
            before_BE = torch.lerp(label_LE[2 * finding], label_LE[2 * finding + 1], present_B[:, None])
        return torch.stack([logits[finding] for finding in range(len(self.order))], dim=1)


class Yao2017(PreTrainedModel):
    """Logits (B, C) of images (B, 3, S, S), see the module.

    Attributes:
        takes_known_labels: `CXRTrainer` passes the labels to ``forward`` in training, and only then.
        own_outputs: the part that `start_outputs` starts again.
    """

    config_class = Yao2017Config
    base_model_prefix = "densenet"
    main_input_name = "pixel_values"
    takes_known_labels = True
    own_outputs = "decoder"

    def __init__(self, config: Yao2017Config):
        super().__init__(config)
        self.densenet = DenseNet(**{name: getattr(config, name) for name in SIZES})
        order = _places(config.label_order, config.id2label)
        self.decoder = LabelDecoder(self.densenet.num_features, order, config.state_size, config.input_size)
        self.classifier = OutputLayer(config.num_labels)
        self.post_init()

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        if isinstance(module, OutputLayer):
            module.reset()
        elif isinstance(module, nn.Conv2d):
            init.kaiming_normal_(module.weight)
        elif isinstance(module, nn.BatchNorm2d):
            super()._init_weights(module)
        elif isinstance(module, nn.Linear | nn.LSTMCell):
            for name, weight in module.named_parameters():
                (init.zeros_ if "bias" in name else init.xavier_uniform_)(weight)
        elif isinstance(module, nn.Embedding):
            init.normal_(module.weight, std=LABEL_STD)

    def start_outputs(self, bias_C: Tensor) -> None:
        """Start the chain again: torch's own random weights, and each finding's output at ``bias_C`` in logits."""
        for layer in self.decoder.children():
            layer.reset_parameters()
        with torch.no_grad():
            self.decoder.labels.weight.normal_(std=LABEL_STD)
            self.decoder.outputs.weight.normal_(std=OUTPUT_STD)
            self.decoder.outputs.bias.copy_(bias_C)

    def forward(self, pixel_values: Tensor, known_labels: Tensor | None = None) -> ImageClassifierOutput:
        """Logits of each finding, given those before it; see the module for what they mean.

        Args:
            pixel_values: (B, 3, S, S), normalised.
            known_labels: (B, C), 1, 0 or NaN: what the chain takes as decided. It is not called ``labels``, so that no
                loop that measures a model can pass the answers by accident.
        """
        return ImageClassifierOutput(logits=self.classifier(self._conditional_logits(pixel_values, known_labels)))

    def label_set_log_probability(self, pixel_values: Tensor, label_BC: Tensor) -> Tensor:
        """Natural logarithm of p(y | x), (B,): how likely these labels are together, before calibration.

        For users of the model: nothing in the package asks for it, because a measure takes each finding alone.
        Over all 2^C label sets the probabilities of an image add up to 1.

        Args:
            pixel_values: (B, 3, S, S), normalised; the model should be in evaluation mode.
            label_BC: 1 or 0, none unknown.

        Raises:
            ValueError: a label is neither 0 nor 1.
        """
        if not ((label_BC == 0) | (label_BC == 1)).all():
            raise ValueError("a label set has a probability only if each label is 0 or 1; fill in the unknown ones")
        logit_BC = self._conditional_logits(pixel_values, label_BC)
        return -F.binary_cross_entropy_with_logits(logit_BC, label_BC.to(logit_BC), reduction="none").sum(dim=1)

    def load_backbone(self, state_dict: Mapping[str, Tensor], config: PreTrainedConfig) -> None:
        """Start the DenseNet from other weights, as torchvision and timm name them. The paper starts from random ones.

        Raises:
            ValueError: weights are missing or have another shape.
        """
        load_part(self.densenet, modern_names(state_dict), "DenseNet")

    def _conditional_logits(self, pixel_values: Tensor, known_BC: Tensor | None) -> Tensor:
        return self.decoder(self.densenet(pixel_values).mean(dim=(2, 3)), known_BC)


def check_label_order(values: Mapping[str, Any], where: str) -> None:
    """Refuse a config's label_order that does not name each of its findings once.

    Args:
        values: keys of the config.
        where: what an error names.

    Raises:
        ValueError: names what differs, and how to give another order.
    """
    order, findings = values.get("label_order"), list((values.get("id2label") or {}).values())
    if not isinstance(order, list | tuple) or len(findings) < 2:  # of other types the config itself is refused
        return
    if sorted(map(str, order)) == sorted(map(str, findings)):
        return
    wrong = sorted(set(map(str, order)) ^ set(map(str, findings))) or ["a name twice"]
    raise ValueError(
        f"label_order in {where} must name each of the {len(findings)} findings once; it differs in "
        f"{', '.join(wrong[:5])}: give --model_kwargs.label_order null for the data's order, or all findings in "
        f"another one, as in '{json.dumps(findings[:2])[:-1]}, ...]'"
    )


def _places(names: Sequence[str] | None, id2label: Mapping[int, str]) -> list[int]:
    """The columns of the findings in the order of ``names``."""
    places = {name: place for place, name in id2label.items()}
    if names is None or len(places) == 1:
        return sorted(places.values())
    check_label_order({"label_order": names, "id2label": id2label}, "a Yao2017Config")
    return [places[name] for name in names]
