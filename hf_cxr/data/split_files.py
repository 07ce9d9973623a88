"""A split written down: a CSV with the columns image_id, patient_id and split, or fold.

    image_id,patient_id,split              image_id,patient_id,fold
    00000001_000.png,00000001,train        00000001_000.png,00000001,3

``split`` is train, validation or test. Folds are 0 to n - 1, at least three: with fold k, fold k is the test set, fold
k + 1 (after the last one, 0) is the validation set, and the rest are the training set. Ids are text: 0012 is not 12.
But a whole number is one id, 1003.0 as 1003 (see `ids.py`).

Refuses, with what, where and the repair: files that are not such a CSV, an image twice, a patient on two sides, rows
without a patient, unknown splits, folds that are not 0 to n - 1; images that only the file or only the data have, and
patients that differ.

N = rows.
"""

import csv
import hashlib
import io
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import datasets
import numpy as np

from hf_cxr.data.ids import canonical_code, canonical_id, likeness, similar_pairs
from hf_cxr.data.splits import read_column
from hf_cxr.files import replacing

SPLITS = ("train", "validation", "test")
SIDES = ("split", "fold")  # names of the third column


@dataclass(frozen=True)
class SplitFile:
    """A split file's rows, checked.

    Args:
        path: where it was read from.
        sha256: of its bytes, 64 hexadecimal digits.
        patients: image id to patient id.
        sides: image id to its split, or to its fold as text.
        folds: their number; 0 if it has splits.
    """

    path: Path
    sha256: str
    patients: dict[str, str]
    sides: dict[str, str]
    folds: int

    def splits(self, fold: int | None) -> dict[str, str]:
        """Image id to train, validation or test.

        Raises:
            ValueError: a fold is given and the file has splits, none is given and it has folds, or it lacks that fold.
        """
        if not self.folds:
            if fold is not None:
                raise ValueError(f"{self.path} has splits, not folds: leave --fold {fold} out")
            return self.sides
        if fold is None or not 0 <= fold < self.folds:
            raise ValueError(f"{self.path} has folds 0 to {self.folds - 1}: choose the test set with --fold")
        names = {str(fold): "test", str((fold + 1) % self.folds): "validation"}
        return {image: names.get(side, "train") for image, side in self.sides.items()}


def write_split_file(
    path: str | os.PathLike,
    image_ids_N: Sequence[str],
    patient_ids_N: Sequence[str],
    side_N: Sequence[str] | Sequence[int],
    *,
    column: str,
) -> None:
    """Write a split file, whole or not at all.

    Args:
        path: the CSV.
        image_ids_N: of the rows.
        patient_ids_N: of the rows.
        side_N: each row's split or fold.
        column: "split" or "fold".

    Raises:
        ValueError: what is written could not be read again: see the top of this module.
    """
    if column not in SIDES:
        raise ValueError(f"column is {column!r}; it must be one of {', '.join(SIDES)}")
    with replacing(path) as beside:
        with beside.open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(("image_id", "patient_id", column))
            writer.writerows(zip(image_ids_N, patient_ids_N, side_N, strict=True))
        read_split_file(beside)


def read_split_file(path: str | os.PathLike) -> SplitFile:
    """Read and check a split file; other columns are ignored.

    Raises:
        OSError: the file is missing or may not be read.
        ValueError: see the top of this module.
    """
    path = Path(path)
    content = path.read_bytes()
    rows, column = _rows(path, content)
    for name in ("image_id", "patient_id", column):
        without = [f"row {number}" for number, row in enumerate(rows, start=1) if not row[name]]
        _refuse(without, f"{path}: rows without {name}", "fill it in")
    _refuse_two_sides(path, rows, column)
    patients = {row["image_id"]: row["patient_id"] for row in rows}
    sides = {row["image_id"]: row[column] for row in rows}
    folds = 0
    if column == "split":
        unknown = [f"{side!r} of {image}" for image, side in sides.items() if side not in SPLITS]
        _refuse(unknown, f"{path}: split is not {', '.join(SPLITS)}", "rename it")
        absent = [name for name in SPLITS if name not in sides.values()]
        if absent:
            raise ValueError(f"{path} has no image in {' and '.join(absent)}; each split needs some")
    else:
        names, folds = set(sides.values()), len(set(sides.values()))
        strange = sorted(names - {str(fold) for fold in range(folds)})
        if strange or folds < 3:
            raise ValueError(
                f"{path}: folds must be 0, 1, 2, ... and at least three (test, validation, train); it has "
                f"{', '.join(sorted(names)[:12])}"
            )
    return SplitFile(path, hashlib.sha256(content).hexdigest(), patients, sides, folds)


