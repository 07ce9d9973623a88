"""Boxes of a table, in pixels, to the schema's: fractions of the image, so that they hold at any size.

Three layouts, chosen by the description's key ``boxes``: a file with a row for each box, found by the image's id; a
list column next to the list of findings, a box for each name; or a column with the schema's own lists, as a pushed
dataset has it, whose fractions are taken as they are. All readers' boxes are kept, one after another.

The image's size comes from columns where the data have them, else from the image file's header (no pixel is decoded);
where neither is available, as in table-only mode, boxes are left empty and their file is not read.

Refuses: names that are not findings, coordinates that are not numbers, corners in the wrong order, boxes that lie
wholly outside the image, fractions that leave it, a file about different images. Boxes in pixels that reach over an
image's edge are cut there.

M = images, K = boxes.
"""

import logging
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
from tqdm.auto import tqdm

from hf_cxr.data.ids import canonical_ids, similar_pairs
from hf_cxr.data.images.grey import ImageError, image_size
from hf_cxr.data.sources.table.description import TableDescription
from hf_cxr.data.sources.table.files import find_files, read_columns, refuse
from hf_cxr.data.sources.table.labels import columns_of_names, is_placeholder
from hf_cxr.words import plural

logger = logging.getLogger(__name__)


def boxes_of(
    rows: pd.DataFrame, description: TableDescription, root: Path, path_M: np.ndarray | None, kind: pa.DataType
) -> pa.Array:
    """The ``boxes`` column of the schema for M images.

    Args:
        rows: M rows, one an image, with the columns of the description.
        description: its ``boxes`` says where they are; without it every list is empty.
        root: the folder that its files are below.
        path_M: each image's file, None where there is none; None altogether if no image is read.
        kind: the schema's type of the column.

    Raises:
        FileNotFoundError: the file of the boxes is missing.
        ValueError: see the top of this module.
    """
    spec = description.boxes
    boxes = _no_boxes()
    if "fractions" in spec:
        boxes = _given_fractions(rows, description)
    elif spec and path_M is None and not spec["size"]:
        logger.info("%s: boxes are left out: without the image files their sizes are unknown", description.name)
    elif spec:
        boxes = _from_file(rows, description, root) if "file" in spec else _from_lists(rows, description)
        boxes = _as_fractions(boxes, rows, description, path_M)
    boxes = boxes.sort_values("image", kind="stable")
    values = pa.StructArray.from_arrays(
        [
            pa.array(boxes["finding"].to_list(), pa.string()),
            pa.FixedSizeListArray.from_arrays(pa.array(boxes[list("xywh")].to_numpy(np.float32).reshape(-1)), 4),
        ],
        names=["finding", "bbox"],
    )
    counts = np.bincount(boxes["image"], minlength=len(rows))
    offsets = pa.array(np.append(0, np.cumsum(counts)).astype(np.int32))
    return pa.ListArray.from_arrays(offsets, values.cast(kind.value_type))


def _no_boxes() -> pd.DataFrame:
    return pd.DataFrame({"image": np.zeros(0, np.int64), "finding": [], **{name: np.zeros(0) for name in "xywh"}})


def _from_file(rows: pd.DataFrame, description: TableDescription, root: Path) -> pd.DataFrame:
    """K boxes as read: image (row number), finding, left, top, right, bottom in pixels, the image's size if given."""
    spec = description.boxes
    wanted = [spec["by"], spec["finding"], *spec["corners"], *spec["size"]]
    parts = []
    for path in find_files(root, spec["file"]):
        part = read_columns(path, set(wanted), description)
        absent = [name for name in wanted if name not in part]
        if absent:
            raise ValueError(f"{path} has no column {', '.join(map(repr, absent))}, which boxes asks for")
        parts.append(part)
    part = pd.concat(parts, ignore_index=True)
    part = part[(part[list(spec["corners"])] != "").any(axis=1)]  # a reader who found nothing has a row without a box
    key_M, key_K = (canonical_ids(keys, f"boxes: {spec['by']}") for keys in (rows[spec["by"]], part[spec["by"]]))
    refuse(
        key_M[key_M.duplicated()], f"{description.name}: the column that boxes are found by repeats", "fix by of boxes"
    )
    image_K = pd.Index(key_M).get_indexer(key_K)
    # Images that keep or a join left out are not missed, but a file of other images is.
    if len(part) and (image_K < 0).all():
        pairs = similar_pairs(key_K, key_M)
        hint = f" ({pairs[0][0]} in the file of boxes, {pairs[0][1]} in the table?)" if pairs else ""
        message = f"{description.name}: no box is on an image of the table"
        refuse(part[spec["by"]], message, f"see by and file of boxes{hint}")
    if (image_K < 0).any():
        logger.warning(
            "%s: %s left out: the table has no such images",
            *(description.name, plural((image_K < 0).sum(), "box", "boxes")),
        )
    part, image_K = part[image_K >= 0], image_K[image_K >= 0]
    boxes = pd.DataFrame({"image": image_K, "finding": part[spec["finding"]].to_numpy()})
    names = ["left", "top", "right", "bottom", "width", "height"]
    for name, column in zip(names, (*spec["corners"], *spec["size"]), strict=False):
        boxes[name] = part[column].to_numpy()
    return boxes


