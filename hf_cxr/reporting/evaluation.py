"""What a reader sees of one set of predictions, and of an ensemble: tables and sentences for every metric.

Columns follow the table `kernels.METRICS`; no metric is named here.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from hf_cxr.evaluation import METRICS, EvaluationReport, PairedDifference
from hf_cxr.reporting.document import Block, Document, Facts, Heading, Note, Table, Text, last_row
from hf_cxr.reporting.numbers import number, p_value, signed_interval, with_interval
from hf_cxr.reporting.protocol import NOT_A_DEVICE, SYNTHETIC, few_patients


def headline(report: EvaluationReport, split: str = "test") -> str:
    """Every macro metric with its interval, in one line."""
    counts = report.counts["all"]
    macros = (
        f"{METRICS[key].macro_title} {with_interval(*one.macro_interval)}" for key, one in report.headline().items()
    )
    return (
        f"{', '.join(macros)} ({counts.images:,} {split} images of {counts.patients:,} patients, "
        f"{report.confidence:.0%} intervals)"
    )


def findings_table(report: EvaluationReport, subset: str = "all") -> Table:
    """A row a finding, and the means over those that are defined."""
    measured, counts = report.headline(subset), report.counts[subset]
    values = {key: one for key, one in report.measured[subset].items() if METRICS[key].kind == "probability"}
    by_chance = [key for key in measured if METRICS[key].chance == "prevalence"]
    head = ["finding", "positives\n(patients)", "negatives", "unknown"]
    for key in measured:
        head += [f"{METRICS[key].title}\n({report.confidence:.0%} interval)"]
        head += [f"chance level\nof {METRICS[key].title}"] * (key in by_chance)
    head += [METRICS[key].title.replace(", ", ",\n") for key in values]
    chance = {key: report.chance(key, subset) for key in by_chance}
    rows = []
    for column, name in enumerate(report.label_names):
        cells = [name, f"{counts.positives_C[column]:,} ({counts.positive_patients_C[column]:,})"]
        cells += [f"{counts.negatives_C[column]:,}", f"{counts.unknown_C[column]:,}"]
        for key, one in measured.items():
            cells += [with_interval(*one.interval(column))]
            cells += [number(chance[key][0][column])] if key in chance else []
        rows.append([*cells, *(number(one.value_C[column]) for one in values.values())])
    mean = ["macro mean", "", "", ""]
    for key, one in measured.items():
        mean += [with_interval(*one.macro_interval)] + ([number(chance[key][1])] if key in chance else [])
    rows.append([*mean, *[""] * len(values)])
    return Table.of(head, rows, _method(report, subset), last_row(rows, len(head)))


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
        "Each subset has its own mix of patients and its own undefined findings, which its means leave out: a "
        "difference between two subsets is not yet one of the model."
    )
    return Table.of(head, rows, caption)


def evaluation_blocks(report: EvaluationReport) -> tuple[Block, ...]:
    """The table of findings and, if there are any, of subsets."""
    subsets = (Heading("Subsets of the images"), subsets_table(report)) if len(report.measured) > 1 else ()
    return findings_table(report), *subsets


def panel_captions(report: EvaluationReport) -> list[str]:
    """For each finding's ROC panel: the first metric with its interval, and the number of positives."""
    key, first = next(iter(report.headline().items()))
    counts, undefined = report.counts["all"], report.undefined()
    return [
        "one label value only:\nno curve"
        if name in undefined
        else f"{METRICS[key].title} {with_interval(*first.interval(column))}\n"
        f"{counts.positives_C[column]} positives, {counts.positive_patients_C[column]} patients"
        for column, name in enumerate(report.label_names)
    ]


def positive_patients(report: EvaluationReport) -> dict[str, int]:
    """By finding, how many patients have it."""
    return dict(zip(report.label_names, report.counts["all"].positive_patients_C.tolist(), strict=True))


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
) -> Document:
    """A saved model measured on some split of some data.

    Args:
        title: which model.
        report: its metrics.
        facts: what it was measured on; "synthetic" among them.
        split: the name of the split.
    """
    pairs = tuple((name.replace("_", " "), _fact(value)) for name, value in facts.items())
    synthetic = [SYNTHETIC] if facts.get("synthetic") else []
    cautions = Note((*synthetic, *few_patients(positive_patients(report)), NOT_A_DEVICE))
    blocks = (Text(headline(report, split), strong=True), cautions, Facts(pairs), *evaluation_blocks(report))
    return Document(title, blocks, dict(facts) | report.to_dict(), records(report))


def ensemble_document(
    members: Sequence[str], test: EvaluationReport, differences: Mapping[str, PairedDifference]
) -> Document:
    """The mean of several models' probabilities, measured on test.

    Args:
        members: names of the models.
        test: the ensemble's metrics.
        differences: for each member, the ensemble minus it, in the same draws of patients.
    """
    blocks = (
        Text(f"Ensemble of {len(members)} on test: {headline(test)}", strong=True),
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
    return Table.of(head, rows, "In the same draws of patients. p: two-sided, not corrected for their number.")


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
    return (
        f"{counts.images:,} images of {counts.patients:,} patients. {report.method} {' '.join(levels)} ECE is the "
        f"expected calibration error. Undefined, and left out of the macro mean: "
        f"{', '.join(report.undefined(subset)) or 'none'}."
    )


def _fact(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {_fact(one)}" for name, one in value.items()) or "none"
    if isinstance(value, list | tuple):
        return ", ".join(map(_fact, value)) or "none"
    if value is None or isinstance(value, bool):
        return {True: "yes", False: "no", None: "none"}[value]
    return f"{value:,}" if isinstance(value, int) else str(value)
