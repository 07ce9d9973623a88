"""The values of a YAML file, as the flags of the same names would give them."""

import argparse
import math
from typing import Any

from hf_cxr.arguments.components import KWARGS
from hf_cxr.arguments.flags import Flags

# Keys that take one value or a list of them.
LISTS = ("debug", "optim_target_modules", "report_to")


def is_text(action: argparse.Action, flags: Flags) -> bool:
    """Whether the key wants text: `eval_strategy: no` means the word."""
    return action.nargs is None and (action.type is str or bool(action.choices)) and action.dest not in flags.mappings


def convert(action: argparse.Action, value: Any, path: str, flags: Flags) -> Any:
    """The value as the flag's type; argparse itself converts nothing but text, and does not check choices.

    Args:
        action: the flag.
        value: from the file ``path``.
        flags: a run's.

    Raises:
        ValueError: it is not of that type, with the key and the file.
    """
    name = f"{action.dest} in {path}"
    if value is None and action.default is not None and action.dest not in flags.fixed:
        raise ValueError(f"{name} is empty; give it a value or leave the line out")
    if value is None:
        return value
    if action.choices and value not in action.choices:
        raise ValueError(f"{name} is {value!r}; choose from {', '.join(map(str, action.choices))}")
    if action.nargs == "+":
        if not isinstance(value, list):
            raise ValueError(f"{name} is {value!r}; it must be a list, like [1, 2]")
        return [_number(action.type, item, name) for item in value]
    if action.dest in KWARGS.values():
        if not isinstance(value, dict):
            raise ValueError(f"{name} is {value!r}; it must be a mapping, such as {{name: value}}")
        return value
    if isinstance(value, dict):
        if action.dest not in flags.mappings and action.dest not in flags.fixed:
            raise ValueError(f"{name} is a mapping; it must be one value")
        return value
    if isinstance(value, list):
        if action.dest not in LISTS and action.dest not in flags.fixed:
            raise ValueError(f"{name} is a list; it must be one value")
        return value
    if action.type in (int, float):
        return _number(action.type, value, name)
    if action.type is str or action.choices or isinstance(value, bool):
        return value
    try:
        return action.type(str(value))
    except argparse.ArgumentTypeError as error:
        raise ValueError(f"{name} is {value!r}; it must be true or false") from error


def _number(kind: type, value: Any, name: str) -> Any:
    if isinstance(value, kind) and not isinstance(value, bool):
        return value
    try:
        if isinstance(value, bool):
            raise ValueError
        if isinstance(value, float):  # 1e3 for a whole number
            if not (math.isfinite(value) and value.is_integer()):
                raise ValueError
            return int(value)
        return value if isinstance(value, int) else kind(value)
    except (ValueError, TypeError):
        raise ValueError(f"{name} has an invalid {kind.__name__} value: {value!r}") from None
