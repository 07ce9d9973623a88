"""How good the predictions are: every figure with its interval, per finding first.

    report = evaluate_predictions(predictions.probabilities, predictions.labels, predictions.patient_ids)
    print(report.to_markdown())

Arrays in, a report out; nothing here knows a model. N = images, C = findings.

`evaluate_predictions` takes probabilities and refuses logits, because Brier score, calibration error and the mean
predicted probability have no meaning on logits. `metrics` and `bootstrap` take any scores.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from hf_cxr.evaluation import metrics
from hf_cxr.evaluation.bootstrap import BootstrapResult, PairedDifference, Spread, bootstrap_metrics, paired_difference
from hf_cxr.evaluation.calibration import Calibration, fit_calibration
from hf_cxr.files import plain
from hf_cxr.labels import LabelSpace
from hf_cxr.words import markdown

if TYPE_CHECKING:
    from hf_cxr.evaluation.hf_metric import MultiLabelMetric

__all__ = [
    "BootstrapResult",
    "Calibration",
    "EvaluationReport",
    "FindingResult",
    "MultiLabelMetric",
    "PairedDifference",
    "Spread",
    "bootstrap_metrics",
    "evaluate_predictions",
    "fit_calibration",
    "format_interval",
    "format_number",
    "paired_difference",
]


@dataclass(frozen=True)
class FindingResult:
    """The figures of one finding; NaN where undefined.

    ``positive_patients`` are the patients with a positive image: with few of them, the interval is too narrow.
    ``prevalence`` is over known cells and is also the average precision of a scorer that knows nothing. The counts
    ``auc_draws`` and ``ap_draws`` say how many draws defined the metric, and so the interval.
    """

    name: str
    positives: int
    positive_patients: int
    negatives: int
    unknown: int
    prevalence: float
    auc: float
    auc_low: float
    auc_high: float
    auc_draws: int
    ap: float
    ap_low: float
    ap_high: float
    ap_draws: int
    mean_probability_positives: float
    mean_probability_negatives: float
    brier: float
    ece: float


@dataclass(frozen=True)
class EvaluationReport:
    """The figures of one set of predictions: each finding, and the mean over the findings that are defined.

    Attributes:
        findings: C results, in the order of the columns.
        undefined: names of the findings without AUC and average precision: their known cells have one value only.
            They are left out of the macro means.
        macro_prevalence: mean prevalence of the defined findings: the macro average precision of knowing nothing.
        method: in words, how the figures and the intervals were obtained.
    """

    findings: tuple[FindingResult, ...]
    undefined: tuple[str, ...]
    macro_auc: float
    macro_auc_low: float
    macro_auc_high: float
    macro_auc_draws: int
    macro_ap: float
    macro_ap_low: float
    macro_ap_high: float
    macro_ap_draws: int
    macro_prevalence: float
    n_images: int
    n_patients: int
    confidence: float
    resamples: int
    method: str

    def __getitem__(self, name: str) -> FindingResult:
        """A finding's results, by name."""
        return self.findings[LabelSpace(finding.name for finding in self.findings).index(name)]

    def to_dict(self) -> dict[str, Any]:
        """Plain Python for JSON: NaN is None, ``findings`` is a list."""
        return plain(asdict(self))

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "EvaluationReport":
        """Read what `to_dict` gave: None is NaN. A missing key is a ValueError."""

        def number(value: Any) -> Any:
            return math.nan if value is None else value

        try:
            findings = tuple(
                FindingResult(**{item.name: number(finding[item.name]) for item in fields(FindingResult)})
                for finding in values["findings"]
            )
            rest = {item.name: number(values[item.name]) for item in fields(cls) if item.name != "findings"}
        except KeyError as error:
            raise ValueError(f"not the figures of an evaluation: no {error}") from error
        return cls(findings=findings, **rest | {"undefined": tuple(rest["undefined"])})

    def to_markdown(self) -> str:
        """A table of one row a finding and the macro mean, with the method and the undefined findings below it."""
        percent = f"{100 * self.confidence:g} %"
        header = (
            "Finding",
            "Positive (patients) / negative / unknown",
            f"AUC ({percent})",
            f"AP ({percent})",
            "Chance AP (prevalence)",
            "Mean p, positive / negative",
            "Brier",
            "ECE",
        )
        rows = [header, ("---", *["---:"] * (len(header) - 1)), *map(_markdown_row, self.findings)]
        macro_auc = format_interval(self.macro_auc, self.macro_auc_low, self.macro_auc_high)
        macro_ap = format_interval(self.macro_ap, self.macro_ap_low, self.macro_ap_high)
        rows.append(("**Macro mean**", "", macro_auc, macro_ap, format_number(self.macro_prevalence), "", "", ""))
        table = "\n".join(f"| {' | '.join(row)} |" for row in rows)
        undefined = f"Undefined, and left out of the macro mean: {', '.join(map(markdown, self.undefined)) or 'none'}."
        return f"{table}\n\n{self.n_images:,} images of {self.n_patients:,} patients. {self.method}\n\n{undefined}\n"


