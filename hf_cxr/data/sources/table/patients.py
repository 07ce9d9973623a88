"""The patient and the study of each row of a table, by its description.

A patient never is in two splits, so a row without one is refused. A study is an examination: one patient's images of
one visit. It may be unknown.

Refuses: rows without a patient, cells that a pattern does not match, a study of two patients, and
``image_is_patient: true`` where the image ids are those of ChestX-ray14, which name the patient.

N = rows.
"""

import logging
import re

import pandas as pd

from hf_cxr.data.ids import NIH_ID, canonical_ids
from hf_cxr.data.sources.table.description import NIH_PATIENT, TableDescription
from hf_cxr.data.sources.table.files import refuse
from hf_cxr.words import plural

logger = logging.getLogger(__name__)

NIH_IMAGE = rf"(?:.*/)?({NIH_ID})(?:\.\w+)?"


def with_patients(rows: pd.DataFrame, description: TableDescription) -> pd.DataFrame:
    """The rows with patient_id.

    Raises:
        ValueError: see the top of this module.
    """
    if description.image_is_patient:
        _refuse_named_patients(rows["image_id"], description)
        logger.warning(
            "%s has no patient ids: each image counts as its own patient, so a patient may be in two splits "
            "unnoticed, and intervals are narrower than they should be",
            description.name,
        )
        return rows.assign(patient_id=rows["image_id"])
    where = f"{description.name}: column {description.patient_column!r}"
    patient = _extracted(rows[description.patient_column], description.patient_pattern, where, "patient_pattern")
    patient = canonical_ids(patient, where)
    refuse(
        rows["image_id"][patient == ""],
        f"{where} is empty for some images",
        "without it, a patient could be in two splits unnoticed: fill it in or drop these rows",
    )
    return rows.assign(patient_id=patient)


def with_studies(rows: pd.DataFrame, description: TableDescription) -> pd.DataFrame:
    """The rows with study_id, None where it is empty; unchanged if the description names no column of studies.

    Args:
        rows: N rows with patient_id.
        description: of the table.

    Raises:
        ValueError: see the top of this module.
    """
    if not description.study_column:
        return rows
    where = f"{description.name}: column {' and '.join(map(repr, description.study_column))}"
    parts = [
        canonical_ids(_extracted(rows[column], description.study_pattern, where, "study_pattern"), where)
        for column in description.study_column
    ]
    study, empty = parts[0], parts[0] == ""
    for part in parts[1:]:
        study, empty = study + "/" + part, empty | (part == "")
    patients = rows["patient_id"].groupby(study[~empty]).nunique()
    refuse(
        patients.index[patients > 1],
        f"{where}: a study has two patients",
        "name a column that is different for every study, or several: study_column: [patient, study]",
    )
    return rows.assign(study_id=study.astype(object).where(~empty, None))


def _extracted(cells: pd.Series, pattern: str | None, where: str, key: str) -> pd.Series:
    if not pattern:
        return cells
    found = cells.str.extract(re.compile(pattern), expand=False)
    refuse(cells[found.isna()], f"{where} does not match {pattern!r}", f"fix {key}")
    return found


def _refuse_named_patients(image_N: pd.Series, description: TableDescription) -> None:
    """Refuse to call each image a patient where the images' names say whose they are."""
    named = image_N.str.fullmatch(NIH_IMAGE)
    if not len(image_N) or not named.all():
        return
    patients = image_N.str.extract(NIH_IMAGE, expand=False).str[:8].nunique()
    column = description.image_id or description.image_column or "IMAGE_COLUMN"
    raise ValueError(
        f"{description.name}: image_is_patient is true, but {image_N.iloc[0]!r} is an image id of ChestX-ray14, whose "
        f"first eight digits are the patient ({plural(len(image_N), 'image')} of {plural(patients, 'patient')}): "
        f"give patient_column: {column} and patient_pattern: {NIH_PATIENT!r} in place of it"
    )
