"""Which files of a folder are images, and how many other files it holds.

Named files are taken whatever they are: the decoder says what is wrong with them. Of a folder, sub-folders included:

| entry                                                      | what happens                                         |
|------------------------------------------------------------|------------------------------------------------------|
| a file with a suffix of a format that the decoder reads    | taken; .PNG is .png                                  |
| any other file whose content says DICOM (DICM at byte 128) | taken; a PACS writes IM000001 or 1.2.840.113619.2.55 |
| DICOMDIR, the list of what a medium holds                  | counted as another file                              |
| hidden (.DS_Store, ._a.png), Thumbs.db, __MACOSX           | counted; a hidden folder is not searched             |
| a link to a file                                           | as the file; one that leads nowhere is taken         |
| a link to a folder                                         | searched, each folder once: loops end                |
| anything else                                              | counted by suffix                                    |

The order is that of the names, argument by argument. An entry that is reached twice, as when a folder and a file in it
are named, is taken once.
"""

import functools
import os
import re
import stat
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from PIL import Image

from hf_cxr.data.images import dicom
from hf_cxr.data.images.grey import FORMATS
from hf_cxr.words import plural

HIDDEN, DIRECTORY, NO_SUFFIX = "hidden", "DICOMDIR", "no suffix"
MEDIA_DIRECTORY = b"1.2.840.10008.1.3.10"  # SOP class of a DICOMDIR
LITTER = {"thumbs.db", "desktop.ini", "__macosx"}


@dataclass
class FoundImages:
    """What a search found.

    Attributes:
        paths: image files, each once.
        skipped: for each folder that was named, how many files in it were not taken, by suffix.
        unreadable: folders and names that could not be read, as errors in words.
        repeated: entries that were reached more than once.
    """

    paths: list[Path] = field(default_factory=list)
    skipped: dict[Path, Counter[str]] = field(default_factory=dict)
    unreadable: list[OSError] = field(default_factory=list)
    repeated: int = 0

    def notes(self) -> list[str]:
        """A line for each folder of which files were not taken, and one for entries that were reached twice.

        >>> print(*FoundImages(skipped={Path("mixed"): Counter({".txt": 2})}).notes())
        2 other files in mixed were skipped (.txt 2)
        """
        lines = []
        for folder, counts in self.skipped.items():
            if total := counts.total():
                kinds = ", ".join(f"{kind} {count:,}" for kind, count in _most(counts))
                were = "was" if total == 1 else "were"
                lines.append(f"{plural(total, 'other file')} in {folder} {were} skipped ({kinds})")
        if self.repeated:
            images = plural(self.repeated, "image is", "images are")
            lines.append(f"{images} named more than once; {'it is' if self.repeated == 1 else 'each is'} taken once")
        return lines


@functools.cache
def image_suffixes() -> tuple[str, ...]:
    """Suffixes that the decoder reads, in lower case with their dot, DICOM's among them."""
    Image.init()
    known = {suffix for suffix, name in Image.registered_extensions().items() if name in FORMATS}
    return tuple(sorted(known | set(dicom.SUFFIXES)))


def search_images(paths: Iterable[str | Path]) -> FoundImages:
    """Image files among the paths and in the folders among them, by the table at the top of this module.

    Raises:
        FileNotFoundError: nothing was found; the message says what there was.
    """
    paths = [Path(path) for path in paths]
    found = FoundImages()
    searched: set[tuple[int, int]] = set()  # folders, by device and number
    seen: set[tuple[str, str]] = set()  # entries, by real folder and name: two links to one file are two images
    real_folder = functools.cache(os.path.realpath)
    for path in paths:
        try:
            status = os.stat(path)
        except OSError as error:
            # A link that leads nowhere is named by what is wrong with it.
            absent = isinstance(error, FileNotFoundError) and not path.is_symlink()
            words = f"no such image or folder: {path}" if absent else f"cannot read {path}: {error.strerror}"
            found.unreadable.append(type(error)(words))
            continue
        taken = _search_folder(path, found, searched) if stat.S_ISDIR(status.st_mode) else [path]
        for file in taken:
            key = (real_folder(file.parent), file.name)
            found.repeated += key in seen
            if key not in seen:
                seen.add(key)
                found.paths.append(file)
    if not found.paths:
        _refuse_nothing(paths, found)
    return found


