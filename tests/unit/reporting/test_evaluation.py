"""An evaluation as a reader sees it: every metric has its columns, undefined is named, subsets are shown."""

import csv
import io
import json

import numpy as np
import pytest
from tiny import PROTOCOL
from transformers import SwinConfig

from hf_cxr.evaluation import (
    METRICS,
    Metric,
    PatientDraws,
    evaluate_predictions,
    headline_metrics,
    paired_difference,
)
from hf_cxr.evaluation.chance import random_ap
from hf_cxr.evaluation.conformal import measure_conformal
from hf_cxr.evaluation.curves import measure_curves
from hf_cxr.evaluation.draws import Intervals
from hf_cxr.evaluation.paired import measure_paired
from hf_cxr.hub.file_list import FIGURES
from hf_cxr.reporting.card.model_card import render
from hf_cxr.reporting.document import Details, Heading, Table
from hf_cxr.reporting.evaluation import (
    averages_table,
    ensemble_document,
    equal_scores,
    evaluation_document,
    evaluation_summary,
    findings_table,
    further_blocks,
    headline,
    metrics_table,
    random_scores,
    subsets_table,
)
from hf_cxr.reporting.protocol import data_cautions
from hf_cxr.reporting.run import ROC_CURVES, TRAINING_CURVES, Report
from hf_cxr.reporting.sections.table import conclusions, sections_of

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
        assert cell(table, 2, f"{metric.title}\n(95 % interval)") == f"{value:.3f} ({low:.3f}–{high:.3f})"
        assert cell(table, 1, f"{metric.title}\n(95 % interval)") == "undefined"
        macro = report.measured["all"][key].macro
        assert cell(table, -1, f"{metric.title}\n(95 % interval)").startswith(f"{macro:.3f} (")
    assert cell(table, 2, "unknown") == "24"
    assert cell(table, 0, "positives\n(patients)").startswith(f"{int(label_NC[:, 0].sum())} (")
    assert cell(table, 0, "chance level\nof AP") == f"{label_NC[:, 0].mean():.3f}"
    assert "left out of the macro mean: Hernia." in table.caption
    assert "120 test images of 60 patients" in headline(report)


def tables(blocks):
    """All tables, those in details too."""
    inside = [block for one in blocks if isinstance(one, Details) for block in one.blocks]
    return [block for block in (*blocks, *inside) if isinstance(block, Table)]


def test_a_mean_of_some_findings_says_so_in_the_first_line():
    report, _ = measured()
    assert "mean of 2 of the model's 3 findings (120 external images" in headline(report, "external")
    rng = np.random.default_rng(0)
    label_NC = (rng.random((60, 2)) < 0.4).astype(float)
    whole = evaluate_predictions(rng.random((60, 2)), label_NC, np.arange(60), resamples=10)
    assert "findings" not in headline(whole)
    first = evaluation(report, findings_not_in_data=["Hernia"]).blocks[0]
    assert first.strong
    assert "mean of 2 of the model's 3 findings" in first.text


def test_metrics_that_are_no_headline_have_tables_of_their_own():
    report, _ = measured(tiers={"tail": [0, 1], "head": [2]})
    table = averages_table(report, tier_of={"Mass": "tail", "Hernia": "tail", "Edema": "head"})
    assert list(table.frame.columns) == ["metric", "macro", "micro", "weighted", "head", "tail"]
    average = report.measured["all"]["brier"].averages["weighted"]
    row = table.frame["metric"].tolist().index("Brier")
    assert cell(table, row, "weighted") == f"{average.value:.3f} ({average.low:.3f}–{average.high:.3f})"
    assert "Tail: Mass and Hernia." in table.caption
    folded = {block.summary: block.blocks[0] for block in further_blocks(report) if isinstance(block, Details)}
    assert len(folded) == 2
    (probabilities,) = (one for summary, one in folded.items() if summary.startswith("Probabilities"))
    for key, metric in METRICS.items():
        shown = metric.title.replace(" of ", "\nof ") in probabilities.frame
        assert shown == (metric.kind == "probability"), key
        assert metric.headline == (f"{metric.title}\n(95 % interval)" in findings_table(report).frame)
    assert probabilities.totals == 1


