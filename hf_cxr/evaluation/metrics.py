"""Multi-label metrics: arrays in, one value per finding out.

N = images, C = findings, K = known cells of one finding, G = groups of equal scores that hold a positive, R = sets
of weights. Labels are 1, 0 or NaN; a NaN cell is skipped, as if its row were absent for that finding. A finding whose
known cells hold one label value only has no ranking metric: its value is NaN, never 0 or 0.5.

Refused, with the row and column: a score that is not finite, a label other than 0, 1 or NaN, shapes that differ.

Both ranking metrics come from one kernel, `weighted_auc_ap`, which the bootstrap calls with other weights.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]


def roc_auc(score_NC: ArrayLike, label_NC: ArrayLike) -> Array:
    """Area under the ROC curve: the probability that a positive scores above a negative, a tie counting one half.

    Args:
        score_NC: any real numbers; logits and probabilities give the same value.
        label_NC: 1, 0 or NaN.

    Returns:
        (C,) float64 in [0, 1]; NaN where the known cells hold one label value only.

    Raises:
        ValueError: shapes differ, a score is not finite, or a label is not 0, 1 or NaN.

    Source: Hanley and McNeil, Radiology 143 (1982); the Mann-Whitney form.

    >>> roc_auc([[0.1], [0.4], [0.8]], [[0], [1], [1]])
    array([1.])
    """
    return _auc_ap(score_NC, label_NC)[0]


def average_precision(score_NC: ArrayLike, label_NC: ArrayLike) -> Array:
    """Average precision: the sum over thresholds of the gain in recall times the precision there, not interpolated.

    Equal scores are one threshold, as in scikit-learn. A scorer that knows nothing reaches about the prevalence.

    Args:
        score_NC: any real numbers.
        label_NC: 1, 0 or NaN.

    Returns:
        (C,) float64 in (0, 1]; NaN without positives and NaN without negatives. The latter would be 1 whatever the
        scores, and a constant in a mean over findings hides that nothing was measured.

    Raises:
        ValueError: as `roc_auc`.

    Source: Davis and Goadrich, ICML 2006 (why precision is not interpolated linearly).

    >>> average_precision([[0.9], [0.8], [0.7]], [[1], [0], [1]]).round(4)
    array([0.8333])
    """
    return _auc_ap(score_NC, label_NC)[1]


def mean_predicted_probability(prob_NC: ArrayLike, label_NC: ArrayLike) -> tuple[Array, Array]:
    """Mean probability given to the known positives and to the known negatives.

    The two are far apart for a model that separates, and their prevalence-weighted mean is the prevalence for one
    that is calibrated in the large.

    Returns:
        positives (C,), negatives (C,), float64; NaN where there are none.
    """
    prob_NC, label_NC = check_probabilities(prob_NC, label_NC)
    return _mean_where(prob_NC, label_NC == 1), _mean_where(prob_NC, label_NC == 0)


def brier(prob_NC: ArrayLike, label_NC: ArrayLike) -> Array:
    """Mean squared difference of probability and label over known cells; 0 is perfect.

    Always giving the prevalence reaches prevalence x (1 - prevalence), so values of rare findings are small by nature.

    Returns:
        (C,) float64; NaN where no cell is known.

    Source: Brier, Monthly Weather Review 78 (1950).
    """
    prob_NC, label_NC = check_probabilities(prob_NC, label_NC)
    known_NC = ~np.isnan(label_NC)
    return _mean_where((prob_NC - np.where(known_NC, label_NC, 0.0)) ** 2, known_NC)


def expected_calibration_error(prob_NC: ArrayLike, label_NC: ArrayLike, *, bins: int = 15) -> Array:
    """Mean absolute gap of mean probability and observed frequency over bins of equal mass, per finding.

    The known cells of a finding, sorted by probability, are cut into ``bins`` bins of the same number of images;
    bins of equal width would put nearly every image of a rare finding into the first. Equal probabilities share a
    bin (that of their middle rank), so the value does not depend on the rows' order. The estimate is biased upwards
    in small samples: a bin of n images has a gap of about sqrt(p (1 - p) / n) under perfect calibration.

    Args:
        prob_NC: in [0, 1].
        label_NC: 1, 0 or NaN.
        bins: at least 1.

    Returns:
        (C,) float64 in [0, 1]; NaN where no cell is known.

    Source: Naeini et al., AAAI 2015 (ECE); Nixon et al., CVPR workshops 2019 (adaptive bins).
    """
    if bins < 1:
        raise ValueError(f"bins must be at least 1; got {bins}")
    prob_NC, label_NC = check_probabilities(prob_NC, label_NC)
    error_C = np.full(prob_NC.shape[1], np.nan)
    for column, known_N in enumerate(~np.isnan(label_NC).T):
        prob_K, label_K = prob_NC[known_N, column], label_NC[known_N, column]
        if len(prob_K) == 0:
            continue
        _, group_K, size_G = np.unique(prob_K, return_inverse=True, return_counts=True)
        middle_G = np.cumsum(size_G) - size_G / 2
        bin_K = np.floor(middle_G * bins / len(prob_K)).astype(np.int64)[group_K]
        error_C[column] = np.abs(np.bincount(bin_K, weights=prob_K - label_K)).sum() / len(prob_K)
    return error_C


def counts(label_NC: ArrayLike) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Number of positive, negative and unknown cells of each finding, each (C,) int64.

    >>> [count.tolist() for count in counts([[1, 0], [0, float("nan")]])]
    [[1, 0], [1, 1], [0, 1]]
    """
    label_NC = _check_labels(label_NC)
    return (label_NC == 1).sum(axis=0), (label_NC == 0).sum(axis=0), np.isnan(label_NC).sum(axis=0)


