"""One map against boxes: Wang's convention by hand and by a slow loop, laws, and what is refused."""

import math

import numpy as np
import pytest
from scipy.stats import spearmanr

from hf_cxr.evaluation.boxes import check_boxes, detected_boxes, overlaps, rank_correlation, score_map


def plateau(*regions, size=20):
    """A map that is 0 but for (left, top, right, bottom, value), in cells."""
    map_HW = np.zeros((size, size))
    for left, top, right, bottom, value in regions:
        map_HW[top:bottom, left:right] = value
    return map_HW


def test_a_map_that_is_the_box_finds_it():
    score = score_map(plateau((4, 6, 10, 8, 3.0)), [[0.2, 0.3, 0.3, 0.1]])
    np.testing.assert_allclose(score.iou_K, [1])
    np.testing.assert_allclose(score.iobb_K, [1])
    assert score.hit
    assert score.energy == pytest.approx(1)
    assert score.covered == pytest.approx(0.03)
    assert len(score.detected_iou_D) == 2  # one for each cut


def test_iobb_divides_by_the_detected_box():
    small = score_map(plateau((5, 5, 7, 7, 1.0)), [[0.2, 0.2, 0.4, 0.4]])  # 0.01 inside 0.16
    assert small.iobb_K[0] == pytest.approx(1)
    assert small.iou_K[0] == pytest.approx(0.01 / 0.16)
    large = score_map(plateau((2, 2, 14, 14, 1.0)), [[0.2, 0.2, 0.4, 0.4]])  # 0.36 around 0.16
    assert large.iobb_K[0] == pytest.approx(0.16 / 0.36)
    assert large.iou_K[0] == pytest.approx(0.16 / 0.36)


def test_the_map_is_cut_at_60_and_at_180_individually():
    nested = plateau((2, 2, 12, 12, 61.0), (4, 4, 6, 6, 255.0))
    np.testing.assert_allclose(detected_boxes(nested), [[0.1, 0.1, 0.6, 0.6], [0.2, 0.2, 0.3, 0.3]])
    np.testing.assert_allclose(
        detected_boxes(plateau((2, 2, 12, 12, 60.0), (4, 4, 6, 6, 255.0))), [[0.2, 0.2, 0.3, 0.3]] * 2
    )


def test_each_isolated_region_has_a_box_and_the_best_one_counts():
    score = score_map(plateau((0, 0, 4, 4, 1.0), (10, 10, 14, 16, 1.0)), [[0.5, 0.5, 0.2, 0.3], [0.0, 0.0, 0.4, 0.4]])
    np.testing.assert_allclose(score.iou_K, [1, 0.25])
    np.testing.assert_allclose(sorted(score.detected_iobb_D), [1, 1, 1, 1])


def slow_boxes(map_HW):
    """By flood fill, a cell at a time."""
    known = map_HW[~np.isnan(map_HW)]
    found = []
    for cut in (60, 180):
        open_cells = {
            (i, j)
            for i, j in np.ndindex(map_HW.shape)
            if (map_HW[i, j] - known.min()) / (known.max() - known.min()) * 255 > cut
        }
        while open_cells:
            queue, region = [open_cells.pop()], []
            while queue:
                i, j = queue.pop()
                region.append((i, j))
                near = {(i + a, j + b) for a in (-1, 0, 1) for b in (-1, 0, 1)} & open_cells
                open_cells -= near
                queue += near
            i, j = np.array(region).T
            height, width = map_HW.shape
            found.append((j.min() / width, i.min() / height, (j.max() + 1) / width, (i.max() + 1) / height))
    return sorted(found)


@pytest.mark.parametrize("seed", range(6))
def test_boxes_and_overlaps_are_those_of_a_slow_loop(seed):
    rng = np.random.default_rng(seed)
    map_HW = np.round(rng.random((9, 13)), 2)
    map_HW[:, :2] = np.nan
    detected = detected_boxes(map_HW)
    np.testing.assert_allclose(sorted(map(tuple, detected)), slow_boxes(map_HW))
    truth = np.array([[0.2, 0.1, 0.5, 0.45], [0.6, 0.6, 0.95, 0.8]])
    iobb_DK, iou_DK = overlaps(detected, truth)
    grid = (np.arange(400) + 0.5) / 400  # of cells so small that counting them is the area
    for d, k in np.ndindex(iobb_DK.shape):
        inside = [
            np.outer((grid > y0) & (grid < y1), (grid > x0) & (grid < x1))
            for x0, y0, x1, y1 in (detected[d], truth[k])
        ]
        both = (inside[0] & inside[1]).sum()
        assert iobb_DK[d, k] == pytest.approx(both / inside[0].sum(), abs=0.06)
        assert iou_DK[d, k] == pytest.approx(both / (inside[0] | inside[1]).sum(), abs=0.03)


