"""The sums behind the metrics, compiled by numba: 64 sets of weights at a time.

Imported only where `engine.Engine` decides that it pays: importing numba takes 0.25 s, and each function is
compiled at its first call, once for this package and machine (numba keeps the result in ``__pycache__``, or in the
user's cache folder if the package cannot be written to).

The 64 sets of weights of a patient lie side by side, a byte each, so that one cell costs one cache line and every
addition is a vector instruction. Each lane sums in the order of the cells, with compensation (Kahan), so a value
depends neither on the other lanes nor on how the work is divided. The counts are exact.

S = stretches of a `Ranking`, K = known cells in order, E = groups of equal scores, M = columns of the weights
(patients), B = blocks of 64 sets of weights, L = the 64 lanes of a block, V = bins.

Source: Kahan, Communications of the ACM 8 (1965), compensated summation.
"""

import logging
from dataclasses import dataclass, field
from functools import cached_property

import numba
import numpy as np
from numpy.typing import NDArray

from hf_cxr.compiling import compiled
from hf_cxr.evaluation.cells import WeightedCells
from hf_cxr.evaluation.checks import Array

logger = logging.getLogger(__name__)

LANES = 64

Bytes = NDArray[np.uint8]
Columns = NDArray[np.uint32]
Integers = NDArray[np.int64]


