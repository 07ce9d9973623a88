"""Intervals that do not contain their value: whether there are any, and the sentence that explains them."""

from collections.abc import Iterable

import numpy as np
from numpy.typing import ArrayLike

from hf_cxr.reporting.numbers import join

ROUNDING = 1e-9


def is_outside(value: ArrayLike, low: ArrayLike, high: ArrayLike) -> bool:
    """Whether any value lies outside its own interval; NaN does not.

    >>> is_outside(0.02, 0.03, 0.04), is_outside([0.1, float("nan")], [0.0, 0.2], [0.3, 0.4])
    (True, False)
    """
    value, low, high = (np.asarray(one, dtype=np.float64) for one in (value, low, high))
    return bool(((value < low - ROUNDING) | (value > high + ROUNDING)).any())


def outside_words(titles: Iterable[str]) -> str:
    """What to think of such intervals; "" if there are none, else a sentence that begins with a space.

    Args:
        titles: of the metrics that have such an interval.
    """
    titles = list(titles)
    if not titles:
        return ""
    return (
        f" Some values of {join(titles)} lie outside their interval: a draw repeats patients, and a figure that grows "
        "with chance, as a calibration error does, is then larger than in the sample itself."
    )
