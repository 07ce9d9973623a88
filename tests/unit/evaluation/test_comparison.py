"""Comparison of methods: agreement with resampling by copied rows, a planted difference, nulls, Holm's correction."""

import math

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score

from hf_cxr.evaluation import paired_difference
from hf_cxr.evaluation.comparison import compare_methods, holm, is_testable

NAN = float("nan")


def draw(rng, images=120, findings=3, patients=60, *, seeds=2, gain=0.0):
    """Two methods of the same quality, or the second better by ``gain``; labels partly unknown, patients clustered."""
    label_NC = (rng.random((images, findings)) < 0.35).astype(float)
    patient_N = rng.integers(patients, size=images)
    shared_NC = label_NC + rng.normal(size=label_NC.shape) + 0.5 * rng.normal(size=patients)[patient_N, None]
    scores = {
        name: {seed: shared_NC + extra * label_NC + 0.5 * rng.normal(size=label_NC.shape) for seed in range(seeds)}
        for name, extra in (("BCE", 0.0), ("other", gain))
    }
    label_NC[rng.random(label_NC.shape) < 0.1] = NAN
    return scores, label_NC, patient_N


def by_copies(scores, label_NC, patient_N, resamples, seed):
    """Draws of mean-over-seeds macro AUC and AP by copying the rows of the patients drawn; scikit-learn measures."""
    rng, patients = np.random.default_rng(seed), sorted(set(patient_N), key=str)
    drawn = {(name, metric): [] for name in scores for metric in ("auc", "ap")}
    for _ in range(resamples):
        rows = np.concatenate([np.flatnonzero(patient_N == patients[i]) for i in rng.integers(len(patients), size=len(patients))])  # fmt: skip  # noqa: E501
        for name, runs in scores.items():
            for metric, measure in (("auc", roc_auc_score), ("ap", average_precision_score)):
                values = []
                for score_NC in runs.values():
                    for column in range(label_NC.shape[1]):
                        known = rows[~np.isnan(label_NC[rows, column])]
                        values.append(measure(label_NC[known, column], score_NC[known, column]))
                drawn[name, metric].append(np.mean(values))
    return {key: np.array(values) for key, values in drawn.items()}


def test_agrees_with_copied_rows_and_another_implementation_of_the_metrics():
    scores, label_NC, patient_N = draw(np.random.default_rng(0))
    comparison = compare_methods(
        scores, label_NC, patient_N, baseline="BCE", resamples=15, rng=np.random.default_rng(5)
    )
    drawn = by_copies(scores, label_NC, patient_N, 15, 5)
    for metric in ("auc", "ap"):
        difference = comparison.figures[metric]["other"].difference
        expected = drawn["other", metric] - drawn["BCE", metric]
        assert (difference.low, difference.high) == pytest.approx(tuple(np.quantile(expected, [0.025, 0.975])))
        smaller = min((expected <= 0).sum(), (expected >= 0).sum())
        assert difference.p == pytest.approx(min(1, 2 * (smaller + 1) / 16))
        overall = comparison.figures[metric]["other"].overall
        assert (overall.low, overall.high) == pytest.approx(tuple(np.quantile(drawn["other", metric], [0.025, 0.975])))
        assert overall.mean == pytest.approx(np.mean(list(overall.by_seed.values())))
        assert overall.sd == pytest.approx(np.std(list(overall.by_seed.values()), ddof=1))
        assert overall.sd > 0


def test_one_seed_is_the_paired_difference():
    scores, label_NC, patient_N = draw(np.random.default_rng(1), seeds=1, gain=0.4)
    comparison = compare_methods(
        scores, label_NC, patient_N, baseline="BCE", resamples=100, rng=np.random.default_rng(3)
    )
    pair = paired_difference(
        scores["other"][0], scores["BCE"][0], label_NC, patient_N, resamples=100, rng=np.random.default_rng(3)
    )
    difference = comparison.figures["auc"]["other"].difference
    assert difference.value == pytest.approx(pair.measured["auc"].macro)
    assert (difference.low, difference.high) == pytest.approx(
        (pair.measured["auc"].macro_low, pair.measured["auc"].macro_high)
    )
    assert difference.p == difference.p_corrected == pair.macro_p["auc"]
    assert math.isnan(comparison.figures["auc"]["other"].overall.sd)
    assert comparison.figures["auc"]["BCE"].difference is None


def test_a_planted_difference_is_found_and_belongs_to_its_side():
    scores, label_NC, patient_N = draw(np.random.default_rng(2), 400, 3, 200, gain=0.8)
    options = {"baseline": "BCE", "resamples": 400}
    better = compare_methods(scores, label_NC, patient_N, rng=np.random.default_rng(10), **options)
    assert better.figures["auc"]["other"].difference.low > 0
    assert better.figures["auc"]["other"].difference.p_corrected == pytest.approx(2 / 401)
    assert better.figures["ap"]["other"].difference.low > 0
    turned = {"BCE": scores["other"], "other": scores["BCE"]}
    worse = compare_methods(turned, label_NC, patient_N, rng=np.random.default_rng(10), **options)
    assert worse.figures["auc"]["other"].difference.high < 0


def test_nulls_are_found_about_as_often_as_the_level_says():
    found = 0
    for number in range(200):
        scores, label_NC, patient_N = draw(np.random.default_rng([7, number]), 150, 2, 100)
        result = compare_methods(
            scores, label_NC, patient_N, baseline="BCE", resamples=150, rng=np.random.default_rng(number)
        )
        found += result.figures["auc"]["other"].difference.p < 0.05
    assert 2 <= found <= 22  # of 200, 10 expected; the binomial's own 99.9 % is 2 to 21


