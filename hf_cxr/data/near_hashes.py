"""Every pair of perceptual hashes that is near, without comparing every pair.

A pair is near if at most `NEAR_COARSE` of the first 256 bits and at most `NEAR` of all 1,024 differ; `duplicates.py`
says why. The 256 bits are divided among B bands. Give band b a budget of t_b bits, with sum t_b = NEAR_COARSE + 1: a
near pair differs in fewer than t_b bits in at least one band, for otherwise it would differ in NEAR_COARSE + 1. So no
near pair is missed if, in every band, those pairs are compared whose values differ in fewer than t_b bits. These are
found by sorting the hashes by the band's value, and looking up, for each of the masks with so few bits, the hashes
whose value is this one's with the mask's bits flipped.

(Norouzi, Punjani & Fleet, "Fast search in Hamming space with multi-index hashing", CVPR 2012; budgets that differ:
Qin et al., "GPH: similarity search in Hamming space", ICDE 2018.)

More bands mean fewer masks and more pairs to compare. The number of bands and the budgets are those of the least cost,
as a sample of the hashes tells: real radiographs agree more in low frequencies, and these bands get smaller budgets.
Where the cost is above that of comparing every pair (few hashes; or sets of which nearly all are alike), every pair
is compared, tile by tile. The memory does not depend on how many pairs are near.

M = hashes, W = 64-bit words of a hash, B = bands, V = values of a band.
"""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import combinations
from math import comb
from threading import Lock

import numpy as np
from numpy.typing import NDArray
from tqdm.auto import tqdm

BITS, COARSE_BITS = 1024, 256
NEAR, NEAR_COARSE = 240, 48  # bits that may differ, of all and of the first 256
COARSE_WORDS = COARSE_BITS // 64
FIRST_WORDS = slice(2, 4)  # of a hash, compared first: of the first 256 bits those in which images differ most
ROWS, COLUMNS = 128, 4096  # of a tile of pairs: with its 8 bytes a pair, about what a core's cache holds
AT_ONCE = 1 << 15  # pairs of a tile compared in full at once
CANDIDATES = 1 << 16  # pairs of a band compared at once
LOOKED_UP = 1 << 18  # values of a band looked up at once
LONG = 20_000  # hashes, from which on the search shows a bar
SAMPLE = 1024  # hashes on either side of the pairs that the costs are estimated from
BANDS, MOST_BUDGET = range(9, 20), 6
# Seconds on one core: a pair of a tile; of a band a value to look up, one that is found, and a pair.
TILE_COST, LOOK_COST, FOUND_COST, PAIR_COST = 3.8e-9, 3e-9, 14e-9, 9e-9

Pairs = Iterator[tuple[NDArray, NDArray]]
Visit = Callable[[NDArray, NDArray, NDArray], None]


def visit_near(words_MW: NDArray[np.uint64], visit: Visit) -> None:
    """Call ``visit(i, j, distance)`` with arrays of near pairs, i < j, and the bits of all in which they differ.

    A pair may come several times. The calls come one at a time, in no fixed order.

    Args:
        words_MW: (M, 16) uint64, of which the first four words are the first 256 bits.
        visit: what to do with some pairs.
    """
    budgets = cheapest_budgets(words_MW)
    if budgets is None:
        visit_near_by_tiles(words_MW, visit)
    else:
        visit_near_by_bands(words_MW, budgets, visit)


def visit_near_by_tiles(words_MW: NDArray[np.uint64], visit: Visit) -> None:
    """As `visit_near`, by comparing every pair, first in 128 bits: 1.5 % of radiographs' pairs pass."""
    words_WM = np.ascontiguousarray(words_MW[:, FIRST_WORDS].T)
    compare = _comparison(words_MW, visit)
    blocks = range(0, len(words_MW), ROWS)
    with ThreadPoolExecutor() as pool:  # NumPy releases the interpreter's lock in arrays of this size
        tasks = pool.map(lambda start: compare(_tiles(words_WM, start)), blocks)
        list(tqdm(tasks, "Comparing", len(blocks), disable=len(words_MW) < LONG, unit="block"))


def visit_near_by_bands(words_MW: NDArray[np.uint64], budgets: tuple[int, ...], visit: Visit) -> None:
    """As `visit_near`, by the bands of these budgets.

    Raises:
        ValueError: budgets with which a near pair could be missed.
    """
    if sum(budgets) <= NEAR_COARSE:
        raise ValueError(f"the budgets sum to {sum(budgets)}; to miss no pair they must sum to {NEAR_COARSE + 1}")
    compare = _comparison(words_MW, visit)
    sizes = _sizes(len(budgets))
    total = sum(_masks(bits, budget) for bits, budget in zip(sizes, budgets, strict=True))
    bar = tqdm(None, "Comparing", total, disable=len(words_MW) < LONG, unit="mask")
    with ThreadPoolExecutor() as pool, bar:
        for band, (bits, budget) in enumerate(zip(sizes, budgets, strict=True)):
            if not budget:
                continue
            sorted_band = _Band.of(words_MW, band, len(budgets), bits)
            for masks in pool.map(
                lambda top, here=sorted_band, t=budget: here.search(top, t, compare), range(-1, bits)
            ):
                bar.update(masks)


