"""`PERTURBATIONS`: how an image can be made worse, step by step, to see what a model does with it.

    worse_SS = PERTURBATIONS["blur"].apply(pixel_SS, 2.0, rng)

Each acts on the resized grey image, uint8 (S, S), before crop and normalisation, as a change of the detector, the
exposure or the file would, at the resolution that the model sees. Levels are given from mild to severe; level 0 is the
clean image and is none of them. They are not a model of any one scanner: a fall under them says that the model leans
on fine detail or on absolute grey levels, no fall does not say that it is robust to another hospital.

S = side in pixels.

Source: Hendrycks and Dietterich, ICLR 2019 (the idea and the kinds); the levels are this package's own.
"""

import io
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

Pixels = NDArray[np.uint8]


@dataclass(frozen=True)
class Perturbation:
    """One way to make an image worse.

    Attributes:
        title: in print.
        unit: of the figures that a reader sees, in print.
        words: what a row with such a figure is called.
        levels: from mild to severe.
        apply: pixels (S, S) uint8, a level and a random generator -> pixels of the same shape.
        shown: a level -> the figure that a reader sees, such as the JPEG quality.
    """

    title: str
    unit: str
    words: str
    levels: tuple[float, ...]
    apply: Callable[[Pixels, float, np.random.Generator], Pixels]
    shown: Callable[[float], float] = lambda level: level

    def name(self, level: float) -> str:
        """A level in print, such as "JPEG quality 10"."""
        return self.words.format(f"{self.shown(level):.3g}")


def noise(pixel_SS: Pixels, level: float, rng: np.random.Generator) -> Pixels:
    """Gaussian noise of a standard deviation in grey levels."""
    return grey_levels(pixel_SS + rng.normal(scale=level, size=pixel_SS.shape)) if level else pixel_SS


def blur(pixel_SS: Pixels, level: float, rng: np.random.Generator) -> Pixels:
    """Gaussian blur of a standard deviation in pixels."""
    return np.asarray(Image.fromarray(pixel_SS).filter(ImageFilter.GaussianBlur(level)))


def contrast(pixel_SS: Pixels, level: float, rng: np.random.Generator) -> Pixels:
    """Contrast lowered towards the image's mean: 0 is none lost, 1 leaves a grey square."""
    mean = pixel_SS.mean()
    return grey_levels(mean + (1 - level) * (pixel_SS - mean))


def underexposed(pixel_SS: Pixels, level: float, rng: np.random.Generator) -> Pixels:
    """Grey levels lowered by the power 1 + level: an image that is too dark."""
    return grey_levels(255 * (pixel_SS / 255) ** (1 + level))


def overexposed(pixel_SS: Pixels, level: float, rng: np.random.Generator) -> Pixels:
    """Grey levels raised by the power 1 / (1 + level): an image that is too bright."""
    return grey_levels(255 * (pixel_SS / 255) ** (1 / (1 + level)))


def jpeg(pixel_SS: Pixels, level: float, rng: np.random.Generator) -> Pixels:
    """Saved as JPEG of quality 100 - level, and read again."""
    file = io.BytesIO()
    Image.fromarray(pixel_SS).save(file, "JPEG", quality=round(100 - level))
    return np.asarray(Image.open(file))


def rotation(pixel_SS: Pixels, level: float, rng: np.random.Generator) -> Pixels:
    """Turned by a number of degrees, to a side drawn for each image; corners become black."""
    degrees = level if rng.random() < 0.5 else -level
    return np.asarray(Image.fromarray(pixel_SS).rotate(degrees, Image.Resampling.BILINEAR))


def resolution(pixel_SS: Pixels, level: float, rng: np.random.Generator) -> Pixels:
    """Shrunk to 1 / (1 + level) of its side and enlarged again."""
    height, width = pixel_SS.shape
    small = (max(1, round(width / (1 + level))), max(1, round(height / (1 + level))))
    image = Image.fromarray(pixel_SS).resize(small, Image.Resampling.BOX)
    return np.asarray(image.resize((width, height), Image.Resampling.BICUBIC))


def grey_levels(value: NDArray[np.floating]) -> Pixels:
    """Values to the nearest grey levels, of any shape."""
    return np.clip(np.rint(value), 0, 255).astype(np.uint8)


PERTURBATIONS: dict[str, Perturbation] = {
    "noise": Perturbation("Noise", "sd in grey levels", "Noise, sd {} grey levels", (4, 8, 16, 32), noise),
    "blur": Perturbation("Blur", "sd in pixels", "Blur, sd {} pixels", (0.5, 1, 2, 4), blur),
    "contrast": Perturbation(
        "Lower contrast",
        "contrast left (%)",
        "Contrast at {} %",
        (0.2, 0.4, 0.6, 0.8),
        contrast,
        lambda lost: 100 * (1 - lost),
    ),
    "underexposed": Perturbation(
        "Darker", "gamma", "Darker, gamma {}", (0.25, 0.5, 1, 2), underexposed, lambda level: 1 + level
    ),
    "overexposed": Perturbation(
        "Brighter", "gamma", "Brighter, gamma {}", (0.25, 0.5, 1, 2), overexposed, lambda level: 1 / (1 + level)
    ),
    "jpeg": Perturbation("JPEG", "quality", "JPEG quality {}", (25, 50, 75, 90), jpeg, lambda lost: 100 - lost),
    "rotation": Perturbation(
        "Rotation", "degrees, to either side", "Rotation by {} degrees", (3, 6, 12, 24), rotation
    ),
    "resolution": Perturbation(
        "Lower resolution",
        "pixels left on a side (%)",
        "Resolution at {} %",
        (0.5, 1, 2, 4),
        resolution,
        lambda level: 100 / (1 + level),
    ),
}


def versions(pixel_SS: Pixels, kinds: tuple[str, ...], seed: tuple[int, ...]) -> NDArray[np.uint8]:
    """The clean image, then every level of every kind in order: (1 + levels, S, S) uint8.

    Args:
        seed: of the noise and the side of a rotation: one image's, so that the result does not depend on how the work
            is shared.
    """
    made = [pixel_SS]
    for number, kind in enumerate(PERTURBATIONS):
        perturbation = PERTURBATIONS[kind]
        if kind in kinds:
            rngs = (np.random.default_rng([*seed, number, step]) for step in range(len(perturbation.levels)))
            made += [
                perturbation.apply(pixel_SS, one, rng) for one, rng in zip(perturbation.levels, rngs, strict=True)
            ]
    return np.stack(made)
