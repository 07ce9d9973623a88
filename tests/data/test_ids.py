"""Ids in one spelling: in every format, in joins, boxes, templates, split files, the release, and what is claimed."""

import json
import logging
from pathlib import Path

import datasets
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from test_nih import rows_by_image, write_release
from tiny import PROTOCOL
from transformers import SwinConfig

from hf_cxr.commands.split import main as split
from hf_cxr.config import DataArguments
from hf_cxr.data import load_nih, load_source, load_table, near_shared_patients, split_fingerprint
from hf_cxr.data.ids import canonical_code, canonical_id, code_values, likeness, similar_ids, similar_pairs
from hf_cxr.data.split_files import apply_split_file, read_split_file
from hf_cxr.data.splits import check_patients_disjoint, patient_folds, with_canonical_ids
from hf_cxr.evaluation import evaluate_predictions
from hf_cxr.reporting.card.model_card import render
from hf_cxr.reporting.run import Report

PARTS = ("train", "validation", "test")
LARGE = 9007199254740993  # 2**53 + 1, the first integer that float64 has not got

SPELLED = {
    "1003": [
        *("1003", "1003.0", "1003.00", "1003.", "1003,0", " 1003 ", "+1003", "1.003e3", "1.003E+03", "1.00300000e+03"),
        *("\ufeff1003", "1003\u200b", "\u00a01003.0\u00a0", "\u20091003", "1003\t", 1003, 1003.0),
        *(np.int64(1003), np.float32(1003)),
    ],
    "00001003": ["00001003", "00001003.0"],
    "0": ["0", "0.0", "-0.0", 0, -0.0],
    "-5": ["-5", "-5.0"],
    str(LARGE): [str(LARGE), f"{LARGE}.0", LARGE, np.int64(LARGE)],
    "12345678901234567890": ["12345678901234567890", "12345678901234567890.0", 12345678901234567890],
    "M\u00fcller": ["M\u00fcller", "Mu\u0308ller"],
    "A B": ["A B", "A\u00a0B", "A\u2009B"],
    "": ["", " ", "nan", "NaN", "None", "null", "<NA>", "NA", "N/A", None, float("nan"), pd.NA],
}
NOT_NUMBERS = (
    "p3",
    "P3",
    "1.5",
    "1.0.png",
    "1.2.840.10008",
    "12e4567",
    "1E3",
    "1.0a",
    "3-1.0",
    "1,000",
    "1_0",
    "a b",
    "1.5e0",
)


@pytest.mark.parametrize("identifier", SPELLED)
def test_every_spelling_is_one_id(identifier):
    assert {canonical_id(value) for value in SPELLED[identifier]} == {identifier}
    assert canonical_id(identifier) == identifier


@pytest.mark.parametrize("text", NOT_NUMBERS)
def test_what_is_not_a_whole_number_stays(text):
    assert canonical_id(text) == text


@pytest.mark.parametrize("value", ["1.23457E+11", "1e+16", "1.2345678901234568e+16", 2.0**60, np.float32(2**25)])
def test_numbers_that_lost_digits_are_refused(value):
    with pytest.raises(ValueError, match="lost digits"):
        canonical_id(value)


def test_codes_are_numbers_and_truths_too():
    assert [canonical_code(value) for value in ("0.0", 0, False, "False", "1.0", True, "TRUE")] == list("0000111")
    assert [canonical_code(value) for value in (" Train\u00a0", "AP", "NA", None)] == ["Train", "AP", "NA", ""]
    assert code_values({"1.0": "train", "1": "train", "*": None}, "split_values") == {"1": "train", "*": None}
    with pytest.raises(ValueError, match="split_values has '1' twice"):
        code_values({"1.0": "train", "1": "test"}, "split_values")


@pytest.mark.parametrize(
    ("one", "other", "alike"),
    [
        *(("00001003", "1003", True), ("p3", "P3", True), ("p003", "P3", True), ("'0012", "12", True)),
        *(('="0012"', "12", True), ("p1003.0", "p1003", True), ("00c", "c", True), ("1_000", "1_0", True)),
        *(("1,003", "1003", True), ("P 3", "p_3", True), ("p\u20113", "P-3", True), ("\uff11\uff10", "10", True)),
        *(("1,03", "103", False), ("1-23", "12-3", False), ("P3", "P-3", False)),
        *(("1.05", "1.5", False), ("100", "10", False), ("p30", "p3", False), ("1.2.840.10", "1.2.840.1", False)),
    ],
)
def test_likeness_is_of_zeros_and_capitals_alone(one, other, alike):
    assert (likeness(one) == likeness(other)) == alike


