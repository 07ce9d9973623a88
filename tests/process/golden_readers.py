"""From the files that commands write to the flat names of `golden.py`: "test/auc/Mass", "test/auc_low/macro".

If the product renames or regroups a key of metrics.json or of another file, change it here: golden.json stays.
"""

import hashlib
import json
import re
from pathlib import Path
from typing import Any

import numpy as np

HISTORY = {  # in metrics.json -> name here
    "loss": "loss",
    "grad_norm": "grad_norm",
    "learning_rate": "learning_rate",
    "eval_loss": "validation_loss",
    "eval_auc": "validation_auc",
    "eval_ap": "validation_ap",
}
METRICS = ("auc", "ap")
OF_PROBABILITIES = ("mean_probability_positives", "mean_probability_negatives", "brier", "ece")
OF_FINDINGS = ("value", "low", "high", "draws")  # of a metric


def figures(report: dict) -> dict[str, Any]:
    """A report of one set of predictions, as metrics.json and evaluation.json hold it: "auc/Mass", "auc_low/macro"."""
    measured = report["all"]
    counts, undefined = dict(measured["counts"]), measured["ap"]["undefined"]
    numbers = {"images": counts.pop("images"), "patients": counts.pop("patients"), "undefined": undefined}
    defined = [value for name, value in counts["prevalence"].items() if name not in undefined]
    numbers["prevalence/macro"] = float(np.mean(defined))
    for metric in METRICS:
        for part in OF_FINDINGS:
            name, macro = (metric, "macro") if part == "value" else (f"{metric}_{part}", f"macro_{part}")
            numbers |= prefixed(name, {"macro": measured[metric][macro]} | measured[metric][part])
    for part, by_finding in counts.items():
        numbers |= prefixed(part, by_finding)
    for part in OF_PROBABILITIES:
        numbers |= prefixed(part, measured[part]["value"])
    return numbers


def read_run(run_dir: Path) -> dict[str, Any]:
    """A run folder: figures, calibration, training, protocol, model and predictions."""
    metrics = read_json(run_dir / "metrics.json")
    protocol, training, calibration = metrics["protocol"], metrics["training"], metrics["calibration"]
    numbers = {
        "split_fingerprint": protocol["split_fingerprint"],
        "training_positives": protocol["training_positives"],
        "training_known": protocol["training_known"],
        "class_weights": protocol["loss"].get("class_weights"),
        "initial_weights": protocol["initial_weights"] == "random",
        "steps": training["steps"],
        "best_epoch": training["best_epoch"],
        "parameters": training["parameters"],
        "model/sha256": sha256(run_dir / "model.safetensors"),
        "pipeline/scores": metrics["stock_pipeline"].get("scores"),
    }
    numbers |= {f"calibration/{key}": calibration[key] for key in ("method", "slope", "intercept")}
    for key, name in HISTORY.items():
        numbers[f"history/{name}"] = [entry[key] for entry in metrics["history"] if key in entry]
    for split in ("test", "validation"):
        numbers |= prefixed(split, figures(metrics[split]))
        numbers[f"predictions/{split}/sha256"] = predictions_sha256(run_dir / "predictions" / f"{split}.parquet")
    return numbers


def was_resumed(run_dir: Path) -> bool:
    return read_json(run_dir / "metrics.json")["training"]["resumed_from"] is not None


def read_evaluation(folder: Path) -> dict[str, Any]:
    """What `evaluate --out` writes."""
    written = read_json(folder / "evaluation.json")
    numbers = {key: written[key] for key in ("model_sha256", "split_fingerprint", "trained_on_split")}
    numbers["model/sha256"] = numbers.pop("model_sha256")
    for key in ("findings_not_in_data", "findings_not_in_model"):
        numbers[key] = written.get(key, [])
    return numbers | figures(written) | {"predictions/sha256": predictions_sha256(folder / "predictions.parquet")}


def read_ensemble(folder: Path) -> dict[str, Any]:
    """What `ensemble --out` writes; members are named by number."""
    metrics = read_json(folder / "metrics.json")
    numbers = {"split_fingerprint": metrics["split_fingerprint"]}
    numbers |= {f"calibration/{key}": metrics["calibration"][key] for key in ("method", "slope", "intercept")}
    for split in ("test", "validation"):
        numbers |= prefixed(split, figures(metrics[split]))
        numbers[f"predictions/{split}/sha256"] = predictions_sha256(folder / "predictions" / f"{split}.parquet")
    for number, differences in enumerate(metrics["test_difference_to_members"].values()):
        for key, difference in differences.items():
            numbers |= prefixed(f"minus_member_{number}/{key}", difference)
    return numbers


def read_comparison(folder: Path) -> dict[str, Any]:
    """What `compare --out` writes, without sentences and folders."""
    written = read_json(folder / "comparison.json")
    numbers = {key: written[key] for key in ("baseline", "tiers", "images", "patients", "missing")}
    for method, measured in written["methods"].items():
        numbers |= flat({key: value for key, value in measured.items() if key != "runs"}, method)
    for method, points in written["tuned"].items():
        for number, point in enumerate(points):
            numbers |= flat(point, f"{method}/tuned_{number}")
    return numbers


def read_statistics(folder: Path) -> dict[str, Any]:
    """What `describe --out` writes; the many numbers of co-occurrence as one hash."""
    written = read_json(folder / "statistics.json")
    together = {name: split.pop("co_occurrence") for name, split in written["splits"].items()}
    return flat(written) | {"co_occurrence/sha256": text_sha256(json.dumps(together, sort_keys=True))}


def read_prepared(folder: Path) -> dict[str, Any]:
    """The manifest of a prepared folder."""
    manifest = read_json(folder / "manifest.json")
    return {key: manifest[key] for key in ("split_fingerprint", "source_digest", "content_digest", "splits")}


def printed_fingerprint(text: str) -> str:
    """The split's fingerprint in what `split --check` prints."""
    return re.search(r"fingerprint ([0-9a-f]{64})", text).group(1)


def predictions_sha256(path: Path) -> str:
    """SHA-256 of a predictions file's ids, logits and labels."""
    from hf_cxr import Predictions  # of this checkout: golden.py sees to that

    predictions = Predictions.load(path)
    digest = hashlib.sha256("\n".join(predictions.image_ids).encode())
    for array in (predictions.logits, predictions.labels):
        digest.update(np.ascontiguousarray(array, dtype="<f4").tobytes())
    return digest.hexdigest()


def read_json(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8"))


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def text_sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def prefixed(prefix: str, numbers: dict[str, Any]) -> dict[str, Any]:
    return {f"{prefix}/{name}": value for name, value in numbers.items()}


def flat(values: Any, name: str = "") -> dict[str, Any]:
    """Nested mappings as one, keys joined by "/"; lists stay lists."""
    if not isinstance(values, dict):
        return {name: values}
    parts = [flat(value, f"{name}/{key}" if name else str(key)) for key, value in values.items()]
    return {key: value for part in parts for key, value in part.items()}
