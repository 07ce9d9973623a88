"""The CSV of `hf-cxr predict`, and the file beside it that keeps its rows until all are done.

Each row is appended to `out.csv.partial` when it is done; after the last one, `out.csv` is written whole and the
partial file is removed. Whatever stops the command, even a full disk, the same command resumes: rows of the same model
and of files with the same size and modification time are kept. A partial file of another model is refused.

A partial file has one line of JSON with format, model and columns, then one per image: absolute path, bytes,
modification time in ns, and the cells as written. A truncated last line is dropped.

C = findings.
"""

import csv
import json
import os
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import filelock
import numpy as np

from hf_cxr.files import OutputError, check_output_file, output_target, replacing
from hf_cxr.words import spreadsheet_cell, utf8_text

FORMAT = 1
KEY = "hf-cxr predict, unfinished"
ROWS_A_SYNC = 512  # at most as many rows are lost in a power cut
RESUME = "run the same command again to resume"


class PredictionRows:
    """Rows of an unfinished CSV. A context manager: at its end the rows are on the disk.

    Args:
        path: the CSV to be written.
        columns: a name for each cell of a row.
        model: fingerprint of the model.

    Raises:
        OutputError: another command is writing it; its partial file belongs to another model, or is not a partial
            file; or it cannot be written.
    """

    def __init__(self, path: str | Path, columns: Sequence[str], model: str):
        self.path, self.columns, self.model = Path(path), tuple(columns), model
        self.partial = partial_of(path)
        self._done: dict[str, tuple[int, int, int]] = {}  # absolute path -> bytes, modification time, offset
        self._since_sync = 0
        try:
            self.partial.parent.mkdir(parents=True, exist_ok=True)
            self._lock = filelock.FileLock(_lock_of(self.partial))
            self._lock.acquire(timeout=0)
        except filelock.Timeout:
            raise OutputError(
                f"cannot write {path}: another command is writing it; wait for it or give another file"
            ) from None
        except OSError as error:
            raise OutputError.of(path, error) from error
        try:
            self._open()
        except BaseException:
            self._release()
            raise

    def __enter__(self) -> "PredictionRows":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __len__(self) -> int:
        return len(self._done)

    def is_done(self, path: Path) -> bool:
        """Whether there is a row for this file in its present version."""
        try:
            status = os.stat(path)
        except OSError:
            return False
        return self._done.get(os.path.abspath(path), ())[:2] == (status.st_size, status.st_mtime_ns)

    def add(self, path: Path, version: tuple[int, int], cells: Sequence[str]) -> None:
        """Keep a row.

        Args:
            path: the image file.
            version: its bytes and modification time in ns when it was read.
            cells: a number as text for each column, see `cells_of`.

        Raises:
            OutputError: the disk is full or cannot be written; earlier rows stay.
        """
        key = os.path.abspath(path)
        line = json.dumps([key, *version, list(cells)])
        start = self._end
        self._append(line)
        self._done[key] = (*version, start)
        self._since_sync += 1
        if self._since_sync >= ROWS_A_SYNC:
            self.sync()

    def sync(self) -> None:
        """Wait until all rows are on the disk."""
        os.fsync(self._file.fileno())
        self._since_sync = 0

    def finish(self, paths: Iterable[Path], *, spreadsheet_safe: bool = False) -> int:
        """Write the CSV, a row for each path that has one, in this order; remove the partial file.

        Returns:
            The number of rows.

        Raises:
            OutputError: it cannot be written; the partial file stays.
        """
        written = 0
        with replacing(self.path) as beside, beside.open("w", newline="", encoding="utf-8") as file:
            table = csv.writer(file)
            table.writerow(table_row("image", self.columns, spreadsheet_safe=spreadsheet_safe))
            for path in paths:
                entry = self._done.get(os.path.abspath(path))
                if entry is not None:
                    self._file.seek(entry[2])
                    *_, cells = json.loads(self._read_line())
                    table.writerow(table_row(path, cells, spreadsheet_safe=spreadsheet_safe))
                    written += 1
        self._done.clear()  # close() removes a partial file without rows
        return written

    def close(self) -> None:
        """Write the rows to the disk; remove a partial file without rows."""
        if self._file.closed:
            return
        try:
            if self._done:
                os.fsync(self._file.fileno())
            self._file.close()
            if not self._done:
                self.partial.unlink(missing_ok=True)
        finally:
            self._release()

    def _open(self) -> None:
        header = json.dumps({KEY: FORMAT, "model": self.model, "findings": self.columns})
        try:
            descriptor = os.open(self.partial, os.O_RDWR | os.O_CREAT | getattr(os, "O_BINARY", 0), 0o666)
            # No buffer: a write either reaches the system before it returns, or raises.
            self._file = os.fdopen(descriptor, "r+b", buffering=0)
            first = self._read_line()
            if first.endswith(b"\n"):
                self._check_header(first, header)
            self._end = len(first) if first.endswith(b"\n") else 0
            if self._end == 0 and first.strip(b"\0") and not header.encode().startswith(first):
                self._refuse_foreign()
            self._index()
            self._file.truncate(self._end)
            if self._end == 0:
                self._append(header)
        except OutputError:
            raise
        except OSError as error:
            raise OutputError.of(self.partial, error) from error

    def _check_header(self, line: bytes, header: str) -> None:
        try:
            found = json.loads(line)
            known = found[KEY] == FORMAT
        except (ValueError, TypeError, KeyError):
            known = False
        if not known:
            self._refuse_foreign()
        if found != json.loads(header):
            raise OutputError(
                f"{self.partial} holds rows of another model; finish with that model, remove the file to start again, "
                "or give another --csv"
            )

    def _refuse_foreign(self) -> None:
        raise OutputError(
            f"{self.partial} is not an unfinished file of hf-cxr predict; move it, or give another --csv"
        )

    def _index(self) -> None:
        """Find where each whole row begins, up to the first damaged one."""
        if self._end == 0:
            return
        with open(self.partial, "rb") as file:
            file.seek(self._end)
            for line in file:
                entry = _row(line, len(self.columns))
                if entry is None:
                    return
                self._done[entry[0]] = (entry[1], entry[2], self._end)
                self._end += len(line)

    def _read_line(self) -> bytes:
        parts = []
        while part := self._file.read(4096):
            head, newline, _ = part.partition(b"\n")
            parts.append(head + newline)
            if newline:
                break
        return b"".join(parts)

    def _append(self, line: str) -> None:
        rest = memoryview(f"{line}\n".encode())
        length = len(rest)
        try:
            self._file.seek(self._end)
            while rest:
                rest = rest[self._file.write(rest) :]
        except OSError as error:
            with suppress(OSError):
                self._file.truncate(self._end)
            raise OutputError.of(self.partial, error) from error
        self._end += length

    def _release(self) -> None:
        with suppress(OSError):
            os.unlink(self._lock.lock_file)  # while it is held: nobody else can hold it
        self._lock.release()


