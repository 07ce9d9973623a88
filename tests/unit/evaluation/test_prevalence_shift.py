"""Prevalence shift: Bayes' rule, the fixed point of EM, a known shift recovered, and its effect."""

import json

import numpy as np
import pytest
from scipy.special import expit, logit
from sklearn.metrics import brier_score_loss, log_loss

from hf_cxr.evaluation import Calibration, metrics
from hf_cxr.evaluation.draws import PatientDraws
from hf_cxr.evaluation.prevalence_shift import estimate_prevalence, measure_prevalence_shift, prevalence_bias

NAN = float("nan")


@pytest.fixture
def rng():
    return np.random.default_rng(4)


def draw(rng, source, target, n=8_000, separation=1.5):
    """Logits calibrated for ``source`` of images of which a share ``target`` is positive, and the labels."""
    label_N = (rng.random(n) < target).astype(float)
    feature_N = rng.normal(size=n) + separation * label_N
    return (separation * feature_N - separation**2 / 2 + logit(source))[:, None], label_N[:, None]


def em(prob_N, source, steps=20_000):
    """Saerens' algorithm as its section 2.2 has it, on probabilities of both classes."""
    prior = source
    for _ in range(steps):
        present_N = prior / source * prob_N
        absent_N = (1 - prior) / (1 - source) * (1 - prob_N)
        prior = float(np.mean(present_N / (present_N + absent_N)))
    return prior


def test_the_bias_is_bayes_rule(rng):
    likelihood_N = rng.gamma(2, size=50)  # p(x | present) / p(x | absent)
    before_N = logit(likelihood_N * 0.1 / (likelihood_N * 0.1 + 0.9))
    after_N = likelihood_N * 0.4 / (likelihood_N * 0.4 + 0.6)
    np.testing.assert_allclose(expit(before_N + prevalence_bias([0.1], [0.4])), after_N)
    assert prevalence_bias([0.1, NAN, 0.3], [0.1, 0.2, NAN]).tolist() == [0, 0, 0]
    calibration = Calibration([2.0], [0.5], ("affine",), ("a",), ("",))
    shifted = calibration.shift_prevalence([0.1], [0.4])
    np.testing.assert_allclose(shifted.intercept_C, 0.5 + prevalence_bias([0.1], [0.4]))
    for value in (0, 1, -0.1, 5):
        with pytest.raises(ValueError, match="above 0 and below 1"):
            prevalence_bias([0.1], [value])


@pytest.mark.parametrize(("source", "target", "separation"), [(0.1, 0.3, 1.5), (0.3, 0.05, 1.0), (0.02, 0.01, 2.5)])
def test_the_estimate_is_where_em_ends(rng, source, target, separation):
    logit_N1, _ = draw(rng, source, target, 400, separation)
    estimate = estimate_prevalence(logit_N1, [source], label_names=["a"])
    assert estimate.prevalence_C.value_X[0] == pytest.approx(em(expit(logit_N1[:, 0]), source), rel=1e-6)
    assert estimate.reasons == {}


@pytest.mark.parametrize(("source", "target"), [(0.2, 0.4), (0.2, 0.05), (0.02, 0.05)])
def test_a_known_shift_is_recovered_and_improves_the_probabilities(source, target):
    values, inside, gains = [], 0, []
    for seed in range(25):
        logit_N1, label_N1 = draw(np.random.default_rng(seed), source, target, 2_000)
        draws = PatientDraws.of(np.arange(2_000), resamples=60, seed=seed)
        measured = measure_prevalence_shift(logit_N1, label_N1, draws, [source], label_names=["a"])
        value, low, high = measured.estimated_C.at(0).interval
        mean = {name: scores["mean_probability"].value_X[0] for name, scores in measured.scores.items()}
        assert mean["estimated"] == pytest.approx(value), "the fixed point"
        assert measured.changes["observed"]["log_loss"].value_X[0] < 0
        values.append(value)
        inside += low < target < high
        gains.append(measured.changes["estimated"]["log_loss"].value_X[0] < 0)
    assert np.mean(values) == pytest.approx(target, abs=4 * np.std(values) / 5)
    assert inside >= 21
    assert np.mean(gains) > 0.8


def test_without_a_shift_the_estimate_is_the_source_and_changes_nothing_for_certain(rng):
    logit_N1, label_N1 = draw(rng, 0.1, 0.1)
    draws = PatientDraws.of(np.arange(len(logit_N1)), resamples=200)
    measured = measure_prevalence_shift(logit_N1, label_N1, draws, [0.1], label_names=["a"])
    assert measured.estimated_C.low_X[0] < 0.1 < measured.estimated_C.high_X[0]
    assert abs(measured.changes["estimated"]["log_loss"].value_X[0]) < 1e-3


