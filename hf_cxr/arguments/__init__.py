"""Arguments that are too long for `hf_cxr.config`, which exports them: the data, the losses and the Trainer's fields.

Each checks itself when it is built: a value that cannot work is a ValueError of one line, with the key, before any
data are read.
"""

from pathlib import Path
from typing import Any


def check(holds: bool, name: str, value: Any, wanted: str) -> None:
    """Raise the ValueError of a key whose value is out of its range, unless ``holds``."""
    if not holds:
        raise ValueError(f"{name} is {value}; it must be {wanted}")


def expanded(path: str | None) -> str | None:
    """The path with ~ as the home folder, which a shell leaves alone in --key=~/x and in a YAML file."""
    return str(Path(path).expanduser()) if path and path.startswith("~") else path
