"""The record in config.json: what is written is what is read, also by and from other versions."""

import dataclasses
import json

import pytest
from transformers import SwinConfig, ViTConfig

from hf_cxr.models import ModelRecord

POINT = {
    "threshold": 0.25,
    "rule": "sensitivity",
    "target": 0.9,
    "sensitivity": 0.95,
    "specificity": 0.5,
    "positives": 20,
    "negatives": 380,
}
RECORD = ModelRecord(
    version="1.2",
    dataset="ChestX-ray14",
    synthetic=False,
    split="f" * 64,
    loss={"name": "bce", "options": {}},
    data="d" * 64,
    calibration={"slope": [1.0]},
    operating_points={"Mass": POINT, "Hernia": None},
    conformal={
        "coverage": 0.9,
        "findings": {
            "Mass": {"present_from": 0.1, "absent_to": None, "positive_patients": 20, "negative_patients": 8},
        },
    },
    prevalence={"Mass": 0.05},
    licence_note="for research",
    weights_origin={"kind": "converted", "source": "a lab", "licence": "MIT", "saw_test_images": "yes", "note": None},
)


@pytest.mark.parametrize("kind", [SwinConfig, ViTConfig])
def test_it_comes_back_from_config_json(kind, tmp_path):
    config = kind()
    RECORD.write(config)
    assert ModelRecord.of(config) == RECORD
    config.save_pretrained(tmp_path)
    assert ModelRecord.of(kind.from_pretrained(tmp_path, trust_remote_code=False)) == RECORD
    assert ModelRecord.of(json.loads((tmp_path / "config.json").read_text())) == RECORD


def test_the_stages_of_weights_are_the_earlier_ones_and_its_own(tmp_path):
    own = {"dataset": "ChestX-ray14", "split": "f" * 64, "held_out": None}
    earlier = {"dataset": "CheXpert", "split": "e" * 64, "held_out": "h" * 64}
    assert RECORD.stages == (own,)
    config = SwinConfig()
    dataclasses.replace(RECORD, earlier_stages=(earlier,)).write(config)
    config.save_pretrained(tmp_path)
    assert ModelRecord.of(SwinConfig.from_pretrained(tmp_path)).stages == (earlier, own)
    origin = {"kind": "converted", "saw_test_images": "no"}
    assert ModelRecord(weights_origin=origin).stages == ()
    assert ModelRecord(weights_origin=origin, earlier_stages=[earlier]).stages == (earlier,)


def test_the_names_in_config_json_are_those_of_the_versions_before():
    config = SwinConfig()
    ModelRecord(version="1", dataset="set", synthetic=True, split="s", loss={}, data="d").write(config)
    assert config.hf_cxr == {
        "version": "1",
        "dataset": "set",
        "synthetic": True,
        "split": "s",
        "loss": {},
        "data": "d",
        "initial_weights": None,
    }
    dataclasses.replace(ModelRecord.of(config), calibration={"slope": [2.0]}).write(config)
    assert config.hf_cxr["calibration"] == {"slope": [2.0]}


@pytest.mark.parametrize("values", [{"version": "0.1", "split": "s", "loss": {}}, {"split": "s", "of a later one": 1}])
def test_records_of_other_versions_are_read(values):
    record = ModelRecord.of({"hf_cxr": values})
    assert record.split == "s"
    assert record.calibration is None
    assert record.dataset is None


@pytest.mark.parametrize("config", [SwinConfig(), {}, {"hf_cxr": None}, {"hf_cxr": {}}])
def test_a_model_of_another_package_has_none(config):
    assert ModelRecord.of(config) is None


@pytest.mark.parametrize(
    ("points", "message"),
    [
        ({"Mass": POINT | {"threshold": 2}}, "operating point of Mass: threshold is 2"),
        ({"Mass": 0.25}, "operating point of Mass is 0.25; it must have threshold, rule"),
        (["Mass"], "must be a mapping of findings"),
    ],
)
def test_damaged_operating_points_are_refused(points, message):
    with pytest.raises(ValueError, match=rf"hf_cxr in config\.json: .*{message}"):
        ModelRecord.of({"hf_cxr": {"version": "1", "operating_points": points}})


def test_damaged_label_sets_are_refused():
    with pytest.raises(ValueError, match=r"hf_cxr in config\.json: label sets"):
        ModelRecord.of({"hf_cxr": {"version": "1", "conformal": {"coverage": 0.9}}})


@pytest.mark.parametrize("value", ["x", [1], 3])
def test_what_is_not_a_record_is_refused(value):
    with pytest.raises(ValueError, match=r"hf_cxr in config\.json is .*; it must be what training wrote"):
        ModelRecord.of({"hf_cxr": value})
