"""The answers of `hf-cxr predict`, kept in a file next to its output until all are done.

Each answer is appended to `out.csv.partial` when it is done; after the last one, `out.csv` is written whole and the
partial file is removed. Whatever stops the command, even a full disk, the same command resumes: answers of the same
model for files with the same size and modification time are kept, and files that could not be read are read again. A
partial file of another model, or of a command that wrote other pictures or reports, is refused. The output's format
plays no part until the end, see `result_files`.

Files that could not be read are listed next to the output, in `out.csv.unreadable.csv`: a row with name and reason for
each. Where all could be read, there is no such file, and one of an earlier command is removed. Where none could be
read, the list is written and the output stays as it is.

A partial file has one line of JSON with format, model and findings, then a line for each answer, see `answers`. A
truncated last line is dropped. In memory there is one entry for each image, its path and where its line begins.

C = findings.
"""

import csv
import json
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import filelock

from hf_cxr.data.images.grey import ImageError
from hf_cxr.files import OutputError, check_output_file, output_target, replacing, version_of
from hf_cxr.inference.answers import Answer, AnswerLines, Version, refuse_foreign
from hf_cxr.inference.result_files import FORMATS, ResultColumns, check_result_file
from hf_cxr.inference.results import ImageResult
from hf_cxr.words import spreadsheet_cell, utf8_text

KEY = "hf-cxr predict, unfinished"
ROWS_A_SYNC = 512  # at most as many answers are lost in a power cut
RESUME = "run the same command again to resume"
UNREADABLE = ["image", "reason"]  # the columns of the list of files that could not be read


