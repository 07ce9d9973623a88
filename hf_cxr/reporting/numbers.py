"""Numbers as text: three decimals, intervals, signs, p values. Undefined is named, never left out."""

import math
import re

_LEADING = re.compile(r"[<>≤≥+]?\s*([−-]?(?:\d[\d,]*(?:\.\d+)?|\.\d+)(?:e[+-]?\d+)?)")


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


def join(names) -> str:
    """Names as an English list.

    >>> join(["AUC"]), join(["AUC", "mAP"]), join("abc")
    ('AUC', 'AUC and mAP', 'a, b and c')
    """
    *first, last = names
    return f"{', '.join(first)} and {last}" if first else last


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
