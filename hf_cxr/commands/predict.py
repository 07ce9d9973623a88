"""`hf-cxr predict IMAGE_OR_FOLDER... --model RUN_OR_HUB_ID`: probabilities of each finding, as a table and as a file.

A file that cannot be read is named and skipped. Folders and their sub-folders are searched for every image format that
can be read, including DICOM files without a suffix; the number of their other files is printed.

Where the model has operating points (a threshold for each finding, chosen on validation), findings that reach theirs
are marked with * in the table. A file has all probabilities, then called/FINDING, 1 or 0, for each finding with an
operating point, and set/FINDING, the labels that are not ruled out (present, absent, both or none), if the model has
label sets. Where it has an input check, images unlike those of training are marked UNUSUAL IMAGE, with the reason.
NOTE, and image/remarks in a file, say how a file was read, where that may not be what was meant.

With --test_time_augmentation FOLDER, probabilities are those of averaged views of each image. FOLDER is an evaluation
that was made with that flag: it has the views, the calibration and the operating points. N views take N times as long.

With --heatmaps DIR, each image with a called finding gets a picture there: Grad-CAM of these findings over the image.
With --structured_reports DIR, each DICOM image gets a DICOM structured report in its own study. Both show patients,
and stay on this machine. Neither is made under `accelerate launch`.

With --out FILE or --csv FILE, finished rows are kept in FILE.partial. After an interruption, the same command resumes
from there; one that asks for other pictures or reports is refused. Files that could not be read are listed in
FILE.unreadable.csv. In a file, a byte of a name that is not UTF-8 is written as \\xNN.

Under `accelerate launch` the processes share the files; output and file are those of one process. Each keeps its rows
in FILE.part-N until the main process joins them, so FILE must be in a folder that all machines share.

Exit status: 0; 2 if a file could not be read, or a picture or report not be made, or for bad input; 130 after Ctrl-C;
141 if standard output was closed (`| head`) and there is nothing else to write.
"""

import argparse
import gc
import os
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, get_args

from PIL import Image

from hf_cxr import processes
from hf_cxr.arguments.command_line import OneLineParser
from hf_cxr.arguments.model import Attention
from hf_cxr.commands import set_up_terminal
from hf_cxr.commands.errors import describe_error, print_traceback
from hf_cxr.commands.predict_extras import Extras, check_alone
from hf_cxr.commands.predict_terminal import Progress, Terminal
from hf_cxr.data.images.grey import ImageError
from hf_cxr.files import OutputError
from hf_cxr.inference.prediction_rows import PredictionRows, check_places
from hf_cxr.inference.result_files import ResultColumns, check_format, format_of
from hf_cxr.late_modules import collection_paused, import_transformers_lightly
from hf_cxr.words import plural

if TYPE_CHECKING:
    from hf_cxr.data.images.files import FoundImages
    from hf_cxr.inference.answers import Answer
    from hf_cxr.inference.classifier import Classifier

STANDARD_OUTPUT = "-"
NOT_CHECKED = "not checked whether the images are chest radiographs: this model has no input check"


def main(argv: Sequence[str] | None = None) -> int:
    """Exit status: see the top of this module."""
    parser = _parser()
    args = parser.parse_args(argv)
    if args.batch_size < 1 or args.top < 1:
        parser.error("--batch_size and --top must be at least 1")
    if args.workers is not None and args.workers < 0:
        parser.error("--workers must be at least 0")
    if args.max_megapixels is not None and not 0 < args.max_megapixels < float("inf"):
        parser.error("--max_megapixels must be more than 0")
    if args.csv is not None and args.out is not None:
        parser.error("give --out or --csv, not both")
    progress, out = Progress(), None
    to_output = STANDARD_OUTPUT in (args.csv, args.out)
    terminal = Terminal(suffix=(".csv" if args.csv else ".jsonl") if to_output else None)
    try:
        out = None if to_output else Output.of(args)
        with pixel_limit(args.max_megapixels):
            return predict(args, out, terminal, progress)
    except BrokenPipeError:
        terminal.close_output()
        return 141
    except (ValueError, OSError, RuntimeError, MemoryError) as error:
        print_traceback(error)  # with --debug
        if isinstance(error, processes.OtherProcessFailedError) or not processes.fails_first():
            return 2
        terminal.complain(f"{describe_error(error)}{progress.resume(out and out.path)}")
        return 2
    except KeyboardInterrupt:
        if not processes.fails_first():
            return 130
        done = f"stopped after {progress.done:,} of {progress.total:,} images"
        terminal.complain(f"{done}{progress.resume(out and out.path)}")
        return 130
    finally:
        gc.unfreeze()  # see `collection_paused`


