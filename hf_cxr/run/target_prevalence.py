"""The prevalences of another population: given in a YAML file, or estimated from a model's predictions.

Refused, in one line: a finding that the model does not have, or twice; a prevalence that is not a share between 0 and
1; predictions that are not calibrated, of another model, or from which no prevalence can be estimated.

N = images, C = findings.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy.special import logit

from hf_cxr.data.csv_files import read_csv
from hf_cxr.evaluation.checks import Array
from hf_cxr.evaluation.prevalence_shift import estimate_prevalence
from hf_cxr.labels import LabelSpace
from hf_cxr.predictions import Predictions
from hf_cxr.run.measuring import is_calibrated
from hf_cxr.yaml_files import read_yaml

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
    estimate = estimate_prevalence(logit_NC, source_C, patient_ids, label_names=names)
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
        table = read_csv(path, delimiter=",", encoding="utf-8-sig")
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
            f"{path} has no {', '.join(missing[:3])}{' and more' * (len(missing) > 3)}: it is of another model"
        )
