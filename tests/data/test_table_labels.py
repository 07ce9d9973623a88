"""Label lists: placeholders name nothing, numbers are vectors or refused, names that are ignored are counted."""

import json
import logging
from pathlib import Path

import datasets
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from hf_cxr.commands import main
from hf_cxr.config import CONFIGS, DataArguments
from hf_cxr.data import check_positives, label_matrix, load_source, load_table, why_untrainable
from hf_cxr.data.label_cells import PLACEHOLDERS
from hf_cxr.data.sources.table.description import TableDescription
from hf_cxr.data.sources.table.labels import labels_of

NAN = np.nan
FILES = dict.fromkeys(("train", "validation", "test"), "x.csv")
FINDINGS = ("Mass", "Nodule", "Effusion")


def read(cells, findings=FINDINGS, **keys) -> np.ndarray:
    """Labels (N, C) of a column of lists, each cell as `table_files` hands it on: text, or a tuple of texts."""
    keys = {"label_format": "list", "blank": "unknown", "image_is_patient": True, **keys}
    description = TableDescription(
        findings=list(findings),
        files=FILES,
        image_column="file",
        label_column="found",
        **keys,
    )
    return labels_of(pd.DataFrame({"found": pd.Series(list(cells), dtype=object)}), description)


def expect(found_NC, *rows):
    np.testing.assert_array_equal(found_NC, np.array(rows, np.float32))


EMPTY_LISTS = [
    "", "[]", "()", "['', 'nan']", "['nan']", "['None']", "['']", "[' ']", "['', ' ', 'NULL']", "[nan]", "[None]",
    "[NaN]", "[nan, nan]", "[null]", '["N/A"]', '[""]', "[<NA>]", "['<NA>', None]", "[None, nan, 'n/a']", "['NA']",
    "['-']", "['  Nan ']", "nan", "None", "N/A", "na", "-", "[ nan ]", "['' 'nan']",
]  # fmt: skip


@pytest.mark.parametrize("blank", ["unknown", "zero"])
def test_a_list_of_placeholders_is_an_empty_cell(blank):
    """As text of Python, JSON and pandas, and as real lists."""
    real = [(), ("nan",), ("None",), ("", "nan"), ("<NA>", "NULL"), ("n/a",)]
    labels_NC = read([*EMPTY_LISTS, *real, "['Mass']"], blank=blank)
    expect(labels_NC[:-1], *[[{"unknown": NAN, "zero": 0}[blank]] * 3] * (len(EMPTY_LISTS) + len(real)))
    expect(labels_NC[-1:], [1, 0, 0])


@pytest.mark.parametrize(
    "cell",
    ["['Mass', 'nan']", "['', 'Mass']", "['Mass', nan]", "[None, 'Mass']", '["Mass", null]', ("Mass", "None")],
)
def test_a_placeholder_beside_a_name_is_dropped(cell):
    expect(read([cell]), [1, 0, 0])


def test_placeholders_in_delimited_cells():
    cells = ["nan|nan", "Mass|nan", "clear|nan", "", "||", "None", "Mass||Nodule", "n/a|-"]
    found = read(cells, label_format="delimited", no_finding="Clear")
    none = [NAN] * 3
    expect(found, none, [1, 0, 0], [0, 0, 0], none, none, none, [1, 1, 0], none)


def test_a_name_that_the_description_knows_is_a_name():
    expect(read(["['NA', 'nan']", "['Mass']"], findings=("Mass", "NA")), [0, 1], [1, 0])
    expect(read(["['None']", "['nan']"], no_finding="none"), [0, 0, 0], [NAN] * 3)
    expect(read(["['n/a']"], rename={"n/a": "Mass"}), [1, 0, 0])
    expect(read(["None", "nan|nan"], label_format="delimited", no_finding="none"), [0, 0, 0], [NAN] * 3)
    expect(read(["['Mass', 'NA']"], unknown_labels=["NA"]), [1, NAN, NAN])


def test_two_names_without_a_comma_are_two_names():
    """As str() of a numpy array is; Python joins such texts to one."""
    expect(read(["['Mass' 'Effusion']", "['Mass'\n 'Nodule']"]), [1, 0, 1], [1, 1, 0])


@pytest.mark.parametrize("text", sorted(PLACEHOLDERS))
def test_a_column_of_cells_has_the_same_placeholders(text):
    description = TableDescription(findings=["Mass"], files=FILES, image_column="f", image_is_patient=True)
    rows = pd.DataFrame({"Mass": [text, text.upper(), "1", "0"]})
    expect(labels_of(rows, description), [NAN], [NAN], [1], [0])


