"""Any labelled table of radiographs, brought to the one schema: CSV, Parquet, JSON, imagefolder, a Hub dataset.

A description (see `description.py`) says what the table looks like; ready ones, in `descriptions/*.yaml`, say it of
published sets. Reading (`table_files.py`) and labels (`table_labels.py`) have their own modules; here ids, patients,
views, ages, splits and image files are checked and put together. `map_labels` takes one set's labels to another's
findings.

Refuses, with what, where and the repair: ids that repeat or leave the folder, rows without a patient, an image or a
patient in two splits, unknown splits, views and sexes, ages that are no number, splits without rows, missing images.

N = rows, M = images, C = findings.
"""

import glob
import logging
import os
import re
import string
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

import datasets
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from hf_cxr.data.description import READY, SPLITS, TableDescription, load_description
from hf_cxr.data.schema import features
from hf_cxr.data.splits import check_patients_disjoint, patient_split
from hf_cxr.data.table_boxes import boxes_of
from hf_cxr.data.table_files import FILE, FOLDER, ROW, SPLIT, find_files, no_code_of, read_hub_rows, read_rows, refuse
from hf_cxr.data.table_labels import column_of, labels_of, merge_rows
from hf_cxr.labels import LabelSpace

logger = logging.getLogger(__name__)

OLDEST = 120  # years; above it, an age is taken as unknown
OUTSIDE = r"(?:^|[/\\])\.\.(?:[/\\]|$)|^[/\\~]|^[A-Za-z]:|[\x00-\x1f]"

SYNONYMS = (
    ("Effusion", "Pleural Effusion"),
    ("Cardiomegaly", "Enlarged Heart", "Enlarged Cardiac Silhouette"),
    ("Edema", "Pulmonary Edema", "Oedema", "Pulmonary Oedema"),
    ("Fibrosis", "Pulmonary Fibrosis"),
    ("Hernia", "Hiatal Hernia", "Hiatus Hernia"),
    ("Infiltration", "Infiltrate", "Infiltrates"),
    ("Pleural Thickening",),
    ("Pneumoperitoneum", "Pneumoperitoneo"),
    ("Calcification of the Aorta", "Aortic Calcification"),
    ("Tortuous Aorta", "Aortic Tortuosity"),
    ("Bulla", "Bullae", "Bullas"),
    ("Lung Opacity", "Airspace Opacity"),
    ("Round(ed) Atelectasis", "Round Atelectasis", "Rounded Atelectasis"),
    ("No Finding", "No Findings", "Normal"),
)
"""Other names of the same finding, over data sets. Parts and subtypes are not here: Rib Fracture is not Fracture."""


def load_table(
    description: TableDescription | str | os.PathLike,
    root: str | os.PathLike | None = None,
    *,
    images: bool = True,
    missing_images: Literal["error", "skip"] = "error",
) -> tuple[datasets.DatasetDict, LabelSpace]:
    """Read a described table into train, validation and test.

    Args:
        description: what the table looks like: from `load_description`, or a YAML file or ready name for it.
        root: the folder that the description's files and images are below; by default that of its YAML file.
        images: False reads the tables alone: no image column, no image file needed.
        missing_images: what to do about listed images that are not there: "error", or "skip" them with a warning.

    Returns:
        The splits, in the columns of `hf_cxr.data.schema`, and the findings. ``boxes`` are those of the
        description's key. Splits that the
        description names are taken as they are; others are cut from train by patient, stratified on findings, on the
        whole table, whatever images are at hand.

    Raises:
        FileNotFoundError: a file, or (with "error") an image is missing.
        ValueError: the table is not as described, or contradicts itself; see the top of this module.
    """
    if missing_images not in ("error", "skip"):
        raise ValueError(f"missing_images must be 'error' or 'skip'; got {missing_images!r}")
    if not isinstance(description, TableDescription):
        description = load_description(description)
    root = data_root(description, root)
    embedded = holds_images(description, root)
    pictures, rows = _open_pictures(description, root) if embedded else (None, read_rows(description, root))
    rows, label_MC, splits = described(rows, description, embedded=embedded)
    path_M = None
    if images and pictures is None:
        path_M = _image_paths(rows, root, description)
        splits = _present(splits, path_M, rows["image_id"], root, missing_images)
    table = arrow_table(rows, label_MC, description, root, path_M)
    schema = features(description.findings, images=path_M is not None)
    info = datasets.DatasetInfo(features=schema, homepage=description.source)
    if images and pictures is not None:
        whole = _with_pictures(table, info, pictures, rows[ROW].to_numpy())
        parts = {name: whole.select(index) for name, index in splits.items()}
    else:
        parts = {name: datasets.Dataset(table.take(pa.array(index)), info=info) for name, index in splits.items()}
    return datasets.DatasetDict(parts), description.label_space


