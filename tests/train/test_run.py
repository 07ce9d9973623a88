"""The whole road in small: a run folder a stranger can read, the stock pipeline, a killed job, the Hub."""

import ast
import json
import re
import runpy
from pathlib import Path

import datasets
import numpy as np
import pytest
import torch
import yaml
from decoding import check_images
from huggingface_hub import ModelCard
from PIL import Image
from tiny import swin
from transformers import pipeline

from hf_cxr.commands import main as hf_cxr_main
from hf_cxr.config import parse_arguments
from hf_cxr.data import load_source
from hf_cxr.evaluation import headline_metrics
from hf_cxr.inference.classifier import Classifier
from hf_cxr.labels import NIH14
from hf_cxr.predictions import Predictions

ROOT = Path(__file__).parents[2]
TINY = {
    "dataset": "phantom",
    "phantom_train": 48,
    "phantom_validation": 32,
    "phantom_test": 40,
    "phantom_size": 64,
    "phantom_prevalence_floor": 0.05,
    **swin(drop_path_rate=0.2),
    "per_device_train_batch_size": 8,
    "num_train_epochs": 3,
    "learning_rate": 1e-3,
    "bootstrap_resamples": 50,
    "logging_steps": 1,
}


def write_config(folder, **changes):
    path = folder / "tiny.yaml"
    path.write_text(yaml.safe_dump(TINY | changes))
    return str(path)


def train(config, output_dir, *flags) -> int:
    return hf_cxr_main(["train", str(config), "--output_dir", str(output_dir), *flags])


@pytest.fixture(scope="module")
def test_split():
    arguments = [f"--{key}={value}" for key, value in TINY.items() if key.startswith(("dataset", "phantom"))]
    return load_source(parse_arguments(arguments).data).splits["test"]


def test_terminal_says_where_and_how_good(finished):
    run_dir, out = finished
    assert "Test: macro AUC 0." in out
    assert "synthetic phantoms" in out
    assert "stock pipeline" in out
    assert f"Report: {run_dir / 'report.html'}" in out


def test_run_folder_is_complete_and_whole(finished):
    run_dir, _ = finished
    files = {path.relative_to(run_dir).as_posix() for path in run_dir.rglob("*") if path.is_file()}
    assert {
        "README.md",
        "config.json",
        "config.yaml",
        "figures/roc_test.png",
        "figures/training.png",
        "metrics.json",
        "model.safetensors",
        "predictions/test.parquet",
        "predictions/validation.parquet",
        "preprocessor_config.json",
        "report.html",
        "run.log",
    } <= files
    assert [name for name in files if "tfevents" in name]
    assert [name for name in files if Path(name).name.startswith(".")] == [".run.lock"]
    assert "training_args.bin" not in files


def test_log_says_what_happened(finished):
    log = (finished[0] / "run.log").read_text()
    assert "train: 48 images, validation: 32 images, test: 40 images" in log
    assert "measuring on test" in log
    metrics = json.loads((finished[0] / "metrics.json").read_text())
    evaluated = [entry for entry in metrics["history"] if "eval_auc" in entry]
    rows = [line.split("progress: ")[1].split() for line in log.splitlines() if "progress: " in line]
    assert rows[0][0] == "epoch"
    assert [row[3] for row in rows[1:]] == [f"{entry['eval_auc']:.3f}" for entry in evaluated]


def test_resolved_config_starts_the_same_run(finished):
    args = parse_arguments([str(finished[0] / "config.yaml")])
    assert yaml.safe_load(yaml.safe_dump(args.to_dict())) == yaml.safe_load((finished[0] / "config.yaml").read_text())


