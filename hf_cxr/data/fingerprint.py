"""What a run was trained on, row by row: so that a resumed run sees the data that it was started with.

`data_state` is a table of one row an image, in the order of the splits:

| column     | type            | meaning                                                                           |
|------------|-----------------|-----------------------------------------------------------------------------------|
| split      | string          | train, validation or test                                                         |
| image_id   | string          |                                                                                   |
| patient_id | string          |                                                                                   |
| labels     | list of float32 | C label cells: 1, 0, NaN                                                          |
| file       | string          | whether the image is still the same: size and time of change of its file; or the  |
|            |                 | digest of its bytes where the data hold them, or of its file where it is prepared |

and, in the schema's metadata, the C finding names. `data_fingerprint` names all of it but the files, so it is the same
on every machine. `changes` says in words how two states differ.

N = images, C = findings.
"""

import hashlib
import json
import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from tqdm.auto import tqdm

from hf_cxr.data.images.waiting import FileLooks
from hf_cxr.files import replacing, version_of
from hf_cxr.words import plural

FILE = "data.parquet"
KEY = b"hf_cxr.findings"
MANY = 20_000  # images of which a bar is shown
BATCH = 4096  # rows of which the images' places are in memory


@dataclass(frozen=True)
class Changes:
    """How the data differ from those that a run was started with, in words; each list is empty if they do not.

    Attributes:
        rows: findings, images, their order, patients, labels.
        gone: images of validation and test that are no longer there; nothing was trained on them.
        gone_keys: (split, image id) of these.
        files: image files.
    """

    rows: list[str] = field(default_factory=list)
    gone: list[str] = field(default_factory=list)
    gone_keys: list[tuple[str, str]] = field(default_factory=list)
    files: list[str] = field(default_factory=list)


def data_state(splits: Mapping[str, datasets.Dataset], label_names: Sequence[str]) -> pa.Table:
    """The state of the splits' rows, labels and files, N rows: see the top of this module."""
    parts = []
    for name, split in splits.items():
        columns = split.select_columns(["image_id", "patient_id", "labels"]).with_format("arrow")[:]
        labels = np.asarray(columns["labels"].combine_chunks().flatten(), dtype=np.float32)
        cells = pa.array(np.where(np.isnan(labels), np.float32(np.nan), labels), pa.float32(), from_pandas=False)
        parts.append(
            pa.table(
                {
                    "split": pa.array([name] * len(split), pa.string()),
                    "image_id": columns["image_id"].cast(pa.string()),
                    "patient_id": columns["patient_id"].cast(pa.string()),
                    "labels": pa.FixedSizeListArray.from_arrays(cells, len(label_names)),
                    "file": pa.array(_file_states(split), pa.string()),
                }
            )
        )
    return pa.concat_tables(parts).replace_schema_metadata({KEY: json.dumps(list(label_names))})


def data_fingerprint(state: pa.Table) -> str:
    """SHA-256, 64 hexadecimal digits, over findings, splits, images in their order, patients and labels; no files."""
    digest = hashlib.sha256((state.schema.metadata or {})[KEY])
    for column in ("split", "image_id", "patient_id"):
        digest.update(json.dumps(state[column].to_pylist()).encode())
    digest.update(_labels(state).tobytes())
    return digest.hexdigest()


def save_state(state: pa.Table, folder: str | os.PathLike) -> None:
    """Write the state into a run folder. It holds patients' ids and stays on this machine."""
    with replacing(Path(folder) / FILE) as beside:
        pq.write_table(state, beside)


def load_state(folder: str | os.PathLike) -> pa.Table | None:
    """The state that `save_state` wrote; None if there is none or it cannot be read."""
    try:
        with pq.ParquetFile(Path(folder) / FILE) as file:
            state = file.read()
    except (OSError, pa.ArrowException):
        return None
    columns = {"split", "image_id", "patient_id", "labels", "file"}
    return state if set(state.column_names) == columns and KEY in (state.schema.metadata or {}) else None


def changes(before: pa.Table, now: pa.Table, *, ignore_files_of: Collection[str] = ()) -> Changes:
    """How two states of the same data differ; ``ignore_files_of`` are ids of images whose files may differ."""
    names, names_now = (json.loads(state.schema.metadata[KEY]) for state in (before, now))
    if names != names_now:
        return Changes(rows=[f"the findings were {', '.join(names)} and are now {', '.join(names_now)}"])
    if all(before[column].equals(now[column]) for column in ("split", "image_id")):
        found = Changes()
    else:
        found, before, now = _common_rows(before, now)
    found.rows.extend(_changed_patients(before, now) + _changed_labels(before, now, names))
    found.files.extend(_changed_files(before, now, set(ignore_files_of)))
    return found


def _common_rows(before: pa.Table, now: pa.Table) -> tuple[Changes, pa.Table, pa.Table]:
    """What is gone, new, or in another order; and the rows of the images that both have, in the order of before."""
    keys, keys_now = _keys(before), _keys(now)
    row_of = {key: row for row, key in enumerate(keys_now)}
    gone, new = [key for key in keys if key not in row_of], sorted(set(keys_now) - set(keys))
    not_trained_on = [key for key in gone if key[0] != "train"]
    found = Changes(gone=_listed("no longer in", not_trained_on), gone_keys=not_trained_on)
    found.rows.extend(_listed("no longer in", [key for key in gone if key[0] == "train"]) + _listed("new in", new))
    before = before.take(pa.array([row for row, key in enumerate(keys) if key in row_of], pa.int64()))
    rows = np.array([row_of[key] for key in _keys(before)], dtype=np.int64)
    if not new and (np.diff(rows) < 0).any():
        found.rows.append("the images are in another order")
    return found, before, now.take(pa.array(rows))


