"""Kill a training run at many moments, run the same command again, and compare with the run that was not killed.

    python tests/process/kill_matrix.py [--moments 60] [--command train|calibrate] [--out DIR]

With ``--command calibrate`` a copy of a finished run is calibrated again, and that is killed.

A moment is a file-system event of the run in its own folder: a file opened for writing, renamed or removed, a folder
made. The run sends itself SIGKILL just before the event. Between the kill and the second start nothing happens, or the
folder is moved to another place and named from another working folder, or a bit of the newest checkpoint is flipped.

Printed for each moment: the event, what was done to the folder, the status and message of the second start, what lay
in the folder, and whether the model has the bytes and metrics.json the figures of the straight run. Status 0 if all
have. Runs are forks of one process that has imported everything, so a moment takes seconds.
"""

import argparse
import hashlib
import json
import os
import shutil
import signal
import sys
import tempfile
import traceback
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import yaml

CONFIG = {
    "dataset": "phantom",
    "phantom_train": 32,
    "phantom_validation": 24,
    "phantom_test": 24,
    "phantom_size": 32,
    "phantom_prevalence_floor": 0.1,
    "image_size": 32,
    "resize_size": 36,
    "model_kwargs": {
        "patch_size": 4,
        "window_size": 4,
        "embed_dim": 8,
        "depths": [1, 1],
        "num_heads": [1, 2],
        "drop_path_rate": 0.2,
    },
    "per_device_train_batch_size": 8,
    "num_train_epochs": 4,
    "learning_rate": 1.0e-3,
    "bootstrap_resamples": 20,
    "disable_tqdm": True,
}
TIMED = {"step_seconds", "images_per_second", "peak_memory_gib", "resumed_from"}
MANY = 1_000_000


def forked(work: Callable[[], int], log: Path) -> int:
    """Status of ``work`` in a process of its own, -9 if it was killed; what it prints goes to the log."""
    child = os.fork()
    if child == 0:
        status = 70
        try:
            descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            os.dup2(descriptor, 1)
            os.dup2(descriptor, 2)
            status = work()
        except SystemExit as error:
            status = error.code if isinstance(error.code, int) else 1
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def words_of(command: str, config: Path, run_dir: Path) -> list[str]:
    """The command line of the command that is killed."""
    return [command, str(config), "--output_dir", str(run_dir)] if command == "train" else [command, str(run_dir)]


def run(words: list[str], run_dir: Path, *, kill_at: int = MANY, events: Path | None = None) -> int:
    """A command; SIGKILL before its ``kill_at``-th event in the run folder."""
    root, count = os.path.abspath(run_dir), 0

    def watch(event: str, arguments: tuple) -> None:
        nonlocal count
        if event == "open":
            path, mode, flags = arguments
            if not (isinstance(mode, str) and set(mode) & set("wax+")) and not (flags or 0) & (
                os.O_WRONLY | os.O_RDWR
            ):
                return
        elif event in ("os.rename", "os.remove", "os.mkdir", "os.rmdir"):
            path = arguments[0]
        else:
            return
        try:
            path = os.fspath(path)
        except TypeError:
            return
        if not isinstance(path, str) or not os.path.abspath(path).startswith(root):
            return
        count += 1
        if events is not None:
            os.write(descriptor, f"{event} {os.path.relpath(path, root)}\n".encode())
        if count == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)

    descriptor = os.open(events, os.O_WRONLY | os.O_CREAT | os.O_TRUNC) if events is not None else -1
    sys.addaudithook(watch)
    from hf_cxr.commands import run_command

    return run_command(words[0], words[1:])


def figures(run_dir: Path) -> dict:
    """metrics.json without what is timed or names the folder."""
    metrics = json.loads((run_dir / "metrics.json").read_text(encoding="utf-8"))
    metrics["training"] = {key: value for key, value in metrics["training"].items() if key not in TIMED}
    metrics["history"] = [
        {key: value for key, value in entry.items() if not key.endswith(("runtime", "_per_second", "_flos"))}
        for entry in metrics["history"]
        if "train_runtime" not in entry
    ]
    return {key: metrics[key] for key in ("protocol", "test", "validation", "calibration", "training", "history")}


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def listing(run_dir: Path) -> str:
    """What lies in a folder, checkpoints with the number of their files."""
    names = []
    for path in sorted(run_dir.iterdir()) if run_dir.is_dir() else ():
        names.append(f"{path.name}({len(list(path.iterdir()))})" if path.is_dir() else path.name)
    return " ".join(names) or "nothing"


