"""Decode and resize a dataset once: a folder that `datasets.load_from_disk` opens, memory-mapped, 8-bit grey.

    DIR/manifest.json                    what was prepared, from what, how, and what was refused; written last
    DIR/shards.jsonl                     one line a finished shard; a stopped preparation goes on from it
    DIR/train/data-00000-of-00068.arrow  the schema's columns, and two of SOURCE_COLUMNS, some 64 MB a shard
    DIR/validation/...  DIR/test/...

``image`` holds the resized pixels uncompressed (PGM: a 15-byte header, then the bytes), so that reading one costs a
tenth of a millisecond, every program knows the format, and all that takes a dataset of the schema takes this one. They
are the pixels that `DecodedImages` gives for the source's files, to the bit.

A shard is done again only if its rows, its files (size and time of change) or a setting are others than they were, or
if an image of it that could not be read now can be.

Refuses: a source that changed since (unless told to bring the folder up to date), images that cannot be read (unless
told to leave them out and list them), the same picture in two splits (unless told to list it), a folder that holds
something else, a disk without room.

N = images, S = working side in pixels.
"""

import errno
import hashlib
import json
import logging
import multiprocessing
import os
import shutil
import tempfile
import time
from collections import deque
from collections.abc import Iterator, Mapping
from concurrent.futures import Executor, Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import datasets
import pyarrow as pa
from datasets.arrow_writer import ArrowWriter
from filelock import FileLock, Timeout
from tqdm.auto import tqdm

from hf_cxr.data.checks import warn_of_unused_bits
from hf_cxr.data.duplicates import Duplicate, find_duplicates, perceptual_hash
from hf_cxr.data.images import RULE, ImageError, read_grey, resize_grey
from hf_cxr.data.splits import split_fingerprint
from hf_cxr.files import replacing, write_json, write_text

logger = logging.getLogger(__name__)

FORMAT = 1  # of the folder; another number, another layout
SHARD_BYTES = 2**26
BATCH = 32  # images handed to a worker at once
MANIFEST, SHARDS = "manifest.json", "shards.jsonl"
SOURCE_COLUMNS = {"file_sha256": datasets.Value("string"), "perceptual_hash": datasets.Value("string")}
"""SHA-256 of the file as it was read; and a hash that near-identical pictures share, see `duplicates.py`."""


@dataclass(frozen=True)
class Recipe:
    """How pixels are made. Two folders with the same recipe and source hold the same pixels.

    Attributes:
        size: working side S in pixels.
        resample: Pillow's number of the filter, as the image processor has it.
        rule: of `images.py`, by which a file becomes 8-bit grey.
    """

    size: int
    resample: int
    rule: int = RULE


@dataclass(frozen=True)
class Source:
    """What the splits are: what training and reports are told when only the prepared folder is at hand.

    Attributes:
        dataset: its name.
        label_names: the C findings.
        aliases: their other names, to the findings: what evaluation over shared findings goes by.
        synthetic: the images are no patients'.
        missing: images that the source lists and lacks, by split.
        splits_from: where the splits are from, in words.
        split_file: name, SHA-256 and fold of the split file, if there is one.
    """

    dataset: str
    label_names: list[str]
    aliases: dict[str, str] = field(default_factory=dict)
    synthetic: bool = False
    missing: dict[str, int] = field(default_factory=dict)
    splits_from: str | None = None
    split_file: dict[str, Any] | None = None


@dataclass(frozen=True)
class Shard:
    """Rows ``start`` to ``stop`` of a split, and the digest of all that their pixels and columns depend on."""

    split: str
    number: int
    of: int
    start: int
    stop: int
    digest: str

    def __len__(self) -> int:
        return self.stop - self.start

    @property
    def file_name(self) -> str:
        return f"data-{self.number:05d}-of-{self.of:05d}.arrow"