def test_similar_ids_are_counted_and_shown_and_equal_ones_are_not():
    pairs = similar_pairs(["1", "007", "x", "007"], ["1", "7", "y"])
    assert pairs == [("007", "7")]
    (sentence,) = similar_ids({"train": ["007", "1"], "validation": ["5"], "test": ["7", "1"]}, "patient")
    assert all(word in sentence for word in ("train and test", "1 patient id", "007 and 7"))
    (published,) = similar_ids({"train": ["007"], "test": ["7"]}, "patient", examples=0)
    assert "007" not in published
    assert similar_ids({"train": ["1", "2"], "test": ["3"]}, "patient") == []


# --- one patient in two files, each in its own format


def write_rows(path: Path, rows: list[dict], kind: str) -> Path:
    """The same rows in a format that spells whole numbers in its own way."""
    frame = pd.DataFrame(rows)
    if kind == "csv":
        frame.to_csv(path, index=False)
    elif kind == "float csv":
        frame.assign(p=frame["p"].astype(float)).to_csv(path, index=False)
    elif kind == "science csv":
        frame.assign(p=[f"{p:.3e}" for p in frame["p"]]).to_csv(path, index=False)
    elif kind == "utf-8 csv":
        frame.assign(p=[f"\ufeff\u00a0{p} " for p in frame["p"]]).to_csv(path, index=False)
    elif kind == "tsv":
        frame.to_csv(path, index=False, sep="\t")
    elif kind == "json":
        path.write_text(json.dumps(rows))
    elif kind == "float json":
        path.write_text(json.dumps([{**row, "p": float(row["p"])} for row in rows]))
    elif kind == "text json":
        path.write_text(json.dumps([{**row, "p": f"{row['p']}.0"} for row in rows]))
    else:
        column = {
            "int parquet": lambda p: pa.array(p, pa.int32()),
            "uint parquet": lambda p: pa.array(p, pa.uint64()),
            "float parquet": lambda p: pa.array(p, pa.float64()),
            "text parquet": lambda p: pa.array([f"{n}.0" for n in p]),
            "decimal parquet": lambda p: pa.array(p, pa.int64()).cast(pa.decimal128(22, 2)),
            "bytes parquet": lambda p: pa.array([str(n).encode() for n in p], pa.binary()),
            "dictionary parquet": lambda p: pa.array(map(str, p)).dictionary_encode(),
        }[kind]([row["p"] for row in rows])
        pq.write_table(
            pa.table({"p": column, **{name: [r[name] for r in rows] for name in rows[0] if name != "p"}}), path
        )
    return path


KINDS = {
    **dict.fromkeys(("csv", "float csv", "science csv", "utf-8 csv"), "csv"),
    **{"tsv": "tsv", "json": "json", "float json": "json", "text json": "json"},
    **dict.fromkeys(
        [f"{kind} parquet" for kind in ("int", "uint", "float", "text", "decimal", "bytes", "dictionary")], "parquet"
    ),
}


def write_splits(folder: Path, kinds: dict[str, str], patients: dict[str, list[int]], **keys) -> Path:
    files = {}
    for part in PARTS:
        rows = [{"f": f"{part}{n}.png", "p": p, "Mass": n % 2} for n, p in enumerate(patients[part])]
        files[part] = f"{part}.{KINDS[kinds[part]]}"
        write_rows(folder / files[part], rows, kinds[part])
    keys = {"files": files, "image_column": "f", "patient_column": "p", "findings": ["Mass"], **keys}
    (folder / "t.yaml").write_text(json.dumps({name: value for name, value in keys.items() if value is not None}))
    return folder / "t.yaml"


@pytest.fixture(scope="module")
def fingerprint(tmp_path_factory):
    """Of splits whose three files spell their patients alike."""
    patients = {"train": [1003, 1004], "validation": [1005], "test": [1007, 1006]}
    path = write_splits(tmp_path_factory.mktemp("alike"), dict.fromkeys(PARTS, "csv"), patients)
    return split_fingerprint(load_table(path, images=False)[0])


