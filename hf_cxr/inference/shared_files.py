"""Image files that several processes predict together: each its batches, one list of answers in the files' order.

Batch b is predicted by process b mod the number of processes, and no batch is divided, so the answers are those of
one process to the bit. For a CSV, each process appends its answers to a file of its own beside it, `out.csv.part-0`,
`out.csv.part-1`, ...; when all are done, the main process reads these in the order of the files and removes them.
Over machines nothing but that folder has to be shared. Without a CSV, the answers are gathered.

A part file has one line of JSON with format, model and columns, then one for each file: absolute path, bytes,
modification time in ns, and the probabilities as float32 in hexadecimal, or null and the error: its name and reason.
Parts that a killed command left are taken over by the next one, whatever its number of processes (`take_over`).

Refused: a folder that a process does not see; parts of another model.

C = findings.
"""

import json
import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path

import numpy as np

from hf_cxr import processes
from hf_cxr.data.images.grey import ImageError
from hf_cxr.files import OutputError, output_target, version_of
from hf_cxr.inference.calls import Calls
from hf_cxr.inference.classifier import Classifier
from hf_cxr.inference.prediction_rows import PredictionRows, cells_of, partial_of

FORMAT = 1
KEY = "hf-cxr predict, a part"
Version = tuple[int, int]
"""Bytes and modification time in ns of a file."""
Answer = tuple[Path, Version, np.ndarray | ImageError]
"""A file, its version when it was read, and its probabilities (C,) float32 or why there are none."""


def predict_versions(classifier: Classifier, paths: Sequence[Path], batch_size: int) -> Iterator[Answer]:
    """The answer of each file, in order; a file's version is read before the file."""
    for start in range(0, len(paths), batch_size):
        batch = paths[start : start + batch_size]
        versions = [_version(path) for path in batch]
        answers = classifier.predict_files(batch, batch_size=batch_size)
        yield from ((path, version, answer) for version, (path, answer) in zip(versions, answers, strict=True))


def predict_together(
    classifier: Classifier,
    paths: Sequence[Path] | None,
    batch_size: int,
    *,
    out: str | None,
    step: Callable[[int], None] = lambda count: None,
) -> Iterator[Answer]:
    """The answers of all processes, in the order of the files, on the main process; nothing on the others.

    Args:
        classifier: the same model on every process.
        paths: image files; on the main process, whose list counts.
        batch_size: images of a batch.
        out: the CSV beside which the parts are written; None to gather the answers.
        step: gets the number of files that this process has done.

    Raises:
        OutputError: a part cannot be written, or is not seen by the main process.
        OtherProcessFailedError: another process has failed.
    """
    paths = processes.from_main(lambda: list(paths))
    own = (item for batch in processes.in_turns(paths, batch_size) for item in _checked(classifier, batch, step))
    if out is None:
        parts = [iter(part) for part in processes.gather(list(own))]
    else:
        header = header_of(classifier)
        processes.check_shared(partial_of(out), "--csv")  # the main process has it open
        _write_part(part_of(out, processes.index()), header, own)
        processes.meet()
        if not processes.is_main():
            return
        parts = [_read_part(part_of(out, number), header) for number in range(processes.count())]
    if not processes.is_main():
        return
    for number, start in enumerate(range(0, len(paths), batch_size)):
        yield from _batch(paths[start : start + batch_size], parts[number % len(parts)], out)
    if out is not None:
        remove_parts(out)


def take_over(rows: PredictionRows, classifier: Classifier, calls: Calls) -> None:
    """Move what a killed command left in parts into the rows of this one, and remove the parts.

    Raises:
        OutputError: a part is of another model, or is not one.
    """
    header = header_of(classifier)
    for part in parts_beside(rows.path):
        for path, version, answer in _read_part(part, header):
            if isinstance(answer, np.ndarray) and not rows.is_done(path):
                rows.add(path, version, (*cells_of(answer), *calls.cells(answer)))
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
    """The parts of a CSV that are there."""
    target = output_target(out)
    pattern = re.compile(rf"{re.escape(target.name)}\.part-\d+")
    return sorted(path for path in target.parent.iterdir() if pattern.fullmatch(path.name))


def remove_parts(out: str | Path) -> None:
    """Remove the parts of a CSV."""
    for part in parts_beside(out):
        part.unlink(missing_ok=True)


def header_of(classifier: Classifier) -> dict[str, object]:
    """The first line of a part: what its answers are of."""
    return {KEY: FORMAT, "model": classifier.fingerprint(), "findings": list(classifier.label_names)}


def _checked(classifier: Classifier, batch: Sequence[Path], step: Callable[[int], None]) -> Iterator[Answer]:
    processes.check()
    yield from predict_versions(classifier, batch, len(batch))
    step(len(batch))


def _write_part(part: Path, header: dict[str, object], answers: Iterable[Answer]) -> None:
    try:
        with part.open("w", encoding="ascii", buffering=1) as file:  # a line at a time, so that a kill costs one line
            file.write(f"{json.dumps(header)}\n")
            for path, version, answer in answers:
                failed = isinstance(answer, ImageError)
                values = (None, answer.name, answer.reason) if failed else (answer.astype("<f4").tobytes().hex(),)
                file.write(f"{json.dumps([os.path.abspath(path), *version, *values])}\n")
            os.fsync(file.fileno())
    except OutputError:
        raise
    except OSError as error:
        raise OutputError.of(part, error) from error


def _read_part(part: Path, header: dict[str, object]) -> Iterator[Answer]:
    """The answers of a part, up to the first line that is not whole."""
    with part.open("rb") as file:
        first = file.readline()
        if not first.endswith(b"\n"):
            return  # killed before it had an answer
        try:
            found = json.loads(first)
        except ValueError:
            found = None
        if not isinstance(found, dict) or KEY not in found:
            raise OutputError(f"{part} is not a part of hf-cxr predict; move it, or give another --csv")
        if found != header:
            raise OutputError(
                f"{part} holds rows of another model; finish with that model, remove the file to start again, or give "
                "another --csv"
            )
        for line in file:
            answer = _answer(line)
            if answer is None:
                return
            yield answer


def _answer(line: bytes) -> Answer | None:
    try:
        name, size, changed, values, *error = json.loads(line)
        if not line.endswith(b"\n"):
            return None
        if values is None:
            return Path(name), (size, changed), ImageError(*error)
        return Path(name), (size, changed), np.frombuffer(bytes.fromhex(values), "<f4").astype(np.float32)
    except (ValueError, TypeError):
        return None


def _batch(batch: Sequence[Path], part: Iterator[Answer], out: str | None) -> Iterator[Answer]:
    """The answers of a batch, which come next in its part."""
    found = list(islice(part, len(batch)))
    if [os.path.abspath(path) for path, _, _ in found] != [os.path.abspath(path) for path in batch]:
        raise OutputError(
            f"the answers for {batch[0]} are not in the parts beside {out}: it must be in a folder that all machines "
            "share, and no other command may write there; run the same command again"
        )
    yield from ((path, version, answer) for path, (_, version, answer) in zip(batch, found, strict=True))


def _version(path: Path) -> Version:
    try:
        return version_of(path)
    except OSError:
        return (-1, -1)  # reading it raises the error
