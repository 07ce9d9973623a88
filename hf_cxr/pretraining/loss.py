"""How far a reconstruction is from the image where it was masked.

B = images, D = side of an image in pixels, N = the model's patches of an image, G = patches along a side.
"""

import torch
from torch import nn


class MaskedL1(nn.Module):
    """The mean absolute difference over masked pixels, in normalised grey levels; pixels that are seen do not count.

        loss = sum over masked pixels and channels |x - x'| / (masked pixels x channels)

    Args:
        patch_size: side of the model's patches in pixels.
        channels: of an image.

    Source: SimMIM, section 3.4, equation 1.
    """

    additive = True
    """The losses of a step's micro-batches add up: see `training.trainer.CXRTrainer`."""

    def __init__(self, patch_size: int, channels: int = 3):
        super().__init__()
        self.patch_size, self.channels = patch_size, channels

    def forward(
        self,
        reconstruction_BCDD: torch.Tensor,
        image_BCDD: torch.Tensor,
        mask_BN: torch.Tensor,
        num_items: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """The sum over the batch divided by ``num_items``, by default the batch's own masked pixels; a scalar.

        Args:
            reconstruction_BCDD: floating point.
            image_BCDD: as the model got it, before the mask.
            mask_BN: bool; an image without a masked patch takes no part.
            num_items: masked pixels of all of an optimizer step, each pixel counted once and not for each channel.
        """
        pixel_B1DD = self.pixel_mask(mask_BN)
        total = (self._distance(reconstruction_BCDD, image_BCDD) * pixel_B1DD).sum()
        items = pixel_B1DD.sum() if num_items is None else num_items
        return total / (items * self.channels)

    def of_each(
        self, reconstruction_BCDD: torch.Tensor, image_BCDD: torch.Tensor, mask_BN: torch.Tensor
    ) -> torch.Tensor:
        """The loss of each image, (B,) float32; NaN for one without a masked patch."""
        pixel_B1DD = self.pixel_mask(mask_BN)
        total_B = (self._distance(reconstruction_BCDD, image_BCDD) * pixel_B1DD).sum((1, 2, 3))
        return total_B / (pixel_B1DD.sum((1, 2, 3)) * self.channels)

    def pixel_mask(self, mask_BN: torch.Tensor) -> torch.Tensor:
        """1 where a pixel is masked, else 0: (B, 1, D, D) float32."""
        side = round(mask_BN.shape[1] ** 0.5)
        mask_BGG = mask_BN.view(-1, side, side).float()
        return mask_BGG.repeat_interleave(self.patch_size, 1).repeat_interleave(self.patch_size, 2)[:, None]

    @staticmethod
    def _distance(one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
        # In float32 under autocast too: a sum over a batch has more digits than bfloat16.
        return (one.float() - other.float()).abs()
