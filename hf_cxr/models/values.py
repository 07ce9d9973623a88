"""Checks of single values of a config.json, and how an error quotes them."""

from collections.abc import Iterable
from typing import Any

MAX_BLOCKS = 200


def check_whole(value: Any, key: str, least: int, most: int, where: str) -> None:
    """Refuse a value that is not a whole number from ``least`` to ``most``.

    Raises:
        ValueError: the message names the key and ``where`` it is.
    """
    if type(value) is not int or not least <= value <= most:
        raise ValueError(f"{key} in {where} is {short(value)}; it must be a whole number from {least:,} to {most:,}")


def short(value: Any) -> str:
    """A value as it is written in Python, cut to 40 characters."""
    text = repr(value)
    return text if len(text) <= 40 else text[:37] + "..."


def some(names: Iterable[Any]) -> str:
    """The first five names."""
    listed = [str(name) for name in names]
    return ", ".join(listed[:5]) + (", ..." if len(listed) > 5 else "")
