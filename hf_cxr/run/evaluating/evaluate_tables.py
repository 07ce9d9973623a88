"""Scores of any program measured on labelled images: without a model, without an image, without torch.

The scores are a CSV or Parquet file, a folder of a run, or one that `evaluate --out` wrote; the labels are in the same
file, in a table, or those of any dataset that the package knows. Where the scores are a run's, the page says where the
weights come from that the run started with.

Refused: what `hf_cxr.prediction_tables` refuses; a folder without predictions; labels given twice or not at all; a
patient in validation and in test; images in one of them and studies in the other; a second system with other labels.
"""

import dataclasses
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hf_cxr.arguments.data import DataArguments
from hf_cxr.data import load_source
from hf_cxr.evaluation.draws import Intervals
from hf_cxr.evaluation.operating_points import choose_operating_points
from hf_cxr.files import file_sha256
from hf_cxr.prediction_tables import Found, LabelTable, ScoreTable, find_predictions, match, read_labels, read_scores
from hf_cxr.prediction_tables.ids import match_ids
from hf_cxr.predictions import Predictions
from hf_cxr.run.evaluating.evaluation import Evaluation
from hf_cxr.run.evaluating.label_source import labels_of_source
from hf_cxr.run.evaluating.measured import System, measure
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
    files = open_files(inputs)
    identity = identity_of(inputs, files)
    if place:
        check_same_evaluation(place, identity, inputs.predictions)
    images, facts, validation = match_files(inputs, files)
    system = scores_as_measured(inputs, files, images, validation, rule, target)
    report, analysis = measure(
        system,
        intervals,
        without=() if controls else ("controls",),
        against=inputs.against,
        against_kind=inputs.against_kind,
        studies=inputs.studies,
    )
    if report.undefined():
        logger.warning("one label value only, so no AUC and no AP, of %s", ", ".join(report.undefined()))
    trained_on = images.metadata.get("split")
    return Evaluation(
        inputs.predictions,
        identity,
        trained_on if isinstance(trained_on, str) else None,
        {**files.labels.facts, "split": files.split, **facts, **system.facts},
        report,
        system.measured,
        validation=system.validation,
        analysis=analysis,
        weights_origin=weights_origin_of(files.found),
        warnings=system.cautions,
    )


@dataclass(frozen=True, eq=False)
class Files:
    """The files of an evaluation, read and not yet matched.

    Attributes:
        found: where the scores are.
        split: which one they are of.
        scores, labels: of the split.
        validation_file, validation_scores, validation_labels: of the validation split; None without one.
        of_studies: of scores that are of studies already, the rule of their scores and what a page says of them.
    """

    found: Found
    split: str
    scores: ScoreTable
    labels: LabelTable
    validation_file: Path | None
    validation_scores: ScoreTable | None
    validation_labels: LabelTable | None
    of_studies: tuple[str, dict[str, Any]] | None


def open_files(inputs: Inputs) -> Files:
    """Read scores and labels.

    Raises:
        ValueError, OSError: see the module's first lines.
    """
    found = find_predictions(inputs.predictions, inputs.split or "test")
    validation_file = Path(inputs.validation) if inputs.validation else found.validation
    scores, validation_scores = read_scores(found.scores), validation_file and read_scores(validation_file)
    split = split_of(scores, inputs.split)
    labels, validation_labels = _labels(inputs, split, found, scores, validation_scores)
    saved = saved_studies(scores.predictions) if scores.predictions else None
    return Files(found, split, scores, labels, validation_file, validation_scores, validation_labels, saved)


def identity_of(inputs: Inputs, files: Files) -> dict[str, Any]:
    """What the figures are of, see `result_folder.check_same_evaluation`."""
    identity = {
        "model_sha256": file_sha256(files.found.scores),
        "dataset": files.labels.facts["dataset"],
        "split": files.split,
        "split_fingerprint": files.labels.facts.get("split_fingerprint"),
        "labels_sha256": inputs.labels and file_sha256(inputs.labels),
        "validation_sha256": files.validation_file and file_sha256(files.validation_file),
    }
    by = inputs.studies or (files.of_studies and files.of_studies[0])
    return identity | ({"by": f"study, {by}"} if by else {})


def match_files(inputs: Inputs, files: Files) -> tuple[Predictions, dict[str, Any], Predictions | None]:
    """Scores with their labels.

    Returns:
        Predictions of the split; what of them was left out; predictions of validation, None without any.

    Raises:
        ValueError: see `prediction_tables.match`; one patient, or a patient in both.
    """
    scores, labels, validation_scores = files.scores, files.labels, files.validation_scores
    how = {"kind": inputs.kind, "shared": inputs.shared}
    one_table = validation_scores is not None and files.validation_labels is labels
    elsewhere = images_of(validation_scores, labels) if one_table else ()
    matched = match(scores, labels, split=files.split, elsewhere=elsewhere, **how)
    predictions = matched.predictions
    if len(set(predictions.patient_ids)) < 2:
        raise ValueError(
            f"{inputs.predictions} has scores of {len(predictions):,} images of 1 patient by {labels.name}, and "
            "intervals need at least 2 patients: give scores of more"
        )
    if validation_scores is None:
        return predictions, matched.facts, None
    elsewhere = images_of(scores, labels) if one_table else ()
    of_validation = match(
        validation_scores, files.validation_labels, split="validation", elsewhere=elsewhere, **how
    ).predictions
    validation = select_findings(of_validation, predictions.label_names)
    check_patients_apart(predictions, validation)
    check_same_unit(predictions, validation)
    return predictions, matched.facts, validation


def scores_as_measured(
    inputs: Inputs,
    files: Files,
    images: Predictions,
    validation: Predictions | None,
    rule: str,
    target: float | None,
) -> System:
    """The scores as they are measured, images or studies, with thresholds that are chosen on validation."""
    measured, facts = images, files.of_studies[1] if files.of_studies else {}
    if inputs.studies:
        if files.labels.facts.get("synthetic") and not names_studies(images):
            raise ValueError(PHANTOMS)
        measured, facts = of_studies(images, inputs.studies)
        validation = validation and of_studies(validation, inputs.studies)[0]
    points = None
    if validation is not None:
        chosen = {"rule": rule, "target": target, "label_names": measured.label_names}
        points = choose_operating_points(validation.probabilities, validation.labels, **chosen)
    calibrated = bool(measured.metadata.get("calibrated"))
    sentences = cautions(facts, calibrated=calibrated, thresholds=points is not None) if facts else []
    name = inputs.predictions
    return System(name, images, measured, validation, points, facts=facts, cautions=tuple(sentences))


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


def images_of(scores: ScoreTable, labels: LabelTable) -> tuple[str, ...]:
    """The labelled images that a file has scores of, as the labels spell their ids."""
    rows_N = match_ids(scores.image_ids, labels.image_ids, names=(scores.name, labels.name)).rows_N
    return tuple(labels.image_ids[row] for row in rows_N[rows_N >= 0])


def select_findings(validation: Predictions, findings: Sequence[str]) -> Predictions:
    """The validation predictions of the findings that are measured on test, in their order.

    Raises:
        ValueError: one is lacking.
    """
    lacking = [name for name in findings if name not in validation.label_names]
    if lacking:
        raise ValueError(f"the validation scores or their labels have no {', '.join(lacking)}, which test has")
    columns = [validation.label_names.index(name) for name in findings]
    exact = validation.exact_probabilities
    return dataclasses.replace(
        validation,
        logits=validation.logits[:, columns],
        labels=validation.labels[:, columns],
        label_names=tuple(findings),
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
