"""Files to rows: the columns that a description asks for, as text, with every file's split and folder.

Cells are text, stripped; "" is an empty cell, and NaN means that the row's file has no such column. The cells of a
list column stay lists. Ids (patients, images, keys of joins and boxes, columns of an image path's template) and the
codes of splits are in the one spelling of `ids.py`, whatever the file's format and types.

Refuses: missing files and columns, files without rows, files that are not what their suffix says, other encodings, ids
that have lost digits, joins whose keys repeat or that leave rows without a partner.

N = rows.
"""

import decimal
import difflib
import glob
import gzip
import json
import logging
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from hf_cxr.data.csv_files import first_repeated, read_csv, read_header
from hf_cxr.data.ids import (
    canonical_code,
    canonical_codes,
    canonical_ids,
    float_text,
    similar_pairs,
    whole_numbers,
)
from hf_cxr.data.label_cells import EMPTY
from hf_cxr.data.sources.table.description import TableDescription
from hf_cxr.data.sources.table.paths import leave_folder, strip_paths
from hf_cxr.words import plural

logger = logging.getLogger(__name__)

SPLIT, FOLDER, FILE, ROW = "_split", "_folder", "_file", "_row"  # beside the table's own columns
HUB_SPLITS = {
    "train": "train",
    "validation": "validation",
    "valid": "validation",
    "val": "validation",
    "dev": "validation",
}
WHOLE = {  # a column of integers with empty cells stays one: as floating-point numbers, long ids would lose digits
    kind: getattr(pd, f"{name}Dtype")()
    for name, kind in (
        *((f"Int{bits}", getattr(pa, f"int{bits}")()) for bits in (8, 16, 32, 64)),
        *((f"UInt{bits}", getattr(pa, f"uint{bits}")()) for bits in (8, 16, 32, 64)),
    )
}


def read_rows(description: TableDescription, root: Path) -> pd.DataFrame:
    """All rows of all files, joined and filtered, with the columns of the description and `SPLIT` ... `ROW`."""
    wanted = wanted_columns(description)
    frames = []
    for split, names in description.files.items():
        for path in find_files(root, names):
            frame, header = _read(path, wanted, description)
            if description.studies and description.image_column not in header:
                frame = _images_of_studies(frame, path, description, root)
            check_columns(frame.columns, header, path, description)
            frame = _in_one_spelling(frame, path, description)
            frame[SPLIT], frame[FOLDER] = split, Path(os.path.relpath(path.parent, root)).as_posix()
            frame[FILE] = str(path)
            frames.append(frame)
    rows = pd.concat(frames, ignore_index=True)
    return _filtered(_joined(rows, description, root), description)


def read_hub_rows(description: TableDescription, data: datasets.DatasetDict, root: Path) -> pd.DataFrame:
    """The same of datasets that hold images, without these. `ROW` counts through the splits in their order."""
    source = description.hub or description.name
    frames, first = [], 0
    for split, part in data.items():
        where = f"{source} ({split})"
        wanted = wanted_columns(description) - {description.image_column}
        columns = [name for name in part.column_names if name in wanted]
        table = part.select_columns(columns).with_format("arrow")[:] if columns else pa.table({})
        rows = _pandas(table)
        for column in columns:
            if column == description.boxes.get("fractions"):  # numbers, which text would not give back to the bit
                rows[column] = pd.Series(table[column].to_pylist(), rows.index, dtype=object)
            else:
                rows[column] = _text(rows[column], _class_names(part.features[column]))
        rows = _in_one_spelling(rows, where, description)
        rows[ROW] = np.arange(first, first + len(part))
        first += len(part)
        rows[SPLIT] = HUB_SPLITS.get(split, "test" if split == "test" else "all") if len(data) > 1 else "all"
        rows[FOLDER], rows[FILE] = ".", where
        check_columns(rows.columns, part.column_names, where, description, without=(description.image_column,))
        frames.append(rows)
    unclear = [
        name for name, frame in zip(data, frames, strict=True) if len(data) > 1 and (frame[SPLIT] == "all").any()
    ]
    if unclear and not description.split_column and not description.ignore_splits:
        raise ValueError(f"{source} has a split {unclear[0]!r}; name them train, validation and test")
    return _filtered(_joined(pd.concat(frames, ignore_index=True), description, root), description)


