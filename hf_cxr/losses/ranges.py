"""Ranges of the options that several losses have. A value outside is a ValueError that names the option."""

import math


def check_above_zero(**options: float) -> None:
    """Finite and above 0."""
    for name, value in options.items():
        if not 0 < value < math.inf:
            raise ValueError(f"{name} must be finite and above 0; got {value}")


def check_hill_lambda(hill_lambda: float) -> None:
    """Finite and at least 1."""
    if not 1 <= hill_lambda < math.inf:
        raise ValueError(f"hill_lambda must be finite and at least 1; got {hill_lambda}")


def check_at_least_zero(**options: float) -> None:
    """Finite and 0 or more."""
    for name, value in options.items():
        if not 0 <= value < math.inf:
            raise ValueError(f"{name} must be finite and not negative; got {value}")


def check_margin(margin: float) -> None:
    """In [0, 1)."""
    if not 0 <= margin < 1:
        raise ValueError(f"margin must lie in [0, 1); got {margin}")
