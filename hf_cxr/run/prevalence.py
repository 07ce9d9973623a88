"""A copy of a model whose probabilities assume other prevalences: those of the place where it is to be used.

The shift is a bias of each finding (`evaluation.prevalence_shift`), so it is folded into the head of the copy, and the
stock pipeline gives the shifted probabilities. No ranking changes. What was done is in the copy's record
(``prevalence_shift``) and in its card. Thresholds of the record move with the probabilities, so that the same images
are called positive, up to the rounding of float32; F1 or a cost may prefer other thresholds at the new prevalence.

The copy is a model folder: config.json, preprocessor_config.json, model.safetensors and README.md with the figures
that it shows. It is not a run: the figures of the run, of probabilities above all, are those of the model before.

Refused, before anything is written: a model that is not calibrated; a finding that it does not have; a prevalence that
is not a share between 0 and 1; a finding whose prevalence on validation is unknown, 0 or 1; predictions of another
model, without an image, or from which no prevalence can be estimated; a place that is not empty, or inside the model's
folder.

N = images, C = findings.
"""

import dataclasses
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy.special import expit, logit

from hf_cxr.evaluation.calibration import Calibration
from hf_cxr.evaluation.checks import Array
from hf_cxr.evaluation.conformal import ConformalSets
from hf_cxr.evaluation.draws import PatientDraws
from hf_cxr.evaluation.prevalence_shift import measure_prevalence_shift, prevalence_bias
from hf_cxr.files import check_output_folder, write_text
from hf_cxr.hub.file_list import FIGURES
from hf_cxr.inference.classifier import Classifier
from hf_cxr.labels import NIH14, LabelSpace
from hf_cxr.models.head import fold_into_head
from hf_cxr.models.record import ModelRecord
from hf_cxr.predictions import Predictions
from hf_cxr.reporting.document import Note, block_markdown
from hf_cxr.reporting.sections.prevalence_shift import shift_table
from hf_cxr.run.measuring import is_calibrated
from hf_cxr.run.result_folder import check_ensemble_place, held, write_whole
from hf_cxr.run.target_prevalence import Target, estimate_target, read_target
from hf_cxr.saved_models import CONFIG, INPUT_CHECK, PROCESSOR, WEIGHTS, fingerprint

CARD = "README.md"


@dataclass(frozen=True)
class ShiftedModel:
    """What was written.

    Attributes:
        source: finding -> prevalence that the model assumed, of the findings that were shifted.
        target: what the copy assumes.
        record: the copy's.
    """

    source: Mapping[str, float]
    target: Target
    record: ModelRecord


def write_shifted_model(
    model: Path, out: Path, *, prevalence: Path | None = None, prevalence_from: Path | None = None
) -> ShiftedModel:
    """Write a copy of a model that assumes other prevalences; whole or not at all.

    Args:
        model: run folder or model folder; nothing in it is changed.
        out: new folder for the copy, or an empty one.
        prevalence: a YAML file, finding: share.
        prevalence_from: predictions of this model on images of the new population, from which the prevalences are
            estimated without labels; exactly one of the two is given.

    Raises:
        ValueError, OSError: see the module's first lines.
    """
    check_output_folder(out, inputs=[model], closed=[model])
    with held(out) as place:
        check_ensemble_place(place)
        before = fingerprint_of(model)
        classifier = Classifier(model, device="cpu")
        record = ModelRecord.of(classifier.model.config) or ModelRecord()
        names = LabelSpace(classifier.label_names, _aliases(classifier.label_names))
        source_C = assumed_prevalence(model, record, names)
        if prevalence is not None:
            target = read_target(prevalence, names)
        else:
            target = estimate_target(prevalence_from, names, source_C, before)
        target_C = np.array([target.prevalence.get(name, np.nan) for name in names], dtype=np.float64)
        _check_source(target, names, source_C)
        bias_C = prevalence_bias(source_C, target_C)
        shifted = shifted_record(record, names, source_C, target_C, target, before)
        fold_into_head(classifier.model, lambda weight_CD, bias: (weight_CD, (bias + bias_C).astype(bias.dtype)))
        shifted.write(classifier.model.config)
        source = {name: float(source_C[names.index(name)]) for name in target.prevalence}
        done = ShiftedModel(source, target, shifted)

        def write(folder: Path) -> None:
            classifier.model.save_pretrained(folder)
            shutil.copyfile(model / PROCESSOR, folder / PROCESSOR)
            # The input check is about what comes before the head, which stays as it is.
            copied = [name for name in (*FIGURES, INPUT_CHECK) if (model / name).is_file()]
            for name in copied:
                (folder / name).parent.mkdir(exist_ok=True)
                shutil.copyfile(model / name, folder / name)
            write_text(folder / CARD, shifted_card(model / CARD, done))
            if fingerprint_of(model) != before:
                raise ValueError(f"{model} was changed while it was copied; run the same command again")

        write_whole(place, write, last=CONFIG)
    return done


def effect_on_test(model: Path, done: ShiftedModel) -> dict[str, Any] | None:
    """What the shift does to the probabilities of the run's own test set, as `PrevalenceShift.to_dict` gives it.

    Returns:
        With the target "copy"; None for a model folder without calibrated test predictions.
    """
    path = model / "predictions" / "test.parquet"
    if not path.is_file():
        return None
    test = Predictions.load(path)
    source_C, target_C = (
        np.array([shares.get(name, np.nan) for name in test.label_names], dtype=np.float64)
        for shares in (done.source, done.target.prevalence)
    )
    if not is_calibrated(test) or np.isnan(target_C).all():
        return None
    draws = PatientDraws.of(test.patient_ids)
    given = {"copy": target_C}
    return measure_prevalence_shift(
        test.logits, test.labels, draws, source_C, label_names=test.label_names, given=given
    ).to_dict()


