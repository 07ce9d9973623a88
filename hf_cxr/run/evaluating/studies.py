"""Predictions of images as predictions of studies, for `hf-cxr evaluate --by study`. No torch.

The result is a `Predictions` whose rows are studies, so everything that measures images measures them. What images of
a study do not agree on (view, age, sex, further columns) is unknown for the study; its views are kept, joined, in the
further column ``views`` (``study views`` where the images have a column of that name).

Refused: images that name no studies, a study of two patients, and predictions that are of studies already.

N = images, S = studies, C = findings.
"""

import re
from collections import Counter
from collections.abc import Sequence
from typing import Any

import datasets
import numpy as np

from hf_cxr.evaluation.studies import StudyGroups, group_studies, pool_labels, pool_scores
from hf_cxr.predictions import Predictions

UNIT, STUDY = "unit", "study"  # a key of the metadata, and what it says of rows that are studies
SCORE = "study_score"  # another: the rule of their scores
NIH_STUDY = re.compile(r"(\d{8}_\d{3})(?:\.[A-Za-z]+)?")  # 00000013_005.png: patient and follow-up number
SCORE_WORDS = {"mean": "the mean probability of its images", "max": "the largest probability of its images"}
PHANTOMS = "--by study: phantoms belong to no studies; leave it out, or measure data whose images name their study"
LABEL_WORDS = "positive if any of its images is, else negative if any is, else unknown"


def of_studies(predictions: Predictions, rule: str = "mean") -> tuple[Predictions, dict[str, Any]]:
    """Predictions of studies, and the facts that a page says about them.

    Args:
        predictions: of images.
        rule: how a study is scored, of `evaluation.studies.STUDY_SCORES`.

    Returns:
        Predictions of S rows, whose ids are those of the studies, or of the image where a study is not known; if every
        study has one image, scores and labels are those of the images to the bit. And ``unit``, how studies are
        scored and labelled, their sizes, conflicts of labels by finding, and images without a study.

    Raises:
        ValueError: see the module's first lines.
    """
    if predictions.metadata.get(UNIT) == STUDY:
        raise ValueError("these predictions are of studies already: leave out --by study, their unit is known")
    study = group_studies(study_ids_of(predictions.study_ids, predictions.image_ids), predictions.patient_ids)
    label_SC, conflict_SC = pool_labels(predictions.labels, study)
    fields = {
        "labels": label_SC,
        "image_ids": _names(predictions, study),
        "patient_ids": study.patient_ids,
        "study_ids": study.ids,
        "label_names": predictions.label_names,
        "split": predictions.split,
        "metadata": {**predictions.metadata, UNIT: STUDY, SCORE: rule},
        **_known(predictions, study),
    }
    prob_SC = pool_scores(predictions.probabilities, study, rule)  # refuses a rule that does not exist
    if len(study) == len(predictions) and predictions.exact_probabilities is None:
        pooled = Predictions(logits=predictions.logits, **fields)
    else:
        pooled = Predictions.of_probabilities(prob_SC, **fields)
    conflicts = dict(zip(predictions.label_names, conflict_SC.sum(axis=0).tolist(), strict=True))
    sizes = Counter(study.size_S.tolist())
    without = sum(one is None for one in study.ids)
    return pooled, {
        **_words(rule),
        "images averaged" if rule == "mean" else "images pooled": len(predictions),
        "studies by number of images": [f"{sizes[size]:,} of {size}" for size in sorted(sizes)],
        "studies with images of labels 1 and 0, counted positive": {name: n for name, n in conflicts.items() if n},
        **({"images without a study, each counted as one": without} if without else {}),
    }


def saved_studies(predictions: Predictions) -> tuple[str, dict[str, Any]] | None:
    """Of predictions that are of studies already: the rule of their scores, and what a page says about them.

    Returns:
        None for predictions of images.
    """
    if predictions.metadata.get(UNIT) != STUDY:
        return None
    rule = predictions.metadata.get(SCORE)
    if rule not in SCORE_WORDS:
        raise ValueError(
            f"these predictions are of studies, and {SCORE} in their file is {rule!r}; make the file again with "
            "hf-cxr evaluate --by study"
        )
    return rule, _words(rule)


