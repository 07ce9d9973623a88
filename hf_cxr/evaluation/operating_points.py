"""Operating points: a threshold for each finding, chosen on validation, and what calls at it are worth on test.

    points = choose_operating_points(validation_prob_NC, validation_label_NC, rule="f1", label_names=names)
    measured = measure_operating_points(test_prob_NC, test_label_NC, draws, points, label_names=names)

An image is called positive where its probability is at least the threshold. `threshold_rules` has the rules, and says
why the calls of a model in float32 are those that were measured. config.json holds each threshold in full.

A finding without a known positive or a known negative on validation has no operating point, and neither has one whose
target no threshold reaches. Both are None, and named in ``without``.

N = images, C = findings, R = draws of patients.

Refused: probabilities outside [0, 1], an unknown rule, a target that its rule does not take.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import expit, logit

from hf_cxr.evaluation.bootstrap import Sample
from hf_cxr.evaluation.checks import Array, check_probabilities
from hf_cxr.evaluation.decision import (
    DECISIONS,
    Decision,
    called_share,
    calls_per_positive,
    confusion_cells,
    count_calls,
    sensitivity,
    specificity,
)
from hf_cxr.evaluation.draws import CONFIDENCE, PatientDraws, check_measured, percentile_interval
from hf_cxr.evaluation.metric import Measured, by_finding
from hf_cxr.evaluation.threshold_rules import (
    DEFAULT_RULE,
    check_rule,
    choose_threshold,
    describe_rule,
    is_number,
    redrawn_thresholds,
)
from hf_cxr.files import plain
from hf_cxr.labels import LabelSpace

FIGURES = {**DECISIONS, "called_share": called_share, "calls_per_positive": calls_per_positive}
"""What is measured at an operating point: key -> formula of the four counts."""

COUNTS = ("true_positives", "false_positives", "true_negatives", "false_negatives")

HALF = "0.5"
"""The name under which a threshold of 0.5 for every finding is measured."""


@dataclass(frozen=True)
class OperatingPoint:
    """The threshold of one finding, and how it was chosen.

    Attributes:
        threshold: an image is called positive where its probability is at least this.
        rule: a key of `RULES`.
        target: of the rule; None where it has none.
        sensitivity, specificity: on validation; optimistic, because the threshold was chosen there.
        positives, negatives: known validation images of each kind, at least 1.

    Raises:
        ValueError: a value is not what this says.
    """

    threshold: float
    rule: str
    target: float | None
    sensitivity: float
    specificity: float
    positives: int
    negatives: int

    def __post_init__(self) -> None:
        check_rule(self.rule, self.target)
        for name in ("threshold", "sensitivity", "specificity"):
            value = getattr(self, name)
            if not (is_number(value) and 0 <= value <= 1):
                raise ValueError(f"{name} is {value!r}; it must be a number between 0 and 1")
        for name in ("positives", "negatives"):
            value = getattr(self, name)
            if not (isinstance(value, int) and not isinstance(value, bool) and value >= 1):
                raise ValueError(f"{name} is {value!r}; it must be a whole number of at least 1")

    @property
    def words(self) -> str:
        """What the threshold aims at."""
        return describe_rule(self.rule, self.target)


@dataclass(frozen=True)
class OperatingPoints:
    """The operating point of each finding; None where it has none.

    Attributes:
        by_finding: finding -> operating point or None, in the order of the findings.
    """

    by_finding: Mapping[str, OperatingPoint | None]

    @property
    def without(self) -> tuple[str, ...]:
        """The findings that have no operating point."""
        return tuple(name for name, point in self.by_finding.items() if point is None)

    @property
    def words(self) -> str:
        """What the thresholds aim at, each rule once."""
        return "; ".join(dict.fromkeys(point.words for point in self.by_finding.values() if point is not None))

    def threshold_C(self, label_names: Sequence[str]) -> Array:
        """The threshold of each of these findings, (C,) float64; NaN where there is none."""
        points = [self.by_finding.get(name) for name in label_names]
        return np.array([math.nan if point is None else point.threshold for point in points], dtype=np.float64)

    def mapped(self, label_names: Sequence[str], slope_C: ArrayLike, intercept_C: ArrayLike) -> "OperatingPoints":
        """The points of a model whose logits are slope * logit + intercept: the same calls, image by image.

        For a model whose calibration or assumed prevalence is replaced while its calls are to stay. Sensitivity and
        specificity stay too. A rule that depends on the prevalence (F1, cost) may then prefer another threshold, and
        "bayes" keeps its own, which is right for the probabilities as they are now.

        Args:
            label_names: of the C findings, with every finding that has a point.
            slope_C: above 0.
            intercept_C: finite.

        Raises:
            ValueError: lengths that differ, a finding that is missing, a slope or intercept that is not as above.
        """
        slope_C, intercept_C = np.asarray(slope_C, np.float64), np.asarray(intercept_C, np.float64)
        if not (slope_C.shape == intercept_C.shape == (len(label_names),)):
            raise ValueError(f"expected {len(label_names)} slopes and intercepts; got {slope_C.shape}")
        if not (np.isfinite(intercept_C) & np.isfinite(slope_C) & (slope_C > 0)).all():
            raise ValueError("expected finite intercepts and finite slopes above 0")
        missing = [name for name, point in self.by_finding.items() if point is not None and name not in label_names]
        if missing:
            raise ValueError(f"no slope and intercept for {', '.join(missing)}")
        maps = dict(zip(label_names, zip(slope_C, intercept_C, strict=True), strict=True))

        def moved(name: str, point: OperatingPoint | None) -> OperatingPoint | None:
            if point is None or point.rule == "bayes":
                return point
            slope, intercept = maps[name]
            return replace(point, threshold=float(expit(slope * logit(point.threshold) + intercept)))

        return OperatingPoints({name: moved(name, point) for name, point in self.by_finding.items()})

    def to_dict(self) -> dict[str, dict[str, Any] | None]:
        """For JSON: finding -> threshold, rule, target, and what it reached on validation; None without a point."""
        return {name: point and dict(vars(point)) for name, point in self.by_finding.items()}

    @classmethod
    def from_dict(cls, values: Any) -> "OperatingPoints":
        """Read what `to_dict` gave.

        Raises:
            ValueError: it is not operating points; the message names the finding and the value.
        """
        if not isinstance(values, Mapping):
            raise ValueError(f"operating points must be a mapping of findings; got {values!r:.40}")
        return cls({name: value and _point(name, value) for name, value in values.items()})


def _point(name: str, value: Any) -> OperatingPoint:
    fields = OperatingPoint.__dataclass_fields__
    if not isinstance(value, Mapping):
        raise ValueError(f"operating point of {name} is {value!r:.40}; it must have {', '.join(fields)}")
    missing = [field for field in fields if field not in value]
    if missing:
        raise ValueError(f"operating point of {name} has no {', '.join(missing)}")
    try:
        return OperatingPoint(**{field: value[field] for field in fields})  # a later version may have written more
    except ValueError as error:
        raise ValueError(f"operating point of {name}: {error}") from error


def choose_operating_points(
    prob_NC: ArrayLike,
    label_NC: ArrayLike,
    *,
    rule: str = DEFAULT_RULE,
    target: float | None = None,
    label_names: Sequence[str] | None = None,
) -> OperatingPoints:
    """Choose a threshold for each finding, on its known validation cells.

    Args:
        prob_NC: in [0, 1], of the model that is to be used; never of the images that it is then measured on.
        label_NC: 1, 0 or NaN.
        rule: a key of `RULES`.
        target: the sensitivity or specificity to reach; for "cost" and "bayes" the cost of a missed positive divided
            by that of a false positive. The prevalence is that of validation.
        label_names: C names; "finding_0", ... if left out.

    Returns:
        None for a finding without a known positive or a known negative, and where no threshold reaches the target (a
        specificity, if negatives have a probability of 1).

    Raises:
        ValueError: bad probabilities or labels (see `checks`), or a rule or a target that is refused.
    """
    check_rule(rule, target)
    prob_NC, label_NC = check_probabilities(prob_NC, label_NC)
    names = tuple(LabelSpace(label_names or [f"finding_{column}" for column in range(label_NC.shape[1])]))
    if len(names) != label_NC.shape[1]:
        raise ValueError(f"{len(names)} label names for {label_NC.shape[1]} findings")
    points: dict[str, OperatingPoint | None] = {}
    for name, prob_N, label_N in zip(names, prob_NC.T, label_NC.T, strict=True):
        known_N = ~np.isnan(label_N)
        prob_K, positive_K = prob_N[known_N], label_N[known_N] == 1
        both = positive_K.any() and not positive_K.all()
        threshold = choose_threshold(prob_K, positive_K, rule, target) if both else None
        points[name] = None if threshold is None else _reached(prob_K, positive_K, threshold, rule, target)
    return OperatingPoints(points)


def _reached(
    prob_K: Array, positive_K: NDArray[np.bool_], threshold: float, rule: str, target: float | None
) -> OperatingPoint:
    (tp, fp, tn, fn) = counts = confusion_cells(prob_K >= threshold, positive_K).sum(axis=1)
    reached = float(sensitivity(*counts)), float(specificity(*counts))
    return OperatingPoint(threshold, rule, target, *reached, positives=int(tp + fn), negatives=int(fp + tn))


def threshold_intervals(
    prob_NC: ArrayLike,
    label_NC: ArrayLike,
    draws: PatientDraws,
    points: OperatingPoints,
    *,
    label_names: Sequence[str],
    confidence: float = CONFIDENCE,
) -> dict[str, tuple[float, float] | None]:
    """How much each threshold varies with the patients of validation: it is chosen again in every draw of them.

    Args:
        prob_NC, label_NC: of validation, from which ``points`` were chosen.
        draws: of the patients of these N images; 200 are enough.
        points: each chosen again by its own rule and target.
        label_names: of the C columns.
        confidence: of the intervals.

    Returns:
        Finding -> low and high; None where it has no point.

    Raises:
        ValueError: bad probabilities or labels (see `checks`), or lengths that differ.
    """
    prob_NC, label_NC, names = check_measured(prob_NC, label_NC, draws, label_names, confidence)
    intervals: dict[str, tuple[float, float] | None] = dict.fromkeys(names)
    chosen = [(column, points.by_finding.get(name)) for column, name in enumerate(names)]
    threshold_RC = np.full((draws.resamples, len(chosen)), np.nan)
    for rows, weight_RM in draws.blocks():
        weight_RN = draws.per_image(weight_RM)
        for column, point in chosen:
            if point is not None:
                known_N = ~np.isnan(label_NC[:, column])
                prob_K, positive_K = prob_NC[known_N, column], label_NC[known_N, column] == 1
                threshold_RC[rows, column] = redrawn_thresholds(
                    prob_K, positive_K, weight_RN[:, known_N], point.rule, point.target
                )
    low_C, high_C = percentile_interval(threshold_RC, confidence)
    for column, point in chosen:
        if point is not None and not np.isnan(low_C[column]):
            intervals[names[column]] = float(low_C[column]), float(high_C[column])
    return intervals


@dataclass(frozen=True, eq=False)
class MeasuredOperatingPoints:
    """What the calls at several sets of thresholds are worth on one set of images.

    Attributes:
        label_names: C findings.
        points: the operating points, measured under "chosen".
        rules: set of thresholds -> what it aims at, in words: "chosen", "0.5", and those that were compared.
        threshold_C: set -> (C,) float64, NaN without a point.
        threshold_interval: finding -> low and high of the chosen threshold, see `threshold_intervals`; None without.
        count_C: set -> one of `COUNTS` -> (C,) float64, numbers of images; NaN without a point.
        measured: set -> a key of `FIGURES` -> value and interval of each finding, of the macro mean, and of the counts
            of all findings with a threshold together (the average "micro").
        images, patients, confidence, resamples: of the measurement.
    """

    label_names: LabelSpace
    points: OperatingPoints
    rules: Mapping[str, str]
    threshold_C: Mapping[str, Array]
    threshold_interval: Mapping[str, tuple[float, float] | None] | None
    count_C: Mapping[str, Mapping[str, Array]]
    measured: Mapping[str, Mapping[str, Measured]]
    images: int
    patients: int
    confidence: float
    resamples: int

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON: the points and, by set of thresholds, thresholds, counts and figures by finding."""
        names = self.label_names
        sets = {
            key: {
                "rule": self.rules[key],
                "threshold": by_finding(self.threshold_C[key], names),
                **{count: by_finding(value_C, names) for count, value_C in self.count_C[key].items()},
                **{figure: one.to_dict(names) for figure, one in self.measured[key].items()},
            }
            for key in self.rules
        }
        return plain(
            {
                "label_names": list(names),
                "images": self.images,
                "patients": self.patients,
                "confidence": self.confidence,
                "resamples": self.resamples,
                "points": self.points.to_dict(),
                "threshold_interval": self.threshold_interval,
                "without": [name for name in names if self.points.by_finding.get(name) is None],
                "sets": sets,
            }
        )