def find_files(root: Path, names: Iterable[str]) -> list[Path]:
    """Each name's file, or, where it has wildcards, the files below the root that match, by name."""
    found = []
    for name in names:
        if not glob.has_magic(name) or (root / name).is_file():
            found.append(find_file(root, name))
            continue
        pattern = os.path.join(glob.escape(str(root)), name)
        matching = sorted(Path(path) for path in glob.glob(pattern, recursive=True) if os.path.isfile(path))
        if not matching:
            raise FileNotFoundError(f"{root} has no file {name}; --table_root is the folder that files are below")
        found += matching
    return found


def find_file(root: Path, name: str) -> Path:
    """The file below the root, or of that base name in it; ".gz" may be there or not."""
    unpacked = name.removesuffix(".gz")
    candidates = (name, unpacked, f"{unpacked}.gz")
    for path in [root / candidate for candidate in candidates]:
        if path.is_file():
            return path
    for path in [root / Path(candidate).name for candidate in candidates]:
        if path.is_file():
            logger.warning("%s has no %s; reading %s", root, name, path)
            return path
    raise FileNotFoundError(f"{root} has no {name}; --table_root is the folder that the description's files are below")


def refuse(culprits: Iterable, message: str, repair: str) -> None:
    """ValueError with the number of culprits and the first of them, if there are any."""
    culprits = list(culprits)
    if culprits:
        examples = ", ".join(repr(str(culprit)) for culprit in culprits[:3])
        raise ValueError(f"{message} ({plural(len(culprits), 'row')}, such as {examples}): {repair}")


def wanted_columns(description: TableDescription) -> set[str]:
    """Columns that the table's own files are read for, those of findings included."""
    columns = set(description.columns())
    if description.label_format == "columns":
        columns |= {column for alternatives in description.findings.values() for column in alternatives}
    if description.studies:
        columns.add(description.studies["column"])
    return columns - _joined_columns(description)


def read_columns(path: Path, wanted: set[str], description: TableDescription) -> pd.DataFrame:
    """The wanted columns that a file of any of the known kinds has, as text."""
    return _in_one_spelling(_read(path, wanted, description)[0], path, description)


def _in_one_spelling(frame: pd.DataFrame, where: Path | str, description: TableDescription) -> pd.DataFrame:
    """The frame with its ids and codes in the spelling of `ids.py`; cells of other columns stay as they are."""
    ids = {description.patient_column, description.image_id, description.boxes.get("by")}
    ids |= set(description.study_column or ())
    ids |= {key for entry in description.join for key in _keys(entry)}
    ids |= set(description.template_fields) if description.image_path else set()
    rules = dict.fromkeys(ids, canonical_ids)
    rules.setdefault(description.split_column, canonical_codes)
    if description.image_column:  # a path: its text stays as it is, or the file would not be found
        rules[description.image_column] = whole_numbers
    changed = {
        column: rules[column](frame[column], f"{where}: column {column!r}") for column in frame if column in rules
    }
    return frame.assign(**changed)


def _keys(entry: Mapping[str, Any]) -> list[str]:
    """Columns that a file is joined by."""
    return [entry["by"]] if isinstance(entry["by"], str) else list(entry["by"])


def _joined_columns(description: TableDescription) -> set[str]:
    return {column for entry in description.join for column in entry["columns"]}


