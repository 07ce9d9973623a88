"""Tables of labels: a column a finding, or NIH's "Finding Labels", with the patient of each image.

A cell is 1 (present), 0 (absent), -1 (uncertain) or empty (see `data.label_cells`). Uncertain and empty cells are
unknown and take part in nothing, as `hf_cxr.data` has it unless a table's description says otherwise. A column whose
cells are all of this kind is a finding; every other one is kept as a further column of the images, for subsets.

Refused: rows without a patient, cells that are not labels in a column that has a finding's name.

N = images, C = findings.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from hf_cxr.data import ages
from hf_cxr.data.findings import SYNONYMS, column_of, is_no_finding
from hf_cxr.data.ids import canonical_ids
from hf_cxr.data.label_cells import NOTHING, UNCERTAIN, is_placeholder, label_of
from hf_cxr.labels import NIH14, LabelSpace
from hf_cxr.prediction_tables.files import Columns, fold, read_columns, shown
from hf_cxr.predictions import Predictions

LIST_COLUMN = "findinglabels"
VIEWS = {"pa": "PA", "ap": "AP", "lateral": "LATERAL", "lat": "LATERAL", "ll": "LATERAL", "l": "LATERAL"}
SEXES = {"m": "M", "male": "M", "f": "F", "female": "F"}

Extra = Mapping[str, tuple[float | str | None, ...]]


@dataclass(frozen=True, eq=False)
class LabelTable:
    """Labels of images, and what else is known about them.

    Attributes:
        name: what messages and reports call it.
        image_ids, patient_ids: N strings.
        labels: (N, C) float32 of 1, 0, NaN.
        label_names: the findings, with their aliases.
        view, age, sex, extra, study_ids: as in `Predictions`.
        facts: what a report says about the data, such as ``dataset``, ``synthetic`` and ``split_fingerprint``.
    """

    name: str
    image_ids: tuple[str, ...]
    patient_ids: tuple[str, ...]
    labels: NDArray[np.float32]
    label_names: LabelSpace
    view: tuple[str | None, ...] | None = None
    age: NDArray[np.float32] | None = None
    sex: tuple[str | None, ...] | None = None
    extra: Extra = field(default_factory=dict)
    facts: Mapping[str, Any] = field(default_factory=dict)
    study_ids: tuple[str | None, ...] | None = None

    @classmethod
    def of_predictions(cls, name: str, predictions: Predictions) -> "LabelTable":
        """The labels that are in a predictions file."""
        keys = ("image_ids", "patient_ids", "study_ids", "labels", "view", "age", "sex")
        own = {key: getattr(predictions, key) for key in keys}
        return cls(name, label_names=LabelSpace(predictions.label_names), extra=predictions.extra, **own)


def read_labels(path: str | os.PathLike[str]) -> LabelTable:
    """Read a table of labels, CSV or Parquet.

    Raises:
        FileNotFoundError, ValueError: see the module's first lines and `files.read_columns`.
    """
    return labels_of_columns(read_columns(path))


def labels_of_columns(file: Columns) -> LabelTable:
    """The labels of a file whose columns are read."""
    rest = file.rest()
    listed = next((name for name in rest if fold(name) == LIST_COLUMN), None)
    own = {name: name.removeprefix("label/") for name in rest if name.startswith("label/")}
    if own:
        findings = {finding: _label_cells(file, name) for name, finding in own.items()}
        others = [name for name in rest if name.startswith("meta/")]
    elif listed:
        findings, others = _from_lists(file, listed), [name for name in rest if name != listed]
    else:
        cells = {name: _cells_or_none(file, name) for name in rest}
        findings = {name: values for name, values in cells.items() if values is not None and not is_no_finding(name)}
        others = [name for name in rest if cells[name] is None]
        for name in others:
            if is_known_finding(name):
                _label_cells(file, name)  # refuses it, with the cell
    if not findings:
        raise ValueError(
            f"{file.path} has no column of labels (columns: {shown(file.frame.columns)}); write a column of 1, 0, -1 "
            "or nothing for each finding, or NIH's 'Finding Labels'"
        )
    alike = [name for name in findings if [fold(one) for one in findings].count(fold(name)) > 1]
    if alike:
        raise ValueError(f"{file.path}: the columns {' and '.join(map(repr, alike))} are the same finding; keep one")
    follow_up = file.named("follow_up")
    extra = {"follow_up": _further(file, follow_up)} if follow_up else {}
    extra |= {name.removeprefix("meta/"): _further(file, name) for name in others}
    age = file.named("age")
    return LabelTable(
        str(file.path),
        file.image_ids,
        _patients(file),
        np.stack(list(findings.values()), axis=1).astype(np.float32),
        NIH14 if set(findings) == set(NIH14) and listed else LabelSpace(findings, aliases=_aliases(findings)),
        view=_coded(file, "view", VIEWS),
        age=None if age is None else ages.years(file.text(age), f"{file.path}: column {age!r}"),
        sex=_coded(file, "sex", SEXES),
        extra=extra,
        study_ids=_studies(file),
    )


def is_known_finding(name: str) -> bool:
    """Whether a column has the name of a finding of ChestX-ray14, or one of its synonyms."""
    known = LabelSpace(dict.fromkeys(one for group in (NIH14, *SYNONYMS[:-1]) for one in group))
    return column_of(name, NIH14) is not None or column_of(name, known) is not None


def _aliases(findings: Mapping[str, Any]) -> dict[str, str]:
    """Aliases of ChestX-ray14's findings, for those that a table spells in the same way."""
    taken = {fold(name) for name in findings}
    return {alias: name for alias, name in NIH14.aliases.items() if name in findings and fold(alias) not in taken}


