"""How a model's figures fall as its images get worse, each level paired with the clean images.

    stress = measure_stress(clean_NC, label_NC, draws, {("blur", 2.0): worse_NC, ...}, label_names=names)
    stress.figures["blur"][2.0]["auc"].difference       # macro AUC of the blurred minus that of the clean images

All levels are measured in the same draws of patients as the clean images, so the interval of a difference is that of
paired figures. Nothing is fitted: calibration and thresholds are those of the clean images.

N = images, C = findings, R = draws.

Refused: no level at all, and what `check_measured` refuses.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from numpy.typing import ArrayLike

from hf_cxr.evaluation.bootstrap import Sample
from hf_cxr.evaluation.checks import Array
from hf_cxr.evaluation.draws import CONFIDENCE, PatientDraws, check_measured
from hf_cxr.evaluation.estimates import Estimate
from hf_cxr.evaluation.kernels import headline_metrics
from hf_cxr.evaluation.metric import by_finding
from hf_cxr.evaluation.same_draws import sample_metrics
from hf_cxr.labels import LabelSpace

MEASURED = (*headline_metrics(), "log_loss")
"""The headline metrics, and log loss, which shows a calibration that is lost where the ranking stays."""


@dataclass(frozen=True, eq=False)
class Level:
    """One metric at one level.

    Attributes:
        macro: the macro mean.
        difference: it minus that of the clean images.
        p: two-sided, of that difference, by the bootstrap; not corrected for the number of levels.
        value_C: each finding; NaN where undefined.
    """

    macro: Estimate
    difference: Estimate
    p: float
    value_C: Array

    def to_dict(self, label_names: Sequence[str]) -> dict[str, Any]:
        """For JSON."""
        return {
            "macro": self.macro.to_dict(),
            "difference": self.difference.to_dict(),
            "p": self.p,
            "value": by_finding(self.value_C, label_names),
        }


@dataclass(frozen=True, eq=False)
class Stress:
    """The figures of the clean images and of every level of every kind.

    Attributes:
        label_names: of the C findings.
        clean: key of a metric -> the macro mean of the clean images.
        figures: kind -> level -> key of a metric -> its figures there.
        images, patients, confidence, resamples: what it was measured on, and how.
    """

    label_names: LabelSpace
    clean: dict[str, Estimate]
    figures: dict[str, dict[float, dict[str, Level]]]
    images: int
    patients: int
    confidence: float
    resamples: int

    def to_dict(self) -> dict[str, Any]:
        """For JSON; a kind is a list of its levels, from mild to severe."""
        kinds = {
            kind: [
                {"level": level} | {key: one.to_dict(self.label_names) for key, one in figures.items()}
                for level, figures in sorted(levels.items())
            ]
            for kind, levels in self.figures.items()
        }
        settings = {name: getattr(self, name) for name in ("images", "patients", "confidence", "resamples")}
        return {**settings, "clean": {key: one.to_dict() for key, one in self.clean.items()}, "kinds": kinds}


def measure_stress(
    clean_NC: ArrayLike,
    label_NC: ArrayLike,
    draws: PatientDraws,
    worse: Mapping[tuple[str, float], ArrayLike],
    *,
    label_names: Sequence[str],
    confidence: float = CONFIDENCE,
) -> Stress:
    """Measure every level, paired with the clean images.

    Args:
        clean_NC: probabilities of the clean images.
        label_NC: 1, 0 or NaN.
        draws: of the patients of these images.
        worse: (kind, level) -> probabilities of the same images made worse, in the same order.
        label_names: C names.
        confidence: of the intervals, in (0, 1).

    Raises:
        ValueError: see the module's first lines.
    """
    if not worse:
        raise ValueError("no level of any perturbation was given")
    every = (clean_NC, *worse.values())
    checked = [check_measured(prob_NC, label_NC, draws, label_names, confidence) for prob_NC in every]
    clean, *samples = sample_metrics([pair for *pair, _ in checked], draws, MEASURED)
    figures: dict[str, dict[float, dict[str, Level]]] = {}
    for (kind, level), by_key in zip(worse, samples, strict=True):
        measured = {key: _level(by_key[key], clean[key], confidence) for key in MEASURED}
        figures.setdefault(kind, {})[float(level)] = measured
    return Stress(
        label_names=checked[0][2],
        clean={key: one.macro.average(confidence) for key, one in clean.items()},
        figures=figures,
        images=len(draws.patient_N),
        patients=draws.n_patients,
        confidence=confidence,
        resamples=draws.resamples,
    )


def _level(worse: Sample, clean: Sample, confidence: float) -> Level:
    difference = worse.macro - clean.macro
    return Level(
        macro=worse.macro.average(confidence),
        difference=difference.average(confidence),
        p=float(difference.p_C[0]),
        value_C=worse.value_C,
    )
