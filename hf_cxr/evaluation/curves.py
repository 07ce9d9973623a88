"""ROC and precision-recall curves of each finding, with patient-clustered bands.

    draws = PatientDraws.of(patient_ids, resamples=1000, seed=0)
    curves = measure_curves(probabilities, labels, draws, label_names=names)
    curves.roc.value_CK[names.index("Hernia")]           # sensitivity at each false positive rate of the grid
    curves.to_dict()                                     # plain values, for analysis.json

A curve is sampled on a fixed grid, 0, 0.01, ..., 1: sensitivity at a false positive rate, precision at a recall. The
same is done in every draw of patients, and the band has the percentiles of the draws at each point of the grid
(vertical averaging; Fawcett, Pattern Recognition Letters 27 (2006), algorithm 3). The bands are pointwise: each point
has the stated confidence, the whole curve has less.

Between two thresholds
- a ROC curve is a straight line, which a random choice between the two reaches; with distinct scores there is nothing
  between. The area under it is the AUC, in which ties count one half.
- a precision-recall curve is a step: at a recall, the precision of the highest threshold that reaches it. A straight
  line would be too good (Davis and Goadrich, ICML 2006). The area under it is the average precision.

The mean over findings is taken at equal false positive rate, or recall, over the findings that are defined in the full
sample; the area under it is the macro mean of the areas.

N = images, C = findings, K = points of the grid, R = draws, M = patients, X = K + 1, the points and the area under
them.

Refused: scores that are not finite, invalid labels, and draws of other patients than there are images.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hf_cxr.evaluation import kernels
from hf_cxr.evaluation.cells import Ranking, WeightedCells, rank
from hf_cxr.evaluation.checks import Array, check_scores
from hf_cxr.evaluation.draws import CONFIDENCE, PatientDraws, check_measured, percentile_interval
from hf_cxr.evaluation.engine import Engine
from hf_cxr.evaluation.estimates import Estimates, ratio
from hf_cxr.files import plain
from hf_cxr.labels import LabelSpace

POINTS_AT_ONCE = 2**25
"""Points of curves that are kept at a time, of all draws: 256 MiB of each kind."""

STEPS = 100
"""Of the grid, which has one point more."""

DIGITS = 5
"""Of the values in `Curves.to_dict`, which are for drawing."""


@dataclass(frozen=True, eq=False)
class Band:
    """A curve of each finding on the grid, and in the last row their mean, with bands; NaN where undefined.

    Attributes:
        curve_CK: on the full sample, and percentiles over the draws that define the finding.
        area_C: the area under the curve, AUC or average precision.
        draws_C: number of draws that define the finding, int64.
    """

    curve_CK: Estimates
    area_C: Estimates
    draws_C: NDArray[np.int64]

    def to_dict(self, names: Sequence[str]) -> dict[str, Any]:
        """By finding: ``value``, ``low``, ``high``, each of K numbers, ``area`` and ``draws``."""
        curve_CK, area_C = self.curve_CK.round(DIGITS), self.area_C.round(DIGITS)
        return {
            name: {**curve_CK.row(row), "area": area_C.at(row).to_dict(), "draws": int(self.draws_C[row])}
            for row, name in enumerate(names)
        }


@dataclass(frozen=True, eq=False)
class Curves:
    """The curves of every finding and of the mean over findings, which is the last row of each `Band`.

    Attributes:
        label_names: of the C findings.
        grid_K: the false positive rates, and the recalls.
        roc: sensitivity at each false positive rate, C + 1 rows.
        precision_recall: precision at each recall, C + 1 rows.
        positives_C, positive_patients_C: images and patients with the finding, int64.
        prevalence_C: share of positives among known cells, the precision of chance; NaN where none is known.
        images, patients: how many.
        confidence, resamples: of the bands.
    """

    label_names: LabelSpace
    grid_K: Array
    roc: Band
    precision_recall: Band
    positives_C: NDArray[np.int64]
    positive_patients_C: NDArray[np.int64]
    prevalence_C: Array
    images: int
    patients: int
    confidence: float
    resamples: int

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values, NaN as None; ``mean`` is the mean over findings."""
        counts = {
            "positives": self.positives_C,
            "positive_patients": self.positive_patients_C,
            "prevalence": self.prevalence_C,
        }
        values = {
            "confidence": self.confidence,
            "resamples": self.resamples,
            "images": self.images,
            "patients": self.patients,
            "grid": self.grid_K.tolist(),
            "findings": {
                name: {key: array_C[column].item() for key, array_C in counts.items()}
                for column, name in enumerate(self.label_names)
            },
        }
        for key, band in (("roc", self.roc), ("precision_recall", self.precision_recall)):
            *_, mean = band.to_dict([*self.label_names, ""]).values()
            values[key] = {"findings": band.to_dict(self.label_names), "mean": mean}
        return plain(values)


