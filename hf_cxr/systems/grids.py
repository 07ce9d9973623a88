"""What a layer of a backbone gives, as a grid of places: of a network of convolutions, of tokens, or of timm.

B = images, K = channels, T = tokens, h, w = grid of the layer, S = side of the image in pixels.
"""

import math

import torch
from transformers import PreTrainedModel


def as_grid(model: PreTrainedModel, output: torch.Tensor, side: int) -> torch.Tensor:
    """The output of a layer as a grid (B, K, h, w), without class and register tokens.

    Args:
        model: whose layer it is, with or without its classifier.
        output: (B, T, K), or (B, K, h, w), which is returned as it is; of some models of timm, (B, h, w, K).
        side: of the image, in pixels.

    Raises:
        ValueError: the tokens are not a square grid, after others or alone.
    """
    of_timm = getattr(model, "timm_model", None)  # the network within transformers' wrapper
    if output.ndim == 4:
        channels_last = getattr(of_timm, "output_fmt", "NCHW") == "NHWC"
        return output.permute(0, 3, 1, 2) if channels_last else output
    count, config = output.shape[1], model.config
    # A pyramid merges patches from stage to stage; a plain transformer keeps them, behind its class token.
    if hasattr(config, "patch_size") and not hasattr(config, "depths"):
        grid, exact = side // config.patch_size, False
    elif of_timm is not None:
        grid, exact = math.isqrt(count - (getattr(of_timm, "num_prefix_tokens", None) or 0)), False
    else:
        grid, exact = math.isqrt(count), True
    if grid**2 > count or (exact and grid**2 != count):
        raise ValueError(f"{count} tokens of {type(model).__name__} are not a square grid; give a square image")
    return output[:, count - grid**2 :].transpose(1, 2).unflatten(2, (grid, grid))
