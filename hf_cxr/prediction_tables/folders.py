"""Where the predictions are in a folder: of a run, of an ensemble, or of what `hf-cxr evaluate --out` wrote.

Refused: a folder without predictions of the split.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hf_cxr.saved_models import read_json

PREDICTIONS, VALIDATION_PREDICTIONS = "predictions.parquet", "validation_predictions.parquet"  # of an evaluation


@dataclass(frozen=True)
class Found:
    """Where scores are read from.

    Attributes:
        scores: the file.
        validation: the scores of validation next to it.
        facts: what the folder says of the data.
        folder: of the run or of the evaluation that the scores belong to; None for a file of any program.
    """

    scores: Path
    validation: Path | None = None
    facts: Mapping[str, Any] | None = None
    folder: Path | None = None


def find_predictions(place: str | os.PathLike[str], split: str = "test") -> Found:
    """The file of scores that a name stands for: itself, or that of a run folder or of an evaluation's.

    Raises:
        FileNotFoundError: there is no such place.
        ValueError: a folder without predictions of the split.
    """
    path = Path(place)
    if not path.is_dir():
        folder = path.parent.parent
        is_run = path.parent.name == "predictions" and (folder / "metrics.json").is_file()
        return Found(path, facts=_run_facts(folder), folder=folder) if is_run else Found(path)
    for file, validation, facts in (
        (path / "predictions" / f"{split}.parquet", path / "predictions" / "validation.parquet", _run_facts),
        (path / PREDICTIONS, path / VALIDATION_PREDICTIONS, _evaluation_facts),
    ):
        if file.is_file():
            others = validation if validation.is_file() and split == "test" else None
            return Found(file, others, facts(path), path)
    raise ValueError(
        f"{place} is a folder without predictions of {split} (predictions/{split}.parquet, or {PREDICTIONS} of an "
        "evaluation); give the file of the scores, or measure a model with --model"
    )


def _run_facts(folder: Path) -> dict[str, Any]:
    """Which data a run's predictions are of."""
    path = folder / "metrics.json"
    protocol = read_json(path).get("protocol", {}) if path.is_file() else {}
    return _data_facts(protocol, folder)


def _evaluation_facts(folder: Path) -> dict[str, Any]:
    """Which data an evaluation is of."""
    path = folder / "evaluation.json"
    return _data_facts(read_json(path) if path.is_file() else {}, folder)


def _data_facts(values: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    keys = ("dataset", "synthetic", "split_fingerprint", "splits_from")
    only_if_any = ("split_file", "missing_images", "unreadable_images", "labels_shuffled", "data_notes")
    found = {key: values[key] for key in keys if key in values}
    return {"dataset": f"labels in {folder}"} | found | {key: values[key] for key in only_if_any if values.get(key)}
