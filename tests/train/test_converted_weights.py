"""A model fine-tuned from converted weights says where they come from: record, metrics, report, card, evaluation."""

import json

import pytest
import torch
import yaml
from official_swin import SIZES, random_weights, tables

from hf_cxr.commands import main

LAYOUT = SIZES | {"image_size": 32, "embed_dim": 8, "depths": [1, 1]}
ORIGIN = ("--source", "the lab's page", "--licence", "MIT", "--saw_test_images", "yes", "--image_size", "32")
TINY = {
    "dataset": "phantom",
    "phantom_train": 32,
    "phantom_validation": 24,
    "phantom_test": 24,
    "phantom_size": 36,
    "phantom_prevalence_floor": 0.2,
    "image_size": 32,
    "num_train_epochs": 1,
    "bootstrap_resamples": 20,
}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with the converted weights and a run that started from them."""
    place = tmp_path_factory.mktemp("converted")
    content = random_weights(sizes=LAYOUT) | tables(LAYOUT)
    torch.save({"encoder." + name: torch.from_numpy(array) for name, array in content.items()}, place / "simmim.pth")
    assert main(["convert", str(place / "simmim.pth"), "--out", str(place / "weights"), *ORIGIN]) == 0
    settings = TINY | {"model_name_or_path": str(place / "weights"), "output_dir": str(place / "run")}
    (place / "run.yaml").write_text(yaml.safe_dump(settings))
    assert main(["train", str(place / "run.yaml")]) == 0
    return place


def test_the_origin_is_carried_into_the_run(place):
    before = json.loads((place / "weights" / "config.json").read_text())["hf_cxr"]["weights_origin"]
    assert json.loads((place / "run" / "config.json").read_text())["hf_cxr"]["weights_origin"] == before
    assert json.loads((place / "run" / "metrics.json").read_text())["protocol"]["weights_origin"] == before
    for page in ("README.md", "report.html"):
        text = (place / "run" / page).read_text()
        assert "were trained with images of ChestX-ray14" in text
        assert before["sha256"] in text


def test_a_run_from_that_run_still_says_it(place, capsys):
    settings = yaml.safe_load((place / "run.yaml").read_text())
    settings |= {"model_name_or_path": str(place / "run"), "output_dir": str(place / "second")}
    (place / "second.yaml").write_text(yaml.safe_dump(settings))
    assert main(["train", str(place / "second.yaml")]) == 0
    assert "were trained with images of ChestX-ray14" in (place / "second" / "README.md").read_text()
    capsys.readouterr()
    words = ["evaluate", str(place / "run.yaml"), "--model", str(place / "second"), "--out", str(place / "figures")]
    assert main(words) == 0
    assert "were trained with images of ChestX-ray14" in " ".join(capsys.readouterr().out.split())
    figures = json.loads((place / "figures" / "evaluation.json").read_text())
    assert figures["weights_origin"]["source"] == "the lab's page"


def test_an_ensemble_says_it_of_its_member(place, capsys):
    settings = yaml.safe_load((place / "run.yaml").read_text()) | {"output_dir": str(place / "fresh"), "seed": 1}
    del settings["model_name_or_path"]
    settings["model_kwargs"] = {"patch_size": 2, "window_size": 4, "embed_dim": 8, "depths": [1], "num_heads": [1]}
    (place / "fresh.yaml").write_text(yaml.safe_dump(settings))
    assert main(["train", str(place / "fresh.yaml")]) == 0
    capsys.readouterr()
    assert main(["ensemble", str(place / "run"), str(place / "fresh"), "--out", str(place / "both")]) == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert printed.count("were trained with images of ChestX-ray14") == 1


def test_a_backbone_without_a_head_is_not_measured(place, capsys):
    words = ["evaluate", str(place / "run.yaml"), "--model", str(place / "weights"), "--out", str(place / "none")]
    assert main(words) == 2
    assert "without a classifier" in capsys.readouterr().err