def find_images(paths: Iterable[str | Path]) -> list[Path]:
    """The paths that `search_images` finds, where nothing may be left out.

    Raises:
        FileNotFoundError: a path does not exist, or nothing was found.
        OSError: a folder cannot be read.
    """
    found = search_images(paths)
    if found.unreadable:
        raise found.unreadable[0]
    return found.paths


def _refuse_nothing(paths: list[Path], found: FoundImages) -> None:
    if found.unreadable and len(found.unreadable) == len(paths) == 1:
        raise found.unreadable[0]
    reasons = [*map(str, found.unreadable), *found.notes()]
    raise FileNotFoundError(
        f"no image in {', '.join(map(str, paths[:5]))}{', ...' if len(paths) > 5 else ''}"
        + (f": {'; '.join(reasons[:5])}" if reasons else "")
        + f"; give files or folders of {', '.join(image_suffixes())} or DICOM files of any name"
    )


def _search_folder(root: Path, found: FoundImages, searched: set[tuple[int, int]]) -> list[Path]:
    """Image files below a folder in the order of their paths; notes in ``found`` what is left out."""
    taken: list[Path] = []
    skipped = found.skipped.setdefault(root, Counter())
    # Folders behind links come last, so that a folder is known by its own name where it has one in this tree.
    links = [root]
    while links:
        for folder, names, files in os.walk(links.pop(0), onerror=lambda error: _note_folder(error, found)):
            if not _first_time(folder, searched):
                names.clear()
                continue
            hidden = {name for name in names if _is_hidden(name)}
            skipped[HIDDEN] += len(hidden)
            names[:] = sorted(set(names) - hidden)
            links += [Path(folder, name) for name in names if os.path.islink(os.path.join(folder, name))]
            for name in files:
                kind = _why_skipped(folder, name)
                if kind is None:
                    taken.append(Path(folder, name))
                else:
                    skipped[kind] += 1
    return sorted(taken)


def _first_time(folder: str, searched: set[tuple[int, int]]) -> bool:
    try:
        status = os.stat(folder)
    except OSError:
        return False  # it has vanished
    key = (status.st_dev, status.st_ino)
    new = key not in searched
    searched.add(key)
    return new


def _why_skipped(folder: str, name: str) -> str | None:
    """None for an image; for another file the word under which it is counted."""
    if _is_hidden(name):
        return HIDDEN
    if name.lower().split(".")[0] == "dicomdir":
        return DIRECTORY
    suffix = os.path.splitext(name)[1].lower()
    if suffix in image_suffixes():
        return None
    try:
        if not stat.S_ISREG(os.stat(os.path.join(folder, name)).st_mode):
            return "not a regular file"  # and opening a pipe would wait for its other end
        with open(os.path.join(folder, name), "rb") as file:
            head = file.read(1024)
    except FileNotFoundError:
        return suffix or NO_SUFFIX  # a link that leads nowhere, or a file that has vanished
    except OSError:
        return "not readable"
    if dicom.is_dicom(head, suffix):
        # Element (0002,0002): tag, "UI", length, value.
        sop_class = re.search(rb"\x02\x00\x02\x00UI(..)([0-9.]*)", head, re.DOTALL)
        return DIRECTORY if sop_class and sop_class[2] == MEDIA_DIRECTORY else None
    return suffix or NO_SUFFIX


def _is_hidden(name: str) -> bool:
    return name.startswith(".") or name.lower() in LITTER


def _note_folder(error: OSError, found: FoundImages) -> None:
    repair = "fix its permissions, or move it away"
    found.unreadable.append(type(error)(f"cannot read the folder {error.filename}: {error.strerror}; {repair}"))


def _most(counts: Counter[str], shown: int = 5) -> list[tuple[str, int]]:
    """The most frequent kinds, and the rest as "other"."""
    ordered = sorted(((kind, count) for kind, count in counts.items() if count), key=lambda item: (-item[1], item[0]))
    rest = sum(count for _, count in ordered[shown:])
    return ordered[:shown] + ([("other", rest)] if rest else [])
