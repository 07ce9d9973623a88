"""Decision curves: whether acting on the model is better than acting on every patient, or on none.

    net benefit at threshold t = TP / n - FP / n * t / (1 - t)

Acting at a probability of t means that one missed positive is as bad as (1 - t) / t false positives: at 0.1, nine.
The net benefit counts true positives and subtracts false positives at that rate of exchange; its unit is true
positives per image, and its greatest value the prevalence. "Treat all" calls every image, "treat none" has 0. A model
is of use at the thresholds where it beats both. The probabilities must be calibrated: a threshold on scores that are
not is no rate of exchange.

N = images, C = findings, T = thresholds, M = patients, R = draws.

Refused: probabilities outside [0, 1], thresholds that do not ascend within (0, 1), a prevalence outside (0, 1).

Source: Vickers and Elkin, Medical Decision Making 26 (2006), equation 1; for a given prevalence, Vickers, Van Calster
and Steyerberg, Diagnostic and Prognostic Research 3 (2019).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hf_cxr.evaluation.checks import Array
from hf_cxr.evaluation.draws import CONFIDENCE, PatientDraws, check_measured, percentile_interval
from hf_cxr.evaluation.estimates import Estimates, ratio
from hf_cxr.files import plain
from hf_cxr.labels import LabelSpace

THRESHOLDS = tuple(
    round(start + step * number, 3)
    for start, step, count in ((0.001, 0.001, 9), (0.01, 0.005, 18), (0.1, 0.01, 90))
    for number in range(count)
)
"""0.001 to 0.009 by 0.001, 0.01 to 0.095 by 0.005, 0.1 to 0.99 by 0.01: of a finding that one image in a hundred has,
the thresholds that matter are near 0.01."""


COUNTS_AT_ONCE = 2**25
"""Counts that are kept at a time, of all draws: 256 MiB."""

ENOUGH = 5
"""Patients that a threshold needs on either side before its gain can count as sure: with a positive that is called,
and, among those that are not called, expected to have the finding if the scores knew nothing. With fewer, all draws
can agree by the chance that none of a few images has a rare finding."""


@dataclass(frozen=True, eq=False)
class DecisionCurves:
    """Net benefit of each finding at each threshold, with pointwise intervals.

    Attributes:
        label_names: C findings.
        threshold_T: ascending, in (0, 1).
        prevalence_C: that the net benefit is for: the observed one, or the one that was given; NaN if undefined.
        given_prevalence: whether it was given.
        positives_C, negatives_C: known cells, int64.
        benefit_CT: net benefit of the model, in true positives per image; NaN where undefined.
        all_CT: net benefit of calling every image.
        gain_CT: the model's minus the better of "all" and "none", in the same draws.
        images, patients, confidence, resamples: of the measurement.
    """

    label_names: LabelSpace
    threshold_T: Array
    prevalence_C: Array
    given_prevalence: bool
    positives_C: NDArray[np.int64]
    negatives_C: NDArray[np.int64]
    benefit_CT: Estimates
    all_CT: Array
    gain_CT: Estimates
    enough_CT: NDArray[np.bool_]
    images: int
    patients: int
    confidence: float
    resamples: int

    def useful_range(self, column: int, *, sure: bool = False) -> tuple[float, float] | None:
        """The thresholds at which the model of a finding beats both "all" and "none".

        Args:
            column: of the finding.
            sure: only where the interval of the gain is above 0, and enough patients speak for it (see `ENOUGH`).

        Returns:
            The first and last threshold of the grid in the unbroken stretch around the greatest gain (with ``sure``,
            around its greatest lower limit in that stretch); None if there is none.
        """
        useful = _stretch(self.threshold_T, self.gain_CT.value_X[column])
        if not sure or useful is None:
            return useful
        inside_T = (self.threshold_T >= useful[0]) & (self.threshold_T <= useful[1]) & self.enough_CT[column]
        return _stretch(self.threshold_T, np.where(inside_T, self.gain_CT.low_X[column], -1.0))

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON: settings, and by finding the curves and the useful ranges."""
        findings = {
            name: {
                "prevalence": float(self.prevalence_C[column]),
                "positives": int(self.positives_C[column]),
                "negatives": int(self.negatives_C[column]),
                "net_benefit": self.benefit_CT.row(column),
                "treat_all": self.all_CT[column].tolist(),
                "gain": self.gain_CT.row(column),
                "useful": self.useful_range(column),
                "surely_useful": self.useful_range(column, sure=True),
            }
            for column, name in enumerate(self.label_names)
        }
        settings = {name: getattr(self, name) for name in ("images", "patients", "confidence", "resamples")}
        return plain(
            {
                "label_names": list(self.label_names),
                **settings,
                "given_prevalence": self.given_prevalence,
                "thresholds": self.threshold_T.tolist(),
                "undefined": [
                    name for name, one in zip(self.label_names, self.prevalence_C, strict=True) if np.isnan(one)
                ],
                "findings": findings,
            }
        )