class PredictionRows:
    """Answers of an unfinished output. A context manager: at its end they are on the disk.

    Args:
        path: the file to be written.
        lines: the model's answers as lines.

    Raises:
        OutputError: another command is writing it; its partial file belongs to another model, or is not a partial
            file; or it cannot be written.
    """

    def __init__(self, path: str | Path, lines: AnswerLines):
        self.path, self.lines = Path(path), lines
        self.partial, self.unreadable = partial_of(path), unreadable_of(path)
        self._done: dict[str, int] = {}  # absolute path -> where its line begins
        self._failed: dict[str, int] = {}  # the same for files that could not be read
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
        """Images that were predicted."""
        return len(self._done)

    def is_done(self, path: Path) -> bool:
        """Whether this file was predicted in its present version."""
        start = self._done.get(os.path.abspath(path))
        if start is None:
            return False
        try:
            return self._read(start)[1] == version_of(path)
        except OutputError:
            raise
        except OSError:
            return False

    def failures(self, path: Path) -> tuple[str, ...]:
        """Why pictures and reports of a predicted file could not be made; () where nothing failed."""
        self._file.seek(self._done[os.path.abspath(path)])
        return self.lines.failures(self._read_line())

    def add(
        self, path: Path, version: Version, answer: ImageResult | ImageError, failures: Sequence[str] = ()
    ) -> None:
        """Keep an answer.

        Args:
            path: the image file.
            version: its bytes and modification time in ns when it was read.
            answer: what the model says of it, or why it could not be read.
            failures: why pictures or reports of it could not be made.

        Raises:
            OutputError: the disk is full or cannot be written; earlier answers stay.
        """
        start = self._end
        self._append(self.lines.line(path, version, answer, failures))
        self._note(os.path.abspath(path), start, isinstance(answer, ImageError))
        self._since_sync += 1
        if self._since_sync >= ROWS_A_SYNC:
            self.sync()

    def sync(self) -> None:
        """Wait until all answers are on the disk."""
        os.fsync(self._file.fileno())
        self._since_sync = 0

    def finish(
        self, paths: Iterable[Path], columns: ResultColumns, suffix: str, *, spreadsheet_safe: bool = False
    ) -> tuple[int, int]:
        """Write the output and the list of unreadable files, for these paths in this order; remove the partial file.

        Args:
            paths: those without an answer are left out.
            columns: of a table.
            suffix: of `FORMATS`.
            spreadsheet_safe: see `result_files.csv_file`.

        Returns:
            How many images the output has, and how many files the list has. With no image, the output is not written:
            an earlier one is worth more than a header.

        Raises:
            OutputError: it cannot be written; the partial file stays.
        """
        written, paths = 0, list(paths)
        unreadable = self._list_unreadable(paths, spreadsheet_safe)
        if not any(os.path.abspath(path) in self._done for path in paths):
            return 0, unreadable
        with (
            replacing(self.path) as beside,
            FORMATS[suffix](beside, columns, spreadsheet_safe=spreadsheet_safe) as write,
        ):
            for path, answer in self._answers(paths, self._done):
                write(replace(answer, name=os.fspath(path)))
                written += 1
        self._done.clear()  # close() removes a partial file without answers
        return written, unreadable

    def _list_unreadable(self, paths: list[Path], spreadsheet_safe: bool) -> int:
        place, listed = self.unreadable, 0
        failed = [path for path in paths if os.path.abspath(path) in self._failed]
        if not failed:
            if _is_list(place):
                place.unlink()
            return 0
        with replacing(place) as beside, beside.open("w", newline="", encoding="utf-8") as file:
            table = csv.writer(file)
            table.writerow(UNREADABLE)
            for path, error in self._answers(failed, self._failed):
                row = [utf8_text(cell) for cell in (path, error.reason or error)]
                table.writerow([spreadsheet_cell(cell) for cell in row] if spreadsheet_safe else row)
                listed += 1
        return listed

    def _answers(
        self, paths: Iterable[Path], starts: dict[str, int]
    ) -> Iterator[tuple[Path, ImageResult | ImageError]]:
        for path in paths:
            start = starts.get(os.path.abspath(path))
            if start is not None:
                yield path, self._read(start)[2]

    def _note(self, key: str, start: int, failed: bool) -> None:
        """Remember where the last answer for a path is."""
        starts, others = (self._failed, self._done) if failed else (self._done, self._failed)
        others.pop(key, None)
        starts[key] = start

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
        header = json.dumps(self.lines.header(KEY))
        try:
            descriptor = os.open(self.partial, os.O_RDWR | os.O_CREAT | getattr(os, "O_BINARY", 0), 0o666)
            # No buffer: a write either reaches the system before it returns, or raises.
            self._file = os.fdopen(descriptor, "r+b", buffering=0)
            first = self._read_line()
            if first.endswith(b"\n"):
                self.lines.check_header(first, KEY, self.partial)
            self._end = len(first) if first.endswith(b"\n") else 0
            if self._end == 0 and first.strip(b"\0") and not header.encode().startswith(first):
                refuse_foreign(self.partial)
            self._index()
            self._file.truncate(self._end)
            if self._end == 0:
                self._append(header)
        except OutputError:
            raise
        except OSError as error:
            raise OutputError.of(self.partial, error) from error

    def _index(self) -> None:
        """Find where each whole line begins, up to the first damaged one."""
        if self._end == 0:
            return
        with open(self.partial, "rb") as file:
            file.seek(self._end)
            for line in file:
                answer = self.lines.answer(line)
                if answer is None:
                    return
                self._note(os.fspath(answer[0]), self._end, isinstance(answer[2], ImageError))
                self._end += len(line)

    def _read(self, start: int) -> Answer:
        """The answer whose line begins there."""
        self._file.seek(start)
        answer = self.lines.answer(self._read_line())
        if answer is None:
            raise OutputError(f"{self.partial} was changed while it was in use; {RESUME}")
        return answer

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
    """Where the answers of an unfinished output are: next to the file, with links followed.

    Raises:
        OutputError: see `hf_cxr.files.output_target`.
    """
    target = output_target(path)
    return target.with_name(f"{target.name}.partial")


def unreadable_of(path: str | Path) -> Path:
    """Where the files that could not be read are listed.

    Raises:
        OutputError: see `hf_cxr.files.output_target`.

    >>> unreadable_of("results/out.parquet").name
    'out.parquet.unreadable.csv'
    """
    target = output_target(path)
    return target.with_name(f"{target.name}.unreadable.csv")


def check_places(path: str | Path, suffix: str, inputs: Iterable[str | Path] = ()) -> None:
    """Before any work, refuse an output that cannot be written or whose unfinished answers cannot be kept.

    Args:
        path: the output.
        suffix: its format, of `FORMATS`.
        inputs: files that may not be written over.

    Raises:
        OutputError: see `hf_cxr.files.check_output_file`.
    """
    check_result_file(path, suffix, inputs)
    partial = partial_of(path)
    check_output_file(partial, inputs=inputs)
    check_output_file(_lock_of(partial))
    check_output_file(unreadable_of(path), inputs=inputs, table=True)


def _is_list(place: Path) -> bool:
    """Whether a file is a list of unreadable files, as an earlier command wrote it."""
    try:
        with place.open("rb") as file:
            return file.readline().strip() == ",".join(UNREADABLE).encode()
    except OSError:
        return False


def _lock_of(partial: Path) -> Path:
    return partial.with_name(f"{partial.name}.lock")
