"""A metric that is added to the table is in a run's files, in a comparison and in an ensemble."""

import json
from pathlib import Path

import pytest
import yaml
from huggingface_hub import ModelCard
from tiny import SWIN

from hf_cxr.commands import main
from hf_cxr.evaluation import METRICS, Metric, kernels
from hf_cxr.evaluation.draws import Intervals
from hf_cxr.predictions import Predictions
from hf_cxr.reporting.comparison import compare_runs, comparison_document
from hf_cxr.run.ensemble import build_ensemble

SETTINGS = {
    "dataset": "phantom",
    "phantom_train": 24,
    "phantom_validation": 24,
    "phantom_test": 24,
    "phantom_size": 64,
    "phantom_prevalence_floor": 0.3,
    **SWIN,
    "loss": "bce",
    "per_device_train_batch_size": 8,
    "num_train_epochs": 1,
    "bootstrap_resamples": 10,
    "metric_for_best_model": "toy",
}


@pytest.fixture
def toy(monkeypatch):
    metric = Metric(
        "toy", "Toy", "mean toy", lambda cells: 1 - kernels.auc(cells), higher_is_better=False, headline=True
    )
    monkeypatch.setitem(METRICS, metric.key, metric)


def test_a_new_metric_is_in_the_run_the_comparison_and_the_ensemble(toy, tmp_path: Path, capsys):
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(SETTINGS))
    run = tmp_path / "run"
    assert main(["train", str(tmp_path / "tiny.yaml"), "--output_dir", str(run)]) == 0
    assert "mean toy 0." in capsys.readouterr().out
    metrics = json.loads((run / "metrics.json").read_text())
    figures = metrics["test"]["all"]
    assert figures["toy"]["macro"] == pytest.approx(1 - figures["auc"]["macro"])
    assert figures["toy"]["macro_low"] <= figures["toy"]["macro"] <= figures["toy"]["macro_high"]
    (measured,) = [entry for entry in metrics["history"] if "eval_toy" in entry]
    assert measured["eval_toy"] == pytest.approx(1 - measured["eval_auc"])
    assert metrics["protocol"]["selection"] == "best validation toy"
    assert "mean toy" in (run / "report.html").read_text()
    claimed = {
        result.metric_type: result.metric_value for result in ModelCard.load(run / "README.md").data.eval_results
    }
    assert claimed["toy"] == pytest.approx(figures["toy"]["macro"], abs=1e-4)

    report = compare_runs("x", {"BCE": {0: run}, "again": {0: run}}, baseline="BCE", resamples=10)
    methods = report.to_dict()["methods"]
    assert methods["again"]["toy"]["mean"] == pytest.approx(figures["toy"]["macro"])
    assert methods["again"]["toy"]["difference"]["value"] == 0
    assert "mean toy" in comparison_document(report).to_markdown()

    pair = tuple(Predictions.load(run / "predictions" / f"{split}.parquet") for split in ("validation", "test"))
    ensemble = build_ensemble({"one": pair, "two": pair}, calibrate=False, intervals=Intervals(resamples=10)).to_dict()
    assert ensemble["test"]["all"]["toy"]["macro"] == pytest.approx(figures["toy"]["macro"])
    assert ensemble["test_difference_to_members"]["one"]["toy"]["difference"] == 0
