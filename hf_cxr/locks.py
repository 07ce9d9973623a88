"""One lock for each place: a file that the operating system keeps locked as long as the process that took it lives."""

import logging
from pathlib import Path

from filelock import FileLock, Timeout

logger = logging.getLogger(__name__)


def acquired(path: Path, busy: Exception, *, seconds: float = 0) -> FileLock:
    """Take the lock of a file. The caller releases it; it is free as well once the process ends.

    Args:
        path: the lock's file; its folder exists.
        busy: raised if another process holds it; filelock's Timeout is its cause.
        seconds: how long to wait for that process.

    Raises:
        OSError, NotImplementedError: the file cannot be written, or its disk does not support locks.
    """
    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
    except Timeout as held:
        if not seconds:
            raise busy from held
        logger.info("another process is working in %s; waiting up to %g s until it ends", path.parent, seconds)
        try:
            lock.acquire(timeout=seconds)
        except Timeout as still_held:
            raise busy from still_held
    return lock
