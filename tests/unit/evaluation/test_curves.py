"""Curves are scikit-learn's, in every draw of patients too; ties, unknown cells and single labels are handled."""

import json

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, precision_recall_curve, roc_auc_score, roc_curve

from hf_cxr.evaluation import PatientDraws
from hf_cxr.evaluation.curves import measure_curves

NAMES = ("Mass", "Hernia", "Edema")
GRID = np.linspace(0, 1, 101)


@pytest.fixture(scope="module")
def sample():
    rng = np.random.default_rng(3)
    label_NC = (rng.random((150, 3)) < (0.3, 0.0, 0.15)).astype(float)
    label_NC[::6, 2] = np.nan
    score_NC = np.nan_to_num(label_NC) + rng.normal(size=label_NC.shape)
    score_NC[:, 2] = score_NC[:, 2].round(1)  # ties
    return score_NC, label_NC, np.arange(150) // 3


@pytest.fixture(scope="module")
def curves(sample):
    score_NC, label_NC, patients = sample
    draws = PatientDraws.of(patients, resamples=12, seed=1)
    return measure_curves(score_NC, label_NC, draws, label_names=NAMES, confidence=0.9)


def reference(score_N, label_N):
    """Both curves on the grid, and their areas, by scikit-learn and a slow loop."""
    known_N = ~np.isnan(label_N)
    score_N, label_N = score_N[known_N], label_N[known_N]
    false_V, true_V, _ = roc_curve(label_N, score_N, drop_intermediate=False)
    roc_K = []
    for rate in GRID:
        at = np.isclose(false_V, rate, rtol=0, atol=1e-9)
        roc_K.append(true_V[at].max() if at.any() else np.interp(rate, false_V, true_V))
    precision_V, recall_V, _ = precision_recall_curve(label_N, score_N)
    # The points come with recall falling: the last one that reaches a recall has the highest threshold. The very last
    # is scikit-learn's own (precision 1 at recall 0) and belongs to no threshold.
    least = recall_V[recall_V > 0].min()
    reached = [np.flatnonzero(recall_V[:-1] >= max(recall, least) - 1e-9)[-1] for recall in GRID]
    return {
        "roc": (np.array(roc_K), roc_auc_score(label_N, score_N)),
        "precision_recall": (precision_V[reached], average_precision_score(label_N, score_N)),
    }


def test_full_sample_is_that_of_scikit_learn(sample, curves):
    score_NC, label_NC, _ = sample
    for column in (0, 2):
        for kind, (value_K, area) in reference(score_NC[:, column], label_NC[:, column]).items():
            band = getattr(curves, kind)
            np.testing.assert_allclose(band.curve_CK.value_X[column], value_K, atol=1e-12, err_msg=kind)
            assert band.area_C.value_X[column] == pytest.approx(area, abs=1e-12)


def test_bands_are_percentiles_over_drawn_patients(sample, curves):
    score_NC, label_NC, patients = sample
    draws = PatientDraws.of(patients, resamples=12, seed=1)
    weights = np.concatenate([draws.per_image(weight_RM) for _, weight_RM in draws.blocks()])
    found = {kind: [] for kind in ("roc", "precision_recall")}
    for weight_N in weights:
        rows = np.repeat(np.arange(150), weight_N)  # a patient who is drawn twice is there twice
        by_column = [reference(score_NC[rows, column], label_NC[rows, column]) for column in (0, 2)]
        for kind, values in found.items():
            values.append([[*one[kind][0], one[kind][1]] for one in by_column])
    for kind, values in found.items():
        band, value_RCX = getattr(curves, kind), np.array(values)
        shown = np.concatenate([value_RCX, value_RCX.mean(axis=1, keepdims=True)], axis=1)  # and the mean of findings
        for end, quantile in (("low_X", 0.05), ("high_X", 0.95)):
            expected = np.quantile(shown, quantile, axis=0)
            np.testing.assert_allclose(
                getattr(band.curve_CK, end)[[0, 2, 3]], expected[:, :-1], atol=1e-12, err_msg=kind
            )
            np.testing.assert_allclose(getattr(band.area_C, end)[[0, 2, 3]], expected[:, -1], atol=1e-12)
        assert band.draws_C.tolist() == [12, 0, 12, 12]


def test_the_mean_is_over_the_findings_that_are_defined(curves):
    for band in (curves.roc, curves.precision_recall):
        assert np.isnan(band.curve_CK.value_X[1]).all()
        assert np.isnan(band.area_C.at(1).interval).all()
        np.testing.assert_allclose(band.curve_CK.value_X[3], band.curve_CK.value_X[[0, 2]].mean(axis=0))
        assert band.area_C.value_X[3] == pytest.approx(band.area_C.value_X[[0, 2]].mean())
    values = json.loads(json.dumps(curves.to_dict(), allow_nan=False))
    assert values["roc"]["findings"]["Hernia"]["area"] == dict.fromkeys(("value", "low", "high"))
    assert values["roc"]["mean"]["area"]["value"] == pytest.approx(curves.roc.area_C.value_X[3], abs=1e-5)
    assert values["findings"]["Hernia"]["positives"] == 0
    assert (values["images"], values["patients"], len(values["grid"])) == (150, 50, 101)


def test_a_perfect_a_useless_and_a_reversed_ranking():
    label_NC = np.tile([[1.0], [0.0], [0.0], [0.0]], (10, 3))
    score_NC = np.column_stack([label_NC[:, 0], np.zeros(40), -label_NC[:, 0]])
    draws = PatientDraws.of(np.arange(40), resamples=5)
    curves = measure_curves(score_NC, label_NC, draws, label_names=NAMES)
    perfect, useless, backwards = curves.roc.curve_CK.value_X[:3]
    assert perfect.tolist() == [1.0] * 101
    np.testing.assert_allclose(useless, GRID)  # one group of ties: the diagonal
    assert backwards.tolist() == [0.0] * 100 + [1.0]
    perfect, useless, backwards = curves.precision_recall.curve_CK.value_X[:3]
    assert set(perfect) == {1.0}
    assert set(useless) == set(backwards) == {0.25}  # the prevalence, at any recall
    nothing = measure_curves(score_NC, np.zeros((40, 3)), draws, label_names=NAMES)
    assert np.isnan(nothing.roc.curve_CK.value_X).all()


def test_what_does_not_fit_is_refused(sample):
    score_NC, label_NC, patients = sample
    draws = PatientDraws.of(patients, resamples=5)
    with pytest.raises(ValueError, match="150 images of the draws and 2 findings"):
        measure_curves(score_NC, label_NC, draws, label_names=NAMES[:2])
    with pytest.raises(ValueError, match="every score must be finite"):
        measure_curves(score_NC * np.nan, label_NC, draws, label_names=NAMES)
    with pytest.raises(ValueError, match="confidence"):
        measure_curves(score_NC, label_NC, draws, label_names=NAMES, confidence=95)
