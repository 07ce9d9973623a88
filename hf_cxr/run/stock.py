"""A check that each run makes: the stock pipeline gives the probabilities that were evaluated."""

import logging
from pathlib import Path
from typing import Any

import datasets
import numpy as np

from hf_cxr.data import with_images
from hf_cxr.inference.classifier import stock_images, stock_pipeline
from hf_cxr.predictions import Predictions

logger = logging.getLogger(__name__)

PIPELINE_TOLERANCE = 1e-4  # in probability, for images that need no resizing; see `compare_with_stock_pipeline`


def compare_with_stock_pipeline(run_dir: Path, split: datasets.Dataset, predictions: Predictions) -> dict[str, Any]:
    """What the stock pipeline predicts for the first eight test images, compared with what was evaluated.

    Each run checks this, and not only the tests. Files that the pipeline can't read alike
    (16 bits, DICOM) go in as the evaluation's 8-bit grey.

    Args:
        run_dir: the model's folder.
        split: with images; one that the predictions lack is left out.
        predictions: of the same model.

    Returns:
        The largest difference of a probability, and of the first image with a finding: id, labels and scores. Those
        of a patient's image are for the terminal only, see `Report.to_dict`.
    """
    places = {image_id: place for place, image_id in enumerate(predictions.image_ids)}
    ids = enumerate(split["image_id"][:])
    shared = [(row, places[image_id]) for row, image_id in ids if image_id in places]
    if not shared:
        return {}
    positive_N = np.nansum(predictions.labels, axis=1) > 0
    example = next((pair for pair in shared if positive_N[pair[1]]), shared[0])
    chosen = sorted({*shared[:8], example})
    images = stock_images(with_images(split, [row for row, _ in chosen]), range(len(chosen)))
    answers = stock_pipeline(run_dir, images)
    evaluated = predictions.probabilities
    difference = max(
        abs(answer[name] - evaluated[place, column])
        for (_, place), answer in zip(chosen, answers, strict=True)
        for column, name in enumerate(predictions.label_names)
    )
    if difference > PIPELINE_TOLERANCE:
        logger.warning("the stock pipeline's probabilities differ from the evaluation's by up to %.1e", difference)
    shown = next((i for i, (_, place) in enumerate(chosen) if positive_N[place]), 0)
    cells = zip(predictions.label_names, predictions.labels[chosen[shown][1]], strict=True)
    return {
        "images": len(chosen),
        "largest_difference": float(difference),
        "image_id": predictions.image_ids[chosen[shown][1]],
        "labels": [name for name, cell in cells if cell == 1],
        "scores": answers[shown],
    }