def described(
    rows: pd.DataFrame, description: TableDescription, *, embedded: bool
) -> tuple[pd.DataFrame, np.ndarray, dict[str, np.ndarray]]:
    """Rows as read to one row an image with its ids, labels (M, C), and the row numbers of each split, checked.

    Args:
        rows: from `read_rows`, or, with ``embedded``, from `read_hub_rows`.
        description: of the table.
        embedded: the images are in the data; an image's path is then its number.
    """
    label_NC = labels_of(rows, description)
    rows, label_MC = _one_row_an_image(_with_ids(rows, description, embedded), label_NC, description)
    rows = _with_patients(rows, description)
    splits = _split(rows, label_MC, description)
    check_patients_disjoint({name: rows.iloc[index] for name, index in splits.items()})
    _warn_of_absent_findings(label_MC[splits["train"]], description)
    return rows, label_MC, splits


def holds_images(description: TableDescription, root: Path) -> bool:
    """Whether the data themselves hold the images: a Hub dataset, or Parquet files with the bytes in a column."""
    if description.hub:
        return True
    first = find_files(root, next(iter(description.files.values())))[0]
    if description.image_column is None or not first.name.endswith((".parquet", ".pq")):
        return False
    try:
        schema = pq.read_schema(first)
    except (pa.ArrowInvalid, OSError):  # told by the reader, in its words
        return False
    return description.image_column in schema.names and _is_image(schema.field(description.image_column).type)


def _is_image(kind: pa.DataType) -> bool:
    return pa.types.is_struct(kind) or pa.types.is_binary(kind) or pa.types.is_large_binary(kind)


def map_labels(
    splits: Mapping[str, datasets.Dataset], source: Sequence[str], target: Sequence[str]
) -> tuple[datasets.DatasetDict, tuple[str, ...], dict[str, tuple[str, ...]]]:
    """Labels of one vocabulary in the columns of another, by name, alias and `SYNONYMS`, for external validation.

    Args:
        splits: datasets of the schema with the findings of ``source``.
        source: what the labels are now, a `LabelSpace` or its names.
        target: what they shall be, such as a model's findings.

    Returns:
        The splits with labels (C of target), NaN where the source lacks the finding; the shared findings, in the
        target's names and order; and the others: {"target": those that are NaN now, "source": those that went}.

    Raises:
        ValueError: nothing is shared, or two findings of the source are the same one of the target.
    """
    source, target = _as_space(source), _as_space(target)
    column_C = [_matching(name, source, target) for name in target]
    shared = tuple(name for name, column in zip(target, column_C, strict=True) if column is not None)
    if not shared:
        raise ValueError(f"no finding is shared: the data have {', '.join(source)}; wanted are {', '.join(target)}")
    used = [column for column in column_C if column is not None]
    if len(set(used)) < len(used):
        twice = next(source[column] for column in used if used.count(column) > 1)
        raise ValueError(f"{twice} is several of the wanted findings ({', '.join(target)}); rename one of them")
    rest = {
        "target": tuple(name for name in target if name not in shared),
        "source": tuple(name for column, name in enumerate(source) if column not in used),
    }
    mapped = {name: _with_labels(split, column_C) for name, split in splits.items()}
    return datasets.DatasetDict(mapped), shared, rest


