"""Files are written beside and renamed, so that a reader, or a job killed in mid-write, never sees half of one."""

import json
import math
import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """A temporary path beside ``path`` that takes its place when the block ends well, and is removed when it does not.

    The content is on the disk before the name is, so a power cut leaves the old file or the new one.

    >>> import tempfile
    >>> target = Path(tempfile.mkdtemp()) / "a.txt"
    >>> with replacing(target) as beside:
    ...     _ = beside.write_text("whole")
    >>> target.read_text(), len(list(target.parent.iterdir()))
    ('whole', 1)
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{path.stem}-", suffix=path.suffix, dir=path.parent)
    os.close(handle)
    beside = Path(name)
    try:
        yield beside
        _settle(beside, path)
    finally:
        beside.unlink(missing_ok=True)


def check_writable(path: str | Path) -> None:
    """Refuse a place where a file cannot be written, before the work whose result it is to hold.

    Raises:
        OSError: it is a folder, or one may not write there; the message names the place and the repair.
    """
    path = Path(path)
    if path.is_dir():
        raise IsADirectoryError(f"{path} is a folder; give the name of a file")
    try:
        with replacing(path.with_name(f"{path.name}.try")):
            pass
    except OSError as error:
        raise OSError(f"cannot write {path}: {error.strerror}; give another place, or the right to write") from error
    path.with_name(f"{path.name}.try").unlink()


def replace_all(source: str | Path, target: str | Path, *, last: str) -> None:
    """Move the files of a folder over those of another, ``last`` at the end: a reader looks for that one first."""
    files = sorted(Path(source).iterdir(), key=lambda file: file.name == last)
    for file in files:
        _settle(file, Path(target) / file.name)


def write_text(path: str | Path, text: str) -> None:
    """Write UTF-8 text whole or not at all."""
    with replacing(path) as beside:
        beside.write_text(text, encoding="utf-8")


def write_json(path: str | Path, value: Any) -> None:
    """Write JSON whole or not at all; a number that is not finite becomes null, as `plain` has it."""
    write_text(path, json.dumps(plain(value), indent=2, allow_nan=False, ensure_ascii=False) + "\n")


def plain(value: Any) -> Any:
    """The value as JSON can say it: tuples are lists, and NaN and infinities, which JSON lacks, are None.

    >>> plain({"auc": float("nan"), "grad_norm": (1.0, float("inf"))})
    {'auc': None, 'grad_norm': [1.0, None]}
    """
    if isinstance(value, Mapping):
        return {key: plain(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [plain(entry) for entry in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _settle(beside: Path, path: Path) -> None:
    beside.chmod(0o666 & ~_umask())  # temporary files are made with mode 0600; this one should be as any other
    with beside.open("r+b") as file:  # Windows syncs no file that is open for reading alone
        os.fsync(file.fileno())
    os.replace(beside, path)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
