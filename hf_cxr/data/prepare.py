"""Decode and resize a dataset once: write the folder that `sources/prepared.py` describes and reads.

``image`` contains the resized pixels uncompressed (PGM: a 15-byte header, then the bytes): reading one costs a tenth
of a millisecond, every program knows the format, and the folder is a dataset of the schema like any other. The pixels
are those that `DecodedImages` gives for the source's files, to the bit.

A shard is written again only if its rows, its files (size and time of change) or a setting changed, if it is damaged,
or if an image of it that could not be read can be read now.

One process at a time: it holds the folder's lock from start to end. If it is killed at any moment, the same call
continues from the finished shards and removes half-written files.

Refuses: a source that changed since (unless asked to update the folder), images that cannot be read (unless asked to
leave them out and list them), the same picture in two splits (unless asked to list it), a folder with other files, a
disk without enough space.

N = images, S = working side in pixels.
"""

import logging
import os
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import datasets
import pyarrow as pa
from datasets.arrow_writer import ArrowWriter
from tqdm.auto import tqdm

from hf_cxr.data.duplicates import Duplicate, find_duplicates
from hf_cxr.data.images.checks import warn_of_unused_bits
from hf_cxr.data.images.decoding import answers_in_order, decode_batch, worker_pool
from hf_cxr.data.images.engine import engine_name
from hf_cxr.data.manifest import (
    CARD,
    FORMAT,
    MANIFEST,
    SHARDS,
    Recipe,
    append_shard,
    digest_of,
    digest_of_shards,
    read_shards,
    sealed,
    small_files,
)
from hf_cxr.data.prepare_cut import Shard, cut, with_digests
from hf_cxr.data.prepare_parts import Part, Parts, begin_part, end_part, is_finished, opened_parts
from hf_cxr.data.prepared_folder import finish_folder, locked, refuse_foreign, remove_leftovers
from hf_cxr.data.sources.prepared import (
    SOURCE_COLUMNS,
    LaterFormatError,
    check_folder,
    damaged_shards,
    read_manifest,
)
from hf_cxr.data.sources.source import Source
from hf_cxr.data.splits import split_fingerprint
from hf_cxr.files import file_sha256, plain, replacing, write_json
from hf_cxr.words import plural

logger = logging.getLogger(__name__)

SHARD_BYTES = 2**26
BATCH = 32  # images handed to a worker at once


def prepare(
    source: Source,
    out: str | os.PathLike,
    recipe: Recipe,
    *,
    unreadable: Literal["error", "skip"] = "error",
    duplicates: Literal["error", "list"] = "error",
    update: bool = False,
    verify: bool = False,
    workers: int = 1,
    merge: bool = False,
) -> dict[str, Any]:
    """Decode, resize and write every image of every split, or do nothing if that has been done.

    Shards that `prepare_part` has finished in the folder are taken over.

    Args:
        source: the dataset, with images. What it is goes into the manifest, for training and reports to use.
        out: the folder; made if it is not there.
        recipe: size and filter.
        unreadable: what to do about images that cannot be read: "error" after all were read, or "skip" and list.
        duplicates: what to do about byte- or near-identical images in two splits: "error", or "list" them in the
            manifest. Those within a split are listed in any case; phantoms share their anatomy and are not compared.
        update: bring a folder that was prepared from another state of the source, or with other settings, up to date.
        verify: read the finished shards, compare each with its SHA-256, and decode the damaged ones again.
        workers: decoding processes.
        merge: decode nothing: refuse if a part of the folder is not finished.

    Returns:
        The manifest. ``decoded`` is the number of images that this call decoded: 0 if there was nothing to do.

    Raises:
        ValueError: the source or a setting changed, images cannot be read or are in two splits, ``out`` has other
            content, or another process is preparing it.
        OSError: no room, no permission to write, a decoding process was killed. What was finished stays, and the same
            call continues from it.
    """
    out = Path(out)
    refuse_foreign(out, list(source.splits))
    with locked(out):  # before anything of the folder is read: two calls never work from the same state
        remove_leftovers(out, list(source.splits))
        with opened_parts(out) as parts:
            job = _Job(source, out, recipe, workers)
            return job.run(
                unreadable=unreadable, duplicates=duplicates, update=update, verify=verify, merge=merge, parts=parts
            )


