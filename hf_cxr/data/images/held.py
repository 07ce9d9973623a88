"""A small split whose images are decoded once: after the first epoch its rows come from memory.

For every row, a decoder costs more than a small model's share of a step. A split is held if its pixels take at most
``MOST`` bytes and this process decodes them itself: dataloader workers end with the epoch, and their memory with them.

N = images, C = findings, S = working side in pixels.
"""

from typing import Any

import numpy as np

from hf_cxr.data.images.decoded import DecodedImages

MOST = 256 * 2**20


def held(images: DecodedImages, workers: int) -> "DecodedImages | HeldImages":
    """The images, held if that is worth it.

    Args:
        images: of a split.
        workers: dataloader workers that decode them; 0 if this process does.
    """
    fetched_fast = getattr(images, "mapped", None) is not None  # from a prepared folder, nothing is decoded
    small = len(images) * images.size**2 <= MOST
    return HeldImages(images) if small and not workers and not fetched_fast else images


class HeldImages:
    """The rows of `DecodedImages`; each image is decoded when it is first asked for, and kept: N x S x S bytes.

    Args:
        images: whose rows these are.

    Raises:
        ImageError: (when a row is read first) the image can't be decoded.
    """

    def __init__(self, images: DecodedImages):
        self.images = images
        self._pixel_NSS = np.empty((len(images), images.size, images.size), np.uint8)
        self._labels: list[np.ndarray | None] = [None] * len(images)

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, row: int) -> dict[str, Any]:
        label_C = self._labels[row]
        if label_C is None:
            example = self.images[row]
            self._pixel_NSS[row], self._labels[row] = example["pixels"], example["labels"]
            return example
        return {"pixels": self._pixel_NSS[row], "labels": label_C, "row": row}
