"""Every metric of the table against scikit-learn, under weights as if rows were repeated, and at its limits."""

import numpy as np
import pytest
from sklearn import metrics as reference

from hf_cxr.evaluation import METRICS, bootstrap_metrics, evaluate_predictions
from hf_cxr.evaluation.cells import WeightedCells, rank
from hf_cxr.evaluation.metrics import expected_calibration_error

NAN = float("nan")
RANKING = ("auc", "ap", "partial_auc", "ap_lift")


def ece(prob_K, label_K, bins=15):
    """Cell by cell: the bin of a cell is that of the middle rank of its probability."""
    bin_K = [int(((prob_K < p).sum() + (prob_K == p).sum() / 2) * bins / len(prob_K)) for p in prob_K]
    return sum(abs((prob_K - label_K)[np.equal(bin_K, b)].sum()) for b in set(bin_K)) / len(prob_K)


def confusion(prob_K, label_K, threshold):
    return reference.confusion_matrix(label_K, prob_K >= threshold, labels=[0, 1]).ravel()  # tn, fp, fn, tp


REFERENCE = {
    "auc": reference.roc_auc_score,
    "ap": reference.average_precision_score,
    "partial_auc": lambda y, p: reference.roc_auc_score(y, p, max_fpr=0.1),
    "ap_lift": lambda y, p: reference.average_precision_score(y, p) / np.mean(y),
    "log_loss": reference.log_loss,
    "brier": reference.brier_score_loss,
    "brier_skill": lambda y, p: 1 - reference.brier_score_loss(y, p) / (np.mean(y) * (1 - np.mean(y))),
    "ece": lambda y, p: ece(p, y),
    "mean_probability_positives": lambda y, p: p[y == 1].mean(),
    "mean_probability_negatives": lambda y, p: p[y == 0].mean(),
    "sensitivity": lambda y, p: reference.recall_score(y, p >= 0.4),
    "specificity": lambda y, p: reference.recall_score(1 - y, p < 0.4),
    "ppv": lambda y, p: reference.precision_score(y, p >= 0.4),
    "npv": lambda y, p: reference.precision_score(1 - y, p < 0.4),
    "f1": lambda y, p: reference.f1_score(y, p >= 0.4),
    "accuracy": lambda y, p: reference.accuracy_score(y, p >= 0.4),
}


def draw(kind, seed, n=160):
    rng = np.random.default_rng(seed)
    label_N = (rng.random(n) < 0.25).astype(float)
    prob_N = 1 / (1 + np.exp(-rng.normal(size=n) - label_N + 0.5))
    if kind == "ties":
        prob_N = prob_N.round(1)
    elif kind == "two values":
        prob_N = np.where(prob_N > 0.5, 0.75, 0.25)
    elif kind == "one value":
        prob_N = np.full(n, 0.4)
    elif kind == "at the threshold":
        prob_N = np.where(rng.random(n) < 0.5, 0.4, prob_N)
    elif kind == "certain":
        prob_N = np.where(rng.random(n) < 0.3, prob_N.round(), prob_N)
    return prob_N, label_N


def test_the_reference_has_every_metric_of_the_table():
    assert REFERENCE.keys() == METRICS.keys()


@pytest.mark.parametrize("kind", ["none", "ties", "two values", "one value", "at the threshold", "certain"])
@pytest.mark.parametrize("key", METRICS)
def test_a_metric_is_scikit_learns_to_1e_12(key, kind):
    for seed in range(3):
        prob_N, label_N = draw(kind, seed)
        unknown = np.arange(len(prob_N)) % 7 == 0
        with_unknown_N = np.where(unknown, NAN, label_N)
        threshold = [0.4] if METRICS[key].kind == "decision" else None
        value = METRICS[key].measure(prob_N[:, None], with_unknown_N[:, None], threshold)[0]
        known = ~unknown
        if kind == "one value" and key == "npv":
            assert np.isnan(value), "nothing is below the threshold"
        else:
            assert value == pytest.approx(REFERENCE[key](label_N[known], prob_N[known]), rel=1e-12, abs=1e-12)


@pytest.mark.parametrize("kind", ["none", "ties", "certain"])
@pytest.mark.parametrize("key", METRICS)
def test_a_weight_of_k_is_k_copies_of_the_row(key, kind):
    prob_N, label_N = draw(kind, 5, n=60)
    rng = np.random.default_rng(1)
    weight_RN = rng.integers(0, 4, size=(4, 60))
    cells = WeightedCells(rank(prob_N, label_N), weight_RN, 0.4)
    value_R = METRICS[key].kernel(cells)
    for weight_N, value in zip(weight_RN, value_R, strict=True):
        copies = np.repeat(np.arange(60), weight_N)
        assert value == pytest.approx(REFERENCE[key](label_N[copies], prob_N[copies]), rel=1e-11, abs=1e-12)


