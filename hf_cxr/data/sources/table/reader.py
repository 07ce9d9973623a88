"""Any labelled table of radiographs, brought to the one schema: CSV, Parquet, JSON, imagefolder, a Hub dataset.

A description (see `description.py`) says what the table looks like; ready ones, in `descriptions/*.yaml`, say it of
published sets. Reading (`files.py`), labels (`labels.py`), ids and image files (`images.py`) and images inside the
data (`embedded.py`) have their own modules; here patients, views, ages and splits are
checked and all is put together. `map_labels` takes one set's labels to another's findings.

Refuses, with what, where and the repair: ids that repeat or leave the folder, rows without a patient, an image or a
patient in two splits, unknown splits, views and sexes, ages that are not numbers, splits without rows, missing images.

N = rows, M = images, C = findings.
"""

import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

import datasets
import numpy as np
import pandas as pd
import pyarrow as pa

from hf_cxr.data import ages
from hf_cxr.data.findings import matching_column
from hf_cxr.data.ids import canonical_code, canonical_codes, canonical_ids, code_values
from hf_cxr.data.schema import features, label_matrix
from hf_cxr.data.sources.source import listed_ids
from hf_cxr.data.sources.table.boxes import boxes_of
from hf_cxr.data.sources.table.description import READY, SPLITS, TableDescription, load_description
from hf_cxr.data.sources.table.embedded import holds_images, open_pictures, with_pictures
from hf_cxr.data.sources.table.files import FILE, ROW, SPLIT, read_rows, refuse
from hf_cxr.data.sources.table.hub import known_copy
from hf_cxr.data.sources.table.images import PATH, image_files, image_paths, present, with_ids
from hf_cxr.data.sources.table.labels import labels_of, merge_rows
from hf_cxr.data.sources.table.patients import with_patients, with_studies
from hf_cxr.data.splits import check_patients_disjoint, patient_split
from hf_cxr.labels import LabelSpace

logger = logging.getLogger(__name__)


def load_table(
    description: TableDescription | str | os.PathLike,
    root: str | os.PathLike | None = None,
    *,
    images: bool = True,
    missing_images: Literal["error", "skip", "keep"] = "error",
) -> tuple[datasets.DatasetDict, LabelSpace]:
    """Read a described table into train, validation and test.

    Args:
        description: what the table looks like: from `load_description`, or a YAML file or ready name for it.
        root: the folder that the description's files and images are below; by default that of its YAML file.
        images: False reads the tables alone: no image column, no image file needed.
        missing_images: what to do about listed images that are not there: "error", "skip" them with a warning, or
            "keep" their rows, without an image.

    Returns:
        The splits, in the columns of `hf_cxr.data.schema`, and the findings. ``boxes`` are those of the
        description's key. Splits that the
        description names are taken as they are; the rest are cut from train by patient, stratified on findings, on the
        whole table, whatever images are available.

    Raises:
        FileNotFoundError: a file, or (with "error") an image is missing.
        ValueError: the table is not as described, or contradicts itself; see the top of this module.
    """
    if not isinstance(description, TableDescription):
        description = load_description(description)
    splits, _ = read_table(description, root, images=images, missing_images=missing_images)
    return splits, description.label_space


def read_table(
    description: TableDescription, root: str | os.PathLike | None, *, images: bool, missing_images: str
) -> tuple[datasets.DatasetDict, datasets.DatasetDict | None]:
    """As `load_table`: the splits; and, if images were skipped, the ids of all listed rows, in the same splits."""
    if missing_images not in ("error", "skip", "keep"):
        raise ValueError(f"missing_images must be 'keep', 'error' or 'skip'; got {missing_images!r}")
    root = data_root(description, root)
    embedded = holds_images(description, root)
    pictures, rows = open_pictures(description, root) if embedded else (None, read_rows(description, root))
    rows, label_MC, splits = described(rows, description, embedded=embedded, root=root)
    path_M, listed = None, splits
    if images and pictures is None:
        files = image_files(root, description)
        path_M = image_paths(rows, files)
        splits = present(splits, path_M, rows, files, root, missing_images)
    table = arrow_table(rows, label_MC, description, root, path_M)
    schema = schema_of(description, images=path_M is not None)
    info = datasets.DatasetInfo(features=schema, homepage=description.source)
    if images and pictures is not None:
        whole = with_pictures(table, info, pictures, rows[ROW].to_numpy())
        parts = {name: whole.select(index) for name, index in splits.items()}
    else:
        parts = {name: datasets.Dataset(table.take(pa.array(index)), info=info) for name, index in splits.items()}
    return datasets.DatasetDict(parts), None if splits is listed else listed_ids(table, listed)