def _read(path: Path, wanted: set[str], description: TableDescription) -> tuple[pd.DataFrame, list[str]]:
    """The wanted columns that a file has, as text; and all of its columns' names."""
    kind = path.name.removesuffix(".gz").rpartition(".")[2].lower()
    header: list[str] = []
    try:
        if kind in ("csv", "tsv", "txt"):
            raw = _read_text(path, wanted, description, description.delimiter or ("\t" if kind == "tsv" else ","))
        elif kind in ("parquet", "pq"):
            with pq.ParquetFile(path) as file:
                header = file.schema_arrow.names
                raw = _pandas(file.read(columns=[name for name in header if name in wanted]))
        elif kind in ("json", "jsonl"):
            raw = _json_records(path, lines=kind == "jsonl", encoding=description.encoding)
        else:
            raise ValueError("its suffix is not csv, tsv, parquet, json or jsonl")
    except (ValueError, OSError, KeyError) as error:  # what pandas and pyarrow raise for another format or encoding
        if isinstance(error, PermissionError):
            raise
        raise ValueError(
            f"{path} cannot be read as a {kind} table in {description.encoding} ({error}); check the file, and "
            "encoding and delimiter in its description"
        ) from error
    raw.columns = raw.columns.astype(str).str.strip()
    header = header or list(raw.columns)
    frame = raw[[name for name in raw.columns if name in wanted]]
    if not len(frame) and len(frame.columns):
        raise ValueError(f"{path} has no rows; take the whole file")
    return pd.DataFrame({name: _text(frame[name]) for name in frame.columns}, index=frame.index), header


def _images_of_studies(frame: pd.DataFrame, path: Path, description: TableDescription, root: Path) -> pd.DataFrame:
    """Rows of studies to one row an image, with the image's path; columns that the file lacks are empty."""
    column, pattern = description.studies["column"], description.studies["images"]
    if column not in frame:
        return frame  # reported with the other columns that are not there
    refuse(frame[column][frame[column] == ""], f"{path}: rows without {column}", "it names the folder of the images")
    below = strip_paths(frame[column], description.image_strip)
    refuse(
        frame[column][leave_folder(below)],
        f"{path}: {column} leaves the image folder",
        "name a folder below image_root, or take the start of its path off with image_strip",
    )
    folders = [root / description.image_root / study.replace("\\", "/") for study in below]
    names = [
        [pattern] if (folder / pattern).is_file() else sorted(file.name for file in folder.glob(pattern))
        for folder in folders
    ]
    without = [study for study, found in zip(frame[column], names, strict=True) if not found]
    if without:
        raise FileNotFoundError(
            f"{path} has {len(without)} of {len(frame)} studies without an image {pattern}, such as {without[0]}; "
            f"a table of studies needs its images, below {root / description.image_root}"
        )
    images = frame.assign(**{description.image_column: names}).explode(description.image_column, ignore_index=True)
    images[description.image_column] = images[column] + "/" + images[description.image_column].astype(str)
    absent = [name for name in description.columns() if name not in images]
    return images.assign(**dict.fromkeys(absent, ""))


def _read_text(path: Path, wanted: set[str], description: TableDescription, delimiter: str) -> pd.DataFrame:
    how = {"delimiter": delimiter, "encoding": description.encoding}
    twice = first_repeated(name for name in read_header(path, **how) if name in wanted)
    if twice:
        raise ValueError(f"it has the column {twice!r} twice; rename one")
    return read_csv(path, **how)


def _json_records(path: Path, *, lines: bool, encoding: str) -> pd.DataFrame:
    """A list of records, or one a line, with the types that JSON gives them."""
    with (gzip.open if path.suffix == ".gz" else open)(path, "rt", encoding=encoding) as file:
        records = [json.loads(line) for line in file if line.strip()] if lines else json.load(file)
    if not isinstance(records, list) or not all(isinstance(record, dict) for record in records):
        raise ValueError('it is not a list of records such as {"file_name": "1.png", ...}')
    return pd.DataFrame(records, dtype=object)  # or integers beside an empty cell would lose digits


