"""Calibration: it undoes a known distortion, keeps every ranking, folds exactly, and stays finite."""

import json
from dataclasses import replace

import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.special import expit, logit

from hf_cxr.evaluation import Calibration, fit_calibration, metrics

NAN = float("nan")


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(3)


def draw(rng, n=20_000, shift=(-3.0, -1.0, 0.0)):
    """True logits and the labels that they give."""
    true_NC = 1.5 * rng.normal(size=(n, len(shift))) + shift
    return true_NC, (rng.random(true_NC.shape) < expit(true_NC)).astype(np.float64)


def test_it_recovers_a_known_affine_distortion(rng):
    true_NC, label_NC = draw(rng)
    slope_C, intercept_C = np.array([0.5, 2.0, 1.3]), np.array([1.0, -0.4, 0.0])
    label_NC[rng.random(label_NC.shape) < 0.3] = NAN
    calibration = fit_calibration((true_NC - intercept_C) / slope_C, label_NC)
    assert calibration.method_C == ("affine",) * 3
    np.testing.assert_allclose(calibration.slope_C, slope_C, rtol=0.08)
    np.testing.assert_allclose(calibration.intercept_C, intercept_C, atol=0.15)
    error_C = metrics.expected_calibration_error(expit(calibration.apply((true_NC - intercept_C) / slope_C)), label_NC)
    assert np.all(error_C < 0.02)


@pytest.mark.parametrize("scale", [1e-4, 1.0, 1e4])
def test_the_fit_is_the_optimum_of_platts_likelihood_at_any_scale(rng, scale):
    true_NC, label_NC = draw(rng, 500, (-1.0,))
    positives = label_NC.sum()
    target_N = np.where(label_NC == 1, (positives + 1) / (positives + 2), 1 / (500 - positives + 2))[:, 0]

    def loss(ab):
        f_N = ab[0] * true_NC[:, 0] + ab[1]
        return np.sum(np.logaddexp(0, f_N) - target_N * f_N)

    expected = minimize(loss, [1.0, 0.0], method="BFGS", options={"gtol": 1e-8}).x
    calibration = fit_calibration(scale * true_NC, label_NC)
    np.testing.assert_allclose(
        [calibration.slope_C[0] * scale, calibration.intercept_C[0]], expected, rtol=1e-5, atol=1e-6
    )


@pytest.mark.parametrize("kind", ["normal", "rare", "separable", "outlier", "heavy tails"])
def test_the_gradient_vanishes_at_the_fit(rng, kind):
    """The cross-entropy to the smoothed targets is strictly convex: only its minimum has no slope."""
    logit_N = rng.standard_cauchy(3_000) if kind == "heavy tails" else rng.normal(size=3_000)
    label_N = rng.random(3_000) < expit(3 * logit_N - (6 if kind == "rare" else 0))
    if kind == "separable":
        label_N = logit_N > 1
    if kind == "outlier":
        logit_N[0], label_N[0] = 1e5, True
    calibration = fit_calibration(logit_N[:, None], label_N[:, None])
    assert calibration.method_C == ("affine",)
    positives = label_N.sum()
    target_N = np.where(label_N, (positives + 1) / (positives + 2), 1 / (3_000 - positives + 2))
    error_N = expit(calibration.apply(logit_N[:, None])[:, 0]) - target_N
    standard_N = (logit_N - logit_N.mean()) / logit_N.std()
    assert abs(error_N.mean()) < 1e-11
    assert abs((error_N * standard_N).mean()) < 1e-11
    assert np.abs(error_N).max() > 1e-3


def test_ranking_is_kept_and_the_probabilities_are_not(rng):
    true_NC, label_NC = draw(rng, 3_000)
    logit_NC = 3 * true_NC + 2
    calibrated_NC = fit_calibration(logit_NC, label_NC).apply(logit_NC)
    np.testing.assert_array_equal(metrics.roc_auc(calibrated_NC, label_NC), metrics.roc_auc(logit_NC, label_NC))
    np.testing.assert_array_equal(
        metrics.average_precision(calibrated_NC, label_NC), metrics.average_precision(logit_NC, label_NC)
    )
    assert np.all(
        metrics.brier(expit(calibrated_NC), label_NC) < metrics.brier(expit(logit_NC.astype(float)), label_NC)
    )


@pytest.mark.parametrize("min_positives", [10, 10**9])
def test_the_probabilities_sum_to_the_positives(rng, min_positives):
    true_NC, label_NC = draw(rng, 2_000)
    label_NC[rng.random(label_NC.shape) < 0.2] = NAN
    calibration = fit_calibration(4 * true_NC + 3, label_NC, min_positives=min_positives)
    assert set(calibration.method_C) == {"affine" if min_positives == 10 else "intercept"}
    sum_C = np.where(np.isnan(label_NC), 0, expit(calibration.apply(4 * true_NC + 3))).sum(axis=0)
    np.testing.assert_allclose(sum_C, np.nansum(label_NC, axis=0), atol=1.0)


