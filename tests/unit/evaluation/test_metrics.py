"""Metrics against counting pairs and thresholds one by one, against scikit-learn, and against their invariances."""

import json
import math

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, brier_score_loss, roc_auc_score

from hf_cxr.evaluation import EvaluationReport, MultiLabelMetric, evaluate_predictions, metrics
from hf_cxr.labels import NIH14

NAN = float("nan")


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(20)


def draw(rng, n=300, c=4, *, decimals=None, unknown=0.2):
    """Scores, labels with unknown cells, and a label matrix of the same prevalence for every call."""
    label_NC = (rng.random((n, c)) < np.linspace(0.03, 0.4, c)).astype(np.float64)
    score_NC = rng.normal(size=(n, c)) + label_NC
    if decimals is not None:
        score_NC = score_NC.round(decimals)
    label_NC[rng.random((n, c)) < unknown] = NAN
    label_NC[:2] = [[0.0] * c, [1.0] * c]
    return score_NC, label_NC


def auc_by_counting(score_N, label_N) -> float:
    difference_PK = score_N[label_N == 1][:, None] - score_N[label_N == 0][None, :]
    return float(np.mean((difference_PK > 0) + 0.5 * (difference_PK == 0)))


def ap_by_thresholds(score_N, label_N) -> float:
    known_N = ~np.isnan(label_N)
    score_K, label_K = score_N[known_N], label_N[known_N]
    total, recall_before = 0.0, 0.0
    for threshold in sorted(set(score_K), reverse=True):
        called_K = score_K >= threshold
        recall = label_K[called_K].sum() / label_K.sum()
        total += (recall - recall_before) * label_K[called_K].mean()
        recall_before = recall
    return total


@pytest.mark.parametrize("decimals", [None, 1, 0])
def test_ranking_metrics_match_counting_and_sklearn_with_and_without_ties(rng, decimals):
    score_NC, label_NC = draw(rng, decimals=decimals)
    auc_C, ap_C = metrics.roc_auc(score_NC, label_NC), metrics.average_precision(score_NC, label_NC)
    for column in range(label_NC.shape[1]):
        score_N, label_N = score_NC[:, column], label_NC[:, column]
        known_N = ~np.isnan(label_N)
        assert auc_C[column] == pytest.approx(auc_by_counting(score_N, label_N), abs=1e-14)
        assert ap_C[column] == pytest.approx(ap_by_thresholds(score_N, label_N), abs=1e-14)
        assert auc_C[column] == pytest.approx(roc_auc_score(label_N[known_N], score_N[known_N]), abs=1e-14)
        assert ap_C[column] == pytest.approx(average_precision_score(label_N[known_N], score_N[known_N]), abs=1e-14)


def test_ranking_metrics_do_not_change_under_a_monotone_map_or_a_permutation_of_rows(rng):
    score_NC, label_NC = draw(rng, decimals=1)
    shuffled = rng.permutation(len(score_NC))
    for metric in (metrics.roc_auc, metrics.average_precision):
        value_C = metric(score_NC, label_NC)
        np.testing.assert_array_equal(metric(1 / (1 + np.exp(-score_NC)), label_NC), value_C)
        np.testing.assert_array_equal(metric(score_NC[shuffled], label_NC[shuffled]), value_C)
        assert np.all(metric(-score_NC, label_NC) < value_C)
    np.testing.assert_allclose(
        metrics.roc_auc(-score_NC, label_NC), 1 - metrics.roc_auc(score_NC, label_NC), atol=1e-14
    )


@pytest.mark.parametrize(
    "metric", [metrics.roc_auc, metrics.average_precision, metrics.brier, metrics.expected_calibration_error]
)
def test_an_unknown_cell_is_as_if_its_row_were_absent(rng, metric):
    score_NC, label_NC = draw(rng, c=1)
    prob_NC = 1 / (1 + np.exp(-score_NC))
    known_N = ~np.isnan(label_NC[:, 0])
    assert not known_N.all()
    np.testing.assert_allclose(metric(prob_NC, label_NC), metric(prob_NC[known_N], label_NC[known_N]), rtol=1e-14)
    assert metric(prob_NC, np.nan_to_num(label_NC)) != metric(prob_NC, label_NC), "unknown must not read as negative"


