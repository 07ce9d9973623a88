"""Tables that are datasets of the Hub: the commit that is read, streams and downloads, faults, and known copies."""

import dataclasses
import logging
import shutil

import numpy as np
import pytest
from hub_datasets import point_datasets_at, push, rows, write_nih
from hub_server import USER
from huggingface_hub import constants

from hf_cxr.config import DataArguments
from hf_cxr.data import DecodedImages, StreamedImages, label_matrix, load_description, load_source, pin_source
from hf_cxr.data.manifest import Recipe
from hf_cxr.data.prepare import prepare
from hf_cxr.data.sources.table.hub import KNOWN_COPIES, check_shards
from hf_cxr.labels import NIH14

NAME = f"{USER}/nih-chest-xray-14"
READY = "timm_nih_chest_xray_14"


@pytest.fixture(scope="module")
def copy(tmp_path_factory):
    """The copy in miniature, as a folder; not to be changed."""
    return write_nih(tmp_path_factory.mktemp("copy") / "nih")


@pytest.fixture
def dataset(hub, copy, tmp_path, monkeypatch):
    """The copy on the Hub, and its commit."""
    point_datasets_at(hub, tmp_path / "home", monkeypatch)
    commit = push(NAME, copy)
    hub.requests.clear()
    return commit


def describe(tmp_path, **keys):
    """The ready description with other keys, as a YAML; by default the loopback dataset without a revision."""
    values = dataclasses.asdict(load_description(READY)) | {"hub": NAME, "hub_revision": None} | keys
    defaults = {item.name: item.default for item in dataclasses.fields(type(load_description(READY)))}
    plain = {
        key: list(value) if isinstance(value, tuple) else value
        for key, value in values.items()
        if key != "path" and value is not None and value != defaults[key]
    }
    plain |= {
        key: {name: list(cells) for name, cells in plain[key].items()} for key in ("validation_rows",) if key in plain
    }
    plain["findings"] = list(NIH14)
    for key in ("sex_values", "view_values", "split_values", "files"):
        plain.pop(key, None)
    import yaml

    path = tmp_path / "table.yaml"
    path.write_text(yaml.safe_dump(plain, sort_keys=False), encoding="utf-8")
    return str(path)


def test_downloaded_and_streamed_are_the_same_rows_and_pixels(dataset, hub, tmp_path, caplog):
    args = {"dataset": "table", "table": describe(tmp_path)}
    with caplog.at_level(logging.WARNING):
        source = load_source(DataArguments(**args))
    streamed = load_source(DataArguments(**args, streaming=True))
    assert source.hub == streamed.hub == {"id": NAME, "commit": dataset}
    assert source.fingerprint == streamed.fingerprint
    assert {name: len(split) for name, split in source.splits.items()} == {"train": 54, "validation": 6, "test": 18}
    assert set(source.splits["validation"]["patient_id"]) == {"10", "20"}  # fold 0
    expected = rows(21, 6, fold=False)
    test = source.splits["test"]
    assert test["image_id"][:] == expected["image_id"]
    assert test["study_id"][:] == [
        f"{p}/{n}" for p, n in zip(expected["patient_id"], expected["follow_up"], strict=True)
    ]
    wanted = [[float(name in names) for name in NIH14] for names in expected["label_names"]]
    np.testing.assert_array_equal(label_matrix(test), wanted)
    assert label_matrix(test)[2].sum() == 0  # no finding reported: every cell is 0
    assert (test["age"][0], test["sex"][:2], test["view"][:2]) == (41, ["F", "F"], ["PA", "AP"])
    assert "JPEG" in source.notes[0]
    assert "lossy" in caplog.text
    assert source.split_origin["splits_from"].startswith("official test list")
    whole = DecodedImages(test, 16, 3)
    stream = {row["row"]: row["pixels"] for row in StreamedImages(streamed.splits["test"], 16, 3, batch_size=4)}
    for row in (0, 17):
        np.testing.assert_array_equal(whole[row]["pixels"], stream[row])


def test_a_run_keeps_the_commit_that_a_branch_stood_for(dataset, hub, copy, tmp_path):
    args = DataArguments(dataset="table", table=describe(tmp_path))
    pinned = pin_source(args)
    assert (args.table_revision, pinned.table_revision) == (None, dataset)
    changed = tmp_path / "changed"
    shutil.copytree(copy, changed)
    (changed / "README.md").write_text("---\nlicense: mit\n---\n", encoding="utf-8")
    later = push(NAME, changed)
    assert later != dataset
    assert pin_source(pinned).table_revision == dataset
    assert pin_source(args).table_revision == later
    hub.requests.clear()
    assert pin_source(dataclasses.replace(args, table_revision=dataset)).table_revision == dataset
    assert not hub.requests  # a full commit needs no question
    source = load_source(pinned)
    assert source.hub["commit"] == dataset
    assert not hub.calls("GET", later)


