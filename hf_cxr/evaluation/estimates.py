"""A value with its interval, and ratios of sums under the draws of patients.

A mean, a share, or a mean over a subset is a ratio of two sums over images. The sums are taken once for each patient;
a draw of patients is then one product of a row of weights and a matrix, whatever the number of images.

N = images, M = patients, R = draws, X = any number of quantities.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import betaincinv

from hf_cxr.evaluation.checks import Array
from hf_cxr.evaluation.draws import PatientDraws, percentile_interval


class Estimate(NamedTuple):
    """A value and the ends of its interval; floats, or float64 arrays of one shape. NaN where undefined."""

    value: Any
    low: Any
    high: Any

    @classmethod
    def of(cls, value_X: ArrayLike, draw_RX: Array, confidence: float) -> "Estimate":
        """The percentile interval over the draws that define the quantity; NaN where the value itself is NaN."""
        value_X = np.asarray(value_X, dtype=np.float64)
        low_X, high_X = (np.where(np.isnan(value_X), np.nan, end) for end in percentile_interval(draw_RX, confidence))
        return cls(value_X, low_X, high_X)

    def at(self, place: int) -> "Estimate":
        """One of several, as floats."""
        return Estimate(*(float(end[place]) for end in self))

    def to_dict(self) -> dict[str, float]:
        """For JSON: value, low, high."""
        return {name: float(end) for name, end in zip(self._fields, self, strict=True)}


def patient_sums(value_NX: ArrayLike, patient_N: NDArray[np.int64], n_patients: int) -> Array:
    """The sum over each patient's images, (M, X) float64.

    Args:
        value_NX: of each image; (N,) is one quantity.
        patient_N: the number of each image's patient, 0 to M - 1. A patient without an image here has sum 0.
        n_patients: M.

    >>> patient_sums([1, 2, 4], np.array([0, 2, 2]), 3).tolist()
    [[1.0], [0.0], [6.0]]
    """
    value_NX = np.asarray(value_NX, dtype=np.float64)
    value_NX = value_NX[:, None] if value_NX.ndim == 1 else value_NX
    columns = [np.bincount(patient_N, weights=value_N, minlength=n_patients) for value_N in value_NX.T]
    return np.stack(columns, axis=1)


def draw_sums(draws: PatientDraws, sums: Sequence[Array]) -> list[Array]:
    """Each of several matrices of sums per patient (M, X), under each draw of patients: (R, X). One pass."""
    out = [np.empty((draws.resamples, sum_MX.shape[1])) for sum_MX in sums]
    for rows, weight_RM in draws.blocks():
        weight_RM = np.asarray(weight_RM, dtype=np.float64)
        for draw_RX, sum_MX in zip(out, sums, strict=True):
            draw_RX[rows] = weight_RM @ sum_MX
    return out


def ratio(numerator: ArrayLike, denominator: ArrayLike) -> Array:
    """The quotient, NaN where the denominator is 0.

    >>> ratio([1.0, 0.0], [2.0, 0.0])
    array([0.5, nan])
    """
    numerator, denominator = np.asarray(numerator, dtype=np.float64), np.asarray(denominator, dtype=np.float64)
    shape = np.broadcast_shapes(numerator.shape, denominator.shape)
    return np.divide(numerator, denominator, out=np.full(shape, np.nan), where=denominator != 0)


def share_interval(
    share_X: ArrayLike, draw_RX: Array, *, images_X: ArrayLike, patients_X: ArrayLike, confidence: float
) -> Estimate:
    """The interval of a share of images that stays honest near 0 and 1, where all draws are alike.

    Clopper and Pearson's exact limits for n trials with n * share successes, where n is the number of independent
    images that would have the variance of the draws of patients: share * (1 - share) / variance, at most the number
    of images. A share of 0 or 1, of which every draw is the same, has the number of patients for n.

    Source: Korn and Graubard, Survey Methodology 24 (1998).

    Args:
        share_X: in [0, 1], NaN where undefined.
        draw_RX: the same in each draw of patients.
        images_X, patients_X: how many there are; a share among none is undefined.
        confidence: in (0, 1).
    """
    share_X, patients_X = np.asarray(share_X, dtype=np.float64), np.asarray(patients_X, dtype=np.float64)
    with np.errstate(invalid="ignore"):
        mean_X = np.nanmean(np.where(np.isnan(draw_RX).all(axis=0), 0.0, draw_RX), axis=0)
        variance_X = np.nanmean(np.where(np.isnan(draw_RX).all(axis=0), 0.0, (draw_RX - mean_X) ** 2), axis=0)
    effective_X = ratio(share_X * (1 - share_X), variance_X)
    effective_X = np.where(effective_X > 0, np.minimum(effective_X, images_X), patients_X)
    present_X, absent_X, tail = share_X * effective_X, (1 - share_X) * effective_X, (1 - confidence) / 2
    with np.errstate(invalid="ignore"):
        low_X = np.where(present_X > 0, betaincinv(present_X, absent_X + 1, tail), 0.0)
        high_X = np.where(absent_X > 0, betaincinv(present_X + 1, absent_X, 1 - tail), 1.0)
    return Estimate(share_X, *(np.where(np.isnan(share_X), np.nan, end_X) for end_X in (low_X, high_X)))