def prepare_part(
    source: Source,
    out: str | os.PathLike,
    recipe: Recipe,
    part: Part,
    *,
    update: bool = False,
    verify: bool = False,
    workers: int = 1,
    bar: bool = True,
) -> dict[str, Any]:
    """Write one part's shards into ``out/.parts``, for `prepare` with ``merge`` to put together.

    Any number of parts may be prepared at once, on machines that share the folder. A part that was stopped continues,
    and one that is finished is not done again.

    Args:
        part: which; all parts have the same n.
        source, out, recipe, update, verify, workers: as for `prepare`.
        bar: show a progress bar.

    Returns:
        ``decoded``, images that this call decoded; ``refused``, those of the part that cannot be read, as in the
        manifest; ``seconds`` and ``workers``.

    Raises:
        ValueError, OSError: as for `prepare`; or other parts are of another number, source or recipe.
    """
    refuse_foreign(Path(out), list(source.splits))
    return _Job(source, Path(out), recipe, workers).run_part(part, update=update, verify=verify, bar=bar)


@dataclass
class _Job:
    """One call of `prepare`, with the folder's lock held."""

    source: Source
    out: Path
    recipe: Recipe
    workers: int

    @property
    def splits(self) -> Mapping[str, datasets.Dataset]:
        return self.source.splits

    def run(
        self, *, unreadable: str, duplicates: str, update: bool, verify: bool, merge: bool, parts: Parts
    ) -> dict[str, Any]:
        out, recipe = self.out, self.recipe
        shards = with_digests(self.splits, cut(self.splits, recipe, SHARD_BYTES), recipe)
        settings = _settings(self.source, recipe)
        manifest, damage = _known_manifest(out)
        done = read_shards(out)
        todo, readable = self._unfinished(shards, done, verify=verify)
        changes = _changes(manifest, settings, shards, done) if manifest else []
        if manifest and readable:
            changes.append(f"images of {readable} of {len(shards)} shards that were left out can be read now")
        if damage and (stale := _stale(shards, done)):
            changes.append(f"{damage}, and {stale} of its shards came from a different source or different settings")
        if changes and not update:
            raise ValueError(_changed(out, changes))
        if manifest and not changes and not todo and _is_whole(out, manifest):
            parts.remove()
            _refuse(manifest, unreadable, duplicates)
            return manifest | {"decoded": 0}
        found = parts.finished(todo, verify=verify)
        todo = [shard for shard in todo if shard.key not in found]
        if merge and todo:
            raise ValueError(parts.lacking(todo, settings))
        _check_room(out, shards, todo, recipe)
        began = time.perf_counter()
        with _explained(out):
            (out / SHARDS).touch()
            (out / MANIFEST).unlink(missing_ok=True)  # from here to the end it is not a folder that can be trained on
            (out / CARD).unlink(missing_ok=True)  # it is of the folder as it was
            for key in [shard.key for shard in shards if shard.key in found]:  # in their order
                done[key] = parts.take(key, replaces=key in done)
        self._write_shards(todo, done)
        seconds = time.perf_counter() - began
        with _explained(out):
            manifest = settings | _finish(self.splits, out, shards, done, synthetic=self.source.synthetic)
            manifest["licence_note"] = self.source.licence_note
            if self.source.hub:
                manifest["hub"] = dict(self.source.hub)
            if self.source.notes:
                manifest["notes"] = list(self.source.notes)
        manifest |= parts.timing | {"decoder": engine_name()} if merge else self._timing(todo, seconds)
        if manifest["unused_bits"]:
            warn_of_unused_bits(manifest["unused_bits"], sum(manifest["splits"].values()))
        _refuse(manifest, unreadable, duplicates)
        with _explained(out):
            manifest = sealed(plain(manifest))
            write_json(out / MANIFEST, manifest)
            parts.remove()
        return manifest

    def run_part(self, part: Part, *, update: bool, verify: bool, bar: bool) -> dict[str, Any]:
        """Finish the part's shards in its own folder, but for those that are finished in the whole one."""
        folder, recipe = part.folder(self.out), self.recipe
        everything = cut(self.splits, recipe, SHARD_BYTES)
        shards = with_digests(self.splits, part.of_shards(everything), recipe)
        settings = _settings(self.source, recipe)
        manifest, _ = _known_manifest(self.out)
        done = read_shards(self.out)
        todo, readable = self._unfinished(shards, done, verify=verify)
        changes = _changes(manifest, settings, shards, done, whole=False) if manifest else []
        if manifest and readable:
            changes.append(f"images of {readable} shards that were left out can be read now")
        if changes and not update:
            raise ValueError(_changed(self.out, changes))
        if manifest and not changes and not todo:
            return {"finished": True, "decoded": 0, "refused": []}
        with locked(folder, f"part {part} of {self.out}"):
            remove_leftovers(folder, list(self.splits))
            job = replace(self, out=folder)
            own, pending = read_shards(folder), {shard.key for shard in todo}
            todo, _ = job._unfinished(todo, own, verify=verify)
            with _explained(folder):
                record = begin_part(self.out, part, settings, everything, check=not update)
            _check_room(folder, shards, todo, recipe)
            began = time.perf_counter()
            job._write_shards(todo, own, f"Preparing part {part}" if bar else None)
            entries = [(own if shard.key in pending else done)[shard.key] for shard in shards]
            timing = self._timing(todo, time.perf_counter() - began)
            before = {name: record[name] for name in ("decoded", "seconds")}
            record |= timing | {name: timing[name] + value for name, value in before.items()}
            record["refused"] = [image for entry in entries for image in entry["refused"]]
            with _explained(folder):
                return end_part(folder, record) | {"decoded": timing["decoded"]}

    def _timing(self, todo: list[Shard], seconds: float) -> dict[str, Any]:
        images = sum(map(len, todo))
        return {"decoded": images, "seconds": seconds, "workers": self.workers, "decoder": engine_name()}

    def _unfinished(self, shards: list[Shard], done: Mapping, *, verify: bool) -> tuple[list[Shard], int]:
        """Those that are to be written, and how many of them only because images of theirs can be read now."""
        finished = [shard for shard in shards if is_finished(shard, done, self.out)]
        if verify:
            broken = damaged_shards(self.out, [done[shard.key] for shard in finished], read=True)
            for reason in broken.values():
                logger.warning("%s: it is decoded again", reason)
            finished = [shard for shard in finished if shard.key not in broken]
        readable = {
            shard.key for shard in finished if _has_become_readable(self.splits[shard.split], shard, done, self.recipe)
        }
        kept = {shard.key for shard in finished} - readable
        return [shard for shard in shards if shard.key not in kept], len(readable)

    def _write_shards(self, todo: list[Shard], done: dict, title: str | None = "Preparing") -> None:
        """Write each shard and then its line in `shards.jsonl`; without a title no bar is shown."""
        total = sum(map(len, todo))
        if total:
            counts = plural(total, "image"), plural(self.workers, "process", "processes"), engine_name()
            logger.info("%s to decode, %s, by %s", *counts)
        with (
            worker_pool(self.workers if total > BATCH else 1) as pool,
            tqdm(total=total, desc=title, unit="image", disable=not (total and title)) as bar,
        ):
            answers = answers_in_order(pool, _work(self.splits, todo), self.recipe, ahead=4 * self.workers)
            for shard in todo:
                pictures = []
                while len(pictures) < len(shard):
                    batch = next(answers)
                    pictures += batch
                    bar.update(len(batch))
                with _explained(self.out / shard.split / shard.file_name):
                    if shard.key in done:  # if killed before the new line, the old one must not confirm this shard
                        append_shard(self.out, {"split": shard.split, "number": shard.number, "digest": None})
                    entry = _write_shard(self.splits[shard.split], shard, pictures, self.out)
                    append_shard(self.out, entry)
                done[shard.key] = entry


