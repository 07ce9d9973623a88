"""A saved model measured on a split of any data: nothing is fitted, the model is measured as it is.

Refused before any image is predicted: data without a finding of the model's, images that cannot be read, a split of
one patient, and a place for results that holds something else.
"""

import dataclasses
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import datasets

from hf_cxr.config import RunArguments
from hf_cxr.data import map_labels
from hf_cxr.evaluation import EvaluationReport
from hf_cxr.files import write_json, write_text
from hf_cxr.inference.classifier import Classifier
from hf_cxr.labels import LabelSpace
from hf_cxr.models.record import ModelRecord
from hf_cxr.predictions import Predictions
from hf_cxr.reporting import claims
from hf_cxr.reporting.document import Document
from hf_cxr.reporting.evaluation import evaluation_document
from hf_cxr.run.data import load
from hf_cxr.run.measuring import interval_settings, measure_predictions, predict_split
from hf_cxr.run.preflight import check_patients, readable
from hf_cxr.run.result_folder import (
    EVALUATION,
    PREDICTIONS,
    check_evaluation_folder,
    check_same_evaluation,
    write_whole,
)
from hf_cxr.saved_models import fingerprint, model_folder
from hf_cxr.words import plural

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Evaluation:
    """The figures of a saved model on a split.

    Attributes:
        model: run folder or Hub id, as it was given.
        identity: what the figures are of, see `result_folder.check_same_evaluation`.
        trained_on: the fingerprint of the split that the model was trained on, if it says.
        measured_on: which data, and what of them is missing.
        report: every figure with its interval.
        predictions: in the order of the split.
    """

    model: str
    identity: dict[str, Any]
    trained_on: str | None
    measured_on: dict[str, Any]
    report: EvaluationReport
    predictions: Predictions

    def to_dict(self) -> dict[str, Any]:
        """The content of evaluation.json."""
        model = {
            "model": self.model,
            "model_sha256": self.identity["model_sha256"],
            "trained_on_split": self.trained_on,
        }
        return {**model, **self.measured_on, **self.report.to_dict()}

    def document(self) -> Document:
        """What a reader sees of it."""
        return evaluation_document(self.model, self.report, facts=self.measured_on, split=self.measured_on["split"])

    def write(self, place: Path) -> None:
        """predictions.parquet and, last, evaluation.json.

        Args:
            place: from `result_folder.held`.
        """
        metadata = {**self.predictions.metadata, "measured": self.identity}

        def write(folder: Path) -> None:
            dataclasses.replace(self.predictions, metadata=metadata).save(folder / PREDICTIONS)
            write_text(folder / "evaluation.html", self.document().to_html(folder))
            write_json(folder / EVALUATION, self.to_dict())

        write_whole(place, write, last=EVALUATION)


def evaluate(
    model: str, args: RunArguments, *, split: str = "test", revision: str = "main", place: Path | None = None
) -> Evaluation:
    """Measure a saved model; all processes share the work.

    Args:
        model: run folder or Hub id.
        args: which data, and how they are measured.
        split: "train", "validation" or "test".
        revision: branch, tag or commit of a Hub id.
        place: where the result is to be written, from `result_folder.held`: refused now if it holds something else.

    Raises:
        ValueError, OSError: see the module's first lines.
    """
    if place:
        check_evaluation_folder(place)
    classifier = Classifier(model, revision=revision)  # first: it is quick to refuse, and data are not
    source = load(args)
    source.check_pixels(classifier.pixels.resize_size, classifier.pixels.resample)
    identity = {
        "model_sha256": fingerprint(model_folder(model, revision)),
        "dataset": source.name,
        "split": split,
        "split_fingerprint": source.fingerprint,
    }
    if place:
        check_same_evaluation(place, identity, model)
    chosen, not_shared = in_the_findings_of(classifier, {split: source.splits[split]}, source.labels)
    trained_on = warn_of_other_split(classifier, identity["split_fingerprint"], split)
    images = readable(args, source.with_splits(chosen))[split]
    check_patients(split, images)
    if args.data.unreadable_images == "skip":
        not_shared |= {"unreadable_images": len(source.splits[split]) - len(images)}
    predictions = predict_split(classifier, images, split, args)
    measured_on = {
        "dataset": identity["dataset"],
        "synthetic": source.synthetic,
        "split": split,
        "split_fingerprint": identity["split_fingerprint"],
        **not_shared,
        "missing_images": source.missing,
        "labels_shuffled": args.data.shuffle_labels,
        **claims.split_source(source.split_origin, len(source.splits.get("test", ())), source.missing, {}),
    }
    report = measure_predictions(predictions, **interval_settings(args))
    return Evaluation(model, identity, trained_on, measured_on, report, predictions)


def in_the_findings_of(
    classifier: Classifier, splits: Mapping[str, datasets.Dataset], label_names: LabelSpace
) -> tuple[Mapping[str, datasets.Dataset], dict[str, Any]]:
    """The splits with the model's findings for labels, unknown where the data lack one; and what is not shared.

    Returns:
        The splits, and {} for the same findings, else {"findings_not_in_data": [...], "findings_not_in_model": [...]}.

    Raises:
        ValueError: no finding is shared.
    """
    if classifier.label_names == tuple(label_names):
        return splits, {}
    mapped, shared, rest = map_labels(splits, label_names, classifier.label_names)
    logger.warning("measured on %s that model and data share", plural(len(shared), "finding"))
    return mapped, {"findings_not_in_data": list(rest["target"]), "findings_not_in_model": list(rest["source"])}


def warn_of_other_split(classifier: Classifier, data_fingerprint: str, split: str) -> str | None:
    """Warn if the model was trained on another cut of the data: its training patients may be among these.

    Returns:
        The fingerprint of what the model was trained on, if it says.
    """
    record = ModelRecord.of(classifier.model.config)
    trained_on = None if record is None else record.split
    if trained_on != data_fingerprint:
        logger.warning(
            "the model's split fingerprint is %s, this data's is %s: the data or the cut differ, and if they overlap, "
            "patients of this %s set may have been trained on",
            trained_on,
            data_fingerprint,
            split,
        )
    return trained_on
