"""Public names of a package that are imported when they are first used, so that importing the package is quick.

    __getattr__, __dir__ = late_names(__name__, {"load_nih": "hf_cxr.data.sources.nih"})

Source: PEP 562, a module's own ``__getattr__`` and ``__dir__``.
"""

import importlib
import sys
from collections.abc import Callable, Mapping
from typing import Any


def late_names(module: str, home: Mapping[str, str]) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """The two functions of a module whose names come from other modules.

    Args:
        module: its name, ``__name__``.
        home: public name -> the module that has it.
    """

    def attribute(name: str) -> Any:
        if name not in home:
            raise AttributeError(f"module {module} has no attribute {name!r}; public: {', '.join(sorted(home))}")
        value = getattr(importlib.import_module(home[name]), name)
        setattr(sys.modules[module], name, value)  # found there from now on
        return value

    def names() -> list[str]:
        return sorted({*vars(sys.modules[module]), *home})

    return attribute, names
