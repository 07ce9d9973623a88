"""The AUC's standard error for clustered images without any draw: DeLong's, extended to patients by Obuchowski.

A cross-check of the bootstrap: for the AUC of many patients the two agree within a few per cent (see
`benchmarks/interval_coverage.py`). It gives no interval of a mean over findings, of a subset's gap, or of any other
metric.

    auc_C, sd_C = delong(score_NC, label_NC, patient_ids)
    difference_C, sd_C = delong_difference(first_NC, second_NC, label_NC, patient_ids)

N = images, C = findings, P = positives, Q = negatives, I = patients, S = systems (models).

Source: DeLong, DeLong and Clarke-Pearson, Biometrics 44 (1988); Obuchowski, Biometrics 53 (1997), equations 2 to 5;
Sun and Xu, IEEE Signal Processing Letters 21 (2014), for the structural components by ranks.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import rankdata

from hf_cxr.evaluation.checks import Array, check_scores
from hf_cxr.evaluation.draws import number_patients


def delong(score_NC: ArrayLike, label_NC: ArrayLike, patient_ids_N: Sequence[Any]) -> tuple[Array, Array]:
    """AUC and its standard error, each (C,) float64.

    Args:
        score_NC: finite.
        label_NC: 1, 0 or NaN.
        patient_ids_N: one id an image; with an id for each image it is DeLong's own.

    Returns:
        NaN where a finding has one label value only; the standard error is NaN, too, where its positives or its
        negatives are of one patient.

    Raises:
        ValueError: see `checks` and `draws.number_patients`.
    """
    return _by_finding([score_NC], label_NC, patient_ids_N, np.array([1.0]))


def delong_difference(
    first_score_NC: ArrayLike, second_score_NC: ArrayLike, label_NC: ArrayLike, patient_ids_N: Sequence[Any]
) -> tuple[Array, Array]:
    """AUC of the first system minus that of the second on the same images, and its standard error, each (C,).

    Arguments and errors as `delong`. 0 and 0 for two systems that rank the images alike.
    """
    return _by_finding([first_score_NC, second_score_NC], label_NC, patient_ids_N, np.array([1.0, -1.0]))


def _by_finding(
    score_SNC: Sequence[ArrayLike], label_NC: ArrayLike, patient_ids_N: Sequence[Any], contrast_S: Array
) -> tuple[Array, Array]:
    checked = [check_scores(score_NC, label_NC) for score_NC in score_SNC]
    label_NC = checked[0][1]
    patient_N, _ = number_patients(patient_ids_N, len(label_NC))
    value_C, sd_C = np.full((2, label_NC.shape[1]), np.nan)
    for column, label_N in enumerate(label_NC.T):
        known = np.flatnonzero(~np.isnan(label_N))
        positive_K = label_N[known] == 1
        if not positive_K.any() or positive_K.all():
            continue
        score_SK = np.stack([score_NC[known, column] for score_NC, _ in checked])
        auc_S, variance_SS = _covariance(score_SK, positive_K, patient_N[known])
        value_C[column] = contrast_S @ auc_S
        sd_C[column] = np.sqrt(np.maximum(0.0, contrast_S @ variance_SS @ contrast_S))
    return value_C, sd_C


def _covariance(score_SK: Array, positive_K: Array, patient_K: Array) -> tuple[Array, Array]:
    """The AUC of each system, (S,), and their covariance, (S, S)."""
    positives, negatives = int(positive_K.sum()), int((~positive_K).sum())
    _, patient_K = np.unique(patient_K, return_inverse=True)
    patients = patient_K.max() + 1
    positives_I = np.bincount(patient_K[positive_K], minlength=patients)
    negatives_I = np.bincount(patient_K[~positive_K], minlength=patients)
    # Structural components: the share of negatives below each positive, and of positives above each negative.
    auc_S, excess_10, excess_01 = [], [], []
    for score_K in score_SK:
        everyone_K = rankdata(score_K)
        above_P = (everyone_K[positive_K] - rankdata(score_K[positive_K])) / negatives
        below_Q = 1 - (everyone_K[~positive_K] - rankdata(score_K[~positive_K])) / positives
        auc = above_P.mean()
        auc_S.append(auc)
        excess_10.append(np.bincount(patient_K[positive_K], above_P, patients) - positives_I * auc)
        excess_01.append(np.bincount(patient_K[~positive_K], below_Q, patients) - negatives_I * auc)
    excess_10, excess_01 = np.stack(excess_10), np.stack(excess_01)
    with np.errstate(invalid="ignore", divide="ignore"):
        of_10 = _corrected((positives_I > 0).sum()) * (excess_10 @ excess_10.T) / positives**2
        of_01 = _corrected((negatives_I > 0).sum()) * (excess_01 @ excess_01.T) / negatives**2
        cross = _corrected(patients) * (excess_10 @ excess_01.T) / (positives * negatives)
    return np.array(auc_S), of_10 + of_01 + cross + cross.T


def _corrected(clusters: int) -> float:
    """n / (n - 1), NaN for one cluster."""
    return clusters / (clusters - 1) if clusters > 1 else float("nan")
