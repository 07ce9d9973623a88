"""Shares of reported images: their values, their intervals by clusters, and the same draws for the same images."""

import numpy as np
import pytest

from hf_cxr.evaluation.draws import Intervals
from hf_cxr.evaluation.input_check import OddKindReported, measure_input_check, shares_of_images

SETTINGS = {"intervals": Intervals(resamples=400)}
RNG = np.random.default_rng(0)


def test_shares_are_means_and_their_intervals_draw_clusters():
    flag_N = np.arange(100) < 20
    [alone], [grouped] = (
        shares_of_images(flag_N[:, None], cluster_N, **SETTINGS) for cluster_N in (range(100), np.arange(100) // 10)
    )
    assert alone.estimate.value == grouped.estimate.value == 0.2
    assert (alone.clusters, grouped.clusters) == (100, 10)
    assert alone.estimate.low == pytest.approx(0.127, abs=0.03)  # Clopper and Pearson's, of 20 in 100
    assert grouped.estimate.low < alone.estimate.low < 0.2 < alone.estimate.high < grouped.estimate.high


def test_images_of_two_clusters_are_two_and_not_a_hundred():
    flag_N1 = np.ones((100, 1))
    [two], [hundred] = (shares_of_images(flag_N1, c, **SETTINGS) for c in (np.arange(100) % 2, range(100)))
    assert two.estimate.low == pytest.approx(0.025**0.5)
    assert hundred.estimate.low == pytest.approx(0.025**0.01)


def test_a_kind_is_the_same_alone_and_with_others():
    reported_N, patients = RNG.random(60) < 0.1, [f"p{i // 3}" for i in range(60)]
    kinds = {
        "inverted": OddKindReported("inverted", RNG.random(60) < 0.7, patients, RNG.random(60) < 0.5),
        "noise": OddKindReported("noise", np.ones(8, bool), list(range(8))),
    }
    whole = measure_input_check(reported_N, patients, kinds, **SETTINGS).to_dict()
    assert whole["false_alarms"]["value"] == pytest.approx(reported_N.mean())
    for key, kind in kinds.items():
        alone = measure_input_check(reported_N, patients, {key: kind}, **SETTINGS).to_dict()
        assert alone["kinds"][key] == whole["kinds"][key]
    assert whole["kinds"]["noise"]["named"] is None
    assert whole["kinds"]["inverted"]["named"]["value"] == pytest.approx(kinds["inverted"].named_N.mean())
    assert whole["kinds"]["inverted"]["clusters"] == 20


def test_lengths_that_differ_and_one_cluster_are_refused():
    with pytest.raises(ValueError, match="clusters"):
        shares_of_images(np.ones((3, 1)), range(4), **SETTINGS)
    with pytest.raises(ValueError, match="two patients"):
        shares_of_images(np.ones((3, 1)), ["a"] * 3, **SETTINGS)