def measure_operating_points(
    prob_NC: ArrayLike,
    label_NC: ArrayLike,
    draws: PatientDraws,
    points: OperatingPoints,
    *,
    label_names: Sequence[str],
    confidence: float = CONFIDENCE,
    compared: Mapping[str, OperatingPoints] | None = None,
    threshold_interval: Mapping[str, tuple[float, float] | None] | None = None,
) -> MeasuredOperatingPoints:
    """Confusion counts and every figure in `FIGURES` at the chosen thresholds, at 0.5, and at others to compare.

    The thresholds are taken as fixed: the intervals say how much the figures vary with the patients of the test set,
    not how much the thresholds vary with those of validation.

    Args:
        prob_NC: in [0, 1], of images that had no part in the choice.
        label_NC: 1, 0 or NaN.
        draws: of the patients of these N images.
        points: chosen on validation; matched by the names of the findings.
        label_names: of the C columns.
        confidence: of the intervals.
        compared: further points by name, such as those of another rule.
        threshold_interval: from `threshold_intervals`, where validation is available; for the reader, next to the
            threshold.

    Raises:
        ValueError: bad probabilities or labels (see `checks`), or lengths that differ.
    """
    prob_NC, label_NC, names = check_measured(prob_NC, label_NC, draws, label_names, confidence)
    sets = {"chosen": points, **(compared or {})}
    if HALF in sets:
        raise ValueError(f"compared points cannot be named {HALF!r}: it is always measured; choose another name")
    threshold_C = {key: one.threshold_C(names) for key, one in sets.items()} | {HALF: np.full(len(names), 0.5)}
    rules = {key: one.words for key, one in sets.items()} | {HALF: "a threshold of 0.5 for every finding"}
    count_C, measured = {}, {}
    for key, one_C in threshold_C.items():
        (counted,) = count_calls(prob_NC >= one_C, [label_NC], draws)
        count_4C, draw_4RC = (np.where(np.isnan(one_C), np.nan, one) for one in counted)
        count_C[key] = dict(zip(COUNTS, count_4C, strict=True))
        measured[key] = {name: _sample(of, count_4C, draw_4RC).measured(confidence) for name, of in FIGURES.items()}
    return MeasuredOperatingPoints(
        names,
        points,
        rules,
        threshold_C,
        threshold_interval,
        count_C,
        measured,
        images=len(prob_NC),
        patients=draws.n_patients,
        confidence=confidence,
        resamples=draws.resamples,
    )


def _sample(of: Decision, count_4C: Array, draw_4RC: Array) -> Sample:
    """One figure of each finding, and of the counts of all findings with a threshold together."""
    micro = Sample(of(*np.nansum(count_4C, axis=1, keepdims=True)), of(*np.nansum(draw_4RC, axis=2, keepdims=True)))
    return Sample(of(*count_4C), of(*draw_4RC), pooled=micro)
