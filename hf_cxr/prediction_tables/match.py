"""Scores and labels put together: the images by id, the findings by name.

Refused, unless only what both have is to be measured: labels of findings or of images without a score, scored images
without a label. What is left out is counted in the facts.

N = images, C = findings.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from hf_cxr.data.findings import matching_column
from hf_cxr.evaluation.checks import ScoreKind
from hf_cxr.labels import LabelSpace
from hf_cxr.prediction_tables.files import shown
from hf_cxr.prediction_tables.ids import match_ids, unmatched
from hf_cxr.prediction_tables.labels import LabelTable
from hf_cxr.prediction_tables.scores import ScoreTable
from hf_cxr.predictions import Predictions

logger = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Matched:
    """Predictions, and what a reader must know about how they were put together.

    Attributes:
        predictions: of the images and findings that both files have, in the order of the labels.
        facts: ``scores`` (what they were taken for), ``ids_matched_by``; and where they differ, ``shared_findings``
            and ``model_findings`` (numbers), ``findings_not_in_data``, ``findings_not_in_model``,
            ``images_without_score``, ``images_without_label``.
    """

    predictions: Predictions
    facts: dict[str, Any]


def match(
    scores: ScoreTable,
    labels: LabelTable,
    *,
    kind: ScoreKind | None = None,
    shared: bool = False,
    split: str = "test",
    elsewhere: Sequence[str] = (),
) -> Matched:
    """Find every score's label.

    Args:
        scores, labels: from `read_scores` and `read_labels`.
        kind: what the scores are, if the file does not say; see `ScoreTable.probabilities`.
        shared: measure what both have.
        split: name of the predictions' split.
        elsewhere: ids of labelled images that another file has the scores of, such as that of validation.

    Raises:
        ValueError: one line, see the module's first lines.
    """
    found = scores.matching(labels.label_names)
    facts = _finding_facts(scores, labels, found, shared=shared)
    names = f"the scores in {scores.name}", f"the labels in {labels.name}"
    ids = match_ids(scores.image_ids, labels.image_ids, names=names)
    facts |= _image_facts(scores, labels, ids.rows_N, shared=shared, elsewhere=elsewhere)
    findings = tuple(found)
    prob_NC, words = scores.probabilities(tuple(found.values()), kind)
    scored = np.flatnonzero(ids.rows_N >= 0)
    score_rows = scored[np.argsort(ids.rows_N[scored], kind="stable")]
    label_rows = ids.rows_N[score_rows]
    columns = [labels.label_names.index(name) for name in findings]
    fields = {
        "labels": labels.labels[np.ix_(label_rows, columns)],
        "image_ids": [labels.image_ids[row] for row in label_rows],
        "patient_ids": [labels.patient_ids[row] for row in label_rows],
        "label_names": findings,
        "study_ids": labels.study_ids and [labels.study_ids[row] for row in label_rows],
        "view": labels.view and [labels.view[row] for row in label_rows],
        "age": None if labels.age is None else labels.age[label_rows],
        "sex": labels.sex and [labels.sex[row] for row in label_rows],
        "extra": {name: tuple(values[row] for row in label_rows) for name, values in labels.extra.items()},
        "split": split,
    }
    own = scores.predictions
    if own is not None and own.exact_probabilities is None:  # its logits, to the bit
        chosen = [own.label_names.index(name) for name in found.values()]
        logit_NC = own.logits[np.ix_(score_rows, chosen)]
        predictions = Predictions(logits=logit_NC, metadata=own.metadata, **fields)
    else:
        metadata = own.metadata if own is not None else {}
        predictions = Predictions.of_probabilities(prob_NC[score_rows], metadata=metadata, **fields)
    return Matched(predictions, {"scores": words, "ids_matched_by": ids.rule, **facts})


def check_same_labels(first: Predictions, other: LabelTable) -> None:
    """Refuse a second system whose file has other labels of the same images.

    Args:
        first: the first system's predictions.
        other: the labels in the second system's file, of these images and perhaps of more.

    Raises:
        ValueError: how many labels differ, and an example.
    """
    names = {
        name: matching_column(name, other.label_names, LabelSpace(first.label_names)) for name in first.label_names
    }
    rows_N = match_ids(first.image_ids, other.image_ids, names=("the first system", other.name)).rows_N
    columns = {name: column for name, column in names.items() if column is not None}
    mine_NC = first.labels[:, [first.label_names.index(name) for name in columns]]
    other_NC = other.labels[np.ix_(rows_N, list(columns.values()))]
    differs_NC = ~((mine_NC == other_NC) | (np.isnan(mine_NC) & np.isnan(other_NC)))
    if differs_NC.any():
        row, column = np.argwhere(differs_NC)[0]
        raise ValueError(
            f"{differs_NC.sum():,} labels of the same images differ in {other.name}, such as "
            f"{list(columns)[column]} of {first.image_ids[row]} ({mine_NC[row, column]:g} and "
            f"{other_NC[row, column]:g}): two systems are compared on the same labels"
        )


def _finding_facts(scores: ScoreTable, labels: LabelTable, found: dict[str, str], *, shared: bool) -> dict[str, Any]:
    lacking = [name for name in labels.label_names if name not in found]
    unlabelled = [name for name in scores.columns if name not in found.values()]
    if not found:
        raise ValueError(
            f"no finding is shared: {scores.name} has {shown(scores.columns, 20)}; {labels.name} has "
            f"{shown(labels.label_names, 20)}; name the columns after the same findings"
        )
    if lacking and not shared:
        raise ValueError(
            f"{scores.name} has no score of {shown(lacking, 20)}, which {labels.name} has labels of; add the columns, "
            f"or measure the {len(found)} findings that both have with --shared"
        )
    if unlabelled:
        logger.warning("%s: no labels of %s: not measured", scores.name, shown(unlabelled, 20))
    if lacking:
        logger.warning("%s: no scores of %s: not measured", scores.name, shown(lacking, 20))
    if not lacking and not unlabelled:
        return {}
    return {
        "shared_findings": len(found),
        "model_findings": len(scores.columns),
        "findings_not_in_data": unlabelled,
        "findings_not_in_model": lacking,
    }


def _image_facts(
    scores: ScoreTable, labels: LabelTable, rows_N: np.ndarray, *, shared: bool, elsewhere: Sequence[str]
) -> dict[str, Any]:
    without_label = [scores.image_ids[row] for row in np.flatnonzero(rows_N < 0)]
    others = set(elsewhere)
    scored = set(rows_N[rows_N >= 0].tolist())
    without_score = [one for row, one in enumerate(labels.image_ids) if row not in scored and one not in others]
    if (without_label or without_score) and not shared:
        parts = []
        if without_label:
            parts.append(
                f"{len(without_label):,} of {len(scores.image_ids):,} images of {scores.name} are not in "
                f"{labels.name}, {unmatched(without_label, without_score)}"
            )
        if without_score:
            parts.append(
                f"{len(without_score):,} of {len(labels.image_ids):,} images of {labels.name} have no score, "
                f"{unmatched(without_score, without_label)}"
            )
        raise ValueError(
            f"{'; '.join(parts)}; complete the files, or measure the {len(scored):,} images that both have with "
            "--shared"
        )
    facts = {"images_without_score": len(without_score), "images_without_label": len(without_label)}
    facts = {name: count for name, count in facts.items() if count}
    for name, count in facts.items():
        logger.warning("%s: %s %s are left out", scores.name, f"{count:,}", name.replace("_", " "))
    return facts
