"""A prepared dataset as Parquet files that the Hub shows and `datasets.load_dataset` reads.

| column            | content                                                                                  |
|-------------------|------------------------------------------------------------------------------------------|
| image             | PNG, 8-bit grey: the prepared pixels, to the bit                                         |
| one for a finding | 1 present, 0 absent, null unknown; the column has the finding's name                     |
| image_id, patient_id, study_id | as in the source, or keyed hashes; a study only where the source knows it   |
| view, age, sex    | as in `schema`; null where unknown                                                       |
| boxes             | as in `schema`                                                                           |

Digests of the source's files are left out: with them a published row could be matched with its original.

Refuses: a finding that has the name of another column, and text that contains a path of this machine.

N = rows, C = findings, S = side in pixels.
"""

import hashlib
import hmac
import os
import re
import secrets
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray
from PIL import Image

from hf_cxr.data.schema import features, label_matrix
from hf_cxr.data.sources.table.description import UNLABELLED

SHARD_BYTES = 2**28
"""Most bytes of pixels in a file, before they are compressed: a file that is sent again costs no more than this."""

ROW_GROUP = 100  # rows; the Hub's viewer reads one at a time
IDS = ("image_id", "patient_id", "study_id")
HASHED_ID = re.compile(r"[ips][0-9a-f]{24}")  # of `Pseudonyms.of`
SECRET = "HF_CXR_PATIENT_SECRET"
EXTRA = 512  # bytes of a row besides its pixels, as `prepare` reckons


@dataclass(frozen=True)
class Shard:
    """Rows start to stop of a split, and the path of their file in the repository."""

    path: str
    split: str
    start: int
    stop: int


class Pseudonyms:
    """Keyed hashes in place of ids, and an order of rows that the key decides.

    Equal ids stay equal, and without the key no one can find the ids or the places behind them.

    Args:
        key: secret, at least 16 bytes; it is written nowhere.
        random: the key is lost with this object, so the next push has other hashes.
    """

    def __init__(self, key: bytes, *, random: bool = False):
        if len(key) < 16:
            raise ValueError(f"the key for hashing patient ids has {len(key)} bytes; it needs at least 16")
        self._key = key
        self.random = random

    @classmethod
    def of_environment(cls) -> "Pseudonyms":
        """With the secret that the user has set as HF_CXR_PATIENT_SECRET, or with a random key.

        Raises:
            ValueError: the secret is too short, or empty.
        """
        secret = os.environ.get(SECRET)
        if secret is None:
            return cls(secrets.token_bytes(32), random=True)
        if len(secret) < 16:
            raise ValueError(
                f"{SECRET} {f'has {len(secret)} characters' if secret else 'is empty'}, which is too short to hash "
                "patient ids; set it to at least 16 characters, or unset it for a random secret"
            )
        return cls(secret.encode())

    def of(self, column: str, value: str) -> str:
        """The hash of one id: 24 hexadecimal digits after the first letter of the column's name."""
        digest = hmac.new(self._key, f"{column}\0{value}".encode(), hashlib.sha256).hexdigest()
        return f"{column[0]}{digest[:24]}"

    def order(self, split: str, rows: int) -> NDArray[np.int64]:
        """The order in which rows are published, (N,): with the source's, a row could be found by its place."""
        seed = hmac.new(self._key, f"order\0{split}".encode(), hashlib.sha256).digest()
        return np.random.default_rng(int.from_bytes(seed, "big")).permutation(rows)


