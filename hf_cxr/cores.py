"""The cores that this process may use, and the threads that it takes: one, unless more are asked for.

Threads of one process wait for one another hundreds of times in a training step. libgomp, which torch's wheels ship,
lets them spin meanwhile, and where other programs take the cores the one that is waited for gets none: on two cores
with a load of 12, a quickstart step was 30 times slower with two spinning threads than with one. A command takes
one thread, however many cores there are, and if more are asked for they sleep while they wait
(``OMP_WAIT_POLICY=passive``). More are asked for by ``OMP_NUM_THREADS=N hf-cxr train ...``, or by ``accelerate launch
--num_cpu_threads_per_process N``.
"""

import logging
import os
import sys
from pathlib import Path

logger = logging.getLogger(__name__)

THREADS = "OMP_NUM_THREADS"
"""torch, OpenBLAS (NumPy, SciPy) and Arrow take their number of threads from it."""

WAITING = "OMP_WAIT_POLICY"

CGROUP = Path("/sys/fs/cgroup")


def usable_cores(cgroup: Path = CGROUP) -> int:
    """Cores that this process may use: those of its affinity, at most its control group's quota; at least 1.

    Args:
        cgroup: where control groups are mounted; a container sees its own there.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = _quota(cgroup)
    return max(1, cores if quota is None else min(cores, int(quota)))


def idle_cores(cgroup: Path = CGROUP) -> int:
    """Usable cores that no other program has kept busy in the last minute; at least 1.

    The load is that of the whole machine, so it is taken from all of its cores.
    """
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
    return max(1, min(usable_cores(cgroup), round((os.cpu_count() or 1) - load)))


def set_threads() -> None:
    """Before torch is imported: one thread for this process and those that it starts, or as many as were asked for."""
    if "torch" in sys.modules:
        return
    if not threads_are_asked_for():
        os.environ[THREADS] = "1"
        # Threads that draw for intervals do not wait for one another.
        os.environ.setdefault("NUMBA_NUM_THREADS", str(usable_cores()))
    elif os.environ[THREADS] != "1":
        os.environ.setdefault(WAITING, "passive")


def threads_are_asked_for() -> bool:
    """Whether the user has set how many threads a process takes.

    Where not, ``accelerate launch`` on a CPU sets OMP_NUM_THREADS to the number of cores, and the process that
    it starts cannot tell; the launcher's own environment and command line can.
    """
    if THREADS not in os.environ:
        return False
    if "ACCELERATE_MIXED_PRECISION" not in os.environ:  # which accelerate launch always sets
        return True
    import psutil

    try:
        launcher = psutil.Process().parent()
        if launcher is None or not any("accelerate" in Path(word).name for word in launcher.cmdline()[:4]):
            return True
        flags = {word.split("=")[0].replace("-", "_") for word in launcher.cmdline()}
        return THREADS in launcher.environ() or "__num_cpu_threads_per_process" in flags
    except psutil.Error:
        return True


def warn_of_busy_cores(processes: int = 1) -> None:
    """Log a warning if this machine's processes take more threads than there are idle cores.

    Args:
        processes: on this machine, each with OMP_NUM_THREADS threads.
    """
    text = os.environ.get(THREADS, "1").split(",")[0]
    threads = int(text) if text.isdecimal() else 1
    idle = idle_cores()
    if threads > 1 and threads * processes > idle:
        logger.warning(
            "%d threads are requested (%s=%d%s), and %d of %d cores %s idle: more threads than idle cores are not "
            "faster; leave %s out, or stop other programs",
            threads * processes,
            THREADS,
            threads,
            f" in {processes} processes" if processes > 1 else "",
            idle,
            usable_cores(),
            "is" if idle == 1 else "are",
            THREADS,
        )


def _quota(cgroup: Path) -> float | None:
    """Cores' worth of time that a control group grants; None without a limit, or without control groups."""
    try:
        quota, period = (cgroup / "cpu.max").read_text(encoding="ascii").split()  # version 2
    except (OSError, ValueError):
        try:
            quota, period = (
                (cgroup / "cpu" / name).read_text(encoding="ascii").strip()
                for name in ("cpu.cfs_quota_us", "cpu.cfs_period_us")  # version 1
            )
        except OSError:
            return None
    return None if quota in ("max", "-1") else int(quota) / int(period)
