"""Controls: what view, age and sex predict is found, what they do not is not, and no patient is scored by itself."""

import json

import numpy as np
import pytest
from scipy.stats import rankdata
from sklearn.metrics import roc_auc_score

from hf_cxr.evaluation import METRICS
from hf_cxr.evaluation.controls import Known, measure_controls, shuffle_labels
from hf_cxr.evaluation.draws import PatientDraws
from hf_cxr.evaluation.metrics import macro
from hf_cxr.files import plain

NAMES = ("Edema", "Hernia", "Mass")


def cohort(seed=0, patients=200, images=2):
    """Edema follows the view, Hernia the age in the middle of life, Mass nothing."""
    rng = np.random.default_rng(seed)
    patient_N = np.repeat(np.arange(patients), images)
    view_N = np.array(["AP", "PA"])[rng.integers(2, size=patients)][patient_N]
    age_N = rng.uniform(5, 90, size=patients)[patient_N]
    sex_N = np.array(["F", "M"])[rng.integers(2, size=patients)][patient_N]
    chance_NC = np.stack([np.where(view_N == "AP", 0.6, 0.15), np.where(np.abs(age_N - 47) < 15, 0.6, 0.1)], axis=1)
    label_NC = (rng.random((len(patient_N), 3)) < np.column_stack([chance_NC, np.full(len(patient_N), 0.4)])) + 0.0
    score_NC = label_NC + 1.2 * rng.normal(size=label_NC.shape)
    return score_NC, label_NC, patient_N, Known(view=view_N.tolist(), age=age_N, sex=sex_N.tolist())


def measure(score_NC, label_NC, patient_N, known, resamples=20, shuffles=5, **options):
    draws = PatientDraws.of(list(patient_N), resamples=resamples)
    options = {"label_names": NAMES, "rng": np.random.default_rng(0)} | options
    return measure_controls(score_NC, label_NC, draws, known, shuffles=shuffles, **options)


@pytest.fixture(scope="module")
def controls():
    _, fit_label_NC, _, fit_known = cohort(seed=1)
    return measure(*cohort(), fit=(fit_label_NC, fit_known), resamples=100)


def test_what_the_known_columns_predict_is_found_and_no_more(controls):
    assert list(controls.without_pixels) == ["view, age and sex", "view", "age", "sex"]
    auc = {name: one.control.value_C for name, one in controls.without_pixels.items()}
    assert auc["view, age and sex"][0] > 0.68
    assert auc["view, age and sex"][1] > 0.68  # needs the spline: the risk is not monotone in age
    assert 0.4 < auc["view, age and sex"][2] < 0.6
    assert 0.4 < auc["age"][0] < 0.6 < auc["age"][1]
    assert auc["sex"] == pytest.approx([0.5, 0.5, 0.5], abs=0.1)
    assert controls.fitted_on == "validation"


def test_the_difference_is_model_minus_control_in_the_same_draws(controls):
    score_NC, label_NC, _, known = cohort()
    one = controls.without_pixels["view"]
    assert one.model.value_C == pytest.approx(
        [roc_auc_score(*pair) for pair in zip(label_NC.T, score_NC.T, strict=True)]
    )
    is_ap_N = np.array(known.view) == "AP"
    assert one.control.value_C[0] == pytest.approx(roc_auc_score(label_NC[:, 0], is_ap_N))
    assert one.difference.value_C == pytest.approx(one.model.value_C - one.control.value_C)
    assert one.difference.low_C[2] < one.difference.value_C[2] < one.difference.high_C[2]
    # Paired: a model that is the control differs by nothing at all.
    same = measure(
        np.repeat(is_ap_N[:, None] + 0.0, 3, axis=1), label_NC, np.arange(400) // 2, known, fit=(label_NC, known)
    )
    assert same.without_pixels["view"].difference.high_C[0] == 0
    assert same.without_pixels["view"].p_C[0] == 1


def test_cross_fitting_scores_no_patient_by_its_own_labels():
    # The view names the patient, and all images of a patient have the same labels.
    rng = np.random.default_rng(0)
    patient_N = np.repeat(np.arange(100), 4)
    label_NC = np.repeat((rng.random((100, 3)) < 0.5) + 0.0, 4, axis=0)
    score_NC = rng.normal(size=label_NC.shape)
    known = Known(view=[f"room {patient}" for patient in patient_N])
    crossed = measure(score_NC, label_NC, patient_N, known)
    seen = measure(score_NC, label_NC, patient_N, known, fit=(label_NC, known))
    assert crossed.fitted_on == "test, cross-fitted"
    assert crossed.without_pixels["view"].control.macro == pytest.approx(0.5, abs=0.1)
    assert seen.without_pixels["view"].control.macro > 0.95


