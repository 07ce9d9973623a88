"""The data's state: what changed since a run was started is found and named, whatever holds the images."""

import os
import re

import datasets
import numpy as np
import pytest

from hf_cxr.data.fingerprint import changes, data_fingerprint, data_state, load_state, save_state
from hf_cxr.data.schema import features

NAMES = ("Mass", "Effusion")
LABELS = ((1, 0), (0, np.nan), (0, 1))


def split_of(folder, ids, labels=LABELS, patients=("1", "2", "3"), names=NAMES):
    rows = {
        "image": [{"path": str(folder / f"{name}.png"), "bytes": None} for name in ids],
        "labels": [list(map(float, row)) for row in labels],
        "image_id": list(ids),
        "patient_id": list(patients),
        "view": [None] * len(ids),
        "age": [np.nan] * len(ids),
        "sex": [None] * len(ids),
        "boxes": [[] for _ in ids],
    }
    rows = {name: values[: len(ids)] for name, values in rows.items()}
    return datasets.Dataset.from_dict(rows, features=features(names))


@pytest.fixture
def folder(tmp_path):
    for name in ("a", "b", "c", "d", "e", "f"):
        (tmp_path / f"{name}.png").write_bytes(name.encode())
    return tmp_path


def state_of(folder, *, train=("a", "b", "c"), test=("d", "e", "f"), names=NAMES, **train_only):
    splits = {"train": split_of(folder, train, names=names, **train_only), "test": split_of(folder, test, names=names)}
    return data_state(splits, names)


def sentences(folder, before, **now):
    found = changes(before, state_of(folder, **now))
    return found.rows, found.gone, found.files


def test_nothing_changed_is_found_where_nothing_did(folder):
    before = state_of(folder)
    save_state(before, folder)
    assert changes(load_state(folder), state_of(folder)) == changes(before, before)
    assert sentences(folder, before) == ([], [], [])
    assert data_fingerprint(load_state(folder)) == data_fingerprint(before)


@pytest.mark.parametrize(
    ("now", "named"),
    [
        ({"labels": ((1, 0), (0, np.nan), (0, 0))}, ("labels of 1 image changed", "Effusion of c", "1 before, 0 now")),
        ({"labels": ((1, 0), (0, 0), (0, 1))}, ("Effusion of b", "unknown before, 0 now")),
        ({"patients": ("1", "2", "4")}, ("the patient of 1 image changed", "that of c", "3 before, 4 now")),
        (
            {"train": ("b", "a", "c"), "labels": (LABELS[1], LABELS[0], LABELS[2]), "patients": "213"},
            ("another order",),
        ),
        ({"train": ("a", "b")}, ("1 image is no longer in train", "such as c")),
        ({"test": ("d", "e")}, ("1 image is no longer in test", "such as f")),
        ({"train": ("a", "b", "f"), "test": ("d", "e", "c")}, ("no longer in train", "new in train", "new in test")),
        ({"names": ("Mass", "Edema")}, ("were Mass, Effusion", "are now Mass, Edema")),
        ({"names": ("Effusion", "Mass")}, ("are now Effusion, Mass",)),
    ],
)
def test_each_change_is_named_and_changes_the_fingerprint(folder, now, named):
    before = state_of(folder)
    rows, gone, files = sentences(folder, before, **now)
    said = "; ".join(rows + gone)
    assert all(part in said for part in named), said
    assert not files
    assert data_fingerprint(state_of(folder, **now)) != data_fingerprint(before)
    only_of_test = set(now) == {"test"}
    assert (bool(gone), bool(rows)) == ((True, False) if only_of_test else (bool(gone), True))


def test_a_file_that_changed_is_named_and_leaves_the_fingerprint(folder):
    before = state_of(folder)
    (folder / "b.png").write_bytes(b"other")
    os.utime(folder / "e.png", ns=(1, 1))
    rows, gone, files = sentences(folder, before)
    assert (rows, gone) == ([], [])
    assert len(files) == 1
    assert "time of change of 2 image files changed, such as b, e" in files[0]
    assert data_fingerprint(state_of(folder)) == data_fingerprint(before)
    (folder / "a.png").unlink()
    assert "3 image files changed" in sentences(folder, before)[2][0]


def test_images_inside_the_data_are_known_by_their_content(folder):
    def state(content):
        split = split_of(folder, ("a",))
        rows = split.remove_columns("image").to_dict() | {"image": [{"bytes": content, "path": None}]}
        return data_state({"train": datasets.Dataset.from_dict(rows, features=split.features)}, NAMES)

    assert changes(state(b"1234"), state(b"1234")).files == []
    (said,) = changes(state(b"1234"), state(b"1235")).files
    assert re.search("content.*such as a", said)
    assert "time" not in said


def test_prepared_images_are_known_by_the_files_they_were_decoded_from(folder):
    def state(digest):
        split = split_of(folder, ("a",)).add_column("file_sha256", [digest])
        return data_state({"train": split}, NAMES)

    assert changes(state("aa"), state("aa")).files == []
    (said,) = changes(state("aa"), state("ab")).files
    assert re.search("content.*such as a", said)
    assert "time" not in said


def test_a_state_that_cannot_be_read_is_none(folder):
    assert load_state(folder) is None
    (folder / "data.parquet").write_bytes(b"PAR1 and nothing else")
    assert load_state(folder) is None
