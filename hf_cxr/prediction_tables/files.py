"""CSV and Parquet files as columns, and which column is what, by its name.

Text cells stay text, as they are written: a score is converted to the nearest float64 when it is known to be a score.
Parquet columns keep their types.

Refused: a file that is neither CSV nor Parquet, without rows, with a column twice, or without a column of image ids.

N = rows.
"""

import csv
import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from hf_cxr.data.csv_files import first_repeated, read_csv, read_header
from hf_cxr.data.ids import canonical_ids
from hf_cxr.data.label_cells import is_placeholder

TEXT_SUFFIXES = (".csv", ".tsv", ".txt")

# What a column is -> its names, folded; the first that a file has is taken.
NAMES = {
    "image_id": (
        "imageid",
        "imageindex",
        "image",
        "imagename",
        "filename",
        "file",
        "imagepath",
        "path",
        "dicomid",
        "imagefile",
        "img",
        "id",
    ),
    "patient_id": ("patientid", "patient", "subjectid", "subject", "patientnumber"),
    "study_id": ("studyid", "study"),
    "view": ("view", "viewposition", "projection"),
    "sex": ("sex", "patientsex", "gender", "patientgender"),
    "age": ("age", "patientage", "ageyears"),
    "follow_up": ("followup", "followupnumber"),
}


@dataclass(frozen=True, eq=False)
class Columns:
    """A file's columns.

    Attributes:
        path: of the file.
        frame: N rows; column names are unique.
        image_ids: (N,) in the one spelling of `hf_cxr.data.ids`, unique.
        ids_from: the name of their column.
        metadata: of a Parquet file's schema, the entries of this package, as JSON values.
    """

    path: Path
    frame: pd.DataFrame
    image_ids: tuple[str, ...]
    ids_from: str
    metadata: Mapping[str, Any] = field(default_factory=dict)

    def named(self, what: str) -> str | None:
        """The column that is a key of `NAMES`, by its name; None if there is none."""
        return find(self.frame, what)

    def rest(self) -> list[str]:
        """The columns that no name in `NAMES` explains, in order."""
        known = {find(self.frame, what) for what in NAMES} | {self.ids_from}
        return [name for name in self.frame if name not in known and not is_unnamed(name)]

    def text(self, column: str) -> pd.Series:
        """A column's cells as stripped text, "" if empty."""
        cells = self.frame[column]
        return cells.map(lambda cell: "" if is_placeholder(cell) else str(cell).strip())


def read_columns(path: str | os.PathLike[str]) -> Columns:
    """Read a file; its images are identified and checked.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: see the module's first lines.
    """
    path = Path(path)
    if path.is_dir():
        raise ValueError(f"{path} is a folder; give a CSV or Parquet file")
    if not path.is_file():
        raise FileNotFoundError(f"no file {path}")
    metadata: dict[str, Any] = {}
    with path.open("rb") as file:
        is_parquet = file.read(4) == b"PAR1"
    if is_parquet:
        frame, metadata = _read_parquet(path)
    elif Path(path.name.removesuffix(".gz")).suffix.lower() in TEXT_SUFFIXES:
        frame = _read_text(path)
    else:
        raise ValueError(
            f"{path} is neither a Parquet file nor named .csv or .tsv; save it as CSV (UTF-8, commas) or Parquet"
        )
    if frame.empty:
        raise ValueError(f"{path} has no rows below its header")
    column = find(frame, "image_id")
    if column is None:
        raise ValueError(
            f"{path} has no column of image ids (columns: {shown(frame.columns)}); name it image_id. image, filename, "
            "path and Image Index are read too"
        )
    ids = canonical_ids(frame[column], f"{path}: column {column!r}")
    empty_N = np.flatnonzero((ids == "").to_numpy())
    if len(empty_N):
        raise ValueError(f"{path}: {len(empty_N)} rows have no {column}, the first is row {empty_N[0] + 1}")
    twice = ids[ids.duplicated()]
    if len(twice):
        raise ValueError(
            f"{path}: {len(twice):,} rows repeat an image id, such as {shown(twice.unique())}; keep one row an image"
        )
    return Columns(path, frame, tuple(ids), column, metadata)


def find(frame: pd.DataFrame, what: str) -> str | None:
    """The first column by a name of `NAMES`."""
    folded = {fold(name): name for name in reversed(list(frame.columns))}
    return next((folded[name] for name in NAMES[what] if name in folded), None)


def fold(name: str) -> str:
    """A column's name without case, spaces and signs.

    >>> fold("Follow-up #"), fold("Image Index")
    ('followup', 'imageindex')
    """
    return re.sub(r"[\s_\-.#]", "", name.casefold())


def is_unnamed(name: str) -> bool:
    """Whether a column has no name: the index that pandas writes, or what a comma at the header's end makes."""
    return not name.strip() or re.fullmatch(r"Unnamed: \d+|__index_level_\d+__", name) is not None


def shown(names: Any, most: int = 5) -> str:
    """The first of several names, for a message."""
    names = [str(name) for name in names]
    return ", ".join(names[:most]) + (f" and {len(names) - most:,} more" if len(names) > most else "")


def _read_parquet(path: Path) -> tuple[pd.DataFrame, dict[str, Any]]:
    try:
        with pq.ParquetFile(path) as file:
            flat = [entry.name for entry in file.schema_arrow if not pa.types.is_nested(entry.type)]  # no embeddings
            table = file.read(columns=flat)
    except (pa.ArrowInvalid, OSError) as error:
        raise ValueError(f"{path} is not a readable Parquet file: {error}") from error
    _check_names(path, table.column_names)
    entries = {key.decode(): value for key, value in (table.schema.metadata or {}).items()}
    metadata = {}
    for key in (key for key in entries if key.startswith("hf_cxr.")):
        try:
            metadata[key] = json.loads(entries[key])
        except ValueError as error:
            raise ValueError(f"{path}: the schema's entry {key} is not valid JSON") from error
    return table.to_pandas(ignore_metadata=True), metadata


def _read_text(path: Path) -> pd.DataFrame:
    how = {"delimiter": "\t" if ".tsv" in path.suffixes else ",", "encoding": "utf-8-sig"}
    try:
        header = read_header(path, **how)
        if len(header) == 1 and re.search(r"[;\t|]", header[0]):
            raise ValueError(f"it has one column, {header[0]!r}")
        frame = read_csv(path, **how, skip_spaces=True)
    except (ValueError, OSError, csv.Error) as error:  # empty, binary, another encoding, rows of unequal length
        if isinstance(error, PermissionError):
            raise
        raise ValueError(
            f"{path} cannot be read as CSV ({_reason(error)}); save it in UTF-8, columns separated by commas"
        ) from error
    _check_names(path, header)
    frame.columns = frame.columns.str.strip()
    return frame.fillna("")


def _reason(error: Exception) -> str:
    return " ".join(str(error).removeprefix("Error tokenizing data. C error:").split())


def _check_names(path: Path, names: list[str]) -> None:
    twice = first_repeated(names)
    if twice:
        raise ValueError(f"{path} has the column {twice!r} twice; keep one")
