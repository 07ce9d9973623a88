"""The user's own labelled table: policies, readers, formats, and what is refused."""

import json
import logging

import datasets
import numpy as np
import pandas as pd
import pytest
from PIL import Image
from table_files import OWN, ROWS, by_image, own, picture, write

from hf_cxr.data import (
    label_matrix,
    load_description,
    load_table,
)
from hf_cxr.data.schema import features
from hf_cxr.data.sources.table.description import TableDescription
from hf_cxr.data.sources.table.labels import merge_rows

NAN = np.nan


@pytest.mark.parametrize(
    ("uncertain", "blank", "expected"),
    [
        ("ignore", "unknown", [[1, NAN], [NAN, 1]]),
        ("zero", "zero", [[1, 0], [0, 1]]),
        ("one", "unknown", [[1, NAN], [1, 1]]),
        ({"Mass": "zero", "default": "one"}, "zero", [[1, 0], [0, 1]]),
        ({"Nodule": "one"}, "zero", [[1, 0], [NAN, 1]]),
    ],
)
def test_policies_of_uncertain_and_empty_cells(tmp_path, uncertain, blank, expected):
    splits, _ = own(tmp_path, uncertain=uncertain, blank=blank)
    np.testing.assert_array_equal(label_matrix(splits["train"]), np.array(expected, np.float32))


@pytest.mark.parametrize(
    ("rule", "expected"), [("any", [1, 1, 1, NAN]), ("majority", [1, 0, 1, NAN]), ("all", [0, 0, 1, NAN])]
)
def test_rules_for_several_readers(rule, expected):
    """Two of three, one of two, one of one that knows, none that knows."""
    label_NC = np.array([[1, 1, 1, NAN], [1, 0, NAN, NAN], [0, NAN, NAN, NAN]], np.float32)
    merged = merge_rows(np.vstack([label_NC, np.zeros((1, 4))]), np.array([0, 0, 0, 1]), rule)
    np.testing.assert_array_equal(merged, np.array([expected, [0] * 4], np.float32))


def test_list_and_delimited_labels_are_equal(tmp_path):
    texts = {
        "list": ["\"['Mass', 'nodule']\"", '"[""NODULE""]"', "['clear']", ""],
        "delimited": ["Mass; nodule", "NODULE", "clear", ""],
    }
    for label_format, cells in texts.items():
        rows = "file,patient,part,found\n" + "".join(
            f"{name}.png,{name},{part},{cell}\n"
            for name, part, cell in zip("abcd", ("train", "train", "validation", "test"), cells, strict=True)
        )
        keys = {"label_format": label_format, "label_column": "found", "label_delimiter": ";", "no_finding": "Clear"}
        splits, _ = own(tmp_path, rows, **keys)
        np.testing.assert_array_equal(label_matrix(splits["train"]), [[1, 1], [0, 1]])
        np.testing.assert_array_equal(label_matrix(splits["validation"]), [[0, 0]])
        np.testing.assert_array_equal(label_matrix(splits["test"]), [[NAN, NAN]])
        with pytest.raises(ValueError, match=r"'found' .*not findings.*clear .*1 row"):
            own(tmp_path, rows, **{**keys, "no_finding": None})


def test_parquet_says_the_same_as_csv(tmp_path):
    expected, _ = own(tmp_path)
    pd.read_csv(tmp_path / "rows.csv").to_parquet(tmp_path / "rows.parquet")  # numbers there, with NaN among them
    write(tmp_path / "parquet.yaml", json.dumps({**OWN, "files": {"all": ["rows.parquet"]}}))
    splits, _ = load_table(tmp_path / "parquet.yaml", images=False)
    for name in splits:
        assert splits[name]["patient_id"] == expected[name]["patient_id"]
        np.testing.assert_array_equal(label_matrix(splits[name]), label_matrix(expected[name]))


def test_an_imagefolder_with_its_metadata(tmp_path):
    for number, split in enumerate(("train", "validation", "test")):
        write(tmp_path / split / "metadata.csv", f"file_name,patient,Mass,Nodule\nscan.png,{number},1,0\n")
        picture(tmp_path / split / "scan.png")
    keys = {"files": {split: f"{split}/metadata.csv" for split in ("train", "validation", "test")}}
    keys |= {"image_path": "{folder}/{file_name}"}
    values = {k: v for k, v in OWN.items() if k not in ("split_column", "image_column")} | keys
    write(tmp_path / "table.yaml", json.dumps(values))
    splits, _ = load_table(tmp_path / "table.yaml")
    assert [split[0]["image_id"] for split in splits.values()] == [
        "train/scan.png",
        "validation/scan.png",
        "test/scan.png",
    ]
    assert splits["test"][0]["image"].size == (4, 4)