def test_limit_cases_of_the_ranking_metrics():
    label_NC = np.array([[0], [0], [0], [1]], dtype=float)
    perfect_NC = label_NC.copy()
    assert (metrics.roc_auc(perfect_NC, label_NC), metrics.average_precision(perfect_NC, label_NC)) == (1, 1)
    assert metrics.roc_auc(-perfect_NC, label_NC) == 0
    assert metrics.roc_auc(0 * label_NC, label_NC) == 0.5
    assert metrics.average_precision(0 * label_NC, label_NC) == 0.25, "knowing nothing reaches the prevalence"


def test_one_label_value_only_is_undefined_and_left_out_of_the_macro_mean():
    label_NC = np.array([[0, 1, NAN, 0], [0, 1, NAN, 1], [0, NAN, NAN, 0]])
    score_NC = np.arange(12.0).reshape(3, 4)
    for metric in (metrics.roc_auc, metrics.average_precision):
        value_C = metric(score_NC, label_NC)
        np.testing.assert_array_equal(np.isnan(value_C), [True, True, True, False])
        assert metrics.macro(value_C) == value_C[3]
    assert math.isnan(metrics.macro([NAN, NAN]))
    assert np.isnan(metrics.roc_auc(np.empty((0, 2)), np.empty((0, 2)))).all()


def test_counts_of_positive_negative_and_unknown_cells():
    label_NC = [[1, 0, NAN], [1, NAN, NAN], [0, 0, NAN]]
    assert [count.tolist() for count in metrics.counts(label_NC)] == [[2, 0, 0], [1, 2, 0], [0, 1, 3]]


def test_probability_metrics_match_a_loop(rng):
    score_NC, label_NC = draw(rng)
    prob_NC = 1 / (1 + np.exp(-score_NC))
    positives_C, negatives_C = metrics.mean_predicted_probability(prob_NC, label_NC)
    for column in range(label_NC.shape[1]):
        prob_N, label_N = prob_NC[:, column], label_NC[:, column]
        known_N = ~np.isnan(label_N)
        assert metrics.brier(prob_NC, label_NC)[column] == pytest.approx(
            brier_score_loss(label_N[known_N], prob_N[known_N])
        )
        assert positives_C[column] == pytest.approx(prob_N[label_N == 1].mean())
        assert negatives_C[column] == pytest.approx(prob_N[label_N == 0].mean())
        one_bin = metrics.expected_calibration_error(prob_NC, label_NC, bins=1)[column]
        assert one_bin == pytest.approx(abs(prob_N[known_N].mean() - label_N[known_N].mean()))


def test_calibration_error_cuts_bins_of_equal_mass(rng):
    prob_N1 = rng.random((150, 1))
    label_N1 = (rng.random((150, 1)) < 0.5).astype(float)
    bins = np.array_split(np.argsort(prob_N1[:, 0]), 15)
    expected = sum(abs((prob_N1 - label_N1)[rows].sum()) for rows in bins) / 150
    assert metrics.expected_calibration_error(prob_N1, label_N1)[0] == pytest.approx(expected)


def test_calibration_error_is_small_when_calibrated_large_when_not_and_keeps_ties_together(rng):
    prob_N1 = rng.random((40_000, 1))
    label_N1 = (rng.random((40_000, 1)) < prob_N1).astype(float)
    assert metrics.expected_calibration_error(prob_N1, label_N1)[0] < 0.02
    assert metrics.expected_calibration_error(np.sqrt(prob_N1), label_N1)[0] > 0.1
    tied_N1 = prob_N1.round(1)
    shuffled = rng.permutation(len(tied_N1))
    assert metrics.expected_calibration_error(tied_N1[shuffled], label_N1[shuffled])[0] == pytest.approx(
        metrics.expected_calibration_error(tied_N1, label_N1)[0], abs=1e-12
    )


def test_roc_curve_points_enclose_the_area(rng):
    score_NC, label_NC = draw(rng, c=1)
    false_rate, true_rate, threshold = metrics.roc_curve_points(score_NC[:, 0], label_NC[:, 0])
    assert np.trapezoid(true_rate, false_rate) == pytest.approx(metrics.roc_auc(score_NC, label_NC)[0])
    assert np.all(np.diff(threshold) < 0)
    with pytest.raises(ValueError, match="at least one known positive"):
        metrics.roc_curve_points([0.1, 0.2], [0, NAN])


