"""A folder that `hf-cxr prepare` wrote: reading it, and checking that it is what was written.

    DIR/manifest.json                    what was prepared, from what, how, and what was refused; written last
    DIR/README.md                        what is in it, for people: the datasheet
    DIR/shards.jsonl                     one line for each finished shard, with its size and SHA-256
    DIR/dataset_dict.json, DIR/train/state.json, DIR/train/dataset_info.json     of `datasets`
    DIR/train/data-00000-of-00068.arrow  the columns of the schema and `SOURCE_COLUMNS`
    DIR/validation/...  DIR/test/...
    DIR/.parts/0001-of-0008/...          the shards of one job of several, until they are put together
    DIR/.lock                            held while the folder is written

Opening a folder checks every small file by its digest, and the shards by their number, names, sizes and rows. With
``verify`` it also reads all shards and compares their SHA-256. Folders of earlier versions have no digests: they open,
and writing them again with the same command records the digests.

The path of a shard is computed from its split and number, never taken from a file, and a row without its pixels is
refused: nothing outside the folder is opened.

Refuses, in one line with the repair: a folder that is missing, unfinished, being written at this moment, or changed
while it was opened; damaged, missing or exchanged files; a folder of a later version.
"""

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import datasets
from tqdm.auto import tqdm

from hf_cxr.data.images.decoded import refuse_absent_bytes
from hf_cxr.data.manifest import (
    AGAIN,
    DICT,
    FORMAT,
    INFO,
    MANIFEST,
    PARTS,
    REWORDED,
    SHARDS,
    STATE,
    Recipe,
    digest_of_shards,
    read_shards,
    shard_file,
    shard_key,
    small_files,
    wrong_part,
)
from hf_cxr.data.prepared_folder import is_being_prepared
from hf_cxr.data.sources.source import Arguments, Kind, Source
from hf_cxr.data.splits import with_canonical_ids
from hf_cxr.files import file_sha256, read_json
from hf_cxr.labels import LabelSpace
from hf_cxr.words import error_words

SOURCE_COLUMNS = {"file_sha256": datasets.Value("string"), "perceptual_hash": datasets.Value("string")}
"""SHA-256 of the file as it was read; and a hash that near-identical pictures share, see `duplicates.py`."""


def _check(args: Arguments) -> None:
    if not args.prepared:
        raise ValueError("dataset prepared needs --prepared, the folder that hf-cxr prepare wrote")


def _load(args: Arguments, *, images: bool) -> Source:
    splits, manifest = load_prepared(args.prepared, verify=args.verify_prepared)
    for name, split in splits.items():
        refuse_absent_bytes(split, Path(args.prepared) / name)
    splits = with_canonical_ids(splits)
    return Source(
        splits if images else splits.remove_columns("image"),
        LabelSpace(manifest["label_names"], manifest.get("aliases")),
        name=manifest["dataset"],
        split_origin={name: manifest[name] for name in ("splits_from", "split_file")},
        synthetic=manifest["synthetic"],
        decodable=True,
        missing=dict(Counter(manifest["missing"]) + Counter(entry["split"] for entry in manifest["refused"])),
        recipe=Recipe(**manifest["recipe"]),
        place=Path(args.prepared),
        licence_note=manifest.get("licence_note"),
        hub=manifest.get("hub"),
        notes=tuple(manifest.get("notes", ())),
    )


PREPARED = Kind(
    help="a folder that hf-cxr prepare wrote, --prepared",
    options=("prepared", "verify_prepared"),
    check=_check,
    load=_load,
)


def read_manifest(folder: str | os.PathLike) -> dict[str, Any]:
    """The manifest of a prepared folder.

    Raises:
        FileNotFoundError: the folder does not exist, or its preparation has not finished.
        ValueError: the manifest is damaged, or of a later version of this package.
    """
    folder = Path(folder)
    path = folder / MANIFEST
    if not path.is_file():
        if is_being_prepared(folder):
            raise FileNotFoundError(f"{folder} is being prepared by another process: wait until it has finished")
        in_parts = (folder / PARTS).is_dir()
        unfinished = in_parts or (folder / SHARDS).is_file()
        state = "was not prepared completely" if unfinished else "is not a prepared folder"
        repair = AGAIN if unfinished else f"run hf-cxr prepare ... --out {folder}"
        repair = "finish its parts (--shard), then run hf-cxr prepare with --merge" if in_parts else repair
        raise FileNotFoundError(f"{folder} {state}: it has no {MANIFEST}; {repair}")
    manifest = read_json(path, repair=AGAIN)
    if isinstance(manifest.get("format"), int) and manifest["format"] > FORMAT:
        raise LaterFormatError(
            f"{path} has format {manifest['format']}, but this version of hf_cxr reads format {FORMAT}: upgrade "
            "hf_cxr, or prepare into another folder"
        )
    wrong = wrong_part(manifest)
    if wrong:
        raise ValueError(f"{path} is damaged ({wrong}): {AGAIN}, finished shards stay")
    return manifest | {"splits_from": REWORDED.get(manifest["splits_from"], manifest["splits_from"])}