def cheapest_budgets(words_MW: NDArray[np.uint64]) -> tuple[int, ...] | None:
    """The budgets of the bands with which the search costs least; None if comparing every pair costs less.

    They are estimated from pairs of some hashes, the same ones at every call: the cost differs, the result does not.
    """
    hashes = len(words_MW)
    pairs = hashes * (hashes - 1) / 2
    best, budgets = pairs * TILE_COST, None
    if best < 0.5:  # seconds; the estimate itself takes some tenths
        return None
    rows = np.random.default_rng(0).permutation(hashes)[: 2 * SAMPLE]
    one, other = (_bits(words_MW[some]) for some in (rows[::2], rows[1::2]))
    for bands in BANDS:
        cost_BT = np.full((bands, MOST_BUDGET + 1), np.inf)  # T: budgets
        for band, bits in enumerate(_sizes(bands)):
            values = [_values(side, band, bands) for side in (one, other)]
            differ = np.bitwise_count(values[0][:, None] ^ values[1][None])
            below_T = np.cumsum(np.bincount(differ.ravel(), minlength=MOST_BUDGET)[:MOST_BUDGET]) / differ.size
            cost_BT[band, 0] = 0
            for budget in range(1, MOST_BUDGET + 1):
                looks = _masks(bits, budget) * hashes / 2
                yielded = below_T[budget - 1] * pairs
                found = min(looks, yielded)
                cost_BT[band, budget] = looks * LOOK_COST + found * FOUND_COST + yielded * PAIR_COST
        cost, chosen = _least(cost_BT)
        if cost < best:
            best, budgets = cost, chosen
    return budgets


def _least(cost_BT: NDArray) -> tuple[float, tuple[int, ...]]:
    """The least sum of one cost a band whose budgets sum to NEAR_COARSE + 1 at least; by dynamic programming."""
    least = {0: (0.0, ())}  # sum of the budgets so far, cut off at what is wanted -> cost and budgets
    for cost_T in cost_BT:
        longer: dict[int, tuple[float, tuple[int, ...]]] = {}
        for spent, (cost, budgets) in least.items():
            for budget, more in enumerate(cost_T.tolist()):
                now = min(spent + budget, NEAR_COARSE + 1)
                if now not in longer or cost + more < longer[now][0]:
                    longer[now] = (cost + more, (*budgets, budget))
        least = longer
    return least[NEAR_COARSE + 1]


def _comparison(words_MW: NDArray[np.uint64], visit: Visit) -> Callable[[Pairs], None]:
    """What compares candidates in full and hands the near ones on, from one thread at a time."""
    lock = Lock()

    def compare(pairs: Pairs) -> None:
        for i, j in pairs:
            coarse = np.bitwise_count(words_MW[i, :COARSE_WORDS] ^ words_MW[j, :COARSE_WORDS]).sum(axis=1)
            i, j = i[coarse <= NEAR_COARSE], j[coarse <= NEAR_COARSE]
            if not len(i):
                continue
            distance = np.bitwise_count(words_MW[i] ^ words_MW[j]).sum(axis=1, dtype=np.int64)
            near = distance <= NEAR
            if near.any():
                with lock:
                    visit(i[near], j[near], distance[near])

    return compare


def _tiles(words_WM: NDArray[np.uint64], start: int) -> Pairs:
    """Pairs i < j of hashes, i from ``start`` to ``start + ROWS``, that differ in few bits of the given words."""
    hashes = words_WM.shape[1]
    rows = min(ROWS, hashes - start)
    differ, count, total = (np.empty(rows * COLUMNS, dtype=kind) for kind in (np.uint64, np.uint8, np.uint8))
    for column in range(start, hashes, COLUMNS):
        width = min(COLUMNS, hashes - column)
        tile = [buffer[: rows * width].reshape(rows, width) for buffer in (differ, count, total)]
        tile[2][:] = 0
        for word_M in words_WM:
            np.bitwise_xor(word_M[start : start + rows, None], word_M[None, column : column + width], out=tile[0])
            np.add(tile[2], np.bitwise_count(tile[0], out=tile[1]), out=tile[2])
        pairs = np.flatnonzero(tile[2] <= NEAR_COARSE)
        for some in range(0, len(pairs), AT_ONCE):
            row, offset = np.divmod(pairs[some : some + AT_ONCE], width)
            i, j = start + row, column + offset
            yield i[i < j], j[i < j]