def flip_a_bit(run_dir: Path, number: int) -> str:
    """Damage a file of the newest checkpoint; what was done, or that there was none."""
    checkpoints = sorted(run_dir.glob("checkpoint-*"), key=lambda path: int(path.name.split("-")[1]))
    files = sorted(path for path in checkpoints[-1].iterdir() if path.stat().st_size) if checkpoints else []
    if not files:
        return "none to damage"
    path = files[number % len(files)]
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    return f"bit flipped in {path.parent.name}/{path.name}"


def last_line(log: Path) -> str:
    lines = [line.strip() for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    said = [line for line in lines if "resuming from" in line or "training from the start" in line]
    return (said or lines or ["nothing printed"])[-1][-90:]


def moment(number: int, event: str, command: str, config: Path, folder: Path) -> tuple[str, Path]:
    """Kill at one event, damage or move the folder, start again; what happened, and the folder at the end."""
    run_dir, log = folder / f"run{number}", folder / "log.txt"
    if command != "train":
        shutil.copytree(folder / "straight", run_dir)
    status = forked(lambda: run(words_of(command, config, run_dir), run_dir, kill_at=number), log)
    left = listing(run_dir)
    done = "as it was"
    if number % 3 == 1 and run_dir.is_dir():
        moved = folder / "elsewhere" / f"moved{number}"
        moved.parent.mkdir(exist_ok=True)
        run_dir.rename(moved)
        os.chdir(moved.parent)
        run_dir, done = Path(moved.name), "moved"
    elif number % 3 == 2 and run_dir.is_dir():
        done = flip_a_bit(run_dir, number)
    again = forked(lambda: run(words_of(command, config, run_dir), run_dir), log)
    said = f"{number:>4} {event:<52} status {status:>3}, {done:<48} then {again}: {last_line(log)} | left: {left}"
    return said, run_dir.absolute()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--moments", type=int, default=60, help="how many, spread over the whole run (60)")
    parser.add_argument("--command", choices=("train", "calibrate"), default="train", help="what is killed (train)")
    parser.add_argument("--out", type=Path, help="folder for the runs; by default a temporary one")
    options = parser.parse_args()
    folder = options.out or Path(tempfile.mkdtemp(prefix="kill_matrix-"))
    folder.mkdir(parents=True, exist_ok=True)
    folder = folder.resolve()
    import hf_cxr.run.repeat  # noqa: F401 - and with it the stages: once, for all forks

    config = folder / "config.yaml"
    config.write_text(yaml.safe_dump(CONFIG), encoding="utf-8")
    straight, events_file = folder / "straight", folder / "events.txt"
    for command in dict.fromkeys(("train", options.command)):
        words = words_of(command, config, straight)
        if forked(lambda words=words: run(words, straight, events=events_file), folder / "log.txt") != 0:
            print((folder / "log.txt").read_text())
            return 1
    events = events_file.read_text().splitlines()
    model, expected = sha256(straight / "model.safetensors"), figures(straight)
    chosen = sorted({round(1 + i * (len(events) - 1) / max(1, options.moments - 1)) for i in range(options.moments)})
    print(f"{len(events)} events in a straight run, killed at {len(chosen)} of them\n", flush=True)
    wrong = 0
    for number in chosen:
        said, run_dir = moment(number, events[number - 1], options.command, config, folder)
        same = (run_dir / "metrics.json").is_file() and (
            sha256(run_dir / "model.safetensors") == model and figures(run_dir) == expected
        )
        finished = "same" if same else "DIFFERS"
        wrong += not same
        print(f"{finished:<8}{said}", flush=True)
        if same:
            shutil.rmtree(run_dir)
    print(f"\n{len(chosen) - wrong} of {len(chosen)} moments end with the model and figures of the straight run")
    return 1 if wrong else 0


if __name__ == "__main__":
    raise SystemExit(main())
