"""Groups and controls of predictions: what `evaluation.subgroups` and `evaluation.controls` need, taken from them.

    draws = PatientDraws.of(test.patient_ids)
    values = subgroup_values(test, draws, crossings=[("sex", "view")])
    Document("page", subgroups_section(values).blocks)

Both return the plain values that a section of a report is made from.

Refused: validation and test that share patients, where a control is fitted on validation.

N = images, C = findings.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from hf_cxr.evaluation.controls import Known, measure_controls
from hf_cxr.evaluation.draws import CONFIDENCE, PatientDraws
from hf_cxr.evaluation.groups import AGE_STARTS, follow_up_numbers, image_attributes
from hf_cxr.evaluation.subgroups import measure_subgroups
from hf_cxr.files import plain
from hf_cxr.predictions import Predictions


def subgroup_values(
    predictions: Predictions,
    draws: PatientDraws,
    *,
    threshold_C: ArrayLike | None = None,
    columns: Mapping[str, Sequence[Any]] | None = None,
    age_starts: Sequence[int] = AGE_STARTS,
    crossings: Sequence[tuple[str, str]] = (),
    confidence: float = CONFIDENCE,
) -> dict[str, Any]:
    """Every group of the predictions against the rest: `Subgroups.to_dict`, and ``left_out``, attribute -> reason.

    Args:
        predictions: sex, age and view are theirs; the number of the study is read from ids like ChestX-ray14's.
        draws: of their patients.
        threshold_C: an operating point, NaN for a finding without one.
        columns: further columns of N values; by default those of the predictions.
        age_starts: the first year of each age band.
        crossings: pairs of attributes whose combinations are groups too; one that is known of no image is named.
        confidence: of the intervals.

    Raises:
        ValueError: see `image_attributes` and `measure_subgroups`.
    """
    attributes, left_out = image_attributes(
        predictions.labels,
        sex=predictions.sex,
        age=predictions.age,
        view=predictions.view,
        follow_up=follow_up_numbers(predictions.image_ids),
        columns=predictions.extra if columns is None else columns,
        age_starts=age_starts,
        crossings=crossings,
    )
    subgroups = measure_subgroups(
        predictions.probabilities,
        predictions.labels,
        draws,
        attributes,
        label_names=predictions.label_names,
        threshold_C=threshold_C,
        confidence=confidence,
    )
    return plain(subgroups.to_dict() | {"left_out": left_out})


def control_values(
    predictions: Predictions,
    draws: PatientDraws,
    *,
    validation: Predictions | None = None,
    confidence: float = CONFIDENCE,
    shuffles: int = 200,
    rng: np.random.Generator,
) -> dict[str, Any]:
    """Scores from view, age and sex alone, and the model on shuffled labels: `Controls.to_dict`.

    Args:
        predictions: what is measured.
        draws: of their patients.
        validation: predictions of other patients, of whose labels the scores are fitted; None to cross-fit.
        confidence, shuffles, rng: see `measure_controls`.

    Raises:
        ValueError: see the module's first lines and `measure_controls`.
    """
    fit = None
    if validation is not None:
        both = sorted(set(validation.patient_ids) & set(predictions.patient_ids))
        if both:
            raise ValueError(
                f"{len(both)} patients are in validation and in what is measured, such as {both[0]}: a control cannot "
                "be fitted on its own patients; leave validation out"
            )
        if validation.label_names != predictions.label_names:
            raise ValueError("validation has other findings than what is measured, or in another order")
        fit = (validation.labels, _known(validation))
    controls = measure_controls(
        predictions.probabilities,
        predictions.labels,
        draws,
        _known(predictions),
        fit=fit,
        label_names=predictions.label_names,
        confidence=confidence,
        shuffles=shuffles,
        rng=rng,
    )
    return plain(controls.to_dict())


def _known(predictions: Predictions) -> Known:
    return Known(view=predictions.view, age=predictions.age, sex=predictions.sex)
