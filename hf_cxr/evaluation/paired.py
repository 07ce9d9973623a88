"""Two systems on the same images: the difference of each headline metric, for each finding and in the mean.

Both are measured in the same draws of patients, so what they share (easy and hard patients) cancels: see
`bootstrap.paired_difference`. The p values of the findings are corrected together by Holm's step-down procedure, each
metric by itself; that of the macro mean is one test and is not corrected.

N = images, C = findings.

Refused: whatever `paired_difference` refuses; two systems of the same name.

Source: Holm, Scandinavian Journal of Statistics 6 (1979).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from hf_cxr.evaluation.bootstrap import PairedDifference, paired_difference
from hf_cxr.evaluation.checks import Array, check_probabilities
from hf_cxr.evaluation.comparison import holm
from hf_cxr.evaluation.draws import DEFAULT_INTERVALS, Intervals
from hf_cxr.evaluation.kernels import METRICS
from hf_cxr.evaluation.metric import by_finding
from hf_cxr.evaluation.metrics import counts, macro


@dataclass(frozen=True, eq=False)
class Paired:
    """The first system minus the second, by every headline metric.

    Attributes:
        names: of both systems.
        label_names: of the C findings.
        images, patients: how many both were measured on.
        positives_C: known positive images of each finding.
        value_C: key of a metric -> the values (C,) of the first and of the second system, NaN where undefined.
        difference: with intervals and p values, in the same draws of patients.
        corrected_C: key -> (C,) p values corrected by Holm for the findings that are defined.
        left_out: what only one of the two has: numbers of images, names of findings.
    """

    names: tuple[str, str]
    label_names: tuple[str, ...]
    images: int
    patients: int
    positives_C: Array
    value_C: dict[str, tuple[Array, Array]]
    difference: PairedDifference
    corrected_C: dict[str, Array]
    left_out: Mapping[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Plain Python for JSON, NaN where undefined; findings by name."""

        def named(value_C: ArrayLike) -> dict[str, Any]:
            return by_finding(np.asarray(value_C), self.label_names)

        metrics = {}
        for key, measured in self.difference.measured.items():
            first_C, second_C = self.value_C[key]
            metrics[key] = {
                "macro": {
                    "first": macro(first_C),
                    "second": macro(second_C),
                    "difference": measured.macro,
                    "low": measured.macro_low,
                    "high": measured.macro_high,
                    "draws": measured.macro_draws,
                    "p": self.difference.macro_p[key],
                },
                "findings": {
                    "first": named(first_C),
                    "second": named(second_C),
                    "difference": named(measured.value_C),
                    "low": named(measured.low_C),
                    "high": named(measured.high_C),
                    "draws": named(measured.draws_C),
                    "p": named(self.difference.p_C[key]),
                    "p_corrected": named(self.corrected_C[key]),
                },
            }
        return {
            "first": self.names[0],
            "second": self.names[1],
            "label_names": list(self.label_names),
            "images": self.images,
            "patients": self.patients,
            "positives": named(self.positives_C),
            "left_out": dict(self.left_out),
            "confidence": self.difference.confidence,
            "resamples": self.difference.resamples,
            "metrics": metrics,
        }


def measure_paired(
    first_NC: ArrayLike,
    second_NC: ArrayLike,
    label_NC: ArrayLike,
    patient_ids_N: Sequence[Any],
    *,
    label_names: Sequence[str],
    names: tuple[str, str] = ("first", "second"),
    intervals: Intervals = DEFAULT_INTERVALS,
    left_out: Mapping[str, Any] | None = None,
) -> Paired:
    """Compare two systems on the same images.

    Args:
        first_NC, second_NC: (N, C) probabilities of both systems.
        label_NC: 1, 0 or NaN.
        patient_ids_N: one id an image; none may be missing.
        label_names: C names.
        names: of the systems.
        intervals: how they are drawn; always percentile intervals.
        left_out: what only one of them has, for the report.

    Raises:
        ValueError: see the module's first lines.
    """
    if names[0] == names[1]:
        raise ValueError(f"both systems are {names[0]}: a system compared with itself has no difference")
    first_NC, label_NC = check_probabilities(first_NC, label_NC)
    second_NC, _ = check_probabilities(second_NC, label_NC)
    difference = paired_difference(
        first_NC,
        second_NC,
        label_NC,
        patient_ids_N,
        resamples=intervals.resamples,
        confidence=intervals.confidence,
        rng=np.random.default_rng(intervals.seed),
    )
    keys = list(difference.measured)
    return Paired(
        names=names,
        label_names=tuple(label_names),
        images=len(label_NC),
        patients=difference.n_patients,
        positives_C=counts(label_NC)[0],
        value_C={key: tuple(METRICS[key].measure(one, label_NC) for one in (first_NC, second_NC)) for key in keys},
        difference=difference,
        corrected_C={key: _corrected(difference.p_C[key]) for key in keys},
        left_out=left_out or {},
    )


def _corrected(p_C: Array) -> Array:
    """Holm over the findings that have a p value; the rest stay NaN and do not count."""
    corrected_C = np.full(len(p_C), np.nan)
    defined = np.flatnonzero(~np.isnan(p_C))
    corrected_C[defined] = holm(p_C[defined].tolist())
    return corrected_C
