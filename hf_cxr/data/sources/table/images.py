"""The images of a table: each row's id and path, and which files are there.

The rules for a path are those of `paths.py`. An id from a separate column is a name and may look like any
path; without such a column it is the path below the image folder, so that it does not depend on the machine.

Refuses: rows without id or path, paths that leave the image folder, missing images.

N = rows, M = images.
"""

import glob
import logging
import os
import string
from pathlib import Path

import numpy as np
import pandas as pd

from hf_cxr.data.sources.table.description import TableDescription
from hf_cxr.data.sources.table.files import FILE, FOLDER, ROW, SPLIT, refuse
from hf_cxr.data.sources.table.paths import (
    ImageFiles,
    leave_folder,
    near_miss_words,
    near_misses,
    plain_paths,
    start_to_strip,
    strip_paths,
)

logger = logging.getLogger(__name__)

PATH, SPELLED = "_path", "_spelled"  # columns: the path below image_root, plain, and as the table spells it


def with_ids(
    rows: pd.DataFrame, description: TableDescription, *, embedded: bool, root: Path | None = None
) -> pd.DataFrame:
    """The rows with image_id, `PATH` and `SPELLED`.

    Args:
        rows: N rows as read.
        description: of the table.
        embedded: the images are in the data; an image's path is then its number.
        root: the folder that image_root is below, to look for the repair of a wrong path; None does not look.

    Raises:
        ValueError: see the top of this module.
    """
    if embedded:
        name = Path(description.hub or "").name or Path(description.name).name
        written = spelled = name + "/" + rows[ROW].astype(str)
    else:
        written = _rendered(rows, description)
        spelled = strip_paths(written, description.image_strip)
        outside = leave_folder(spelled)
        if outside.any():
            base = root / description.image_root if root is not None else None
            _refuse_outside(written[outside], description, base)
    path = plain_paths(spelled)
    image_id = rows[description.image_id] if description.image_id else path
    rows = rows.assign(**{PATH: path, SPELLED: spelled, "image_id": image_id.astype(str)})
    for column, noun in (("image_id", "image id"), (PATH, "image path")):
        empty = rows[column].str.fullmatch(r"[\s.]*")
        refuse(rows[FILE][empty], f"{description.name}: rows without an {noun}", "fill it in or drop these rows")
    refuse(
        rows["image_id"][rows["image_id"].str.contains(r"[\x00-\x1f]", regex=True)],
        f"{description.name}: an image id contains a line break or another control character",
        "correct these rows",
    )
    return rows


def _refuse_outside(written: pd.Series, description: TableDescription, base: Path | None) -> None:
    start = start_to_strip(written.iloc[0], base) if base is not None and not description.image_strip else None
    if description.image_strip:
        strip = f"image_strip {description.image_strip!r} does not take the start off these"
    elif start:
        strip = f"take the start off with image_strip: '{start}'"
    else:
        strip = "take the start off with image_strip, a regular expression such as '/kaggle/input/data/'"
    refuse(
        written,
        f"{description.name}: the image path leaves the image folder",
        f"give paths below image_root, without '..', drive or leading '/', or {strip}",
    )


def _rendered(rows: pd.DataFrame, description: TableDescription) -> pd.Series:
    """The template with each row's own values; "{subject_id:.2}" is their first two characters."""
    if description.image_path is None:
        return rows[description.image_column]
    path = pd.Series("", index=rows.index, dtype=str)
    for literal, name, spec, _ in string.Formatter().parse(description.image_path):
        path = path + literal
        if name:
            value = rows[{"split": SPLIT, "folder": FOLDER}.get(name, name)].astype(str)
            refuse(rows[FILE][value == ""], f"{description.name}: rows without {name}", "the image's path needs it")
            path = path + (value.str[: int(spec[1:])] if spec else value)
    return path.str.removeprefix("./")


def image_files(root: Path, description: TableDescription) -> ImageFiles:
    """The files that images can be.

    Raises:
        FileNotFoundError: none of the folders of image_folders is there.
    """
    base = root / description.image_root
    if not description.image_folders:
        return ImageFiles(base)
    folders = []
    for name in description.image_folders:
        literal, pattern = base / name, os.path.join(glob.escape(str(base)), name)
        folders += [str(literal)] if literal.is_dir() else sorted(glob.glob(pattern))
    if not any(os.path.isdir(folder) for folder in folders):
        raise FileNotFoundError(
            f"{base} has none of the folders {', '.join(description.image_folders)}; unpack the images there, or read "
            "the tables alone with images=False"
        )
    return ImageFiles(base, folders)


def image_paths(rows: pd.DataFrame, files: ImageFiles) -> np.ndarray:
    """M paths, None where the file is missing."""
    pairs = zip(rows[PATH], rows[SPELLED], strict=True)
    return np.array([files.find(path, spelled) for path, spelled in pairs], dtype=object)


def present(
    splits: dict[str, np.ndarray],
    path_M: np.ndarray,
    rows: pd.DataFrame,
    files: ImageFiles,
    root: Path,
    missing_images: str,
) -> dict[str, np.ndarray]:
    """The rows of each split whose image is there; all rows with "keep".

    Raises:
        FileNotFoundError: ("error") an image is missing.
        ValueError: ("skip") a split has no image at all.
    """
    is_there_M = np.array([path is not None for path in path_M])
    listed = np.concatenate(list(splits.values()))
    gone = np.sort(listed[~is_there_M[listed]])
    if not len(gone) or missing_images == "keep":
        return splits
    count = f"{len(gone)} of {len(listed)} images"
    near = near_miss_words(near_misses(rows[PATH].iloc[gone], files))
    if missing_images == "error":
        start = start_to_strip(rows[SPELLED].iloc[gone[0]], Path(files.base))
        if start and not near:
            near = f"; without its start the first one is there: image_strip: '{start}'"
        raise FileNotFoundError(
            f"{root} is missing {count}, such as {', '.join(rows['image_id'].iloc[gone[:3]])}{near}; see image_root, "
            "image_path and image_strip of the description, or leave them out with --missing_images skip "
            "(missing_images='skip'), or, in a run that has begun, with --unreadable_images skip"
        )
    per_split = ", ".join(
        f"{int((~is_there_M[index]).sum())} of {len(index)} in {name}" for name, index in splits.items()
    )
    logger.warning("%s is missing %s, skipped: %s%s", root, count, per_split, near)
    splits = {name: index[is_there_M[index]] for name, index in splits.items()}
    empty = [name for name, index in splits.items() if not len(index)]
    if empty:
        raise ValueError(f"{root} has no image of {', '.join(empty)} (missing: {per_split}){near}")
    return splits
