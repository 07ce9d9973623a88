"""The figures of yes-or-no calls, each a formula of four counts: the one home of these formulas.

    value_X = DECISIONS["ppv"](tp_X, fp_X, tn_X, fn_X)

An image is called positive where its probability is at least the threshold. The counts are numbers of images or sums
of weights, non-negative, in arrays of any one shape X; the value has the same shape, float64. An unknown cell is in
none of the four. A ratio whose denominator is 0 is NaN: it is undefined, and neither 0 nor 1.

N = images, C = findings, R = draws, X = any shape, such as (R, C), draws by findings.

Where they are defined, all equal scikit-learn's confusion_matrix, recall_score, precision_score, f1_score and
accuracy_score with ``sample_weight``.
"""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hf_cxr.evaluation.checks import Array
from hf_cxr.evaluation.draws import PatientDraws
from hf_cxr.evaluation.estimates import ratio

Decision = Callable[[ArrayLike, ArrayLike, ArrayLike, ArrayLike], Array]


def sensitivity(tp_X: ArrayLike, fp_X: ArrayLike, tn_X: ArrayLike, fn_X: ArrayLike) -> Array:
    """TP / (TP + FN), the share of the positives that are called; also called recall. NaN without a positive.

    >>> float(sensitivity(3, 2, 4, 1))
    0.75
    """
    return ratio(tp_X, np.add(tp_X, fn_X))


def specificity(tp_X: ArrayLike, fp_X: ArrayLike, tn_X: ArrayLike, fn_X: ArrayLike) -> Array:
    """TN / (TN + FP), the share of the negatives that are not called. NaN without a negative.

    >>> float(specificity(3, 1, 4, 1))
    0.8
    """
    return ratio(tn_X, np.add(tn_X, fp_X))


def ppv(tp_X: ArrayLike, fp_X: ArrayLike, tn_X: ArrayLike, fn_X: ArrayLike) -> Array:
    """TP / (TP + FP), the share of the calls that are right; also called precision. NaN where nothing is called."""
    return ratio(tp_X, np.add(tp_X, fp_X))


def npv(tp_X: ArrayLike, fp_X: ArrayLike, tn_X: ArrayLike, fn_X: ArrayLike) -> Array:
    """TN / (TN + FN), the share of the images not called that are negative. NaN where all are called."""
    return ratio(tn_X, np.add(tn_X, fn_X))


def f1(tp_X: ArrayLike, fp_X: ArrayLike, tn_X: ArrayLike, fn_X: ArrayLike) -> Array:
    """2 TP / (2 TP + FP + FN), the harmonic mean of PPV and sensitivity. NaN without a positive and without a call."""
    twice_X = np.multiply(2, tp_X)
    return ratio(twice_X, twice_X + np.add(fp_X, fn_X))


def accuracy(tp_X: ArrayLike, fp_X: ArrayLike, tn_X: ArrayLike, fn_X: ArrayLike) -> Array:
    """(TP + TN) / all, the share of right answers. NaN without a known cell.

    Calling nothing reaches 1 - prevalence, so a high accuracy of a rare finding says little.
    """
    return ratio(np.add(tp_X, tn_X), total(tp_X, fp_X, tn_X, fn_X))


def called_share(tp_X: ArrayLike, fp_X: ArrayLike, tn_X: ArrayLike, fn_X: ArrayLike) -> Array:
    """(TP + FP) / all, the share of the images that are called positive. NaN without a known cell."""
    return ratio(np.add(tp_X, fp_X), total(tp_X, fp_X, tn_X, fn_X))


def calls_per_positive(tp_X: ArrayLike, fp_X: ArrayLike, tn_X: ArrayLike, fn_X: ArrayLike) -> Array:
    """(TP + FP) / (TP + FN), calls for each image that has the finding. NaN without a positive.

    1 is as many calls as there are positives; 3 is three times too many.

    >>> float(calls_per_positive(2, 4, 10, 0))
    3.0
    """
    return ratio(np.add(tp_X, fp_X), np.add(tp_X, fn_X))


def miss_rate(tp_X: ArrayLike, fp_X: ArrayLike, tn_X: ArrayLike, fn_X: ArrayLike) -> Array:
    """FN / (TP + FN), the false negative rate: the share of the positives that are missed. NaN without a positive."""
    return ratio(fn_X, np.add(tp_X, fn_X))


def false_alarm_rate(tp_X: ArrayLike, fp_X: ArrayLike, tn_X: ArrayLike, fn_X: ArrayLike) -> Array:
    """FP / (TN + FP), the false positive rate: the share of the negatives that are called. NaN without a negative."""
    return ratio(fp_X, np.add(tn_X, fp_X))


DECISIONS: dict[str, Decision] = {
    "sensitivity": sensitivity,
    "specificity": specificity,
    "ppv": ppv,
    "npv": npv,
    "f1": f1,
    "accuracy": accuracy,
}


def total(tp_X: ArrayLike, fp_X: ArrayLike, tn_X: ArrayLike, fn_X: ArrayLike) -> Array:
    """Number, or weight, of the known cells."""
    return np.add(np.add(tp_X, fp_X), np.add(tn_X, fn_X))


def confusion_cells(called_NC: NDArray[np.bool_], label_NC: ArrayLike) -> NDArray[np.bool_]:
    """Which cells are TP, FP, TN and FN, (4, N, C), or (4, N) of one finding; an unknown cell is none of them."""
    positive_NC, negative_NC = np.equal(label_NC, 1), np.equal(label_NC, 0)
    return np.stack(
        [called_NC & positive_NC, called_NC & negative_NC, ~called_NC & negative_NC, ~called_NC & positive_NC]
    )


def count_calls(
    called_NC: NDArray[np.bool_], labels: Sequence[Array], draws: PatientDraws
) -> list[tuple[Array, Array]]:
    """The four counts under each of several sets of labels (N, C), in the same draws.

    Returns:
        For each, TP, FP, TN and FN on the full sample, (4, C), and in each draw, (4, R, C); float64.
    """
    cells = [confusion_cells(called_NC, label_NC) for label_NC in labels]
    drawn = draws.sums(*(draws.per_patient(np.moveaxis(cell_4NC, 0, 1)) for cell_4NC in cells))
    return [
        (cell_4NC.sum(axis=1).astype(np.float64), np.moveaxis(draw_R4C, 1, 0))
        for cell_4NC, draw_R4C in zip(cells, drawn, strict=True)
    ]