def lanes_of(weights: Integers) -> Bytes:
    """The weights (R, M), none above 63, as (B, M, L); lanes beyond R have weight 0."""
    rows, columns = weights.shape
    blocks = -(-rows // LANES)
    padded = np.zeros((blocks * LANES, columns), dtype=np.uint8)
    padded[:rows] = weights
    return np.ascontiguousarray(padded.reshape(blocks, LANES, columns).transpose(0, 2, 1))


def rows_of(value_BVL: NDArray) -> NDArray:
    """From lanes innermost to one row for each set of weights, (B x L, V)."""
    return np.moveaxis(value_BVL, 1, 2).reshape(-1, value_BVL.shape[1])


@numba.njit(inline="always")
def add_cells(column_K: Columns, start: int, end: int, weight_ML: Bytes, four_L: Bytes, sum_L: Integers) -> None:
    """Add the weights of the cells from place ``start`` to before ``end``; ``four_L`` is scratch, one byte a lane."""
    k = start
    while k + 4 <= end:  # in bytes, which hold four weights of at most 63
        first, second, third, fourth = column_K[k], column_K[k + 1], column_K[k + 2], column_K[k + 3]
        for lane in range(LANES):
            four_L[lane] = (
                weight_ML[first, lane] + weight_ML[second, lane] + weight_ML[third, lane] + weight_ML[fourth, lane]
            )
        for lane in range(LANES):
            sum_L[lane] += four_L[lane]
        k += 4
    while k < end:
        column = column_K[k]
        for lane in range(LANES):
            sum_L[lane] += weight_ML[column, lane]
        k += 1


@compiled(error_model="numpy")
def count_stretches(
    column_K: Columns,
    start_S: Integers,
    weight_BML: Bytes,
    true_BL: Integers,
    false_BL: Integers,
    pairs_BL: Array,
    hits_BL: Array,
) -> None:
    """For the AUC and the average precision, in one pass over the cells.

    Args:
        column_K: the column of the weights of each cell, the cells in order of their stretch.
        start_S: the place of the first cell of each stretch, and the number of cells last.
        weight_BML: from `lanes_of`.
        true_BL, false_BL: int32, filled with the weight of the positives and of the negatives.
        pairs_BL: filled with the sum over positives of the negatives above their group and down to its end.
        hits_BL: filled with the sum over positives of the precision at the end of their group.
    """
    groups, four_L = (len(start_S) - 2) // 3, np.empty(LANES, np.uint8)
    gained_L, before_L = np.zeros(LANES, np.int32), np.zeros(LANES, np.int32)
    for block in range(weight_BML.shape[0]):
        weight_ML, true_L, false_L = weight_BML[block], true_BL[block], false_BL[block]
        pairs_L, sum_L, lost_L = pairs_BL[block], hits_BL[block], np.zeros(LANES)
        true_L[:], false_L[:], pairs_L[:], sum_L[:] = 0, 0, 0.0, 0.0
        for group in range(groups):
            add_cells(column_K, start_S[3 * group], start_S[3 * group + 1], weight_ML, four_L, false_L)
            before_L[:] = false_L
            add_cells(column_K, start_S[3 * group + 1], start_S[3 * group + 2], weight_ML, four_L, false_L)
            gained_L[:] = 0
            add_cells(column_K, start_S[3 * group + 2], start_S[3 * group + 3], weight_ML, four_L, gained_L)
            for lane in range(LANES):
                true_L[lane] += gained_L[lane]
                gained, called = float(gained_L[lane]), float(true_L[lane] + false_L[lane])
                pairs_L[lane] += gained * float(before_L[lane] + false_L[lane])
                term = gained * (float(true_L[lane]) / max(called, 1.0)) - lost_L[lane]
                total = sum_L[lane] + term
                lost_L[lane] = (total - sum_L[lane]) - term
                sum_L[lane] = total
        add_cells(column_K, start_S[3 * groups], start_S[3 * groups + 1], weight_ML, four_L, false_L)


@compiled(error_model="numpy")
def area_to_limit(column_K: Columns, start_S: Integers, weight_BML: Bytes, limit_BL: Array, area_BL: Array) -> None:
    """For the partial AUC: the sum over positives of the negatives that are left of a limit.

    Args:
        column_K, start_S, weight_BML: as of `count_stretches`.
        limit_BL: a number of negatives.
        area_BL: filled with the sum; a positive of a group counts the mean over the stretch of its group.
    """
    groups, four_L = (len(start_S) - 2) // 3, np.empty(LANES, np.uint8)
    for block in range(weight_BML.shape[0]):
        weight_ML, limit_L, sum_L = weight_BML[block], limit_BL[block], area_BL[block]
        false_L, before_L = np.zeros(LANES, np.int32), np.zeros(LANES, np.int32)
        gained_L, lost_L = np.zeros(LANES, np.int32), np.zeros(LANES)
        sum_L[:] = 0.0
        for group in range(groups):
            add_cells(column_K, start_S[3 * group], start_S[3 * group + 1], weight_ML, four_L, false_L)
            inside = 0
            for lane in range(LANES):
                inside += false_L[lane] < limit_L[lane]
            if inside == 0:
                break
            before_L[:] = false_L
            add_cells(column_K, start_S[3 * group + 1], start_S[3 * group + 2], weight_ML, four_L, false_L)
            gained_L[:] = 0
            add_cells(column_K, start_S[3 * group + 2], start_S[3 * group + 3], weight_ML, four_L, gained_L)
            for lane in range(LANES):
                limit, before, after = limit_L[lane], float(before_L[lane]), float(false_L[lane])
                rest = max(limit - before, 0.0)
                cut = rest * rest / (2.0 * max(after - before, 1.0))
                left = limit - (before + after) / 2.0 if after <= limit else cut
                term = float(gained_L[lane]) * left - lost_L[lane]
                total = sum_L[lane] + term
                lost_L[lane] = (total - sum_L[lane]) - term
                sum_L[lane] = total


@compiled(error_model="numpy")
def walk_curves(
    column_K: Columns,
    start_S: Integers,
    weight_BML: Bytes,
    positives_BL: Integers,
    negatives_BL: Integers,
    sensitivity_BVL: Array,
    precision_BVL: Array,
) -> None:
    """For ROC and precision-recall curves: their points at V evenly spaced rates, in one pass over the cells.

    Args:
        column_K, start_S, weight_BML: as of `count_stretches`.
        positives_BL, negatives_BL: int32, the weight of each side.
        sensitivity_BVL, precision_BVL: filled in, see `WeightedCells.sensitivities` and `precisions`.
    """
    groups, steps, four_L = (len(start_S) - 2) // 3, sensitivity_BVL.shape[1] - 1, np.empty(LANES, np.uint8)
    gained_L, before_L = np.zeros(LANES, np.int32), np.zeros(LANES, np.int32)
    rate_L, wanted_L = np.empty(LANES), np.empty(LANES, np.int32)  # the next of each lane
    for block in range(weight_BML.shape[0]):
        weight_ML, sensitivity_VL, precision_VL = weight_BML[block], sensitivity_BVL[block], precision_BVL[block]
        positives_L, negatives_L = positives_BL[block], negatives_BL[block]
        true_L, false_L = np.zeros(LANES, np.int32), np.zeros(LANES, np.int32)
        rates_L, recalls_L = np.zeros(LANES, np.int64), np.zeros(LANES, np.int64)  # how many are done
        rate_L[:], wanted_L[:] = 0.0, 1
        sensitivity_VL[:], precision_VL[:] = np.nan, np.nan
        for group in range(groups):
            add_cells(column_K, start_S[3 * group], start_S[3 * group + 1], weight_ML, four_L, false_L)
            before_L[:] = false_L
            add_cells(column_K, start_S[3 * group + 1], start_S[3 * group + 2], weight_ML, four_L, false_L)
            gained_L[:] = 0
            add_cells(column_K, start_S[3 * group + 2], start_S[3 * group + 3], weight_ML, four_L, gained_L)
            passed = False  # whether any lane has a point here
            for lane in range(LANES):
                passed |= (rate_L[lane] < false_L[lane]) | (true_L[lane] + gained_L[lane] >= wanted_L[lane])
            if passed:
                for lane in range(LANES):
                    before, after = before_L[lane], false_L[lane]
                    true, gained = true_L[lane], gained_L[lane]
                    positives, negatives = positives_L[lane], negatives_L[lane]
                    if positives == 0 or negatives == 0:
                        continue
                    done = rates_L[lane]
                    while done <= steps and rate_L[lane] < after:
                        value = float(true)
                        if rate_L[lane] > before:
                            value = gained / (after - before) * (rate_L[lane] - before) + true
                        sensitivity_VL[done, lane] = value / positives
                        done += 1
                        rate_L[lane] = done * negatives / steps
                    rates_L[lane] = done
                    done, true = recalls_L[lane], true + gained
                    while done <= steps and true >= wanted_L[lane]:
                        precision_VL[done, lane] = true / (true + after)
                        done += 1
                        wanted_L[lane] = max(-(-done * positives // steps), 1)
                    recalls_L[lane] = done
            for lane in range(LANES):
                true_L[lane] += gained_L[lane]
        for lane in range(LANES):
            if positives_L[lane] > 0 and negatives_L[lane] > 0:
                for rate in range(rates_L[lane], steps + 1):
                    sensitivity_VL[rate, lane] = true_L[lane] / positives_L[lane]


@compiled(error_model="numpy")
def sum_to_edges(
    column_K: Columns,
    end_E: Integers,
    value_K: Array,
    weight_BML: Bytes,
    cells_BL: Integers,
    upto_BVL: Array,
) -> None:
    """For the calibration error: sums from above to the edges of bins of equal weight.

    Args:
        column_K: the column of the weights of each cell, in order of score.
        end_E: the last place of each group of equal scores, which share the bin of their middle.
        value_K: of each cell.
        weight_BML: from `lanes_of`.
        cells_BL: the weight of all cells.
        upto_BVL: filled with the weighted sum of the values down to the end of each of the V bins.
    """
    bins = upto_BVL.shape[1]
    for block in range(weight_BML.shape[0]):
        weight_ML, cells_L, upto_VL = weight_BML[block], cells_BL[block], upto_BVL[block]
        group_L, sum_L, edge_L = np.zeros(LANES, np.int32), np.zeros(LANES), np.zeros(LANES, np.int64)
        # Twice the weight between the cells so far and the next edge, rounded down.
        rest_L = np.empty(LANES, np.int32)
        for lane in range(LANES):
            rest_L[lane] = 2 * cells_L[lane] // bins
        start = 0
        for group in range(len(end_E)):
            end = end_E[group] + 1
            column, value = column_K[start], value_K[start]
            for lane in range(LANES):
                group_L[lane] = weight_ML[column, lane]
            for k in range(start + 1, end):
                column = column_K[k]
                for lane in range(LANES):
                    group_L[lane] += weight_ML[column, lane]
            passed = False  # whether the middle of the group lies below the edge, of any lane
            for lane in range(LANES):
                passed |= group_L[lane] > rest_L[lane]
            if passed:
                for lane in range(LANES):
                    edge = edge_L[lane]
                    while edge < bins and group_L[lane] > rest_L[lane]:
                        upto_VL[edge, lane] = sum_L[lane]
                        edge += 1
                        twice = 2 * cells_L[lane]
                        rest_L[lane] += twice * (edge + 1) // bins - twice * edge // bins
                    edge_L[lane] = edge
            if end - start == 1:
                for lane in range(LANES):
                    sum_L[lane] += float(group_L[lane]) * value
            else:
                for k in range(start, end):
                    column, value = column_K[k], value_K[k]
                    for lane in range(LANES):
                        sum_L[lane] += float(weight_ML[column, lane]) * value
            for lane in range(LANES):
                rest_L[lane] -= 2 * group_L[lane]
            start = end
        for lane in range(LANES):
            for edge in range(edge_L[lane], bins):
                upto_VL[edge, lane] = sum_L[lane]


@compiled(error_model="numpy")
def weighted_sum(value_M: Array, weight_BML: Bytes, sum_BL: Array) -> None:
    """The weighted sum of a value of each column.

    Args:
        value_M: of each column of the weights.
        weight_BML: from `lanes_of`.
        sum_BL: filled with the sums.
    """
    for block in range(weight_BML.shape[0]):
        weight_ML, sum_L, lost_L = weight_BML[block], sum_BL[block], np.zeros(LANES)
        sum_L[:] = 0.0
        for column in range(len(value_M)):
            value = value_M[column]
            if value != 0.0:
                for lane in range(LANES):
                    term = float(weight_ML[column, lane]) * value - lost_L[lane]
                    total = sum_L[lane] + term
                    lost_L[lane] = (total - sum_L[lane]) - term
                    sum_L[lane] = total


@compiled(error_model="numpy")
def count_bins(column_K: Columns, bin_K: Integers, weight_BML: Bytes, count_BVL: Integers) -> None:
    """The weight of the cells of each of V bins.

    Args:
        column_K, bin_K: the column of the weights, and the bin, of each cell.
        weight_BML: from `lanes_of`.
        count_BVL: int32, filled with the counts.
    """
    for block in range(weight_BML.shape[0]):
        weight_ML, count_VL = weight_BML[block], count_BVL[block]
        count_VL[:] = 0
        for k in range(len(column_K)):
            column, place = column_K[k], bin_K[k]
            for lane in range(LANES):
                count_VL[place, lane] += weight_ML[column, lane]


@dataclass(frozen=True, eq=False)
class CompiledCells(WeightedCells):
    """`WeightedCells` whose sums are compiled; what is not here is NumPy's, so every kernel works with these cells.

    Attributes:
        weight_BML: the weights once more, from `lanes_of`; made once for all findings.
    """

    weight_BML: Bytes = field(kw_only=True)
    _walked: dict[int, tuple[Array, Array]] = field(default_factory=dict, init=False, repr=False)

    def total(self, value_K: Array) -> Array:
        columns = self.weights.shape[1]
        sum_BL = self._lanes()
        value_M = np.bincount(self.ranking.order_K, weights=value_K, minlength=columns)
        weighted_sum(value_M.astype(np.float64), self.weight_BML, sum_BL)
        return self._rows(sum_BL)

    @cached_property
    def _stretch_sums(self) -> tuple[NDArray, ...]:
        """What `count_stretches` fills in: positives, negatives, pairs and precisions, each (R,)."""
        sums = (*(np.empty((len(self.weight_BML), LANES), np.int32) for _ in range(2)), self._lanes(), self._lanes())
        count_stretches(*self.ranking.by_stretch, self.weight_BML, *sums)
        return tuple(self._rows(one_BL) for one_BL in sums)

    @cached_property
    def positives_R(self) -> Integers:
        return self._stretch_sums[0].astype(np.int64)

    @cached_property
    def cells_R(self) -> Integers:
        return self.positives_R + self._stretch_sums[1]

    @cached_property
    def twice_pairs_R(self) -> Integers:
        return 2 * self.positives_R * self.negatives_R - self._stretch_sums[2].astype(np.int64)

    @cached_property
    def precisions_R(self) -> Array:
        return self._stretch_sums[3]

    def left_of_limit(self, limit_R: Array) -> Array:
        area_BL = self._lanes()
        area_to_limit(*self.ranking.by_stretch, self.weight_BML, self._padded(limit_R), area_BL)
        return self._rows(area_BL)

    def sensitivities(self, steps: int) -> Array:
        return self._curves(steps)[0]

    def precisions(self, steps: int) -> Array:
        return self._curves(steps)[1]

    def _curves(self, steps: int) -> tuple[Array, Array]:
        if steps not in self._walked:
            sides = (self._padded(side_R.astype(np.int32)) for side_R in (self.positives_R, self.negatives_R))
            curves = [np.empty((len(self.weight_BML), steps + 1, LANES)) for _ in range(2)]
            walk_curves(*self.ranking.by_stretch, self.weight_BML, *sides, *curves)
            self._walked[steps] = tuple(self._rows_of(curve_BVL) for curve_BVL in curves)
        return self._walked[steps]

    def sums_to_edges(self, value_K: Array, bins: int) -> Array:
        upto_BVL = np.empty((len(self.weight_BML), bins, LANES))
        cells_BL = self._padded(self.cells_R)
        sum_to_edges(self.ranking.columns_K, self.ranking.end_E, value_K, self.weight_BML, cells_BL, upto_BVL)
        return self._rows_of(upto_BVL)

    def _lanes(self) -> Array:
        return np.empty((len(self.weight_BML), LANES))

    def _rows(self, value_BL: Array) -> Array:
        return value_BL.reshape(-1)[: len(self.weights)]

    def _rows_of(self, value_BVL: Array) -> Array:
        return rows_of(value_BVL)[: len(self.weights)]

    def _padded(self, value_R: NDArray) -> NDArray:
        padded = np.zeros(len(self.weight_BML) * LANES, dtype=value_R.dtype)
        padded[: len(value_R)] = value_R
        return padded.reshape(-1, LANES)
