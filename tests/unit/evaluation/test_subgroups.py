"""Groups against the rest: laws of the gap, its test under no difference and under a planted one, and references."""

import json

import numpy as np
import pytest
from scipy.stats import norm, t
from sklearn.metrics import average_precision_score, roc_auc_score

from hf_cxr.evaluation.draws import PatientDraws
from hf_cxr.evaluation.gaps import gap_p
from hf_cxr.evaluation.groups import Attribute, image_attributes
from hf_cxr.evaluation.subgroups import measure_subgroups
from hf_cxr.files import plain


def cohort(n_patients=120, images=2, seed=0, findings=2):
    """Scores that follow the labels, patients with several images, two groups of patients at random."""
    rng = np.random.default_rng(seed)
    patient_N = np.repeat(np.arange(n_patients), images)
    label_NC = (rng.random((len(patient_N), findings)) < 0.4).astype(float)
    prob_NC = np.clip(0.4 + 0.15 * label_NC + 0.15 * rng.normal(size=label_NC.shape), 0, 1)
    group_N = np.array(["a", "b"])[rng.integers(2, size=n_patients)][patient_N]
    return prob_NC, label_NC, patient_N, group_N


def measure(prob_NC, label_NC, patient_N, groups, resamples=60, **options):
    draws = PatientDraws.of(list(patient_N), resamples=resamples, seed=1)
    attributes = {name: Attribute.of(list(group_N)) for name, group_N in groups.items()}
    return measure_subgroups(prob_NC, label_NC, draws, attributes, **options)


def test_values_are_those_of_scikit_learn_on_the_rows_of_the_group():
    prob_NC, label_NC, patient_N, group_N = cohort()
    label_NC[::7, 1] = np.nan
    result = measure(prob_NC, label_NC, patient_N, {"g": group_N}, threshold_C=[0.5, 0.45])
    group = result.groups["g"]["a"]
    for part, rows_N in (("group", group_N == "a"), ("rest", group_N != "a")):
        for column in range(2):
            known_N = rows_N & ~np.isnan(label_NC[:, column])
            y, p = label_NC[known_N, column], prob_NC[known_N, column]
            called = p >= (0.5, 0.45)[column]
            expected = {
                "auc": roc_auc_score(y, p),
                "ap": average_precision_score(y, p),
                "fnr": 1 - called[y == 1].mean(),
                "fpr": called[y == 0].mean(),
            }
            found = {key: getattr(one, part).value_X[column] for key, one in group.compared.items()}
            assert found == pytest.approx(expected, abs=1e-12)
    for key, sides in (("bpsn", ("b", "a")), ("bnsp", ("a", "b"))):
        y = label_NC[:, 0]
        rows_N = ((group_N == sides[0]) & (y == 1)) | ((group_N == sides[1]) & (y == 0))
        assert group.crossed[key].value_X[0] == pytest.approx(roc_auc_score(y[rows_N], prob_NC[rows_N, 0]), abs=1e-12)


# fairlearn 0.15.0 on the cohort of `fairlearn_cohort`: MetricFrame(metrics={"auc": roc_auc_score}, ...) and, of calls
# at 0.45, false_negative_rate and false_positive_rate; .by_group and .difference("between_groups");
# equalized_odds_difference is the larger of the last two.
FAIRLEARN = {
    "auc": ({"a": 0.8117088607594937, "b": 0.8256340579710145, "c": 0.4918571053322827}, 0.3337769526387318),
    "fnr": ({"a": 0.21666666666666667, "b": 0.1875, "c": 0.6382978723404256}, 0.45079787234042556),
    "fpr": ({"a": 0.31645569620253167, "b": 0.30434782608695654, "c": 0.25925925925925924}, 0.05719643694327242),
}


def fairlearn_cohort():
    rng = np.random.default_rng(5)
    group = np.array(["a", "b", "c"])[rng.integers(3, size=400)]
    label = (rng.random(400) < 0.4).astype(float)
    prob = np.round(np.clip(0.35 + 0.2 * label * (group != "c") + 0.15 * rng.normal(size=400), 0, 1), 2)
    return prob, label, group


def test_values_and_widest_gaps_are_those_of_fairlearn():
    prob_N, label_N, group_N = fairlearn_cohort()
    result = measure(prob_N[:, None], label_N[:, None], np.arange(400), {"g": group_N}, threshold_C=[0.45])
    for key, (by_group, widest) in FAIRLEARN.items():
        found = {name: group.compared[key].group.at(-1).value for name, group in result.groups["g"].items()}
        assert found == pytest.approx(by_group, abs=1e-12)
        assert result.widest["g"][key].value == pytest.approx(widest, abs=1e-12)
    assert (result.widest["g"]["auc"].high_group, result.widest["g"]["auc"].low_group) == ("b", "c")


