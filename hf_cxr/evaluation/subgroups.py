"""For whom the model fails: every group of images against all other images, with interval and test.

    draws = PatientDraws.of(predictions.patient_ids)
    attributes, left_out = image_attributes(predictions.labels, sex=predictions.sex, view=predictions.view)
    subgroups = measure_subgroups(
        predictions.probabilities, predictions.labels, draws, attributes, left_out=left_out
    )
    subgroups.groups["sex"]["F"].compared["auc"].gap.at(-1)         # macro AUC of F minus that of the rest

Group and rest are measured in the same draws of patients, and their macro means are over the same findings: those that
enough patients have, and enough do not, in both. A gap is the group's value minus the rest's. The gap of a group and
that of its complement are one question, and count once in the correction.

The p value of a gap is two-sided, by Student's t with the standard deviation of the gap over the draws. (The share of
1,000 draws beyond zero is never below 0.002, which the correction for a hundred gaps would lift above any limit; of
10,000, never below 0.0002.) All
macro gaps of all groups and measures are one family for Holm's correction, all gaps of single findings another. Two
kinds of gap have an interval, but no p value, because they would not be zero for a model that is alike for all: those
between groups that the labels themselves make, and those in AP, which rises with the prevalence alone.

The widest gap of an attribute is that between its best and its worst group. It is above zero even if all groups are
alike, so its p value is the share of draws in which the centred values of the groups lie as far apart.

What a gap does not say: AUC depends on which cases are among the images, so a gap can come from the patients, from
their labels or from the model.

Sources: Field and Welsh, JRSS B 69 (2007), draws of clusters; Holm, Scand. J. Statist. 6 (1979); Hardt, Price and
Srebro, NeurIPS 2016, equalised odds; Borkan et al., WWW 2019 companion, BPSN and BNSP AUC.

N = images, C = findings, R = draws, M = patients, X = C findings and then their macro mean.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hf_cxr.evaluation.bootstrap import Sample, mean_over
from hf_cxr.evaluation.checks import Array, check_probabilities
from hf_cxr.evaluation.comparison import holm
from hf_cxr.evaluation.draws import CONFIDENCE, PatientDraws, check_confidence, percentile_interval
from hf_cxr.evaluation.estimates import Estimates
from hf_cxr.evaluation.gaps import Compared, gap_p, with_macro
from hf_cxr.evaluation.groups import UNKNOWN, Attribute
from hf_cxr.evaluation.kernels import METRICS, headline_metrics
from hf_cxr.evaluation.metric import by_finding
from hf_cxr.evaluation.report import Counts
from hf_cxr.evaluation.same_draws import sample_errors, sample_metrics
from hf_cxr.labels import LabelSpace

ERRORS = {"fnr": "false negative rate", "fpr": "false positive rate"}
"""Measured at an operating point: positives that are missed, negatives that are called positive."""

CROSSED = {"bpsn": "BPSN AUC", "bnsp": "BNSP AUC"}
"""AUC of the rest's positives against the group's negatives, and of the group's positives against the rest's
negatives: a low BPSN AUC says that scores of the group are too high, a low BNSP AUC that they are too low."""


def is_tested(key: str) -> bool:
    """Whether a gap in a measure is tested: not where prevalence alone makes one, as it does for AP."""
    return key in ERRORS or METRICS[key].chance != "prevalence"


@dataclass(frozen=True, eq=False)
class Group:
    """A group of images.

    Attributes:
        images, patients: how many.
        positives_C, positive_patients_C: images and patients with each finding, int64.
        prevalence_C, rest_prevalence_C: share of positives among known labels in the group and in the rest.
        reason: why it is not measured; "" if it is.
        findings: names of those in its macro means. Error rates need one kind of label alone: the false negative rate
            is over the findings with enough positive patients, the false positive rate over those with enough
            negative ones.
        left_out: finding -> why it is not among them.
        compared: "auc", "ap" and, at an operating point, "fnr" and "fpr" -> the comparison with the rest, as far as
            there are findings for it.
        crossed: "bpsn" and "bnsp" -> see `CROSSED`.
    """

    images: int
    patients: int
    positives_C: NDArray[np.int64]
    positive_patients_C: NDArray[np.int64]
    prevalence_C: Array
    rest_prevalence_C: Array
    reason: str
    findings: tuple[str, ...]
    left_out: dict[str, str]
    compared: dict[str, Compared]
    crossed: dict[str, Estimates]

    def to_dict(self, names: Sequence[str]) -> dict[str, Any]:
        """For JSON; NaN stays NaN here, `files.plain` makes it None."""
        measures = {}
        for key, one in self.compared.items():
            parts = {part: with_macro(getattr(one, part), names) for part in ("group", "rest", "gap")}
            p = {
                name: {"macro": float(value_X[-1]), "findings": by_finding(value_X[:-1], names)}
                for name, value_X in (("p", one.p_X), ("p_corrected", one.p_corrected_X))
            }
            measures[key] = parts | p
        return {
            "images": self.images,
            "patients": self.patients,
            "positives": by_finding(self.positives_C, names),
            "positive_patients": by_finding(self.positive_patients_C, names),
            "prevalence": by_finding(self.prevalence_C, names),
            "rest_prevalence": by_finding(self.rest_prevalence_C, names),
            "not_measured": self.reason or None,
            "findings": list(self.findings),
            "left_out": self.left_out,
            "measures": measures,
            "crossed": {key: with_macro(one, names) for key, one in self.crossed.items()},
        }


@dataclass(frozen=True)
class Widest:
    """The gap between the groups of an attribute with the highest and the lowest macro value.

    Attributes:
        high_group, low_group: their names.
        value, low, high: the difference of these two groups and its percentile interval. They were chosen because
            they are far apart, so the interval is too far from zero; ``p`` accounts for the choice.
        p: under the hypothesis that all groups are alike; NaN where not tested.
        p_corrected: by Holm, over all attributes and measures.
        findings: of all groups' macro means.
    """

    high_group: str
    low_group: str
    value: float
    low: float
    high: float
    p: float
    p_corrected: float
    findings: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class Subgroups:
    """Every group of every attribute against the rest.

    Attributes:
        groups: attribute -> group -> its figures.
        widest: attribute -> measure -> the gap between its groups; attributes of fewer than two measured groups,
            "unknown" aside, are not in it.
        from_labels: attributes that the labels themselves make.
        left_out: attribute -> why the images could not be divided by it.
        gaps, finding_gaps: how many different gaps were corrected for, of macro means and of findings.
    """

    label_names: LabelSpace
    groups: dict[str, dict[str, Group]]
    widest: dict[str, dict[str, Widest]]
    from_labels: tuple[str, ...]
    left_out: dict[str, str]
    gaps: int
    finding_gaps: int
    least_patients: int
    least_positive_patients: int
    confidence: float
    resamples: int

    def to_dict(self) -> dict[str, Any]:
        """For JSON, findings by name; NaN stays NaN here, `files.plain` makes it None."""
        settings = ("gaps", "finding_gaps", "least_patients", "least_positive_patients", "confidence", "resamples")
        return {
            "label_names": list(self.label_names),
            **{name: getattr(self, name) for name in settings},
            "left_out": self.left_out,
            "attributes": {
                attribute: {
                    "from_labels": attribute in self.from_labels,
                    "groups": {name: group.to_dict(self.label_names) for name, group in groups.items()},
                    "widest": {
                        key: {**vars(one), "findings": list(one.findings)}
                        for key, one in self.widest.get(attribute, {}).items()
                    },
                }
                for attribute, groups in self.groups.items()
            },
        }


def measure_subgroups(
    prob_NC: ArrayLike,
    label_NC: ArrayLike,
    draws: PatientDraws,
    attributes: Mapping[str, Attribute],
    *,
    left_out: Mapping[str, str] | None = None,
    label_names: Sequence[str] | None = None,
    threshold_C: ArrayLike | None = None,
    confidence: float = CONFIDENCE,
    least_patients: int = 20,
    least_positive_patients: int = 5,
) -> Subgroups:
    """Measure every group and all other images, and the gap between them.

    Args:
        prob_NC: probabilities in [0, 1].
        label_NC: 1, 0 or NaN.
        draws: of the patients of these images.
        attributes, left_out: from `groups.image_attributes`; ``left_out`` is for the reader.
        label_names: C names; "finding_0", ... if left out.
        threshold_C: an operating point: a probability at or above it is called positive; NaN for a finding without
            one. With it, false negative and false positive rates are measured too.
        confidence: of the intervals, in (0, 1).
        least_patients: a group or a rest of fewer is named and not measured.
        least_positive_patients: a finding is in the macro means if so many patients of the group and of the rest
            have it, and so many do not: with fewer, many draws leave it undefined.

    Raises:
        ValueError: bad scores or labels (see `checks`), attributes or thresholds of another length.
    """
    prob_NC, label_NC = check_probabilities(prob_NC, label_NC)
    check_confidence(confidence)
    names = LabelSpace(label_names or [f"finding_{column}" for column in range(label_NC.shape[1])])
    if len(names) != label_NC.shape[1] or len(draws.patient_N) != len(label_NC):
        raise ValueError(
            f"{len(names)} label names and {len(draws.patient_N)} patients' images for labels {label_NC.shape}"
        )
    for name, attribute in attributes.items():
        if len(attribute.group_N) != len(label_NC):
            raise ValueError(f"{name} has {len(attribute.group_N)} values for {len(label_NC)} images")
    threshold_C = _thresholds(threshold_C, len(names))
    plans = {
        (attribute, group): _plan(
            label_NC,
            one.rows(group),
            draws,
            names,
            (least_patients, least_positive_patients),
            not one.from_labels,
            threshold_C is not None,
        )
        for attribute, one in attributes.items()
        for group in one.groups
    }
    sampled = _sample(prob_NC, label_NC, threshold_C, draws, plans.values())
    groups: dict[str, dict[str, Group]] = {attribute: {} for attribute in attributes}
    for (attribute, group), plan in plans.items():
        groups[attribute][group] = _group(label_NC, plan, draws, sampled, names, confidence)
    gaps, finding_gaps = _correct(groups, plans)
    return Subgroups(
        label_names=names,
        groups=groups,
        widest=_widest(plans, sampled, names, confidence),
        from_labels=tuple(name for name, attribute in attributes.items() if attribute.from_labels),
        left_out=dict(left_out or {}),
        gaps=gaps,
        finding_gaps=finding_gaps,
        least_patients=least_patients,
        least_positive_patients=least_positive_patients,
        confidence=confidence,
        resamples=draws.resamples,
    )


@dataclass(frozen=True, eq=False)
class _Plan:
    """What is measured of a group: its rows, and the columns of the findings that enough patients of the group and of
    the rest have (``positive``), and do not have (``negative``); or the reason why it is not."""

    rows_N: NDArray[np.bool_]
    positive: list[int]
    negative: list[int]
    left_out: dict[str, str]
    reason: str
    tested: bool

    @property
    def both(self) -> list[int]:
        """The columns with enough positive and enough negative patients."""
        return [column for column in self.positive if column in self.negative]

    def columns(self, key: str) -> list[int]:
        """Those of a measure's macro means: a false negative rate needs positives alone."""
        return {"fnr": self.positive, "fpr": self.negative}.get(key, self.both)

    @property
    def sides(self) -> dict[bytes, NDArray[np.bool_]]:
        """The group and the rest, each by a key of its rows: the rest of the women may be the men."""
        return {side_N.tobytes(): side_N for side_N in (self.rows_N, ~self.rows_N)}


