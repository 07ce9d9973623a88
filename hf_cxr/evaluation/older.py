"""Figures as earlier versions wrote them, in today's form: metrics.json and validation.json of old run folders.

Two forms are read: a list of findings with one field for each metric, and, after it, metrics by key with the figures
of the probabilities apart, as "reliability" without intervals.
"""

from collections.abc import Mapping
from typing import Any

from hf_cxr.evaluation.kernels import OLD_KEYS

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
            values[split] = modern_report(figures) if "findings" in figures or "all" in figures else _renamed(figures)
    if "history" in values:
        values["history"] = [_renamed(entry) for entry in values["history"]]
    return values


def _renamed(figures: Mapping[str, Any]) -> dict[str, Any]:
    new = {f"{prefix}{old}": f"{prefix}{key}" for old, key in OLD_KEYS.items() for prefix in ("", "eval_")}
    return {new.get(name, name): value for name, value in figures.items()}


def modern_report(figures: Mapping[str, Any]) -> dict[str, Any]:
    """An `EvaluationReport` as JSON, as this version writes it; a modern one is unchanged."""
    figures = _report(figures) if "findings" in figures else figures
    return {key: _with_reliability(value) if isinstance(value, Mapping) else value for key, value in figures.items()}


def _with_reliability(subset: Mapping[str, Any]) -> dict[str, Any]:
    """A subset with the figures of its probabilities among the metrics; they have no intervals."""
    if "reliability" not in subset:
        return dict(subset)
    metrics = {}
    for key, value in subset["reliability"].items():
        defined = [one for one in value.values() if one is not None]
        none = dict.fromkeys(value)
        metrics[key] = {
            "macro": sum(defined) / len(defined) if defined else None,
            **dict.fromkeys(("macro_low", "macro_high")),
            "macro_draws": 0,
            "value": value,
            **{"low": none, "high": none, "draws": dict.fromkeys(value, 0)},
            "undefined": [name for name, one in value.items() if one is None],
        }
    rest = {key: value for key, value in subset.items() if key not in ("counts", "reliability")}
    return {**rest, **metrics, "counts": subset["counts"]}


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