def test_metrics_tell_patients_versions_and_spread(finished):
    run_dir, _ = finished
    metrics = json.loads((run_dir / "metrics.json").read_text())
    protocol = metrics["protocol"]
    assert {name: split["images"] for name, split in protocol["splits"].items()} == {
        "train": 48,
        "validation": 32,
        "test": 40,
    }
    assert len(protocol["split_fingerprint"]) == 64
    assert protocol["loss"]["name"] == "class_aware"
    assert metrics["environment"]["torch"] == torch.__version__
    assert metrics["training"]["steps"] == 18
    auc = metrics["test"]["all"]["auc"]
    assert auc["macro_low"] < auc["macro"] < auc["macro_high"]
    assert [name for name, value in auc["value"].items() if value is None] == auc["undefined"]


def test_stock_pipeline_scores_are_the_evaluations(finished, test_split):
    run_dir, _ = finished
    saved = Predictions.load(run_dir / "predictions" / "test.parquet")
    assert list(saved.image_ids) == test_split["image_id"][:]
    assert saved.metadata["calibrated"] is True
    classify = pipeline("image-classification", model=str(run_dir))
    for row in range(3):
        scores = {entry["label"]: entry["score"] for entry in classify(test_split[row]["image"], top_k=14)}
        expected = dict(zip(NIH14, saved.probabilities[row], strict=True))
        assert scores == pytest.approx(expected, abs=1e-5)
    assert np.ptp(saved.probabilities) > 0.01


def test_saved_model_is_calibrated_and_says_how(finished, test_split):
    run_dir, _ = finished
    config = json.loads((run_dir / "config.json").read_text())
    assert config["hf_cxr"]["calibration"]
    validation = Predictions.load(run_dir / "predictions" / "validation.parquet")
    gap = validation.probabilities.mean(0) - np.nanmean(validation.labels, axis=0)
    assert np.abs(gap).max() < 0.03  # uncalibrated, the class-aware loss puts the mean near 0.6
    best = sorted(run_dir.glob("checkpoint-*"))
    uncalibrated = [Classifier(path).predict_split(test_split, "test").probabilities.mean() for path in best]
    assert min(uncalibrated) > 0.4


def test_card_parses_and_names_what_it_is(finished):
    run_dir, _ = finished
    card = ModelCard.load(run_dir / "README.md")
    assert card.data.pipeline_tag == "image-classification"
    assert {result.metric_type for result in card.data.eval_results} == headline_metrics().keys()
    assert "synthetic" in card.data.tags
    assert "{{ " not in card.text
    assert "{%" not in card.text
    for name in NIH14:
        assert name in card.text


def test_the_python_of_the_card_runs(finished, tmp_path, monkeypatch, capsys):
    run_dir, _ = finished
    blocks = re.findall(r"```python\n(.*?)```", (run_dir / "README.md").read_text(), re.DOTALL)
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (80, 70), dtype=np.uint8)).save(tmp_path / "chest.png")
    monkeypatch.chdir(tmp_path)
    shown = []
    for block in blocks:
        block = block.replace('model="."', f'model="{run_dir}"').replace("chest.dcm", "chest.png")
        (tmp_path / "example.py").write_text(block)
        runpy.run_path(str(tmp_path / "example.py"))
        shown.append(capsys.readouterr().out)
    stock = {one["label"]: one["score"] for one in ast.literal_eval(shown[0])}
    ours = {words[0]: float(words[1]) for words in (line.split() for line in shown[1].splitlines())}
    assert ours == pytest.approx(stock, abs=1e-4)
    assert list(ours) == list(NIH14)


def test_report_is_one_page_with_every_finding(finished):
    page = (finished[0] / "report.html").read_text()
    assert page.count("data:image/png;base64,") == len(list((finished[0] / "figures").glob("*.png"))) > 5
    assert "synthetic phantoms" in page
    assert "{{" not in page.split("</style>")[1].split("<script>")[0]
    for name in NIH14:
        assert name in page


