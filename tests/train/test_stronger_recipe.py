"""All augmentation levers in training, and a checkpoint that is trained on at a larger size."""

import json

import pytest
import torch
from test_run import train, write_config
from test_trainer import assert_same_gradients, gradients
from tiny import trainer

from hf_cxr.augmentation import Augmentation
from hf_cxr.inference.classifier import Classifier

LEVERS = {
    "horizontal_flip": 0.5,
    "rotation_degrees": 10.0,
    "random_resized_crop": [0.5, 1.0],
    "brightness": 0.3,
    "contrast": 0.3,
    "erasing": 0.5,
}


def test_a_step_in_parts_is_the_whole_step_under_every_lever(tmp_path, monkeypatch):
    def augmented(*args, **kwargs):
        run = trainer(*args, **kwargs)
        run.pixels.augmentation = Augmentation(**LEVERS)
        return run

    (plain,), _ = gradients(tmp_path / "plain", 32)
    monkeypatch.setattr("test_trainer.trainer", augmented)
    (whole,), whole_loss = gradients(tmp_path / "a", 32)
    (cut,), cut_loss = gradients(tmp_path / "b", 8, 4)
    assert_same_gradients(cut, whole)
    assert cut_loss == pytest.approx(whole_loss, rel=1e-5)
    assert any((whole[name] - plain[name]).abs().max() > 1e-4 for name in whole)


def test_a_run_at_twice_the_size_starts_from_the_smaller_one_and_says_so(finished, tmp_path):
    flags = ["--model_name_or_path", str(finished[0]), "--image_size", "64", "--resize_size", "72"]
    flags += ["--model_kwargs.window_size", "4", "--num_train_epochs", "1", "--model_kwargs.drop_path_rate", "0"]
    flags += ["--random_resized_crop", "0.6", "1.0", "--brightness", "0.2", "--contrast", "0.2", "--erasing", "0.25"]
    assert train(write_config(tmp_path), tmp_path / "larger", *flags) == 0
    protocol = json.loads((tmp_path / "larger" / "metrics.json").read_text())["protocol"]
    assert protocol["initial_weights"].endswith("; position tables interpolated from 2 x 2 to 4 x 4")
    assert protocol["augmentation"] | {"random_resized_crop": [0.6, 1.0], "erasing": 0.25} == protocol["augmentation"]
    page = (tmp_path / "larger" / "report.html").read_text()
    assert "position tables interpolated" in page
    assert "random resized crop (0.6 to 1 of the area" in page
    assert Classifier(tmp_path / "larger").logits(torch.zeros(1, 1, 72, 72, dtype=torch.uint8)).shape == (1, 14)