def described(
    rows: pd.DataFrame, description: TableDescription, *, embedded: bool, root: Path | None = None
) -> tuple[pd.DataFrame, np.ndarray, dict[str, np.ndarray]]:
    """Rows as read to one row an image with its ids, labels (M, C), and the row numbers of each split, checked.

    Args:
        rows: from `read_rows`, or, with ``embedded``, from `read_hub_rows`.
        description: of the table.
        embedded: the images are in the data; an image's path is then its number.
        root: the folder of the data, where the repair of a wrong path is looked for; None does not look.
    """
    label_NC = labels_of(rows, description)
    rows = with_ids(rows, description, embedded=embedded, root=root)
    rows = rows.assign(image_id=canonical_ids(rows["image_id"], f"{description.name}: image ids"))
    rows, label_MC = _one_row_an_image(rows, label_NC, description)
    rows = with_studies(with_patients(rows, description), description)
    splits = _split(rows, label_MC, description)
    with known_copy(description):
        check_patients_disjoint({name: rows.iloc[index] for name, index in splits.items()})
    if not description.test_alone and description.labelled:
        _warn_of_absent_findings(label_MC[splits["train"]], description)
    return rows, label_MC, splits


def map_labels(
    splits: Mapping[str, datasets.Dataset], source: Sequence[str], target: Sequence[str]
) -> tuple[datasets.DatasetDict, tuple[str, ...], dict[str, tuple[str, ...]]]:
    """Labels of one vocabulary in the columns of another, by name, alias and synonym, for external validation.

    Args:
        splits: datasets of the schema with the findings of ``source``.
        source: what the labels are now, a `LabelSpace` or its names.
        target: the findings wanted, such as a model's findings.

    Returns:
        The splits with labels (C of target), NaN where the source lacks the finding; the shared findings, in the
        target's names and order; and the rest: {"target": those that are NaN now, "source": those that are gone}.

    Raises:
        ValueError: nothing is shared, or two findings of the source are the same one of the target.
    """
    source, target = _as_space(source), _as_space(target)
    column_C = [matching_column(name, source, target) for name in target]
    shared = tuple(name for name, column in zip(target, column_C, strict=True) if column is not None)
    if not shared:
        raise ValueError(
            f"no finding is shared: the data have {', '.join(source)}, but the model has {', '.join(target)}"
        )
    used = [column for column in column_C if column is not None]
    if len(set(used)) < len(used):
        twice = next(source[column] for column in used if used.count(column) > 1)
        raise ValueError(f"{twice} matches several of the model's findings ({', '.join(target)}); rename one of them")
    rest = {
        "target": tuple(name for name in target if name not in shared),
        "source": tuple(name for column, name in enumerate(source) if column not in used),
    }
    mapped = {name: _with_labels(split, column_C) for name, split in splits.items()}
    return datasets.DatasetDict(mapped), shared, rest


def _as_space(names) -> LabelSpace:
    return names if isinstance(names, LabelSpace) else LabelSpace(names)


def _with_labels(split: datasets.Dataset, column_C: list[int | None]) -> datasets.Dataset:
    label_NS = label_matrix(split).reshape(len(split), -1)
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
        if description.hub and description.path and description.path.parent == READY:
            return Path(".")
        if description.path and description.path.parent == READY:
            raise ValueError(f"{description.name} is a ready description: give root, the folder of the data")
        root = description.path.parent if description.path else "."
    root = Path(root)
    if not root.is_dir():
        raise FileNotFoundError(f"{root} is not a folder; give the folder of {description.name} (--table_root)")
    return root


def _one_row_an_image(
    rows: pd.DataFrame, label_NC: np.ndarray, description: TableDescription
) -> tuple[pd.DataFrame, np.ndarray]:
    file = rows[PATH].str.rpartition("/")[2] if description.image_folders else rows[PATH]
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


