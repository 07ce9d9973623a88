"""Scores of any program measured on labelled images: without a model, without an image, without torch.

The scores are a CSV or Parquet file, a folder of a run, or one that `evaluate --out` wrote; the labels are in the same
file, in a table, or those of any dataset that the package knows. Where the scores are a run's, the page says where the
weights come from that the run started with.

Refused: what `hf_cxr.prediction_tables` refuses; a folder without predictions; labels given twice or not at all; a
patient in validation and in test; images in one of them and studies in the other; a second system with other labels.
"""

import dataclasses
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from hf_cxr.arguments.data import DataArguments
from hf_cxr.data import Source, label_matrix, load_source
from hf_cxr.evaluation import evaluate_predictions
from hf_cxr.evaluation.draws import Intervals
from hf_cxr.evaluation.operating_points import choose_operating_points
from hf_cxr.evaluation.paired import Paired, measure_paired
from hf_cxr.files import file_sha256, plain
from hf_cxr.prediction_tables import Found, LabelTable, ScoreTable, find_predictions, match, read_labels, read_scores
from hf_cxr.prediction_tables.ids import match_ids
from hf_cxr.prediction_tables.match import check_same_labels
from hf_cxr.predictions import Predictions, finite_logits
from hf_cxr.reporting import claims
from hf_cxr.run.analysis import analyse
from hf_cxr.run.evaluating.evaluation import Evaluation
from hf_cxr.run.evaluating.studies import PHANTOMS, cautions, names_studies, of_studies, saved_studies
from hf_cxr.run.result_folder import EVALUATION, check_evaluation_folder, check_same_evaluation
from hf_cxr.saved_models import CONFIG, read_json
from hf_cxr.weights_origin import check_origin

logger = logging.getLogger(__name__)

RECORD = "hf_cxr"  # the key of config.json with `models.ModelRecord`, which needs torch


@dataclass(frozen=True)
class Inputs:
    """What is measured.

    Attributes:
        predictions: file or folder of scores.
        labels: table of labels; None: those of ``data``, or of the file itself.
        validation: file of scores of the validation split; None takes those of a run folder, if it has them.
        validation_labels: their table; None: the same as ``labels``.
        data: the dataset that has the labels; None if none was named.
        kind: "probabilities" or "logits"; None leaves it to the file, see `ScoreTable.probabilities`.
        shared: measure the images and findings that scores and labels both have.
        split: which split is measured; None: that which the file says, else test.
        against: file or folder of another system's scores of the same images.
        against_kind: what they are, as ``kind``.
        studies: how a study is scored ("mean", "max"), to measure studies; None measures images.
    """

    predictions: str
    labels: str | None = None
    validation: str | None = None
    validation_labels: str | None = None
    data: DataArguments | None = None
    kind: str | None = None
    shared: bool = False
    split: str | None = None
    against: str | None = None
    against_kind: str | None = None
    studies: str | None = None


