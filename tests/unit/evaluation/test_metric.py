"""A metric that is added to the table is everywhere: one kernel and one line, shown with a toy."""

import numpy as np
import pytest

from hf_cxr.config import parse_arguments
from hf_cxr.evaluation import (
    METRICS,
    EvaluationReport,
    Metric,
    MultiLabelMetric,
    bootstrap_metrics,
    evaluate_predictions,
    headline_metrics,
    kernels,
    paired_difference,
)
from hf_cxr.evaluation.comparison import compare_methods
from hf_cxr.evaluation.kernels import metric_key

PATIENTS = [f"p{row // 2}" for row in range(80)]


@pytest.fixture
def toy(monkeypatch) -> Metric:
    """The share of pairs that are ranked the wrong way round: 1 - AUC, so every figure of it is known."""
    metric = Metric("toy", "Toy", "mean toy", wrong_pairs, higher_is_better=False, chance=0.5, headline=True)
    monkeypatch.setitem(METRICS, metric.key, metric)
    return metric


def wrong_pairs(cells):
    return 1 - kernels.auc(cells)


def draw(seed=0):
    rng = np.random.default_rng(seed)
    label_NC = (rng.random((80, 2)) < 0.4).astype(float)
    return 1 / (1 + np.exp(-rng.normal(size=(80, 2)) - label_NC)), label_NC


def test_keys_are_those_of_the_table():
    assert list(headline_metrics()) == ["auc", "ap"]
    assert all(key == metric.key for key, metric in METRICS.items())


def test_a_new_metric_is_measured_with_its_interval_written_and_read(toy):
    prob_NC, label_NC = draw()
    report = evaluate_predictions(prob_NC, label_NC, PATIENTS, resamples=30, subsets={"odd": np.arange(80) % 2 == 1})
    for by_key in report.measured.values():
        error, auc = by_key["toy"], by_key["auc"]
        np.testing.assert_allclose(error.value_C, 1 - auc.value_C)
        np.testing.assert_allclose([error.low_C, error.high_C], [1 - auc.high_C, 1 - auc.low_C])
        assert error.macro_interval == pytest.approx((1 - auc.macro, 1 - auc.macro_high, 1 - auc.macro_low))
    np.testing.assert_array_equal(report.chance("toy")[0], [0.5, 0.5])
    values = report.to_dict()
    assert values["all"]["toy"]["macro"] == report.measured["all"]["toy"].macro
    assert EvaluationReport.from_dict(values).to_dict() == values


def test_a_new_metric_is_in_the_bootstrap_and_in_comparisons(toy):
    (first_NC, label_NC), (second_NC, _) = draw(), draw(1)
    result = bootstrap_metrics(first_NC, label_NC, PATIENTS, resamples=30, rng=np.random.default_rng(2))
    np.testing.assert_allclose(result.samples["toy"].draw_RC, 1 - result.samples["auc"].draw_RC)
    pair = paired_difference(first_NC, second_NC, label_NC, PATIENTS, resamples=30, rng=np.random.default_rng(2))
    assert pair.measured["toy"].macro == pytest.approx(-pair.measured["auc"].macro)
    assert pair.macro_p["toy"] == pair.macro_p["auc"]
    scores = {"one": {0: first_NC}, "two": {0: second_NC}}
    figures = compare_methods(
        scores, label_NC, PATIENTS, baseline="one", resamples=30, rng=np.random.default_rng(2)
    ).figures
    assert list(figures) == list(headline_metrics())
    assert figures["toy"]["two"].difference.value == pytest.approx(-figures["auc"]["two"].difference.value)


def test_a_new_metric_is_in_the_evaluate_metric_and_can_choose_the_checkpoint(toy, tmp_path):
    prob_NC, label_NC = draw()
    result = MultiLabelMetric(("Mass", "Edema")).compute(predictions=prob_NC, references=label_NC)
    assert result["toy"] == pytest.approx(1 - result["auc"])
    assert result["toy_Edema"] == pytest.approx(1 - result["auc_Edema"])
    for name in ("toy", "eval_toy"):
        training = parse_arguments(["--output_dir", str(tmp_path / "r"), "--metric_for_best_model", name]).training
        assert (training.metric_for_best_model, training.greater_is_better) == ("toy", False)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("mean_average_precision", "its name is now ap"),
        ("eval_mean_average_precision", "its name is now ap"),
        ("macro_auc", "its name is now auc"),
        ("AUC", "choose from auc, ap, .*loss"),
    ],
)
def test_a_name_that_is_not_in_the_table_is_refused_with_the_one_that_is(name, words):
    with pytest.raises(ValueError, match=f"{name} is not a metric: {words}"):
        metric_key(name, also=("loss",))
