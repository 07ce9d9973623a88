"""Results as files: CSV, Parquet and JSON lines. The table `FORMATS` says what each suffix is written as.

A table, CSV or Parquet, has a row for each image and these columns, in this order:

| column                                  | CSV                                 | Parquet        | where           |
|-----------------------------------------|-------------------------------------|----------------|-----------------|
| image                                   | the path                            | string         | always          |
| FINDING                                 | probability, six decimals           | float32        | every finding   |
| called/FINDING                          | 1 or 0                              | bool           | operating point |
| set/FINDING                             | present, absent, both, none         | string         | label sets      |
| input_check/unusual                     | 1 or 0                              | bool           | input check     |
| input_check/score                       | six significant digits              | float64        | input check     |
| input_check/reasons                     | with semicolons between them        | list of string | input check     |
| image/remarks                           | with semicolons between them        | list of string | always          |

``image/remarks`` says how a file was read, where that may not be what was meant; it is nearly always empty. ``set/``
has the labels that are not ruled out, in the words of `results.NOT_RULED_OUT`. A line of JSON is
`ImageResult.to_dict()`. All text is UTF-8: a byte of a file name that is not is written as \\xNN.

N = images, C = findings.
"""

import csv
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from hf_cxr.files import OutputError, check_output_file
from hf_cxr.inference.results import ABSENT, NOT_RULED_OUT, PRESENT, ImageResult
from hf_cxr.words import spreadsheet_cell, utf8_text

if TYPE_CHECKING:
    import pyarrow as pa

    from hf_cxr.inference.calls import Calls

ROWS_AT_ONCE = 4096  # of a Parquet file, in memory
LABEL_SETS = np.array([NOT_RULED_OUT[labels] for labels in ((), (ABSENT,), (PRESENT,), (PRESENT, ABSENT))])
REMARKS = "image/remarks"  # a column
Write = Callable[[ImageResult], None]


class ResultColumns:
    """The columns of a model's results as a table, and their cells.

    Args:
        calls: of the model.
        label_sets: whether it has label sets.
        input_check: whether it has an input check.
    """

    def __init__(self, calls: "Calls", *, label_sets: bool = False, input_check: bool = False):
        self.calls, self.label_sets, self.input_check = calls, label_sets, input_check

    @property
    def names(self) -> list[str]:
        """Every column, "image" first."""
        findings = self.calls.label_names
        names = ["image", *findings, *self.calls.columns]
        names += [f"set/{finding}" for finding in findings] if self.label_sets else []
        names += [f"input_check/{what}" for what in ("unusual", "score", "reasons")] if self.input_check else []
        return [*names, REMARKS]

    def cells(self, result: ImageResult) -> list[str]:
        """The row of an image as text."""
        cells = [result.name, *(f"{value:.6f}" for value in result.probability_C)]
        cells += [f"{called:d}" for called in result.called_C[self.calls.defined]]
        if self.label_sets:
            cells += _sets(result).tolist()
        if self.input_check:
            check = result.input_check
            cells += [f"{check.unusual:d}", f"{check.score:.6g}", "; ".join(check.reasons)]
        return [*cells, "; ".join(result.remarks)]

    def csv_row(self, cells: Iterable[str], *, spreadsheet_safe: bool = False) -> list[str]:
        """Cells as they are written: valid UTF-8, and no formulas if asked for."""
        row = [utf8_text(cell) for cell in cells]
        return [spreadsheet_cell(cell) for cell in row] if spreadsheet_safe else row

    def arrow(self, results: Sequence[ImageResult]) -> "pa.RecordBatch":
        """The rows of N images, typed."""
        import pyarrow as pa

        findings, defined = len(self.calls.label_names), self.calls.defined
        probability_NC = np.array([result.probability_C for result in results], np.float32).reshape(-1, findings)
        called_NC = np.array([result.called_C for result in results], bool).reshape(-1, findings)
        columns: list[Any] = [pa.array([utf8_text(result.name) for result in results], pa.string())]
        columns += [pa.array(np.ascontiguousarray(column_N)) for column_N in probability_NC.T]
        columns += [pa.array(np.ascontiguousarray(called_NC[:, column])) for column in defined]
        if self.label_sets:
            sets_NC = np.array([_sets(result) for result in results], LABEL_SETS.dtype).reshape(-1, findings)
            columns += [pa.array(column_N.tolist(), pa.string()) for column_N in sets_NC.T]
        if self.input_check:
            checks = [result.input_check for result in results]
            columns.append(pa.array([check.unusual for check in checks], pa.bool_()))
            columns.append(pa.array([check.score for check in checks], pa.float64()))
            columns.append(pa.array([list(check.reasons) for check in checks], pa.list_(pa.string())))
        columns.append(pa.array([list(result.remarks) for result in results], pa.list_(pa.string())))
        return pa.RecordBatch.from_arrays(columns, names=[utf8_text(name) for name in self.names])


