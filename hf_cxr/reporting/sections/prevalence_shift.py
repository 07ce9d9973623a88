"""The section on prevalence shift: what other prevalences do to the probabilities; and the table of one shift."""

from collections.abc import Mapping
from typing import Any

from hf_cxr.evaluation.prevalence_shift import prevalence_bias
from hf_cxr.reporting.document import Heading, Note, Table, Text
from hf_cxr.reporting.numbers import by_reason, change_with_interval, in_percent, percent, percent_with_interval
from hf_cxr.reporting.sections.section import Section

NAMES = {"estimated": "estimated from the scores", "observed": "observed in the labels"}


def prevalence_shift_section(values: Mapping[str, Any]) -> Section:
    """From the values of `evaluation.prevalence_shift.PrevalenceShift.to_dict`."""
    findings = list(values["source"])
    scores = values["scores"]
    columns = [name for name in scores if name != "observed"]
    rows = [
        [
            name,
            percent(values["source"][name]),
            percent_with_interval(values["observed"][name]),
            percent_with_interval(values["estimated"][name]) if name not in values["not_estimated"] else "no estimate",
            *(percent(scores[target]["mean_probability"][name]["value"]) for target in columns),
            *(change_with_interval(values["changes"][target]["log_loss"][name]) for target in columns[1:]),
        ]
        for name in findings
    ]
    head = (
        *("finding", "assumed", "observed", "estimated\nfrom scores"),
        *(f"mean probability,\n{target}" for target in columns),
        *(f"change of log loss,\n{target}" for target in columns[1:]),
    )
    macro = [
        [
            NAMES.get(target, f"given: {target}"),
            *(change_with_interval(by_score[score]) for score in ("log_loss", "brier")),
        ]
        for target, by_score in values["macro_changes"].items()
    ]
    blocks = [
        Heading("Other prevalences"),
        Text(
            "Calibrated probabilities assume the prevalences of validation. Where findings look the same but are more "
            "or less frequent, a shift of each finding's logit makes the probabilities right again. The tables show "
            "what two shifts would do on test: one to the prevalences estimated from the scores alone (Saerens et "
            "al., 2002), and one to the observed prevalences, which need the labels: no estimate can gain more. All "
            "other figures of this page are without a shift."
        ),
        Text(shift_verdict(values), strong=True),
        Table.of(
            ("prevalences", "change of mean log loss", "change of mean Brier score"),
            macro,
            f"Mean over the findings that are shifted; below 0 is better. {in_percent(values['confidence'])} "
            "patient-clustered intervals.",
        ),
        Table.of(
            head,
            rows,
            "Assumed: share of positives on validation. Observed: share of positives on test. The change of log loss "
            "is against the probabilities as calibrated. A shift changes no ranking, so AUC and AP stay as they are. "
            "If an estimate's interval is far from the observed prevalence, the findings do not look as they did on "
            "validation: do not trust estimates for this model.",
        ),
    ]
    if values["not_estimated"]:
        blocks.append(Text("These prevalences cannot be estimated from the scores:"))
        blocks.append(Note(by_reason(values["not_estimated"]), warning=False))
    return Section(tuple(blocks))


def effect_table(values: Mapping[str, Any], target: str) -> Table:
    """What one shift does to the probabilities of a labelled set, a row for each finding that it shifts.

    Args:
        values: of `PrevalenceShift.to_dict`.
        target: a key of its "targets".
    """
    before, after, changes = values["scores"]["as calibrated"], values["scores"][target], values["changes"][target]
    rows = [
        [
            name,
            percent_with_interval(values["observed"][name]),
            percent_with_interval(before["mean_probability"][name]),
            percent_with_interval(after["mean_probability"][name]),
            *(change_with_interval(changes[score][name]) for score in ("log_loss", "brier")),
        ]
        for name, share in values["targets"][target].items()
        if share is not None
    ]
    head = (
        "finding",
        "prevalence",
        "mean probability\nbefore",
        "mean probability\nnow",
        "change of log loss",
        "change of Brier score",
    )
    return Table.of(
        head,
        rows,
        "On the run's own test set, whose prevalences are its own: the log loss falls where they are nearer to the "
        f"new ones than to those of validation. {in_percent(values['confidence'])} patient-clustered intervals.",
    )


def shift_verdict(values: Mapping[str, Any]) -> str:
    """Whether a shift to the estimated prevalences would improve the probabilities on test: one sentence."""
    change = values["macro_changes"]["estimated"]["log_loss"]
    if change["value"] is None:
        return "No finding's prevalence can be estimated from the scores."
    words = f"the mean log loss on test changes by {change_with_interval(change)}"
    if change["low"] < 0 < change["high"]:
        return f"With the estimated prevalences {words}, which may be chance, so the shift may not help."
    way = "better" if change["value"] < 0 else "worse"
    return f"With the estimated prevalences {words}: the probabilities would be {way}."


def shift_table(
    source: Mapping[str, float], target: Mapping[str, float], intervals: Mapping[str, tuple[float, float]]
) -> Table:
    """What a shift does to each finding.

    Args:
        source: finding -> prevalence before, of the findings in ``target``.
        target: finding -> prevalence after.
        intervals: finding -> low and high end of an estimated prevalence's interval; empty for given ones.
    """
    bias = prevalence_bias([source[name] for name in target], list(target.values()))
    rows = [
        [
            name,
            percent(source[name]),
            percent_with_interval(dict(zip(("value", "low", "high"), (now, *intervals[name]), strict=True)))
            if name in intervals
            else percent(now),
            f"{one:+.3f}".replace("-", "−"),
        ]
        for (name, now), one in zip(target.items(), bias, strict=True)
    ]
    return Table.of(
        ("finding", "prevalence before", "prevalence now", "added to the logit"),
        rows,
        "Findings that are not listed are as they were."
        + (" In brackets: the 95 % interval of the estimate." if intervals else ""),
    )
