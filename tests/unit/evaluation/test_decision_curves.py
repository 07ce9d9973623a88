"""Decision curves: dcurves' values, the laws of net benefit, and intervals by a slow loop."""

import json

import numpy as np
import pytest

from hf_cxr.evaluation.decision_curves import THRESHOLDS, measure_decision_curves, net_benefit
from hf_cxr.evaluation.draws import PatientDraws

NAN = float("nan")

# Probabilities in hundredths and labels, and the net benefit that dcurves 1.1.7 gives for them (Python, its `dca` with
# outcome "y", modelnames ["p"], these thresholds, and prevalence=0.02 for the second set of values).
PROBABILITIES = [
    20, 20, 50, 5, 27, 56, 13, 22, 10, 40, 14, 3, 31, 2, 12, 16, 0, 33, 79, 10, 4, 9, 49, 11, 1, 2, 49, 3, 3, 23,
    42, 14, 1, 19, 32, 5, 11, 9, 27, 38, 8, 30, 33, 26, 18, 18, 50, 42, 1, 27, 16, 42, 18, 11, 29, 58, 44, 6, 4, 1,
]  # fmt: skip
POSITIVE = [7, 9, 14, 18, 22, 29, 38, 39, 51, 54, 55]
AT = [0.01, 0.05, 0.1, 0.2, 0.35, 0.5, 0.8]
DCURVES = {
    None: {
        "model": [0.17525252525252524, 0.15087719298245614, 0.1259259259259259, 0.09583333333333333,
                  0.037179487179487186, -0.016666666666666663, 0.0],
        "all": [0.17508417508417506, 0.14035087719298245, 0.09259259259259257, -0.020833333333333343,
                -0.2564102564102564, -0.6333333333333333, -3.0833333333333344],
    },
    0.02: {
        "model": [0.010303030303030303, -0.018947368421052633, -0.048888888888888885, -0.0668181818181818,
                  -0.06447552447552446, -0.05636363636363636, 0.0],
        "all": [0.0101010101010101, -0.031578947368421054, -0.08888888888888889, -0.225, -0.5076923076923077, -0.96,
                -3.900000000000001],
    },
}  # fmt: skip


def cohort(seed=0, n=150, findings=2):
    rng = np.random.default_rng(seed)
    prob_NC = rng.beta(0.8, 3.0, size=(n, findings))
    label_NC = (rng.random(prob_NC.shape) < prob_NC).astype(np.float64)
    return prob_NC, label_NC, PatientDraws.of([str(row % 40) for row in range(n)], resamples=50, seed=1)


@pytest.mark.parametrize("prevalence", [None, 0.02])
def test_net_benefit_is_that_of_dcurves(prevalence):
    prob_N1 = np.array(PROBABILITIES)[:, None] / 100
    label_N1 = np.zeros_like(prob_N1)
    label_N1[POSITIVE] = 1
    # An image whose label is unknown changes nothing.
    prob_N1, label_N1 = np.append(prob_N1, [[0.9]], axis=0), np.append(label_N1, [[NAN]], axis=0)
    draws = PatientDraws.of([str(row) for row in range(61)], resamples=2)
    given = None if prevalence is None else {"Mass": prevalence}
    curves = measure_decision_curves(prob_N1, label_N1, draws, label_names=("Mass",), thresholds=AT, prevalence=given)
    np.testing.assert_allclose(curves.benefit_CT.value_X[0], DCURVES[prevalence]["model"], atol=1e-12)
    np.testing.assert_allclose(curves.all_CT[0], DCURVES[prevalence]["all"], atol=1e-12)
    assert curves.prevalence_C[0] == (prevalence or 11 / 60)


def test_intervals_are_those_of_a_slow_loop():
    prob_NC, label_NC, draws = cohort()
    label_NC[::7, 0] = NAN
    curves = measure_decision_curves(
        prob_NC, label_NC, draws, label_names=("a", "b"), thresholds=(0.1, 0.3), confidence=0.9
    )
    known_N = ~np.isnan(label_NC[:, 0])
    p, y, w = prob_NC[known_N, 0], label_NC[known_N, 0], 0.3 / 0.7
    benefit_R, gain_R = [], []
    for _, weight_RM in draws.blocks():
        for weight_N in draws.per_image(weight_RM)[:, known_N]:
            called_n, y_n = np.repeat(p >= 0.3, weight_N), np.repeat(y, weight_N)
            benefit_R.append(np.mean(called_n * y_n) - np.mean(called_n * (1 - y_n)) * w)
            gain_R.append(benefit_R[-1] - max(0.0, np.mean(y_n) - np.mean(1 - y_n) * w))
    limits = [0.05, 0.95]
    np.testing.assert_allclose(
        [curves.benefit_CT.low_X[0, 1], curves.benefit_CT.high_X[0, 1]], np.quantile(benefit_R, limits), atol=1e-12
    )
    np.testing.assert_allclose(
        [curves.gain_CT.low_X[0, 1], curves.gain_CT.high_X[0, 1]], np.quantile(gain_R, limits), atol=1e-12
    )


