"""`hf-cxr predict IMAGE_OR_FOLDER... --model RUN_OR_HUB_ID`: probabilities of each finding, as a table and as CSV.

A file that cannot be read is named and skipped. Folders and their sub-folders are searched for every image format that
can be read, including DICOM files without a suffix; the number of their other files is printed.

Where the model has operating points (a threshold for each finding, chosen on validation), findings that reach theirs
are marked with * in the table, and the CSV has a column called/FINDING of 1 or 0 for each, after the probabilities.

With --test_time_augmentation FOLDER, probabilities are those of averaged views of each image. FOLDER is an evaluation
that was made with that flag: it has the views, the calibration and the operating points. N views take N times as long.

With --csv FILE, finished rows are kept in FILE.partial. After an interruption, the same command resumes from there. In
the CSV, a byte of a file name that is not UTF-8 is written as \\xNN.

Under `accelerate launch` the processes share the files; output and CSV are those of one process. Each keeps its rows
in FILE.part-N until the main process joins them, so FILE must be in a folder that all machines share.

Exit status: 0; 2 if a file could not be read, or for bad input; 130 after Ctrl-C; 141 if standard output was
closed (`| head`) and there is no --csv FILE to finish.
"""

import argparse
import csv
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

from hf_cxr import processes
from hf_cxr.arguments.command_line import OneLineParser
from hf_cxr.commands import set_up_terminal
from hf_cxr.commands.errors import describe_error, discard, print_traceback
from hf_cxr.files import OutputError
from hf_cxr.inference.prediction_rows import RESUME, PredictionRows, cells_of, check_places, partial_of, table_row
from hf_cxr.late_modules import import_transformers_lightly
from hf_cxr.words import plural, printable

if TYPE_CHECKING:
    from hf_cxr.inference.calls import Calls
    from hf_cxr.inference.views import AveragedViews

STANDARD_OUTPUT = "-"
WIDEST_NAME = 80  # columns of the table for a name; a longer one shifts the rest of its line
MANY_FILES = 50  # with this many or more, there is a progress bar


