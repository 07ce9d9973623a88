"""Image files that several processes predict together: each its batches, one list of answers in the files' order.

Batch b is predicted by process b mod the number of processes, and no batch is divided, so the answers are those of
one process to the bit. With an output file, each process appends its answers to a separate file next to it,
`out.csv.part-0`, `out.csv.part-1`, ...; when all are done, the main process reads these in the order of the files and
removes them. Over machines nothing but that folder has to be shared. Without an output file, the answers are gathered.

A part file has one line of JSON with format, model and findings, then a line for each file, see `answers`. Parts that
a killed command left are taken over by the next one, whatever its number of processes (`take_over`). Pictures and
reports are not written by several processes, so parts never have any.

Refused: a folder that a process does not see; parts of another model, or to be continued with pictures or reports.
"""

import json
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import chain, islice
from pathlib import Path

from hf_cxr import processes
from hf_cxr.data.images.grey import ImageError
from hf_cxr.files import OutputError, output_target
from hf_cxr.inference.answers import Answer, AnswerLines
from hf_cxr.inference.classifier import Classifier
from hf_cxr.inference.prediction_rows import PredictionRows, partial_of

KEY = "hf-cxr predict, a part"


def predict_together(
    classifier: Classifier,
    paths: Sequence[Path] | None,
    batch_size: int,
    *,
    out: str | None,
    workers: int | None = None,
    step: Callable[[int], None] = lambda count: None,
) -> Iterator[Answer]:
    """The answers of all processes, in the order of the files, on the main process; nothing on the others.

    Args:
        classifier: the same model on every process.
        paths: image files; on the main process, whose list counts.
        batch_size: images of a batch.
        out: the output next to which the parts are written; None to gather the answers.
        workers: threads that read ahead, see `Classifier.predict_images`.
        step: gets the number of files that this process has done.

    Raises:
        OutputError: a part cannot be written, or is not seen by the main process.
        OtherProcessFailedError: another process has failed.
    """
    paths = processes.from_main(lambda: list(paths))
    own = _own_answers(classifier, paths, batch_size, workers, step)
    if out is None:
        parts = [iter(part) for part in processes.gather(list(own))]
    else:
        lines = lines_of(classifier)
        processes.check_shared(partial_of(out), "the output")  # the main process has it open
        _write_part(part_of(out, processes.index()), lines, own)
        processes.meet()
        if not processes.is_main():
            return
        parts = [_read_part(part_of(out, number), lines) for number in range(processes.count())]
    if not processes.is_main():
        return
    for number, start in enumerate(range(0, len(paths), batch_size)):
        yield from _batch(paths[start : start + batch_size], parts[number % len(parts)], out)
    if out is not None:
        remove_parts(out)


def take_over(rows: PredictionRows) -> None:
    """Move what a killed command left in parts into the rows of this one, and remove the parts.

    Raises:
        OutputError: a part is of another model, or is not one.
    """
    for part in parts_beside(rows.path):
        for path, version, answer in _read_part(part, rows.lines):
            if isinstance(answer, ImageError) or not rows.is_done(path):
                rows.add(path, version, answer)
    rows.sync()
    remove_parts(rows.path)


def part_of(out: str | Path, number: int) -> Path:
    """The file of one process's answers.

    >>> part_of("results/out.csv", 3).name
    'out.csv.part-3'
    """
    target = output_target(out)
    return target.with_name(f"{target.name}.part-{number}")


def parts_beside(out: str | Path) -> list[Path]:
    """The parts of an output that are there."""
    target = output_target(out)
    pattern = re.compile(rf"{re.escape(target.name)}\.part-\d+")
    return sorted(path for path in target.parent.iterdir() if pattern.fullmatch(path.name))


def remove_parts(out: str | Path) -> None:
    """Remove the parts of an output."""
    for part in parts_beside(out):
        part.unlink(missing_ok=True)


def lines_of(classifier: Classifier, extras: Mapping[str, str | os.PathLike] | None = None) -> AnswerLines:
    """How a model's answers are written as lines; ``extras`` as for `AnswerLines`."""
    return AnswerLines(classifier.calls, classifier.label_sets, classifier.fingerprint(), extras)


def _own_answers(
    classifier: Classifier, paths: Sequence[Path], batch_size: int, workers: int | None, step: Callable[[int], None]
) -> Iterator[Answer]:
    """This process's answers; batches stay whole, since only the last one of all can be smaller."""
    batches = processes.in_turns(paths, batch_size)
    own = classifier.predict_versions(list(chain(*batches)), batch_size=batch_size, workers=workers)
    for batch in batches:
        processes.check()
        yield from islice(own, len(batch))
        step(len(batch))


def _write_part(part: Path, lines: AnswerLines, answers: Iterable[Answer]) -> None:
    try:
        with part.open("w", encoding="ascii", buffering=1) as file:  # a line at a time, so that a kill costs one line
            file.write(f"{json.dumps(lines.header(KEY))}\n")
            for answer in answers:
                file.write(f"{lines.line(*answer)}\n")
            os.fsync(file.fileno())
    except OutputError:
        raise
    except OSError as error:
        raise OutputError.of(part, error) from error


def _read_part(part: Path, lines: AnswerLines) -> Iterator[Answer]:
    """The answers of a part, up to the first line that is not whole."""
    with part.open("rb") as file:
        first = file.readline()
        if not first.endswith(b"\n"):
            return  # killed before it had an answer
        lines.check_header(first, KEY, part)
        for line in file:
            answer = lines.answer(line)
            if answer is None:
                return
            yield answer


def _batch(batch: Sequence[Path], part: Iterator[Answer], out: str | None) -> Iterator[Answer]:
    """The answers of a batch, which come next in its part."""
    found = list(islice(part, len(batch)))
    if [os.path.abspath(path) for path, _, _ in found] != [os.path.abspath(path) for path in batch]:
        raise OutputError(
            f"the answers for {batch[0]} are not in the parts next to {out}: it must be in a folder that all machines "
            "share, and no other command may write there; run the same command again"
        )
    for path, (_, version, answer) in zip(batch, found, strict=True):
        renamed = answer if isinstance(answer, ImageError) else replace(answer, name=os.fspath(path))
        yield path, version, renamed
