"""The records of a prepared folder, `manifest.json` and `shards.jsonl`: what they must hold, and digests of them.

Each record carries a digest of itself, so that a changed byte is seen. Records of earlier versions have none; of those
only the shape is checked. Which files the folder has beside them is in `prepared.py`.
"""

import hashlib
import json
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from hf_cxr.data.images.grey import RULE

FORMAT = 1  # of the folder; another number, another layout
MANIFEST, SHARDS, LOCK, PARTS = "manifest.json", "shards.jsonl", ".lock", ".parts"
CARD = "README.md"  # the datasheet, see reporting/card/datasheet.py; no check of the folder needs it
DICT, STATE, INFO = "dataset_dict.json", "state.json", "dataset_info.json"  # as `datasets` names them
PHANTOM_SPLITS = "the phantom generator, which gives each split patients of its own"
REWORDED = {"drawn as they are": PHANTOM_SPLITS}
"""Words of ``splits_from`` in manifests of earlier versions, and today's for the same: the folder has not changed."""
AGAIN = "run the same hf-cxr prepare command again"
TIMING = (
    "decoded",
    "seconds",
    "workers",
    "decoder",
)  # of the manifest: how the last call went, not what the folder holds
_SPLIT = re.compile(r"\w+(\.\w+)*")  # as `datasets` has it; it cannot lead out of the folder


@dataclass(frozen=True)
class Recipe:
    """How pixels are made. Two folders with the same recipe and source hold the same pixels.

    Attributes:
        size: working side S in pixels.
        resample: Pillow's number of the filter, as the image processor has it.
        rule: of `images/grey.py`, by which a file becomes 8-bit grey.
    """

    size: int
    resample: int
    rule: int = RULE

    @property
    def words(self) -> str:
        return ", ".join(f"{name} {value}" for name, value in asdict(self).items())


def digest_of(value: Any) -> str:
    """SHA-256 of a value that JSON can hold."""
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()


def digest_of_shards(entries: Sequence[Mapping]) -> str:
    """Digest of all that these shards hold: pixels, labels and ids, in their order."""
    return digest_of([[entry["split"], entry["number"], entry["rows"], entry["sha256"]] for entry in entries])


def sealed(record: Mapping[str, Any]) -> dict[str, Any]:
    """A record with a digest of itself, ``check``, by which a changed one is seen. `TIMING` is left out of it."""
    rest = {key: value for key, value in record.items() if key != "check"}
    return rest | {"check": _seal(rest)}


def shard_file(number: int, of: int) -> str:
    """The name of a shard's file in the folder of its split."""
    return f"data-{number:05d}-of-{of:05d}.arrow"


def shard_key(entry: Mapping[str, Any]) -> tuple[str, int]:
    """What identifies a shard: its split and its number."""
    return entry["split"], entry["number"]


def read_shards(folder: Path) -> dict[tuple[str, int], dict[str, Any]]:
    """The last whole line of `shards.jsonl` on each shard.

    Lines that a kill cut off, or that are damaged, are left out. An entry whose ``digest`` is None withdraws the
    earlier one: the shard is being written again.
    """
    done = {}
    path = folder / SHARDS
    for line in path.read_bytes().splitlines() if path.is_file() else ():
        try:
            entry = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if _is_entry(entry):
            done[shard_key(entry)] = entry
    return done


def small_files(splits: Sequence[str]) -> list[str]:
    """The files of `datasets` in a folder with these splits, relative to it."""
    return [DICT, *(f"{name}/{file}" for name in splits for file in (STATE, INFO))]


def append_shard(folder: Path, entry: Mapping[str, Any]) -> None:
    """Add a line to `shards.jsonl`, on the disk when this returns."""
    with (folder / SHARDS).open("a+b") as file:
        if file.tell():
            file.seek(-1, os.SEEK_END)
            if file.read(1) != b"\n":  # a line that a kill cut off
                file.write(b"\n")
        file.write(json.dumps(entry).encode() + b"\n")
        file.flush()
        os.fsync(file.fileno())


