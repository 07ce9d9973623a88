"""Scores that any program wrote, and labels of any table, as `Predictions`: without the model, and without torch.

    read_predictions("scores.csv", "labels.csv")              # -> Predictions, checked
    scores, labels = read_scores("scores.csv"), read_labels("Data_Entry_2017.csv")
    matched = match(scores, labels, shared=True)              # matched.predictions, matched.facts

`folders` finds the file in a run, `files` reads CSV and Parquet, `ids` matches images by name, `scores` and `labels`
turn columns into numbers, `match` puts both together. docs/predictions.md is the format as a standard that other
programs can write.

Contract: nothing is guessed in silence. What was taken for what (probabilities or logits, ids by which part of their
name, findings that only one side has) is in ``facts``, which every report prints.
"""

import os

from hf_cxr.prediction_tables.folders import Found, find_predictions
from hf_cxr.prediction_tables.labels import LabelTable, read_labels
from hf_cxr.prediction_tables.match import Matched, match
from hf_cxr.prediction_tables.scores import ScoreTable, read_scores
from hf_cxr.predictions import Predictions

__all__ = [
    "Found",
    "LabelTable",
    "Matched",
    "ScoreTable",
    "find_predictions",
    "match",
    "read_labels",
    "read_predictions",
    "read_scores",
]


def read_predictions(
    scores: str | os.PathLike[str],
    labels: str | os.PathLike[str] | None = None,
    *,
    kind: str | None = None,
    shared: bool = False,
    split: str = "test",
) -> Predictions:
    """Scores of any program with the labels of their images.

    Args:
        scores: CSV or Parquet, a column a finding; or a file that `Predictions.save` wrote.
        labels: CSV or Parquet, a column a finding or NIH's "Finding Labels"; None if the first file has the labels.
        kind: "probabilities" or "logits"; None takes scores that are all in [0, 1] as probabilities
            and refuses others.
        shared: measure the images and findings that both files have, instead of refusing what one of them lacks.
        split: its name.

    Raises:
        FileNotFoundError, ValueError: one line with what is wrong, where, and the repair.
    """
    table = read_scores(scores)
    return match(
        table, table.own_labels() if labels is None else read_labels(labels), kind=kind, shared=shared, split=split
    ).predictions
