"""`evaluate_predictions`: every figure of a set of predictions, with its interval, for all images and for subsets.

    report = evaluate_predictions(predictions.probabilities, predictions.labels, predictions.patient_ids)
    report.measured["all"]["auc"].macro_interval           # value, low, high
    report.measured["all"]["ap"].interval(report.label_names.index("Hernia"))

A report is keyed by subset and by metric. A subset is a named set of rows, such as "view=AP"; "all" is always there
and comes first. All subsets and metrics are measured in the same draws of patients.

N = images, C = findings.

Refused: scores outside [0, 1], because log loss, Brier score, calibration error and a threshold have no meaning on
logits; a missing patient id; a subset of fewer than two patients; a threshold outside [0, 1].
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hf_cxr.evaluation import metrics
from hf_cxr.evaluation.bootstrap import draw_samples
from hf_cxr.evaluation.checks import Array, check_probabilities
from hf_cxr.evaluation.draws import CONFIDENCE, INTERVAL, RESAMPLES, Interval, Intervals, number_patients
from hf_cxr.evaluation.kernels import METRICS
from hf_cxr.evaluation.metric import Measured, by_finding, from_findings
from hf_cxr.files import plain
from hf_cxr.labels import LabelSpace
from hf_cxr.words import plural

PER_FINDING = ("positives", "positive_patients", "negatives", "unknown")
SETTINGS = ("confidence", "resamples", "method")


@dataclass(frozen=True, eq=False)
class Counts:
    """What a set of images holds.

    Attributes:
        images, patients: how many.
        positives_C, negatives_C, unknown_C: cells of each finding, int64.
        positive_patients_C: patients with a positive image: with few of them, intervals are too narrow.
    """

    images: int
    patients: int
    positives_C: NDArray[np.int64]
    positive_patients_C: NDArray[np.int64]
    negatives_C: NDArray[np.int64]
    unknown_C: NDArray[np.int64]

    @classmethod
    def of(cls, label_NC: Array, patient_N: NDArray[np.int64]) -> "Counts":
        """Counted from labels and the number of each image's patient."""
        positives_C, negatives_C, unknown_C = metrics.counts(label_NC)
        patients_C = np.array(
            [len(np.unique(patient_N[present_N])) for present_N in (label_NC == 1).T], dtype=np.int64
        )
        return cls(len(label_NC), len(np.unique(patient_N)), positives_C, patients_C, negatives_C, unknown_C)

    @property
    def prevalence_C(self) -> Array:
        """Share of positives among known cells; NaN where none is known."""
        with np.errstate(invalid="ignore"):
            return self.positives_C / (self.positives_C + self.negatives_C)

    @property
    def both_C(self) -> NDArray[np.bool_]:
        """The findings with a known positive and a known negative, without which no ranking metric is defined."""
        return (self.positives_C > 0) & (self.negatives_C > 0)

    def to_dict(self, label_names: Sequence[str]) -> dict[str, Any]:
        """For JSON: images, patients, and the other counts and the prevalence by finding."""
        names = (*PER_FINDING, "prevalence")
        cells = {name: by_finding(getattr(self, f"{name}_C"), label_names) for name in names}
        return {"images": self.images, "patients": self.patients, **cells}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], label_names: Sequence[str]) -> "Counts":
        """The inverse of `to_dict`."""
        cells = {f"{name}_C": from_findings(values[name], label_names).astype(np.int64) for name in PER_FINDING}
        return cls(images=values["images"], patients=values["patients"], **cells)


