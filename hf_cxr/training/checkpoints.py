"""Checkpoints of a run: whether each is whole, byte by byte, and which one an unfinished run resumes from.

The Trainer writes a checkpoint file by file. `seal` writes ``checksums.json`` last: size and SHA-256 of every file. A
folder without it was not finished; one that differs from it is damaged. The file that says which checkpoint is best
(``trainer_state.json``) names a step but no path, so that a run folder can be moved.

Checkpoints of versions that wrote no ``checksums.json`` are used if the files that a resume reads are there.
"""

import json
import logging
import re
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from hf_cxr.files import file_sha256, read_json, write_json, write_text
from hf_cxr.models.record import ModelRecord
from hf_cxr.training.sharding import OPTIMIZER, uses_fsdp

logger = logging.getLogger(__name__)

CHECKSUMS = "checksums.json"
STATE = "trainer_state.json"
DAMAGED = "damaged-"  # prefix of a checkpoint folder that was set aside
UNFINISHED = "it is incomplete"
FOR_A_MODEL = ("config.json", "model.safetensors", STATE)


def seal(checkpoint: str | Path) -> None:
    """Record size and SHA-256 of every file of a checkpoint, after the last one was written.

    The path of the best checkpoint is removed from its state: it would be wrong as soon as the folder moves, and the
    number of the best step, next to it, is enough.
    """
    checkpoint = Path(checkpoint)
    state = _readable_json(checkpoint / STATE)
    if state is not None and state.get("best_model_checkpoint") is not None:
        text = json.dumps(state | {"best_model_checkpoint": None}, indent=2, sort_keys=True)  # NaN stays, as it was
        write_text(checkpoint / STATE, text + "\n")
    write_json(checkpoint / CHECKSUMS, {path: _record(checkpoint / path) for path in _files(checkpoint)})


def problems_of(checkpoint: str | Path) -> list[str]:
    """What is missing, truncated or changed in a checkpoint, in words; empty if it is whole."""
    checkpoint = Path(checkpoint)
    if not checkpoint.is_dir():
        return ["the folder is missing"]
    if not (checkpoint / CHECKSUMS).exists():
        return _problems_without_checksums(checkpoint)
    recorded = _readable_json(checkpoint / CHECKSUMS)
    if recorded is None or not all(map(_is_record, recorded.values())):
        return [f"{CHECKSUMS} cannot be read"]
    problems = [f"{CHECKSUMS} does not list {name}" for name in FOR_A_MODEL if name not in recorded]
    for name, entry in recorded.items():
        path = checkpoint / name
        if not path.is_file():
            problems.append(f"{name} is missing")
        elif path.stat().st_size != entry.get("bytes"):
            problems.append(f"{name} has {path.stat().st_size:,} bytes instead of {entry.get('bytes'):,}")
        elif _record(path) != entry:
            problems.append(f"{name} was changed: its SHA-256 differs")
    return problems or _problem_of_step(checkpoint)


def usable_checkpoint(
    run_dir: str | Path,
    world_size: int = 1,
    *,
    needs_best: bool = True,
    needs_random_state: Callable[[], bool] = lambda: True,
) -> Path | None:
    """The newest whole checkpoint to resume from; newer unusable ones are renamed or removed, with a warning.

    Resuming from an older one, or starting again, gives the same numbers and only costs time. Checkpoints that another
    kind of launch wrote are to be refused before: see `sharding.check_same_sharding`.

    Args:
        run_dir: the run folder.
        world_size: number of processes that will resume.
        needs_best: the run ends by loading its best checkpoint, so that one must be whole too.
        needs_random_state: whether each process needs its own random state; asked if there is none, because of another
            number of processes.

    Returns:
        The checkpoint folder, or None to start from the beginning.
    """
    run_dir = Path(run_dir)
    problems_by_name: dict[str, list[str]] = {}
    chosen = None
    for checkpoint in checkpoints_of(run_dir)[::-1]:
        problems = problems_by_name[checkpoint.name] = problems_of(checkpoint)
        problems = problems or _problems_of_resume(checkpoint, world_size, needs_best, needs_random_state)
        if not problems:
            chosen = checkpoint
            break
        logger.warning("%s cannot be resumed from: %s", checkpoint, "; ".join(problems[:3]))
    for name, problems in problems_by_name.items():
        if problems:
            _remove_or_rename(run_dir / name, finished=problems != [UNFINISHED])
    if problems_by_name and chosen is None:
        logger.warning("%s has no checkpoint that can be resumed from: starting from the beginning", run_dir)
    return chosen


