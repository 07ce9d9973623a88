"""Images that are read during training, from Parquet shards on disk or on the Hub that are neither loaded nor copied.

The table (labels, ids, patients, where each image is) is read whole and once, without the image column, so splits,
their fingerprint, prevalence and class weights are the same as without streaming. The pixels are a stream: row groups
in a new order each epoch, images decoded as they come, and a buffer to mix them.

| memory                  | grows with                                                                         |
|-------------------------|------------------------------------------------------------------------------------|
| the table               | rows: about 100 bytes, the lengths of ids and paths, and 4 C for the labels (4 C   |
|                         | again in each process that trains); reading it takes about five times that         |
| the stream, each worker | nothing: ``buffer`` images of S x S bytes, and READ_AT_ONCE encoded ones           |

This is torch's `IterableDataset` and not that of `datasets`, because here the table is known. So each process and
each dataloader worker has its own row groups and yet exactly as many images as every other one (an epoch has a length,
and no process waits endlessly for another's batch), and images of another split are skipped before they are decoded. A
row group at the border of two shares is read by both, and each skips the other's rows.

How well images are mixed depends on the shards: if they have 100 rows a row group, as `datasets` writes them, the
buffer contains ten groups from anywhere; if one is a single group, sorted by patient or finding, it contains
neighbours.

The order depends on (seed, epoch) and the number of processes and workers; augmentation depends on (seed, epoch, row)
alone, as without streaming. A run that resumes in mid-epoch reads and decodes that epoch's first images again, without
training on them, until it is where it stopped.

From the Hub, the table costs a request a shard (its footer) and one a row group; an epoch costs the download of every
row group that holds a row of the split.

Refuses: data that are not Parquet; rows without image bytes, as far as the shards' footers show it; and a broken image
when it is reached: `ImageError` names shard, row group and row. None is skipped (missing_images must be "error"): a
stream cannot know beforehand which images are missing, so the split's fingerprint and counts would be wrong.

N = rows of a split, U = row groups, C = findings, S = working side in pixels.
"""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import datasets
import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch.utils.data import IterableDataset, get_worker_info
from tqdm.auto import tqdm

from hf_cxr.data.images.decoded import absent_bytes_message
from hf_cxr.data.images.grey import ImageError, read_grey, resize_grey
from hf_cxr.data.schema import STREAM, label_matrix
from hf_cxr.data.sources.table.description import TableDescription, load_description
from hf_cxr.data.sources.table.embedded import is_parquet, is_saved, parquet_files, parquet_of
from hf_cxr.data.sources.table.files import ROW, check_columns, find_files, read_hub_rows, wanted_columns
from hf_cxr.data.sources.table.hub import locate
from hf_cxr.data.sources.table.reader import arrow_table, data_root, described, schema_of
from hf_cxr.labels import LabelSpace

READ_AT_ONCE = 16  # encoded images
READERS = 8  # shards whose tables are read at a time
BLOCK = 2**20  # bytes asked for at a time, of a column that is read from its start to its end


def load_streamed(
    description: TableDescription | str | os.PathLike, root: str | os.PathLike | None = None
) -> tuple[datasets.DatasetDict, LabelSpace]:
    """The table of a described set whose images are to be streamed; no image byte is read.

    Args:
        description: as for `load_table`; its ``files`` are Parquet with the images in ``image_column``, or its ``hub``
            is a Hub id or a folder of Parquet shards below the root.
        root: as for `load_table`.

    Returns:
        What `load_table` gives, in the same order, with a column ``stream`` (`schema.STREAM`: where the image is)
        in place of the images; `StreamedImages` reads them. And the findings.

    Raises:
        FileNotFoundError: a file is missing.
        ValueError: the table is not as described, is not Parquet, or has no images.
    """
    if not isinstance(description, TableDescription):
        description = load_description(description)
    root = data_root(description, root)
    if not description.hub and not (description.image_column and _all_parquet(description, root)):
        raise ValueError(
            f"{description.name} cannot be streamed: files must be Parquet with the images' bytes in image_column, or "
            "hub the id or folder of such a set; leave --streaming out to read image files"
        )
    shards = _shards(description, root)
    parts = _read_tables(shards, description)
    data = datasets.DatasetDict(
        {split: datasets.concatenate_datasets([parts[path] for path in paths]) for split, paths in shards.items()}
    )
    places = pa.concat_tables([part.data.table.select(["stream"]) for part in data.values()])["stream"]
    data = datasets.DatasetDict({split: part.remove_columns("stream") for split, part in data.items()})
    rows, label_MC, splits = described(read_hub_rows(description, data, root), description, embedded=True)
    table = arrow_table(rows, label_MC, description, root).append_column("stream", places.take(pa.array(rows[ROW])))
    schema = datasets.Features({**schema_of(description, images=False), "stream": STREAM})
    info = datasets.DatasetInfo(features=schema, homepage=description.source)
    streamed = {name: datasets.Dataset(table.take(pa.array(index)), info=info) for name, index in splits.items()}
    return datasets.DatasetDict(streamed), description.label_space


