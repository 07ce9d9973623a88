"""What is drawn for a training image, and what is done to it: flip, rotation, crop, brightness, contrast, erasing.

Each is off by default. Flip, rotation and crop are one affine map, for one bilinear resampling (`Draws.steps`); the
rest changes grey levels from 0 to 255 before they are normalised, in the order brightness, contrast, erasing. The
draws are made on the host from (seed, epoch, row) alone, each from numbers of its own, so that one lever leaves the
draws of another as they are. Left out are what makes no radiograph: vertical flips, hue, saturation.

B = images, D = side of an image in pixels.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import torch

from hf_cxr.uniforms import row_uniforms

CROP_ASPECT = (3 / 4, 4 / 3)  # width / height, as torchvision's RandomResizedCrop
ERASING_AREA = (0.02, 0.33)  # as torchvision's RandomErasing
ERASING_ASPECT = (0.3, 1 / 0.3)  # Zhong et al.'s r1 and 1 / r1

# Columns of a row's uniform numbers. A new lever takes new ones at the end, so that those before keep theirs.
FLIP, ANGLE = 0, 1
CROP = slice(2, 6)  # area, aspect, place across and down
BRIGHTNESS, CONTRAST, ERASING = 6, 7, 8
ERASED = slice(9, 13)  # as CROP
COLUMNS = 13


@dataclass(frozen=True)
class Augmentation:
    """How training images are varied; the fields are keys of a run.

    Attributes:
        horizontal_flip: probability of a left-right flip.
        rotation_degrees: the angle is drawn uniformly from -this to +this.
        random_resized_crop: least and most area of a random box of the resized image, as shares of the image, which
            takes the place of the centre crop; None for the centre crop. The area is drawn uniformly, then the
            logarithm of width / height uniformly among the shapes that fit. Source: Szegedy et al., "Going deeper
            with convolutions", CVPR 2015, as in torchvision's RandomResizedCrop, which draws both again until the
            box fits.
        crop_aspect: least and most width / height of that box; None for 3/4 to 4/3.
        brightness: grey levels are multiplied by a factor drawn uniformly from 1 - this to 1 + this.
        contrast: the distance of each level to the image's mean is multiplied by such a factor. Both as torchvision's
            adjust_brightness and adjust_contrast; levels stay within 0 to 255.
        erasing: probability that a random box is filled with the image's mean grey. Source: Zhong et al., "Random
            erasing data augmentation", AAAI 2020, in which a mean and random levels are about as good, and both are
            better than black or white. The mean needs no further random numbers and adds no texture.
        erasing_area: least and most area of that box as shares of the image; None for 0.02 to 0.33.
    """

    horizontal_flip: float = 0.0
    rotation_degrees: float = 0.0
    random_resized_crop: Sequence[float] | None = None
    crop_aspect: Sequence[float] | None = None
    brightness: float = 0.0
    contrast: float = 0.0
    erasing: float = 0.0
    erasing_area: Sequence[float] | None = None

    @classmethod
    def of(cls, values: object) -> "Augmentation":
        """From arguments that have these fields among others."""
        return cls(**{field.name: getattr(values, field.name) for field in fields(cls)})

    def to_dict(self) -> dict[str, Any]:
        """Plain values for a report, with the ranges that are taken where none was given."""
        values = {key: list(value) if isinstance(value, Sequence) else value for key, value in vars(self).items()}
        if self.random_resized_crop:
            values["crop_aspect"] = list(self.crop_aspect or CROP_ASPECT)
        if self.erasing:
            values["erasing_area"] = list(self.erasing_area or ERASING_AREA)
        return values

    def draw(self, seed: int, epoch: int, row_B: np.ndarray, crop: float) -> "Draws":
        """What is done to these rows in this epoch: a function of (seed, epoch, row) alone; see `row_uniforms`.

        Args:
            row_B: int64 row numbers of the training set.
            crop: side of the centre crop as a share of the image's side.
        """
        uniform_BR = row_uniforms(seed, epoch, np.asarray(row_B), COLUMNS)
        box_B4 = np.tile([0.0, 0.0, crop, crop], (len(uniform_BR), 1))
        if self.random_resized_crop:
            box_B4 = boxes(uniform_BR[:, CROP], self.random_resized_crop, self.crop_aspect or CROP_ASPECT)
        erased_B4 = None
        if self.erasing:
            erased_B4 = boxes(uniform_BR[:, ERASED], self.erasing_area or ERASING_AREA, ERASING_ASPECT)
            erased_B4[uniform_BR[:, ERASING] >= self.erasing] = NOWHERE
        return Draws(
            flip=uniform_BR[:, FLIP] < self.horizontal_flip,
            angle=np.deg2rad((2 * uniform_BR[:, ANGLE] - 1) * self.rotation_degrees),
            box=box_B4,
            brightness=_factors(uniform_BR[:, BRIGHTNESS], self.brightness),
            contrast=_factors(uniform_BR[:, CONTRAST], self.contrast),
            erased=erased_B4,
        )


NOWHERE = (0.0, 0.0, -1.0, -1.0)  # a box that no pixel is in


@dataclass(frozen=True)
class Draws:
    """What is done to B images.

    Coordinates are those of `torch.nn.functional.affine_grid`: an image's edges are at -1 and 1.

    Attributes:
        flip: (B,) bool.
        angle: (B,) float64 in radians.
        box: (B, 4) float64, what the model sees of the rotated image: the centre (x, y), half the width and height.
        brightness, contrast: (B,) float64, factors; None if the lever is off.
        erased: (B, 4) float64, the box that is filled, in coordinates of the crop; None if the lever is off.
    """

    flip: np.ndarray
    angle: np.ndarray
    box: np.ndarray
    brightness: np.ndarray | None = None
    contrast: np.ndarray | None = None
    erased: np.ndarray | None = None

    def steps(self) -> np.ndarray:
        """Where one to the right, one down and the centre of the output lie in the input, (x, y) each: (B, 3, 2).

        The image is rotated about its centre, then the box is cut out, then it is flipped. float32.
        """
        x, y, wide, high = self.box.T
        cos, sin = np.cos(self.angle), np.sin(self.angle)
        across = np.where(self.flip, -wide, wide)
        steps = [[cos * across, sin * across], [-sin * high, cos * high], [cos * x - sin * y, sin * x + cos * y]]
        return np.array(steps, dtype=np.float32).transpose(2, 0, 1)

    def levels(self) -> np.ndarray | None:
        """What `change_levels` needs, (B, 6) float32: both factors and the erased box; None if all are off."""
        if self.brightness is None and self.contrast is None and self.erased is None:
            return None
        one_B = np.ones(len(self.flip))
        factors = [one_B if factor is None else factor for factor in (self.brightness, self.contrast)]
        erased_B4 = np.tile(NOWHERE, (len(one_B), 1)) if self.erased is None else self.erased
        return np.column_stack([*factors, erased_B4]).astype(np.float32)


def boxes(uniform_B4: np.ndarray, area: Sequence[float], aspect: Sequence[float]) -> np.ndarray:
    """Random boxes within a square image, (B, 4): centre (x, y), half the width and height; its edges at -1 and 1.

    Args:
        uniform_B4: from 0 to 1: for the area, the aspect, the place across and down.
        area: least and most, as shares of the image; drawn uniformly.
        aspect: least and most width / height; its logarithm is drawn uniformly among those that fit into the image.
    """
    area_B = area[0] + (area[1] - area[0]) * uniform_B4[:, 0]
    low_B, high_B = (np.clip(np.log(limit), np.log(area_B), -np.log(area_B)) for limit in aspect)
    stretch_B = np.exp((low_B + (high_B - low_B) * uniform_B4[:, 1]) / 2)
    half_B2 = np.minimum(np.sqrt(area_B)[:, None] * np.column_stack([stretch_B, 1 / stretch_B]), 1.0)
    return np.hstack([(2 * uniform_B4[:, 2:] - 1) * (1 - half_B2), half_B2])


def change_levels(grey_B1DD: torch.Tensor, draws: Draws, level_B6: torch.Tensor, axis_D: torch.Tensor) -> torch.Tensor:
    """Brightness, contrast and erasing of grey levels from 0 to 255, float32; the input is overwritten.

    Args:
        draws: which of these levers are on.
        level_B6: from `Draws.levels`, on the device of the images.
        axis_D: the centres of the pixels, between -1 and 1.
    """
    brightness, contrast, *box = level_B6[..., None, None, None].unbind(1)  # each (B, 1, 1, 1)
    if draws.brightness is not None:
        grey_B1DD.mul_(brightness).clamp_(max=255.0)
    if draws.contrast is not None:
        rest = _mean(grey_B1DD) * (1 - contrast)
        grey_B1DD.mul_(contrast).add_(rest).clamp_(0.0, 255.0)
    if draws.erased is not None:
        x, y, wide, high = box
        column_B11D, row_B1D1 = ((axis_D - x).abs() <= wide).float(), ((axis_D[:, None] - y).abs() <= high).float()
        # Products of 0 and 1 are exact, and on a CPU three times as fast as a mask.
        fill_B1DD = (_mean(grey_B1DD) * row_B1D1) * column_B11D
        grey_B1DD.mul_(1 - row_B1D1 * column_B11D).add_(fill_B1DD)
    return grey_B1DD


def _mean(grey_B1DD: torch.Tensor) -> torch.Tensor:
    """The mean of each image (B, 1, 1, 1): rows first, so that it does not depend on how many images there are."""
    return grey_B1DD.mean(-1, keepdim=True).mean(-2, keepdim=True)


def _factors(uniform_B: np.ndarray, most: float) -> np.ndarray | None:
    """Factors from 1 - most to 1 + most; None if the lever is off."""
    return 1 + most * (2 * uniform_B - 1) if most else None