def _from_lists(rows: pd.DataFrame, description: TableDescription) -> pd.DataFrame:
    """The same of lists next to the list of findings."""
    spec, found = description.boxes, {"image": [], "finding": [], "left": [], "top": [], "right": [], "bottom": []}
    pairs = zip(rows[description.label_column], rows[spec["column"]], strict=True)
    for image, (names, cells) in enumerate(pairs):
        names, cells = (() if isinstance(cell, str) and not cell else cell for cell in (names, cells))
        corners = [cell.strip("[]() ").split(",") for cell in cells]
        named = [(name, corner) for name, corner in zip(names, corners, strict=False) if not is_placeholder(name)]
        if len(names) != len(cells) or any(len(corner) != 4 for _, corner in named):
            raise ValueError(
                f"{description.name}: {rows['image_id'].iloc[image]} has {plural(len(names), 'finding')} and "
                f"{plural(len(cells), 'box', 'boxes')} in {spec['column']!r}; it must be a list of [left, top, right, "
                "bottom], one a finding"
            )
        for name, corner in named:
            for key, value in zip(found, (image, name, *corner), strict=True):
                found[key].append(value)
    boxes = pd.DataFrame(found)
    for key, column in zip(("width", "height"), spec["size"], strict=False):
        boxes[key] = rows[column].to_numpy()[boxes["image"].to_numpy(dtype=int)]
    return boxes


def _given_fractions(rows: pd.DataFrame, description: TableDescription) -> pd.DataFrame:
    """image, finding, and x, y, w, h of a column with lists of {finding, bbox}; an empty cell has no boxes."""
    column, found = description.boxes["fractions"], []
    for image, (name, cell) in enumerate(zip(rows["image_id"], rows[column], strict=True)):
        try:
            boxes = [] if cell is None else [(box["finding"], [float(side) for side in box["bbox"]]) for box in cell]
        except (TypeError, KeyError, ValueError) as error:
            raise ValueError(
                f"{description.name}: {name} has {cell!r:.80} in {column!r}; it must be a list of "
                "{finding, bbox: [x, y, width, height]}, in Parquet data that hold their images"
            ) from error
        outside = [name for _, box in boxes if not _is_inside(box)]
        refuse(
            outside, f"{description.name}: a box is not inside its image", "x, y, width and height are fractions of it"
        )
        found += [(image, finding, *box) for finding, box in boxes]
    if not found:
        return _no_boxes()
    boxes = pd.DataFrame(found, columns=["image", "finding", *"xywh"])
    return boxes.assign(finding=_findings(boxes, description))


def _is_inside(box: list[float]) -> bool:
    """Whether x, y, width and height are fractions of an image, up to rounding."""
    if len(box) != 4:
        return False
    x, y, width, height = box
    most = 1 + 1e-5
    return x >= 0 and y >= 0 and width > 0 and height > 0 and x + width <= most and y + height <= most  # not NaN


def _findings(boxes: pd.DataFrame, description: TableDescription) -> list[str]:
    """The finding of each box, in the description's spelling."""
    columns = columns_of_names(set(boxes["finding"]), description)
    strange = ~boxes["finding"].map(lambda name: isinstance(columns[name], int)).astype(bool)
    refuse(
        boxes["finding"][strange],
        f"{description.name}: a box has a name that is not a finding",
        "add it to findings, aliases or rename",
    )
    names = tuple(description.findings)
    return [names[columns[name]] for name in boxes["finding"]]


def _as_fractions(
    boxes: pd.DataFrame, rows: pd.DataFrame, description: TableDescription, path_M: np.ndarray | None
) -> pd.DataFrame:
    """image, finding, and x, y, w, h as fractions; boxes on images of unknown size are left out."""
    finding = _findings(boxes, description)
    numbers = boxes.drop(columns=["image", "finding"]).apply(pd.to_numeric, errors="coerce")
    where = rows["image_id"].to_numpy()[boxes["image"].to_numpy(dtype=int)]
    refuse(
        where[numbers.isna().any(axis=1)],
        f"{description.name}: a box has coordinates that are not numbers",
        "give pixels",
    )
    if "width" in numbers:
        width_K, height_K = numbers["width"].to_numpy(), numbers["height"].to_numpy()
    else:
        width_K, height_K = _sizes(path_M[boxes["image"].to_numpy(dtype=int)]).T
    known_K = ~np.isnan(width_K)
    left_K, right_K = numbers["left"] / width_K, numbers["right"] / width_K
    top_K, bottom_K = numbers["top"] / height_K, numbers["bottom"] / height_K
    bad_K = (right_K <= left_K) | (bottom_K <= top_K) | (right_K <= 0) | (bottom_K <= 0) | (left_K >= 1) | (top_K >= 1)
    refuse(
        where[known_K & bad_K],
        f"{description.name}: a box has no area inside its image",
        "give left, top, right and bottom in pixels of the stored image",
    )
    left_K, top_K, right_K, bottom_K = (side.clip(0, 1) for side in (left_K, top_K, right_K, bottom_K))
    fractions = {"x": left_K, "y": top_K, "w": right_K - left_K, "h": bottom_K - top_K}
    return pd.DataFrame({"image": boxes["image"].astype(np.int64), "finding": finding, **fractions})[known_K]


def _sizes(path_K: np.ndarray) -> np.ndarray:
    """Width and height in pixels, (K, 2), from the files' headers; NaN where there is no file."""
    paths = [path for path in dict.fromkeys(path_K) if path is not None]
    sizes = {path: _size(path) for path in tqdm(paths, "Sizes of images with boxes", unit="file", disable=not paths)}
    return np.array([sizes.get(path, (np.nan, np.nan)) for path in path_K], dtype=np.float64).reshape(-1, 2)


def _size(path: str) -> tuple[float, float]:
    try:
        return image_size(path)
    except ImageError as error:
        # The check before training names it, with the rest that cannot be read.
        logger.warning("boxes are left out, because the size of their image cannot be read: %s", error)
        return np.nan, np.nan