def test_fractions_are_cut_by_patient(tmp_path):
    rows = "file,patient,Mass,Nodule\n" + "".join(f"{n}.png,{n // 2},{n % 2},{n // 2 % 2}\n" for n in range(200))
    keys = {"split_column": None, "validation_fraction": 0.1, "test_fraction": 0.2}
    splits, _ = own(tmp_path, rows, **keys)
    assert {name: len(split) for name, split in splits.items()} == {"train": 140, "validation": 20, "test": 40}
    assert label_matrix(splits["test"]).mean(axis=0) == pytest.approx([0.5, 0.5], abs=0.03)
    again, _ = own(tmp_path, rows, **keys)
    other, _ = own(tmp_path, rows, **keys, split_seed=1)
    assert again["test"]["image_id"] == splits["test"]["image_id"] != other["test"]["image_id"]


@pytest.mark.parametrize("split_column", ["part", None])
def test_a_dataset_on_disk_or_the_hub(tmp_path, split_column):
    feature = datasets.List(datasets.ClassLabel(names=["Nodule", "Mass"]))
    schema = datasets.Features(
        {
            "picture": datasets.Image(),
            "found": feature,
            "who": datasets.Value("int64"),
            "part": datasets.Value("string"),
        }
    )
    parts = ["train", "test", "train", "validation", "train"]
    columns = {
        "picture": [Image.fromarray(np.full((4, 4), 10 * n, np.uint8)) for n in range(5)],
        "found": [[0], [0, 1], [], [1], [1]],
        "who": [7, 8, 7, 9, 7],
        "part": parts,
    }
    whole = datasets.Dataset.from_dict(columns, features=schema)
    if split_column:
        whole.save_to_disk(tmp_path / "saved")
    else:
        rows = {name: [n for n, part in enumerate(parts) if part == name] for name in ("train", "validation", "test")}
        datasets.DatasetDict({name: whole.select(index) for name, index in rows.items()}).save_to_disk(
            tmp_path / "saved"
        )
    description = TableDescription(
        hub="saved",
        split_column=split_column,
        image_column="picture",
        label_format="list",
        label_column="found",
        findings=["Mass", "Nodule"],
        blank="zero",
        patient_column="who",
    )
    splits, space = load_table(description, tmp_path)
    assert splits["train"].features == features(space)
    np.testing.assert_array_equal(label_matrix(splits["train"]), [[0, 1], [0, 0], [1, 0]])
    np.testing.assert_array_equal(label_matrix(splits["test"]), [[1, 1]])
    assert [np.asarray(row["image"])[0, 0] for row in splits["train"]] == [0, 20, 40]
    assert np.asarray(splits["validation"][0]["image"])[0, 0] == 30
    assert splits["validation"]["patient_id"][:] == ["9"]
    assert "image" not in load_table(description, tmp_path, images=False)[0]["train"].column_names


def test_missing_images_are_skipped_with_their_number(tmp_path, caplog):
    own(tmp_path)
    for name in "acd":
        picture(tmp_path / f"{name}.png")
    with caplog.at_level(logging.WARNING):
        splits, _ = load_table(tmp_path / "table.yaml", missing_images="skip")
    for number in ("1 of 4", "1 of 2 in train", "0 of 1 in validation", "skipped"):
        assert number in caplog.text
    assert splits["train"]["image_id"][:] == ["a.png"]
    (tmp_path / "d.png").unlink()
    with pytest.raises(ValueError, match="no image of test"):
        load_table(tmp_path / "table.yaml", missing_images="skip")


def test_no_positive_in_train_is_reported(tmp_path, caplog):
    with caplog.at_level(logging.WARNING):
        own(tmp_path, ROWS.replace("a.png,1,train,1,", "a.png,1,train,0,"))
    assert "no positive training image of Mass" in caplog.text


BOXES = {"file": "boxes.csv", "by": "file", "finding": "what", "corners": ["l", "t", "r", "b"], "size": ["W", "H"]}


