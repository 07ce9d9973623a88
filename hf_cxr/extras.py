"""Optional parts of the package: the line that installs one, and the error where it is missing.

An extra is a name in pyproject.toml, such as onnx. Its packages are imported where they are used.
"""

import importlib.util

EXTRAS = ("demo", "dicom", "docs", "explain", "fast", "onnx", "serve", "timm", "tune", "track", "all", "dev")
REMARKS = {"timm": "; the extra all leaves it out, because it brings torchvision"}


class MissingExtraError(ValueError):
    """What is asked for needs an extra that is not installed."""


def install_line(extra: str) -> str:
    """The command that installs an extra.

    Raises:
        KeyError: the package has no such extra.

    >>> install_line("onnx")
    "pip install 'hf-cxr[onnx]'"
    """
    if extra not in EXTRAS:
        raise KeyError(extra)
    return f"pip install 'hf-cxr[{extra}]'"


def need(what: str, extra: str, *modules: str) -> None:
    """Refuse to begin without the modules of an extra.

    Args:
        what: needs them, such as "hf-cxr tune".
        extra: that has them.
        modules: their names, as they are imported. None of them is imported here.

    Raises:
        MissingExtraError: with the names of those that are missing, and the line that installs them.
    """
    line = install_line(extra)
    missing = [name for name in modules if importlib.util.find_spec(name) is None]
    if missing:
        does = "is" if len(missing) == 1 else "are"
        raise MissingExtraError(
            f"{what} needs {' and '.join(missing)}, which {does} not installed: {line}{REMARKS.get(extra, '')}"
        )
