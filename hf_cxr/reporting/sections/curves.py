"""The ROC and precision-recall curves of each finding with their bands, as a section of a page.

C = findings, K = points of a curve.
"""

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import matplotlib.figure
import numpy as np
from matplotlib.axes import Axes

from hf_cxr.evaluation.metric import as_number
from hf_cxr.reporting.document import Figure, Heading, Text
from hf_cxr.reporting.numbers import in_percent, number, triple, with_interval
from hf_cxr.reporting.plots import BLUE, GREY, frame, panel_title, panels
from hf_cxr.reporting.sections.section import Section


@dataclass(frozen=True)
class CurveStyle:
    """How one kind of curve is drawn.

    Attributes:
        path: of the picture.
        title: what it shows, in words.
        area: what the area under it is called.
        x, y: the axes.
    """

    path: str
    title: str
    area: str
    x: str
    y: str


CURVE_STYLES = {
    "roc": CurveStyle("figures/roc_test.png", "ROC curves", "AUC", "1 - specificity", "sensitivity"),
    "precision_recall": CurveStyle(
        "figures/precision_recall_test.png", "precision-recall curves", "AP", "recall (sensitivity)", "precision (PPV)"
    ),
}


def curves_section(values: Mapping[str, Any]) -> Section:
    """Both kinds of curves.

    Args:
        values: of `evaluation.curves.Curves.to_dict`.
    """
    interval = in_percent(values["confidence"])
    about = {
        "roc": "Dashed: random scores.",
        "precision_recall": (
            "Dashed: the prevalence, which is about what random scores reach. Precision depends on it, so the curve "
            "looks different at another prevalence. The curve is drawn in steps: straight lines between its points "
            "would be too high."
        ),
    }
    heading = Heading("ROC and precision-recall curves")
    undefined = [name for name, band in values["roc"]["findings"].items() if not _is_defined(band)]
    without = f"One label value only, so no curve: {', '.join(undefined)}."
    if len(undefined) == len(values["findings"]):
        return Section((heading, Text(without)))
    words = (
        f"Lines are the curves on all {values['images']:,} images. Bands are {interval} intervals at each point, over "
        f"{values['resamples']:,} draws of the {values['patients']:,} patients; the bands are pointwise: a whole "
        "curve falls inside less often. The mean of the findings is taken at equal false positive rate, or at "
        "equal recall."
    )
    figures = tuple(
        Figure(kind.path, f"{kind.title} of each finding, with {interval} bands", about[key])
        for key, kind in CURVE_STYLES.items()
    )
    return Section(
        (heading, Text(words), *([Text(without)] if undefined else []), *figures),
        {kind.path: functools.partial(draw_curves, values, key) for key, kind in CURVE_STYLES.items()},
    )


def draw_curves(values: Mapping[str, Any], kind: str) -> matplotlib.figure.Figure:
    """A panel a finding that has a curve, the mean of the findings first; above each its area under the curve.

    Args:
        values: of `evaluation.curves.Curves.to_dict`, with at least one curve.
        kind: of `CURVE_STYLES`.
    """
    style, bands = CURVE_STYLES[kind], values[kind]
    shown = [(name, band, values["findings"][name]) for name, band in bands["findings"].items() if _is_defined(band)]
    if len(shown) > 1:
        shown.insert(0, (f"mean of {len(shown)} findings", bands["mean"], None))
    figure, axes = panels(len(shown), 2.95, columns=min(4, len(shown)), sharex=True, sharey=True)
    grid_K = np.array(values["grid"])
    for axis, (name, band, counts) in zip(axes, shown, strict=True):
        _panel(axis, grid_K, band, kind, counts)
        panel_title(axis, name, _words(band["area"], style.area, counts))
    figure.supxlabel(style.x)
    figure.supylabel(style.y)
    return figure


def _is_defined(band: Mapping[str, Any]) -> bool:
    return band["area"]["value"] is not None


def _panel(
    axis: Axes, grid_K: np.ndarray, band: Mapping[str, Any], kind: str, counts: Mapping[str, Any] | None
) -> None:
    if kind == "roc":
        axis.plot([0, 1], [0, 1], color=GREY, linewidth=0.8, linestyle="--")
    elif counts is not None:
        axis.axhline(counts["prevalence"], color=GREY, linewidth=0.8, linestyle="--")
    low_K, value_K, high_K = (np.array(band[name], dtype=np.float64) for name in ("low", "value", "high"))
    axis.fill_between(grid_K, low_K, high_K, color=BLUE, alpha=0.22, linewidth=0)
    start = [0] if kind == "roc" else []  # of a ROC curve, which rises at false positive rate 0
    axis.plot([*start, *grid_K], [*start, *value_K], color=BLUE, linewidth=1.6)
    axis.set_xlim(-0.02, 1.02)
    axis.set_ylim(-0.02, 1.02)
    axis.set_xticks([0, 0.5, 1])
    axis.set_yticks([0, 0.5, 1])
    axis.set_aspect("equal")
    frame(axis)


def _words(area: Mapping[str, Any], name: str, counts: Mapping[str, Any] | None) -> str:
    value = f"{name} {with_interval(*triple(area))}"
    if counts is None:
        return value
    if name == "AP":
        return f"{value}, chance {number(as_number(counts['prevalence']))}"
    return f"{value}, {counts['positive_patients']:,} patients"
