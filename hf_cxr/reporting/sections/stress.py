"""What a reader sees of the stress test: a curve for each kind of perturbation, and a table of every level."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.figure import Figure as Drawing

from hf_cxr.evaluation.kernels import METRICS, headline_metrics
from hf_cxr.evaluation.metric import as_number
from hf_cxr.inference.perturbations import PERTURBATIONS
from hf_cxr.reporting.document import Figure, Heading, Table, Text
from hf_cxr.reporting.numbers import in_percent, p_value, signed_interval, triple, with_interval
from hf_cxr.reporting.plots import BLUE, GREY, frame, panel_title, panels
from hf_cxr.reporting.sections.section import Section

PICTURE = "figures/stress.png"


def stress_section(values: Mapping[str, Any]) -> Section:
    """From the values of `evaluation.stress.Stress.to_dict`."""
    confidence, shown = in_percent(values["confidence"]), [*headline_metrics(), "log_loss"]
    head = ["images"] + [f"{METRICS[key].macro_title}\n({confidence} interval)" for key in shown]
    head += [f"{METRICS[key].macro_title}\ndifference to clean" for key in shown]
    head += [f"p of\n{METRICS[shown[0]].macro_title}"]
    clean = [with_interval(*triple(values["clean"][key])) for key in shown]
    rows = [["clean", *clean, *[""] * (len(shown) + 1)]]
    for kind, levels in values["kinds"].items():
        for level in levels:
            macros = [with_interval(*triple(level[key]["macro"])) for key in shown]
            gaps = [signed_interval(*triple(level[key]["difference"])) for key in shown]
            rows.append(
                [PERTURBATIONS[kind].name(level["level"]), *macros, *gaps, p_value(as_number(level[shown[0]]["p"]))]
            )
    key = shown[0]
    blocks = (
        Heading("Under stress"),
        Text(
            f"The same {values['images']:,} images of {values['patients']:,} patients, made worse step by step at the "
            "size that the model sees. Calibration stays that of the clean images. A steep fall means that the model "
            "relies on fine detail or on absolute grey levels. A flat curve does not mean that it works at another "
            "hospital."
        ),
        Figure(
            PICTURE,
            f"{METRICS[key].macro_title} under each perturbation, from mild to severe",
            f"{METRICS[key].macro_title} with {confidence} intervals over patients. Dashed: the clean images.",
        ),
        Table.of(
            head,
            rows,
            "Differences are paired: the same draws of patients, clean and worse. p: two-sided, not corrected for the "
            "number of levels.",
        ),
    )
    return Section(blocks, {PICTURE: lambda: stress_curves(values, key)})


def stress_curves(values: Mapping[str, Any], key: str) -> Drawing:
    """One panel a kind: a macro metric over the level, with its band, and the clean images as a dashed line."""
    kinds = list(values["kinds"])
    figure, axes = panels(len(kinds), 2.6, columns=min(4, len(kinds)), sharey=True)
    clean = triple(values["clean"][key])
    for axis, kind in zip(axes, kinds, strict=True):
        levels = [0.0, *(level["level"] for level in values["kinds"][kind])]
        curve = np.array([clean, *(triple(level[key]["macro"]) for level in values["kinds"][kind])])
        axis.axhline(clean[0], color=GREY, linewidth=0.8, linestyle="--")
        axis.fill_between(levels, curve[:, 1], curve[:, 2], color=BLUE, alpha=0.18, linewidth=0)
        axis.plot(levels, curve[:, 0], "o-", color=BLUE, markersize=3.5, linewidth=1.5)
        panel_title(axis, PERTURBATIONS[kind].title)
        frame(axis)
        axis.set_xlabel(PERTURBATIONS[kind].unit, fontsize=8.5)
        axis.set_xticks(levels, ["clean", *(f"{PERTURBATIONS[kind].shown(level):.3g}" for level in levels[1:])])
        axis.tick_params(axis="x", labelsize=8)
        axis.set_xlim(left=0)
    figure.supylabel(METRICS[key].macro_title)
    return figure
