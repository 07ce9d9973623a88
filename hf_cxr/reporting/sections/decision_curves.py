"""Decision curves as a section of a page: at which thresholds acting on the model beats acting on all and on none.

C = findings, T = thresholds.
"""

import functools
from collections.abc import Mapping
from typing import Any

import matplotlib.figure
import numpy as np
from matplotlib.axes import Axes

from hf_cxr.evaluation.metric import as_number
from hf_cxr.reporting.document import Block, Figure, Heading, Note, Table, Text
from hf_cxr.reporting.numbers import in_percent
from hf_cxr.reporting.plots import BLUE, GREEN, GREY, ORANGE, empty_panel, frame, panel_title, panels
from hf_cxr.reporting.sections.section import Section

PICTURE = "figures/decision_curves_test.png"
TICKS = (1, 0.5, 0.25, 0.1, 0.05, 0.02, 0.01, 0.005, 0.002, 0.001)  # of thresholds


def decision_curves_section(values: Mapping[str, Any]) -> Section:
    """What net benefit is, the useful thresholds of each finding, and its curves.

    Args:
        values: of `evaluation.decision_curves.DecisionCurves.to_dict`.
    """
    interval = in_percent(values["confidence"])
    here = "the prevalence that was given" if values["given_prevalence"] else "the prevalence of these images"
    explanation = (
        "Acting on a finding from a probability of t on means that a missed positive is as bad as (1 - t) / t "
        "needless actions: nine at t = 0.1. With false positives counted at that rate, net benefit is true positives "
        f"minus false positives, per image, at {here}. The model is useful at the thresholds where its net benefit is "
        "higher than that of acting on every image and that of acting on none. This is only true of calibrated "
        "probabilities."
    )
    undefined = f"One label value only, so there is no curve: {', '.join(values['undefined'])}."
    blocks: list[Block] = [Heading("Decision curves"), Text(explanation)]
    blocks += [Note((undefined,))] if values["undefined"] else []
    figure = Figure(
        PICTURE,
        f"Net benefit of each finding by threshold, with {interval} bands",
        f"Blue: the model, with the {interval} interval at each threshold over {values['resamples']:,} draws of the "
        f"{values['patients']:,} patients. Orange, dashed: act on every image. Grey: act on none. Green bar: the "
        "interval of the gain over both is above 0. Each panel has its own axes, with thresholds on a square-root "
        "scale.",
    )
    return Section((*blocks, _table(values), figure), {PICTURE: functools.partial(draw_decision_curves, values)})


def _table(values: Mapping[str, Any]) -> Table:
    head = ["finding", "prevalence", "useful at\nthresholds", "surely useful at\nthresholds", "gain per\n1,000 images"]
    rows = [
        [name, _prevalence(one), *(_range(one, key) for key in ("useful", "surely_useful")), _gain(values, one)]
        for name, one in ((name, values["findings"][name]) for name in values["label_names"])
    ]
    caption = (
        "Useful: the model has more net benefit than acting on all images and than acting on none. Surely useful: the "
        f"{in_percent(values['confidence'])} interval of the gain is above 0 at each of these thresholds, and enough "
        "patients lie on both sides of it. An interval is for one threshold, not for a whole curve. Gain: net benefit "
        "of the model minus that of the better of the two, at the threshold nearest to the prevalence, where it is "
        "usually largest."
    )
    return Table.of(head, rows, caption)


def draw_decision_curves(values: Mapping[str, Any]) -> matplotlib.figure.Figure:
    """A panel a finding: net benefit of the model with its band, of acting on every image, and of acting on none.

    Args:
        values: of `evaluation.decision_curves.DecisionCurves.to_dict`.
    """
    names = values["label_names"]
    figure, axes = panels(len(names), 2.6)
    threshold_T = np.array(values["thresholds"])
    for axis, name in zip(axes, names, strict=True):
        one = values["findings"][name]
        _panel(axis, threshold_T, one)
        panel_title(axis, name, f"prevalence {_prevalence(one)}, {one['positives']:,} positives")
    figure.supxlabel("threshold probability")
    figure.supylabel("net benefit (true positives per image)")
    return figure


def _panel(axis: Axes, threshold_T: np.ndarray, one: Mapping[str, Any]) -> None:
    frame(axis)
    if one["prevalence"] is None:
        empty_panel(axis)
        return
    benefit_T, low_T, high_T = (np.array(one["net_benefit"][key]) for key in ("value", "low", "high"))
    all_T = np.array(one["treat_all"])
    top = one["prevalence"]
    axis.axhline(0, color=GREY, linewidth=1)
    axis.plot(threshold_T, all_T, color=ORANGE, linewidth=1.2, linestyle="--")
    axis.fill_between(threshold_T, low_T, high_T, color=BLUE, alpha=0.22, linewidth=0)
    axis.plot(threshold_T, benefit_T, color=BLUE, linewidth=1.6)
    if one["surely_useful"]:
        axis.plot(one["surely_useful"], [-0.17 * top] * 2, color=GREEN, linewidth=4, solid_capstyle="butt")
    axis.set_ylim(-0.22 * top, 1.08 * max(top, high_T.max()))
    last = _last_of_interest(threshold_T, benefit_T, high_T, top)
    # Thresholds near the prevalence are those that matter most, and the prevalence is small.
    axis.set_xscale("function", functions=(np.sqrt, np.square))
    axis.set_xlim(0, last)
    axis.set_xticks(ticks := _ticks(last), [f"{tick:g}" for tick in ticks])
    axis.locator_params(axis="y", nbins=4)
    axis.tick_params(labelsize=8.5)


def _ticks(last: float) -> list[float]:
    """Round thresholds up to the end of a panel, no two nearer than a seventh of its width."""
    chosen: list[float] = []
    for tick in TICKS:
        if tick <= last and (not chosen or chosen[-1] ** 0.5 - tick**0.5 > last**0.5 / 7):
            chosen.append(tick)
    return chosen


def _last_of_interest(threshold_T: np.ndarray, benefit_T: np.ndarray, high_T: np.ndarray, top: float) -> float:
    """Where a panel ends: after the last threshold at which the model's net benefit is not negligible."""
    matters_T = (np.abs(benefit_T) > 0.01 * top) | (high_T > 0.05 * top)
    last = threshold_T[matters_T].max() if matters_T.any() else 0.0
    return min(1.0, max(1.1 * last, 3 * top))


def _gain(values: Mapping[str, Any], one: Mapping[str, Any]) -> str:
    if one["prevalence"] is None:
        return "undefined"
    nearest = int(np.argmin(np.abs(np.log(np.array(values["thresholds"]) / one["prevalence"]))))
    gain, low, high = (1000 * as_number(one["gain"][key][nearest]) for key in ("value", "low", "high"))
    text = f"{gain:.1f} ({low:.1f} to {high:.1f})"
    return text.replace("-", "−")


def _range(one: Mapping[str, Any], key: str) -> str:
    """The first and last threshold, or "none"."""
    if one["prevalence"] is None:
        return "undefined"
    return "none" if one[key] is None else f"{one[key][0]:g}–{one[key][1]:g}"


def _prevalence(one: Mapping[str, Any]) -> str:
    value = one["prevalence"]
    return "undefined" if value is None else f"{value:.3f}" if value >= 0.01 else f"{value:.4f}"