def cut_shards(splits: Mapping[str, datasets.Dataset], side: int, most: int = SHARD_BYTES) -> list[Shard]:
    """How the rows of every split are cut into files of at most so many bytes of pixels.

    Args:
        splits: with rows; a split without any gets no file.
        side: S.
        most: bytes.
    """
    per_file = max(1, most // (side**2 + EXTRA))
    shards = []
    for name, split in splits.items():
        starts = range(0, len(split), per_file)
        shards += [
            Shard(f"data/{name}-{n:05d}-of-{len(starts):05d}.parquet", name, start, min(start + per_file, len(split)))
            for n, start in enumerate(starts)
        ]
    return shards


def published_features(label_names: Sequence[str], *, studies: bool) -> datasets.Features:
    """The columns of the files for C findings; none for images without labels.

    Raises:
        ValueError: a finding has the name of another column.
    """
    kinds = features(label_names, studies=studies)
    del kinds["labels"]
    names = findings_of(label_names)
    taken = sorted(set(names) & set(kinds))
    if taken:
        raise ValueError(f"the finding {taken[0]} has the name of a column; rename it in the table's description")
    findings = {name: datasets.Value("float32") for name in names}
    return datasets.Features({"image": kinds.pop("image"), **findings, **kinds})


def findings_of(label_names: Sequence[str]) -> list[str]:
    """The findings; [] for images without labels, which have one that is unknown everywhere."""
    return [] if list(label_names) == [UNLABELLED] else list(label_names)


def write_shard(
    path: Path,
    split: datasets.Dataset,
    shard: Shard,
    label_names: Sequence[str],
    pseudonyms: Pseudonyms | None = None,
) -> Iterator[dict[str, list[str]]]:
    """Write one file, a hundred rows at a time; yields the texts of each hundred rows, by column, as written.

    Args:
        path: of the file.
        split: of the schema, with images as a prepared folder has them.
        shard: which rows.
        label_names: C findings.
        pseudonyms: what replaces ids; None leaves them as they are.
    """
    kinds = published_features(label_names, studies="study_id" in split.column_names)
    schema = kinds.arrow_schema
    with pq.ParquetWriter(path, schema, use_content_defined_chunking=True, write_page_index=True) as writer:
        for start in range(shard.start, shard.stop, ROW_GROUP):
            rows = split.select(range(start, min(start + ROW_GROUP, shard.stop)))
            columns = _columns(rows, kinds, label_names, pseudonyms)
            writer.write_table(pa.table(columns, schema=schema), row_group_size=ROW_GROUP)
            yield {name: columns[name].drop_null().to_pylist() for name in (*IDS, "view", "sex") if name in columns}


def _columns(
    rows: datasets.Dataset, kinds: datasets.Features, label_names: Sequence[str], pseudonyms: Pseudonyms | None
) -> dict[str, pa.Array]:
    table = rows.with_format("arrow")[:]
    columns: dict[str, pa.Array] = {}
    label_NC = label_matrix(rows)
    for name in kinds:
        if name == "image":
            contents = pc.struct_field(table["image"], "bytes").to_pylist()
            images = [{"bytes": _png(content), "path": None} for content in contents]
            columns[name] = pa.array(images, kinds.arrow_schema.field(name).type)
        elif name in label_names:
            columns[name] = pa.array(label_NC[:, list(label_names).index(name)], pa.float32(), from_pandas=True)
        elif name in IDS and pseudonyms is not None:
            ids = table[name].to_pylist()
            columns[name] = pa.array([None if cell is None else pseudonyms.of(name, cell) for cell in ids])
        elif name == "age":
            columns[name] = pa.array(table[name].to_numpy(), pa.float32(), from_pandas=True)
        else:
            columns[name] = table[name].combine_chunks().cast(kinds.arrow_schema.field(name).type)
    return columns


def _png(content: bytes) -> bytes:
    """The same pixels as PNG, without any metadata."""
    buffer = BytesIO()
    with Image.open(BytesIO(content)) as image:
        Image.fromarray(np.asarray(image)).save(buffer, format="PNG")
    return buffer.getvalue()


def description_of(manifest: Mapping[str, Any], repo_id: str, licence: str, *, studies: bool) -> dict[str, Any]:
    """The table description with which `hf-cxr train --dataset table --table FILE` reads the pushed dataset.

    Args:
        manifest: of the prepared folder.
        repo_id: where the dataset is.
        licence: under which it is published.
        studies: the files have a column of studies.
    """
    notes = list(manifest.get("notes") or [])
    if manifest["synthetic"]:
        notes.append(
            "The images are synthetic: no patient is behind them, and no figure says anything about patients."
        )
    terms = manifest.get("licence_note")
    description = {
        "name": manifest["dataset"],
        "source": f"https://huggingface.co/datasets/{repo_id} ({licence})"
        + (f"; of the source: {terms}" if terms else ""),
        "hub": repo_id,
        "notes": notes,
        "synthetic": manifest["synthetic"],
        "splits_from": manifest["splits_from"],
        "image_column": "image",
        "image_id": "image_id",
        "findings": findings_of(manifest["label_names"]),
        "aliases": dict(manifest.get("aliases") or {}),
        "patient_column": "patient_id",
        "study_column": "study_id" if studies else None,
        "view_column": "view",
        "age_column": "age",
        "sex_column": "sex",
        "boxes": {"fractions": "boxes"} if findings_of(manifest["label_names"]) else None,
    }
    return {key: value for key, value in description.items() if value or key == "findings"}
