"""Draws of patients, and BCa intervals against SciPy's."""

import numpy as np
import pytest
from scipy import stats

from hf_cxr.evaluation import PatientDraws, evaluate_predictions
from hf_cxr.evaluation.delong import delong, delong_difference
from hf_cxr.evaluation.draws import Intervals, bca_interval, left_out_blocks, percentile_interval

IDS = ["b", "a", "b", "c", "a", "b"]


def test_draws_are_of_patients_the_same_each_time_and_whatever_the_order():
    draws = PatientDraws.of(IDS, resamples=200, seed=3)
    assert draws.n_patients == 3
    once, again = ([weight_RM for _, weight_RM in draws.blocks()] for _ in range(2))
    np.testing.assert_array_equal(np.concatenate(once), np.concatenate(again))
    weight_RM = np.concatenate(once)
    assert weight_RM.shape == (200, 3)
    assert (weight_RM.sum(axis=1) == 3).all()
    assert len(np.unique(weight_RM)) == 4
    weight_RN = draws.per_image(weight_RM)
    assert (weight_RN[:, 0] == weight_RN[:, 2]).all()
    assert (weight_RN[:, 0] != weight_RN[:, 1]).any()
    other = PatientDraws.of(sorted(IDS), resamples=200, seed=3)
    np.testing.assert_array_equal(np.concatenate([weight for _, weight in other.blocks()]), weight_RM)
    value_N = np.arange(6.0)
    np.testing.assert_array_equal(weight_RM @ draws.per_patient(value_N), weight_RN @ value_N)


def test_intervals_draw_what_their_parts_draw():
    draws, same = Intervals(20, seed=3).draws(IDS), PatientDraws.of(IDS, resamples=20, seed=3)
    for (_, one_RM), (_, other_RM) in zip(draws.blocks(), same.blocks(), strict=True):
        np.testing.assert_array_equal(one_RM, other_RM)
    other = Intervals(20, seed=4).draws(IDS)
    assert any((a != b).any() for (_, a), (_, b) in zip(draws.blocks(), other.blocks(), strict=True))


@pytest.mark.parametrize(
    ("options", "named"),
    [({"resamples": 1}, "resamples"), ({"confidence": 1.0}, "confidence"), ({"kind": "BCa"}, "percentile, bca")],
)
def test_intervals_refuse_what_gives_none(options, named):
    with pytest.raises(ValueError, match=named):
        Intervals(**options)


@pytest.mark.parametrize(
    ("ids", "resamples", "named"),
    [(["a", "a"], 10, "two patients"), (["a", None], 10, "row 1"), (["a", "b"], 1, "resamples")],
)
def test_draws_refuse_what_gives_no_interval(ids, resamples, named):
    with pytest.raises(ValueError, match=named):
        PatientDraws.of(ids, resamples=resamples)


def test_percentiles_keep_the_shape_and_leave_out_what_is_undefined():
    draw = np.random.default_rng(0).normal(size=(500, 2, 3))
    draw[:400, 1, 2] = np.nan
    draw[:, 0, 0] = np.nan
    low, high = percentile_interval(draw, 0.9)
    assert low.shape == high.shape == (2, 3)
    assert np.isnan(low[0, 0])
    assert (low[1, 2], high[1, 2]) == tuple(np.quantile(draw[400:, 1, 2], [0.05, 0.95]))


def test_bca_is_scipys():
    rng = np.random.default_rng(1)
    sample = rng.exponential(size=40)
    result = stats.bootstrap((sample,), np.mean, n_resamples=500, method="BCa", rng=rng)
    left_out = (sample.sum() - sample) / (len(sample) - 1)
    low, high = bca_interval(
        np.array([sample.mean()]), result.bootstrap_distribution[:, None], left_out[:, None], 0.95
    )
    assert (low[0], high[0]) == pytest.approx(tuple(result.confidence_interval), abs=1e-12)
    plain = percentile_interval(result.bootstrap_distribution, 0.95)
    assert low[0] > plain[0], "of a mean of skewed values it lies further right"
    assert high[0] > plain[1]


def test_bca_without_bias_and_skew_is_the_percentile_interval():
    value, draw = np.zeros(1), np.linspace(-1, 1, 1001)[:, None]
    left_out = np.array([[-0.1], [0.1], [0.2], [-0.2]])
    np.testing.assert_allclose(
        bca_interval(value, draw, left_out, 0.9), np.reshape(percentile_interval(draw, 0.9), (2, 1))
    )
    assert np.isnan(bca_interval(value, draw + 5, left_out, 0.9)).all(), "all draws lie on one side of the value"


