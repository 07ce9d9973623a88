"""Which image files were found to be sound before: a memory in one file, shared by all runs of this user.

A file is known by the path, the size and the time of change that it had when it was checked, and by the versions of
what decodes. It is one row of 32 bytes: a million files take 32 MB on disk and in memory, and no Python objects.
What could not be read is not remembered, because a decoder may be installed or a disk mounted before the next try.

| memory                                | what happens                                                                |
|---------------------------------------|-----------------------------------------------------------------------------|
| written by several processes at once  | one after another, behind a lock; the new file replaces the old one whole   |
| truncated, changed, of another format | taken as empty, and rewritten                                            |
| in a folder that cannot be written    | one warning; the images are checked again at the next start                 |
| longer than `MOST` rows               | the rows that were checked longest ago go                                   |

F = files.
"""

import functools
import hashlib
import logging
import os
import time
import zlib
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path

import numpy as np
import pandas as pd
from filelock import FileLock, Timeout
from numpy.typing import NDArray

from hf_cxr.data.images.grey import RULE
from hf_cxr.data.images.waiting import FileLooks
from hf_cxr.files import replacing

logger = logging.getLogger(__name__)

MAGIC = b"cxrsound"
MOST = 10_000_000  # rows: 320 MB on disk
HEADER, DECODED, DARK = 1, 2, 4  # flags: looks whole; was decoded; comes out far too dark
ROW = np.dtype([("name", "<u8"), ("size", "<i8"), ("changed", "<i8"), ("day", "<u4"), ("flags", "<u4")])


class SoundFiles:
    """The memory, as it was when this object was made.

    Args:
        path: of its file; None remembers nothing.
    """

    def __init__(self, path: Path | None):
        self.path = path
        self._rows = self._read()

    def __len__(self) -> int:
        return len(self._rows)

    def flags(self, row_F: NDArray) -> NDArray[np.uint32]:
        """What is known of files in exactly this state: (F,) flags, 0 where nothing is.

        Args:
            row_F: (F,) of `ROW`, from `states`; its days and flags do not matter.
        """
        found_F = np.searchsorted(self._rows["name"], row_F["name"])
        known = np.zeros(len(row_F), dtype=np.uint32)
        inside = np.flatnonzero(found_F < len(self._rows))
        match = self._rows[found_F[inside]]
        same = np.ones(len(inside), dtype=bool)
        for column in ("name", "size", "changed"):
            same &= match[column] == row_F[column][inside]
        known[inside[same]] = match["flags"][same]
        return known

    def add(self, parts: Sequence[NDArray]) -> None:
        """Write more rows, in place of older ones of the same files, and keep what another process wrote since."""
        if self.path is None or not sum(map(len, parts)):
            return
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with FileLock(f"{self.path}.lock", timeout=30):
                rows = _merged(self._read(), *parts)
                with replacing(self.path) as beside:
                    content = rows.tobytes()
                    beside.write_bytes(MAGIC + zlib.crc32(content).to_bytes(4, "little") + content)
        except (OSError, Timeout) as error:
            logger.warning(
                "the list of checked images could not be written (%s): they will be checked again at the next start; "
                "make %s writable, or set HF_HOME to a folder that is",
                *(getattr(error, "strerror", None) or error, self.path.parent),
            )
            return
        self._rows = rows

    def _read(self) -> NDArray:
        try:
            content = self.path.read_bytes() if self.path else b""
        except OSError:
            content = b""
        start = len(MAGIC) + 4
        checksum = int.from_bytes(content[len(MAGIC) : start], "little")
        body = memoryview(content)[start:]
        if not content.startswith(MAGIC) or len(body) % ROW.itemsize or zlib.crc32(body) != checksum:
            return np.empty(0, dtype=ROW)
        return np.frombuffer(body, dtype=ROW)


def states(paths: Sequence[str], looks: FileLooks) -> NDArray:
    """The state of files now, (F,) of `ROW` with no flag; a file that is not there has the size -1.

    Args:
        paths: F paths; links are followed, and a folder has one name however it is reached.
        looks: for the waiting.
    """
    folders: dict[str, str] = {}
    row_F = np.zeros(len(paths), dtype=ROW)
    names = np.empty(len(paths), dtype=object)
    for number, path in enumerate(paths):
        folder, _, name = path.rpartition("/")
        if folder not in folders:
            folders[folder] = os.path.realpath(folder or ".").encode("utf-8", "backslashreplace").decode()
        names[number] = f"{folders[folder]}/{name}"
    if len(paths):
        row_F["size"], row_F["changed"] = np.array(looks.map(_size_and_time, paths), dtype=np.int64).T
    row_F["name"] = pd.util.hash_array(names, categorize=False) ^ np.uint64(_version_number())
    row_F["day"] = time.time() // 86_400
    return row_F


def _size_and_time(path: str) -> tuple[int, int]:
    try:
        status = os.stat(path)
    except (OSError, ValueError):
        return -1, 0
    return status.st_size, status.st_mtime_ns


def state_of_bytes(content) -> NDArray:
    """The state of an image inside a row, (1,) of `ROW`: its digest in place of path and time."""
    digest = hashlib.blake2b(content, digest_size=16).digest()
    row_1 = np.zeros(1, dtype=ROW)
    row_1["name"] = int.from_bytes(digest[:8], "little") ^ _version_number()
    row_1["size"], row_1["changed"] = len(content), int.from_bytes(digest[8:], "little", signed=True)
    row_1["day"] = time.time() // 86_400
    return row_1


def _merged(*parts: NDArray) -> NDArray:
    """One row a file, the last one; by name, as `SoundFiles.flags` needs them."""
    rows = np.concatenate(parts)
    order = np.argsort(rows["name"], kind="stable")
    rows = rows[order]
    is_last = np.append(rows["name"][1:] != rows["name"][:-1], True) if len(rows) else np.empty(0, bool)
    rows = rows[is_last]
    if len(rows) > MOST:
        rows = rows[np.sort(np.argsort(rows["day"], kind="stable")[-MOST:])]
    return rows


@functools.cache
def _version_number() -> int:
    text = repr((RULE, *(_version(name) for name in ("hf-cxr", "pillow", "pydicom"))))
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return ""