def macro(value_C: ArrayLike) -> float:
    """Unweighted mean over the findings that are defined; NaN if none is.

    >>> macro([0.5, float("nan"), 1.0])
    0.75
    """
    value_C = np.asarray(value_C, dtype=np.float64)
    defined_C = ~np.isnan(value_C)
    return float(value_C[defined_C].mean()) if defined_C.any() else float("nan")


def roc_curve_points(score_N: ArrayLike, label_N: ArrayLike) -> tuple[Array, Array, Array]:
    """The ROC curve of one finding, for plots: false positive rate, true positive rate, threshold, each (T,).

    The first threshold is infinite, where nothing is called positive. Points on a straight line are dropped.

    Raises:
        ValueError: as `roc_auc`, or the known cells hold one label value only.
    """
    score_N1, label_N1 = check_scores(np.reshape(score_N, (-1, 1)), np.reshape(label_N, (-1, 1)))
    known_N = ~np.isnan(label_N1[:, 0])
    score_K, label_K = score_N1[known_N, 0], label_N1[known_N, 0]
    if len(np.unique(label_K)) < 2:
        raise ValueError("an ROC curve needs at least one known positive and one known negative image")
    from sklearn.metrics import roc_curve  # here, because it takes longer to import than this whole package

    return roc_curve(label_K, score_K)


@dataclass(frozen=True, eq=False)
class Ranking:
    """The known cells of one finding in descending order of score: sorted once, then measured under many weights.

    Attributes:
        order_K: the row of each cell.
        positive_P: the places in that order that hold a positive, ascending.
        last_G: for each group of equal scores that holds a positive, the place in positive_P of its last one.
        start_G: the group's first place in the order.
        end_G: the group's last place in the order.
    """

    order_K: NDArray[np.int64]
    positive_P: NDArray[np.int64]
    last_G: NDArray[np.int64]
    start_G: NDArray[np.int64]
    end_G: NDArray[np.int64]


def rank(score_N: Array, label_N: Array) -> Ranking:
    """Sort the known cells of one finding; the arguments are taken as checked."""
    known = np.flatnonzero(~np.isnan(label_N))
    order_K = known[np.argsort(-score_N[known], kind="stable")]
    score_K = score_N[order_K]
    new_group_K = np.append(True, score_K[1:] != score_K[:-1])[: len(order_K)]
    start = np.flatnonzero(new_group_K)
    end = np.append(start[1:] - 1, len(order_K) - 1)[: len(start)]
    positive_P = np.flatnonzero(label_N[order_K] == 1)
    group_P = (np.cumsum(new_group_K) - 1)[positive_P]
    last_G = np.flatnonzero(np.append(group_P[1:] != group_P[:-1], True)[: len(group_P)])
    return Ranking(order_K, positive_P, last_G, start[group_P[last_G]], end[group_P[last_G]])


