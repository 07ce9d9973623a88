"""Rows of a comparison that are only a file of predictions: another program's scores of the test images.

Refused: a file without a score of some test image or finding, and one whose own labels of these images differ.

N = images, C = findings.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hf_cxr.prediction_tables import LabelTable, find_predictions, match, read_scores
from hf_cxr.prediction_tables.files import shown
from hf_cxr.prediction_tables.match import check_same_labels


@dataclass(frozen=True)
class ScoreFile:
    """A file or folder of scores; ``kind`` says whether they are probabilities or logits, if the file does not."""

    path: Path
    kind: str | None = None

    def scores_of(self, labels: LabelTable, name: str, *, all_images: bool = True) -> NDArray[np.float64]:
        """Probabilities (N, C) of the labelled images, in their order.

        Args:
            labels: of the test images.
            name: of the row, for messages.
            all_images: whether every labelled image needs a score.

        Raises:
            ValueError, OSError: see the module's first lines.
        """
        scores = read_scores(find_predictions(self.path, "test").scores)
        matched = match(scores, labels, kind=self.kind, shared=True)
        lacking = matched.facts.get("findings_not_in_model", [])
        if lacking:
            raise ValueError(f"{name}: {scores.name} has no score of {shown(lacking)}; add the columns")
        without = len(labels.image_ids) - len(matched.predictions)
        if without and all_images:
            raise ValueError(
                f"{name}: {scores.name} has no score of {without:,} of the {len(labels.image_ids):,} test images, and "
                "methods are compared on the same ones; add them"
            )
        if scores.has_labels:
            check_same_labels(matched.predictions, scores.own_labels())
        return matched.predictions.probabilities
