"""Folders that `evaluate` and `ensemble` write their results to: whole or absent, and never over other results.

A place is checked before the work, and locked while it lasts, so that two commands never write there at
once. Results are written into a folder next to it and moved at the end; the JSON file comes last and says that the
folder is complete.

Refused: a place that is not a folder, that cannot be written, that another command is writing to, and one that holds
anything else: a run, a checkpoint, prepared images, an ensemble, the figures of another model or of other data.
"""

import os
import shutil
import uuid
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from hf_cxr.files import check_output_folder, read_json
from hf_cxr.locks import acquired
from hf_cxr.prediction_tables.folders import PREDICTIONS
from hf_cxr.predictions import Predictions

EVALUATION, PAGE = "evaluation.json", "evaluation.html"
REPAIR = "give another --out"
# What a folder of something else holds: nothing is written beside these.
FOREIGN = (
    "config.json",
    "config.yaml",
    "metrics.json",
    "validation.json",
    "model.safetensors",
    "trainer_state.json",
    "manifest.json",
    "predictions",
    "test.parquet",
    "validation.parquet",
)


@contextmanager
def held(out: Path) -> Iterator[Path]:
    """Hold the place for results for the length of the block; what a killed command left there is cleared.

    Returns:
        The folder itself: what a link leads to. It need not exist yet.

    Raises:
        OSError: it is not a folder, cannot be written, or is held by another command.
    """
    check_output_folder(out)
    place = out.resolve()
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        trial = _beside(place)
        trial.mkdir()
        trial.rmdir()
        busy = BlockingIOError(f"another command is writing to {out}; wait for it, or {REPAIR}")
        lock = acquired(_base(place) / f"{_prefix(place)}.lock", busy)
    except BlockingIOError:
        raise
    except OSError as error:
        reason = error.strerror or str(error)
        raise OSError(f"cannot write to {out}: {reason}; {REPAIR}, or fix the permissions") from error
    try:
        for left in _base(place).iterdir():
            if left.name.startswith(f"{_prefix(place)}-"):
                shutil.rmtree(left, ignore_errors=True)
        yield place
    finally:
        with suppress(OSError):  # Windows removes it with the release
            Path(lock.lock_file).unlink()
        lock.release()


def check_evaluation_folder(place: Path) -> None:
    """Refuse a folder that holds anything but an evaluation.

    Raises:
        ValueError: with what it holds.
    """
    names = _names(place)
    other = sorted(name for name in names if name in FOREIGN or name.startswith("checkpoint-"))
    if other:
        raise ValueError(f"{place} contains {other[0]} and is not the folder of an evaluation; {REPAIR}")
    for name in sorted(names & {EVALUATION, PREDICTIONS}):
        if (place / name).is_symlink() or not (place / name).is_file():
            raise ValueError(f"{place / name} is not a regular file; {REPAIR}")


def check_same_evaluation(place: Path, identity: Mapping[str, Any], model: str) -> None:
    """Refuse to replace the figures of another model, or of other data.

    Args:
        place: from `held`.
        identity: ``model_sha256``, ``dataset``, ``split`` and ``split_fingerprint`` of what is to be measured.
        model: its name, compared where an old evaluation.json has no checksum.

    Raises:
        ValueError: with what differs.
    """
    before = _identity_of(place)
    if before is None:
        return
    if before.get("model_sha256") is None and before.get("model") is not None:
        identity = {**identity, "model_sha256": None, "model": model}
    identity = {"by": None, **identity}  # figures of studies are not replaced by those of images, nor the reverse
    differs = [key for key, value in identity.items() if before.get(key) != value]
    if differs:
        key = "model" if differs[0] == "model_sha256" else differs[0]
        was, now = before.get(key), model if key == "model" else identity[key]
        change = f"{key} was {was} and is {now}" if was != now else f"{model} has different weights or settings now"
        raise ValueError(f"{place} contains the figures of another evaluation ({change}); {REPAIR}")


def check_ensemble_place(place: Path) -> None:
    """Refuse a folder that holds anything.

    Raises:
        ValueError: with what it holds.
    """
    names = _names(place)
    if names:
        raise ValueError(f"{place} is not empty (it contains {min(names)}); {REPAIR}")


def write_whole(place: Path, write: Callable[[Path], None], *, last: str, optional: Collection[str] = ()) -> None:
    """Write a folder next to its place, then give it its name.

    Where an earlier result of the same kind stands, its ``last`` file goes first and the new one comes at the very
    end: a folder with that file is whole, and one without it says that a write was interrupted.

    Args:
        place: from `held`.
        write: writes all files into the folder it is given.
        last: the file that says that the folder is complete.
        optional: files that a result need not have: those of an earlier result that this one lacks are removed.
    """
    beside = _beside(place)
    beside.mkdir()
    try:
        write(beside)
        if place.is_dir():
            (place / last).unlink(missing_ok=True)
            for name in optional:
                if not (beside / name).exists():
                    (place / name).unlink(missing_ok=True)
            files = [file.relative_to(beside) for file in beside.rglob("*") if file.is_file()]
            for file in sorted(files, key=lambda file: file == Path(last)):
                (place / file).parent.mkdir(parents=True, exist_ok=True)
                os.replace(beside / file, place / file)
        else:
            os.replace(beside, place)
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def _base(place: Path) -> Path:
    """Where the lock and unfinished results are: in the place, of which alone one may be the owner, or next to it."""
    return place if place.is_dir() else place.parent


def _prefix(place: Path) -> str:
    return f".{place.name}.hf-cxr"


def _beside(place: Path) -> Path:
    return _base(place) / f"{_prefix(place)}-{uuid.uuid4().hex[:12]}"


def _names(place: Path) -> set[str]:
    """What a place holds, without its own lock."""
    inside = place.iterdir() if place.is_dir() else ()
    return {file.name for file in inside if file.name != f"{_prefix(place)}.lock"}


def _identity_of(place: Path) -> dict[str, Any] | None:
    """What the figures of a folder are of; without evaluation.json, after a write that was interrupted, its rows."""
    if (place / EVALUATION).is_file():
        return read_json(place / EVALUATION, repair=REPAIR)
    if (place / PREDICTIONS).is_file():
        return Predictions.load(place / PREDICTIONS).metadata.get("measured") or {}
    return None