def _file_states(split: datasets.Dataset) -> list[str]:
    names = split.column_names
    if "file_sha256" in names:  # prepared: the file as it was decoded
        return split.select_columns(["file_sha256"]).with_format("arrow")[:]["file_sha256"].to_pylist()
    if "stream" in names:
        places = split.select_columns(["stream"]).with_format("arrow")[:]["stream"].combine_chunks()
        shards = places.field("shard").to_pylist()
        states = {shard: _state_of_file(shard) for shard in dict.fromkeys(shards)}
        groups, rows = (places.field(name).to_pylist() for name in ("row_group", "row"))
        return [f"{states[shard]}:{group}:{row}" for shard, group, row in zip(shards, groups, rows, strict=True)]
    if "image" not in names:
        return [""] * len(split)
    undecoded = split.select_columns(["image"]).cast_column("image", datasets.Image(decode=False))
    bar = tqdm(None, "Looking for changed images", len(split), unit="image", leave=False, disable=len(split) < MANY)
    states: list[str] = []
    with bar, FileLooks() as looks:
        for batch in undecoded.with_format("arrow").iter(BATCH):
            content_N, path_N = (pc.struct_field(batch["image"], part) for part in ("bytes", "path"))
            if content_N.null_count == len(content_N):
                states += looks.map(_state_of_file, path_N.to_pylist())
            else:
                pairs = zip(content_N, path_N, strict=True)
                states += [_state_of_image(content, path) for content, path in pairs]
            bar.update(len(content_N))
    return states


def _state_of_image(content: pa.BinaryScalar, path: pa.StringScalar) -> str:
    if content.is_valid:
        return hashlib.blake2b(content.as_buffer(), digest_size=16).hexdigest()
    return _state_of_file(path.as_py())


def _state_of_file(path: str | None) -> str:
    if path is None:
        return "missing"
    if "://" in path:  # on the Hub, where the address holds the commit
        return path
    try:
        size, changed = version_of(path)
    except OSError:
        return "missing"
    return f"{size}:{changed}"


def _keys(state: pa.Table) -> list[tuple[str, str]]:
    return list(zip(state["split"].to_pylist(), state["image_id"].to_pylist(), strict=True))


def _labels(state: pa.Table) -> np.ndarray:
    flat = np.asarray(state["labels"].combine_chunks().flatten(), dtype=np.float32)
    return flat.reshape(len(state), -1) if len(state) else flat.reshape(0, 0)


def _listed(where: str, keys: Sequence[tuple[str, str]]) -> list[str]:
    """A sentence for each split: how many images, and the first three."""
    sentences = []
    for split in dict.fromkeys(split for split, _ in keys):
        ids = [image for name, image in keys if name == split]
        verb = plural(len(ids), "image is", "images are")
        sentences.append(f"{verb} {where} {split}, such as {', '.join(ids[:3])}")
    return sentences


def _different(before: pa.Table, now: pa.Table, column: str) -> list[tuple[str, str, str]]:
    """(image id, value before, value now) of the rows whose values differ."""
    rows = pc.indices_nonzero(pc.not_equal(before[column], now[column]))
    values = (table.take(rows).to_pylist() for table in (before["image_id"], before[column], now[column]))
    return list(zip(*values, strict=True))


def _changed_patients(before: pa.Table, now: pa.Table) -> list[str]:
    found = _different(before, now, "patient_id")
    if not found:
        return []
    image, one, two = found[0]
    return [f"the patient of {plural(len(found), 'image')} changed, such as that of {image} ({one} before, {two} now)"]


def _changed_labels(before: pa.Table, now: pa.Table, names: Sequence[str]) -> list[str]:
    before_NC, now_NC = _labels(before), _labels(now)
    differs_NC = (before_NC != now_NC) & ~(np.isnan(before_NC) & np.isnan(now_NC))
    if not differs_NC.any():
        return []
    row, column = np.argwhere(differs_NC)[0]
    one, two = (
        "unknown" if np.isnan(label_NC[row, column]) else f"{label_NC[row, column]:g}"
        for label_NC in (before_NC, now_NC)
    )
    images = int(differs_NC.any(axis=1).sum())
    example = f"{names[column]} of {before['image_id'][int(row)]}"
    return [f"labels of {plural(images, 'image')} changed, such as {example} ({one} before, {two} now)"]


def _changed_files(before: pa.Table, now: pa.Table, free: set[str]) -> list[str]:
    """A sentence for images whose bytes were compared, and one for those known by size and time of change."""
    changed = [(image, ":" in one) for image, one, _ in _different(before, now, "file") if image not in free]
    sentences = []
    for by_time, what in ((False, "the content"), (True, "size or time of change")):
        images = [image for image, known_by_time in changed if known_by_time == by_time]
        if images:
            count = plural(len(images), "image file")
            sentences.append(f"{what} of {count} changed, such as {', '.join(images[:3])}")
    return sentences