def fingerprint_of(model: Path) -> str:
    """SHA-256 of what determines the outputs; refuses what is not a folder with a model.

    Raises:
        FileNotFoundError: no such model.
    """
    for name in (CONFIG, PROCESSOR, WEIGHTS):
        if not (model / name).is_file():
            raise FileNotFoundError(f"{model} is not the folder of a finished model: it has no {name}")
    return fingerprint(model)


def assumed_prevalence(model: Path, record: ModelRecord, names: LabelSpace) -> Array:
    """The prevalence of each finding that the model's probabilities assume, (C,); NaN where unknown.

    Raises:
        ValueError: the model's outputs are not calibrated, or its record has no prevalence.
    """
    if record.calibration is None:
        raise ValueError(
            f"{model} is not calibrated, so its outputs assume no known prevalence; calibrate the run first: "
            "hf-cxr calibrate RUN --calibrate true"
        )
    if record.prevalence is None:
        raise ValueError(
            f"{model} does not say which prevalence its outputs assume: an earlier version of hf_cxr wrote it; where "
            "the run has its uncalibrated predictions, hf-cxr calibrate RUN adds it"
        )
    return np.array([record.prevalence.get(name, np.nan) for name in names], dtype=np.float64)


def shifted_record(
    record: ModelRecord, names: LabelSpace, source_C: Array, target_C: Array, target: Target, model_sha256: str
) -> ModelRecord:
    """The record of the copy: calibration map, prevalence and thresholds moved, and what was done."""
    bias_C = prevalence_bias(source_C, target_C)
    same_C = np.isnan(target_C)
    calibration = Calibration.from_dict(record.calibration).shift_prevalence(
        np.where(same_C, 0.5, source_C), np.where(same_C, 0.5, target_C)
    )
    before = (record.prevalence_shift or {}).get("findings", {})
    findings = {
        name: {
            "source": before.get(name, {}).get("source", float(source_C[column])),
            "target": float(target_C[column]),
            "bias": float(bias_C[column]) + before.get(name, {}).get("bias", 0.0),
            **dict(zip(("low", "high"), target.intervals.get(name, ()), strict=False)),
        }
        for column, name in enumerate(names)
        if not same_C[column]
    }
    done = {
        "method": target.method,
        "images": target.images,
        "not_estimated": dict(target.not_estimated),
        "findings": {**before, **findings},
        "copied_from_sha256": model_sha256,
    }
    bias = dict(zip(names, bias_C.tolist(), strict=True))
    return dataclasses.replace(
        record,
        calibration=calibration.to_dict(),
        prevalence={**record.prevalence, **target.prevalence},
        operating_points=shifted_points(record.operating_points, bias),
        conformal=record.conformal and ConformalSets.from_dict(record.conformal, names).moved(bias_C).to_dict(),
        prevalence_shift=done,
    )


def shifted_points(points: Mapping[str, Any] | None, bias: Mapping[str, float]) -> dict[str, Any] | None:
    """Operating points whose thresholds are moved by a finding's bias in the logit.

    Args:
        points: finding -> a threshold in [0, 1], or a mapping with the key "threshold", or None.
        bias: finding -> what is added to its logit.

    >>> shifted_points({"Mass": {"threshold": 0.5, "rule": "f1"}, "Edema": 0.5, "Hernia": None}, {"Mass": 1.0})
    {'Mass': {'threshold': 0.7310585786300049, 'rule': 'f1'}, 'Edema': 0.5, 'Hernia': None}
    """
    if points is None:
        return None

    def moved(name: str, threshold: float) -> float:
        return float(expit(logit(threshold) + bias[name])) if bias.get(name) else threshold

    return {
        name: {**point, "threshold": moved(name, point["threshold"])}
        if isinstance(point, Mapping)
        else point and moved(name, point)
        for name, point in points.items()
    }


def shifted_card(path: Path, done: ShiftedModel) -> str:
    """The card of the model with a note on top that says what its probabilities assume now."""
    text = path.read_text(encoding="utf-8") if path.is_file() else "# A chest X-ray classifier\n"
    text = re.sub(r'model="[^"\n]+"', 'model="."', text)  # the example loads this folder, not the model before
    text = re.sub(r"(?<!!)\[([\w.]+)\]\(\1\)", r"`\1` of the model before", text)  # files that the copy has not
    how = (
        "given by its user"
        if done.target.method == "given"
        else f"estimated without labels from {done.target.images:,} images"
    )
    note = Note(
        (
            f"This is a copy of the model with other prevalences, {how}. Its probabilities assume them; every ranking "
            "is that of the model before.",
            "What this card says of probabilities (Brier score, log loss, calibration) and the thresholds in it are "
            "true of the model before. They were not measured for this copy, whose thresholds are in its config.json.",
            "A shift is right where each finding looks as it did on validation and only its frequency differs.",
        )
    )
    table = shift_table(done.source, done.target.prevalence, done.target.intervals)
    added = f"\n{block_markdown(note)}\n\n{block_markdown(table)}\n"
    # Below the title, which comes after the Hub's metadata.
    return re.sub(r"(?m)^# .*\n", lambda title: title[0] + added, text, count=1)


def _aliases(names: tuple[str, ...]) -> dict[str, str]:
    return {alias: name for alias, name in NIH14.aliases.items() if name in names and alias not in names}


def _check_source(target: Target, names: LabelSpace, source_C: Array) -> None:
    for name in target.prevalence:
        value = source_C[names.index(name)]
        if not 0 < value < 1:
            known = "unknown" if np.isnan(value) else f"{value:g}"
            raise ValueError(
                f"the prevalence of {name} on the model's validation set is {known}, so its probabilities cannot be "
                f"shifted; leave {name} out"
            )
