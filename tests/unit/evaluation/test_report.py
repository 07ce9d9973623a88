"""`evaluate_predictions`: subsets against their rows alone, JSON both ways, and figures of earlier versions."""

import json
import math
from pathlib import Path

import numpy as np
import pytest

from hf_cxr.evaluation import EvaluationReport, evaluate_predictions, metrics, modern_figures

NAN = float("nan")
OLD = Path(__file__).with_name("old_metrics.json")
NAMES = ("Mass", "Edema", "Hernia")


def draw():
    """The predictions from which an earlier version wrote old_metrics.json: probabilities, labels, patients."""
    rng = np.random.default_rng(7)
    prob_NC = rng.integers(1, 1000, size=(90, 3)) / 1000
    label_NC = (rng.integers(0, 1000, size=(90, 3)) / 1000 < prob_NC * [0.3, 0.9, 0]).astype(float)
    label_NC[rng.integers(0, 10, size=(90, 3)) == 0] = NAN
    return prob_NC, label_NC, [f"p{number}" for number in rng.integers(0, 40, size=90)]


def leaves(value, path=()):
    """Every value of nested mappings and lists by its path."""
    entries = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else None
    if entries is None:
        return {path: value}
    return {key: leaf for name, entry in entries for key, leaf in leaves(entry, (*path, name)).items()}


def test_figures_of_an_earlier_version_are_read_and_are_those_of_today():
    old = modern_figures(json.loads(OLD.read_text()))
    prob_NC, label_NC, patients = draw()
    new = evaluate_predictions(prob_NC, label_NC, patients, label_names=NAMES, resamples=50, seed=1)
    before, now = leaves(old["test"]), leaves(new.to_dict())
    assert before.keys() <= now.keys()
    without_intervals = {"brier", "ece", "mean_probability_positives", "mean_probability_negatives"}
    shared = [key for key in before if key[1:2] not in {(key,) for key in without_intervals} or key[2] == "value"]
    numbers = [key for key in shared if isinstance(now[key], int | float)]
    assert len(numbers) > 50
    assert [before[key] for key in numbers] == pytest.approx([now[key] for key in numbers], rel=1e-13)
    assert [before[key] for key in shared if key not in numbers] == [now[key] for key in shared if key not in numbers]
    assert EvaluationReport.from_dict(old["test"]).undefined() == ("Hernia",)


def test_the_trainers_figures_of_an_earlier_version_get_todays_names():
    old = {"validation": {"loss": 0.4, "auc": 0.6, "mean_average_precision": None}, "history": [{"epoch": 1}]}
    new = modern_figures(old)
    assert new["validation"] == {"loss": 0.4, "auc": 0.6, "ap": None}
    assert "mean_average_precision" in old["validation"], "the argument stays as it was"
    history = modern_figures(json.loads(OLD.read_text()))["history"]
    assert history == [{"epoch": 1.0, "eval_auc": 0.6, "eval_ap": 0.3}, {"epoch": 1.0, "loss": 0.5}]


def test_todays_figures_are_not_converted():
    report = evaluate_predictions(*draw(), label_names=NAMES, resamples=5).to_dict()
    values = {"test": report, "validation": {"loss": 0.4, "auc": 0.6, "ap": 0.3}, "history": [{"eval_ap": 0.3}]}
    assert modern_figures(values) == values


def test_a_subset_has_the_figures_of_its_rows_in_the_draws_of_all_patients():
    prob_NC, label_NC, patients = draw()
    rows_N = np.arange(90) % 3 > 0
    options = {"label_names": NAMES, "resamples": 40, "seed": 3}
    alone = evaluate_predictions(prob_NC, label_NC, patients, **options)
    report = evaluate_predictions(prob_NC, label_NC, patients, subsets={"view=AP": rows_N}, **options)
    assert list(report.measured) == list(report.counts) == ["all", "view=AP"]
    assert report.to_dict()["all"] == alone.to_dict()["all"], "a subset changes nothing else"

    part, rows = report.measured["view=AP"], (prob_NC[rows_N], label_NC[rows_N])
    np.testing.assert_array_equal(part["auc"].value_C, metrics.roc_auc(*rows))
    np.testing.assert_array_equal(part["ap"].value_C, metrics.average_precision(*rows))
    np.testing.assert_allclose(part["brier"].value_C, metrics.brier(*rows), rtol=1e-14)
    counts = report.counts["view=AP"]
    assert counts.images == 60
    assert counts.patients == len({patient for patient, inside in zip(patients, rows_N, strict=True) if inside})
    np.testing.assert_array_equal(counts.positives_C, metrics.counts(rows[1])[0])

    rng, ids = np.random.default_rng(3), sorted(set(patients))
    drawn = []
    for _ in range(40):
        times = np.bincount(rng.integers(len(ids), size=len(ids)), minlength=len(ids))
        copies = np.repeat(np.arange(90), [times[ids.index(patient)] for patient in patients])
        copies = copies[rows_N[copies]]
        drawn.append(metrics.roc_auc(prob_NC[copies], label_NC[copies])[1])
    low, high = np.nanquantile(drawn, [0.025, 0.975])
    assert part["auc"].interval(1) == pytest.approx((metrics.roc_auc(*rows)[1], low, high), abs=1e-12)


@pytest.mark.parametrize(
    ("subsets", "message"),
    [
        ({"all": np.ones(90, bool)}, "cannot be named 'all'"),
        ({"resamples": np.ones(90, bool)}, "cannot be named 'resamples'"),
        ({"view=AP": np.zeros(90, bool)}, "'view=AP' has 0 patients"),
        ({"view=AP": np.arange(90) < 1}, "'view=AP' has 1 patients"),
        ({"view=AP": np.arange(90)}, r"'view=AP' is int64 \(90,\); expected bool \(90,\)"),
        ({"view=AP": np.ones(89, bool)}, r"is bool \(89,\); expected bool \(90,\)"),
    ],
)
def test_subsets_that_cannot_be_measured_are_refused(subsets, message):
    with pytest.raises(ValueError, match=message):
        evaluate_predictions(*draw(), label_names=NAMES, subsets=subsets, resamples=5)


def test_a_report_reads_back_from_its_json():
    rows_N = np.arange(90) % 2 == 0
    report = evaluate_predictions(*draw(), label_names=NAMES, subsets={"sex=F": rows_N}, resamples=20)
    values = json.loads(json.dumps(report.to_dict(), allow_nan=False))
    again = EvaluationReport.from_dict(values)
    assert again.to_dict() == values
    assert again.measured["sex=F"]["ap"].draws_C.dtype == np.int64
    assert math.isnan(again.measured["all"]["auc"].value_C[2])