def test_scaling_the_map_and_mirroring_everything_change_nothing():
    rng = np.random.default_rng(0)
    map_HW, boxes = rng.random((16, 24)), np.array([[0.1, 0.2, 0.3, 0.25]])
    score, scaled = score_map(map_HW, boxes), score_map(7 * map_HW - 3, boxes)
    mirrored = score_map(map_HW[:, ::-1], [[1 - 0.1 - 0.3, 0.2, 0.3, 0.25]])
    for other in (scaled, mirrored):
        np.testing.assert_allclose(other.iou_K, score.iou_K)
        np.testing.assert_allclose(other.iobb_K, score.iobb_K)
        assert (other.hit, other.near) == (score.hit, score.near)
    assert mirrored.energy == pytest.approx(score.energy)
    assert 0 < score.iou_K[0] < 1


def test_the_pointing_game_is_about_the_highest_place():
    boxes = [[0.5, 0.5, 0.2, 0.2], [0.0, 0.0, 0.1, 0.1]]
    assert score_map(plateau((11, 11, 12, 12, 1.0)), boxes).hit
    assert score_map(plateau((1, 1, 2, 2, 1.0)), boxes).hit  # in either box
    beside = score_map(plateau((9, 11, 10, 12, 1.0)), boxes, tolerance=0.03)  # its centre is 0.025 to the left
    assert (beside.hit, beside.near) == (False, True)
    assert not score_map(plateau((9, 11, 10, 12, 1.0)), boxes, tolerance=0.02).near


def test_a_flat_map_finds_nothing_and_is_named():
    score = score_map(np.full((8, 8), 0.7), [[0.0, 0.0, 0.5, 1.0]])
    assert score.flat
    assert not score.hit
    assert score.iobb_K.tolist() == score.iou_K.tolist() == [0.0]
    assert len(score.detected_iou_D) == 0
    assert score.energy == pytest.approx(0.5)  # what it covers
    assert math.isnan(score_map(np.zeros((8, 8)), [[0.0, 0.0, 0.5, 1.0]]).energy)
    assert not score_map(plateau((1, 1, 2, 2, 1.0)), [[0.0, 0.0, 0.5, 1.0]]).flat


def test_what_was_not_seen_is_in_no_box():
    map_HW = plateau((0, 0, 10, 10, 1.0))
    map_HW[:, :5] = np.nan
    np.testing.assert_allclose(detected_boxes(map_HW)[0], [0.25, 0, 0.5, 0.5])


def test_rank_correlation_is_spearmans():
    rng = np.random.default_rng(3)
    first, second = np.round(rng.random((7, 7)), 1), np.round(rng.random((7, 7)), 1)
    assert rank_correlation(first, second) == pytest.approx(spearmanr(first.ravel(), second.ravel())[0])
    assert rank_correlation(first, first**3) == pytest.approx(1)
    assert rank_correlation(first, -first) == pytest.approx(-1)
    assert math.isnan(rank_correlation(first, np.ones((7, 7))))
    with pytest.raises(ValueError, match="one grid"):
        rank_correlation(first, second[:3])


@pytest.mark.parametrize(
    ("map_HW", "boxes", "words"),
    [
        (np.zeros(4), [[0, 0, 1, 1]], "shape"),
        (np.full((4, 4), np.nan), [[0, 0, 1, 1]], "no finite value"),
        (np.full((4, 4), np.inf), [[0, 0, 1, 1]], "infinite"),
        (np.zeros((4, 4)), np.zeros((0, 4)), "at least 1"),
        (np.zeros((4, 4)), [[0, 0, 0, 1]], "width 0"),
        (np.zeros((4, 4)), [[0.5, 0, 0.6, 1]], "inside the image"),
        (np.zeros((4, 4)), [[0, np.nan, 0.6, 1]], "inside the image"),
    ],
)
def test_bad_maps_and_boxes_are_refused(map_HW, boxes, words):
    with pytest.raises(ValueError, match=words):
        score_map(map_HW, boxes)


def test_a_box_that_touches_the_edge_is_accepted():
    assert check_boxes(np.array([[0.7, 0.1, 0.3, 0.9]], dtype=np.float32)).shape == (1, 4)
