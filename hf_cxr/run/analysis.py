"""`ANALYSES`: what is measured of a set of predictions in addition to its metrics, written as analysis.json. No torch.

    values = analyse(test, validation=validation, points=points, intervals=Intervals(resamples=10_000, seed=0))
    values["subgroups"], values["not_done"]["conformal"]

All analyses share one set of draws of patients. One that lacks what it needs is not done, and ``not_done`` says why: a
report shows it as not done rather than leaving it out in silence.

N = images, C = findings.
"""

import dataclasses
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from tqdm.auto import tqdm

from hf_cxr.evaluation.calibration_maps import measure_calibration_maps
from hf_cxr.evaluation.conformal import measure_conformal
from hf_cxr.evaluation.controls import Known, measure_controls
from hf_cxr.evaluation.curves import measure_curves
from hf_cxr.evaluation.decision_curves import measure_decision_curves
from hf_cxr.evaluation.draws import Intervals, PatientDraws
from hf_cxr.evaluation.groups import follow_up_numbers, image_attributes
from hf_cxr.evaluation.operating_points import (
    OperatingPoints,
    choose_operating_points,
    measure_operating_points,
    threshold_intervals,
)
from hf_cxr.evaluation.prevalence_shift import measure_prevalence_shift
from hf_cxr.evaluation.reliability import measure_reliability
from hf_cxr.evaluation.subgroups import measure_subgroups
from hf_cxr.files import plain, write_json
from hf_cxr.predictions import Predictions

logger = logging.getLogger(__name__)

ANALYSIS = "analysis.json"


class NotDoneError(ValueError):
    """An analysis lacks what it needs; the message is the reason, for a reader of the report."""


@dataclass(frozen=True, eq=False)
class Given:
    """What the analyses start from.

    Attributes:
        test: the predictions that are measured.
        validation: what was tuned on, of other patients; None if there is none.
        uncalibrated: validation before calibration; None if it was not kept.
        points: the operating points; None if none were chosen.
        prevalence: finding -> the share of positives that the probabilities assume; None if not known.
        intervals: how they are drawn.
    """

    test: Predictions
    validation: Predictions | None
    uncalibrated: Predictions | None
    points: OperatingPoints | None
    prevalence: Mapping[str, float] | None
    intervals: Intervals

    @property
    def confidence(self) -> float:
        return self.intervals.confidence

    @property
    def names(self) -> tuple[str, ...]:
        return self.test.label_names

    @property
    def scores(self) -> tuple[np.ndarray, np.ndarray]:
        """Probabilities and labels of test, (N, C)."""
        return self.test.probabilities, self.test.labels

    @cached_property
    def draws(self) -> PatientDraws:
        return self.draws_of(self.test)

    def draws_of(self, predictions: Predictions) -> PatientDraws:
        """Draws of the patients of some predictions, with the settings of all."""
        return self.intervals.draws(predictions.patient_ids)

    @property
    def tuned_on(self) -> Predictions:
        """The validation predictions, which an analysis cannot do without."""
        if self.validation is None:
            raise NotDoneError("no predictions of a validation set were given")
        return self.validation


def curves(given: Given) -> Any:
    return measure_curves(*given.scores, given.draws, label_names=given.names, confidence=given.confidence)


def reliability(given: Given) -> Any:
    return measure_reliability(*given.scores, given.draws, label_names=given.names, confidence=given.confidence)


def calibration_maps(given: Given) -> Any:
    validation = given.uncalibrated or given.tuned_on
    return measure_calibration_maps(
        validation.logits,
        validation.labels,
        given.draws_of(validation),
        label_names=given.names,
        confidence=given.confidence,
        seed=given.intervals.seed,
    )


def prevalence_shift(given: Given) -> Any:
    if given.prevalence is None:
        raise NotDoneError("the prevalence that the probabilities assume is not known")
    source_C = [given.prevalence.get(name, np.nan) for name in given.names]
    return measure_prevalence_shift(
        given.test.logits,
        given.test.labels,
        given.draws,
        source_C,
        label_names=given.names,
        confidence=given.confidence,
    )