class LaterFormatError(ValueError):
    """The folder was written by a later version of this package."""


def load_prepared(folder: str | os.PathLike, *, verify: bool = False) -> tuple[datasets.DatasetDict, dict[str, Any]]:
    """The splits of a prepared folder, memory-mapped, and its manifest.

    Args:
        folder: as `prepare` wrote it.
        verify: read every shard and compare it with the SHA-256 that was recorded when it was written. It takes some
            seconds for each GB.

    Raises:
        FileNotFoundError: the folder or a shard is missing, or the preparation has not finished.
        ValueError: a file is damaged, the files do not agree, the folder is being written, or it has no digests to
            verify. The message names all damaged shards.
    """
    folder = Path(folder)
    before = _stamp(folder)
    try:
        manifest = read_manifest(folder)
        check_folder(folder, manifest, verify=verify)
        splits = _open(folder, manifest)
    except (ValueError, OSError) as error:
        if before != _stamp(folder) or (folder.is_dir() and is_being_prepared(folder)):
            raise ValueError(f"{folder} is being prepared by another process: wait until it has finished") from error
        raise
    # The manifest is removed before a shard is replaced, and written again last: the same one, no shard was replaced.
    if before != _stamp(folder):
        raise ValueError(f"{folder} was prepared again while it was opened: run the same command again")
    return splits, manifest


def check_folder(folder: Path, manifest: Mapping[str, Any], *, verify: bool = False) -> list[dict[str, Any]]:
    """Check all files of a folder against its manifest.

    Returns:
        The entries of `shards.jsonl` in the order of the splits and of the rows.

    Raises:
        FileNotFoundError, ValueError: see `load_prepared`.
    """
    entries = _listed_shards(folder, manifest)
    _check_small_files(folder, manifest, entries)
    if verify and not all("sha256" in entry for entry in entries):
        raise ValueError(
            f"{folder} was prepared by an earlier version of hf_cxr, which recorded no digests of its shards: there "
            f"is nothing to compare them with; {AGAIN}. It decodes nothing and records the digests of the shards as "
            "they are now"
        )
    damaged = damaged_shards(folder, entries, read=verify)
    if damaged:
        missing = any("is missing" in reason for reason in damaged.values())
        with_verify = " with --verify" if verify else ""
        raise (FileNotFoundError if missing else ValueError)(
            f"{len(damaged)} of {len(entries)} shards in {folder} are damaged: {'; '.join(damaged.values())}. "
            f"{AGAIN[0].upper()}{AGAIN[1:]}{with_verify}: only these shards are decoded again"
        )
    return entries


def damaged_shards(folder: Path, entries: Sequence[Mapping], *, read: bool) -> dict[tuple[str, int], str]:
    """(split, number) of each shard that is not as it was written, and what is wrong with it.

    Args:
        read: compare the content with its SHA-256, where one was recorded; otherwise only the size.
    """

    def problem(entry: Mapping) -> str | None:
        path = folder / entry["split"] / entry["file"]
        name = f"{entry['split']}/{entry['file']}"
        if not path.is_file():
            return f"{name} is missing"
        size = path.stat().st_size
        if size != entry["bytes"]:
            return f"{name} has {size:,} bytes, but {entry['bytes']:,} were written"
        try:
            if read and "sha256" in entry and file_sha256(path) != entry["sha256"]:
                return f"{name} has changed since it was written (its SHA-256 differs)"
        except OSError as error:
            return f"{name} cannot be read ({error.strerror})"
        return None

    with ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as pool:
        answers = pool.map(problem, entries)
        try:
            problems = list(tqdm(answers, "Verifying", len(entries), disable=None if read else True, unit="shard"))
        except BaseException:  # Ctrl-C does not wait for the shards that are left
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return {shard_key(entry): text for entry, text in zip(entries, problems, strict=True) if text}


