"""From a table of radiographs to 8-bit grey images at the working size, when a row is asked for.

N = images, C = findings, S = working side in pixels.
"""

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import datasets
import numpy as np
import pyarrow.compute as pc
from tqdm.auto import tqdm

from hf_cxr.data.images import check_image, read_grey, resize_grey


def check_images(splits: Mapping[str, datasets.Dataset]) -> None:
    """Look at every image file of every split before hours are spent on them, with a progress bar.

    Raises:
        ValueError: some can't be read; the message has their number and the first five with path and reason.
    """
    paths = [path for split in splits.values() if "image" in split.column_names for path in _paths(split)]
    with ThreadPoolExecutor() as pool:
        found = list(tqdm(pool.map(check_image, paths), "Checking images", len(paths), disable=not paths, unit="file"))
    unreadable = [error for error in found if error is not None]
    if unreadable:
        raise ValueError(
            f"{len(unreadable):,} of {len(paths):,} image files cannot be read: "
            + "; ".join(f"{error.name}: {error.reason}" for error in unreadable[:5])
            + ". Fetch them again, or remove them and go on with --missing_images skip"
        )


def _paths(split: datasets.Dataset) -> list[str]:
    """Files of the images that are not inside the dataset; those that are were encoded by this package."""
    column = split.select_columns(["image"]).cast_column("image", datasets.Image(decode=False)).with_format("arrow")
    return [
        path
        for batch in column.iter(1000)
        for path in pc.filter(
            pc.struct_field(batch["image"], "path"), pc.is_null(pc.struct_field(batch["image"], "bytes"))
        ).to_pylist()
    ]


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

    Raises:
        ValueError: the dataset was prepared at another size.
        ImageError: (when a row is read) the image can't be decoded; the message has its path or id and the reason.
    """

    def __init__(self, dataset: datasets.Dataset, size: int, resample: int):
        columns = dataset.select_columns(["image", "labels", "image_id"])
        self.rows = columns.cast_column("image", datasets.Image(decode=False))
        self.size, self.resample = size, resample
        if "perceptual_hash" in dataset.column_names and len(dataset) and dataset[0]["image"].size != (size, size):
            raise ValueError(
                f"the images were prepared at {dataset[0]['image'].size} pixels and {size} x {size} are wanted; "
                "resizing twice gives others than resizing once: prepare them again at this size"
            )

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, row: int) -> dict[str, Any]:
        example = self.rows[row]
        return {
            "pixels": resize_grey(grey_of(example), self.size, self.resample),
            "labels": np.array(example["labels"], dtype=np.float32),
            "row": row,
        }