@dataclass(frozen=True)
class _Band:
    """The hashes, sorted by the value of one band.

    Args:
        order_M: row of each hash, by value.
        value_M: the values, ascending.
        first_V: for every possible value the place of its first hash; the place after the last one at the end.
        is_there_V: whether a hash has the value.
        pair_M: the two words that are compared first, as one number of 16 bytes.
        bits: of a value.
    """

    order_M: NDArray[np.int64]
    value_M: NDArray[np.int64]
    first_V: NDArray[np.int32]
    is_there_V: NDArray[np.bool_]
    pair_M: NDArray[np.complex128]
    bits: int

    @classmethod
    def of(cls, words_MW: NDArray[np.uint64], band: int, bands: int, bits: int) -> "_Band":
        blocks = (words_MW[start : start + AT_ONCE] for start in range(0, max(len(words_MW), 1), AT_ONCE))
        value_M = np.concatenate([_values(_bits(block), band, bands) for block in blocks]).astype(np.int64)
        order_M = np.argsort(value_M, kind="stable")
        count_V = np.bincount(value_M, minlength=1 << bits)
        first_V = np.concatenate([[0], np.cumsum(count_V)]).astype(np.int32)
        pair_M2 = np.ascontiguousarray(words_MW[:, FIRST_WORDS])[order_M]
        return cls(order_M, value_M[order_M], first_V, count_V > 0, pair_M2.view(np.complex128)[:, 0], bits)

    def search(self, top: int, budget: int, compare: Callable[[Pairs], None]) -> int:
        """Compare the hashes whose values differ in fewer bits than the budget, ``top`` being the highest of these.

        A ``top`` of -1 stands for equal values.

        Returns:
            How many masks that were.
        """
        if top < 0:
            stop_M = self.first_V[self.value_M + 1].astype(np.int64)
            place_M = np.arange(len(stop_M))
            compare(self._candidates(place_M, place_M + 1, stop_M - place_M - 1))
            return 1
        # One of the two has a 0 there, and is the one that looks for the other.
        place_H = np.flatnonzero((self.value_M >> top & 1) == 0)
        value_H = self.value_M[place_H]
        masks = np.array(
            [
                (1 << top) + sum(1 << bit for bit in more)
                for others in range(budget - 1)
                for more in combinations(range(top), others)
            ],
            dtype=np.int64,
        )
        at_once = max(LOOKED_UP // max(len(value_H), 1), 1)
        for start in range(0, len(masks), at_once):
            partner = (masks[start : start + at_once, None] ^ value_H).ravel()
            found = np.flatnonzero(self.is_there_V[partner])
            partner = partner[found]
            first = self.first_V[partner].astype(np.int64)
            place = place_H[found % len(value_H)] if at_once > 1 else place_H[found]
            compare(self._candidates(place, first, self.first_V[partner + 1] - first))
        return len(masks)

    def _candidates(self, place: NDArray, first: NDArray, count: NDArray) -> Pairs:
        """Pairs of the hash at each place and ``count`` ones from ``first`` on, if the first words pass."""
        end = np.cumsum(count)
        start, done = 0, 0
        while start < len(end) and done < end[-1]:
            stop = max(int(np.searchsorted(end, done + CANDIDATES, side="right")), start + 1)
            some = slice(start, stop)
            one = np.repeat(place[some], count[some])
            other = np.repeat(first[some] + count[some] - end[some] + done, count[some])
            other += np.arange(len(other))
            differ = self.pair_M[one].view(np.uint64)
            differ ^= self.pair_M[other].view(np.uint64)
            bits = np.bitwise_count(differ)
            few = np.flatnonzero(bits[::2] + bits[1::2] <= NEAR_COARSE)
            if len(few):
                i, j = self.order_M[one[few]], self.order_M[other[few]]
                yield np.minimum(i, j), np.maximum(i, j)
            start, done = stop, int(end[stop - 1])


def _sizes(bands: int) -> list[int]:
    """Bits of each band."""
    return [len(range(band, COARSE_BITS, bands)) for band in range(bands)]


def _masks(bits: int, budget: int) -> int:
    """How many sets of bits are smaller than the budget."""
    return sum(comb(bits, changed) for changed in range(budget))


def _bits(words_MW: NDArray[np.uint64]) -> NDArray[np.uint8]:
    """The first 256 bits, (M, 256) of 0 and 1."""
    return np.unpackbits(np.ascontiguousarray(words_MW[:, :COARSE_WORDS]).view(np.uint8), axis=1)


def _values(bit_MB: NDArray[np.uint8], band: int, bands: int) -> NDArray[np.uint32]:
    """The value of a band, (M,): every ``bands``-th bit, because neighbours in frequency are alike."""
    value_M = np.zeros(len(bit_MB), dtype=np.uint32)
    for place, bit in enumerate(range(band, COARSE_BITS, bands)):
        value_M |= bit_MB[:, bit].astype(np.uint32) << np.uint32(place)
    return value_M
