"""The section on reliability curves: one small panel a finding, and the numbers next to them.

Both axes of a panel are logarithmic and end where its bins do, because a finding that 0.2 % of the images have and one
that 20 % have would be unreadable on one scale. A bin without a positive, which a logarithmic axis cannot show, is an
open triangle at the bottom with its interval above it.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Drawing
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from hf_cxr.reporting.document import Figure, Heading, Table, Text
from hf_cxr.reporting.numbers import in_percent, join, percent, percent_with_interval, ratio_with_interval, triple
from hf_cxr.reporting.plots import BLUE, GREY, ORANGE, empty_panel, frame, panel_title, panels
from hf_cxr.reporting.sections.section import Section

PICTURE = "figures/reliability.png"
POOLED = "all findings pooled"


def reliability_section(values: Mapping[str, Any]) -> Section:
    """From the values of `evaluation.reliability.Reliability.to_dict`."""
    curves = {**values["findings"], POOLED: values["pooled"]}
    confidence = in_percent(values["confidence"])
    head = ("finding", "prevalence", "mean\nprobability", "expected /\nobserved", "intercept", "slope")
    rows = [
        [
            name,
            percent(curve["prevalence"]["value"]),
            percent_with_interval(curve["mean_probability"]),
            *(ratio_with_interval(curve[key]) for key in ("expected_over_observed", "intercept", "slope")),
        ]
        for name, curve in curves.items()
    ]
    blocks = (
        Heading("Reliability of the probabilities"),
        Text(_sentence(values["findings"], confidence), strong=True),
        Figure(
            PICTURE,
            "Reliability curves: observed frequency against mean predicted probability, one panel a finding",
            "Images are put into bins of equal number by their probability. Each point is a bin: its mean "
            "probability, and the share of its images that have the finding, with a "
            f"{confidence} interval over patients. On the dashed line the two agree. Axes are logarithmic and differ "
            "between panels. An open triangle is a bin without a positive. All draws use the same bins.",
        ),
        Table.of(
            head,
            rows,
            f"{confidence} intervals over {values['resamples']:,} draws of patients. Expected / observed is the mean "
            "probability divided by the prevalence: 1 if probabilities are right on average. The intercept is what "
            "must be added to the logits, with slope 1: 0 if calibrated. A slope below 1 means that probabilities are "
            "too extreme, above 1 that they are not extreme enough.",
            bold=frozenset((len(rows) - 1, column) for column in range(len(head))),
        ),
        *_undefined(values["findings"]),
    )
    return Section(blocks, {PICTURE: lambda: draw_reliability(values)})


def draw_reliability(values: Mapping[str, Any]) -> Drawing:
    """The picture, from the values of `Reliability.to_dict`."""
    curves = {**values["findings"], POOLED: values["pooled"]}
    figure, axes = panels(len(curves), 2.75)
    for axis, (name, curve) in zip(axes, curves.items(), strict=True):
        panel_title(axis, name)
        if any(one["positives"] for one in curve["bins"]):
            _panel(axis, curve["bins"], ORANGE if name == POOLED else BLUE)
        else:
            empty_panel(axis, "no positive" if curve["bins"] else "no known label")
    figure.supxlabel("mean predicted probability of the bin")
    figure.supylabel("share of the bin's images with the finding")
    return figure


def _panel(axis: Axes, bins: Sequence[Mapping[str, Any]], color: str) -> None:
    mean_B, share_B, low_B, high_B = (
        np.array(column, dtype=np.float64)
        for column in zip(*((one["mean_probability"], *triple(one["observed"])) for one in bins), strict=True)
    )
    shown_B = share_B > 0
    least = min(mean_B[mean_B > 0].min(initial=1.0), share_B[shown_B].min(), high_B[high_B > 0].min(initial=1.0))
    floor, top = max(least / 1.8, 1e-7), min(1.15, 1.6 * max(mean_B.max(), high_B.max()))
    axis.set_xscale("log")
    axis.set_yscale("log")
    axis.set_xlim(floor, top)
    axis.set_ylim(floor, top)
    axis.plot([floor, top], [floor, top], color=GREY, linewidth=0.9, linestyle="--")
    x_B = np.maximum(mean_B, floor * 1.05)
    axis.vlines(x_B, np.maximum(low_B, floor), high_B, color=color, linewidth=1.6, alpha=0.75)
    # The line is interrupted at a bin without a positive.
    axis.plot(x_B, np.where(shown_B, share_B, np.nan), "o-", color=color, markersize=4, linewidth=0.8)
    axis.plot(
        x_B[~shown_B], np.full((~shown_B).sum(), floor * 1.12), "v", color=color, markersize=5, markerfacecolor="white"
    )
    decades = np.log10(top / floor)
    ticks = (1.0,) if decades > 2.2 else (1.0, 3.0) if decades > 1.2 else (1.0, 2.0, 5.0)
    for one in (axis.xaxis, axis.yaxis):
        one.set_major_locator(LogLocator(subs=ticks, numticks=12))
        one.set_minor_locator(NullLocator())
        one.set_major_formatter(FuncFormatter(lambda share, _: f"{100 * share:g} %"))
    axis.tick_params(labelsize=8)
    axis.set_aspect("equal")
    frame(axis)


def _sentence(findings: Mapping[str, Mapping[str, Any]], confidence: str) -> str:
    wrong = {"too high": [], "too low": []}
    for name, curve in findings.items():
        low, high = curve["difference"]["low"], curve["difference"]["high"]
        if low is not None and (low > 0 or high < 0):
            wrong["too high" if low > 0 else "too low"].append(name)
    parts = [f"{way} for {join(names)}" for way, names in wrong.items() if names]
    if not parts:
        return (
            "For no finding does the mean probability differ from the prevalence by more than its "
            f"{confidence} interval."
        )
    return f"On average the probabilities are {'; '.join(parts)} ({confidence} intervals without 0)."


def _undefined(findings: Mapping[str, Mapping[str, Any]]) -> tuple[Text, ...]:
    reasons = {
        f"{key.replace('_', ' ')} of {name}: {reason}"
        for name, curve in findings.items()
        for key, reason in curve["undefined"].items()
        if key in ("expected_over_observed", "intercept", "slope") or not curve["bins"]
    }
    return (Text(f"Undefined: {'; '.join(sorted(reasons))}."),) if reasons else ()
