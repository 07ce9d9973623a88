"""Operating points as a section of a page: what a yes or no of the model is worth, finding by finding.

It answers what users of such models ask first: which threshold, what it costs, and why not 0.5.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from hf_cxr.evaluation.operating_points import COUNTS, HALF
from hf_cxr.reporting.document import Block, Heading, Note, Table, Text, last_row
from hf_cxr.reporting.numbers import (
    finding_triple,
    in_percent,
    macro_triple,
    ratio_with_interval,
    triple,
    with_interval,
)
from hf_cxr.reporting.sections.section import Section

RATES = {
    "sensitivity": "sensitivity",
    "specificity": "specificity",
    "ppv": "PPV",
    "npv": "NPV",
    "f1": "F1",
}
"""The figures of the first tables, and their names in print."""

FEW = 20
"""Validation positives below which a threshold is called unstable."""

NAMES = {"chosen": "chosen", HALF: "0.5"}


def operating_points_section(values: Mapping[str, Any]) -> Section:
    """The answer in a line, each set of thresholds in a row, and each finding at the chosen ones.

    Args:
        values: of `evaluation.operating_points.MeasuredOperatingPoints.to_dict`.
    """
    chosen = values["sets"]["chosen"]
    without = values["without"]
    lacking = (
        "No threshold could be chosen, because validation has no known positive or no known negative image, or no "
        f"threshold reaches the target: {', '.join(without)}."
    )
    blocks: list[Block] = [Heading("Operating points")]
    if chosen["rule"]:
        blocks += [Text(_answer(values), strong=True), Text(_explanation(values))]
    few = [
        f"{name} ({point['positives']})"
        for name, point in values["points"].items()
        if point and point["positives"] < FEW
    ]
    unstable = (
        f"Fewer than {FEW} validation images have these findings, so their thresholds would be different on other "
        f"patients: {', '.join(few)}."
    )
    notes = (*([lacking] if without else []), *([unstable] if few else []))
    blocks += [Note(notes)] if notes else []
    if chosen["rule"]:
        blocks += [_sets_table(values), _rates_table(values), _calls_table(values)]
    return Section(tuple(blocks))


def _answer(values: Mapping[str, Any]) -> str:
    """How many calls are made for each finding that is there, at the chosen thresholds and at 0.5."""
    chosen, half = (
        ratio_with_interval(values["sets"][key]["calls_per_positive"]["averages"]["micro"]) for key in ("chosen", HALF)
    )
    return (
        f"At the chosen thresholds the model makes {chosen} calls, right or wrong, for each finding that is present; "
        f"at a threshold of 0.5, {half}."
    )


def _explanation(values: Mapping[str, Any]) -> str:
    varies = "; the interval next to each threshold shows that" if values["threshold_interval"] else ""
    return (
        f"Each finding's threshold was chosen on validation for {values['sets']['chosen']['rule']} and is fixed here. "
        f"The {in_percent(values['confidence'])} intervals ({values['resamples']:,} draws of the "
        f"{values['patients']:,} patients) show how much a figure varies with the patients measured here, not how "
        f"much the threshold would vary with other validation patients{varies}. No threshold is right for every "
        "purpose, and 0.5 has no special meaning. Calibrated probabilities of a rare finding seldom reach it, so most "
        "positives are missed. Scores that are not calibrated often reach it in many negatives: if one image in "
        "twenty has a finding, a specificity of 0.9 alone gives two false alarms for each positive. PPV, NPV, "
        "accuracy and the number of calls depend on the prevalence; sensitivity and specificity do not."
    )


def _sets_table(values: Mapping[str, Any]) -> Table:
    """A row a set of thresholds."""
    shown = ("sensitivity", "specificity", "ppv", "f1")
    head = ["thresholds", "chosen for", *(f"mean\n{RATES[key]}" for key in shown), "calls per\npositive"]
    rows = [
        [
            NAMES.get(key, key),
            "every finding alike" if key == HALF else one["rule"],
            *(with_interval(*macro_triple(one[name])) for name in shown),
            ratio_with_interval(one["calls_per_positive"]["averages"]["micro"]),
        ]
        for key, one in values["sets"].items()
    ]
    caption = (
        "Means are over the findings that are defined. Calls per positive: calls of all findings together, divided by "
        "their positives; 1 is as many calls as positives."
    )
    return Table.of(head, rows, caption)


def _rates_table(values: Mapping[str, Any]) -> Table:
    """A row a finding: threshold and rates."""
    one, intervals = values["sets"]["chosen"], values["threshold_interval"] or {}
    head = [
        "finding",
        "threshold",
        *(f"{title}\n({in_percent(values['confidence'])} interval)" for title in RATES.values()),
    ]
    rows = [
        [
            name,
            _threshold(one["threshold"][name], intervals.get(name)),
            *(with_interval(*finding_triple(one[key], name)) for key in RATES),
        ]
        for name in values["label_names"]
    ]
    rows.append(["macro mean", "", *(with_interval(*macro_triple(one[key])) for key in RATES)])
    caption = (
        f"At the chosen thresholds, on {values['images']:,} images of {values['patients']:,} patients. An image is "
        "called positive where its probability is at least the threshold. Unknown labels are left out. Where all "
        "calls are right, or all are wrong, the interval has no width, but that is not certainty."
    )
    return Table.of(head, rows, caption, last_row(rows, len(head)))


def _calls_table(values: Mapping[str, Any]) -> Table:
    """A row a finding: the confusion counts, and how many calls there are at the chosen threshold and at 0.5."""
    one, half = values["sets"]["chosen"], values["sets"][HALF]
    head = ["finding", "true\npositives", "false\npositives", "true\nnegatives", "false\nnegatives"]
    head += ["share called", "accuracy", "calls per positive", "calls per positive\nat 0.5"]

    def average(table: Mapping[str, Any], name: str) -> dict[str, Any]:
        return {key: table["calls_per_positive"][key][name] for key in ("value", "low", "high")}

    rows = [
        [
            name,
            *(_count(one[key][name]) for key in COUNTS),
            *(with_interval(*finding_triple(one[key], name)) for key in ("called_share", "accuracy")),
            ratio_with_interval(average(one, name)),
            ratio_with_interval(average(half, name)),
        ]
        for name in values["label_names"]
    ]
    together = [_count(sum(value or 0 for value in one[key].values())) for key in COUNTS]
    together += [with_interval(*triple(one[key]["averages"]["micro"])) for key in ("called_share", "accuracy")]
    together += [ratio_with_interval(table["calls_per_positive"]["averages"]["micro"]) for table in (one, half)]
    rows.append(["all together", *together])
    caption = (
        "Numbers of images at the chosen thresholds. Positives are true positives + false negatives. Read accuracy "
        "against the share of negatives, which a model that calls nothing positive reaches."
    )
    return Table.of(head, rows, caption, last_row(rows, len(head)))


def _threshold(value: float | None, ends: Sequence[float] | None) -> str:
    """Two significant digits or three decimals, and the interval if there is one."""
    if value is None:
        return "none"
    text, *limits = (f"{one:.3f}" if one >= 0.01 else f"{one:.2g}" for one in (value, *(ends or ())))
    return f"{text} ({'–'.join(limits)})" if limits else text


def _count(value: float | None) -> str:
    return "–" if value is None else f"{value:,.0f}"
