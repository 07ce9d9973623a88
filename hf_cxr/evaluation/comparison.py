"""Comparison of methods that were each trained with several seeds, on the same test images.

The figure of a method is the mean over its seeds of the macro mean over findings. Differences to the baseline are
paired: in each draw of patients every run of every method is measured on the same patients, so what they share
cancels. Several comparisons with one baseline are corrected by Holm's step-down procedure, for each metric by itself.

Two spreads that must not be mixed up: the standard deviation over seeds says how much a figure moves when training is
repeated and the test patients stay; the interval says how much it moves with other test patients while the trained
models stay. Neither covers the other.

N = images, C = findings, R = draws. A finding without AUC in the full sample is left out of every mean; a draw in
which a finding of the mean is undefined has no mean (see `bootstrap`).

Refused: a baseline that is not among the methods, a method without a run, whatever `bootstrap_metrics` refuses.

Source: Holm, Scandinavian Journal of Statistics 6 (1979).
"""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from hf_cxr.evaluation.bootstrap import _draw_metrics, _interval, _patients, _two_sided_p
from hf_cxr.evaluation.metrics import Array, average_precision, check_scores, macro, roc_auc


@dataclass(frozen=True)
class Estimate:
    """Mean over seeds, its standard deviation over seeds (n - 1; NaN for one seed) and its interval over patients."""

    mean: float
    sd: float
    low: float
    high: float
    by_seed: dict[Hashable, float]


@dataclass(frozen=True)
class Difference:
    """A method's mean over seeds minus the baseline's, in the same draws of patients.

    Attributes:
        value, low, high: on the full sample, and its interval over draws.
        p: two-sided, by the bootstrap, as in `PairedDifference`.
        p_corrected: by Holm, for the number of methods compared with the baseline.
        by_seed: the difference of the two runs of each seed that both have.
        draws: how many draws define it.
    """

    value: float
    low: float
    high: float
    p: float
    p_corrected: float
    by_seed: dict[Hashable, float]
    draws: int


@dataclass(frozen=True, eq=False)
class MethodFigures:
    """One metric of one method: over all findings, over each group of findings, and each finding by itself.

    ``finding_C`` is the mean over seeds, NaN where undefined. ``difference`` is None for the baseline.
    """

    overall: Estimate
    groups: dict[str, Estimate]
    finding_C: Array
    difference: Difference | None


@dataclass(frozen=True, eq=False)
class Comparison:
    """AUC and average precision of every method, in the order given."""

    auc: dict[str, MethodFigures]
    ap: dict[str, MethodFigures]
    baseline: str
    confidence: float
    resamples: int
    n_images: int
    n_patients: int
    undefined: tuple[int, ...] = field(default=())


def compare_methods(
    scores: Mapping[str, Mapping[Hashable, ArrayLike]],
    label_NC: ArrayLike,
    patient_ids_N: Sequence[Any],
    *,
    baseline: str,
    groups: Mapping[str, Sequence[int]] | None = None,
    resamples: int = 2000,
    confidence: float = 0.95,
    rng: np.random.Generator,
) -> Comparison:
    """Measure methods with several seeds each, and each one's difference to the baseline.

    Args:
        scores: for each method, for each seed, (N, C) finite scores of the same images.
        label_NC: 1, 0 or NaN.
        patient_ids_N: one id an image; none may be missing.
        baseline: the method that the others are compared with.
        groups: columns of findings whose mean is wanted as well, such as head, medium and tail.
        resamples: draws of patients. The least p value is 2 / (resamples + 1), before correction.
        confidence: of the intervals, in (0, 1).
        rng: of the draws; they do not depend on the scores.

    Raises:
        ValueError: see the module's first lines.
    """
    if baseline not in scores:
        raise ValueError(f"the baseline {baseline!r} is not among the methods: {', '.join(scores)}")
    empty = [method for method, runs in scores.items() if not runs]
    if empty:
        raise ValueError(f"no run of {', '.join(empty)}")
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must be between 0 and 1; got {confidence}")
    keys = [(method, seed) for method, runs in scores.items() for seed in runs]
    checked = [check_scores(scores[method][seed], label_NC) for method, seed in keys]
    label_NC = checked[0][1]
    patient_N, n_patients = _patients(patient_ids_N, len(label_NC))
    drawn = _draw_metrics([score for score, _ in checked], label_NC, patient_N, n_patients, resamples, rng)
    metrics = {}
    for which, measure in enumerate((roc_auc, average_precision)):
        value_C = {key: measure(score, label_NC) for key, (score, _) in zip(keys, checked, strict=True)}
        draw_RC = {key: pair[which] for key, pair in zip(keys, drawn, strict=True)}
        metrics[which] = _figures(value_C, draw_RC, list(scores), baseline, groups or {}, confidence)
    undefined = np.flatnonzero(np.isnan(roc_auc(checked[0][0], label_NC)))
    return Comparison(
        auc=metrics[0],
        ap=metrics[1],
        baseline=baseline,
        confidence=confidence,
        resamples=resamples,
        n_images=len(label_NC),
        n_patients=n_patients,
        undefined=tuple(undefined.tolist()),
    )


