"""Which code measures the draws, numba's or NumPy's, and in how many threads.

Numba's (`compiled`) is some tens of times faster and takes up to half a second to start, so NumPy's measures what is
small. Their values agree to 2e-15 of the value; which of the two it was depends on the size of the problem alone, and
on whether numba can be imported, so the same call gives the same bits in any number of threads.

The threads: as many as the environment variable NUMBA_NUM_THREADS says, else OMP_NUM_THREADS, else one for each core
that this process may use. A command that was asked for no number takes all its cores here (`cores.set_threads`). With
NUMBA_DISABLE_JIT=1 everything is NumPy's.

N = images, M = patients, R = draws.
"""

import functools
import logging
import os
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from hf_cxr.cores import usable_cores
from hf_cxr.evaluation.cells import Ranking, WeightedCells
from hf_cxr.evaluation.checks import Array

logger = logging.getLogger(__name__)

COMPILED_FROM = 2**27
"""Cells times draws from which numba pays: what takes NumPy two or three seconds."""

COMPILED_AT_ONCE = 2**23
"""Weights of images at a time for numba: what a metric without compiled sums then takes is 64 MiB an array."""

MOST_WEIGHT, MOST_CELLS = 63, 2**29
"""The compiled sums add four weights in a byte and count cells in 32 bits; NumPy measures what is above."""

Weights = NDArray[np.int64]


@dataclass(frozen=True)
class Engine:
    """How a set of draws is measured.

    Attributes:
        compiled: by numba, else by NumPy.
        threads: how many blocks of draws are measured at the same time.
    """

    compiled: bool
    threads: int

    @classmethod
    def choose(cls, cells: int, draws: int) -> "Engine":
        """By the number of known cells of all findings, and the number of draws."""
        if cells * draws < COMPILED_FROM or not numba_works():
            return cls(False, 1)
        return cls(True, thread_count())

    def at_once(self, images: int, draws: int) -> int | None:
        """How many draws make a block; None for the number that suits NumPy."""
        if not self.compiled:
            return None
        fair = -(-draws // (4 * self.threads))  # so that no thread is idle for long at the end
        return max(1, min(fair, COMPILED_AT_ONCE // max(1, images)) // 64) * 64

    def cells(self, weight_RM: Weights) -> Callable[..., WeightedCells]:
        """What makes the cells of a ranking under these weights: (ranking, threshold, counts) -> cells."""
        if not self.compiled:
            return functools.partial(_numpy_cells, weight_RM)
        most = int(weight_RM.max(initial=0))
        if most > MOST_WEIGHT:
            return functools.partial(_numpy_cells, weight_RM)
        from hf_cxr.evaluation.compiled import CompiledCells, lanes_of

        weight_BML = lanes_of(weight_RM)

        def make(
            ranking: Ranking, threshold: float = float("nan"), counts: tuple[Array, ...] | None = None
        ) -> WeightedCells:
            if len(ranking.order_K) * most > MOST_CELLS:
                return _numpy_cells(weight_RM, ranking, threshold, counts)
            return CompiledCells(ranking, weight_RM, threshold, counts, weight_BML=weight_BML)

        return make

    def counts(
        self, weight_RM: Weights, columns: Sequence[tuple[NDArray[np.int64], NDArray[np.int64]]], bins: int
    ) -> NDArray[np.int64]:
        """How much weight each bin has, (R, columns, bins) int64.

        Args:
            weight_RM: the sets of weights.
            columns: for each, the patient and the bin of some cells, two arrays of one length.
            bins: V.
        """
        most = int(weight_RM.max(initial=0))
        cells = max((len(bin_K) for _, bin_K in columns), default=0)
        count_RCV = np.empty((len(weight_RM), len(columns), bins), dtype=np.int64)
        if not self.compiled or most > MOST_WEIGHT or cells * most > MOST_CELLS:
            weight_MR = np.ascontiguousarray(weight_RM.T)
            for column, (patient_K, bin_K) in enumerate(columns):
                place = np.ones(len(bin_K), dtype=np.int64), (bin_K, patient_K)
                count_RCV[:, column] = (csr_array(place, shape=(bins, len(weight_MR))) @ weight_MR).T
            return count_RCV
        from hf_cxr.evaluation.compiled import LANES, count_bins, lanes_of, rows_of

        weight_BML = lanes_of(weight_RM)
        count_BVL = np.empty((len(weight_BML), bins, LANES), dtype=np.int32)
        for column, (patient_K, bin_K) in enumerate(columns):
            count_bins(patient_K.astype(np.uint32), bin_K, weight_BML, count_BVL)
            count_RCV[:, column] = rows_of(count_BVL)[: len(weight_RM)]
        return count_RCV

    def each(self, work: Callable[..., None], arguments: Iterable[tuple]) -> None:
        """Call ``work(*one)`` for each of the arguments, in threads; at most two a thread are held at a time."""
        if self.threads == 1:
            for one in arguments:
                work(*one)
            return
        with ThreadPoolExecutor(self.threads) as pool:
            running = set()
            for one in arguments:
                if len(running) >= 2 * self.threads:
                    done, running = wait(running, return_when=FIRST_COMPLETED)
                    for future in done:
                        future.result()
                running.add(pool.submit(work, *one))
            for future in running:
                future.result()


def _numpy_cells(
    weight_RM: Weights,
    ranking: Ranking,
    threshold: float = float("nan"),
    counts: tuple[Array, ...] | None = None,
) -> WeightedCells:
    return WeightedCells(ranking, weight_RM, threshold, counts)


@functools.cache
def numba_works() -> bool:
    """Whether numba can be imported and may compile; the log says once if not."""
    try:
        import numba
    except ImportError as error:
        logger.warning("intervals take longer without numba (%s): pip install numba", error)
        return False
    if numba.config.DISABLE_JIT:
        logger.warning("intervals take longer with NUMBA_DISABLE_JIT=1: NumPy measures the draws")
    return not numba.config.DISABLE_JIT


def thread_count() -> int:
    """See the module's first lines.

    Raises:
        ValueError: the environment variable is not a whole number of at least 1.
    """
    for name in ("NUMBA_NUM_THREADS", "OMP_NUM_THREADS"):
        text = os.environ.get(name, "").split(",")[0].strip()
        if text:
            if not text.isdigit() or int(text) < 1:
                raise ValueError(
                    f"the environment variable {name} is {text!r}; set it to a number of threads, or unset it"
                )
            return int(text)
    return usable_cores()
