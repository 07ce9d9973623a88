"""Which code decodes PNG pixels and resizes: numba's, or Pillow's; the pixels are the same to the bit.

The compiled code takes the common kinds of PNG (`png.py`) and the filters box, bilinear and bicubic (`resizing.py`).
Pillow reads everything else, and everything that the compiled code does not finish, so every error is Pillow's.

Loading it costs a second, so a process that decodes little never does: it is used once `WARM_UP` pixels have been
decoded, or after `warm_up`, whose result processes that are forked then share. The extra ``fast`` adds isal, which
inflates PNG twice as fast as zlib. With ``NUMBA_DISABLE_JIT=1`` the compiled code is off.
"""

import importlib.util
import logging
import os
import threading
from functools import cache
from types import ModuleType

logger = logging.getLogger(__name__)

WARM_UP = 64 * 2**20  # pixels, which Pillow decodes and resizes in about the time that loading takes
LONG_WORK = 1024 * 2**20  # pixels of a dataset that are worth the loading at once

_decoded = 0
_lock = threading.Lock()


def kernels(pixels: int = 0) -> ModuleType | None:
    """`compiled`, ready to be called, or None where Pillow is to be used; ``pixels`` are about to be decoded."""
    global _decoded
    if _decoded < WARM_UP:
        _decoded += pixels
        return None
    with _lock:  # an import in several threads, and one warning
        return _load()


def warm_up() -> None:
    """Load the compiled code now, for this process and those that it forks."""
    global _decoded
    _decoded = WARM_UP
    if compiled := kernels():
        compiled.load_all()


def engine_name() -> str:
    """What decodes many PNG files in this installation, for manifests and logs: "numba, isal", say, or "Pillow"."""
    failed = bool(_load.cache_info().currsize) and _load() is None
    if failed or _is_off() or not _is_installed("numba"):
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