@pytest.mark.parametrize("kind", KINDS)
def test_a_patient_in_two_files_is_found_however_the_other_spells_it(tmp_path, kind, fingerprint):
    patients = {"train": [1003, 1004], "validation": [1005], "test": [1004, 1006]}
    path = write_splits(tmp_path, {"train": "csv", "validation": "csv", "test": kind}, patients)
    with pytest.raises(ValueError, match=r"train and test share 1 patient, such as 1004\."):
        load_table(path, images=False)
    patients["test"] = [1007, 1006]
    path = write_splits(tmp_path, {"train": "csv", "validation": "csv", "test": kind}, patients)
    splits, _ = load_table(path, images=False)
    assert splits["test"]["patient_id"][:] == ["1007", "1006"]
    assert split_fingerprint(splits) == fingerprint


@pytest.mark.parametrize("kind", ["parquet", "json", "csv", "hub"])
def test_long_ids_beside_an_empty_cell_keep_their_digits(tmp_path, kind):
    """A reader that goes through float64 takes 2**53 and 2**53 + 1 for one patient."""
    ids = [LARGE, LARGE - 1, LARGE + 2, None]
    frame = {"f": [f"{n}.png" for n in range(4)], "p": ids, "s": [*PARTS, None], "Mass": [1, 0, 0, 0]}
    table = pa.table({**frame, "p": pa.array(ids, pa.int64())})
    keys = {"patient_column": "p", "split_column": "s", "findings": ["Mass"], "keep": {"s": list(PARTS)}}
    if kind == "hub":
        images = [{"bytes": b"P5 1 1 255 x", "path": None}] * 4
        hub = datasets.Dataset(table).add_column("image", images, feature=datasets.Image())
        hub.save_to_disk(tmp_path / "saved")
        keys |= {"hub": "saved", "image_column": "image"}
    else:
        keys |= {"files": f"rows.{kind}", "image_column": "f"}
    if kind == "parquet":
        pq.write_table(table, tmp_path / "rows.parquet")
    elif kind == "json":
        (tmp_path / "rows.json").write_text(json.dumps(table.to_pylist()))
    elif kind == "csv":
        (tmp_path / "rows.csv").write_text(
            "f,p,s,Mass\n"
            + "".join(f"{r['f']},{r['p'] or ''},{r['s'] or ''},{r['Mass']}\n" for r in table.to_pylist())
        )
    (tmp_path / "t.yaml").write_text(json.dumps(keys))
    splits, _ = load_table(tmp_path / "t.yaml", tmp_path, images=False)
    assert [part["patient_id"][0] for part in splits.values()] == [str(i) for i in ids[:3]]


@pytest.mark.parametrize(
    ("kind", "cell"), [("csv", "1.23457E+11"), ("csv", "9.007199254740992e+15"), ("parquet", 2.0**53)]
)
def test_ids_that_lost_digits_stop_the_table(tmp_path, kind, cell):
    frame = pd.DataFrame({"f": ["1.png", "2.png", "3.png"], "p": [cell, 5, 6], "s": PARTS, "Mass": [1, 0, 0]})
    getattr(frame, f"to_{kind}")(tmp_path / f"rows.{kind}", index=False)
    keys = {"files": f"rows.{kind}", "image_column": "f", "patient_column": "p", "split_column": "s"}
    (tmp_path / "t.yaml").write_text(json.dumps({**keys, "findings": ["Mass"]}))
    with pytest.raises(
        ValueError, match=rf"rows.{kind}: column 'p' contains rounded numbers \(1 row.*export the ids again"
    ):
        load_table(tmp_path / "t.yaml", images=False)


def test_a_class_of_minus_one_is_unknown_and_not_the_last_class(tmp_path):
    schema = {"image": datasets.Image(), "p": datasets.Value("float32"), "x": datasets.ClassLabel(names=["M", "F"])}
    parts = {
        part: datasets.Dataset.from_dict(
            {"image": [{"bytes": b"P5 1 1 255 x", "path": None}], "p": [n], "x": [code], "Mass": [1]},
            features=datasets.Features({**schema, "Mass": datasets.Value("int64")}),
        )
        for n, (part, code) in enumerate(zip(PARTS, (0, 1, -1), strict=True))
    }
    datasets.DatasetDict(parts).save_to_disk(tmp_path / "saved")
    keys = {"hub": "saved", "image_column": "image", "patient_column": "p", "sex_column": "x", "findings": ["Mass"]}
    (tmp_path / "t.yaml").write_text(json.dumps(keys))
    splits, _ = load_table(tmp_path / "t.yaml", tmp_path, images=False)
    assert [part["sex"][0] for part in splits.values()] == ["M", "F", None]
    assert [part["patient_id"][0] for part in splits.values()] == ["0", "1", "2"]


