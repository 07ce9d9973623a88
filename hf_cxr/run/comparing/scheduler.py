"""Processes from a queue, a fixed number at once, each in a numbered slot: its share of the machine.

Closed before its end, by an error or Ctrl-C too, `run_in_slots` terminates what it started and waits for that.
"""

import subprocess
import threading
import time
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from queue import SimpleQueue
from typing import TypeVar

Task = TypeVar("Task")
PAUSE = 0.2  # seconds before a slot looks at the next task, when the last one could not run yet


def run_in_slots(
    tasks: Iterable[Task], start: Callable[[Task, int], subprocess.Popen | int | None], *, slots: int, again: int
) -> Generator[tuple[Task, int | None, float], None, None]:
    """Run a process for each task, in their order, and yield each task as its process ends.

    Args:
        tasks: what is to be done.
        start: called with a task and a slot (0 to ``slots`` - 1, never in use twice at once), one call at a time.
            Returns the task's process, or its exit status if there is no process to run: None, or ``again``.
        slots: processes at once.
        again: the exit status of a task that cannot run yet. It goes to the end of the queue and is not yielded.

    Yields:
        (task, exit status, seconds that it took).
    """
    free: SimpleQueue[int] = SimpleQueue()
    for slot in range(slots):
        free.put(slot)
    starting, stopped, processes = threading.Lock(), False, set()

    def attempt(task: Task) -> tuple[int | None, float]:
        slot, began = free.get(), time.monotonic()
        try:
            with starting:
                process = None if stopped else start(task, slot)
                if isinstance(process, subprocess.Popen):
                    processes.add(process)
            status = process.wait() if isinstance(process, subprocess.Popen) else process
            processes.discard(process)
            if status == again:
                time.sleep(PAUSE)
            return status, time.monotonic() - began
        finally:
            free.put(slot)

    with ThreadPoolExecutor(slots) as pool:
        try:
            waiting = {pool.submit(attempt, task): task for task in tasks}
            while waiting:
                for future in wait(waiting, return_when=FIRST_COMPLETED).done:
                    task, (status, seconds) = waiting.pop(future), future.result()
                    if status == again:
                        waiting[pool.submit(attempt, task)] = task
                    else:
                        yield task, status, seconds
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
            with starting:
                stopped = True
            for process in list(processes):
                process.terminate()
