"""The stages of a run: each is done once, each may be repeated alone, and to the same bytes."""

import copy
import dataclasses
import json
import math
import shutil
from pathlib import Path

import numpy as np
import pytest
import yaml
from filelock import FileLock
from process.kill_matrix import CONFIG, figures
from transformers import AutoConfig

from hf_cxr.commands import main
from hf_cxr.config import parse_arguments
from hf_cxr.evaluation import OperatingPoints, choose_operating_points, headline_metrics
from hf_cxr.files import file_sha256
from hf_cxr.inference.classifier import Classifier
from hf_cxr.models.record import ModelRecord
from hf_cxr.predictions import Predictions
from hf_cxr.run import folder as run_folder
from hf_cxr.run import stage_files, stages
from hf_cxr.run.measuring import label_sets
from hf_cxr.run.validation import chosen_figures

STAGES = list(stage_files.LAST_FILE)
LATER = STAGES[1:]


def arguments(run_dir, *flags):
    return parse_arguments([str(run_dir.parent / "tiny.yaml"), "--output_dir", str(run_dir), *flags])


@pytest.fixture(scope="module")
def straight(tmp_path_factory):
    """A finished run; tests work on copies."""
    run_dir = tmp_path_factory.mktemp("stages") / "run"
    config = CONFIG | {"num_train_epochs": 2, "horizontal_flip": 0.5}
    (run_dir.parent / "tiny.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
    args = arguments(run_dir, "--hub_token", "hf_x")
    before = copy.deepcopy(args)
    assert stages.run(args) is not None
    assert before.to_dict() == args.to_dict()  # nothing mutates its arguments
    assert args.training.hub_token == "hf_x"
    return run_dir


@pytest.fixture
def run_dir(straight, tmp_path):
    shutil.copy(straight.parent / "tiny.yaml", tmp_path)
    return Path(shutil.copytree(straight, tmp_path / "run"))


COUNTED = ("README.md", "report.html", "measurements.json")  # they say how often the test set was measured


def contents(run_dir):
    """SHA-256 of every file but the log, which grows, and what counts the measurements; metrics without that count."""
    left_out = ("run.log", ".run.lock", *COUNTED)
    files = (path for path in run_dir.rglob("*") if path.is_file() and path.name not in left_out)
    found = {path.relative_to(run_dir).as_posix(): file_sha256(path) for path in files}
    if (run_dir / "metrics.json").is_file():
        metrics = json.loads((run_dir / "metrics.json").read_text())
        metrics.pop("test_measurements", None)
        found["metrics.json"] = json.dumps(metrics)
    return found


def test_a_finished_run_keeps_the_head_and_not_the_model_before_calibration(straight):
    kept = {path.name for path in (straight / stage_files.STAGES).rglob("*")}
    assert kept >= {Path(file).name for file in (stage_files.HEAD, stage_files.PROTOCOL)}
    assert kept >= {f"{split}.parquet" for split in stage_files.SPLITS}
    assert {name for name in kept if name.endswith(".safetensors")} == {Path(stage_files.HEAD).name}
    assert stage_files.done_stages(straight) == STAGES


def test_the_record_has_the_prevalence_that_the_calibration_was_fitted_on(straight):
    validation = Predictions.load(straight / "predictions" / "validation.parquet")
    prevalence = ModelRecord.of(AutoConfig.from_pretrained(straight)).prevalence
    expected = np.nanmean(validation.labels, axis=0).tolist()
    assert prevalence == pytest.approx(dict(zip(validation.label_names, expected, strict=True)), rel=1e-6)


def test_the_record_has_the_operating_points_of_the_calibrated_validation(run_dir):
    def chosen(**how):
        validation = Predictions.load(run_dir / "predictions" / "validation.parquet")
        names = validation.label_names
        points = choose_operating_points(validation.probabilities, validation.labels, label_names=names, **how)
        return points, OperatingPoints.from_dict(ModelRecord.of(AutoConfig.from_pretrained(run_dir)).operating_points)

    expected, found = chosen(rule="f1")
    assert found == expected
    assert any(point is not None for point in found.by_finding.values())
    assert "highest F1" in json.loads((run_dir / "metrics.json").read_text())["protocol"]["operating_points"]
    assert "hf_cxr.operating_points" in (run_dir / "README.md").read_text()
    flags = ("--operating_point", "sensitivity", "--operating_target", "0.9", "--calibrate", "false")
    assert main(["calibrate", str(run_dir), *flags]) == 0
    expected, found = chosen(rule="sensitivity", target=0.9)
    assert found == expected  # of the probabilities as they are now, not as they were
    assert "sensitivity of at least 0.9" in (run_dir / "report.html").read_text()
    assert main(["calibrate", str(run_dir), "--operating_point", "youden"]) == 0  # the target is of the other rule
    expected, found = chosen(rule="youden")
    assert found == expected


def test_the_record_has_the_label_sets_of_the_calibrated_validation(straight):
    validation = Predictions.load(straight / "predictions" / "validation.parquet")
    expected = label_sets(validation).to_dict()
    found = ModelRecord.of(AutoConfig.from_pretrained(straight)).conformal
    assert found == expected
    # config.json sorts the findings by name; the model's sets are in the order of its outputs.
    assert list(validation.label_names) != sorted(validation.label_names)
    loaded = Classifier(straight).label_sets
    for mine, fitted in zip(
        loaded.sets(validation.probabilities), label_sets(validation).sets(validation.probabilities), strict=True
    ):
        np.testing.assert_array_equal(mine, fitted)
    one_patient = dataclasses.replace(validation, patient_ids=["1"] * len(validation.patient_ids))
    assert label_sets(one_patient) is None


@pytest.mark.parametrize("stage", LATER)
def test_a_run_goes_on_with_the_first_stage_that_is_not_done(straight, run_dir, stage, caplog):
    caplog.set_level("INFO", "hf_cxr")
    checkpoint = next(run_dir.glob("checkpoint-*"))
    shutil.rmtree(checkpoint)  # nothing can be trained again from it
    stage_files.forget(run_dir, stage)
    if stage == "document":  # as a kill just before the last file leaves it
        shutil.copy(straight / "metrics.json", run_dir / stage_files.LAST_FILE["measure"])
    report = stages.run(arguments(run_dir))
    before, after = contents(straight), contents(run_dir)
    assert not list(run_dir.glob(checkpoint.name))
    assert f"resuming from {stage}: " in caplog.text
    assert {name for name in before if before[name] != after.get(name) and not name.startswith(checkpoint.name)} <= {
        "config.yaml"
    }
    written = json.loads((straight / "metrics.json").read_text())["test"]
    assert report.test.measured["all"]["auc"].macro == written["all"]["auc"]["macro"]


def test_predictions_are_made_again_from_the_folder_alone(straight, run_dir):
    stages.predict(run_dir)
    assert stage_files.done_stages(run_dir) == STAGES[: STAGES.index("predict") + 1]
    stages.calibrate(run_dir)
    for name in ("model.safetensors", "config.json", "predictions/test.parquet", "stages/protocol.json"):
        assert file_sha256(run_dir / name) == file_sha256(straight / name)


def test_the_same_calibration_again_gives_the_same_bytes(straight, run_dir, capsys):
    assert main(["calibrate", str(run_dir)]) == 0
    assert contents(run_dir) == contents(straight)
    assert "Test: macro AUC" in capsys.readouterr().out


def test_calibration_can_be_turned_off_and_on_again(straight, run_dir):
    assert main(["calibrate", str(run_dir), "--calibrate", "false", "--bootstrap_resamples", "30"]) == 0
    raw, saved = (Predictions.load(run_dir / name / "test.parquet") for name in ("stages", "predictions"))
    calibrated = Predictions.load(straight / "predictions" / "test.parquet")
    np.testing.assert_array_equal(raw.logits, saved.logits)
    assert np.abs(raw.logits - calibrated.logits).min() > 0
    metrics = json.loads((run_dir / "metrics.json").read_text())
    assert (metrics["calibration"], metrics["test"]["resamples"]) == (None, 30)
    assert ModelRecord.of(AutoConfig.from_pretrained(run_dir)).prevalence is None
    settings = yaml.safe_load((run_dir / "config.yaml").read_text())
    assert (settings["calibrate"], settings["bootstrap_resamples"]) == (False, 30)
    assert main(["calibrate", str(run_dir), "--calibrate", "true", "--bootstrap_resamples", "20"]) == 0
    assert contents(run_dir) == contents(straight)


def test_a_calibration_needs_no_image(straight, run_dir):
    config = run_dir / "config.yaml"
    settings = yaml.safe_load(config.read_text())
    config.write_text(yaml.safe_dump(settings | {"dataset": "nih", "nih_root": "/moved/away"}))
    assert main(["calibrate", str(run_dir)]) == 0
    assert file_sha256(run_dir / "model.safetensors") == file_sha256(straight / "model.safetensors")
    before, after = (json.loads((folder / "metrics.json").read_text()) for folder in (straight, run_dir))
    assert before["stock_pipeline"]["images"] >= 8
    assert (before.pop("test_measurements")["times"], after.pop("test_measurements")["times"]) == (1, 2)
    assert after == before | {"stock_pipeline": {}}


def test_a_run_of_an_earlier_version_is_reported_and_not_calibrated(straight, run_dir, capsys):
    shutil.rmtree(run_dir / "stages")
    for name in ("report.html", "figures/roc_test.png"):
        (run_dir / name).unlink()
    before = contents(straight)
    assert main(["report", str(run_dir)]) == 0
    after = contents(run_dir)
    assert after == {name: sha for name, sha in before.items() if not name.startswith("stages/")}
    assert main(["calibrate", str(run_dir)]) == 2
    assert f"{run_dir} has no uncalibrated predictions" in capsys.readouterr().err
    assert contents(run_dir) == after


def test_a_run_without_analyses_gets_its_curves_with_its_report(straight, run_dir):
    (run_dir / "analysis.json").unlink()
    (run_dir / "figures/roc_test.png").unlink()
    assert main(["report", str(run_dir)]) == 0
    whole, curves = (json.loads((folder / "analysis.json").read_text()) for folder in (straight, run_dir))
    assert curves == {"curves": whole["curves"], "not_done": {}}
    roc = "figures/roc_test.png"
    assert (run_dir / roc).read_bytes() == (straight / roc).read_bytes()


def test_the_card_keeps_the_name_that_its_example_loads(run_dir):
    card = run_dir / "README.md"
    card.write_text(card.read_text().replace('model="."', 'model="you/name"'))
    before = card.read_bytes()
    assert main(["report", str(run_dir)]) == 0
    assert card.read_bytes() == before


@pytest.mark.parametrize("command", ["report", "calibrate"])
def test_a_folder_without_a_finished_run_is_refused(tmp_path, run_dir, command, capsys, monkeypatch):
    monkeypatch.setattr(run_folder, "LOCK_SECONDS", 0)
    before = contents(run_dir)
    with FileLock(run_dir / run_folder.LOCK):
        assert main([command, str(run_dir)]) == 2
    assert "another run is working in" in capsys.readouterr().err
    assert contents(run_dir) == before
    stage_files.forget(run_dir, "predict")
    for folder, message in ((tmp_path / "none", "is not a run folder"), (run_dir, "is not a finished run")):
        assert main([command, str(folder)]) == 2
        assert message in capsys.readouterr().err


def test_a_flag_of_the_training_is_refused(run_dir, capsys):
    before = contents(run_dir)
    assert main(["calibrate", str(run_dir), "--learning_rate", "3"]) == 2
    assert "--learning_rate is not about the calibration" in capsys.readouterr().err
    assert contents(run_dir) == before


def test_a_run_that_stops_after_validation_keeps_no_model(straight, run_dir):
    stage_files.forget(run_dir, "predict")
    assert stages.run(arguments(run_dir, "--measure_test", "false")) is None
    assert not (run_dir / "stages").exists()
    validation = json.loads((run_dir / "validation.json").read_text())
    protocol = figures(straight)["protocol"]
    unfinished = {"calibration": None, "calibration_exceptions": {}, "operating_points": None}
    assert validation["protocol"] == protocol | unfinished
    assert validation["validation"].keys() == {"loss", *headline_metrics()}
    assert all(math.isfinite(value) for value in validation["validation"].values())


def test_tuning_is_judged_by_the_weights_that_a_run_ends_with():
    names = ("loss", *headline_metrics())
    history = [{"epoch": e, **{f"eval_{name}": e + 0.1 * i for i, name in enumerate(names)}} for e in (1, 2)]
    for best_epoch, expected in ((1, 1), (None, 2)):
        figures = chosen_figures(history, best_epoch)
        assert figures == {name: expected + 0.1 * i for i, name in enumerate(names)}