# --- within a table of one's own

OWN = {
    "files": "rows.csv",
    "split_column": "s",
    "image_column": "f",
    "patient_column": "p",
    "findings": ["Mass"],
}
ROWS = "f,p,s,Mass\na.png,1003,train,1\nb.png,1003.0,train,0\nc.png,1004,validation,1\nd.png,1005,test,0\n"


def own(folder: Path, rows: str = ROWS, **keys) -> datasets.DatasetDict:
    (folder / "rows.csv").write_text(rows, encoding="utf-8")
    (folder / "t.yaml").write_text(json.dumps({k: v for k, v in {**OWN, **keys}.items() if v is not None}))
    return load_table(folder / "t.yaml", images=False)[0]


def test_two_spellings_in_one_file_are_one_patient(tmp_path):
    splits = own(tmp_path)
    assert splits["train"]["patient_id"][:] == ["1003", "1003"]
    with pytest.raises(ValueError, match="train and test share 1 patient"):
        own(tmp_path, ROWS.replace("1005", "\u200b1003.00"))
    with pytest.raises(ValueError, match=r"'p' is empty for some images \(1 row"):
        own(tmp_path, ROWS.replace("1005", "None"))


def test_a_pattern_takes_the_id_out_of_a_number_and_its_group_is_an_id(tmp_path):
    splits = own(tmp_path, patient_pattern=r"^(\d+)$")
    assert splits["train"]["patient_id"][:] == ["1003", "1003"]
    rows = ROWS.replace("1003,", "x-1003,").replace("1003.0,", "x-1003.0,").replace(",100", ",x-100")
    assert own(tmp_path, rows, patient_pattern="x-(.*)")["train"]["patient_id"][:] == ["1003", "1003"]


def test_labels_paths_and_versions_stay_as_they_are(tmp_path):
    rows = ROWS.replace("a.png", "1.0.png").replace("b.png", "1.2.840.0").replace(",train,1\n", ",train,1.0\n")
    splits = own(tmp_path, rows)
    assert splits["train"]["image_id"][:] == ["1.0.png", "1.2.840.0"]
    assert np.array(splits["train"]["labels"]).tolist() == [[1], [0]]


def test_an_image_id_twice_in_two_spellings_is_refused(tmp_path):
    rows = "f,p,s,i,Mass\n" + "".join(
        f"{n}.png,{n},{PARTS[n % 3]},{i},1\n" for n, i in enumerate(("7", "8", "9", "7.0"))
    )
    with pytest.raises(ValueError, match=r"an image id occurs twice .*'7'"):
        own(tmp_path, rows, image_id="i")


def test_a_template_gets_the_one_spelling(tmp_path):
    rows = "f,p,s,d,Mass\n" + "".join(f"x{n},{10000032 + n}.0,{PARTS[n]}, {n}.0,1\n" for n in range(3))
    splits = own(tmp_path, rows, image_column=None, image_path="p{p:.2}/{p}/{d}/{f}.jpg")
    assert splits["test"]["image_id"][:] == ["p10/10000034/2/x2.jpg"]


@pytest.mark.parametrize(
    "values", [{"0": "train", "1": "validation", "2": "test"}, {"0.0": "train", "1.0": "validation", "2.0": "test"}]
)
@pytest.mark.parametrize("cells", ["012", ("0.0", "1.0", "2.0")])
def test_split_view_sex_and_keep_cells_are_codes(tmp_path, values, cells):
    rows = "f,p,s,v,x,k,Mass\n" + "".join(
        f"{n}.png,{n},{cells[n]},{cells[n]},{cells[n]},{cells[1]},1\n" for n in range(3)
    )
    named = dict(zip(values, ("PA", "AP", None), strict=True)), dict(zip(values, ("M", "F", None), strict=True))
    keys = {
        "split_values": values,
        "view_column": "v",
        "view_values": named[0],
        "sex_column": "x",
        "sex_values": named[1],
    }
    splits = own(tmp_path, rows, **keys, keep={"k": [list(values)[1]]})
    assert [(part["view"][0], part["sex"][0]) for part in splits.values()] == [("PA", "M"), ("AP", "F"), (None, None)]