def prepare(
    splits: Mapping[str, datasets.Dataset],
    out: str | os.PathLike,
    recipe: Recipe,
    source: Source,
    *,
    unreadable: Literal["error", "skip"] = "error",
    duplicates: Literal["error", "list"] = "error",
    update: bool = False,
    workers: int = 1,
) -> dict[str, Any]:
    """Decode, resize and write every image of every split, or do nothing if that has been done.

    Args:
        splits: datasets of the schema, with images.
        out: the folder; made if it is not there.
        recipe: size and filter.
        source: what the splits are.
        unreadable: what to do about images that cannot be read: "error" after all were looked at, or "skip" and list.
        duplicates: what to do about byte- or near-identical images in two splits: "error", or "list" them in the
            manifest. Those within a split are listed in any case; phantoms share their anatomy and are not looked at.
        update: bring a folder that was prepared from another state of the source, or with other settings, up to date.
        workers: decoding processes.

    Returns:
        The manifest. ``decoded`` is the number of images that this call decoded: 0 if there was nothing to do.

    Raises:
        ValueError: the source or a setting changed, images cannot be read or are in two splits, or ``out`` holds
            something else.
        OSError: no room, no leave to write, a decoding process was ended. What was finished stays, and the same call
            goes on from it.
    """
    out = Path(out)
    _refuse_foreign(out)
    shards = [shard for name, split in splits.items() for shard in _shards(name, split, recipe)]
    settings = {"format": FORMAT, "recipe": asdict(recipe)} | asdict(source)
    manifest, done = _read_json(out / MANIFEST), _finished(out)
    todo = [shard for shard in shards if not _is_finished(shard, done, out)]
    mended = [shard for shard in shards if shard not in todo and _is_mended(splits[shard.split], shard, done, recipe)]
    todo = [shard for shard in shards if shard in todo or shard in mended]
    changes = _changes(manifest, settings, shards, done) if manifest else []
    if manifest and mended:
        changes.append(f"images of {len(mended)} of {len(shards)} shards that were left out can be read now")
    if changes and not update:
        raise ValueError(
            f"{out} was prepared from something else: {'; '.join(changes)}. Say --update to bring it up to date (only "
            "what changed is decoded again), or give another folder"
        )
    if manifest and not changes and not todo:
        _refuse(manifest, unreadable, duplicates)
        return manifest | {"decoded": 0}
    _check_room(out, shards, todo, recipe)
    out.mkdir(parents=True, exist_ok=True)
    with _alone(out):
        (out / SHARDS).touch()
        (out / MANIFEST).unlink(missing_ok=True)  # from here to the end the folder is none that can be trained on
        began = time.perf_counter()
        _write_shards(splits, out, recipe, todo, done, workers)
        seconds = time.perf_counter() - began
        manifest = settings | _finish(splits, out, shards, done, synthetic=source.synthetic)
        manifest |= {"decoded": sum(map(len, todo)), "seconds": seconds, "workers": workers}
        if manifest["unused_bits"]:
            warn_of_unused_bits(manifest["unused_bits"], sum(manifest["splits"].values()))
        _refuse(manifest, unreadable, duplicates)
        write_json(out / MANIFEST, manifest)
    return manifest


def read_manifest(folder: str | os.PathLike) -> dict[str, Any]:
    """The manifest of a prepared folder.

    Raises:
        FileNotFoundError: there is no such folder, or it was not prepared to its end.
        ValueError: the folder is of a later version of this package.
    """
    folder = Path(folder)
    manifest = _read_json(folder / MANIFEST)
    if not manifest:
        state = "was not prepared to its end" if (folder / SHARDS).exists() else "is no prepared folder"
        raise FileNotFoundError(f"{folder} {state}: it has no {MANIFEST}; say hf-cxr prepare ... --out {folder}")
    if manifest["format"] != FORMAT:
        raise ValueError(f"{folder} has format {manifest['format']}, this hf_cxr reads {FORMAT}: prepare it again")
    return manifest