def evaluate_tables(
    inputs: Inputs,
    *,
    intervals: Intervals,
    place: Path | None,
    rule: str,
    target: float | None = None,
    controls: bool = False,
) -> Evaluation:
    """Measure scores of any program.

    Args:
        inputs: what is measured.
        intervals: how they are drawn.
        place: where the result is to be written, from `result_folder.held`: refused now if it holds something else.
        rule, target: how operating points are chosen on the validation scores, see `evaluation.threshold_rules`.
        controls: measure what view, age and sex reach without a pixel, too.

    Raises:
        ValueError, OSError: see the module's first lines.
    """
    if place:
        check_evaluation_folder(place)
    found = find_predictions(inputs.predictions, inputs.split or "test")
    validation_file = Path(inputs.validation) if inputs.validation else found.validation
    scores, validation_scores = read_scores(found.scores), validation_file and read_scores(validation_file)
    split = split_of(scores, inputs.split)
    labels, validation_labels = _labels(inputs, split, found, scores, validation_scores)
    identity = {
        "model_sha256": file_sha256(found.scores),
        "dataset": labels.facts["dataset"],
        "split": split,
        "split_fingerprint": labels.facts.get("split_fingerprint"),
        "labels_sha256": inputs.labels and file_sha256(inputs.labels),
        "validation_sha256": validation_file and file_sha256(validation_file),
    }
    saved = saved_studies(scores.predictions) if scores.predictions else None
    by = inputs.studies or (saved and saved[0])
    if by:
        identity["by"] = f"study, {by}"
    if place:
        check_same_evaluation(place, identity, inputs.predictions)
    how = {"kind": inputs.kind, "shared": inputs.shared}
    one_table = validation_scores is not None and validation_labels is labels
    elsewhere = images_of(validation_scores, labels) if one_table else ()
    matched = match(scores, labels, split=split, elsewhere=elsewhere, **how)
    predictions, validation = matched.predictions, None
    if len(set(predictions.patient_ids)) < 2:
        raise ValueError(
            f"{inputs.predictions} has scores of {len(predictions):,} images of 1 patient by {labels.name}, and "
            "intervals need at least 2 patients: give scores of more"
        )
    if validation_scores is not None:
        elsewhere = images_of(scores, labels) if one_table else ()
        validation = match(validation_scores, validation_labels, split="validation", elsewhere=elsewhere, **how)
        validation = in_the_findings_of(predictions, validation.predictions)
        check_patients_apart(predictions, validation)
        check_same_unit(predictions, validation)
    images, of_study = predictions, saved[1] if saved else {}
    if inputs.studies:
        if labels.facts.get("synthetic") and not names_studies(images):
            raise ValueError(PHANTOMS)
        predictions, of_study = of_studies(images, inputs.studies)
        validation = validation and of_studies(validation, inputs.studies)[0]
    points = None
    if validation is not None:
        chosen = {"rule": rule, "target": target, "label_names": predictions.label_names}
        points = choose_operating_points(validation.probabilities, validation.labels, **chosen)
    report = evaluate_predictions(
        predictions.probabilities,
        predictions.labels,
        predictions.patient_ids,
        label_names=predictions.label_names,
        thresholds=None if points is None else points.threshold_C(predictions.label_names),
        interval=intervals.kind,
        resamples=intervals.resamples,
        confidence=intervals.confidence,
        seed=intervals.seed,
    )
    analysis = analyse(
        predictions,
        validation=validation,
        points=points,
        without=() if controls else ("controls",),
        intervals=intervals,
    )
    if report.undefined():
        logger.warning("one label value only, so no AUC and no AP, of %s", ", ".join(report.undefined()))
    if inputs.against:
        how = {"intervals": intervals, "studies": inputs.studies}
        paired = compare_with(images, inputs.predictions, inputs.against, kind=inputs.against_kind, split=split, **how)
        analysis["paired"] = plain(paired.to_dict())
    trained_on = predictions.metadata.get("split")
    facts = {**labels.facts, "split": split, **matched.facts, **of_study}
    calibrated = bool(predictions.metadata.get("calibrated"))
    warnings = cautions(of_study, calibrated=calibrated, thresholds=points is not None) if of_study else []
    return Evaluation(
        inputs.predictions,
        identity,
        trained_on if isinstance(trained_on, str) else None,
        facts,
        report,
        predictions,
        validation=validation,
        analysis=analysis,
        weights_origin=weights_origin_of(found),
        warnings=tuple(warnings),
    )


def split_of(scores: ScoreTable, wanted: str | None) -> str:
    """The split that scores are of, if their file says so; else the one that is wanted, by default test.

    Raises:
        ValueError: another one is wanted.
    """
    stated = scores.predictions.split if scores.predictions else ""
    if wanted and stated and wanted != stated:
        raise ValueError(
            f"{scores.name} has predictions of {stated}, not of {wanted}; leave out --split, or give another file"
        )
    return wanted or stated or "test"


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


def check_patients_apart(test: Predictions, validation: Predictions) -> None:
    """Refuse a patient in both: what is fitted on validation would be measured on its own patients.

    Raises:
        ValueError: with their number and examples.
    """
    both = sorted(set(test.patient_ids) & set(validation.patient_ids))
    if both:
        raise ValueError(
            f"{len(both):,} patients are in the validation scores and in the {test.split} scores, such as "
            f"{', '.join(both[:3])}; give validation scores of other patients"
        )


def check_same_unit(test: Predictions, validation: Predictions) -> None:
    """Refuse thresholds of images for studies, or of studies for images.

    Raises:
        ValueError: one is of studies, the other of images.
    """
    of_test, of_validation = (saved_studies(one) is not None for one in (test, validation))
    if of_test != of_validation:
        nouns = {True: "studies", False: "images"}
        raise ValueError(
            f"the {test.split} scores are of {nouns[of_test]} and the validation scores of {nouns[of_validation]}; "
            "give both of the same"
        )


