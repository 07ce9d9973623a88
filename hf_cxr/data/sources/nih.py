"""ChestX-ray14, the NIH release, in its own layout.

    root/Data_Entry_2017*.csv      the table, with the original header or one of those of the v2020 edition
    root/train_val_list.txt        the official lists; they share no patient
    root/test_list.txt
    root/BBox_List_2017.csv        984 boxes; optional
    root/images/*.png              or images_001/images/*.png ... images_012/images/*.png, as the archives unpack

Source: Wang et al., "ChestX-ray8: Hospital-scale Chest X-ray Database and Benchmarks on Weakly-Supervised
Classification and Localization of Common Thorax Diseases", CVPR 2017; https://nihcc.app.box.com/v/ChestXray-NIHCC.
The labels were mined from reports and are noisy; every cell is 1 or 0, and "No Finding" is the row of zeros.

Refuses: tables and lists that contradict one another, unknown names, missing files. Each error says where and what.

N = images, C = 14 findings.
"""

import logging
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Literal

import datasets
import numpy as np
import pandas as pd
import pyarrow as pa

from hf_cxr.data import ages
from hf_cxr.data.ids import canonical_ids
from hf_cxr.data.schema import features
from hf_cxr.data.sources.source import Arguments, Kind, Source, listed_ids, rule_for_missing
from hf_cxr.data.sources.table.paths import ImageFiles, near_miss_words, near_misses
from hf_cxr.data.splits import check_patients_disjoint, patient_split
from hf_cxr.labels import NIH14
from hf_cxr.words import plural

logger = logging.getLogger(__name__)

RELEASE = "https://nihcc.app.box.com/v/ChestXray-NIHCC"
VALIDATION_FRACTION = 0.2  # of the images of train_val_list.txt: 17,305 of the release's 86,524
BOX_PIXELS = 1024  # boxes were drawn on images of 1024 x 1024 pixels
NO_FINDING = "No Finding"
LISTS = {"train_val": "train_val_list.txt", "test": "test_list.txt"}
TABLE_COLUMNS = {
    "Image Index": "image_id",
    "Finding Labels": "findings",
    "Patient ID": "patient_number",
    "Patient Age": "age",
    "Patient Gender": "sex",
    "View Position": "view",
}
LICENCE_NOTE = (
    "ChestX-ray14 is free to use. Link its download site (https://nihcc.app.box.com/v/ChestXray-NIHCC), name the NIH "
    "Clinical Center as its source, and cite Wang et al., ChestX-ray8, CVPR 2017."
)


def _check(args: Arguments) -> None:
    if not args.nih_root:
        raise ValueError("dataset nih needs --nih_root, the folder that contains Data_Entry_2017*.csv and images/")


def _load(args: Arguments, *, images: bool) -> Source:
    splits, listed = _read_release(args.nih_root, images=images, missing_images=rule_for_missing(args))
    words = "official test list; validation cut from the train_val list by patient, stratified on findings"
    return Source(
        splits,
        NIH14,
        name="ChestX-ray14",
        split_origin={"splits_from": words, "split_file": None},
        listed=listed,
        place=Path(args.nih_root),
        licence_note=LICENCE_NOTE,
    )


NIH = Kind(
    help="the ChestX-ray14 release at --nih_root",
    options=("nih_root", "missing_images"),
    check=_check,
    load=_load,
)


def load_nih(
    root: str | os.PathLike,
    *,
    images: bool = True,
    missing_images: Literal["error", "skip", "keep"] = "error",
    validation_seed: int = 0,
) -> datasets.DatasetDict:
    """Read the release into train, validation and test, on its official lists.

    Validation is a fifth of the train_val list, cut by patient and stratified on findings: 69,219 and 17,305
    images of the full release, next to 25,596 for test. The cut is made on the whole list, whatever images are at
    hand, so that a partial copy has every patient where the full release has them.

    Args:
        root: the folder of the release.
        images: False reads the tables alone: no image column, no image file needed.
        missing_images: what to do about listed images that are not there: "error", "skip" them with a warning, or
            "keep" their rows, without an image.
        validation_seed: another seed, another choice of validation patients.

    Returns:
        train, validation and test in the columns of `hf_cxr.data.schema`. ``image`` holds paths and decodes when
        read. ``labels`` are 14 float32 in the order of `NIH14`. ``boxes`` are fractions of the image, and empty
        where no box was drawn, which does not mean that nothing is visible.

    Raises:
        FileNotFoundError: the table, a list, or (with "error") an image is missing.
        ValueError: the files contradict one another or hold what the release does not; or a split would be empty.
    """
    return _read_release(root, images=images, missing_images=missing_images, validation_seed=validation_seed)[0]


