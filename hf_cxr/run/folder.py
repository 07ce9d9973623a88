"""The run folder: opened by one command at a time, or refused.

A folder that holds a finished run, or an unfinished one with other settings, is never overwritten. While a command
works in it, a lock keeps every other one out. What each stage leaves in it is listed in `hf_cxr.run.stage_files`.
"""

import functools
import logging
import os
import shutil
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from accelerate import PartialState
from filelock import FileLock

from hf_cxr import hub, processes
from hf_cxr.config import NOT_COMPARED, PretrainArguments, RunArguments
from hf_cxr.files import check_output_folder, is_leftover, write_text
from hf_cxr.locks import acquired
from hf_cxr.run.other_processes import DIVISION, why_bound
from hf_cxr.run.resume import FREE_ON_RESUME, changed_settings, settings_of
from hf_cxr.run.stage_files import STAGES, forget, is_done
from hf_cxr.training.checkpoints import check_whole, checkpoints_of, usable_checkpoint
from hf_cxr.training.sharding import check_same_sharding
from hf_cxr.yaml_files import dump_yaml, read_yaml

logger = logging.getLogger(__name__)

OLD_UNCALIBRATED = ".uncalibrated"  # where earlier versions kept the trained model until it was calibrated
LOCK = ".run.lock"
LOCK_SECONDS = 10  # dataloader workers of a run that was just killed take a few seconds to end


@contextmanager
def opened_run_folder(args: RunArguments | PretrainArguments, state: PartialState) -> Iterator[Path | None]:
    """Within the block the run folder is this run's alone; it is made if need be.

    Yields:
        The checkpoint to resume training from; None to start, or if training is done.

    Raises:
        ValueError: another run works in the folder, or it holds a finished run, one of other settings, or something
            else; or the checkpoint that was asked for is damaged or of another run.
    """
    locks: list[FileLock] = []
    try:
        yield on_main_process(lambda: _open(args, state, locks))
    finally:
        for lock in locks:
            lock.release()


def on_main_process(work: Callable[[], Any]) -> Any:
    """What ``work`` returns on the main process, on every process; or its error, on every process.

    Raises:
        ValueError: ``work`` raised a ValueError, an OSError or a HubError.
    """
    causes: list[Exception] = []

    def attempt() -> tuple[Any, str | None]:
        try:
            return work(), None
        except (ValueError, OSError, hub.HubError) as error:
            causes.append(error)
            return None, str(error)

    value, problem = processes.from_main(attempt)
    if problem is not None:
        raise ValueError(problem) from (causes[0] if causes else None)
    return value


def _open(args: RunArguments | PretrainArguments, state: PartialState, locks: list[FileLock]) -> Path | None:
    """On the main process: lock the folder, check what it holds, write config.yaml, find the checkpoint."""
    run_dir = Path(args.training.output_dir)
    check_output_folder(run_dir)
    _refuse_foreign(run_dir)
    if args.training.on_existing_run == "move_aside" and _is_started(run_dir):
        _move_aside(run_dir)
    run_dir.mkdir(parents=True, exist_ok=True)
    locks.append(_locked(run_dir))
    _refuse_foreign(run_dir)  # once more: it may have changed until it was locked
    bound = functools.cache(lambda: why_bound(args))  # it may load a whole network
    divided = _check_existing_run(args, run_dir, bound)
    with logged_to(run_dir / "run.log", state):  # which checkpoints are set aside belongs in the log
        _remove_leftovers(run_dir)
        checkpoint = _checkpoint(args, state, run_dir, bound)
        if divided:
            logger.info("from here on the same images of a step are divided in another way: %s", ", ".join(divided))
    write_text(run_dir / "config.yaml", dump_yaml(settings_of(args)))
    return checkpoint


@contextmanager
def held_run_folder(run_dir: Path) -> Iterator[None]:
    """Within the block no other command works in this run folder, which is there already.

    Raises:
        ValueError: it is not a run folder, or another run works in it.
    """
    if not (run_dir / "config.yaml").is_file():
        raise ValueError(f"{run_dir} is not a run folder: it has no config.yaml; give the folder that training wrote")
    lock = _locked(run_dir)
    try:
        yield
    finally:
        lock.release()


def _locked(run_dir: Path) -> FileLock:
    return acquired(
        run_dir / LOCK,
        ValueError(f"another run is working in {run_dir}: wait until it ends, or give another folder"),
        seconds=LOCK_SECONDS,
    )


def _refuse_foreign(run_dir: Path) -> None:
    """Refuse a place that is not a run folder of this package, nor free to become one."""
    # Half-written files of a killed command do not count.
    if not run_dir.is_dir() or all(is_leftover(path.name) for path in run_dir.iterdir()):
        return
    if not (run_dir / "config.yaml").is_file():
        # A run that was killed before it had written its config.yaml leaves its lock and nothing to lose.
        if not (run_dir / LOCK).exists():
            raise ValueError(f"{run_dir} is not empty and not a run folder of hf_cxr; give another --output_dir")
        if checkpoints_of(run_dir) or (run_dir / "metrics.json").exists():
            raise ValueError(
                f"{run_dir} contains a run whose config.yaml is missing, so its settings are unknown: restore that "
                "file, or give another --output_dir"
            )


