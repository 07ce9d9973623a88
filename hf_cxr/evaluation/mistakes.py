"""The most confident mistakes of each finding, for a person to look at.

    mistakes = confident_mistakes(predictions.probabilities, predictions.labels, predictions.patient_ids, most=8)
    mistakes[0].high_negatives       # rows of the images, the highest score first

Labels mined from reports are often the error: what stands here is where model and label disagree most, no more.

N = images, C = findings.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from hf_cxr.evaluation.checks import check_scores
from hf_cxr.evaluation.draws import number_patients


@dataclass(frozen=True)
class Mistakes:
    """Rows of one finding, the most confident first, each of another patient.

    Attributes:
        high_negatives: labelled absent, with the highest scores.
        low_positives: labelled present, with the lowest scores.
    """

    high_negatives: tuple[int, ...]
    low_positives: tuple[int, ...]


def confident_mistakes(
    score_NC: ArrayLike, label_NC: ArrayLike, patient_ids: Sequence[Any], *, most: int
) -> list[Mistakes]:
    """The most confident mistakes of each finding, at most one image a patient and list.

    Args:
        score_NC: any finite numbers; higher says present.
        label_NC: 1, 0 or NaN; unknown labels are in no list.
        patient_ids: N ids; none may be missing.
        most: images in each list, at least 1. Of equal scores the first row comes first.

    Returns:
        One for each of the C findings.

    Raises:
        ValueError: bad scores or labels (see `checks`), a missing patient id, ``most`` below 1.
    """
    if most < 1:
        raise ValueError(f"the number of mistakes to show must be at least 1; got {most}")
    score_NC, label_NC = check_scores(score_NC, label_NC)
    patient_N, _ = number_patients(patient_ids, len(label_NC))
    found = []
    for score_N, label_N in zip(score_NC.T, label_NC.T, strict=True):
        falling, rising = (np.argsort(sign * score_N, kind="stable") for sign in (-1, 1))
        found.append(
            Mistakes(
                _one_a_patient(falling[label_N[falling] == 0], patient_N, most),
                _one_a_patient(rising[label_N[rising] == 1], patient_N, most),
            )
        )
    return found


def _one_a_patient(rows: Iterable[int], patient_N: Sequence[int], most: int) -> tuple[int, ...]:
    chosen: dict[int, int] = {}
    for row in rows:
        chosen.setdefault(int(patient_N[row]), int(row))
        if len(chosen) == most:
            break
    return tuple(chosen.values())