def test_boxes_with_the_images_sizes_in_columns(tmp_path):
    lines = ("a.png,mass,10,20,60,70,100,200", "d.png,Nodule,0,0,10,10,10,20", "z.png,Mass,0,0,1,1,9,9")
    write(tmp_path / "boxes.csv", "\n".join(["file,what,l,t,r,b,W,H", *lines]) + "\n")
    splits, _ = own(tmp_path, boxes=BOXES)
    rows = by_image(splits)
    assert rows["a.png"]["boxes"] == [{"finding": "Mass", "bbox": pytest.approx([0.1, 0.1, 0.5, 0.25])}]
    assert rows["d.png"]["boxes"] == [{"finding": "Nodule", "bbox": [0, 0, 1, 0.5]}]
    assert rows["b.png"]["boxes"] == []


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("a.png,Mas,1,2,6,7,100,200", r"not a finding .*'Mas'"),
        ("a.png,Mass,6,2,1,7,100,200", r"no area .*'a.png'"),
        ("a.png,Mass,101,2,110,7,100,200", r"no area .*'a.png'"),
        ("a.png,Mass,1,2,,7,100,200", r"not numbers .*'a.png'"),
        ("z.png,Mass,1,2,6,7,100,200", r"no box .*'z.png'"),
    ],
)
def test_bad_boxes_are_refused(tmp_path, line, message):
    write(tmp_path / "boxes.csv", f"file,what,l,t,r,b,W,H\n{line}\n")
    with pytest.raises(ValueError, match=message):
        own(tmp_path, boxes=BOXES)


# --- what is refused: rows or keys changed, and the words of the message

BAD = {
    "duplicate ids": ({}, ("b.png", "a.png"), r"rows.csv.* twice .*'a.png'.*merge"),
    "id above the folder": ({}, ("b.png", "../b.png"), r"leaves the image folder .*'\.\./b.png'"),
    "id above, on Windows": ({}, ("b.png", r"x\..\b.png"), "leaves the image folder"),
    "absolute id": ({}, ("b.png", "/etc/b.png"), "leaves the image folder"),
    "no id": ({}, ("b.png", ""), "without an image id"),
    "missing column": (
        {},
        ("patient", "Patient ID"),
        r"no column 'patient' .*did you mean 'Patient ID'",
    ),
    "missing finding": (
        {},
        ("Nodule", "Nodules"),
        r"no column 'Nodule' .*did you mean 'Nodules'",
    ),
    "a label that is no number": (
        {},
        ("-1,1", "yes,1"),
        r"'Mass' .*invalid labels .*'yes'.*1 for present",
    ),
    "a label that is a probability": ({}, ("-1,1", "0.7,1"), r"'Mass' .*invalid labels .*'0.7'"),
    "no patient": ({}, ("b.png,1", "b.png,NaN"), r"'patient' .*empty .*'b.png'"),
    "a patient in two splits": ({}, ("d.png,3", "d.png,1"), r"train and test share 1 patient"),
    "an image in two splits": ({"merge": "any"}, ("d.png,3", "a.png,1"), r"two splits .*'a.png'"),
    "a file with two ids": (
        {"image_id": "Nodule", "findings": ["Mass"]},
        ("a.png,1,train,1,", "b.png,1,train,1,9"),
        "two ids .*'1'",
    ),
    "unknown split": ({}, ("test", "tset"), r"'part' .*unknown splits .*'tset'.*split_values"),
    "empty split": ({}, ("test", "train"), "no image in test"),
    "no rows": ({}, (ROWS[30:], ""), "rows.csv .*no rows"),
    "a column twice": ({}, ("patient,", "Mass,patient,"), "'Mass' twice"),
    "another suffix": ({"files": "table.yaml"}, None, "yaml table .*suffix .*csv"),
    "no such file": ({"files": "absent.csv"}, None, "no absent.csv.*--table_root"),
    "odd patient": ({"patient_pattern": r"(\d\d)"}, None, r"'patient' .*not match .*4 row.*'1'"),
    "odd view": ({"view_column": "part"}, None, "'part' .*unknown view .*'train'.*view_values"),
    "odd age": ({"age_column": "file"}, None, "'file' .*not an age .*'a.png'"),
    "another delimiter": (
        {"delimiter": ";"},
        None,
        "no column 'file', .*'file,patient,part,Mass,Nodule'.*delimiter",
    ),
    "a stray comma": (
        {},
        ("c.png,2", "c.png,,2"),
        "csv table .*5 fields in line 4, saw 6",
    ),
    "no such encoding": ({"encoding": "utf-99"}, None, "encoding is 'utf-99'"),
    "a number for a column": ({"image_column": 3}, None, "image_column is 3.*text"),
    "a list for a map": ({"aliases": ["x"]}, None, "aliases is .*value: other value"),
    "text for a join": ({"join": "x"}, None, "join is 'x'.*a list"),
    "an alias that is a finding": ({"aliases": {"Mass": "Nodule"}}, None, "aliases .*'Mass'.* finding"),
    "nothing is kept": ({"keep": {"part": "never"}}, None, "no row .*part .*never"),
    "unknown key": ({"patient_colum": "x"}, None, "unknown key patient_colum in .*did you mean patient_column?"),
    "unknown policy": ({"uncertain": "maybe"}, None, "uncertain is 'maybe'; choose from zero, one, ignore"),
    "policy of an unknown finding": ({"uncertain": {"Mas": "one"}}, None, "uncertain names 'Mas'.*did you mean Mass?"),
    "alias of an unknown finding": ({"aliases": {"x": "Nodul"}}, None, "aliases points to 'Nodul'.*mean Nodule?"),
    "no patients at all": ({"patient_column": None}, None, "give patient_column.*image_is_patient: true"),
    "no split": ({"split_column": None}, None, "validation.* add validation_fraction"),
    "fraction beside a split": ({"test_fraction": 0.1}, None, "test_fraction .*split test"),
    "fraction too large": ({"test_fraction": 2}, None, "test_fraction is 2.*between 0 and 1"),
    "a template with code": ({"image_column": None, "image_path": "{file.x!r}"}, None, "a field is {column}"),
    "a pattern without group": ({"patient_pattern": "p"}, None, "must have one group"),
    "a broken pattern": ({"patient_pattern": "("}, None, r"table.yaml.*patient_pattern '\(' .*missing"),
    "a broken start": ({"image_strip": "[a"}, None, r"table.yaml.*image_strip '\[a' .*unterminated"),
    "findings twice": ({"findings": ["Mass", "Mass"]}, None, "findings repeat a name"),
    "findings as text": ({"findings": "Mass"}, None, "findings .*a list"),
    "a list without its column": ({"label_format": "list"}, None, "label_column goes with"),
    "half of a box": (
        {"boxes": {"file": "boxes.csv"}},
        None,
        "boxes is .*file, by, finding and corners, or column",
    ),
    "three corners": ({"boxes": BOXES | {"corners": ["l", "t", "r"]}}, None, "corners is .*4 columns"),
    "boxes without lists": ({"boxes": {"column": "Mass"}}, None, "goes with label_format list"),
    "half of a study": ({"studies": {"column": "Study"}}, None, "studies is .*column and images"),
    "neither files nor hub": ({"files": None}, None, "either files or hub"),
    "join on a key that repeats": (
        {"join": [{"file": "rows.csv", "by": "patient", "columns": ["part"]}]},
        None,
        r"rows.csv.* patient .*twice .*'1'",
    ),
}


