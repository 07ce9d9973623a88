"""Patient-clustered bootstrap intervals of every metric in `METRICS`, and paired comparison of two models.

Images of one patient are not independent, so patients are drawn with replacement, never images; a patient that is
drawn twice counts twice with all their images. An image's weight is the number of times its patient was drawn. The
patients are drawn once, and every metric, model and subset is measured under the same weights, by the kernel that
measures the full sample.

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

from hf_cxr.evaluation.checks import Array, check_scores
from hf_cxr.evaluation.kernels import Ranking, WeightedCells, rank
from hf_cxr.evaluation.metric import METRICS, Measured
from hf_cxr.evaluation.metrics import macro

CELLS_AT_ONCE = 2**19
"""Weights gathered at a time: 4 MiB, small enough for the processor's cache, which is what makes this quick."""


@dataclass(frozen=True, eq=False)
class Sample:
    """A metric on the full sample, ``value_C``, and in each draw of patients, ``draw_RC``; NaN where undefined."""

    value_C: Array
    draw_RC: Array

    @property
    def macro_R(self) -> Array:
        """The macro mean in each draw, over the findings that are defined in the full sample."""
        return mean_over(self.draw_RC, np.flatnonzero(~np.isnan(self.value_C)))

    def measured(self, confidence: float) -> Measured:
        """Values with percentile intervals."""
        low_C, high_C = percentile_interval(self.draw_RC, confidence)
        macro_R = self.macro_R
        (macro_low,), (macro_high,) = percentile_interval(macro_R[:, None], confidence)
        return Measured(
            value_C=self.value_C,
            low_C=low_C,
            high_C=high_C,
            draws_C=(~np.isnan(self.draw_RC)).sum(axis=0),
            macro=macro(self.value_C),
            macro_low=float(macro_low),
            macro_high=float(macro_high),
            macro_draws=int((~np.isnan(macro_R)).sum()),
        )


@dataclass(frozen=True, eq=False)
class BootstrapResult:
    """Every metric by its key, with its interval (``measured``) and its draws (``samples``)."""

    measured: dict[str, Measured]
    samples: dict[str, Sample]
    confidence: float
    resamples: int
    n_patients: int


@dataclass(frozen=True, eq=False)
class PairedDifference(BootstrapResult):
    """First model minus second, in the same draws of patients.

    The two-sided p value is twice the smaller share of draws on either side of zero, draws at zero counting for both,
    with one added to numerator and denominator: never below 2 / (R + 1), and 1 for two equal models. NaN where
    undefined.

    Attributes:
        p_C: by metric, the p value of each finding.
        macro_p: by metric, the p value of the macro mean.
    """

    p_C: dict[str, Array]
    macro_p: dict[str, float]


def bootstrap_metrics(
    score_NC: ArrayLike,
    label_NC: ArrayLike,
    patient_ids_N: Sequence[Any],
    *,
    resamples: int = 1000,
    confidence: float = 0.95,
    rng: np.random.Generator,
) -> BootstrapResult:
    """Percentile intervals of every metric, per finding and macro.

    Args:
        score_NC: any finite real numbers; the ranking metrics of logits and probabilities are the same.
        label_NC: 1, 0 or NaN.
        patient_ids_N: one id an image; none may be missing.
        resamples: number of draws, at least 2. 1,000 puts a 95 % limit within about 0.1 standard deviations.
        confidence: in (0, 1).
        rng: the draws depend on it and on the set of patients only, not on the order of the rows.

    Raises:
        ValueError: bad scores or labels (see `checks`), a missing patient id, fewer than two patients.
    """
    check_confidence(confidence)
    pair = check_scores(score_NC, label_NC)
    patient_N, n_patients = number_patients(patient_ids_N, len(pair[1]))
    (samples,) = draw_samples([pair], patient_N, n_patients, resamples, rng)
    return BootstrapResult(_measured(samples, confidence), samples, confidence, resamples, n_patients)


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
    check_confidence(confidence)
    pairs = [check_scores(score_NC, label_NC) for score_NC in (first_score_NC, second_score_NC)]
    patient_N, n_patients = number_patients(patient_ids_N, len(pairs[0][1]))
    first, second = draw_samples(pairs, patient_N, n_patients, resamples, rng)
    samples = {
        key: Sample(first[key].value_C - second[key].value_C, first[key].draw_RC - second[key].draw_RC)
        for key in first
    }
    return PairedDifference(
        measured=_measured(samples, confidence),
        samples=samples,
        confidence=confidence,
        resamples=resamples,
        n_patients=n_patients,
        p_C={key: two_sided_p(sample.draw_RC) for key, sample in samples.items()},
        macro_p={key: float(two_sided_p(sample.macro_R[:, None])[0]) for key, sample in samples.items()},
    )


def _measured(samples: dict[str, Sample], confidence: float) -> dict[str, Measured]:
    return {key: sample.measured(confidence) for key, sample in samples.items()}


def check_confidence(confidence: float) -> None:
    """Refuse a confidence that is not in (0, 1)."""
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must be between 0 and 1; got {confidence}")


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


def draw_samples(
    pairs: Sequence[tuple[Array, Array]],
    patient_N: NDArray[np.int64],
    n_patients: int,
    resamples: int,
    rng: np.random.Generator,
) -> list[dict[str, Sample]]:
    """Every metric of each pair of scores and labels (N, C), by key; all in the same draws of patients.

    Memory does not grow with R. The arrays are taken as checked.
    """
    if resamples < 2:
        raise ValueError(f"resamples must be at least 2; got {resamples}")
    kernels = {key: metric.kernel for key, metric in METRICS.items()}
    rankings = [
        [_patient_ranking(*column, patient_N) for column in zip(score_NC.T, label_NC.T, strict=True)]
        for score_NC, label_NC in pairs
    ]
    # Row 0 is the full sample: every patient once.
    value_RC = [{key: np.empty((1 + resamples, len(ranking_C))) for key in kernels} for ranking_C in rankings]

    def fill(rows: slice, weight_RM: NDArray[np.int64]) -> None:
        for by_key, ranking_C in zip(value_RC, rankings, strict=True):
            for column, ranking in enumerate(ranking_C):
                cells = WeightedCells(ranking, weight_RM)
                for key, kernel in kernels.items():
                    by_key[key][rows, column] = kernel(cells)

    fill(slice(0, 1), np.ones((1, n_patients), dtype=np.int64))
    at_once = max(1, min(resamples, CELLS_AT_ONCE // len(patient_N)))
    for start in range(1, 1 + resamples, at_once):
        rows = slice(start, min(start + at_once, 1 + resamples))
        draws = [rng.integers(n_patients, size=n_patients) for _ in range(rows.start, rows.stop)]
        fill(rows, np.stack([np.bincount(draw_M, minlength=n_patients) for draw_M in draws]))
    return [{key: Sample(value[0], value[1:]) for key, value in by_key.items()} for by_key in value_RC]


def _patient_ranking(score_N: Array, label_N: Array, patient_N: NDArray[np.int64]) -> Ranking:
    # Pointing the order at patients instead of images saves a copy of the weights as large as R x N.
    ranking = rank(score_N, label_N)
    return replace(ranking, order_K=patient_N[ranking.order_K])


def mean_over(draw_RC: Array, columns: Sequence[int]) -> Array:
    """The mean over some findings in each draw, (R,); NaN if there is none."""
    return draw_RC[:, columns].mean(axis=1) if len(columns) else np.full(len(draw_RC), np.nan)


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
