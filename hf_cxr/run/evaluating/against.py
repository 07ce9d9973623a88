"""A second system, given as a file of scores: refused before the first one predicts, then compared with it. No torch.

Refused: the system itself; no image or no finding that both have; a file whose labels of these images are different.

N = images, C = findings.
"""

import dataclasses

import numpy as np

from hf_cxr.evaluation.draws import Intervals
from hf_cxr.evaluation.paired import Paired, measure_paired
from hf_cxr.prediction_tables import LabelTable, find_predictions, match, read_scores
from hf_cxr.prediction_tables.match import check_same_labels
from hf_cxr.predictions import Predictions, finite_logits
from hf_cxr.run.evaluating.studies import of_studies


def check_against(
    labels: LabelTable, name: str, against: str, *, kind: str | None = None, split: str = "test"
) -> None:
    """Refuse a second system that cannot be compared, before the first one predicts.

    Args:
        labels: of the images that will be predicted.
        name: of the first system.
        against, kind, split: as in `compare_with`.

    Raises:
        ValueError: see `compare_with`.
    """
    if name == against:
        raise ValueError(
            f"--against {against} is the model itself, and a system compared with itself has no difference"
        )
    scores = read_scores(find_predictions(against, split).scores)
    both = match(scores, labels, kind=kind, shared=True, split=split)
    if scores.has_labels:
        check_same_labels(both.predictions, scores.own_labels())


def compare_with(
    first: Predictions,
    first_name: str,
    against: str,
    *,
    kind: str | None = None,
    split: str = "test",
    studies: str | None = None,
    intervals: Intervals,
) -> Paired:
    """The difference to another system, on the images and findings that both have.

    Args:
        first: one system's predictions.
        first_name: what the report calls it.
        against: file or folder of the other's scores.
        kind: what these are, if the file does not say.
        split: of a run folder.
        studies: how a study is scored, to compare studies; None compares images.
        intervals: how they are drawn.

    Raises:
        ValueError: nothing is shared; or the other file has labels, and they differ.
    """
    scores = read_scores(find_predictions(against, split).scores)
    labels = LabelTable.of_predictions(first_name, first)
    both = match(scores, labels, kind=kind, shared=True, split=split)
    second = both.predictions
    if scores.has_labels:
        check_same_labels(second, scores.own_labels())
    row = {one: number for number, one in enumerate(first.image_ids)}
    rows = [row[one] for one in second.image_ids]
    columns = [first.label_names.index(name) for name in second.label_names]
    prob_NC = first.probabilities[np.ix_(rows, columns)]
    noun = "images"
    if studies:
        noun = "radiographs"  # a page about studies has that unit in place of "image", and these are not studies
        own = dataclasses.replace(second, logits=finite_logits(prob_NC), exact_probabilities=prob_NC)
        prob_NC, second = of_studies(own, studies)[0].probabilities, of_studies(second, studies)[0]
    return measure_paired(
        prob_NC,
        second.probabilities,
        second.labels,
        second.patient_ids,
        label_names=second.label_names,
        names=(first_name, against),
        intervals=intervals,
        left_out={
            f"{noun} of the first": len(first) - len(rows),
            f"{noun} of the second": len(scores.image_ids) - len(rows),
            "findings of the first": [name for name in first.label_names if name not in second.label_names],
            "findings of the second": both.facts.get("findings_not_in_data", []),
        },
    )