def _as_space(names) -> LabelSpace:
    return names if isinstance(names, LabelSpace) else LabelSpace(names)


def _matching(name: str, source: LabelSpace, target: LabelSpace) -> int | None:
    """Column of the source that is the target's finding: by name, else by either's alias, else by a synonym."""
    exact = column_of(name, LabelSpace(source))
    if exact is not None:
        return exact
    others = {alias for alias, known in target.aliases.items() if known == name}
    single = LabelSpace((name,))
    for group in SYNONYMS:
        if any(column_of(word, single) is not None or word in others for word in group):
            others |= set(group)
    found = {column_of(word, source) for word in (name, *others)} - {None}
    if len(found) > 1:
        raise ValueError(
            f"{' and '.join(source[column] for column in sorted(found))} are both {name}: merge them first"
        )
    return found.pop() if found else None


def _with_labels(split: datasets.Dataset, column_C: list[int | None]) -> datasets.Dataset:
    column = split.with_format("numpy", columns=["labels"])["labels"]
    label_NS = np.asarray(column[:], dtype=np.float32).reshape(len(split), -1)
    label_NC = np.full((len(split), len(column_C)), np.nan, dtype=np.float32)
    known = [c for c, column in enumerate(column_C) if column is not None]
    label_NC[:, known] = label_NS[:, [column_C[c] for c in known]]
    labels = datasets.Dataset(
        pa.table({"labels": _label_array(label_NC)}),
        info=datasets.DatasetInfo(features=datasets.Features({"labels": features(column_C)["labels"]})),
    )
    mapped = datasets.concatenate_datasets([split.remove_columns("labels"), labels], axis=1)
    return mapped.select_columns(split.column_names)


def data_root(description: TableDescription, root: str | os.PathLike | None) -> Path:
    if root is None:
        if description.path and description.path.parent == READY and not description.hub:
            raise ValueError(f"{description.name} is a ready description: give root, the folder of the data")
        root = description.path.parent if description.path else "."
    root = Path(root)
    if not root.is_dir():
        raise FileNotFoundError(f"{root} is no folder; give the folder of {description.name} (--table_root)")
    return root


def _open_pictures(description: TableDescription, root: Path) -> tuple[datasets.Dataset, pd.DataFrame]:
    """The images of all splits, one after another, and the rows that go with them."""
    folder = root / (description.hub or "")
    if not description.hub:
        data = datasets.load_dataset("parquet", data_files=parquet_files(description, root), trust_remote_code=False)
    elif folder.is_dir() and is_saved(folder):
        data = datasets.load_from_disk(str(folder))
    else:
        place = str(folder) if folder.is_dir() else description.hub
        revision = None if folder.is_dir() else description.hub_revision
        with no_code_of(place):
            data = datasets.load_dataset(place, description.hub_config, revision=revision, trust_remote_code=False)
    if isinstance(data, datasets.Dataset):
        data = datasets.DatasetDict({"train": data})
    columns = next(iter(data.values())).column_names
    if description.image_column not in columns:
        source = description.hub or description.name
        raise ValueError(f"{source} has no column {description.image_column!r}; it has {', '.join(columns)}")
    parts = [
        part.select_columns([description.image_column])
        .rename_columns({description.image_column: "image"})  # which, unlike rename_column, may be its name already
        .cast_column("image", datasets.Image())
        for part in data.values()
    ]
    return datasets.concatenate_datasets(parts), read_hub_rows(description, data, root)


def is_saved(folder: Path) -> bool:
    """Whether `save_to_disk` wrote the folder."""
    return (folder / "dataset_dict.json").is_file() or (folder / "dataset_info.json").is_file()


def parquet_files(description: TableDescription, root: Path) -> dict[str, list[str]]:
    """Split -> the Parquet files of the description's ``files``."""
    return {
        "train" if split == "all" else split: [str(path) for path in find_files(root, names)]
        for split, names in description.files.items()
    }


