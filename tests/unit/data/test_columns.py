"""Whole columns at once: the same ids, fingerprints, labels and changes as one row after another."""

import hashlib
import json

import datasets
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from hf_cxr.data.fingerprint import changes, data_state
from hf_cxr.data.ids import are_canonical, canonical_id, canonical_ids, likeness, similar_ids
from hf_cxr.data.schema import features, label_matrix
from hf_cxr.data.splits import read_column, split_fingerprint

PIECES = [
    "0",
    "00",
    "1",
    "9",
    "+",
    "-",
    ".",
    ",",
    " ",
    "\t",
    '"',
    "\\",
    "a",
    "e",
    "E",
    "na",
    "NaN",
    "/",
    "#",
    "é",
    "_",
]


def texts(count, *, most=4):
    rng = np.random.default_rng(0)
    return ["".join(rng.choice(PIECES, rng.integers(0, most + 1))) for _ in range(count)]


def test_a_column_that_is_called_canonical_has_no_id_that_the_rule_changes():
    called, changed = 0, 0
    for text in dict.fromkeys(texts(1_500)):
        try:
            same = canonical_id(text) == text
        except ValueError:  # digits are lost
            same = False
        if are_canonical(pa.array([text])):
            called += 1
            assert same, text
        changed += not same or not text
    assert called > 300
    assert changed > 100
    good = ["00000001_000.png", "1003", "p3", "1.2.840.10008.x"]
    assert are_canonical(pa.array(good))
    for bad in ("1003.0", "nan", "N/A", "", " a", "a ", "é", "1e+03", "a\n", None):
        assert not are_canonical(pa.array([*good, bad])), bad
    assert are_canonical(pa.array([], pa.string()))


def test_columns_of_ids_come_out_as_their_cells_do():
    cells = [text for text in texts(2_000) if "e" not in text.lower()]
    for some in (cells, ["00000001_000.png", "p3"]):
        series = pd.Series(some, index=range(5, 5 + len(some)), name="id", dtype=str)
        found = canonical_ids(series, "here")
        pd.testing.assert_series_equal(found, series.map(canonical_id).astype(str))
    split = datasets.Dataset.from_dict({"image_id": ["1003.0", " b", "c"]})
    assert read_column(split, "image_id", "train") == ["1003", "b", "c"]
    for some in (cells, ["00000001_000.png", "p3"]):
        some = [text for text in some if canonical_id(text)]
        expected = [canonical_id(text) for text in some]
        for kind in (list, np.array, pd.Series, lambda ids: pd.Series(ids, dtype=object), tuple):
            assert read_column({"image_id": kind(some)}, "image_id", "train") == expected
    assert read_column({"image_id": ["a", 3, 4.0]}, "image_id", "train") == ["a", "3", "4"]
    assert read_column({"image_id": ["a", "\ud800"]}, "image_id", "train") == ["a", "\ud800"]
    with pytest.raises(ValueError, match="1 of 2 rows of 'train' have no image_id, such as row 1"):
        read_column(datasets.Dataset.from_dict({"image_id": ["a", None]}), "image_id", "train")


@pytest.mark.parametrize("template", ["d", "ddd", "d_dd.png", "d.dd", "dd.d.dd", "d,ddd", "'dd'", "a-d d", "0d.0d"])
def test_different_ids_of_one_template_are_never_alike(template):
    rng = np.random.default_rng(0)
    ids = {"".join(rng.choice(list("0012")) if c == "d" else c for c in template) for _ in range(200)}
    assert len({likeness(identifier) for identifier in ids}) == len(ids)
    half = sorted(ids)[::2]
    assert similar_ids({"train": sorted(ids), "test": half}, "patient") == []


def test_ids_of_several_templates_are_still_compared():
    assert "1003 and 00001003" in similar_ids({"train": ["1003", "77"], "test": ["00001003"]}, "patient")[0]
    assert similar_ids({"train": ["p1"], "test": ["P1"]}, "patient")
    assert similar_ids({"train": ["1_2"], "test": ["1-2"]}, "patient")