def test_true_and_false_are_the_codes_1_and_0_in_every_format(tmp_path):
    keys = {"split_values": {"True": "test", "False": "train"}, "validation_fraction": 0.5}
    rows = "f,p,s,Mass\na.png,1,True,1\nb.png,2,False,0\nc.png,3,False,1\n"
    from_csv = own(tmp_path, rows, **keys)
    pd.read_csv(tmp_path / "rows.csv").to_parquet(tmp_path / "rows.parquet")
    (tmp_path / "t.yaml").write_text(json.dumps({**OWN, **keys, "files": "rows.parquet"}))
    from_parquet, _ = load_table(tmp_path / "t.yaml", images=False)
    assert from_csv["test"]["image_id"][:] == from_parquet["test"]["image_id"][:] == ["a.png"]


def test_several_columns_are_one_view(tmp_path):
    cells = ("Frontal,AP", "Lateral,", "Frontal,LL")
    rows = "f,p,s,Frontal/Lateral,AP/PA,Mass\n" + "".join(
        f"{n}.png,{n},{PARTS[n]},{c},1\n" for n, c in enumerate(cells)
    )
    keys = {
        "view_column": ["Frontal/Lateral", "AP/PA"],
        "view_values": {"Frontal AP": "AP", "Lateral": "LATERAL", "*": None},
    }
    assert [part["view"][0] for part in own(tmp_path, rows, **keys).values()] == ["AP", "LATERAL", None]
    del keys["view_values"]["*"]
    with pytest.raises(ValueError, match=r"'Frontal/Lateral' and 'AP/PA' contains an unknown view .*'Frontal LL'"):
        own(tmp_path, rows, **keys)
    with pytest.raises(ValueError, match=r"has no column.*'AP/PA'"):
        own(tmp_path, rows.replace("AP/PA", "AP"), **keys)


# --- joins and boxes


def joined(folder: Path, more: str, **entry) -> datasets.DatasetDict:
    (folder / "more.csv").write_text(more)
    join = {"file": "more.csv", "by": "p", "columns": ["x"], **entry}
    return own(folder, join=[join], sex_column="x", sex_values={"M": "M", "F": "F"})


def test_a_join_pairs_ids_and_not_spellings(tmp_path):
    splits = joined(tmp_path, "p,x\n1003.0,M\n 1004.00,F\n\ufeff1005,M\n,F\n")
    assert [part["sex"][:] for part in splits.values()] == [["M", "M"], ["F"], ["M"]]


def test_keys_that_are_one_id_twice_are_refused_with_both_spellings(tmp_path):
    with pytest.raises(ValueError, match=r"more.csv: p occurs twice \(2 rows, such as '1003', '1003.0'\)"):
        joined(tmp_path, "p,x\n1003,M\n1004,F\n1005,M\n1003.0,F\n")


@pytest.mark.parametrize("unmatched", ["error", "drop"])
def test_a_join_that_leaves_no_row_is_its_own_error(tmp_path, unmatched):
    zeros = "p,x\n00001003,M\n00001004,F\n00001005,M\n"
    with pytest.raises(
        ValueError, match=r"more.csv has no row for any p \(4 row.*'1003', more.csv has '00001003'; write"
    ):
        joined(tmp_path, zeros, unmatched=unmatched)
    with pytest.raises(ValueError, match=r"no row for any p .*the table has '1003', more.csv has '77'; check by"):
        joined(tmp_path, "p,x\n77,M\n", unmatched=unmatched)


def test_rows_without_a_partner_that_differ_in_spelling_alone_are_named(tmp_path, caplog):
    part = "p,x\n1004,F\n1005,M\n01003,M\n"
    with pytest.raises(ValueError, match=r"no row for some p \(2 row.*the table has '1003', more.csv has '01003'"):
        joined(tmp_path, part)
    with pytest.raises(ValueError, match="has no image in train"), caplog.at_level(logging.WARNING):
        joined(tmp_path, part, unmatched="drop")
    assert "2 rows left out: not in more.csv" in caplog.text
    assert "the table has '1003', more.csv has '01003'" in caplog.text