@pytest.mark.parametrize(
    ("scores", "labels", "message"),
    [
        ([[0.1, 0.2], [0.3, NAN]], [[0, 1], [1, 0]], "row 1, column 1"),
        ([[0.1, float("inf")]], [[0, 1]], "row 0, column 1 is inf"),
        ([[0.1]], [[0.5]], "row 0, column 0 is 0.5; expected 0, 1 or NaN"),
        ([[0.1]], [[-1]], "expected 0, 1 or NaN"),
        ([[0.1, 0.2]], [[0]], r"shape \(1, 2\)"),
        ([0.1, 0.2], [0, 1], r"expected \(N, C\)"),
    ],
)
def test_bad_arrays_are_refused_with_their_place(scores, labels, message):
    for metric in (metrics.roc_auc, metrics.average_precision, metrics.brier):
        with pytest.raises(ValueError, match=message):
            metric(scores, labels)


@pytest.fixture
def report(rng) -> EvaluationReport:
    score_NC, label_NC = draw(rng, n=120, c=3)
    label_NC[:, 1] = np.where(np.isnan(label_NC[:, 1]), NAN, 0.0)
    prob_NC = 1 / (1 + np.exp(-score_NC))
    return evaluate_predictions(
        prob_NC,
        label_NC,
        [f"p{row // 2}" for row in range(120)],
        label_names=("Mass", "Hernia", "Edema"),
        resamples=60,
    )


def test_report_takes_its_figures_from_metrics_and_names_what_is_undefined(report):
    score_NC, label_NC = draw(np.random.default_rng(20), n=120, c=3)
    prob_NC = 1 / (1 + np.exp(-score_NC))
    auc, ap, counts = report.measured["all"]["auc"], report.measured["all"]["ap"], report.counts["all"]
    mass, hernia, edema = map(report.label_names.index, ("Mass", "Hernia", "Edema"))
    assert auc.value_C[edema] == metrics.roc_auc(prob_NC, label_NC)[2]
    assert report.measured["all"]["ece"].value_C[edema] == metrics.expected_calibration_error(prob_NC, label_NC)[2]
    assert auc.low_C[edema] < auc.value_C[edema] < auc.high_C[edema]
    assert report.undefined() == ("Hernia",)
    np.testing.assert_array_equal(ap.undefined_C, [False, True, False])
    assert report.measured["all"]["brier"].value_C[hernia] > 0, "calibration figures need one known cell only"
    assert auc.macro == pytest.approx((auc.value_C[mass] + auc.value_C[edema]) / 2)
    np.testing.assert_array_equal(report.chance("ap")[0], counts.prevalence_C)
    assert report.chance("ap")[1] == pytest.approx((counts.prevalence_C[mass] + counts.prevalence_C[edema]) / 2)
    assert report.chance("auc")[1] == 0.5
    assert (counts.images, counts.patients) == (120, 60)


def test_report_writes_json_without_nan_and_reads_it_back(report):
    values = json.loads(json.dumps(report.to_dict(), allow_nan=False))
    assert values["all"]["auc"]["value"]["Hernia"] is None
    assert values["all"]["auc"]["undefined"] == ["Hernia"]
    assert values["all"]["auc"]["value"]["Edema"] == report.measured["all"]["auc"].value_C[2]
    assert EvaluationReport.from_dict(values).to_dict() == values


def test_logits_are_refused_where_probabilities_are_needed():
    with pytest.raises(ValueError, match="apply the sigmoid"):
        evaluate_predictions([[-1.2], [3.0]], [[0], [1]], ["a", "b"])
    with pytest.raises(ValueError, match="2 label names for 1 findings"):
        evaluate_predictions([[0.2], [0.3]], [[0], [1]], ["a", "b"], label_names=["x", "y"])


def test_evaluate_metric_gives_the_same_numbers_keeps_nan_and_writes_nothing(rng, tmp_path):
    score_NC, label_NC = draw(rng, n=200, c=len(NIH14))
    label_NC[:, NIH14.index("Hernia")] = 0
    metric = MultiLabelMetric(cache_dir=str(tmp_path / "cache"))
    whole = metric.compute(predictions=score_NC, references=label_NC)
    metric.add_batch(predictions=score_NC[:70].tolist(), references=label_NC[:70].tolist())
    metric.add_batch(predictions=score_NC[70:].tolist(), references=label_NC[70:].tolist())
    auc_C, ap_C = metrics.roc_auc(score_NC, label_NC), metrics.average_precision(score_NC, label_NC)
    for result in (whole, metric.compute()):
        assert result["auc"] == metrics.macro(auc_C)
        assert result["ap"] == metrics.macro(ap_C)
        assert result["undefined"] == ["Hernia"]
        np.testing.assert_array_equal([result[f"auc_{name}"] for name in NIH14], auc_C)
        np.testing.assert_array_equal([result[f"ap_{name}"] for name in NIH14], ap_C)
    assert not (tmp_path / "cache").exists()
