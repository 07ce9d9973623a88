"""The head of a backbone: the linear layer that turns features into logits. No other module knows where it is.

transformers' classifiers are a backbone that pools its features to (B, D), and one `torch.nn.Linear` from them to the
logits (B, C). A system whose findings have outputs of their own ends in an `OutputLayer`, from logits to logits,
instead. Refused, by `head` and `check_head`: a model with another head, or with several.

B = images, C = findings, D = features, S = side of the image in pixels.
"""

import re
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn
from transformers import PreTrainedModel

from hf_cxr.models.timm_models import is_timm, timm_head
from hf_cxr.systems.output_layer import OutputLayer

INITIALIZER_RANGE = 0.02  # transformers' usual value, for an architecture whose config has none
# The head's bias in model.safetensors, as transformers and timm name it.
SAVED_BIAS = re.compile(r"(timm_model\.)?(classifier|fc|head|head\.fc)(\.\d+)?\.bias")


def head(model: PreTrainedModel) -> nn.Linear:
    """The layer from features to logits: weight (C, D) and bias (C,).

    Raises:
        ValueError: the model has no such layer, or several.
    """
    return _named_head(model)[1]


def head_keys(model: PreTrainedModel) -> set[str]:
    """The names of the head's weights in the model's ``state_dict``; a system's own outputs are among them."""
    name, layer = _named_head(model)
    own = getattr(model, "own_outputs", None)  # of a model with an `OutputLayer`: the part that it starts itself
    parts = {name: layer} if own is None else {name: layer, own: model.get_submodule(own)}
    return {f"{part}.{key}" for part, module in parts.items() for key in module.state_dict()}


def features(model: PreTrainedModel, pixel_values: torch.Tensor) -> torch.Tensor:
    """What the head gets for normalised images (B, 3, S, S): (B, D), in the model's dtype and on its device.

    ``features @ weight.T + bias`` are the logits.
    """
    return logits_and_features(model, pixel_values)[1]


def logits_and_features(model: PreTrainedModel, pixel_values: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The logits (B, C) of normalised images (B, 3, S, S), and what the head got (B, D), of one forward pass.

    Several threads may call it at once: each gets its own.
    """
    given: list[torch.Tensor] = []
    thread = threading.get_ident()

    def keep(_: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        if threading.get_ident() == thread:
            given.append(inputs[0])

    handle = head(model).register_forward_pre_hook(keep)
    try:
        logits = model(pixel_values=pixel_values).logits
    finally:
        handle.remove()
    return logits, given[0]


def reset_head(model: PreTrainedModel, bias_C: Sequence[float] | None = None) -> None:
    """Start the head again: weights normal with the config's initializer_range, the bias as given or zero.

    A model with an `OutputLayer` starts its own outputs, ``start_outputs(bias_C)``; that layer is the identity again.
    """
    layer = head(model)
    if isinstance(layer, OutputLayer):
        layer.reset()
        model.start_outputs(torch.zeros(layer.out_features) if bias_C is None else torch.as_tensor(bias_C).float())
        return
    with torch.no_grad():
        layer.weight.normal_(std=getattr(model.config, "initializer_range", INITIALIZER_RANGE))
        layer.bias.copy_(
            torch.zeros(layer.out_features) if bias_C is None else torch.as_tensor(bias_C, dtype=torch.float32)
        )


def fold_into_head(
    model: PreTrainedModel, fold: Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]
) -> None:
    """Replace the head's weight (C, D) and bias (C,) by what ``fold`` makes of them, such as `Calibration.fold`."""
    layer = head(model)
    weight_CD, bias_C = fold(*(parameter.detach().cpu().numpy() for parameter in (layer.weight, layer.bias)))
    with torch.no_grad():
        layer.weight.copy_(torch.as_tensor(weight_CD))
        layer.bias.copy_(torch.as_tensor(bias_C))


def freeze_backbone(model: PreTrainedModel) -> None:
    """Everything but the head gets no gradient; `CXRTrainer` then keeps it in evaluation mode.

    Raises:
        ValueError: the model's findings have outputs of their own, so no one layer could be trained alone.
    """
    if isinstance(head(model), OutputLayer):
        raise ValueError(f"{type(model).__name__} has no classifier behind its backbone; leave out freeze_backbone")
    model.requires_grad_(False)
    head(model).requires_grad_(True)


def check_head(model: PreTrainedModel, pixel_values: torch.Tensor) -> None:
    """Run the model once: its logits must be the output of its head, and its head must get features (B, D).

    Raises:
        ValueError: the head is not one linear layer with a bias, or another layer follows it.
    """
    layer = head(model)
    seen: list[Any] = []
    handle = layer.register_forward_hook(lambda _, inputs, output: seen.extend((inputs[0], output)))
    try:
        logits = model(pixel_values=pixel_values).logits
    finally:
        handle.remove()
    if layer.bias is None or len(seen) != 2 or seen[0].ndim != 2 or seen[1] is not logits:
        raise ValueError(f"{_refused(model)}; its logits are not the output of one linear layer with a bias")


def outputs_of(shapes: Mapping[str, tuple[int, ...]]) -> int | None:
    """The number of outputs of saved weights, from the tensors' names and shapes; None where none is a head's."""
    return next((shape[0] for name, shape in shapes.items() if SAVED_BIAS.fullmatch(name)), None)


def _named_head(model: PreTrainedModel) -> tuple[str, nn.Linear]:
    last = [(name, layer) for name, layer in model.named_modules() if isinstance(layer, OutputLayer)]
    if last:
        return last[0]
    if is_timm(model):
        found = timm_head(model)
        if found is None or not isinstance(found[1], nn.Linear):
            raise ValueError(
                f"{_refused(model)}; timm's {model.config.architecture} ends in another layer, or in several"
            )
        return found
    backbone = set() if model.base_model is model else set(model.base_model.modules())
    found = [
        (name, layer)
        for name, layer in model.named_modules()
        if isinstance(layer, nn.Linear) and layer.out_features == model.config.num_labels and layer not in backbone
    ]
    if len(found) != 1:
        names = f" ({', '.join(name for name, _ in found[:3])})" if found else ""
        raise ValueError(f"{_refused(model)}; it has {len(found)} of {model.config.num_labels} outputs{names}")
    return found[0]


def _refused(model: PreTrainedModel) -> str:
    return f"{type(model).__name__} cannot be used: it needs one linear layer from its features to the logits"
