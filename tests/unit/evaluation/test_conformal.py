"""Conformal label sets: MAPIE's values, coverage under clustered data by simulation, and what is measured on test."""

import json

import numpy as np
import pytest
from scipy.special import expit, logit

from hf_cxr.evaluation.conformal import (
    MEASURES,
    ConformalSets,
    fit_conformal,
    measure_conformal,
    patient_quantile,
)
from hf_cxr.evaluation.draws import PatientDraws

NAN = float("nan")


@pytest.fixture
def rng():
    return np.random.default_rng(6)


def clustered(rng, patients, level=(0.5,), images=8):
    """Probabilities, labels and patients; a patient with many images has higher probabilities on all of them."""
    count_K = rng.integers(1, images + 1, size=patients)
    patient_N = np.repeat(np.arange(patients), count_K)
    own_K = rng.normal(size=(patients, len(level))) + 0.4 * (count_K[:, None] - images / 2)
    score_NC = np.array(level) + own_K[patient_N] + 0.3 * rng.normal(size=(len(patient_N), len(level)))
    label_NC = (rng.random(score_NC.shape) < expit(score_NC)).astype(float)
    return expit(score_NC), label_NC, patient_N


def test_one_image_a_patient_gives_the_thresholds_of_mapie():
    """mapie 1.6.0: SplitConformalClassifier(confidence_level, "lac", prefit=True) conformalized on the images of one
    label; its ``quantiles_`` are 0.89 and 0.95 for the positives (1 - p) and 0.78 and 0.91 for the negatives (p)."""
    prob_N = [0.02, 0.05, 0.08, 0.11, 0.13, 0.17, 0.21, 0.22, 0.27, 0.31, 0.33]
    prob_N += [0.38, 0.41, 0.46, 0.52, 0.57, 0.63, 0.71, 0.78, 0.84, 0.91, 0.96]
    label_N = np.arange(22) % 2
    for coverage, present, absent in ((0.8, 1 - 0.89, 0.78), (0.9, 1 - 0.95, 0.91)):
        sets = fit_conformal(
            np.array(prob_N)[:, None], label_N[:, None], np.arange(22), label_names=["a"], coverage=coverage
        )
        assert (sets.present_C[0], sets.absent_C[0]) == pytest.approx((present, absent))
        assert sets.too_few == {}


def slow_quantile(score_N, patient_N, level):
    """The definition, candidate by candidate."""
    patients = sorted(set(patient_N))
    for candidate in sorted(score_N):
        weight = 0.0
        for patient in patients:
            own = [score for score, number in zip(score_N, patient_N, strict=True) if number == patient]
            weight += sum(score <= candidate for score in own) / len(own) / (len(patients) + 1)
        if weight >= level - 1e-12:
            return candidate
    return np.inf


def test_the_quantile_is_the_definition(rng):
    for _ in range(20):
        patient_N = rng.integers(12, size=30)
        score_N = np.round(rng.normal(size=30), 1)  # with ties
        level = rng.choice([0.5, 0.8, 0.9, 0.95])
        assert patient_quantile(score_N, patient_N, level) == slow_quantile(score_N, patient_N, level)
    assert patient_quantile([], [], 0.5) == np.inf


def test_coverage_holds_for_patients_with_many_images_and_counting_images_does_not_give_it(rng):
    """The mean over validation sets of the share of a new patient's positive images that is covered."""
    by_patient, by_image = [], []
    for _ in range(300):
        prob_N1, label_N1, patient_N = clustered(rng, 60)
        new_N1, new_label_N1, new_patient_N = clustered(rng, 60)
        positive_N = new_label_N1[:, 0] == 1
        for values, patients in ((by_patient, patient_N), (by_image, np.arange(len(patient_N)))):
            sets = fit_conformal(prob_N1, label_N1, patients, label_names=["a"], coverage=0.8)
            present_N = sets.sets(new_N1)[0][positive_N, 0]
            own = np.bincount(new_patient_N[positive_N], weights=present_N) / np.maximum(
                np.bincount(new_patient_N[positive_N]), 1
            )
            values.append(own[np.unique(new_patient_N[positive_N])].mean())
    error = np.std(by_patient) / np.sqrt(300)
    assert 0.8 - 3 * error < np.mean(by_patient) < 0.8 + 1 / 40 + 3 * error
    assert np.mean(by_image) < 0.75


