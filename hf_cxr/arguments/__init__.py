"""Arguments that are too long for `hf_cxr.config`, which exports them: a run's losses, and the Trainer's fields.

Each checks itself when it is built: a value that cannot work is a ValueError of one line, with the key, before any
data are read.
"""

from typing import Any


def check(holds: bool, name: str, value: Any, wanted: str) -> None:
    """Raise the ValueError of a key whose value is out of its range, unless ``holds``."""
    if not holds:
        raise ValueError(f"{name} is {value}; it must be {wanted}")
