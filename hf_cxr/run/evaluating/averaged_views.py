"""Test-time augmentation measured as a separate system: what `hf-cxr evaluate --test_time_augmentation` adds.

Validation and the split are predicted with averaged views; calibration and operating points are fitted on validation,
as a run does it for one view; the split is measured, and compared with the one view in the same draws of patients.
The run's own figures stay those of one view, which the stock pipeline gives.

Refused: the validation split itself, data other than those that the model was trained on (its calibration would be
fitted on patients who are no validation patients of it, or on training patients), and data without validation images.
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import datasets

from hf_cxr.config import RunArguments
from hf_cxr.data.sources import Source
from hf_cxr.evaluation import EvaluationReport
from hf_cxr.evaluation.paired import measure_paired
from hf_cxr.files import plain
from hf_cxr.inference.classifier import Classifier
from hf_cxr.inference.views import FOLDER, AveragedViews
from hf_cxr.models.record import ModelRecord
from hf_cxr.predictions import Predictions
from hf_cxr.reporting import claims
from hf_cxr.run.figures import measure_predictions
from hf_cxr.run.measuring import (
    Pair,
    calibrate_pair,
    intervals_of,
    operating_points,
    predict_split,
)
from hf_cxr.yaml_files import read_yaml

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Averaged:
    """A model with averaged views.

    Attributes:
        views: with their calibration and operating points.
        validation, measured: calibrated predictions, of the validation split and of the one that is measured.
        values: for analysis.json and its section.
    """

    views: AveragedViews
    validation: Predictions
    measured: Predictions
    values: dict[str, Any]

    def write(self, folder: Path) -> None:
        """Calibration and predictions, into the folder of an evaluation."""
        self.views.save(folder)
        for predictions in (self.validation, self.measured):
            predictions.save(folder / FOLDER / f"{predictions.split}.parquet")


def check_averaging(classifier: Classifier, source: Source, split: str) -> None:
    """Refuse, before the first prediction, what cannot be calibrated.

    Raises:
        ValueError: see the module's first lines.
    """
    flag = "--test_time_augmentation"
    if split == "validation":
        raise ValueError(f"{flag} is calibrated on validation and measured on another split; give --split test")
    record = ModelRecord.of(classifier.model.config) or ModelRecord()
    if record.split != source.fingerprint:
        raise ValueError(
            f"{flag} fits a calibration on the model's own validation patients, but the model was trained on the "
            f"split {record.split} and these data have {source.fingerprint}; give the data that it was trained on"
        )
    if not len(source.splits["validation"]):
        raise ValueError(f"{flag} fits a calibration on validation, and {source.name} has no validation images")


def warn_of_flips(model: str, kinds: Sequence[str]) -> None:
    """Warn if mirrored images are averaged by a run that never saw one: the heart lies on the other side in them."""
    settings = Path(model) / "config.yaml"
    if "flip" in kinds and settings.is_file() and read_yaml(settings).get("horizontal_flip") == 0:
        logger.warning(
            "%s was trained without left-right flips, and mirrored views are new to it; --test_time_augmentation "
            "scales leaves them out",
            model,
        )


def predict_averaged(
    classifier: Classifier,
    kinds: Sequence[str],
    splits: Mapping[str, datasets.Dataset],
    split: str,
    args: RunArguments,
) -> Pair:
    """Averaged logits of validation and of the split, not calibrated; all processes share the work.

    Args:
        classifier: without views.
        kinds: of `inference.views.KINDS`.
        splits: readable images of validation and of the split, with the model's findings for labels.
        split: what is measured.
        args: which data, and how they are measured.
    """
    averaging = classifier.with_views(AveragedViews(tuple(kinds)))
    validation, measured = (predict_split(averaging, splits[name], name, args) for name in ("validation", split))
    return validation, measured


def measure_averaged(
    pair: Pair,
    single: Predictions,
    single_report: EvaluationReport,
    kinds: Sequence[str],
    args: RunArguments,
    model_sha256: str,
) -> Averaged:
    """Calibrate, measure, and compare with one view.

    Args:
        pair: of `predict_averaged`.
        single: the model's own predictions of the split, in the same order.
        single_report: their figures.
        kinds: of the views.
        args: how figures are measured and operating points chosen.
        model_sha256: of the model.
    """
    (validation, measured), calibration = calibrate_pair(pair)
    points, intervals = operating_points(validation, args), intervals_of(args)
    views = AveragedViews(tuple(kinds), calibration, points, model_sha256)
    report = measure_predictions(measured, points, intervals=intervals)
    paired = measure_paired(
        measured.probabilities,
        single.probabilities,
        single.labels,
        single.patient_ids,
        label_names=single.label_names,
        names=(f"{len(views.views)} views averaged", "one view"),
        intervals=intervals,
    )
    reports = {"one": single_report, "averaged": report}
    values = {
        "words": views.words,
        "views": len(views.views),
        "split": measured.split,
        "validation_images": len(validation),
        "calibration": claims.calibration(calibration),
        "operating_points": claims.operating_points(points),
        "confidence": report.confidence,
        "macro": {
            name: {key: list(one.macro_interval) for key, one in own.measured["all"].items()}
            for name, own in reports.items()
        },
        "paired": paired.to_dict(),
    }
    return Averaged(views, validation, measured, plain(values))