def _pandas(table: pa.Table) -> pd.DataFrame:
    """The columns as they are stored, integers with empty cells included."""
    return table.to_pandas(types_mapper=WHOLE.get, ignore_metadata=True)


def _text(cells: pd.Series, names: list[str] | None = None) -> pd.Series:
    """Cells as stripped text, numbers without ".0"; lists as tuples of text."""
    if isinstance(cells.dtype, pd.StringDtype):
        text = cells.fillna("").str.strip()
        return text.mask(text.str.lower().isin(EMPTY), "")
    if pd.api.types.is_bool_dtype(cells.dtype):
        return cells.map({True: "1", False: "0"}).fillna("").astype(str)
    if pd.api.types.is_numeric_dtype(cells.dtype):
        code_N, values = pd.factorize(cells)
        texts = [_number(value) for value in values]
        texts = [_class_name(names, text) for text in texts] if names else texts
        return pd.Series(np.array([*texts, ""], dtype=object)[code_N], index=cells.index, dtype=str)
    if cells.map(lambda cell: isinstance(cell, list | tuple | np.ndarray)).any():
        return cells.map(lambda cell: _list(cell, names))
    return _text(
        pd.Series(
            ["" if cell is None or cell is pd.NA or cell != cell else _number(cell) for cell in cells],
            cells.index,
            str,
        )
    )


def _number(cell) -> str:
    if isinstance(cell, bool | np.bool_):
        return str(int(cell))
    if isinstance(cell, float | np.floating):
        return float_text(float(cell), type(cell)) if np.isfinite(cell) else str(cell)
    if isinstance(cell, decimal.Decimal):
        return format(cell, "f")
    return cell.decode("utf-8", "backslashreplace") if isinstance(cell, bytes) else str(cell)


def _list(cell, names: list[str] | None):
    if cell is None or (isinstance(cell, float) and cell != cell):
        return ""
    if isinstance(cell, str):
        return cell.strip()
    return tuple(_class_name(names, entry) if names else str(entry).strip() for entry in cell)


def _class_name(names: list[str], number: object) -> str:
    """The name of a ClassLabel's number; "" for -1 or nothing, which mean unknown; other numbers as they are."""
    if number is None or number != number or not 0 <= int(number) < len(names):
        return "" if number is None or number != number or int(number) == -1 else str(number)
    return names[int(number)]


def _class_names(feature) -> list[str] | None:
    inner = getattr(feature, "feature", feature)
    return inner.names if isinstance(inner, datasets.ClassLabel) else None


def check_columns(
    columns: Iterable[str], header: list[str], where: Path | str, description: TableDescription, without: tuple = ()
) -> None:
    """Refuse a table that lacks columns of its description.

    Args:
        columns: those that were read.
        header: all that it has, for the message.
        where: file or place, for the message.
        description: of the table.
        without: columns that are read elsewhere.

    Raises:
        ValueError: with the columns that are there, and the nearest.
    """
    here = set(columns)
    absent = [name for name in description.columns() if name not in here and name not in without]
    if description.label_format == "columns" and description.absent_findings == "error":
        here |= _joined_columns(description)
        absent += [names[0] for names in description.findings.values() if not here & set(names)]
    if absent:
        nearest = difflib.get_close_matches(absent[0], header, n=1)
        hint = f" (did you mean {nearest[0]!r}?)" if nearest else ""
        shown = ", ".join(map(repr, header[:20])) + (f" and {len(header) - 20} more" if len(header) > 20 else "")
        raise ValueError(
            f"{where} has no column {', '.join(map(repr, absent))}{hint}; it has {shown}: correct "
            f"{description.path or 'the description'} (and delimiter, if these are joined), or the table"
        )


