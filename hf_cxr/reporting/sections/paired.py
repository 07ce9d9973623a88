"""What a reader sees of two systems on the same images: the difference in the mean, and of each finding."""

from collections.abc import Iterator, Mapping
from typing import Any

import matplotlib.figure
import numpy as np

from hf_cxr.evaluation import METRICS
from hf_cxr.evaluation.comparison import is_testable
from hf_cxr.evaluation.metric import as_number
from hf_cxr.reporting.document import Figure, Heading, Note, Table, Text, last_row
from hf_cxr.reporting.numbers import in_percent, number, p_value, signed, signed_interval
from hf_cxr.reporting.plots import BLUE, frame_rows
from hf_cxr.reporting.sections.section import Section
from hf_cxr.words import in_figure, plural

PICTURE = "figures/paired.png"
SHORT = 20  # letters of a name that fits above a column


def paired_section(values: Mapping[str, Any], picture: str = PICTURE) -> Section:
    """The section of `evaluation.paired`, from its plain values; undefined may be NaN or None.

    Args:
        values: of `Paired.to_dict`.
        picture: its place; a page may have the pairs of more than one analysis.
    """
    blocks = [
        Heading(f"{values['first']} minus {values['second']}"),
        Text(" ".join(_macro_sentence(values, key) for key in values["metrics"]), strong=True),
        Note((*_left_out(values), *_finding_sentences(values), *_too_few_draws(values)), warning=False),
        Figure(
            picture,
            f"Difference of each finding, {values['first']} minus {values['second']}, with intervals",
            f"Each finding, and the macro mean below. Right of 0 favours {_side(values, 'first')}. Filled: shown to "
            "differ (of a finding, after correction). Undefined findings have no dot.",
        ),
        *_tables(values),
    ]
    return Section(tuple(blocks), {picture: lambda: forest(values)})


def forest(values: Mapping[str, Any]) -> matplotlib.figure.Figure:
    """The differences of the findings and of the mean with their intervals, a panel a metric."""
    level, names = 1 - values["confidence"], list(values["label_names"])
    rows = [*names, "macro mean"]
    figure = matplotlib.figure.Figure(figsize=(11, 1.5 + 0.32 * len(rows)), layout="constrained")
    axes = figure.subplots(1, len(values["metrics"]), sharey=True, squeeze=False)[0]
    for axis, (key, figures) in zip(axes, values["metrics"].items(), strict=True):
        for row, name in enumerate(rows):
            one = (
                {k: column[name] for k, column in figures["findings"].items()}
                if row < len(names)
                else figures["macro"]
            )
            low, high, value = (as_number(one[part]) for part in ("low", "high", "difference"))
            differs = as_number(one.get("p_corrected", one["p"])) < level
            axis.plot([low, high], [row, row], color=BLUE, linewidth=2)
            axis.plot(value, row, "o", color=BLUE, markersize=6, markerfacecolor=BLUE if differs else "white")
        axis.axvline(0, color="black", linewidth=1)
        axis.axhline(len(names) - 0.5, color="#BBBBBB", linewidth=0.7)
        axis.set_xlabel(f"{METRICS[key].title}: {_side(values, 'first')} minus {_side(values, 'second')}")
        frame_rows(axis)
        axis.locator_params(axis="x", nbins=5)
    axes[0].set_yticks(range(len(rows)), [in_figure(name.replace("_", " "), 40) for name in rows])
    axes[0].set_ylim(len(rows) - 0.4, -0.6)
    return figure


def _macro_sentence(values: Mapping[str, Any], key: str) -> str:
    """Whether the means differ, in one sentence."""
    title, macro = (
        METRICS[key].macro_title,
        {name: as_number(v) for name, v in values["metrics"][key]["macro"].items()},
    )
    if not is_testable(macro["draws"], values["resamples"]):
        return f"{title} cannot be compared: most draws of patients have no positives or no negatives of some finding."
    level = 1 - values["confidence"]
    what = signed_interval(macro["difference"], macro["low"], macro["high"])
    both = f"{number(macro['first'])} and {number(macro['second'])}"
    verdict = "differ" if macro["p"] < level else "are not shown to differ"
    return f"{title} {both} {verdict}: {what}, p {p_value(macro['p'])}."


