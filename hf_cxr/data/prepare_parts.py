"""A prepared folder written by several jobs: each finishes its part of the shards, and one call puts them together.

    DIR/.parts/0003-of-0008/part.json       what the part is prepared from, and whether it is finished; written last
    DIR/.parts/0003-of-0008/shards.jsonl    one line for each of its finished shards, as in the whole folder
    DIR/.parts/0003-of-0008/train/data-00012-of-00068.arrow
    DIR/.parts/0003-of-0008/.lock           held while the part is written

The shards are those of a call without parts, byte for byte, and part i of n has a run of them: those from
(i - 1) * S // n to i * S // n of all S. Putting the parts together moves the files (it copies and decodes nothing),
writes the same records as a single call, and looks for duplicates among all images.

Every part's lock is held meanwhile. If that is killed, the same call continues.

Refuses: a part that is being prepared, parts of another number, parts of another source or recipe, parts that are
missing or unfinished, each by its number.

S = shards.
"""

import contextlib
import os
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hf_cxr.data.manifest import PARTS, append_shard, digest_of, read_shards, sealed
from hf_cxr.data.prepare_cut import Shard
from hf_cxr.data.prepared_folder import locked
from hf_cxr.data.sources.prepared import damaged_shards
from hf_cxr.files import file_sha256, plain, read_json, write_json

RECORD = "part.json"
MOST = 9999
_FOLDER = re.compile(r"(\d{4})-of-(\d{4})")


