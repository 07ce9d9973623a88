"""Functions that numba compiles at their first call, and keeps on disk wherever that is possible.

Numba keeps them in ``__pycache__``, or in the user's cache folder if the package cannot be written to. Like ``.pyc``
files they are trusted when they are read: do not let NUMBA_CACHE_DIR name a folder that others can write to.
"""

import logging
from collections.abc import Callable
from typing import Any

import numba

logger = logging.getLogger(__name__)

_told: set[str] = set()


def compiled(**options: Any) -> Callable[[Callable], Callable]:
    """A decorator: compile at the first call, without the interpreter's lock.

    A folder that cannot be written to, or a full disk, costs the next process the compilation and nothing else.

    Args:
        options: of `numba.njit`.
    """

    def compile_late(function: Callable) -> Callable:
        try:
            late = numba.njit(cache=True, nogil=True, **options)(function)
        except RuntimeError as error:  # no folder that can be written to
            _tell(error)
            return numba.njit(nogil=True, **options)(function)
        if hasattr(late, "_cache"):  # not with NUMBA_DISABLE_JIT=1
            _let_saving_fail(late._cache)
        return late

    return compile_late


def _let_saving_fail(cache: Any) -> None:
    # numba has compiled a function when it saves it, and an error of the disk would be taken for the caller's.
    def save(signature: Any, data: Any) -> None:
        try:
            type(cache).save_overload(cache, signature, data)
        except OSError as error:
            _tell(error)

    cache.save_overload = save


def _tell(error: Exception) -> None:
    if str(error) not in _told:
        _told.add(str(error))
        logger.warning("compiled code cannot be kept, so the next process compiles it again: %s", error)
