"""The gap between a group of images and all other images, in one measure: values, intervals and p.

R = draws, C = findings, X = C findings and then their macro mean.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.stats import t

from hf_cxr.evaluation.checks import Array
from hf_cxr.evaluation.estimates import Estimates

ROUNDING = 1e-12


def with_macro(estimates_X: Estimates, names: Sequence[str]) -> dict[str, Any]:
    """For JSON: ``macro``, the last, and ``findings`` by name, each as value, low and high."""
    return {"macro": estimates_X.at(-1).to_dict(), "findings": estimates_X.by_name(names)}


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
