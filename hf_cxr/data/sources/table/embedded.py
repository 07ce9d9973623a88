"""Data that hold their images: Parquet files with the bytes in a column, a Hub dataset, a `save_to_disk` folder.

The images stay where they are, memory-mapped and not decoded. Each row must hold its image's bytes: a path in a cell
is not opened. The one exception is an imagefolder, whose files `datasets` lists itself; they must be in its folder.

M = images.
"""

import glob
from pathlib import Path

import datasets
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from huggingface_hub.constants import HF_HUB_CACHE

from hf_cxr.data.images.decoded import is_below, refuse_absent_bytes
from hf_cxr.data.sources.table.description import TableDescription
from hf_cxr.data.sources.table.files import find_files, no_code_of, read_hub_rows
from hf_cxr.data.sources.table.hub import HubPlace, check_shards, download, hub_errors, locate


def holds_images(description: TableDescription, root: Path) -> bool:
    """Whether the data themselves hold the images: a Hub dataset, or Parquet files with the bytes in a column."""
    if description.hub:
        return True
    first = find_files(root, next(iter(description.files.values())))[0]
    if description.image_column is None or not first.name.endswith((".parquet", ".pq")):
        return False
    try:
        schema = pq.read_schema(first)
    except (pa.ArrowInvalid, OSError):  # the reader reports it
        return False
    return description.image_column in schema.names and _is_image(schema.field(description.image_column).type)


def _is_image(kind: pa.DataType) -> bool:
    return pa.types.is_struct(kind) or pa.types.is_binary(kind) or pa.types.is_large_binary(kind)


def open_pictures(description: TableDescription, root: Path) -> tuple[datasets.Dataset, pd.DataFrame]:
    """The images of all splits, one after another, not decoded yet, and the rows that go with them.

    Raises:
        ValueError: there is no such column; rows do not hold the bytes of their image.
    """
    place = on_this_disk(locate(description, root), description) if description.hub else None
    files = {} if place else parquet_files(description, root)
    folder = place and place.folder
    if files:
        # datasets takes [ ] * ? in a path for wildcards.
        escaped = {split: [glob.escape(path) for path in paths] for split, paths in files.items()}
        data = datasets.load_dataset("parquet", data_files=escaped, trust_remote_code=False)
    elif folder and is_saved(folder):
        data = datasets.load_from_disk(str(folder))
    elif folder:
        with no_code_of(str(folder)):
            data = datasets.load_dataset(str(folder), description.hub_config, trust_remote_code=False)
    else:
        with no_code_of(place.id), hub_errors(place.id, place.commit):
            data = datasets.load_dataset(
                place.id, description.hub_config, revision=place.commit, trust_remote_code=False
            )
    if isinstance(data, datasets.Dataset):
        data = datasets.DatasetDict({"train": data})
    columns = next(iter(data.values())).column_names
    if description.image_column not in columns:
        source = description.hub or description.name
        raise ValueError(f"{source} has no column {description.image_column!r}; it has {', '.join(columns)}")
    parts = [
        part.select_columns([description.image_column])
        .rename_columns({description.image_column: "image"})  # which, unlike rename_column, may be its name already
        .cast_column("image", datasets.Image())
        for part in data.values()
    ]
    for split, part in zip(data, parts, strict=True):
        where = files.get(split) or f"{folder or description.hub} ({split})"
        # The imagefolder of datasets lists the files itself; no cell of any other kind of data may name one.
        own = part.info.builder_name == "imagefolder" and not (folder and is_saved(folder))
        caches = (Path(datasets.config.HF_DATASETS_CACHE), Path(HF_HUB_CACHE))
        below = ((folder,) if folder and not place.cached else caches) if own else ()
        refuse_absent_bytes(part, where, description.image_column, below)
    return datasets.concatenate_datasets(parts), read_hub_rows(description, data, root)


