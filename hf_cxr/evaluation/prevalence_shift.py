"""Probabilities for a population in which findings are more or less frequent, but look the same.

    shifted logit = logit + log(t / (1 - t)) - log(s / (1 - s))

s is the prevalence that the probabilities assume, t the one that they are to assume. It is a bias of each finding, so
no ranking changes, and it can be folded into the model's last layer.

The target is given, or estimated from the probabilities alone, without a label, by maximum likelihood: the fixed point
t = mean of the shifted probabilities, to which the EM algorithm of Saerens, Latinne and Decaestecker climbs. The
likelihood is concave in t, so its one maximum is where its slope is 0, found by Brent's method; EM takes thousands
of steps where a finding is hard to tell. The maximum may be at 0 or at 1, where the shift would be infinite: such a
finding has no estimate, and its bound is named. There is none either without images, where the probabilities are
constant, and where s is 0, 1 or unknown.

Both rest on one assumption, which no prediction can confirm: the findings' images look as they did where the model was
calibrated, only their numbers differ. Another scanner, view or severity breaks it. And the probabilities must be
calibrated for s.

N = images, C = findings, M = patients, R = draws.

Refused: see `checks`; a given prevalence outside (0, 1).

Source: Saerens, Latinne and Decaestecker, Neural Computation 14 (2002), equation 2.4 (shift) and section 2.2 (EM).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from scipy.optimize import brentq
from scipy.special import expit, logit, ndtri

from hf_cxr.evaluation.bootstrap import Sample
from hf_cxr.evaluation.checks import Array, check_scores
from hf_cxr.evaluation.draws import CONFIDENCE, PatientDraws, check_confidence, check_measured, patient_sums
from hf_cxr.evaluation.estimates import Estimate, Estimates, ratio, share_interval
from hf_cxr.evaluation.metric import by_finding
from hf_cxr.files import plain
from hf_cxr.labels import LabelSpace

LEAST_PREVALENCE = 1e-9
"""An estimate is sought between this and 1 minus this."""

SCORES = ("log_loss", "brier", "mean_probability")


@dataclass(frozen=True, eq=False)
class PrevalenceEstimate:
    """The prevalence of each finding in images without labels.

    Attributes:
        prevalence_C: in (0, 1), with its interval; NaN where there is no estimate.
        reasons: finding -> why there is none.
    """

    prevalence_C: Estimates
    reasons: dict[str, str]


@dataclass(frozen=True, eq=False)
class PrevalenceShift:
    """What shifts to several targets do to the probabilities of a labelled set.

    Attributes:
        label_names: C findings.
        source_C: the prevalence that the unshifted probabilities assume; NaN where unknown.
        observed_C: share of positives among the known labels of this set, with its interval.
        targets: name of a target -> its prevalences (C,); NaN where a finding is not shifted. "estimated" comes from
            `estimate_prevalence` on these images; "observed" is ``observed_C`` and uses the labels, so that it says
            what a perfect estimate would gain.
        estimated_C: the estimate with its interval.
        reasons: finding -> why it has no estimate.
        scores: target -> score in ``SCORES`` -> (C,) with interval; the target "as calibrated" is no shift.
        changes: target -> "log_loss" or "brier" -> shifted minus unshifted, with interval; negative is better.
        macro_changes: target -> the same for the mean over the findings that this target shifts.
        confidence, resamples: of the intervals.
    """

    label_names: LabelSpace
    source_C: Array
    observed_C: Estimates
    targets: dict[str, Array]
    estimated_C: Estimates
    reasons: dict[str, str]
    scores: dict[str, dict[str, Estimates]]
    changes: dict[str, dict[str, Estimates]]
    macro_changes: dict[str, dict[str, Estimate]]
    confidence: float
    resamples: int

    def to_dict(self) -> dict[str, Any]:
        """For JSON, by finding."""

        def by_score(scores: Mapping[str, Estimates]) -> dict[str, Any]:
            return {score: value_C.by_name(self.label_names) for score, value_C in scores.items()}

        return plain(
            {
                "source": by_finding(self.source_C, self.label_names),
                "observed": self.observed_C.by_name(self.label_names),
                "estimated": self.estimated_C.by_name(self.label_names),
                "not_estimated": self.reasons,
                "targets": {name: by_finding(target_C, self.label_names) for name, target_C in self.targets.items()},
                "scores": {target: by_score(scores) for target, scores in self.scores.items()},
                "changes": {target: by_score(changes) for target, changes in self.changes.items()},
                "macro_changes": {
                    target: {score: value.to_dict() for score, value in changes.items()}
                    for target, changes in self.macro_changes.items()
                },
                "confidence": self.confidence,
                "resamples": self.resamples,
            }
        )


def prevalence_bias(source_C: ArrayLike, target_C: ArrayLike) -> Array:
    """What is added to the logits, (C,) float64: logit(target) - logit(source), and 0 where either is NaN.

    Raises:
        ValueError: a prevalence is not in (0, 1).

    >>> prevalence_bias([0.5, 0.1], [0.2, float("nan")]).round(4)
    array([-1.3863,  0.    ])
    """
    source_C, target_C = np.asarray(source_C, dtype=np.float64), np.asarray(target_C, dtype=np.float64)
    moved_C = ~(np.isnan(source_C) | np.isnan(target_C))
    for value_C in (source_C[moved_C], target_C[moved_C]):
        if not ((value_C > 0) & (value_C < 1)).all():
            raise ValueError(f"a prevalence is a share above 0 and below 1; got {value_C.tolist()}")
    return np.where(moved_C, logit(np.where(moved_C, target_C, 0.5)) - logit(np.where(moved_C, source_C, 0.5)), 0.0)


def estimate_prevalence(
    logit_NC: ArrayLike,
    source_C: ArrayLike,
    patient_ids: Sequence[Any] | None = None,
    *,
    label_names: Sequence[str],
    confidence: float = CONFIDENCE,
) -> PrevalenceEstimate:
    """The prevalences that make the images most likely, without a label.

    The interval is that of a maximum likelihood estimate whose images are clustered by patient (the sandwich of White,
    Econometrica 50, 1982), normal in the logit of the prevalence.

    Args:
        logit_NC: calibrated for ``source_C``, finite.
        source_C: prevalence that the logits assume; NaN where unknown.
        patient_ids: of the N images; without them each image counts as a separate patient, and the interval is too
            narrow where patients have several.
        label_names: C findings.
        confidence: of the interval, in (0, 1).
    """
    check_confidence(confidence)
    logit_NC = np.asarray(logit_NC, dtype=np.float64)
    check_scores(logit_NC, np.full(logit_NC.shape, np.nan))
    source_C = np.asarray(source_C, dtype=np.float64)
    if not len(label_names) == len(source_C) == logit_NC.shape[1]:
        raise ValueError(
            f"{len(label_names)} names and {len(source_C)} prevalences for logits of shape {logit_NC.shape}"
        )
    patients = np.arange(len(logit_NC)) if patient_ids is None else np.unique(patient_ids, return_inverse=True)[1]
    found = [_estimate(logit_N, source) for logit_N, source in zip(logit_NC.T, source_C, strict=True)]
    value_C = np.array([value for value, _ in found], dtype=np.float64)
    slope_NC = slopes(logit_NC, source_C, value_C)
    squares_C = (patient_sums(slope_NC, patients, len(logit_NC)) ** 2).sum(axis=0)
    error_C = ratio(np.sqrt(squares_C), (slope_NC**2).sum(axis=0) * value_C * (1 - value_C))
    width_C = ndtri((1 + confidence) / 2) * error_C
    return PrevalenceEstimate(
        Estimates(value_C, *(expit(logit(value_C) + sign * width_C) for sign in (-1, 1))),
        {name: reason for name, (_, reason) in zip(label_names, found, strict=True) if reason},
    )


def slopes(logit_NC: Array, source_C: Array, prevalence_C: Array) -> Array:
    """The slope of each image's log-likelihood in the prevalence, (N, C); 0 where that is NaN."""
    columns = [
        np.zeros(len(logit_N)) if np.isnan(prevalence) else _gradient(logit_N, source, prevalence)
        for logit_N, source, prevalence in zip(logit_NC.T, source_C, prevalence_C, strict=True)
    ]
    return np.stack(columns, axis=1)