def test_the_gap_of_a_group_is_minus_that_of_its_complement_and_is_one_hypothesis():
    prob_NC, label_NC, patient_N, group_N = cohort()
    result = measure(prob_NC, label_NC, patient_N, {"g": group_N}, threshold_C=[0.5, 0.5])
    one, other = result.groups["g"].values()
    for key in ("auc", "ap", "fnr", "fpr"):
        gap, back = one.compared[key].gap, other.compared[key].gap
        assert gap.value_X.tolist() == (-back.value_X).tolist()
        assert gap.low_X == pytest.approx(-back.high_X, abs=1e-12)
        assert one.compared[key].p_X == pytest.approx(other.compared[key].p_X, nan_ok=True)
        assert np.abs(gap.value_X).max() > 0
    # Two groups, but one question: AUC and the two error rates are tested, AP is not.
    assert (result.gaps, result.finding_gaps) == (3, 6)
    twice = measure(prob_NC, label_NC, patient_N, {"g": group_N, "same": group_N})
    assert twice.gaps == 1


def test_a_planted_failure_is_found_and_nothing_else_is():
    prob_NC, label_NC, patient_N, group_N = cohort(n_patients=300)
    other_N = np.array(["x", "y"])[np.random.default_rng(3).integers(2, size=300)][patient_N]
    flipped_N = group_N == "b"
    prob_NC[flipped_N, 0] = np.random.default_rng(4).permutation(prob_NC[flipped_N, 0])
    groups = {"g": group_N, "other": other_N}
    result = measure(prob_NC, label_NC, patient_N, groups, threshold_C=[0.5, 0.5], resamples=400)
    bad = result.groups["g"]["b"].compared["auc"]
    assert bad.gap.value_X[0] < -0.15
    assert bad.p_corrected_X[0] < 0.001
    assert bad.p_X[-1] < 0.05
    assert bad.p_corrected_X[1] > 0.05
    assert result.groups["g"]["b"].compared["fnr"].p_corrected_X[0] < 0.05
    assert result.groups["other"]["x"].compared["auc"].p_corrected_X.min() > 0.05
    assert result.widest["g"]["auc"].p_corrected < 0.05 < result.widest["other"]["auc"].p_corrected
    # Negatives of the group that fails still lie below the positives of the rest.
    assert result.groups["g"]["b"].crossed["bpsn"].value_X[0] > bad.group.value_X[0]


def test_about_five_in_a_hundred_gaps_of_an_alike_model_are_below_five_per_cent():
    # 12 findings, 12 divisions of the patients at random: 144 gaps. Images of a patient share a part of their score.
    rng = np.random.default_rng(0)
    patient_N = np.repeat(np.arange(160), 2)
    label_NC = (rng.random((320, 12)) < 0.4).astype(float)
    shared_NC = rng.normal(size=(160, 12))[patient_N]
    prob_NC = norm.cdf(label_NC + shared_NC + 0.5 * rng.normal(size=label_NC.shape))
    groups = {str(n): np.array(["a", "b"])[rng.integers(2, size=160)][patient_N] for n in range(12)}
    result = measure(prob_NC, label_NC, patient_N, groups)
    compared = [result.groups[name]["a"].compared["auc"] for name in groups]
    share = np.mean([one.p_X[:-1] < 0.05 for one in compared])
    assert 0.01 < share < 0.1  # 0.05 give or take about 2.6 standard errors
    assert min(one.p_corrected_X[:-1].min() for one in compared) > 0.05
    assert min(result.widest[name]["auc"].p_corrected for name in groups) > 0.05


def test_a_group_of_all_images_has_no_complement_and_says_so():
    prob_NC, label_NC, patient_N, _ = cohort()
    result = measure(prob_NC, label_NC, patient_N, {"g": ["PA"] * len(patient_N)})
    group = result.groups["g"]["PA"]
    assert group.reason == "no images among all other images"
    assert (group.images, group.patients, group.compared) == (240, 120, {})
    assert result.widest == {}


def test_too_few_patients_or_no_positives_are_named_and_do_not_touch_the_rest():
    prob_NC, label_NC, patient_N, group_N = cohort()
    group_N = group_N.astype(object)
    group_N[patient_N < 3] = "few"
    group_N[(patient_N >= 3) & (patient_N < 40)] = "healthy"
    label_NC[group_N == "healthy"] = 0
    result = measure(prob_NC, label_NC, patient_N, {"g": group_N}, label_names=["Mass", "Hernia"])
    groups = result.groups["g"]
    assert groups["few"].reason == "3 patients in the group, fewer than 20"
    assert groups["few"].images == 6
    assert "no finding has 5 positive and negative patients" in groups["healthy"].reason
    assert groups["healthy"].left_out["Mass"] == "0 positive patients in the group, fewer than 5"
    assert groups["a"].findings == ("Mass", "Hernia")
    assert {result.widest["g"]["auc"].high_group, result.widest["g"]["auc"].low_group} == {"a", "b"}


