"""Multi-label metrics: arrays in, one value per finding out.

N = images, C = findings, K = known cells of one finding, G = groups of equal scores. Labels are 1, 0 or NaN; a NaN
cell is skipped, as if its row were absent for that finding. A finding whose known cells hold one label value only has
no ranking metric: its value is NaN, never 0 or 0.5.

Refused: see `checks`.

The figures are those of the table `kernels.METRICS`, here with their references and limit cases.
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hf_cxr.evaluation.checks import Array, check_labels, check_probabilities, check_scores
from hf_cxr.evaluation.kernels import BINS, METRICS, ece
from hf_cxr.evaluation.metric import on_full_sample


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
    return METRICS["auc"].measure(score_NC, label_NC)


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
    return METRICS["ap"].measure(score_NC, label_NC)


def mean_predicted_probability(prob_NC: ArrayLike, label_NC: ArrayLike) -> tuple[Array, Array]:
    """Mean probability given to the known positives and to the known negatives.

    The two are far apart for a model that separates, and their prevalence-weighted mean is the prevalence for one
    that is calibrated in the large.

    Returns:
        positives (C,), negatives (C,), float64; NaN where there are none.
    """
    sides = (METRICS[f"mean_probability_{side}"] for side in ("positives", "negatives"))
    positives_C, negatives_C = (metric.measure(prob_NC, label_NC) for metric in sides)
    return positives_C, negatives_C


def brier(prob_NC: ArrayLike, label_NC: ArrayLike) -> Array:
    """Mean squared difference of probability and label over known cells; 0 is perfect.

    Always giving the prevalence reaches prevalence x (1 - prevalence), so values of rare findings are small by nature.

    Returns:
        (C,) float64; NaN where no cell is known.

    Source: Brier, Monthly Weather Review 78 (1950).
    """
    return METRICS["brier"].measure(prob_NC, label_NC)


def expected_calibration_error(prob_NC: ArrayLike, label_NC: ArrayLike, *, bins: int = BINS) -> Array:
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
    return on_full_sample(lambda cells: ece(cells, bins), *check_probabilities(prob_NC, label_NC))


def counts(label_NC: ArrayLike) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Number of positive, negative and unknown cells of each finding, each (C,) int64.

    >>> [count.tolist() for count in counts([[1, 0], [0, float("nan")]])]
    [[1, 0], [1, 1], [0, 1]]
    """
    label_NC = check_labels(label_NC)
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