def _listed_shards(folder: Path, manifest: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The entries of `shards.jsonl`, in order, if they are all that the manifest speaks of."""
    path = folder / SHARDS
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing: {AGAIN}")
    found = {key: entry for key, entry in read_shards(folder).items() if entry["digest"] is not None}
    entries = []
    for name in manifest["splits"]:
        of = next((entry["of"] for (split, _), entry in found.items() if split == name), 1)
        numbers = [number for split, number in found if split == name]
        lacking = sorted(set(range(min(of, len(numbers) + 1))) - set(numbers))
        if lacking:
            raise ValueError(
                f"{path} has no complete line for {name}/{shard_file(lacking[0], of)}: {AGAIN}, it is decoded again"
            )
        entries += [found[name, number] for number in sorted(numbers)]
    rows = {name: sum(entry["rows"] for entry in entries if entry["split"] == name) for name in manifest["splits"]}
    agree = (
        len(entries) == len(found)
        and all(entry["of"] == sum(other["split"] == entry["split"] for other in entries) for entry in entries)
        and rows == manifest["splits"]
        and sum(entry["bytes"] for entry in entries) == manifest["bytes"]
    )
    if agree and "content_digest" in manifest:
        agree = all("sha256" in entry for entry in entries) and digest_of_shards(entries) == manifest["content_digest"]
    if not agree:
        raise ValueError(f"{path} and {MANIFEST} in {folder} do not agree: one of them was changed; {AGAIN}")
    return entries


def _check_small_files(folder: Path, manifest: Mapping[str, Any], entries: Sequence[Mapping]) -> None:
    """Refuse files of `datasets` that are not those that were written, or that name other shards."""
    names = small_files(list(manifest["splits"]))
    for name in names:
        if not (folder / name).is_file():
            raise FileNotFoundError(f"{folder / name} is missing: {AGAIN}, finished shards stay")
        if "files" in manifest and file_sha256(folder / name) != manifest["files"].get(name):
            raise ValueError(f"{folder / name} is damaged (its SHA-256 differs): {AGAIN}, finished shards stay")
    listed = read_json(folder / DICT, repair=AGAIN)
    if listed.get("splits") != list(manifest["splits"]):
        raise ValueError(f"{folder / DICT} is damaged (its splits are not those of {MANIFEST}): {AGAIN}")
    for split in manifest["splits"]:
        info = read_json(folder / split / INFO, repair=AGAIN)
        if not isinstance(info.get("features"), dict):
            raise ValueError(f"{folder / split / INFO} is damaged (it describes no columns): {AGAIN}")
        path = folder / split / STATE
        state = read_json(path, repair=AGAIN)
        wanted = [{"filename": entry["file"]} for entry in entries if entry["split"] == split]
        if state.get("_data_files") != wanted:
            raise ValueError(f"{path} is damaged (its files are not those of {SHARDS}): {AGAIN}")


def _open(folder: Path, manifest: Mapping[str, Any]) -> datasets.DatasetDict:
    """Map the shards into memory."""
    try:
        splits = datasets.load_from_disk(str(folder))
        rows = {name: len(split) for name, split in splits.items()}
        whole = all(_has_pixels(split) for split in splits.values())
    except Exception as error:  # Arrow and `datasets` raise nearly everything on damaged files; all of it means this
        raise ValueError(
            f"{folder} cannot be opened ({error_words(error)}): a file in it is damaged. "
            f"{AGAIN[0].upper()}{AGAIN[1:]} with --verify, which finds the file and writes it again"
        ) from error
    if rows != manifest["splits"] or not whole:
        what = (
            f"{rows} images, but its {MANIFEST} records {manifest['splits']}" if whole else "rows without their pixels"
        )
        raise ValueError(
            f"{folder} contains {what}: a shard was changed. {AGAIN[0].upper()}{AGAIN[1:]} with --verify, or remove "
            "the folder and prepare it again"
        )
    return splits


def _has_pixels(split: datasets.Dataset) -> bool:
    """Whether every row holds its image's bytes, and none names a file in their place; the table is sound."""
    split.data.table.validate()
    column = split.data.column("image")
    return all(
        not (chunk.null_count or chunk.field("bytes").null_count) and chunk.field("path").null_count == len(chunk)
        for chunk in column.chunks
    )


def _stamp(folder: Path) -> list[tuple[int, int, int]] | None:
    """What tells whether the manifest and the list of shards are still the same files."""
    try:
        states = [os.stat(folder / name) for name in (MANIFEST, SHARDS)]
    except OSError:
        return None
    return [(state.st_ino, state.st_size, state.st_mtime_ns) for state in states]
