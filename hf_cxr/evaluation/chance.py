"""What random scores reach: the mean average precision of a random order lies above the prevalence.

    random_ap(positives_C, negatives_C)          # (C,), 0.033 for 20 positives of 800 images; the prevalence is 0.025

With many positives the two are the same to three decimals. With few, the first positive of a random order may come
early by luck, and precision is then far above the prevalence, more than it is below it where the positive comes late.

C = findings.
"""

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import digamma

from hf_cxr.evaluation.checks import Array


def random_ap(positives_C: ArrayLike, negatives_C: ArrayLike) -> Array:
    """The expected step-wise average precision of scores in random order, without ties.

    With n positives of N images and H = 1 + 1/2 + ... + 1/N it is (H + (N - H) (n - 1) / (N - 1)) / N. Scores that are
    all equal reach the prevalence n / N exactly. How images belong to patients does not matter: the order is random
    over images.

    Args:
        positives_C, negatives_C: (C,) numbers of known labels, at least 0.

    Returns:
        (C,) float64 in [n / N, 1]; NaN where a side is empty, as the metric itself.

    Source: Bestgen, Computational Linguistics 41 (2015), "Exact expected average precision of the random baseline".
    """
    n_C, negative_C = (np.asarray(count, dtype=np.float64) for count in (positives_C, negatives_C))
    all_C = n_C + negative_C
    with np.errstate(invalid="ignore", divide="ignore"):
        harmonic_C = digamma(all_C + 1) + np.euler_gamma
        expected_C = (harmonic_C + (all_C - harmonic_C) * (n_C - 1) / (all_C - 1)) / all_C
    return np.where((n_C > 0) & (negative_C > 0), expected_C, np.nan)