def checkpoints_of(run_dir: str | Path) -> list[Path]:
    """The checkpoint folders of a run, oldest first.

    Raises:
        ValueError: there is a file where a checkpoint would be written.
    """
    folders = [path for path in Path(run_dir).glob("checkpoint-*") if re.fullmatch(r"checkpoint-\d+", path.name)]
    for path in folders:
        if not path.is_dir():
            raise ValueError(f"{path} is not a folder, so no checkpoint can be written there; move it away")
    return sorted(folders, key=_step)


def best_checkpoint(run_dir: str | Path, step: int | None) -> Path | None:
    """The checkpoint of the best step, in the run folder where it is now."""
    return None if step is None else Path(run_dir) / f"checkpoint-{step}"


def check_whole(checkpoint: str | Path, what: str, repair: str) -> None:
    """Refuse a checkpoint that is not whole.

    Raises:
        ValueError: the message names the checkpoint, ``what`` it is for, the first problems and the repair.
    """
    problems = problems_of(checkpoint)
    if problems:
        raise ValueError(f"{checkpoint}, {what}, is damaged ({'; '.join(problems[:3])}): {repair}")


def _problems_of_resume(
    checkpoint: Path, world_size: int, needs_best: bool, needs_random_state: Callable[[], bool]
) -> list[str]:
    """Why this many processes cannot resume a whole checkpoint and finish the run."""
    rng = [f"rng_state_{i}.pth" for i in range(world_size)] if world_size > 1 else ["rng_state.pth"]
    state = (OPTIMIZER[uses_fsdp()], "scheduler.pt")
    problems = [f"{name} is missing" for name in state if not (checkpoint / name).is_file()]
    absent = [name for name in rng if not (checkpoint / name).is_file()]
    if absent and needs_random_state():
        problems += [f"{name} is missing" for name in absent]
    step = (_readable_json(checkpoint / STATE) or {}).get("best_global_step")
    if needs_best and step is not None and step != _step(checkpoint):
        best = best_checkpoint(checkpoint.parent, step)
        problems += [f"{best.name}, its best checkpoint so far: {problem}" for problem in problems_of(best)]
    return problems


def _problems_without_checksums(checkpoint: Path) -> list[str]:
    if _readable_json(checkpoint / STATE) is None:
        return [UNFINISHED]
    config = _readable_json(checkpoint / "config.json")
    if config is None:
        return ["config.json cannot be read"]
    try:
        record = ModelRecord.of(config)
    except ValueError as error:
        return [str(error)]
    if record is not None and record.data is not None:  # which came with the checksums
        return [UNFINISHED]
    missing = [f"{name} is missing" for name in FOR_A_MODEL if not (checkpoint / name).is_file()]
    return missing or _problem_of_step(checkpoint)


def _problem_of_step(checkpoint: Path) -> list[str]:
    """A folder that was renamed, or holds another checkpoint's files: checkpoints are found by their number."""
    step = (_readable_json(checkpoint / STATE) or {}).get("global_step")
    return [] if step in (None, _step(checkpoint)) else [f"its files are those of step {step}"]


def _remove_or_rename(checkpoint: Path, *, finished: bool) -> None:
    """Remove a checkpoint that was never finished; rename a damaged one."""
    if not finished:
        shutil.rmtree(checkpoint)
        return
    aside = checkpoint.with_name(DAMAGED + checkpoint.name)
    shutil.rmtree(aside, ignore_errors=True)
    checkpoint.rename(aside)
    logger.warning("the damaged %s is kept as %s", checkpoint.name, aside.name)


def _step(checkpoint: Path) -> int:
    return int(checkpoint.name.split("-")[1])


def _files(folder: Path) -> Sequence[str]:
    paths = (path for path in folder.rglob("*") if path.is_file() and path.name != CHECKSUMS)
    return sorted(path.relative_to(folder).as_posix() for path in paths)


def _is_record(entry: Any) -> bool:
    return isinstance(entry, dict) and isinstance(entry.get("bytes"), int) and isinstance(entry.get("sha256"), str)


def _record(path: Path) -> dict[str, Any]:
    return {"bytes": path.stat().st_size, "sha256": file_sha256(path)}


def _readable_json(path: Path) -> dict[str, Any] | None:
    """The object in a file; None if it is missing or damaged, which makes the checkpoint unusable."""
    try:
        return read_json(path, repair="resume from another checkpoint")
    except (OSError, ValueError):
        return None