def partial_of(path: str | Path) -> Path:
    """Where the rows of an unfinished CSV are: beside the file, with links followed.

    Raises:
        OutputError: see `hf_cxr.files.output_target`.
    """
    target = output_target(path)
    return target.with_name(f"{target.name}.partial")


def check_places(path: str | Path, inputs: Iterable[str | Path] = ()) -> None:
    """Before any work, refuse a CSV that cannot be written or whose unfinished rows cannot be kept.

    Raises:
        OutputError: see `hf_cxr.files.check_output_file`.
    """
    check_output_file(path, inputs=inputs, table=True)
    partial = partial_of(path)
    check_output_file(partial, inputs=inputs)
    check_output_file(_lock_of(partial))


def cells_of(probability_C: np.ndarray) -> list[str]:
    """Probabilities as they are written: six decimals."""
    return [f"{value:.6f}" for value in probability_C]


def table_row(name: object, cells: Sequence[str], *, spreadsheet_safe: bool) -> list[Any]:
    """A row of the CSV: a name or "image", and the cells. Valid UTF-8 whatever the name; formulas become text."""
    row = [utf8_text(cell) for cell in (name, *cells)]
    return [spreadsheet_cell(cell) for cell in row] if spreadsheet_safe else row


def _lock_of(partial: Path) -> Path:
    return partial.with_name(f"{partial.name}.lock")


def _row(line: bytes, columns: int) -> tuple[str, int, int] | None:
    """Path, bytes and modification time of a line, or None if it is damaged."""
    try:
        name, size, changed, cells = json.loads(line)
        [float(cell) for cell in cells]
    except (ValueError, TypeError):
        return None
    sound = line.endswith(b"\n") and isinstance(name, str) and len(cells) == columns
    return (name, int(size), int(changed)) if sound else None