def evaluate_predictions(
    scores: ArrayLike,
    labels: ArrayLike,
    patient_ids: Sequence[Any],
    *,
    label_names: Sequence[str] | None = None,
    resamples: int = 1000,
    confidence: float = 0.95,
    seed: int = 0,
) -> EvaluationReport:
    """Measure predictions: ranking metrics with patient-clustered intervals, and calibration figures.

    Args:
        scores: (N, C) probabilities in [0, 1].
        labels: (N, C) of 1, 0, or NaN for unknown.
        patient_ids: N ids; none may be missing. At least two patients.
        label_names: C unique names; "finding_0", ... if left out.
        resamples: draws of patients.
        confidence: of the intervals, in (0, 1).
        seed: of the draws; the same seed gives the same report.

    Raises:
        ValueError: scores outside [0, 1] or not finite, other labels, other shapes, a missing patient id.
    """
    prob_NC, label_NC = metrics.check_probabilities(scores, labels)
    names = LabelSpace(label_names or [f"finding_{column}" for column in range(label_NC.shape[1])])
    if len(names) != label_NC.shape[1]:
        raise ValueError(f"{len(names)} label names for {label_NC.shape[1]} findings")
    spread = bootstrap_metrics(
        prob_NC, label_NC, patient_ids, resamples=resamples, confidence=confidence, rng=np.random.default_rng(seed)
    )
    findings = _finding_results(names, prob_NC, label_NC, patient_ids, spread)
    defined = [finding for finding in findings if not math.isnan(finding.auc)]
    return EvaluationReport(
        findings=findings,
        undefined=tuple(finding.name for finding in findings if math.isnan(finding.auc)),
        macro_auc=spread.auc.macro,
        macro_auc_low=spread.auc.macro_low,
        macro_auc_high=spread.auc.macro_high,
        macro_auc_draws=spread.auc.macro_defined,
        macro_ap=spread.ap.macro,
        macro_ap_low=spread.ap.macro_low,
        macro_ap_high=spread.ap.macro_high,
        macro_ap_draws=spread.ap.macro_defined,
        macro_prevalence=metrics.macro([finding.prevalence for finding in defined]),
        n_images=len(label_NC),
        n_patients=spread.n_patients,
        confidence=confidence,
        resamples=resamples,
        method=_method(spread, seed),
    )


def _finding_results(
    names: LabelSpace,
    prob_NC: metrics.Array,
    label_NC: metrics.Array,
    patient_ids_N: Sequence[Any],
    spread: BootstrapResult,
) -> tuple[FindingResult, ...]:
    positives_C, negatives_C, unknown_C = metrics.counts(label_NC)
    patients_N = np.array(list(patient_ids_N), dtype=object)
    mean_positives_C, mean_negatives_C = metrics.mean_predicted_probability(prob_NC, label_NC)
    with np.errstate(invalid="ignore"):
        prevalence_C = positives_C / (positives_C + negatives_C)
    columns = {
        "positives": positives_C,
        "positive_patients": np.array([len({*patients_N[present_N]}) for present_N in (label_NC == 1).T]),
        "negatives": negatives_C,
        "unknown": unknown_C,
        "prevalence": prevalence_C,
        "auc": spread.auc.value_C,
        "auc_low": spread.auc.low_C,
        "auc_high": spread.auc.high_C,
        "auc_draws": spread.auc.defined_C,
        "ap": spread.ap.value_C,
        "ap_low": spread.ap.low_C,
        "ap_high": spread.ap.high_C,
        "ap_draws": spread.ap.defined_C,
        "mean_probability_positives": mean_positives_C,
        "mean_probability_negatives": mean_negatives_C,
        "brier": metrics.brier(prob_NC, label_NC),
        "ece": metrics.expected_calibration_error(prob_NC, label_NC),
    }
    return tuple(
        FindingResult(name=name, **{key: value_C[column].item() for key, value_C in columns.items()})
        for column, name in enumerate(names)
    )


def _method(spread: BootstrapResult, seed: int) -> str:
    incomplete = spread.resamples - spread.auc.macro_defined
    note = f" {incomplete:,} draws lacked a side of some finding and have no macro mean." if incomplete else ""
    return (
        f"Intervals are {100 * spread.confidence:g} % percentile intervals over {spread.resamples:,} draws of "
        f"patients with replacement, seed {seed}.{note} AP is step-wise average precision. The macro mean weighs "
        "findings equally. ECE has 15 bins of equal mass. Unknown labels are left out."
    )


def _markdown_row(finding: FindingResult) -> tuple[str, ...]:
    return (
        markdown(finding.name),
        f"{finding.positives:,} ({finding.positive_patients:,}) / {finding.negatives:,} / {finding.unknown:,}",
        format_interval(finding.auc, finding.auc_low, finding.auc_high),
        format_interval(finding.ap, finding.ap_low, finding.ap_high),
        format_number(finding.prevalence),
        f"{format_number(finding.mean_probability_positives)} / {format_number(finding.mean_probability_negatives)}",
        format_number(finding.brier),
        format_number(finding.ece),
    )


def format_interval(value: float, low: float, high: float) -> str:
    """A figure with its interval; each may be NaN.

    >>> format_interval(0.8124, 0.79, 0.834), format_interval(math.nan, math.nan, math.nan)
    ('0.812 (0.790–0.834)', 'undefined')
    """
    if math.isnan(value):
        return "undefined"
    return f"{value:.3f} (undefined)" if math.isnan(low) else f"{value:.3f} ({low:.3f}–{high:.3f})"


def format_number(value: float) -> str:
    """Three decimals, or "undefined" for NaN."""
    return "undefined" if math.isnan(value) else f"{value:.3f}"


def __getattr__(name: str) -> Any:
    # evaluate and datasets take seconds to import, and only this class needs them.
    if name == "MultiLabelMetric":
        from hf_cxr.evaluation.hf_metric import MultiLabelMetric

        return MultiLabelMetric
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
