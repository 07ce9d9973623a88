"""Two systems on the same images: laws of a paired difference, and Holm's correction by its definition."""

import json

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score

from hf_cxr.evaluation.draws import Intervals
from hf_cxr.evaluation.paired import measure_paired
from hf_cxr.files import plain

INTERVALS = Intervals(resamples=400, seed=3)
NAMES = ("Mass", "Nodule", "Edema", "Hernia")


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(1)
    label_NC = (rng.random((300, 4)) < 0.3).astype(float)
    label_NC[:, 3] = 0  # absent everywhere: undefined
    label_NC[rng.random((300, 4)) < 0.1] = np.nan
    signal_NC = np.nan_to_num(label_NC)
    good_NC = 1 / (1 + np.exp(-(2 * signal_NC + rng.normal(size=(300, 4)))))
    poor_NC = good_NC.copy()
    poor_NC[:, 0] = rng.random(300)  # worse on Mass alone
    return good_NC, poor_NC, label_NC, [f"p{row % 90}" for row in range(300)]


@pytest.fixture(scope="module")
def paired(data):
    return measure_paired(*data, label_names=NAMES, names=("good", "poor"), intervals=INTERVALS)


def test_values_are_those_of_scikit_learn_and_their_difference(data, paired):
    good_NC, poor_NC, label_NC, _ = data
    for key, reference in (("auc", roc_auc_score), ("ap", average_precision_score)):
        for values_C, score_NC in zip(paired.value_C[key], (good_NC, poor_NC), strict=True):
            known = [~np.isnan(label_NC[:, c]) for c in range(3)]
            expected = [reference(label_NC[rows, c], score_NC[rows, c]) for c, rows in enumerate(known)]
            np.testing.assert_allclose(values_C[:3], expected, rtol=0, atol=1e-12)
            assert np.isnan(values_C[3])
        first_C, second_C = paired.value_C[key]
        np.testing.assert_array_equal(paired.difference.measured[key].value_C, first_C - second_C)


def test_the_finding_that_differs_is_found_and_the_equal_ones_are_not(paired):
    for key in ("auc", "ap"):
        corrected_C, measured = paired.corrected_C[key], paired.difference.measured[key]
        assert corrected_C[0] < 0.05 < measured.value_C[0]
        assert measured.low_C[0] > 0
        assert corrected_C[1] == corrected_C[2] == 1
        assert np.isnan(corrected_C[3])  # undefined, and it does not count as a comparison
        assert corrected_C[0] == pytest.approx(3 * paired.difference.p_C[key][0])


def test_the_other_way_round_it_has_the_other_sign(data, paired):
    good_NC, poor_NC, label_NC, patients = data
    swapped = measure_paired(poor_NC, good_NC, label_NC, patients, label_names=NAMES, intervals=INTERVALS)
    for key, measured in paired.difference.measured.items():
        other = swapped.difference.measured[key]
        np.testing.assert_array_equal(measured.value_C, -other.value_C)
        np.testing.assert_allclose(measured.low_C, -other.high_C, atol=1e-12)
        np.testing.assert_array_equal(paired.corrected_C[key], swapped.corrected_C[key])


def test_the_order_of_the_rows_does_not_matter(data, paired):
    order = np.random.default_rng(0).permutation(300)
    shuffled = [one[order] for one in data[:3]]
    again = measure_paired(
        *shuffled,
        [data[3][row] for row in order],
        label_names=NAMES,
        names=("good", "poor"),
        intervals=INTERVALS,
    )
    assert json.dumps(plain(again.to_dict())) == json.dumps(plain(paired.to_dict()))


def test_holm_is_applied_over_the_findings():
    """Against the definition: the k-th smallest of M is multiplied by M - k + 1, and the order is kept."""
    rng = np.random.default_rng(5)
    label_NC = (rng.random((200, 5)) < 0.4).astype(float)
    strength_C = np.array([0.0, 0.3, 0.5, 0.7, 0.9])
    one_NC = 1 / (1 + np.exp(-(label_NC * strength_C + rng.normal(size=(200, 5)))))
    two_NC = 1 / (1 + np.exp(-rng.normal(size=(200, 5))))
    found = measure_paired(one_NC, two_NC, label_NC, range(200), label_names=[*"abcde"], intervals=Intervals(200))
    p_C = found.difference.p_C["auc"]
    assert len(set(p_C)) > 2
    expected_C, highest = np.empty(5), 0.0
    for rank, column in enumerate(np.argsort(p_C, kind="stable")):
        highest = max(highest, min(1.0, (5 - rank) * p_C[column]))
        expected_C[column] = highest
    np.testing.assert_allclose(found.corrected_C["auc"], expected_C)


def test_bad_input_is_refused(data):
    good_NC, poor_NC, label_NC, patients = data
    with pytest.raises(ValueError, match="compared with itself"):
        measure_paired(*data, label_names=NAMES, names=("a", "a"))
    with pytest.raises(ValueError, match="outside"):
        measure_paired(good_NC, poor_NC + 1, label_NC, patients, label_names=NAMES)
    with pytest.raises(ValueError, match="two patients"):
        measure_paired(good_NC, poor_NC, label_NC, ["p"] * 300, label_names=NAMES)