@pytest.mark.parametrize(
    "ids",
    [
        [f"{number:08d}.png" for number in range(40)],
        [f"{number}" for number in range(40)],
        ['a"b', "back\\slash", "é", "\N{LUNGS}", "\uffee", "z", "Z", "[", "]", "~"],
        ["one"],
    ],
)
def test_the_fingerprint_is_that_of_the_sorted_rows_as_json(ids):
    ids = [ids[row] for row in np.random.default_rng(0).permutation(len(ids))]
    names = ("train", "test", "va\u00eflid")
    splits = {
        name: {"image_id": ids[n::3], "patient_id": [f"p{image}"[:3] for image in ids[n::3]]}
        for n, name in enumerate(names)
    }
    rows = sorted(
        (name, image, patient)
        for name, split in splits.items()
        for image, patient in zip(split["image_id"], split["patient_id"], strict=True)
    )
    assert split_fingerprint(splits) == hashlib.sha256(json.dumps(rows).encode()).hexdigest()
    backwards = {name: {key: ids[::-1] for key, ids in splits[name].items()} for name in reversed(names)}
    assert split_fingerprint(backwards) == split_fingerprint(splits)


def test_the_fingerprint_does_not_depend_on_how_many_rows_are_hashed_at_once(monkeypatch):
    split = {"train": {"image_id": [f"{n:04d}" for n in range(100)], "patient_id": ["p"] * 100}}
    whole = split_fingerprint(split)
    monkeypatch.setattr("hf_cxr.data.splits.ROWS_AT_ONCE", 7)
    assert split_fingerprint(split) == whole


def row_of(label_C, number):
    return {
        "labels": label_C,
        "image_id": f"i{number}",
        "patient_id": f"p{number}",
        "view": "PA",
        "age": 50.0,
        "sex": "F",
        "boxes": [],
    }


def split_of(label_NC):
    rows = [row_of(list(label_C), number) for number, label_C in enumerate(label_NC)]
    return datasets.Dataset.from_list(rows, features=features(("Mass", "Edema", "Hernia"), images=False))


def test_labels_of_every_layout():
    nan = float("nan")
    label_NC = np.array([[1, 0, nan], [0, 0, 1], [nan, nan, nan], [1, 1, 0]], dtype=np.float32)
    split = split_of(label_NC)
    np.testing.assert_array_equal(label_matrix(split), label_NC)
    np.testing.assert_array_equal(label_matrix(split.select([3, 1])), label_NC[[3, 1]])
    np.testing.assert_array_equal(label_matrix(split.select(range(1, 3))), label_NC[1:3])
    assert label_matrix(split.select([])).shape == (0, 3)
    np.testing.assert_array_equal(
        label_matrix(datasets.concatenate_datasets([split, split])), np.tile(label_NC, (2, 1))
    )
    whole = datasets.Dataset.from_dict({"labels": [[1, 0], [0, 1]]})  # integers, a list of any length
    assert label_matrix(whole).dtype == np.float32
    np.testing.assert_array_equal(label_matrix(whole), [[1, 0], [0, 1]])
    unknown = datasets.Dataset.from_dict({"labels": [[1.0, None], [0.0, 1.0]]})
    np.testing.assert_array_equal(label_matrix(unknown), [[1, nan], [0, 1]])


def test_changes_are_the_same_whether_the_rows_are_in_their_places_or_not():
    names = ("Mass", "Edema", "Hernia")
    label_NC = np.zeros((6, 3), dtype=np.float32)
    split = split_of(label_NC)
    before = data_state({"train": split}, names)
    assert changes(before, data_state({"train": split}, names)).rows == []
    label_NC[2, 1] = 1
    changed = split_of(label_NC)
    here = changes(before, data_state({"train": changed}, names)).rows
    assert here == ["labels of 1 image changed, such as Edema of i2 (0 before, 1 now)"]
    moved = changes(before, data_state({"train": changed.select([1, 0, 2, 3, 4, 5])}, names)).rows
    assert moved == ["the images are in another order", *here]
