"""Pillow's resize of 8-bit grey, compiled: the same pixels to the bit, in half of the time.

Pillow sums integer coefficients of 22 bits, first along the rows, then along the columns, and rounds to 8 bits after
each. The coefficients are computed here as Pillow does. The first sizes of a process are also resized by Pillow and
compared, so that a Pillow that one day resizes differently is noticed: then Pillow is used.

H, W = height, width; N = old side, S = new side, K = coefficients of a new pixel.
"""

import logging
import math
from functools import lru_cache

import numpy as np
from PIL import Image

from hf_cxr.data.images import engine

logger = logging.getLogger(__name__)

COMPARED = 4  # sizes in each process that Pillow resizes as well
TOGETHER = 8  # coefficients that a vector instruction takes; K is a multiple

_compared: set[tuple[int, int, int, int]] = set()
_differs = False


def resized(pixel_HW: np.ndarray, size: int, resample: int) -> np.ndarray:
    """(size, size) uint8 from (H, W) uint8, as ``Image.resize`` gives it."""
    height, width = pixel_HW.shape
    if height == width == size:
        return pixel_HW.copy()  # as Pillow does
    compiled = engine.kernels()
    if compiled is None or _differs or resample not in FILTERS or min(height, width) < size:
        return _by_pillow(pixel_HW, size, resample)
    first_S, weight_SK = _coefficients(width, size, resample)
    new_HS = np.empty((height, size), dtype=np.uint8)
    compiled.resize_columns(np.ascontiguousarray(pixel_HW), first_S, weight_SK, new_HS)
    first_S, weight_SK = _coefficients(height, size, resample)
    new_SS = np.empty((size, size), dtype=np.uint8)
    compiled.resize_rows(new_HS, first_S, weight_SK, new_SS)
    key = (height, width, size, resample)
    if len(_compared) < COMPARED and key not in _compared:
        _compared.add(key)
        return _agreed(new_SS, _by_pillow(pixel_HW, size, resample))
    return new_SS


def _by_pillow(pixel_HW: np.ndarray, size: int, resample: int) -> np.ndarray:
    return np.array(Image.fromarray(pixel_HW).resize((size, size), resample=resample))


def _agreed(ours_SS: np.ndarray, pillow_SS: np.ndarray) -> np.ndarray:
    """Pillow's pixels; if ours are different ones, Pillow resizes everything from now on."""
    global _differs
    if not np.array_equal(ours_SS, pillow_SS):
        _differs = True
        logger.warning("images are resized by Pillow, which is slower: its pixels differ from those of this package")
    return pillow_SS


def _box(x: np.ndarray) -> np.ndarray:
    return np.where((x > -0.5) & (x <= 0.5), 1.0, 0.0)


def _bilinear(x: np.ndarray) -> np.ndarray:
    x = np.abs(x)
    return np.where(x < 1.0, 1.0 - x, 0.0)


def _bicubic(x: np.ndarray) -> np.ndarray:
    x, a = np.abs(x), -0.5
    outer = np.where(x < 2.0, (((x - 5) * x + 8) * x - 4) * a, 0.0)
    return np.where(x < 1.0, ((a + 2.0) * x - (a + 3.0)) * x * x + 1, outer)


FILTERS = {  # without those of sines, which libraries round differently
    int(Image.Resampling.BOX): (_box, 0.5),
    int(Image.Resampling.BILINEAR): (_bilinear, 1.0),
    int(Image.Resampling.BICUBIC): (_bicubic, 2.0),
}


@lru_cache(maxsize=64)
def _coefficients(old: int, new: int, resample: int) -> tuple[np.ndarray, np.ndarray]:
    """The first old pixel of each new one (S,) int64, and the weights (S, K) int32 in units of 2^-22.

    As `precompute_coeffs` and `normalize_coeffs_8bpc` of Pillow's Resample.c, in float64 and in its order, for a side
    that becomes smaller.
    """
    function, support = FILTERS[resample]
    scale = old / new
    support *= scale
    center_S1 = ((np.arange(new) + 0.5) * scale)[:, None]
    start_S1 = np.maximum((center_S1 - support + 0.5).astype(np.int64), 0)
    stop_S1 = np.minimum((center_S1 + support + 0.5).astype(np.int64), old)
    column_SK = start_S1 + np.arange(2 * math.ceil(support) + 1)
    weight_SK = np.where(column_SK < stop_S1, function((column_SK - center_S1 + 0.5) * (1.0 / scale)), 0.0)
    weight_SK /= np.cumsum(weight_SK, axis=1)[:, -1:]  # not sum, which adds in another order
    integer_SK = (weight_SK * (1 << 22) + np.where(weight_SK < 0, -0.5, 0.5)).astype(np.int32)
    used = int(np.flatnonzero(integer_SK.any(axis=0))[-1]) + 1
    count = min(-(-used // TOGETHER) * TOGETHER, old)
    first_S = np.minimum(start_S1[:, 0], old - count)
    rows, places = np.nonzero(integer_SK)
    shifted_SK = np.zeros((new, count), dtype=np.int32)
    shifted_SK[rows, places + (start_S1[:, 0] - first_S)[rows]] = integer_SK[rows, places]
    return first_S, shifted_SK
