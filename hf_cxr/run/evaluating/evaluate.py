"""A saved model measured on a split of any data: nothing is fitted, the model is measured as it is.

Refused before any image is predicted: data without a finding of the model's, images that cannot be read, a split of
one patient, studies where none are known, and a place for results that holds something else.
"""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import datasets
from accelerate import PartialState

from hf_cxr.config import RunArguments
from hf_cxr.data import map_labels
from hf_cxr.evaluation.operating_points import OperatingPoints
from hf_cxr.files import plain
from hf_cxr.inference.classifier import Classifier
from hf_cxr.labels import LabelSpace
from hf_cxr.models.record import ModelRecord
from hf_cxr.predictions import Predictions
from hf_cxr.reporting import claims
from hf_cxr.run.analysis import analyse
from hf_cxr.run.data import load
from hf_cxr.run.evaluating.averaged_views import check_averaging, measure_averaged, predict_averaged, warn_of_flips
from hf_cxr.run.evaluating.evaluate_tables import check_against, check_split, compare_with, labels_of_source
from hf_cxr.run.evaluating.evaluation import Evaluation
from hf_cxr.run.evaluating.localize import localization_values
from hf_cxr.run.evaluating.mistakes import mistakes_page
from hf_cxr.run.evaluating.stress import stress as measure_stress
from hf_cxr.run.evaluating.studies import cautions, check_studies, names_studies, of_studies
from hf_cxr.run.explain import Explainer, check_method
from hf_cxr.run.measuring import (
    interval_settings,
    measure_predictions,
    operating_points,
    predict_split,
    stored_points,
)
from hf_cxr.run.preflight import check_patients, readable
from hf_cxr.run.result_folder import check_evaluation_folder, check_same_evaluation
from hf_cxr.saved_models import fingerprint, model_folder, public_name
from hf_cxr.words import plural

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class More:
    """What an evaluation may measure besides.

    Attributes:
        against: file or folder of another system's scores of the same images.
        against_kind: "probabilities" or "logits", if the file does not say.
        mistakes: how many of the most confident mistakes the contact sheet shows in each list; None for no sheet.
        controls: what view, age and sex reach without a pixel.
        stress: kinds of `inference.perturbations` under which the model is measured.
        localize: method of heat maps that are scored on the boxes of the split; see `explain.maps.METHODS`.
        studies: how a study is scored ("mean", "max"), to measure studies; None measures images.
        averaged_views: kinds of `inference.views.KINDS`: the model with averaged views is measured as well.
    """

    against: str | None = None
    against_kind: str | None = None
    mistakes: int | None = None
    controls: bool = False
    stress: tuple[str, ...] = ()
    localize: str | None = None
    studies: str | None = None
    averaged_views: tuple[str, ...] = ()