def main(argv: Sequence[str] | None = None) -> int:
    """Exit status: see the top of this module."""
    parser = OneLineParser(
        prog="hf-cxr predict", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("paths", nargs="+", metavar="IMAGE_OR_FOLDER", help="image or DICOM files, or folders of them")
    parser.add_argument("--model", required=True, help="run folder or Hub id")
    parser.add_argument("--revision", default="main", help="branch, tag or commit of a Hub id")
    parser.add_argument(
        "--test_time_augmentation",
        metavar="FOLDER",
        help="average several views of each image, as the evaluation in FOLDER did and calibrated it",
    )
    parser.add_argument(
        "--csv",
        metavar="FILE",
        help="also write all probabilities to this CSV, one row per image; - is standard output, instead of the table",
    )
    parser.add_argument(
        "--spreadsheet_safe",
        action="store_true",
        help="in the CSV, put an apostrophe before names that a spreadsheet would read as a formula (= + - @)",
    )
    parser.add_argument(
        "--top", type=int, default=5, help="findings per image in the table, most probable first; * are always shown"
    )
    parser.add_argument("--batch_size", type=int, default=16, help="images per batch")
    args = parser.parse_args(argv)
    if args.batch_size < 1 or args.top < 1:
        parser.error("--batch_size and --top must be at least 1")
    terminal = Terminal(csv=args.csv == STANDARD_OUTPUT)
    progress = Progress()
    try:
        return predict(args, terminal, progress)
    except BrokenPipeError:
        terminal.close_output()
        return 141
    except (ValueError, OSError, RuntimeError, MemoryError) as error:
        print_traceback(error)  # with --debug
        if isinstance(error, processes.OtherProcessFailedError) or not processes.fails_first():
            return 2
        terminal.complain(f"{describe_error(error)}{progress.resume(args.csv)}")
        return 2
    except KeyboardInterrupt:
        if not processes.fails_first():
            return 130
        terminal.complain(f"stopped after {progress.done:,} of {progress.total:,} images{progress.resume(args.csv)}")
        return 130


def predict(args: argparse.Namespace, terminal: "Terminal", progress: "Progress") -> int:
    """Find the images, predict them, print and write the rows."""
    out = None if args.csv == STANDARD_OUTPUT else args.csv
    if not processes.is_main():
        return assist(args, out, progress)
    if out is not None:
        check_csv(out)  # before torch is loaded and folders are searched
    import_transformers_lightly()
    from hf_cxr.data.images.files import search_images
    from hf_cxr.inference.classifier import Classifier
    from hf_cxr.inference.shared_files import predict_together, predict_versions, take_over
    from hf_cxr.models.record import ModelRecord

    set_up_terminal()
    processes.connect()
    if not all(args.paths):  # it would be the working folder
        raise ValueError("the name of an image or a folder is empty; give files or folders")
    found = search_images(args.paths)
    if out is not None:
        check_csv(out, inputs=(*found.paths, *_files_of_model(args.model)))
    classifier = Classifier(args.model, revision=args.revision, views=views_of(args))
    if classifier.views is not None:
        terminal.note(f"note: averaged over {classifier.views.words}")
    record = ModelRecord.of(classifier.model.config)
    if record is not None and record.synthetic:
        terminal.note("note: this model was trained on synthetic phantoms; it knows nothing of patients")
    for note in found.notes():
        terminal.note(f"note: {note}")
    for error in found.unreadable:
        terminal.complain(error)
    progress.total = len(found.paths)
    unreadable = len(found.unreadable)
    calls = classifier.calls
    terminal.note(f"note: {calls.note()}")
    columns = (*classifier.label_names, *calls.columns)
    rows = nullcontext() if out is None else PredictionRows(out, columns, classifier.fingerprint())
    with rows as kept, terminal.bar(progress):
        paths = found.paths
        if kept is not None:
            take_over(kept, classifier, calls)
        if kept is not None and len(kept):
            paths = [path for path in paths if not kept.is_done(path)]
            progress.step(len(found.paths) - len(paths))
            progress.resumable = True
            terminal.note(f"resuming from {kept.partial}: {progress.done:,} of {progress.total:,} images are done")
        terminal.start(calls, paths, args)
        if processes.count() > 1:
            answers = predict_together(classifier, paths, args.batch_size, out=out, step=progress.step_of_all)
        else:
            answers = predict_versions(classifier, paths, args.batch_size)
        for path, version, answer in answers:
            if isinstance(answer, Exception):
                unreadable += 1
                terminal.complain(answer)
            else:
                if kept is not None:
                    kept.add(path, version, (*cells_of(answer), *calls.cells(answer)))
                    progress.resumable = True
                terminal.row(path, answer)
            if processes.count() == 1:
                progress.step()
            if terminal.closed and kept is None:
                return 141
        if kept is not None:
            progress.resumable = len(kept) > 0
            finish(kept, found.paths, args, terminal)
    if unreadable:
        total = len(found.paths) + len(found.unreadable)
        terminal.complain(f"{unreadable:,} of {total:,} files could not be read")
    return 2 if unreadable else 0


def assist(args: argparse.Namespace, out: str | None, progress: "Progress") -> int:
    """Predict this process's share; the main process finds the files, prints and writes."""
    from hf_cxr.inference.classifier import Classifier
    from hf_cxr.inference.shared_files import predict_together

    set_up_terminal(main_process=False)
    processes.connect()
    classifier = Classifier(args.model, revision=args.revision, views=views_of(args))
    for _ in predict_together(classifier, None, args.batch_size, out=out, step=progress.step_of_all):
        pass  # the main process has the answers
    return 0


def views_of(args: argparse.Namespace) -> "AveragedViews | None":
    """The views, calibration and operating points of --test_time_augmentation."""
    from hf_cxr.inference.views import AveragedViews

    return None if args.test_time_augmentation is None else AveragedViews.load(args.test_time_augmentation)


def finish(kept: PredictionRows, paths: Sequence[Path], args: argparse.Namespace, terminal: "Terminal") -> None:
    """Write the whole CSV. Without a row, keep an earlier file: it is worth more than a header."""
    if not len(kept):
        terminal.complain(f"no row to write; {args.csv} was not changed")
        return
    written = kept.finish(paths, spreadsheet_safe=args.spreadsheet_safe)
    terminal.line(f"wrote {plural(written, 'row')} to {args.csv}")


def check_csv(out: str, inputs: Sequence[str | Path] = ()) -> None:
    """Refuse a path for the CSV before any image is read.

    Raises:
        OutputError: one line with the path and the repair.
    """
    if not out or out.endswith(("/", os.sep)):
        raise OutputError(f"cannot write {out!r}: it is not the name of a file; give one, such as predictions.csv")
    try:
        check_places(out, inputs)
    except OutputError as error:
        if os.path.exists(out) and not os.path.isfile(out) and not os.path.isdir(out):
            raise OutputError(f"{error} (--csv - is standard output)") from error
        raise


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
        """How to resume, as the end of a line."""
        if self.resumable and out not in (None, STANDARD_OUTPUT):
            return f"; finished rows are kept in {partial_of(out)}: {RESUME}"
        return ""


class Terminal:
    """Standard output and standard error; the program that reads them may close either at any time.

    Args:
        csv: only CSV is written to standard output.
    """

    def __init__(self, *, csv: bool):
        self.csv, self.closed = csv, False
        if hasattr(sys.stdout, "reconfigure"):
            sys.stdout.reconfigure(errors="backslashreplace", **({"encoding": "utf-8"} if csv else {}))

    def start(self, calls: "Calls", paths: Sequence[Path], args: argparse.Namespace) -> None:
        """Set the findings with their thresholds, and the files to come; with CSV, write the header."""
        self.calls, self.top, self.safe = calls, args.top, args.spreadsheet_safe
        self.width = min(max((len(printable(path)) for path in paths), default=0), WIDEST_NAME)
        self.names = [printable(name) for name in calls.label_names]
        if self.csv:
            self._write_csv(table_row("image", (*calls.label_names, *calls.columns), spreadsheet_safe=self.safe))

    def row(self, path: Path, probability_C) -> None:
        """The line of an image: its most probable findings, and those that are called."""
        if self.csv:
            cells = (*cells_of(probability_C), *self.calls.cells(probability_C))
            self._write_csv(table_row(path, cells, spreadsheet_safe=self.safe))
            return
        called_C = self.calls.of(probability_C)
        order = probability_C.argsort()[::-1]
        shown = [i for rank, i in enumerate(order) if rank < self.top or called_C[i]]
        findings = "  ".join(f"{self.names[i]} {probability_C[i]:.3f}{'*' if called_C[i] else ''}" for i in shown)
        self._write(f"{printable(path):<{self.width}}  {findings}\n")

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
        """Discard further output, which nobody reads, so that Python's last flush does not fail."""
        self.closed = True
        discard(sys.stdout)

    def _write_csv(self, row: Sequence[str]) -> None:
        csv.writer(self, lineterminator="\n").writerow(row)

    def write(self, text: str) -> None:
        """For `csv.writer`."""
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


def _files_of_model(model: str) -> list[Path]:
    folder = Path(model)
    return [file for file in folder.rglob("*") if file.is_file()] if folder.is_dir() else []
