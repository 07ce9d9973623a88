"""The arrays that evaluation takes, and what it refuses: one place for every check of scores and labels.

N = images, C = findings. A label is 1, 0 or NaN for unknown.

Refused, with row and column: a score that is not finite, a label other than 0, 1 or NaN, shapes that differ.
"""

from typing import Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]

ScoreKind = Literal["probabilities", "logits"]
SCORE_KINDS: tuple[str, ...] = get_args(ScoreKind)
"""What the scores of a file may be."""


def check_scores(score_NC: ArrayLike, label_NC: ArrayLike) -> tuple[Array, Array]:
    """Both as float64 (N, C) after checking shapes, finite scores and label values."""
    score_NC, label_NC = np.asarray(score_NC, dtype=np.float64), check_labels(label_NC)
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


def check_labels(label_NC: ArrayLike) -> Array:
    """Labels as float64 (N, C) after checking shape and values."""
    label_NC = np.asarray(label_NC, dtype=np.float64)
    if label_NC.ndim != 2:
        raise ValueError(f"labels have shape {label_NC.shape}; expected (N, C), images by findings")
    wrong_NC = ~(np.isnan(label_NC) | (label_NC == 0) | (label_NC == 1))
    if wrong_NC.any():
        row, column = np.argwhere(wrong_NC)[0]
        raise ValueError(f"label at row {row}, column {column} is {label_NC[row, column]:g}; expected 0, 1 or NaN")
    return label_NC
