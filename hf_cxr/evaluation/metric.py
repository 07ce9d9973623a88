"""`METRICS`, the table of metrics, and `Measured`, what one of them is on one set of images.

Adding a metric is one kernel (`kernels`) and one line in `METRICS`: evaluation, its JSON, tables, cards, validation
during training, the choice of the best checkpoint, comparison and ensemble all loop over this table.

    METRICS["ap"].measure(score_NC, label_NC)        # (C,), on the full sample
    report.measured["all"]["ap"].macro               # of `evaluate_predictions`, with intervals

N = images, C = findings.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hf_cxr.evaluation import kernels
from hf_cxr.evaluation.checks import Array, check_scores


@dataclass(frozen=True)
class Metric:
    """A metric of how the scores of one finding rank its images.

    Attributes:
        key: its one name: in JSON, in the config, in the Trainer's logs (``eval_<key>``) and on the model card.
        title: of one finding's value, in print.
        macro_title: of the mean over findings, in print.
        kernel: see `kernels`.
        range: least and greatest value.
        higher_is_better: False for an error.
        chance: what a scorer that knows nothing reaches: a number, "prevalence", or None if there is no such level.
    """

    key: str
    title: str
    macro_title: str
    kernel: kernels.Kernel
    range: tuple[float, float] = (0.0, 1.0)
    higher_is_better: bool = True
    chance: float | Literal["prevalence"] | None = None

    def measure(self, score_NC: ArrayLike, label_NC: ArrayLike) -> Array:
        """Each finding's value on the full sample, (C,) float64; NaN where undefined.

        Raises:
            ValueError: shapes differ, a score is not finite, or a label is not 0, 1 or NaN.
        """
        return kernels.on_full_sample(self.kernel, *check_scores(score_NC, label_NC))

    def chance_C(self, prevalence_C: Array) -> Array:
        """The chance level of each finding, (C,); NaN if there is none."""
        if self.chance == "prevalence":
            return prevalence_C
        return np.full(len(prevalence_C), np.nan if self.chance is None else self.chance)


METRICS: dict[str, Metric] = {
    metric.key: metric
    for metric in (
        Metric("auc", "AUC", "macro AUC", kernels.auc, chance=0.5),
        Metric("ap", "AP", "mAP", kernels.ap, chance="prevalence"),
    )
}

# What earlier versions called them.
OLD_KEYS = {"macro_auc": "auc", "roc_auc": "auc", "mean_average_precision": "ap", "average_precision": "ap"}


def metric_key(name: str, *, also: Sequence[str] = ()) -> str:
    """The key of a metric in `METRICS`, or one of ``also``, from the key or the Trainer's ``eval_<key>``.

    Raises:
        ValueError: the name is unknown; the message gives the names to choose from, or the new name of an old one.

    >>> metric_key("eval_ap"), metric_key("loss", also=("loss",))
    ('ap', 'loss')
    """
    key = str(name).removeprefix("eval_")
    known = (*METRICS, *also)
    if key in known:
        return key
    hint = f"its name is now {OLD_KEYS[key]}" if key in OLD_KEYS else f"choose from {', '.join(known)}"
    raise ValueError(f"{name} is not a metric: {hint}")


@dataclass(frozen=True, eq=False)
class Measured:
    """One metric of one set of images: each finding and the macro mean, with percentile intervals.

    The macro mean is over the findings that are defined in the full sample.

    Attributes:
        value_C: on the full sample; NaN where undefined.
        low_C, high_C: percentile interval over draws of patients; NaN where no draw is defined.
        draws_C: number of draws that define the finding, int64.
        macro, macro_low, macro_high, macro_draws: the same for the macro mean.
    """

    value_C: Array
    low_C: Array
    high_C: Array
    draws_C: NDArray[np.int64]
    macro: float
    macro_low: float
    macro_high: float
    macro_draws: int

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
        """For JSON: macro figures, then ``value``, ``low``, ``high`` and ``draws`` by finding, then ``undefined``.

        NaN stays NaN here; `files.plain` makes it None.
        """
        macro = {name: getattr(self, name) for name in ("macro", "macro_low", "macro_high", "macro_draws")}
        findings = {name: by_finding(getattr(self, f"{name}_C"), label_names) for name in PER_FINDING}
        undefined = [name for name, missing in zip(label_names, self.undefined_C, strict=True) if missing]
        return {**macro, **findings, "undefined": undefined}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], label_names: Sequence[str]) -> "Measured":
        """The inverse of `to_dict`; None is read as NaN."""
        macro = {name: as_number(values[name]) for name in ("macro", "macro_low", "macro_high")}
        findings = {f"{name}_C": from_findings(values[name], label_names) for name in PER_FINDING}
        findings["draws_C"] = findings["draws_C"].astype(np.int64)
        return cls(**findings, **macro, macro_draws=values["macro_draws"])


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