def test_a_join_by_two_keys_and_by_the_image(tmp_path):
    keys = {"by": ["p", "f"], "columns": ["x"]}
    more = "p,f,x\n1003.0,a.png,M\n1003.0,b.png,F\n1004.0,c.png,F\n1005.0,d.png,M\n"
    assert joined(tmp_path, more, **keys)["train"]["sex"][:] == ["M", "F"]
    rows = ROWS.replace("a.png", "31").replace("b.png", "32").replace("c.png", "33").replace("d.png", "34")
    (tmp_path / "more.csv").write_text("f,x\n31.0,M\n32.0,F\n33.0,M\n34.0,F\n")
    join = {"file": "more.csv", "by": "f", "columns": ["x"]}
    splits = own(tmp_path, rows, join=[join], sex_column="x")
    assert [part["sex"][:] for part in splits.values()] == [["M", "F"], ["M"], ["F"]]


def test_boxes_are_found_by_id(tmp_path):
    rows = "f,i,p,s,Mass\n" + "".join(f"{n}.png,{n},{n},{PARTS[n]},1\n" for n in range(3))
    boxes = {"file": "boxes.csv", "by": "i", "finding": "what", "corners": ["l", "t", "r", "b"], "size": ["W", "H"]}
    (tmp_path / "boxes.csv").write_text("i,what,l,t,r,b,W,H\n0.0,Mass,0,0,5,5,10,10\n2.0,Mass,0,0,5,10,10,10\n")
    splits = own(tmp_path, rows, image_id="i", boxes=boxes)
    assert [len(part["boxes"][0]) for part in splits.values()] == [1, 0, 1]
    (tmp_path / "boxes.csv").write_text("i,what,l,t,r,b,W,H\n002,Mass,0,0,5,5,10,10\n")
    with pytest.raises(
        ValueError, match=r"no box is on an image of the table .*002 in the file of boxes, 2 in the table"
    ):
        own(tmp_path, rows, image_id="i", boxes=boxes)


# --- split files, splits as such, the release


def test_a_split_file_is_compared_by_the_same_rule(tmp_path):
    path = tmp_path / "s.csv"
    path.write_text("image_id,patient_id,fold\n1.0,1003.0,0.0\n2.0,1003,0\n3, 1004 ,1.0\n4,\ufeff1005,2.0\n")
    file = read_split_file(path)
    assert (file.folds, file.patients) == (3, {"1": "1003", "2": "1003", "3": "1004", "4": "1005"})
    data = {"image_id": ["1", "2", "3", "4"], "patient_id": ["1003", "1003", "1004.0", "1005"]}
    splits = apply_split_file({"train": datasets.Dataset.from_dict(data)}, file, fold=0)
    assert {name: part["image_id"][:] for name, part in splits.items()} == {
        "train": ["4"],
        "validation": ["3"],
        "test": ["1", "2"],
    }
    path.write_text("image_id,patient_id,split\n1,1003,train\n2,1003.0,test\n3,4,validation\n")
    with pytest.raises(ValueError, match=r"a patient is in two splits \(1, such as 1003\)"):
        read_split_file(path)
    path.write_text("image_id,patient_id,split\n1,1.23457E+11,train\n")
    with pytest.raises(ValueError, match=r"s.csv: an id is a rounded number: 1.23457E\+11"):
        read_split_file(path)


def test_the_fingerprint_is_of_ids_and_not_of_spellings():
    plain = {
        "train": {"image_id": ["a", "b"], "patient_id": ["1", "2"]},
        "test": {"image_id": ["c"], "patient_id": ["3"]},
    }
    other = {
        "train": {"image_id": ["a", "b"], "patient_id": [1.0, "2.0"]},
        "test": {"image_id": [" c"], "patient_id": [3]},
    }
    zeros = {**plain, "test": {"image_id": ["c"], "patient_id": ["03"]}}
    assert split_fingerprint(plain) == split_fingerprint(other) != split_fingerprint(zeros)
    # As before there was a rule: SHA-256 of the rows as JSON.
    assert split_fingerprint(plain).startswith("3875d3b41252e6b7")
    with pytest.raises(ValueError, match="train and test share 1 patient"):
        check_patients_disjoint({**plain, "test": {"image_id": ["c"], "patient_id": ["2.00"]}})
    with pytest.raises(ValueError, match=r"patient_id of 'test': .*lost digits"):
        check_patients_disjoint({**plain, "test": {"image_id": ["c"], "patient_id": [1e20]}})


def test_folds_keep_the_spellings_of_a_patient_together():
    fold = patient_folds(np.eye(6), ["1", "1.0", "2", "3", "4", "5"], folds=3)
    assert fold[0] == fold[1]


