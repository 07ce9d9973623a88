"""Occlusion, by captum: how far a finding's logit falls when a patch of the image is covered.

It needs neither gradients nor a layer, which makes it an independent check of the maps that do. It is slow: the model
runs once for each of about 225 patches, for each finding.

captum is an optional extra (Kokhlikyan et al., arXiv 2009.07896).

B = images, C = chosen findings, S = side of the image in pixels, G = grid.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from transformers import PreTrainedModel

from hf_cxr.extras import need

GRID = 16  # places along a side; a patch covers 2 x 2 of them
IMAGES_AT_ONCE = 32


def check_captum() -> None:
    """Refuse where captum is not installed.

    Raises:
        MissingExtraError: see `extras.need`.
    """
    need("the method occlusion", "explain", "captum")


def occlusion(model: PreTrainedModel, pixel_values: torch.Tensor, columns: Sequence[int]) -> torch.Tensor:
    """How far the logit falls, on average over the patches that cover a place; 0 where covering raises it.

    Zeiler and Fergus, "Visualizing and Understanding Convolutional Networks", ECCV 2014, section 4.2. A patch is an
    eighth of the side, moves by a sixteenth, and has the value 0 after normalisation, a middle grey.

    Args:
        model: in evaluation mode.
        pixel_values: (B, 3, S, S) float32, normalised.
        columns: C outputs of the model.

    Returns:
        (B, C, G, G) float32, G = 16, or S for a smaller image.

    Raises:
        ValueError: captum is not installed.
    """
    check_captum()
    from captum.attr import Occlusion

    side = pixel_values.shape[-1]
    step = max(1, side // GRID)
    grid = min(GRID, side)
    method = Occlusion(lambda pixels: model(pixel_values=pixels).logits)
    with torch.no_grad():
        fall = [
            method.attribute(
                pixel_values,
                sliding_window_shapes=(pixel_values.shape[1], 2 * step, 2 * step),
                strides=(pixel_values.shape[1], step, step),
                target=int(column),
                perturbations_per_eval=max(1, IMAGES_AT_ONCE // len(pixel_values)),
            ).mean(dim=1)
            for column in columns
        ]
    return F.adaptive_avg_pool2d(torch.stack(fall, dim=1).relu().float(), grid)
