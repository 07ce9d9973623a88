"""The bootstrap against repeating rows, against DeLong's variance, and against what clusters must do to it."""

import math
from itertools import pairwise

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score

from hf_cxr.evaluation import bootstrap_metrics, kernels, metrics, paired_difference
from hf_cxr.evaluation import draws as draws_module

NAN = float("nan")


def seeded(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def draw(n=300, c=3, *, seed=1, unknown=0.1, decimals=None):
    rng = seeded(seed)
    label_NC = (rng.random((n, c)) < np.linspace(0.1, 0.5, c)).astype(np.float64)
    score_NC = rng.normal(size=(n, c)) + 0.8 * label_NC
    label_NC[rng.random((n, c)) < unknown] = NAN
    return score_NC if decimals is None else score_NC.round(decimals), label_NC


def delong_sd(score_N, label_N) -> float:
    """DeLong, DeLong and Clarke-Pearson, Biometrics 44 (1988): variance of the AUC from its structural components."""
    wins_PQ = score_N[label_N == 1][:, None] - score_N[label_N == 0][None, :]
    wins_PQ = (wins_PQ > 0) + 0.5 * (wins_PQ == 0)
    positives, negatives = wins_PQ.shape
    return math.sqrt(wins_PQ.mean(1).var(ddof=1) / positives + wins_PQ.mean(0).var(ddof=1) / negatives)


@pytest.mark.parametrize("decimals", [None, 1, 0])
def test_integer_weights_are_repeated_rows_and_ones_are_the_plain_metric(decimals):
    score_NC, label_NC = draw(decimals=decimals)
    weight_RN = seeded(2).integers(0, 4, size=(5, len(score_NC)))
    weight_RN[0] = 1
    for column in range(score_NC.shape[1]):
        score_N, label_N = score_NC[:, column], label_NC[:, column]
        cells = kernels.WeightedCells(kernels.rank(score_N, label_N), weight_RN)
        auc_R, ap_R = kernels.auc(cells), kernels.ap(cells)
        assert auc_R[0] == metrics.roc_auc(score_NC, label_NC)[column]
        assert ap_R[0] == metrics.average_precision(score_NC, label_NC)[column]
        for row, weight_N in enumerate(weight_RN):
            repeated = np.repeat(np.arange(len(score_N)), weight_N)
            repeated = repeated[~np.isnan(label_N[repeated])]
            assert auc_R[row] == pytest.approx(roc_auc_score(label_N[repeated], score_N[repeated]), abs=1e-14)
            assert ap_R[row] == pytest.approx(average_precision_score(label_N[repeated], score_N[repeated]), abs=1e-14)


def test_a_side_without_weight_is_undefined():
    ranking = kernels.rank(np.array([0.1, 0.2, 0.3]), np.array([0.0, 1.0, NAN]))
    cells = kernels.WeightedCells(ranking, np.array([[1, 0, 5], [0, 1, 5], [0, 0, 5], [2, 3, 5]]))
    for kernel in (kernels.auc, kernels.ap):
        np.testing.assert_array_equal(kernel(cells), [NAN, NAN, NAN, 1])


def test_every_draw_is_the_metric_of_the_patients_drawn():
    score_NC, label_NC = draw(60, 2)
    patients = [f"p{row % 20:02d}" for row in range(60)]
    result = bootstrap_metrics(score_NC, label_NC, patients, resamples=5, rng=seeded(3))
    rng = seeded(3)
    for auc_C, ap_C in zip(result.samples["auc"].draw_RC, result.samples["ap"].draw_RC, strict=True):
        rows = np.concatenate([np.arange(patient, 60, 20) for patient in rng.integers(20, size=20)])
        np.testing.assert_allclose(auc_C, metrics.roc_auc(score_NC[rows], label_NC[rows]), atol=1e-14)
        np.testing.assert_allclose(ap_C, metrics.average_precision(score_NC[rows], label_NC[rows]), atol=1e-14)


def test_one_image_a_patient_has_the_spread_of_delong():
    score_NC, label_NC = draw(400, 2, unknown=0.0)
    result = bootstrap_metrics(score_NC, label_NC, range(400), resamples=1500, rng=seeded())
    for column in range(2):
        analytical = delong_sd(score_NC[:, column], label_NC[:, column])
        assert result.samples["auc"].draw_RC[:, column].std() == pytest.approx(analytical, rel=0.1)
        width = result.measured["auc"].high_C[column] - result.measured["auc"].low_C[column]
        assert width == pytest.approx(2 * 1.96 * analytical, rel=0.12)


def test_copies_of_images_narrow_nothing_when_they_share_their_patient():
    """Four copies of every image add no information: clustered draws know that, draws of images do not."""
    score_NC, label_NC = draw(200, 1, unknown=0.0)
    copied_NC, copied_label_NC = np.repeat(score_NC, 4, axis=0), np.repeat(label_NC, 4, axis=0)
    options = {"resamples": 600, "rng": seeded()}
    single = bootstrap_metrics(score_NC, label_NC, range(200), **options)
    clustered = bootstrap_metrics(copied_NC, copied_label_NC, np.repeat(np.arange(200), 4), **options)
    naive = bootstrap_metrics(copied_NC, copied_label_NC, range(800), **options)
    sd_single, sd_clustered, sd_naive = (result.samples["auc"].draw_RC.std() for result in (single, clustered, naive))
    assert sd_clustered == pytest.approx(sd_single, rel=0.1)
    assert sd_clustered == pytest.approx(2 * sd_naive, rel=0.15)


def test_a_seed_fixes_the_result_for_any_chunks_and_order_of_rows(monkeypatch):
    score_NC, label_NC = draw(90, 3, decimals=1)
    patients = np.array([f"p{row // 3}" for row in range(90)])
    once = bootstrap_metrics(score_NC, label_NC, patients, resamples=29, rng=seeded(5))
    shuffled = seeded(6).permutation(90)
    # 7 draws at a time, and 1 in the last chunk
    monkeypatch.setattr(draws_module, "CELLS_AT_ONCE", 7 * 90)
    again = bootstrap_metrics(score_NC[shuffled], label_NC[shuffled], patients[shuffled], resamples=29, rng=seeded(5))
    other = bootstrap_metrics(score_NC, label_NC, patients, resamples=29, rng=seeded(7))
    np.testing.assert_array_equal(once.samples["auc"].draw_RC, again.samples["auc"].draw_RC)
    np.testing.assert_array_equal(once.samples["ap"].draw_RC, again.samples["ap"].draw_RC)
    assert (once.measured["ap"].macro_low, once.measured["ap"].macro_high) == (
        again.measured["ap"].macro_low,
        again.measured["ap"].macro_high,
    )
    assert not np.array_equal(once.samples["auc"].draw_RC, other.samples["auc"].draw_RC)


def test_a_wider_confidence_gives_an_interval_around_the_narrower():
    score_NC, label_NC = draw()
    wide, narrow = (
        bootstrap_metrics(score_NC, label_NC, range(300), resamples=200, confidence=level, rng=seeded()).measured[
            "auc"
        ]
        for level in (0.95, 0.5)
    )
    for ends in zip(wide.low_C, narrow.low_C, wide.value_C, narrow.high_C, wide.high_C, strict=True):
        assert all(lower < higher for lower, higher in pairwise(ends))


def test_undefined_findings_and_draws_are_counted_and_the_macro_mean_keeps_its_findings():
    score_NC, label_NC = draw(100, 3, unknown=0.0)
    label_NC[:, 0] = 0
    label_NC[:, 1] = np.arange(100) == 7
    result = bootstrap_metrics(score_NC, label_NC, range(100), resamples=400, rng=seeded())
    auc = result.measured["auc"]
    assert math.isnan(auc.value_C[0])
    assert math.isnan(auc.low_C[0])
    assert auc.draws_C[0] == 0
    assert auc.draws_C[1] == pytest.approx(400 * (1 - math.exp(-1)), rel=0.1)
    assert auc.draws_C[2] == 400
    assert auc.macro == pytest.approx((auc.value_C[1] + auc.value_C[2]) / 2)
    assert auc.macro_draws == auc.draws_C[1]
    macro_R, draw_RC = result.samples["auc"].macro.draw_RC[:, 0], result.samples["auc"].draw_RC
    defined_R = ~np.isnan(macro_R)
    np.testing.assert_allclose(macro_R[defined_R], draw_RC[defined_R, 1:].mean(axis=1))


def test_a_score_differs_from_itself_by_nothing_and_from_a_better_one_by_something():
    score_NC, label_NC = draw(400, 2)
    better_NC = score_NC + 0.7 * np.nan_to_num(label_NC)
    same = paired_difference(score_NC, score_NC, label_NC, range(400), resamples=200, rng=seeded())
    assert not same.samples["auc"].draw_RC.any()
    assert (
        same.measured["auc"].macro,
        same.measured["auc"].macro_low,
        same.measured["ap"].macro_high,
        same.macro_p["auc"],
    ) == (0, 0, 0, 1)
    np.testing.assert_array_equal(same.p_C["ap"], [1, 1])
    gain = paired_difference(better_NC, score_NC, label_NC, range(400), resamples=200, rng=seeded())
    assert gain.measured["auc"].macro_low > 0
    assert gain.measured["ap"].macro_low > 0
    assert gain.macro_p["auc"] == pytest.approx(2 / 201)
    loss = paired_difference(score_NC, better_NC, label_NC, range(400), resamples=200, rng=seeded())
    np.testing.assert_array_equal(loss.samples["auc"].draw_RC, -gain.samples["auc"].draw_RC)
    np.testing.assert_array_equal(loss.p_C["auc"], gain.p_C["auc"])


def test_pairing_cancels_what_the_two_models_share():
    score_NC, label_NC = draw(300, 1, unknown=0.0)
    rng = seeded(9)
    other_NC = score_NC + 0.1 * rng.normal(size=score_NC.shape)
    paired = paired_difference(score_NC, other_NC, label_NC, range(300), resamples=300, rng=seeded())
    alone = bootstrap_metrics(score_NC, label_NC, range(300), resamples=300, rng=seeded())
    assert 0 < paired.samples["auc"].draw_RC.std() < 0.3 * alone.samples["auc"].draw_RC.std()
    assert paired.measured["auc"].value_C == metrics.roc_auc(score_NC, label_NC) - metrics.roc_auc(other_NC, label_NC)


@pytest.mark.parametrize("missing", [None, NAN, "", np.datetime64("NaT")])
def test_a_missing_patient_is_refused(missing):
    with pytest.raises(ValueError, match="1 images have no patient id, the first at row 1"):
        bootstrap_metrics([[0.1], [0.2], [0.3]], [[0], [1], [1]], ["a", missing, "b"], rng=seeded())


@pytest.mark.parametrize(
    ("patients", "options", "message"),
    [
        (["a", "b"], {}, "2 patient ids for 3 images"),
        (["a", "a", "a"], {}, "at least two patients"),
        (["a", "b", "c"], {"resamples": 1}, "resamples must be at least 2"),
        (["a", "b", "c"], {"confidence": 95}, "confidence must be between 0 and 1"),
    ],
)
def test_bad_options_are_refused(patients, options, message):
    with pytest.raises(ValueError, match=message):
        bootstrap_metrics([[0.1], [0.2], [0.3]], [[0], [1], [1]], patients, rng=seeded(), **options)
