"""Many small looks at files: one after another where they cost the processor, in threads where they are waited for.

Sixteen threads hide the waiting for a cold disk or a file server. Where the files are in the page cache, they only
fight for the interpreter's lock, and took 2 to 3 times the time of one thread. So a few files of every block are
looked at by one thread, which measures how long it waited.
"""

import statistics
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import Any

THREADS = 16
BLOCK, PROBE = 1024, 32  # items; and those at the start of a block that are timed
LONG = 1e-4  # seconds of waiting for one file, from which on threads help


class FileLooks:
    """A context with one method, `map`.

    Args:
        threads: that share the work while files are waited for.
    """

    def __init__(self, threads: int = THREADS):
        self._pool = ThreadPoolExecutor(threads)  # starts no thread before it is used

    def __enter__(self) -> "FileLooks":
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)

    def map(self, function: Callable[[Any], Any], items: Sequence) -> list:
        """``[function(item) for item in items]``; the function waits for files and computes little."""
        answers: list = []
        for start in range(0, len(items), BLOCK):
            stop = min(start + BLOCK, len(items))
            middle = min(start + PROBE, stop)
            waited = []
            for item in items[start:middle]:
                wall, cpu = time.perf_counter(), time.thread_time()
                answers.append(function(item))
                waited.append(time.perf_counter() - wall - (time.thread_time() - cpu))
            # The median: another program that takes the core for a moment delays one look, a slow disk most of them.
            does_wait = statistics.median(waited) > LONG
            rest = items[middle:stop]
            answers.extend((self._pool.map if does_wait else map)(function, rest))
        return answers
