"""Prepared images read where they lie: from the memory map of their Arrow files straight into a batch, not decoded.

A prepared image is a PGM of S x S pixels: a header of some 15 bytes, then the pixels, row by row. The offsets of a
record batch say where each of its images begins and ends; per image this costs one look at them, one comparison of the
header and one copy of the pixels.

An image that is stored in another way, or is damaged, is not read here: `MappedImages.read` names it, and the caller
decodes it, or reports why it cannot be decoded.

B = images of a batch, H = bytes of a header, K = record batches of the table, M = images of a record batch, N = rows,
S = side in pixels.
"""

from typing import Any

import datasets
import numpy as np
import pyarrow as pa


def pgm_header(size: int) -> bytes:
    """What precedes the pixels of a square image in a prepared folder.

    >>> pgm_header(256)
    b'P5 256 256 255\\n'
    """
    return b"P5 %d %d 255\n" % (size, size)


class MappedImages:
    """The stored pixels of a split's images. Nothing is opened before the first read, in each process of its own.

    Args:
        dataset: with a column ``image`` of bytes and paths; a selection of rows is followed.
        size: side S of the stored images in pixels.
    """

    def __init__(self, dataset: datasets.Dataset, size: int):
        self.dataset, self.size = dataset.select_columns("image"), size
        self._header = np.frombuffer(pgm_header(size), np.uint8)
        self._close()

    def _close(self) -> None:
        self._column: pa.ChunkedArray | None = None
        self._stop_K = self._source_N = None
        self._stored: dict[int, tuple[np.ndarray, np.ndarray]] = {}

    def __getstate__(self) -> dict[str, Any]:
        # A pickled Arrow array is a copy of its images; a pickled dataset is the names of its files.
        names = ("dataset", "size", "_header")
        return {name: self.__dict__[name] for name in names}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._close()

    def __len__(self) -> int:
        return len(self.dataset)

    def read(self, row_B: np.ndarray, pixel_BSS: np.ndarray) -> np.ndarray:
        """Copy the pixels of these rows into ``pixel_BSS``.

        Args:
            row_B: integer row numbers, 0 to N - 1.
            pixel_BSS: (B, S, S) uint8, contiguous; it is written to.

        Returns:
            The places in the batch whose image is not stored as a prepared one, and is not in ``pixel_BSS``.

        Raises:
            IndexError: a row number out of range.
        """
        chunk_B, place_B = self._place(row_B)
        head = len(self._header)
        head_BH, pixel_BP = np.zeros((len(row_B), head), np.uint8), pixel_BSS.reshape(len(row_B), -1)
        for i, (chunk, place) in enumerate(zip(chunk_B.tolist(), place_B.tolist(), strict=True)):
            content, start_M = self._stored.get(chunk) or self._open_batch(chunk)
            start, stop = start_M[place], start_M[place + 1]
            if stop - start == head + self.size**2:
                head_BH[i] = content[start : start + head]
                pixel_BP[i] = content[start + head : stop]
        return np.flatnonzero((head_BH != self._header).any(axis=1))

    def _place(self, row_B: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Of each row: the number of its record batch, and its place there."""
        if self._column is None:
            self._open()
        if len(row_B) and not (row_B.min() >= 0 and row_B.max() < len(self)):
            raise IndexError(f"rows from {row_B.min()} to {row_B.max()} of {len(self)}")
        source_B = row_B if self._source_N is None else self._source_N[row_B]
        chunk_B = np.searchsorted(self._stop_K, source_B, side="right")
        return chunk_B, source_B - (self._stop_K - self._rows_K)[chunk_B]

    def _open(self) -> None:
        # The table is the whole one, whatever rows were selected; `datasets` has no public name for the selection.
        selection = self.dataset._indices
        self._source_N = None if selection is None else selection.column(0).to_numpy().astype(np.int64)
        self._column = self.dataset.data.column("image")
        self._rows_K = np.array([len(chunk) for chunk in self._column.chunks], dtype=np.int64)
        self._stop_K = np.cumsum(self._rows_K)

    def _open_batch(self, chunk: int) -> tuple[np.ndarray, np.ndarray]:
        """The bytes of a record batch's images, and where each of the M begins, with the end of the last (M + 1,)."""
        bytes_M = self._column.chunk(chunk).field("bytes")
        _, offsets, content = bytes_M.buffers()
        start_M = np.frombuffer(offsets, np.int32)[bytes_M.offset :][: len(bytes_M) + 1]
        self._stored[chunk] = np.frombuffer(content or b"", np.uint8), start_M
        return self._stored[chunk]