def evaluate(
    model: str,
    args: RunArguments,
    *,
    split: str = "test",
    revision: str = "main",
    place: Path | None = None,
    more: More = More(),
) -> Evaluation | None:
    """Measure a saved model; all processes share the prediction, and the main one measures.

    Args:
        model: run folder or Hub id.
        args: which data, and how they are measured.
        split: "train", "validation" or "test".
        revision: branch, tag or commit of a Hub id.
        place: where the result is to be written, from `result_folder.held`: refused now if it holds something else.
        more: what is measured beside the metrics and the analyses that every evaluation has.

    Returns:
        The evaluation, on the main process; None on the others.

    Raises:
        ValueError, OSError: see the module's first lines.
    """
    if place:
        check_evaluation_folder(place)
    if more.localize:
        check_method(more.localize)
    classifier = Classifier(model, revision=revision)  # first: it is quick to refuse, and data are not
    source = load(args)
    check_split(source, split)
    if more.averaged_views:
        check_averaging(classifier, source, split)
        warn_of_flips(model, more.averaged_views)
    if more.against:
        labels = labels_of_source(source, split)
        check_against(labels, model, more.against, kind=more.against_kind, split=split)
    if more.studies:
        check_studies(source.splits[split], synthetic=source.synthetic)
    source.check_pixels(classifier.pixels.resize_size, classifier.pixels.resample)
    identity = {
        "model_sha256": fingerprint(model_folder(model, revision)),
        "dataset": source.name,
        "split": split,
        "split_fingerprint": source.fingerprint,
    }
    if more.studies:
        identity["by"] = f"study, {more.studies}"
    if place:
        check_same_evaluation(place, identity, model)
    names = ("validation", split) if more.averaged_views else (split,)
    needed = {name: source.splits[name] for name in names}
    chosen, not_shared = in_the_findings_of(classifier, needed, source.labels)
    trained_on = warn_of_other_split(classifier, identity["split_fingerprint"], split)
    images_by_split = readable(args, source.with_splits(chosen))
    images = images_by_split[split]
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
        **claims.data_origin(source.hub, source.notes),
    }
    record = ModelRecord.of(classifier.model.config) or ModelRecord()
    points = stored_points(record)
    analysis = on_images(classifier, images, args, more)
    if more.localize:
        explainer = Explainer(classifier, public_name(model), more.localize)
        analysis["localization"] = localization_values([explainer], args, source, split)
    pair = None
    if more.averaged_views:
        pair = predict_averaged(classifier, more.averaged_views, images_by_split, split, args)
    if not PartialState().is_main_process:
        return None
    images_of_split, validation = predictions, validation_of(model, predictions)
    assumed, warnings = record.prevalence, []
    if more.studies:
        predictions, facts = of_studies(predictions, more.studies)
        validation, points = tuned_on_studies(validation, more.studies, args)
        if len(predictions) < len(images_of_split):  # a mean of calibrated probabilities assumes no prevalence
            assumed = None
        measured_on |= facts
        warnings = cautions(facts, calibrated=record.calibration is not None, thresholds=points is not None)
    report = measure_predictions(predictions, points, interval=args.evaluation.interval, **interval_settings(args))
    analysis |= analyse(
        predictions,
        validation=validation,
        points=points,
        prevalence=assumed,
        without=("calibration_maps", *(() if more.controls else ("controls",))),
        **interval_settings(args),
    )
    if more.against:
        how = {"kind": more.against_kind, "split": split, "studies": more.studies, **interval_settings(args)}
        analysis["paired"] = plain(compare_with(images_of_split, model, more.against, **how).to_dict())
    averaged = None
    if pair is not None:
        how = (more.averaged_views, args, identity["model_sha256"])
        averaged = measure_averaged(pair, predictions, report, *how)
        analysis["averaged_views"] = averaged.values
    sheet = None
    if more.mistakes is not None:
        title = f"Most confident mistakes of {model} on {source.name}, {split}"
        sheet = mistakes_page(title, predictions, images, most=more.mistakes)
    return Evaluation(
        model,
        identity,
        trained_on,
        measured_on,
        report,
        predictions,
        analysis=analysis,
        weights_origin=record.weights_origin,
        averaged=averaged,
        mistakes=sheet,
        warnings=tuple(warnings),
    )


def tuned_on_studies(
    validation: Predictions | None, rule: str, args: RunArguments
) -> tuple[Predictions | None, OperatingPoints | None]:
    """Validation as studies, and thresholds chosen on them; None for both without validation studies.

    Args:
        validation: predictions of images, as the model makes them; those of data without studies, or of an earlier
            version, name none.
        rule: how a study is scored.
        args: which rule chooses thresholds.
    """
    if validation is None or not names_studies(validation):
        return None, None
    studies, _ = of_studies(validation, rule)
    return studies, operating_points(studies, args)


def on_images(classifier: Classifier, images: datasets.Dataset, args: RunArguments, more: More) -> dict[str, Any]:
    """The analyses that predict images again, by key of analysis.json; all processes share the work."""
    if not more.stress:
        return {}
    measured = measure_stress(
        classifier,
        images,
        more.stress,
        batch_size=args.training.per_device_eval_batch_size,
        workers=args.training.dataloader_num_workers,
        **interval_settings(args),
    )
    return {} if measured is None else {"stress": plain(measured.to_dict())}


def validation_of(model: str, test: Predictions) -> Predictions | None:
    """The predictions of a run folder's own validation split, if it has them and they are of other patients."""
    path = Path(model) / "predictions" / "validation.parquet"
    if test.split == "validation" or not path.is_file():
        return None
    validation = Predictions.load(path)
    apart = not set(validation.patient_ids) & set(test.patient_ids)
    return validation if apart and validation.label_names == test.label_names else None


def in_the_findings_of(
    classifier: Classifier, splits: Mapping[str, datasets.Dataset], label_names: LabelSpace
) -> tuple[Mapping[str, datasets.Dataset], dict[str, Any]]:
    """The splits with the model's findings for labels, unknown where the data lack one; and what is not shared.

    Returns:
        The splits; and {} for the same findings, else ``shared_findings`` and ``model_findings`` (numbers),
        ``findings_not_in_data`` and ``findings_not_in_model`` (names).

    Raises:
        ValueError: no finding is shared.
    """
    if classifier.label_names == tuple(label_names):
        return splits, {}
    mapped, shared, rest = map_labels(splits, label_names, classifier.label_names)
    logger.warning("measured on %s that model and data share", plural(len(shared), "finding"))
    return mapped, {
        "shared_findings": len(shared),
        "model_findings": len(classifier.label_names),
        "findings_not_in_data": list(rest["target"]),
        "findings_not_in_model": list(rest["source"]),
    }


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
