"""Several scores, or several sets of images, measured in the same draws of patients, so that differences are paired.

    group, rest = sample_metrics([(score_NC, label_NC), (score_NC, rest_label_NC)], draws, ["auc"])
    group["auc"].draw_RC - rest["auc"].draw_RC

A set of images is given by its labels: cells outside it are NaN, as if their rows were absent. The arrays are taken as
checked.

N = images, C = findings, R = draws, M = patients.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from hf_cxr.evaluation.bootstrap import Sample, draw_samples
from hf_cxr.evaluation.checks import Array
from hf_cxr.evaluation.draws import PatientDraws
from hf_cxr.evaluation.kernels import METRICS


def sample_metrics(
    pairs: Sequence[tuple[Array, Array]], draws: PatientDraws, keys: Sequence[str]
) -> list[dict[str, Sample]]:
    """Metrics of each pair of scores and labels (N, C), on the full sample and in every draw, by key.

    Args:
        pairs: scores and labels.
        draws: of the patients of these N images.
        keys: of ranking metrics in `METRICS`.
    """
    metrics = {key: METRICS[key] for key in keys}
    rng = np.random.default_rng(draws.seed)
    return draw_samples(pairs, draws.patient_N, draws.n_patients, draws.resamples, rng, metrics=metrics)


def sample_errors(
    called_NC: NDArray[np.bool_], labels: Sequence[Array], draws: PatientDraws
) -> list[dict[str, Sample]]:
    """False negative rate ("fnr") and false positive rate ("fpr") of each of several sets of labels (N, C).

    Args:
        called_NC: which cells are called positive.
        labels: of each set of images; cells outside it are NaN.
        draws: of the patients of these N images.

    Returns:
        For each set, the rates on the full sample and in every draw; NaN without a positive, or without a negative.
    """
    if not labels:
        return []
    n_images, n_findings = called_NC.shape
    of_patient = csr_array((np.ones(n_images), (draws.patient_N, np.arange(n_images))), (draws.n_patients, n_images))
    cells = []
    for label_NC in labels:
        positive_NC, negative_NC = label_NC == 1, label_NC == 0
        cells += [positive_NC & ~called_NC, positive_NC, negative_NC & called_NC, negative_NC]
    # (M, sets x 4 x C): how many of each patient's cells are of each kind. Counts are exact in float64.
    count_MX = of_patient @ np.concatenate(cells, axis=1).astype(np.float64)
    sum_RX = np.empty((1 + draws.resamples, count_MX.shape[1]))
    sum_RX[0] = count_MX.sum(axis=0)
    for rows, weight_RM in draws.blocks():
        sum_RX[rows.start + 1 : rows.stop + 1] = weight_RM.astype(np.float64) @ count_MX
    sum_RSKC = sum_RX.reshape(1 + draws.resamples, len(labels), 2, 2, n_findings)
    with np.errstate(invalid="ignore"):
        rate_RSKC = sum_RSKC[:, :, :, 0] / sum_RSKC[:, :, :, 1]
    return [
        {key: Sample(rate_RSKC[0, place, kind], rate_RSKC[1:, place, kind]) for kind, key in enumerate(("fnr", "fpr"))}
        for place in range(len(labels))
    ]