def test_finished_run_is_not_overwritten(finished, capsys):
    run_dir, _ = finished
    before = (run_dir / "model.safetensors").read_bytes()
    assert train(run_dir.parent / "tiny.yaml", run_dir) == 2
    assert (
        capsys.readouterr()
        .err.strip()
        .splitlines()[-1]
        .startswith(f"hf-cxr train: {run_dir} holds a finished run; give another")
    )
    assert (run_dir / "model.safetensors").read_bytes() == before


def test_evaluate_repeats_the_figures(finished, tmp_path, capsys, caplog):
    run_dir, _ = finished
    config = str(run_dir.parent / "tiny.yaml")
    assert hf_cxr_main(["evaluate", config, "--model", str(run_dir), "--out", str(tmp_path)]) == 0
    ours = json.loads((run_dir / "metrics.json").read_text())
    again = json.loads((tmp_path / "evaluation.json").read_text())
    assert again["splits_from"].startswith("the phantom generator")
    with pytest.raises(SystemExit):
        hf_cxr_main(["evaluate", config, "--model", str(run_dir), "--out", str(run_dir)])
    assert "is a run folder" in capsys.readouterr().err
    assert hf_cxr_main(["evaluate", config, "--model", str(run_dir) + "r"]) == 2
    assert "no such run folder" in capsys.readouterr().err
    assert again["all"]["auc"]["macro"] == pytest.approx(ours["test"]["all"]["auc"]["macro"], abs=1e-6)
    assert "split fingerprint" not in caplog.text
    assert again["split_fingerprint"] == again["trained_on_split"] == ours["protocol"]["split_fingerprint"]
    hf_cxr_main(["evaluate", "--model", str(run_dir), "--phantom_seed", "9"])  # the run's own config.yaml
    assert "the model's split fingerprint is" in caplog.text


def test_predict_writes_a_row_an_image(finished, test_split, tmp_path, capsys):
    run_dir, _ = finished
    (tmp_path / "images").mkdir()
    for row in range(2):
        test_split[row]["image"].save(tmp_path / "images" / f"{row}.png")
    table = tmp_path / "out.csv"
    assert hf_cxr_main(["predict", str(tmp_path / "images"), "--model", str(run_dir), "--csv", str(table)]) == 0
    lines = [line.split(",") for line in table.read_text().splitlines()]
    assert lines[0][: 1 + len(NIH14)] == ["image", *NIH14]
    assert all(name.startswith(("called/", "set/", "input_check/", "image/")) for name in lines[0][1 + len(NIH14) :])
    expected = Predictions.load(run_dir / "predictions" / "test.parquet").probabilities[:2]
    np.testing.assert_allclose(np.array([line[1 : 1 + len(NIH14)] for line in lines[1:]], float), expected, atol=1e-5)
    assert capsys.readouterr().out.count(".png") >= 2


def test_a_place_that_cannot_be_written_is_refused_before_any_image(finished, test_split, tmp_path, capsys):
    test_split[0]["image"].save(tmp_path / "good.png")
    (tmp_path / "file").write_text("x")
    for place, said in (
        (tmp_path, "is a folder; give the name of a file"),
        (tmp_path / "file" / "x.csv", "cannot write"),
    ):
        line = ["predict", str(tmp_path / "good.png"), "--model", str(finished[0]), "--csv", str(place)]
        assert hf_cxr_main(line) == 2
        printed = capsys.readouterr()
        assert said in printed.err
        assert "good.png" not in printed.out


def test_predict_names_the_file_it_cannot_read(finished, test_split, tmp_path, capsys):
    (tmp_path / "text.png").write_text("not an image")
    assert hf_cxr_main(["predict", str(tmp_path / "text.png"), "--model", str(finished[0])]) == 2
    assert "text.png" in capsys.readouterr().err
    test_split[0]["image"].save(tmp_path / "good.png")
    table = tmp_path / "out.csv"
    assert hf_cxr_main(["predict", str(tmp_path), "--model", str(finished[0]), "--csv", str(table)]) == 2
    assert len(table.read_text().splitlines()) == 2  # the readable one is not lost
    assert hf_cxr_main(["predict", str(tmp_path / "none.png"), "--model", str(finished[0])]) == 2
    assert "no such image or folder" in capsys.readouterr().err