def _finding_sentences(values: Mapping[str, Any]) -> list[str]:
    """Which findings differ after correction."""
    sentences, level = [], 1 - values["confidence"]
    for key, figures in values["metrics"].items():
        findings = {name: {k: as_number(v) for k, v in column.items()} for name, column in figures["findings"].items()}
        better = {
            name: difference
            for name, difference in findings["difference"].items()
            if findings["p_corrected"][name] < level and is_testable(findings["draws"][name], values["resamples"])
        }
        title = METRICS[key].title
        if better:
            listing = ", ".join(f"{name} {signed(difference)}" for name, difference in better.items())
            sentences.append(f"By {title}, these findings differ after Holm's correction: {listing}.")
        else:
            sentences.append(f"By {title}, no single finding differs after Holm's correction.")
    return sentences


def _too_few_draws(values: Mapping[str, Any]) -> list[str]:
    """A caution where no difference of a finding could be shown, however large."""
    level, figures = 1 - values["confidence"], next(iter(values["metrics"].values()))
    tested = sum(not np.isnan(as_number(p)) for p in figures["findings"]["p"].values())
    least = 2 * tested / (values["resamples"] + 1)
    if least < level:
        return []
    return [
        f"After correction for {tested} findings, no corrected p value can be below {least:.3f}: no finding can "
        f"be shown to differ. Give more than {int(2 * tested / level):,} draws (bootstrap_resamples)."
    ]


def _side(values: Mapping[str, Any], side: str) -> str:
    """A system by its name where both names are short, else "the first" or "the second"."""
    return values[side] if max(len(values["first"]), len(values["second"])) <= SHORT else f"the {side}"


def _left_out(values: Mapping[str, Any]) -> list[str]:
    out = values["left_out"]
    parts = [f"{len(entry) if isinstance(entry, list) else entry:,} {name}" for name, entry in out.items() if entry]
    names = [name for entry in out.values() if isinstance(entry, list) for name in entry]
    sentences = [
        f"Both were measured on the same {plural(values['images'], 'image')} of "
        f"{plural(values['patients'], 'patient')} and on {plural(len(values['label_names']), 'finding')}."
    ]
    if parts:
        listed = f" ({', '.join(names)})" if names else ""
        sentences.append(f"Left out, because only one of the two has them: {', '.join(parts)}{listed}.")
    return sentences


def _tables(values: Mapping[str, Any]) -> Iterator[Table]:
    """A table a metric: each finding, and the mean."""
    caption = (
        f"First: {values['first']}. Second: {values['second']}. {in_percent(values['confidence'])} intervals and "
        f"two-sided p values from {values['resamples']:,} draws of patients, the same for both systems. p corrected: "
        "by Holm over the findings, for each metric separately. Means are over the findings that have the metric."
    )
    sides = [_side(values, side) for side in ("first", "second")]
    for key, figures in values["metrics"].items():
        title = METRICS[key].title
        head = ["finding", "positives", *(f"{title}\n{side}" for side in sides), f"{title}\ndifference (interval)"]
        rows = []
        for name in values["label_names"]:
            one = {part: as_number(column[name]) for part, column in figures["findings"].items()}
            rows.append([name, f"{values['positives'][name]:,}", *_cells(one), p_value(one["p_corrected"])])
        mean = _cells({part: as_number(value) for part, value in figures["macro"].items()})
        rows.append(["macro mean", "", *mean, ""])
        head += [f"{title}\np", f"{title}\np corrected"]
        yield Table.of(head, rows, caption, last_row(rows, len(head)), totals=1)
        caption = ""  # once


def _cells(one: Mapping[str, float]) -> list[str]:
    difference = signed_interval(one["difference"], one["low"], one["high"])
    return [number(one["first"]), number(one["second"]), difference, p_value(one["p"])]