def check_studies(images: datasets.Dataset, *, synthetic: bool = False) -> None:
    """Refuse a split whose images cannot be put together as studies, before they are predicted.

    Args:
        images: of the split.
        synthetic: they are phantoms.

    Raises:
        ValueError: its images name no studies, or a study is of two patients.
    """
    if synthetic and "study_id" not in images.column_names:
        raise ValueError(PHANTOMS)
    studies = images["study_id"][:] if "study_id" in images.column_names else None
    group_studies(study_ids_of(studies, images["image_id"][:]), images["patient_id"][:])


def names_studies(predictions: Predictions) -> bool:
    """Whether the study of the images is known."""
    return _named_studies(predictions.study_ids, predictions.image_ids) is not None


def study_ids_of(study_ids: Sequence[str | None] | None, image_ids: Sequence[str]) -> Sequence[str | None]:
    """The study of each image: as the data say, or from ids like ChestX-ray14's, which name it.

    Raises:
        ValueError: neither.
    """
    found = _named_studies(study_ids, image_ids)
    if found is not None:
        return found
    raise ValueError(
        "--by study needs the study of each image, and neither the data nor the image ids name it: leave out --by "
        "study, or give labels with a column study_id, or data whose description has study_column; make "
        "predictions of earlier versions again"
    )


def cautions(facts: dict[str, Any], *, calibrated: bool, thresholds: bool) -> list[str]:
    """What a reader of a page about studies must not overlook.

    Args:
        facts: from `of_studies`.
        calibrated: the images' probabilities are.
        thresholds: operating points were chosen, on validation studies.
    """
    sizes = facts.get("studies by number of images") or []
    several = not (len(sizes) == 1 and sizes[0].endswith(" of 1"))
    sentences = [f"All figures are of studies: a study's score is {facts['score of a study']}."]
    if not several:
        sentences = ["Every study has one image, so --by study changes no score."]
    if calibrated and several:
        sentences.append(
            "The images' probabilities are calibrated; those of studies are made of them and were not calibrated "
            "again: see the reliability curves before they are read as probabilities."
        )
    if not thresholds:
        sentences.append(
            "No operating points: thresholds of images are not those of studies, and there are no validation studies "
            "to choose them on."
            if several
            else "No operating points: there are no validation studies to choose them on."
        )
    return sentences


def _words(rule: str) -> dict[str, Any]:
    """What is true of all studies that are scored by the rule."""
    return {UNIT: STUDY, "score of a study": SCORE_WORDS[rule], "label of a study": LABEL_WORDS}


def _named_studies(study_ids: Sequence[str | None] | None, image_ids: Sequence[str]) -> Sequence[str | None] | None:
    if study_ids is not None and any(study is not None for study in study_ids):
        return study_ids
    found = [NIH_STUDY.fullmatch(image) for image in image_ids]
    return [match[1] for match in found] if all(found) else None


def _names(predictions: Predictions, study: StudyGroups) -> list[str]:
    """An id for each study, no two alike."""
    taken = {one for one in study.ids if one is not None}
    names = []
    for one, row in zip(study.ids, study.first_S, strict=True):
        image = predictions.image_ids[row]
        names.append(one if one is not None else f"image {image}" if image in taken else image)
    return names


def _known(predictions: Predictions, study: StudyGroups) -> dict[str, Any]:
    """View, age, sex and further columns, where a study's images agree."""
    extra = {name: _agreed(values, study) for name, values in predictions.extra.items()}
    fields: dict[str, Any] = {"sex": predictions.sex and _agreed(predictions.sex, study)}
    if predictions.age is not None:
        age_S = [np.nan if age is None else age for age in _agreed(predictions.age.tolist(), study)]
        fields["age"] = np.array(age_S, dtype=np.float32)
    if predictions.view is not None:
        fields["view"] = _agreed(predictions.view, study)
        joined = [
            " + ".join(sorted({view or "unknown" for view in views})) for views in _by_study(predictions.view, study)
        ]
        if any(" + " in views for views in joined):
            name = "views"
            while name in extra:
                name = f"study {name}"
            fields["view"], extra[name] = None, tuple(joined)
    return {**fields, "extra": extra}


def _agreed(values: Sequence[Any], study: StudyGroups) -> tuple[Any, ...]:
    """The one known value of each study's images; None if there is none, or several."""
    found = [{value for value in group if value is not None and value == value} for group in _by_study(values, study)]
    return tuple(group.pop() if len(group) == 1 else None for group in found)


def _by_study(values: Sequence[Any], study: StudyGroups) -> list[list[Any]]:
    groups: list[list[Any]] = [[] for _ in range(len(study))]
    for number, value in zip(study.number_N.tolist(), values, strict=True):
        groups[number].append(value)
    return groups
