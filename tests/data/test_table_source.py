"""A labelled table as a source: its findings in another set's columns, limits, evaluation, arguments."""

import json
import re

import datasets
import numpy as np
import pytest
from table_files import CHEXPERT, chexpert_row, own, picture, write, write_chexpert
from tiny import save_model

from hf_cxr.commands import main
from hf_cxr.config import DataArguments
from hf_cxr.data import (
    label_matrix,
    load_description,
    load_source,
    load_table,
    map_labels,
)
from hf_cxr.data.schema import features
from hf_cxr.labels import NIH14, LabelSpace

# --- one vocabulary in another's columns


def test_labels_are_mapped_by_name_alias_and_synonym(tmp_path):
    splits, source = load_table("chexpert", write_chexpert(tmp_path), images=False)
    mapped, shared, rest = map_labels(splits, source, NIH14)
    assert shared == (
        "Atelectasis",
        "Cardiomegaly",
        "Effusion",
        "Pneumonia",
        "Pneumothorax",
        "Consolidation",
        "Edema",
    )
    assert set(rest["target"]) == set(NIH14) - set(shared)
    assert {"Support Devices", "Lung Opacity"} <= set(rest["source"])
    before, after = label_matrix(splits["train"]), label_matrix(mapped["train"])
    np.testing.assert_array_equal(after[:, 2], before[:, source.index("Pleural Effusion")])
    assert np.isnan(after[:, NIH14.index("Hernia")]).all()
    assert mapped["train"].features == features(NIH14, images=False, studies=True)
    assert mapped["test"]["image_id"] == splits["test"]["image_id"]
    back, _, _ = map_labels(mapped, NIH14, source)
    both = [source.index({"Effusion": "Pleural Effusion"}.get(name, name)) for name in shared]
    np.testing.assert_array_equal(label_matrix(back["train"])[:, both], before[:, both])


def test_synonyms_work_between_plain_names_and_subtypes_are_not_shared():
    space = load_description("padchest").label_space
    schema = datasets.Features({"labels": features(space)["labels"]})
    split = datasets.Dataset.from_dict({"labels": [[1.0] * len(space)]}, features=schema)
    _, shared, _ = map_labels({"test": split}, space, NIH14)
    assert shared == NIH14
    other = load_description("cxr_lt_2024").label_space
    _, shared, rest = map_labels({"test": split}, space, other)
    assert {"Infiltration", "Hernia", "Pneumoperitoneum", "Fracture"} <= set(shared)
    assert {"Lobar Atelectasis", "Rib Fracture", "Normal"} <= set(rest["target"])
    with pytest.raises(ValueError, match="no finding is shared"):
        map_labels({"test": split}, space, LabelSpace(["Scoliosis of the Moon"]))
    with pytest.raises(ValueError, match="are both Edema"):
        map_labels({}, LabelSpace(["Oedema", "Pulmonary Edema"]), LabelSpace(["Edema"]))


# --- through the arguments


def test_limit_and_permuted_labels_work_with_a_table(tmp_path):
    lines = [
        f"{n}.png,{n},{'train' if n < 60 else 'validation' if n < 70 else 'test'},{n % 3 % 2}," for n in range(80)
    ]
    own(tmp_path, "file,patient,part,Mass,Nodule\n" + "\n".join(lines) + "\n")
    keys = {"dataset": "table", "table": str(tmp_path / "table.yaml")}
    plain = load_source(DataArguments(**keys), images=False).splits
    limited = load_source(DataArguments(**keys, train_limit=7), images=False).splits
    assert limited["train"]["image_id"][:] == [f"{n}.png" for n in (0, 10, 20, 30, 39, 49, 59)]
    assert len(limited["test"]) == len(plain["test"]) == 10
    mixed = load_source(DataArguments(**keys, shuffle_labels=True), seed=1, images=False).splits
    before, after = label_matrix(plain["train"]), label_matrix(mixed["train"])
    assert not np.array_equal(before, after, equal_nan=True)
    np.testing.assert_array_equal(np.sort(before, axis=0), np.sort(after, axis=0))
    np.testing.assert_array_equal(label_matrix(mixed["test"]), label_matrix(plain["test"]))
    assert mixed["train"].features == plain["train"].features
    assert mixed["train"]["patient_id"][:] == plain["train"]["patient_id"][:]


def test_a_table_is_a_source(tmp_path, caplog):
    own(tmp_path, name="Our hospital")
    for name in "acd":
        picture(tmp_path / f"{name}.png")
    args = DataArguments(dataset="table", table=str(tmp_path / "table.yaml"), missing_images="skip")
    source = load_source(args)
    assert source.labels == ("Mass", "Nodule")
    assert {name: len(split) for name, split in source.splits.items()} == {"train": 1, "validation": 1, "test": 1}
    assert source.missing == {"train": 1}
    assert source.name == "Our hospital"


def test_a_model_of_other_findings_is_measured_on_the_shared_ones(tmp_path, caplog):
    """External validation: a model of ChestX-ray14's findings on CheXpert's table."""
    root = write_chexpert(tmp_path / "data")
    rows = "".join(
        chexpert_row(
            "valid", 64541 + n, 1, "Male", 70, "AP", f"0.0,1.0,{n % 2}.0,1.0,0,0,0,0,0,0,{n % 3 // 2}.0,0,0,0"
        )
        for n in range(12)
    )
    write(root / "valid.csv", CHEXPERT + rows)
    for table in ("train.csv", "valid.csv"):
        for path in re.findall(r"CheXpert-v1.0-small/([^,]+)", (root / table).read_text()):
            picture(root / path)
    save_model(tmp_path / "model")
    keys = f"dataset: table\ntable: chexpert\ntable_root: {root}\nbootstrap_resamples: 20\n"
    config = write(tmp_path / "c.yaml", keys)
    assert main(["evaluate", str(config), "--model", str(tmp_path / "model"), "--out", str(tmp_path / "out")]) == 0
    assert "7 findings" in caplog.text
    figures = json.loads((tmp_path / "out/evaluation.json").read_text())
    assert figures["dataset"] == "CheXpert"
    assert "Hernia" in figures["findings_not_in_data"]
    assert "Lung Opacity" in figures["findings_not_in_model"]
    defined = {name for name, value in figures["all"]["auc"]["value"].items() if value is not None}
    assert defined == {"Cardiomegaly", "Effusion"}


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"dataset": "table"}, "dataset table needs --table"),
        ({"table": "chexpert"}, "--table is given, but --dataset phantom does not take it: add --dataset table"),
        ({"table_root": "/data"}, "--table_root is given, but --dataset phantom does not take it"),
        ({"dataset": "table", "table": "chexpert"}, "ready description: give --table_root"),
        ({"dataset": "table", "table": "absent.yaml"}, "--table absent.yaml does not exist"),
        (
            {"dataset": "table", "table": "chexpert", "table_root": "/absent"},
            "--table_root /absent is not a folder",
        ),
    ],
)
def test_arguments_are_checked_at_the_door(keys, message):
    with pytest.raises(ValueError, match=message):
        DataArguments(**keys)


@pytest.mark.parametrize("synthetic", [True, False])
def test_a_table_that_is_synthetic_says_so_to_everything_that_asks(tmp_path, synthetic):
    own(tmp_path, **({"synthetic": True} if synthetic else {}))
    args = DataArguments(dataset="table", table=str(tmp_path / "table.yaml"))
    assert load_source(args, images=False).synthetic is synthetic


def test_synthetic_is_true_or_false(tmp_path):
    with pytest.raises(ValueError, match="synthetic is 'yes'"):
        own(tmp_path, synthetic="yes")
