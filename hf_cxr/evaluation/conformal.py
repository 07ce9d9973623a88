"""Label sets with a stated coverage: present, absent, or either where the model cannot tell.

For each finding and each of its two labels a threshold is fitted on validation, so that the set of a new image of that
label contains the label with probability at least ``coverage``:

    "present" is in the set where p >= present_C      fitted on the positives
    "absent"  is in the set where p <= absent_C       fitted on the negatives

A set with both is {either}: the model abstains. A set with neither, {empty}, is that of a probability that is rare
among positives and among negatives; it occurs where the model tells them apart better than ``coverage`` asks for.
Positives and negatives are covered separately (class-conditional or Mondrian conformal prediction): over both
together, a rare finding would be covered by always saying "absent".

Images of one patient depend on one another; patients are exchangeable. With K patients who have an image of the label,
n_k of them of patient k, each of these images has the weight 1 / ((K + 1) n_k), and infinity has 1 / (K + 1). The
threshold is the ``coverage`` quantile under these weights. Then a random image of the label of a new patient is
covered with probability at least ``coverage``, whatever the model is and however the images of a patient depend on
one another. With one image a patient this is split conformal prediction. With fewer than coverage / (1 - coverage)
patients the quantile is infinite: the label is in every set, and `ConformalSets.too_few` names the finding.

What the guarantee is about: an average over validation sets and new patients (with the one validation set available,
coverage scatters around it by about sqrt(coverage (1 - coverage) / K)); patients like those of validation; every
patient weighs the same. Validation also fitted the calibration map and chose the checkpoint. The map does not matter:
it is rising, so it changes no order and no set. The choice of the checkpoint may make coverage on new patients lower
than stated; nothing bounds by how much, so coverage is measured on test.

Source: Lee, Barber and Willett, "Distribution-free inference with hierarchical data", arXiv 2306.06342 (the weighted
quantile); Dunn, Wasserman and Ramdas, Journal of the American Statistical Association 118 (2023) (one image drawn from
each patient); Vovk, Gammerman and Shafer, Algorithmic Learning in a Random World, 2005 (label-conditional sets).

N = images, C = findings, K = patients with an image of a label, M = patients, R = draws.

Refused: see `checks`; a coverage outside (0, 1).
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import expit, logit, ndtri

from hf_cxr.evaluation.bootstrap import Sample
from hf_cxr.evaluation.checks import Array, check_probabilities
from hf_cxr.evaluation.draws import CONFIDENCE, PatientDraws, check_measured, number_patients
from hf_cxr.evaluation.estimates import Estimate, Estimates, ratio, share_interval
from hf_cxr.files import plain
from hf_cxr.labels import LabelSpace

COVERAGES = (0.8, 0.9, 0.95)
COVERAGE = 0.9  # of the sets that a model carries with it
MEASURES = {
    "positive_coverage": "positives whose set has present; each patient weighs the same: what is guaranteed",
    "negative_coverage": "negatives whose set has absent; each patient weighs the same: what is guaranteed",
    "positive_images_covered": "the same share of positive images",
    "negative_images_covered": "the same share of negative images",
    "present": "images whose set is {present}",
    "absent": "images whose set is {absent}",
    "either": "images whose set has both: the model abstains",
    "empty": "images whose set is empty",
    "accuracy_decided": "images with a set of one label, of which it is the right one",
    "ppv": "images with {present} that are positive",
    "npv": "images with {absent} that are negative",
}
"""What is measured on test, each a share of known cells."""


@dataclass(frozen=True, eq=False)
class ConformalSets:
    """The thresholds of each finding for one coverage.

    Attributes:
        label_names: C findings.
        coverage: stated, in (0, 1).
        present_C: "present" is in the set where p is at least this; -inf where too few patients have the finding.
        absent_C: "absent" is in the set where p is at most this; inf where too few patients have an image without it.
        positive_patients_C, negative_patients_C: patients that each threshold was fitted on, int64.
    """

    label_names: LabelSpace
    coverage: float
    present_C: Array
    absent_C: Array
    positive_patients_C: NDArray[np.int64]
    negative_patients_C: NDArray[np.int64]

    def sets(self, prob_NC: ArrayLike) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        """Whether "present", and whether "absent", is in the set of each image: two bool arrays (N, C)."""
        prob_NC = np.asarray(prob_NC, dtype=np.float64)
        return prob_NC >= self.present_C, prob_NC <= self.absent_C

    @property
    def too_few(self) -> dict[str, str]:
        """The findings of which a label is in every set, and why."""
        least = math.ceil(self.coverage / (1 - self.coverage) - 1e-9)
        sides = (
            ("with", self.positive_patients_C, self.present_C),
            ("without", self.negative_patients_C, self.absent_C),
        )
        few = {
            name: [
                f"{count_C[c]} patients {side} it" for side, count_C, threshold_C in sides if np.isinf(threshold_C[c])
            ]
            for c, name in enumerate(self.label_names)
        }
        return {name: f"{' and '.join(why)}; at least {least} are needed" for name, why in few.items() if why}

    def to_dict(self) -> dict[str, Any]:
        """For JSON: the coverage and each finding's thresholds and patients; an infinite threshold is null."""
        findings = {
            name: {
                "present_from": float(self.present_C[column]),
                "absent_to": float(self.absent_C[column]),
                "positive_patients": int(self.positive_patients_C[column]),
                "negative_patients": int(self.negative_patients_C[column]),
            }
            for column, name in enumerate(self.label_names)
        }
        return plain({"coverage": self.coverage, "findings": findings})

    @classmethod
    def from_dict(cls, values: Any, label_names: Sequence[str] | None = None) -> "ConformalSets":
        """Read what `to_dict` gave.

        Args:
            values: findings in any order: config.json sorts its keys.
            label_names: C findings in the order of the outputs, the same ones; None takes the order of ``values``,
                which is good for nothing but checking them.

        Raises:
            ValueError: it is not label sets, or of other findings; the message says where.
        """
        try:
            coverage, by_name = float(values["coverage"]), values["findings"]
            names = LabelSpace(by_name if label_names is None else label_names)
            if set(by_name) != set(names):
                raise ValueError(f"of {', '.join(by_name)}, and not of the model's findings")
            findings = [by_name[name] for name in names]
            present_C = [_threshold(one["present_from"], -math.inf) for one in findings]
            absent_C = [_threshold(one["absent_to"], math.inf) for one in findings]
            sides = ("positive_patients", "negative_patients")
            patients = [np.array([one[side] for one in findings], dtype=np.int64) for side in sides]
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise ValueError(f"label sets (conformal) cannot be read: {type(error).__name__}: {error}") from error
        if not 0 < coverage < 1:
            raise ValueError(f"the coverage of label sets (conformal) is {coverage}; it must be between 0 and 1")
        return cls(names, coverage, np.array(present_C), np.array(absent_C), *patients)

    def moved(self, bias_C: ArrayLike) -> "ConformalSets":
        """The sets of probabilities whose logits have a bias (C,) added, such as that of another prevalence.

        Up to rounding every image keeps its set: the thresholds move as the probabilities do, and the stated coverage
        is among the images of one label, whatever their share.
        """
        bias_C = np.asarray(bias_C, dtype=np.float64)

        def move(threshold_C: Array) -> Array:
            inside_C = np.isfinite(threshold_C)
            return np.where(inside_C, expit(logit(np.where(inside_C, threshold_C, 0.5)) + bias_C), threshold_C)

        return dataclasses.replace(self, present_C=move(self.present_C), absent_C=move(self.absent_C))


