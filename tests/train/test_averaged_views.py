"""Test-time augmentation of a finished run: measured as a system of its own, and predicted with its calibration."""

import csv
import dataclasses
import json
import shutil

import numpy as np
import pytest
from scipy.special import expit

import hf_cxr.run.evaluating.evaluate
from hf_cxr.commands import main
from hf_cxr.data import load_source, map_labels
from hf_cxr.evaluation.calibration import fit_calibration
from hf_cxr.evaluation.metrics import roc_auc
from hf_cxr.inference.classifier import Classifier
from hf_cxr.inference.views import AveragedViews
from hf_cxr.labels import LabelSpace
from hf_cxr.predictions import Predictions
from hf_cxr.run.data import load
from hf_cxr.run.stage_files import saved_arguments

FLAG = "--test_time_augmentation"


@pytest.fixture(scope="module")
def evaluated(finished, tmp_path_factory):
    out = tmp_path_factory.mktemp("views") / "evaluation"
    flags = ["--bootstrap_resamples", "50"]
    assert main(["evaluate", "--model", str(finished[0]), FLAG, "flip,scales", "--out", str(out), *flags]) == 0
    return out


def test_the_page_keeps_one_view_and_adds_the_average(finished, evaluated):
    own = Predictions.load(finished[0] / "predictions" / "test.parquet")
    np.testing.assert_allclose(Predictions.load(evaluated / "predictions.parquet").logits, own.logits, atol=1e-4)
    values = json.loads((evaluated / "analysis.json").read_text())["averaged_views"]
    assert values["views"] == 6
    paired = values["paired"]["metrics"]["auc"]["macro"]
    assert paired["second"] == pytest.approx(np.nanmean(roc_auc(own.probabilities, own.labels)), abs=1e-6)
    assert paired["difference"] == pytest.approx(paired["first"] - paired["second"])
    assert paired["low"] <= paired["difference"] <= paired["high"]
    assert values["macro"]["averaged"]["auc"][0] == pytest.approx(paired["first"])
    page = (evaluated / "evaluation.html").read_text()
    assert "Test-time augmentation" in page
    assert "6 passes" in page


def test_its_calibration_is_fitted_on_validation_alone(finished, evaluated):
    args = saved_arguments(finished[0])
    splits = load_source(args.data, seed=args.training.seed).splits
    raw = Classifier(finished[0], views=AveragedViews(("flip", "scales")))
    validation, test = (raw.predict_split(splits[name], name) for name in ("validation", "test"))
    expected = fit_calibration(validation.logits, validation.labels, label_names=validation.label_names)
    for predictions in (validation, test):
        saved = Predictions.load(evaluated / "test_time_augmentation" / f"{predictions.split}.parquet")
        np.testing.assert_allclose(saved.logits, expected.apply(predictions.logits), atol=1e-4)
        assert saved.metadata["averaged_views"] == ["flip", "scales"]
    loaded = AveragedViews.load(evaluated)
    np.testing.assert_allclose(loaded.calibration.slope_C, expected.slope_C, atol=1e-5)
    assert loaded.operating_points.by_finding


def test_findings_in_another_order_are_those_of_the_model(finished, evaluated, tmp_path, monkeypatch):
    """The same images and patients, so the same split; but another description names the findings otherwise."""

    def load_reversed(args):
        source = load(args)
        names = source.labels[::-1]
        splits, _, _ = map_labels(source.splits, source.labels, names)
        return dataclasses.replace(source, splits=splits, labels=LabelSpace(names))

    monkeypatch.setattr(hf_cxr.run.evaluating.evaluate, "load", load_reversed)
    out, flags = tmp_path / "out", ["--bootstrap_resamples", "50"]
    assert main(["evaluate", "--model", str(finished[0]), FLAG, "flip,scales", "--out", str(out), *flags]) == 0
    for split in ("validation", "test"):
        found, expected = (
            Predictions.load(folder / "test_time_augmentation" / f"{split}.parquet") for folder in (out, evaluated)
        )
        np.testing.assert_array_equal(found.labels, expected.labels)
        np.testing.assert_allclose(found.logits, expected.logits, atol=1e-5)
    found, expected = (json.loads((folder / "analysis.json").read_text()) for folder in (out, evaluated))
    assert found["averaged_views"]["macro"] == expected["averaged_views"]["macro"]


def test_predict_gives_the_calibrated_probabilities_of_the_average(finished, evaluated, tmp_path):
    args = saved_arguments(finished[0])
    split = load_source(args.data, seed=args.training.seed).splits["test"]
    for row in range(3):
        split[row]["image"].convert("L").save(tmp_path / f"{row}.png")
    out = tmp_path / "out.csv"
    words = ["predict", *(str(tmp_path / f"{row}.png") for row in range(3)), "--model", str(finished[0])]
    assert main([*words, "--csv", str(out), FLAG, str(evaluated)]) == 0
    with out.open() as file:
        rows = list(csv.DictReader(file))
    measured = Predictions.load(evaluated / "test_time_augmentation" / "test.parquet")
    points = AveragedViews.load(evaluated).operating_points
    for column, name in enumerate(measured.label_names):
        found = [float(row[name]) for row in rows]
        np.testing.assert_allclose(found, expit(measured.logits[:3, column]), atol=1e-4)
        point = points.by_finding.get(name)
        assert (f"called/{name}" in rows[0]) == (point is not None)


def test_an_evaluation_without_views_takes_them_away(finished, evaluated, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(evaluated, copy)
    flags = ["--bootstrap_resamples", "20"]
    assert main(["evaluate", "--model", str(finished[0]), "--out", str(copy), *flags]) == 0
    assert not list(copy.glob("test_time_augmentation/*"))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--split", "validation", FLAG, "flip"], "calibrated on validation and measured on another split"),
        (["--phantom_seed", "99", FLAG, "flip"], "trained on the split"),
        ([FLAG, "flop"], "did you mean flip"),
    ],
)
def test_what_cannot_be_calibrated_is_refused(finished, words, message, capsys):
    assert main(["evaluate", "--model", str(finished[0]), *words]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert "Traceback" not in error
