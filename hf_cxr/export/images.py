"""The images that an exported file is compared on: of the run's validation set, given files, or phantoms.

N = images, S = resized side, H, W = height and width of an image, in pixels.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import datasets
import numpy as np
from numpy.typing import NDArray

from hf_cxr.data.images.decoded import grey_of
from hf_cxr.data.images.files import find_images
from hf_cxr.data.images.grey import read_grey, resize_grey
from hf_cxr.export.runtime import BATCHES
from hf_cxr.phantom.cases import draw_cases
from hf_cxr.phantom.drawing import render_case
from hf_cxr.words import plural

IMAGES = sum(BATCHES)
"""How many images a file is compared on: one batch of each size."""

PHANTOM_SIDES = ((512, 512), (400, 480), (1021, 767))
"""Height and width of the phantoms, in turn: square, wide and odd."""


@dataclass(frozen=True)
class Images:
    """Images before and after the resize.

    Attributes:
        greys: N arrays (H, W) uint8, as `read_grey` decodes them; sizes may differ.
        pixel_N1SS: (N, 1, S, S) uint8, resized as the image processor does it.
        words: what they are, such as "24 images of the validation set".
    """

    greys: tuple[NDArray[np.uint8], ...]
    pixel_N1SS: NDArray[np.uint8]
    words: str

    @property
    def resized_already(self) -> bool:
        """Whether resizing changes none of them, as the images of a prepared dataset."""
        size = self.pixel_N1SS.shape[-1]
        return all(grey.shape == (size, size) for grey in self.greys)

    @classmethod
    def of(cls, greys: Sequence[NDArray[np.uint8]], size: int, resample: int, words: str) -> "Images":
        """Resize each to ``size`` with Pillow's filter ``resample``."""
        pixels = np.stack([resize_grey(grey, size, resample) for grey in greys])
        return cls(tuple(greys), pixels[:, None], words)


def of_split(split: datasets.Dataset, name: str, size: int, resample: int) -> Images:
    """The first `IMAGES` images of a split.

    Raises:
        ImageError: one cannot be read.
    """
    rows = split.select(range(min(IMAGES, len(split)))).select_columns(["image", "image_id"])
    rows = rows.cast_column("image", datasets.Image(decode=False))
    greys = [grey_of(row) for row in rows]
    return Images.of(greys, size, resample, f"{plural(len(greys), 'image')} of the {name} set")


def of_files(paths: Sequence[str | Path], size: int, resample: int) -> Images:
    """The first `IMAGES` image files among files and folders.

    Raises:
        ValueError: there is none.
        ImageError: one cannot be read.
    """
    found = find_images(paths)[:IMAGES]
    if not found:
        raise ValueError(f"{paths[0]} contains no image; give image files or a folder of them")
    greys = [read_grey(path) for path in found]
    return Images.of(greys, size, resample, plural(len(greys), "given image"))


def of_phantoms(size: int, resample: int) -> Images:
    """Drawn radiographs of several sizes."""
    greys = []
    for number, case in enumerate(draw_cases(IMAGES, split="test", seed=0, prevalence_floor=0.2)):
        height, width = PHANTOM_SIDES[number % len(PHANTOM_SIDES)]
        pixels, _ = render_case(case, seed=0, size=max(height, width))
        greys.append(np.ascontiguousarray(pixels[:height, :width]))
    return Images.of(greys, size, resample, f"{plural(len(greys), 'phantom')} of several sizes")
