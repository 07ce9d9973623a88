"""Patient-clustered bootstrap intervals of AUC and average precision, and paired comparison of two models.

Images of one patient are not independent, so patients are drawn with replacement, never images; a patient that is
drawn twice counts twice with all their images. An image's weight is the number of times its patient was drawn, and
every draw is measured by the kernel that measures the full sample (`metrics.weighted_auc_ap`).

N = images, C = findings, M = patients, R = resamples (draws).

Draws without a positive or without a negative of a finding leave that finding undefined (NaN), which is likely only
below about five positive patients. Percentiles are taken over the defined draws and their number is reported. The
macro mean is taken over the findings that are defined in the full sample, the same ones in every draw: a draw in which
one of them is undefined has no macro mean, because a mean over fewer findings is another quantity.

Refused: a missing patient id, fewer than two patients.

Source: Efron and Tibshirani, An Introduction to the Bootstrap (1993), percentile intervals; Field and Welsh, Journal
of the Royal Statistical Society B 69 (2007), resampling whole clusters.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hf_cxr.evaluation.metrics import Array, average_precision, check_scores, macro, rank, roc_auc, weighted_auc_ap

CELLS_AT_ONCE = 2**19
"""Weights gathered at a time: 4 MiB, small enough for the processor's cache, which is what makes this quick."""


@dataclass(frozen=True, eq=False)
class Spread:
    """A metric on the full sample and its distribution over draws of patients.

    Attributes:
        value_C: on the full sample; NaN where undefined.
        low_C, high_C: percentile interval; NaN where no draw is defined.
        draw_RC: the value in each draw; NaN where undefined.
        defined_C: number of draws that define the finding.
        macro, macro_low, macro_high, macro_R, macro_defined: the same for the mean over defined findings.
    """

    value_C: Array
    low_C: Array
    high_C: Array
    draw_RC: Array
    defined_C: NDArray[np.int64]
    macro: float
    macro_low: float
    macro_high: float
    macro_R: Array
    macro_defined: int


@dataclass(frozen=True)
class BootstrapResult:
    """Intervals of both ranking metrics over the same draws."""

    auc: Spread
    ap: Spread
    confidence: float
    resamples: int
    n_patients: int


@dataclass(frozen=True)
class PairedDifference:
    """First model minus second, in the same draws of patients.

    The two-sided p value is twice the smaller share of draws on either side of zero, draws at zero counting for both,
    with one added to numerator and denominator: never below 2 / (R + 1), and 1 for two equal models. NaN where
    undefined.
    """

    auc: Spread
    ap: Spread
    auc_p_C: Array
    ap_p_C: Array
    auc_macro_p: float
    ap_macro_p: float
    confidence: float
    resamples: int
    n_patients: int


def bootstrap_metrics(
    score_NC: ArrayLike,
    label_NC: ArrayLike,
    patient_ids_N: Sequence[Any],
    *,
    resamples: int = 1000,
    confidence: float = 0.95,
    rng: np.random.Generator,
) -> BootstrapResult:
    """Percentile intervals of AUC and average precision, per finding and macro.

    Args:
        score_NC: any finite real numbers; logits and probabilities give the same result.
        label_NC: 1, 0 or NaN.
        patient_ids_N: one id an image; none may be missing.
        resamples: number of draws, at least 2. 1,000 puts a 95 % limit within about 0.1 standard deviations.
        confidence: in (0, 1).
        rng: the draws depend on it and on the set of patients only, not on the order of the rows.

    Raises:
        ValueError: bad scores or labels (see `metrics`), a missing patient id, fewer than two patients.
    """
    score_NC, label_NC = check_scores(score_NC, label_NC)
    patient_N, n_patients = number_patients(patient_ids_N, len(label_NC))
    (auc_RC, ap_RC) = draw_metrics([score_NC], label_NC, patient_N, n_patients, resamples, rng)[0]
    return BootstrapResult(
        auc=_spread(roc_auc(score_NC, label_NC), auc_RC, confidence),
        ap=_spread(average_precision(score_NC, label_NC), ap_RC, confidence),
        confidence=confidence,
        resamples=resamples,
        n_patients=n_patients,
    )


def paired_difference(
    first_score_NC: ArrayLike,
    second_score_NC: ArrayLike,
    label_NC: ArrayLike,
    patient_ids_N: Sequence[Any],
    *,
    resamples: int = 1000,
    confidence: float = 0.95,
    rng: np.random.Generator,
) -> PairedDifference:
    """First model minus second on the same images: the difference, its interval and a two-sided p value.

    Both models are measured in the same draws, so what they share (easy and hard patients) cancels; comparing two
    separate intervals instead loses most differences that are real. Arguments as `bootstrap_metrics`.
    """
    first_NC, label_NC = check_scores(first_score_NC, label_NC)
    second_NC, _ = check_scores(second_score_NC, label_NC)
    patient_N, n_patients = number_patients(patient_ids_N, len(label_NC))
    first, second = draw_metrics([first_NC, second_NC], label_NC, patient_N, n_patients, resamples, rng)
    auc_C = roc_auc(first_NC, label_NC) - roc_auc(second_NC, label_NC)
    ap_C = average_precision(first_NC, label_NC) - average_precision(second_NC, label_NC)
    auc = _spread(auc_C, first[0] - second[0], confidence)
    ap = _spread(ap_C, first[1] - second[1], confidence)
    return PairedDifference(
        auc=auc,
        ap=ap,
        auc_p_C=two_sided_p(auc.draw_RC),
        ap_p_C=two_sided_p(ap.draw_RC),
        auc_macro_p=float(two_sided_p(auc.macro_R[:, None])[0]),
        ap_macro_p=float(two_sided_p(ap.macro_R[:, None])[0]),
        confidence=confidence,
        resamples=resamples,
        n_patients=n_patients,
    )


