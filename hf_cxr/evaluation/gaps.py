"""The gap between a group of images and all other images, in one measure: values, intervals and p.

R = draws, C = findings, X = C findings and then their macro mean.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.stats import t

from hf_cxr.evaluation.checks import Array
from hf_cxr.evaluation.draws import percentile_interval

ROUNDING = 1e-12


@dataclass(frozen=True, eq=False)
class Estimates:
    """A value for each finding and then for the macro mean, with percentile interval; all (C + 1,), NaN undefined."""

    value_X: Array
    low_X: Array
    high_X: Array

    @classmethod
    def of(cls, value_X: Array, draw_RX: Array, confidence: float) -> "Estimates":
        """From the full sample and its draws; no interval where there is no value."""
        low_X, high_X = percentile_interval(np.where(np.isnan(value_X), np.nan, draw_RX), confidence)
        return cls(value_X, low_X, high_X)

    @property
    def macro(self) -> tuple[float, float, float]:
        """Of the macro mean: value, low, high."""
        return self.at(-1)

    def at(self, place: int) -> tuple[float, float, float]:
        """Of a finding: value, low, high."""
        return float(self.value_X[place]), float(self.low_X[place]), float(self.high_X[place])

    def to_dict(self, names: Sequence[str]) -> dict[str, Any]:
        """``macro`` and ``findings``, each as [value, low, high]."""
        return {"macro": list(self.macro), "findings": {name: list(self.at(row)) for row, name in enumerate(names)}}


@dataclass(frozen=True, eq=False)
class Compared:
    """One measure of a group and of all other images, over the same findings and draws.

    Attributes:
        group, rest, gap: the gap is group minus rest.
        p_X: two-sided p value of each gap; NaN where undefined or not tested.
        p_corrected_X: by Holm, see the module's first lines.
    """

    group: Estimates
    rest: Estimates
    gap: Estimates
    p_X: Array
    p_corrected_X: Array


def gap_p(gap_X: Array, draw_RX: Array) -> Array:
    """Two-sided p of each gap, by Student's t with the standard deviation of its draws; NaN where undefined.

    Draws that are all alike say only that the share of draws beyond zero is below one in R: 2 / (R + 1) then.
    """
    defined_X = (~np.isnan(draw_RX)).sum(axis=0)
    spread = zip(draw_RX.T, defined_X, strict=True)
    sd_X = np.array([np.nanstd(draw_R, ddof=1) if defined > 1 else np.nan for draw_R, defined in spread])
    with np.errstate(divide="ignore", invalid="ignore"):
        p_X = 2 * t.sf(np.abs(gap_X) / sd_X, defined_X - 1)
    constant_X = np.where(np.abs(gap_X) <= ROUNDING, 1.0, 2 / (len(draw_RX) + 1))
    return np.where(np.isnan(gap_X) | np.isnan(sd_X), np.nan, np.where(sd_X <= ROUNDING, constant_X, p_X))