def _read_release(
    root: str | os.PathLike, *, images: bool, missing_images: str, validation_seed: int = 0
) -> tuple[datasets.DatasetDict, datasets.DatasetDict | None]:
    """As `load_nih`; and, if images were skipped, the ids of all that the lists name, in the same splits."""
    if missing_images not in ("error", "skip", "keep"):
        raise ValueError(f"missing_images must be 'keep', 'error' or 'skip'; got {missing_images!r}")
    root = Path(root)
    if not root.is_dir():
        raise FileNotFoundError(f"{root} is not a folder; give the folder of the NIH release ({RELEASE})")
    table, source = _read_table(root)
    label_NC = _labels(table["findings"], source)
    image_N = pd.Index(table["image_id"].to_numpy(dtype=object))
    rows = _official_rows(root, image_N, source)
    check_patients_disjoint({str(root / LISTS[name]): table.iloc[index] for name, index in rows.items()})

    chosen = patient_split(
        label_NC[rows["train_val"]],
        table["patient_id"].iloc[rows["train_val"]],
        fraction=VALIDATION_FRACTION,
        seed=validation_seed,
    )
    train_val = rows["train_val"]
    rows = {"train": train_val[~chosen], "validation": train_val[chosen], "test": rows["test"]}

    listed = rows
    columns = _columns(table, label_NC)
    columns["boxes"] = _boxes(root / "BBox_List_2017.csv", image_N, source)
    if images:
        files = _image_files(root)
        path_N = np.array([files.find(name, name) for name in image_N], dtype=object)
        near = near_miss_words(near_misses(image_N[pd.isna(path_N)], files))
        rows = _present(rows, path_N, image_N, root, missing_images, near)
        columns["image"] = pa.StructArray.from_arrays(
            [pa.nulls(len(table), pa.binary()), pa.array(path_N, pa.string())], names=["bytes", "path"]
        )
    schema = features(NIH14, images=images)
    arrow = pa.table({name: columns[name] for name in schema}, schema=schema.arrow_schema)
    info = datasets.DatasetInfo(features=schema, homepage=RELEASE)
    splits = {name: datasets.Dataset(arrow.take(index), info=info) for name, index in rows.items()}
    return datasets.DatasetDict(splits), None if rows is listed else listed_ids(arrow, listed)


def _read_table(root: Path) -> tuple[pd.DataFrame, Path]:
    """The table's rows, with checked image_id, patient_id, age, sex and view; and the file they are from."""
    path = _table_path(root)
    # Both headers name width, height and spacing as "X[a,b]", which is two columns; the original header also ends
    # in a comma. The columns wanted here come before them, and index_col=False keeps pandas from shifting rows.
    try:
        raw = pd.read_csv(path, dtype=str, keep_default_na=False, index_col=False, encoding="utf-8-sig").fillna("")
    except ValueError as error:  # what pandas raises for an empty file, another format, another encoding
        raise ValueError(f"{path} is not a CSV table ({error}); take the release's own: {RELEASE}") from error
    # The v2020 table that the NIH serves says "Patient Sex"; the original one and copies elsewhere, "Patient Gender".
    raw.columns = raw.columns.str.strip().str.replace("Patient Sex", "Patient Gender")
    absent = [name for name in TABLE_COLUMNS if name not in raw.columns]
    if absent:
        raise ValueError(
            f"{path} has no column {', '.join(map(repr, absent))}; it has "
            f"{', '.join(map(repr, raw.columns))}. Take the table of the release: {RELEASE}"
        )
    if raw.empty:
        raise ValueError(f"{path} has no rows; take the table of the release: {RELEASE}")
    table = raw[list(TABLE_COLUMNS)].rename(columns=TABLE_COLUMNS).apply(lambda column: column.str.strip())
    for column in ("image_id", "patient_number"):
        table[column] = canonical_ids(table[column], f"{path}: {column}")
    named = table["image_id"].str.fullmatch(r"\d{8}_\d{3}\.png")
    _refuse(table["image_id"][~named], f"{path}: Image Index is not like 00000001_000.png")
    twice = table["image_id"].duplicated()
    _refuse(table["image_id"][twice], f"{path}: Image Index occurs twice")

    table["patient_id"] = table["image_id"].str[:8]
    other = table["patient_number"].str.zfill(8) != table["patient_id"]
    _refuse(table["image_id"][other], f"{path}: Patient ID differs from the first eight digits of Image Index")
    table["age"] = ages.years(table["age"], f"{path}: Patient Age")
    for column, allowed in (("view", ["PA", "AP", ""]), ("sex", ["M", "F", ""])):
        strange = ~table[column].isin(allowed)
        _refuse(table[column][strange], f"{path}: {column} is not {allowed[0]}, {allowed[1]} or empty")
    return table, path