def test_offline_reads_what_was_downloaded_and_asks_nothing(dataset, hub, tmp_path, monkeypatch):
    args = DataArguments(dataset="table", table=describe(tmp_path), table_revision=dataset)
    before = load_source(args)
    hub.requests.clear()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    after = load_source(args)
    streamed = load_source(dataclasses.replace(args, streaming=True))
    assert before.fingerprint == after.fingerprint == streamed.fingerprint
    assert (after.hub, hub.requests) == (before.hub, [])
    assert len(list(StreamedImages(streamed.splits["validation"], 8, 3, batch_size=2))) == 6
    with pytest.raises(OSError, match=r"0{40} is not on this disk.*hf download .*--table_root"):
        load_source(dataclasses.replace(args, table_revision="0" * 40))


def test_a_folder_that_hf_download_wrote(dataset, hub, tmp_path, monkeypatch):
    from huggingface_hub import snapshot_download

    folder = tmp_path / "disk" / "nih-chest-xray-14"
    snapshot_download(NAME, repo_type="dataset", local_dir=folder)
    hub.requests.clear()
    table = describe(tmp_path)
    for root in (folder, _linked(tmp_path, folder)):  # the folder itself, or one above the Hub id
        args = DataArguments(dataset="table", table=table, table_root=str(root))
        source = load_source(args, images=False)
        assert source.hub == {"id": NAME, "commit": dataset}
        assert pin_source(args).table_revision is None
    assert not hub.requests
    with pytest.raises(ValueError, match=rf"downloaded at commit {dataset}, but {'1' * 40} is asked for"):
        load_source(dataclasses.replace(args, table_revision="1" * 40))
    (folder / "data" / "train-00001-of-00002.parquet").unlink()
    with pytest.raises(ValueError, match=r"incomplete: 1 shards? .*train-00001-of-00002.parquet"):
        load_source(args)


def test_a_branch_beside_a_copy_on_this_disk_is_not_silently_ignored(dataset, tmp_path, caplog):
    from huggingface_hub import snapshot_download

    folder = tmp_path / "disk" / "nih-chest-xray-14"
    snapshot_download(NAME, repo_type="dataset", local_dir=folder)
    args = DataArguments(dataset="table", table=describe(tmp_path), table_root=str(folder), table_revision="v2")
    load_source(args, images=False)
    assert f"was downloaded at commit {dataset} and is read as it is; whether v2 is that commit" in caplog.text
    caplog.clear()
    load_source(dataclasses.replace(args, table_revision=dataset), images=False)
    assert "is read as it is" not in caplog.text


@pytest.mark.parametrize("streaming", [False, True])
def test_one_word_is_a_folder_and_the_hub_is_not_asked_for_it(hub, tmp_path, streaming):
    table = describe(tmp_path, hub="my_saved_folder")
    args = DataArguments(dataset="table", table=table, table_root=str(tmp_path), streaming=streaming)
    for read in (pin_source, load_source):
        with pytest.raises(FileNotFoundError, match=f"{tmp_path / 'my_saved_folder'} is not a folder"):
            read(args)
    assert not hub.requests


def _linked(tmp_path, folder):
    root = tmp_path / "above"
    (root / USER).mkdir(parents=True)
    (root / NAME).symlink_to(folder)
    return root


@pytest.mark.parametrize("streaming", [False, True])
def test_a_revision_that_is_not_there(dataset, tmp_path, streaming):
    for revision in ("nowhere", "2" * 40):
        args = DataArguments(dataset="table", table=describe(tmp_path), table_revision=revision, streaming=streaming)
        with pytest.raises(ValueError, match=f"{NAME} has no revision {revision}: give --table_revision"):
            load_source(args)
    args = DataArguments(dataset="table", table=describe(tmp_path, hub=f"{USER}/nothing"), streaming=streaming)
    with pytest.raises(ValueError, match="there is no dataset tester/nothing on the Hub"):
        load_source(args)