def _is_started(run_dir: Path) -> bool:
    return is_done(run_dir, "document") or is_done(run_dir, "train") or bool(checkpoints_of(run_dir))


def _move_aside(run_dir: Path) -> None:
    lock = _locked(run_dir)  # no other run is in it
    aside = next(path for i in range(1, 10_000) if not (path := run_dir.with_name(f"{run_dir.name}-{i}")).exists())
    if os.name == "nt":
        lock.release()  # Windows renames no folder with an open file
    run_dir.rename(aside)
    lock.release()
    logger.info("moved the earlier run to %s", aside)


def _trains(args: RunArguments | PretrainArguments, run_dir: Path) -> bool:
    """Whether training goes on, and not only the stages after it."""
    return bool(args.training.resume_from_checkpoint) or not is_done(run_dir, "train")


def _check_existing_run(
    args: RunArguments | PretrainArguments, run_dir: Path, bound: Callable[[], str | None]
) -> list[str]:
    """Refuse what the folder holds, or say in words how a step that is trained will be divided in another way."""
    repair = "give another --output_dir, or --on_existing_run move_aside to keep it under another name"
    if not _is_started(run_dir):
        return []
    finished = is_done(run_dir, "document")
    push = _way_to_push(args) if finished else ""
    if args.training.on_existing_run == "error":
        raise ValueError(f"{run_dir} already contains a run; {push}{repair}")
    if finished:
        raise ValueError(f"{run_dir} contains a finished run; {push}{repair}")
    config = run_dir / "config.yaml"
    try:
        before = read_yaml(config)
    except ValueError as error:
        raise ValueError(f"{error}. So this run's settings are unknown: restore {config}, or {repair}") from error
    if not isinstance(before, dict):
        raise ValueError(f"{config} does not contain settings, so this run's are unknown: restore it, or {repair}")
    kinds = {"a pre-training" if "mask_ratio" in values else "a run" for values in (before, args.to_dict())}
    if len(kinds) > 1:
        raise ValueError(f"{run_dir} contains an unfinished run of another command; {repair}")
    # A stream's order depends on how many read it.
    free = {*FREE_ON_RESUME, *NOT_COMPARED} - ({"dataloader_num_workers"} if args.data.streaming else set())
    if not _trains(args, run_dir):
        free |= {*DIVISION}
    now, reason = settings_of(args), ""
    changed = changed_settings(before, now, free=free)
    if changed and not changed_settings(before, now, free={*free, *DIVISION}):
        if bound() is None:
            return changed
        reason = f": it must resume as it was started, because {bound()}"
    if changed:
        words = f"{', '.join(changed[:5])}{reason}"
        raise ValueError(f"{run_dir} contains an unfinished run with other settings ({words}); {repair}")
    return []


def _checkpoint(
    args: RunArguments | PretrainArguments, state: PartialState, run_dir: Path, bound: Callable[[], str | None]
) -> Path | None:
    """The checkpoint to resume from: the one that was asked for, or the newest whole one."""
    if not _trains(args, run_dir):
        return None
    check_same_sharding(checkpoints_of(run_dir))
    asked = args.training.resume_from_checkpoint
    if not asked:
        forget(run_dir, "train")  # an earlier version wrote the files of later stages without saying that it trained
        return usable_checkpoint(
            run_dir,
            state.num_processes,
            needs_best=args.training.load_best_model_at_end,
            needs_random_state=lambda: bound() is not None,
        )
    if Path(asked).resolve() not in [path.resolve() for path in checkpoints_of(run_dir)]:
        raise ValueError(
            f"resume_from_checkpoint {asked} is not a checkpoint of {run_dir}: leave it out to resume this run, or "
            "give --model_name_or_path to start another run from its weights"
        )
    checkpoint = run_dir / Path(asked).name
    check_whole(
        checkpoint, "the checkpoint to resume from", "leave out --resume_from_checkpoint to take the newest one"
    )
    forget(run_dir, "train")
    return checkpoint


def _remove_leftovers(run_dir: Path) -> None:
    """Remove what a killed run left half-written: it is of no use, and may be large."""
    for folder in (run_dir, *(run_dir / name for name in ("predictions", "figures", STAGES))):
        for path in folder.iterdir() if folder.is_dir() else ():
            if path.name == OLD_UNCALIBRATED or is_leftover(path.name):
                shutil.rmtree(path) if path.is_dir() else path.unlink()


def _way_to_push(args: RunArguments) -> str:
    # The run was to be pushed: perhaps it was killed while it was.
    if not args.training.push_to_hub:
        return ""
    repo_id, private = hub.push_target(args.training)
    return f"to push it run: {hub.push_command(args.training.output_dir, repo_id, private=private)} ; for another run "


@contextmanager
def logged_to(path: Path, state: PartialState) -> Iterator[None]:
    """Within the block, what is logged goes to this file too (main process only; a resumed run appends)."""
    if not state.is_main_process:
        yield
        return
    handler = logging.FileHandler(path, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    logging.getLogger().addHandler(handler)
    logging.captureWarnings(True)
    try:
        yield
    except Exception:
        handler.stream.write(traceback.format_exc())  # the terminal gets one line of it
        raise
    finally:
        logging.captureWarnings(False)
        logging.getLogger().removeHandler(handler)
        handler.close()
