"""`Metric`, a line of the table `kernels.METRICS`, and `Measured`, what one of them is on one set of images.

N = images, C = findings.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hf_cxr.evaluation.cells import WeightedCells, rank
from hf_cxr.evaluation.checks import Array, check_probabilities, check_scores
from hf_cxr.evaluation.estimates import Estimate

Kernel = Callable[[WeightedCells], Array]
"""One finding's value under R sets of weights, (R,); NaN where undefined. See `kernels`."""


@dataclass(frozen=True)
class Metric:
    """A figure of the scores and labels of one finding.

    Attributes:
        key: its one name: in JSON, in the config, in the Trainer's logs (``eval_<key>``) and on the model card.
        title: of one finding's value, in print.
        macro_title: of the mean over findings, in print.
        kernel: see `kernels`.
        range: least and greatest value.
        higher_is_better: False for an error.
        chance: what a scorer that knows nothing reaches: a number, "prevalence", or None if there is no such level.
        kind: whether it reads the order of the scores, their values as probabilities, or the calls at a threshold.
        headline: shown in every table of findings, on the card, in comparisons and during training; the rest are
            shown in the report's own sections.
    """

    key: str
    title: str
    macro_title: str
    kernel: Kernel
    range: tuple[float, float] = (0.0, 1.0)
    higher_is_better: bool = True
    chance: float | Literal["prevalence"] | None = None
    kind: Literal["ranking", "probability", "decision"] = "ranking"
    headline: bool = False

    def measure(self, score_NC: ArrayLike, label_NC: ArrayLike, threshold_C: ArrayLike | None = None) -> Array:
        """Each finding's value on the full sample, (C,) float64; NaN where undefined.

        Args:
            score_NC: finite; probabilities, unless it is a ranking metric.
            label_NC: 1, 0 or NaN.
            threshold_C: for a decision metric: a score of at least this is called positive; NaN for no threshold.

        Raises:
            ValueError: shapes differ, a score is not finite or not a probability, or a label is not 0, 1 or NaN.
        """
        check = check_scores if self.kind == "ranking" else check_probabilities
        if threshold_C is not None:
            threshold_C = np.asarray(threshold_C, dtype=np.float64)
        return on_full_sample(self.kernel, *check(score_NC, label_NC), threshold_C)

    def chance_C(self, prevalence_C: Array) -> Array:
        """The chance level of each finding, (C,); NaN if there is none."""
        if self.chance == "prevalence":
            return prevalence_C
        return np.full(len(prevalence_C), np.nan if self.chance is None else self.chance)


def on_full_sample(kernel: Kernel, score_NC: Array, label_NC: Array, threshold_C: Array | None = None) -> Array:
    """A kernel's value of each finding with every row counted once, (C,); the arguments are taken as checked."""
    one_1N = np.ones((1, len(score_NC)), dtype=np.int64)
    threshold_C = np.full(score_NC.shape[1], np.nan) if threshold_C is None else threshold_C
    columns = zip(score_NC.T, label_NC.T, threshold_C, strict=True)
    value_C = [kernel(WeightedCells(rank(score, label), one_1N, threshold))[0] for score, label, threshold in columns]
    return np.array(value_C, dtype=np.float64)


@dataclass(frozen=True, eq=False)
class Measured:
    """One metric of one set of images: each finding and the macro mean, with percentile intervals.

    A mean is over the findings that are defined in the full sample.

    Attributes:
        value_C: on the full sample; NaN where undefined.
        low_C, high_C: percentile interval over draws of patients; NaN where no draw is defined.
        draws_C: number of draws that define the finding, int64.
        macro, macro_low, macro_high, macro_draws: the same for the macro mean.
        averages: further means by name, see `report.evaluate_predictions`.
    """

    value_C: Array
    low_C: Array
    high_C: Array
    draws_C: NDArray[np.int64]
    macro: float
    macro_low: float
    macro_high: float
    macro_draws: int
    averages: Mapping[str, Estimate] = field(default_factory=dict)

    @property
    def undefined_C(self) -> NDArray[np.bool_]:
        """The findings without a value, which the macro mean leaves out."""
        return np.isnan(self.value_C)

    @property
    def macro_interval(self) -> tuple[float, float, float]:
        """The macro mean and its interval: value, low, high."""
        return self.macro, self.macro_low, self.macro_high

    def interval(self, column: int) -> tuple[float, float, float]:
        """A finding's value and its interval: value, low, high."""
        return tuple(float(array_C[column]) for array_C in (self.value_C, self.low_C, self.high_C))

    def to_dict(self, label_names: Sequence[str]) -> dict[str, Any]:
        """For JSON: macro figures, ``value``, ``low``, ``high`` and ``draws`` by finding, ``undefined``, ``averages``.

        NaN stays NaN here; `files.plain` makes it None.
        """
        macro = {name: getattr(self, name) for name in ("macro", "macro_low", "macro_high", "macro_draws")}
        findings = {name: by_finding(getattr(self, f"{name}_C"), label_names) for name in PER_FINDING}
        undefined = [name for name, missing in zip(label_names, self.undefined_C, strict=True) if missing]
        averages = {name: average.to_dict() for name, average in self.averages.items()}
        return {**macro, **findings, "undefined": undefined} | ({"averages": averages} if averages else {})

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], label_names: Sequence[str]) -> "Measured":
        """The inverse of `to_dict`; None is read as NaN."""
        macro = {name: as_number(values[name]) for name in ("macro", "macro_low", "macro_high")}
        findings = {f"{name}_C": from_findings(values[name], label_names) for name in PER_FINDING}
        findings["draws_C"] = findings["draws_C"].astype(np.int64)
        averages = {
            name: Estimate(*(as_number(one[end]) for end in ("value", "low", "high")), one["draws"])
            for name, one in (values.get("averages") or {}).items()
        }
        return cls(**findings, **macro, macro_draws=values["macro_draws"], averages=averages)


PER_FINDING = ("value", "low", "high", "draws")


def by_finding(value_C: NDArray, label_names: Sequence[str]) -> dict[str, Any]:
    """Values by name of the finding, as plain Python numbers."""
    return dict(zip(label_names, value_C.tolist(), strict=True))


def from_findings(values: Mapping[str, Any], label_names: Sequence[str]) -> Array:
    """The inverse of `by_finding`, float64; None is read as NaN."""
    return np.array([as_number(values[name]) for name in label_names], dtype=np.float64)


def as_number(value: float | None) -> float:
    """None, by which JSON says undefined, as NaN."""
    return float("nan") if value is None else float(value)