def test_a_finding_too_rare_to_fit_on_is_named_and_left_out_of_both_means():
    score_NC, label_NC, patient_N, known = cohort()
    _, fit_label_NC, _, fit_known = cohort(seed=1)
    fit_label_NC[9:, 1] = np.nan
    one = measure(score_NC, label_NC, patient_N, known, fit=(fit_label_NC, fit_known))
    assert "Hernia" in one.left_out
    full = one.without_pixels["view, age and sex"]
    assert np.isnan([full.control.value_C[1], full.model.value_C[1]]).all()
    assert full.model.macro == pytest.approx(macro(METRICS["auc"].measure(score_NC, label_NC)[[0, 2]]))


def test_one_view_alone_is_no_control_and_labels_are_shuffled_all_the_same():
    score_NC, label_NC, patient_N, _ = cohort(patients=20)
    one = measure(score_NC, label_NC, patient_N, Known(view=["PA"] * 40))
    assert one.without_pixels == {}
    assert "one value alone" in one.reason
    assert one.shuffled.value > one.shuffled.mean


def test_unknown_views_ages_and_sexes_are_values_of_their_own():
    score_NC, label_NC, patient_N, known = cohort()
    view = [None if one == "AP" else one for one in known.view]
    age = np.where(np.array(known.view) == "AP", np.nan, 50.0)
    result = measure(score_NC, label_NC, patient_N, Known(view=view, age=age))
    assert list(result.without_pixels) == ["view and age", "view", "age"]
    assert result.without_pixels["view"].control.value_C[0] > 0.68
    assert result.without_pixels["age"].control.value_C[0] > 0.68


def test_shuffled_labels_are_chance_and_keep_their_number():
    score_NC, label_NC, patient_N, _ = cohort()
    options = {"shuffles": 99, "confidence": 0.95}
    shuffled = shuffle_labels(score_NC, label_NC, patient_N, rng=np.random.default_rng(0), **options)
    assert shuffled.value == pytest.approx(macro(METRICS["auc"].measure(score_NC, label_NC)), abs=1e-12)
    assert shuffled.low < 0.5 < shuffled.high < shuffled.value
    assert shuffled.mean == pytest.approx(0.5, abs=0.01)
    assert shuffled.p == 0.01
    noise_NC = np.random.default_rng(1).normal(size=score_NC.shape)
    by_chance = shuffle_labels(noise_NC, label_NC, patient_N, rng=np.random.default_rng(0), **options)
    assert by_chance.p > 0.05


def test_the_auc_of_a_shuffle_is_that_of_scipys_ranks_with_ties_and_unknown_cells():
    rng = np.random.default_rng(0)
    score_NC = rng.integers(0, 5, size=(60, 2)) + 0.0
    label_NC = (rng.random((60, 2)) < 0.5) + 0.0
    label_NC[::4, 1] = np.nan
    # One image a patient and one shuffle: the shuffle is a permutation of the rows, found again from the generator.
    one = shuffle_labels(score_NC, label_NC, np.arange(60), shuffles=1, confidence=0.5, rng=np.random.default_rng(3))
    dealt_NC = label_NC[np.argsort(np.random.default_rng(3).permutation(60))]
    expected = []
    for score_N, label_N in zip(score_NC.T, dealt_NC.T, strict=True):
        known_N = ~np.isnan(label_N)
        positives, n = (label_N == 1).sum(), known_N.sum()
        ranks = rankdata(score_N[known_N])[label_N[known_N] == 1].sum()
        expected.append((ranks - positives * (positives + 1) / 2) / (positives * (n - positives)))
    assert one.draw_S[0] == pytest.approx(np.mean(expected), abs=1e-12)


def test_the_values_are_plain_json(controls):
    values = plain(controls.to_dict())
    assert json.loads(json.dumps(values, allow_nan=False)) == values
    assert values["shuffled"]["shuffles"] == 5


def test_bad_input_is_refused():
    score_NC, label_NC, patient_N, known = cohort(patients=20)
    with pytest.raises(ValueError, match="view has 3 values for 40 images"):
        measure(score_NC, label_NC, patient_N, Known(view=["PA", "AP", None]))
    with pytest.raises(ValueError, match="shuffles must be at least 1"):
        measure(score_NC, label_NC, patient_N, known, shuffles=0)
    with pytest.raises(ValueError, match="have 2 findings; expected 3"):
        measure(score_NC, label_NC, patient_N, known, fit=(label_NC[:, :2], known))