def _all_parquet(description: TableDescription, root: Path) -> bool:
    files = [file for pattern in description.files.values() for file in find_files(root, pattern)]
    return all(is_parquet(file.name) for file in files)


def is_streamed(split: datasets.Dataset) -> bool:
    """Whether a split is of `load_streamed`."""
    return "stream" in split.column_names


class StreamedImages(IterableDataset):
    """The images of a split, decoded and resized while they are read, for a DataLoader and for `CXRTrainer`.

    A row is what `DecodedImages` gives: {"pixels": uint8 (S, S), "labels": float32 (C,), "row": its number}.

    Args:
        split: of `load_streamed`; rows may have been selected or their labels permuted.
        size: working side S in pixels; the image is resized to S x S as the image processor does it.
        resample: Pillow's number of the filter, from the image processor.
        batch_size: images a process and batch; the DataLoader's own. Dataloader workers take whole batches in turn.
        step_size: images an optimizer step, over all processes and accumulation steps. Those of the last incomplete
            step are left out, different ones in each epoch, as `EpochSampler` does. None, for evaluation: every row
            once; where processes would have unequal numbers, the last ones get blank rows at the end, of number -1,
            whose labels are all unknown.
        shuffle: row groups in random order, and images mixed in the buffer; otherwise in the split's order.
        buffer: images held to be mixed.
        seed: of the order, with the epoch.
        processes, process: how many share the rows, and which of them this is.

    Raises:
        ValueError: fewer rows than one step; a step that is not a whole number of batches of each process.
        ImageError: (when it is reached) an image can't be decoded; the message has shard, row group, row and reason.
    """

    # Of the last batch that processes gather, Accelerate keeps this many rows, modulo the batch; 0 keeps all of them.
    # Blank rows may stay: their labels are unknown and take part in nothing.
    total_dataset_length = 0

    def __init__(
        self,
        split: datasets.Dataset,
        size: int,
        resample: int,
        *,
        batch_size: int,
        step_size: int | None = None,
        shuffle: bool = False,
        buffer: int = 1000,
        seed: int = 0,
        processes: int = 1,
        process: int = 0,
    ):
        if step_size and step_size % (batch_size * processes):
            raise ValueError(
                f"{step_size} images a step cannot be divided into batches of {batch_size} on {processes} processes"
            )
        if len(split) < (step_size or 1):
            raise ValueError(
                f"{len(split)} training images are fewer than one batch of {step_size}; "
                "lower per_device_train_batch_size or gradient_accumulation_steps"
            )
        self.split, self.size, self.resample = split, size, resample
        self.batch_size, self.shuffle, self.buffer, self.seed = batch_size, shuffle, buffer, seed
        self.process = process
        self.used = len(split) // step_size * step_size if step_size else len(split)
        self.share = -(-self.used // processes)  # rows of this process, blank ones included
        self._epoch = torch.zeros((), dtype=torch.int64).share_memory_()  # workers that live on see it change
        self._label_NC = label_matrix(split)
        self._index_row_groups(split)

    def _index_row_groups(self, split: datasets.Dataset) -> None:
        place = split.select_columns(["stream"]).with_format("arrow")[:]["stream"].combine_chunks()
        shard_N = place.field("shard").dictionary_encode()
        group_N, row_N = (place.field(name).to_numpy().astype(np.int32) for name in ("row_group", "row"))
        self._shards = shard_N.dictionary.to_pylist()
        shard_N = shard_N.indices.to_numpy().astype(np.int32)
        self._column = place.field("column")[0].as_py()
        # The rows by row group, these in the order of the split's first row of each.
        key_N = shard_N.astype(np.int64) << 32 | group_N
        _, first_U, code_N = np.unique(key_N, return_index=True, return_inverse=True)
        rank_U = np.argsort(np.argsort(first_U))
        self._order_N = np.lexsort((row_N, rank_U[code_N])).astype(np.int32)
        self._row_N = row_N[self._order_N]
        self._start_U = np.append(0, np.cumsum(np.bincount(rank_U[code_N])))  # U + 1 numbers
        first_U = self._order_N[self._start_U[:-1]]
        self._shard_U, self._group_U = shard_N[first_U], group_N[first_U]

    def __len__(self) -> int:
        return self.share

    def set_epoch(self, epoch: int) -> None:
        """Number of completed passes; the DataLoader that Accelerate makes sets it before each pass."""
        self._epoch.fill_(epoch)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        first, stop = self._lane()
        examples = self._read(first, min(stop, self.used))
        if self.shuffle:
            rng = np.random.default_rng([self.seed, int(self._epoch), first])
            examples = _mixed(examples, self.buffer, rng)
        yield from examples
        blank = {"pixels": np.zeros((self.size, self.size), np.uint8), "row": -1}
        for _ in range(stop - max(first, self.used)):
            yield blank | {"labels": np.full(self._label_NC.shape[1], np.nan, np.float32)}

    def unreadable(self) -> dict[int, ImageError]:
        """The rows of this process's share that cannot be decoded, by number; each image is read once, in order."""
        errors = {}

        def decode(content: bytes | None, row: int, where: str) -> dict[str, Any]:
            try:
                return self._decode(content, row, where)
            except ImageError as error:
                errors[row] = error
                return {}

        start = self.process * self.share
        for _ in self._read(start, start + self.own_rows, decode):
            pass
        return errors

    @property
    def own_rows(self) -> int:
        """Rows of this process's share, blank ones not counted."""
        return max(0, min(self.share, self.used - self.process * self.share))

    def _lane(self) -> tuple[int, int]:
        """The part, from - to, of the epoch's sequence that this worker of this process reads."""
        worker = get_worker_info()
        start, stop = self.process * self.share, (self.process + 1) * self.share
        if worker is None:
            return start, stop
        # The DataLoader takes a batch from each worker in turn, so the first ones may have one more, and only the last
        # worker to be asked may have an incomplete one.
        batches = -(-self.share // self.batch_size)
        count_W = np.full(worker.num_workers, batches // worker.num_workers)
        count_W[: batches % worker.num_workers] += 1
        size_W = count_W * self.batch_size
        size_W[(batches - 1) % worker.num_workers] -= batches * self.batch_size - self.share
        end_W = start + np.cumsum(size_W)
        return int(end_W[worker.id] - size_W[worker.id]), int(end_W[worker.id])

    def _read(self, first: int, stop: int, decode: Callable[..., dict] | None = None) -> Iterator[dict[str, Any]]:
        """Examples from - to of the epoch's sequence of row groups."""
        groups = np.arange(len(self._shard_U))
        if self.shuffle:
            groups = np.random.default_rng([self.seed, int(self._epoch)]).permutation(len(groups))
        end = np.cumsum(np.diff(self._start_U)[groups])
        for i in range(int(np.searchsorted(end, first, "right")), len(groups)):
            begin = end[i - 1] if i else 0
            if begin >= stop:
                return
            base = self._start_U[groups[i]] - begin
            rows = base + max(first, begin), base + min(stop, end[i])
            yield from self._read_group(groups[i], *rows, decode or self._decode)

    def _read_group(self, group: int, first: int, stop: int, decode: Callable[..., dict]) -> Iterator[dict[str, Any]]:
        """The rows of a row group that are from - to in `_order_N`; the rest is skipped undecoded."""
        wanted = dict(zip(self._row_N[first:stop].tolist(), self._order_N[first:stop].tolist(), strict=True))
        shard, number = self._shards[self._shard_U[group]], int(self._group_U[group])
        last, row = int(self._row_N[stop - 1]), 0
        for images in _encoded(shard, number, self._column):
            for image in images:
                if row in wanted:
                    yield decode(image.as_py(), wanted[row], f"{shard}, row group {number}, row {row}")
                row += 1
            if row > last:
                return

    def _decode(self, content: bytes | None, row: int, where: str) -> dict[str, Any]:
        where = f"{where} ({self.split[row]['image_id']})" if not content else where
        if not content:
            raise ImageError(where, "the shard has no bytes for it")
        try:
            grey = read_grey(content, name=where)
        except ImageError as error:
            raise ImageError(f"{where} ({self.split[row]['image_id']})", error.reason) from error
        return {"pixels": resize_grey(grey, self.size, self.resample), "labels": self._label_NC[row], "row": row}


def with_images(split: datasets.Dataset, rows: Sequence[int]) -> datasets.Dataset:
    """A few rows of a split with their image column; of a streamed one, each costs reading its row group up to it."""
    chosen = split.select(rows)
    if not is_streamed(split):
        return chosen
    images = []
    for place in chosen["stream"]:
        encoded = (image for part in _encoded(place["shard"], place["row_group"], place["column"]) for image in part)
        images.append(next(image.as_py() for number, image in enumerate(encoded) if number == place["row"]))
    column = {"image": [{"bytes": image, "path": None} for image in images]}
    schema = datasets.Features({"image": datasets.Image()})
    return datasets.concatenate_datasets(
        [datasets.Dataset.from_dict(column, features=schema), chosen.remove_columns("stream")], axis=1
    )


def _mixed(examples: Iterator[Any], size: int, rng: np.random.Generator) -> Iterator[Any]:
    """Each example once: one of the ``size`` that are held goes, by chance, when the next one comes."""
    held: list[Any] = []
    for example in examples:
        if len(held) < size:
            held.append(example)
            continue
        chosen = int(rng.integers(size))
        held[chosen], example = example, held[chosen]
        yield example
    rng.shuffle(held)
    yield from held


def _encoded(shard: str, row_group: int, column: str) -> Iterator[pa.Array]:
    """The image column of a row group, a few files' bytes at a time."""
    with _open(shard, "readahead") as file:
        parquet = pq.ParquetFile(file, buffer_size=BLOCK)
        kind = parquet.schema_arrow.field(column).type
        names = [f"{column}.bytes"] if pa.types.is_struct(kind) else [column]
        for batch in parquet.iter_batches(READ_AT_ONCE, row_groups=[row_group], columns=names, use_threads=False):
            yield batch.column(0).field("bytes") if pa.types.is_struct(kind) else batch.column(0)


def _open(path: str, cache: str):
    if "://" not in path:
        return Path(path).open("rb")
    files, inner = fsspec.core.url_to_fs(path)
    return files.open(inner, "rb", block_size=BLOCK, cache_type=cache)


def _shards(description: TableDescription, root: Path) -> dict[str, list[str]]:
    """Split -> Parquet files, as `datasets` finds them; nothing of them is read."""
    if not description.hub:
        return parquet_files(description, root)
    place = locate(description, root)
    folder = place.folder
    if folder is not None and is_saved(folder):
        raise ValueError(f"{folder} was written by save_to_disk and is memory-mapped: leave --streaming out")
    found = parquet_of(place, description)
    if not found:
        raise ValueError(f"{folder or place.id} cannot be streamed: it is not a set of Parquet files")
    return found


def _read_tables(shards: Mapping[str, list[str]], description: TableDescription) -> dict[str, datasets.Dataset]:
    """Path -> its table without images, and where each row's image is."""
    paths = [path for names in shards.values() for path in names]
    with ThreadPoolExecutor(READERS) as pool:
        tables = pool.map(lambda path: _read_table(path, description), paths)
        bar = tqdm(tables, "Reading tables", len(paths), unit="shard", disable=len(paths) < READERS)
        return dict(zip(paths, bar, strict=True))


def _read_table(path: str, description: TableDescription) -> datasets.Dataset:
    column = description.image_column
    with _open(path, "none") as file:
        try:
            parquet = pq.ParquetFile(file)
        except pa.ArrowInvalid as error:
            raise ValueError(f"{path} cannot be read as Parquet ({error})") from error
        schema = parquet.schema_arrow
        if column not in schema.names:
            raise ValueError(f"{path} has no column {column!r}; it has {', '.join(schema.names)}")
        check_columns(schema.names, schema.names, path, description)
        _refuse_absent_bytes(parquet, path, column)
        wanted = wanted_columns(description) - {column}
        table = parquet.read(columns=[name for name in schema.names if name in wanted])
        counts = [parquet.metadata.row_group(g).num_rows for g in range(parquet.metadata.num_row_groups)]
    rows = sum(counts)
    place = {
        "shard": pa.array([path], pa.string()).take(pa.array(np.zeros(rows, np.int64))),
        "column": pa.array([column], pa.string()).take(pa.array(np.zeros(rows, np.int64))),
        "row_group": pa.array(np.repeat(np.arange(len(counts), dtype=np.int32), counts)),
        "row": pa.array(np.concatenate([np.arange(count, dtype=np.int32) for count in counts] or [[]]), pa.int32()),
    }
    kinds = datasets.Features.from_arrow_schema(schema)
    kinds = datasets.Features({**{name: kinds[name] for name in table.column_names}, "stream": STREAM})
    stream = pa.StructArray.from_arrays(list(place.values()), names=list(place))
    table = table.replace_schema_metadata().append_column("stream", stream)
    return datasets.Dataset(table.cast(kinds.arrow_schema), info=datasets.DatasetInfo(features=kinds))


def _refuse_absent_bytes(parquet: pq.ParquetFile, path: str, column: str) -> None:
    metadata = parquet.metadata
    names = [parquet.schema.column(i).path for i in range(metadata.num_columns)]
    leaf = next((i for i, name in enumerate(names) if name in (column, f"{column}.bytes")), None)
    if leaf is None:
        raise ValueError(f"{path}: column {column!r} has no image bytes; the file has {names}")
    statistics = [metadata.row_group(g).column(leaf).statistics for g in range(metadata.num_row_groups)]
    absent = sum(part.null_count or 0 for part in statistics if part is not None and part.has_null_count)
    if absent:
        raise ValueError(absent_bytes_message(path, absent, metadata.num_rows, column))
