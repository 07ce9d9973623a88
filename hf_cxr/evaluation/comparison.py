"""Comparison of methods that were each trained with several seeds, on the same test images.

The figure of a method is the mean over its seeds of the macro mean over findings. Differences to the baseline are
paired: in each draw of patients every run of every method is measured on the same patients, so what they share
cancels. Several comparisons with one baseline are corrected by Holm's step-down procedure, for each metric by itself;
those within groups of findings (head, medium, tail) are a family of their own, all methods and groups together.

Two spreads that must not be mixed up: the standard deviation over seeds says how much a figure moves when training is
repeated and the test patients stay; the interval says how much it moves with other test patients while the trained
models stay. Neither covers the other.

N = images, C = findings, R = draws. A finding that a metric does not define in the full sample is left out of its
means; a draw in which a finding of the mean is undefined has no mean (see `bootstrap`).

Refused: a baseline that is not among the methods, a method without a run, whatever `bootstrap_metrics` refuses.

Source: Holm, Scandinavian Journal of Statistics 6 (1979).
"""

from collections.abc import Collection, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from hf_cxr.evaluation.bootstrap import (
    CONFIDENCE,
    Sample,
    check_confidence,
    draw_samples,
    mean_over,
    number_patients,
    percentile_interval,
    two_sided_p,
)
from hf_cxr.evaluation.checks import Array, check_scores
from hf_cxr.evaluation.metrics import counts, macro

COMPARED_RESAMPLES = 2000
"""By default; a comparison keeps the draws of all its runs, so there are fewer than of one set of figures."""

LEAST_DRAWS = 0.5
"""The share of draws that must define a difference before it is tested."""


@dataclass(frozen=True)
class OverSeeds:
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

    ``finding_C`` is the mean over seeds, NaN where undefined. ``difference`` is None for the baseline, and
    ``group_differences``, of the groups that were tested, are empty.
    """

    overall: OverSeeds
    groups: dict[str, OverSeeds]
    finding_C: Array
    difference: Difference | None
    group_differences: dict[str, Difference]


@dataclass(frozen=True, eq=False)
class Comparison:
    """Every metric of every method, in the order given.

    Attributes:
        figures: key of a metric -> method -> its figures.
        undefined: columns of the findings whose known cells hold one label value only.
    """

    figures: dict[str, dict[str, MethodFigures]]
    baseline: str
    confidence: float
    resamples: int
    n_images: int
    n_patients: int
    undefined: tuple[int, ...]


def compare_methods(
    scores: Mapping[str, Mapping[Hashable, ArrayLike]],
    label_NC: ArrayLike,
    patient_ids_N: Sequence[Any],
    *,
    baseline: str,
    groups: Mapping[str, Sequence[int]] | None = None,
    tested: Collection[str] | None = None,
    resamples: int = COMPARED_RESAMPLES,
    confidence: float = CONFIDENCE,
    rng: np.random.Generator,
) -> Comparison:
    """Measure methods with several seeds each, and each one's difference to the baseline.

    Args:
        scores: for each method, for each seed, (N, C) finite scores of the same images.
        label_NC: 1, 0 or NaN.
        patient_ids_N: one id an image; none may be missing.
        baseline: the method that the others are compared with.
        groups: columns of findings whose mean is wanted as well, such as head, medium and tail.
        tested: names of the groups within which methods are compared as well; by default all of them.
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
    check_confidence(confidence)
    keys = [(method, seed) for method, runs in scores.items() for seed in runs]
    checked = [check_scores(scores[method][seed], label_NC) for method, seed in keys]
    label_NC = checked[0][1]
    patient_N, n_patients = number_patients(patient_ids_N, len(label_NC))
    drawn = draw_samples(checked, patient_N, n_patients, resamples, rng)
    positives_C, negatives_C, _ = counts(label_NC)
    return Comparison(
        figures={
            metric: _figures(
                {key: samples[metric] for key, samples in zip(keys, drawn, strict=True)},
                list(scores),
                baseline,
                groups or {},
                tested,
                confidence,
            )
            for metric in drawn[0]
        },
        baseline=baseline,
        confidence=confidence,
        resamples=resamples,
        n_images=len(label_NC),
        n_patients=n_patients,
        undefined=tuple(np.flatnonzero((positives_C == 0) | (negatives_C == 0)).tolist()),
    )


