"""Calls: which findings of an image a model calls present, at the operating points in its record.

A finding is called where its probability is at least its threshold. The probability is compared as it was computed, in
float32, and not as it is printed. A finding without an operating point is neither called nor not called.

C = findings.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from hf_cxr.evaluation.operating_points import OperatingPoints
from hf_cxr.inference.results import reaches

COLUMN = "called/"
"""What the column of a finding's calls is named by, such as called/Effusion."""


class Calls:
    """The calls of a model, and the columns that they have in a table.

    Args:
        label_names: C findings, in the order of the outputs.
        points: of the model's record; None for a model that has none.
    """

    def __init__(self, label_names: Sequence[str], points: OperatingPoints | None):
        self.label_names, self.points = tuple(label_names), points or OperatingPoints({})
        self.threshold_C = self.points.threshold_C(self.label_names)
        self.defined = np.flatnonzero(~np.isnan(self.threshold_C))

    @property
    def columns(self) -> list[str]:
        """A column for each finding that has an operating point."""
        return [f"{COLUMN}{self.label_names[column]}" for column in self.defined]

    def of(self, probability_C: NDArray[np.float32]) -> NDArray[np.bool_]:
        """Which findings are called, (C,); False where there is no operating point."""
        return reaches(probability_C, self.threshold_C)

    def note(self) -> str:
        """What a reader must know of the calls, in one line."""
        if not len(self.defined):
            return "this model has no operating points: probabilities only, nothing is called present or absent"
        missing = [name for number, name in enumerate(self.label_names) if number not in self.defined]
        without = f"; no operating point for {', '.join(missing)}" if missing else ""
        return (
            f"* and {COLUMN}FINDING mark the findings that reach their threshold, chosen on validation for "
            f"{self.points.words}{without}"
        )