def _table_path(root: Path) -> Path:
    paths = sorted(root.glob("Data_Entry_2017*.csv"))
    if not paths:
        raise FileNotFoundError(f"{root} has no Data_Entry_2017*.csv; download it from {RELEASE}")
    revised = root / "Data_Entry_2017_v2020.csv"
    if len(paths) > 1 and revised not in paths:
        raise ValueError(f"{root} has {len(paths)} tables: {', '.join(path.name for path in paths)}; keep one of them")
    if len(paths) > 1:
        logger.warning("%s has %d tables; reading the revised one, %s", root, len(paths), revised.name)
    return revised if revised in paths else paths[0]


def _refuse(culprits: Iterable[str], message: str) -> None:
    """ValueError with the number of culprits and the first of them, if there are any."""
    culprits = list(culprits)
    if culprits:
        examples = ", ".join(map(repr, culprits[:3]))
        raise ValueError(
            f"{message} ({plural(len(culprits), 'row')}, such as {examples}). The release has none of this: "
            f"take the file from {RELEASE}, or correct these rows"
        )


def _labels(findings_N: pd.Series, path: Path) -> np.ndarray:
    """(N, 14) float32 of 1 and 0 from cells such as "Effusion|Mass" and "No Finding"."""
    code_N, cells = pd.factorize(findings_N)
    names = [cell.split("|") for cell in cells]
    for complaint, wrong in (
        ("contains a name that is not in the release", [set(n) - {*NIH14, NO_FINDING} for n in names]),
        (f"contains {NO_FINDING!r} together with a finding", [NO_FINDING in n and len(n) > 1 for n in names]),
    ):
        strange = [cell for cell, is_wrong in zip(cells, wrong, strict=True) if is_wrong]
        _refuse(
            findings_N[findings_N.isin(strange)],
            f"{path}: Finding Labels {complaint}; known: {', '.join((*NIH14, NO_FINDING))}, joined by '|'",
        )
    return np.array([[finding in n for finding in NIH14] for n in names], dtype=np.float32)[code_N]


def _official_rows(root: Path, image_N: pd.Index, source: Path) -> dict[str, np.ndarray]:
    """Row numbers of the table for each official list, ascending."""
    rows = {}
    for name, file_name in LISTS.items():
        path = root / file_name
        if not path.is_file():
            raise FileNotFoundError(f"{path} is missing; download it from {RELEASE}")
        listed = canonical_ids(pd.Series(path.read_text(encoding="utf-8-sig").split(), dtype=str), str(path))
        listed = pd.Index(listed.to_numpy(dtype=object))
        if listed.empty:
            raise ValueError(f"{path} lists no image; download it from {RELEASE}")
        _refuse(listed[listed.duplicated()], f"{path}: an image is listed twice")
        row = image_N.get_indexer(listed)
        _refuse(listed[row < 0], f"{path}: an image is listed that is not in {source.name}")
        rows[name] = np.sort(row)
    times_N = np.bincount(np.concatenate(list(rows.values())), minlength=len(image_N))
    _refuse(image_N[times_N == 2], f"{root}: an image is in both {' and '.join(LISTS.values())}")
    _refuse(image_N[times_N == 0], f"{source}: an image is in neither {' nor '.join(LISTS.values())}")
    return rows


def _columns(table: pd.DataFrame, label_NC: np.ndarray) -> dict[str, pa.Array]:
    """The columns of the schema that come from the table, as Arrow arrays of N."""
    flat = pa.array(label_NC.reshape(-1))
    return {
        "labels": pa.FixedSizeListArray.from_arrays(flat, len(NIH14)),
        "image_id": pa.array(table["image_id"], pa.string()),
        "patient_id": pa.array(table["patient_id"], pa.string()),
        "view": pa.array(table["view"].where(table["view"] != ""), pa.string(), from_pandas=True),
        "age": pa.array(table["age"].to_numpy(), pa.float32(), from_pandas=False),
        "sex": pa.array(table["sex"].where(table["sex"] != ""), pa.string(), from_pandas=True),
    }


