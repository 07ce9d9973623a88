"""Formulas of yes-or-no calls: scikit-learn's, weighted or not; undefined is NaN."""

import numpy as np
import pytest
from sklearn import metrics as reference

from hf_cxr.evaluation import decision
from hf_cxr.evaluation.decision import confusion_cells
from hf_cxr.evaluation.operating_points import FIGURES

SKLEARN = {
    "sensitivity": reference.recall_score,
    "specificity": lambda y, called, sample_weight: reference.recall_score(
        1 - y, 1 - called, sample_weight=sample_weight
    ),
    "ppv": reference.precision_score,
    "npv": lambda y, called, sample_weight: reference.precision_score(1 - y, 1 - called, sample_weight=sample_weight),
    "f1": reference.f1_score,
    "accuracy": reference.accuracy_score,
}


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("weighted", [False, True])
def test_they_are_scikit_learns(seed, weighted):
    rng = np.random.default_rng(seed)
    score_N = rng.integers(0, 6, size=200) / 5  # ties, some at the threshold
    label_N = np.where(rng.random(200) < 0.2, np.nan, rng.integers(0, 2, size=200))
    weight_N = rng.integers(0, 4, size=200) if weighted else np.ones(200)
    known_N = ~np.isnan(label_N)
    y, called, weight = label_N[known_N].astype(int), (score_N >= 0.4).astype(int)[known_N], weight_N[known_N]
    counts = (confusion_cells(score_N >= 0.4, label_N) * weight_N).sum(axis=1)
    matrix = reference.confusion_matrix(y, called, sample_weight=weight)
    np.testing.assert_array_equal(counts, [matrix[1, 1], matrix[0, 1], matrix[0, 0], matrix[1, 0]])
    for key, formula in decision.DECISIONS.items():
        expected = SKLEARN[key](y, called, sample_weight=weight)
        assert formula(*counts) == pytest.approx(expected, abs=1e-12), key
    assert decision.called_share(*counts) == pytest.approx(np.average(called, weights=weight), abs=1e-12)
    assert decision.calls_per_positive(*counts) == pytest.approx((called @ weight) / (y @ weight), abs=1e-12)


def test_a_ratio_without_a_denominator_is_undefined():
    nothing = {key: float(formula(0, 0, 0, 0)) for key, formula in FIGURES.items()}
    assert all(map(np.isnan, nothing.values()))
    no_positive = {key: float(formula(0, 2, 8, 0)) for key, formula in FIGURES.items()}
    assert [key for key, value in no_positive.items() if np.isnan(value)] == ["sensitivity", "calls_per_positive"]
    assert (no_positive["f1"], no_positive["ppv"], no_positive["npv"]) == (0, 0, 1)
    none_called = {key: float(formula(0, 0, 8, 2)) for key, formula in FIGURES.items()}
    assert [key for key, value in none_called.items() if np.isnan(value)] == ["ppv"]
    assert none_called["sensitivity"] == none_called["f1"] == 0


def test_any_shape_comes_back():
    counts = np.random.default_rng(0).integers(0, 5, size=(4, 3, 2))
    for formula in FIGURES.values():
        value_RC = formula(*counts)
        assert value_RC.shape == (3, 2)
        np.testing.assert_array_equal(value_RC[1, 1], formula(*counts[:, 1, 1]))