def _plan(
    label_NC: Array,
    rows_N: NDArray[np.bool_],
    draws: PatientDraws,
    names: LabelSpace,
    least: tuple[int, int],
    tested: bool,
    errors: bool,
) -> _Plan:
    least_patients, least_positive_patients = least
    reason, left_out = "", {}
    columns = {"positive": list(range(len(names))), "negative": list(range(len(names)))}
    for side, side_N in {"in the group": rows_N, "among all other images": ~rows_N}.items():
        patients = _patients(draws, side_N)
        if patients < least_patients and not reason:
            found = f"{patients} patients {side}, fewer than {least_patients}"
            reason = found if patients else f"no images {side}"
        for word, value in (("positive", 1), ("negative", 0)):
            for column, name in enumerate(names):
                found = _patients(draws, side_N & (label_NC[:, column] == value))
                if found < least_positive_patients:
                    columns[word] = [kept for kept in columns[word] if kept != column]
                    left_out.setdefault(name, f"{found} {word} patients {side}, fewer than {least_positive_patients}")
    plan = _Plan(rows_N, columns["positive"], columns["negative"], left_out, reason, tested)
    if reason or plan.both or (errors and (plan.positive or plan.negative)):
        return plan
    return replace(
        plan,
        reason=f"no finding has {least_positive_patients} positive and negative patients both here and elsewhere",
    )