def load_prepared(folder: str | os.PathLike) -> tuple[datasets.DatasetDict, dict[str, Any]]:
    """The splits of a prepared folder, memory-mapped, and its manifest.

    Raises:
        FileNotFoundError: no such folder, an unfinished one, or a shard is gone.
        ValueError: a shard is not of the size it was written with, or the rows are not the manifest's.
    """
    manifest = read_manifest(folder)
    for shard in _finished(Path(folder)).values():
        path = Path(folder) / shard["split"] / shard["file"]
        if not path.exists():
            raise FileNotFoundError(f"{path} is gone; say the same hf-cxr prepare again")
        if path.stat().st_size != shard["bytes"]:
            raise ValueError(
                f"{path} has {path.stat().st_size:,} bytes, {shard['bytes']:,} were written: it was cut off or "
                "changed; say the same hf-cxr prepare again"
            )
    splits = datasets.load_from_disk(str(folder))
    rows = {name: len(split) for name, split in splits.items()}
    if rows != manifest["splits"]:
        raise ValueError(
            f"{folder} holds {rows} images, its {MANIFEST} says {manifest['splits']}: a shard or the list "
            "of them was changed; remove the folder and prepare it again"
        )
    return splits, manifest


def check_recipe(manifest: Mapping[str, Any], size: int, resample: int, folder: str | os.PathLike) -> None:
    """Refuse prepared pixels that are not those which a model with this preprocessing is to see.

    Raises:
        ValueError: another size, another filter, or a rule that this version of the package does not follow.
    """
    wanted = asdict(Recipe(size, resample))
    if manifest["recipe"] != wanted:
        raise ValueError(
            f"{folder} was prepared with {_words(manifest['recipe'])}; the image processor here wants "
            f"{_words(wanted)}: prepare it again with the same --resize_size and model, or change these here"
        )


def _words(recipe: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in recipe.items())


def _refuse_foreign(out: Path) -> None:
    if out.exists() and not out.is_dir():
        raise ValueError(f"{out} is a file; give a folder")
    names = {path.name for path in out.iterdir()} - {".lock"} if out.is_dir() else set()
    if names and not names & {MANIFEST, SHARDS}:
        raise ValueError(f"{out} holds files that are no prepared dataset; give a new or empty folder")


def _alone(out: Path):
    try:
        return FileLock(out / ".lock").acquire(timeout=0)
    except Timeout as error:
        raise ValueError(f"another process is preparing {out}; wait for it, or give another folder") from error


