"""Which patches of an image are masked: drawn from (seed, epoch, row) alone, so that law 6 holds.

The mask is drawn in mask patches, which are larger than the model's own: what is hidden must be more than what the
neighbours of a patch tell. The number of masked mask patches is the same for every image.

Refuses: sizes that do not divide one another, a ratio that masks nothing or everything.

B = images, M = mask patches of an image, N = the model's patches of an image, K = masked mask patches.
"""

import math

import numpy as np

from hf_cxr.uniforms import row_uniforms

AFTER_AUGMENTATION = 1 << 32
"""Added to the epoch, so that a mask has nothing in common with the flip and the angle of the same row."""

EPOCH_OF_MEASURING = 1 << 32
"""The "epoch" of the masks with which reconstruction is measured: the same in each epoch."""


class PatchMasks:
    """The mask generator of SimMIM: each image has ceil(ratio M) of its mask patches masked, all sets alike likely.

    Args:
        image_size: side of the model's input in pixels.
        patch_size: side of the model's patches in pixels.
        mask_patch_size: side of a mask patch in pixels, a multiple of ``patch_size`` that divides ``image_size``.
        mask_ratio: share of the mask patches that are masked, above 0 and below 1.
        seed: of the draws.

    Raises:
        ValueError: see the top of this module.

    Source: SimMIM, section 3.2 "patch-aligned random masking"; the number is rounded up as in its code.
    """

    def __init__(self, image_size: int, patch_size: int, mask_patch_size: int, mask_ratio: float, seed: int):
        if mask_patch_size < 1 or mask_patch_size % patch_size:
            raise ValueError(
                f"mask_patch_size is {mask_patch_size}; it must be a multiple of the model's patch_size, {patch_size}"
            )
        if image_size % mask_patch_size:
            raise ValueError(
                f"mask_patch_size is {mask_patch_size}, which does not divide image_size {image_size}; change one of "
                "them"
            )
        self.image_size, self.patch_size, self.mask_patch_size = image_size, patch_size, mask_patch_size
        self.side, self.seed = image_size // mask_patch_size, seed
        self.masked = math.ceil(mask_ratio * self.side**2)
        if not 0 < mask_ratio < 1 or self.masked == self.side**2:
            raise ValueError(
                f"mask_ratio is {mask_ratio}, which masks {self.masked} of {self.side**2} mask patches; it must leave "
                "some and mask some"
            )

    @property
    def masked_pixels(self) -> int:
        """Masked pixels of an image, the same for all: K times those of a mask patch, whatever the channels."""
        return self.masked * self.mask_patch_size**2

    def draw(self, row_B: np.ndarray, epoch: int) -> np.ndarray:
        """The model's patches that are masked, row by row of the image's grid: (B, N) bool.

        Args:
            row_B: int64 row numbers.
            epoch: number of completed passes; or `EPOCH_OF_MEASURING`.
        """
        uniform_BM = row_uniforms(self.seed, epoch + AFTER_AUGMENTATION, np.asarray(row_B), self.side**2)
        order_BM = np.argsort(uniform_BM, axis=1, kind="stable")
        mask_BM = np.zeros(uniform_BM.shape, bool)
        np.put_along_axis(mask_BM, order_BM[:, : self.masked], True, axis=1)
        each = self.mask_patch_size // self.patch_size
        mask_Bss = mask_BM.reshape(-1, self.side, self.side)
        return mask_Bss.repeat(each, axis=1).repeat(each, axis=2).reshape(len(mask_BM), -1)
