"""What a labelled set of radiographs contains: counts, shifts between splits, tiers, patients, views, co-occurrence.

Only tables are read, never pixels. An unknown cell takes part in nothing: prevalence is over known cells, and a pair
of findings is counted on the images that know both. Everything counts images, unless it says patients.

Refuses: labels other than 1, 0 and NaN, or of another number of findings; rows without a patient; negative ages;
empty splits.

N = images, C = findings. In a matrix CC the first axis is the row, the second the column.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import datasets
import numpy as np
import pandas as pd

from hf_cxr.data.counting import CoOccurrence, Distribution, co_occurrence, ratio
from hf_cxr.data.schema import label_matrix
from hf_cxr.files import plain
from hf_cxr.labels import LabelSpace, Tier
from hf_cxr.words import plural

COLUMNS = ("patient_id", "view", "sex", "age")  # read beside the labels
UNKNOWN = "unknown"
_LAST_DECADE = 90


@dataclass(frozen=True)
class SplitStatistics:
    """One split.

    Args:
        positives_C, negatives_C, unknown_C: images of each finding; they add up to ``images``.
        without_findings: images of which some cell is known and every known cell is 0.
        unlabelled: images of which no cell is known.
        findings_per_image: positive cells of an image, over the labelled images.
        images_per_patient: over patients.
        view, sex: images of each value, the most frequent first, and "unknown".
        age: images of each decade, "0-9" to "90+", and "unknown".
        age_summary: mean, median, min and max of the known ages, in years; NaN if none is.
    """

    images: int
    patients: int
    positives_C: np.ndarray
    negatives_C: np.ndarray
    unknown_C: np.ndarray
    without_findings: int
    unlabelled: int
    findings_per_image: Distribution
    images_per_patient: Distribution
    view: dict[str, int]
    sex: dict[str, int]
    age: dict[str, int]
    age_summary: dict[str, float]
    co_occurrence: CoOccurrence

    @property
    def prevalence_C(self) -> np.ndarray:  # noqa: N802 - a shape suffix, as that of the fields
        """Share of positives among known cells, 0 to 1; NaN where none is known."""
        return ratio(self.positives_C, self.positives_C + self.negatives_C)

    @property
    def share_without_findings(self) -> float:
        """Among the labelled images, 0 to 1; NaN if there is none."""
        return float(ratio(self.without_findings, self.images - self.unlabelled))

    @property
    def imbalance_ratio(self) -> float:
        """Most to fewest positives of a finding: infinite if the rarest has none, NaN if no finding has one."""
        most, least = int(self.positives_C.max()), int(self.positives_C.min())
        return most / least if least else float("inf") if most else float("nan")


@dataclass(frozen=True)
class Statistics:
    """Every split, and what compares them with the split "train"; without one, ``shift`` and ``tiers`` are empty.

    Args:
        label_names: C findings.
        splits: by name, in the order given.
        shift: for each other split, C ratios of its prevalence to that of train; NaN where that is 0 or unknown.
        tiers: head, medium or tail of each finding, by training positives.
    """

    label_names: tuple[str, ...]
    splits: dict[str, SplitStatistics]
    shift: dict[str, np.ndarray]
    tiers: dict[str, Tier]

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values; what is undefined or infinite is null. No image's or patient's id is in it."""
        splits = {name: self._split_to_dict(name) for name in self.splits}
        return plain({"findings": list(self.label_names), "tiers": self.tiers, "splits": splits})

    def _split_to_dict(self, name: str) -> dict[str, Any]:
        split = self.splits[name]
        columns = {
            "positives": split.positives_C,
            "negatives": split.negatives_C,
            "unknown": split.unknown_C,
            "prevalence": split.prevalence_C,
        }
        if name in self.shift:
            columns["prevalence_ratio_to_train"] = self.shift[name]
        return {
            "images": split.images,
            "patients": split.patients,
            "findings": {
                finding: {key: value_C[column].item() for key, value_C in columns.items()}
                for column, finding in enumerate(self.label_names)
            },
            "imbalance_ratio": split.imbalance_ratio,
            "without_findings": {"images": split.without_findings, "share": split.share_without_findings},
            "unlabelled_images": split.unlabelled,
            "findings_per_image": split.findings_per_image.to_dict(),
            "images_per_patient": split.images_per_patient.to_dict(),
            "view": split.view,
            "sex": split.sex,
            "age": split.age,
            "age_summary": split.age_summary,
            "co_occurrence": split.co_occurrence.to_dict(),
        }


