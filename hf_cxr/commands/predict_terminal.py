"""What `hf-cxr predict` prints: a table, or the results themselves on standard output; notes and errors next to it."""

import csv
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from hf_cxr import processes
from hf_cxr.commands.errors import discard
from hf_cxr.data.images.grey import ImageError, TooManyPixelsError
from hf_cxr.files import OutputError
from hf_cxr.words import printable

if TYPE_CHECKING:
    from hf_cxr.inference.result_files import ResultColumns
    from hf_cxr.inference.results import ImageResult

WIDEST_NAME = 80  # columns of the table for a name; a longer one shifts the rest of its line
TOO_LARGE = "if the file is sound, make it smaller, or allow more with --max_megapixels"
MANY_FILES = 50  # with this many or more, there is a progress bar


class Progress:
    """How many images are done, for the line that is printed when the command stops early."""

    def __init__(self) -> None:
        self.done, self.total, self.resumable, self.bar = 0, 0, False, None

    def step(self, count: int = 1) -> None:
        """Count finished images."""
        self.done += count
        if self.bar is not None:
            self.bar.update(count)

    def step_of_all(self, count: int) -> None:
        """Count the files of this process for all: their shares are equal but for a batch."""
        self.resumable = True
        self.step(min(count * processes.count(), self.total - self.done))

    def resume(self, out: str | None) -> str:
        """How to resume, as the end of a line.

        Args:
            out: the file that is written; None for none.
        """
        if not self.resumable or out is None:
            return ""
        from hf_cxr.inference.prediction_rows import RESUME, partial_of

        return f"; finished rows are kept in {partial_of(out)}: {RESUME}"


class Terminal:
    """Standard output and standard error; the program that reads them may close either at any time.

    Args:
        suffix: a format: only results in it are written to standard output. None for the table.
    """

    def __init__(self, *, suffix: str | None = None):
        self.suffix, self.closed = suffix, False
        if hasattr(sys.stdout, "reconfigure"):
            sys.stdout.reconfigure(errors="backslashreplace", **({"encoding": "utf-8"} if suffix else {}))

    def start(self, columns: "ResultColumns", paths: Sequence[Path], *, top: int, spreadsheet_safe: bool) -> None:
        """Set the columns, and the files to come; of CSV, write the header.

        Args:
            columns: of a table.
            paths: whose names make the table's first column as wide as it is.
            top: findings in a line of the table.
            spreadsheet_safe: for CSV.
        """
        self.columns, self.top, self.safe = columns, top, spreadsheet_safe
        self.width = min(max((len(printable(path)) for path in paths), default=0), WIDEST_NAME)
        self.names = [printable(name) for name in columns.calls.label_names]
        if self.suffix == ".csv":
            self._write_csv(columns.names)

    def row(self, result: "ImageResult") -> None:
        """The line of an image: its most probable findings, those that are called, and what a reader should know."""
        if self.suffix == ".csv":
            self._write_csv(self.columns.cells(result))
            return
        if self.suffix is not None:
            from hf_cxr.inference.result_files import write_json_line

            write_json_line(self, result)
            return
        probability_C, called_C = result.probability_C, result.called_C
        order = probability_C.argsort()[::-1]
        shown = [i for rank, i in enumerate(order) if rank < self.top or called_C[i]]
        doubtful = result.unusual or result.remarks
        star = "(*)" if doubtful else "*"  # a call of what is perhaps no radiograph, or was read too dark
        words = [f"{self.names[i]} {probability_C[i]:.3f}{star if called_C[i] else ''}" for i in shown]
        if result.remarks:
            words.insert(0, f"NOTE: {printable('; '.join(result.remarks))};")
        if result.unusual:
            words.insert(0, f"UNUSUAL IMAGE: {printable('; '.join(result.input_check.reasons))};")
        self._write(f"{printable(result.name):<{self.width}}  {'  '.join(words)}\n")

    def answer(self, answer: "ImageResult | ImageError", failures: Sequence[str]) -> None:
        """The line of an image or why it could not be read, and why pictures or reports of it could not be made."""
        for failure in failures:
            self.complain(failure)
        if isinstance(answer, ImageError):
            too_large = isinstance(answer, TooManyPixelsError)
            self.complain(f"cannot read {answer.name}: {answer.reason_with(TOO_LARGE)}" if too_large else answer)
        else:
            self.row(answer)

    def line(self, text: str) -> None:
        """Write one line to the table's stream."""
        self._write(f"{printable(text)}\n")

    def note(self, text: object) -> None:
        """Write a line to standard error, if it is not closed."""
        with self._beside_the_bar(sys.stderr):
            try:
                print(printable(text), file=sys.stderr, flush=True)
            except (BrokenPipeError, ValueError):
                discard(sys.stderr)

    def complain(self, error: object) -> None:
        """Write an error to standard error, as one line."""
        self.note(f"hf-cxr predict: {error}")

    @contextmanager
    def bar(self, progress: Progress) -> Iterator[None]:
        """Show a progress bar within the block, if standard error is a terminal and there are many files."""
        from tqdm.auto import tqdm

        many = progress.total >= MANY_FILES
        with tqdm(total=progress.total, desc="Predicting", unit="image", disable=None if many else True) as bar:
            progress.bar = bar
            yield

    def close_output(self) -> None:
        """Discard later output, which has no reader, so that Python's last flush does not fail."""
        self.closed = True
        discard(sys.stdout)

    def _write_csv(self, cells: Sequence[str]) -> None:
        csv.writer(self, lineterminator="\n").writerow(self.columns.csv_row(cells, spreadsheet_safe=self.safe))

    def write(self, text: str) -> None:
        """For the writers of CSV and of JSON lines."""
        self._write(text)

    def _write(self, text: str) -> None:
        if self.closed or sys.stdout is None:
            return
        with self._beside_the_bar(sys.stdout):
            try:
                sys.stdout.write(text)
                sys.stdout.flush()
            except BrokenPipeError:
                self.close_output()
            except OSError as error:
                discard(sys.stdout)
                raise OutputError.of("standard output", error) from error

    @contextmanager
    def _beside_the_bar(self, stream) -> Iterator[None]:
        from tqdm.auto import tqdm

        with tqdm.external_write_mode(file=stream):
            yield