def _settings(source: Source, recipe: Recipe) -> dict[str, Any]:
    """What two preparations of the same folder must have in common, as the manifest records it."""
    return {
        "format": FORMAT,
        "recipe": asdict(recipe),
        "dataset": source.name,
        "label_names": list(source.labels),
        "aliases": dict(source.labels.aliases),
        "synthetic": source.synthetic,
        "missing": source.missing,
        **source.split_origin,
    }


@contextmanager
def _explained(place: Path) -> Iterator[None]:
    """An error of writing says what to do and what stays."""
    try:
        yield
    except OSError as error:
        text = str(error)
        if not text.startswith("cannot write"):
            text = f"cannot write {place}: {error.strerror or error}"
        raise OSError(
            f"{text}. Free disk space or fix the permissions, then run the same command again: finished shards stay"
        ) from error


def _known_manifest(out: Path) -> tuple[dict[str, Any] | None, str | None]:
    """The manifest, or None; and what is wrong with it, if it is damaged."""
    if not (out / MANIFEST).is_file():
        return None, None
    try:
        return read_manifest(out), None
    except LaterFormatError:
        raise
    except ValueError as error:
        logger.warning("%s", error)
        return None, f"{out / MANIFEST} is damaged"


def _stale(shards: list[Shard], done: Mapping) -> int:
    """How many finished shards are not those of this source and these settings."""
    wanted = {shard.key: shard.digest for shard in shards}
    return sum(entry["digest"] not in (None, wanted.get(key)) for key, entry in done.items())


