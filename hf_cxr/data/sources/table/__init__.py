"""Any labelled table of radiographs, read by a description: CSV, Parquet, JSON, an imagefolder, a Hub dataset.

Contract of the family: a `TableDescription` (a YAML file, see `description`) says what the table looks like, and no
module here knows any dataset by name. `files` and `embedded` read rows; `labels`, `images`, `boxes` each turn rows and
description into one part of the schema; `reader` puts the parts together. To add a published table whose layout the
description's keys can express, add a YAML file to `descriptions/`.
"""

import dataclasses
import re
from pathlib import Path
from typing import Any

from hf_cxr.data.sources.source import Arguments, Kind, Source, rule_for_missing
from hf_cxr.data.sources.table.description import TableDescription, load_description
from hf_cxr.data.sources.table.hub import notes_on, origin, pin
from hf_cxr.data.sources.table.reader import data_root, read_table

SPLITS_FROM = "the table's own, as its description says; those that it lacks cut by patient, stratified"


def _check(args: Arguments) -> None:
    if not args.table:
        raise ValueError("dataset table needs --table, a description: a YAML file or the name of a ready one")
    is_file = args.table.endswith((".yaml", ".yml"))
    if not is_file and not args.table_root and not load_description(args.table).hub:
        raise ValueError(f"--table {args.table} is a ready description: give --table_root, the data's folder")
    if is_file and not Path(args.table).is_file():
        raise ValueError(f"--table {args.table} does not exist")
    if args.table_root and not Path(args.table_root).is_dir():
        raise ValueError(f"--table_root {args.table_root} is not a folder")
    if args.table_revision and not load_description(args.table).hub:
        raise ValueError(f"--table_revision is for a Hub dataset, and --table {args.table} names none (hub)")
    if args.table_revision and not re.fullmatch(r"[\w./-]+", args.table_revision):
        raise ValueError(f"--table_revision {args.table_revision!r} is not a branch, a tag or a commit")
    if args.streaming and args.missing_images != "error":
        raise ValueError(
            "--streaming needs --missing_images error: a stream cannot know beforehand which images are missing"
        )


def _load(args: Arguments, *, images: bool) -> Source:
    description = _description(args)
    root = data_root(description, args.table_root)
    commit = pin(description, root)
    description = dataclasses.replace(description, hub_revision=commit) if commit else description
    if args.streaming:
        from hf_cxr.data.sources.streamed import load_streamed  # with torch, not for processes that only read tables

        (splits, labels), listed = load_streamed(description, args.table_root), None
        splits = splits if images else splits.remove_columns("stream")
    else:
        splits, listed = read_table(description, args.table_root, images=images, missing_images=rule_for_missing(args))
        labels = description.label_space
    return Source(
        splits,
        labels,
        name=description.name,
        split_origin={"splits_from": description.splits_from or SPLITS_FROM, "split_file": None},
        synthetic=description.synthetic,
        listed=listed,
        place=description.path,
        licence_note=description.source or None,
        hub=origin(description, root),
        notes=notes_on(description),
        labelled=description.labelled,
    )


def _description(args: Arguments) -> TableDescription:
    """The description, at the revision that the arguments ask for."""
    description = load_description(args.table)
    return dataclasses.replace(description, hub_revision=args.table_revision or description.hub_revision)


def _pin(args: Arguments) -> dict[str, Any]:
    description = _description(args)
    commit = pin(description, data_root(description, args.table_root))
    return {"table_revision": commit} if commit else {}


TABLE = Kind(
    help="any labelled table, described by --table",
    options=("table", "table_root", "table_revision", "missing_images", "streaming", "streaming_buffer"),
    check=_check,
    load=_load,
    pin=_pin,
)
