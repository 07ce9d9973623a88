"""`hf-cxr explain` on image files and on data with boxes: what is written, what is refused, nothing half done."""

import json

import datasets
import numpy as np
import pytest
import torch
from PIL import Image
from tiny import MODELS

from hf_cxr.commands import run_command
from hf_cxr.explain import METHOD_NAMES as NAMED
from hf_cxr.explain.maps import METHODS
from hf_cxr.labels import NIH14
from hf_cxr.models import fresh
from hf_cxr.processing import build_image_processor


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("model") / "tiny"
    fresh("swin", {**MODELS["swin"], "initializer_range": 0.3}, NIH14, 32).save_pretrained(folder)
    build_image_processor(36, 32).save_pretrained(folder)
    return folder


@pytest.fixture
def images(tmp_path):
    rng = np.random.default_rng(0)
    folder = tmp_path / "images"
    folder.mkdir()
    for name, shape in (("a b;$x.png", (90, 60)), ("wide.png", (40, 110))):
        Image.fromarray(rng.integers(0, 256, shape, dtype=np.uint8)).save(folder / name)
    return folder


def explain(*words):
    return run_command("explain", list(map(str, words)))


def test_each_image_has_a_picture_and_arrays_at_its_own_pixels(model, images, tmp_path, capsys):
    assert explain("--model", model, images, "--out", tmp_path / "out", "--top", 2) == 0
    about = json.loads((tmp_path / "out" / "explanation.json").read_text())
    assert about["model"] == "tiny"
    assert about["calibrated"] is False
    assert [entry["picture"] for entry in about["images"]] == ["0001_a_b_x.png", "0002_wide.png"]
    written = {path.name for path in (tmp_path / "out").iterdir()}
    assert written == {"explanation.json"} | {
        f"{stem}.{end}" for stem in ("0001_a_b_x", "0002_wide") for end in ("png", "npz")
    }
    for entry, shape in zip(about["images"], ((90, 60), (40, 110)), strict=True):
        with np.load(tmp_path / "out" / entry["arrays"], allow_pickle=False) as arrays:
            assert arrays["maps"].shape == (2, *shape)
            assert arrays["raw"].shape == (2, 4, 4)
            assert arrays["findings"].tolist() == list(entry["probabilities"])
            np.testing.assert_allclose(arrays["probabilities"], list(entry["probabilities"].values()))
            assert arrays["probabilities"][0] >= arrays["probabilities"][1]
            unseen = np.isnan(arrays["maps"]).all(axis=0)
            assert unseen[0].all()  # the crop of 32 of 36 leaves out an eighteenth on each side
            assert not unseen[shape[0] // 2, shape[1] // 2]
        assert Image.open(tmp_path / "out" / entry["picture"]).size[0] > 300
    assert "wrote 2 pictures" in capsys.readouterr().out


def test_named_findings_are_explained_in_their_order(model, images, tmp_path):
    names = "pleural thickening,Mass"
    assert explain("--model", model, images / "wide.png", "--out", tmp_path / "out", "--findings", names) == 0
    about = json.loads((tmp_path / "out" / "explanation.json").read_text())
    assert list(about["images"][0]["probabilities"]) == ["Pleural_Thickening", "Mass"]


def test_an_unreadable_file_is_named_and_the_rest_explained(model, images, tmp_path, capsys):
    (images / "bad.png").write_text("not an image")
    assert explain("--model", model, images, "--out", tmp_path / "out") == 2
    about = json.loads((tmp_path / "out" / "explanation.json").read_text())
    assert len(about["images"]) == 2
    assert "bad.png" in about["unreadable"][0]
    assert "1 of 3" in capsys.readouterr().err


def test_a_result_is_whole_or_absent(model, images, tmp_path, capsys):
    for path in images.iterdir():
        path.write_text("not an image")
    assert explain("--model", model, images, "--out", tmp_path / "out") == 2
    assert "nothing was written" in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["images"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--method", "cam"], "no method 'cam'"),
        (["--method", "grad_cam,grad_cam_plus_plus"], "one --method"),
        (["--method", "occlusion", "--layer", "layernorm"], "no layer"),
        (["--layer", "encoder.layers.9"], "has no layer"),
        (["--findings", "Massive"], "did you mean Mass"),
        (["--top", "0"], "at least 1"),
        (["--dataset", "phantom"], "not both"),
        (["--nonsense", "1"], "nonsense"),
    ],
)
def test_bad_words_are_refused_in_one_line(model, images, tmp_path, capsys, words, message):
    try:
        status = explain("--model", model, images / "wide.png", "--out", tmp_path / "out", *words)
    except SystemExit as stop:
        status = stop.code
    lines = capsys.readouterr().err.strip().splitlines()
    assert status == 2
    assert message in lines[-1]
    assert "Traceback" not in "".join(lines)
    assert not (tmp_path / "out").exists()