def _is_whole(out: Path, manifest: Mapping) -> bool:
    """Whether the folder's files agree with its manifest and have digests; if not, they are written again."""
    try:
        check_folder(out, manifest)
    except (ValueError, OSError) as error:
        logger.warning("%s", error)
        return False
    if "content_digest" not in manifest:
        logger.info("%s has no digests of its shards: they are recorded as they are now", out)
    return "content_digest" in manifest


def _has_become_readable(split: datasets.Dataset, shard: Shard, done: Mapping, recipe: Recipe) -> bool:
    """Whether an image of a finished shard that could not be read can be read now, its file unchanged: a decoder was
    installed, a permission was given, a disk is mounted again."""
    refused = {image["image_id"] for image in done[shard.key]["refused"]}
    ids = split.select_columns(["image_id"])[shard.start : shard.stop]["image_id"] if refused else []
    rows = _undecoded(split).select([shard.start + number for number, name in enumerate(ids) if name in refused])
    return any(isinstance(decode_batch(_sources(rows[[row]]), recipe)[0], dict) for row in range(len(rows)))


def _changed(out: Path, changes: list[str]) -> str:
    return (
        f"{out} was prepared from a different source or with different settings: {'; '.join(changes)}. Add "
        "--update to bring it up to date (only what changed is decoded again), or give another folder"
    )


def _changes(
    manifest: Mapping, settings: Mapping, shards: list[Shard], done: Mapping, *, whole: bool = True
) -> list[str]:
    """In words, how the source and the settings differ from those of the manifest; of some shards if not ``whole``."""
    changes = [
        f"{name} was {manifest.get(name)}, is {value}"
        for name, value in settings.items()
        if manifest.get(name) != value
    ]
    differing = sum(done.get(shard.key, {}).get("digest") != shard.digest for shard in shards)
    is_other = manifest["source_digest"] != digest_of([shard.digest for shard in shards]) if whole else differing
    if is_other and not changes:
        changes.append(
            f"the rows or files of {differing or 'some'} of {len(shards)} shards changed (labels, ids, sizes, times)"
        )
    return changes


def _check_room(out: Path, shards: list[Shard], todo: list[Shard], recipe: Recipe) -> None:
    needed = sum(map(len, todo)) * (recipe.size**2 + 512)
    parent = next(folder for folder in (out, *out.absolute().parents) if folder.is_dir())
    free = shutil.disk_usage(parent).free
    if needed > free:
        raise OSError(
            f"not enough disk space at {out}: {needed / 1e9:.2f} GB are needed for {sum(map(len, shards)):,} images "
            f"and {free / 1e9:.2f} GB are free; give a folder on a larger disk, or a smaller --resize_size"
        )


def _work(splits: Mapping, todo: list[Shard]) -> Iterator[list[tuple[bytes | str, str]]]:
    """Batches of (file or its bytes, name in errors), in the order of the shards; none crosses a shard's end."""
    for shard in todo:
        columns = _undecoded(splits[shard.split])
        for start in range(shard.start, shard.stop, BATCH):
            yield _sources(columns[start : min(start + BATCH, shard.stop)])


def _undecoded(split: datasets.Dataset) -> datasets.Dataset:
    return split.select_columns(["image", "image_id"]).cast_column("image", datasets.Image(decode=False))


def _sources(rows: Mapping[str, list]) -> list[tuple[bytes | str, str]]:
    return [
        # Bytes that are there but empty are an unreadable image; its path may lead anywhere.
        (image["path"] if image["bytes"] is None else image["bytes"], image["path"] or image_id)
        for image, image_id in zip(rows["image"], rows["image_id"], strict=True)
    ]


