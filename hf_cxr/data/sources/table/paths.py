"""Paths in the cells of a table: what is left of them, and which file below the image folder they name.

`image_strip` of the description is taken off a path's start, backslashes are slashes, and what is left must stay below
the image folder: a cell of the data never names a file elsewhere. What the user or the description's author gives (the
folders, a link in them) is followed wherever it leads.

A name is that of a file if it is spelled so, or if both are the same text in another Unicode form (macOS unpacks names
decomposed). A file that differs in upper and lower case or in the ending alone is not taken, but named: see
`ImageFiles.near`.

N = rows.
"""

import os
import posixpath
import re
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import pandas as pd

OUTSIDE = r"(?:^|[/\\])\.\.(?:[/\\]|$)|^[/\\~]|^[A-Za-z]:|[\x00-\x1f]"
ENDINGS = (".png", ".jpg", ".jpeg", ".dcm", ".dicom", ".tif", ".tiff", ".bmp", ".gif", ".webp", ".jp2", ".pgm")


def strip_paths(path_N: pd.Series, image_strip: str | None) -> pd.Series:
    """Paths without the start that the regular expression matches, as written or with slashes for backslashes."""
    if not image_strip:
        return path_N
    start = re.compile(image_strip)

    def stripped(path: str) -> str:
        for spelled in (path, path.replace("\\", "/")):
            found = start.match(spelled)
            if found and found.end():
                return spelled[found.end() :].lstrip("/\\")
        return path

    return path_N.map(stripped).astype(str)


def leave_folder(path_N: pd.Series) -> pd.Series:
    """Which paths, (N,) bool, are absolute, have a drive or a control character, or go up."""
    return path_N.str.contains(OUTSIDE, regex=True)


def plain_paths(path_N: pd.Series) -> pd.Series:
    """Paths with slashes, without "." and doubled slashes: one spelling for one file."""
    odd = path_N.str.contains(r"\\|//|(?:^|/)\.(?:/|$)|/$", regex=True)
    return path_N.mask(odd, path_N[odd].str.replace("\\", "/").map(posixpath.normpath)) if odd.any() else path_N


def start_to_strip(path: str, base: Path) -> str | None:
    """The start without which a path is that of a file below the folder, as a regular expression; None if none is."""
    parts = path.replace("\\", "/").split("/")
    for number in range(1, len(parts)):
        rest = "/".join(parts[number:])
        if rest and not re.search(OUTSIDE, rest) and (base / rest).is_file():
            return re.escape("/".join(parts[:number]) + "/").replace("\\-", "-")
    return None


class ImageFiles:
    """The files below a folder, or of several folders as one, by name; each folder is listed once.

    Args:
        base: the folder that paths are below.
        folders: if given, an image is the file of a path's base name in the first of these folders that has one.
    """

    def __init__(self, base: Path, folders: Sequence[str] | None = None):
        self.base = str(base)
        self.merged: dict[str, str] | None = None
        if folders is not None:
            self.merged = {}
            for folder in folders:
                for name in _names_in(folder):
                    self.merged.setdefault(name, os.path.join(folder, name))
        self._names: dict[str, frozenset[str]] = {}
        self._indices: dict[tuple[str, Callable], dict[str, list[str]]] = {}

    def find(self, path: str, spelled: str) -> str | None:
        """The file of a path.

        Args:
            path: from `plain_paths`.
            spelled: the same before; with backslashes, a file of that very name goes before.
        """
        for wanted in dict.fromkeys((spelled, path)):
            folder, _, name = self._split(wanted)
            if name in self._listing(folder):
                return self._joined(folder, name)
        return self._resolve(path, _canonical)

    def near(self, path: str) -> str | None:
        """A file whose path differs in upper and lower case, in its ending or in that one of the two has none."""
        for key in (_folded, _stem):
            found = self._resolve(path, key)
            if found is not None:
                return found
        return None

    def _split(self, path: str) -> tuple[str, str, str]:
        return path.rpartition("/") if self.merged is None else ("", "", path.rpartition("/")[2])

    def _joined(self, folder: str, name: str) -> str:
        if self.merged is not None:
            return self.merged[name]
        return os.sep.join(part for part in (self.base, folder, name) if part)

    def _listing(self, folder: str) -> frozenset[str] | dict[str, str]:
        if self.merged is not None:
            return self.merged
        if folder not in self._names:
            self._names[folder] = _names_in(os.path.join(self.base, folder))
        return self._names[folder]

    def _resolve(self, path: str, key: Callable[[str], str]) -> str | None:
        """The file whose folders and name are the path's by the key (the folders without regard to the ending)."""
        folder, _, name = self._split(path)
        places = [""]
        for part in folder.split("/") if folder else ():
            known = _folded if key is _stem else key
            places = [f"{here}/{found}".lstrip("/") for here in places for found in self._look_up(here, part, known)]
        return next((self._joined(here, found) for here in places for found in self._look_up(here, name, key)), None)

    def _look_up(self, folder: str, name: str, key: Callable[[str], str]) -> list[str]:
        """Names in a folder that are the given one by the key, by name."""
        if (folder, key) not in self._indices:
            index: dict[str, list[str]] = {}
            for known in sorted(self._listing(folder)):
                index.setdefault(key(known), []).append(known)
            self._indices[folder, key] = index
        return self._indices[folder, key].get(key(name), [])


def near_misses(path_N: Iterable[str], files: ImageFiles) -> list[tuple[str, str]]:
    """Of missing images' paths, those with a file of nearly their name, and that file's path below the folder."""
    pairs = ((path, files.near(path)) for path in path_N)
    return [(path, found.removeprefix(files.base + os.sep)) for path, found in pairs if found is not None]


def near_miss_words(pairs: Sequence[tuple[str, str]]) -> str:
    """The near misses as the end of a message, "" if there are none."""
    if not pairs:
        return ""
    path, file = pairs[0]
    ending = file.removeprefix(path) if file.startswith(path) else ""
    template = f", or give the ending in image_path: '{{column}}{ending}'" if ending else ""
    return (
        f"; for {len(pairs)} of them a file differs only in upper and lower case or in the ending (the table has "
        f"{path}, the folder {file}): correct the table, or rename the files{template}"
    )


def _names_in(folder: str) -> frozenset[str]:
    try:
        return frozenset(os.listdir(folder))
    except (FileNotFoundError, NotADirectoryError):
        return frozenset()


def _canonical(name: str) -> str:
    return unicodedata.normalize("NFC", name)


def _folded(name: str) -> str:
    return _canonical(name).casefold()


def _stem(name: str) -> str:
    folded = _folded(name)
    return next((folded.removesuffix(ending) for ending in ENDINGS if folded.endswith(ending)), folded)
