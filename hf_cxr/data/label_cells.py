"""One rule for a cell of a table that holds a label, and for one that holds nothing.

| written                              | a label                                                         |
|--------------------------------------|-----------------------------------------------------------------|
| 1, 1.0, true                         | present, 1                                                      |
| 0, 0.0, false                        | absent, 0                                                       |
| -1, -1.0                             | `UNCERTAIN`: a table's description says what it becomes         |
| empty, NaN, NA, n/a, -, none, #N/A.. | `NOTHING`: nothing is said, and a description says what it becomes |
| anything else                        | not a label                                                     |
"""

import math
from typing import Any

import numpy as np
import pandas as pd

EMPTY = frozenset(("", "nan", "null", "<na>"))
"""Texts of an empty cell of any column, in lower case."""

PLACEHOLDERS = EMPTY | {"none", "na", "n/a", "#n/a", "#na", "-nan", "nat", "-", "--"}
"""Texts that programs write for "nothing here", in lower case. Not of every column: NA may be a patient's id."""

UNCERTAIN, NOTHING = -1.0, math.inf

LABELS = {"1": 1.0, "1.0": 1.0, "true": 1.0, "0": 0.0, "0.0": 0.0, "false": 0.0}
LABELS |= {"-1": UNCERTAIN, "-1.0": UNCERTAIN} | dict.fromkeys(PLACEHOLDERS, NOTHING)


def is_placeholder(cell: Any) -> bool:
    """Whether a cell says nothing.

    >>> [is_placeholder(cell) for cell in (" N/A ", "-", None, float("nan"), 0, "no")]
    [True, True, True, True, False, False]
    """
    if cell is None or cell is pd.NA:
        return True
    return cell.strip().lower() in PLACEHOLDERS if isinstance(cell, str) else bool(cell != cell)


def label_of(cell: Any) -> float | None:
    """1, 0, `UNCERTAIN` or `NOTHING`; None if the cell is not a label.

    >>> [label_of(cell) for cell in ("True", 0, -1, "--", 0.5)]
    [1.0, 0.0, -1.0, inf, None]
    """
    if is_placeholder(cell):
        return NOTHING
    if isinstance(cell, bool | np.bool_):
        return float(cell)
    return LABELS.get(str(cell).strip().lower())
