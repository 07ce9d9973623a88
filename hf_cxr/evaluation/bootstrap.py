"""Patient-clustered bootstrap intervals of every metric in `kernels.METRICS`, and paired comparison of two models.

The patients are drawn once (see `draws`), and every metric, model and subset is measured under the same weights, by
the kernel that measures the full sample.

N = images, C = findings, M = patients, R = resamples (draws), G = groups of patients left out in turn.

Draws without a positive or without a negative of a finding leave that finding undefined (NaN), which is likely only
below about five positive patients. Percentiles are taken over the defined draws and their number is reported. The
macro mean is taken over the findings that are defined in the full sample, the same ones in every draw: a draw in which
one of them is undefined has no macro mean, because a mean over fewer findings is another quantity.

Refused: a missing patient id, fewer than two patients.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hf_cxr.evaluation.cells import Ranking, WeightedCells, descending, rank
from hf_cxr.evaluation.checks import Array, check_scores
from hf_cxr.evaluation.draws import (
    CONFIDENCE,
    INTERVAL,
    RESAMPLES,
    Interval,
    bca_interval,
    check_confidence,
    check_resamples,
    draw_blocks,
    left_out_blocks,
    number_patients,
    percentile_interval,
    two_sided_p,
)
from hf_cxr.evaluation.engine import Engine
from hf_cxr.evaluation.estimates import Estimate, Estimates
from hf_cxr.evaluation.kernels import headline_metrics
from hf_cxr.evaluation.metric import Measured, Metric
from hf_cxr.evaluation.metrics import macro


@dataclass(frozen=True, eq=False)
class Sample:
    """A metric of some columns (findings, or a mean over some): NaN where undefined.

    Attributes:
        value_C: on the full sample.
        draw_RC: in each draw of patients.
        left_out_GC: with each group of patients left out in turn, for BCa intervals; None for percentile intervals.
        positives: how many of each finding, the weights of the weighted mean; None where they are not counted.
        pooled: the metric of all cells together, a sample of one column; None where it is not measured.
    """

    value_C: Array
    draw_RC: Array
    left_out_GC: Array | None = None
    positives: "Sample | None" = None
    pooled: "Sample | None" = None

    def __sub__(self, other: "Sample") -> "Sample":
        """The paired difference, of samples in the same draws."""
        return Sample(self.value_C - other.value_C, self.draw_RC - other.draw_RC)

    def mean(self, columns: Sequence[int], weights: "Sample | None" = None) -> "Sample":
        """The mean over some findings, a sample of one column; in each draw weighted by another sample, if given."""

        def averaged(value_XC: Array, weight_XC: Array | None) -> Array:
            if not len(columns):
                return np.full((len(value_XC), 1), np.nan)
            if weight_XC is None:
                return value_XC[:, columns].mean(axis=1, keepdims=True)
            weight_XC = weight_XC[:, columns]
            with np.errstate(invalid="ignore", divide="ignore"):
                return ((value_XC[:, columns] * weight_XC).sum(axis=1) / weight_XC.sum(axis=1))[:, None]

        parts = (self.value_C[None], self.draw_RC, self.left_out_GC)
        by = (None,) * 3 if weights is None else (weights.value_C[None], weights.draw_RC, weights.left_out_GC)
        value, draw, left_out = (None if one is None else averaged(one, w) for one, w in zip(parts, by, strict=True))
        return Sample(value[0], draw, left_out)

    @property
    def defined(self) -> NDArray[np.int64]:
        """The columns that are defined in the full sample."""
        return np.flatnonzero(~np.isnan(self.value_C))

    @property
    def macro(self) -> "Sample":
        """The mean over the findings that are defined in the full sample, a sample of one column."""
        return self.mean(self.defined)

    @property
    def p_C(self) -> Array:
        """Two-sided p value of each column, for a difference; see `draws.two_sided_p`."""
        return two_sided_p(self.draw_RC)

    def interval(self, confidence: float) -> tuple[Array, Array]:
        """Low and high of each column, (C,)."""
        if self.left_out_GC is None:
            return percentile_interval(self.draw_RC, confidence)
        return bca_interval(self.value_C, self.draw_RC, self.left_out_GC, confidence)

    def estimates(self, confidence: float) -> Estimates:
        """Each column with its interval; NaN where the value itself is NaN."""
        return Estimates.of(self.value_C, self.draw_RC, confidence)

    def average(self, confidence: float) -> Estimate:
        """Of a sample of one column."""
        (low,), (high,) = self.interval(confidence)
        return Estimate(float(self.value_C[0]), float(low), float(high), int((~np.isnan(self.draw_RC)).sum()))

    def measured(self, confidence: float, tiers: Mapping[str, Sequence[int]] | None = None) -> Measured:
        """Values with intervals, the macro mean, and as far as the sample has them the micro and weighted mean.

        Args:
            confidence: in (0, 1).
            tiers: name -> columns of findings whose mean is wanted as well.
        """
        low_C, high_C = self.interval(confidence)
        mean = self.macro.average(confidence)
        averages = {}
        if self.pooled is not None:
            averages["micro"] = self.pooled.average(confidence)
        if self.positives is not None:
            averages["weighted"] = self.mean(self.defined, self.positives).average(confidence)
        for name, columns in (tiers or {}).items():
            averages[name] = self.mean([c for c in columns if c in self.defined]).average(confidence)
        return Measured(
            value_C=self.value_C,
            low_C=low_C,
            high_C=high_C,
            draws_C=(~np.isnan(self.draw_RC)).sum(axis=0),
            macro=macro(self.value_C),
            macro_low=mean.low,
            macro_high=mean.high,
            macro_draws=mean.draws,
            averages=averages,
        )


@dataclass(frozen=True, eq=False)
class BootstrapResult:
    """Every headline metric by its key, with its interval (``measured``) and its draws (``samples``)."""

    measured: dict[str, Measured]
    samples: dict[str, Sample]
    confidence: float
    resamples: int
    n_patients: int


@dataclass(frozen=True, eq=False)
class PairedDifference(BootstrapResult):
    """First model minus second, in the same draws of patients.

    The two-sided p value is twice the smaller share of draws on either side of zero, draws at zero counting for both,
    with one added to numerator and denominator: never below 2 / (R + 1), and 1 for two equal models. NaN where
    undefined.

    Attributes:
        p_C: by metric, the p value of each finding.
        macro_p: by metric, the p value of the macro mean.
    """

    p_C: dict[str, Array]
    macro_p: dict[str, float]


def bootstrap_metrics(
    score_NC: ArrayLike,
    label_NC: ArrayLike,
    patient_ids_N: Sequence[Any],
    *,
    resamples: int = RESAMPLES,
    confidence: float = CONFIDENCE,
    rng: np.random.Generator,
) -> BootstrapResult:
    """Percentile intervals of every headline metric, per finding and macro.

    Args:
        score_NC: any finite real numbers; the ranking metrics of logits and probabilities are the same.
        label_NC: 1, 0 or NaN.
        patient_ids_N: one id an image; none may be missing.
        resamples: number of draws, at least 2. 1,000 puts a 95 % limit within about 0.1 standard deviations,
            10,000 within 0.03.
        confidence: in (0, 1).
        rng: the draws depend on it and on the set of patients only, not on the order of the rows.

    Raises:
        ValueError: bad scores or labels (see `checks`), a missing patient id, fewer than two patients.
    """
    check_confidence(confidence)
    pair = check_scores(score_NC, label_NC)
    patient_N, n_patients = number_patients(patient_ids_N, len(pair[1]))
    (samples,) = draw_samples([pair], patient_N, n_patients, resamples, rng)
    return BootstrapResult(_measured(samples, confidence), samples, confidence, resamples, n_patients)


def paired_difference(
    first_score_NC: ArrayLike,
    second_score_NC: ArrayLike,
    label_NC: ArrayLike,
    patient_ids_N: Sequence[Any],
    *,
    resamples: int = RESAMPLES,
    confidence: float = CONFIDENCE,
    rng: np.random.Generator,
) -> PairedDifference:
    """First model minus second on the same images: the difference, its interval and a two-sided p value.

    Both models are measured in the same draws, so what they share (easy and hard patients) cancels; comparing two
    separate intervals instead loses most differences that are real. Arguments as `bootstrap_metrics`.
    """
    check_confidence(confidence)
    pairs = [check_scores(score_NC, label_NC) for score_NC in (first_score_NC, second_score_NC)]
    patient_N, n_patients = number_patients(patient_ids_N, len(pairs[0][1]))
    first, second = draw_samples(pairs, patient_N, n_patients, resamples, rng)
    samples = {key: first[key] - second[key] for key in first}
    return PairedDifference(
        measured=_measured(samples, confidence),
        samples=samples,
        confidence=confidence,
        resamples=resamples,
        n_patients=n_patients,
        p_C={key: sample.p_C for key, sample in samples.items()},
        macro_p={key: float(sample.macro.p_C[0]) for key, sample in samples.items()},
    )


def _measured(samples: dict[str, Sample], confidence: float) -> dict[str, Measured]:
    return {key: sample.measured(confidence) for key, sample in samples.items()}


def draw_samples(
    pairs: Sequence[tuple[Array, Array]],
    patient_N: NDArray[np.int64],
    n_patients: int,
    resamples: int,
    rng: np.random.Generator,
    *,
    metrics: Mapping[str, Metric] | None = None,
    threshold_C: Array | None = None,
    averages: bool = False,
    interval: Interval = INTERVAL,
) -> list[dict[str, Sample]]:
    """Metrics of each pair of scores and labels (N, C), by key; all in the same draws of patients.

    Apart from the values themselves, memory does not grow with R. The arrays are taken as checked.

    Args:
        pairs: scores and labels, each (N, C).
        patient_N, n_patients: from `number_patients`.
        resamples: R.
        rng: of the draws.
        metrics: by key; by default the headline metrics.
        threshold_C: of the decision metrics.
        averages: measure all cells together as well, and count the positives of each draw.
        interval: "bca" measures every metric with groups of patients left out, too.
    """
    check_resamples(resamples)
    metrics = headline_metrics() if metrics is None else metrics
    jackknife = list(left_out_blocks(patient_N, n_patients)) if interval == "bca" else []
    groups = sum(map(len, jackknife))
    order_of = _orders(pairs)
    measurers = [
        _Measurer(*pair, order_of, patient_N, metrics, threshold_C, averages, 1 + resamples + groups) for pair in pairs
    ]
    engine = Engine.choose(sum(measurer.cells for measurer in measurers), resamples)

    def fill(rows: slice, weight_RM: NDArray[np.int64]) -> None:
        cells_of = engine.cells(weight_RM)
        for measurer in measurers:
            measurer.fill(rows, cells_of)

    def blocks() -> Iterator[tuple[slice, NDArray[np.int64]]]:
        # Row 0 is the full sample: every patient once.
        yield slice(0, 1), np.ones((1, n_patients), dtype=np.int64)
        at_once = engine.at_once(len(patient_N), resamples)
        for rows, weight_RM in draw_blocks(patient_N, n_patients, resamples, rng, at_once=at_once):
            yield slice(1 + rows.start, 1 + rows.stop), weight_RM
        start = 1 + resamples
        for weight_GM in jackknife:
            yield slice(start, start + len(weight_GM)), weight_GM
            start += len(weight_GM)

    engine.each(fill, blocks())
    return [measurer.samples(resamples, bool(groups)) for measurer in measurers]


class _Measurer:
    """One pair of scores and labels: its rankings, and the values under all weights, X rows of them."""

    def __init__(
        self,
        score_NC: Array,
        label_NC: Array,
        order_of: Mapping[int, list[NDArray[np.int64]]],
        patient_N: NDArray[np.int64],
        metrics: Mapping[str, Metric],
        threshold_C: Array | None,
        averages: bool,
        rows: int,
    ) -> None:
        self.metrics = metrics
        findings = label_NC.shape[1]
        self.threshold_C = np.full(findings, np.nan) if threshold_C is None else threshold_C
        columns = zip(score_NC.T, label_NC.T, order_of[id(score_NC)], strict=True)
        self.rankings = [
            _patient_ranking(score_N, label_N, patient_N, order_N) for score_N, label_N, order_N in columns
        ]
        # A column more for all cells together.
        if averages:
            patients = np.repeat(patient_N, findings)
            self.rankings.append(_patient_ranking(score_NC.ravel(), label_NC.ravel(), patients))
        self.averages = averages
        self.findings = findings
        self.value_XC = {key: np.full((rows, len(self.rankings)), np.nan) for key in metrics}
        self.positives_XC = np.zeros((rows, findings))

    @property
    def cells(self) -> int:
        """The known cells of all rankings."""
        return sum(len(ranking.order_K) for ranking in self.rankings)

    def fill(self, rows: slice, cells_of: Callable[..., WeightedCells]) -> None:
        confusions = []
        for column, ranking in enumerate(self.rankings):
            if column < self.findings:
                cells = cells_of(ranking, self.threshold_C[column])
                self.positives_XC[rows, column] = cells.positives_R
                if not np.isnan(cells.threshold):
                    confusions.append(cells.confusion)
            else:
                # Each finding has a threshold of its own, so the counts are added up and not taken from the pool.
                counts = tuple(np.sum(confusions, axis=0)) if confusions else None
                cells = cells_of(ranking, counts=counts)
            for key, metric in self.metrics.items():
                self.value_XC[key][rows, column] = metric.kernel(cells)

    def samples(self, resamples: int, jackknife: bool) -> dict[str, Sample]:
        def sample(value_XC: Array, **more: Sample | None) -> Sample:
            left_out_GC = value_XC[1 + resamples :] if jackknife else None
            return Sample(value_XC[0], value_XC[1 : 1 + resamples], left_out_GC, **more)

        positives = sample(self.positives_XC) if self.averages else None
        return {
            key: sample(
                value_XC[:, : self.findings],
                positives=positives,
                pooled=sample(value_XC[:, self.findings :]) if self.averages else None,
            )
            for key, value_XC in self.value_XC.items()
        }


def _orders(pairs: Sequence[tuple[Array, Array]]) -> dict[int, list[NDArray[np.int64]]]:
    """The order of each column of the scores, once for all pairs that share them, by the id of the array."""
    scores = {id(score_NC): score_NC for score_NC, _ in pairs}
    return {key: [descending(score_N) for score_N in score_NC.T] for key, score_NC in scores.items()}


def _patient_ranking(
    score_N: Array, label_N: Array, patient_N: NDArray[np.int64], order_N: NDArray[np.int64] | None = None
) -> Ranking:
    # Pointing the order at patients instead of images saves a copy of the weights as large as R x N.
    ranking = rank(score_N, label_N, order_N)
    return replace(ranking, order_K=patient_N[ranking.order_K])


def mean_over(draw_RC: Array, columns: Sequence[int]) -> Array:
    """The mean over some findings in each draw, (R,); NaN if there is none."""
    return draw_RC[:, columns].mean(axis=1) if len(columns) else np.full(len(draw_RC), np.nan)