def test_weaker_maps_are_used_where_needed_and_reported(rng):
    true_NC, label_NC = draw(rng, 1_000, (0.0,) * 6)
    label_NC[:, 1] = np.arange(1_000) < 9
    label_NC[:, 2] = 0
    label_NC[:, 3] = NAN
    true_NC[:, 4] *= -1
    true_NC[:, 5] = 2.5
    names = ("good", "few", "none", "unknown", "reversed", "constant")
    calibration = fit_calibration(true_NC, label_NC, label_names=names)
    assert calibration.method_C == ("affine", "intercept", "intercept", "identity", "intercept", "intercept")
    np.testing.assert_array_equal(calibration.slope_C[1:], 1)
    assert calibration.intercept_C[3] == 0
    assert set(calibration.exceptions) == set(names[1:])
    assert "9 positives" in calibration.exceptions["few"]
    assert "no known label" in calibration.exceptions["unknown"]
    assert "slope is -" in calibration.exceptions["reversed"]
    prob_NC = expit(calibration.apply(true_NC))
    assert 0 < prob_NC[:, 2].mean() < 2 / 1_000
    assert prob_NC[0, 5] == pytest.approx(label_NC[:, 5].mean(), abs=1e-3)


def test_extremes_stay_finite():
    label_N1 = (np.arange(200) < 50).astype(float)[:, None]
    logit_N1 = np.where(label_N1 == 1, 1e4, -1e4) + np.arange(200)[:, None]
    for min_positives in (10, 10**9):
        calibration = fit_calibration(logit_N1, label_N1, min_positives=min_positives)
        assert np.isfinite(calibration.apply(logit_N1)).all()
    separable = fit_calibration(np.sign(label_N1 - 0.5), label_N1)
    prob_N1 = expit(separable.apply(np.sign(label_N1 - 0.5)))
    np.testing.assert_allclose(prob_N1[[0, -1], 0], [51 / 52, 1 / 152], rtol=1e-6, err_msg="the smoothed targets")


@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float32, 1e-5), (np.float64, 1e-12)])
def test_folding_into_the_last_layer_is_applying(rng, dtype, tolerance):
    true_NC, label_NC = draw(rng, 1_000)
    feature_ND = rng.normal(size=(50, 16)).astype(dtype)
    weight_CD, bias_C = rng.normal(size=(3, 16)).astype(dtype), rng.normal(size=3).astype(dtype)
    calibration = fit_calibration(2 * true_NC - 1, label_NC)
    folded_CD, folded_C = calibration.fold(weight_CD, bias_C)
    assert (folded_CD.dtype, folded_C.dtype) == (dtype, dtype)
    applied_NC = calibration.apply(feature_ND @ weight_CD.T + bias_C)
    np.testing.assert_allclose(feature_ND @ folded_CD.T + folded_C, applied_NC, atol=tolerance)
    assert np.abs(applied_NC - (feature_ND @ weight_CD.T + bias_C)).max() > 0.1


def test_dict_gives_the_same_calibration_back_to_the_bit(rng):
    true_NC, label_NC = draw(rng, 500)
    label_NC[:, 1] = NAN
    calibration = fit_calibration(true_NC / 3, label_NC, label_names=["a", "b", "c"])
    again = Calibration.from_dict(json.loads(json.dumps(calibration.to_dict())))
    assert again.to_dict() == calibration.to_dict()
    np.testing.assert_array_equal(again.apply(true_NC), calibration.apply(true_NC))
    with pytest.raises(ValueError, match="not a calibration: no intercept, method"):
        Calibration.from_dict({"names": [], "slope": [], "reason": []})


def test_prevalence_shift_moves_the_mean_to_the_new_population(rng):
    true_NC, label_NC = draw(rng, 50_000, (-1.0,))
    calibration = fit_calibration(true_NC, label_NC)
    source = label_NC.mean()
    keep_N = (label_NC[:, 0] == 1) | (rng.random(50_000) < 0.3)
    target = label_NC[keep_N].mean()
    shifted = calibration.shift_prevalence([source], [target])
    assert expit(shifted.apply(true_NC[keep_N])).mean() == pytest.approx(target, abs=0.01)
    assert expit(calibration.apply(true_NC[keep_N])).mean() < target - 0.05
    assert shifted.intercept_C - calibration.intercept_C == pytest.approx(logit(target) - logit(source))


def test_what_cannot_be_a_calibration_is_refused(rng):
    calibration = fit_calibration(*draw(rng, 100))
    with pytest.raises(ValueError, match="slopes above 0"):
        replace(calibration, slope_C=[1.0, 0.0, 1.0])
    with pytest.raises(ValueError, match="one value a finding"):
        replace(calibration, names=("a",))
    with pytest.raises(ValueError, match=r"expected \(N, 3\)"):
        calibration.apply(np.zeros((5, 2)))
    with pytest.raises(ValueError, match=r"weight has shape \(2, 4\)"):
        calibration.fold(np.zeros((2, 4)), np.zeros(2))
    with pytest.raises(ValueError, match="row 0, column 0"):
        fit_calibration([[NAN]], [[1]])
    with pytest.raises(ValueError, match="prevalences between 0 and 1"):
        calibration.shift_prevalence([0.1, 0.1, 0.0], [0.1, 0.1, 0.1])