def test_sixteen_bit_file_is_read_as_its_eight_bit_twin(finished, test_split, tmp_path):
    grey = np.asarray(test_split[0]["image"].convert("L"))
    Image.fromarray(grey).save(tmp_path / "eight.png")
    Image.fromarray(grey.astype(np.uint16) * 257).save(tmp_path / "sixteen.png")
    classifier = Classifier(finished[0])
    eight, sixteen = (row for _, row in classifier.predict_files([tmp_path / "eight.png", tmp_path / "sixteen.png"]))
    np.testing.assert_allclose(eight, sixteen, atol=0.02)
    assert np.ptp(eight) > 0


def test_run_that_stops_after_validation_sees_no_test_image_and_can_go_on(finished, tmp_path):
    config, straight_dir = write_config(tmp_path), finished[0]
    assert train(config, tmp_path / "tuned", "--measure_test", "false") == 0
    folder = tmp_path / "tuned"
    assert not [name for name in ("metrics.json", "predictions", "model.safetensors") if (folder / name).exists()]
    validation = json.loads((folder / "validation.json").read_text())
    straight = json.loads((straight_dir / "metrics.json").read_text())
    assert validation["validation"]["auc"] == pytest.approx(straight["validation"]["all"]["auc"]["macro"], abs=1e-6)
    assert validation["protocol"]["split_fingerprint"] == straight["protocol"]["split_fingerprint"]
    assert train(config, folder) == 0
    weights = [(run_dir / "model.safetensors").read_bytes() for run_dir in (straight_dir, folder)]
    assert weights[0] == weights[1]


def test_unreadable_images_are_named_before_training(tmp_path):
    rows = {"image": [], "labels": [[0.0] * 14] * 3, "image_id": ["a", "b", "c"]}
    for name in "abc":
        Image.fromarray(np.zeros((8, 8), np.uint8)).save(tmp_path / f"{name}.png")
        rows["image"].append(str(tmp_path / f"{name}.png"))
    split = datasets.Dataset.from_dict(rows).cast_column("image", datasets.Image())
    check_images({"train": split})
    (tmp_path / "b.png").write_bytes(b"\x89PNG cut off")
    with pytest.raises(ValueError, match=r"1 of 3 image files cannot be read: .*b\.png: .* --missing_images skip"):
        check_images({"train": split})


def test_a_missing_login_is_reported_before_training(hub, tmp_path, monkeypatch, capsys):
    monkeypatch.delenv("HF_TOKEN")
    push = ("--push_to_hub", "--hub_model_id", "tester/tiny")
    assert train(write_config(tmp_path), tmp_path / "tiny", *push) == 2
    assert "hf auth login" in capsys.readouterr().err
    assert not list((tmp_path / "tiny").glob("checkpoint-*"))


def test_a_prepared_folder_trains_to_the_same_weights(finished, tmp_path):
    config = write_config(tmp_path)
    assert hf_cxr_main(["prepare", config, "--out", str(tmp_path / "prepared")]) == 0
    own = {key: value for key, value in TINY.items() if not key.startswith(("dataset", "phantom"))}
    config = tmp_path / "prepared.yaml"
    config.write_text(yaml.safe_dump({"dataset": "prepared", "prepared": str(tmp_path / "prepared")} | own))
    assert train(config, tmp_path / "again") == 0
    weights = [(folder / "model.safetensors").read_bytes() for folder in (finished[0], tmp_path / "again")]
    assert weights[0] == weights[1]
    protocol = json.loads((tmp_path / "again" / "metrics.json").read_text())["protocol"]
    assert protocol["prepared"]
    assert protocol["synthetic"]
    assert protocol["dataset"] == "synthetic phantoms (no patients)"
