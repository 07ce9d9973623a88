"""How well heat maps find what radiologists drew boxes around, next to maps that cannot know.

    localization = measure_localization(scores, findings, draws, explained="grad_cam")

Every figure is a ratio of two sums over pairs of an image and a finding with boxes (`boxes.score_map` measures one
pair): of boxes that are found, of peaks that are inside. So a draw of patients is two sums of what each patient adds.

A map is only worth something next to controls: a random map, the middle of the image, the place where other patients
have the finding, and the same method on a model of random weights. A map that looks alike with random weights shows
the image, not the model (Adebayo et al., "Sanity Checks for Saliency Maps", NeurIPS 2018), so the rank correlation of
the two is measured as well.

P = pairs of an image and a finding, C = findings with boxes, A = maps, S = statistics, M = patients, R = draws,
G = groups: each finding, then all boxes together, then the mean of the findings.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hf_cxr.evaluation.boxes import MapScore
from hf_cxr.evaluation.checks import Array
from hf_cxr.evaluation.draws import CONFIDENCE, PatientDraws, check_confidence, percentile_interval, two_sided_p

IOBB = (0.1, 0.25, 0.5, 0.75, 0.9)
"""T(IoBB) of Wang et al., table 4."""
IOU = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7)
"""T(IoU) of Wang et al., table 7."""
ALL, MEAN = "all boxes", "mean of findings"

# Key of a control -> its title, in the order of the tables. `explain.controls` makes them.
CONTROLS = {
    "random": "random map",
    "centre": "middle of the image",
    "usual_place": "usual place of the finding",
    "randomised_weights": "random weights",
}
GRID_LIMIT = "grid_limit"
"""Key of the drawn boxes themselves on the map's grid: no map of that grid can do better by much."""


@dataclass(frozen=True)
class Statistic:
    """A figure of a set of maps.

    Args:
        title: for readers.
        parts: of one pair: what it adds to the numerator, and to the denominator.
        higher_is_better: False for a number of false boxes.
    """

    title: str
    parts: Callable[[MapScore], tuple[float, float]]
    higher_is_better: bool = True


def _found(name: str, threshold: float) -> Callable[[MapScore], tuple[float, float]]:
    return lambda score: ((getattr(score, name) > threshold).sum(), len(getattr(score, name)))


def _false(name: str, threshold: float) -> Callable[[MapScore], tuple[float, float]]:
    return lambda score: ((getattr(score, name) <= threshold).sum(), 1.0)


def _energy(score: MapScore) -> tuple[float, float]:
    # A map that is equal everywhere, zeros too, has the share that the boxes cover.
    return (score.covered if np.isnan(score.energy) else score.energy, 1.0)


# Key -> the statistic. Boxes that are found are a share of the drawn boxes; the others are a mean over pairs.
STATISTICS: dict[str, Statistic] = {
    **{f"iobb_{t:g}": Statistic(f"IoBB > {t:g}", _found("iobb_K", t)) for t in IOBB},
    **{f"iou_{t:g}": Statistic(f"IoU > {t:g}", _found("iou_K", t)) for t in IOU},
    "pointing": Statistic("pointing game", lambda score: (score.hit, 1.0)),
    "pointing_near": Statistic("pointing game with tolerance", lambda score: (score.near, 1.0)),
    "energy": Statistic("energy inside", _energy),
    **{f"false_iobb_{t:g}": Statistic(f"false boxes, IoBB {t:g}", _false("detected_iobb_D", t), False) for t in IOBB},
    **{f"false_iou_{t:g}": Statistic(f"false boxes, IoU {t:g}", _false("detected_iou_D", t), False) for t in IOU},
}


