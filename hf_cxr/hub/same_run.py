"""Whether the files of a run folder are of one run: the model, its figures, its settings, its card and its report."""

from pathlib import Path
from typing import Any

from huggingface_hub import ModelCard

from hf_cxr.evaluation import headline_metrics, modern_figures
from hf_cxr.evaluation.kernels import OLD_KEYS
from hf_cxr.hub.parsing import Weights
from hf_cxr.models.head import outputs_of
from hf_cxr.models.record import ModelRecord
from hf_cxr.reporting.card.benchmark import BENCHMARK
from hf_cxr.saved_models import WEIGHTS
from hf_cxr.words import one_line


def _claimed(card: str, dataset: str | None) -> dict[str, float]:
    """By metric, the macro mean on the run's own test set in the card's metadata."""
    return {
        OLD_KEYS.get(result.metric_type, result.metric_type): result.metric_value
        for result in ModelCard(card, ignore_metadata_errors=True).data.eval_results or []
        if result.dataset_split == "test" and result.dataset_name == one_line(dataset or "")
        if isinstance(result.metric_value, float)
    }


def check_same_run(run_dir: Path, parsed: dict[str, Any], weights: Weights) -> None:
    """Refuse a folder whose files contradict each other, such as a model with the figures of another run.

    A value that a file lacks contradicts nothing.
    """
    config, metrics, settings = parsed["config.json"], modern_figures(parsed["metrics.json"]), parsed["config.yaml"]
    record, protocol = ModelRecord.of(config) or ModelRecord(), metrics.get("protocol") or {}
    loss = protocol.get("loss") or {}
    findings = list((config.get("id2label") or {}).values()) or config.get("label_names")  # the latter from timm
    outputs = outputs_of(weights.shapes)
    test = metrics.get("test") or {}
    pairs = [
        ("metrics.json", "config.json", "split", protocol.get("split_fingerprint"), record.split),
        ("metrics.json", "config.json", "dataset", protocol.get("dataset"), record.dataset),
        ("metrics.json", "config.json", "loss", loss or None, record.loss),
        ("metrics.json", "config.json", "calibration", metrics.get("calibration"), record.calibration),
        ("metrics.json", "config.json", "findings", test.get("label_names"), findings or None),
        ("metrics.json", "config.yaml", "loss", loss.get("name"), settings.get("loss")),
        ("metrics.json", "config.yaml", "seed", protocol.get("seed"), settings.get("seed")),
        *(
            ("metrics.json", "config.yaml", key, value, settings.get(key))
            for key, value in {**(protocol.get("stages") or {}), **(protocol.get("recipe") or {})}.items()
        ),
        ("config.json", "config.yaml", "image_size", config.get("image_size"), settings.get("image_size")),
        (WEIGHTS, "metrics.json", "SHA-256 of the weights", weights.sha256, metrics.get("model_sha256")),
        (WEIGHTS, "config.json", "number of findings", outputs, findings and len(findings)),
    ]
    wrong = [
        f"{one} and {other} differ in the {what}"
        for one, other, what, value, expected in pairs
        if value is not None and expected is not None and value != expected
    ]
    claimed, benchmark = _claimed(parsed["README.md"], protocol.get("dataset")), parsed.get(BENCHMARK) or {}
    for key, metric in headline_metrics().items():
        value = test.get("all", {}).get(key, {}).get("macro")
        if not isinstance(value, float):
            continue
        if f"{value:.3f}" not in parsed["report.html"]:
            wrong.append(f"report.html does not have the {metric.macro_title} of metrics.json, {value:.3f}")
        if metric.macro_title == (benchmark.get("notes") or "").partition(" over ")[0] and (
            abs(benchmark["value"] - value) > 0.001
        ):
            wrong.append(
                f"{BENCHMARK} gives the {metric.macro_title} {benchmark['value']:g}, and metrics.json {value:.4f}"
            )
        if abs(claimed.get(key, value) - value) > 0.001:
            wrong.append(f"README.md gives the {metric.macro_title} {claimed[key]:g}, and metrics.json {value:.4f}")
    if wrong:
        raise ValueError(
            f"{run_dir} contains files of different runs, or changed ones: {'; '.join(wrong[:3])}; nothing was "
            "pushed; push the folder as one run wrote it"
        )