def weighted_auc_ap(ranking: Ranking, weight_RN: NDArray[np.int64]) -> tuple[Array, Array]:
    """AUC and average precision of one finding under R sets of row weights; ties are exact.

    A weight of k is the same as k copies of the row, and 0 the same as its absence.

    Args:
        ranking: from `rank`; its ``order_K`` indexes the columns of weight_RN.
        weight_RN: non-negative integers.

    Returns:
        auc (R,), average precision (R,), float64; NaN where a side has no weight.
    """
    weight_RK = np.take(weight_RN, ranking.order_K, axis=1)
    above_RK = np.cumsum(weight_RK, axis=1)
    # take() keeps each row contiguous, where [:, index] may not; the order of summation, and so the last bit of the
    # average precision, then does not depend on R.
    gained_RP = np.cumsum(np.take(weight_RK, ranking.positive_P, axis=1), axis=1)
    true_RG = np.take(gained_RP, ranking.last_G, axis=1)
    called_RG = np.take(above_RK, ranking.end_G, axis=1)
    hits_RG = np.diff(true_RG, axis=1, prepend=0)
    positives_R = true_RG[:, -1] if true_RG.shape[1] else np.zeros(len(weight_RN), np.int64)
    negatives_R = (above_RK[:, -1] if above_RK.shape[1] else positives_R) - positives_R

    # Twice the negatives below a group, its own counting half: integers, so the sum over groups is exact.
    false_after_RG = called_RG - true_RG
    called_before_RG = np.take(above_RK, ranking.start_G, axis=1) - np.take(weight_RK, ranking.start_G, axis=1)
    false_before_RG = called_before_RG - (true_RG - hits_RG)
    twice_pairs_R = (hits_RG * (2 * negatives_R[:, None] - false_before_RG - false_after_RG)).sum(axis=1)
    precision_RG = true_RG / np.maximum(called_RG, 1)

    defined_R = (positives_R > 0) & (negatives_R > 0)
    with np.errstate(invalid="ignore", divide="ignore"):
        auc_R = twice_pairs_R / (2 * positives_R * negatives_R)
        ap_R = (hits_RG * precision_RG).sum(axis=1) / positives_R
    return np.where(defined_R, auc_R, np.nan), np.where(defined_R, ap_R, np.nan)


def check_scores(score_NC: ArrayLike, label_NC: ArrayLike) -> tuple[Array, Array]:
    """Both as float64 (N, C) after checking shapes, finite scores and label values."""
    score_NC, label_NC = np.asarray(score_NC, dtype=np.float64), _check_labels(label_NC)
    if score_NC.shape != label_NC.shape:
        raise ValueError(f"scores have shape {score_NC.shape} and labels {label_NC.shape}; both must be (N, C)")
    if not np.isfinite(score_NC).all():
        row, column = np.argwhere(~np.isfinite(score_NC))[0]
        raise ValueError(f"score at row {row}, column {column} is {score_NC[row, column]}; every score must be finite")
    return score_NC, label_NC


def check_probabilities(prob_NC: ArrayLike, label_NC: ArrayLike) -> tuple[Array, Array]:
    """As `check_scores`, and every score must be in [0, 1]."""
    prob_NC, label_NC = check_scores(prob_NC, label_NC)
    outside_NC = (prob_NC < 0) | (prob_NC > 1)
    if outside_NC.any():
        row, column = np.argwhere(outside_NC)[0]
        raise ValueError(
            f"score at row {row}, column {column} is {prob_NC[row, column]:g}, outside [0, 1]; "
            "these look like logits: apply the sigmoid first (Predictions.probabilities does)"
        )
    return prob_NC, label_NC


def _check_labels(label_NC: ArrayLike) -> Array:
    label_NC = np.asarray(label_NC, dtype=np.float64)
    if label_NC.ndim != 2:
        raise ValueError(f"labels have shape {label_NC.shape}; expected (N, C), images by findings")
    wrong_NC = ~(np.isnan(label_NC) | (label_NC == 0) | (label_NC == 1))
    if wrong_NC.any():
        row, column = np.argwhere(wrong_NC)[0]
        raise ValueError(f"label at row {row}, column {column} is {label_NC[row, column]:g}; expected 0, 1 or NaN")
    return label_NC


def _auc_ap(score_NC: ArrayLike, label_NC: ArrayLike) -> tuple[Array, Array]:
    score_NC, label_NC = check_scores(score_NC, label_NC)
    one_1N = np.ones((1, len(score_NC)), dtype=np.int64)
    value_C2 = [np.hstack(weighted_auc_ap(rank(*pair), one_1N)) for pair in zip(score_NC.T, label_NC.T, strict=True)]
    auc_C, ap_C = np.reshape(value_C2, (-1, 2)).T
    return auc_C, ap_C


def _mean_where(value_NC: Array, where_NC: NDArray[np.bool_]) -> Array:
    with np.errstate(invalid="ignore"):
        return np.where(where_NC, value_NC, 0.0).sum(axis=0) / where_NC.sum(axis=0)
