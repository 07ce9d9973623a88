"""What a kernel of a metric gets: the known cells of one finding, sorted once, under R sets of row weights.

A weight of k is the same as k copies of a row, and 0 the same as its absence. The full sample is one set of weights,
all 1; a bootstrap draw is the number of times each patient was drawn. `rank` sorts a finding once, and every kernel
measures it under all weights at once, so a kernel must not sort again. What two kernels need is a cached property of
`WeightedCells`, computed once for both.

N = images, K = known cells of one finding in descending order of score, P = its positives, G = groups of equal scores
that hold a positive, E = groups of equal scores, R = sets of weights.
"""

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
        score_K: the scores.
        positive_P: the places in that order that hold a positive, ascending.
        last_G: for each group of equal scores that holds a positive, the place in positive_P of its last one.
        start_G: the group's first place in the order.
        end_G: the group's last place in the order.
        end_E: the last place in the order of each group of equal scores.
    """

    order_K: Integers
    score_K: Array
    positive_P: Integers
    last_G: Integers
    start_G: Integers
    end_G: Integers
    end_E: Integers

    @cached_property
    def positive_K(self) -> Array:
        """The labels: 1 or 0, float64."""
        label_K = np.zeros(len(self.order_K))
        label_K[self.positive_P] = 1
        return label_K


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
    with_positive = group_P[last_G]
    return Ranking(order_K, score_K, positive_P, last_G, start[with_positive], end[with_positive], end)


@dataclass(frozen=True, eq=False)
class WeightedCells:
    """The known cells of one finding under R sets of weights: what a kernel gets.

    Attributes:
        ranking: from `rank`; its ``order_K`` indexes the columns of ``weights``.
        weights: (R, N) or (R, patients), non-negative integers.
        threshold: a cell is called positive if its score is at least this; NaN if there is no operating point.
        counts: what `confusion` gives, where it does not come from one threshold.
    """

    ranking: Ranking
    weights: Integers
    threshold: float = float("nan")
    counts: tuple[Array, Array, Array, Array] | None = None

    def total(self, value_K: Array) -> Array:
        """The weighted sum of a value of each cell, (R,)."""
        by_column = np.bincount(self.ranking.order_K, weights=value_K, minlength=self.weights.shape[1])
        return self.weights @ by_column

    @cached_property
    def weight_RK(self) -> Integers:
        """The weight of each cell."""
        return np.take(self.weights, self.ranking.order_K, axis=1)

    @cached_property
    def above_RK(self) -> Integers:
        """Weight of the cells up to and including each place in the order."""
        return np.cumsum(self.weight_RK, axis=1)

    @cached_property
    def gained_RP(self) -> Integers:
        """Weight of the positives up to and including each one."""
        # take() keeps each row contiguous, where [:, index] may not; the order of summation, and so the last bit of
        # the average precision, then does not depend on R.
        return np.cumsum(np.take(self.weight_RK, self.ranking.positive_P, axis=1), axis=1)

    @cached_property
    def true_RG(self) -> Integers:
        """True positives if all cells down to the end of each group are called positive."""
        return np.take(self.gained_RP, self.ranking.last_G, axis=1)

    @cached_property
    def hits_RG(self) -> Integers:
        """Positives in each group."""
        return np.diff(self.true_RG, axis=1, prepend=0)

    @cached_property
    def called_RG(self) -> Integers:
        """Cells called positive down to the end of each group."""
        return np.take(self.above_RK, self.ranking.end_G, axis=1)

    @cached_property
    def false_before_RG(self) -> Integers:
        """Negatives above each group."""
        start_G = self.ranking.start_G
        called_before_RG = np.take(self.above_RK, start_G, axis=1) - np.take(self.weight_RK, start_G, axis=1)
        return called_before_RG - (self.true_RG - self.hits_RG)

    @cached_property
    def false_after_RG(self) -> Integers:
        """Negatives above each group and in it."""
        return self.called_RG - self.true_RG

    @cached_property
    def positives_R(self) -> Integers:
        """Weight of the positives."""
        return self.true_RG[:, -1] if self.true_RG.shape[1] else np.zeros(len(self.weights), np.int64)

    @cached_property
    def cells_R(self) -> Integers:
        """Weight of all cells."""
        return self.above_RK[:, -1] if self.above_RK.shape[1] else self.positives_R

    @cached_property
    def negatives_R(self) -> Integers:
        """Weight of the negatives."""
        return self.cells_R - self.positives_R

    @cached_property
    def both_R(self) -> NDArray[np.bool_]:
        """Whether there are positives and negatives, without which no ranking metric is defined."""
        return (self.positives_R > 0) & (self.negatives_R > 0)

    @cached_property
    def confusion(self) -> tuple[Array, Array, Array, Array]:
        """True positives, false positives, true negatives and false negatives at the threshold, each (R,) float64.

        NaN if there is no threshold.
        """
        if self.counts is not None:
            return self.counts
        if np.isnan(self.threshold):
            return (np.full(len(self.weights), np.nan),) * 4
        called = np.searchsorted(-self.ranking.score_K, -self.threshold, side="right")
        hits = np.searchsorted(self.ranking.positive_P, called)
        called_R = self.above_RK[:, called - 1] if called else np.zeros(len(self.weights))
        true_R = self.gained_RP[:, hits - 1] if hits else np.zeros(len(self.weights))
        counts = (true_R, called_R - true_R, self.negatives_R - (called_R - true_R), self.positives_R - true_R)
        return tuple(np.asarray(count_R, dtype=np.float64) for count_R in counts)
