"""Arms of a benchmark as processes of their own that take turns: A B C A B C ..., in one run.

A machine is noisy, and two programs that are timed one after the other meet different noise. Here every arm is started
once and warmed up, and then each does its piece of work once a round. Wall time and CPU time (user and system, of the
arm's process) are both taken; a ratio is formed within a round, and the median of the rounds is printed with its
range. With one thread, CPU time is what other programs disturb least.

A benchmark has a literal table of builders and calls `run_arms` at its end:

    ARMS = {"ours": build_ours, "peer": build_peer}
    if __name__ == "__main__":
        run_arms(ARMS, reference="peer", title="Rows to a batch")

``build_ours()`` prepares and returns ``work()``; ``work()`` does a fixed piece of work and returns how many units it
was. A builder that raises ImportError is left out, and the table says so.
"""

import argparse
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

Work = Callable[[], int]
THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS", "ARROW_IO_THREADS")


def parser_of_arms(description: str | None = None) -> argparse.ArgumentParser:
    """A parser with the options of `run_arms`; a benchmark adds its own."""
    parser = argparse.ArgumentParser(
        description=description and description.splitlines()[0], formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=7, help="rounds in which every arm works once")
    parser.add_argument("--threads", type=int, default=1, help="threads of each arm")
    parser.add_argument("--only", nargs="+", metavar="ARM", help="these arms and the reference alone")
    parser.add_argument("--json", type=Path, help="write every round's times to this file")
    parser.add_argument("--arm", help=argparse.SUPPRESS)
    return parser


def run_arms(
    arms: Mapping[str, Callable[[], Work]],
    *,
    reference: str,
    title: str,
    unit: str = "images",
    args: argparse.Namespace | None = None,
    environments: Mapping[str, Mapping[str, str]] | None = None,
    by: str = "cpu",
) -> dict[str, list[dict[str, float]]]:
    """Run the arms in turns and print one table in Markdown.

    Args:
        arms: name -> builder.
        reference: the arm that ratios are against.
        title: of the table.
        unit: what ``work()`` counts.
        args: of `parser_of_arms`; by default they are read from the command line.
        environments: further environment variables of an arm.
        by: the time that ratios are of, "cpu" or "wall"; an accelerator's work takes no CPU time.

    Returns:
        Arm -> one entry a round: units, wall and cpu in seconds, and peak resident memory in MiB.

    Raises:
        SystemExit: the reference could not be started; its own error is printed.
    """
    args = parser_of_arms().parse_args() if args is None else args
    if args.arm:
        _serve(arms[args.arm])
        raise SystemExit
    names = [name for name in arms if not args.only or name in args.only or name == reference]
    children, left_out = {}, {}
    for name in names:
        child, error = _start(name, args.threads, (environments or {}).get(name, {}))
        if error is None:
            children[name] = child
        else:
            left_out[name] = error
    if reference in left_out:
        raise SystemExit(f"the reference {reference!r} could not be started: {left_out[reference]}")
    rounds: dict[str, list[dict[str, float]]] = {name: [] for name in children}
    for _ in range(args.rounds):
        for name, child in children.items():
            child.stdin.write("go\n")
            child.stdin.flush()
            line = child.stdout.readline()
            if not line:
                raise SystemExit(f"the arm {name!r} ended: {_errors_of(child)}")
            rounds[name].append(json.loads(line))
    for child in children.values():
        child.stdin.close()
        child.wait()
    _print(rounds, left_out, reference, title, unit, args, by)
    if args.json:
        args.json.write_text(json.dumps(rounds, indent=1))
    return rounds


def _start(name: str, threads: int, environment: Mapping[str, str]) -> tuple[subprocess.Popen, str | None]:
    errors = tempfile.TemporaryFile("w+")  # noqa: SIM115 - the child writes to it for as long as it lives
    child = subprocess.Popen(
        [sys.executable, *sys.argv, "--arm", name],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=errors,
        text=True,
        env={**os.environ, **dict.fromkeys(THREADS, str(threads)), "HF_HUB_OFFLINE": "1", **environment},
    )
    child.errors = errors
    return child, None if child.stdout.readline().strip() == "ready" else _errors_of(child)


def _errors_of(child: subprocess.Popen) -> str:
    child.wait()
    child.errors.seek(0)
    return (child.errors.read().strip().splitlines() or [f"exit status {child.returncode}"])[-1]


def _serve(build: Callable[[], Work]) -> None:
    answers, sys.stdout = sys.stdout, sys.stderr  # whatever a library prints must not be taken for an answer
    work = build()
    work()  # warm-up
    print("ready", file=answers, flush=True)
    for line in sys.stdin:
        if line.strip() != "go":
            return
        wall, cpu = time.perf_counter(), time.process_time()
        units = work()
        taken: dict[str, Any] = {"wall": time.perf_counter() - wall, "cpu": time.process_time() - cpu}
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(json.dumps({"units": units, **taken, "peak_mib": peak}), file=answers, flush=True)


def _print(
    rounds: Mapping[str, list[dict[str, float]]],
    left_out: Mapping[str, str],
    reference: str,
    title: str,
    unit: str,
    args: argparse.Namespace,
    by: str,
) -> None:
    load = os.getloadavg()[0]
    print(f"\n**{title}** ({args.threads} thread(s), {args.rounds} rounds in turns, load {load:.1f})")
    print(f"CPython {platform.python_version()} on {platform.machine()}, {os.cpu_count()} cores\n")
    print(
        f"| arm | {unit}/s of CPU: median (best) | of wall time: median (best) "
        f"| times {reference}, {by} time: median (range) |"
    )
    print("|---|---|---|---|")
    for name, entries in rounds.items():
        cpu, wall = ([entry["units"] / entry[key] for entry in entries] for key in ("cpu", "wall"))
        own, against = ([entry["units"] / entry[by] for entry in rounds[arm]] for arm in (name, reference))
        ratios = [rate / other for rate, other in zip(own, against, strict=True)]
        print(
            f"| {name} | {statistics.median(cpu):.4g} ({max(cpu):.4g}) | {statistics.median(wall):.4g} "
            f"({max(wall):.4g}) | {statistics.median(ratios):.3g} ({min(ratios):.3g} to {max(ratios):.3g}) |"
        )
    for name, error in left_out.items():
        print(f"| {name} | left out: {error} | | |")
