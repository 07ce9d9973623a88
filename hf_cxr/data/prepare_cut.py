"""How a dataset is cut into the shards of a prepared folder, and what tells that a shard is still the same.

The cut depends on the number of rows and on the size of the pixels alone, so every job and machine has the same one.

N = images.
"""

import errno
import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import datasets
import pyarrow as pa

from hf_cxr.data.manifest import FORMAT, Recipe, digest_of, shard_file

AT_ONCE = 32  # rows of which the stored images are in memory


@dataclass(frozen=True)
class Shard:
    """Rows ``start`` to ``stop`` of a split, and the digest of all that their pixels and columns depend on."""

    split: str
    number: int
    of: int
    start: int
    stop: int
    digest: str = ""

    def __len__(self) -> int:
        return self.stop - self.start

    @property
    def file_name(self) -> str:
        return shard_file(self.number, self.of)

    @property
    def key(self) -> tuple[str, int]:
        return self.split, self.number


def cut(splits: Mapping[str, datasets.Dataset], recipe: Recipe, shard_bytes: int) -> list[Shard]:
    """The shards of all splits, in their order and without digests: as many rows in each as ``shard_bytes`` hold."""
    rows = max(1, shard_bytes // (recipe.size**2 + 512))
    return [
        Shard(name, number, of, number * rows, min((number + 1) * rows, len(split)))
        for name, split in splits.items()
        for of in [max(1, -(-len(split) // rows))]
        for number in range(of)
    ]


def with_digests(splits: Mapping[str, datasets.Dataset], shards: Sequence[Shard], recipe: Recipe) -> list[Shard]:
    """The same shards, each with the digest of its rows, files and recipe. The files are looked up, not read."""
    images, columns = {}, {}
    for name, split in splits.items():
        undecoded = split.cast_column("image", datasets.Image(decode=False)).with_format("arrow")
        images[name], columns[name] = undecoded.select_columns(["image"]), undecoded.remove_columns("image")
    known = []
    for shard in shards:
        starts = range(shard.start, shard.stop, AT_ONCE)
        # Few at a time: images may be inside their rows, and those as stored are far larger than resized ones.
        parts = (images[shard.split][first : min(first + AT_ONCE, shard.stop)] for first in starts)
        states = [state for part in parts for state in _states(part)]
        rest = _plain_rows(columns[shard.split][shard.start : shard.stop])
        names = splits[shard.split].column_names
        known.append(replace(shard, digest=digest_of([asdict(recipe), FORMAT, shard.split, names, states, rest])))
    return known


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
