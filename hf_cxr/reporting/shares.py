"""Shares as percentages with as many digits as matter, from 0.02 % to 20 %; small differences of log loss."""

import math
from collections.abc import Mapping
from typing import Any

from hf_cxr.evaluation.metric import as_number


def percent(value: float | None) -> str:
    """One decimal; two digits that tell it from 0 or 100 %, up to three decimals; "undefined" for NaN and None.

    >>> percent(0.1234), percent(0.00214), percent(0.99957), percent(1e-7), percent(0.0), percent(None)
    ('12.3 %', '0.21 %', '99.957 %', '<0.001 %', '0 %', 'undefined')
    """
    share = 100 * as_number(value)
    if math.isnan(share):
        return "undefined"
    if share == 0 or share == 100:
        return f"{share:.0f} %"
    if min(share, 100 - share) < 5e-4:
        return "<0.001 %" if share < 50 else ">99.999 %"
    if min(share, 100 - share) >= 1:
        return f"{share:.1f} %"
    digits = min(3, 1 - math.floor(math.log10(min(share, 100 - share))))
    return f"{share:.{digits}f} %"


def percent_with_interval(estimate: Mapping[str, Any]) -> str:
    """A share with its interval, from ``value``, ``low`` and ``high``.

    >>> percent_with_interval({"value": 0.5, "low": 0.4, "high": 0.612})
    '50.0 % (40.0–61.2)'
    """
    if math.isnan(as_number(estimate["value"])):
        return "undefined"
    low, high = (percent(estimate[end]).removesuffix(" %") for end in ("low", "high"))
    return f"{percent(estimate['value'])} ({low}–{high})"


def ratio_with_interval(estimate: Mapping[str, Any], digits: int = 2) -> str:
    """A number with its interval, such as a slope.

    >>> ratio_with_interval({"value": 0.987, "low": 0.9, "high": 1.104})
    '0.99 (0.90–1.10)'
    """
    value, low, high = (as_number(estimate[key]) for key in ("value", "low", "high"))
    if math.isnan(value):
        return "undefined"
    ends = f"{low:.{digits}f} to {high:.{digits}f}" if low < 0 else f"{low:.{digits}f}–{high:.{digits}f}"
    return f"{value:.{digits}f} ({ends})".replace("-", "−")


def change_with_interval(estimate: Mapping[str, Any], digits: int = 4) -> str:
    """A difference with its interval, signed.

    >>> change_with_interval({"value": -0.00123, "low": -0.002, "high": 0.0})
    '−0.0012 (−0.0020 to +0.0000)'
    """
    value, low, high = (as_number(estimate[key]) for key in ("value", "low", "high"))
    if math.isnan(value):
        return "undefined"
    return f"{value:+.{digits}f} ({low:+.{digits}f} to {high:+.{digits}f})".replace("-", "−")
