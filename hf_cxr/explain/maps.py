"""Heat maps of findings: how much each place of an image speaks for each finding's logit.

`heat_maps` computes them with a method of the table `METHODS`. A map is on the grid of the method (a Swin-B at 224
pixels has 7 x 7), not normalised, and at least 0: what speaks against a finding is left out.

B = images, C = chosen findings, K = channels, h, w = grid, S = side of the image in pixels.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from transformers import PreTrainedModel

from hf_cxr.explain import check_method_name
from hf_cxr.explain.occlusion import check_captum, occlusion
from hf_cxr.models.map_layer import traced
from hf_cxr.systems.grids import as_grid

Weigh = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


@dataclass(frozen=True)
class Method:
    """A way to make maps.

    Args:
        title: for readers.
        source: the paper.
        maps: (model, pixel_values (B, 3, S, S), columns) -> (B, C, h, w) float32; with ``layer`` where it reads one.
        reads_layer: whether it reads a layer of the model, which can then be chosen.
        check: raises ValueError if it cannot run here.
    """

    title: str
    source: str
    maps: Callable[..., torch.Tensor]
    reads_layer: bool = True
    check: Callable[[], None] = lambda: None


def grad_cam(
    model: PreTrainedModel, pixel_values: torch.Tensor, columns: Sequence[int], *, layer: str | None = None
) -> torch.Tensor:
    """Grad-CAM: ReLU of the channels' weighted sum; a channel's weight is its mean gradient.

    Selvaraju et al., "Grad-CAM: Visual Explanations from Deep Networks via Gradient-based Localization", ICCV 2017,
    equations 1 and 2, with the logit for the score. A finding whose mean gradients all vanish has a map of zeros.

    Args:
        model: in evaluation mode.
        pixel_values: (B, 3, S, S) float32, normalised.
        columns: C outputs of the model.
        layer: another layer than the architecture's own, see `models.map_layer`.

    Returns:
        (B, C, h, w) float32.
    """
    return _class_activation(model, pixel_values, columns, layer, _mean_gradient)


def grad_cam_plus_plus(
    model: PreTrainedModel, pixel_values: torch.Tensor, columns: Sequence[int], *, layer: str | None = None
) -> torch.Tensor:
    """Grad-CAM++: as Grad-CAM, with weights that do not shrink when a finding fills few places, or several.

    Chattopadhay et al., "Grad-CAM++: Generalized Gradient-based Visual Explanations for Deep Convolutional
    Networks", WACV 2018, equations 10 and 19. Their factor exp(score) is one number for a whole map and is left out.
    Arguments and result as `grad_cam`.
    """
    return _class_activation(model, pixel_values, columns, layer, _plus_plus)


def layer_cam(
    model: PreTrainedModel, pixel_values: torch.Tensor, columns: Sequence[int], *, layer: str | None = None
) -> torch.Tensor:
    """LayerCAM: each place is weighed by its own positive gradient, so that a finer, earlier layer can be read.

    Jiang et al., "LayerCAM: Exploring Hierarchical Class Activation Maps for Localization", IEEE Transactions on Image
    Processing 30 (2021), equations 4 to 6. Grad-CAM's mean gradient is only right where all places count alike, as
    before a mean pooling. Arguments and result as `grad_cam`.
    """
    return _class_activation(model, pixel_values, columns, layer, _own_gradient)


def _mean_gradient(activation: torch.Tensor, gradient: torch.Tensor) -> torch.Tensor:
    return gradient.mean(dim=(2, 3), keepdim=True)


def _plus_plus(activation: torch.Tensor, gradient: torch.Tensor) -> torch.Tensor:
    square = gradient**2
    denominator = 2 * square + (activation.sum(dim=(2, 3), keepdim=True) * gradient**3)
    alpha = torch.where(denominator != 0, square / torch.where(denominator != 0, denominator, 1), 0)
    return (alpha * gradient.relu()).sum(dim=(2, 3), keepdim=True)


def _own_gradient(activation: torch.Tensor, gradient: torch.Tensor) -> torch.Tensor:
    return gradient.relu()


def _class_activation(
    model: PreTrainedModel, pixel_values: torch.Tensor, columns: Sequence[int], layer: str | None, weigh: Weigh
) -> torch.Tensor:
    """ReLU of the weighted sum of channels; ``weigh`` gives weights (B, K, 1, 1), or (B, K, h, w)."""
    trace = traced(model, pixel_values, layer)
    activation = as_grid(model, trace.output.detach(), trace.side)
    maps = []
    for column in columns:
        with torch.enable_grad():
            logit = trace.logits[:, column].sum()
        (gradient,) = torch.autograd.grad(logit, trace.output, retain_graph=True)
        weight = weigh(activation, as_grid(model, gradient, trace.side))
        maps.append((weight * activation).sum(dim=1).relu())
    return torch.stack(maps, dim=1).float()


METHODS: dict[str, Method] = {
    "grad_cam": Method("Grad-CAM", "Selvaraju et al., ICCV 2017", grad_cam),
    "grad_cam_plus_plus": Method("Grad-CAM++", "Chattopadhay et al., WACV 2018", grad_cam_plus_plus),
    "layer_cam": Method("LayerCAM", "Jiang et al., IEEE TIP 2021", layer_cam),
    "occlusion": Method("Occlusion (captum)", "Zeiler and Fergus, ECCV 2014", occlusion, False, check_captum),
}


def heat_maps(
    method: str,
    model: PreTrainedModel,
    pixel_values: torch.Tensor,
    columns: Sequence[int],
    *,
    layer: str | None = None,
) -> torch.Tensor:
    """Maps (B, C, h, w) float32 by a method of `METHODS`, on the CPU.

    Args:
        method: its key.
        model: in evaluation mode.
        pixel_values: (B, 3, S, S) float32, normalised.
        columns: C outputs of the model.
        layer: another layer than the architecture's own, see `models.map_layer`.

    Raises:
        ValueError: no such method, layer or column, a layer for a method that reads none, or a map that is not finite.
    """
    check_method_name(method)
    outputs = model.config.num_labels
    wrong = [column for column in columns if not 0 <= column < outputs]
    if wrong or not len(columns):
        raise ValueError(f"columns are {list(columns)}; give at least one, each from 0 to {outputs - 1}")
    if layer is not None and not METHODS[method].reads_layer:
        raise ValueError(f"the method {method} reads no layer of the model; leave out {layer!r}")
    options = {} if layer is None else {"layer": layer}
    maps = METHODS[method].maps(model, pixel_values, columns, **options).cpu()
    if not maps.isfinite().all():
        raise ValueError(f"{METHODS[method].title} gave a value that is not a number; is the model damaged?")
    return maps