@pytest.mark.parametrize("bad", BAD)
def test_bad_tables_and_descriptions_are_refused(tmp_path, bad):
    keys, change, message = BAD[bad]
    rows = ROWS if change is None else ROWS.replace(*change)
    assert change is None or rows != ROWS
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        own(tmp_path, rows, **keys)


def test_another_encoding_is_named_and_can_be_given(tmp_path):
    own(tmp_path)
    (tmp_path / "rows.csv").write_bytes(ROWS.replace("a.png", "ä.png").encode("latin-1"))
    with pytest.raises(ValueError, match=r"rows.csv .*utf-8-sig .*encoding"):
        load_table(tmp_path / "table.yaml", images=False)
    write(tmp_path / "table.yaml", json.dumps({**OWN, "encoding": "latin-1"}))
    assert load_table(tmp_path / "table.yaml", images=False)[0]["train"]["image_id"][0] == "ä.png"


def test_mixed_types_are_read_as_text_or_refused(tmp_path):
    own(tmp_path)
    frame = pd.read_csv(tmp_path / "rows.csv")
    frame["patient"] = pd.Series([1, "1", 2.0, "x"], dtype=object)
    records = json.dumps(frame.astype(object).where(frame.notna(), None).to_dict("records"))
    write(tmp_path / "rows.json", records)
    write(tmp_path / "table.yaml", json.dumps({**OWN, "files": "rows.json"}))
    splits, _ = load_table(tmp_path / "table.yaml", images=False)
    assert [list(split["patient_id"]) for split in splits.values()] == [["1", "1"], ["2"], ["x"]]
    write(
        tmp_path / "rows.json",
        records.replace('"Mass": 1.0', '"Mass": "high"').replace('"Mass": 1,', '"Mass": "high",'),
    )
    with pytest.raises(ValueError, match=r"'Mass' .*invalid labels .*'high'"):
        load_table(tmp_path / "table.yaml", images=False)


def test_an_unknown_name_lists_the_ready_ones():
    with pytest.raises(FileNotFoundError, match=r"chexprt.*chexpert, chexpert_test, cxr_lt_2023"):
        load_description("chexprt")