@dataclass(frozen=True, eq=False)
class Localization:
    """Every statistic of every map, with intervals, and what the explained map has over each control.

    Attributes:
        explained: key of the map that is explained; the others are controls.
        maps: A keys, the explained map first.
        findings: C names with boxes.
        boxes_C, pairs_C, patients_C: how many there are.
        images, patients: how many there are in all.
        value_ASG, low_ASG, high_ASG: the statistics and their intervals; NaN where undefined, as the interval of a
            finding of one patient is.
        difference_ASG, difference_low_ASG, difference_high_ASG, p_ASG: the explained map minus each map, in the same
            draws; of the explained map itself it is 0.
        similarity_G3: rank correlation of the explained map with the same method on random weights, and its interval;
            NaN where it was not measured.
        flat_A: maps that are equal everywhere.
        covered: mean share of an image inside the drawn boxes.
        confidence: of the intervals.
        resamples: draws of patients.
    """

    explained: str
    maps: tuple[str, ...]
    findings: tuple[str, ...]
    boxes_C: NDArray[np.int64]
    pairs_C: NDArray[np.int64]
    patients_C: NDArray[np.int64]
    images: int
    patients: int
    value_ASG: Array
    low_ASG: Array
    high_ASG: Array
    difference_ASG: Array
    difference_low_ASG: Array
    difference_high_ASG: Array
    p_ASG: Array
    similarity_G3: Array
    flat_A: NDArray[np.int64]
    covered: float
    confidence: float
    resamples: int

    @property
    def groups(self) -> tuple[str, ...]:
        """What the last axis is: the findings, `ALL` and `MEAN`."""
        return (*self.findings, ALL, MEAN)

    def value(self, key: str, statistic: str, group: str = ALL) -> float:
        """One figure by its names."""
        place = self.maps.index(key), tuple(STATISTICS).index(statistic), self.groups.index(group)
        return float(self.value_ASG[place])

    def to_dict(self) -> dict[str, Any]:
        """Plain Python for JSON, by name: values[map][statistic][group] is [value, low, high]."""
        triples = np.stack([self.value_ASG, self.low_ASG, self.high_ASG], axis=-1)
        gains = np.stack([self.difference_ASG, self.difference_low_ASG, self.difference_high_ASG, self.p_ASG], axis=-1)
        counts = {"boxes": self.boxes_C, "pairs": self.pairs_C, "patients": self.patients_C}
        return {
            "explained": self.explained,
            "maps": list(self.maps),
            "findings": list(self.findings),
            "images": self.images,
            "patients": self.patients,
            "counts": {key: dict(zip(self.findings, count.tolist(), strict=True)) for key, count in counts.items()},
            "values": self._named(triples),
            "differences": {key: value for key, value in self._named(gains).items() if key != self.explained},
            "similarity": dict(zip(self.groups, self.similarity_G3.tolist(), strict=True)),
            "flat": dict(zip(self.maps, self.flat_A.tolist(), strict=True)),
            "covered": self.covered,
            "confidence": self.confidence,
            "resamples": self.resamples,
        }

    def _named(self, value_ASGx: Array) -> dict[str, Any]:
        return {
            key: {
                statistic: dict(zip(self.groups, value_Gx.tolist(), strict=True))
                for statistic, value_Gx in zip(STATISTICS, value_SGx, strict=True)
            }
            for key, value_SGx in zip(self.maps, value_ASGx, strict=True)
        }