def apply_split_file(
    splits: Mapping[str, datasets.Dataset],
    file: SplitFile,
    *,
    fold: int | None = None,
    listed: Mapping[str, datasets.Dataset] | None = None,
) -> datasets.DatasetDict:
    """Put the rows of all splits into the splits of the file.

    Args:
        splits: in the columns of `hf_cxr.data.schema`.
        file: from `read_split_file`.
        fold: the one that is the test set, if the file has folds.
        listed: where some images are left out because they are not available: the same source with all its rows. The
            file must then agree with these.

    Returns:
        train, validation and test, rows in the order in which they were.

    Raises:
        ValueError: the file's images or patients are not the data's, a split is left without an image, or the fold
            does not go with the file.
    """
    side_of = file.splits(fold)
    _check_same(splits if listed is None else listed, file)
    whole = datasets.concatenate_datasets(list(splits.values()))
    side_N = np.array([side_of[image] for image in read_column(whole, "image_id", "the data")])
    rows = {name: np.flatnonzero(side_N == name) for name in SPLITS}
    empty = [name for name, index in rows.items() if not len(index)]
    if empty:
        raise ValueError(
            f"{file.path} puts none of the available images in {' and '.join(empty)}; download some, or split again"
        )
    return datasets.DatasetDict({name: whole.select(index) for name, index in rows.items()})


def _rows(path: Path, content: bytes) -> tuple[list[dict[str, str]], str]:
    """The rows by column, ids and sides in their one spelling; and the name of the third column."""
    repair = "a split file is a CSV in UTF-8 with image_id, patient_id and split or fold, as `hf-cxr split` writes it"
    try:
        lines = list(csv.reader(io.StringIO(content.decode("utf-8-sig"), newline=""), strict=True))
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"{path} is not a split file ({error}); {repair}") from error
    lines = [[cell.strip() for cell in line] for line in lines if line]
    if not lines:
        raise ValueError(f"{path} is empty; {repair}")
    header, *body = lines
    sides = [name for name in SIDES if name in header]
    wrong = [name for name in ("image_id", "patient_id", *sides) if header.count(name) != 1]
    if wrong or len(sides) != 1:
        raise ValueError(f"{path} has the columns {', '.join(map(repr, header))}; {repair}, each once")
    if not body:
        raise ValueError(f"{path} has no rows; {repair}")
    for number, line in enumerate(body, start=1):
        if len(line) != len(header):
            raise ValueError(f"{path} row {number} has {len(line)} cells for {len(header)} columns: {line[:4]}")
    rules = {"image_id": canonical_id, "patient_id": canonical_id, sides[0]: canonical_code}
    columns = [(header.index(name), name, rule) for name, rule in rules.items()]
    try:
        return [{name: rule(line[index]) for index, name, rule in columns} for line in body], sides[0]
    except ValueError as error:
        raise ValueError(f"{path}: an id is a rounded number: {error}; write ids as text") from error


def _refuse_two_sides(path: Path, rows: list[dict[str, str]], column: str) -> None:
    """An image may occur once, and a patient on one side."""
    side_of_image: dict[str, str] = {}
    side_of_patient: dict[str, str] = {}
    twice, both, shared = [], [], []
    for row in rows:
        image, patient, side = row["image_id"], row["patient_id"], row[column]
        if image in side_of_image:
            (twice if side_of_image[image] == side else both).append(image)
        elif side_of_patient.get(patient, side) != side:
            shared.append(patient)
        side_of_image[image] = side
        side_of_patient.setdefault(patient, side)
    _refuse(both, f"{path}: an image is in two {column}s", "keep it in one")
    _refuse(twice, f"{path}: an image is listed twice", "keep one row of each")
    _refuse(dict.fromkeys(shared), f"{path}: a patient is in two {column}s", "keep a patient's images together")


def _check_same(splits: Mapping[str, datasets.Dataset], file: SplitFile) -> None:
    """The file and the data must have the same images of the same patients."""
    patient_of = {}
    for name, split in splits.items():
        columns = (read_column(split, column, name) for column in ("image_id", "patient_id"))
        patient_of |= dict(zip(*columns, strict=True))
    repair = "use the data that the file was written for, or split these again with `hf-cxr split --out`"
    absent = [image for image in file.sides if image not in patient_of]
    unlisted = [image for image in patient_of if image not in file.sides]
    pairs = similar_pairs(absent, unlisted)
    if pairs:
        one, other = pairs[0]
        repair = f"{len(pairs):,} differ only in their spelling ({one} in the file, {other} in the data); {repair}"
    _refuse(absent, f"{file.path} names images that are not in the data", repair)
    _refuse(unlisted, f"{file.path} does not list images that the data have", repair)
    other = [
        f"{image}: {file.patients[image]} in the file, {patient} in the data"
        for image, patient in patient_of.items()
        if file.patients[image] != patient
    ]
    if all(likeness(file.patients[image]) == likeness(patient) for image, patient in patient_of.items()):
        repair = "leading zeros (a spreadsheet removes them) or capitals differ: keep ids as text; or " + repair
    _refuse(other, f"{file.path}: patients differ from the data's", repair)


def _refuse(culprits: Iterable[str], message: str, repair: str) -> None:
    """ValueError with the number of culprits and the first of them, if there are any."""
    culprits = list(culprits)
    if culprits:
        raise ValueError(f"{message} ({len(culprits):,}, such as {', '.join(culprits[:3])}): {repair}")