def holm(p_M: Sequence[float]) -> list[float]:
    """Holm's corrected p values of M comparisons, in the order given; one that is NaN stays so and counts in M.

    >>> holm([0.01, 0.04, 0.03])
    [0.03, 0.06, 0.06]
    """
    corrected, least = [float("nan")] * len(p_M), 0.0
    defined = [place for place in range(len(p_M)) if not np.isnan(p_M[place])]
    for rank, place in enumerate(sorted(defined, key=lambda place: p_M[place])):
        least = max(least, min(1.0, (len(p_M) - rank) * p_M[place]))
        corrected[place] = least
    return corrected


def _figures(
    value_C: dict[tuple[str, Hashable], Array],
    draw_RC: dict[tuple[str, Hashable], Array],
    methods: Sequence[str],
    baseline: str,
    groups: Mapping[str, Sequence[int]],
    confidence: float,
) -> dict[str, MethodFigures]:
    defined = np.flatnonzero(~np.isnan(next(iter(value_C.values()))))
    seeds = {method: [seed for name, seed in value_C if name == method] for method in methods}
    mean_RC = {method: np.mean([draw_RC[method, seed] for seed in seeds[method]], axis=0) for method in methods}
    macro_R = {method: _mean(mean_RC[method], defined) for method in methods}
    by_seed = {method: {seed: macro(value_C[method, seed]) for seed in seeds[method]} for method in methods}
    overall = {method: _estimate(by_seed[method], macro_R[method], confidence) for method in methods}
    differences = _differences(overall, macro_R, baseline, confidence)
    figures = {}
    for method in methods:
        tiers = {}
        for name, columns in groups.items():
            known = [column for column in columns if column in defined]
            tier_by_seed = {seed: macro(value_C[method, seed][list(columns)]) for seed in seeds[method]}
            tiers[name] = _estimate(tier_by_seed, _mean(mean_RC[method], known), confidence)
        finding_C = np.mean([value_C[method, seed] for seed in seeds[method]], axis=0)
        figures[method] = MethodFigures(overall[method], tiers, finding_C, differences.get(method))
    return figures


def _differences(
    overall: dict[str, Estimate], macro_R: dict[str, Array], baseline: str, confidence: float
) -> dict[str, Difference]:
    others = [method for method in overall if method != baseline]
    draw_R = {method: macro_R[method] - macro_R[baseline] for method in others}
    p = {method: float(_two_sided_p(draw_R[method][:, None])[0]) for method in others}
    corrected = dict(zip(others, holm(list(p.values())), strict=True))
    base = overall[baseline]
    result = {}
    for method in others:
        (low,), (high,) = _interval(draw_R[method][:, None], confidence)
        shared = [seed for seed in overall[method].by_seed if seed in base.by_seed]
        result[method] = Difference(
            value=overall[method].mean - base.mean,
            low=float(low),
            high=float(high),
            p=p[method],
            p_corrected=corrected[method],
            by_seed={seed: overall[method].by_seed[seed] - base.by_seed[seed] for seed in shared},
            draws=int((~np.isnan(draw_R[method])).sum()),
        )
    return result


def _estimate(by_seed: dict[Hashable, float], draw_R: Array, confidence: float) -> Estimate:
    values = np.array(list(by_seed.values()))
    (low,), (high,) = _interval(draw_R[:, None], confidence)
    sd = float(values.std(ddof=1)) if len(values) > 1 else float("nan")
    return Estimate(float(values.mean()), sd, float(low), float(high), by_seed)


def _mean(draw_RC: Array, columns: Sequence[int]) -> Array:
    return draw_RC[:, columns].mean(axis=1) if len(columns) else np.full(len(draw_RC), np.nan)
