"""A value with its interval: `Estimate`, and `Estimates` for arrays of them; ratios and shares.

R = draws, X = any number of quantities.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import betaincinv

from hf_cxr.evaluation.checks import Array
from hf_cxr.evaluation.draws import percentile_interval


@dataclass(frozen=True)
class Estimate:
    """A value and the ends of its interval, NaN where undefined; and the number of draws that define it, if known."""

    value: float
    low: float
    high: float
    draws: int | None = None

    @property
    def interval(self) -> tuple[float, float, float]:
        """Value, low, high."""
        return self.value, self.low, self.high

    def to_dict(self) -> dict[str, Any]:
        """For JSON: value, low, high, and draws if they were counted."""
        values = dict(zip(("value", "low", "high"), self.interval, strict=True))
        return values if self.draws is None else {**values, "draws": self.draws}


@dataclass(frozen=True, eq=False)
class Estimates:
    """Values and the ends of their intervals, float64 arrays of one shape; NaN where undefined."""

    value_X: Array
    low_X: Array
    high_X: Array

    @classmethod
    def of(cls, value_X: ArrayLike, draw_RX: Array, confidence: float) -> "Estimates":
        """Percentile intervals over the draws that define a quantity; NaN where the value itself is NaN."""
        value_X = np.asarray(value_X, dtype=np.float64)
        low_X, high_X = (np.where(np.isnan(value_X), np.nan, end) for end in percentile_interval(draw_RX, confidence))
        return cls(value_X, low_X, high_X)

    def at(self, place: int | tuple[int, ...]) -> Estimate:
        """One of them."""
        return Estimate(*(float(end[place]) for end in (self.value_X, self.low_X, self.high_X)))

    def by_name(self, names: Sequence[str]) -> dict[str, dict[str, Any]]:
        """For JSON: name -> value, low, high."""
        return {name: self.at(place).to_dict() for place, name in enumerate(names)}

    def row(self, place: int) -> dict[str, list[float]]:
        """For JSON: value, low and high of one row, such as a curve, each a list."""
        ends = {"value": self.value_X, "low": self.low_X, "high": self.high_X}
        return {name: end_XK[place].tolist() for name, end_XK in ends.items()}

    def round(self, digits: int) -> "Estimates":
        """For values that are for drawing alone."""
        return Estimates(*(end_X.round(digits) for end_X in (self.value_X, self.low_X, self.high_X)))


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
) -> Estimates:
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
    return Estimates(share_X, *(np.where(np.isnan(share_X), np.nan, end_X) for end_X in (low_X, high_X)))
