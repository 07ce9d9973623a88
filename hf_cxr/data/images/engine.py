"""Which code decodes PNG pixels and resizes: numba's, or Pillow's; the pixels are the same to the bit.

The compiled code takes the common kinds of PNG (`png.py`) and the filters box, bilinear and bicubic (`resizing.py`).
Pillow reads everything else, and everything that the compiled code does not finish, so every error is Pillow's.

It is used from a process's `WARM_UP`-th image on: a process that reads a few never pays for the import. It needs the
extra ``fast`` (numba, and isal, which inflates PNG twice as fast as zlib); with ``NUMBA_DISABLE_JIT=1`` it is off.
"""

import importlib.util
import logging
import os
import threading
from functools import cache
from types import ModuleType

logger = logging.getLogger(__name__)

WARM_UP = 16  # images, which Pillow reads in less time than the import takes

_seen = 0
_lock = threading.Lock()


def kernels() -> ModuleType | None:
    """`compiled`, ready to be called, or None where Pillow is to be used. One call for each image that is decoded."""
    global _seen
    if _seen < WARM_UP:
        _seen += 1
        return None
    return loaded_kernels()


def started_kernels() -> ModuleType | None:
    """As `kernels`, and without counting."""
    return loaded_kernels() if _seen >= WARM_UP else None


def loaded_kernels() -> ModuleType | None:
    """`compiled`, imported now if that was not done; None if it cannot be."""
    with _lock:  # an import in several threads, and one warning
        return _load()


def engine_name() -> str:
    """What decodes PNG and resizes in this installation, for manifests and logs: "numba, isal", say, or "Pillow"."""
    if _is_off() or not _is_installed("numba"):
        return "Pillow"
    return "numba, isal" if _is_installed("isal") else "numba, zlib"


@cache
def _load() -> ModuleType | None:
    if _is_off() or not _is_installed("numba"):
        return None
    try:
        from hf_cxr.data.images import compiled
    except Exception as error:  # an installation of numba that does not fit NumPy or Python
        logger.warning("images are decoded by Pillow, which is slower: numba cannot be imported (%s)", error)
        return None
    return compiled


def _is_off() -> bool:
    return os.environ.get("NUMBA_DISABLE_JIT", "0") not in ("", "0")


def _is_installed(name: str) -> bool:
    return importlib.util.find_spec(name) is not None