def test_one_malformed_cell_is_named_with_its_number():
    cells = ["['Mass']"] * 5 + ["Mass and nodule", "['Mass"] + ["[]"] * 3
    with pytest.raises(ValueError, match=r"'found'.*2 rows, such as 'Mass and nodule', .*delimited"):
        read(cells)
    with pytest.raises(ValueError, match=r"3 rows"):
        read([("['Mass']",), ("{'name': 'Mass'}",), "[['Mass']]", ("Mass",)], other_labels="ignore")
    with pytest.raises(ValueError, match=r"1 row") as refused:
        read(["Mass " * 1000])
    assert len(str(refused.value)) < 300


@pytest.mark.parametrize("other_labels", ["error", "ignore"])
@pytest.mark.parametrize(
    "cells",
    [
        ["[0]"], ["0"], ["[1, 3]"], [("0",), ("1", "2")], ["[0, 1]", "[1, 0, 0]"], ["[0, 1, 2]"], ["[0.2, 0.7, 0.1]"],
        ["['Mass']", "[0, 1, 0]"], ["['Mass', '0']"], ["[True, False]"], [("0", "1", "0"), ("0", "1", "0", "1")],
    ],
)  # fmt: skip
def test_numbers_that_are_not_label_vectors_are_refused(cells, other_labels):
    with pytest.raises(
        ValueError, match=r"'found' contains numbers.*rows?, such as .*each of the 3 findings.*ClassLabel"
    ):
        read(cells, other_labels=other_labels)


def test_label_vectors_are_read_by_the_rules_of_cells():
    cells = [
        "[1, 0, -1]",
        "[0.0, 1.0, nan]",
        "[true, false, null]",
        "[]",
        "[nan]",
        ("1", "0", "None"),
        ("False", "True", "-1"),
    ]
    found = read(cells, uncertain={"Effusion": "one"}, blank="zero")
    expect(found, [1, 0, 1], [0, 1, 0], [1, 0, 0], [0, 0, 0], [0, 0, 0], [1, 0, 0], [0, 1, 1])
    expect(read(cells)[:5], [1, 0, NAN], [0, 1, NAN], [1, 0, NAN], [NAN] * 3, [NAN] * 3)
    arrays = read(["[1 0 1]", "[ 0.  1. nan]", "[ True False  True]", "[-1\n 0\n 1]"])  # str() of numpy arrays
    expect(arrays, [1, 0, 1], [0, 1, NAN], [1, 0, 1], [NAN, 0, 1])
    expect(read(["0|1|0", "1|1|"], label_format="delimited"), [0, 1, 0], [1, 1, NAN])


def test_findings_may_be_called_by_numbers():
    expect(read(["['0']", "[0, 2]"], findings=("0", "1", "2")), [1, 0, 0], [1, 0, 1])
    expect(read(["0", "Mass"], label_format="delimited", no_finding="0"), [0, 0, 0], [1, 0, 0])


def test_ignored_names_are_counted(caplog):
    cells = ["['Mass', 'scar']"] * 3 + ["['scar']", "['clip']", "['nan']"]
    with caplog.at_level(logging.WARNING):
        expect(read(cells, other_labels="ignore")[2:], [1, 0, 0], [0, 0, 0], [0, 0, 0], [NAN] * 3)
    (message,) = [record.getMessage() for record in caplog.records]
    assert "2 names" in message
    assert "5 of 6 rows" in message
    assert "scar (4), clip (1)" in message


def test_ignoring_is_not_advised_where_it_would_leave_nothing(caplog):
    with pytest.raises(ValueError, match=r"scar \(2 rows.*other_labels: ignore"):
        read(["['scar']", "['scar']", "['Mass']"])
    with pytest.raises(ValueError, match=r"scar \(1 row.*check label_column") as refused:
        read(["['scar']"])
    assert "ignore" not in str(refused.value)
    with caplog.at_level(logging.WARNING):
        read(["['scar']"], other_labels="ignore")
    assert "no name in the column is a finding" in caplog.text


def table_of(tmp_path: Path, cells, **keys) -> Path:
    """A YAML of a table with nine images of nine patients, three a split, as CSV."""
    parts = ["train", "validation", "test"] * 3
    frame = pd.DataFrame({"file": [f"{n}.png" for n in range(9)], "part": parts, "found": cells})
    frame.to_csv(tmp_path / "rows.csv", index=False)
    values = {"files": "rows.csv", "split_column": "part", "image_column": "file", "image_is_patient": True}
    values |= {"label_format": "list", "label_column": "found", "findings": list(FINDINGS)}
    (tmp_path / "table.yaml").write_text(json.dumps(values | keys), encoding="utf-8")
    return tmp_path / "table.yaml"


