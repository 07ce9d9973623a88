"""Groups and controls of predictions: their own columns are used, and no patient is on both sides of a fit."""

import json

import numpy as np
import pytest

from hf_cxr.evaluation.draws import PatientDraws
from hf_cxr.predictions import Predictions
from hf_cxr.reporting.controls import controls_section
from hf_cxr.reporting.document import Document
from hf_cxr.reporting.subgroups import subgroups_section
from hf_cxr.run.groups import control_values, subgroup_values

NAMES = ("Mass", "Edema")


def predictions(seed=0, patients=90, first=0, **columns):
    rng = np.random.default_rng(seed)
    patient_N = np.repeat(np.arange(first, first + patients), 2)
    label_NC = (rng.random((len(patient_N), 2)) < 0.4).astype(np.float32)
    ids = [f"{patient:08}_{number % 2:03}.png" for number, patient in enumerate(patient_N)]
    sex = np.array(["F", "M"])[rng.integers(2, size=patients)].repeat(2).tolist()
    columns = {"sex": sex, "age": rng.uniform(20, 80, len(patient_N))} | columns
    return Predictions(
        label_NC + rng.normal(size=label_NC.shape), label_NC, ids, [f"p{one}" for one in patient_N], NAMES, **columns
    )


def test_groups_are_those_of_the_predictions_and_become_a_page():
    test = predictions(extra={"scanner": ["a", "b"] * 90})
    draws = PatientDraws.of(test.patient_ids, resamples=20)
    options = {"crossings": [("sex", "view")], "age_starts": (0, 50)}
    values = subgroup_values(test, draws, threshold_C=[0.5, 0.5], **options)
    attributes = values["attributes"]
    assert list(attributes) == ["sex", "age", "study", "number of findings", "scanner"]
    assert values["left_out"]["view"] == "unknown for every image"
    assert "sex and view" in values["left_out"]
    assert list(attributes["age"]["groups"]) == ["0-49", "50+"]
    assert attributes["study"]["groups"]["first study"]["images"] == 90
    assert attributes["sex"]["groups"]["F"]["images"] == test.sex.count("F")
    assert list(attributes["sex"]["groups"]["F"]["measures"]) == ["auc", "ap", "fnr", "fpr"]
    again = json.loads(json.dumps(values))
    text = Document("x", subgroups_section(again).blocks).to_terminal()
    assert "sex and view (view is unknown for every image)" in text.replace("\n    ", " ")
    assert "00000003_001" not in json.dumps(values)


def test_controls_are_fitted_on_other_patients():
    test, validation = predictions(), predictions(seed=1, first=200)
    draws = PatientDraws.of(test.patient_ids, resamples=20)
    options = {"shuffles": 5, "rng": np.random.default_rng(0)}
    values = control_values(test, draws, validation=validation, **options)
    assert values["fitted_on"] == "validation"
    assert list(values["without_pixels"]) == ["age and sex", "age", "sex"]
    assert "age and sex" in Document("x", controls_section(json.loads(json.dumps(values))).blocks).to_terminal()
    assert control_values(test, draws, **options)["fitted_on"] == "test, cross-fitted"
    with pytest.raises(ValueError, match="10 patients are in validation"):
        control_values(test, draws, validation=predictions(seed=1, first=80), **options)