def number_patients(patient_ids_N: Sequence[Any], n_images: int) -> tuple[NDArray[np.int64], int]:
    """Number every patient, in sorted order, so that the draws do not depend on the order of the rows."""
    # tolist() turns numpy scalars into plain ones, which hash and compare alike.
    ids = np.asarray(patient_ids_N, dtype=object).tolist()
    if len(ids) != n_images:
        raise ValueError(f"{len(ids)} patient ids for {n_images} images")
    missing = [row for row, patient in enumerate(ids) if _is_missing(patient)]
    if missing:
        raise ValueError(
            f"{len(missing)} images have no patient id, the first at row {missing[0]}; "
            "intervals need every image's patient: give each image of an unknown patient an id of its own"
        )
    number = {patient: code for code, patient in enumerate(sorted(set(ids), key=str))}
    if len(number) < 2:
        raise ValueError(f"intervals need at least two patients; got {len(number)}")
    return np.array([number[patient] for patient in ids], dtype=np.int64), len(number)


def _is_missing(patient: Any) -> bool:
    if patient is None or (isinstance(patient, str) and not patient):
        return True
    try:
        return bool(patient != patient)  # NaN and NaT are unequal to themselves
    except TypeError:  # pandas.NA: its comparisons have no truth value
        return True


def draw_metrics(
    scores: Sequence[Array],
    label_NC: Array,
    patient_N: NDArray[np.int64],
    n_patients: int,
    resamples: int,
    rng: np.random.Generator,
) -> list[tuple[Array, Array]]:
    """AUC and average precision (R, C) of each score matrix, all in the same draws; memory does not grow with R."""
    if resamples < 2:
        raise ValueError(f"resamples must be at least 2; got {resamples}")
    n_findings = label_NC.shape[1]
    rankings = [[_patient_ranking(score_NC, label_NC, c, patient_N) for c in range(n_findings)] for score_NC in scores]
    result = [(np.empty((resamples, n_findings)), np.empty((resamples, n_findings))) for _ in scores]
    at_once = max(1, min(resamples, CELLS_AT_ONCE // len(label_NC)))
    for start in range(0, resamples, at_once):
        rows = slice(start, min(start + at_once, resamples))
        times_drawn_RM = np.stack(
            [
                np.bincount(rng.integers(n_patients, size=n_patients), minlength=n_patients)
                for _ in range(rows.start, rows.stop)
            ]
        )
        for (auc_RC, ap_RC), ranking_C in zip(result, rankings, strict=True):
            for column, ranking in enumerate(ranking_C):
                auc_RC[rows, column], ap_RC[rows, column] = weighted_auc_ap(ranking, times_drawn_RM)
    return result


def _patient_ranking(score_NC: Array, label_NC: Array, column: int, patient_N: NDArray[np.int64]):
    # Pointing the order at patients instead of images saves a copy of the weights as large as R x N.
    ranking = rank(score_NC[:, column], label_NC[:, column])
    return replace(ranking, order_K=patient_N[ranking.order_K])


def _spread(value_C: Array, draw_RC: Array, confidence: float) -> Spread:
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must be between 0 and 1; got {confidence}")
    defined_C = ~np.isnan(value_C)
    macro_R = draw_RC[:, defined_C].mean(axis=1) if defined_C.any() else np.full(len(draw_RC), np.nan)
    low_C, high_C = percentile_interval(draw_RC, confidence)
    (macro_low,), (macro_high,) = percentile_interval(macro_R[:, None], confidence)
    return Spread(
        value_C=value_C,
        low_C=low_C,
        high_C=high_C,
        draw_RC=draw_RC,
        defined_C=(~np.isnan(draw_RC)).sum(axis=0),
        macro=macro(value_C),
        macro_low=float(macro_low),
        macro_high=float(macro_high),
        macro_R=macro_R,
        macro_defined=int((~np.isnan(macro_R)).sum()),
    )


def percentile_interval(draw_RC: Array, confidence: float) -> tuple[Array, Array]:
    low_C, high_C = np.full((2, draw_RC.shape[1]), np.nan)
    for column, draw_R in enumerate(draw_RC.T):
        defined = draw_R[~np.isnan(draw_R)]
        if len(defined):
            low_C[column], high_C[column] = np.quantile(defined, [(1 - confidence) / 2, (1 + confidence) / 2])
    return low_C, high_C


def two_sided_p(draw_RC: Array) -> Array:
    defined_C = (~np.isnan(draw_RC)).sum(axis=0)
    smaller_C = np.minimum((draw_RC <= 0).sum(axis=0), (draw_RC >= 0).sum(axis=0))
    return np.where(defined_C > 0, np.minimum(1.0, 2 * (smaller_C + 1) / (defined_C + 1)), np.nan)