def measure_curves(
    score_NC: ArrayLike,
    label_NC: ArrayLike,
    draws: PatientDraws,
    *,
    label_names: Sequence[str],
    confidence: float = CONFIDENCE,
) -> Curves:
    """The ROC and precision-recall curves of every finding, with pointwise bands.

    Args:
        score_NC: any finite real numbers; only their order matters.
        label_NC: 1, 0 or NaN for unknown, which takes part in nothing.
        draws: of the N images' patients.
        label_names: C names.
        confidence: of the bands, in (0, 1).

    Raises:
        ValueError: bad scores or labels (see `checks`), or another number of images or findings.
    """
    score_NC, label_NC, names = check_measured(score_NC, label_NC, draws, label_names, confidence, check_scores)
    rankings = [rank(*column) for column in zip(score_NC.T, label_NC.T, strict=True)]
    positives_C, known_C = (label_NC == 1).sum(axis=0), (~np.isnan(label_NC)).sum(axis=0)
    return Curves(
        label_names=names,
        grid_K=np.arange(STEPS + 1) / STEPS,
        **_bands(rankings, draws, confidence),
        positives_C=positives_C,
        positive_patients_C=np.array([len(np.unique(draws.patient_N[present_N])) for present_N in (label_NC == 1).T]),
        prevalence_C=ratio(positives_C, known_C),
        images=len(label_NC),
        patients=draws.n_patients,
        confidence=confidence,
        resamples=draws.resamples,
    )


def sensitivity_at_grid(cells: WeightedCells) -> Array:
    """Sensitivity at each false positive rate of the grid, (R, K), see `WeightedCells.sensitivities`."""
    return cells.sensitivities(STEPS)


def precision_at_grid(cells: WeightedCells) -> Array:
    """Precision at each recall of the grid, (R, K), see `WeightedCells.precisions`."""
    return cells.precisions(STEPS)


CURVES: dict[str, tuple[Callable[[WeightedCells], Array], kernels.Kernel]] = {
    "roc": (sensitivity_at_grid, kernels.auc),
    "precision_recall": (precision_at_grid, kernels.ap),
}
"""Each kind of curve: its points on the grid, and the area under it."""


def _bands(rankings: Sequence[Ranking], draws: PatientDraws, confidence: float) -> dict[str, Band]:
    """By kind: curves and bands of each finding, and of their mean over those that are defined in the full sample."""
    by_patient = [replace(ranking, order_K=draws.patient_N[ranking.order_K]) for ranking in rankings]
    everyone = np.ones((1, draws.n_patients), dtype=np.int64)
    full = [_measured(WeightedCells(ranking, everyone)) for ranking in by_patient]
    value_CX = {kind: np.concatenate([one[kind] for one in full]) for kind in CURVES}
    defined = np.flatnonzero(~np.isnan(value_CX["roc"][:, -1]))  # both kinds need a positive and a negative

    ends = {kind: [] for kind in CURVES}
    sum_RX = {kind: np.zeros((draws.resamples, STEPS + 2)) for kind in CURVES}
    # NumPy takes as long for the grid of one draw and finding as for the metrics of some thousand cells.
    cells = sum(len(ranking.order_K) + 20 * STEPS for ranking in by_patient)
    engine = Engine.choose(cells, draws.resamples)
    at_once = max(1, POINTS_AT_ONCE // (draws.resamples * (STEPS + 2)))
    for start in range(0, len(by_patient), at_once):
        columns = range(start, min(start + at_once, len(by_patient)))
        drawn = _draw([by_patient[column] for column in columns], draws, engine)
        for column, draw_RX in zip(columns, drawn, strict=True):
            for kind in CURVES:
                ends[kind].append(_ends(draw_RX[kind], confidence))
                sum_RX[kind] += draw_RX[kind] if column in defined else 0

    bands = {}
    for kind, value in value_CX.items():
        share = 1 / len(defined) if len(defined) else np.nan
        value = np.vstack([value, value[defined].sum(axis=0) * share])
        ends[kind].append(_ends(sum_RX[kind] * share, confidence))
        low_CX, high_CX, draws_C = map(np.array, zip(*ends[kind], strict=True))
        columns = (value, low_CX, high_CX)
        curve_CK, area_C = (Estimates(*(one[:, part] for one in columns)) for part in (slice(-1), -1))
        bands[kind] = Band(curve_CK, area_C, draws_C)
    return bands


def _draw(rankings: Sequence[Ranking], draws: PatientDraws, engine: Engine) -> list[dict[str, Array]]:
    """For each ranking, by kind: what `_measured` gives in each draw, (R, K + 1)."""
    drawn = [{kind: np.empty((draws.resamples, STEPS + 2)) for kind in CURVES} for _ in rankings]

    def fill(rows: slice, weight_RM: NDArray[np.int64]) -> None:
        cells_of = engine.cells(weight_RM)
        for ranking, draw_RX in zip(rankings, drawn, strict=True):
            for kind, value_RX in _measured(cells_of(ranking)).items():
                draw_RX[kind][rows] = value_RX

    engine.each(fill, draws.blocks(engine.at_once(len(draws.patient_N), draws.resamples)))
    return drawn


def _measured(cells: WeightedCells) -> dict[str, Array]:
    """By kind: the points of a curve, and last the area under it, (R, K + 1)."""
    return {kind: np.column_stack([at_grid(cells), area(cells)]) for kind, (at_grid, area) in CURVES.items()}


def _ends(draw_RX: Array, confidence: float) -> tuple[Array, Array, int]:
    """Low and high of each column, and how many draws are defined."""
    return *percentile_interval(draw_RX, confidence), int((~np.isnan(draw_RX[:, -1])).sum())