def measure_decision_curves(
    prob_NC: ArrayLike,
    label_NC: ArrayLike,
    draws: PatientDraws,
    *,
    label_names: Sequence[str],
    confidence: float = CONFIDENCE,
    thresholds: Sequence[float] = THRESHOLDS,
    prevalence: Mapping[str, float] | None = None,
) -> DecisionCurves:
    """Net benefit of the model, of calling every image and of calling none.

    Args:
        prob_NC: calibrated, in [0, 1].
        label_NC: 1, 0 or NaN.
        draws: of the patients of these N images.
        label_names: of the C columns.
        confidence: of the intervals, which hold at each threshold alone and not for the whole curve at once.
        thresholds: ascending, in (0, 1).
        prevalence: finding -> prevalence where the model is to be used: the net benefit there, if sensitivity and
            specificity at each threshold are the same. It does not shift the probabilities: for a model that is moved
            to another prevalence, shift those first. Without it, the observed prevalence of each draw.

    Returns:
        A finding without a known positive or a known negative is undefined: NaN throughout.

    Raises:
        ValueError: see the module's first lines; lengths that differ; a finding without a given prevalence.
    """
    prob_NC, label_NC, names = check_measured(prob_NC, label_NC, draws, label_names, confidence)
    threshold_T = _check_thresholds(thresholds)
    given_C = None if prevalence is None else _check_prevalence(prevalence, names)
    # A bin of an image says how many thresholds call it, and whether it is positive.
    bins = len(threshold_T) + 1
    bin_NC = np.searchsorted(threshold_T, prob_NC, side="right") + np.where(label_NC == 1, bins, 0)
    bin_NC[np.isnan(label_NC)] = -1
    at_once = max(1, COUNTS_AT_ONCE // (draws.resamples * 2 * bins))
    benefit_7CT = []
    for start in range(0, len(names), at_once):
        some_NC = bin_NC[:, start : start + at_once]
        for column, count_RV in enumerate(np.moveaxis(draws.counts(some_NC, 2 * bins), 1, 0), start=start):
            here = None if given_C is None else given_C[column]
            benefit_7CT.append(_measure(bin_NC[:, column], count_RV, threshold_T, here, confidence))
    benefit_7CT = np.stack(benefit_7CT, axis=1)
    positives_C, negatives_C = (label_NC == 1).sum(axis=0), (label_NC == 0).sum(axis=0)
    observed_C = ratio(positives_C, positives_C + negatives_C)
    both_C = (positives_C > 0) & (negatives_C > 0)
    return DecisionCurves(
        names,
        threshold_T,
        np.where(both_C, observed_C if given_C is None else given_C, np.nan),
        given_C is not None,
        positives_C,
        negatives_C,
        Estimates(*benefit_7CT[:3]),
        benefit_7CT[3],
        Estimates(*benefit_7CT[4:]),
        np.stack([_enough(*cells, draws, threshold_T) for cells in zip(prob_NC.T, label_NC.T, strict=True)]),
        images=len(prob_NC),
        patients=draws.n_patients,
        confidence=confidence,
        resamples=draws.resamples,
    )


def net_benefit(
    true_rate_X: ArrayLike, false_rate_X: ArrayLike, prevalence_X: ArrayLike, threshold_T: ArrayLike
) -> Array:
    """sensitivity * prevalence - (1 - specificity) * (1 - prevalence) * t / (1 - t); with broadcasting.

    >>> round(float(net_benefit(0.8, 0.1, 0.2, 0.5)), 12)  # 16 of 100 found, 8 of 100 called for nothing
    0.08
    """
    threshold_T, prevalence_X = np.asarray(threshold_T), np.asarray(prevalence_X)
    return true_rate_X * prevalence_X - false_rate_X * (1 - prevalence_X) * threshold_T / (1 - threshold_T)


def _measure(
    bin_N: NDArray[np.int64],
    count_RV: NDArray[np.int64],
    threshold_T: Array,
    prevalence: float | None,
    confidence: float,
) -> tuple[Array, ...]:
    """One finding: benefit, low, high, treat all, gain, low, high, each (T,).

    Args:
        bin_N: of each image, -1 for an unknown label.
        count_RV: images of each bin in each draw.
        threshold_T: of the curve.
        prevalence: assumed; None for that of the images.
        confidence: of the intervals.
    """
    bins = len(threshold_T) + 1
    full_1V = np.bincount(bin_N[bin_N >= 0], minlength=2 * bins)[None]
    if not full_1V[:, :bins].any() or not full_1V[:, bins:].any():
        return tuple(np.full((7, len(threshold_T)), np.nan))

    def curves(count_RV: NDArray[np.int64]) -> tuple[Array, Array]:
        negative_RB, positive_RB = (
            np.cumsum(part_RB[:, ::-1], axis=1)[:, ::-1].astype(np.float64)
            for part_RB in (count_RV[:, :bins], count_RV[:, bins:])
        )
        positives_R1, negatives_R1 = positive_RB[:, :1], negative_RB[:, :1]
        true_RT, false_RT = positive_RB[:, 1:], negative_RB[:, 1:]
        if prevalence is None:
            # By counts, so that a draw without a positive has its net benefit too: that of its false positives.
            known_R1, odds_T = positives_R1 + negatives_R1, threshold_T / (1 - threshold_T)
            return tuple(
                ratio(true - false * odds_T, known_R1)
                for true, false in ((true_RT, false_RT), (positives_R1, negatives_R1))
            )
        here = prevalence, threshold_T
        benefit_RT = net_benefit(ratio(true_RT, positives_R1), ratio(false_RT, negatives_R1), *here)
        return benefit_RT, net_benefit(ratio(positives_R1, positives_R1), ratio(negatives_R1, negatives_R1), *here)

    benefit_1T, all_1T = curves(full_1V)
    draw_RT, all_RT = curves(count_RV)
    gain_RT = draw_RT - np.maximum(all_RT, 0.0)
    gain_1T = benefit_1T - np.maximum(all_1T, 0.0)
    return (
        benefit_1T[0],
        *percentile_interval(draw_RT, confidence),
        all_1T[0],
        gain_1T[0],
        *percentile_interval(gain_RT, confidence),
    )


def _enough(prob_N: Array, label_N: Array, draws: PatientDraws, threshold_T: Array) -> NDArray[np.bool_]:
    """The thresholds on whose both sides there are patients enough, (T,); see `ENOUGH`."""
    known_N, positive_N = ~np.isnan(label_N), label_N == 1
    prevalence = float(ratio(positive_N.sum(), known_N.sum()))

    def patients(cells_N: NDArray[np.bool_]) -> int:
        return np.count_nonzero(np.bincount(draws.patient_N[cells_N]))

    return np.array(
        [
            prevalence * patients(known_N & (prob_N < threshold)) >= ENOUGH
            and patients(positive_N & (prob_N >= threshold)) >= ENOUGH
            for threshold in threshold_T
        ],
        dtype=bool,
    )


def _stretch(threshold_T: Array, gain_T: Array) -> tuple[float, float] | None:
    """The ends of the thresholds around the greatest gain without one in between whose gain is not above 0."""
    if not (gain_T > 0).any():
        return None
    best, stops = int(np.nanargmax(gain_T)), np.flatnonzero(~(gain_T > 0))
    first = max(stops[stops < best], default=-1) + 1
    last = min(stops[stops > best], default=len(gain_T)) - 1
    return float(threshold_T[first]), float(threshold_T[last])


def _check_thresholds(thresholds: Sequence[float]) -> Array:
    threshold_T = np.asarray(thresholds, dtype=np.float64)
    if threshold_T.ndim != 1 or not len(threshold_T) or not ((threshold_T > 0) & (threshold_T < 1)).all():
        raise ValueError(f"thresholds must be numbers between 0 and 1; got {thresholds}")
    if (np.diff(threshold_T) <= 0).any():
        raise ValueError("thresholds must ascend, without repeats")
    return threshold_T


def _check_prevalence(prevalence: Mapping[str, float], names: Sequence[str]) -> Array:
    missing = [name for name in names if name not in prevalence]
    if missing:
        raise ValueError(f"no prevalence given for {', '.join(missing)}; give one for each finding")
    given_C = np.array([prevalence[name] for name in names], dtype=np.float64)
    for name, value in zip(names, given_C, strict=True):
        if not 0 < value < 1:
            raise ValueError(f"the prevalence of {name} is {value:g}; it must be between 0 and 1")
    return given_C