def _parser() -> argparse.ArgumentParser:
    parser = OneLineParser(
        prog="hf-cxr predict", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("paths", nargs="+", metavar="IMAGE_OR_FOLDER", help="image or DICOM files, or folders of them")
    parser.add_argument("--model", required=True, help="run folder or Hub id")
    parser.add_argument("--revision", default="main", help="branch, tag or commit of a Hub id")
    parser.add_argument(
        "--test_time_augmentation",
        metavar="FOLDER",
        help="average several views of each image, with the views and the calibration of the evaluation in FOLDER",
    )
    parser.add_argument(
        "--out",
        metavar="FILE",
        help="also write everything to this file: .csv, .parquet, or .jsonl (a line of JSON for each image); - is "
        "standard output as JSON lines, instead of the table",
    )
    parser.add_argument(
        "--csv",
        metavar="FILE",
        help="like --out, but always CSV; - is standard output as CSV, instead of the table",
    )
    parser.add_argument("--heatmaps", metavar="DIR", help="also draw heat maps of called findings, into this folder")
    parser.add_argument(
        "--structured_reports",
        metavar="DIR",
        help="write a structured report of each DICOM image, into this folder",
    )
    parser.add_argument(
        "--spreadsheet_safe",
        action="store_true",
        help="in the CSV, put an apostrophe before names that a spreadsheet would read as a formula (= + - @)",
    )
    parser.add_argument(
        "--top",
        type=int,
        default=5,
        help="findings per image in the table, most probable first; findings with * are always shown",
    )
    parser.add_argument("--batch_size", type=int, default=16, help="images per batch")
    parser.add_argument(
        "--workers",
        type=int,
        help="threads that read while the model works (default: one for each core, at most 16, shared by the "
        "processes); 0 for none",
    )
    parser.add_argument(
        "--max_megapixels",
        type=float,
        metavar="M",
        help="the largest image that is decoded, in million pixels (default: Pillow's limit, 89.5)",
    )
    parser.add_argument("--device", help="cpu, cuda, cuda:1, mps, ... (default: an accelerator, if there is one)")
    parser.add_argument("--bf16", action="store_true", help="compute in bfloat16: faster on a GPU, less exact")
    parser.add_argument(
        "--attention", choices=get_args(Attention), default="auto", help="how the model computes attention"
    )
    return parser


class Output:
    """The file that is written.

    Attributes:
        path: as the user named it.
        suffix: its format, of `result_files.FORMATS`.
    """

    def __init__(self, path: str, suffix: str):
        self.path, self.suffix = path, suffix

    @classmethod
    def of(cls, args: argparse.Namespace) -> "Output | None":
        """The file of --out or --csv; None without.

        Raises:
            OutputError: the suffix is not a format's, or it is not the name of a file.
        """
        path = args.out if args.csv is None else args.csv
        if path is None:
            return None
        if not path or path.endswith(("/", os.sep)):
            raise OutputError(
                f"cannot write {path!r}: it is not the name of a file; give one, such as predictions.csv"
            )
        return cls(path, ".csv" if args.csv is not None else format_of(path))

    def check(self, inputs: Sequence[str | Path] = ()) -> None:
        """Refuse a place that cannot be written, before any image is read.

        Raises:
            OutputError: one line with the path and the repair.
        """
        try:
            check_places(self.path, self.suffix, inputs)
        except OutputError as error:
            if os.path.exists(self.path) and not os.path.isfile(self.path) and not os.path.isdir(self.path):
                raise OutputError(f"{error} (--csv - and --out - are standard output)") from error
            raise


def predict(args: argparse.Namespace, out: Output | None, terminal: Terminal, progress: Progress) -> int:
    """Find the images, predict them, print and write the results."""
    if not processes.is_main():
        return assist(args, out, progress)
    if out is not None:
        out.check()  # before torch is loaded and folders are searched
    with collection_paused():
        import_transformers_lightly()
        set_up_terminal()
        processes.connect()
        check_alone(args)
        found = find(args, out)
        classifier = classifier_of(args)
        columns = columns_of(classifier, out)
        extras = Extras(args, classifier)  # before the images: what it lacks is said now
    for note in (*_notes(classifier), *found.notes(), classifier.calls.note()):
        terminal.note(f"note: {note}")
    for error in found.unreadable:
        terminal.complain(error)
    progress.total, unreadable = len(found.paths), len(found.unreadable)
    with kept_rows(classifier, extras, out) as kept, terminal.bar(progress):
        paths, lacking = resume(kept, found.paths, terminal, progress)
        terminal.start(columns, paths, top=args.top, spreadsheet_safe=args.spreadsheet_safe)
        predicted = unusual = 0
        for path, version, answer in answers_of(classifier, paths, args, out, progress):
            predicted += not isinstance(answer, ImageError)
            unusual += not isinstance(answer, ImageError) and answer.unusual
            failures = [] if isinstance(answer, ImageError) else extras.add(path, version, answer)
            unreadable, lacking = unreadable + isinstance(answer, ImageError), lacking + len(failures)
            if kept is not None:
                kept.add(path, version, answer, failures)
                progress.resumable = len(kept) > 0
            terminal.answer(answer, failures)
            if processes.count() == 1:
                progress.step()
            if terminal.closed and kept is None and not extras:
                return 141
        if kept is not None:
            finish(kept, found.paths, columns, out, args, terminal)
    if classifier.input_check is not None and predicted and len(found.paths) > 1:
        now = "" if len(paths) == len(found.paths) else " in this command"
        terminal.note(f"the input check reported {unusual:,} of {plural(predicted, 'image')}{now} as unusual")
    for line in extras.summary_lines(resumed=len(paths) < len(found.paths)):
        terminal.note(line)
    if lacking:
        terminal.complain(f"{plural(lacking, 'picture or report', 'pictures or reports')} could not be made")
    if unreadable:
        terminal.complain(f"{unreadable:,} of {len(found.paths) + len(found.unreadable):,} files could not be read")
    return 2 if unreadable or lacking else 0


@contextmanager
def pixel_limit(megapixels: float | None) -> Iterator[None]:
    """Decode images up to this size within the block; None for Pillow's own limit."""
    before = Image.MAX_IMAGE_PIXELS
    if megapixels is not None:
        Image.MAX_IMAGE_PIXELS = max(1, round(1e6 * megapixels))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # for an image that is refused
            yield
    finally:
        Image.MAX_IMAGE_PIXELS = before


def find(args: argparse.Namespace, out: Output | None) -> "FoundImages":
    """The images; the output may not be one of them, nor a file of the model."""
    from hf_cxr.data.images.files import search_images

    if not all(args.paths):  # it would be the working folder
        raise ValueError("the name of an image or a folder is empty; give files or folders")
    found = search_images(args.paths)
    if out is not None:
        out.check(inputs=(*found.paths, *_files_of_model(args.model)))
    return found


def columns_of(classifier: "Classifier", out: Output | None) -> ResultColumns:
    """What the model has, as columns, which the output can hold."""
    sets, check = classifier.label_sets is not None, classifier.input_check is not None
    columns = ResultColumns(classifier.calls, label_sets=sets, input_check=check)
    if out is not None:
        check_format(out.suffix, columns)
    return columns


@contextmanager
def kept_rows(classifier: "Classifier", extras: Extras, out: Output | None) -> Iterator[PredictionRows | None]:
    """The rows of an earlier command, with those of processes that were killed; None without an output."""
    from hf_cxr.inference.shared_files import lines_of, take_over

    if out is None:
        yield None
        return
    with PredictionRows(out.path, lines_of(classifier, extras.folders)) as kept:
        take_over(kept)
        yield kept


def resume(
    kept: PredictionRows | None, paths: list[Path], terminal: Terminal, progress: Progress
) -> tuple[list[Path], int]:
    """The files that are still to be predicted, and how many pictures or reports of the others could not be made."""
    if kept is None or not len(kept):
        return paths, 0
    left, failures = [], []
    for path in paths:
        if kept.is_done(path):
            failures += kept.failures(path)
        else:
            left.append(path)
    progress.step(len(paths) - len(left))
    progress.resumable = True
    terminal.note(f"resuming from {kept.partial}: {progress.done:,} of {progress.total:,} images are done")
    for failure in failures:
        terminal.complain(failure)
    return left, len(failures)


def answers_of(
    classifier: "Classifier", paths: list[Path], args: argparse.Namespace, out: Output | None, progress: Progress
) -> "Iterator[Answer]":
    """What the model says of each file, in order; of several processes, each predicts its share."""
    from hf_cxr.inference.shared_files import predict_together

    if processes.count() == 1:
        return classifier.predict_versions(paths, batch_size=args.batch_size, workers=args.workers)
    place, step = out and out.path, progress.step_of_all
    return predict_together(classifier, paths, args.batch_size, out=place, workers=args.workers, step=step)


def assist(args: argparse.Namespace, out: Output | None, progress: Progress) -> int:
    """Predict this process's share; the main process finds the files, prints and writes."""
    from hf_cxr.inference.shared_files import predict_together

    set_up_terminal(main_process=False)
    processes.connect()
    check_alone(args)
    place, step = out and out.path, progress.step_of_all
    for _ in predict_together(classifier_of(args), None, args.batch_size, out=place, workers=args.workers, step=step):
        pass  # the main process has the answers
    return 0


def classifier_of(args: argparse.Namespace) -> "Classifier":
    """The model of the flags, with the views, calibration and operating points of --test_time_augmentation."""
    from hf_cxr.inference.classifier import Classifier
    from hf_cxr.inference.devices import device_of
    from hf_cxr.inference.views import AveragedViews

    views = None if args.test_time_augmentation is None else AveragedViews.load(args.test_time_augmentation)
    device = None if args.device is None else device_of(args.device)
    flags = {"device": device, "attention": args.attention, "bf16": args.bf16, "views": views}
    return Classifier(args.model, revision=args.revision, **flags)


def finish(
    kept: PredictionRows,
    paths: Sequence[Path],
    columns: ResultColumns,
    out: Output,
    args: argparse.Namespace,
    terminal: Terminal,
) -> None:
    """Write the whole file and the list of files that could not be read; without a row, only the list."""
    written, unreadable = kept.finish(paths, columns, out.suffix, spreadsheet_safe=args.spreadsheet_safe)
    if written:
        terminal.line(f"wrote {plural(written, 'row')} to {out.path}")
    else:
        terminal.complain(f"no row to write; {out.path} was not changed")
    if unreadable:
        terminal.line(f"wrote {plural(unreadable, 'unreadable file')} to {kept.unreadable}")


def _notes(classifier: "Classifier") -> list[str]:
    """What a reader must know of the model."""
    from hf_cxr.models.record import ModelRecord

    notes = [] if classifier.views is None else [f"averaged over {classifier.views.words}"]
    record = ModelRecord.of(classifier.model.config)
    if record is not None and record.synthetic:
        notes.append("this model was trained on synthetic phantoms; it knows nothing of patients")
    check = classifier.input_check
    if check is None:
        return [*notes, NOT_CHECKED]
    from hf_cxr.reporting.input_check_words import input_check_note

    return notes if check.measured is None else [*notes, input_check_note(check.measured)]


def _files_of_model(model: str) -> list[Path]:
    folder = Path(model)
    return [file for file in folder.rglob("*") if file.is_file()] if folder.is_dir() else []
