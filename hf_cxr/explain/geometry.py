"""From the model's grid back to the pixels of the file: the image processor's crop and resize, inverted exactly.

The processor resizes the file's H x W pixels to S x S, whatever their shape, and crops the centre D x D; a map
divides that crop into h x w cells. Positions are continuous: pixel i reaches from i to i + 1, and its centre is at
i + 0.5, as in `PIL.Image.resize`. So a point at x in the file is at

    x S / W - (S - D) // 2   in the crop, and at   that * w / D   among the cells of a map.

What the crop cut away, the model has not seen: it is NaN there, never 0.

H, W = height and width of the file, S = side after the resize, D = side of the crop, h, w = grid of a map, C = maps.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Geometry:
    """How an image came to the model.

    Args:
        height, width: of the original, in pixels.
        resize_size: side of the square that it was resized to.
        image_size: side of the crop from its centre.
    """

    height: int
    width: int
    resize_size: int
    image_size: int

    def __post_init__(self):
        sides = (self.height, self.width, self.resize_size, self.image_size)
        if min(sides) < 1 or self.image_size > self.resize_size:
            raise ValueError(
                f"an image of {self.height} x {self.width} pixels cannot be resized to {self.resize_size} and cropped "
                f"to {self.image_size}: sides are at least 1, and the crop is not larger"
            )

    @property
    def start(self) -> int:
        """Where the crop begins in the resized square, in pixels, from the left and from the top."""
        return (self.resize_size - self.image_size) // 2

    def seen(self) -> tuple[float, float, float, float]:
        """What the model saw of the original: x, y, width, height as fractions of it."""
        first, size = self.start / self.resize_size, self.image_size / self.resize_size
        return first, first, size, size

    def to_original(self, map_Chw: NDArray[np.floating]) -> NDArray[np.float32]:
        """Maps at the original's pixels, interpolated bilinearly between the centres of the cells.

        Args:
            map_Chw: (C, h, w) on the model's grid.

        Returns:
            (C, H, W) float32; NaN where the centre of a pixel is outside the crop.
        """
        return self.resample(map_Chw, self.height, self.width)

    def resample(self, map_Chw: NDArray[np.floating], rows: int, columns: int) -> NDArray[np.float32]:
        """As `to_original`, for the whole original image drawn with so many rows and columns of pixels."""
        map_Chw = np.asarray(map_Chw, dtype=np.float64)
        if map_Chw.ndim != 3 or 0 in map_Chw.shape:
            raise ValueError(f"maps have shape {map_Chw.shape}; expected (C, h, w), maps by grid")
        down_Hh = self._weights(map_Chw.shape[1], rows)
        across_Ww = self._weights(map_Chw.shape[2], columns)
        return (down_Hh @ map_Chw @ across_Ww.T).astype(np.float32)

    def _weights(self, cells: int, pixels: int) -> NDArray[np.float64]:
        """Weight of each cell at each pixel along one side: (pixels, cells); a row of NaN outside the crop."""
        centre_P = (np.arange(pixels) + 0.5) / pixels
        crop_P = centre_P * self.resize_size - self.start
        cell_P = np.clip(crop_P * cells / self.image_size - 0.5, 0, cells - 1)
        before_P = np.floor(cell_P).astype(int)
        after_P = np.minimum(before_P + 1, cells - 1)
        share_P = cell_P - before_P
        weight_Pc, row_P = np.zeros((pixels, cells)), np.arange(pixels)
        np.add.at(weight_Pc, (row_P, before_P), 1 - share_P)
        np.add.at(weight_Pc, (row_P, after_P), share_P)
        weight_Pc[(crop_P < 0) | (crop_P > self.image_size)] = np.nan
        return weight_Pc


def on_the_grid(field: Callable[[NDArray, NDArray], NDArray], geometry: Geometry, cells: int) -> NDArray[np.float32]:
    """What a function of the original's fractions, such as a Gaussian, is at the centres of a grid's cells.

    Args:
        field: (x, y), fractions of the original from 0 to 1, each (cells, cells) -> value of the same shape.
        geometry: of the image.
        cells: of the grid, along a side.

    Returns:
        (cells, cells) float32.
    """
    centre_w = (np.arange(cells) + 0.5) / cells * geometry.image_size + geometry.start
    x_hw, y_hw = np.meshgrid(centre_w / geometry.resize_size, centre_w / geometry.resize_size)
    return np.asarray(field(x_hw, y_hw), dtype=np.float32)


def coverage(box_K4: NDArray[np.floating], geometry: Geometry, rows: int, columns: int) -> NDArray[np.float32]:
    """The share of each cell of the model's grid that is inside the boxes: the best map that such a grid allows.

    Args:
        box_K4: x, y, width, height as fractions of the original.
        geometry: of the image.
        rows, columns: of the grid.

    Returns:
        (rows, columns) float32, from 0 to 1; where boxes overlap, the larger share.
    """
    edge_h, edge_w = (
        (np.arange(cells + 1) / cells * geometry.image_size + geometry.start) / geometry.resize_size
        for cells in (rows, columns)
    )
    share_hw = np.zeros((rows, columns))
    for x, y, width, height in box_K4:
        down_h = _overlap(edge_h, y, y + height)
        across_w = _overlap(edge_w, x, x + width)
        share_hw = np.maximum(share_hw, down_h[:, None] * across_w[None])
    return share_hw.astype(np.float32)


def _overlap(edges: NDArray[np.float64], low: float, high: float) -> NDArray[np.float64]:
    inside = np.minimum(edges[1:], high) - np.maximum(edges[:-1], low)
    return np.maximum(inside, 0) / np.diff(edges)
