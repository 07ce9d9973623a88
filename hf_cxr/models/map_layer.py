"""The layer of a backbone that heat maps are made of: the last one whose output still says where.

Which layer it is, is the value of each line of `hf_cxr.arguments.components.ARCHITECTURES`. A convolutional network
gives a grid (B, K, h, w), a transformer a sequence of tokens, which `systems.grids.as_grid` turns into one.

B = images, K = channels, T = tokens, h, w = grid of the layer, S = side of the image in pixels.
"""

from dataclasses import dataclass

import torch
from torch import nn
from transformers import PreTrainedModel

from hf_cxr.arguments.components import ARCHITECTURES, OF_TIMM
from hf_cxr.models.timm_models import timm_map_layer


@dataclass(frozen=True)
class Traced:
    """One pass of a model, stopped at a layer so that gradients reach that layer and no further.

    Attributes:
        output: of the layer, as the rest of the model got it; a leaf that gradients can be asked for.
        logits: (B, C), computed from it.
        side: of the images, in pixels.
    """

    output: torch.Tensor
    logits: torch.Tensor
    side: int


def map_layer(model: PreTrainedModel, path: str | None = None) -> nn.Module:
    """The layer that heat maps of this model are made of.

    Args:
        model: of an architecture in the table.
        path: of another layer, as in the table.

    Raises:
        ValueError: the model has no such layer.
    """
    path = ARCHITECTURES[model.config.model_type] if path is None else path
    if path == OF_TIMM:
        path = timm_map_layer(model.base_model)
    parts = path.split(".")
    layer = model if parts[0] == "self" else model.base_model
    for part in parts[1:] if parts[0] == "self" else parts:
        try:
            layer = layer[int(part)] if part.lstrip("-").isdigit() else getattr(layer, part)
        except (AttributeError, IndexError, TypeError) as error:
            raise ValueError(f"{type(model).__name__} has no layer {path!r}: there is no {part!r} in it") from error
    return layer


def traced(model: PreTrainedModel, pixel_values: torch.Tensor, path: str | None = None) -> Traced:
    """Run the model on normalised images (B, 3, S, S) and keep the output of its map layer.

    Args:
        model: in evaluation mode.
        pixel_values: float32.
        path: of another layer than the architecture's own.
    """
    kept: list[torch.Tensor] = []

    def keep(_layer: nn.Module, _inputs: tuple, output: torch.Tensor | tuple) -> torch.Tensor | tuple:
        first = output[0] if isinstance(output, tuple) else output
        kept.append(first.detach().requires_grad_())  # a leaf: what is below it needs no gradient
        return (kept[0], *output[1:]) if isinstance(output, tuple) else kept[0]

    handle = map_layer(model, path).register_forward_hook(keep)
    try:
        with torch.enable_grad():
            logits = model(pixel_values=pixel_values).logits
    finally:
        handle.remove()
    return Traced(kept[0], logits, pixel_values.shape[-1])
