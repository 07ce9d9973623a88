"""The section on groups of images: a forest plot, every gap with its test, and what a gap does not say.

From the plain values of `evaluation.subgroups.Subgroups.to_dict`; None is undefined.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
from matplotlib.figure import Figure as Drawing

from hf_cxr.evaluation.kernels import METRICS, headline_metrics
from hf_cxr.evaluation.metric import as_number
from hf_cxr.evaluation.subgroups import CROSSED, ERRORS, is_tested
from hf_cxr.reporting.document import Block, Figure, Heading, Note, Table, Text
from hf_cxr.reporting.numbers import in_percent, number, p_value, signed_interval, triple, with_interval
from hf_cxr.reporting.plots import BLUE, GREY, GRID, ORANGE, frame_rows
from hf_cxr.reporting.sections.section import Section
from hf_cxr.words import in_figure, plural

LEVEL = 0.05
MAIN = "auc"
SHOWN = (MAIN, *ERRORS)
"""Measures with a forest plot; every measure has its columns in the table."""

MOST_FINDINGS = 15
LEAST_SPAN = 0.02  # of an axis: negligible differences do not fill it
CASE_MIX = (
    "A gap alone does not show that the model is unfair: AUC depends on how hard the cases of a group are, AP rises "
    "with the prevalence alone (so it is not tested), and labels can be worse for one group than for another."
)
FROM_LABELS = (
    "Groups by number of findings are defined by the labels themselves, so their gaps are partly arithmetic. They are "
    "shown but not tested."
)


def subgroups_section(values: Mapping[str, Any]) -> Section:
    """Blocks and forest plots, from the values of `Subgroups.to_dict`."""
    measures = list(_measures(values))
    if not measures:
        reasons = tuple(f"{attribute}: {name}: {reason}." for attribute, name, reason in _unmeasured(values))
        reasons += tuple(f"{attribute}: {reason}." for attribute, reason in values["left_out"].items())
        blocks = (
            Heading("For whom it fails"),
            Text("No group could be compared with the other images."),
            Note(reasons),
        )
        return Section(blocks if reasons else blocks[:2])
    drawings = {f"figures/subgroups_{key}.png": partial(forest, values, key) for key in SHOWN if key in measures}
    figures = [
        Figure(
            f"figures/subgroups_{key}.png",
            f"Forest plot of the {title_of(key)} of each group, and of its gap to all other images",
            f"Left, the {title_of(key)} of the group (filled) and of all other images (open), over the same findings. "
            f"Right, group minus other images with its p value after correction. {_better(key)}",
        )
        for key in SHOWN
        if key in measures
    ]
    blocks: tuple[Block, ...] = (
        Heading("For whom it fails"),
        Text(_headline(values), strong=True),
        Note(tuple(_cautions(values))),
        *figures,
        *_groups_tables(values, measures),
        *_widest_table(values, measures),
        *_findings_table(values),
        _crossed_table(values),
    )
    return Section(blocks, drawings)


def title_of(key: str) -> str:
    """A measure's macro mean in print."""
    return ERRORS[key] if key in ERRORS else METRICS[key].macro_title


def forest(values: Mapping[str, Any], key: str) -> Drawing:
    """One row a group: the measure of the group and of all other images, and the gap, with intervals and p."""
    rows = list(_forest_rows(values, key))
    names = [name for name, _ in rows]
    figure = Drawing(figsize=(11, 1.3 + 0.34 * len(rows)), layout="constrained")
    value_axis, gap_axis = figure.subplots(1, 2, sharey=True, width_ratios=(1.15, 1))
    for row, (_, one) in enumerate(rows):
        if one is None:
            continue
        own, rest, gap = (triple(one[part]["macro"]) for part in ("group", "rest", "gap"))
        _point(value_axis, row - 0.14, own, BLUE, filled=True)
        _point(value_axis, row + 0.17, rest, GREY, filled=False)
        p = as_number(one["p_corrected"]["macro"])
        _point(gap_axis, row, gap, ORANGE if p < LEVEL else BLUE, filled=True)
        words = "not tested" if math.isnan(p) else f"p {p_value(p)}".replace("p <", "p < ")
        gap_axis.annotate(
            words,
            (1.01, row),
            xycoords=("axes fraction", "data"),
            va="center",
            fontsize=8.5,
            fontweight="bold" if p < LEVEL else "normal",
        )
    gap_axis.axvline(0, color="black", linewidth=0.9)
    for axis, label in ((value_axis, title_of(key)), (gap_axis, "group minus all other images")):
        axis.set_xlabel(label)
        frame_rows(axis)
        low, high = axis.get_xlim()
        missing = max(0.0, LEAST_SPAN - (high - low)) / 2
        axis.set_xlim(low - missing, high + missing)
        axis.locator_params(axis="x", nbins=6)
        axis.ticklabel_format(axis="x", useOffset=False, style="plain")
        for row, (_, one) in enumerate(rows):
            if row and one is None:
                axis.axhline(row - 0.5, color=GRID, linewidth=0.7)
    value_axis.set_yticks(range(len(rows)), names)
    for label, (_, one) in zip(value_axis.get_yticklabels(), rows, strict=True):
        label.set_fontsize(9.5)
        label.set_fontweight("bold" if one is None else "normal")
    value_axis.set_ylim(len(rows) - 0.4, -0.6)
    return figure


