"""A prepared folder while it is written: its lock, its layout, and what a killed process left in it.

The operating system holds the lock, so a killed process leaves none. Only files and folders with names that this
package makes are removed; whatever else is in the folder stays.
"""

import contextlib
import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import datasets
from filelock import FileLock, Timeout

from hf_cxr.data.manifest import (
    AGAIN,
    CARD,
    DICT,
    INFO,
    LOCK,
    MANIFEST,
    PARTS,
    SHARDS,
    STATE,
    digest_of,
    read_shards,
    sealed,
    wrong_part,
)
from hf_cxr.files import file_sha256, is_leftover, read_json, write_json, write_text
from hf_cxr.locks import acquired
from hf_cxr.words import error_words

SKELETON = ".skeleton-"
_WRITTEN = re.compile(r"\.(skeleton|manifest|part|shards|state|dataset_info|dataset_dict|README|data-\d+-of-\d+)-.*")
_OWN_FILE = re.compile(r"data-\d+-of-\d+\.arrow|state\.json|dataset_info\.json")


def is_being_prepared(folder: Path) -> bool:
    """Whether another process is writing the folder at this moment."""
    if not (folder / LOCK).is_file():
        return False
    try:
        with FileLock(folder / LOCK, timeout=0):
            return False
    except Timeout:
        return True
    except (OSError, NotImplementedError):  # a read-only disk, or one without locks
        return False


class BusyError(ValueError):
    """Another process is preparing the folder."""


@contextlib.contextmanager
def locked(folder: Path, name: str = "") -> Iterator[None]:
    """Hold the folder's lock, and make the folder if it is not there; leave no empty one behind.

    The operating system holds the lock, so that of a killed process is free. ``name`` is what an error calls the
    folder.

    Raises:
        BusyError: another process holds it.
        OSError: the folder cannot be made or written.
    """
    if folder.is_dir() and not os.access(folder, os.W_OK | os.X_OK):
        yield  # a finished folder on a read-only disk needs no lock: nothing can write there
        return
    made = [part for part in (folder, *folder.absolute().parents) if not part.exists()]
    busy = BusyError(f"another process is preparing {name or folder}; wait for it, or give another folder")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = acquired(folder / LOCK, busy)
    except (OSError, NotImplementedError) as error:
        reason = getattr(error, "strerror", None) or error_words(error)
        raise OSError(f"cannot write in {folder}: {reason}; fix the permissions, or give another folder") from error
    try:
        yield
    finally:
        with contextlib.suppress(OSError):  # what is not empty stays
            if made and os.listdir(folder) == [LOCK]:
                (folder / LOCK).unlink()  # while it is held: another process that opened it sees that the name is gone
        lock.release()
        with contextlib.suppress(OSError):
            for part in made:
                part.rmdir()


def refuse_foreign(out: Path, splits: Sequence[str]) -> None:
    """Refuse a path that is not a folder, and a folder with something that this package did not write.

    Raises:
        ValueError: it is a file, a link to nothing, a folder with other content or of a later version.
    """
    if out.is_symlink() and not out.exists():
        raise ValueError(f"{out} is a link to a folder that does not exist; make that folder, or give another one")
    if out.exists() and not out.is_dir():
        raise ValueError(f"{out} is a file; give a folder")
    names = {path.name for path in out.iterdir()} if out.is_dir() else set()
    # A call that was killed early has finished no shard yet; one that was killed at once has not begun the list.
    own = {LOCK, PARTS} | ({SHARDS, MANIFEST, DICT, CARD, *splits} if SHARDS in names else set())
    if all(name in own or _is_own_leftover(name) for name in names) or read_shards(out):
        return
    if _is_manifest(out / MANIFEST):
        return
    raise ValueError(f"{out} contains files that are not a prepared dataset; give a new or empty folder")


def _is_own_leftover(name: str) -> bool:
    """Whether only a killed call of this package can have left the name here."""
    return is_leftover(name) and _WRITTEN.fullmatch(name) is not None


def _is_manifest(path: Path) -> bool:
    try:
        return path.is_file() and wrong_part(read_json(path, repair=AGAIN)) is None
    except ValueError:
        return False


def remove_leftovers(out: Path, splits: Sequence[str]) -> None:
    """Remove what a killed call left half-written: files and folders with names that only this package makes."""
    for folder in (out, *(out / name for name in splits)):
        for path in list(folder.iterdir()) if folder.is_dir() else ():
            if _is_own_leftover(path.name):
                with contextlib.suppress(OSError):  # on a read-only disk they stay
                    shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()


def finish_folder(out: Path, features: Mapping[str, datasets.Features], entries: Sequence[Mapping]) -> list[dict]:
    """Make finished shards a folder that `load_from_disk` opens, and remove files of an earlier preparation.

    Args:
        out: the folder, with the lock held.
        features: of each split.
        entries: of `shards.jsonl`, in the order of the splits and rows.

    Returns:
        The entries, each with its digest, as `shards.jsonl` now has them.
    """
    empty = datasets.DatasetDict(
        {name: datasets.Dataset.from_dict({c: [] for c in kinds}, kinds) for name, kinds in features.items()}
    )
    earlier = {split for split, _ in read_shards(out)} - set(features)
    with tempfile.TemporaryDirectory(dir=out, prefix=SKELETON) as skeleton:
        _save_quietly(empty, skeleton)  # the library's own files, so that its format is its own matter
        for name in features:
            _place_split(Path(skeleton) / name, out / name, [entry for entry in entries if entry["split"] == name])
        os.replace(Path(skeleton) / DICT, out / DICT)
    for name in earlier:
        _remove_files(out / name, keep=set())
    entries = [entry if "sha256" in entry else _with_digest(entry, out) for entry in entries]
    write_text(out / SHARDS, "".join(json.dumps(entry) + "\n" for entry in entries))
    return entries


def _with_digest(entry: Mapping[str, Any], out: Path) -> dict[str, Any]:
    """An entry of an earlier version, which had no digests, with that of its shard as it is now."""
    return sealed({**entry, "sha256": file_sha256(out / entry["split"] / entry["file"])})


def _place_split(skeleton: Path, folder: Path, entries: Sequence[Mapping]) -> None:
    state = read_json(skeleton / STATE, repair=AGAIN)
    state["_data_files"] = [{"filename": entry["file"]} for entry in entries]
    state["_fingerprint"] = digest_of([entry["digest"] for entry in entries])[:16]
    write_json(folder / STATE, state)
    os.replace(skeleton / INFO, folder / INFO)
    _remove_files(folder, keep={entry["file"] for entry in entries} | {STATE, INFO})


def _remove_files(folder: Path, *, keep: set[str]) -> None:
    """Remove the files that this package wrote for a split and that are not wanted any more; the folder, if empty."""
    for path in list(folder.iterdir()) if folder.is_dir() else ():
        if path.name not in keep and _OWN_FILE.fullmatch(path.name):
            path.unlink()
    if not keep:
        with contextlib.suppress(OSError):
            folder.rmdir()


def _save_quietly(splits: datasets.DatasetDict, folder: str) -> None:
    shown = datasets.are_progress_bars_disabled() is False
    datasets.disable_progress_bars()
    try:
        splits.save_to_disk(folder)
    finally:
        if shown:
            datasets.enable_progress_bars()
