"""Figures as earlier versions wrote them, in today's form: metrics.json and validation.json of old run folders."""

from collections.abc import Mapping
from typing import Any

from hf_cxr.evaluation.metric import OLD_KEYS

COUNTS = ("positives", "positive_patients", "negatives", "unknown", "prevalence")
RELIABILITY = ("mean_probability_positives", "mean_probability_negatives", "brier", "ece")


def modern_figures(values: Mapping[str, Any]) -> dict[str, Any]:
    """The content of a run's metrics.json or validation.json as this version writes it; a modern one is unchanged.

    The figures of "test" and "validation" were a list of findings with one field for each metric. The Trainer's
    figures had other names for today's metrics.
    """
    values = dict(values)
    for split in ("test", "validation"):
        figures = values.get(split)
        if isinstance(figures, Mapping):
            values[split] = _report(figures) if "findings" in figures else _renamed(figures)
    if "history" in values:
        values["history"] = [_renamed(entry) for entry in values["history"]]
    return values


def _renamed(figures: Mapping[str, Any]) -> dict[str, Any]:
    new = {f"{prefix}{old}": f"{prefix}{key}" for old, key in OLD_KEYS.items() for prefix in ("", "eval_")}
    return {new.get(name, name): value for name, value in figures.items()}


def _report(old: Mapping[str, Any]) -> dict[str, Any]:
    findings = {finding["name"]: finding for finding in old["findings"]}

    def by_finding(field: str) -> dict[str, Any]:
        return {name: finding[field] for name, finding in findings.items()}

    metrics = {
        key: {
            "macro": old[f"macro_{key}"],
            **{f"macro_{end}": old[f"macro_{key}_{end}"] for end in ("low", "high", "draws")},
            "value": by_finding(key),
            **{end: by_finding(f"{key}_{end}") for end in ("low", "high", "draws")},
            "undefined": list(old["undefined"]),
        }
        for key in ("auc", "ap")
    }
    counts = {"images": old["n_images"], "patients": old["n_patients"]} | {name: by_finding(name) for name in COUNTS}
    reliability = {name: by_finding(name) for name in RELIABILITY}
    return {
        "label_names": list(findings),
        **{name: old[name] for name in ("confidence", "resamples", "method")},
        "all": {**metrics, "counts": counts, "reliability": reliability},
    }
