"""From a table of radiographs to 8-bit grey images at the working size, when a row is asked for.

N = images, C = findings, S = working side in pixels.
"""

from collections.abc import Collection, Mapping
from typing import Any

import datasets
import numpy as np

from hf_cxr.data.images import read_grey, resize_grey


def grey_of(example: Mapping[str, Any]) -> np.ndarray:
    """The 8-bit grey image (H, W) of a row of the schema whose image column is not decoded (`Image(decode=False)`).

    Raises:
        ImageError: it can't be decoded; the message has its path or id and the reason.
    """
    image = example["image"]
    return read_grey(image["bytes"] or image["path"], name=image["path"] or example["image_id"])


class DecodedImages:
    """A split whose images are decoded and resized when a row is asked for; a map-style dataset for a DataLoader.

    A row is {"pixels": uint8 (S, S), "labels": float32 (C,), "row": its number}.

    Args:
        dataset: of the schema, with its image column.
        size: working side S in pixels; the image is resized to S x S as the image processor does it.
        resample: Pillow's number of the filter, from the image processor.
        left_out: numbers of rows that stay in their places and take part in nothing: their image is black, and all
            their labels are unknown. A run that goes on without an image draws the same rows as before.

    Raises:
        ValueError: the dataset was prepared at another size.
        ImageError: (when a row is read) the image can't be decoded; the message has its path or id and the reason.
    """

    def __init__(self, dataset: datasets.Dataset, size: int, resample: int, *, left_out: Collection[int] = ()):
        columns = dataset.select_columns(["image", "labels", "image_id"])
        self.rows = columns.cast_column("image", datasets.Image(decode=False))
        self.size, self.resample, self.left_out = size, resample, frozenset(left_out)
        if "perceptual_hash" in dataset.column_names and len(dataset) and dataset[0]["image"].size != (size, size):
            raise ValueError(
                f"the images were prepared at {dataset[0]['image'].size} pixels and {size} x {size} are wanted; "
                "resizing twice gives others than resizing once: prepare them again at this size"
            )

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, row: int) -> dict[str, Any]:
        example = self.rows[row]
        if row in self.left_out:
            unknown_C = np.full(len(example["labels"]), np.nan, dtype=np.float32)
            return {"pixels": np.zeros((self.size, self.size), np.uint8), "labels": unknown_C, "row": row}
        return {
            "pixels": resize_grey(grey_of(example), self.size, self.resample),
            "labels": np.array(example["labels"], dtype=np.float32),
            "row": row,
        }