def test_both_sides_of_a_gap_are_over_the_same_findings():
    prob_NC, label_NC, patient_N, group_N = cohort(findings=3)
    label_NC[group_N == "a", 2] = 0
    result = measure(prob_NC, label_NC, patient_N, {"g": group_N}, label_names=["Mass", "Edema", "Hernia"])
    group = result.groups["g"]["b"]
    assert group.findings == ("Mass", "Edema")
    assert group.left_out == {"Hernia": "0 positive patients among all other images, fewer than 5"}
    one = group.compared["auc"]
    assert one.group.at(-1).value == pytest.approx(one.group.value_X[:2].mean(), abs=1e-15)
    assert not np.isnan(one.group.value_X[2])  # shown, and not in the mean
    assert np.isnan(one.gap.value_X[2])


def test_images_without_a_finding_have_a_false_positive_rate():
    prob_NC, label_NC, patient_N, group_N = cohort()
    label_NC[group_N == "a"] = 0
    result = measure(prob_NC, label_NC, patient_N, {"g": group_N}, threshold_C=[0.5, 0.5])
    healthy, rest = result.groups["g"].values()
    assert list(healthy.compared) == ["fpr"]
    assert healthy.findings == ()
    expected = (prob_NC[group_N == "a"] >= 0.5).mean(axis=0)
    assert healthy.compared["fpr"].group.value_X == pytest.approx([*expected, expected.mean()])
    assert list(rest.compared) == ["fpr"]
    assert list(result.widest["g"]) == ["fpr"]
    assert "no finding" in measure(prob_NC, label_NC, patient_N, {"g": group_N}).groups["g"]["a"].reason


def test_a_finding_of_few_patients_is_not_tested():
    prob_NC, label_NC, patient_N, group_N = cohort()
    label_NC[:, 1] = 0
    label_NC[np.flatnonzero(group_N == "a")[:2], 1] = 1
    label_NC[np.flatnonzero(group_N == "b")[::3], 1] = 1
    one = measure(prob_NC, label_NC, patient_N, {"g": group_N}).groups["g"]["a"].compared["auc"]
    assert not np.isnan(one.gap.value_X).any()
    assert np.isnan(one.p_X).tolist() == [False, True, False]
    assert np.isnan(one.p_corrected_X).tolist() == [False, True, False]


def test_groups_that_labels_make_have_gaps_without_a_test():
    prob_NC, label_NC, patient_N, _ = cohort(findings=3)
    attributes, _ = image_attributes(label_NC)
    draws = PatientDraws.of(list(patient_N), resamples=20)
    result = measure_subgroups(prob_NC, label_NC, draws, attributes)
    several = result.groups["number of findings"]["several"].compared["auc"]
    assert not np.isnan(several.gap.at(-1).interval).any()
    assert np.isnan(several.p_X).all()
    assert result.gaps == 0
    assert np.isnan(result.widest["number of findings"]["auc"].p)


def test_the_p_value_is_by_t_with_the_deviation_of_the_draws():
    draw_RX = np.random.default_rng(0).normal(size=(400, 3)) * [1, 2, 0] + [0, 0, 0.3]
    sd_X = draw_RX.std(axis=0, ddof=1)
    p_X = gap_p(np.array([1.0, -1.0, 0.3]), draw_RX)
    assert p_X[:2] == pytest.approx(2 * t.sf([1 / sd_X[0], 1 / sd_X[1]], 399))
    assert p_X[2] == pytest.approx(2 / 401)
    assert gap_p(np.zeros(1), np.zeros((9, 1))) == [1.0]
    assert np.isnan(gap_p(np.array([np.nan, 0.1]), np.full((9, 2), np.nan))).all()


def test_the_values_are_plain_json_without_ids():
    prob_NC, label_NC, patient_N, group_N = cohort()
    ids = [f"patient-{number}" for number in patient_N]
    attributes = {"g": Attribute.of(list(group_N))}
    draws = PatientDraws.of(ids, resamples=10)
    values = plain(measure_subgroups(prob_NC, label_NC, draws, attributes, label_names=["A", "B"]).to_dict())
    text = json.dumps(values, allow_nan=False)
    assert "patient-" not in text
    assert values["attributes"]["g"]["groups"]["a"]["measures"]["ap"]["p"]["macro"] is None
    assert set(values["attributes"]["g"]["groups"]["a"]["measures"]["auc"]["gap"]["findings"]) == {"A", "B"}


def test_bad_input_is_refused_in_one_line():
    prob_NC, label_NC, patient_N, group_N = cohort()
    with pytest.raises(ValueError, match="g has 10 values for 240 images"):
        measure(prob_NC, label_NC, patient_N, {"g": group_N[:10]})
    with pytest.raises(ValueError, match="2 probabilities, NaN for none"):
        measure(prob_NC, label_NC, patient_N, {"g": group_N}, threshold_C=[0.5])
    with pytest.raises(ValueError, match="look like logits"):
        measure(prob_NC * 9, label_NC, patient_N, {"g": group_N})
    with pytest.raises(ValueError, match="confidence"):
        measure(prob_NC, label_NC, patient_N, {"g": group_N}, confidence=2)
    with pytest.raises(ValueError, match="1 label names and 240"):
        measure(prob_NC, label_NC, patient_N, {"g": group_N}, label_names=["A"])