def is_testable(draws: float, resamples: int) -> bool:
    """Whether enough draws define a difference, such as of a mean that lacks a finding in some, to test it.

    Args:
        draws: those that define it; NaN, where it is undefined, is not enough.
        resamples: all of them.
    """
    return draws >= LEAST_DRAWS * resamples


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
    samples: Mapping[tuple[str, Hashable], Sample],
    methods: Sequence[str],
    baseline: str,
    groups: Mapping[str, Sequence[int]],
    tested: Collection[str] | None,
    confidence: float,
) -> dict[str, MethodFigures]:
    """One metric of every method, from the metric's sample of each method and seed."""
    seeds = {method: [seed for name, seed in samples if name == method] for method in methods}
    mean_RC = {
        method: np.mean([samples[method, seed].draw_RC for seed in seeds[method]], axis=0) for method in methods
    }
    value_C = {key: sample.value_C for key, sample in samples.items()}
    defined = np.flatnonzero(~np.isnan(next(iter(value_C.values()))))

    def measured(columns: Sequence[int]) -> dict[str, tuple[OverSeeds, Array]]:
        """Each method's estimate over some findings, and its draws."""
        known = [column for column in columns if column in defined]
        result = {}
        for method in methods:
            by_seed = {seed: macro(value_C[method, seed][list(columns)]) for seed in seeds[method]}
            draw_R = mean_over(mean_RC[method], known)
            result[method] = _estimate(by_seed, draw_R, confidence), draw_R
        return result

    overall = measured(range(len(next(iter(value_C.values())))))
    grouped = {name: measured(columns) for name, columns in groups.items()}
    difference = _differences({"": overall}, baseline, confidence)
    wanted = {name: of_method for name, of_method in grouped.items() if tested is None or name in tested}
    group_difference = _differences(wanted, baseline, confidence)
    return {
        method: MethodFigures(
            overall=overall[method][0],
            groups={name: of_method[method][0] for name, of_method in grouped.items()},
            finding_C=np.mean([value_C[method, seed] for seed in seeds[method]], axis=0),
            difference=difference.get(("", method)),
            group_differences={name: group_difference[name, method] for name in wanted if method != baseline},
        )
        for method in methods
    }


def _differences(
    groups: Mapping[str, Mapping[str, tuple[OverSeeds, Array]]], baseline: str, confidence: float
) -> dict[tuple[str, str], Difference]:
    """(group, method) -> its difference to the baseline; the p values of all of them are one family."""
    keys = [(group, method) for group, methods in groups.items() for method in methods if method != baseline]
    draw_R = {(group, method): groups[group][method][1] - groups[group][baseline][1] for group, method in keys}
    p = {key: float(two_sided_p(draw_R[key][:, None])[0]) for key in keys}
    corrected = dict(zip(keys, holm(list(p.values())), strict=True))
    result = {}
    for group, method in keys:
        (low,), (high,) = percentile_interval(draw_R[group, method][:, None], confidence)
        own, base = groups[group][method][0], groups[group][baseline][0]
        shared = [seed for seed in own.by_seed if seed in base.by_seed]
        result[group, method] = Difference(
            value=own.mean - base.mean,
            low=float(low),
            high=float(high),
            p=p[group, method],
            p_corrected=corrected[group, method],
            by_seed={seed: own.by_seed[seed] - base.by_seed[seed] for seed in shared},
            draws=int((~np.isnan(draw_R[group, method])).sum()),
        )
    return result


def _estimate(by_seed: dict[Hashable, float], draw_R: Array, confidence: float) -> OverSeeds:
    values = np.array(list(by_seed.values()))
    (low,), (high,) = percentile_interval(draw_R[:, None], confidence)
    sd = float(values.std(ddof=1)) if len(values) > 1 else float("nan")
    return OverSeeds(float(values.mean()), sd, float(low), float(high), by_seed)
