"""Any labelled table of radiographs, read by a description: CSV, Parquet, JSON, an imagefolder, a Hub dataset.

Contract of the family: a `TableDescription` (a YAML file, see `description`) says what the table looks like, and no
module here knows any dataset by name. `files` and `embedded` read rows; `labels`, `images`, `boxes` each turn rows and
description into one part of the schema; `reader` puts the parts together. To add a published table whose layout the
description's keys can express, add a YAML file to `descriptions/`.
"""

from pathlib import Path

from hf_cxr.data.sources.source import Arguments, Kind, Source, rule_for_missing
from hf_cxr.data.sources.table.description import load_description
from hf_cxr.data.sources.table.reader import read_table


def _check(args: Arguments) -> None:
    if not args.table:
        raise ValueError("dataset table needs --table, a description: a YAML file or the name of a ready one")
    is_file = args.table.endswith((".yaml", ".yml"))
    if not is_file and not args.table_root:
        raise ValueError(f"--table {args.table} is a ready description: give --table_root, the data's folder")
    if is_file and not Path(args.table).is_file():
        raise ValueError(f"--table {args.table} does not exist")
    if args.table_root and not Path(args.table_root).is_dir():
        raise ValueError(f"--table_root {args.table_root} is not a folder")
    if args.streaming and args.missing_images != "error":
        raise ValueError(
            "--streaming needs --missing_images error: a stream cannot know beforehand which images are missing"
        )


def _load(args: Arguments, *, images: bool) -> Source:
    description = load_description(args.table)
    if args.streaming:
        from hf_cxr.data.sources.streamed import load_streamed  # with torch, not for processes that only read tables

        (splits, labels), listed = load_streamed(description, args.table_root), None
        splits = splits if images else splits.remove_columns("stream")
    else:
        splits, listed = read_table(description, args.table_root, images=images, missing_images=rule_for_missing(args))
        labels = description.label_space
    words = "the table's own, as its description says; those that it lacks cut by patient, stratified"
    return Source(
        splits,
        labels,
        name=description.name,
        split_origin={"splits_from": words, "split_file": None},
        listed=listed,
        place=description.path,
        licence_note=description.source or None,
        labelled=description.labelled,
    )


TABLE = Kind(
    help="any labelled table, described by --table",
    options=("table", "table_root", "missing_images", "streaming", "streaming_buffer"),
    check=_check,
    load=_load,
)