def test_groups_left_out_in_turn_are_all_patients_once():
    for patients in (7, 1000):
        weights = np.concatenate(list(left_out_blocks(np.arange(patients), patients)))
        assert len(weights) == min(patients, 400)
        assert ((1 - weights).sum(axis=0) == 1).all()
        assert np.ptp((1 - weights).sum(axis=1)) <= 1


def clustered(seed=0, patients=120):
    """A patient's images share their findings and a part of their score."""
    rng = np.random.default_rng(seed)
    patient_N = np.repeat(np.arange(patients), rng.integers(1, 6, size=patients))
    label_N = (rng.random(patients) < 0.3)[patient_N].astype(float)
    logit_N = rng.normal(size=patients)[patient_N] + rng.normal(size=len(patient_N)) / 2 + label_N
    return 1 / (1 + np.exp(-logit_N))[:, None], label_N[:, None], patient_N.tolist()


def test_bca_of_a_report_is_near_the_percentiles_and_not_the_same():
    prob_NC, label_NC, patients = clustered()
    options = {"resamples": 400, "seed": 1}
    plain = evaluate_predictions(prob_NC, label_NC, patients, **options).measured["all"]
    bca = evaluate_predictions(prob_NC, label_NC, patients, interval="bca", **options)
    assert "BCa" in bca.method
    for key, one in bca.measured["all"].items():
        assert one.value_C == plain[key].value_C
        width = plain[key].high_C - plain[key].low_C
        assert 0 < abs(one.low_C - plain[key].low_C) < 0.5 * width, key
        assert one.low_C < one.value_C < one.high_C
    assert bca.measured["all"]["auc"].averages["micro"].low == bca.measured["all"]["auc"].low_C[0]


def delong_sd(score_N, label_N):
    """DeLong, DeLong and Clarke-Pearson (1988), by the matrix of all pairs."""
    positive, negative = score_N[label_N == 1], score_N[label_N == 0]
    win_PQ = (positive[:, None] > negative) + (positive[:, None] == negative) / 2
    return np.sqrt(win_PQ.mean(1).var(ddof=1) / len(positive) + win_PQ.mean(0).var(ddof=1) / len(negative))


def test_delong_of_single_images_is_delongs_own_and_ties_count_half():
    rng = np.random.default_rng(4)
    label_NC = (rng.random((200, 2)) < 0.3).astype(float)
    score_NC = rng.normal(size=(200, 2)) + label_NC
    score_NC[:, 0] = score_NC[:, 0].round()
    label_NC[::9, 1] = np.nan
    _, sd_C = delong(score_NC, label_NC, range(200))
    for column in range(2):
        known = ~np.isnan(label_NC[:, column])
        score_N, label_N = score_NC[known, column], label_NC[known, column]
        assert sd_C[column] == pytest.approx(delong_sd(score_N, label_N), rel=1e-10)


def test_clustered_delong_agrees_with_the_bootstrap_where_images_alone_are_too_sure():
    prob_NC, label_NC, patients = clustered(patients=400)
    auc_C, sd_C = delong(prob_NC, label_NC, patients)
    one = evaluate_predictions(prob_NC, label_NC, patients, resamples=600).measured["all"]["auc"]
    assert one.value_C == pytest.approx(auc_C, abs=1e-12)
    bootstrap_sd = (one.high_C - one.low_C) / (2 * stats.norm.ppf(0.975))
    assert sd_C == pytest.approx(bootstrap_sd, rel=0.12)
    _, naive_C = delong(prob_NC, label_NC, range(len(patients)))
    assert naive_C < 0.75 * sd_C


def test_the_difference_of_two_systems_is_surer_than_each_alone_if_they_agree():
    prob_NC, label_NC, patients = clustered(patients=200)
    other_NC = np.clip(prob_NC + np.random.default_rng(0).normal(size=prob_NC.shape) / 20, 0, 1)
    difference_C, sd_C = delong_difference(prob_NC, other_NC, label_NC, patients)
    first, second = (delong(score_NC, label_NC, patients) for score_NC in (prob_NC, other_NC))
    assert difference_C == pytest.approx(first[0] - second[0])
    assert 0 < sd_C < 0.5 * first[1]
    same = delong_difference(prob_NC, prob_NC * 0.5, label_NC, patients)
    np.testing.assert_allclose(np.concatenate(same), 0, atol=1e-9)


def test_delong_is_undefined_where_there_is_one_label_or_one_patient_of_a_side():
    score_NC, label_NC = np.array([[0.1], [0.3], [0.2], [0.7]]), np.array([[0.0], [1.0], [0.0], [1.0]])
    auc_C, sd_C = delong(score_NC, label_NC, ["a", "b", "c", "b"])
    assert auc_C == 1
    assert np.isnan(sd_C)
    assert np.isnan(delong(score_NC, np.zeros((4, 1)), ["a", "b", "c", "d"])).all()
