"""One heat map against the boxes that a radiologist drew: what a localisation score is made of.

Boxes are x, y, width, height as fractions of the image, so that a map of any resolution can be measured; a map covers
the whole image, NaN where the model did not see it.

Wang et al., "ChestX-ray8", CVPR 2017, section 3.2: the map's values are scaled to 0 to 255, cut at 60 and at 180
individually, and a box is put around every isolated region of each. Section 4: a drawn box is found if a detected box
has IoBB > T(IoBB) with it, where IoBB is the intersection over the area of the *detected* box (not over the drawn
one, as some later papers have it); or by IoU > T(IoU). IoBB forgives what is too small: one pixel inside the drawn
box has IoBB 1. A control that scores high by it shows how much.

H, W = resolution of a map, K = drawn boxes, D = detected boxes.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import ndimage
from scipy.stats import rankdata

from hf_cxr.evaluation.checks import Array

CUTS = (60.0, 180.0)
"""Where the map, scaled to 0 to 255, is cut (Wang et al.)."""
TOLERANCE = 0.03
"""Of the image's side, for the pointing game: 15 pixels (Zhang et al.) of the 500 that their images have."""
TOUCHING = np.ones((3, 3), dtype=int)  # cells that touch at a corner are one region


@dataclass(frozen=True)
class MapScore:
    """One map against the K boxes of its finding in its image.

    Attributes:
        iobb_K: the highest IoBB of a detected box with each drawn box; 0 if nothing was detected.
        iou_K: the same for IoU.
        detected_iobb_D: the highest IoBB of each detected box with a drawn one.
        detected_iou_D: the same for IoU.
        hit: the map's highest value is inside a drawn box (the pointing game).
        near: it is inside one, or no further from it than the tolerance.
        energy: the share of the map's sum that is inside the drawn boxes; NaN for a map of zeros.
        covered: the share of the image inside the drawn boxes: what ``energy`` is for a map that is equal everywhere.
        flat: all values are equal, so that the map points nowhere; it detects and hits nothing.
    """

    iobb_K: Array
    iou_K: Array
    detected_iobb_D: Array
    detected_iou_D: Array
    hit: bool
    near: bool
    energy: float
    covered: float
    flat: bool


def score_map(map_HW: ArrayLike, box_K4: ArrayLike, *, tolerance: float = TOLERANCE) -> MapScore:
    """Compare a map with the boxes of its finding.

    The pointing game is Zhang et al., "Top-down Neural Attention by Excitation Backprop", ECCV 2016, section 4.1;
    of several highest cells the middle of the first region counts. Energy is Wang H. et al., "Score-CAM", CVPRW 2020,
    section 4.3.

    Args:
        map_HW: the whole image, NaN where the model did not see it; higher is more.
        box_K4: x, y, width, height as fractions of the image; at least one.
        tolerance: of ``near``, as a fraction of the side.

    Raises:
        ValueError: other shapes, a map without a finite value or with an infinite one, a box that is empty or outside
            the image.
    """
    map_HW, box_K4 = check_map(map_HW), check_boxes(box_K4)
    truth_K4 = _corners(box_K4)
    inside_HW = _inside(map_HW.shape, truth_K4, 0.0)
    covered = float(inside_HW.mean())
    known_HW = ~np.isnan(map_HW)
    low, high = float(map_HW[known_HW].min()), float(map_HW[known_HW].max())
    none = np.empty(0)
    positive_HW = np.where(known_HW, np.maximum(map_HW, 0), 0)
    total = float(positive_HW.sum())
    energy = float(positive_HW[inside_HW].sum() / total) if total > 0 else float("nan")
    if high == low:
        zero_K = np.zeros(len(box_K4))
        return MapScore(zero_K, zero_K.copy(), none, none, False, False, energy, covered, True)
    detected_D4 = detected_boxes(map_HW)
    iobb_DK, iou_DK = overlaps(detected_D4, truth_K4)
    x, y = _peak(map_HW, high)
    hit, near = (
        bool(np.any((x0 <= x) & (x <= x1) & (y0 <= y) & (y <= y1)))
        for x0, y0, x1, y1 in ((truth_K4 + margin).T for margin in _margins(tolerance))
    )
    best_iobb_K, best_iou_K = iobb_DK.max(axis=0), iou_DK.max(axis=0)
    return MapScore(
        best_iobb_K, best_iou_K, iobb_DK.max(axis=1), iou_DK.max(axis=1), hit, near, energy, covered, False
    )