def _threshold(value: float | None, infinite: float) -> float:
    """A threshold as it was written: in [0, 1], or null for the infinite one."""
    if value is None:
        return infinite
    if not 0 <= float(value) <= 1:
        raise ValueError(f"a threshold is {value}")
    return float(value)


def fit_conformal(
    prob_NC: ArrayLike,
    label_NC: ArrayLike,
    patient_ids: Sequence[Any],
    *,
    label_names: Sequence[str],
    coverage: float = COVERAGE,
) -> ConformalSets:
    """Fit the thresholds of each finding.

    Args:
        prob_NC: in [0, 1]; any rising function of them gives the same sets.
        label_NC: 1, 0 or NaN.
        patient_ids: of the N images; none may be missing. At least two patients.
        label_names: C findings.
        coverage: in (0, 1).

    Raises:
        ValueError: see the module's first lines.
    """
    if not 0 < coverage < 1:
        raise ValueError(f"coverage must be above 0 and below 1; got {coverage}")
    prob_NC, label_NC = check_probabilities(prob_NC, label_NC)
    names, (patient_N, _) = LabelSpace(label_names), number_patients(patient_ids, len(prob_NC))
    if len(names) != prob_NC.shape[1]:
        raise ValueError(f"{len(names)} names for probabilities of shape {prob_NC.shape}")
    columns = []
    for prob_N, label_N in zip(prob_NC.T, label_NC.T, strict=True):
        present_N, absent_N = label_N == 1, label_N == 0
        columns.append(
            (
                -patient_quantile(-prob_N[present_N], patient_N[present_N], coverage),
                patient_quantile(prob_N[absent_N], patient_N[absent_N], coverage),
                len(np.unique(patient_N[present_N])),
                len(np.unique(patient_N[absent_N])),
            )
        )
    present_C, absent_C, positive_C, negative_C = (np.array(column) for column in zip(*columns, strict=True))
    return ConformalSets(names, coverage, present_C, absent_C, positive_C, negative_C)