def test_without_images_and_without_data_it_says_so(model, tmp_path, capsys):
    with pytest.raises(SystemExit):
        explain("--model", model, "--out", tmp_path / "out")
    assert "--dataset" in capsys.readouterr().err


def test_a_place_that_is_not_empty_is_refused(model, images, tmp_path, capsys):
    assert explain("--model", model, images, "--out", images) == 2
    assert "not empty" in capsys.readouterr().err
    assert len(list(images.iterdir())) == 2


def test_maps_are_scored_on_the_boxes_of_a_split(model, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    data = {"dataset": "phantom", "phantom_train": 1, "phantom_validation": 1, "phantom_test": 16, "phantom_size": 36}
    data |= {"phantom_prevalence_floor": 0.1, "bootstrap_resamples": 20, "pictures": 1}
    data = [word for key, value in data.items() for word in (f"--{key}", value)]
    out = tmp_path / "out"
    assert explain("--model", model, *data, "--method", "grad_cam_plus_plus,grad_cam", "--out", out) == 0
    values = json.loads((out / "localization.json").read_text())
    assert values["explained"] == "grad_cam_plus_plus"
    assert set(values["maps"]) >= {"grad_cam", "random", "centre", "usual_place", "randomised_weights", "grid_limit"}
    assert values["grid"] == [4, 4]
    assert values["synthetic"] is True
    pairs = sum(values["counts"]["pairs"].values())
    assert pairs >= 5
    # the boxes themselves, on the map's own grid, find what a map of noise does not
    energy = {key: values["values"][key]["energy"]["all boxes"][0] for key in values["maps"]}
    assert energy["grid_limit"] > 2 * energy["random"]
    assert len(list((out / "pictures").iterdir())) == 1
    page = (out / "localization.html").read_text()
    assert "data:image/png;base64" in page
    assert str(tmp_path) not in page
    assert "synthetic_0" not in page + (out / "localization.json").read_text()  # no image and no patient is named
    assert "pointing game" in capsys.readouterr().out


def test_data_without_boxes_are_refused_by_name(model, images, tmp_path, capsys):
    rows = [("1.png", "train"), ("2.png", "validation"), ("3.png", "test"), ("4.png", "test")]
    lines = [f"{name},{name},{split},1" for name, split in rows]
    (tmp_path / "rows.csv").write_text("\n".join(["id,patient,split,Mass", *lines, ""]))
    description = {
        "name": "four",
        "files": {"all": "rows.csv"},
        "split_column": "split",
        "split_values": {name: name for name in ("train", "validation", "test")},
        "image_column": "id",
        "image_root": "images",
        "label_format": "columns",
        "findings": ["Mass"],
        "patient_column": "patient",
    }
    (tmp_path / "four.yaml").write_text(json.dumps(description))
    for name, _ in rows:
        Image.fromarray(np.zeros((40, 40), np.uint8)).save(images / name)
    words = ["--dataset", "table", "--table", tmp_path / "four.yaml", "--table_root", tmp_path]
    assert explain("--model", model, *words, "--out", tmp_path / "out") == 2
    assert "no box of the model's findings" in capsys.readouterr().err.splitlines()[-1]
    assert not (tmp_path / "out").exists()


def test_the_methods_of_the_command_are_those_of_the_table():
    assert set(NAMED) == set(METHODS)
