"""An evaluation as a reader sees it: every metric has its columns, undefined is named, subsets are shown."""

import csv
import io
import json

import numpy as np
import pytest
from tiny import PROTOCOL
from transformers import SwinConfig

from hf_cxr.evaluation import METRICS, Metric, evaluate_predictions, headline_metrics, paired_difference
from hf_cxr.push_files import FIGURES
from hf_cxr.reporting.card import render
from hf_cxr.reporting.document import Table
from hf_cxr.reporting.evaluation import (
    ensemble_document,
    evaluation_document,
    findings_table,
    headline,
    subsets_table,
)
from hf_cxr.reporting.run import ROC_CURVES, TRAINING_CURVES, Report

NAMES = ("Mass", "Hernia", "Edema")


def measured(**options):
    rng = np.random.default_rng(0)
    label_NC = (rng.random((120, 3)) < 0.3).astype(float)
    label_NC[:, 1] = 0
    label_NC[::5, 2] = np.nan
    score_NC = np.clip(0.3 + 0.3 * np.nan_to_num(label_NC) + 0.1 * rng.normal(size=label_NC.shape), 0, 1)
    patients = np.arange(120) // 2
    options = {"label_names": NAMES, "resamples": 20, **options}
    return evaluate_predictions(score_NC, label_NC, patients, **options), (score_NC, label_NC, patients)


def cell(table, row, name):
    return table.rows[row][list(table.frame.columns).index(name)]


def test_cells_are_the_measured_values():
    report, (_, label_NC, _) = measured()
    table = findings_table(report)
    for key, metric in headline_metrics().items():
        value, low, high = report.measured["all"][key].interval(2)
        assert cell(table, 2, f"{metric.title}\n(95% interval)") == f"{value:.3f} ({low:.3f}–{high:.3f})"
        assert cell(table, 1, f"{metric.title}\n(95% interval)") == "undefined"
        macro = report.measured["all"][key].macro
        assert cell(table, -1, f"{metric.title}\n(95% interval)").startswith(f"{macro:.3f} (")
    assert cell(table, 2, "unknown") == "24"
    assert cell(table, 0, "positives\n(patients)").startswith(f"{int(label_NC[:, 0].sum())} (")
    assert cell(table, 0, "chance level\nof AP") == f"{label_NC[:, 0].mean():.3f}"
    assert "left out of the macro mean: Hernia." in table.caption
    assert "120 test images of 60 patients" in headline(report)


def test_a_new_metric_has_its_column_in_report_and_card_without_a_change_here(monkeypatch):
    monkeypatch.setitem(
        METRICS, "toy", Metric("toy", "Toy", "macro Toy", METRICS["auc"].kernel, chance=0.5, headline=True)
    )
    result, _ = measured()
    report = Report(
        name="run",
        model_id=".",
        protocol=PROTOCOL,
        test=result,
        validation=result,
        calibration=None,
        training={"epochs": 1.0, "best_epoch": None, "images_per_second": None, "resumed_from": None,
                  "peak_memory_gib": None},
        history=[],
        environment={"hf_cxr": "1", "device": "cpu"},
    )  # fmt: skip
    document = report.document()
    tables = [block for block in document.blocks if isinstance(block, Table)]
    assert all("Toy\n(95% interval)" in table.frame for table in tables)
    assert "macro Toy 0." in report.headline()
    assert json.loads(document.to_json())["test"]["all"]["toy"]["macro"] == result.measured["all"]["auc"].macro
    card = render(report, SwinConfig())
    assert "| Toy (95% interval) |" in card
    assert "type: toy" in card
    assert Report.from_dict(json.loads(document.to_json())).headline() == report.headline()
    with pytest.raises(ValueError, match=r"lacks calibration, .*validation"):
        Report.from_dict({"test": {}})


def test_subsets_have_a_table_of_their_own():
    rows = np.arange(120) % 3 == 0
    report, _ = measured(subsets={"view=AP": rows, "view=PA": ~rows})
    table = subsets_table(report)
    assert table.frame["subset"].tolist() == ["all", "view=AP", "view=PA"]
    assert cell(table, 1, "images") == "40"
    assert cell(table, 1, "macro AUC").startswith(f"{report.measured['view=AP']['auc'].macro:.3f} (")
    assert any("subset" in getattr(block, "frame", ()) for block in evaluation(report).blocks)
    alone, _ = measured()
    assert not any("subset" in getattr(block, "frame", ()) for block in evaluation(alone).blocks)


def evaluation(report, **facts):
    return evaluation_document("a model", report, facts={"dataset": "d", "synthetic": False} | facts)


def test_an_evaluation_says_on_what_and_warns():
    report, _ = measured()
    text = evaluation(report, missing_images={"test": 1200}, synthetic=True).to_terminal()
    for words in ("missing images", "test 1,200", "synthetic phantoms", "Not a medical device"):
        assert words in text
    assert "synthetic phantoms" not in evaluation(report).to_terminal()
    rows = list(csv.DictReader(io.StringIO(evaluation(report).to_csv())))
    assert float(rows[0]["auc"]) == report.measured["all"]["auc"].value_C[0]
    assert rows[1]["auc"] == ""


def test_the_figures_of_a_run_are_those_that_are_pushed():
    assert list(FIGURES) == [ROC_CURVES.path, TRAINING_CURVES.path]


def test_an_ensemble_stands_beside_its_members():
    report, (score_NC, label_NC, patients) = measured()
    worse_NC = np.random.default_rng(1).random(score_NC.shape)
    difference = paired_difference(score_NC, worse_NC, label_NC, patients, resamples=50, rng=np.random.default_rng(0))
    document = ensemble_document(["a", "b"], report, {"a": difference})
    table = document.blocks[-1]
    assert cell(table, 0, "member") == "a"
    for key, metric in headline_metrics().items():
        shown = cell(table, 0, f"{metric.macro_title}\ndifference (interval)")
        assert shown.startswith(f"{difference.measured[key].macro:+.3f} (")