def _with_pictures(
    table: pa.Table, info: datasets.DatasetInfo, pictures: datasets.Dataset, row_M: np.ndarray
) -> datasets.Dataset:
    """M rows: the hub's images, still memory-mapped, beside the schema's columns."""
    # Side by side needs as many rows as there are images; those that were left out repeat the first and go again.
    position = np.zeros(len(pictures), dtype=np.int64)
    position[row_M] = np.arange(len(row_M))
    aligned = datasets.Dataset(table.take(pa.array(position)), info=info)
    joined = datasets.concatenate_datasets([pictures, aligned], axis=1)
    return joined.select_columns(["image", *info.features]).select(row_M)


def _with_ids(rows: pd.DataFrame, description: TableDescription, embedded: bool) -> pd.DataFrame:
    if embedded:
        path = (Path(description.hub or "").name or Path(description.name).name) + "/" + rows[ROW].astype(str)
    else:
        path = _rendered(rows, description)
    image_path = (
        path.str.replace(f"^(?:{description.image_strip})", "", regex=True) if description.image_strip else path
    )
    image_id = rows[description.image_id] if description.image_id else path
    rows = rows.assign(_path=image_path, image_id=image_id.astype(str))
    for column, noun in (("image_id", "image id"), ("_path", "image path")):
        empty = rows[column].str.fullmatch(r"\s*")
        refuse(rows[FILE][empty], f"{description.name}: rows without an {noun}", "fill it in or drop these rows")
        refuse(
            rows[column][rows[column].str.contains(OUTSIDE, regex=True)],
            f"{description.name}: the {noun} leaves the image folder",
            "give paths below image_root, without '..', drive or leading '/'",
        )
    return rows


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


def _one_row_an_image(
    rows: pd.DataFrame, label_NC: np.ndarray, description: TableDescription
) -> tuple[pd.DataFrame, np.ndarray]:
    file = rows["_path"].str.rpartition("/")[2] if description.image_folders else rows["_path"]
    if file.nunique() < len(rows):
        owner = rows.groupby(file)["image_id"].transform("first")
        refuse(
            rows["image_id"][owner != rows["image_id"]],
            f"{description.name}: an image file has two ids",
            "keep one of them, or it may be in training and in test",
        )
    image_N, ids = pd.factorize(rows["image_id"])
    if len(ids) == len(rows):
        return rows, label_NC
    in_splits = rows.groupby("image_id")[description.split_column or SPLIT].nunique()
    refuse(in_splits.index[in_splits > 1], f"{description.name}: an image is in two splits", "keep it in one of them")
    if description.merge is None:
        repeated = rows["image_id"][rows["image_id"].duplicated()]
        refuse(
            repeated,
            f"{rows[FILE][repeated.index[0]]}: an image id occurs twice",
            "keep one row of each, or say with merge: any, majority or all how rows of several readers become one",
        )
    if description.patient_column:
        owners = rows.groupby("image_id")[description.patient_column].nunique()
        refuse(
            owners.index[owners > 1], f"{description.name}: an image has two patients", "correct the patient column"
        )
    first = ~rows["image_id"].duplicated()
    return rows[first].reset_index(drop=True), merge_rows(label_NC, image_N, description.merge)


def _with_patients(rows: pd.DataFrame, description: TableDescription) -> pd.DataFrame:
    if description.image_is_patient:
        logger.warning(
            "%s names no patients: each image is taken as its own, so that nobody can tell whether a patient is in "
            "two splits, and intervals are narrower than they should be",
            description.name,
        )
        return rows.assign(patient_id=rows["image_id"])
    patient = rows[description.patient_column]
    where = f"{description.name}: column {description.patient_column!r}"
    if description.patient_pattern:
        found = patient.str.extract(re.compile(description.patient_pattern), expand=False)
        refuse(patient[found.isna()], f"{where} does not hold {description.patient_pattern!r}", "mend patient_pattern")
        patient = found
    refuse(
        rows["image_id"][patient == ""],
        f"{where} names no patient for some images",
        "without it nobody can tell whether a patient is in two splits: fill it in or drop these rows",
    )
    return rows.assign(patient_id=patient)


