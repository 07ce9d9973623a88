"""Kill `hf-cxr prepare` at many moments, run the same command again, and compare with a run that nobody killed.

    python tests/process/kill_prepare.py [--moments 24] [--scenarios new update repair shard]

A moment is the N-th time that the command touches a file of its folder (opens one to write, renames, removes, makes a
folder), as Python's audit hook reports it, just before it happens; and the middle of a shard and of a line in
`shards.jsonl`. The process kills itself there with SIGKILL: nothing is caught and nothing cleaned up. Then the same
command must finish, and the folder must equal the straight one byte for byte, but for how long it took.

Scenarios: ``new``, a folder that does not exist; ``update``, a finished folder of another size with --update;
``repair``, a finished folder with a damaged shard with --verify; ``shard``, a new folder from a part that is then put
in its place.

It prints a line for each moment: where it was killed, what opening the folder says then, what is left half-written,
how the second run ended. Exit status 1 if one of them went wrong. It forks (one import serves all runs): POSIX only.
"""

import argparse
import contextlib
import json
import os
import re
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from hf_cxr.commands import run_command
from hf_cxr.config import parse_arguments
from hf_cxr.data import prepare as module
from hf_cxr.data.manifest import LOCK, MANIFEST, SHARDS, TIMING
from hf_cxr.data.sources.prepared import load_prepared
from hf_cxr.processing import image_processor_for

SOURCE = ["--phantom_train=8", "--phantom_validation=4", "--phantom_test=4", "--phantom_size=64", "--image_size=32"]
SHARD_BYTES = 3 * (36**2 + 512)  # three images a shard: 3 + 2 + 2 shards
TOUCHES = {"os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.chmod"}
SCENARIOS = ("new", "update", "repair", "shard")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--moments", type=int, default=24, help="of each scenario, evenly over the run (24)")
    parser.add_argument("--scenarios", nargs="+", choices=SCENARIOS, default=SCENARIOS)
    args = parser.parse_args()
    image_processor_for(parse_arguments(SOURCE).model)  # imports what each run needs, once
    wrong = 0
    with tempfile.TemporaryDirectory() as folder:
        for scenario in args.scenarios:
            wrong += matrix(scenario, Path(folder) / scenario, args.moments)
    print(f"{wrong} of the moments went wrong" if wrong else "all folders equal the straight one")
    return 1 if wrong else 0


