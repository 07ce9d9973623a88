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

    @cached_property
    def by_stretch(self) -> tuple[NDArray[np.uint32], Integers]:
        """The columns of the weights in order of their stretch, and where each stretch begins, the end last."""
        place_K = np.argsort(self.stretch_K, kind="stable")
        start_S = np.searchsorted(self.stretch_K[place_K], np.arange(self.stretches + 1))
        return self.order_K[place_K].astype(np.uint32), start_S.astype(np.int64)

    @cached_property
    def columns_K(self) -> NDArray[np.uint32]:
        """``order_K`` as compiled functions want it."""
        return self.order_K.astype(np.uint32)

    def stretch_matrix(self, columns: int) -> csr_array:
        """How many cells of each stretch belong to each column of the weights, (3 G + 1, columns); made once."""
        if columns not in self._matrices:
            ones_and_places = (np.ones(len(self.order_K)), (self.stretch_K, self.order_K))
            self._matrices[columns] = csr_array(ones_and_places, shape=(self.stretches, columns))
        return self._matrices[columns]


def descending(score_N: Array) -> Integers:
    """The order of descending scores; equal scores keep the order of the rows."""
    return np.argsort(-score_N, kind="stable")


def rank(score_N: Array, label_N: Array, order_N: Integers | None = None) -> Ranking:
    """Sort the known cells of one finding; the arguments are taken as checked.

    Args:
        score_N, label_N: of the finding.
        order_N: from `descending`, where several sets of labels share their scores; sorted here if left out.
    """
    order_N = descending(score_N) if order_N is None else order_N
    order_K = order_N[~np.isnan(label_N[order_N])]
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

        The sums of each column of the weights first: of patients, many times fewer than cells. Then NumPy's pairwise
        sum, which loses less than a product of matrices and does not depend on its threads.
        """
        columns = self.weights.shape[1]
        value_M = np.bincount(self.ranking.order_K, weights=value_K, minlength=columns)
        return (self._float_weights * value_M).sum(axis=1)

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
    def twice_pairs_R(self) -> Integers:
        """Twice the pairs of a positive and a negative in which the positive ranks higher; equal scores count one."""
        # Twice the negatives below a group, its own counting half: integers, so the sum over groups is exact.
        below_RG = 2 * self.negatives_R[:, None] - self.false_before_RG - self.false_after_RG
        return (self.hits_RG * below_RG).sum(axis=1)

    @cached_property
    def precisions_R(self) -> Array:
        """The sum over positives of the precision if all cells down to the end of their group are called."""
        return (self.hits_RG * (self.true_RG / np.maximum(self.called_RG, 1))).sum(axis=1)

    def left_of_limit(self, limit_R: Array) -> Array:
        """The sum over positives of the negatives between them and the limit, a number of negatives from above, (R,).

        A positive of a group lies somewhere between its first and last negative: the mean over that stretch.
        """
        limit_R1 = limit_R[:, None]
        before_RG, after_RG = self.false_before_RG, self.false_after_RG
        width_RG = np.maximum(after_RG - before_RG, 1)
        left_RG = np.where(
            after_RG <= limit_R1,
            limit_R1 - (before_RG + after_RG) / 2,
            np.maximum(limit_R1 - before_RG, 0) ** 2 / (2 * width_RG),
        )
        return (self.hits_RG * left_RG).sum(axis=1)

    def sensitivities(self, steps: int) -> Array:
        """Sensitivity at false positive rates of 0, 1 / steps, ..., 1, (R, steps + 1); NaN where a side has no weight.

        At a rate that several thresholds have, the highest sensitivity.
        """
        rows, groups = self.true_RG.shape
        # From (0, 0), each group goes from its first negative to its last while its positives are gained; then to the
        # end.
        x_RV, y_RV = np.zeros((2, rows, 2 * groups + 2))
        x_RV[:, 1:-1:2], x_RV[:, 2:-1:2], x_RV[:, -1] = self.false_before_RG, self.false_after_RG, self.negatives_R
        y_RV[:, 1:-1:2], y_RV[:, 2:-1:2], y_RV[:, -1] = self.true_RG - self.hits_RG, self.true_RG, self.positives_R
        value_RV = np.full((rows, steps + 1), np.nan)
        for row in np.flatnonzero(self.both_R):
            rate_V = np.arange(steps + 1) * self.negatives_R[row] / steps
            value_RV[row] = np.interp(rate_V, x_RV[row], y_RV[row]) / self.positives_R[row]
        return value_RV

    def precisions(self, steps: int) -> Array:
        """Precision at recalls of 0, 1 / steps, ..., 1, (R, steps + 1); NaN where a side has no weight.

        Recall 0 is read as the least recall above it.
        """
        value_RV = np.full((len(self.weights), steps + 1), np.nan)
        for row in np.flatnonzero(self.both_R):
            wanted_V = np.maximum(-(-np.arange(steps + 1) * self.positives_R[row] // steps), 1)  # rounded up
            group_V = np.searchsorted(self.true_RG[row], wanted_V)
            value_RV[row] = self.true_RG[row, group_V] / self.called_RG[row, group_V]
        return value_RV

    def sums_to_edges(self, value_K: Array, bins: int) -> Array:
        """The weighted sum of a value of each cell, from the highest score to the end of each bin, (R, bins).

        Bins of equal weight; a group of equal scores belongs to the bin of its middle.
        """
        end_E, edge_V = self.ranking.end_E, np.arange(1, bins + 1)
        upto_RV = np.zeros((len(self.weights), bins))
        if not len(end_E):
            return upto_RV
        for row, (total, above_K) in enumerate(zip(self.cells_R, self.above_RK, strict=True)):
            above_E = above_K[end_E]
            # The groups that end above an edge, and one more if its middle does.
            groups_V = np.searchsorted(above_E, total * edge_V // bins, side="right")
            next_V = np.minimum(groups_V, len(end_E) - 1)
            start_V = np.where(next_V > 0, above_E[next_V - 1], 0)
            groups_V += (groups_V < len(end_E)) & (bins * (start_V + above_E[next_V]) <= 2 * total * edge_V)
            upto_K = np.cumsum(self.weight_RK[row] * value_K)
            upto_RV[row] = np.where(groups_V > 0, upto_K[end_E[groups_V - 1]], 0.0)
        return upto_RV

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
