"""A tiny run has an input check: it reports blank and noisy images and few of its own, and it stays with the model."""

import json
import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from process.kill_matrix import CONFIG
from safetensors.numpy import load_file, save_file
from test_run import train, write_config
from test_streaming import write_shards
from tiny import save_model

from hf_cxr.commands import main
from hf_cxr.config import parse_arguments
from hf_cxr.files import file_sha256
from hf_cxr.inference.classifier import Classifier
from hf_cxr.inference.input_check import UNIFORM
from hf_cxr.run import input_check, stage_files
from hf_cxr.run.data import load
from hf_cxr.run.input_check import batches, check_inputs, with_input_check
from hf_cxr.saved_models import INPUT_CHECK, WEIGHTS

SIZES = {"phantom_validation": 80, "phantom_test": 40, "num_train_epochs": 1, "bootstrap_resamples": 20}


@pytest.fixture(scope="module")
def checked(tmp_path_factory):
    folder = tmp_path_factory.mktemp("checked")
    assert train(write_config(folder, **CONFIG | SIZES), folder / "run") == 0
    return folder / "run"


@pytest.fixture
def run_dir(checked, tmp_path):
    return shutil.copytree(checked, tmp_path / "run")


def analysis(run_dir):
    return json.loads((run_dir / "analysis.json").read_text(encoding="utf-8"))


def test_it_reports_what_is_no_radiograph_and_few_test_images(checked):
    classifier, rng = Classifier(checked), np.random.default_rng(0)
    blank = classifier.predict(np.full((80, 80), 90, np.uint8)).input_check
    assert blank.reasons == (UNIFORM,)
    assert blank.score >= blank.threshold
    assert classifier.predict(rng.integers(0, 256, (80, 80)).astype(np.uint8)).input_check.unusual
    images = load(stage_files.saved_arguments(checked)).splits["test"]["image"]
    unusual = [answer.input_check.unusual for answer in classifier.predict_images(list(images))]
    assert np.mean(unusual) < 0.2
    measured = analysis(checked)["input_check"]
    assert measured["false_alarms"]["value"] == np.mean(unusual)  # 40 images: all of them were measured
    assert (measured["validation_images"], measured["false_alarms"]["images"]) == (80, 40)
    assert measured["kinds"]["noise"]["value"] == measured["kinds"]["inverted"]["value"] == 1
    assert measured["kinds"]["lateral"]["value"] > 0.9  # drawn, as the images of training are
    assert classifier.input_check.measured == measured
    assert "Input check" in (checked / "report.html").read_text(encoding="utf-8")


def test_the_command_says_which_images_are_unusual(checked, tmp_path, capsys):
    Image.fromarray(np.full((80, 80), 90, np.uint8)).save(tmp_path / "blank.png")
    assert main(["predict", str(tmp_path / "blank.png"), "--model", str(checked)]) == 0
    assert UNIFORM in capsys.readouterr().out
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (80, 80)).astype(np.uint8)).save(tmp_path / "noise.png")
    assert main(["predict", str(tmp_path), "--model", str(checked), "--out", str(tmp_path / "x.csv")]) == 0
    assert "the input check reported 2 of 2 images as unusual" in capsys.readouterr().err


def refit(run_dir, *flags):
    args = stage_files.saved_arguments(run_dir, flags)
    check_inputs(run_dir, args, load(args).splits)
    return with_input_check(run_dir, {})


def test_calibrating_again_keeps_it(run_dir):
    before, values = file_sha256(run_dir / INPUT_CHECK), analysis(run_dir)["input_check"]
    assert main(["calibrate", str(run_dir), "--calibrate", "false"]) == 0
    assert file_sha256(run_dir / INPUT_CHECK) == before
    assert analysis(run_dir)["input_check"] == values