def _point(axis, row: float, interval: Sequence[float], color: str, *, filled: bool) -> None:
    value, low, high = interval
    axis.plot([low, high], [row, row], color=color, linewidth=1.8 if filled else 1.1, solid_capstyle="butt")
    axis.plot(
        value, row, "o", color=color, markersize=6 if filled else 4.5, markerfacecolor=color if filled else "white"
    )


def _forest_rows(values: Mapping[str, Any], key: str) -> Iterator[tuple[str, Mapping[str, Any] | None]]:
    """The attributes, and their measured groups."""
    for attribute, content in values["attributes"].items():
        measured = {name: group for name, group in content["groups"].items() if key in group["measures"]}
        if measured:
            yield in_figure(attribute, 40), None
        for name, group in measured.items():
            yield f"{in_figure(name, 32)} ({group['images']:,})", group["measures"][key]


def _groups(values: Mapping[str, Any]) -> Iterator[tuple[str, str, Mapping[str, Any]]]:
    for attribute, content in values["attributes"].items():
        for name, group in content["groups"].items():
            yield attribute, name, group


def _unmeasured(values: Mapping[str, Any]) -> Iterator[tuple[str, str, str]]:
    for attribute, name, group in _groups(values):
        if group["not_measured"]:
            yield attribute, name, group["not_measured"]


def _measures(values: Mapping[str, Any]) -> Iterator[str]:
    """Keys of the measures of any group, headline metrics first."""
    found = {key for _, _, group in _groups(values) for key in group["measures"]}
    return (key for key in (*headline_metrics(), *ERRORS) if key in found)


def _better(key: str) -> str:
    return "Lower is better." if key in ERRORS or not METRICS[key].higher_is_better else "Higher is better."


def _headline(values: Mapping[str, Any]) -> str:
    """How many groups and gaps there are, and which macro AUC gaps remain after correction."""
    measured = [(attribute, name, group) for attribute, name, group in _groups(values) if group["measures"]]
    key = MAIN
    worse = []
    for attribute, name, group in measured:
        one = group["measures"].get(key)
        if one is None:
            continue
        gap = triple(one["gap"]["macro"])
        if as_number(one["p_corrected"]["macro"]) < LEVEL and gap[0] < 0:
            worse.append((gap, f"{attribute} {name}: {signed_interval(*gap)}"))
    groups = "1 group was" if len(measured) == 1 else f"{len(measured)} groups were"
    if not values["gaps"]:
        return f"{groups} compared with all other images; none of the gaps can be tested."
    words = f"{groups} compared with all other images, with {plural(values['gaps'], 'test')} of macro means. "
    if not worse:
        return (
            words
            + f"After Holm's correction (p < {LEVEL}), {title_of(key)} is not shown to be lower in any group than "
            "in all other images."
        )
    shown = [text for _, text in sorted(worse)[:4]]
    more = f", and {len(worse) - len(shown)} more" if len(worse) > len(shown) else ""
    below = f"{title_of(key)} is lower than in all other images for {'; '.join(shown)}{more}."
    return words + f"After Holm's correction (p < {LEVEL}), {below}"


def _cautions(values: Mapping[str, Any]) -> Iterator[str]:
    yield CASE_MIX
    if any(content["from_labels"] for content in values["attributes"].values()):
        yield FROM_LABELS
    unmeasured = [f"{attribute} {name} ({reason})" for attribute, name, reason in _unmeasured(values)]
    if unmeasured:
        yield f"Not measured, so nothing is known about them: {'; '.join(unmeasured)}."
    missing = [f"{name} ({reason})" for name, reason in values["left_out"].items()]
    if missing:
        yield f"Images could not be grouped by: {'; '.join(missing)}."


def _groups_tables(values: Mapping[str, Any], measures: Sequence[str]) -> Iterator[Table]:
    """The groups with their sizes and the main measure, and then with all other measures."""
    head = ["group", "images", "patients", "findings\nin means", "mean prevalence\n(of the others)"]
    rows = [
        [
            f"{attribute}: {name}",
            f"{group['images']:,}",
            f"{group['patients']:,}",
            str(len(group["findings"])),
            _mean_prevalence(group),
            *_cells(group, MAIN),
        ]
        for attribute, name, group in _groups(values)
    ]
    caption = (
        "Means are over the same findings on both sides: those with at least "
        f"{values['least_positive_patients']} patients who have it and as many who do not, in the group and in all "
        f"others. A gap is the group minus all other images. {in_percent(values['confidence'])} intervals are from "
        f"{values['resamples']:,} draws of patients. p is two-sided, from a t test with the standard deviation over "
        f"the draws, and corrected by Holm for {plural(values['gaps'], 'test')}: the gaps of all measures, where two "
        "groups that make up the whole count once."
    )
    yield Table.of([*head, *_head(MAIN)], rows, caption)
    for key in measures:
        if key != MAIN:
            rows = [[f"{attribute}: {name}", *_cells(group, key)] for attribute, name, group in _groups(values)
                    if group["measures"]]  # fmt: skip
            yield Table.of(["group", *_head(key)], rows, _measure_words(key))


