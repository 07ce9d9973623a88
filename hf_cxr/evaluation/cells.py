"""What a kernel of a metric gets: the known cells of one finding, sorted once, under R sets of row weights.

A weight of k is the same as k copies of a row, and 0 the same as its absence. The full sample is one set of weights,
all 1; a bootstrap draw is the number of times each patient was drawn. `rank` sorts a finding once, and every kernel
measures it under all weights at once, so a kernel must not sort again. What two kernels need is a cached property of
`WeightedCells`, computed once for both.

N = images, K = known cells of one finding in descending order of score, G = groups of equal scores that hold a
positive, E = groups of equal scores, R = sets of weights.
"""

from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from hf_cxr.evaluation.checks import Array

Integers = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Ranking:
    """The known cells of one finding in descending order of score.

    Attributes:
        order_K: the column of the weights that belongs to each cell: its image's row, or its image's patient.
        score_K: the scores.
        positive_K: the labels, 1 or 0, float64.
        end_E: the last place in the order of each group of equal scores.
        stretch_K: which stretch of the order a cell belongs to. The G groups of equal scores that hold a positive cut
            the order: 3 g is what lies between the group before and group g, 3 g + 1 its negatives, 3 g + 2 its
            positives, and 3 G what lies below the last.
        stretches: 3 G + 1.
    """

    order_K: Integers
    score_K: Array
    positive_K: Array
    end_E: Integers
    stretch_K: Integers
    stretches: int
    _matrices: dict[int, csr_array] = field(default_factory=dict, init=False, repr=False)  # a copy starts without

    def stretch_matrix(self, columns: int) -> csr_array:
        """How many cells of each stretch belong to each column of the weights, (3 G + 1, columns); made once."""
        if columns not in self._matrices:
            ones_and_places = (np.ones(len(self.order_K)), (self.stretch_K, self.order_K))
            self._matrices[columns] = csr_array(ones_and_places, shape=(self.stretches, columns))
        return self._matrices[columns]


def rank(score_N: Array, label_N: Array) -> Ranking:
    """Sort the known cells of one finding; the arguments are taken as checked."""
    known = np.flatnonzero(~np.isnan(label_N))
    order_K = known[np.argsort(-score_N[known], kind="stable")]
    score_K = score_N[order_K]
    positive_K = (label_N[order_K] == 1).astype(np.float64)
    new_group_K = np.append(True, score_K[1:] != score_K[:-1])[: len(order_K)]
    group_K = np.cumsum(new_group_K) - 1
    end_E = np.append(np.flatnonzero(new_group_K)[1:], len(order_K))[: new_group_K.sum()] - 1
    with_positive_E = np.bincount(group_K, weights=positive_K, minlength=len(end_E)) > 0
    before_E = np.cumsum(with_positive_E) - with_positive_E  # groups with a positive above each group
    stretch_K = 3 * before_E[group_K] + np.where(with_positive_E[group_K], 1 + positive_K, 0).astype(np.int64)
    return Ranking(order_K, score_K, positive_K, end_E, stretch_K, 3 * int(with_positive_E.sum()) + 1)


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
        """The weighted sum of a value of each cell, (R,) float64.

        One product with the sums of each column of the weights: of patients, many times fewer than cells.
        """
        columns = self.weights.shape[1]
        return self._float_weights @ np.bincount(self.ranking.order_K, weights=value_K, minlength=columns)

    @cached_property
    def _float_weights(self) -> Array:
        return self.weights.astype(np.float64)

    @cached_property
    def weight_RK(self) -> Integers:
        """The weight of each cell."""
        return np.take(self.weights, self.ranking.order_K, axis=1)

    @cached_property
    def above_RK(self) -> Integers:
        """Weight of the cells up to and including each place in the order."""
        return np.cumsum(self.weight_RK, axis=1)

    @cached_property
    def _stretch_R3G(self) -> Integers:
        """For each group: negatives between the group before and this one, negatives in it, positives in it.

        A sparse product: each draw reads the weight of a cell once, and for all draws at a time.
        """
        of_stretch_SR = self.ranking.stretch_matrix(self.weights.shape[1]) @ np.ascontiguousarray(
            self._float_weights.T
        )
        # Rows must be contiguous: the order of summation, and so the last bit of the average precision, then does not
        # depend on R.
        return np.ascontiguousarray(of_stretch_SR.T.astype(np.int64))[:, :-1].reshape(len(self.weights), -1, 3)

    @cached_property
    def hits_RG(self) -> Integers:
        """Positives in each group."""
        return np.ascontiguousarray(self._stretch_R3G[..., 2])

    @cached_property
    def true_RG(self) -> Integers:
        """True positives if all cells down to the end of each group are called positive."""
        return np.cumsum(self.hits_RG, axis=1)

    @cached_property
    def false_after_RG(self) -> Integers:
        """Negatives above each group and in it."""
        return np.cumsum(self._stretch_R3G[..., 0] + self._stretch_R3G[..., 1], axis=1)

    @cached_property
    def false_before_RG(self) -> Integers:
        """Negatives above each group."""
        return self.false_after_RG - self._stretch_R3G[..., 1]

    @cached_property
    def called_RG(self) -> Integers:
        """Cells called positive down to the end of each group."""
        return self.true_RG + self.false_after_RG

    @cached_property
    def positives_R(self) -> Integers:
        """Weight of the positives."""
        return self.total(self.ranking.positive_K).astype(np.int64)

    @cached_property
    def cells_R(self) -> Integers:
        """Weight of all cells."""
        return self.total(np.ones(len(self.ranking.order_K))).astype(np.int64)

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
        called_K = self.ranking.score_K >= self.threshold
        true_R = self.total(called_K * self.ranking.positive_K)
        false_R = self.total(called_K * (1 - self.ranking.positive_K))
        return true_R, false_R, self.negatives_R - false_R, self.positives_R - true_R