def test_laws_of_net_benefit():
    prob_NC, label_NC, draws = cohort(1)
    curves = measure_decision_curves(prob_NC, label_NC, draws, label_names=("a", "b"))
    prevalence = label_NC.mean(axis=0)
    assert np.all(curves.benefit_CT.value_X <= prevalence[:, None])
    assert np.all(curves.benefit_CT.low_X <= curves.benefit_CT.high_X)
    # At a threshold equal to the prevalence, calling everybody is worth as much as calling nobody.
    at = measure_decision_curves(prob_NC, label_NC, draws, label_names=("a", "b"), thresholds=(float(prevalence[0]),))
    assert at.all_CT[0, 0] == pytest.approx(0, abs=1e-12)
    # An oracle's net benefit is the prevalence, whatever the threshold.
    oracle = measure_decision_curves(label_NC, label_NC, draws, label_names=("a", "b"))
    np.testing.assert_allclose(
        oracle.benefit_CT.value_X, np.broadcast_to(prevalence[:, None], oracle.benefit_CT.value_X.shape)
    )
    assert oracle.useful_range(0, sure=True) == (THRESHOLDS[0], THRESHOLDS[-1])
    # The observed prevalence, given, is as if none were given, on the full sample.
    given = measure_decision_curves(
        prob_NC, label_NC, draws, label_names=("a", "b"), prevalence=dict(zip("ab", prevalence, strict=True))
    )
    np.testing.assert_allclose(given.benefit_CT.value_X, curves.benefit_CT.value_X, atol=1e-12)


def test_a_useless_model_is_of_no_use_at_any_threshold():
    """One probability for every image, the prevalence: it is "all" below and "none" above."""
    _, label_NC, draws = cohort(2)
    constant_NC = np.broadcast_to(label_NC.mean(axis=0), label_NC.shape)
    curves = measure_decision_curves(constant_NC, label_NC, draws, label_names=("a", "b"))
    assert curves.useful_range(0) is None
    assert curves.useful_range(1, sure=True) is None
    np.testing.assert_allclose(curves.benefit_CT.value_X, np.maximum(curves.all_CT, 0), atol=1e-12)


def test_the_useful_range_of_calibrated_probabilities_is_around_the_prevalence():
    prob_NC, label_NC, draws = cohort(3, n=2000, findings=1)
    curves = measure_decision_curves(prob_NC, label_NC, draws, label_names=("a",))
    low, high = curves.useful_range(0, sure=True)
    assert low < label_NC.mean() < high
    wide = curves.useful_range(0)
    assert wide[0] <= low < high <= wide[1]


def test_a_finding_of_one_label_is_undefined_and_named():
    prob_NC, label_NC, draws = cohort()
    label_NC[:, 1] = 0
    values = measure_decision_curves(prob_NC, label_NC, draws, label_names=("a", "b")).to_dict()
    json.dumps(values, allow_nan=False)
    assert values["undefined"] == ["b"]
    assert set(values["findings"]["b"]["net_benefit"]["value"]) == {None}
    assert values["findings"]["b"]["useful"] is None
    assert None not in values["findings"]["a"]["net_benefit"]


def test_the_grid_is_denser_where_findings_are_rare():
    step = np.diff(THRESHOLDS)
    assert set(np.arange(1, 100) / 100) <= set(THRESHOLDS)
    assert np.all(step[1:] > step[:-1] - 1e-12)
    assert THRESHOLDS[0] == 0.001


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"thresholds": (0.0, 0.5)}, "between 0 and 1"),
        ({"thresholds": ()}, "between 0 and 1"),
        ({"thresholds": (0.5, 0.5)}, "must ascend"),
        ({"prevalence": {"a": 0.1}}, "no prevalence given for b"),
        ({"prevalence": {"a": 0.1, "b": 1.0}}, "prevalence of b is 1; it must be between 0 and 1"),
        ({"confidence": 1.0}, "confidence"),
        ({"label_names": ("a",)}, "expected 150 images of the draws and 1 findings"),
    ],
)
def test_bad_input_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        measure_decision_curves(*cohort(), **{"label_names": ("a", "b"), **options})


def test_net_benefit_by_hand():
    assert net_benefit(0.5, 0.25, 0.2, 0.2) == pytest.approx(0.5 * 0.2 - 0.25 * 0.8 * 0.25)


def test_scores_that_know_nothing_are_nowhere_surely_useful():
    rng = np.random.default_rng(0)
    patients = np.repeat(np.arange(170), 2)
    label_NC = (rng.random((340, 20)) < np.linspace(0.02, 0.25, 20)).astype(float)
    logit_NC = rng.normal(scale=0.8, size=label_NC.shape) + np.log(label_NC.mean(axis=0) / (1 - label_NC.mean(axis=0)))
    draws, names = PatientDraws.of(patients.tolist(), resamples=100), [f"f{number}" for number in range(20)]
    noise = measure_decision_curves(1 / (1 + np.exp(-logit_NC)), label_NC, draws, label_names=names)
    assert sum(noise.useful_range(column, sure=True) is not None for column in range(20)) <= 1
    model = measure_decision_curves(1 / (1 + np.exp(1 - logit_NC - 4 * label_NC)), label_NC, draws, label_names=names)
    for column in range(8, 20):
        useful, sure = model.useful_range(column), model.useful_range(column, sure=True)
        assert useful[0] <= sure[0] < sure[1] <= useful[1]