def _patients(draws: PatientDraws, rows_N: NDArray[np.bool_]) -> int:
    return int(np.count_nonzero(np.bincount(draws.patient_N[rows_N])))


_Sampled = dict[tuple[bytes, ...], dict[str, Sample]]


def _sample(
    prob_NC: Array, label_NC: Array, threshold_C: Array | None, draws: PatientDraws, plans: Iterable[_Plan]
) -> _Sampled:
    """The measures of every set of images, each set once, by the key of its rows; BPSN by those of group and rest."""
    measured = [plan for plan in plans if not plan.reason]
    sides = {key: side_N for plan in measured for key, side_N in plan.sides.items()}
    labels = {(key,): np.where(side_N[:, None], label_NC, np.nan) for key, side_N in sides.items()}
    crossed = {}
    for plan in measured:
        for first, second in (plan.sides, reversed(plan.sides)):
            side_N = sides[first][:, None]
            crossed[first, second] = np.where(label_NC == np.where(side_N, 0, 1), label_NC, np.nan)
    keyed = sample_metrics([(prob_NC, one_NC) for one_NC in labels.values()], draws, list(headline_metrics()))
    sampled = dict(zip(labels, keyed, strict=True))
    keyed = sample_metrics([(prob_NC, one_NC) for one_NC in crossed.values()], draws, ["auc"])
    sampled |= dict(zip(crossed, keyed, strict=True))
    if threshold_C is not None:
        known_C = ~np.isnan(threshold_C)
        kept = [np.where(known_C, one_NC, np.nan) for one_NC in labels.values()]
        for key, errors in zip(labels, sample_errors(prob_NC >= threshold_C, kept, draws), strict=True):
            sampled[key] |= errors
    return sampled


