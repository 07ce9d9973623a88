"""Reliability curves: the bins, the intervals of few positives, slope and intercept against full fits."""

import json

import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.special import expit, logit
from scipy.stats import beta

from hf_cxr.evaluation import metrics
from hf_cxr.evaluation.draws import PatientDraws
from hf_cxr.evaluation.estimates import ratio, share_interval
from hf_cxr.evaluation.reliability import equal_mass_bins, measure_reliability

NAN = float("nan")


@pytest.fixture
def rng():
    return np.random.default_rng(5)


def clustered(rng, n=3_000, patients=600, level=(-1.0, -3.5)):
    """True logits with a part that is the patient's, labels, and the patient of each image."""
    patient_N = np.concatenate([np.arange(patients), rng.integers(patients, size=n - patients)])
    true_NC = np.array(level) + rng.normal(size=(patients, len(level)))[patient_N] + rng.normal(size=(n, len(level)))
    return true_NC, (rng.random(true_NC.shape) < expit(true_NC)).astype(float), patient_N


def fitted(z_K, label_K, weight_K):
    """Intercept alone, then intercept and slope, by scipy: maximum likelihood."""

    def loss(ab):
        f_K = ab[0] + ab[1] * z_K
        return np.sum(weight_K * (np.logaddexp(0, f_K) - label_K * f_K))

    alone = minimize(lambda a: loss((a[0], 1.0)), [0.0], method="BFGS").x[0]
    return alone, minimize(loss, [0.0, 1.0], method="BFGS").x[1]


def test_bins_have_the_same_number_of_images_and_equal_scores_share_one(rng):
    score_K = rng.normal(size=1_000)
    bin_K = equal_mass_bins(score_K, 7)
    assert np.ptp(np.bincount(bin_K)) <= 1
    assert all(score_K[bin_K == b].max() < score_K[bin_K == b + 1].min() for b in range(6))
    tied_K = np.round(score_K)
    assert all(len(set(equal_mass_bins(tied_K, 7)[tied_K == value])) == 1 for value in np.unique(tied_K))
    assert equal_mass_bins([], 3).tolist() == []


def test_the_curve_is_the_table_that_pandas_would_make(rng):
    true_NC, label_NC, patient_N = clustered(rng)
    label_NC[rng.random(label_NC.shape) < 0.2] = NAN
    prob_NC = expit(true_NC)
    measured = measure_reliability(
        prob_NC, label_NC, PatientDraws.of(patient_N, resamples=20), label_names=("a", "b"), bins=10
    )
    gaps = 0.0
    known_N = ~np.isnan(label_NC[:, 1])
    curve = measured.curves[1]
    for rows in range(10):
        inside_K = equal_mass_bins(prob_NC[known_N, 1], 10) == rows
        assert curve.mean_probability_B[rows] == pytest.approx(prob_NC[known_N, 1][inside_K].mean())
        assert curve.observed_B.value_X[rows] == pytest.approx(label_NC[known_N, 1][inside_K].mean())
        assert curve.images_B[rows] == inside_K.sum()
        assert curve.patients_B[rows] == len(set(patient_N[known_N][inside_K]))
        gaps += inside_K.sum() * abs(curve.mean_probability_B[rows] - curve.observed_B.value_X[rows])
    expected = metrics.expected_calibration_error(prob_NC, label_NC, bins=10)[1]
    assert gaps / known_N.sum() == pytest.approx(expected)
    known_NC = ~np.isnan(label_NC)
    assert measured.pooled.images_B.sum() == known_NC.sum()
    assert measured.pooled.summary["mean_probability"].value == pytest.approx(prob_NC[known_NC].mean())


def test_a_calibrated_model_has_slope_one_and_a_distorted_one_does_not(rng):
    true_NC, label_NC, patient_N = clustered(rng, 20_000, 4_000)
    draws = PatientDraws.of(patient_N, resamples=200)
    for distorted_NC, slope, over in ((true_NC, 1.0, None), (2 * true_NC, 0.5, None), (true_NC + 1, 1.0, -1.0)):
        for curve in measure_reliability(expit(distorted_NC), label_NC, draws, label_names=("a", "b")).curves:
            _, low, high = curve.summary["slope"].interval
            assert low < slope < high
            assert high - low < 0.25
            if over is not None:
                assert curve.summary["intercept"].low < over < curve.summary["intercept"].high
                assert curve.summary["difference"].low > 0
                assert curve.summary["expected_over_observed"].low > 1


def test_one_newton_step_gives_the_interval_of_fits_in_each_draw(rng):
    true_NC, label_NC, patient_N = clustered(rng, 1_500, 300, (-2.0,))
    draws = PatientDraws.of(patient_N, resamples=60, seed=2)
    curve = measure_reliability(expit(0.7 * true_NC + 0.5), label_NC, draws, label_names=("a",)).curves[0]
    z_N, label_N = 0.7 * true_NC[:, 0] + 0.5, label_NC[:, 0]
    weights = np.vstack([draws.per_image(weight_RM) for _, weight_RM in draws.blocks()])
    refitted = np.array([fitted(z_N, label_N, weight_N) for weight_N in weights])
    for name, value, draw_R in zip(
        ("intercept", "slope"), fitted(z_N, label_N, np.ones_like(z_N)), refitted.T, strict=True
    ):
        estimate = curve.summary[name]
        assert estimate.value == pytest.approx(value, abs=1e-4)
        low, high = np.quantile(draw_R, [0.025, 0.975])
        assert (estimate.low, estimate.high) == pytest.approx((low, high), abs=0.12 * (high - low))


