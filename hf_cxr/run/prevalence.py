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
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy.special import expit, logit

from hf_cxr.evaluation.calibration import Calibration
from hf_cxr.evaluation.checks import Array
from hf_cxr.evaluation.draws import PatientDraws
from hf_cxr.evaluation.prevalence_shift import estimate_prevalence, measure_prevalence_shift, prevalence_bias
from hf_cxr.files import check_output_folder, write_text
from hf_cxr.inference.classifier import Classifier
from hf_cxr.labels import NIH14, LabelSpace
from hf_cxr.models.head import fold_into_head
from hf_cxr.models.record import ModelRecord
from hf_cxr.predictions import Predictions
from hf_cxr.push_files import FIGURES
from hf_cxr.reporting.document import Note, block_markdown
from hf_cxr.reporting.prevalence_shift import shift_table
from hf_cxr.run.measuring import is_calibrated
from hf_cxr.run.result_folder import check_ensemble_place, held, write_whole
from hf_cxr.saved_models import CONFIG, PROCESSOR, WEIGHTS, fingerprint
from hf_cxr.yaml_files import read_yaml

CARD = "README.md"
SIX_DECIMALS = 5e-7
"""`hf-cxr predict` writes probabilities with six decimals: what it writes as 0 is below this."""


@dataclass(frozen=True)
class Target:
    """The prevalences that a copy is to assume, and where they come from.

    Attributes:
        prevalence: finding -> share, above 0 and below 1; findings that are not named stay as they are.
        method: "given" or "estimated".
        images: that the estimate is from; None for given prevalences.
        intervals: finding -> low and high end of the estimate's 95 % interval.
        not_estimated: finding -> why it has no estimate.
    """

    prevalence: Mapping[str, float]
    method: str
    images: int | None = None
    intervals: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    not_estimated: Mapping[str, str] = field(default_factory=dict)


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
            figures = [name for name in FIGURES if (model / name).is_file()]
            for name in figures:
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
    return measure_prevalence_shift(test.logits, test.labels, draws, test.label_names, source_C, given=given).to_dict()


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
            f"{model} is not calibrated, so there is no prevalence that its outputs assume; calibrate the run first: "
            "hf-cxr calibrate RUN --calibrate true"
        )
    if record.prevalence is None:
        raise ValueError(
            f"{model} does not say which prevalence its outputs assume: an earlier version of hf_cxr wrote it; where "
            "the run has its uncalibrated predictions, hf-cxr calibrate RUN adds it"
        )
    return np.array([record.prevalence.get(name, np.nan) for name in names], dtype=np.float64)


def read_target(path: Path, names: LabelSpace) -> Target:
    """Given prevalences from a YAML file: finding: share.

    Raises:
        ValueError: it is not a mapping of findings to shares between 0 and 1; the message names the finding.
    """
    values = read_yaml(path)
    if not isinstance(values, Mapping) or not values:
        raise ValueError(f"{path} must have a line for each finding to be shifted, such as 'Hernia: 0.003'")
    target: dict[str, float] = {}
    for key, value in values.items():
        try:
            name = names[names.index(str(key))]
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 1:
            hint = "; for 3 % write 0.03" if isinstance(value, int | float) and value >= 1 else ""
            raise ValueError(f"{path}: {key} is {value!r}; a prevalence is a share above 0 and below 1{hint}")
        if name in target:
            raise ValueError(f"{path}: {name} is given twice, once as {key}; remove one of the two")
        target[name] = float(value)
    return Target(target, "given")


def estimate_target(path: Path, names: LabelSpace, source_C: Array, model_sha256: str) -> Target:
    """Prevalences estimated from the model's own predictions, without labels.

    Args:
        path: a predictions file of this package, or the CSV of `hf-cxr predict`.
        names: the model's findings.
        source_C: what its probabilities assume.
        model_sha256: predictions that name another model are refused, and so are uncalibrated ones.

    Raises:
        ValueError: see the module's first lines.
    """
    logit_NC, patient_ids = read_logits(path, names, model_sha256)
    estimate = estimate_prevalence(logit_NC, source_C, names, patient_ids)
    ends = {name: estimate.prevalence_C.at(column) for column, name in enumerate(names)}
    found = {name: one.value for name, one in ends.items() if name not in estimate.reasons}
    if not found:
        name, reason = next(iter(estimate.reasons.items()))
        raise ValueError(f"{path}: no finding's prevalence can be estimated; {name}: {reason}")
    intervals = {name: (ends[name].low, ends[name].high) for name in found}
    return Target(found, "estimated", len(logit_NC), intervals, estimate.reasons)