def measure_localization(
    scores: Mapping[str, Sequence[MapScore]],
    findings: Sequence[str],
    image_ids: Sequence[str],
    draws: PatientDraws,
    *,
    explained: str,
    label_names: Sequence[str],
    similarity_P: Sequence[float] | None = None,
    confidence: float = CONFIDENCE,
) -> Localization:
    """Statistics of maps against boxes, with patient-clustered intervals.

    Args:
        scores: key of a map -> its P scores, all against the same boxes.
        findings: P names.
        image_ids: P ids, for the number of images.
        draws: of the patients of the P pairs.
        explained: key of the map that is compared with the others.
        label_names: all findings of the model, which give the order.
        similarity_P: rank correlation of each map with that of random weights; NaN where one of them is flat.
        confidence: of the intervals.

    Raises:
        ValueError: no pair, lists of other lengths, an unknown finding, or no map of the key ``explained``.
    """
    check_confidence(confidence)
    pairs = len(findings)
    if not pairs:
        raise ValueError("there is no box to measure the maps with")
    lengths = {key: len(value) for key, value in scores.items()} | {"image_ids": len(image_ids)}
    lengths |= {"draws": len(draws.patient_N)}
    if similarity_P is not None:
        lengths["similarity_P"] = len(similarity_P)
    wrong = [f"{key} {length}" for key, length in lengths.items() if length != pairs]
    if wrong:
        raise ValueError(f"there are {pairs} pairs, but {', '.join(wrong)}")
    if explained not in scores:
        raise ValueError(f"there are no scores of {explained!r}; there are those of {', '.join(scores)}")
    unknown = sorted(set(findings) - set(label_names))
    if unknown:
        raise ValueError(f"the model has no finding {unknown[0]!r}; leave its boxes out")
    names = tuple(name for name in label_names if name in set(findings))
    maps = (explained, *(key for key in scores if key != explained))
    column_P = np.array([names.index(name) for name in findings])
    similarity = np.full(pairs, np.nan) if similarity_P is None else np.asarray(similarity_P, dtype=np.float64)
    parts_PA2 = _parts([scores[key] for key in maps], similarity)
    value_XG, draw_RXG = _sampled(parts_PA2, column_P, len(names), draws)
    low_XG, high_XG = percentile_interval(draw_RXG, confidence)
    by_finding = [column_P == column for column in range(len(names))]
    patients_C = np.array([len(np.unique(draws.patient_N[rows])) for rows in by_finding])
    alone_G = np.append(patients_C < 2, [False, False])  # one patient has no interval
    low_XG[:, alone_G], high_XG[:, alone_G] = np.nan, np.nan
    shape = (len(maps), len(STATISTICS), len(names) + 2)
    value_ASG, low_ASG, high_ASG = (x[:-1].reshape(shape) for x in (value_XG, low_XG, high_XG))
    gain_RASG = draw_RXG[:, :-1].reshape(-1, *shape)
    gain_RASG = gain_RASG[:, :1] - gain_RASG
    gain_low_ASG, gain_high_ASG = percentile_interval(gain_RASG, confidence)
    p_ASG = two_sided_p(gain_RASG)
    for part_ASG in (gain_low_ASG, gain_high_ASG, p_ASG):
        part_ASG[..., alone_G] = np.nan
    first = scores[explained]
    return Localization(
        explained=explained,
        maps=maps,
        findings=names,
        boxes_C=np.array([sum(len(first[row].iobb_K) for row in np.flatnonzero(rows)) for rows in by_finding]),
        pairs_C=np.array([rows.sum() for rows in by_finding]),
        patients_C=patients_C,
        images=len(set(image_ids)),
        patients=draws.n_patients,
        value_ASG=value_ASG,
        low_ASG=low_ASG,
        high_ASG=high_ASG,
        difference_ASG=value_ASG[:1] - value_ASG,
        difference_low_ASG=gain_low_ASG,
        difference_high_ASG=gain_high_ASG,
        p_ASG=p_ASG,
        similarity_G3=np.stack([value_XG[-1], low_XG[-1], high_XG[-1]], axis=-1),
        flat_A=np.array([sum(score.flat for score in scores[key]) for key in maps]),
        covered=float(np.mean([score.covered for score in first])),
        confidence=confidence,
        resamples=draws.resamples,
    )


def _parts(scores_AP: Sequence[Sequence[MapScore]], similarity_P: Array) -> Array:
    """Numerator and denominator of every statistic of every map, then of the similarity: (P, A * S + 1, 2)."""
    rows = [
        [statistic.parts(score_P[row]) for score_P in scores_AP for statistic in STATISTICS.values()]
        for row in range(len(similarity_P))
    ]
    defined_P = ~np.isnan(similarity_P)
    last_P12 = np.stack([np.where(defined_P, similarity_P, 0), defined_P], axis=-1)[:, None]
    return np.concatenate([np.array(rows, dtype=np.float64), last_P12], axis=1)


def _sampled(parts_PX2: Array, column_P: NDArray[np.int64], findings: int, draws: PatientDraws) -> tuple[Array, Array]:
    """Each of the X statistics in each group: of all patients (X, G), and of each draw (R, X, G)."""
    figures = parts_PX2.shape[1]
    patient_MCX2 = np.zeros((draws.n_patients, findings, figures, 2))
    np.add.at(patient_MCX2, (draws.patient_N, column_P), parts_PX2)
    flat_MY = patient_MCX2.reshape(draws.n_patients, -1)
    total_CX2 = patient_MCX2.sum(axis=0)
    defined_CX = total_CX2[..., 1] > 0
    draw_RXG = np.empty((draws.resamples, figures, findings + 2))
    for rows, weight_RM in draws.blocks():
        draw_RXG[rows] = _groups((weight_RM @ flat_MY).reshape(-1, findings, figures, 2), defined_CX)
    return _groups(total_CX2[None], defined_CX)[0], draw_RXG


def _groups(sum_RCX2: Array, defined_CX: NDArray[np.bool_]) -> Array:
    """Sums by finding to ratios by group, (R, X, G).

    The mean is over the findings that are defined in the full sample, the same ones in every draw: a draw in which one
    of them is undefined has none.
    """
    with np.errstate(invalid="ignore", divide="ignore"):
        by_finding = sum_RCX2[..., 0] / sum_RCX2[..., 1]
        total = sum_RCX2.sum(axis=1)
        together = total[..., 0] / total[..., 1]
        mean = np.where(defined_CX, by_finding, 0).sum(axis=1) / defined_CX.sum(axis=0)
    return np.concatenate([by_finding, together[:, None], mean[:, None]], axis=1).swapaxes(1, 2)