def _split(rows: pd.DataFrame, label_NC: np.ndarray, description: TableDescription) -> dict[str, np.ndarray]:
    """Row numbers of train, validation and test, ascending."""
    side = rows[SPLIT].replace("all", "train")
    if description.ignore_splits:
        side = pd.Series("train", index=rows.index)
    if description.split_column:
        where = f"{description.name}: column {description.split_column!r}"
        value = canonical_codes(rows[description.split_column], where)
        values = code_values(description.split_values, "split_values")
        refuse(
            value[~value.isin(list(values))],
            f"{where} contains unknown splits",
            f"known: {', '.join(values)}; add it to split_values, or null to leave such rows out",
        )
        side = value.map(values)
    for column, values in description.validation_rows.items():
        cells = canonical_codes(rows[column], f"{description.name}: column {column!r}")
        chosen = cells.isin([canonical_code(value) for value in values]) & (side == "train")
        side = side.where(~chosen, "validation")
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
    measured_alone = description.test_alone and len(splits["test"])
    if empty and not measured_alone and (description.labelled or not len(splits["train"])):
        raise ValueError(
            f"{description.name} has no image in {' and '.join(empty)} (rows: {len(rows)}); see files, split_values "
            "and the fractions of its description"
        )
    return splits


def _warn_of_absent_findings(label_NC: np.ndarray, description: TableDescription) -> None:
    without = [
        name for name, label_N in zip(description.findings, label_NC.T, strict=True) if not (label_N == 1).any()
    ]
    if without:
        logger.warning(
            "%s: no positive training image of %s: it cannot be learnt", description.name, ", ".join(without)
        )


def schema_of(description: TableDescription, *, images: bool) -> datasets.Features:
    """The columns of a described table; with those of studies if it knows them."""
    return features(description.findings, images=images, studies=bool(description.study_column))


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
    if description.study_column:
        columns["study_id"] = pa.array(rows["study_id"], pa.string())
    schema = schema_of(description, images=path_M is not None)
    columns["boxes"] = boxes_of(rows, description, root, path_M, schema.arrow_schema.field("boxes").type)
    if path_M is not None:
        columns["image"] = pa.StructArray.from_arrays(
            [pa.nulls(count, pa.binary()), pa.array(path_M, pa.string())], names=["bytes", "path"]
        )
    return pa.table({name: columns[name] for name in schema}, schema=schema.arrow_schema)


def _label_array(label_NC: np.ndarray) -> pa.Array:
    return pa.FixedSizeListArray.from_arrays(pa.array(label_NC.reshape(-1)), label_NC.shape[1])


def _valued(rows: pd.DataFrame, key: str, description: TableDescription) -> pa.Array:
    """View or sex, through the description's map; empty cells are unknown. Several columns' cells are read as one."""
    columns = getattr(description, f"{key}_column")
    if not columns:
        return pa.nulls(len(rows), pa.string())
    columns = (columns,) if isinstance(columns, str) else columns
    where = f"{description.name}: column {' and '.join(map(repr, columns))}"
    cells = canonical_codes(rows[columns[0]], where)
    for column in columns[1:]:
        cells = (cells + " " + canonical_codes(rows[column], where)).str.strip()
    values = code_values(getattr(description, f"{key}_values"), f"{key}_values")
    if "*" not in values:
        refuse(
            cells[~cells.isin([*values, ""])],
            f"{where} contains an unknown {key}",
            f"known: {', '.join(values)}; add it to {key}_values, with null for unknown",
        )
    code_M, texts = pd.factorize(cells)
    targets = [None if text == "" else values.get(text, values.get("*")) for text in texts]
    return pa.array(np.array(targets, dtype=object)[code_M], pa.string())


def _ages(rows: pd.DataFrame, description: TableDescription) -> np.ndarray:
    """Years, float32; empty, negative and implausible are NaN."""
    if description.age_column:
        return ages.years(rows[description.age_column], f"{description.name}: column {description.age_column!r}")
    if description.birth_column:
        birth, study = (rows[name] for name in (description.birth_column, description.study_date_column))
        where = f"{description.name}: age by {birth.name!r} and {study.name!r}"
        return ages.plausible(_numbers(study.str[:4], description) - _numbers(birth.str[:4], description), where)
    return np.full(len(rows), np.nan, dtype=np.float32)


def _numbers(text: pd.Series, description: TableDescription) -> np.ndarray:
    number = pd.to_numeric(text, errors="coerce")
    strange = number.isna() & (text != "")
    refuse(
        text[strange],
        f"{description.name}: column {text.name!r} does not begin with a year",
        "write 1951, 19510228 or 1951-02-28, or leave the cell empty",
    )
    return number.to_numpy(dtype=np.float64, na_value=np.nan)