def test_a_prepared_folder_says_which_commit_it_is_of(dataset, tmp_path):
    source = load_source(DataArguments(dataset="table", table=describe(tmp_path)))
    prepare(source, tmp_path / "prepared", Recipe(16, 3), duplicates="list")
    again = load_source(DataArguments(dataset="prepared", prepared=str(tmp_path / "prepared")))
    assert (again.hub, again.notes, again.fingerprint) == (source.hub, source.notes, source.fingerprint)
    assert again.splits["test"]["study_id"][:] == source.splits["test"]["study_id"][:]


def test_a_connection_that_is_dropped_costs_nothing_but_time(dataset, hub, tmp_path):
    args = DataArguments(dataset="table", table=describe(tmp_path))
    hub.fail("GET", "/cdn/", times=1)
    source = load_source(args, images=False)
    assert sum(map(len, source.splits.values())) == 78
    assert [call for call in hub.calls("GET", "/cdn/") if call.status == 0]  # it was dropped indeed


def test_a_hub_that_does_not_answer_is_one_line(dataset, hub, tmp_path):
    args = DataArguments(dataset="table", table=describe(tmp_path))
    hub.fail("GET", f"/api/datasets/{NAME}", status=503, times=100)
    with pytest.raises(OSError, match=rf"reading {NAME} from the Hub failed .*run the same command again"):
        load_source(args)


def test_unknown_columns_are_refused_with_those_that_are_there(hub, tmp_path, monkeypatch):
    point_datasets_at(hub, tmp_path / "home", monkeypatch)
    push(NAME, write_nih(tmp_path / "other", train=2, test=1, shards=1, drop=("fold", "label_names")))
    for streaming in (False, True):
        args = DataArguments(dataset="table", table=describe(tmp_path), streaming=streaming)
        with pytest.raises(
            ValueError, match=r"no column .*'label_names'.*it has .*'image_id', 'labels', 'patient_id'"
        ):
            load_source(args)


def test_the_ready_description_is_pinned_and_needs_no_folder():
    description = load_description(READY)
    assert (description.hub, len(description.hub_revision)) == ("timm/nih-chest-xray-14", 40)
    assert tuple(description.label_space) == tuple(NIH14)
    args = DataArguments(dataset="table", table=READY)
    assert pin_source(args).table_revision == description.hub_revision
    with pytest.raises(OSError, match="not on this disk, and the Hub is not asked"):  # tests are offline
        load_source(args)
    with pytest.raises(ValueError, match="--table_revision is for a Hub dataset"):
        DataArguments(dataset="table", table="chexpert", table_root=".", table_revision="main")


def test_copies_cut_by_image_are_named_refused_and_can_be_cut_by_patient(hub, tmp_path, monkeypatch, caplog):
    point_datasets_at(hub, tmp_path / "home", monkeypatch)
    monkeypatch.setitem(KNOWN_COPIES, NAME, KNOWN_COPIES["bahaaeldin0/nih-chest-xray-14"])
    folder = write_nih(tmp_path / "cut", train=12, test=6, shards=1)
    (folder / "data" / "test-00000-of-00001.parquet").unlink()
    shutil.copy(folder / "data" / "train-00000-of-00001.parquet", folder / "data" / "test-00000-of-00001.parquet")
    push(NAME, folder)
    keys = {"image_id": None, "splits_from": None, "validation_rows": None}
    table = describe(tmp_path, **keys, validation_fraction=0.2)
    with pytest.raises(ValueError, match=r"cut by image.*share 10 patients.*ignore_splits: true"):
        load_source(DataArguments(dataset="table", table=table))
    table = describe(tmp_path, **keys, ignore_splits=True, validation_fraction=0.2, test_fraction=0.2)
    with caplog.at_level(logging.WARNING):
        source = load_source(DataArguments(dataset="table", table=table), images=False)
    assert "patients are in more than one" in caplog.text
    patients = [set(split["patient_id"]) for split in source.splits.values()]
    assert not patients[0] & patients[1] | patients[0] & patients[2] | patients[1] & patients[2]
    assert any("split again by patient" in note for note in source.notes)


def test_shards_that_count_themselves():
    whole = {"train": ["a/train-00000-of-00002.parquet", "a/train-00001-of-00002.parquet"], "test": ["b/test.parquet"]}
    check_shards(whole, "x")
    with pytest.raises(ValueError, match=r"x is incomplete: 1 shards .*train-00000-of-00002.parquet"):
        check_shards({"train": whole["train"][1:]}, "x")