def detected_boxes(map_HW: Array, cuts: tuple[float, ...] = CUTS) -> Array:
    """Boxes around the regions above each cut, (D, 4): left, top, right, bottom as fractions of the image.

    The map is scaled so that its lowest value is 0 and its highest 255. What is NaN is in no region.
    """
    low, high = np.nanmin(map_HW), np.nanmax(map_HW)
    heat_HW = np.nan_to_num((map_HW - low) * (255 / (high - low)) if high > low else np.zeros_like(map_HW))
    rows, columns = map_HW.shape
    boxes = []
    for cut in cuts:
        region_HW, _ = ndimage.label(heat_HW > cut, structure=TOUCHING)
        for down, across in ndimage.find_objects(region_HW):
            boxes.append((across.start / columns, down.start / rows, across.stop / columns, down.stop / rows))
    return np.array(boxes, dtype=np.float64).reshape(-1, 4)


def overlaps(detected_D4: Array, truth_K4: Array) -> tuple[Array, Array]:
    """IoBB and IoU of each detected with each drawn box, (D, K) each; boxes are left, top, right, bottom."""
    detected, truth = detected_D4[:, None], truth_K4[None]
    corner = np.minimum(detected[..., 2:], truth[..., 2:]) - np.maximum(detected[..., :2], truth[..., :2])
    both_DK = np.maximum(corner, 0).prod(axis=-1)
    detected_DK = (detected[..., 2:] - detected[..., :2]).prod(axis=-1)
    truth_DK = (truth[..., 2:] - truth[..., :2]).prod(axis=-1)
    return both_DK / detected_DK, both_DK / (detected_DK + truth_DK - both_DK)


def rank_correlation(first: ArrayLike, second: ArrayLike) -> float:
    """Spearman's correlation of two maps of one shape, ties at their mean rank; NaN if either is flat or has no cell.

    Cells that are NaN in either are left out.
    """
    first, second = np.asarray(first, dtype=np.float64).ravel(), np.asarray(second, dtype=np.float64).ravel()
    if first.shape != second.shape:
        raise ValueError(f"the maps have {first.size} and {second.size} cells; they must be on one grid")
    known = ~(np.isnan(first) | np.isnan(second))
    ranks = [rankdata(values[known]) for values in (first, second)]
    if not known.any() or any(np.ptp(rank) == 0 for rank in ranks):
        return float("nan")
    return float(np.corrcoef(*ranks)[0, 1])


def check_map(map_HW: ArrayLike) -> Array:
    """A map as float64 (H, W), with at least one value and none infinite."""
    map_HW = np.asarray(map_HW, dtype=np.float64)
    if map_HW.ndim != 2:
        raise ValueError(f"the map has shape {map_HW.shape}; expected (H, W)")
    if not np.isfinite(map_HW).any() or np.isinf(map_HW).any():
        raise ValueError("the map has no finite value, or an infinite one; only NaN may stand for what was not seen")
    return map_HW


def check_boxes(box_K4: ArrayLike) -> Array:
    """Boxes as float64 (K, 4), each inside the image and not empty."""
    box_K4 = np.asarray(box_K4, dtype=np.float64)
    if box_K4.ndim != 2 or box_K4.shape[1:] != (4,) or not len(box_K4):
        raise ValueError(f"boxes have shape {box_K4.shape}; expected (K, 4), x, y, width, height, K at least 1")
    slack = 1e-6  # of float32
    sound_K = (box_K4[:, :2] >= -slack).all(1) & (box_K4[:, 2:] > 0).all(1)
    sound_K &= (box_K4[:, :2] + box_K4[:, 2:] <= 1 + slack).all(1)
    if not sound_K.all():
        wrong = box_K4[~sound_K][0]
        raise ValueError(
            f"a box is x {wrong[0]:g}, y {wrong[1]:g}, width {wrong[2]:g}, height {wrong[3]:g}; it must be inside the "
            "image, in fractions of its width and height from 0 to 1"
        )
    return box_K4


def _corners(box_K4: Array) -> Array:
    return np.concatenate([box_K4[:, :2], box_K4[:, :2] + box_K4[:, 2:]], axis=1)


def _margins(tolerance: float) -> tuple[Array, Array]:
    return np.zeros(4), np.array([-tolerance, -tolerance, tolerance, tolerance])


def _inside(shape: tuple[int, int], truth_K4: Array, margin: float) -> NDArray[np.bool_]:
    """Which cells have their centre inside a box."""
    y_H, x_W = ((np.arange(cells) + 0.5) / cells for cells in shape)
    inside_HW = np.zeros(shape, dtype=bool)
    for x0, y0, x1, y1 in truth_K4:
        down_H, across_W = ((y_H >= y0) & (y_H <= y1), (x_W >= x0) & (x_W <= x1))
        inside_HW |= down_H[:, None] & across_W[None]
    return inside_HW


def _peak(map_HW: Array, high: float) -> tuple[float, float]:
    """Where the highest value is, as fractions: the middle of the region that has it; of several, the first."""
    region_HW, _ = ndimage.label(map_HW == high, structure=TOUCHING)
    row, column = ndimage.center_of_mass(region_HW == 1)
    return (column + 0.5) / map_HW.shape[1], (row + 0.5) / map_HW.shape[0]
