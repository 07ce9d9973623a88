"""The last image of each reader, in memory: until the reader leaves or has not used it for some minutes.

Not in Gradio's session state, which outlives a closed page by an hour.
"""

import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Generic, TypeVar

Kept = TypeVar("Kept")


class Memory(Generic[Kept]):
    """Something for each reader, and for so many of them at most; who has not come back for longest is forgotten.

    Args:
        seconds: how long a value is kept after its last use.
        most: readers whose values are kept.
        on_forget: called with the reader of each value that is forgotten.
        clock: seconds since any moment.
    """

    def __init__(
        self,
        seconds: float,
        most: int,
        *,
        on_forget: Callable[[str], None] = lambda reader: None,
        clock: Callable[[], float] = time.monotonic,
    ):
        self.seconds, self.most, self.on_forget, self.clock = seconds, most, on_forget, clock
        self._kept: OrderedDict[str, tuple[float, Kept]] = OrderedDict()  # the longest unused first
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._kept)

    def put(self, reader: str, value: Kept) -> None:
        """Keep a value in place of the reader's last one."""
        with self._lock:
            self._kept[reader] = (self.clock(), value)
            self._kept.move_to_end(reader)
            forgotten = list(self._kept)[: max(0, len(self._kept) - self.most)]
        self._forget(forgotten)

    def get(self, reader: str) -> Kept | None:
        """A reader's value, which counts as a use; None if there is none any more."""
        self.sweep()
        with self._lock:
            if reader not in self._kept:
                return None
            value = self._kept[reader][1]
            self._kept[reader] = (self.clock(), value)
            self._kept.move_to_end(reader)
            return value

    def forget(self, reader: str) -> None:
        """Forget what is kept of a reader who has left."""
        self._forget([reader])

    def sweep(self) -> None:
        """Forget what was not used for too long."""
        now = self.clock()
        with self._lock:
            old = [reader for reader, (used, _) in self._kept.items() if now - used > self.seconds]
        self._forget(old)

    def sweep_regularly(self, every: float) -> None:
        """Sweep from a separate thread, which ends with the process."""

        def forever() -> None:
            while True:
                time.sleep(every)
                self.sweep()

        threading.Thread(target=forever, daemon=True, name="forget old images").start()

    def _forget(self, readers: list[str]) -> None:
        for reader in readers:
            with self._lock:
                self._kept.pop(reader, None)
            self.on_forget(reader)
