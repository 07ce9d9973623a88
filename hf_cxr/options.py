"""The options of a component, read from the signature and the docstring of the function or class that takes them.

A loss, a sampler or an architecture is chosen by its name, and its options are a mapping next to it: ``loss: focal``
and ``loss_kwargs: {gamma: 2}``. The name and the default of an option are in the signature alone, its meaning in the
docstring's ``Args``; help, checks and config files take them from there.
"""

import difflib
import inspect
import re
import textwrap
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from numbers import Integral, Real
from types import NoneType
from typing import Any, get_args

# Annotation -> what a value may be, and the word for it. A value of any other annotation is checked by the component.
KINDS = {
    bool: (bool, "true or false"),
    float: (Real, "a number"),
    int: (Integral, "a whole number"),
    str: (str, "text"),
    NoneType: (NoneType, "null"),
}


@dataclass(frozen=True)
class Option:
    """One keyword argument: its name, its default, the types it may have and its line of the docstring."""

    name: str
    default: Any
    annotation: Any = Any
    meaning: str = ""


def options_of(make: Callable, without: Collection[str] = ()) -> dict[str, Option]:
    """The keyword arguments of a function or class that have a default, in order.

    Args:
        make: its docstring, or one of a class that it inherits from, has a section ``Args``.
        without: names that are not options.

    >>> def scale(image, factor: float = 2.0):
    ...     '''Scale an image.
    ...
    ...     Args:
    ...         image: (H, W).
    ...         factor: above 0; 1 leaves the image
    ...             as it is.
    ...     '''
    >>> options_of(scale)["factor"].meaning
    'above 0; 1 leaves the image as it is.'
    """
    meanings: dict[str, str] = {}
    for documented in reversed(inspect.getmro(make) if inspect.isclass(make) else (make,)):
        meanings |= _meanings(inspect.getdoc(documented) or "")
    return {
        name: Option(name, parameter.default, parameter.annotation, meanings.get(name, ""))
        for name, parameter in inspect.signature(make).parameters.items()
        if parameter.default is not parameter.empty and name not in without and not name.startswith("_")
    }


def check_options(component: str, given: Mapping[str, Any], options: Mapping[str, Option]) -> None:
    """Refuse an option that the component does not take, and a value of another type; None stands for the default.

    Raises:
        ValueError: names the option and the nearest known one; ranges are left to the component.

    >>> check_options("focal", {"gama": 1}, {"gamma": Option("gamma", 2.0)})
    Traceback (most recent call last):
    ValueError: focal takes no option 'gama'; did you mean gamma?; its options: gamma
    """
    for name, value in given.items():
        if name not in options:
            listed = ", ".join(options) or "none"
            raise ValueError(f"{component} takes no option {name!r}{nearest(name, options)}; its options: {listed}")
        if value is None:
            continue
        kinds = set(get_args(options[name].annotation) or (options[name].annotation,))
        if kinds <= set(KINDS) and not any(_is(value, kind) for kind in kinds):
            wanted = " or ".join(word for kind, (_, word) in KINDS.items() if kind in kinds)
            raise ValueError(f"{name} is {value!r}, but {component} takes {wanted}")


def filled(given: Mapping[str, Any], options: Mapping[str, Option]) -> dict[str, Any]:
    """The given options, and the default of each that is not given; as YAML has them: lists, and no None.

    >>> filled({"b": 3}, {"a": Option("a", (1, 2)), "b": Option("b", 2), "c": Option("c", None)})
    {'a': [1, 2], 'b': 3}
    """
    values = {name: option.default for name, option in options.items()}
    values |= {name: value for name, value in given.items() if value is not None}
    return {
        name: list(value) if isinstance(value, tuple) else value for name, value in values.items() if value is not None
    }


def nearest(word: str, known: Iterable[str]) -> str:
    """The part of a message that names the nearest known word, or nothing."""
    found = difflib.get_close_matches(str(word), list(known), n=1)
    return f"; did you mean {found[0]}?" if found else ""


def _is(value: Any, kind: type) -> bool:
    return isinstance(value, KINDS[kind][0]) and (kind is bool or not isinstance(value, bool))


def _meanings(docstring: str) -> dict[str, str]:
    """Name -> text, from a docstring's ``Args``: ``name: text``, ``a, b: text``, or transformers' ``name (type):``."""
    section = re.search(r"^Args:\n((?:[ \t]+.*\n?|\n)*)", docstring, re.MULTILINE)
    meanings: dict[str, str] = {}
    names: list[str] = []
    for line in textwrap.dedent(section[1]).splitlines() if section else ():
        entry = re.match(r"((?:\w+, )*\w+)(?: \(.*\))?:(?: |$)(.*)", line)
        if entry:
            names = entry[1].split(", ")
        elif not line.startswith(" "):
            names = []  # a remark between the entries
        for name in names:
            meanings[name] = f"{meanings.get(name, '')} {entry[2] if entry else line.strip()}".strip()
    return meanings