@dataclass(frozen=True, eq=False)
class EvaluationReport:
    """The figures of one set of predictions.

    Attributes:
        label_names: of the C findings, in the order of every ``_C`` array.
        measured: subset -> key of a metric -> its values and intervals.
        counts: subset -> what it holds.
        confidence: of the intervals.
        resamples: draws of patients.
        method: in words, how the figures and the intervals were obtained.
    """

    label_names: LabelSpace
    measured: dict[str, dict[str, Measured]]
    counts: dict[str, Counts]
    confidence: float
    resamples: int
    method: str

    def headline(self, subset: str = "all") -> dict[str, Measured]:
        """The headline metrics of a subset, by key."""
        return {key: one for key, one in self.measured[subset].items() if METRICS[key].headline}

    def undefined(self, subset: str = "all") -> tuple[str, ...]:
        """The findings whose known cells hold one label value only: no ranking metric is defined for them."""
        both_C = self.counts[subset].both_C
        return tuple(name for name, both in zip(self.label_names, both_C, strict=True) if not both)

    def chance(self, key: str, subset: str = "all") -> tuple[Array, float]:
        """What knowing nothing reaches by a metric: each finding (C,), and the mean over the defined findings."""
        chance_C = METRICS[key].chance_C(self.counts[subset].prevalence_C)
        return chance_C, metrics.macro(chance_C[~self.measured[subset][key].undefined_C])

    def to_dict(self) -> dict[str, Any]:
        """Plain Python for JSON, NaN as None: ``label_names`` and the method, then each subset.

        A subset holds each metric by its key (`Measured.to_dict`) and ``counts``.
        """
        subsets = {
            subset: {
                **{key: measured.to_dict(self.label_names) for key, measured in by_key.items()},
                "counts": self.counts[subset].to_dict(self.label_names),
            }
            for subset, by_key in self.measured.items()
        }
        settings = {name: getattr(self, name) for name in SETTINGS}
        return plain({"label_names": list(self.label_names), **settings, **subsets})

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "EvaluationReport":
        """The inverse of `to_dict`; `older.modern_figures` converts what versions before wrote."""
        names = LabelSpace(values["label_names"])
        subsets = {key: value for key, value in values.items() if isinstance(value, Mapping)}
        return cls(
            label_names=names,
            measured={
                subset: {key: Measured.from_dict(value, names) for key, value in figures.items() if key != "counts"}
                for subset, figures in subsets.items()
            },
            counts={subset: Counts.from_dict(figures["counts"], names) for subset, figures in subsets.items()},
            **{name: values[name] for name in SETTINGS},
        )


def evaluate_predictions(
    scores: ArrayLike,
    labels: ArrayLike,
    patient_ids: Sequence[Any],
    *,
    label_names: Sequence[str] | None = None,
    subsets: Mapping[str, ArrayLike] | None = None,
    thresholds: ArrayLike | None = None,
    tiers: Mapping[str, Sequence[int]] | None = None,
    interval: Interval = INTERVAL,
    resamples: int = RESAMPLES,
    confidence: float = CONFIDENCE,
    seed: int = 0,
) -> EvaluationReport:
    """Measure predictions: every metric in `METRICS` with patient-clustered intervals.

    Besides the macro mean, each metric has the averages "micro" (all cells together; for decision metrics the sums of
    the counts), "weighted" (each finding by its number of positives) and those of ``tiers``.

    Args:
        scores: (N, C) probabilities in [0, 1].
        labels: (N, C) of 1, 0, or NaN for unknown.
        patient_ids: N ids; none may be missing. At least two patients.
        label_names: C unique names; "finding_0", ... if left out.
        subsets: name -> (N,) bool, the rows of a subset that is measured as well, such as {"view=AP": view == "AP"}.
            Their figures come from the same draws of patients as those of all images.
        thresholds: (C,) operating points in [0, 1], NaN where a finding has none: a probability of at least this is
            called positive. Without them there are no decision metrics.
        tiers: name -> columns of the findings whose mean is wanted too, such as those that are rare in training.
        interval: "percentile", or "bca" for bias-corrected and accelerated intervals, at some 40 % more time.
        resamples: draws of patients.
        confidence: of the intervals, in (0, 1).
        seed: of the draws; the same seed gives the same report.

    Raises:
        ValueError: scores outside [0, 1] or not finite, invalid labels, shapes that differ, a missing patient id, a
            subset with fewer than two patients or a reserved name.
    """
    intervals = Intervals(resamples, confidence, seed, interval)
    prob_NC, label_NC = check_probabilities(scores, labels)
    names = LabelSpace(label_names or [f"finding_{column}" for column in range(label_NC.shape[1])])
    if len(names) != label_NC.shape[1]:
        raise ValueError(f"{len(names)} label names for {label_NC.shape[1]} findings")
    patient_N, n_patients = number_patients(patient_ids, len(label_NC))
    rows = {"all": np.ones(len(label_NC), dtype=bool)} | {
        name: _subset(name, rows_N, patient_N) for name, rows_N in (subsets or {}).items()
    }
    # A cell outside the subset is as if its row were absent.
    pairs = [(prob_NC, np.where(rows_N[:, None], label_NC, np.nan)) for rows_N in rows.values()]
    threshold_C = None if thresholds is None else _thresholds(thresholds, names)
    samples = draw_samples(
        pairs,
        patient_N,
        n_patients,
        resamples,
        np.random.default_rng(seed),
        metrics={key: one for key, one in METRICS.items() if one.kind != "decision" or threshold_C is not None},
        threshold_C=threshold_C,
        averages=True,
        interval=interval,
    )
    measured = {
        subset: {key: sample.measured(confidence, tiers) for key, sample in by_key.items()}
        for subset, by_key in zip(rows, samples, strict=True)
    }
    return EvaluationReport(
        label_names=names,
        measured=measured,
        counts={subset: Counts.of(label_NC[rows_N], patient_N[rows_N]) for subset, rows_N in rows.items()},
        confidence=confidence,
        resamples=resamples,
        method=_method(measured["all"], intervals),
    )