def read_logits(path: Path, names: LabelSpace, model_sha256: str) -> tuple[Array, tuple[str, ...] | None]:
    """Logits (N, C) of a model's predictions, in the order of its findings; and patient ids, which a CSV lacks.

    Raises:
        FileNotFoundError, ValueError: the file is not readable, lacks a finding, or is of another model.
    """
    if not path.is_file():
        raise FileNotFoundError(f"no predictions file {path}")
    if path.suffix.lower() == ".parquet":
        predictions = Predictions.load(path)
        measured = predictions.metadata.get("measured") or {}
        other = measured.get("model_sha256")
        if other is not None and other != model_sha256:
            raise ValueError(f"{path} has the predictions of another model; make them with this one: hf-cxr evaluate")
        if not is_calibrated(predictions):
            raise ValueError(
                f"{path} has uncalibrated predictions; give those in RUN/predictions, or hf-cxr evaluate's"
            )
        _check_findings(path, names, predictions.label_names)
        own = LabelSpace(predictions.label_names)
        columns = [own.index(name) for name in names]
        return predictions.logits[:, columns].astype(np.float64), predictions.patient_ids
    try:
        table = pd.read_csv(path, dtype=str, keep_default_na=False)
    except (ValueError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is neither a Parquet file of predictions nor a readable CSV: {error}") from error
    columns = [str(column) for column in table.columns]
    _check_findings(path, names, columns)
    prob_NC = np.empty((len(table), len(names)))
    for column, name in enumerate(names):
        values = pd.to_numeric(table[columns[LabelSpace(columns).index(name)]], errors="coerce").to_numpy(float)
        wrong_N = ~((values >= 0) & (values <= 1))
        if wrong_N.any():
            row = int(np.argmax(wrong_N))
            raise ValueError(f"{path}: row {row + 1} has no probability between 0 and 1 for {name}")
        prob_NC[:, column] = values
    return logit(np.clip(prob_NC, SIX_DECIMALS, 1 - SIX_DECIMALS)), None


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
    how = (
        "given by its user"
        if done.target.method == "given"
        else f"estimated without labels from {done.target.images:,} images"
    )
    note = Note(
        (
            f"This is a copy of the model with other prevalences, {how}. Its probabilities assume them; every ranking "
            "is that of the model before.",
            "What this card says of probabilities (Brier score, log loss, calibration) is true of the model before. "
            "It was not measured for this copy.",
            "A shift is right where each finding looks as it did on validation and only its frequency differs.",
        )
    )
    table = shift_table(done.source, done.target.prevalence, done.target.intervals)
    added = f"\n{block_markdown(note)}\n\n{block_markdown(table)}\n"
    # Below the title, which comes after the Hub's metadata.
    return re.sub(r"(?m)^# .*\n", lambda title: title[0] + added, text, count=1)


def _aliases(names: tuple[str, ...]) -> dict[str, str]:
    return {alias: name for alias, name in NIH14.aliases.items() if name in names and alias not in names}


def _check_findings(path: Path, names: LabelSpace, found: Any) -> None:
    known = LabelSpace(found)
    missing = []
    for name in names:
        try:
            known.index(name)
        except ValueError:
            missing.append(name)
    if missing:
        raise ValueError(
            f"{path} lacks {', '.join(missing[:3])}{' and more' * (len(missing) > 3)}: it is of another model"
        )


def _check_source(target: Target, names: LabelSpace, source_C: Array) -> None:
    for name in target.prevalence:
        value = source_C[names.index(name)]
        if not 0 < value < 1:
            known = "unknown" if np.isnan(value) else f"{value:g}"
            raise ValueError(
                f"the prevalence of {name} on the model's validation set is {known}, so its probabilities cannot be "
                f"shifted; leave {name} out"
            )