def test_a_value_outside_its_interval_is_explained():
    label_NC = np.tile([[1.0], [0.0]], (100, 1))
    perfectly_calibrated = np.full((200, 1), 0.5)
    report = evaluate_predictions(perfectly_calibrated, label_NC, np.arange(200), label_names=("A",), resamples=50)
    ece = report.measured["all"]["ece"]
    assert ece.value_C[0] < ece.low_C[0]
    assert "values of ECE lie outside their interval" in metrics_table(report, ["ece"]).caption
    assert "outside" not in metrics_table(report, ["log_loss", "brier"]).caption


def test_the_page_shows_tiers_and_analyses_at_their_place():
    report, (score_NC, label_NC, patients) = measured()
    values = measure_curves(score_NC, label_NC, PatientDraws.of(patients, resamples=5), label_names=NAMES).to_dict()
    blocks = evaluation(report, analysis={"curves": values, "unknown": {}}).blocks
    headings = [block.text for block in blocks if isinstance(block, Heading)]
    assert headings[:1] + headings[-2:] == ["What was measured", "ROC and precision-recall curves", "Limits"]
    table = findings_table(report, tier_of=dict.fromkeys(NAMES, "tail"))
    assert table.frame["tier"].tolist() == ["tail", "tail", "tail", ""]


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
    of_findings = [table for table in tables(document.blocks) if "negatives" in table.frame]
    assert len(of_findings) == 2  # test and validation
    assert all("Toy\n(95 % interval)" in table.frame for table in of_findings)
    assert "macro Toy 0." in report.headline()
    assert json.loads(document.to_json())["test"]["all"]["toy"]["macro"] == result.measured["all"]["auc"].macro
    card = render(report, SwinConfig())
    assert "| Toy (95 % interval) |" in card
    assert "type: toy" in card
    assert Report.from_dict(json.loads(document.to_json())).headline() == report.headline()
    with pytest.raises(ValueError, match=r"has no calibration, .*validation"):
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


def evaluation(report, analysis=None, **facts):
    return evaluation_document(
        "a model", report, facts={"dataset": "d", "synthetic": False} | facts, analysis=analysis
    )


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
    _, (score_NC, label_NC, patients) = measured()
    values = measure_curves(score_NC, label_NC, PatientDraws.of(patients, resamples=5), label_names=NAMES).to_dict()
    drawings = [path for section in sections_of({"curves": values}).values() for path in section.drawings]
    assert {ROC_CURVES.path, TRAINING_CURVES.path, *drawings} == set(FIGURES)


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


def of_random_scores(images, positives, patients=None, scores=None):
    label_NC = np.zeros((images, 1))
    label_NC[:positives] = 1
    score_NC = np.random.default_rng(0).random((images, 1)) if scores is None else np.full((images, 1), scores)
    ids = np.arange(images) if patients is None else np.arange(images) % patients
    return evaluate_predictions(score_NC, label_NC, ids, label_names=("Mass",), resamples=20)


def label_sets():
    """The values of an analysis whose section has a conclusion."""
    label_NC = np.tile([[1.0], [0.0]], (60, 1))
    prob_NC, patients = 0.1 + 0.6 * label_NC, np.arange(120)
    draws = PatientDraws.of(patients, resamples=5)
    return measure_conformal(prob_NC, label_NC, draws, (prob_NC, label_NC, patients), label_names=["Mass"]).to_dict()


def test_the_ap_of_random_scores_is_given_where_it_is_not_the_prevalence():
    few = of_random_scores(400, 12)
    expected = random_ap([12], [388])[0]
    assert f"Mass {expected:.3f} (prevalence 0.030)" in findings_table(few).caption
    assert random_scores(of_random_scores(400, 120)) == ""


def test_the_first_line_has_the_chance_level_of_map():
    report, _ = measured()
    assert f"; chance {report.chance('ap')[1]:.3f})" in headline(report)


