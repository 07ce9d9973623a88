"""Loops over pixels, compiled by numba: the row filters of PNG, and Pillow's resize.

Imported by `engine.kernels` alone, where it pays: importing numba takes 0.3 s, and each function is compiled at its
first call, once for this package and machine (numba keeps the result in ``__pycache__``, or in the user's cache folder
if the package cannot be written to).

All of it is integer arithmetic that the formats define, so the results are those of libpng and of Pillow to the bit.

H, W = height, width; B = bytes of a pixel; S = new side; K = coefficients of a new pixel.

Sources: Portable Network Graphics (Third Edition), W3C 2025, section 9 (filters); ITU-R BT.601 luma as Pillow's
``Convert.c`` rounds it; the two passes with 22-bit coefficients of Pillow's ``Resample.c``.
"""

import logging

import numba
import numpy as np
from numpy.typing import NDArray

from hf_cxr.compiling import compiled

logger = logging.getLogger(__name__)

PRECISION_BITS = 22  # of a coefficient: 32 less 8 of a pixel less 2 for negative lobes
GREY, GREY_ALPHA, COLOUR, GREY_16 = range(4)  # what the bytes of a pixel are; alpha after a colour is left out

Bytes = NDArray[np.uint8]


@numba.njit(inline="always")
def _paeth(left, up, corner):
    """Which of the three is nearest to left + up - corner; the first of equals."""
    to_left, to_up = up - corner, left - corner
    to_corner = abs(to_left + to_up)
    to_left, to_up = abs(to_left), abs(to_up)
    other, to_other = (up, to_up) if to_up <= to_corner else (corner, to_corner)
    return left if to_left <= to_other else other


@compiled()
def _unfilter_row(kind, filtered_N, above_N, row_N, pixel_bytes):
    """Undo the filter of one row: ``kind`` 0 to 4 is none, sub, up, average, Paeth. ``above_N`` may be ``row_N``'s own
    place of the row before it, or zeros for the first row."""
    count = len(row_N)
    if kind == 0:
        for n in range(count):
            row_N[n] = filtered_N[n]
    elif kind == 2:
        for n in range(count):
            row_N[n] = np.uint8(filtered_N[n] + above_N[n])
    elif pixel_bytes == 1:  # the left neighbour stays in a register
        left = np.int32(0)
        corner = np.int32(0)
        if kind == 1:
            for n in range(count):
                left = np.int32((left + filtered_N[n]) & 255)
                row_N[n] = left
        elif kind == 3:
            for n in range(count):
                left = np.int32((np.int32(filtered_N[n]) + ((left + np.int32(above_N[n])) >> 1)) & 255)
                row_N[n] = left
        else:
            for n in range(count):
                up = np.int32(above_N[n])
                left = np.int32((np.int32(filtered_N[n]) + _paeth(left, up, corner)) & 255)
                corner = up
                row_N[n] = left
    else:
        for n in range(min(pixel_bytes, count)):  # the first pixel has nothing at its left
            predicted = np.int32(above_N[n])
            if kind == 1:
                predicted = np.int32(0)
            elif kind == 3:
                predicted = predicted >> 1
            row_N[n] = np.uint8((np.int32(filtered_N[n]) + predicted) & 255)
        if kind == 1:
            for n in range(pixel_bytes, count):
                row_N[n] = np.uint8(filtered_N[n] + row_N[n - pixel_bytes])
        elif kind == 3:
            for n in range(pixel_bytes, count):
                mean = (np.int32(row_N[n - pixel_bytes]) + np.int32(above_N[n])) >> 1
                row_N[n] = np.uint8((np.int32(filtered_N[n]) + mean) & 255)
        else:
            for n in range(pixel_bytes, count):
                predicted = _paeth(
                    np.int32(row_N[n - pixel_bytes]), np.int32(above_N[n]), np.int32(above_N[n - pixel_bytes])
                )
                row_N[n] = np.uint8((np.int32(filtered_N[n]) + predicted) & 255)


@compiled()
def _unfilter_piece(kind, filtered_W, above_W, row_W, first, last):
    """Undo the filter 3 or 4 of the columns ``first`` to ``last`` of a grey row; those before them are done."""
    left = np.int32(row_W[first - 1]) if first else np.int32(0)
    corner = np.int32(above_W[first - 1]) if first else np.int32(0)
    for x in range(first, last):
        up = np.int32(above_W[x])
        predicted = (left + up) >> 1 if kind == 3 else _paeth(left, up, corner)
        left = np.int32((np.int32(filtered_W[x]) + predicted) & 255)
        corner = up
        row_W[x] = left


