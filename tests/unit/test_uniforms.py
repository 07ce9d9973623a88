"""Numbers of a row: as the published generator gives them, uniform, and unrelated between rows, epochs and seeds."""

import numpy as np
from scipy import stats

from hf_cxr.uniforms import row_uniforms, split


def test_uniforms_begin_as_splitmix64_does():
    """The published output of seed 1234567; here a state is reached by mixing, so each step is compared by itself."""
    outputs = split(np.array([1234567], np.uint64), np.arange(5, dtype=np.uint64))
    assert outputs.tolist() == [
        6457827717110365317,
        3203168211198807973,
        9817491932198370423,
        4593380528125082431,
        16408922859458223821,
    ]


def slow_uniforms(seed, epoch, row, number):
    """`row_uniforms` with Python's whole numbers."""
    state = 0
    for level in (seed, epoch, row, number):
        state = (state + 0x9E3779B97F4A7C15 * (level + 1)) % 2**64
        state = (state ^ (state >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
        state = (state ^ (state >> 27)) * 0x94D049BB133111EB % 2**64
        state ^= state >> 31
    return (state >> 11) / 2**53


def test_uniforms_are_a_function_of_seed_epoch_and_row():
    rows = [5, 0, 10**12, 5]
    for seed, epoch in ((0, 0), (42, 3), (2**64 - 1, 29)):
        expected = [[slow_uniforms(seed, epoch, row, number) for number in range(3)] for row in rows]
        assert row_uniforms(seed, epoch, np.array(rows), 3).tolist() == expected
    assert row_uniforms(0, 0, np.array([], dtype=np.int64), 2).shape == (0, 2)


def test_uniforms_are_uniform_and_have_nothing_in_common():
    """Along rows, epochs and seeds, and between the two numbers of a row."""
    rows = np.arange(20_000)
    along = {
        "rows": row_uniforms(0, 0, rows, 2),
        "epochs": np.concatenate([row_uniforms(0, epoch, rows[:20], 2) for epoch in range(1000)]),
        "seeds": np.concatenate([row_uniforms(seed, 0, rows[:20], 2) for seed in range(1000)]),
    }
    for name, uniform_N2 in along.items():
        for uniform_N in uniform_N2.T:
            assert stats.kstest(uniform_N, "uniform").pvalue > 1e-3, name
            for lag in (1, 2, 20):  # 20: the same row of the next epoch or seed
                assert abs(np.corrcoef(uniform_N[lag:], uniform_N[:-lag])[0, 1]) < 4 / np.sqrt(len(rows)), (name, lag)
        assert abs(np.corrcoef(uniform_N2.T)[0, 1]) < 4 / np.sqrt(len(rows)), name
        cells = np.histogram2d(*uniform_N2.T, bins=10, range=[(0, 1)] * 2)[0]  # jointly, too
        assert stats.chisquare(cells.ravel()).pvalue > 1e-3, name
        assert len(np.unique(uniform_N2)) == uniform_N2.size, name
