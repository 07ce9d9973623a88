"""From a table of radiographs to 8-bit grey images at the working size, when a row is asked for.

An image is the bytes in its row, or a file whose path this package has found. Data that hold their images hold the
bytes: a path in one of their cells, as Arrow and Parquet allow it, is not opened (`refuse_absent_bytes`).

N = images, C = findings, S = working side in pixels.
"""

import logging
import os
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from hf_cxr.data.images import engine
from hf_cxr.data.images.grey import read_grey, resize_grey
from hf_cxr.data.images.mapped import MappedImages
from hf_cxr.data.images.png import stored_pixels
from hf_cxr.data.schema import label_matrix

logger = logging.getLogger(__name__)


def refuse_absent_bytes(
    dataset: datasets.Dataset,
    source: str | os.PathLike | Sequence[str],
    column: str = "image",
    below: Sequence[Path] = (),
) -> None:
    """Refuse rows without bytes in data that hold their images. No image is read, no file is opened.

    Args:
        dataset: with a column ``image``, as it was opened; a selection of its rows changes nothing.
        source: what the data are called in the error; or the Parquet files whose rows they are, one after another.
        column: what the source calls the image column.
        below: folders; a row without bytes is accepted if its path is that of something in one of them.

    Raises:
        ValueError: rows without bytes, with their number, the first one and the repair.
    """
    image = dataset.data.column("image")
    if pa.types.is_struct(image.type):
        size_N = pc.binary_length(pc.struct_field(image, "bytes"))
        path_N = pc.struct_field(image, "path")
    else:
        size_N, path_N = pc.binary_length(image), pa.nulls(len(image), pa.string())
    absent_N = pc.equal(pc.fill_null(size_N, 0), 0).to_numpy()
    rows = np.flatnonzero(absent_N)
    if below and len(rows):
        paths = path_N.take(pa.array(rows)).to_pylist()
        rows = rows[[not is_below(path, below) for path in paths]]
    if not len(rows):
        return
    first, path = int(rows[0]), path_N[int(rows[0])].as_py()
    where, number = (str(source), first) if isinstance(source, str | os.PathLike) else _file_and_row(source, first)
    example = f"row {number}" + (f", path {path!r}" if path else "")
    raise ValueError(absent_bytes_message(where, len(rows), len(image), column, example))


def absent_bytes_message(where: str, absent: int, rows: int, column: str, example: str = "") -> str:
    """The one line on rows without image bytes, whichever reader sees them."""
    return (
        f"{where}: {absent} of {rows} rows have no image bytes in column {column!r}"
        + (f" (the first: {example})" if example else "")
        + "; a path in a cell is not opened: write the bytes into the data (datasets' to_parquet, save_to_disk and "
        "push_to_hub do), or drop these rows"
    )


def is_below(path: str | None, folders: Sequence[Path]) -> bool:
    """Whether a local path is in one of the folders."""
    if not path or "://" in path:
        return False
    plain = Path(os.path.abspath(path))  # without ".."; a link in the folder is its owner's, and may lead elsewhere
    known = {name(folder) for folder in folders for name in (os.path.abspath, os.path.realpath)}
    return any(plain.is_relative_to(folder) for folder in known)


def _file_and_row(paths: Sequence[str], row: int) -> tuple[str, int]:
    """Which of the files a row of all of them is in, and its number there."""
    for path in paths:
        count = pq.read_metadata(path).num_rows
        if row < count:
            return path, row
        row -= count
    return paths[-1], row


def stored(image: Mapping[str, Any]) -> bytes | str:
    """The bytes of an undecoded image, or the path of its file if there are none."""
    return image["path"] if image["bytes"] is None else image["bytes"]


def grey_of(example: Mapping[str, Any]) -> np.ndarray:
    """The 8-bit grey image (H, W) of a row of the schema whose image column is not decoded (`Image(decode=False)`).

    Raises:
        ImageError: it can't be decoded; the message has its path or id and the reason.
    """
    image = example["image"]
    return read_grey(stored(image), name=image["path"] or example["image_id"])


class DecodedImages:
    """A split whose images are decoded and resized when a row is asked for; a map-style dataset for a DataLoader.

    A row is {"pixels": uint8 (S, S), "labels": float32 (C,), "row": its number}.

    Several rows at once (``__getitems__``, which a DataLoader calls) are a list of these. For a prepared split they
    are the whole batch in the form of `processing.collate`, read from the memory map: the same pixels, not decoded.

    Args:
        dataset: of the schema, with its image column.
        size: working side S in pixels; the image is resized to S x S as the image processor does it.
        resample: Pillow's number of the filter, from the image processor.
        left_out: numbers of rows that stay in their places and take part in nothing: their image is black, and all
            their labels are unknown. A run that resumes without an image draws the same rows as before.

    Raises:
        ValueError: the dataset was prepared at another size.
        ImageError: (when a row is read) the image can't be decoded; the message has its path or id and the reason.
    """

    def __init__(self, dataset: datasets.Dataset, size: int, resample: int, *, left_out: Collection[int] = ()):
        columns = dataset.select_columns(["image", "labels", "image_id"])
        self.rows = columns.cast_column("image", datasets.Image(decode=False))
        self.size, self.resample, self.left_out = size, resample, frozenset(left_out)
        self.mapped = self.label_NC = None
        if "perceptual_hash" in dataset.column_names and len(dataset):
            self._map(dataset[0]["image"].size)
        if self.mapped is None and self._pixels_to_decode() >= engine.LONG_WORK:
            engine.warm_up()  # here, so that the DataLoader's workers share it

    def _pixels_to_decode(self) -> int:
        """Of all images together, if all are like the first."""
        return len(self.rows) and len(self.rows) * stored_pixels(stored(self.rows[0]["image"]))

    def _map(self, prepared: tuple[int, int]) -> None:
        """Read batches from the memory map from now on, if the images of this prepared split are stored for it."""
        size = self.size
        if prepared != (size, size):
            raise ValueError(
                f"the images were prepared at {prepared} pixels but {size} x {size} are needed; "
                "resizing twice does not give the same pixels as resizing once: prepare them again at this size"
            )
        mapped = MappedImages(self.rows, size)
        if len(mapped.read(np.zeros(1, np.int64), np.empty((1, size, size), np.uint8))):
            logger.info(
                "the prepared images are stored in the form of another version: each is decoded when it is read, "
                "which is slower; hf-cxr prepare with another --out writes them in today's form"
            )
            return
        self.mapped, self.label_NC = mapped, label_matrix(self.rows)
        self.label_NC[list(self.left_out)] = np.nan

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

    def __getitems__(self, rows: Sequence[int]) -> list[dict[str, Any]] | dict[str, Any]:
        if self.mapped is None:
            return [self[row] for row in rows]
        import torch  # here: processes that only read tables or decode images do without it

        row_B = np.array(rows, dtype=np.int64)
        pixel_BSS = np.empty((len(row_B), self.size, self.size), np.uint8)
        # Whatever is not stored as it should be is decoded, or refused, as a single row is.
        for place in self.mapped.read(row_B, pixel_BSS).tolist():
            if rows[place] not in self.left_out:
                pixel_BSS[place] = self[rows[place]]["pixels"]
        if self.left_out:
            pixel_BSS[[row in self.left_out for row in rows]] = 0
        pixel_B1SS, label_BC = torch.from_numpy(pixel_BSS)[:, None], torch.from_numpy(self.label_NC[row_B])
        return {"pixel_values": pixel_B1SS, "labels": label_BC, "row": row_B}