def _shards(name: str, split: datasets.Dataset, recipe: Recipe) -> list[Shard]:
    """The cut of a split into shards of some 64 MB, each with the digest of its rows, files and recipe."""
    rows = max(1, SHARD_BYTES // (recipe.size**2 + 512))
    of = max(1, -(-len(split) // rows))
    undecoded = split.cast_column("image", datasets.Image(decode=False)).with_format("arrow")
    images, others = undecoded.select_columns(["image"]), undecoded.remove_columns("image")
    shards = []
    for number in range(of):
        start, stop = number * rows, min((number + 1) * rows, len(split))
        # Few at a time: images may be inside their rows, and those as stored are far larger than resized ones.
        parts = (images[first : min(first + BATCH, stop)] for first in range(start, stop, BATCH))
        states, rest = [state for part in parts for state in _states(part)], _plain_rows(others[start:stop])
        digest = _digest_of([asdict(recipe), FORMAT, name, split.column_names, states, rest])
        shards.append(Shard(name, number, of, start, stop, digest))
    return shards


def _states(table: pa.Table) -> list[Any]:
    """What tells whether a row's file is still the one it was: size and time of change; for bytes, their SHA-256."""
    states = []
    for image in table["image"]:
        content, path = image["bytes"], image["path"].as_py()
        if content.is_valid:
            states.append(hashlib.sha256(content.as_buffer()).hexdigest())
            continue
        if path is None:  # the file is missing, and refused when its turn comes
            states.append([None, errno.ENOENT])
            continue
        try:
            stat = os.stat(path)
            states.append([os.path.basename(path), stat.st_size, stat.st_mtime_ns])
        except OSError as error:  # it is refused with this reason when its turn comes
            states.append([os.path.basename(path), error.errno])
    return states


def _plain_rows(table: pa.Table) -> list[str]:
    # repr, because NaN is a value of the schema that JSON has no word for.
    return [repr(column.to_pylist()) for column in table.columns]


def _digest_of(value: Any) -> str:
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()


def _key(shard: Shard) -> tuple[str, int]:
    return shard.split, shard.number


def _finished(out: Path) -> dict[tuple[str, int], dict[str, Any]]:
    """The last line of `shards.jsonl` on each shard; a last line that a kill cut off is passed over."""
    done = {}
    path = out / SHARDS
    for line in path.read_text(encoding="utf-8").splitlines() if path.is_file() else ():
        try:
            entry = json.loads(line)
        except ValueError:
            continue
        done[entry["split"], entry["number"]] = entry
    return done


def _is_finished(shard: Shard, done: Mapping, out: Path) -> bool:
    entry = done.get(_key(shard), {})
    path = out / shard.split / shard.file_name
    return entry.get("digest") == shard.digest and path.is_file() and path.stat().st_size == entry["bytes"]


def _is_mended(split: datasets.Dataset, shard: Shard, done: Mapping, recipe: Recipe) -> bool:
    """Whether an image of a finished shard that could not be read now can be, its file unchanged: since a decoder was
    installed, a right given, a disk mounted anew."""
    refused = {image["image_id"] for image in done[_key(shard)]["refused"]}
    ids = split.select_columns(["image_id"])[shard.start : shard.stop]["image_id"] if refused else []
    rows = _undecoded(split).select([shard.start + number for number, name in enumerate(ids) if name in refused])
    return any(isinstance(_decode(_sources(rows[[row]]), recipe)[0], dict) for row in range(len(rows)))


def _changes(manifest: Mapping, settings: Mapping, shards: list[Shard], done: Mapping) -> list[str]:
    """In words, how the source and the settings differ from those of the manifest."""
    changes = [
        f"{name} was {manifest.get(name)}, is {value}"
        for name, value in settings.items()
        if manifest.get(name) != value
    ]
    if manifest["source_digest"] != _digest_of([shard.digest for shard in shards]) and not changes:
        others = sum(done.get(_key(shard), {}).get("digest") != shard.digest for shard in shards)
        changes.append(
            f"the rows or files of {others or 'some'} of {len(shards)} shards are others (labels, ids, sizes, times)"
        )
    return changes


def _check_room(out: Path, shards: list[Shard], todo: list[Shard], recipe: Recipe) -> None:
    needed = sum(map(len, todo)) * (recipe.size**2 + 512)
    parent = next(folder for folder in (out, *out.absolute().parents) if folder.is_dir())
    free = shutil.disk_usage(parent).free
    if needed > free:
        raise OSError(
            f"{out}: {needed / 1e9:.2f} GB are needed for {sum(map(len, shards)):,} images and "
            f"{free / 1e9:.2f} GB are free; give a folder on a larger disk, or a smaller --resize_size"
        )


def _write_shards(splits: Mapping, out: Path, recipe: Recipe, todo: list[Shard], done: dict, workers: int) -> None:
    """Write each shard and then its line in `shards.jsonl`."""
    total = sum(map(len, todo))
    logger.info("%s images to decode, %d processes", f"{total:,}", workers)
    with _pool(workers if total > BATCH else 1) as pool, tqdm(total=total, desc="Preparing", unit="image") as bar:
        answers = _answers(pool, _work(splits, todo), recipe, ahead=4 * workers)
        for shard in todo:
            pictures = []
            while len(pictures) < len(shard):
                batch = next(answers)
                pictures += batch
                bar.update(len(batch))
            try:
                if _key(shard) in done:  # killed between shard and line, the former line must not vouch for this one
                    _append(out / SHARDS, {"split": shard.split, "number": shard.number, "digest": None})
                entry = _write_shard(splits[shard.split], shard, pictures, out)
                _append(out / SHARDS, entry)
            except OSError as error:
                raise OSError(
                    f"cannot write {out / shard.split / shard.file_name}: {error.strerror or error}. Make room (or "
                    "give the right to write) and say the same again: finished shards stay"
                ) from error
            done[_key(shard)] = entry


def _pool(workers: int) -> Executor:
    # Forking would copy locks that other threads (Arrow's, the progress bar's) may hold.
    return ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn")) if workers > 1 else _Here()


class _Here(Executor):
    """An executor without processes, for one worker."""

    def submit(self, function, /, *args, **kwargs) -> Future:
        future: Future = Future()
        future.set_result(function(*args, **kwargs))
        return future


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
        (image["path"] if image["bytes"] is None else image["bytes"], image["path"] or image_id)
        for image, image_id in zip(rows["image"], rows["image_id"], strict=True)
    ]


def _answers(pool: Executor, work: Iterator, recipe: Recipe, *, ahead: int) -> Iterator[list]:
    """Answers in the order of the work, with no more than ``ahead`` batches in memory."""
    waiting: deque[Future] = deque()
    try:
        for batch in work:
            waiting.append(pool.submit(_decode, batch, recipe))
            if len(waiting) > ahead:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    except BrokenProcessPool as error:
        raise OSError(
            "a decoding process was ended from outside, most likely for want of memory; say the same again with fewer "
            "--workers: finished shards stay. (A script that calls prepare must do so under if __name__ == '__main__')"
        ) from error


def _decode(batch: list[tuple[bytes | str, str]], recipe: Recipe) -> list[dict[str, str | bytes | bool] | str]:
    """For each image the columns that come from its pixels, or why it cannot be read."""
    answers: list[dict[str, str | bytes | bool] | str] = []
    for source, name in batch:
        try:
            remarks: list[str] = []
            grey = read_grey(
                source, name=name, remarks=remarks
            )  # refuses what is no image of a sane size before it is read whole
            content = source if isinstance(source, bytes) else Path(source).read_bytes()
            image = resize_grey(grey, recipe.size, recipe.resample)
        except ImageError as error:
            answers.append(error.reason)
        except OSError as error:
            answers.append(f"{type(error).__name__}: {error.strerror}")
        else:
            answers.append(
                {
                    "image": b"P5 %d %d 255\n" % image.shape[::-1] + image.tobytes(),
                    "file_sha256": hashlib.sha256(content).hexdigest(),
                    "perceptual_hash": perceptual_hash(grey),
                    "unused_bits": bool(remarks),
                }
            )
    return answers


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
        size = beside.stat().st_size
    refused = [
        {"split": shard.split, "image_id": image_id, "reason": reason}
        for image_id, reason in zip(split.select(rows)["image_id"], pictures, strict=True)
        if isinstance(reason, str)
    ]
    entry = {"file": shard.file_name, "rows": len(kept), "bytes": size, "refused": refused}
    return asdict(shard) | entry | {"unused_bits": sum(picture["unused_bits"] for picture in good)}


def _features(split: datasets.Dataset) -> datasets.Features:
    others = {name: feature for name, feature in split.features.items() if name not in ("image", *SOURCE_COLUMNS)}
    return datasets.Features({"image": datasets.Image()} | others | SOURCE_COLUMNS)


def _append(path: Path, entry: Mapping) -> None:
    with path.open("a", encoding="utf-8") as file:
        if file.tell() and path.read_bytes()[-1:] != b"\n":  # a line that a kill cut off
            file.write("\n")
        file.write(json.dumps(entry) + "\n")
        file.flush()
        os.fsync(file.fileno())


def _finish(splits: Mapping, out: Path, shards: list[Shard], done: Mapping, *, synthetic: bool) -> dict[str, Any]:
    """Make the shards a folder that `load_from_disk` opens, and nothing else; what the manifest says of it."""
    empty = datasets.DatasetDict(
        {name: datasets.Dataset.from_dict({c: [] for c in _features(s)}, _features(s)) for name, s in splits.items()}
    )
    with tempfile.TemporaryDirectory(dir=out, prefix=".skeleton-") as skeleton:
        _save_quietly(empty, skeleton)  # the library's own files, so that its format is its own matter
        for name in splits:
            mine = [shard for shard in shards if shard.split == name]
            _place_split(Path(skeleton) / name, out / name, mine)
        os.replace(Path(skeleton) / "dataset_dict.json", out / "dataset_dict.json")
    entries = [done[_key(shard)] for shard in shards]
    write_text(out / SHARDS, "".join(json.dumps(entry) + "\n" for entry in entries))
    prepared = datasets.load_from_disk(str(out))
    return {
        "splits": {name: len(split) for name, split in prepared.items()},
        "refused": [image for entry in entries for image in entry["refused"]],
        "duplicates": [] if synthetic else [asdict(duplicate) for duplicate in find_duplicates(prepared)],
        "unused_bits": sum(entry.get("unused_bits", 0) for entry in entries),
        "split_fingerprint": split_fingerprint(prepared),
        "source_digest": _digest_of([shard.digest for shard in shards]),
        "bytes": sum(entry["bytes"] for entry in entries),
        "versions": {name: version(name) for name in ("hf-cxr", "datasets", "pillow", "pyarrow")},
    }


def _place_split(skeleton: Path, folder: Path, shards: list[Shard]) -> None:
    state = _read_json(skeleton / "state.json")
    state["_data_files"] = [{"filename": shard.file_name} for shard in shards]
    state["_fingerprint"] = _digest_of([shard.digest for shard in shards])[:16]
    write_json(folder / "state.json", state)
    os.replace(skeleton / "dataset_info.json", folder / "dataset_info.json")
    listed = {shard.file_name for shard in shards} | {"state.json", "dataset_info.json"}
    for path in folder.iterdir():
        if path.name not in listed:
            path.unlink()


def _save_quietly(splits: datasets.DatasetDict, folder: str) -> None:
    shown = datasets.are_progress_bars_disabled() is False
    datasets.disable_progress_bars()
    try:
        splits.save_to_disk(folder)
    finally:
        if shown:
            datasets.enable_progress_bars()


def _refuse(manifest: Mapping[str, Any], unreadable: str, duplicates: str) -> None:
    """Refuse what was not accepted by choice: images that cannot be read, and those that are in two splits."""
    refused = manifest["refused"]
    if refused and unreadable == "error":
        total = sum(manifest["splits"].values()) + len(refused)
        examples = "; ".join(f"{entry['split']} {entry['image_id']}: {entry['reason']}" for entry in refused[:5])
        raise ValueError(
            f"{len(refused):,} of {total:,} images cannot be read: {examples}. {SHARDS} in the folder names all. The "
            "others are decoded and kept: mend these files and say the same again, or leave them out and list them by "
            "--unreadable skip"
        )
    across = [Duplicate(**entry) for entry in manifest["duplicates"] if entry["split"] != entry["other_split"]]
    if across and duplicates == "error":
        raise ValueError(
            f"{len(across):,} images are in two splits: {'; '.join(map(str, across[:5]))}. Figures from such splits "
            "are inflated: deal the images anew, mend the table, or go on and list them with --duplicates list"
        )


def _read_json(path: Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except ValueError as error:
        raise ValueError(f"{path} is no JSON ({error}): remove the folder and prepare it again") from error
