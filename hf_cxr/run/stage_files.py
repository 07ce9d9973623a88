"""What each stage of a run leaves in the run folder, and by which file it is known to be done.

| stage     | writes                                                              | its last file            |
|-----------|---------------------------------------------------------------------|--------------------------|
| train     | stages/model/, uncalibrated                                         | stages/training.json     |
| predict   | stages/protocol.json, stages/validation.parquet, uncalibrated       | stages/test.parquet      |
| calibrate | the model and the uncalibrated head, predictions/validation.parquet | predictions/test.parquet |
| measure   | the input check, before it; every figure                            | stages/metrics.json      |
| document  | figures/, report.html, README.md (the card); metrics.json moves up  | metrics.json             |

A stage writes its last file when all its other files are whole. A stage that is repeated first removes the last files
of itself and of those after it, so a command that is killed leaves an unfinished run, which the same command finishes.
A run folder with metrics.json is finished. Nothing in stages/ is pushed.

``stages/head.safetensors`` is the classifier as it was trained, (C, D) and (C,) float32. With it calibration can be
undone to the bit, so the uncalibrated copy of the model is removed once the calibrated one is written.

``stages/measurements.json`` counts how often the test set was measured before. It is written when figures that exist
are removed to be measured again; a stage that was killed and is finished later left no figures, so it counts once.
"""

import dataclasses
import itertools
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from transformers import PreTrainedModel

from hf_cxr.arguments.model import Attention
from hf_cxr.config import MEASURING, RunArguments, parse_arguments
from hf_cxr.files import replace_all, replacing, write_json
from hf_cxr.inference.classifier import Classifier
from hf_cxr.models.head import head
from hf_cxr.models.record import ModelRecord
from hf_cxr.predictions import Predictions
from hf_cxr.saved_models import CONFIG, PROCESSOR, read_json

STAGES = "stages"
TRAINED = f"{STAGES}/model"
HEAD = f"{STAGES}/head.safetensors"
PROTOCOL = f"{STAGES}/protocol.json"
MEASUREMENTS = f"{STAGES}/measurements.json"
LAST_FILE = {
    "train": f"{STAGES}/training.json",
    "predict": f"{STAGES}/test.parquet",
    "calibrate": "predictions/test.parquet",
    "measure": f"{STAGES}/metrics.json",
    "document": "metrics.json",
}
SPLITS = ("validation", "test")


def is_done(run_dir: Path, stage: str) -> bool:
    """Whether a stage has written its last file; measure's becomes document's."""
    return (run_dir / LAST_FILE[stage]).is_file() or (stage == "measure" and is_done(run_dir, "document"))


def done_stages(run_dir: Path) -> list[str]:
    """The stages that a run need not repeat, in order."""
    return list(itertools.takewhile(lambda stage: is_done(run_dir, stage), LAST_FILE))


def forget(run_dir: Path, stage: str) -> None:
    """From now on a stage, and those after it, count as not done; figures that exist are counted as measured."""
    names = list(LAST_FILE)
    if names.index(stage) <= names.index("measure") and is_done(run_dir, "measure"):
        write_json(run_dir / MEASUREMENTS, _measured_so_far(run_dir, stage))
    for name in reversed(names[names.index(stage) :]):
        (run_dir / LAST_FILE[name]).unlink(missing_ok=True)


def next_measurement(run_dir: Path) -> dict[str, Any]:
    """What the figures that are measured now record of this.

    Returns:
        ``times``: that the test set was measured, with this one; ``at_least``: an earlier version, without a count,
        measured before; ``repeated_from``: the stage from which each repetition began.
    """
    path = run_dir / MEASUREMENTS
    before = read_json(path) if path.is_file() else {"times": 0, "at_least": False, "repeated_from": []}
    return {**before, "times": before["times"] + 1}


def _measured_so_far(run_dir: Path, stage: str) -> dict[str, Any]:
    found = next(path for name in ("measure", "document") if (path := run_dir / LAST_FILE[name]).is_file())
    try:
        measured = read_json(found).get("test_measurements")
    except ValueError:  # damaged: repeating the stage is its repair
        measured = None
    measured = measured or {"times": 1, "at_least": True, "repeated_from": []}
    return {**measured, "repeated_from": [*measured["repeated_from"], stage]}


def saved_arguments(run_dir: Path, flags: Sequence[str] = (), *, prog: str = "hf-cxr") -> RunArguments:
    """The data and the way of measuring in a run's config.yaml; flags win. The rest of the arguments is the default.

    Raises:
        SystemExit: status 2 with one line, as `parse_arguments`.
    """
    return parse_arguments([str(run_dir / "config.yaml"), *flags], prog=prog, only=MEASURING)


def load_pair(folder: Path) -> tuple[Predictions, Predictions]:
    """The (validation, test) predictions of a folder."""
    validation, test = (Predictions.load(folder / f"{name}.parquet") for name in SPLITS)
    return validation, test


def save_pair(folder: Path, pair: Sequence[Predictions]) -> None:
    """validation.parquet, then test.parquet."""
    for predictions in pair:
        predictions.save(folder / f"{predictions.split}.parquet")


def trained_folder(run_dir: Path) -> Path:
    """The folder whose config.json and preprocessor are those of the trained model."""
    return run_dir / TRAINED if (run_dir / TRAINED).is_dir() else run_dir


def trained_classifier(run_dir: Path, attention: Attention = "auto") -> Classifier:
    """The model as training left it, uncalibrated, in float32: as a user loads it.

    Raises:
        ValueError: an earlier version calibrated the model and kept nothing to undo it with.
    """
    folder = trained_folder(run_dir)
    classifier = Classifier(folder, attention=attention, input_check=False)
    if folder == run_dir:
        if not (run_dir / HEAD).is_file():
            raise ValueError(
                f"{run_dir} has no {HEAD}, the uncalibrated classifier: an earlier version of hf_cxr wrote the run "
                "and did not keep it; its figures and its calibration stay as they are"
            )
        head(classifier.model).load_state_dict(load_file(run_dir / HEAD))
        record = ModelRecord.of(classifier.model.config) or ModelRecord()
        uncalibrated = {"calibration": None, "prevalence": None, "operating_points": None, "conformal": None}
        dataclasses.replace(record, **uncalibrated).write(classifier.model.config)
    return classifier


def save_head(run_dir: Path, model: PreTrainedModel) -> None:
    """Keep the classifier as it was trained."""
    with replacing(run_dir / HEAD) as beside, torch.no_grad():
        save_file({name: value.cpu().contiguous() for name, value in head(model).state_dict().items()}, beside)


def save_model_folder(run_dir: Path, model: PreTrainedModel) -> None:
    """model.safetensors, preprocessor_config.json and, last, config.json: each written under another name and renamed.

    The copy of the uncalibrated model is removed then.
    """
    with tempfile.TemporaryDirectory(dir=run_dir, prefix=".model-") as beside:
        model.save_pretrained(beside)
        shutil.copyfile(trained_folder(run_dir) / PROCESSOR, Path(beside) / PROCESSOR)
        replace_all(beside, run_dir, last=CONFIG)
    if (run_dir / TRAINED).is_dir():
        # Renamed first: a removal that is killed must not leave half a model under its name.
        with tempfile.TemporaryDirectory(dir=run_dir / STAGES, prefix=".model-") as gone:
            (run_dir / TRAINED).rename(Path(gone) / "model")