def _patients(file: Columns) -> tuple[str, ...]:
    column = file.named("patient_id")
    if column is None:
        raise ValueError(
            f"{file.path} has no column of patients (columns: {shown(file.frame.columns)}); intervals need every "
            "image's patient: add patient_id"
        )
    patients = canonical_ids(file.frame[column], f"{file.path}: column {column!r}")
    empty_N = np.flatnonzero((patients == "").to_numpy())
    if len(empty_N):
        raise ValueError(
            f"{file.path}: {len(empty_N):,} images have no {column}, the first is {file.image_ids[empty_N[0]]} (row "
            f"{empty_N[0] + 1}); give each image of an unknown patient a separate id"
        )
    return tuple(patients)


def _studies(file: Columns) -> tuple[str | None, ...] | None:
    """The study of each image, None where the cell is empty; None as a whole without such a column."""
    column = file.named("study_id")
    if column is None:
        return None
    studies = canonical_ids(file.frame[column], f"{file.path}: column {column!r}")
    return tuple(None if is_placeholder(study) else study for study in studies)


def _cell(cell: Any) -> float | None:
    """1, 0 or NaN; None if a cell is not a label."""
    label = label_of(cell)
    return np.nan if label in (UNCERTAIN, NOTHING) else label


def _cells_or_none(file: Columns, name: str) -> NDArray[np.float64] | None:
    """Labels (N,) of a column; None if a cell is not a label, or all are empty."""
    code_N, distinct = pd.factorize(file.frame[name], use_na_sentinel=True)
    values = [_cell(cell) for cell in distinct]
    if None in values or all(is_placeholder(cell) for cell in distinct):
        return None
    return np.array([*values, np.nan])[code_N]


def _label_cells(file: Columns, name: str) -> NDArray[np.float64]:
    """Labels (N,) of a column that is a finding's.

    Raises:
        ValueError: a cell that is not a label.
    """
    values = _cells_or_none(file, name)
    if values is not None:
        return values
    for row, cell in enumerate(file.frame[name]):
        if _cell(cell) is None:
            raise ValueError(
                f"{file.path}: row {row + 1}, image {file.image_ids[row]}, column {name!r} is {str(cell)[:40]!r}; "
                "write 1 for present, 0 for absent, -1 for uncertain, or nothing"
            )
    return np.full(len(file.frame), np.nan)


def _from_lists(file: Columns, column: str) -> dict[str, NDArray[np.float64]]:
    """Finding -> labels (N,) from cells such as "Effusion|Mass" and "No Finding"; an empty cell is unknown."""
    code_N, cells = pd.factorize(file.text(column))
    names_K = [[name.strip() for name in cell.split("|") if name.strip()] for cell in cells]
    contradicting = next((names for names in names_K if len(names) > 1 and any(map(is_no_finding, names))), None)
    if contradicting:
        raise ValueError(f"{file.path}: column {column!r} has {'|'.join(contradicting)!r}; keep one of the two")
    found = {name for names in names_K for name in names if not is_no_finding(name)}
    space = NIH14 if found <= set(NIH14) else LabelSpace(sorted(found))
    label_KC = np.array([[np.nan if not names else float(one in names) for one in space] for names in names_K])
    return dict(zip(space, label_KC[code_N].T, strict=True))


def _coded(file: Columns, what: str, values: Mapping[str, str]) -> tuple[str | None, ...] | None:
    """View or sex in the package's own codes; other texts stay as they are."""
    column = file.named(what)
    if column is None:
        return None
    return tuple(values.get(text.lower(), text) if text else None for text in file.text(column))


def _further(file: Columns, column: str) -> tuple[float | str | None, ...]:
    """A further column of the images: numbers if all its cells are, else text."""
    texts = [None if text == "" else text for text in file.text(column)]
    try:
        return tuple(None if text is None else float(text) for text in texts)
    except ValueError:
        return tuple(texts)
