"""What a reader sees of one set of predictions, and of an ensemble: tables and sentences for every metric.

Columns follow the table `kernels.METRICS`; no metric is named here. The headline metrics are in the table of findings,
the rest in tables of their own.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from hf_cxr.evaluation import METRICS, EvaluationReport, Measured, PairedDifference
from hf_cxr.evaluation.chance import random_ap
from hf_cxr.reporting.document import Block, Details, Document, Facts, Heading, Note, Table, Text, last_row
from hf_cxr.reporting.intervals import is_outside, outside_words
from hf_cxr.reporting.numbers import in_percent, join, number, p_value, signed_interval, with_interval
from hf_cxr.reporting.protocol import (
    OFFICIAL_TEST,
    SHUFFLED,
    SYNTHETIC,
    few_patients,
    left_out_cautions,
    limits,
    published,
    split_file_caution,
)
from hf_cxr.reporting.sections.averaged_views import averaged_headline
from hf_cxr.reporting.sections.table import conclusions, section_blocks
from hf_cxr.reporting.units import in_unit
from hf_cxr.words import NOT_A_DEVICE, plural

KINDS = {"probability": "Probabilities of each finding", "ranking": "More ranking figures of each finding"}
"""Kind of a metric -> summary of the table that has those that are not in the table of findings."""


ALL_SPLITS = "all splits"  # of images that are missing and of which a split file says nothing
BINS_WORDS = "ECE has 15 bins of equal mass."
RANDOM_ABOVE = 1.2
"""From so many times the prevalence on, the AP that random scores reach is shown."""

MOST_SHOWN = 4
"""So many findings are named with it."""

AVERAGES = {
    "micro": "Micro: of all cells of all findings together.",
    "weighted": "Weighted: each finding by its number of positives.",
    **dict.fromkeys(("head", "medium", "tail"), ""),
}
"""Averages in the order in which they are shown, and how to read them."""


def headline(report: EvaluationReport, split: str = "test") -> str:
    """Every macro metric with its interval, in one line; of how many findings, where some are left out of the mean.

    A metric whose chance level depends on the data has it next to the interval.
    """
    counts, count = report.counts["all"], len(report.label_names)
    macros = ", ".join(_with_chance(report, key) for key in report.headline())
    defined = count - len(report.undefined())
    part = f", mean of {defined} of the model's {count} findings" if defined < count else ""
    return (
        f"{macros}{part} ({counts.images:,} {split} images of {counts.patients:,} patients, "
        f"{in_percent(report.confidence)} intervals)"
    )


def _with_chance(report: EvaluationReport, key: str) -> str:
    """One macro metric with its interval, and its chance level if that is not the same number for all data."""
    metric, text = METRICS[key], with_interval(*report.headline()[key].macro_interval)
    if metric.chance == "prevalence" and text.endswith(")"):
        text = f"{text[:-1]}; chance {number(report.chance(key)[1])})"
    return f"{metric.macro_title} {text}"


def findings_table(report: EvaluationReport, subset: str = "all", tier_of: Mapping[str, str] | None = None) -> Table:
    """A row a finding, and the means over those that are defined.

    Args:
        report: the figures.
        subset: of the images.
        tier_of: by finding, whether it is frequent or rare in training; a separate column.
    """
    measured, counts = report.headline(subset), report.counts[subset]
    by_chance = [key for key in measured if METRICS[key].chance == "prevalence"]
    head = ["finding", *["tier"] * bool(tier_of), "positives\n(patients)", "negatives", "unknown"]
    before = len(head) - 1
    for key in measured:
        head += [f"{METRICS[key].title}\n({in_percent(report.confidence)} interval)"]
        head += [f"chance level\nof {METRICS[key].title}"] * (key in by_chance)
    chance = {key: report.chance(key, subset) for key in by_chance}
    rows = []
    for column, name in enumerate(report.label_names):
        cells = [name, tier_of[name]] if tier_of else [name]
        cells += [f"{counts.positives_C[column]:,} ({counts.positive_patients_C[column]:,})"]
        cells += [f"{counts.negatives_C[column]:,}", f"{counts.unknown_C[column]:,}"]
        for key, one in measured.items():
            cells += [with_interval(*one.interval(column))]
            cells += [number(chance[key][0][column])] if key in chance else []
        rows.append(cells)
    mean = ["macro mean", *[""] * before]
    for key, one in measured.items():
        mean += [with_interval(*one.macro_interval)] + ([number(chance[key][1])] if key in chance else [])
    rows.append(mean)
    return Table.of(head, rows, _method(report, subset), last_row(rows, len(head)), totals=1)


def averages_table(report: EvaluationReport, subset: str = "all", tier_of: Mapping[str, str] | None = None) -> Table:
    """A row a metric, a column a way to average it over the findings: macro, micro, weighted, tiers."""
    measured = {
        key: one for key, one in report.measured[subset].items() if METRICS[key].kind in KINDS and one.averages
    }
    found = dict.fromkeys(name for one in measured.values() for name in one.averages)
    names = [*(name for name in AVERAGES if name in found), *(name for name in found if name not in AVERAGES)]
    rows = [
        [
            METRICS[key].title,
            _value(*one.macro_interval),
            *(_value(*one.averages[name].interval) if name in one.averages else "–" for name in names),
        ]
        for key, one in measured.items()
    ]
    words = [AVERAGES[name] for name in names if AVERAGES.get(name)]
    for name in names:
        members = [finding for finding, tier in (tier_of or {}).items() if tier == name]
        words += [f"{name.capitalize()}: {join(members)}."] if members else []
    return Table.of(
        ("metric", "macro", *names),
        rows,
        " ".join([f"{in_percent(report.confidence)} intervals in brackets. Macro: the mean over findings.", *words])
        + _bins(measured)
        + _beside(measured),
    )


def metrics_table(report: EvaluationReport, keys: Sequence[str], subset: str = "all") -> Table:
    """A row a finding, a column a metric, and their means."""
    measured = {key: report.measured[subset][key] for key in keys}
    rows = [
        [name, *(_value(*one.interval(column)) for one in measured.values())]
        for column, name in enumerate(report.label_names)
    ]
    rows.append(["macro mean", *(_value(*one.macro_interval) for one in measured.values())])
    head = ["finding", *(METRICS[key].title.replace(" of ", "\nof ") for key in keys)]
    return Table.of(head, rows, _reading(measured, report.confidence), last_row(rows, len(head)), totals=1)


def subsets_table(report: EvaluationReport) -> Table:
    """A row a subset of the images, with its macro metrics."""
    head = ["subset", "images", "patients", *(METRICS[key].macro_title for key in report.headline()), "undefined"]
    rows = [
        [
            subset,
            f"{report.counts[subset].images:,}",
            f"{report.counts[subset].patients:,}",
            *(with_interval(*one.macro_interval) for one in report.headline(subset).values()),
            ", ".join(report.undefined(subset)) or "none",
        ]
        for subset in report.measured
    ]
    caption = (
        "Each subset has its own mix of patients, and its means leave out its own undefined findings: a difference "
        "between two subsets need not be due to the model."
    )
    return Table.of(head, rows, caption)


def evaluation_blocks(report: EvaluationReport, tier_of: Mapping[str, str] | None = None) -> tuple[Block, ...]:
    """The table of findings and, if there are any, of subsets."""
    subsets = (Heading("Subsets of the images"), subsets_table(report)) if len(report.measured) > 1 else ()
    return findings_table(report, tier_of=tier_of), *subsets


def further_blocks(report: EvaluationReport, tier_of: Mapping[str, str] | None = None) -> tuple[Block, ...]:
    """Averages, and folded the metrics that the table of findings does not have."""
    measured = report.measured["all"]
    blocks: list[Block] = []
    if any(one.averages for one in measured.values()):
        blocks += [Heading("Averages", 3), averages_table(report, tier_of=tier_of)]
    for kind, summary in KINDS.items():
        keys = [key for key in measured if METRICS[key].kind == kind and not METRICS[key].headline]
        if keys:
            titles = "; ".join(METRICS[key].title for key in keys)
            blocks.append(Details(f"{summary}: {titles}", (metrics_table(report, keys),)))
    return tuple(blocks)


def positive_patients(report: EvaluationReport) -> dict[str, int]:
    """By finding, how many patients have it."""
    return dict(zip(report.label_names, report.counts["all"].positive_patients_C.tolist(), strict=True))


def equal_scores(report: EvaluationReport) -> list[str]:
    """A caution about findings whose scores are all equal, if there are any: their AUC is 0.5 in every draw."""
    auc = report.measured["all"].get("auc")
    if auc is None:
        return []
    ends = zip(report.label_names, auc.value_C, auc.low_C, auc.high_C, strict=True)
    names = [name for name, *three in ends if all(value == 0.5 for value in three)]
    if not names:
        return []
    which = "All findings" if len(names) == len(report.label_names) else join(names)
    return [f"{which}: every image has the same score, so the scores rank nothing."]


def records(report: EvaluationReport, subset: str = "all") -> pd.DataFrame:
    """A row a finding, plain numbers, NaN where undefined."""
    counts, columns = report.counts[subset], {"finding": list(report.label_names)}
    for name in ("positives", "positive_patients", "negatives", "unknown", "prevalence"):
        columns[name] = getattr(counts, f"{name}_C")
    for key, one in report.measured[subset].items():
        columns |= {key: one.value_C, f"{key}_low": one.low_C, f"{key}_high": one.high_C, f"{key}_draws": one.draws_C}
    return pd.DataFrame(columns)


def evaluation_document(
    title: str,
    report: EvaluationReport,
    *,
    facts: Mapping[str, Any],
    split: str = "test",
    analysis: Mapping[str, Any] | None = None,
    cautions: Sequence[str] = (),
    any_program: bool = False,
    unit: str = "image",
) -> Document:
    """A saved model, or any program's predictions, measured on some split of some data.

    Args:
        title: which model.
        report: its metrics.
        facts: what it was measured on; "synthetic" among them.
        split: the name of the split.
        analysis: values by key of `sections.table.SECTIONS`; `draw_sections` there draws the pictures.
        cautions: of this evaluation, for the top of the page.
        any_program: the scores are those of a program that is not known.
        unit: "image" or "study", what the rows are; facts and limits are about images where they say so.
    """
    no_label = ["No finding has both a positive and a negative label: no ranking can be measured."]
    no_label *= not report.counts["all"].both_C.any()
    pairs = tuple(
        (name.replace("_", " "), _fact(value))
        for name, value in facts.items()
        if name != "data_notes" and value is not None
    )
    synthetic = bool(facts.get("synthetic"))
    cautions = [*facts.get("data_notes", ()), *_data_cautions(facts, split), *cautions]
    patients = report.counts["all"].patients
    few = few_patients(positive_patients(report), patients)
    cautions = [*[SYNTHETIC] * synthetic, *cautions, *no_label, *equal_scores(report), *few, NOT_A_DEVICE]
    official = report.counts["all"].images == OFFICIAL_TEST and unit == "image"
    blocks = (
        *in_unit(_headlines(report, split, analysis or {}), unit),
        Note(tuple(cautions)),
        Heading("What was measured"),
        Facts(pairs),
        Heading("Each finding"),
        *in_unit(
            [*evaluation_blocks(report), *further_blocks(report), *section_blocks(analysis or {}, patients)], unit
        ),
        *(published(str(facts.get("dataset", ""))) if official else ()),
        Heading("Limits"),
        Note(
            tuple(limits(str(facts.get("dataset", "")), synthetic=synthetic, any_program=any_program)), warning=False
        ),
    )
    return Document(title, blocks, dict(facts) | report.to_dict(), records(report))


def evaluation_summary(
    document: Document, patients: int, analysis: Mapping[str, Any], unit: str = "image"
) -> Document:
    """The start of an evaluation, up to the table of findings, and the conclusion of each analysis in a sentence.

    Args:
        document: from `evaluation_document`.
        patients: how many were measured.
        analysis, unit: as for it.
    """
    end = 1 + next(place for place, block in enumerate(document.blocks) if isinstance(block, Table))
    found = conclusions(analysis, patients)
    note = Note(tuple(f"{heading}: {text}" for heading, text in found), warning=False)
    short = in_unit([Heading("In short"), note], unit) if found else ()
    return Document(document.title, (*document.blocks[:end], *short))


def _headlines(report: EvaluationReport, split: str, analysis: Mapping[str, Any]) -> list[Block]:
    """The first line of a page; two where averaged views were measured next to one view."""
    words, averaged = headline(report, split), analysis.get("averaged_views")
    if averaged is None:
        return [Text(words, strong=True)]
    return [Text(f"One view: {words}", strong=True), Text(averaged_headline(averaged), strong=True)]


def _data_cautions(facts: Mapping[str, Any], split: str) -> list[str]:
    """What is unusual about the data, in the words that a run on them has at the top of its report.

    Args:
        facts: of the data; images that are missing or cannot be read by split, or the number of this split.
        split: the name of the split.
    """
    counts = [facts.get(key) or {} for key in ("missing_images", "unreadable_images")]
    missing, unreadable = (
        {name: n for name, n in one.items() if name in (split, ALL_SPLITS)}
        if isinstance(one, Mapping)
        else {split: one}
        for one in counts
    )
    own_split = split_file_caution({"synthetic": facts.get("synthetic"), "split_file": facts.get("split_file")})
    return [*[SHUFFLED] * bool(facts.get("labels_shuffled")), *own_split, *left_out_cautions(missing, unreadable)]


def ensemble_document(
    members: Sequence[str],
    test: EvaluationReport,
    differences: Mapping[str, PairedDifference],
    cautions: Sequence[str] = (),
) -> Document:
    """The mean of several models' probabilities, measured on test.

    Args:
        members: names of the models.
        test: the ensemble's metrics.
        differences: for each member, the ensemble minus it, in the same draws of patients.
        cautions: about the members, for the top of the page.
    """
    blocks = (
        Text(f"Ensemble of {len(members)} on test: {headline(test)}", strong=True),
        *([Note(tuple(cautions))] if cautions else []),
        *evaluation_blocks(test),
        Heading("Ensemble minus member"),
        _differences_table(differences),
    )
    return Document(f"Ensemble of {', '.join(members)}", blocks, test.to_dict(), records(test))


def _differences_table(differences: Mapping[str, PairedDifference]) -> Table:
    keys = next(iter(differences.values())).measured
    head = ["member"]
    for key in keys:
        head += [f"{METRICS[key].macro_title}\ndifference (interval)", f"{METRICS[key].macro_title}\np"]
    rows = []
    for name, difference in differences.items():
        cells = [name]
        for key in keys:
            cells += [signed_interval(*difference.measured[key].macro_interval), p_value(difference.macro_p[key])]
        rows.append(cells)
    return Table.of(
        head, rows, "In the same draws of patients. p is two-sided and not corrected for the number of rows."
    )


def _method(report: EvaluationReport, subset: str) -> str:
    """How to read the table of findings."""
    counts = report.counts[subset]
    levels = [
        f"{METRICS[key].title} must be read against its chance level, the prevalence."
        if METRICS[key].chance == "prevalence"
        else f"The chance level of {METRICS[key].title} is {METRICS[key].chance:g}."
        for key in report.headline(subset)
        if METRICS[key].chance is not None
    ]
    method = report.method.replace(BINS_WORDS, "").replace("  ", " ")  # those of a metric that is in other tables
    undefined = ", ".join(report.undefined(subset)) or "none"
    return (
        f"{plural(counts.images, 'image')} of {plural(counts.patients, 'patient')}. {method} {' '.join(levels)} "
        f"{random_scores(report, subset)}Undefined, and left out of the macro mean: {undefined}."
    )


def random_scores(report: EvaluationReport, subset: str = "all") -> str:
    """What AP random scores reach, for the findings whose few positives put it clearly above the prevalence.

    "" if there is none; else a sentence that ends with a space.
    """
    counts = report.counts[subset]
    random_C, share_C = random_ap(counts.positives_C, counts.negatives_C), counts.prevalence_C
    above_C = random_C >= RANDOM_ABOVE * share_C
    if "ap" not in report.headline(subset) or not above_C.any():
        return ""
    widest = np.argsort(np.where(above_C, -random_C / share_C, np.inf), kind="stable")[: above_C.sum()]
    shown = [
        f"{report.label_names[column]} {_precise(random_C[column])} (prevalence {_precise(share_C[column])})"
        for column in widest[:MOST_SHOWN]
    ]
    more = f" and {len(widest) - len(shown)} more" if len(widest) > len(shown) else ""
    defined_C = ~report.measured[subset]["ap"].undefined_C
    mean = number(float(np.mean(random_C[defined_C])))
    return (
        f"With few positives, random scores reach an AP above the prevalence on average: {', '.join(shown)}{more}. "
        f"Over all findings random scores reach an mAP of {mean} on average. "
    )


def _precise(value: float) -> str:
    """Three decimals, or two digits of a smaller number."""
    return number(value) if value >= 0.01 else f"{value:.2g}"


def _reading(measured: Mapping[str, Measured], confidence: float) -> str:
    """How to read a table of further metrics."""
    sides = {True: "higher is better", False: "lower is better"}
    words = [f"{METRICS[key].title}: {sides[METRICS[key].higher_is_better]}" for key in measured]
    older = any(np.isnan(one.low_C[~np.isnan(one.value_C)]).any() for one in measured.values())
    return (
        f"{in_percent(confidence)} intervals in brackets. {'; '.join(words)}."
        + _bins(measured)
        + _beside(measured)
        + " A value without an interval was measured by an earlier version." * older
    )


def _bins(measured: Mapping[str, Measured]) -> str:
    return f" {BINS_WORDS}" if "ece" in measured else ""


def _beside(measured: Mapping[str, Measured]) -> str:
    """How to read intervals that do not contain their value; "" if there are none."""
    return outside_words(
        METRICS[key].title
        for key, one in measured.items()
        if is_outside(one.value_C, one.low_C, one.high_C) or is_outside(*one.macro_interval)
    )


def _value(value: float, low: float, high: float) -> str:
    """A number with its interval, if it has one."""
    return number(value) if np.isnan(low) else with_interval(value, low, high)


def _fact(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {_fact(one)}" for name, one in value.items()) or "none"
    if isinstance(value, list | tuple):
        return ", ".join(map(_fact, value)) or "none"
    if value is None or isinstance(value, bool):
        return {True: "yes", False: "no", None: "none"}[value]
    return f"{value:,}" if isinstance(value, int) else str(value)