def test_each_label_is_covered_at_each_level_on_test_like_data(rng):
    level = (0.5, -1.5)
    validation, (prob_NC, label_NC, patient_N) = clustered(rng, 900, level), clustered(rng, 900, level)
    draws = PatientDraws.of(patient_N, resamples=200)
    measured = measure_conformal(prob_NC, label_NC, draws, validation, label_names=["a", "b"], coverages=(0.95, 0.8))
    assert [level.fitted.coverage for level in measured.levels] == [0.8, 0.95]
    either = []
    for one in measured.levels:
        for side in ("positive_coverage", "negative_coverage"):
            assert one.shares_C[side].value_X == pytest.approx([one.fitted.coverage] * 2, abs=0.04)
            assert (one.shares_C[side].low_X < one.shares_C[side].value_X).all()
        shares = sum(one.shares_C[name].value_X for name in ("present", "absent", "either", "empty"))
        assert shares == pytest.approx([1, 1])
        assert one.macro["either"].value == pytest.approx(one.shares_C["either"].value_X.mean())
        either.append(one.macro["either"].value)
    assert either[1] > either[0] + 0.1, "more coverage, more abstention"
    assert measured.levels[1].macro["accuracy_decided"].value > measured.levels[0].macro["accuracy_decided"].value


def test_coverage_below_what_was_stated_is_named_where_patients_differ_from_validation(rng):
    validation, (prob_NC, label_NC, patient_N) = clustered(rng, 300), clustered(rng, 300)
    draws = PatientDraws.of(patient_N, resamples=100)
    below = [
        measure_conformal(shifted_NC, label_NC, draws, validation, label_names=["a"]).levels[1].below_C
        for shifted_NC in (prob_NC, prob_NC * np.where(label_NC == 1, 0.6, 1.0))
    ]
    assert [bool(one["positive_coverage"][0]) for one in below] == [False, True]
    assert [bool(one["negative_coverage"][0]) for one in below] == [False, False]


def test_the_shares_are_counts():
    validation = np.array([[0.1], [0.3], [0.5], [0.7], [0.2], [0.4], [0.6], [0.8]]), np.repeat([[0], [1]], 4, axis=0)
    prob_N1 = np.array([[0.1], [0.35], [0.5], [0.9], [0.9], [0.15], [0.9]])
    label_N1 = np.array([[0], [0], [1], [1], [1], [1], [NAN]])
    draws = PatientDraws.of([0, 0, 1, 1, 1, 2, 3], resamples=50)
    measured = measure_conformal(
        prob_N1, label_N1, draws, (*validation, np.arange(8)), label_names=["a"], coverages=[0.6]
    )
    level = measured.levels[0]
    assert (level.fitted.present_C[0], level.fitted.absent_C[0]) == (0.4, 0.5)
    shares = {name: share.value_X[0] for name, share in level.shares_C.items()}
    assert shares == pytest.approx(
        {
            "positive_coverage": 1 / 2,  # patient 1: all three, patient 2: none
            "negative_coverage": 1.0,
            "positive_images_covered": 3 / 4,
            "negative_images_covered": 1.0,
            "present": 2 / 6,
            "absent": 3 / 6,
            "either": 1 / 6,
            "empty": 0.0,
            "accuracy_decided": 4 / 5,
            "ppv": 1.0,
            "npv": 2 / 3,
        }
    )
    assert set(shares) == set(MEASURES)


def test_a_rising_map_changes_no_set(rng):
    prob_NC, label_NC, patient_N = clustered(rng, 100)
    new_NC = clustered(rng, 50)[0]
    before = fit_conformal(prob_NC, label_NC, patient_N, label_names=["a"]).sets(new_NC)
    after = fit_conformal(prob_NC**3 / 2, label_NC, patient_N, label_names=["a"]).sets(new_NC**3 / 2)
    for one, other in zip(before, after, strict=True):
        np.testing.assert_array_equal(one, other)
    assert 0 < before[0].mean() < 1


def test_too_few_patients_mean_that_the_label_is_in_every_set(rng):
    """For 90 %, nine patients are needed: K / (K + 1) has to reach 0.9."""
    prob_NC, patient_N = rng.random((60, 3)), np.repeat(np.arange(30), 2)
    label_NC = np.zeros((60, 3))
    label_NC[:18, 0] = 1  # nine patients
    label_NC[:16, 1] = 1  # eight, with two positive images each
    sets = fit_conformal(prob_NC, label_NC, patient_N, label_names=["nine", "eight", "none"], coverage=0.9)
    assert np.isfinite(sets.present_C).tolist() == [True, False, False]
    assert sets.too_few == {
        "eight": "8 patients with it; at least 9 are needed",
        "none": "0 patients with it; at least 9 are needed",
    }
    assert sets.sets(prob_NC)[0][:, 1:].all()
    draws = PatientDraws.of(patient_N, resamples=9)
    measured = measure_conformal(
        prob_NC, label_NC, draws, (prob_NC, label_NC, patient_N), label_names=sets.label_names
    )
    values = measured.to_dict()
    json.dumps(values, allow_nan=False)
    level = values["levels"][1]
    assert level["findings"]["eight"]["present_from"] is None
    assert level["findings"]["eight"]["present"]["value"] + level["findings"]["eight"]["either"]["value"] == 1
    assert level["findings"]["none"]["positive_coverage"]["value"] is None
    assert level["macro"]["either"]["value"] == pytest.approx(level["findings"]["nine"]["either"]["value"])


