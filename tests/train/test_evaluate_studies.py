"""`hf-cxr evaluate --model RUN --by study`: refused before an image is predicted, and what is not done for studies."""

import dataclasses
import json

import numpy as np
import pytest

import hf_cxr.run.evaluating.evaluate
from hf_cxr.commands import main
from hf_cxr.predictions import Predictions
from hf_cxr.run.data import load
from hf_cxr.run.evaluating.evaluate import tuned_on_studies
from hf_cxr.run.stage_files import saved_arguments


@pytest.fixture
def evaluate(finished, tmp_path, monkeypatch):
    """Measures the tiny run on its own test set, whose images get the studies of a function of patient and row."""

    def call(study_of=None):
        def load_with_studies(args):
            source = load(args)
            rows = source.splits["test"]
            if study_of is not None:
                rows = rows.add_column("study_id", [study_of(*one) for one in enumerate(rows["patient_id"][:])])
            return source.with_splits(source.splits | {"test": rows})

        monkeypatch.setattr(hf_cxr.run.evaluating.evaluate, "load", load_with_studies)
        flags = ["--by", "study", "--bootstrap_resamples", "20", "--out", str(tmp_path / "out")]
        return main(["evaluate", "--model", str(finished[0]), *flags]), tmp_path / "out"

    return call


def test_data_that_name_no_studies_are_refused_before_an_image_is_predicted(evaluate, monkeypatch, capsys):
    def predict(*_, **__):
        raise AssertionError("an image was predicted")

    monkeypatch.setattr(hf_cxr.run.evaluating.evaluate, "predict_split", predict)
    assert evaluate()[0] == 2
    assert "phantoms belong to no studies; leave it out" in capsys.readouterr().err
    assert evaluate(lambda row, patient: "one")[0] == 2
    assert "study one is of two patients" in capsys.readouterr().err


def test_a_validation_set_without_studies_gives_no_thresholds(finished, evaluate, capsys):
    """The run's own validation predictions name no studies, the measured data do."""
    status, out = evaluate(lambda row, patient: f"study of {patient}")
    assert status == 0
    assert "No operating points: thresholds of images" in " ".join(capsys.readouterr().out.split())
    analysis = json.loads((out / "analysis.json").read_text())
    assert "operating_points" not in analysis
    measured = Predictions.load(out / "predictions.parquet")
    own = Predictions.load(finished[0] / "predictions" / "test.parquet")
    assert len(measured) == len(set(own.patient_ids)) < len(own)
    assert "prevalence_shift" not in analysis  # a mean of calibrated probabilities is not calibrated


def test_studies_of_one_image_assume_the_prevalence_of_images(finished, evaluate):
    status, out = evaluate(lambda row, patient: f"study {row}")
    assert status == 0
    own = json.loads((finished[0] / "analysis.json").read_text())["prevalence_shift"]
    found = json.loads((out / "analysis.json").read_text())["prevalence_shift"]
    assert found["source"] == pytest.approx(own["source"])
    assert found["observed"]["Effusion"]["value"] == pytest.approx(own["observed"]["Effusion"]["value"])


def test_thresholds_are_chosen_on_validation_studies(finished):
    args = saved_arguments(finished[0])
    images = Predictions.load(finished[0] / "predictions" / "validation.parquet")
    assert tuned_on_studies(None, "mean", args) == tuned_on_studies(images, "mean", args) == (None, None)
    studies, points = tuned_on_studies(dataclasses.replace(images, study_ids=images.patient_ids), "max", args)
    assert studies.image_ids == tuple(dict.fromkeys(images.patient_ids))
    assert points.by_finding
    first = [row for row, one in enumerate(images.patient_ids) if one == images.patient_ids[0]]
    np.testing.assert_array_equal(studies.probabilities[0], images.probabilities[first].max(axis=0))
