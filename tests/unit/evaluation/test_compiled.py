"""The compiled sums against NumPy's, for every metric of the table; and which of the two is used."""

import logging
import sys
from dataclasses import replace

import numpy as np
import pytest

from hf_cxr.evaluation import METRICS, bootstrap_metrics, compiled, engine, evaluate_predictions
from hf_cxr.evaluation.cells import WeightedCells, rank
from hf_cxr.evaluation.draws import PatientDraws, draw_blocks
from hf_cxr.evaluation.kernels import ece
from hf_cxr.evaluation.metric import Metric
from hf_cxr.evaluation.metrics import expected_calibration_error

KINDS = (
    "none",
    "ties",
    "two values",
    "one value",
    "at the threshold",
    "certain",
    "positives",
    "negatives",
    "one cell",
)


def close(key):
    """2e-15 of the value; of a difference from 1, 2e-15 of that 1."""
    return {"rtol": 2e-15, "atol": 4e-15 if key == "brier_skill" else 2e-16}


def draw(kind, seed=0, n=160):
    rng = np.random.default_rng(seed)
    label_N = (rng.random(n) < 0.25).astype(float)
    prob_N = 1 / (1 + np.exp(-rng.normal(size=n) - label_N + 0.5))
    if kind == "ties":
        prob_N = prob_N.round(1)
    elif kind == "two values":
        prob_N = np.where(prob_N > 0.5, 0.75, 0.25)
    elif kind == "one value":
        prob_N = np.full(n, 0.4)
    elif kind == "at the threshold":
        prob_N = np.where(rng.random(n) < 0.5, 0.4, prob_N)
    elif kind == "certain":
        prob_N = np.where(rng.random(n) < 0.3, prob_N.round(), prob_N)
    elif kind in ("positives", "negatives"):
        label_N[:] = kind == "positives"
    label_N[np.arange(n) % 7 == 0] = np.nan
    if kind == "one cell":
        label_N[1:] = np.nan
        label_N[0] = 1
    return prob_N, label_N


def weights(rows, columns, most=4, seed=1):
    """With a set that is all 0, and one in which a single column has weight."""
    weight_RN = np.random.default_rng(seed).integers(0, most, size=(rows, columns))
    weight_RN[0] = 0
    weight_RN[-1] = np.arange(columns) == columns // 2
    return weight_RN


def both(ranking, weight_RN, threshold=0.4):
    make = engine.Engine(True, 1).cells(weight_RN)
    ours = make(ranking, threshold)
    assert type(ours) is compiled.CompiledCells
    return ours, WeightedCells(ranking, weight_RN, threshold)


@pytest.mark.parametrize("kind", KINDS)
def test_every_metric_is_numpys(kind):
    for seed, rows in enumerate((2, 64, 70)):
        ranking = rank(*draw(kind, seed))
        for key, metric in METRICS.items():
            ours, plain = (metric.kernel(cells) for cells in both(ranking, weights(rows, 160)))
            np.testing.assert_allclose(ours, plain, **close(key), err_msg=f"{key}, {rows} sets of weights")


@pytest.mark.parametrize("kind", ["none", "ties", "certain"])
def test_counts_and_sums_to_edges_are_numpys_to_the_bit(kind):
    ranking = rank(*draw(kind, 3))
    ours, plain = both(ranking, weights(130, 160))
    for name in ("twice_pairs_R", "positives_R", "cells_R", "negatives_R"):
        np.testing.assert_array_equal(getattr(ours, name), getattr(plain, name), err_msg=name)
    np.testing.assert_array_equal(ours.confusion, plain.confusion)
    for bins in (1, 4, 15, 400):
        edges = (cells.sums_to_edges(ranking.score_K - ranking.positive_K, bins) for cells in (ours, plain))
        np.testing.assert_array_equal(*edges, err_msg=f"{bins} bins")


@pytest.mark.parametrize("kind", KINDS)
def test_curves_are_numpys_to_the_bit(kind):
    ranking = rank(*draw(kind, 4))
    ours, plain = both(ranking, weights(70, 160))
    for steps in (1, 7, 100):
        for name in ("sensitivities", "precisions"):
            curves = (getattr(cells, name)(steps) for cells in (ours, plain))
            np.testing.assert_array_equal(*curves, err_msg=f"{name}, {steps} steps")


def test_cells_of_one_patient_and_a_full_sample():
    ranking = rank(*draw("ties"))
    one = replace(ranking, order_K=np.zeros_like(ranking.order_K))
    everyone = np.ones((1, 160), dtype=np.int64)
    for ranked, weight_RN in ((one, np.array([[0], [1], [3], [63]])), (ranking, everyone)):
        for key, metric in METRICS.items():
            ours, plain = (metric.kernel(cells) for cells in both(ranked, weight_RN))
            np.testing.assert_allclose(ours, plain, **close(key), err_msg=key)


def test_numpy_measures_weights_that_the_compiled_sums_do_not_hold(monkeypatch):
    ranking, weight_RN = rank(*draw("ties")), weights(3, 160)
    for too_much in (weight_RN * 100, np.full((2, 160), 2**24)):
        assert type(engine.Engine(True, 1).cells(too_much)(ranking)) is WeightedCells
    monkeypatch.setattr(engine, "MOST_CELLS", 3 * len(ranking.order_K) - 1)
    assert type(engine.Engine(True, 1).cells(weight_RN)(ranking)) is WeightedCells
    assert type(engine.Engine(True, 1).cells(np.minimum(weight_RN, 2))(ranking)) is compiled.CompiledCells


def predictions(n=300):
    columns = [draw(kind, number, n) for number, kind in enumerate(("none", "ties", "certain"))]
    prob_NC, label_NC = (np.stack(part, axis=1) for part in zip(*columns, strict=True))
    return prob_NC, label_NC, [f"p{row // 2}" for row in range(n)]