def operating_points(given: Given) -> Any:
    if given.points is None:
        raise NotDoneError("none are stored with the scores, and no validation set was given to choose them on")
    comparison = {}
    if given.validation is not None:
        validation = given.validation
        scores = (validation.probabilities, validation.labels)
        rules = {point.rule for point in given.points.by_finding.values() if point is not None}
        draws = dataclasses.replace(given.draws_of(validation), resamples=min(200, given.draws.resamples))
        comparison = {
            "compared": {
                rule: choose_operating_points(*scores, rule=rule, label_names=given.names)
                for rule in ("f1", "youden")
                if rule not in rules
            },
            "threshold_interval": threshold_intervals(
                *scores, draws, given.points, label_names=given.names, confidence=given.confidence
            ),
        }
    return measure_operating_points(
        *given.scores, given.draws, given.points, label_names=given.names, confidence=given.confidence, **comparison
    )


def decision_curves(given: Given) -> Any:
    return measure_decision_curves(*given.scores, given.draws, label_names=given.names, confidence=given.confidence)


def subgroups(given: Given) -> Any:
    test = given.test
    further = dict(test.extra)
    follow_up = further.pop("follow_up", None)
    attributes, left_out = image_attributes(
        test.labels,
        sex=test.sex,
        age=test.age,
        view=test.view,
        follow_up=follow_up_numbers(test.image_ids) if follow_up is None else [_whole(number) for number in follow_up],
        columns=further,
        crossings=[("sex", "view")],
    )
    return measure_subgroups(
        *given.scores,
        given.draws,
        attributes,
        left_out=left_out,
        label_names=given.names,
        threshold_C=None if given.points is None else given.points.threshold_C(given.names),
        confidence=given.confidence,
    )


def controls(given: Given) -> Any:
    test, validation = given.test, given.validation
    known = _known(test)
    if all(values is None for values in (test.view, test.age, test.sex)):
        raise NotDoneError("neither view nor age nor sex of the images is known")
    return measure_controls(
        *given.scores,
        given.draws,
        known,
        fit=None if validation is None else (validation.labels, _known(validation)),
        label_names=given.names,
        confidence=given.confidence,
        rng=np.random.default_rng(given.intervals.seed),
    )


def conformal(given: Given) -> Any:
    validation = given.tuned_on
    return measure_conformal(
        *given.scores,
        given.draws,
        (validation.probabilities, validation.labels, validation.patient_ids),
        label_names=given.names,
        confidence=given.confidence,
    )


ANALYSES: dict[str, Callable[[Given], Any]] = {
    "curves": curves,
    "reliability": reliability,
    "calibration_maps": calibration_maps,
    "prevalence_shift": prevalence_shift,
    "operating_points": operating_points,
    "decision_curves": decision_curves,
    "subgroups": subgroups,
    "controls": controls,
    "conformal": conformal,
}
"""Key in analysis.json -> the analysis; what it returns has ``to_dict``. `reporting.sections.table` shows each."""


def analyse(
    test: Predictions,
    *,
    validation: Predictions | None = None,
    uncalibrated: Predictions | None = None,
    points: OperatingPoints | None = None,
    prevalence: Mapping[str, float] | None = None,
    without: Sequence[str] = (),
    intervals: Intervals,
) -> dict[str, Any]:
    """Every analysis in the table, as plain values for JSON; no patient's id, image or score is among them.

    Args:
        test, validation, uncalibrated, points, prevalence: see `Given`.
        without: keys of analyses that are not wanted.
        intervals: how they are drawn; the analyses have percentile intervals, whatever the kind.

    Returns:
        Values by key, and under "not_done" the reason for each that was not done.
    """
    given = Given(test, validation, uncalibrated, points, prevalence, intervals)
    values, not_done = {}, {}
    wanted = [key for key in ANALYSES if key not in without]
    for key in (bar := tqdm(wanted, desc="Analysing", unit="analysis", leave=False, disable=None)):
        bar.set_postfix_str(key)
        try:
            values[key] = plain(ANALYSES[key](given).to_dict())
        except NotDoneError as reason:
            not_done[key] = str(reason)
    return values | {"not_done": not_done}


def write_analysis(folder: Path, values: Mapping[str, Any]) -> None:
    """analysis.json, whole or as it was."""
    write_json(folder / ANALYSIS, dict(values))


def _whole(number: float | str | None) -> int | None:
    """The number of a study; None if it is unknown."""
    return int(number) if isinstance(number, int | float) and number == number else None


def _known(predictions: Predictions) -> Known:
    return Known(predictions.view, predictions.age, predictions.sex)
