"""Picture statistics against slow counts, and what mirroring and inverting do to them."""

import numpy as np
import pytest

from hf_cxr.inference.picture_statistics import LEAST, cell_means, grey_range, layout, picture_statistics

RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (5, 37, 37)).astype(np.uint8)
QUANTILES, MEAN, SPREAD, MIRROR, UPSIDE, ACROSS, DOWN, ENTROPY = slice(0, 7), 7, 8, 9, 10, 11, 12, 15
BLACK, WHITE = 16, 17


def test_levels_are_those_of_numpy():
    values_NK = picture_statistics(IMAGES)
    assert values_NK.shape == (5, len(LEAST))
    flat = IMAGES.reshape(5, -1)
    quantiles = np.quantile(flat, (0.01, 0.1, 0.25, 0.5, 0.75, 0.9, 0.99), axis=1, method="inverted_cdf").T
    np.testing.assert_array_equal(values_NK[:, QUANTILES], quantiles)
    np.testing.assert_allclose(values_NK[:, MEAN], flat.mean(axis=1))
    np.testing.assert_allclose(values_NK[:, SPREAD], flat.std(axis=1))
    np.testing.assert_allclose(values_NK[:, BLACK], (flat < 5).mean(axis=1))
    np.testing.assert_allclose(values_NK[:, WHITE], (flat > 250).mean(axis=1))
    np.testing.assert_allclose(values_NK[:, ACROSS], np.log(np.abs(np.diff(IMAGES.astype(float))).mean((1, 2)) + 0.1))


@pytest.mark.parametrize("cells", [3, 8, 37, 50])
def test_cells_are_the_means_of_an_image_enlarged_until_they_divide_it(cells):
    enlarged = IMAGES.repeat(cells, axis=1).repeat(cells, axis=2)
    means = enlarged.reshape(5, cells, 37, cells, 37).mean(axis=(2, 4))
    np.testing.assert_allclose(cell_means(IMAGES, cells), means)


def test_mirroring_keeps_everything_but_the_cells_and_inverting_turns_the_levels():
    values_NK, mirrored_NK = picture_statistics(IMAGES), picture_statistics(np.ascontiguousarray(IMAGES[:, :, ::-1]))
    np.testing.assert_allclose(mirrored_NK[:, :18], values_NK[:, :18])
    assert np.abs(mirrored_NK[:, 18:] - values_NK[:, 18:]).max() > 1
    np.testing.assert_allclose(picture_statistics(255 - IMAGES)[:, MEAN], 255 - values_NK[:, MEAN])
    np.testing.assert_allclose(layout(255 - IMAGES), 255 - layout(IMAGES))


def test_a_ramp_is_its_mirror_image_and_the_opposite_upside_down_and_a_blank_image_is_neither():
    ramp = np.repeat(np.arange(0, 256, 8, dtype=np.uint8)[:, None], 32, axis=1)[None]
    assert picture_statistics(ramp)[0, MIRROR] == pytest.approx(1, abs=0.02)
    assert picture_statistics(ramp)[0, UPSIDE] == pytest.approx(-1, abs=0.02)
    blank = picture_statistics(np.full((2, 8, 8), [[[0]], [[255]]], np.uint8))
    assert np.isfinite(blank).all()
    np.testing.assert_array_equal(blank[:, (SPREAD, MIRROR, UPSIDE, ENTROPY)], 0)
    np.testing.assert_array_equal(blank[:, (BLACK, WHITE)], np.eye(2))


def test_the_range_leaves_out_a_percent_at_each_end():
    pixels = np.full((20, 20), 100, np.uint8)
    pixels[0, :3] = (0, 255, 255)
    assert grey_range(pixels) == 0
    assert grey_range(np.arange(256, dtype=np.uint8).reshape(16, 16)) == 251
