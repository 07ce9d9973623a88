"""The processes of one `accelerate launch`: shares, waiting, gathering, and one message when one of them fails.

Alone, nothing here waits, opens a connection or imports torch. Several processes talk through two things that the
launch has anyway: its process group (a value from the main process, values of all) and its key-value store (who has
arrived, who has failed). Waiting is done in the store, because a collective call has a time limit, cannot be left and
does not notice a process that has ended: `meet` waits as long as the others work, and ends at once if one fails.

A process that fails says so in the store before it prints (`fails_first`): the first prints its line, and the others
end without one at their next `check` or `meet`. A process that was killed says nothing: its heartbeat stops, and
those that wait for it end after ``PATIENCE`` seconds. Work that is full of collective calls, such as training, is
`watched`.

Refused: a launch of several processes that do not know of one another.
"""

import functools
import itertools
import logging
import os
import platform
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

logger = logging.getLogger(__name__)

Value = TypeVar("Value")
BEAT = 5.0  # seconds between two heartbeats
PATIENCE = 120.0  # seconds without a heartbeat after which a process counts as killed
GRACE = 10.0  # seconds in which a process ends by itself once another one has failed
CONNECT = timedelta(seconds=20)
_meetings = itertools.count()
_stop_beating = threading.Event()


class OtherProcessFailedError(RuntimeError):
    """Another process of this launch has failed and has said why."""


def count() -> int:
    """Processes of this launch; 1 without a launcher."""
    return int(os.environ.get("WORLD_SIZE", "1")) if "RANK" in os.environ else 1


def index() -> int:
    """Number of this process, from 0."""
    return int(os.environ["RANK"]) if count() > 1 else 0


def is_main() -> bool:
    """Whether this process prints and writes the results."""
    return index() == 0


def is_first_of_machine() -> bool:
    """Whether this process does for its machine what one process is enough for."""
    return count() == 1 or int(os.environ.get("LOCAL_RANK", "0")) == 0