def _boxes(path: Path, image_N: pd.Index, source: Path) -> pa.Array:
    """N lists of {finding, bbox}, in the file's order; all empty if the release came without the file."""
    names = ["image_id", "finding", "x", "y", "width", "height"]
    boxes = pd.DataFrame({name: [] for name in names}).astype({"image_id": str, "finding": str})
    if path.is_file():
        boxes = _read_boxes(path, names)
    row = image_N.get_indexer(boxes["image_id"].to_numpy(dtype=object))
    _refuse(boxes["image_id"][row < 0], f"{path}: a box is on an image that is not in {source.name}")
    order = np.argsort(row, kind="stable")
    fraction = (boxes[names[2:]].to_numpy(dtype=np.float64) / BOX_PIXELS).astype(np.float32)[order]
    values = pa.StructArray.from_arrays(
        [
            pa.array(boxes["finding"].iloc[order], pa.string()),
            pa.FixedSizeListArray.from_arrays(pa.array(fraction.reshape(-1)), 4),
        ],
        names=["finding", "bbox"],
    )
    offsets = np.concatenate([[0], np.cumsum(np.bincount(row, minlength=len(image_N)))])
    return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), values)


def _read_boxes(path: Path, names: list[str]) -> pd.DataFrame:
    """The boxes in pixels, with the release's finding names."""
    # The header is "Image Index,Finding Label,Bbox [x,y,w,h],,,": nine names for six columns.
    with path.open(encoding="utf-8-sig") as file:
        header = [name.strip() for name in file.readline().split(",")]
    if header[:6] != ["Image Index", "Finding Label", "Bbox [x", "y", "w", "h]"]:
        raise ValueError(f"{path} does not begin with 'Image Index,Finding Label,Bbox [x,y,w,h]'; got {header}")
    boxes = pd.read_csv(path, header=None, skiprows=1, usecols=range(6), names=names, dtype=str, keep_default_na=False)
    boxes["image_id"] = canonical_ids(boxes["image_id"], f"{path}: Image Index")
    boxes["finding"] = boxes["finding"].replace({"Infiltrate": "Infiltration"})
    strange = ~boxes["finding"].isin(list(NIH14))
    _refuse(boxes["finding"][strange], f"{path}: Finding Label is not one of {', '.join(NIH14)}")
    pixels = boxes[names[2:]].apply(pd.to_numeric, errors="coerce")
    x, y, width, height = pixels.to_numpy().T
    inside = (x >= 0) & (y >= 0) & (width > 0) & (height > 0)
    inside &= (x + width <= BOX_PIXELS) & (y + height <= BOX_PIXELS)  # False for NaN
    _refuse(boxes["image_id"][~inside], f"{path}: a box is not inside an image of {BOX_PIXELS} x {BOX_PIXELS} pixels")
    return boxes.assign(**pixels)


def _image_files(root: Path) -> ImageFiles:
    """The files of the release's image folders."""
    folders = [root / "images", *sorted(root.glob("images_[0-9]*/images"))]
    folders = [folder for folder in folders if folder.is_dir()]
    if not folders:
        raise FileNotFoundError(
            f"{root} has neither images/ nor images_001/images/; unpack the images of the release there ({RELEASE}), "
            "or read the tables alone with images=False"
        )
    return ImageFiles(root, [str(folder) for folder in folders])


def _present(
    rows: dict[str, np.ndarray],
    path_N: np.ndarray,
    image_N: pd.Index,
    root: Path,
    missing_images: str,
    near: str,
) -> dict[str, np.ndarray]:
    """The rows whose image is there."""
    is_there_N = np.array([path is not None for path in path_N])
    missing = {name: int((~is_there_N[index]).sum()) for name, index in rows.items()}
    if not any(missing.values()):
        return rows
    count = f"{sum(missing.values())} of {len(path_N)} images"
    if missing_images == "keep":
        return rows
    if missing_images == "error":
        raise FileNotFoundError(
            f"{root} is missing {count}, such as {', '.join(image_N[~is_there_N][:3])}{near}; download them from "
            f"{RELEASE}, or leave them out with --missing_images skip (missing_images='skip'), or, in a run that has "
            "begun, with --unreadable_images skip"
        )
    per_split = ", ".join(f"{number} of {len(rows[name])} in {name}" for name, number in missing.items())
    logger.warning("%s is missing %s, skipped: %s%s", root, count, per_split, near)
    rows = {name: index[is_there_N[index]] for name, index in rows.items()}
    empty = [name for name, index in rows.items() if not len(index)]
    if empty:
        raise ValueError(
            f"{root} has no image of {', '.join(empty)} (missing: {per_split}){near}; download some from {RELEASE}"
        )
    return rows