def on_this_disk(place: HubPlace, description: TableDescription) -> HubPlace:
    """The place with its files on this disk, all of them, if they are Parquet; others `datasets` fetches itself.

    Raises:
        ValueError, OSError: shards are missing; the Hub's client failed.
    """
    paths = [path for names in parquet_of(place, description).values() for path in names]
    start = f"hf://datasets/{place.id}@{place.commit}/"
    if place.folder is not None or not paths or not all(path.startswith(start) for path in paths):
        return place
    return download(place, [path.removeprefix(start) for path in paths])


def parquet_of(place: HubPlace, description: TableDescription) -> dict[str, list[str]]:
    """Split -> the Parquet files of a Hub dataset, as `datasets` finds them; {} if it has files of other kinds.

    Args:
        place: from `locate`; of one that is not on this disk the files are addresses that begin with hf://.
        description: of the table.

    Raises:
        ValueError, OSError: shards are missing; the Hub's client failed.
    """
    if place.folder is not None and is_saved(place.folder):
        return {}
    with no_code_of(str(place.folder or place.id)), hub_errors(place.id, place.commit):
        if place.folder is None:
            builder = datasets.load_dataset_builder(place.id, description.hub_config, revision=place.commit)
        elif place.cached:
            builder = datasets.load_dataset_builder(str(place.folder), description.hub_config)
        else:
            builder = open_builder(place.folder, description.hub_config)
    found = {str(split): [str(path) for path in paths] for split, paths in (builder.config.data_files or {}).items()}
    if not all(is_parquet(path) for paths in found.values() for path in paths):
        return {}
    check_shards(found, str(place.folder or place.id))
    return found


def is_parquet(path: str) -> bool:
    """Whether a file is Parquet by its name."""
    return path.endswith((".parquet", ".pq"))


def open_builder(folder: Path, config: str | None) -> datasets.DatasetBuilder:
    """How `datasets` would read a local folder, whose files must be in it: nothing of them is read.

    Raises:
        ValueError: `datasets` would take characters of the folder's path for wildcards, and find nothing; or the
            folder's README.md names files elsewhere.
    """
    if glob.has_magic(str(folder.resolve())):
        raise ValueError(
            f"{folder.resolve()}: datasets takes [ ] * ? in a folder's path for wildcards; rename the folder, or name "
            "its Parquet files under files instead of hub"
        )
    builder = datasets.load_dataset_builder(str(folder), config)
    paths = [str(path) for found in (builder.config.data_files or {}).values() for path in found]
    outside = [path for path in paths if not is_below(path, [folder])]
    if outside:
        raise ValueError(
            f"{folder}: {len(outside)} data files that its README.md names lie elsewhere, such as {outside[0]}; "
            "move them into the folder, or correct data_files"
        )
    return builder


def is_saved(folder: Path) -> bool:
    """Whether `save_to_disk` wrote the folder."""
    return (folder / "dataset_dict.json").is_file() or (folder / "dataset_info.json").is_file()


def parquet_files(description: TableDescription, root: Path) -> dict[str, list[str]]:
    """Split -> the Parquet files of the description's ``files``."""
    return {
        "train" if split == "all" else split: [str(path) for path in find_files(root, names)]
        for split, names in description.files.items()
    }


def with_pictures(
    table: pa.Table, info: datasets.DatasetInfo, pictures: datasets.Dataset, row_M: np.ndarray
) -> datasets.Dataset:
    """M rows: the hub's images, still memory-mapped, next to the schema's columns."""
    # Side by side needs as many rows as there are images; those that were left out repeat the first and go again.
    position = np.zeros(len(pictures), dtype=np.int64)
    position[row_M] = np.arange(len(row_M))
    aligned = datasets.Dataset(table.take(pa.array(position)), info=info)
    joined = datasets.concatenate_datasets([pictures, aligned], axis=1)
    return joined.select_columns(["image", *info.features]).select(row_M)
