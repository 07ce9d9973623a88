"""The section on label sets with a stated coverage: whether it holds on test, and how often the model abstains."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure as Drawing

from hf_cxr.reporting.document import Figure, Heading, Note, Table, Text
from hf_cxr.reporting.numbers import by_reason, in_percent, join, percent, percent_with_interval, triple
from hf_cxr.reporting.plots import BLUE, GREY, ORANGE, frame, name_rows
from hf_cxr.reporting.sections.section import Section

PICTURE = "figures/conformal.png"
SHOWN = 0.9
"""The coverage of the table by finding, or the nearest one that was measured."""

SIDES = {"positive_coverage": "positives", "negative_coverage": "negatives"}


def conformal_section(values: Mapping[str, Any]) -> Section:
    """From the values of `evaluation.conformal.Conformal.to_dict`."""
    levels, confidence = values["levels"], in_percent(values["confidence"])
    shown = _shown(levels)
    stated = in_percent(shown["coverage"])
    head = (
        *("finding", "patients\nwith it", "coverage of\npositives", "coverage of\nnegatives"),
        *("either:\nabstains", "{present}", "of these\npositive", "of {absent}\nnegative"),
    )
    rows = [
        [
            name,
            f"{one['positive_patients']:,}",
            *(percent_with_interval(one[key]) for key in SIDES),
            percent(one["either"]["value"]),
            percent(one["present"]["value"]),
            percent(one["ppv"]["value"]),
            percent(one["npv"]["value"]),
        ]
        for name, one in shown["findings"].items()
    ]
    keys = ("positive_coverage", "negative_coverage", "either", "empty", "accuracy_decided")
    trade = [
        [in_percent(one["coverage"]), *(percent_with_interval(one["macro"][key]) for key in keys)] for one in levels
    ]
    blocks = [
        Heading("Label sets with a stated coverage"),
        Text(
            f"For each finding an image gets the set {{present}}, {{absent}}, or both where the model cannot tell. "
            f"Thresholds were fitted on validation so that on average, for new patients like those of validation, "
            f"{stated} of the positives get a set that contains present and {stated} of the negatives one that "
            "contains absent. Each patient weighs the same (conformal prediction for grouped data, Lee et al., 2023)."
        ),
        Text(coverage_verdict(shown), strong=True),
        Table.of(
            ("stated", "positives covered", "negatives covered", "abstains", "empty sets", "right when decided"),
            trade,
            f"On test, mean over the findings with enough patients, {confidence} patient-clustered intervals. More "
            "coverage costs more abstention. Right when decided: of the sets with one label, those with the right "
            "one; this is always high for rare findings.",
        ),
        Figure(
            PICTURE,
            f"Coverage of positives and of negatives and the share of abstentions for each finding at {stated}",
            f"Left: coverage on test with {confidence} patient-clustered intervals; the line is the {stated} that was "
            "stated. Right: share of images by set.",
        ),
        Table.of(
            head,
            rows,
            f"At {stated}. Patients with it: on validation, where the threshold was fitted. The last columns: how "
            "many of the images with {present} have the finding, and of those with {absent} do not.",
        ),
        Text(
            "The guarantee holds on average over validation sets. With one validation set, coverage differs from the "
            "stated one by about the square root of coverage × (1 − coverage) / patients. Validation also fitted the "
            "calibration map, which changes no set because it keeps the order of the images, and it chose the "
            "checkpoint, so coverage on new patients can be lower than stated. Nothing is guaranteed for other "
            "hospitals."
        ),
    ]
    if shown["too_few"]:
        start = f"Too few patients on validation for {stated}, so a label is in every set"
        blocks.append(Note(tuple(f"{start}: {words}" for words in by_reason(shown["too_few"]))))
    return Section(tuple(blocks), {PICTURE: lambda: draw_conformal(shown)})


def coverage_verdict(shown: Mapping[str, Any]) -> str:
    """For which findings coverage on test is below what was stated by more than chance explains: one sentence."""
    below = {
        side: [name for name, one in shown["findings"].items() if key in one["below"]] for key, side in SIDES.items()
    }
    parts = [f"of {side} for {join(names)}" for side, names in below.items() if names]
    stated = in_percent(shown["coverage"])
    chance = "the choice of test and validation patients explains"
    if not parts:
        return f"On test, no finding's coverage is below {stated} by more than {chance}."
    return f"On test, coverage is below {stated} {' and '.join(parts)}, by more than {chance}."


def draw_conformal(shown: Mapping[str, Any]) -> Drawing:
    """The picture of one level of `Conformal.to_dict`."""
    findings = shown["findings"]
    row_C = np.arange(len(findings))
    figure = Drawing(figsize=(11, 1.5 + 0.4 * len(findings)), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    for (key, side), color, marker, offset in zip(
        SIDES.items(), (ORANGE, BLUE), ("o", "D"), (-0.16, 0.16), strict=True
    ):
        value_C, low_C, high_C = 100 * np.array([triple(one[key]) for one in findings.values()]).T
        left.hlines(row_C + offset, low_C, high_C, color=color, linewidth=1.6)
        left.plot(value_C, row_C + offset, marker, color=color, markersize=5, label=side, linestyle="")
    left.axvline(100 * shown["coverage"], color="black", linewidth=1)
    left.set_xlabel("covered on test (%)")
    above = {"loc": "lower center", "bbox_to_anchor": (0.5, 1.0), "ncols": 4, "fontsize": 9, "frameon": False}
    left.legend(**above)
    start_C = np.zeros(len(findings))
    for key, color in (("present", ORANGE), ("either", "#DDDDDD"), ("empty", GREY), ("absent", "#BBD4E6")):
        share_C = np.array([100 * (one[key]["value"] or 0.0) for one in findings.values()])
        label = {"either": "either: abstains", "empty": "empty"}.get(key, f"{{{key}}}")
        right.barh(row_C, share_C, left=start_C, color=color, edgecolor="white", label=label)
        start_C += share_C
    right.set_xlim(0, 100)
    right.set_xlabel("images on test (%)")
    right.legend(**above)
    name_rows(left, list(findings))
    frame(left, "x")
    right.spines[["top", "right"]].set_visible(False)
    return figure


def _shown(levels: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
    return min(levels, key=lambda one: abs(one["coverage"] - SHOWN))
