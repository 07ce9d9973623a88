"""Studies in place of images: one score and one label a study, from those of its images.

A study is an examination: one patient's images of one visit. A report is written of a study, so labels that are mined
from reports are a study's.

    study = group_studies(study_ids, patient_ids)
    prob_SC = pool_scores(prob_NC, study, "mean")
    label_SC, conflict_SC = pool_labels(label_NC, study)

| rule   | a study's score                                                                                        |
|--------|--------------------------------------------------------------------------------------------------------|
| `mean` | the mean probability of its images                                                                     |
| `max`  | the largest one (Irvin et al., CheXpert, AAAI 2019, https://arxiv.org/abs/1901.07031)                  |

Of a study of one image either is that image's score, to the bit. A study's label is 1 if any image has 1, else 0 if
any has 0, else unknown; where one has 1 and another 0, that is a conflict, which is counted and named.

Refused: a study of two patients, a missing patient, arrays of different lengths, a rule that does not exist.

N = images, S = studies, C = findings.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hf_cxr.evaluation.checks import check_labels, check_probabilities

STUDY_SCORES = ("mean", "max")


@dataclass(frozen=True, eq=False)
class StudyGroups:
    """Which images are of which study.

    Attributes:
        ids: S studies, in the order of their first images. An image of no known study is a separate study, with the
            id None.
        patient_ids: S patients.
        number_N: the number of each image's study, int64, from 0 to S - 1.
    """

    ids: tuple[str | None, ...]
    patient_ids: tuple[str, ...]
    number_N: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def size_S(self) -> NDArray[np.int64]:
        """Images of each study."""
        return np.bincount(self.number_N, minlength=len(self))

    @property
    def first_S(self) -> NDArray[np.int64]:
        """The row of each study's first image."""
        return np.unique(self.number_N, return_index=True)[1]


def group_studies(study_ids: Sequence[str | None], patient_ids: Sequence[str]) -> StudyGroups:
    """Number the studies.

    Args:
        study_ids: N; None is an image whose study is not known.
        patient_ids: N.

    Raises:
        ValueError: see the module's first lines; it names a study of two patients.
    """
    if len(study_ids) != len(patient_ids):
        raise ValueError(f"{len(study_ids)} study ids for {len(patient_ids)} patient ids")
    numbers: dict[object, int] = {}
    ids: list[str | None] = []
    patients: list[str] = []
    number_N = np.empty(len(study_ids), dtype=np.int64)
    for row, (study, patient) in enumerate(zip(study_ids, patient_ids, strict=True)):
        if not patient:
            raise ValueError(f"the image at row {row} has no patient; studies need one")
        number = numbers.setdefault((row,) if study is None else study, len(ids))
        if number == len(ids):
            ids.append(study)
            patients.append(patient)
        elif patients[number] != patient:
            raise ValueError(
                f"study {study} is of two patients, {patients[number]} and {patient} (row {row}): study ids must name "
                "one examination of one patient, such as PATIENT/STUDY"
            )
        number_N[row] = number
    return StudyGroups(tuple(ids), tuple(patients), number_N)


def pool_scores(prob_NC: ArrayLike, study: StudyGroups, rule: str = "mean") -> NDArray[np.float64]:
    """Scores of studies, (S, C) float64.

    Args:
        prob_NC: probabilities of the images.
        study: from `group_studies`.
        rule: of `STUDY_SCORES`.

    Raises:
        ValueError: see the module's first lines.
    """
    if rule not in STUDY_SCORES:
        raise ValueError(f"a study's score is {rule!r}; choose from {', '.join(STUDY_SCORES)}")
    prob_NC = np.asarray(prob_NC, dtype=np.float64)
    prob_NC, _ = check_probabilities(_checked(prob_NC, study), np.full(prob_NC.shape, np.nan))
    if rule == "max":
        pooled_SC = np.full((len(study), prob_NC.shape[1]), -np.inf)
        np.maximum.at(pooled_SC, study.number_N, prob_NC)
        return pooled_SC
    total_SC = np.zeros((len(study), prob_NC.shape[1]))
    np.add.at(total_SC, study.number_N, prob_NC)
    return np.minimum(total_SC / study.size_S[:, None], 1.0)  # a sum of k ones may round to more than k


def pool_labels(label_NC: ArrayLike, study: StudyGroups) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Labels of studies, (S, C) float32 of 1, 0 and NaN; and where images of a study contradict each other, (S, C).

    Args:
        label_NC: 1, 0 or NaN for unknown.
        study: from `group_studies`.

    >>> groups = group_studies(["a", "a", "b", "b"], ["1", "1", "1", "1"])
    >>> pool_labels([[1, 0], [0, np.nan], [0, np.nan], [0, np.nan]], groups)[0]
    array([[ 1.,  0.],
           [ 0., nan]], dtype=float32)
    """
    label_NC = _checked(check_labels(label_NC), study)
    present_SC, absent_SC = (_any(label_NC == value, study) for value in (1, 0))
    label_SC = np.where(present_SC, 1, np.where(absent_SC, 0, np.nan)).astype(np.float32)
    return label_SC, present_SC & absent_SC


def _any(cell_NC: NDArray[np.bool_], study: StudyGroups) -> NDArray[np.bool_]:
    found_SC = np.zeros((len(study), cell_NC.shape[1]), dtype=bool)
    np.logical_or.at(found_SC, study.number_N, cell_NC)
    return found_SC


def _checked(value_NC: NDArray, study: StudyGroups) -> NDArray:
    if len(value_NC) != len(study.number_N):
        raise ValueError(f"{len(value_NC)} rows for {len(study.number_N)} images of {len(study)} studies")
    return value_NC