def _estimate(logit_N: Array, source: float) -> tuple[float, str]:
    nan = float("nan")
    if not 0 < source < 1:
        known = "unknown" if np.isnan(source) else f"{source:g}"
        return nan, f"the prevalence on validation, which the probabilities assume, is {known}"
    if not len(logit_N):
        return nan, "no image"
    if np.ptp(logit_N) == 0:
        return nan, "the probability is the same for every image"

    def slope(prevalence: float) -> float:
        return float(np.sum(_gradient(logit_N, source, prevalence)))

    if slope(LEAST_PREVALENCE) <= 0:
        return nan, "the scores fit best if no image has the finding"
    if slope(1 - LEAST_PREVALENCE) >= 0:
        return nan, "the scores fit best if every image has the finding"
    # In the logit, where a small prevalence is found as precisely as a large one.
    ends = logit(LEAST_PREVALENCE), logit(1 - LEAST_PREVALENCE)
    return float(expit(brentq(lambda z: slope(expit(z)), *ends, xtol=1e-12, rtol=1e-12))), ""


def _gradient(logit_N: Array, source: float, prevalence: float) -> Array:
    """d/dt of log(t p / s + (1 - t) (1 - p) / (1 - s)) for each image: the log-likelihood's slope in t."""
    present_N, absent_N = expit(logit_N) / source, expit(-logit_N) / (1 - source)
    return (present_N - absent_N) / (prevalence * present_N + (1 - prevalence) * absent_N)


