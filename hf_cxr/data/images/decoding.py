"""Images decoded and resized in one process or several, in order and with little in memory.

A decoding process leaves Ctrl-C to the main process, and ends with it even if that is killed. A process
that is killed, and an image that does not fit into memory, stop the work; any other failure belongs to its image.
"""

import hashlib
import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Executor, Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager

from hf_cxr.data.duplicates import perceptual_hash
from hf_cxr.data.images.grey import ImageError, read_content, read_grey, resize_grey
from hf_cxr.data.images.mapped import pgm_header
from hf_cxr.data.manifest import Recipe


@contextmanager
def worker_pool(workers: int) -> Iterator[Executor]:
    """An executor for `answers_in_order`, with so many processes; for one, this process."""
    if workers == 1:
        yield _InThisProcess()
        return
    # Forking would copy locks that other threads (Arrow's, the progress bar's) may hold.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context, initializer=_start_worker) as pool:
        try:
            yield pool
        except BaseException:  # Ctrl-C does not wait for what was handed out
            pool.shutdown(wait=False, cancel_futures=True)
            raise


@contextmanager
def _without_ctrl_c() -> Iterator[None]:
    """Processes that are started within the block never see Ctrl-C, not even while they are still importing."""
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)  # one that came meanwhile is answered now


def _start_worker() -> None:
    """In a decoding process: leave Ctrl-C to the main process, and end with it, even if it is killed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    multiprocessing.parent_process().join()
    os._exit(1)


class _InThisProcess(Executor):
    """An executor without processes, for one worker."""

    def submit(self, function, /, *args, **kwargs) -> Future:
        future: Future = Future()
        future.set_result(function(*args, **kwargs))
        return future


def answers_in_order(pool: Executor, work: Iterator, recipe: Recipe, *, ahead: int) -> Iterator[list]:
    """What `decode_batch` gives for each batch of the work, with no more than ``ahead`` batches in memory.

    Raises:
        OSError: a decoding process was killed, or memory did not suffice for an image.
    """
    waiting: deque[Future] = deque()
    try:
        for batch in work:
            with _without_ctrl_c():  # a pool starts its processes when work is handed to it
                waiting.append(pool.submit(decode_batch, batch, recipe))
            if len(waiting) > ahead:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    except BrokenProcessPool as error:
        raise OSError(
            "a decoding process was killed, probably out of memory; run the same command again with fewer --workers: "
            "finished shards stay. (A script that calls prepare must do so under if __name__ == '__main__')"
        ) from error


def decode_batch(batch: list[tuple[bytes | str, str]], recipe: Recipe) -> list[dict[str, str | bytes | bool] | str]:
    """For each image the columns that come from its pixels and whether bits are unused, or why it cannot be read."""
    answers: list[dict[str, str | bytes | bool] | str] = []
    for source, name in batch:
        remarks: list[str] = []
        try:
            content = source if isinstance(source, bytes) else read_content(source, name)  # read once
            grey = read_grey(content, name=name, remarks=remarks)
            image = resize_grey(grey, recipe.size, recipe.resample)
        except ImageError as error:
            answers.append(error.reason)
        except OSError as error:
            answers.append(f"{type(error).__name__}: {error.strerror}")
        except MemoryError as error:  # not the image's fault: it must not be left out for it
            raise OSError(
                f"out of memory while decoding {name}; run the same command again with fewer --workers: finished "
                "shards stay"
            ) from error
        else:
            answers.append(
                {
                    "image": pgm_header(len(image)) + image.tobytes(),
                    "file_sha256": hashlib.sha256(content).hexdigest(),
                    "perceptual_hash": perceptual_hash(grey),
                    "unused_bits": bool(remarks),
                }
            )
    return answers