def test_equal_methods_do_not_differ():
    scores, label_NC, patient_N = draw(np.random.default_rng(3))
    scores["other"] = dict(scores["BCE"])
    difference = compare_methods(
        scores, label_NC, patient_N, baseline="BCE", resamples=50, rng=np.random.default_rng(0)
    ).figures["ap"]["other"].difference  # fmt: skip
    assert (difference.value, difference.low, difference.high, difference.p_corrected) == (0, 0, 0, 1)
    assert difference.by_seed == {0: 0, 1: 0}


def test_p_values_are_corrected_for_the_number_of_methods():
    scores, label_NC, patient_N = draw(np.random.default_rng(4), 400, 2, 200, gain=0.3)
    rng = np.random.default_rng(9)
    for name in ("third", "fourth"):
        scores[name] = {seed: run + 0.3 * rng.normal(size=run.shape) for seed, run in scores["BCE"].items()}
    result = compare_methods(scores, label_NC, patient_N, baseline="BCE", resamples=300, rng=rng)
    differences = [figures.difference for figures in result.figures["auc"].values() if figures.difference]
    assert [d.p_corrected for d in differences] == pytest.approx(holm([d.p for d in differences]))
    assert differences[0].p_corrected == pytest.approx(3 * differences[0].p)


def test_holm_steps_down_and_never_turns_the_order():
    # Multiplied by 4, 3, 2 and 1 in ascending order, and each at least the one before.
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.5, 0.9]) == [1.0, 1.0]
    assert holm([0.02]) == [0.02]
    corrected = holm([NAN, 0.02])
    assert math.isnan(corrected[0])
    assert corrected[1] == pytest.approx(0.04)


def test_groups_and_undefined_findings():
    scores, label_NC, patient_N = draw(np.random.default_rng(6), findings=4)
    label_NC[:, 3] = 0
    result = compare_methods(
        scores,
        label_NC,
        patient_N,
        baseline="BCE",
        groups={"head": [0, 1], "tail": [2, 3], "none": [3]},
        resamples=50,
        rng=np.random.default_rng(0),
    )
    figures = result.figures["auc"]["other"]
    assert result.undefined == (3,)
    assert figures.groups["head"].mean == pytest.approx(figures.finding_C[:2].mean())
    assert figures.groups["tail"].mean == pytest.approx(figures.finding_C[2])
    assert math.isnan(figures.groups["none"].mean)
    assert figures.overall.mean == pytest.approx(figures.finding_C[:3].mean())


def test_a_gain_in_one_group_is_found_there_and_all_groups_are_one_family():
    scores, label_NC, patient_N = draw(np.random.default_rng(7), images=600, patients=300, findings=4)
    for score_NC in scores["other"].values():
        score_NC[:, 2:] += 1.5 * np.nan_to_num(label_NC[:, 2:])
    options = {"baseline": "BCE", "resamples": 400}
    groups = {"head": [0, 1], "tail": [2, 3]}
    result = compare_methods(scores, label_NC, patient_N, groups=groups, rng=np.random.default_rng(0), **options)
    alone = compare_methods(
        {name: {seed: score_NC[:, 2:] for seed, score_NC in runs.items()} for name, runs in scores.items()},
        label_NC[:, 2:],
        patient_N,
        rng=np.random.default_rng(0),
        **options,
    )
    assert result.figures["auc"]["BCE"].group_differences == {}
    for metric in ("auc", "ap"):
        within = result.figures[metric]["other"].group_differences
        of_tail = alone.figures[metric]["other"].difference
        assert (within["tail"].value, within["tail"].p) == pytest.approx((of_tail.value, of_tail.p))
        assert within["tail"].p_corrected == pytest.approx(2 * of_tail.p)  # two groups, one method
        assert within["tail"].p_corrected < 0.05 < within["head"].p_corrected
    ungrouped = compare_methods(scores, label_NC, patient_N, rng=np.random.default_rng(0), **options)
    assert result.figures["auc"]["other"].difference == ungrouped.figures["auc"]["other"].difference


def test_methods_may_have_other_seeds():
    scores, label_NC, patient_N = draw(np.random.default_rng(8), seeds=3)
    del scores["other"][1]
    result = compare_methods(scores, label_NC, patient_N, baseline="BCE", resamples=20, rng=np.random.default_rng(0))
    assert set(result.figures["auc"]["other"].difference.by_seed) == {0, 2}
    assert set(result.figures["auc"]["BCE"].overall.by_seed) == {0, 1, 2}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda scores: scores | {"empty": {}}, "no run of empty"),
        (lambda scores: {"other": scores["other"]}, "baseline 'BCE' .*methods: other"),
        (lambda scores: scores | {"cut": {0: scores["BCE"][0][:5]}}, "shape"),
    ],
)
def test_bad_input_is_refused(change, message):
    scores, label_NC, patient_N = draw(np.random.default_rng(0))
    with pytest.raises(ValueError, match=message):
        compare_methods(change(scores), label_NC, patient_N, baseline="BCE", rng=np.random.default_rng(0))


def test_a_difference_is_tested_where_half_of_the_draws_define_it():
    assert [is_testable(draws, 200) for draws in (200, 100, 99, 0, NAN)] == [True, True, False, False, False]