def test_a_share_of_none_has_an_upper_limit_above_zero_and_frequent_ones_have_the_bootstrap_interval(rng):
    share_X, draw_RX = np.array([0.0, 1.0, NAN]), np.array([[0.0, 1.0, NAN]] * 5)
    ends = share_interval(share_X, draw_RX, images_X=[900] * 3, patients_X=[100] * 3, confidence=0.9)
    assert ends.high_X[0] == pytest.approx(1 - 0.05 ** (1 / 100))
    assert ends.low_X[1] == pytest.approx(0.05 ** (1 / 100))
    assert (ends.low_X[0], ends.high_X[1]) == (0, 1)
    assert np.isnan([ends.low_X[2], ends.high_X[2]]).all()
    # of independent images: Clopper and Pearson's own interval, up to the noise of the draws
    label_N = (rng.random(800) < 0.1).astype(float)
    draws = PatientDraws.of(np.arange(800), resamples=4_000)
    sum_MX = draws.per_patient(np.stack([label_N, np.ones(800)], axis=1))
    (draw_RX,) = draws.sums(sum_MX)
    share_R1 = ratio(draw_RX[:, :1], draw_RX[:, 1:])
    ends = share_interval([label_N.mean()], share_R1, images_X=[800], patients_X=[800], confidence=0.95)
    k = label_N.sum()
    exact = beta.ppf(0.025, k, 801 - k), beta.ppf(0.975, k + 1, 800 - k)
    assert (ends.low_X[0], ends.high_X[0]) == pytest.approx(exact, abs=2e-3)


def test_images_of_one_patient_widen_the_interval_only_if_they_are_alike(rng):
    prob_N1, patient_N = np.full((2_000, 1), 0.3), np.repeat(np.arange(200), 10)
    alike_N = np.repeat((rng.random(200) < 0.3).astype(float), 10)
    unlike_N = (rng.random(2_000) < 0.3).astype(float)
    width = []
    for label_N, ids in ((alike_N, patient_N), (unlike_N, patient_N), (unlike_N, np.arange(2_000))):
        draws = PatientDraws.of(ids, resamples=300)
        observed_B = measure_reliability(prob_N1, label_N[:, None], draws, label_names=("a",)).curves[0].observed_B
        width.append(observed_B.high_X[0] - observed_B.low_X[0])
    assert width[0] > 2.5 * width[2]
    assert width[1] == pytest.approx(width[2], rel=0.2)


def test_what_is_undefined_is_named_and_the_rest_is_there(rng):
    label_NC = np.stack([np.full(60, NAN), np.zeros(60), np.ones(60), np.arange(60) < 30, np.arange(60) % 2], axis=1)
    prob_NC = np.stack([np.full(60, 0.2)] * 3 + [np.linspace(1, 0, 60), np.full(60, 0.5)], axis=1)
    names = ("unknown", "none", "all", "separated", "constant")
    values = measure_reliability(
        prob_NC, label_NC, PatientDraws.of(np.arange(60) // 2, resamples=9), label_names=names
    ).to_dict()
    json.dumps(values, allow_nan=False)
    undefined = {name: set(curve["undefined"]) for name, curve in values["findings"].items()}
    both = {"intercept", "slope"}
    assert undefined["none"] == both | {"expected_over_observed"}
    assert undefined["all"] == both
    assert undefined["separated"] == undefined["constant"] == {"slope"}
    assert len(undefined["unknown"]) == 6
    assert values["findings"]["unknown"]["bins"] == []
    assert values["findings"]["none"]["difference"]["value"] == pytest.approx(0.2)
    assert values["findings"]["none"]["slope"] == {"value": None, "low": None, "high": None}
    assert values["findings"]["separated"]["intercept"]["value"] == pytest.approx(0, abs=1e-3)
    assert values["findings"]["separated"]["undefined"]["slope"].startswith("the probabilities separate")


def test_bad_input_is_one_line(rng):
    draws = PatientDraws.of(np.arange(4), resamples=3)
    good = np.full((4, 1), 0.5), np.array([[0], [1], [0], [1]])
    for prob_NC, label_NC, names, bins, message in (
        (logit(good[0]) - 1, good[1], ("a",), 5, "outside"),
        (np.full((4, 1), NAN), good[1], ("a",), 5, "finite"),
        (good[0][:3], good[1][:3], ("a",), 5, "4 images of the draws and 1 findings"),
        (*good, ("a", "b"), 5, "and 2 findings"),
        (*good, ("a",), 0, "bins must be"),
    ):
        with pytest.raises(ValueError, match=message):
            measure_reliability(prob_NC, label_NC, draws, label_names=names, bins=bins)