def _split(rows: pd.DataFrame, label_NC: np.ndarray, description: TableDescription) -> dict[str, np.ndarray]:
    """Row numbers of train, validation and test, ascending."""
    side = rows[SPLIT].replace("all", "train")
    if description.split_column:
        value = rows[description.split_column]
        strange = ~value.isin(list(description.split_values))
        refuse(
            value[strange],
            f"{description.name}: column {description.split_column!r} holds what is no split",
            f"known: {', '.join(description.split_values)}; add it to split_values, or null to leave such rows out",
        )
        side = value.map(description.split_values)
    side_M = side.to_numpy(dtype=object)
    # Both shares are of all training images, so the test images do not depend on whether validation is cut.
    total = int((side_M == "train").sum())
    for name, fraction in (("test", description.test_fraction), ("validation", description.validation_fraction)):
        if fraction is None:
            continue
        train = np.flatnonzero(side_M == "train")
        if not (side_M == name).any() and len(train):
            count = max(1, round(fraction * total))
            patients = rows["patient_id"].iloc[train]
            chosen = patient_split(label_NC[train], patients, count=count, seed=description.split_seed)
            side_M[train[chosen]] = name
    splits = {name: np.flatnonzero(side_M == name) for name in SPLITS}
    empty = [name for name, index in splits.items() if not len(index)]
    if empty:
        raise ValueError(
            f"{description.name} has no image in {' and '.join(empty)} (rows: {len(rows)}); see files, split_values "
            "and the fractions of its description"
        )
    return splits


def _image_paths(rows: pd.DataFrame, root: Path, description: TableDescription) -> np.ndarray:
    """M paths, None where there is no file, from one listing of each folder."""
    base = root / description.image_root
    if not description.image_folders:
        path_M = (str(base) + os.sep + rows["_path"]).to_numpy(dtype=object)
        folder_M = np.array([os.path.dirname(path) for path in path_M], dtype=object)
        listed = {folder: _names_in(folder) for folder in dict.fromkeys(folder_M)}
        pairs = zip(path_M, folder_M, strict=True)
        return np.array(
            [path if os.path.basename(path) in listed[folder] else None for path, folder in pairs], dtype=object
        )
    folders = [path for name in description.image_folders for path in sorted(glob.glob(str(base / name)))]
    if not any(os.path.isdir(folder) for folder in folders):
        raise FileNotFoundError(
            f"{base} has none of the folders {', '.join(description.image_folders)}; unpack the images there, or read "
            "the tables alone with images=False"
        )
    found: dict[str, str] = {}
    for folder in folders:
        for name in _names_in(folder):
            found.setdefault(name, os.path.join(folder, name))
    return np.array([found.get(path.rpartition("/")[2]) for path in rows["_path"]], dtype=object)


def _names_in(folder: str) -> frozenset[str]:
    try:
        return frozenset(os.listdir(folder))
    except (FileNotFoundError, NotADirectoryError):
        return frozenset()


def _present(
    splits: dict[str, np.ndarray], path_M: np.ndarray, image_M: pd.Series, root: Path, missing_images: str
) -> dict[str, np.ndarray]:
    """The rows whose image is there."""
    is_there_M = np.array([path is not None for path in path_M])
    listed = np.concatenate(list(splits.values()))
    gone = listed[~is_there_M[listed]]
    if not len(gone):
        return splits
    count = f"{len(gone)} of {len(listed)} images"
    if missing_images == "error":
        raise FileNotFoundError(
            f"{root} lacks {count}, such as {', '.join(image_M.iloc[np.sort(gone)[:3]])}; see image_root and "
            "image_path of the description, or leave them out with --missing_images skip (missing_images='skip')"
        )
    per_split = ", ".join(
        f"{int((~is_there_M[index]).sum())} of {len(index)} in {name}" for name, index in splits.items()
    )
    logger.warning("%s lacks %s, skipped: %s", root, count, per_split)
    splits = {name: index[is_there_M[index]] for name, index in splits.items()}
    empty = [name for name, index in splits.items() if not len(index)]
    if empty:
        raise ValueError(f"{root} has no image at all of {', '.join(empty)} (missing: {per_split})")
    return splits