@dataclass(frozen=True)
class DrawStatistics:
    """What a sampler makes of a training set: an epoch's expected draws compared with the images themselves.

    Args:
        images: in the training set.
        draws: an epoch.
        distinct: different images among them; one drawn less than once counts by its chance.
        most_draws: of one image.
        without_findings: images, and draws, without a known positive.
        positives_C, negatives_C: images of each finding.
        drawn_positives_C, drawn_negatives_C: draws of them, float64.
    """

    label_names: tuple[str, ...]
    images: int
    draws: float
    distinct: float
    most_draws: float
    without_findings: tuple[int, float]
    positives_C: np.ndarray
    negatives_C: np.ndarray
    drawn_positives_C: np.ndarray
    drawn_negatives_C: np.ndarray

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values; what is undefined is null."""
        before, after = self.prevalences()
        columns = {
            "positives": self.positives_C,
            "negatives": self.negatives_C,
            "prevalence": before,
            "drawn_positives": self.drawn_positives_C,
            "drawn_negatives": self.drawn_negatives_C,
            "drawn_prevalence": after,
        }
        return plain(
            {
                "images": self.images,
                "draws": self.draws,
                "distinct_images": self.distinct,
                "share_of_images_drawn": self.distinct / self.images,
                "most_draws_of_an_image": self.most_draws,
                "without_findings": {"images": self.without_findings[0], "draws": self.without_findings[1]},
                "findings": {
                    finding: {key: value_C[column].item() for key, value_C in columns.items()}
                    for column, finding in enumerate(self.label_names)
                },
            }
        )

    def prevalences(self) -> tuple[np.ndarray, np.ndarray]:
        """Of each finding among the images, and among the draws, each (C,); NaN where no cell is known."""
        return (
            ratio(self.positives_C, self.positives_C + self.negatives_C),
            ratio(self.drawn_positives_C, self.drawn_positives_C + self.drawn_negatives_C),
        )


def describe_draws(train: datasets.Dataset, label_names: Sequence[str], draws_N: np.ndarray) -> DrawStatistics:
    """Count what a sampler draws from a training set, cell by cell; an unknown cell counts nowhere.

    Args:
        train: of the schema; only its labels are read.
        label_names: C findings.
        draws_N: expected draws of each image in an epoch, (N,), not negative.
    """
    label_NC = _checked_labels("train", train, LabelSpace(label_names))
    positive_NC, negative_NC = label_NC == 1, label_NC == 0
    without_N = ~positive_NC.any(axis=1)
    return DrawStatistics(
        label_names=tuple(label_names),
        images=len(label_NC),
        draws=float(draws_N.sum()),
        distinct=float(np.minimum(draws_N, 1).sum()),
        most_draws=float(draws_N.max()),
        without_findings=(int(without_N.sum()), float(draws_N[without_N].sum())),
        positives_C=positive_NC.sum(axis=0),
        negatives_C=negative_NC.sum(axis=0),
        drawn_positives_C=draws_N @ positive_NC,
        drawn_negatives_C=draws_N @ negative_NC,
    )


def describe_splits(splits: Mapping[str, datasets.Dataset], label_names: Sequence[str]) -> Statistics:
    """Count what the splits contain.

    Args:
        splits: by name, in the columns of `hf_cxr.data.schema`. ``labels`` and ``patient_id`` are needed; values of
            ``view``, ``sex`` and ``age`` are unknown if the column is not there; ``image`` is not read.
        label_names: C findings in the order of the labels.

    Raises:
        ValueError: no split, an empty one, a missing column, rows without a patient, negative ages, or labels that are
            not C cells of 1, 0 and NaN; the message names the split and the finding.
    """
    label_names = LabelSpace(label_names)
    if not splits:
        raise ValueError("no split to describe")
    described = {name: _describe(name, split, label_names) for name, split in splits.items()}
    train = described.get("train")
    compared = {name: split for name, split in described.items() if train is not None and name != "train"}
    return Statistics(
        label_names=tuple(label_names),
        splits=described,
        shift={name: ratio(split.prevalence_C, train.prevalence_C) for name, split in compared.items()},
        tiers={} if train is None else label_names.tiers(train.positives_C.tolist()),
    )


def _describe(name: str, split: datasets.Dataset, label_names: LabelSpace) -> SplitStatistics:
    absent = [column for column in ("labels", "patient_id") if column not in split.column_names]
    if absent:
        raise ValueError(f"split {name!r} has no column {', '.join(absent)}; it has {', '.join(split.column_names)}")
    if not len(split):
        raise ValueError(f"split {name!r} has no image")
    label_NC = _checked_labels(name, split, label_names)
    columns = split.select_columns([column for column in COLUMNS if column in split.column_names])
    table = columns.with_format(None).to_pandas().reindex(columns=list(COLUMNS))
    known_NC, positive_NC = ~np.isnan(label_NC), label_NC == 1
    labelled_N, findings_N = known_NC.any(axis=1), positive_NC.sum(axis=1)
    age, age_summary = _ages(name, table["age"])
    return SplitStatistics(
        images=len(split),
        patients=table["patient_id"].nunique(),
        positives_C=positive_NC.sum(axis=0),
        negatives_C=(label_NC == 0).sum(axis=0),
        unknown_C=(~known_NC).sum(axis=0),
        without_findings=int((labelled_N & (findings_N == 0)).sum()),
        unlabelled=int((~labelled_N).sum()),
        findings_per_image=Distribution.of(findings_N[labelled_N]),
        images_per_patient=Distribution.of(_images_per_patient(name, table["patient_id"])),
        view=_values(table["view"]),
        sex=_values(table["sex"]),
        age=age,
        age_summary=age_summary,
        co_occurrence=co_occurrence(label_NC),
    )


def _checked_labels(name: str, split: datasets.Dataset, label_names: LabelSpace) -> np.ndarray:
    """(N, C) float32 of 1, 0 and NaN, or ValueError."""
    feature = split.features["labels"]
    widths = {getattr(feature, "length", -1)}
    if widths == {-1}:  # a list of any length
        widths = set(map(len, split.with_format(None)["labels"]))
    if widths != {len(label_names)}:
        raise ValueError(
            f"split {name!r} has rows of {', '.join(map(str, sorted(widths)))} labels; expected {len(label_names)}, "
            f"one for each of {', '.join(label_names)}"
        )
    label_NC = label_matrix(split)
    strange_NC = ~np.isnan(label_NC) & (label_NC != 0) & (label_NC != 1)
    if strange_NC.any():
        row, column = np.argwhere(strange_NC)[0]
        raise ValueError(
            f"split {name!r} has {plural(strange_NC.sum(), 'label')} other than 1, 0 and NaN, such as "
            f"{label_NC[row, column]:g} for {label_names[column]} in row {row}; "
            "make uncertain labels 1, 0 or NaN first"
        )
    return label_NC


def _images_per_patient(name: str, patient_id_N: pd.Series) -> np.ndarray:
    missing_N = patient_id_N.isna() | (patient_id_N.astype(str).str.strip() == "")
    if missing_N.any():
        raise ValueError(
            f"{missing_N.sum():,} of {len(missing_N):,} rows of split {name!r} have no patient_id, such as row "
            f"{int(missing_N.argmax())}: fill it in or drop these rows"
        )
    return patient_id_N.value_counts().to_numpy()


def _values(value_N: pd.Series) -> dict[str, int]:
    """How often each value occurs, the most frequent first, "unknown" (None, NaN, blank) last and always there."""
    text_N = value_N.astype(object).where(value_N.notna(), "").astype(str).str.strip()
    counts = text_N.value_counts().to_dict()
    unknown = counts.pop("", 0)
    known = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return {value: int(count) for value, count in known} | {UNKNOWN: int(unknown)}


def _ages(name: str, age_N: pd.Series) -> tuple[dict[str, int], dict[str, float]]:
    """Images of each decade, and mean, median, min and max of the known ages."""
    age_N = age_N.to_numpy(dtype=np.float64)
    known = np.sort(age_N[~np.isnan(age_N)])  # sorted, so that a mean does not depend on the order of rows
    if len(known) and known[0] < 0:
        raise ValueError(f"split {name!r} has {plural((known < 0).sum(), 'age')} below 0 years, such as {known[0]:g}")
    decade_N = np.minimum(known // 10 * 10, _LAST_DECADE).astype(int)
    decades = [*(f"{start}-{start + 9}" for start in range(0, _LAST_DECADE, 10)), f"{_LAST_DECADE}+"]
    counts = np.bincount(decade_N // 10, minlength=len(decades)).tolist()
    age = dict(zip(decades, counts, strict=True)) | {UNKNOWN: len(age_N) - len(known)}
    statistics = {"mean": np.mean, "median": np.median, "min": np.min, "max": np.max}
    return age, {key: float(of(known)) if len(known) else float("nan") for key, of in statistics.items()}