def _macro_last(sample: Sample, columns: Sequence[int]) -> tuple[Array, Array]:
    """Values (C + 1,) and draws (R, C + 1) of the findings and, last, of their mean over those of the columns that
    the measure defines."""
    defined = [column for column in columns if not np.isnan(sample.value_C[column])]
    value = sample.value_C[defined].mean() if defined else np.nan
    return np.append(sample.value_C, value), np.column_stack([sample.draw_RC, mean_over(sample.draw_RC, defined)])


def _group(
    label_NC: Array, plan: _Plan, draws: PatientDraws, sampled: _Sampled, names: LabelSpace, confidence: float
) -> Group:
    compared, crossed = {}, {}
    if not plan.reason:
        own, rest = plan.sides
        for key in sampled[own,]:
            columns = plan.columns(key)
            if not columns:
                continue
            (value_X, draw_RX), (other_X, other_RX) = (
                _macro_last(sampled[side,][key], columns) for side in (own, rest)
            )
            gap_X, gap_RX = value_X - other_X, draw_RX - other_RX
            p_X = np.full(len(gap_X), np.nan)
            if plan.tested and is_tested(key):  # of few positives, all draws are much alike, and p is far too small
                enough = [*columns, -1]
                p_X[enough] = gap_p(gap_X[enough], gap_RX[:, enough])
            estimates = (
                Estimates.of(*pair, confidence) for pair in ((value_X, draw_RX), (other_X, other_RX), (gap_X, gap_RX))
            )
            compared[key] = Compared(*estimates, p_X, np.full(len(p_X), np.nan))
        for key, pair in zip(CROSSED, ((own, rest), (rest, own)), strict=True) if plan.both else ():
            crossed[key] = Estimates.of(*_macro_last(sampled[pair]["auc"], plan.both), confidence)
    rows_N = plan.rows_N
    counted = Counts.of(label_NC[rows_N], draws.patient_N[rows_N])
    return Group(
        images=counted.images,
        patients=counted.patients,
        positives_C=counted.positives_C,
        positive_patients_C=counted.positive_patients_C,
        prevalence_C=counted.prevalence_C,
        rest_prevalence_C=Counts.of(label_NC[~rows_N], draws.patient_N[~rows_N]).prevalence_C,
        reason=plan.reason,
        findings=() if plan.reason else tuple(names[column] for column in plan.both),
        left_out=plan.left_out,
        compared=compared,
        crossed=crossed,
    )