def _warn_of_absent_findings(label_NC: np.ndarray, description: TableDescription) -> None:
    without = [
        name for name, label_N in zip(description.findings, label_NC.T, strict=True) if not (label_N == 1).any()
    ]
    if without:
        logger.warning(
            "%s: no positive training image of %s: it cannot be learnt", description.name, ", ".join(without)
        )


def arrow_table(
    rows: pd.DataFrame,
    label_MC: np.ndarray,
    description: TableDescription,
    root: Path,
    path_M: np.ndarray | None = None,
) -> pa.Table:
    """The schema's columns, M rows; the image column only with ``path_M``."""
    count = len(rows)
    columns = {
        "labels": _label_array(label_MC),
        "image_id": pa.array(rows["image_id"], pa.string()),
        "patient_id": pa.array(rows["patient_id"], pa.string()),
        "view": _valued(rows, "view", description),
        "age": pa.array(_ages(rows, description), pa.float32(), from_pandas=False),
        "sex": _valued(rows, "sex", description),
    }
    schema = features(description.findings, images=path_M is not None)
    columns["boxes"] = boxes_of(rows, description, root, path_M, schema.arrow_schema.field("boxes").type)
    if path_M is not None:
        columns["image"] = pa.StructArray.from_arrays(
            [pa.nulls(count, pa.binary()), pa.array(path_M, pa.string())], names=["bytes", "path"]
        )
    return pa.table({name: columns[name] for name in schema}, schema=schema.arrow_schema)


def _label_array(label_NC: np.ndarray) -> pa.Array:
    return pa.FixedSizeListArray.from_arrays(pa.array(label_NC.reshape(-1)), label_NC.shape[1])


def _valued(rows: pd.DataFrame, key: str, description: TableDescription) -> pa.Array:
    """View or sex, through the description's map; empty cells are unknown."""
    column, values = getattr(description, f"{key}_column"), getattr(description, f"{key}_values")
    if column is None:
        return pa.nulls(len(rows), pa.string())
    cells = rows[column].astype(str)
    strange = ~cells.isin([*values, ""])
    if "*" not in values:
        refuse(
            cells[strange],
            f"{description.name}: column {column!r} is no {key}",
            f"known: {', '.join(values)}; add it to {key}_values, with null for unknown",
        )
    code_M, texts = pd.factorize(cells)
    targets = [None if text == "" else values.get(text, values.get("*")) for text in texts]
    return pa.array(np.array(targets, dtype=object)[code_M], pa.string())


def _ages(rows: pd.DataFrame, description: TableDescription) -> np.ndarray:
    """Years, float32; empty, negative and implausible are NaN."""
    if description.age_column:
        text = rows[description.age_column]
        age_M = _numbers(text.str.replace(r"(?<=\d)Y$", "", regex=True), description)
    elif description.birth_column:
        birth, study = (rows[name] for name in (description.birth_column, description.study_date_column))
        age_M = _numbers(study.str[:4], description) - _numbers(birth.str[:4], description)
    else:
        return np.full(len(rows), np.nan, dtype=np.float32)
    implausible_M = (age_M > OLDEST) | (age_M < 0)
    if implausible_M.any():
        logger.warning(
            "%s: %d age(s) below 0 or above %d years taken as unknown, such as %g",
            *(description.name, implausible_M.sum(), OLDEST, age_M[implausible_M][0]),
        )
    return np.where(implausible_M, np.nan, age_M).astype(np.float32)


def _numbers(text: pd.Series, description: TableDescription) -> np.ndarray:
    number = pd.to_numeric(text, errors="coerce")
    strange = number.isna() & (text != "")
    refuse(text[strange], f"{description.name}: column {text.name!r} is no number of years", "write 58, or nothing")
    return number.to_numpy(dtype=np.float64, na_value=np.nan)