@compiled()
def _unfilter_four(kind, filtered, above_W, pixel_4W):
    """Undo the filter 3 or 4 of four grey rows at once, each a column behind the one above it.

    A pixel waits for its left neighbour; four rows keep the processor busy meanwhile. What is above a pixel of the
    second to fourth row is the left neighbour of the row above, which is still in a register.
    """
    width = pixel_4W.shape[1]
    count = width - 3
    for y in range(3):
        start = y * (width + 1) + 1
        over_W = above_W if y == 0 else pixel_4W[y - 1]
        _unfilter_piece(kind, filtered[start : start + width], over_W, pixel_4W[y], 0, 3 - y)
    above_N = above_W[3:]
    row0_N, row1_N, row2_N, row3_N = pixel_4W[0, 3:], pixel_4W[1, 2:], pixel_4W[2, 1:], pixel_4W[3]
    filtered0_N, filtered1_N = filtered[4 : 4 + count], filtered[width + 4 : width + 4 + count]
    filtered2_N, filtered3_N = filtered[2 * width + 4 :][:count], filtered[3 * width + 4 :][:count]
    left0, left1, left2, left3 = (
        np.int32(pixel_4W[0, 2]),
        np.int32(pixel_4W[1, 1]),
        np.int32(pixel_4W[2, 0]),
        np.int32(0),
    )
    if kind == 3:
        for n in range(count):
            left3 = np.int32((np.int32(filtered3_N[n]) + ((left3 + left2) >> 1)) & 255)
            left2 = np.int32((np.int32(filtered2_N[n]) + ((left2 + left1) >> 1)) & 255)
            left1 = np.int32((np.int32(filtered1_N[n]) + ((left1 + left0) >> 1)) & 255)
            left0 = np.int32((np.int32(filtered0_N[n]) + ((left0 + np.int32(above_N[n])) >> 1)) & 255)
            row0_N[n], row1_N[n], row2_N[n], row3_N[n] = left0, left1, left2, left3
    else:
        corner0, corner1, corner2, corner3 = (
            np.int32(above_W[2]),
            np.int32(pixel_4W[0, 1]),
            np.int32(pixel_4W[1, 0]),
            np.int32(0),
        )
        for n in range(count):
            up = np.int32(above_N[n])
            new3 = np.int32((np.int32(filtered3_N[n]) + _paeth(left3, left2, corner3)) & 255)
            new2 = np.int32((np.int32(filtered2_N[n]) + _paeth(left2, left1, corner2)) & 255)
            new1 = np.int32((np.int32(filtered1_N[n]) + _paeth(left1, left0, corner1)) & 255)
            new0 = np.int32((np.int32(filtered0_N[n]) + _paeth(left0, up, corner0)) & 255)
            corner0, corner1, corner2, corner3 = up, left0, left1, left2
            left0, left1, left2, left3 = new0, new1, new2, new3
            row0_N[n], row1_N[n], row2_N[n], row3_N[n] = left0, left1, left2, left3
    for y in range(1, 4):
        start = y * (width + 1) + 1
        _unfilter_piece(kind, filtered[start : start + width], pixel_4W[y - 1], pixel_4W[y], width - y, width)


@compiled()
def unfilter_grey(filtered: Bytes, pixel_HW: Bytes) -> bool:
    """Undo the row filters of an 8-bit grey PNG.

    Args:
        filtered: H * (1 + W) bytes, as they were inflated: each row's filter, then its bytes.
        pixel_HW: filled with the pixels.

    Returns:
        False for an unknown filter; the pixels are then not whole.
    """
    height, width = pixel_HW.shape
    above_W = np.zeros(width, dtype=np.uint8)
    step = width + 1
    y = 0
    while y < height:
        start = y * step
        kind = filtered[start]
        if kind > 4:
            return False
        rows = 1
        if kind >= 3 and width >= 4 and y + 4 <= height:
            while rows < 4 and filtered[start + rows * step] == kind:
                rows += 1
        if rows == 4:
            _unfilter_four(kind, filtered[start : start + 4 * step], above_W, pixel_HW[y : y + 4])
        else:
            rows = 1
            _unfilter_row(kind, filtered[start + 1 : start + step], above_W, pixel_HW[y], 1)
        y += rows
        above_W = pixel_HW[y - 1]
    return True