def _correct(groups: dict[str, dict[str, Group]], plans: Mapping[tuple[str, str], _Plan]) -> tuple[int, int]:
    """Fill in ``p_corrected_X``; a group and its complement are one hypothesis. Returns how many there are."""
    p: dict[tuple[Any, ...], float] = {}
    places = []  # of each gap: the array to fill in, its place there, its hypothesis
    for (attribute, name), plan in plans.items():
        for key, one in groups[attribute][name].compared.items():
            for place, value in enumerate(one.p_X):
                is_macro = place == len(one.p_X) - 1
                hypothesis = (is_macro, key, place, frozenset(plan.sides))
                if not np.isnan(value):
                    p.setdefault(hypothesis, float(value))
                    places.append((one.p_corrected_X, place, hypothesis))
    corrected, sizes = {}, []
    for is_macro in (True, False):
        family = [hypothesis for hypothesis in p if hypothesis[0] == is_macro]
        corrected |= dict(zip(family, holm([p[hypothesis] for hypothesis in family]), strict=True))
        sizes.append(len(family))
    for p_X, place, hypothesis in places:
        p_X[place] = corrected[hypothesis]
    return sizes[0], sizes[1]


def _widest(
    plans: Mapping[tuple[str, str], _Plan], sampled: _Sampled, names: LabelSpace, confidence: float
) -> dict[str, dict[str, Widest]]:
    by_attribute: dict[str, dict[str, _Plan]] = {}
    for (attribute, group), plan in plans.items():
        if not plan.reason and group != UNKNOWN:
            by_attribute.setdefault(attribute, {})[group] = plan
    widest: dict[str, dict[str, Widest]] = {}
    for attribute, every in by_attribute.items():
        for key in sampled[next(iter(next(iter(every.values())).sides)),]:
            groups = {group: plan for group, plan in every.items() if plan.columns(key)}
            shared = sorted(set.intersection(*(set(plan.columns(key)) for plan in groups.values()))) if groups else []
            if len(groups) < 2 or not shared:
                continue
            pairs = [_macro_last(sampled[next(iter(plan.sides)),][key], shared) for plan in groups.values()]
            value_G = np.array([value_X[-1] for value_X, _ in pairs])
            draw_RG = np.stack([draw_RX[:, -1] for _, draw_RX in pairs], axis=1)
            if np.isnan(value_G).any():
                continue
            tested = next(iter(groups.values())).tested and is_tested(key)
            one = _spread(value_G, draw_RG, tuple(groups), tested, confidence)
            widest.setdefault(attribute, {})[key] = replace(one, findings=tuple(names[column] for column in shared))
    keys = [(attribute, key) for attribute, by_key in widest.items() for key in by_key]
    tested_keys = [(a, key) for a, key in keys if not np.isnan(widest[a][key].p)]
    corrected = holm([widest[a][key].p for a, key in tested_keys])
    for (attribute, key), p in zip(tested_keys, corrected, strict=True):
        widest[attribute][key] = replace(widest[attribute][key], p_corrected=p)
    return widest


def _spread(value_G: Array, draw_RG: Array, groups: Sequence[str], tested: bool, confidence: float) -> Widest:
    """The highest and the lowest of several groups (G) in a measure."""
    high, low = int(value_G.argmax()), int(value_G.argmin())
    (least,), (most,) = percentile_interval((draw_RG[:, high] - draw_RG[:, low])[:, None], confidence)
    range_R = np.ptp(draw_RG - value_G, axis=1)
    range_R = range_R[~np.isnan(range_R)]
    gap = float(value_G[high] - value_G[low])
    p = (1 + (range_R >= gap).sum()) / (len(range_R) + 1) if tested and len(range_R) else np.nan
    return Widest(groups[high], groups[low], gap, float(least), float(most), float(p), float("nan"), ())


def _thresholds(threshold_C: ArrayLike | None, n_findings: int) -> Array | None:
    if threshold_C is None:
        return None
    threshold_C = np.asarray(threshold_C, dtype=np.float64)
    if threshold_C.shape != (n_findings,) or ((threshold_C < 0) | (threshold_C > 1)).any():
        raise ValueError(f"thresholds are {threshold_C}; give {n_findings} probabilities, NaN for none")
    return None if np.isnan(threshold_C).all() else threshold_C
