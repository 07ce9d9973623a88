"""Several processes as a launcher starts them, forked from this one: what is imported here need not be imported again.

They find each other as under `torchrun` without an agent: rank 0 keeps the store. One thread each.
"""

import os
import socket
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

SECONDS = 500  # a test machine may be busy


@dataclass(frozen=True)
class Process:
    """How one process ended: its exit status (-9 if killed), standard output and standard error."""

    status: int
    out: str
    err: str


def launch(work: Callable[[], int], folder: Path, *, count: int = 2, kill: Callable[[], int | None] | None = None):
    """Run ``work`` in ``count`` processes that know of one another; how each ended, in their order.

    Args:
        work: returns the exit status.
        folder: for what the processes print.
        count: of processes.
        kill: called until it returns the number of a process, which is then killed, or all processes have ended.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    children = [_start(work, folder, index, count, port) for index in range(count)]
    deadline, statuses = time.monotonic() + SECONDS, {}
    while len(statuses) < count:
        for index in set(range(count)) - set(statuses):
            done, status = os.waitpid(children[index], os.WNOHANG)
            if done:
                statuses[index] = os.waitstatus_to_exitcode(status)
        if kill is not None and (number := kill()) is not None:
            os.kill(children[number], 9)
            kill = None
        if time.monotonic() > deadline:
            for index in set(range(count)) - set(statuses):
                os.kill(children[index], 9)
                os.waitpid(children[index], 0)
            raise AssertionError(f"not ended after {SECONDS} s: " + (folder / "0.err").read_text()[-2000:])
        time.sleep(0.01)
    texts = [[(folder / f"{index}.{kind}").read_text() for kind in ("out", "err")] for index in range(count)]
    return [Process(statuses[index], *texts[index]) for index in range(count)]


def _start(work: Callable[[], int], folder: Path, index: int, count: int, port: int) -> int:
    child = os.fork()
    if child:
        return child
    status = 70
    try:
        for number, kind in ((1, "out"), (2, "err")):
            descriptor = os.open(folder / f"{index}.{kind}", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            os.dup2(descriptor, number)
        sys.stdout, sys.stderr = open(1, "w", closefd=False), open(2, "w", closefd=False)  # noqa: SIM115 - not pytest's
        os.environ |= {
            "RANK": str(index),
            "LOCAL_RANK": str(index),
            "WORLD_SIZE": str(count),
            "LOCAL_WORLD_SIZE": str(count),
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(port),
            "ACCELERATE_USE_CPU": "true",
        }
        from accelerate.state import AcceleratorState, PartialState

        AcceleratorState._reset_state()
        PartialState._reset_state()
        status = work()
    except SystemExit as error:
        status = error.code if isinstance(error.code, int) else 1
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
