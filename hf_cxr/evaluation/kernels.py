"""Metric kernels: one finding in, its value under R sets of row weights out.

    kernel(cells: WeightedCells) -> (R,) float64, NaN where the weighted cells do not define the metric

A kernel sees the order of the scores and not their values, so logits and probabilities give the same; figures of the
probabilities themselves are in `report.RELIABILITY`. A weight of k is the same as k copies of a row, and 0 the same as
its absence. The full sample is one set of weights, all 1; a bootstrap draw is the number of times each patient was
drawn. `rank` sorts a finding once, and every kernel then measures it under all weights at once, so a kernel must not
sort again. What two kernels need is a cached property of `WeightedCells`, computed once for both.

N = images, C = findings, K = known cells of one finding in descending order of score, P = its positives, G = groups of
equal scores that hold a positive, R = sets of weights.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from hf_cxr.evaluation.checks import Array

Integers = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Ranking:
    """The known cells of one finding in descending order of score.

    Attributes:
        order_K: the column of the weights that belongs to each cell: its image's row, or its image's patient.
        positive_P: the places in that order that hold a positive, ascending.
        last_G: for each group of equal scores that holds a positive, the place in positive_P of its last one.
        start_G: the group's first place in the order.
        end_G: the group's last place in the order.
    """

    order_K: Integers
    positive_P: Integers
    last_G: Integers
    start_G: Integers
    end_G: Integers


def rank(score_N: Array, label_N: Array) -> Ranking:
    """Sort the known cells of one finding; the arguments are taken as checked."""
    known = np.flatnonzero(~np.isnan(label_N))
    order_K = known[np.argsort(-score_N[known], kind="stable")]
    score_K = score_N[order_K]
    new_group_K = np.append(True, score_K[1:] != score_K[:-1])[: len(order_K)]
    start = np.flatnonzero(new_group_K)
    end = np.append(start[1:] - 1, len(order_K) - 1)[: len(start)]
    positive_P = np.flatnonzero(label_N[order_K] == 1)
    group_P = (np.cumsum(new_group_K) - 1)[positive_P]
    last_G = np.flatnonzero(np.append(group_P[1:] != group_P[:-1], True)[: len(group_P)])
    return Ranking(order_K, positive_P, last_G, start[group_P[last_G]], end[group_P[last_G]])


@dataclass(frozen=True, eq=False)
class WeightedCells:
    """The known cells of one finding under R sets of weights: what a kernel gets.

    Attributes:
        ranking: from `rank`; its ``order_K`` indexes the columns of ``weights``.
        weights: (R, N) or (R, patients), non-negative integers.
    """

    ranking: Ranking
    weights: Integers

    @cached_property
    def weight_RK(self) -> Integers:
        """The weight of each cell."""
        return np.take(self.weights, self.ranking.order_K, axis=1)

    @cached_property
    def above_RK(self) -> Integers:
        """Weight of the cells up to and including each place in the order."""
        return np.cumsum(self.weight_RK, axis=1)

    @cached_property
    def true_RG(self) -> Integers:
        """True positives if all cells down to the end of each group are called positive."""
        # take() keeps each row contiguous, where [:, index] may not; the order of summation, and so the last bit of
        # the average precision, then does not depend on R.
        gained_RP = np.cumsum(np.take(self.weight_RK, self.ranking.positive_P, axis=1), axis=1)
        return np.take(gained_RP, self.ranking.last_G, axis=1)

    @cached_property
    def hits_RG(self) -> Integers:
        """Positives in each group."""
        return np.diff(self.true_RG, axis=1, prepend=0)

    @cached_property
    def called_RG(self) -> Integers:
        """Cells called positive down to the end of each group."""
        return np.take(self.above_RK, self.ranking.end_G, axis=1)

    @cached_property
    def positives_R(self) -> Integers:
        """Weight of the positives."""
        return self.true_RG[:, -1] if self.true_RG.shape[1] else np.zeros(len(self.weights), np.int64)

    @cached_property
    def negatives_R(self) -> Integers:
        """Weight of the negatives."""
        return (self.above_RK[:, -1] if self.above_RK.shape[1] else self.positives_R) - self.positives_R

    @cached_property
    def both_R(self) -> NDArray[np.bool_]:
        """Whether there are positives and negatives, without which no ranking metric is defined."""
        return (self.positives_R > 0) & (self.negatives_R > 0)


Kernel = Callable[[WeightedCells], Array]


def auc(cells: WeightedCells) -> Array:
    """Area under the ROC curve (Mann-Whitney form, ties count one half), (R,); NaN where a side has no weight."""
    true_RG, hits_RG, ranking = cells.true_RG, cells.hits_RG, cells.ranking
    # Twice the negatives below a group, its own counting half: integers, so the sum over groups is exact.
    false_after_RG = cells.called_RG - true_RG
    called_before_RG = np.take(cells.above_RK, ranking.start_G, axis=1)
    called_before_RG = called_before_RG - np.take(cells.weight_RK, ranking.start_G, axis=1)
    false_before_RG = called_before_RG - (true_RG - hits_RG)
    twice_pairs_R = (hits_RG * (2 * cells.negatives_R[:, None] - false_before_RG - false_after_RG)).sum(axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        auc_R = twice_pairs_R / (2 * cells.positives_R * cells.negatives_R)
    return np.where(cells.both_R, auc_R, np.nan)


def ap(cells: WeightedCells) -> Array:
    """Average precision, step-wise over thresholds, (R,); NaN where a side has no weight."""
    precision_RG = cells.true_RG / np.maximum(cells.called_RG, 1)
    with np.errstate(invalid="ignore", divide="ignore"):
        ap_R = (cells.hits_RG * precision_RG).sum(axis=1) / cells.positives_R
    return np.where(cells.both_R, ap_R, np.nan)


def on_full_sample(kernel: Kernel, score_NC: Array, label_NC: Array) -> Array:
    """A kernel's value of each finding with every row counted once, (C,); the arguments are taken as checked."""
    one_1N = np.ones((1, len(score_NC)), dtype=np.int64)
    value_C = [kernel(WeightedCells(rank(*pair), one_1N))[0] for pair in zip(score_NC.T, label_NC.T, strict=True)]
    return np.array(value_C, dtype=np.float64)