def test_stored_ids_are_brought_to_the_rule():
    part = datasets.Dataset.from_dict({"image_id": ["a", "b"], "patient_id": ["1.0", "1"], "age": [1.0, 2.0]})
    splits = with_canonical_ids(datasets.DatasetDict({"train": part}))
    assert splits["train"]["patient_id"][:] == ["1", "1"]
    assert splits["train"].features == part.features
    assert splits["train"].column_names == part.column_names


def test_the_release_with_its_patients_as_floats(tmp_path):
    table = write_release(tmp_path) / "Data_Entry_2017_v2020.csv"
    before = load_nih(tmp_path, images=False)
    lines = [line.split(",") for line in table.read_text().splitlines()]
    floats = [lines[0], *([*row[:3], f"{row[3]}.0", *row[4:]] for row in lines[1:])]
    table.write_text("\n".join(",".join(row) for row in floats) + "\n")
    after = load_nih(tmp_path, images=False)
    assert split_fingerprint(after) == split_fingerprint(before)
    assert rows_by_image(after).keys() == rows_by_image(before).keys()


# --- what may be claimed


def write_zeros(folder: Path) -> list[str]:
    patients = {"train": "1003,1004,1005", "validation": "2001,2002", "test": "00001003,00001004,P7"}
    for part, ids in patients.items():
        lines = [f"{part}{n}.png,{p},{n % 2}" for n, p in enumerate(ids.split(","))]
        (folder / f"{part}.csv").write_text("f,p,Mass\n" + "\n".join(lines) + "\n")
    keys = {"files": {part: f"{part}.csv" for part in PARTS}, "image_column": "f", "patient_column": "p"}
    (folder / "t.yaml").write_text(json.dumps({**keys, "findings": ["Mass"]}))
    return ["--dataset", "table", "--table", str(folder / "t.yaml")]


def test_alike_patients_are_named_and_the_check_claims_nothing(tmp_path, capsys, caplog):
    flags = write_zeros(tmp_path)
    with caplog.at_level(logging.WARNING):
        splits = load_source(DataArguments(dataset="table", table=flags[-1]), images=False).splits
    (warning,) = [record.getMessage() for record in caplog.records if "patient ids" in record.getMessage()]
    assert all(part in warning for part in ("train and test", "2 patient ids", "1003 and 00001003"))
    assert len(near_shared_patients(splits)) == 1
    assert split(["--check", *flags]) == 0
    said = capsys.readouterr().out
    assert "train and test: 2 patient ids differ only in leading zeros" in said
    assert "1003 and 00001003" in said
    assert "no patient and no image id is in two splits" not in said
    for part in ("train", "test"):
        text = (tmp_path / f"{part}.csv").read_text()
        (tmp_path / f"{part}.csv").write_text(text.replace("0000100", "300"))
    assert split(["--check", *flags]) == 0
    assert "no patient and no image id is in two splits" in capsys.readouterr().out


def report_of(similar: list[str]) -> Report:
    rng = np.random.default_rng(0)
    label_NC = np.array([[n % 2, n // 2 % 2] for n in range(40)], dtype=float)
    measured = evaluate_predictions(rng.random((40, 2)), label_NC, [str(n) for n in range(40)], resamples=5)
    splits = {part: {"images": 40, "patients": 40} for part in PARTS}
    protocol = PROTOCOL | {"splits": splits, "similar_patient_ids": similar, "selection": "last epoch"}
    training = {"images_per_second": 1.0, "best_epoch": None, "epochs": 1, "resumed_from": None}
    training |= {"peak_memory_gib": 1.0, "peak_device_memory_gib": None, "parameters": 1, "steps": 1}
    environment = {"hf_cxr": "0", "device": "cpu", "processes": 1, "cpu_threads": 1, "torch": "2", "transformers": "5"}
    return Report("run", ".", protocol, measured, measured, None, training, [], environment)


def test_the_card_claims_disjoint_patients_only_where_no_ids_are_alike():
    config = SwinConfig(id2label={0: "a", 1: "b"}, image_size=32)
    claim = "No patient is in two of the sets"
    clean, doubtful = (
        render(report_of(similar), config) for similar in ([], ["train and test: 2 patient ids differ"])
    )
    assert claim in clean
    assert "disjoint by patient" in clean
    assert claim not in doubtful
    assert "disjoint by patient" not in doubtful
    assert "train and test: 2 patient ids differ" in doubtful
    assert "may be in two of the splits" in doubtful