@compiled()
def unfilter_wide(filtered: Bytes, pixel_bytes: int, kind_of_pixel: int, pixel_HW: NDArray) -> bool:
    """Undo the row filters of a PNG with several bytes a pixel, and take its grey.

    Args:
        filtered: H * (1 + W * B) bytes, as they were inflated.
        pixel_bytes: B.
        kind_of_pixel: GREY_ALPHA (the first byte is taken), COLOUR (luma of the first three), GREY_16 (big-endian).
        pixel_HW: filled with the grey pixels: uint16 for GREY_16, else uint8.

    Returns:
        False for an unknown filter; the pixels are then not whole.
    """
    height, width = pixel_HW.shape
    count = width * pixel_bytes
    above_N, row_N = np.zeros(count, dtype=np.uint8), np.zeros(count, dtype=np.uint8)
    for y in range(height):
        start = y * (count + 1)
        kind = filtered[start]
        if kind > 4:
            return False
        _unfilter_row(kind, filtered[start + 1 : start + 1 + count], above_N, row_N, pixel_bytes)
        if kind_of_pixel == GREY_ALPHA:
            for x in range(width):
                pixel_HW[y, x] = row_N[x * pixel_bytes]
        elif kind_of_pixel == COLOUR:
            for x in range(width):
                n = x * pixel_bytes
                luma = np.int64(row_N[n]) * 19595 + np.int64(row_N[n + 1]) * 38470 + np.int64(row_N[n + 2]) * 7471
                pixel_HW[y, x] = (luma + 0x8000) >> 16
        else:
            for x in range(width):
                pixel_HW[y, x] = (np.int64(row_N[2 * x]) << 8) | np.int64(row_N[2 * x + 1])
        above_N, row_N = row_N, above_N
    return True


@compiled()
def resize_columns(pixel_HW: Bytes, first_S: NDArray[np.int64], weight_SK: NDArray[np.int32], new_HS: Bytes) -> None:
    """The horizontal pass: each new pixel is the weighted sum of K neighbours in its row, rounded and clipped.

    Args:
        pixel_HW: the image, C-contiguous.
        first_S: the first of the K columns, at most W - K.
        weight_SK: in units of 2^-22.
        new_HS: filled.
    """
    sides, weights = weight_SK.shape
    for y in range(len(pixel_HW)):
        row_W = pixel_HW[y]
        for s in range(sides):
            near_K = row_W[first_S[s] : first_S[s] + weights]
            weight_K = weight_SK[s]
            total = np.int32(1 << (PRECISION_BITS - 1))
            for k in range(weights):
                total += np.int32(near_K[k]) * weight_K[k]
            new_HS[y, s] = min(max(total >> PRECISION_BITS, 0), 255)


@compiled()
def resize_rows(pixel_HW: Bytes, first_S: NDArray[np.int64], weight_SK: NDArray[np.int32], new_SW: Bytes) -> None:
    """The vertical pass, after the horizontal one: see `resize_columns`."""
    width = pixel_HW.shape[1]
    total_W = np.empty(width, dtype=np.int32)
    for s in range(len(weight_SK)):
        total_W[:] = 1 << (PRECISION_BITS - 1)
        for k in range(weight_SK.shape[1]):
            weight = weight_SK[s, k]
            row_W = pixel_HW[first_S[s] + k]
            for x in range(width):
                total_W[x] += np.int32(row_W[x]) * weight
        row_W = new_SW[s]
        for x in range(width):
            row_W[x] = min(max(total_W[x] >> PRECISION_BITS, 0), 255)


def load_all() -> None:
    """Compile every function for the arrays that it is called with, or read it from the disk."""
    pixel_HW = np.zeros((4, 4), dtype=np.uint8)
    inflated = np.frombuffer(bytes(4 * 9), np.uint8)  # read-only, as inflated bytes are: another type to numba
    unfilter_grey(inflated[: 4 * 5], pixel_HW)
    unfilter_wide(inflated, 2, GREY_ALPHA, pixel_HW)
    unfilter_wide(inflated, 2, GREY_16, pixel_HW.astype(np.uint16))
    first_S, weight_SK = np.zeros(4, dtype=np.int64), np.zeros((4, 4), dtype=np.int32)
    resize_columns(pixel_HW, first_S, weight_SK, pixel_HW.copy())
    resize_rows(pixel_HW, first_S, weight_SK, pixel_HW.copy())