def matrix(scenario: str, folder: Path, moments: int) -> int:
    """Kill one scenario at ``moments`` moments; how many of them went wrong."""
    folder.mkdir(parents=True)
    start = folder / "start"
    if scenario not in ("new", "shard"):
        run(start, "new", size=40 if scenario == "update" else 36)
    if scenario == "repair":
        shard = start / "train" / "data-00001-of-00003.arrow"
        content = bytearray(shard.read_bytes())
        content[len(content) // 2] ^= 1
        shard.write_bytes(content)
    straight = begin(start, folder / "straight")
    touches = folder / "touches"
    status, message = run(straight, scenario, before=lambda out: watch(out, lambda n, what: note(touches, what)))
    assert status == 0, message
    names = touches.read_text().splitlines()
    step = max(1, len(names) / max(1, moments - 2))
    chosen = sorted({int(i * step) for i in range(moments) if int(i * step) < len(names)})
    plans = [(f"{n + 1} of {len(names)}: {names[n]}", kill_at(n)) for n in chosen[: max(1, moments - 2)]]
    plans += [("in the middle of a shard", kill_in_shard), ("in the middle of a line", kill_in_line)]
    wrong = 0
    print(f"\n{scenario}: hf-cxr prepare {' '.join(words('DIR', scenario))}")
    for number, (what, before) in enumerate(plans[:moments] if moments >= 3 else plans):
        out = begin(start, folder / f"killed-{number}")
        status, _ = run(out, scenario, before=before)
        says, left = opened(out), unfinished_files(out)
        again, message = run(out, scenario)
        same = again == 0 and content_of(out) == content_of(straight)
        right = status == -signal.SIGKILL and same
        wrong += not right
        end = "equal" if same else f"DIFFERENT, {message}"
        print(
            f"  {'right' if right else 'WRONG'}  killed before {what:<58} status {status}; opening: {says}; ", end=""
        )
        print(f"left: {left}; again: status {again}, {end}", flush=True)
        shutil.rmtree(out, ignore_errors=True)
    return wrong


def begin(start: Path, out: Path) -> Path:
    if start.exists():
        shutil.copytree(start, out)
    return out


def words(out: str | Path, scenario: str, size: int = 36) -> list[str]:
    more = {"new": [], "update": ["--update"], "repair": ["--verify"], "shard": ["--shard=1/1"]}[scenario]
    return [*SOURCE, f"--resize_size={size}", "--workers=1", "--out", str(out), *more]


def run(out: Path, scenario: str, *, before: Callable[[Path], None] | None = None, size: int = 36) -> tuple[int, str]:
    """The command in a process of its own; its exit status (or minus the signal) and the last line that it printed."""
    with tempfile.TemporaryFile("w+") as output:
        child = os.fork()
        if child == 0:
            status = 70
            try:
                os.dup2(output.fileno(), 1)
                os.dup2(output.fileno(), 2)
                module.SHARD_BYTES = SHARD_BYTES
                if before is not None:
                    before(out)
                status = run_command("prepare", words(out, scenario, size))
                sys.stdout.flush()
                sys.stderr.flush()
            except SystemExit as stop:
                status = stop.code
            finally:
                os._exit(status)
        _, raw = os.waitpid(child, 0)
        output.seek(0)
        lines = [line for line in re.split(r"[\r\n]+", output.read()) if line]
    return os.waitstatus_to_exitcode(raw), lines[-1] if lines else ""


def watch(out: Path, touched: Callable[[int, str], None]) -> None:
    """Call ``touched`` with a number and words each time that this process is about to change a file below ``out``."""
    count = 0

    def hook(event: str, args: tuple) -> None:
        nonlocal count
        if event == "open":
            path, mode, flags = args
            if not (isinstance(mode, str) and set(mode) & set("wax+")) and not (flags or 0) & (
                os.O_WRONLY | os.O_RDWR
            ):
                return
        elif event in TOUCHES:
            path = args[1] if event == "os.rename" else args[0]
        else:
            return
        if isinstance(path, str | os.PathLike) and str(path).startswith(str(out)):
            name = re.sub(r"-\w{8}(?=\.|/|$)", "-", os.path.relpath(path, out))
            count += 1
            touched(count - 1, f"{event.removeprefix('os.')} {name}")

    sys.addaudithook(hook)


def note(touches: Path, what: str) -> None:
    with touches.open("a") as file:
        file.write(what + "\n")


def kill_at(number: int) -> Callable[[Path], None]:
    return lambda out: watch(out, lambda n, what: kill() if n == number else None)


def kill_in_shard(out: Path) -> None:
    real = module.ArrowWriter.write_table

    def half(writer, table, *args, **kwargs):
        real(writer, table.slice(0, 1), *args, **kwargs)
        kill()

    module.ArrowWriter.write_table = half


def kill_in_line(out: Path) -> None:
    def half(folder, entry):
        with (folder / SHARDS).open("a") as file:
            file.write(json.dumps(entry)[:90])
        kill()

    module.append_shard = half


def kill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def opened(out: Path) -> str:
    try:
        load_prepared(out)
    except (ValueError, OSError) as error:
        return str(error).replace(str(out), "DIR").split(": it")[0].split(";")[0][:60]
    return "whole"


def unfinished_files(out: Path) -> str:
    """What is there that a finished folder has not."""
    if not out.exists():
        return "no folder"
    hidden = [path.relative_to(out).as_posix() for path in out.rglob(".*") if path.name != LOCK]
    shards = len(list(out.glob("*/data-*.arrow")))
    lines = len((out / SHARDS).read_bytes().splitlines()) if (out / SHARDS).exists() else 0
    return f"{shards} shards, {lines} lines{', ' if hidden else ''}{', '.join(hidden)}"


def content_of(out: Path) -> dict[str, object]:
    """All files but the lock; of the manifest, all but how long it took."""
    files = {path.relative_to(out).as_posix(): path for path in sorted(out.rglob("*")) if path.name != LOCK}
    content = {name: path.read_bytes() if path.is_file() else None for name, path in files.items()}
    with contextlib.suppress(KeyError):
        manifest = json.loads(content[MANIFEST])
        content[MANIFEST] = {key: value for key, value in manifest.items() if key not in TIMING}
    return content


if __name__ == "__main__":
    sys.exit(main())
