"""Calibration maps, compared on patients that they were not fitted on."""

import json

import numpy as np
import pytest
from scipy.optimize import minimize_scalar
from scipy.special import expit, logit
from sklearn.metrics import log_loss
from sklearn.model_selection import GroupKFold

from hf_cxr.evaluation.calibration_maps import (
    MAPS,
    fit_isotonic,
    least_loss_temperature,
    log_loss_of,
    measure_calibration_maps,
)
from hf_cxr.evaluation.draws import PatientDraws

NAN = float("nan")


@pytest.fixture
def rng():
    return np.random.default_rng(9)


def draw(rng, n=1_500, patients=400, level=(-0.5, -1.5)):
    patient_N = np.concatenate([np.arange(patients), rng.integers(patients, size=n - patients)])
    true_NC = np.array(level) + 1.5 * rng.normal(size=(n, len(level)))
    return true_NC, (rng.random(true_NC.shape) < expit(true_NC)).astype(float), patient_N


def test_every_map_has_the_loss_of_a_slow_loop_over_the_folds(rng):
    """The affine map's own fit is in test_calibration.py; here that it is fitted and judged on the right rows."""
    true_NC, label_NC, patient_N = draw(rng)
    label_NC[rng.random(label_NC.shape) < 0.1] = NAN
    logit_NC = 2 * true_NC + 1
    draws = PatientDraws.of(patient_N, resamples=20)
    compared = measure_calibration_maps(logit_NC, label_NC, draws, label_names=("a", "b"), folds=4, seed=3)
    prob = {key: np.full(logit_NC.shape, np.nan) for key in MAPS}
    for fit, held in GroupKFold(4, shuffle=True, random_state=3).split(logit_NC, groups=draws.patient_N):
        assert not set(patient_N[fit]) & set(patient_N[held])
        pooled = ~np.isnan(label_NC[fit])
        one = best_temperature(logit_NC[fit][pooled], label_NC[fit][pooled])
        for column in range(2):
            rows = fit[~np.isnan(label_NC[fit, column])]
            z, y = logit_NC[rows, column], label_NC[rows, column]
            prob["none"][held, column] = expit(logit_NC[held, column])
            prob["temperature"][held, column] = expit(logit_NC[held, column] / one)
            prob["temperature_per_finding"][held, column] = expit(logit_NC[held, column] / best_temperature(z, y))
            slope, intercept = platt(z, y)
            prob["affine"][held, column] = expit(slope * logit_NC[held, column] + intercept)
            prob["isotonic"][held, column] = expit(fit_isotonic(z[:, None], y[:, None])(logit_NC[held, column, None]))[
                :, 0
            ]
    for key in MAPS:
        for column in range(2):
            known = ~np.isnan(label_NC[:, column])
            expected = log_loss(label_NC[known, column], prob[key][known, column])
            assert compared.loss_VC[key][column] == pytest.approx(expected, rel=1e-6)
        assert compared.loss[key] == pytest.approx(compared.loss_VC[key].mean())
        assert compared.difference[key].value == pytest.approx(compared.loss[key] - compared.loss["affine"])
    assert compared.loss["none"] > compared.loss["affine"]


def best_temperature(z, y):
    def loss(inverse):
        return np.mean(np.logaddexp(0, inverse * z) - y * inverse * z)

    return 1 / minimize_scalar(loss, bounds=(1e-3, 10), method="bounded", options={"xatol": 1e-9}).x


def platt(z, y):
    from sklearn.linear_model import LogisticRegression

    target = np.where(y == 1, (y.sum() + 1) / (y.sum() + 2), 1 / ((1 - y).sum() + 2))
    fit = LogisticRegression(C=np.inf, tol=1e-10, max_iter=1_000)
    fit.fit(np.tile(z, 2)[:, None], np.repeat([1, 0], len(z)), sample_weight=np.concatenate([target, 1 - target]))
    return fit.coef_[0, 0], fit.intercept_[0]