@pytest.mark.parametrize("key", METRICS)
def test_a_metric_is_undefined_where_its_denominator_is_empty_and_nowhere_else(key):
    prob_N = np.array([0.2, 0.6, 0.9])
    threshold = [0.4] if METRICS[key].kind == "decision" else None

    def value(*labels):
        return METRICS[key].measure(prob_N[:, None], np.array(labels, float)[:, None], threshold)[0]

    needs_both = (*RANKING, "brier_skill")
    assert np.isnan(value(NAN, NAN, NAN))
    assert np.isfinite(value(0, 1, 1))
    assert np.isnan(value(1, 1, 1)) == (key in (*needs_both, "specificity", "mean_probability_negatives"))
    assert np.isnan(value(0, 0, 0)) == (key in (*needs_both, "sensitivity", "mean_probability_positives"))


def test_without_an_operating_point_a_decision_metric_is_undefined():
    prob_N, label_N = draw("none", 0)
    decisions = [metric for metric in METRICS.values() if metric.kind == "decision"]
    assert len(decisions) == 6
    for metric in decisions:
        assert np.isnan(metric.measure(prob_N[:, None], label_N[:, None])).all()


def test_logits_are_refused_by_metrics_of_probabilities_and_rank_alike():
    prob_N, label_N = draw("none", 0)
    logit_N = np.log(prob_N / (1 - prob_N))
    for metric in METRICS.values():
        if metric.kind == "ranking":
            assert metric.measure(logit_N[:, None], label_N[:, None]) == pytest.approx(
                metric.measure(prob_N[:, None], label_N[:, None]), abs=1e-12
            )
        else:
            with pytest.raises(ValueError, match="look like logits"):
                metric.measure(logit_N[:, None], label_N[:, None], [0.4])


@pytest.mark.parametrize("bins", [1, 4, 15, 400])
def test_calibration_error_of_any_number_of_bins(bins):
    for kind in ("none", "ties"):
        prob_N, label_N = draw(kind, 3)
        error = expected_calibration_error(prob_N[:, None], label_N[:, None], bins=bins)[0]
        assert error == pytest.approx(ece(prob_N, label_N, bins), abs=1e-13)


def predictions(n=300, seed=2):
    columns = [draw("none", seed + number, n) for number in range(3)]
    prob_NC, label_NC = (np.stack(part, axis=1) for part in zip(*columns, strict=True))
    label_NC[:, 2] *= np.arange(n) % 4 == 0
    return prob_NC, label_NC, [f"p{row // 2}" for row in range(n)]


def test_averages_are_scikit_learns():
    prob_NC, label_NC, patients = predictions()
    thresholds = [0.3, 0.4, 0.5]
    report = evaluate_predictions(
        prob_NC, label_NC, patients, thresholds=thresholds, tiers={"rare": [2], "rest": [0, 1]}, resamples=10
    )
    measured, called_NC = report.measured["all"], prob_NC >= thresholds
    for average in ("micro", "weighted", "macro"):
        expected = {
            "auc": reference.roc_auc_score(label_NC, prob_NC, average=average),
            "ap": reference.average_precision_score(label_NC, prob_NC, average=average),
            "sensitivity": reference.recall_score(label_NC, called_NC, average=average),
            "ppv": reference.precision_score(label_NC, called_NC, average=average),
        }
        for key, value in expected.items():
            one = measured[key]
            got = one.macro if average == "macro" else one.averages[average].value
            assert got == pytest.approx(value, abs=1e-12), (average, key)
    assert measured["brier"].averages["micro"].value == pytest.approx(((prob_NC - label_NC) ** 2).mean(), abs=1e-12)
    # scikit-learn has no micro-averaged F1 of thresholds by finding other than by the counts.
    assert measured["f1"].averages["micro"].value == pytest.approx(
        reference.f1_score(label_NC, called_NC, average="micro"), abs=1e-12
    )
    assert measured["auc"].averages["rare"].value == measured["auc"].value_C[2]
    assert measured["auc"].averages["rest"].value == pytest.approx(measured["auc"].value_C[:2].mean())
    for one in measured.values():
        for average in one.averages.values():
            assert average.low < average.high
            assert average.draws == 10
    assert type(report).from_dict(report.to_dict()).to_dict() == report.to_dict()


def test_decision_metrics_are_there_with_thresholds_only_and_a_finding_may_have_none():
    prob_NC, label_NC, patients = predictions()
    assert "f1" not in evaluate_predictions(prob_NC, label_NC, patients, resamples=5).measured["all"]
    measured = evaluate_predictions(prob_NC, label_NC, patients, thresholds=[0.3, NAN, 0.5], resamples=5).measured[
        "all"
    ]
    assert np.isnan(measured["f1"].value_C).tolist() == [False, True, False]
    assert not np.isnan(measured["f1"].averages["micro"].value), "of the findings that have an operating point"
    for wrong in ([0.3, 0.4], [0.3, 0.4, 1.5]):
        with pytest.raises(ValueError, match="threshold"):
            evaluate_predictions(prob_NC, label_NC, patients, thresholds=wrong, resamples=5)


def test_other_metrics_do_not_change_the_draws():
    prob_NC, label_NC, patients = predictions()
    alone = bootstrap_metrics(prob_NC, label_NC, patients, resamples=20, rng=np.random.default_rng(0)).measured["auc"]
    among = evaluate_predictions(prob_NC, label_NC, patients, resamples=20, seed=0).measured["all"]["auc"]
    np.testing.assert_array_equal(alone.low_C, among.low_C)
    assert alone.macro_high == among.macro_high