def _joined(rows: pd.DataFrame, description: TableDescription, root: Path) -> pd.DataFrame:
    for entry in description.join:
        path, on = find_file(root, entry["file"]), _keys(entry)
        part, _ = _read(path, {*on, *entry["columns"]}, description)
        absent = [name for name in (*on, *entry["columns"]) if name not in part.columns]
        if absent:
            raise ValueError(f"{path} has no column {', '.join(map(repr, absent))}, which the join asks for")
        spelled = _joined_keys(part[on], None)
        part = _in_one_spelling(part, path, description)
        key_N, key_K = _joined_keys(rows[on], path), _joined_keys(part[on], path)
        part, spelled, key_K = (column[key_K != ""] for column in (part, spelled, key_K))  # an empty cell is not a key
        twice = key_K.duplicated(keep=False)
        twice = key_K[twice].sort_values(kind="stable").index
        refuse(spelled[twice], f"{path}: {', '.join(on)} occurs twice", "keep one row of each")
        position_N = pd.Index(key_K).get_indexer(key_N)
        found_N = position_N >= 0
        if not found_N.all():
            _report_unmatched(key_N[~found_N], key_K, found_N, entry, path, description)
        rows = rows[found_N].reset_index(drop=True)
        taken = part.iloc[position_N[found_N]].reset_index(drop=True)
        rows = rows.assign(**{column: taken[column] for column in entry["columns"]})
    return rows


def _joined_keys(keys: pd.DataFrame, where: Path | None) -> pd.Series:
    """One text a row from one or several key columns, "" where one is empty; as it is spelled if ``where`` is None."""
    columns = [keys[name] if where is None else canonical_ids(keys[name], f"{where}: {name}") for name in keys]
    text = columns[0]
    for column in columns[1:]:
        text = text + " / " + column
    empty = np.logical_or.reduce([(column == "").to_numpy() for column in columns])
    return text.mask(empty, "")


def _report_unmatched(
    lost: pd.Series, key_K: pd.Series, found_N: np.ndarray, entry: Mapping[str, Any], path: Path, description
) -> None:
    """Refuse rows without a partner, or say that they are left out; both with the spellings if these alone differ."""
    on, name = ", ".join(_keys(entry)), description.name
    pairs = similar_pairs(lost[lost != ""], key_K)
    if pairs:
        table, file = pairs[0]
        alike = (
            f"{len(pairs):,} of them differ only in their spelling: the table has {table!r}, {path.name} has {file!r}"
        )
    if not found_N.any() or entry["unmatched"] == "error":
        if not pairs:
            table, file = next(filter(None, lost), ""), key_K.iloc[0] if len(key_K) else ""
            alike = f"the table has {table!r}, {path.name} has {file!r}"
        some = "some" if found_N.any() else "any"
        repair = (
            "write these ids the same way in both files"
            if pairs
            else "check by, and that the files are of the same data"
        )
        if found_N.any() and not pairs:
            repair = "add them, or unmatched: drop"
        refuse(lost, f"{path} has no row for {some} {on}", f"{alike}; {repair}")
    logger.warning("%s: %s left out: not in %s", name, plural(len(lost), "row"), path.name)
    if pairs:
        logger.warning("%s: of rows left out in the join with %s by %s, %s", name, path.name, on, alike)


def _filtered(rows: pd.DataFrame, description: TableDescription) -> pd.DataFrame:
    for column, values in description.keep.items():
        cells = canonical_codes(rows[column], f"{description.name}: column {column!r}")
        rows = rows[cells.isin([canonical_code(value) for value in values])]
        if rows.empty:
            raise ValueError(f"{description.name} has no row with {column} of {', '.join(values)}; see keep")
    return rows.reset_index(drop=True)


@contextmanager
def no_code_of(place: str) -> Iterator[None]:
    """What `datasets` says of a dataset that is a script, as the error of the package."""
    try:
        yield
    except RuntimeError as error:
        if "script" not in str(error):
            raise
        raise ValueError(
            f"{place} needs its own code ({error}), and the code of a dataset is never run: give Parquet files"
        ) from error