@pytest.mark.parametrize("kind", ["csv", "parquet", "json"])
def test_every_kind_of_file_says_the_same(tmp_path, kind):
    """None and NaN as entries and as cells, as pandas and pyarrow write them."""
    cells = [["Mass"], ["Mass"], ["Nodule"], [None], [], [None, "nan"], ["Mass", None], ["Mass"], ["", "None"]]
    path = table_of(tmp_path, [str(cell) for cell in cells])
    frame = pd.read_csv(tmp_path / "rows.csv").assign(found=cells)
    if kind == "parquet":
        frame.to_parquet(tmp_path / "rows.parquet")
    if kind == "json":
        (tmp_path / "rows.json").write_text(json.dumps(frame.to_dict("records")), encoding="utf-8")
    path.write_text(path.read_text().replace("rows.csv", f"rows.{kind}"))
    splits, _ = load_table(path, images=False)
    unknown = [NAN] * 3
    expect(label_matrix(splits["train"]), [1, 0, 0], unknown, [1, 0, 0])
    expect(label_matrix(splits["validation"]), [1, 0, 0], unknown, [1, 0, 0])
    expect(label_matrix(splits["test"]), [0, 1, 0], unknown, unknown)


def test_class_labels_without_a_class_are_empty(tmp_path):
    """-1 and None are how `datasets` writes no class; as an index, -1 is the last name."""
    feature = datasets.List(datasets.ClassLabel(names=["Nodule", "Mass"]))
    schema = datasets.Features(
        {"picture": datasets.Image(), "found": feature, "part": datasets.Value("string")}
    )  # fmt: skip
    columns = {
        "picture": [Image.new("L", (4, 4)) for _ in range(4)],
        "found": [[0], [-1], [None, 1], []],
        "part": ["train", "train", "validation", "test"],
    }
    datasets.Dataset.from_dict(columns, features=schema).save_to_disk(tmp_path / "saved")
    keys = {"split_column": "part", "image_column": "picture", "label_format": "list", "label_column": "found"}
    description = TableDescription(hub="saved", findings=["Mass", "Nodule"], image_is_patient=True, **keys)
    splits, _ = load_table(description, tmp_path, images=False)
    expect(label_matrix(splits["train"]), [0, 1], [NAN, NAN])
    expect(label_matrix(splits["validation"]), [1, 0])
    expect(label_matrix(splits["test"]), [NAN, NAN])


# --- a training set without a positive


@pytest.mark.parametrize("cells", [["['scar']"] * 9, ["['nan']"] * 9, ["['scar']", "['Mass']", "['Mass']"] * 3])
def test_training_without_a_positive_is_refused_and_described_with_a_warning(tmp_path, capsys, cells):
    path = table_of(tmp_path, cells, other_labels="ignore")
    for number in range(9):
        Image.new("L", (4, 4), number).save(tmp_path / f"{number}.png")
    words = ["--dataset", "table", "--table", str(path)]
    assert main(["train", str(CONFIGS / "quickstart.yaml"), *words, "--output_dir", str(tmp_path / "run")]) == 2
    last = capsys.readouterr().err.strip().splitlines()[-1]
    assert last.startswith("hf-cxr train: none of the 3 training images has a finding")
    assert not list((tmp_path / "run").glob("*.safetensors"))
    assert main(["describe", *words]) == 0
    assert "warning: none of the 3 training images" in capsys.readouterr().err


def test_a_limit_and_shuffled_labels_are_checked_too(tmp_path):
    path = table_of(tmp_path, ["[]", "[]", "[]", "['Mass']", "[]", "[]", "['Mass']", "[]", "[]"], blank="zero")
    keys = {"dataset": "table", "table": str(path)}
    whole = load_source(DataArguments(**keys), images=False).splits
    assert why_untrainable(whole["train"]) is None
    check_positives(whole["train"])
    shuffled = load_source(DataArguments(**keys, shuffle_labels=True), images=False).splits
    check_positives(shuffled["train"])
    limited = load_source(DataArguments(**keys, train_limit=1), images=False).splits
    with pytest.raises(
        ValueError, match=r"none of the 1 training images.*3 labels are absent, 0 unknown.*train_limit"
    ):
        check_positives(limited["train"])
