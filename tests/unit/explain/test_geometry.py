"""A place in the original, pushed through the preprocessing and carried back, is the same place."""

import numpy as np
import pytest
import torch
from PIL import Image
from transformers.image_utils import PILImageResampling

from hf_cxr.data.images.grey import resize_grey
from hf_cxr.explain.geometry import Geometry, coverage, on_the_grid
from hf_cxr.processing import PixelProcessor, build_image_processor

# height, width, side after the resize, side of the crop: square and not, larger and smaller, crops of odd margins
SIZES = [
    (100, 100, 73, 64),
    (240, 130, 73, 64),
    (90, 333, 64, 64),
    (40, 60, 97, 64),
    (64, 64, 64, 64),
    (301, 257, 80, 49),
]
# of the original, as fractions: x, y, width, height; off-centre, and different across from down
BOXES = [(0.2, 0.25, 0.25, 0.15), (0.55, 0.6, 0.3, 0.25), (0.3, 0.62, 0.12, 0.2)]


def box_of(bright_HW):
    """x0, y0, x1, y1 of what is bright, in pixels."""
    rows, columns = np.flatnonzero(bright_HW.any(axis=1)), np.flatnonzero(bright_HW.any(axis=0))
    return np.array([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1])


@pytest.mark.parametrize("resample", sorted(PILImageResampling))
@pytest.mark.parametrize(("height", "width", "size", "crop"), SIZES)
def test_a_rectangle_comes_back_to_where_it_was_planted(height, width, size, crop, resample):
    pixels = PixelProcessor(build_image_processor(size, crop, mean=[0] * 3, std=[1] * 3, resample=resample))
    geometry = Geometry(height, width, size, crop)
    sides = np.array([width, height, width, height])
    left, top, wide, high = geometry.seen()
    for x, y, box_wide, box_high in BOXES:
        planted = np.round(np.array([x, y, x + box_wide, y + box_high]) * sides).astype(int)
        grey_HW = np.zeros((height, width), np.uint8)
        grey_HW[planted[1] : planted[3], planted[0] : planted[2]] = 255
        seen_DD = pixels(torch.from_numpy(resize_grey(grey_HW, size, resample))[None, None])[0, 0].numpy()
        visible = np.clip(planted, np.array([left, top] * 2) * sides, np.array([left + wide, top + high] * 2) * sides)
        for cell in (1, 8):  # pixel by pixel, and on a grid as coarse as a backbone's
            cells = crop // cell
            if cells * cell != crop:
                continue
            grid_hw = seen_DD.reshape(cells, cell, cells, cell).mean(axis=(1, 3))
            back_HW = geometry.to_original(grid_hw[None])[0]
            found = box_of(np.nan_to_num(back_HW, nan=-9) > grid_hw.max() / 2)
            assert (np.abs(found - visible) <= np.maximum(1, cell * sides / size)).all(), (cell, found, visible)


@pytest.mark.parametrize(("height", "width", "size", "crop"), SIZES)
def test_the_crop_is_the_processors_own(height, width, size, crop):
    # The number of a resized pixel's column (or row) is its level: the crop shows where it begins.
    processor = build_image_processor(size, crop, mean=[0] * 3, std=[1] * 3)
    level = np.arange(size, dtype=np.uint8)
    for grey in (np.tile(level, (size, 1)), np.tile(level[:, None], (1, size))):
        seen = processor(Image.fromarray(grey).convert("RGB"), return_tensors="np")["pixel_values"][0][0] * 255
        assert round(float(seen.min())) == Geometry(height, width, size, crop).start
        assert round(float(seen.max())) == Geometry(height, width, size, crop).start + crop - 1


@pytest.mark.parametrize("cells", [1, 4, 7, 16])
@pytest.mark.parametrize(("height", "width", "size", "crop"), SIZES)
def test_a_map_of_positions_gives_each_pixel_its_own_position(height, width, size, crop, cells):
    # A field that is linear in x or y is the same after interpolation, but for the outer half cells, which are held.
    geometry = Geometry(height, width, size, crop)
    x_hw, y_hw = (on_the_grid(lambda x, y, axis=axis: (x, y)[axis], geometry, cells) for axis in (0, 1))
    x_HW, y_HW = geometry.to_original(np.stack([x_hw, y_hw]))
    inner = (geometry.start + 0.5 * crop / cells) / size, (geometry.start + crop - 0.5 * crop / cells) / size
    for actual, side, axis in ((x_HW, width, 1), (y_HW, height, 0)):
        true = np.clip((np.arange(side) + 0.5) / side, *inner)
        expected = np.broadcast_to(true[None] if axis else true[:, None], (height, width))
        assert np.nanmax(np.abs(actual - expected)) < 1e-6


@pytest.mark.parametrize(("height", "width", "size", "crop"), SIZES)
def test_what_the_crop_cut_away_is_nan_and_nothing_else_is(height, width, size, crop):
    geometry = Geometry(height, width, size, crop)
    back_HW = geometry.to_original(np.ones((1, 3, 5)))[0]
    x, y, wide, high = geometry.seen()
    across = (np.arange(width) + 0.5) / width
    down = (np.arange(height) + 0.5) / height
    inside = ((down >= y) & (down <= y + high))[:, None] & ((across >= x) & (across <= x + wide))[None]
    assert np.array_equal(~np.isnan(back_HW), inside)
    assert inside.all() == (size == crop)
    assert np.allclose(back_HW[inside], 1)


def test_rows_and_columns_are_not_exchanged():
    geometry = Geometry(60, 200, 64, 64)
    map_hw = np.zeros((4, 4))
    map_hw[0, 3] = 1  # top right
    row, column = np.unravel_index(np.argmax(geometry.to_original(map_hw[None])[0]), (60, 200))
    assert row < 15
    assert column >= 150


def test_the_coverage_of_a_box_is_its_area():
    geometry = Geometry(120, 80, 80, 64)
    box = np.array([[0.31, 0.2, 0.3, 0.47]])
    share_hw = coverage(box, geometry, 7, 5)
    cell = (64 / 80 / 7) * (64 / 80 / 5)
    assert share_hw.sum() * cell == pytest.approx(0.3 * 0.47, rel=1e-6)
    assert share_hw.max() <= 1 + 1e-6
    row, column = np.unravel_index(np.nanargmax(geometry.to_original(share_hw[None])[0]), (120, 80))
    assert 0.31 <= (column + 0.5) / 80 <= 0.61
    assert 0.2 <= (row + 0.5) / 120 <= 0.67


def test_what_cannot_be_is_refused():
    with pytest.raises(ValueError, match="crop"):
        Geometry(10, 10, 8, 9)
    with pytest.raises(ValueError, match="shape"):
        Geometry(10, 10, 8, 8).to_original(np.zeros((4, 4)))
