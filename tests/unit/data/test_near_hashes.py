"""Bands find the pairs that comparing every pair finds; budgets that may miss one are refused."""

import tracemalloc
from itertools import combinations

import numpy as np
import pytest

from hf_cxr.data import near_hashes
from hf_cxr.data.near_hashes import (
    NEAR,
    NEAR_COARSE,
    cheapest_budgets,
    visit_near,
    visit_near_by_bands,
    visit_near_by_tiles,
)

EVEN = (3,) * 15 + (4,)
UNEVEN = (0, 4, 4, 3, 4, 3, 3, 0, 4, 3, 2, 3, 3, 3, 3, 1, 4, 3)  # two bands are not looked at; the sum is 50


def flipped(bit_MB, rows, bits, rng, *, low=0, high=1024):
    """Copies of rows in which so many bits each, from ``low`` on and below ``high``, are changed."""
    copy = bit_MB[rows].copy()
    for row, count in enumerate(bits):
        copy[row, low + rng.permutation(high - low)[:count]] ^= 1
    return copy


def random_bits(rng, count):
    return rng.integers(0, 2, (count, 1024), dtype=np.uint8)


def families(rng):
    """Random hashes, and copies around both limits."""
    base = random_bits(rng, 150)
    rows = rng.integers(0, 150, 350)
    coarse = flipped(base, rows[:200], rng.integers(40, 56, 200), rng, high=256)
    wide = flipped(base, rows[200:], rng.integers(0, 320, 150), rng)
    return np.concatenate([base, coarse, wide])


def spread_out(rng):
    """Copies whose changed bits are spread as evenly over the bands as they can be: the hardest to find."""
    base = random_bits(rng, 60)
    copies = []
    for row in base:
        for bands in (12, 16, 18):
            copy = row.copy()
            band = rng.permutation(bands)
            places = [np.arange(b, 256, bands) for b in band]
            order = [place[n] for n in range(4) for place in places][:NEAR_COARSE]
            copy[order] ^= 1
            copies.append(copy)
    return np.concatenate([base, np.array(copies)])


def alike(rng):
    """All of one family, hundreds of them with the same first 256 bits."""
    base = random_bits(rng, 1)
    one = flipped(base, np.zeros(80, int), rng.integers(0, 120, 80), rng)
    same_start = flipped(base, np.zeros(120, int), rng.integers(0, 400, 120), rng, low=256)
    return np.concatenate([base, one, same_start])


def two_values(rng):
    """All bits of a hash equal: every band has two values."""
    return np.repeat(rng.integers(0, 2, (200, 1), dtype=np.uint8), 1024, axis=1)


KINDS = {"families": families, "spread out": spread_out, "alike": alike, "two values": two_values}


def words(bit_MB):
    return np.ascontiguousarray(np.packbits(bit_MB, axis=1)).view(np.uint64)


def every_pair(bit_MB):
    """By the definition."""
    signed = bit_MB.astype(np.int32)
    found = {}
    differ = (signed[:, None, :256] != signed[None, :, :256]).sum(axis=2)
    for i, j in np.argwhere(np.triu(differ <= NEAR_COARSE, 1)):
        distance = int((bit_MB[i] != bit_MB[j]).sum())
        if distance <= NEAR:
            found[int(i), int(j)] = distance
    return found


def collected(search, word_MW, *args):
    found = {}

    def visit(i, j, distance):
        found.update(zip(zip(i.tolist(), j.tolist(), strict=True), distance.tolist(), strict=True))

    search(word_MW, *args, visit)
    return found


@pytest.mark.parametrize("kind", KINDS)
def test_all_searches_find_what_the_definition_says(kind):
    bit_MB = KINDS[kind](np.random.default_rng(0))
    bit_MB = bit_MB[np.random.default_rng(1).permutation(len(bit_MB))]
    expected = every_pair(bit_MB)
    assert len(expected) > 100
    assert collected(visit_near_by_tiles, words(bit_MB)) == expected
    budgets = UNEVEN if kind == "families" else EVEN
    assert collected(visit_near_by_bands, words(bit_MB), budgets) == expected
    assert collected(visit_near, words(bit_MB)) == expected


def test_budgets_that_could_miss_a_pair_are_refused():
    with pytest.raises(ValueError, match="sum to 48; to miss no pair they must sum to 49"):
        visit_near_by_bands(words(random_bits(np.random.default_rng(0), 9)), (3,) * 16, print)


def test_the_estimate_is_enough_for_every_pair_and_the_same_at_every_call():
    rng = np.random.default_rng(0)
    word_MW = rng.integers(0, 2**63, (100_000, 16)).astype(np.uint64)
    budgets = cheapest_budgets(word_MW)
    assert budgets is not None
    assert sum(budgets) > NEAR_COARSE
    assert budgets == cheapest_budgets(word_MW)
    assert cheapest_budgets(word_MW[:5_000]) is None, "of few hashes every pair is compared"
    nearly_equal = np.repeat(word_MW[:1], 100_000, axis=0)
    nearly_equal[:, 4:] = word_MW[:, 4:]
    assert cheapest_budgets(nearly_equal) is None, "no band tells them apart"


def test_the_least_cost_is_that_of_trying_all():
    rng = np.random.default_rng(0)
    cost_BT = rng.random((9, 8)).cumsum(axis=1) ** 3
    least, chosen = near_hashes._least(cost_BT)
    assert least == pytest.approx(sum(cost_BT[band, budget] for band, budget in enumerate(chosen)))
    budgets = np.stack(np.meshgrid(*[np.arange(4, 8)] * 9, indexing="ij"), axis=-1).reshape(-1, 9)
    budgets = budgets[budgets.sum(axis=1) > NEAR_COARSE]
    sums = cost_BT[np.arange(9), budgets].sum(axis=1)
    assert least <= sums.min() + 1e-12


def test_one_value_of_all_bands_takes_no_memory_for_its_pairs():
    """1,000 hashes that differ behind the first 256 bits alone: half a million pairs, 16 times, in blocks."""
    rng = np.random.default_rng(0)
    word_MW = rng.integers(0, 2**63, (1_000, 16)).astype(np.uint64)
    word_MW[:, :4] = 7
    tracemalloc.start()
    assert collected(visit_near_by_bands, word_MW, EVEN) == {}
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert 2**20 < peak < 40 * 2**20


@pytest.mark.parametrize("count", [0, 1, 2])
def test_few_hashes(count):
    word_MW = np.zeros((count, 16), np.uint64)
    expected = dict.fromkeys(combinations(range(count), 2), 0)
    for found in (
        collected(visit_near, word_MW),
        collected(visit_near_by_tiles, word_MW),
        collected(visit_near_by_bands, word_MW, EVEN),
    ):
        assert found == expected