def test_each_map_wins_where_it_is_the_truth(rng):
    true_NC, label_NC, patient_N = draw(rng, 6_000, 3_000)
    draws = PatientDraws.of(patient_N, resamples=300)
    steps_NC = np.where(true_NC > 0, 2.0, np.where(true_NC > -2, -1.0, -5.0))
    stepped_NC = (rng.random(true_NC.shape) < expit(steps_NC)).astype(float)
    for logit_NC, labels, best in (
        (true_NC * 3 + 2, label_NC, "affine"),
        (np.where(np.arange(2) == 0, 2.0, 0.5) * true_NC, label_NC, "temperature_per_finding"),
        (true_NC, stepped_NC, "isotonic"),
    ):
        compared = measure_calibration_maps(logit_NC, labels, draws, label_names=("a", "b"))
        if best == "isotonic":
            assert compared.best == best
            assert compared.difference[best].high < 0
            assert compared.p[best] < 0.05
        else:
            assert abs(compared.difference[best].value) < 1e-3
            assert compared.difference["isotonic"].value > 0
        assert compared.difference["affine"].interval == (0, 0, 0)
    assert measure_calibration_maps(5 * true_NC, label_NC, draws, label_names=("a", "b")).difference["none"].low > 0


def test_the_clip_keeps_isotonic_finite_where_the_lowest_score_is_a_positive():
    z_N1 = np.linspace(-4, 4, 40)[:, None]
    fitted = fit_isotonic(z_N1, (z_N1 > 0).astype(float))
    probability = expit(fitted(np.array([[-9.0], [9.0]])))[:, 0]
    assert probability == pytest.approx([1 / 42, 41 / 42])
    assert log_loss_of(logit(probability[:1])[:, None], np.ones((1, 1)))[0, 0] == pytest.approx(np.log(42))


def test_the_temperature_stays_within_its_bounds(rng):
    z_K = rng.normal(size=500)
    label_K = (rng.random(500) < expit(3 * z_K)).astype(float)
    assert least_loss_temperature(z_K, label_K) == pytest.approx(best_temperature(z_K, label_K), rel=1e-4)
    assert least_loss_temperature(-z_K, label_K) == 1e3
    assert least_loss_temperature(z_K, (z_K > 0).astype(float)) < 0.05


def test_the_loss_of_a_cell_is_minus_the_log_of_its_probability_and_never_infinite():
    z_NC, label_NC = np.array([[2.0, -800.0, 5.0]]), np.array([[1.0, 1.0, NAN]])
    assert log_loss_of(z_NC, label_NC)[0, :2] == pytest.approx([-np.log(expit(2)), 800])
    assert np.isnan(log_loss_of(z_NC, label_NC)[0, 2])


def test_findings_with_few_images_are_left_out_by_name(rng):
    true_NC, label_NC, patient_N = draw(rng, 600, 300, (0.0, 0.0, 0.0, 0.0))
    label_NC[:, 1] = np.arange(600) < 11  # at most 10 outside some fold
    label_NC[:, 2] = NAN
    true_NC[:, 3] *= -1
    draws = PatientDraws.of(patient_N, resamples=20)
    compared = measure_calibration_maps(true_NC, label_NC, draws, label_names=("good", "few", "unknown", "reversed"))
    values = compared.to_dict()
    json.dumps(values, allow_nan=False)
    assert set(values["excluded"]) == {"few", "unknown"}
    assert values["excluded"]["unknown"].startswith("0 images")
    assert set(values["maps"]["isotonic"]["findings"]) == {"good", "reversed"}
    assert values["folds_without_slope"] == {"reversed": 5}
    alone = measure_calibration_maps(true_NC[:, [0, 3]], label_NC[:, [0, 3]], draws, label_names=("good", "reversed"))
    for key in set(MAPS) - {"temperature"}:
        assert alone.loss[key] == pytest.approx(compared.loss[key])
    none_left = measure_calibration_maps(true_NC[:, 1:3], label_NC[:, 1:3], draws, label_names=("few", "unknown"))
    assert none_left.best is None
    assert none_left.to_dict()["maps"]["affine"]["log_loss"] is None


def test_bad_input_is_one_line():
    draws = PatientDraws.of(np.arange(4), resamples=3)
    good = np.zeros((4, 1)), np.array([[0], [1], [0], [1]])
    with pytest.raises(ValueError, match="folds must be between 2 and the number of patients, 4; got 5"):
        measure_calibration_maps(*good, draws, label_names=("a",))
    with pytest.raises(ValueError, match="4 images of the draws and 2 findings"):
        measure_calibration_maps(*good, draws, label_names=("a", "b"), folds=2)
    with pytest.raises(ValueError, match="finite"):
        measure_calibration_maps(np.full((4, 1), np.inf), good[1], draws, label_names=("a",), folds=2)