def patient_quantile(score_N: ArrayLike, patient_N: ArrayLike, level: float) -> float:
    """The smallest score at or below which a share ``level`` of the weight lies; patients weigh 1 / (K + 1) each.

    The weight 1 / (K + 1) that is left stands for the new patient, at infinity.

    >>> patient_quantile([1.0, 2.0, 3.0, 4.0], [0, 1, 2, 3], 0.8), patient_quantile([1.0, 2.0, 3.0], [0, 1, 2], 0.8)
    (4.0, inf)
    >>> patient_quantile([1.0, 5.0, 5.0, 5.0, 2.0, 3.0], [0, 0, 0, 0, 1, 2], 0.5)
    3.0
    """
    score_N = np.asarray(score_N, dtype=np.float64)
    patient_N = np.unique(np.asarray(patient_N), return_inverse=True)[1]
    count_K = np.bincount(patient_N)
    order = np.argsort(score_N, kind="stable")
    weight_N = np.cumsum(1 / count_K[patient_N[order]]) / (len(count_K) + 1)
    # Sums of weights such as 1/3 are exact to about 1e-16 each.
    place = int(np.searchsorted(weight_N, level - 1e-12))
    return float(score_N[order[place]]) if place < len(score_N) else float("inf")


@dataclass(frozen=True, eq=False)
class ConformalLevel:
    """The sets of one stated coverage, measured on test.

    Attributes:
        fitted: the thresholds.
        shares_C: by name in ``MEASURES``, the share of each finding with its interval, float64 (C,).
        macro: the same as mean over the findings for which both thresholds are finite and the share is defined.
        below_C: by "positive_coverage" and "negative_coverage", whether the share is below the stated coverage by more
            than the draws of test patients and the scatter of validation explain together, at this confidence.
    """

    fitted: ConformalSets
    shares_C: dict[str, Estimates]
    macro: dict[str, Estimate]
    below_C: dict[str, NDArray[np.bool_]]

    def to_dict(self) -> dict[str, Any]:
        """For JSON: a finding's thresholds, patients of validation, and shares."""
        names = self.fitted.label_names
        return {
            "coverage": self.fitted.coverage,
            "too_few": self.fitted.too_few,
            "macro": {name: share.to_dict() for name, share in self.macro.items()},
            "findings": {
                name: {
                    "present_from": float(self.fitted.present_C[column]),
                    "absent_to": float(self.fitted.absent_C[column]),
                    "positive_patients": int(self.fitted.positive_patients_C[column]),
                    "negative_patients": int(self.fitted.negative_patients_C[column]),
                    **{key: share.at(column).to_dict() for key, share in self.shares_C.items()},
                    "below": [key for key, below_C in self.below_C.items() if below_C[column]],
                }
                for column, name in enumerate(names)
            },
        }


@dataclass(frozen=True, eq=False)
class Conformal:
    """Conformal label sets, fitted on validation and measured on test, for several coverages.

    Attributes:
        levels: in order of rising coverage.
        confidence, resamples: of the intervals.
    """

    levels: tuple[ConformalLevel, ...]
    confidence: float
    resamples: int

    def to_dict(self) -> dict[str, Any]:
        """For JSON; an infinite threshold is null."""
        levels = [level.to_dict() for level in self.levels]
        return plain({"levels": levels, "confidence": self.confidence, "resamples": self.resamples})