def measure_prevalence_shift(
    logit_NC: ArrayLike,
    label_NC: ArrayLike,
    draws: PatientDraws,
    source_C: ArrayLike,
    *,
    label_names: Sequence[str],
    given: Mapping[str, ArrayLike] | None = None,
    confidence: float = CONFIDENCE,
) -> PrevalenceShift:
    """Log loss, Brier score and mean probability before and after shifts, with patient-clustered intervals.

    Args:
        logit_NC: calibrated for ``source_C``, finite.
        label_NC: 1, 0 or NaN.
        draws: of the patients of the N images.
        source_C: prevalence that the logits assume: that of validation. NaN where unknown.
        label_names: C findings.
        given: name of a target -> its prevalences (C,), NaN where a finding is not shifted. "estimated" and
            "observed" are always measured too.
        confidence: of the intervals, in (0, 1).

    Raises:
        ValueError: see the module's first lines.
    """
    logit_NC, label_NC, names = check_measured(logit_NC, label_NC, draws, label_names, confidence, check_scores)
    source_C = np.asarray(source_C, dtype=np.float64)
    estimate = estimate_prevalence(logit_NC, source_C, label_names=names)
    estimated_C = estimate.prevalence_C.value_X
    known_NC = ~np.isnan(label_NC)
    observed_C = ratio((label_NC == 1).sum(axis=0), known_NC.sum(axis=0))
    inside_C = (observed_C > 0) & (observed_C < 1) & (source_C > 0) & (source_C < 1)
    targets = {
        **{name: np.asarray(target_C, dtype=np.float64) for name, target_C in (given or {}).items()},
        "estimated": estimated_C,
        "observed": np.where(inside_C, observed_C, np.nan),
    }
    biases = {"as calibrated": np.zeros(len(names))} | {
        name: prevalence_bias(source_C, target_C) for name, target_C in targets.items()
    }
    cells = [known_NC, label_NC == 1]
    for bias_C in biases.values():
        cells += _scores(logit_NC + bias_C, label_NC)
    gradient_NC = slopes(logit_NC, source_C, estimated_C)
    cells = [np.where(known_NC, cell_NC, 0.0) for cell_NC in cells]
    sums = [draws.per_patient(cell_NC) for cell_NC in (*cells, gradient_NC, gradient_NC**2)]
    known_RC, positive_RC, *score_RC, slope_RC, curvature_RC = draws.sums(*sums)
    known_C = sums[0].sum(axis=0)
    values = iter(
        Sample(ratio(sum_MC.sum(axis=0), known_C), ratio(sum_RC, known_RC))
        for sum_MC, sum_RC in zip(sums[2:-2], score_RC, strict=True)
    )
    scores = {target: {score: next(values) for score in SCORES} for target in biases}
    before = scores["as calibrated"]
    changes = {
        target: {score: scores[target][score] - before[score] for score in ("log_loss", "brier")} for target in targets
    }
    shifted = {target: np.flatnonzero((known_C > 0) & ~np.isnan(target_C)) for target, target_C in targets.items()}
    # One Newton step from the estimate in each draw, in the logit of the prevalence, where the estimates are nearly
    # normal; the second derivative of the log-likelihood is minus the sum of the squared slopes.
    scale_C = estimated_C * (1 - estimated_C)
    estimated_RC = expit(logit(estimated_C) + ratio(slope_RC, curvature_RC) / scale_C)
    return PrevalenceShift(
        label_names=names,
        source_C=source_C,
        observed_C=share_interval(
            observed_C,
            ratio(positive_RC, known_RC),
            images_X=known_C,
            patients_X=(sums[0] > 0).sum(axis=0),
            confidence=confidence,
        ),
        targets=targets,
        estimated_C=Estimates.of(estimated_C, estimated_RC, confidence),
        reasons=estimate.reasons,
        scores={
            target: {score: one.estimates(confidence) for score, one in by_score.items()}
            for target, by_score in scores.items()
        },
        changes={
            target: {score: one.estimates(confidence) for score, one in by_score.items()}
            for target, by_score in changes.items()
        },
        macro_changes={
            target: {score: one.mean(shifted[target]).average(confidence) for score, one in by_score.items()}
            for target, by_score in changes.items()
        },
        confidence=confidence,
        resamples=draws.resamples,
    )


def _scores(logit_NC: Array, label_NC: Array) -> list[Array]:
    """Of each cell, in the order of ``SCORES``."""
    prob_NC = expit(logit_NC)
    return [np.logaddexp(0.0, logit_NC) - label_NC * logit_NC, (prob_NC - label_NC) ** 2, prob_NC]
