"""Numbers as text: decimals, intervals, signs, p values, percentages. Undefined is named, never left out.

What an analysis measured comes as plain values: a number with its interval is {"value", "low", "high"}, None where
undefined.
"""

import math
import re
from collections.abc import Iterable, Mapping
from typing import Any

from hf_cxr.evaluation.metric import as_number

_LEADING = re.compile(r"[<>≤≥+]?\s*([−-]?(?:\d[\d,]*(?:\.\d+)?|\.\d+)(?:e[+-]?\d+)?)")


def triple(one: Mapping[str, Any], keys: Iterable[str] = ("value", "low", "high")) -> tuple[float, ...]:
    """Value, low and high of plain values, NaN for None.

    >>> triple({"value": 0.5, "low": 0.4, "high": None})
    (0.5, 0.4, nan)
    """
    return tuple(as_number(one[key]) for key in keys)


def macro_triple(measured: Mapping[str, Any]) -> tuple[float, ...]:
    """The macro mean with its interval, of `Measured.to_dict`."""
    return triple(measured, ("macro", "macro_low", "macro_high"))


def finding_triple(measured: Mapping[str, Any], name: str) -> tuple[float, ...]:
    """A finding with its interval, of `Measured.to_dict`."""
    return triple({key: measured[key][name] for key in ("value", "low", "high")})


def in_percent(confidence: float) -> str:
    """The confidence of an interval, or a stated share.

    >>> in_percent(0.95), in_percent(0.995)
    ('95 %', '99.5 %')
    """
    return f"{100 * confidence:g} %"


def number(value: float) -> str:
    """Three decimals, or "undefined" for NaN."""
    return "undefined" if math.isnan(value) else f"{value:.3f}".replace("-", "−")


def interval(low: float, high: float) -> str:
    """The two ends, or "undefined" for NaN.

    >>> interval(0.79, 0.834), interval(-0.1, 0.2)
    ('0.790–0.834', '−0.100 to 0.200')
    """
    if math.isnan(low):
        return "undefined"
    return f"{number(low)}{' to ' if low < 0 else '–'}{number(high)}"


def with_interval(value: float, low: float, high: float) -> str:
    """A number with its interval; each may be NaN.

    >>> with_interval(0.8124, 0.79, 0.834), with_interval(math.nan, math.nan, math.nan)
    ('0.812 (0.790–0.834)', 'undefined')
    """
    return "undefined" if math.isnan(value) else f"{number(value)} ({interval(low, high)})"


def with_sd(mean: float, sd: float) -> str:
    """A mean with its standard deviation, which one value alone does not have.

    >>> with_sd(0.8, 0.01), with_sd(0.8, math.nan)
    ('0.800 ± 0.010', '0.800')
    """
    return number(mean) + ("" if math.isnan(sd) or math.isnan(mean) else f" ± {sd:.3f}")


def signed(value: float) -> str:
    """A difference, always with its sign.

    >>> signed(-0.0123), signed(0.5)
    ('−0.012', '+0.500')
    """
    return "undefined" if math.isnan(value) else f"{value:+.3f}".replace("-", "−")


def signed_interval(value: float, low: float, high: float) -> str:
    """A difference with its interval.

    >>> signed_interval(-0.1, -0.2, 0.01)
    '−0.100 (−0.200 to +0.010)'
    """
    return "undefined" if math.isnan(value) else f"{signed(value)} ({signed(low)} to {signed(high)})"


def p_value(value: float) -> str:
    """As many decimals as matter.

    >>> p_value(0.0004), p_value(0.0123), p_value(0.4)
    ('<0.001', '0.012', '0.40')
    """
    if math.isnan(value):
        return "undefined"
    return "<0.001" if value < 0.001 else f"{value:.3f}" if value < 0.1 else f"{value:.2f}"


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


def percent_in_tenths(value: float | None) -> str:
    """Always one decimal, for a column of shares; "undefined" for NaN and None.

    >>> [percent_in_tenths(share) for share in (0, 1e-4, 0.995, 0.9999, 1)]
    ['0.0 %', '<0.1 %', '99.5 %', '>99.9 %', '100.0 %']
    """
    share = 100 * as_number(value)
    if math.isnan(share):
        return "undefined"
    if 0 < share < 0.05:
        return "<0.1 %"
    return ">99.9 %" if 99.95 <= share < 100 else f"{share:.1f} %"


def percent_in_tenths_with_interval(estimate: Mapping[str, Any]) -> str:
    """A share with its interval, each with one decimal.

    >>> percent_in_tenths_with_interval({"value": 0.0175, "low": 0.0088, "high": 0.0312})
    '1.8 % (0.9–3.1)'
    """
    if math.isnan(as_number(estimate["value"])):
        return "undefined"
    low, high = (percent_in_tenths(estimate[end]).removesuffix(" %") for end in ("low", "high"))
    return f"{percent_in_tenths(estimate['value'])} ({low}–{high})"


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
    value, low, high = triple(estimate)
    if math.isnan(value):
        return "undefined"
    ends = "undefined" if math.isnan(low) else f"{low:.{digits}f}{' to ' if low < 0 else '–'}{high:.{digits}f}"
    return f"{value:.{digits}f} ({ends})".replace("-", "−")


def change_with_interval(estimate: Mapping[str, Any], digits: int = 4) -> str:
    """A difference with its interval, signed.

    >>> change_with_interval({"value": -0.00123, "low": -0.002, "high": 0.0})
    '−0.0012 (−0.0020 to +0.0000)'
    """
    value, low, high = triple(estimate)
    if math.isnan(value):
        return "undefined"
    return f"{value:+.{digits}f} ({low:+.{digits}f} to {high:+.{digits}f})".replace("-", "−")


def join(names) -> str:
    """Names as an English list.

    >>> join(["AUC"]), join(["AUC", "mAP"]), join("abc")
    ('AUC', 'AUC and mAP', 'a, b and c')
    """
    *first, last = names
    return f"{', '.join(first)} and {last}" if first else last


def by_reason(reasons: Mapping[str, str]) -> tuple[str, ...]:
    """Names by the reason that they share, a sentence each.

    >>> by_reason({"Mass": "no image", "Edema": "no score", "Hernia": "no image"})
    ('Mass and Hernia: no image.', 'Edema: no score.')
    """
    names: dict[str, list[str]] = {}
    for name, reason in reasons.items():
        names.setdefault(reason, []).append(name)
    return tuple(f"{join(same)}: {reason}." for reason, same in names.items())


def leading_number(text: str) -> float | None:
    """The number that a cell begins with, such as the value before its interval; None if it begins with none.

    >>> [leading_number(text) for text in ("0.812 (0.790–0.834)", "1,234 (56)", "−0.1 (−0.2 to +0.1)", "<0.001")]
    [0.812, 1234.0, -0.1, 0.001]
    >>> leading_number("undefined"), leading_number("infinite"), leading_number("2.7e-05")
    (None, inf, 2.7e-05)
    """
    if text.startswith("infinite"):
        return math.inf
    match = _LEADING.match(text)
    return float(match[1].replace(",", "").replace("−", "-")) if match else None