def report():
    options = {"resamples": 150, "thresholds": [0.4, np.nan, 0.5], "interval": "bca"}
    return evaluate_predictions(*predictions(), **options).to_dict()


def flat(values, path=""):
    if isinstance(values, dict):
        return {k: v for key, one in values.items() for k, v in flat(one, f"{path}/{key}").items()}
    return {path: values}


def test_a_report_is_numpys_and_its_bits_do_not_depend_on_threads(monkeypatch):
    plain = flat(report())
    monkeypatch.setattr(engine, "COMPILED_FROM", 1)
    assert engine.Engine.choose(10, 10).compiled
    once = None
    for threads in ("1", "2", "5"):
        monkeypatch.setenv("NUMBA_NUM_THREADS", threads)
        assert engine.Engine.choose(10, 10).threads == int(threads)
        ours = flat(report())
        once = once or ours
        np.testing.assert_equal(ours, once)
    assert plain.keys() == once.keys()
    different = 0
    for key, value in plain.items():
        if isinstance(value, float):
            np.testing.assert_allclose(once[key], value, rtol=1e-13, atol=1e-14, err_msg=key)
            different += once[key] != value
        else:
            assert once[key] == value, key
    assert different, "both reports came from NumPy"


def test_a_metric_without_compiled_sums_uses_numpys(monkeypatch):
    def precision_at_half_recall(cells):
        group_R = (2 * cells.true_RG >= cells.positives_R[:, None]).argmax(axis=1)
        rows = np.arange(len(group_R))
        return cells.true_RG[rows, group_R] / np.maximum(cells.called_RG[rows, group_R], 1)

    monkeypatch.setitem(METRICS, "new", Metric("new", "new", "mean new", precision_at_half_recall, headline=True))
    prob_NC, label_NC, patients = predictions()
    results = []
    for least in (1, 2**40):
        monkeypatch.setattr(engine, "COMPILED_FROM", least)
        options = {"resamples": 40, "rng": np.random.default_rng(0)}
        results.append(bootstrap_metrics(prob_NC, label_NC, patients, **options).samples["new"].draw_RC)
    np.testing.assert_array_equal(*results)
    assert (results[0] > 0).all()


@pytest.fixture
def forgetful():
    engine.numba_works.cache_clear()
    yield
    engine.numba_works.cache_clear()


@pytest.mark.usefixtures("forgetful")
def test_without_numba_numpy_measures_and_the_log_says_so_once(monkeypatch, caplog):
    monkeypatch.setattr(engine, "COMPILED_FROM", 1)
    with_numba = flat(report())
    engine.numba_works.cache_clear()
    monkeypatch.setitem(sys.modules, "numba", None)
    with caplog.at_level(logging.WARNING):
        assert not engine.Engine.choose(10, 10).compiled
        without = flat(report())
    assert len([record for record in caplog.records if "numba" in record.message]) == 1
    monkeypatch.setattr(engine, "COMPILED_FROM", 2**40)
    np.testing.assert_equal(without, flat(report()))
    assert with_numba.keys() == without.keys()


def test_small_problems_do_not_start_numba():
    assert not engine.Engine.choose(400 * 14, 1000).compiled
    assert engine.Engine.choose(25_596 * 14, 1000).compiled


def test_the_threads_are_those_of_the_environment(monkeypatch):
    for numba_threads, omp_threads, expected in (("3", "2", 3), ("", "2", 2), ("", "4,2", 4)):
        monkeypatch.setenv("NUMBA_NUM_THREADS", numba_threads)
        monkeypatch.setenv("OMP_NUM_THREADS", omp_threads)
        assert engine.thread_count() == expected
    monkeypatch.setenv("OMP_NUM_THREADS", "many")
    with pytest.raises(ValueError, match="OMP_NUM_THREADS"):
        engine.thread_count()
    monkeypatch.delenv("OMP_NUM_THREADS")
    assert engine.thread_count() >= 1


def test_an_error_in_a_thread_is_raised():
    def work(number):
        if number == 7:
            raise KeyError("seven")

    with pytest.raises(KeyError, match="seven"):
        engine.Engine(True, 2).each(work, ((number,) for number in range(20)))


def test_counts_of_bins_are_sums_of_one_column_for_each(monkeypatch):
    rng = np.random.default_rng(0)
    draws = PatientDraws.of([f"p{number}" for number in rng.integers(30, size=200)], resamples=70)
    bin_NC = rng.integers(-1, 5, size=(200, 3))
    (expected_RX,) = draws.sums(draws.per_patient(bin_NC[:, :, None] == np.arange(5)))
    for least in (1, 2**40):
        monkeypatch.setattr(engine, "COMPILED_FROM", least)
        np.testing.assert_array_equal(draws.counts(bin_NC, 5), expected_RX)


def test_the_draws_do_not_depend_on_the_size_of_the_blocks():
    def drawn(at_once):
        blocks = draw_blocks(np.arange(50), 50, 130, np.random.default_rng(4), at_once=at_once)
        return np.concatenate([weight_RM for _, weight_RM in blocks])

    for at_once in (1, 64, 128, 1000):
        np.testing.assert_array_equal(drawn(at_once), drawn(None))


def test_a_calibration_error_of_any_number_of_bins_on_the_full_sample():
    prob_N, label_N = draw("ties")
    for bins in (1, 15, 400):
        ours, plain = both(rank(prob_N, label_N), np.ones((1, 160), dtype=np.int64))
        expected = expected_calibration_error(prob_N[:, None], label_N[:, None], bins=bins)
        np.testing.assert_array_equal(ece(ours, bins), expected)
        np.testing.assert_array_equal(ece(plain, bins), expected)