def _write_shard(split: datasets.Dataset, shard: Shard, pictures: list, out: Path) -> dict[str, Any]:
    """Write the shard's readable rows; what `shards.jsonl` says of it."""
    rows = range(shard.start, shard.stop)
    kept = [row for row, picture in zip(rows, pictures, strict=True) if isinstance(picture, dict)]
    good = [picture for picture in pictures if isinstance(picture, dict)]
    columns = split.remove_columns("image").select(kept).with_format("arrow")[:]
    pixels = pa.array([picture["image"] for picture in good], pa.binary())
    image = pa.StructArray.from_arrays([pixels, pa.nulls(len(good), pa.string())], names=["bytes", "path"])
    features = _features(split)
    table = pa.table(
        {"image": image}
        | {name: columns[name] for name in columns.column_names}
        | {name: pa.array([picture[name] for picture in good], pa.string()) for name in SOURCE_COLUMNS}
    )
    path = out / shard.split / shard.file_name
    with replacing(path) as beside:
        with ArrowWriter(features=features, path=str(beside)) as writer:
            writer.write_table(table.select(list(features)))
            writer.finalize()
        size, sha256 = beside.stat().st_size, file_sha256(beside)
    refused = [
        {"split": shard.split, "image_id": image_id, "reason": reason}
        for image_id, reason in zip(split.select(rows)["image_id"], pictures, strict=True)
        if isinstance(reason, str)
    ]
    what = {"file": shard.file_name, "rows": len(kept), "bytes": size, "refused": refused}
    what |= {"unused_bits": sum(picture["unused_bits"] for picture in good), "sha256": sha256}
    return sealed(asdict(shard) | what)


def _features(split: datasets.Dataset) -> datasets.Features:
    columns = {name: feature for name, feature in split.features.items() if name not in ("image", *SOURCE_COLUMNS)}
    return datasets.Features({"image": datasets.Image()} | columns | SOURCE_COLUMNS)


def _finish(splits: Mapping, out: Path, shards: list[Shard], done: dict, *, synthetic: bool) -> dict[str, Any]:
    """Make the shards a folder that `load_from_disk` opens, and nothing else; what the manifest says of it."""
    features = {name: _features(split) for name, split in splits.items()}
    entries = finish_folder(out, features, [done[shard.key] for shard in shards])
    prepared = datasets.load_from_disk(str(out))
    return {
        "splits": {name: len(split) for name, split in prepared.items()},
        "refused": [image for entry in entries for image in entry["refused"]],
        "duplicates": [] if synthetic else [asdict(duplicate) for duplicate in find_duplicates(prepared)],
        "unused_bits": sum(entry.get("unused_bits", 0) for entry in entries),
        "split_fingerprint": split_fingerprint(prepared),
        "source_digest": digest_of([shard.digest for shard in shards]),
        "content_digest": digest_of_shards(entries),
        "files": {name: file_sha256(out / name) for name in small_files(list(splits))},
        "bytes": sum(entry["bytes"] for entry in entries),
        "versions": {name: version(name) for name in ("hf-cxr", "datasets", "pillow", "pyarrow")},
    }


def _refuse(manifest: Mapping[str, Any], unreadable: str, duplicates: str) -> None:
    """Refuse problems that were not accepted: images that cannot be read, and those that are in two splits."""
    refused = manifest["refused"]
    if refused and unreadable == "error":
        total = sum(manifest["splits"].values()) + len(refused)
        examples = "; ".join(f"{entry['split']} {entry['image_id']}: {entry['reason']}" for entry in refused[:5])
        raise ValueError(
            f"{len(refused):,} of {total:,} images cannot be read: {examples}. {SHARDS} in the folder names all. The "
            "others are decoded and kept: fix these files and run the same command again, or leave them out and list "
            "them with --unreadable skip"
        )
    across = [Duplicate(**entry) for entry in manifest["duplicates"] if entry["split"] != entry["other_split"]]
    if across and duplicates == "error":
        raise ValueError(
            f"{plural(len(across), 'image is', 'images are')} in two splits: "
            f"{'; '.join(map(str, across[:5]))}. Figures from such splits are inflated: re-split the images, fix "
            "the table, or continue and list them with --duplicates list"
        )