def test_images_that_were_skipped_are_a_caution_of_an_evaluation_as_of_a_run():
    report, _ = measured()
    facts = {"missing_images": {"test": 12, "train": 7}, "unreadable_images": 3, "synthetic": False}
    cautions = evaluation_document("a model", report, facts={"dataset": "d", **facts}).blocks[1].sentences
    of_run = data_cautions(PROTOCOL | {"missing_images": {"test": 12}, "unreadable_images": {"test": 3}})
    skipped = [one for one in of_run if "skipped" in one or "left out" in one]
    assert len(skipped) == 2
    assert set(skipped) < set(cautions)
    assert "train" not in " ".join(cautions)  # of this split alone
    text = " ".join(evaluation(report, missing_images={"train": 7}).blocks[1].sentences)
    assert "skipped" not in text


def test_scores_that_are_all_equal_are_a_caution():
    assert equal_scores(of_random_scores(60, 20, scores=0.3)) == [
        "All findings: every image has the same score, so the scores rank nothing."
    ]
    assert equal_scores(of_random_scores(60, 20)) == []


def test_of_very_few_patients_nothing_is_concluded():
    reasons = {"calibration_maps": "no predictions", "controls": "no predictions"}
    values = {"conformal": label_sets(), "not_done": reasons}
    small, enough = (evaluation(of_random_scores(60, 20, patients), values) for patients in (2, 60))
    strong = [[block.text for block in page.blocks[1:] if getattr(block, "strong", False)] for page in (small, enough)]
    assert [len(one) for one in strong] == [0, 1]
    assert "Only 2 test patients" in " ".join(small.blocks[1].sentences)
    assert "Only" not in " ".join(enough.blocks[1].sentences)
    assert "Which calibration map and Controls: what is reached without a pixel: no predictions." in str(small.blocks)
    assert conclusions(values, 2) == ()
    assert len(conclusions(values, 60)) == 1


def test_the_summary_is_the_start_of_the_page_and_its_conclusions():
    report = of_random_scores(60, 20)
    values = {"conformal": label_sets()}
    page = evaluation(report, values)
    summary = evaluation_summary(page, 60, values)
    assert summary.blocks[:6] == page.blocks[:6]
    assert [type(block).__name__ for block in summary.blocks[5:]] == ["Table", "Heading", "Note"]
    assert summary.blocks[-1].sentences[0].startswith("Label sets with a stated coverage: On test")


def test_ece_is_explained_where_it_is_and_not_elsewhere():
    report, _ = measured()
    assert "ECE" in report.method
    assert "ECE" not in findings_table(report).caption
    for table in (averages_table(report), metrics_table(report, ["ece"])):
        assert "ECE has 15 bins" in table.caption


def test_a_page_with_averaged_views_is_headed_by_both_systems():
    report, (score_NC, label_NC, patients) = measured()
    names = ("3 views averaged", "one view")
    known_NC = np.nan_to_num(label_NC)
    paired = measure_paired(
        score_NC, score_NC**2, known_NC, patients, label_names=NAMES, names=names, intervals=Intervals(20)
    )
    macro = {key: list(one.macro_interval) for key, one in report.measured["all"].items()}
    macro["ece"] = [0.02, 0.03, 0.04]
    values = {"words": "3 views", "views": 3, "split": "test", "validation_images": 9, "calibration": None,
              "operating_points": None, "confidence": 0.95, "macro": {"one": macro, "averaged": macro},
              "paired": paired.to_dict()}  # fmt: skip
    page = evaluation(report, {"averaged_views": values})
    assert [block.text.split(": macro AUC")[0] for block in page.blocks[:2]] == ["One view", "3 views averaged"]
    means, differences, _ = (
        table.frame.columns for table in tables(page.blocks) if "one view" in "".join(table.frame)
    )
    order = [name for name in means if name in names]
    assert order == [name.split("\n")[1] for name in differences if name.startswith("AUC\n")][:2] == list(names)
    (table,) = (table for table in tables(page.blocks) if "one view" in table.frame)
    assert "values of ECE lie outside" in table.caption