def test_a_damaged_one_is_fitted_again_to_the_same_bytes_and_other_weights_get_another(run_dir):
    whole = (run_dir / INPUT_CHECK).read_bytes()
    (run_dir / INPUT_CHECK).write_bytes(whole[:100])
    assert refit(run_dir) == {"input_check": analysis(run_dir)["input_check"]}
    assert (run_dir / INPUT_CHECK).read_bytes() == whole
    weights = load_file(run_dir / WEIGHTS)
    name = next(name for name in weights if "classifier" not in name and weights[name].dtype == np.float32)
    save_file(weights | {name: weights[name] + 1}, run_dir / WEIGHTS, {"format": "pt"})
    with pytest.raises(ValueError, match="other weights"):
        Classifier(run_dir)
    refit(run_dir)
    assert Classifier(run_dir).input_check is not None
    assert (run_dir / INPUT_CHECK).read_bytes() != whole


def test_false_removes_it_and_lost_images_are_named(run_dir):
    assert refit(run_dir, "--input_check", "false") == {"not_done": {"input_check": "input_check is false"}}
    assert not (run_dir / INPUT_CHECK).exists()
    check_inputs(run_dir, stage_files.saved_arguments(run_dir), None)
    assert "could not be read" in with_input_check(run_dir, {})["not_done"]["input_check"]


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("CUDA out of memory.\nTried"), MemoryError()])
def test_too_little_memory_ends_no_run_and_batches_are_those_of_the_run(run_dir, monkeypatch, caplog, error):
    real, sizes = input_check.features, []

    def fail(classifier, pixel_BSS):
        sizes.append(len(pixel_BSS))
        if len(sizes) > 20:
            raise error
        return real(classifier, pixel_BSS)

    monkeypatch.setattr(input_check, "features", fail)
    (run_dir / INPUT_CHECK).unlink()
    reason = refit(run_dir, "--per_device_eval_batch_size", "7")["not_done"]["input_check"]
    assert type(error).__name__ in reason
    assert "\n" not in reason
    assert reason in caplog.text
    assert not (run_dir / INPUT_CHECK).exists()
    assert max(sizes) == 7


def test_a_copy_with_other_prevalences_takes_it_along(checked, tmp_path):
    (tmp_path / "shares.yaml").write_text("Effusion: 0.4\n", encoding="utf-8")
    words = ["--prevalence", str(tmp_path / "shares.yaml"), "--out", str(tmp_path / "copy")]
    assert main(["calibrate", str(checked), *words]) == 0
    pixels = np.random.default_rng(1).integers(0, 256, (80, 80)).astype(np.uint8)
    checks = [Classifier(folder).predict(pixels).input_check for folder in (checked, tmp_path / "copy")]
    assert checks[0] == checks[1]


def test_a_stream_and_prepared_images_give_the_pixels_of_the_files(tmp_path):
    shards, classifier = write_shards(tmp_path / "shards"), Classifier(save_model(tmp_path / "model"))
    words = ["--dataset", "table", "--table", str(shards / "table.yaml")]
    assert (
        main(["prepare", *words, "--resize_size", "36", "--image_size", "32", "--out", str(tmp_path / "prepared")])
        == 0
    )
    ways = (words, [*words, "--streaming"], ["--dataset", "prepared", "--prepared", str(tmp_path / "prepared")])
    rows = np.array([1, 5, 6, 18])
    found = []
    for way in ways:
        args = parse_arguments(["--output_dir", str(tmp_path / "run"), "--per_device_eval_batch_size", "3", *way])
        split = load(args).splits["validation"]
        parts = list(batches(classifier, split, rows, args, ""))
        found.append((np.concatenate([row_B for row_B, _ in parts]), np.concatenate([pixels for _, pixels in parts])))
    for row_N, pixel_NSS in found:
        np.testing.assert_array_equal(row_N, rows)
        np.testing.assert_array_equal(pixel_NSS, found[0][1])
    assert np.ptp(found[0][1], axis=0).min() > 0


def test_a_validation_set_that_is_too_small_is_named(finished):
    assert not (finished[0] / INPUT_CHECK).exists()
    assert "needs at least 50" in analysis(finished[0])["not_done"]["input_check"]
