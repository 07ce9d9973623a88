"""What a run, an evaluation and an ensemble do alike: predict a split, calibrate on validation, choose thresholds.

N = images, C = findings.
"""

import dataclasses

import datasets

from hf_cxr.config import RunArguments
from hf_cxr.evaluation.calibration import Calibration, fit_calibration
from hf_cxr.evaluation.conformal import ConformalSets, fit_conformal
from hf_cxr.evaluation.draws import Intervals
from hf_cxr.evaluation.metrics import counts
from hf_cxr.evaluation.operating_points import OperatingPoints, choose_operating_points
from hf_cxr.inference.classifier import Classifier
from hf_cxr.models.record import ModelRecord
from hf_cxr.predictions import Predictions
from hf_cxr.run.preflight import image_errors_explained

Pair = tuple[Predictions, Predictions]
"""Predictions of validation and of test."""


def predict_split(classifier: Classifier, split: datasets.Dataset, name: str, args: RunArguments) -> Predictions:
    """Logits (N, C) of a split; all processes share the work and each gets the whole.

    Raises:
        ValueError: an image cannot be read; the message names it and says how to finish.
    """
    with image_errors_explained():
        return classifier.predict_split(
            split,
            name,
            batch_size=args.training.per_device_eval_batch_size,
            workers=args.training.dataloader_num_workers,
        )


def calibrate_pair(pair: Pair) -> tuple[Pair, Calibration]:
    """Validation and test under the map that is fitted on validation, and the map."""
    validation, test = pair
    calibration = fit_calibration(validation.logits, validation.labels, label_names=validation.label_names)
    return (calibrated(validation, calibration), calibrated(test, calibration)), calibration


def calibrated(predictions: Predictions, calibration: Calibration) -> Predictions:
    """The predictions as the calibrated model makes them."""
    return dataclasses.replace(
        predictions,
        logits=calibration.apply(predictions.logits),
        exact_probabilities=None,
        metadata={**predictions.metadata, "calibrated": True},
    )


def prevalence(predictions: Predictions) -> dict[str, float]:
    """Finding -> share of positives among its known labels, 0 to 1; findings without a known label are left out."""
    positives_C, negatives_C, _ = counts(predictions.labels)
    return {
        name: float(positives / (positives + negatives))
        for name, positives, negatives in zip(predictions.label_names, positives_C, negatives_C, strict=True)
        if positives + negatives
    }


def operating_points(validation: Predictions, args: RunArguments) -> OperatingPoints:
    """A threshold for each finding, by the rule of the arguments.

    Args:
        validation: as the model is to predict: calibrated, if it is.
        args: of the run.
    """
    return choose_operating_points(
        validation.probabilities,
        validation.labels,
        rule=args.evaluation.operating_point,
        target=args.evaluation.operating_target,
        label_names=validation.label_names,
    )


def label_sets(validation: Predictions) -> ConformalSets | None:
    """Conformal label sets at the coverage that a model carries; None for a single patient, who has no new one.

    Args:
        validation: as the model is to predict: calibrated, if it is.
    """
    if len(set(validation.patient_ids)) < 2:
        return None
    return fit_conformal(
        validation.probabilities, validation.labels, validation.patient_ids, label_names=validation.label_names
    )


def stored_points(record: ModelRecord) -> OperatingPoints | None:
    """The operating points in a model's record; None if it has none."""
    return None if record.operating_points is None else OperatingPoints.from_dict(record.operating_points)


def is_calibrated(predictions: Predictions) -> bool:
    """Whether a calibration is in the logits."""
    return bool(predictions.metadata.get("calibrated"))


def intervals_of(args: RunArguments) -> Intervals:
    """How the intervals of a run's figures are drawn."""
    return args.evaluation.intervals(args.training.seed)