def weights_origin_of(found: Found) -> Mapping[str, Any] | None:
    """Where the initial weights of a run come from, by its record or by an evaluation of it; None if neither says.

    Raises:
        ValueError: what they say is damaged.
    """
    if found.folder is None:
        return None
    for file, key in ((CONFIG, RECORD), (EVALUATION, None)):
        path = found.folder / file
        values = read_json(path) if path.is_file() else {}
        record = values if key is None else values.get(key)
        origin = record.get("weights_origin") if isinstance(record, Mapping) else None
        if origin is not None:
            check_origin(origin)
            return origin
    return None


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


def check_split(source: Source, split: str) -> None:
    """Refuse a split without images.

    Raises:
        ValueError: with the splits that have some.
    """
    if not len(source.splits[split]):
        others = [name for name, rows in source.splits.items() if len(rows)]
        raise ValueError(f"{source.name} has no {split} images; measure --split {' or '.join(others)}")


def labels_of_source(source: Source, split: str) -> LabelTable:
    """The labels of a split of any dataset.

    Raises:
        ValueError: it has no image.
    """
    check_split(source, split)
    rows = source.splits[split]
    return LabelTable(
        f"the {split} split of {source.name}",
        tuple(rows["image_id"][:]),
        tuple(rows["patient_id"][:]),
        label_matrix(rows),
        source.labels,
        view=tuple(rows["view"][:]),
        age=np.asarray(rows["age"][:], dtype=np.float32),
        sex=tuple(rows["sex"][:]),
        study_ids=tuple(rows["study_id"][:]) if "study_id" in rows.column_names else None,
        facts={
            "dataset": source.name,
            "synthetic": source.synthetic,
            "split_fingerprint": source.fingerprint,
            **claims.split_source(source.split_origin, len(source.splits["test"]), {}, {}),
            **claims.data_origin(source.hub, source.notes),
        },
    )


def images_of(scores: ScoreTable, labels: LabelTable) -> tuple[str, ...]:
    """The labelled images that a file has scores of, as the labels spell their ids."""
    rows_N = match_ids(scores.image_ids, labels.image_ids, names=(scores.name, labels.name)).rows_N
    return tuple(labels.image_ids[row] for row in rows_N[rows_N >= 0])


def in_the_findings_of(test: Predictions, validation: Predictions) -> Predictions:
    """The validation predictions of the findings that are measured on test, in their order.

    Raises:
        ValueError: one is lacking.
    """
    lacking = [name for name in test.label_names if name not in validation.label_names]
    if lacking:
        raise ValueError(f"the validation scores or their labels lack {', '.join(lacking)}, which test has")
    columns = [validation.label_names.index(name) for name in test.label_names]
    exact = validation.exact_probabilities
    return dataclasses.replace(
        validation,
        logits=validation.logits[:, columns],
        labels=validation.labels[:, columns],
        label_names=test.label_names,
        exact_probabilities=None if exact is None else exact[:, columns],
    )


def _labels(
    inputs: Inputs, split: str, found: Found, scores: ScoreTable, validation: ScoreTable | None
) -> tuple[LabelTable, LabelTable | None]:
    """Labels of the split, and of the validation scores if there are any; the facts say which data they are of."""
    if inputs.labels and inputs.data:
        raise ValueError("labels are given twice, by --labels and by the flags of a dataset; leave out one")
    other = None
    if inputs.data:
        source = load_source(inputs.data, images=False)
        labels = labels_of_source(source, split)
        if validation is not None and not inputs.validation_labels:
            other = labels_of_source(source, "validation")
    elif inputs.labels:
        labels = read_labels(inputs.labels)
        labels = dataclasses.replace(labels, facts={"dataset": Path(inputs.labels).name})
    else:
        labels = scores.own_labels()
        fingerprint = (scores.predictions.metadata if scores.predictions else {}).get("split")
        facts = found.facts or {"dataset": f"labels in {found.scores.name}", "split_fingerprint": fingerprint}
        labels = dataclasses.replace(labels, facts=facts)
    if validation is None:
        return labels, None
    if inputs.validation_labels:
        return labels, read_labels(inputs.validation_labels)
    return labels, other or (validation.own_labels() if validation.has_labels else labels)