def _measure_words(key: str) -> str:
    """How to read the table of a measure that is not the main one."""
    if key in ERRORS:
        whom = "who have the finding" if key == "fnr" else "who do not have it"
        return f"{title_of(key).capitalize()} at the operating points, over the findings with enough patients {whom}."
    return "" if is_tested(key) else f"Gaps in {title_of(key)} are not tested: it rises with the prevalence alone."


def _head(key: str) -> list[str]:
    title = title_of(key)
    names = [title, f"{title}\nof the others", f"{title}\ngap (interval)"]
    return [*names, f"{title}\np corrected"] if is_tested(key) else names


def _cells(group: Mapping[str, Any], key: str) -> list[str]:
    """What `_head` names, of one group."""
    one = group["measures"].get(key)
    if one is None:
        return ["–"] * len(_head(key))
    own, rest, gap = (triple(one[part]["macro"]) for part in ("group", "rest", "gap"))
    cells = [with_interval(*own), number(rest[0]), signed_interval(*gap)]
    return [*cells, _p(one["p_corrected"]["macro"])] if is_tested(key) else cells


def _mean_prevalence(group: Mapping[str, Any]) -> str:
    """The mean prevalence of the findings in the means, and that in all other images; "–" if there are none."""
    if not group["findings"]:
        return "–"
    own, rest = (
        float(np.mean([group[side][finding] for finding in group["findings"]]))
        for side in ("prevalence", "rest_prevalence")
    )
    return f"{number(own)} ({number(rest)})"


def _widest_table(values: Mapping[str, Any], measures: Sequence[str]) -> Iterator[Table]:
    rows = []
    for attribute, content in values["attributes"].items():
        for key in measures:
            one = content["widest"].get(key)
            if one:
                interval = triple(one)
                groups = f"{one['high_group']} above {one['low_group']}"
                p = [_p(one["p"]), _p(one["p_corrected"])]
                rows.append(
                    [attribute, title_of(key), groups, with_interval(*interval), *p, str(len(one["findings"]))]
                )
    if rows:
        head = ["divided by", "measure", "widest gap", "size (interval)", "p", "p corrected", "findings"]
        caption = (
            "The two groups that lie farthest apart, over the findings that all groups share. Some gap is always the "
            "widest. p accounts for that: it is how often groups without a difference lie as far apart by chance. The "
            "interval does not. The larger of the false negative and the false positive gap is the difference in "
            "equalised odds."
        )
        yield Table.of(head, rows, caption)


def _findings_table(values: Mapping[str, Any]) -> Iterator[Block]:
    """Single findings whose AUC gap remains after correction, the widest first."""
    found = []
    for attribute, name, group in _groups(values):
        for key, one in group["measures"].items():
            for finding, gap in one["gap"]["findings"].items() if key == MAIN else ():
                p = as_number(one["p_corrected"]["findings"][finding])
                if p < LEVEL:
                    own, rest = one["group"]["findings"][finding], one["rest"]["findings"][finding]
                    patients = group["positive_patients"][finding]
                    found.append((key, finding, f"{attribute}: {name}", own, rest, gap, p, patients))
    if not found:
        yield Text(
            f"No single finding has a significant gap after correction for {plural(values['finding_gaps'], 'test')}. "
            "That does not prove equality: the intervals in analysis.json show how large a gap could be."
        )
        return
    found.sort(key=lambda one: -abs(as_number(one[5]["value"])))
    title = METRICS[found[0][0]].title
    head = [
        "finding",
        "group",
        "positive\npatients",
        title,
        f"{title}\nof the others",
        "gap (interval)",
        "p corrected",
    ]
    rows = [
        [
            finding,
            group,
            f"{patients:,}",
            with_interval(*triple(own)),
            number(as_number(rest["value"])),
            signed_interval(*triple(gap)),
            p_value(p),
        ]
        for _, finding, group, own, rest, gap, p, patients in found[:MOST_FINDINGS]
    ]
    more = f" The widest {MOST_FINDINGS} of {len(found)}." if len(found) > MOST_FINDINGS else ""
    tests = plural(values["finding_gaps"], "test")
    caption = f"Single findings with a significant gap after correction for {tests}.{more}"
    yield Table.of(head, rows, caption)


def _crossed_table(values: Mapping[str, Any]) -> Table:
    rows = [
        [f"{attribute}: {name}", *(with_interval(*triple(group["crossed"][key]["macro"])) for key in CROSSED)]
        for attribute, name, group in _groups(values)
        if group["crossed"]
    ]
    caption = (
        "AUC across the two sides. BPSN (background positive, subgroup negative): positives of the others against "
        "negatives of the group; low if the group's scores are too high. BNSP (background negative, subgroup "
        "positive): positives of the group against negatives of the others; low if the group's scores are too low."
    )
    return Table.of(["group", *CROSSED.values()], rows, caption)


def _p(value: float | None) -> str:
    return "not tested" if value is None or math.isnan(value) else p_value(value)
