"""How much memory this process has had at most, on the systems that count it."""

import sys

import psutil


def peak_memory_gib() -> float | None:
    """The most memory that this process has had, in GiB; None where the system does not count it."""
    try:
        import resource
    except ImportError:  # Windows
        peak = getattr(psutil.Process().memory_info(), "peak_wset", None)
        return None if peak is None else peak / 2**30
    unit = 2**30 if sys.platform == "darwin" else 2**20  # bytes there, KiB elsewhere
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit
