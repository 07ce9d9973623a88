"""Random numbers of a training row: a function of (seed, epoch, row) alone, for a whole batch at once.

So an image is augmented alike on one process or many, in one micro-batch or several, resumed or straight through.

B = rows, R = numbers for each row.
"""

import numpy as np

INCREMENT = np.uint64(0x9E3779B97F4A7C15)  # of SplitMix64: 2^64 / golden ratio, odd


def row_uniforms(seed: int, epoch: int, row_B: np.ndarray, count: int) -> np.ndarray:
    """Uniform numbers that are a function of (seed, epoch, row, number) alone.

    No generator is made for a row. Each of seed, epoch, row and number, in this order, moves SplitMix64's counter by
    so many increments and one more, and its output is where the next one starts. So a row's numbers are the same in
    any batch, order or process, and rows, epochs and seeds have nothing in common.

    Args:
        seed, epoch: whole numbers; those below 0 or of more than 64 bits are taken modulo 2^64.
        row_B: row numbers, 0 or more.
        count: R.

    Returns:
        (B, R) float64, from 0 to below 1.

    Source: Steele, Lea and Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014; the output function
    is Stafford's variant 13, as in java.util.SplittableRandom.
    """
    state = np.zeros(1, np.uint64)
    for level in (seed, epoch):
        state = split(state, np.array([level % 2**64], np.uint64))
    state_B = split(state, np.asarray(row_B).astype(np.uint64))
    state_BR = split(state_B[:, None], np.arange(count, dtype=np.uint64))
    return (state_BR >> np.uint64(11)) * 2.0**-53


def split(state: np.ndarray, number: np.ndarray) -> np.ndarray:
    """SplitMix64's output, uint64, ``number`` + 1 increments after ``state``."""
    state = state + INCREMENT * (number + np.uint64(1))
    state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return state ^ (state >> np.uint64(31))