def test_bad_input_is_one_line():
    good = np.full((4, 1), 0.5), np.array([[0], [1], [0], [1]]), np.arange(4)
    for coverage in (0, 1, 90):
        with pytest.raises(ValueError, match="coverage must be above 0 and below 1"):
            fit_conformal(*good, label_names=["a"], coverage=coverage)
    with pytest.raises(ValueError, match="outside"):
        fit_conformal(good[0] + 3, *good[1:], label_names=["a"])
    with pytest.raises(ValueError, match="2 names"):
        fit_conformal(*good, label_names=["a", "b"])
    with pytest.raises(ValueError, match="3 patient ids"):
        fit_conformal(*good[:2], [0, 1, 2], label_names=["a"])
    with pytest.raises(ValueError, match="4 images of the draws and 1 findings"):
        measure_conformal(good[0][:3], good[1][:3], PatientDraws.of(good[2], resamples=3), good, label_names=["a"])


def test_sets_come_back_from_json_with_their_infinite_thresholds(rng):
    prob_NC, label_NC, patient_N = clustered(rng, 60, level=(0.0, 0.5))
    label_NC[:, 1] = 0
    label_NC[0, 1] = 1  # one patient with it: too few
    sets = fit_conformal(prob_NC, label_NC, patient_N, label_names=["a", "b"])
    back = ConformalSets.from_dict(json.loads(json.dumps(sets.to_dict())))
    assert back.too_few == sets.too_few
    assert back.coverage == sets.coverage
    assert np.isneginf(back.present_C[1])
    for mine, theirs in zip(back.sets(prob_NC), sets.sets(prob_NC), strict=True):
        np.testing.assert_array_equal(mine, theirs)
        assert theirs.any()


def test_sets_come_back_in_the_order_of_the_outputs(rng):
    """config.json sorts its keys."""
    names = ["b", "a", "c"]
    prob_NC, label_NC, patient_N = clustered(rng, 60, level=(0.0, 0.5, 1.0))
    sets = fit_conformal(prob_NC, label_NC, patient_N, label_names=names)
    back = ConformalSets.from_dict(json.loads(json.dumps(sets.to_dict(), sort_keys=True)), names)
    np.testing.assert_array_equal(back.present_C, sets.present_C)
    assert len(np.unique(sets.present_C)) == 3
    with pytest.raises(ValueError, match="not of the model's findings"):
        ConformalSets.from_dict(sets.to_dict(), ["a", "b", "d"])


def test_moved_sets_are_those_of_the_moved_probabilities(rng):
    prob_NC, label_NC, patient_N = clustered(rng, 60, level=(0.0, 0.5))
    label_NC[:, 1] = 0
    sets, bias_C = fit_conformal(prob_NC, label_NC, patient_N, label_names=["a", "b"]), np.array([1.3, -0.4])
    new_NC, _, _ = clustered(rng, 50, level=(0.0, 0.5))
    moved = sets.moved(bias_C)
    for mine, before in zip(moved.sets(expit(logit(new_NC) + bias_C)), sets.sets(new_NC), strict=True):
        np.testing.assert_array_equal(mine, before)
    assert moved.present_C[0] > sets.present_C[0]
    # Fitted again on moved validation probabilities, the thresholds are the same.
    again = fit_conformal(expit(logit(prob_NC) + bias_C), label_NC, patient_N, label_names=["a", "b"])
    np.testing.assert_allclose(moved.absent_C, again.absent_C, rtol=1e-12)


@pytest.mark.parametrize(
    "damaged",
    [
        None,
        {"coverage": 1.0, "findings": {}},
        {"coverage": 0.9, "findings": {"a": {"present_from": 0.1}}},
        {"coverage": 0.9, "findings": ["a"]},
        {
            "coverage": 0.9,
            "findings": {"a": {"present_from": 7, "absent_to": 1, "positive_patients": 1, "negative_patients": 2}},
        },
    ],
)
def test_damaged_sets_are_refused(damaged):
    with pytest.raises(ValueError, match=r"label sets \(conformal\)"):
        ConformalSets.from_dict(damaged)