def whole_batches(rows: int, batch_size: int) -> range:
    """This process's share of rows that are predicted in batches: consecutive, and the same batches as of one process.

    The sums inside a matrix product depend on the batch in their last bits, so a batch is never divided.
    """
    batches = -(-rows // batch_size)
    first, last = (-(-batches * number // count()) for number in (index(), index() + 1))  # the first have one more
    return range(first * batch_size, min(last * batch_size, rows))


def in_turns(items: Sequence[Value], batch_size: int = 1) -> list[Sequence[Value]]:
    """This process's batches of a list; batch number b is of process b mod the number of processes."""
    starts = range(index() * batch_size, len(items), count() * batch_size)
    return [items[start : start + batch_size] for start in starts]


def connect() -> None:
    """Join the process group of the launch and open its store.

    On the CPU if ACCELERATE_USE_CPU says so or there is no accelerator.

    Raises:
        ValueError: the processes are joined already, and not as those of this launch.
    """
    if count() == 1:
        return
    import torch
    from accelerate import PartialState
    from accelerate.utils import parse_flag_from_env

    cpu = parse_flag_from_env("ACCELERATE_USE_CPU") or not torch.accelerator.is_available()
    if PartialState(cpu=cpu).num_processes != count():
        raise ValueError(
            f"the launcher started {count()} processes, and they are not connected: use accelerate launch"
        )
    _store()


def refuse_several(what: str) -> None:
    """Refuse a launch of several processes.

    Raises:
        ValueError: there are several.
    """
    if count() > 1 and not is_main():
        raise OtherProcessFailedError("the main process reports the error")
    if count() > 1:
        raise ValueError(f"{what} runs in one process, and {count()} were started: leave out accelerate launch")


def check_shared(path: str | Path, option: str) -> None:
    """Refuse, before the work, a place that the main process has made and another one does not see. All call it.

    Args:
        path: a file or folder that is there on the main process.
        option: the flag that gives another place.

    Raises:
        ValueError: with the machine's name.
    """
    if not os.path.exists(path):
        raise ValueError(
            f"process {index()} on {platform.node()} does not see {path}: give {option} a place in a folder that all "
            "machines share"
        )
    meet()


def check() -> None:
    """End this process's work if another one has failed.

    Raises:
        OtherProcessFailedError: see above.
    """
    if count() > 1 and _asked(lambda store: store.add("failed", 0)) > 0:
        raise OtherProcessFailedError("another process has failed")


def fails_first() -> bool:
    """Tell the other processes that this one has failed; True for the first, which is the one to print why."""
    if count() == 1:
        return True
    try:
        return _store().add("failed", 1) == 1
    except (RuntimeError, ValueError):
        # No store: either there was none yet, or it has gone with the main process, which has printed.
        return is_main() or not _joined()


def meet() -> None:
    """Wait until every process is here, however long their work takes.

    Raises:
        OtherProcessFailedError: another process has failed.
        ValueError: another process was killed.
    """
    if count() == 1:
        return
    number, pause, watch = next(_meetings), 0.001, Heartbeats()
    keys = [f"meeting{number}/{other}" for other in range(count())]
    _asked(lambda store: store.set(keys[index()], "here"))
    while not _asked(lambda store: store.check(keys)):
        check()
        watch.look([other for other, key in enumerate(keys) if not _asked(lambda store, key=key: store.check([key]))])
        time.sleep(pause)
        pause = min(2 * pause, 0.2)
    check()


def gather(value: Value) -> list[Value]:
    """The value of every process, in their order, on every process; the values are pickled."""
    if count() == 1:
        return [value]
    meet()
    from accelerate.utils import gather_object

    return gather_object([value])


def from_main(work: Callable[[], Value]) -> Value:
    """What ``work`` returns on the main process, on every process. Its error stays there and ends the others."""
    if count() == 1:
        return work()
    values: list[Any] = [work() if is_main() else None]
    meet()
    from accelerate.utils import broadcast_object_list

    return broadcast_object_list(values)[0]


def main_first(work: Callable[[], Value]) -> Value:
    """What ``work`` returns on each process; the main process does it before the rest begin.

    Raises:
        OtherProcessFailedError, ValueError: as `meet`; on the main process, what ``work`` raises.
    """
    if not is_main():
        meet()
        return work()
    value = work()
    meet()
    return value


@contextmanager
def watched() -> Iterator[None]:
    """Within the block, this process ends when another one fails or is killed, even inside a collective call.

    A collective call on a GPU waits for a process that has ended until its own time limit, and Python cannot leave it.
    So a thread watches the store. It gives the block `GRACE` seconds to end by itself, and then ends the process, with
    exit status 2. Whoever notices first that a process was killed logs it.
    """
    if count() == 1:
        yield
        return
    check()
    done = threading.Event()
    threading.Thread(target=_watch, args=(done,), daemon=True).start()
    try:
        yield
    finally:
        done.set()


def _watch(done: threading.Event) -> None:
    watch, others, problem = Heartbeats(), [other for other in range(count()) if other != index()], None
    while problem is None:
        if done.wait(min(BEAT, 1.0)):
            return
        try:
            check()
            watch.look(others)
        except (OtherProcessFailedError, ValueError) as error:
            problem = error
    if done.wait(GRACE):
        return
    if isinstance(problem, ValueError) and fails_first():
        logger.error("%s", problem)
    logging.shutdown()  # writes what is left in memory of the log
    os._exit(2)


def leave() -> None:
    """Close the connection to the store, before the interpreter ends.

    Without a launcher's own store the main process hosts it, and stays up to `GRACE` seconds for those that still ask.
    """
    if _store.cache_info().currsize:
        left = [f"left/{other}" for other in range(count())]
        try:
            _store().set(left[index()], "")
            end = time.monotonic() + GRACE
            while is_main() and not _launcher_hosts() and not _store().check(left) and time.monotonic() < end:
                time.sleep(0.05)
        except RuntimeError:  # the store has gone
            pass
    _stop_beating.set()
    _store.cache_clear()


class Heartbeats:
    """Finds processes whose heartbeat has stopped."""

    def __init__(self) -> None:
        self.seen: dict[int, tuple[int, float]] = {}
        self.next = time.monotonic() + BEAT

    def look(self, missing: Sequence[int]) -> None:
        """Once in ``BEAT`` seconds, compare the heartbeats of the processes that are waited for."""
        now = time.monotonic()
        if now < self.next:
            return
        if now > self.next + PATIENCE / 2:  # this process itself stood still, as when a scheduler suspends a job
            self.seen.clear()
        self.next = now + BEAT
        for other in missing:
            beats = _asked(lambda store, other=other: store.add(f"beats/{other}", 0))
            before, since = self.seen.get(other, (None, now))
            self.seen[other] = (beats, since if beats == before else now)
            if now - self.seen[other][1] > PATIENCE:
                raise ValueError(
                    f"process {other} of {count()} (they count from 0) has not answered for {PATIENCE:.0f} seconds: "
                    "it was probably killed, out of memory; use a smaller batch and run the same command again"
                )


def _asked(question: Callable[[Any], Value]) -> Value:
    """What the store answers; if the store is gone, the process that hosted it has failed."""
    store = _store()
    try:
        return question(store)
    except RuntimeError as error:  # torch's DistNetworkError and the like
        raise OtherProcessFailedError(f"the store of this launch has gone ({error})") from error


def _launcher_hosts() -> bool:
    """Whether the store is the launcher's, which stays until every process has ended."""
    return os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"


def _joined() -> bool:
    """Whether this process has joined the launch's process group."""
    distributed = sys.modules.get("torch.distributed")
    return distributed is not None and distributed.is_available() and distributed.is_initialized()


@functools.cache
def _store():
    """A connection of our own to the launch's store, and the heartbeat through it."""
    from torch.distributed import PrefixStore, TCPStore

    if not _launcher_hosts() and not _joined():
        raise ValueError("the processes of this launch are not connected yet")
    try:
        server = TCPStore(
            os.environ["MASTER_ADDR"],
            int(os.environ["MASTER_PORT"]),
            is_master=False,
            wait_for_workers=False,
            timeout=CONNECT,
        )
    except (KeyError, RuntimeError) as error:
        raise ValueError(
            f"the store of this launch does not answer ({error}); start it with accelerate launch"
        ) from error
    store = PrefixStore(f"hf_cxr/{os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}", server)
    _stop_beating.clear()
    threading.Thread(target=_beat, args=(store, index()), daemon=True).start()
    return store


def _beat(store, number: int) -> None:
    try:
        while True:
            store.add(f"beats/{number}", 1)
            if _stop_beating.wait(BEAT):
                return
    except RuntimeError:
        return  # the store has gone
