"""A radiograph with heat maps over it. Such a picture shows a patient: it stays on this machine, and no push lists it.

H, W = height and width of the radiograph in pixels, C = findings, K = boxes.
"""

import textwrap
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from numpy.typing import NDArray

from hf_cxr.words import in_figure, in_title

DRAWN, DETECTED = "#56B4E9", "#FFFFFF"  # boxes: drawn by a reader, and put around the map
STRONGEST = 0.55  # opacity of a map where it is highest
LONGEST = 1024  # pixels; a larger radiograph is drawn with every second, third, ... pixel
COLUMNS = 4
WARNING = (
    "A map shows which pixels the score came from. It does not show that the finding is there. Not for diagnosis."
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
        axis.imshow(grey_HW, cmap="gray", vmin=0, vmax=255, extent=(0, 1, 1, 0), aspect=height / width)
        axis.set_title(in_figure(caption, 44), fontsize=8.5)
    x, y, wide, high = seen
    if (wide, high) != (1.0, 1.0):
        axes[0].add_patch(Rectangle((x, y), wide, high, fill=False, edgecolor="#E69F00", linewidth=0.8))
    for number, (axis, map_HW) in enumerate(zip(axes[1:], map_CHW, strict=False)):
        scaled_HW = _scaled(map_HW)
        unseen_HW = np.isnan(map_HW)
        opacity_HW = np.where(unseen_HW, 0, STRONGEST * np.sqrt(np.nan_to_num(scaled_HW)))
        place = {"extent": (0, 1, 1, 0), "aspect": height / width, "interpolation": "nearest"}
        axis.imshow(np.nan_to_num(scaled_HW), cmap="inferno", vmin=0, vmax=1, alpha=opacity_HW, **place)
        axis.imshow(np.ones_like(map_HW), cmap=ListedColormap(["black"]), alpha=np.where(unseen_HW, 0.45, 0), **place)
        _rectangles(axis, (detected or {}).get(number, ()), DETECTED, ":")
        _rectangles(axis, (drawn or {}).get(number, ()), DRAWN, "-")
    below = [note] * bool(note) + [WARNING]
    figure.supxlabel("\n".join(textwrap.fill(in_figure(line, 400), 34 * columns) for line in below), fontsize=7.5)
    return figure


def _scaled(map_HW: NDArray[np.float32]) -> NDArray[np.float64]:
    """From 0 to 1, NaN as it is; zeros where all values are equal."""
    low, high = np.nanmin(map_HW), np.nanmax(map_HW)
    values = np.asarray(map_HW, dtype=np.float64)
    return (values - low) / (high - low) if high > low else np.where(np.isnan(values), np.nan, 0.0)


def _rectangles(axis, boxes: Sequence[Sequence[float]], color: str, line: str) -> None:
    for x, y, width, height in boxes:
        axis.add_patch(Rectangle((x, y), width, height, fill=False, edgecolor=color, linewidth=1.4, linestyle=line))