@dataclass(frozen=True, order=True)
class Part:
    """Part ``number`` of ``of``; the first is 1.

    >>> Part.read("3/8"), str(Part(3, 8))
    (Part(number=3, of=8), '3/8')
    """

    number: int
    of: int

    def __post_init__(self) -> None:
        if not 1 <= self.number <= self.of <= MOST:
            raise ValueError(f"the part is {self.number}/{self.of}; it must be i/n with i from 1 to n, such as 1/8")

    def __str__(self) -> str:
        return f"{self.number}/{self.of}"

    @classmethod
    def read(cls, text: str) -> "Part":
        """From i/n.

        Raises:
            ValueError: something else, or i is not from 1 to n.
        """
        match = re.fullmatch(r"(\d{1,9})/(\d{1,9})", text)
        if not match:
            raise ValueError(f"the part is {text!r}; it must be i/n with i from 1 to n, such as 1/8")
        return cls(int(match[1]), int(match[2]))

    def folder(self, out: Path) -> Path:
        return out / PARTS / f"{self.number:04d}-of-{self.of:04d}"

    def of_shards(self, shards: Sequence[Shard]) -> list[Shard]:
        """This part's shards, of all."""
        first, last = ((number * len(shards)) // self.of for number in (self.number - 1, self.number))
        return list(shards[first:last])


def is_finished(shard: Shard, done: Mapping, out: Path) -> bool:
    """Whether a folder holds the shard as it has to be, by its line in ``done`` (`read_shards`) and its size."""
    entry = done.get(shard.key, {})
    path = out / shard.split / shard.file_name
    is_its = entry.get("digest") == shard.digest and entry["file"] == shard.file_name
    return is_its and path.is_file() and path.stat().st_size == entry["bytes"]


def parts_in(out: Path) -> list[Part]:
    """The parts that have a folder, in order."""
    names = [path.name for path in (out / PARTS).iterdir()] if (out / PARTS).is_dir() else []
    return sorted(Part(int(match[1]), int(match[2])) for match in map(_FOLDER.fullmatch, names) if match)


def read_part(out: Path, part: Part) -> dict[str, Any]:
    """The part's record; empty if there is none or it is damaged."""
    try:
        record = read_json(part.folder(out) / RECORD, repair="")
    except (ValueError, OSError):
        return {}
    return record if record == sealed(record) else {}


def all_finished(out: Path, of: int) -> bool:
    """Whether each of so many parts is finished."""
    return all(read_part(out, Part(number, of)).get("finished") for number in range(1, of + 1))


def begin_part(
    out: Path, part: Part, settings: Mapping[str, Any], shards: Sequence[Shard], *, check: bool
) -> dict[str, Any]:
    """Record what the part will be prepared from. Its lock is held.

    Args:
        settings: as the manifest has them.
        shards: of all parts.
        check: refuse if other parts were prepared from something else.

    Raises:
        ValueError: other parts are of another number, source or recipe.
    """
    settings = plain(dict(settings))
    record = {"settings": settings, "cut": digest_of([(*shard.key, shard.of, shard.stop) for shard in shards])}
    for other in parts_in(out):
        if other.of != part.of:
            raise ValueError(
                f"{out} has parts of {other.of}, and this is part {part}: give --shard i/{other.of}, or remove "
                f"{out / PARTS}"
            )
        known = read_part(out, other)
        if other != part and known and check and (differing := _differences(known, record)):
            raise ValueError(
                f"part {other} of {out} was prepared from a different source or with different settings: {differing}. "
                f"Give the same to all parts, add --update to prepare them again, or remove {out / PARTS}"
            )
    known = read_part(out, part)
    same = bool(known) and not _differences(known, record)
    record |= {"finished": False, **{name: known[name] if same else 0 for name in ("decoded", "seconds")}}
    write_json(part.folder(out) / RECORD, sealed(record))
    return record


def end_part(folder: Path, record: Mapping[str, Any]) -> dict[str, Any]:
    """Record that the part is finished."""
    record = sealed(plain({**record, "finished": True}))
    write_json(folder / RECORD, record)
    return record


def _differences(one: Mapping[str, Any], other: Mapping[str, Any]) -> str:
    """In words; empty if there are none."""
    settings, own = one["settings"], other["settings"]
    differing = [
        f"{name} was {settings.get(name)}, is {value}" for name, value in own.items() if settings.get(name) != value
    ]
    if not differing and one["cut"] != other["cut"]:
        differing = ["the splits have different numbers of images"]
    return "; ".join(differing)


class Parts:
    """The parts of a folder while this process has their locks, as `opened_parts` gives them."""

    def __init__(self, out: Path, parts: Sequence[Part]):
        self.out, self.parts = out, list(parts)
        self.records = {part: read_part(out, part) for part in self.parts}
        self._entries: dict[tuple[str, int], tuple[Part, dict[str, Any]]] = {}

    def finished(self, shards: Sequence[Shard], *, verify: bool) -> set[tuple[str, int]]:
        """The keys of those shards that a part holds; with ``verify``, byte for byte as they were written.

        Raises:
            ValueError: a part's file has changed since.
        """
        for part in self.parts:
            folder = part.folder(self.out)
            done = read_shards(folder)
            held = [shard for shard in shards if is_finished(shard, done, folder)]
            damaged = damaged_shards(folder, [done[shard.key] for shard in held], read=True) if verify else {}
            if damaged:
                raise ValueError(
                    f"part {part} of {self.out} is damaged: {'; '.join(damaged.values())}. Run hf-cxr prepare "
                    f"--shard {part} --verify again: only these shards are decoded again"
                )
            held += [shard for shard in shards if shard not in held and self._was_moved(shard, done, folder)]
            self._entries |= {shard.key: (part, done[shard.key]) for shard in held}
        return {shard.key for shard in shards if shard.key in self._entries}

    def _was_moved(self, shard: Shard, done: Mapping, folder: Path) -> bool:
        """Whether a call that was killed had put the part's file in its place already."""
        entry, target = done.get(shard.key, {}), self.out / shard.split / shard.file_name
        return (
            entry.get("digest") == shard.digest
            and not (folder / shard.split / shard.file_name).exists()
            and target.is_file()
            and file_sha256(target) == entry["sha256"]
        )

    def take(self, key: tuple[str, int], *, replaces: bool) -> dict[str, Any]:
        """Move a shard's file into the folder and add its line.

        Args:
            replaces: the folder has a line on this shard, which must not confirm the new file if this is killed.
        """
        part, entry = self._entries[key]
        source = part.folder(self.out) / entry["split"] / entry["file"]
        if replaces:
            append_shard(self.out, {"split": key[0], "number": key[1], "digest": None})
        (self.out / entry["split"]).mkdir(exist_ok=True)
        with contextlib.suppress(FileNotFoundError):  # it was moved before
            os.replace(source, self.out / entry["split"] / entry["file"])
        append_shard(self.out, entry)
        return entry

    @property
    def timing(self) -> dict[str, Any]:
        """As of the manifest: images of all parts, the slowest one's seconds, all processes."""
        records = [record for record in self.records.values() if "workers" in record]
        return {
            "decoded": sum(record["decoded"] for record in records),
            "seconds": max((record["seconds"] for record in records), default=0.0),
            "workers": sum(record["workers"] for record in records),
        }

    def lacking(self, shards: Sequence[Shard], settings: Mapping[str, Any]) -> str:
        """Which parts do not hold these shards, and why, in one line."""
        if not self.parts:
            return f"{self.out} has no parts to put together: run hf-cxr prepare with --shard 1/n to --shard n/n first"
        of, wanted = self.parts[0].of, {"settings": plain(dict(settings))}
        reasons = []
        for part in (Part(number, of) for number in range(1, of + 1)):
            record = self.records.get(part, {})
            if not record:
                reasons.append(f"{part} was not begun")
            elif differing := _differences(record | {"cut": 0}, wanted | {"cut": 0}):
                reasons.append(f"{part} has different settings ({differing})")
            elif not record["finished"]:
                reasons.append(f"{part} is not finished")
        shown = "; ".join(reasons[:5]) + (f"; and {len(reasons) - 5} more" if len(reasons) > 5 else "")
        if not shown:
            names = [f"{shard.split}/{shard.file_name}" for shard in shards]
            more = f" and {len(names) - 5} more" if len(names) > 5 else ""
            shown = f"the rows or files of {', '.join(names[:5])}{more} have changed since, or the file is damaged"
        return (
            f"{self.out} cannot be put together, {len(shards)} of its shards are missing: {shown}. Run these parts "
            "again with the same source and settings: what is finished stays"
        )

    def remove(self) -> None:
        """Remove the parts, whose shards are in the folder."""
        for part in self.parts:
            shutil.rmtree(part.folder(self.out), ignore_errors=True)
        with contextlib.suppress(OSError):
            (self.out / PARTS).rmdir()


@contextmanager
def opened_parts(out: Path) -> Iterator[Parts]:
    """The parts of a folder whose own lock is held, with the lock of each.

    Raises:
        BusyError: one is being prepared.
    """
    parts = parts_in(out)
    with ExitStack() as locks:
        for part in parts:
            locks.enter_context(locked(part.folder(out), f"part {part} of {out}"))
        yield Parts(out, parts)