def test_the_interval_is_that_of_an_estimate_in_each_draw(rng):
    logit_N1, label_N1 = draw(rng, 0.1, 0.25, 900)
    draws = PatientDraws.of(np.arange(900) // 3, resamples=80)
    measured = measure_prevalence_shift(logit_N1, label_N1, draws, [0.1], label_names=["a"])
    again = [
        estimate_prevalence(np.repeat(logit_N1, weight_N, axis=0), [0.1], label_names=["a"]).prevalence_C.value_X[0]
        for _, weight_RM in draws.blocks()
        for weight_N in draws.per_image(weight_RM)
    ]
    low, high = np.quantile(again, [0.025, 0.975])
    assert measured.estimated_C.at(0).interval[1:] == pytest.approx((low, high), abs=0.1 * (high - low))
    by_formula = (
        estimate_prevalence(logit_N1, [0.1], np.arange(900) // 3, label_names=["a"]).prevalence_C.at(0).interval
    )
    assert by_formula[1:] == pytest.approx((low, high), abs=0.15 * (high - low))
    whole = np.repeat(logit_N1[:300], 3, axis=0)  # three equal images of each patient say no more than one
    one, three = (
        estimate_prevalence(whole, [0.1], ids, label_names=["a"]).prevalence_C
        for ids in (None, np.repeat(np.arange(300), 3))
    )
    width = [float(logit(ends.high_X[0]) - logit(ends.low_X[0])) for ends in (one, three)]
    assert width[1] == pytest.approx(np.sqrt(3) * width[0])


def test_the_scores_are_those_of_scikit_learn_and_the_ranking_stays(rng):
    logit_NC = np.hstack([draw(rng, 0.2, 0.4, 500)[0], draw(rng, 0.1, 0.1, 500)[0]])
    label_NC = (rng.random((500, 2)) < expit(logit_NC)).astype(float)
    label_NC[rng.random((500, 2)) < 0.2] = NAN
    draws = PatientDraws.of(np.arange(500) // 2, resamples=20)
    given = {"clinic": [0.4, NAN]}
    measured = measure_prevalence_shift(logit_NC, label_NC, draws, [0.2, 0.1], label_names=["a", "b"], given=given)
    known_N = ~np.isnan(label_NC[:, 0])
    shifted_N = expit(logit_NC[:, 0] + logit(0.4) - logit(0.2))
    scores = {name: value.value_X for name, value in measured.scores["clinic"].items()}
    assert scores["log_loss"][0] == pytest.approx(log_loss(label_NC[known_N, 0], shifted_N[known_N]))
    assert scores["brier"][0] == pytest.approx(brier_score_loss(label_NC[known_N, 0], shifted_N[known_N]))
    assert scores["mean_probability"][0] == pytest.approx(shifted_N[known_N].mean())
    before = measured.scores["as calibrated"]
    for score in ("log_loss", "brier"):
        change = measured.changes["clinic"][score]
        assert change.value_X[0] == pytest.approx(scores[score][0] - before[score].value_X[0])
        assert change.at(1).interval == (0, 0, 0), "a finding without a target is as it was"
        assert measured.macro_changes["clinic"][score].value == pytest.approx(change.value_X[0])
    np.testing.assert_array_equal(
        metrics.roc_auc(shifted_N[:, None], label_NC[:, :1]), metrics.roc_auc(logit_NC[:, :1], label_NC[:, :1])
    )


def test_what_has_no_estimate_is_named_and_not_shifted(rng):
    n = 200
    logit_NC = np.tile(draw(rng, 0.2, 0.2, n)[0], (1, 6))
    logit_NC[:, 0] = -8 - rng.random(n)
    logit_NC[:, 1] = 8 + rng.random(n)
    logit_NC[:, 2] = 0.3
    label_NC = (rng.random((n, 6)) < 0.2).astype(float)
    label_NC[:, 5] = NAN
    names = ["lower", "higher", "constant", "none", "unknown", "unlabelled"]
    source_C = [0.2, 0.2, 0.2, 0.0, NAN, 0.2]
    draws = PatientDraws.of(np.arange(n) // 2, resamples=9)
    measured = measure_prevalence_shift(logit_NC, label_NC, draws, source_C, label_names=names)
    assert "no image has the finding" in measured.reasons["lower"]
    assert "every image has the finding" in measured.reasons["higher"]
    assert set(measured.reasons) == set(names) - {"unlabelled"}
    assert np.isnan(measured.estimated_C.high_X[:5]).all()
    assert measured.changes["estimated"]["log_loss"].value_X[:5].tolist() == [0] * 5
    assert np.isnan(measured.changes["estimated"]["log_loss"].value_X[5])
    values = measured.to_dict()
    json.dumps(values, allow_nan=False)
    assert values["macro_changes"]["estimated"]["log_loss"]["value"] is None
    assert estimate_prevalence(np.empty((0, 1)), [0.2], label_names=["a"]).reasons == {"a": "no image"}


def test_bad_input_is_one_line():
    draws = PatientDraws.of(np.arange(4), resamples=3)
    logit_N1, label_N1 = np.zeros((4, 1)), np.array([[0], [1], [0], [1]])
    with pytest.raises(ValueError, match="4 images of the draws and 2 findings"):
        measure_prevalence_shift(logit_N1, label_N1, draws, [0.1], label_names=["a", "b"])
    with pytest.raises(ValueError, match="above 0 and below 1; got \\[30"):
        measure_prevalence_shift(logit_N1, label_N1, draws, [0.1], label_names=["a"], given={"percent": [30]})
    with pytest.raises(ValueError, match="finite"):
        estimate_prevalence([[NAN]], [0.1], label_names=["a"])
