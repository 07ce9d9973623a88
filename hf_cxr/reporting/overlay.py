"""A radiograph with heat maps over it. Such a picture shows a patient: it stays on this machine, and no push lists it.

H, W = height and width of the radiograph in pixels, C = findings, K = boxes.
"""

import textwrap
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib import colormaps
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from numpy.typing import NDArray

from hf_cxr.words import in_figure, in_title

DRAWN, DETECTED = "#56B4E9", "#FFFFFF"  # boxes: drawn by a reader, and put around the map
STRONGEST = 0.55  # opacity of a map where it is highest
UNSEEN = 0.55  # brightness of what the model did not see
LONGEST = 1024  # pixels; a larger radiograph is drawn with every second, third, ... pixel
COLUMNS = 4
WARNING = (
    "A map is one method's estimate of what raised the score; another method may mark other pixels. It does not show "
    "that the finding is there. Not for diagnosis."
)


def overlay(
    grey_HW: NDArray[np.uint8],
    map_CHW: NDArray[np.float32],
    captions: Sequence[str],
    title: str,
    *,
    seen: tuple[float, float, float, float] = (0.0, 0.0, 1.0, 1.0),
    drawn: Mapping[int, Sequence[Sequence[float]]] | None = None,
    detected: Mapping[int, Sequence[Sequence[float]]] | None = None,
    note: str = "",
) -> Figure:
    """The radiograph, then the radiograph under each map, with its caption.

    Each map is scaled from its own lowest to its own highest value: two maps cannot be compared by their colours. What
    the model did not see is darkened.

    Args:
        grey_HW: the radiograph.
        map_CHW: maps at its pixels, NaN where the model did not see it.
        captions: C, such as a finding and its probability.
        title: above all.
        seen: what the model saw: x, y, width, height as fractions.
        drawn: number of a map -> boxes that a reader drew, x, y, width, height as fractions.
        detected: number of a map -> boxes around the map, likewise.
        note: a line below, before the one that says what a map is.
    """
    step = -(-max(grey_HW.shape) // LONGEST)
    grey_HW, map_CHW = grey_HW[::step, ::step], map_CHW[:, ::step, ::step]
    height, width = grey_HW.shape
    panels = 1 + len(captions)
    columns = min(COLUMNS, panels)
    rows = -(-panels // columns)
    size = 3.2
    tall = size * min(max(height / width, 0.5), 2.0)
    figure = Figure(figsize=(size * columns, (tall + 0.4) * rows + 0.75), layout="constrained")
    figure.suptitle(in_title(title, 26 * columns), fontsize=10)
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for axis in axes:
        axis.set_axis_off()
    for axis, caption in zip(axes, ("original", *captions), strict=False):
        axis.set_title(in_figure(caption, 44), fontsize=8.5)
    _draw(axes[0], np.repeat(grey_HW[..., None], 3, axis=2))
    x, y, wide, high = seen
    if (wide, high) != (1.0, 1.0):
        axes[0].add_patch(Rectangle((x, y), wide, high, fill=False, edgecolor="#E69F00", linewidth=0.8))
    for number, (axis, map_HW) in enumerate(zip(axes[1:], map_CHW, strict=False)):
        _draw(axis, under_map(grey_HW, map_HW))
        _rectangles(axis, (detected or {}).get(number, ()), DETECTED, ":")
        _rectangles(axis, (drawn or {}).get(number, ()), DRAWN, "-")
    below = [note] * bool(note) + [WARNING]
    figure.supxlabel("\n".join(textwrap.fill(in_figure(line, 400), 34 * columns) for line in below), fontsize=7.5)
    return figure


def under_map(grey_HW: NDArray[np.uint8], map_HW: NDArray[np.float32]) -> NDArray[np.uint8]:
    """The radiograph as seen through its map: (H, W, 3) uint8.

    It is unchanged where the map is lowest, most coloured where it is highest, and darker where the map is NaN.
    """
    scaled_HW = scaled(map_HW)
    opacity_HW = STRONGEST * np.sqrt(np.nan_to_num(scaled_HW))[..., None]
    colour_HW3 = 255 * colormaps["inferno"](np.nan_to_num(scaled_HW))[..., :3]
    mixed_HW3 = (1 - opacity_HW) * grey_HW[..., None] + opacity_HW * colour_HW3
    mixed_HW3[np.isnan(map_HW)] *= UNSEEN
    return np.round(mixed_HW3).astype(np.uint8)


def scaled(map_HW: NDArray[np.float32]) -> NDArray[np.float64]:
    """From 0 to 1, NaN as it is; zeros where all values are equal."""
    low, high = np.nanmin(map_HW), np.nanmax(map_HW)
    values = np.asarray(map_HW, dtype=np.float64)
    return (values - low) / (high - low) if high > low else np.where(np.isnan(values), np.nan, 0.0)


def _draw(axis, picture_HW3: NDArray[np.uint8]) -> None:
    height, width = picture_HW3.shape[:2]
    axis.imshow(picture_HW3, extent=(0, 1, 1, 0), aspect=height / width, interpolation="nearest")


def _rectangles(axis, boxes: Sequence[Sequence[float]], color: str, line: str) -> None:
    for x, y, width, height in boxes:
        axis.add_patch(Rectangle((x, y), width, height, fill=False, edgecolor=color, linewidth=1.4, linestyle=line))
