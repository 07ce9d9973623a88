"""Several scores, or several sets of images, measured in the same draws of patients, so that differences are paired.

    group, rest = sample_metrics([(score_NC, label_NC), (score_NC, rest_label_NC)], draws, ["auc"])
    group["auc"].draw_RC - rest["auc"].draw_RC

A set of images is given by its labels: cells outside it are NaN, as if their rows were absent. The arrays are taken as
checked.

N = images, C = findings, R = draws.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from hf_cxr.evaluation.bootstrap import Sample, draw_samples
from hf_cxr.evaluation.checks import Array
from hf_cxr.evaluation.decision import count_calls, false_alarm_rate, miss_rate
from hf_cxr.evaluation.draws import PatientDraws
from hf_cxr.evaluation.kernels import METRICS


def sample_metrics(
    pairs: Sequence[tuple[Array, Array]], draws: PatientDraws, keys: Sequence[str]
) -> list[dict[str, Sample]]:
    """Metrics of each pair of scores and labels (N, C), on the full sample and in every draw, by key.

    Args:
        pairs: scores and labels.
        draws: of the patients of these N images.
        keys: of metrics in `METRICS` that need no threshold.
    """
    metrics = {key: METRICS[key] for key in keys}
    rng = np.random.default_rng(draws.seed)
    return draw_samples(pairs, draws.patient_N, draws.n_patients, draws.resamples, rng, metrics=metrics)


ERROR_RATES = {"fnr": miss_rate, "fpr": false_alarm_rate}


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
    return [
        {key: Sample(rate(*count_4C), rate(*draw_4RC)) for key, rate in ERROR_RATES.items()}
        for count_4C, draw_4RC in count_calls(called_NC, labels, draws)
    ]
