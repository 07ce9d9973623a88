"""`ODD_IMAGES`: what an input check should report, to measure how often it does.

Some kinds are made of a run's own test images, which are altered at the size that the model gets; the others are drawn
or are parts of the two photographs that scikit-learn brings. Lateral views are drawn, and only for models of phantoms:
to a model of radiographs a drawing is unlike them from whatever side.

N = images, S = side in pixels.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hf_cxr.data.images.grey import resize_grey
from hf_cxr.inference.input_check import INVERTED, MIRRORED, SIDEWAYS, UNIFORM, UPSIDE_DOWN
from hf_cxr.inference.perturbations import contrast, grey_levels, overexposed, underexposed
from hf_cxr.phantom.lateral import render_lateral
from hf_cxr.phantom.render import SIZES

Pixels = NDArray[np.uint8]
DRAWN_SIDE = 256  # of a phantom, in pixels; a larger model gets larger ones
DRAWN = 50  # images of a kind that is drawn, and parts of each photograph
PHOTOGRAPHS = ("china.jpg", "flower.jpg")


@dataclass(frozen=True)
class OddKind:
    """A kind of image that is unlike those that a model was trained on.

    Attributes:
        title: in print.
        alter: of a kind made of test images: (N, S, S) and a random generator -> the same number of images.
        draw: of any other kind: the side S, Pillow's number of the resize filter and a random generator -> images
            (N, S, S).
        reason: that the check should give; None for no other than that it is unlike those of training.
        of_phantoms: whether it is a drawing, which measures nothing for a model of radiographs.
    """

    title: str
    alter: Callable[[Pixels, np.random.Generator], Pixels] | None = None
    draw: Callable[[int, int, np.random.Generator], Pixels] | None = None
    reason: str | None = None
    of_phantoms: bool = False


def blank(side: int, resample: int, rng: np.random.Generator) -> Pixels:
    """One grey level, and for every other image noise of one level on top."""
    level_N = np.linspace(0, 255, DRAWN)
    noise_NSS = rng.normal(size=(DRAWN, side, side)) * (np.arange(DRAWN) % 2)[:, None, None]
    return grey_levels(level_N[:, None, None] + noise_NSS)


def noise_images(side: int, resample: int, rng: np.random.Generator) -> Pixels:
    """Independent pixels: uniform, or normal around a middle grey."""
    uniform_NSS = rng.integers(0, 256, (DRAWN // 2, side, side))
    normal_NSS = rng.normal(128, 40, (DRAWN - DRAWN // 2, side, side))
    return grey_levels(np.concatenate([uniform_NSS, normal_NSS]))


def photographs(side: int, resample: int, rng: np.random.Generator) -> Pixels:
    """Square parts of two photographs in grey, 0.4 to 1 times as high."""
    from sklearn.datasets import load_sample_image

    parts = []
    for name in PHOTOGRAPHS:
        grey_HW = grey_levels(load_sample_image(name) @ np.array([0.299, 0.587, 0.114]))
        for _ in range(DRAWN):
            size = int(min(grey_HW.shape) * rng.uniform(0.4, 1))
            top, left = (int(rng.integers(length - size + 1)) for length in grey_HW.shape)
            part_HW = np.ascontiguousarray(grey_HW[top : top + size, left : left + size])
            parts.append(resize_grey(part_HW, side, resample))
    return np.stack(parts)


def laterals(side: int, resample: int, rng: np.random.Generator) -> Pixels:
    """Lateral radiographs of phantoms, every other one from the right."""
    drawn = []
    for number, patient in enumerate(rng.integers(1 << 31, size=DRAWN).tolist()):
        sex, age = "MF"[number // 2 % 2], float(rng.integers(18, 90))
        pixel_SS = render_lateral(patient=patient, seed=0, age=age, sex=sex, size=min(max(side, DRAWN_SIDE), SIZES[1]))
        drawn.append(resize_grey(np.ascontiguousarray(pixel_SS[:, :: 1 - 2 * (number % 2)]), side, resample))
    return np.stack(drawn)


def each(alter: Callable[[Pixels, float, np.random.Generator], Pixels], level: float):
    """A perturbation of one image, for many."""

    def alter_all(pixel_NSS: Pixels, rng: np.random.Generator) -> Pixels:
        return np.stack([alter(pixel_SS, level, rng) for pixel_SS in pixel_NSS])

    return alter_all


ODD_IMAGES: dict[str, OddKind] = {
    "blank": OddKind("blank", draw=blank, reason=UNIFORM),
    "noise": OddKind("noise", draw=noise_images),
    "photograph": OddKind("photographs", draw=photographs),
    "inverted": OddKind("inverted", lambda pixel_NSS, rng: 255 - pixel_NSS, reason=INVERTED),
    "turned_90": OddKind("turned by 90°", lambda pixel_NSS, rng: np.rot90(pixel_NSS, 1, (1, 2)), reason=SIDEWAYS),
    "turned_180": OddKind("turned by 180°", lambda pixel_NSS, rng: np.rot90(pixel_NSS, 2, (1, 2)), reason=UPSIDE_DOWN),
    "turned_270": OddKind("turned by 270°", lambda pixel_NSS, rng: np.rot90(pixel_NSS, 3, (1, 2)), reason=SIDEWAYS),
    "little_contrast": OddKind("low contrast", each(contrast, 0.8)),
    "too_dark": OddKind("far too dark", each(underexposed, 2.0)),
    "too_bright": OddKind("far too bright", each(overexposed, 2.0)),
    "mirrored": OddKind("mirrored", lambda pixel_NSS, rng: pixel_NSS[:, :, ::-1], reason=MIRRORED),
    "lateral": OddKind("lateral views", draw=laterals, of_phantoms=True),
}


def odd_kinds(*, synthetic: bool) -> dict[str, OddKind]:
    """The kinds that measure something for a model; ``synthetic``: it was trained on phantoms."""
    return {key: kind for key, kind in ODD_IMAGES.items() if synthetic or not kind.of_phantoms}