def _subset(name: str, rows_N: ArrayLike, patient_N: NDArray[np.int64]) -> NDArray[np.bool_]:
    rows_N = np.asarray(rows_N)
    if name in ("all", "label_names", *SETTINGS):
        raise ValueError(f"a subset cannot be named {name!r}: the report uses that name; choose another")
    if rows_N.dtype != bool or rows_N.shape != patient_N.shape:
        raise ValueError(f"subset {name!r} is {rows_N.dtype} {rows_N.shape}; expected bool {patient_N.shape}")
    patients = len(np.unique(patient_N[rows_N]))
    if patients < 2:
        raise ValueError(f"subset {name!r} has {patients} patients; intervals need at least two: leave it out")
    return rows_N


def _thresholds(thresholds: ArrayLike, label_names: LabelSpace) -> Array:
    threshold_C = np.asarray(thresholds, dtype=np.float64)
    if threshold_C.shape != (len(label_names),):
        raise ValueError(f"thresholds have shape {threshold_C.shape}; expected ({len(label_names)},), one a finding")
    for name, threshold in zip(label_names, threshold_C, strict=True):
        if threshold < 0 or threshold > 1:
            raise ValueError(f"the threshold of {name} is {threshold:g}; it must be a probability in [0, 1]")
    return threshold_C


def _method(measured: Mapping[str, Measured], intervals: Intervals) -> str:
    headline = [one for key, one in measured.items() if METRICS[key].headline]
    incomplete = intervals.resamples - min(one.macro_draws for one in headline)
    lacked = plural(incomplete, "draw lacked positives or negatives", "draws lacked positives or negatives")
    have = "has" if incomplete == 1 else "have"
    note = f" {lacked} of some finding and {have} no macro mean." if incomplete else ""
    kind = {"percentile": "percentile", "bca": "bias-corrected and accelerated (BCa)"}[intervals.kind]
    return (
        f"Intervals are {100 * intervals.confidence:g} % {kind} intervals over {intervals.resamples:,} draws of "
        f"patients with replacement, seed {intervals.seed}.{note} AP is step-wise average precision. The macro mean "
        "weighs findings equally. ECE has 15 bins of equal mass. Unknown labels are left out."
    )