def measure_conformal(
    prob_NC: ArrayLike,
    label_NC: ArrayLike,
    draws: PatientDraws,
    validation: tuple[ArrayLike, ArrayLike, Sequence[Any]],
    *,
    label_names: Sequence[str],
    coverages: Sequence[float] = COVERAGES,
    confidence: float = CONFIDENCE,
) -> Conformal:
    """Fit label sets on validation and measure them on test, with patient-clustered intervals.

    The intervals are those of the test set: the thresholds are not fitted again in the draws.

    Args:
        prob_NC, label_NC: of test.
        draws: of the patients of the N images of test.
        validation: probabilities in [0, 1], labels, and the patient of each image.
        label_names: C findings.
        coverages: each in (0, 1).
        confidence: of the intervals, in (0, 1).

    Raises:
        ValueError: see the module's first lines.
    """
    prob_NC, label_NC, names = check_measured(prob_NC, label_NC, draws, label_names, confidence)
    levels = []
    for coverage in sorted(coverages):
        fitted = fit_conformal(*validation, label_names=names, coverage=coverage)
        levels.append(_measured(fitted, _pairs(fitted, prob_NC, label_NC, draws), draws, confidence))
    return Conformal(tuple(levels), confidence, draws.resamples)


def _pairs(
    fitted: ConformalSets, prob_NC: Array, label_NC: Array, draws: PatientDraws
) -> dict[str, tuple[Array, Array]]:
    """By name in ``MEASURES``, numerator and denominator of a share, as sums per patient (M, C)."""
    present_NC, absent_NC = fitted.sets(prob_NC)
    positive_NC, negative_NC = label_NC == 1, label_NC == 0
    known_NC = positive_NC | negative_NC
    only_present_NC, only_absent_NC = present_NC & ~absent_NC, absent_NC & ~present_NC
    decided_NC = only_present_NC | only_absent_NC
    right_NC = (only_present_NC & positive_NC) | (only_absent_NC & negative_NC)

    def sums(cell_NC: Array, of_NC: Array) -> tuple[Array, Array]:
        return draws.per_patient(cell_NC & of_NC), draws.per_patient(of_NC)

    pairs = {
        "positive_images_covered": sums(present_NC, positive_NC),
        "negative_images_covered": sums(absent_NC, negative_NC),
        "present": sums(only_present_NC, known_NC),
        "absent": sums(only_absent_NC, known_NC),
        "either": sums(present_NC & absent_NC, known_NC),
        "empty": sums(~present_NC & ~absent_NC, known_NC),
        "accuracy_decided": sums(right_NC, known_NC & decided_NC),
        "ppv": sums(positive_NC, known_NC & only_present_NC),
        "npv": sums(negative_NC, known_NC & only_absent_NC),
    }
    for side in ("positive", "negative"):
        covered_MC, images_MC = pairs[f"{side}_images_covered"]
        pairs[f"{side}_coverage"] = (np.nan_to_num(ratio(covered_MC, images_MC)), (images_MC > 0).astype(np.float64))
    return {name: pairs[name] for name in MEASURES}


def _measured(
    fitted: ConformalSets, pairs: Mapping[str, tuple[Array, Array]], draws: PatientDraws, confidence: float
) -> ConformalLevel:
    drawn = draws.sums(*(sum_MC for pair in pairs.values() for sum_MC in pair))
    finite_C = np.isfinite(fitted.present_C) & np.isfinite(fitted.absent_C)
    patients_C = {"positive_coverage": fitted.positive_patients_C, "negative_coverage": fitted.negative_patients_C}
    shares_C, macro, below_C = {}, {}, {}
    for number, (name, (part_MC, of_MC)) in enumerate(pairs.items()):
        value_C, draw_RC = ratio(part_MC.sum(axis=0), of_MC.sum(axis=0)), ratio(*drawn[2 * number : 2 * number + 2])
        counts = {"images_X": of_MC.sum(axis=0), "patients_X": (of_MC > 0).sum(axis=0)}
        shares_C[name] = share_interval(value_C, draw_RC, **counts, confidence=confidence)
        kept = np.flatnonzero(finite_C & ~np.isnan(value_C))
        macro[name] = Sample(value_C, draw_RC).mean(kept).average(confidence)
        if name in patients_C:
            scatter_C = fitted.coverage * (1 - fitted.coverage) / np.maximum(patients_C[name], 1)
            test_C = ((shares_C[name].high_X - value_C) / ndtri((1 + confidence) / 2)) ** 2
            below_C[name] = value_C + ndtri((1 + confidence) / 2) * np.sqrt(test_C + scatter_C) < fitted.coverage
    return ConformalLevel(fitted, shares_C, macro, below_C)