def _seal(record: Mapping[str, Any]) -> str:
    kept = {key: value for key, value in record.items() if key not in (*TIMING, "check")}
    return hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()[:32]


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and value >= 0


def _is_split(value: Any) -> bool:
    return isinstance(value, str) and _SPLIT.fullmatch(value) is not None


def _is_dict(of_key: Callable, of_value: Callable) -> Callable:
    return lambda value: isinstance(value, dict) and all(of_key(k) and of_value(v) for k, v in value.items())


def _is_list(of_value: Callable) -> Callable:
    return lambda value: isinstance(value, list) and all(map(of_value, value))


_REFUSED = _is_list(
    lambda value: _is_dict(_is_text, _is_text)(value) and {"split", "image_id", "reason"} <= set(value)
)
_REPEATED = ("split", "image_id", "other_split", "other_image_id", "kind")
_PARTS = {  # of the manifest: what each must be
    "format": lambda value: value == FORMAT,
    "recipe": lambda value: _is_dict(_is_text, _is_count)(value) and set(value) == {"size", "resample", "rule"},
    "dataset": _is_text,
    "label_names": lambda value: _is_list(_is_text)(value) and len(value) == len(set(value)) > 0,
    "synthetic": lambda value: isinstance(value, bool),
    "missing": _is_dict(_is_text, _is_count),
    "splits_from": lambda value: value is None or _is_text(value),
    "split_file": lambda value: value is None or isinstance(value, dict),
    "splits": lambda value: _is_dict(_is_split, _is_count)(value) and bool(value),
    "refused": _REFUSED,
    "duplicates": _is_list(
        lambda value: (
            isinstance(value, dict)
            and set(value) == {*_REPEATED, "distance"}
            and all(_is_text(value[key]) for key in _REPEATED)
            and _is_count(value["distance"])
        )
    ),
    "split_fingerprint": _is_text,
    "source_digest": _is_text,
    "bytes": _is_count,
    "decoded": _is_count,
    "seconds": lambda value: isinstance(value, int | float),
    "workers": _is_count,
}
_NEW_PARTS = {  # that folders of earlier versions lack
    "decoder": _is_text,
    "aliases": _is_dict(_is_text, _is_text),
    "content_digest": _is_text,
    "files": _is_dict(_is_text, _is_text),
    "licence_note": lambda value: value is None or _is_text(value),
    "hub": lambda value: value is None or (isinstance(value, dict) and set(value) == {"id", "commit"}),
    "notes": _is_list(_is_text),
}
_ENTRY = {
    "of": lambda value: _is_count(value) and value > 0,
    "start": _is_count,
    "stop": _is_count,
    "digest": _is_text,
    "file": _is_text,
    "rows": _is_count,
    "bytes": _is_count,
    "refused": _REFUSED,
}


def wrong_part(manifest: Mapping[str, Any]) -> str | None:
    """What is wrong with a manifest, in words."""
    missing = sorted(set(_PARTS) - set(manifest))
    if missing:
        return f"it has no {missing[0]}"
    for name, is_right in (_PARTS | _NEW_PARTS).items():
        if name in manifest and not is_right(manifest[name]):
            return f"its {name} is invalid"
    # A folder with digests has them all, so that losing one does not turn the checks off.
    if {"check", "content_digest", "files"} & set(manifest) and manifest.get("check") != _seal(manifest):
        return "it was changed"
    return None


def _is_entry(entry: Any) -> bool:
    if not isinstance(entry, dict) or not _is_split(entry.get("split")) or not _is_count(entry.get("number")):
        return False
    if entry.get("digest", "") is None:
        return True
    if not all(name in entry and is_right(entry[name]) for name, is_right in _ENTRY.items()):
        return False
    if {"check", "sha256"} & set(entry) and (entry.get("check") != _seal(entry) or not _is_text(entry.get("sha256"))):
        return False
    return (
        entry["file"] == shard_file(entry["number"], entry["of"])
        and entry["number"] < entry["of"]
        and 0 <= entry["rows"] <= entry["stop"] - entry["start"]
    )