@contextmanager
def csv_file(path: Path, columns: ResultColumns, *, spreadsheet_safe: bool = False) -> Iterator[Write]:
    """Write a CSV within the block, a row at a time."""
    with path.open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)

        def write(cells: Iterable[str]) -> None:
            table.writerow(columns.csv_row(cells, spreadsheet_safe=spreadsheet_safe))

        write(columns.names)
        yield lambda result: write(columns.cells(result))


@contextmanager
def json_lines_file(path: Path, columns: ResultColumns, **_: Any) -> Iterator[Write]:
    """Write JSON lines within the block."""
    with path.open("w", encoding="utf-8", newline="\n") as file:
        yield lambda result: write_json_line(file, result)


@contextmanager
def parquet_file(path: Path, columns: ResultColumns, **_: Any) -> Iterator[Write]:
    """Write a Parquet file within the block, ``ROWS_AT_ONCE`` rows at a time."""
    import pyarrow.parquet as pq

    waiting: list[ImageResult] = []
    with pq.ParquetWriter(path, columns.arrow([]).schema) as file:

        def flush() -> None:
            file.write_batch(columns.arrow(waiting))
            waiting.clear()

        def write(result: ImageResult) -> None:
            waiting.append(result)
            if len(waiting) == ROWS_AT_ONCE:
                flush()

        yield write
        if waiting:
            flush()


def write_json_line(file: IO[str], result: ImageResult) -> None:
    """Write a result as one line of JSON."""
    values = result.to_dict()
    values["image"] = utf8_text(values["image"])
    file.write(json.dumps(values, ensure_ascii=False, allow_nan=False) + "\n")


FORMATS = {".csv": csv_file, ".parquet": parquet_file, ".jsonl": json_lines_file}
"""Suffix -> a context ``(path, columns, spreadsheet_safe)`` that gives the function that writes a result."""

_FIRST_BYTES = {".parquet": b"PAR1", ".jsonl": b"{"}  # of a file that may be replaced


def format_of(path: str | Path) -> str:
    """The key of `FORMATS` that a path's suffix is.

    Raises:
        OutputError: it is another suffix.

    >>> format_of("a/B.PARQUET")
    '.parquet'
    """
    suffix = Path(path).suffix.lower()
    if suffix not in FORMATS:
        known = ", ".join(FORMATS)
        raise OutputError(f"cannot write {path}: the suffix says the format, and must be one of {known}")
    return suffix


def check_format(suffix: str, columns: ResultColumns) -> None:
    """Refuse columns that a format cannot hold.

    Raises:
        ValueError: two columns of a Parquet file would have one name.
    """
    names = columns.names
    double = sorted({name for name in names if names.count(name) > 1}) if suffix == ".parquet" else []
    if double:
        raise ValueError(f"two columns would be called {double[0]!r}, which Parquet does not allow; write .jsonl")


def check_result_file(path: str | Path, suffix: str, inputs: Iterable[str | Path] = ()) -> None:
    """Refuse a place where results cannot be written, before any work.

    Raises:
        OutputError: see `hf_cxr.files.check_output_file`; or the file there is of another kind.
    """
    check_output_file(path, inputs=inputs, table=suffix == ".csv")
    start, target = _FIRST_BYTES.get(suffix, b""), Path(path)
    if start and target.exists() and target.stat().st_size:
        with target.open("rb") as file:
            found = file.read(len(start))
        if found != start:
            raise OutputError(
                f"cannot write {path}: the file there is not {suffix[1:]}; give another name or move it away"
            )


def _sets(result: ImageResult) -> np.ndarray:
    """The label set of each finding in a word, (C,)."""
    return LABEL_SETS[2 * result.present_C.astype(int) + result.absent_C]
