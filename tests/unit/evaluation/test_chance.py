"""The AP of random scores: exact for every order of a small set, the prevalence in the limit, never below it."""

import itertools

import numpy as np
import pytest
from sklearn.metrics import average_precision_score

from hf_cxr.evaluation.chance import random_ap


@pytest.mark.parametrize(("positives", "negatives"), [(1, 1), (1, 6), (2, 4), (3, 3), (5, 1)])
def test_it_is_the_mean_over_all_orders(positives, negatives):
    images = positives + negatives
    descending_N = np.arange(images, 0, -1)
    orders = itertools.combinations(range(images), positives)
    every = [average_precision_score(np.isin(np.arange(images), order), descending_N) for order in orders]
    assert random_ap([positives], [negatives])[0] == pytest.approx(np.mean(every), abs=1e-12)


def test_it_nears_the_prevalence_with_many_positives_and_is_far_above_it_with_few():
    positives_C = np.array([1, 10, 100, 10_000])
    excess_C = random_ap(positives_C, 19 * positives_C) / 0.05
    assert (np.diff(excess_C) < 0).all()
    assert excess_C[0] > 3
    assert excess_C[-1] == pytest.approx(1, abs=0.002)


def test_a_finding_without_both_values_has_none():
    expected_C = random_ap([0, 5, 5], [5, 0, 5])
    np.testing.assert_array_equal(np.isnan(expected_C), [True, True, False])
