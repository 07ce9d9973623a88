"""Counts over images: how a number is distributed, and how often two findings occur together.

C = findings, N = images. In a matrix CC the first axis is the row, the second the column.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Distribution:
    """Whole numbers and how often each occurs, zeros in between included; mean, median and max are NaN if none does.

    >>> Distribution.of([1, 1, 4])
    Distribution(histogram={1: 2, 2: 0, 3: 0, 4: 1}, mean=2.0, median=1.0, max=4)
    """

    histogram: dict[int, int]
    mean: float
    median: float
    max: float

    @classmethod
    def of(cls, values: Sequence[int]) -> "Distribution":
        values = np.asarray(values, dtype=np.int64)
        if not len(values):
            return cls({}, float("nan"), float("nan"), float("nan"))
        counts = np.bincount(values)
        histogram = {number: int(counts[number]) for number in range(int(values.min()), len(counts))}
        return cls(histogram, float(values.mean()), float(np.median(values)), int(values.max()))

    def to_dict(self) -> dict[str, Any]:
        histogram = {str(number): count for number, count in self.histogram.items()}
        return {"mean": self.mean, "median": self.median, "max": self.max, "histogram": histogram}


@dataclass(frozen=True)
class CoOccurrence:
    """How findings occur together, each pair on the images that know both.

    Args:
        both_CC: images on which both are present; the diagonal is the positives of each.
        known_CC: images on which both cells are known.
        conditional_CC: P(column | row), from 0 to 1; the diagonal is 1. NaN where the row is never present.
        lift_CC: P(both) / (P(row) P(column)), symmetric; 1 if independent. The diagonal is 1 / P. NaN where one of
            the two is never present.
    """

    both_CC: np.ndarray
    known_CC: np.ndarray
    conditional_CC: np.ndarray
    lift_CC: np.ndarray

    def to_dict(self) -> dict[str, Any]:
        return {
            "both": self.both_CC.tolist(),
            "known": self.known_CC.tolist(),
            "conditional": self.conditional_CC.tolist(),
            "lift": self.lift_CC.tolist(),
        }


def co_occurrence(label_NC: np.ndarray) -> CoOccurrence:
    """Co-occurrence of each pair of findings, on the images that know both; labels are 1, 0 or NaN.

    >>> co_occurrence(np.array([[1, 1], [1, 0], [1, np.nan], [0, 0]])).conditional_CC
    array([[1. , 0.5],
           [1. , 1. ]])
    """
    # Products of float32 are quick, and sums of ones are exact below 2**24 images.
    positive_NC = (label_NC == 1).astype(np.float32)
    known_NC = (~np.isnan(label_NC)).astype(np.float32)
    both_CC = (positive_NC.T @ positive_NC).astype(np.int64)
    known_CC = (known_NC.T @ known_NC).astype(np.int64)
    row_CC = (positive_NC.T @ known_NC).astype(np.int64)  # the row is present and the column known
    lift_CC = ratio(both_CC * known_CC, row_CC * row_CC.T)
    return CoOccurrence(both_CC, known_CC, ratio(both_CC, row_CC), lift_CC)


def ratio(numerator, denominator) -> np.ndarray:
    """Quotient as float64, NaN where the denominator is 0."""
    numerator, denominator = np.broadcast_arrays(
        np.asarray(numerator, dtype=np.float64), np.asarray(denominator, dtype=np.float64)
    )
    return np.divide(numerator, denominator, out=np.full(numerator.shape, np.nan), where=denominator != 0)
