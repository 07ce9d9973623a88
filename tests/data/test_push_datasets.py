"""Prepared folders pushed as datasets to the loopback Hub, loaded by `datasets`, and read again as a table."""

import dataclasses
import io
import json
import re
from pathlib import Path

import datasets
import numpy as np
import pytest
import yaml
from hub_datasets import point_datasets_at
from hub_server import USER, WRITE_TOKEN
from PIL import Image
from prepared_folders import NAMES, RECIPE, prepare_thirty, splits_of_thirty, write_thirty

from hf_cxr.commands import main as hf_cxr_main
from hf_cxr.config import DataArguments
from hf_cxr.data import DecodedImages, label_matrix, load_source, load_table
from hf_cxr.data.prepare import prepare
from hf_cxr.data.published import Pseudonyms, description_of, published_features
from hf_cxr.data.schema import features
from hf_cxr.data.sources import Source
from hf_cxr.data.sources.prepared import load_prepared
from hf_cxr.data.sources.table.description import TableDescription
from hf_cxr.hub.datasets import plan_dataset, push_dataset
from hf_cxr.hub.requests import HubError
from hf_cxr.labels import LabelSpace
from hf_cxr.reporting.card.datasheet import write_datasheet

NAME = f"{USER}/thirty"
CARD = "---\npretty_name: Thirty\n---\n\n# Thirty images\n"
YES = ("--dataset", "--licence", "cc0-1.0", "--i_may_redistribute")
SIX = 6 * (32**2 + 512)  # bytes of a file: four, one and one of at most six rows


@pytest.fixture(scope="module")
def pictures(tmp_path_factory) -> Path:
    return write_thirty(tmp_path_factory.mktemp("thirty") / "images")


@pytest.fixture
def folder(pictures, tmp_path) -> Path:
    """A prepared folder with a card."""
    prepare_thirty(splits_of_thirty(pictures, label=1.0), tmp_path / "prepared")
    (tmp_path / "prepared/README.md").write_text(CARD)
    return tmp_path / "prepared"


@pytest.fixture
def pointed(hub, tmp_path, monkeypatch):
    point_datasets_at(hub, tmp_path / "home", monkeypatch)
    return hub


def push(folder: Path, *flags: str) -> int:
    return hf_cxr_main(["push", str(folder), NAME, *YES, *flags])


def names(hub) -> list[str]:
    return sorted(hub.files(NAME, "datasets"))


def send(folder: Path, **options):
    plan = {name: options.pop(name) for name in ("most", "hash_patient_ids") if name in options}
    return push_dataset(plan_dataset(folder, NAME, licence="cc0-1.0", **plan), may_redistribute=True, **options)


def test_a_pushed_dataset_loads_and_trains_again(pointed, folder, tmp_path, capsys):
    assert push(folder) == 0
    printed = capsys.readouterr().out
    assert names(pointed) == [
        "README.md",
        *(f"data/{split}-00000-of-00001.parquet" for split in ("test", "train", "validation")),
        "hf_cxr.yaml",
    ]
    repo = pointed.repos["datasets", NAME]
    assert repo.private
    (tag,) = repo.tags
    assert repo.tags[tag] == repo.commits[-1].oid
    assert f"revision='{tag}'" in printed
    card = yaml.safe_load(pointed.read(NAME, "README.md", "datasets").decode().split("---")[1])
    assert card["license"] == "cc0-1.0"
    assert card["pretty_name"] == "Thirty"

    loaded = datasets.load_dataset(NAME, revision=tag)
    before = load_source(DataArguments(dataset="prepared", prepared=str(folder)))
    assert {name: len(part) for name, part in loaded.items()} == {"train": 20, "validation": 5, "test": 5}
    row, original = loaded["train"][2], before.splits["train"][2]
    assert row["image"].mode == "L"
    np.testing.assert_array_equal(np.asarray(row["image"]), np.asarray(original["image"]))
    assert (row["Effusion"], row["Mass"]) == (1.0, None)
    assert row["boxes"] == original["boxes"]
    ages = before.splits["train"]["age"][:]
    assert loaded["train"]["age"][:] == [None if age != age else age for age in ages]
    assert any(age == age for age in ages)

    (tmp_path / "hf_cxr.yaml").write_bytes(pointed.read(NAME, "hf_cxr.yaml", "datasets"))
    again = load_source(DataArguments(dataset="table", table=str(tmp_path / "hf_cxr.yaml")))
    assert again.synthetic is before.synthetic
    assert again.fingerprint == before.fingerprint  # the same images and patients in the same splits
    streamed = load_source(DataArguments(dataset="table", table=str(tmp_path / "hf_cxr.yaml"), streaming=True))
    assert streamed.fingerprint == before.fingerprint
    assert tuple(again.labels) == NAMES
    assert sum(map(len, again.splits["train"]["boxes"])) == 1
    for name in before.splits:
        np.testing.assert_array_equal(label_matrix(again.splits[name]), label_matrix(before.splits[name]))
        for column in ("image_id", "patient_id", "view", "sex", "boxes"):
            assert again.splits[name][column][:] == before.splits[name][column][:]
            assert streamed.splits[name][column][:] == before.splits[name][column][:]
        pixels = [DecodedImages(source.splits[name], RECIPE.size, RECIPE.resample) for source in (again, before)]
        for number in range(len(pixels[0])):
            np.testing.assert_array_equal(pixels[0][number]["pixels"], pixels[1][number]["pixels"])


def test_files_are_cut_and_a_second_push_changes_nothing(pointed, folder):
    first = send(folder, most=SIX)
    assert [name for name in names(pointed) if "train" in name] == [
        f"data/train-{n:05d}-of-00004.parquet" for n in range(4)
    ]
    assert len(datasets.load_dataset(NAME)["train"]) == 20
    pointed.requests.clear()
    assert send(folder, most=SIX) == first
    assert not pointed.calls("PUT", "/lfs/")
    assert not pointed.calls("POST", "/commit/")
    send(folder)  # one file a split: the four are deleted
    assert [name for name in names(pointed) if "train" in name] == ["data/train-00000-of-00001.parquet"]


@pytest.mark.parametrize("status", [None, 413])
def test_an_interrupted_push_sends_only_what_had_not_arrived(pointed, folder, status, monkeypatch):
    monkeypatch.setattr("huggingface_hub.utils._http.time.sleep", lambda seconds: None)
    arrived = []

    def break_after_three():
        arrived.append(1)
        if len(arrived) == 3:
            pointed.fail("PUT", "/lfs/", status=status, times=50)

    pointed.fail("PUT", "/lfs/", status=0, times=3, then=break_after_three)
    with pytest.raises(HubError, match="could not push"):
        send(folder, most=SIX)
    assert names(pointed) == []  # no commit: nobody sees half a dataset
    pointed.faults.clear()
    pointed.requests.clear()
    send(folder, most=SIX)
    assert len(pointed.calls("PUT", "/lfs/")) == 3  # of six files
    assert len(names(pointed)) == 8


def pixels_of(image) -> bytes:
    return np.asarray(image).tobytes()


def test_the_order_of_rows_is_a_permutation_that_secret_and_split_decide():
    one, other = Pseudonyms(b"a secret of sixteen"), Pseudonyms(b"another of sixteen")
    order = one.order("train", 50)
    assert sorted(order) == list(range(50))
    assert (order == one.order("train", 50)).all()
    for same in (one.order("test", 50), other.order("train", 50), np.arange(50)):
        assert (order != same).any()


def test_hashed_ids_keep_patients_together_and_are_not_the_ids(pointed, folder, monkeypatch, caplog):
    monkeypatch.setenv("HF_CXR_PATIENT_SECRET", "a secret of sixteen letters")
    first = send(folder, hash_patient_ids=True)
    loaded = datasets.load_dataset(NAME)
    original = load_source(DataArguments(dataset="prepared", prepared=str(folder))).splits
    owners: dict[str, set] = {}
    for name, part in loaded.items():
        sources = {pixels_of(row["image"]): row for row in original[name]}  # each image is another
        assert len(sources) == len(part)
        rows = [(row, sources[pixels_of(row["image"])]) for row in part]
        for row, source in rows:
            owners.setdefault(source["patient_id"], set()).add(row["patient_id"])
            assert re.fullmatch(r"p[0-9a-f]{24}", row["patient_id"])
            assert re.fullmatch(r"i[0-9a-f]{24}", row["image_id"])
            assert (row["view"], row["sex"]) == (source["view"], source["sex"])
        # By its place no row is found again.
        assert [source["image_id"] for _, source in rows] != original[name]["image_id"][:]
    assert all(len(hashes) == 1 for hashes in owners.values())
    assert len(set().union(*owners.values())) == len(owners)
    assert send(folder, hash_patient_ids=True) == first  # the same secret, the same files
    sent = b"".join(request.body for request in pointed.requests) + b"".join(
        pointed.read(NAME, path, "datasets") for path in names(pointed)
    )
    assert b"a secret of sixteen" not in sent
    assert b"00.png" not in sent
    monkeypatch.delenv("HF_CXR_PATIENT_SECRET")
    other = send(folder, hash_patient_ids=True)
    assert other.tag != first.tag
    assert "random secret" in caplog.text
    monkeypatch.setenv("HF_CXR_PATIENT_SECRET", "short")
    with pytest.raises(ValueError, match="at least 16"):
        send(folder, hash_patient_ids=True)


def test_hashed_ids_never_go_where_ids_of_the_source_were(hub, folder, monkeypatch, capsys):
    monkeypatch.setenv("HF_CXR_PATIENT_SECRET", "a secret of sixteen letters")
    send(folder)
    repo = hub.repos["datasets", NAME]

    def refused(*flags: str) -> str:
        commits = list(repo.commits)
        assert push(folder, *flags) == 2
        assert repo.commits == commits
        return capsys.readouterr().err.splitlines()[-1]

    for flags in (["--hash_patient_ids"], ["--hash_patient_ids", "--dry_run"], ["--hash_patient_ids", "--replace"]):
        assert f"hf repos delete {NAME} --repo-type dataset" in refused(*flags)
    # Neither a newest commit without the data, nor one that names them otherwise, nor a tag that is gone hides them.
    real = repo.commits[-1]
    hub.new_commit(repo, "delete the data on the web page", without_data(real))
    repo.tags.clear()
    assert real.oid[:12] in refused("--hash_patient_ids")
    assert push(folder) == 0  # ids of the source over ids of the source
    hub.repos.clear()
    assert push(folder, "--hash_patient_ids") == 0
    assert push(folder, "--hash_patient_ids") == 0


def without_data(commit) -> dict:
    return {path: file for path, file in commit.files.items() if not path.startswith("data/")}


def test_ids_of_the_source_never_go_where_hashed_ones_are_or_were(hub, folder, capsys):
    send(folder, hash_patient_ids=True)
    repo = hub.repos["datasets", NAME]
    hashed = repo.commits[-1]

    def refused(*flags: str) -> None:
        commits = list(repo.commits)
        assert push(folder, *flags) == 2
        error = capsys.readouterr().err.splitlines()[-1]
        assert "give --hash_patient_ids" in error
        assert hashed.oid[:12] in error
        assert repo.commits == commits

    refused()
    refused("--dry_run")
    hub.new_commit(repo, "delete the data on the web page", without_data(hashed))
    repo.tags.clear()
    refused()
    refused("--dry_run")
    assert push(folder, "--hash_patient_ids") == 0


@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize("ref", ["refs/heads/draft", "refs/pr/1"])
def test_ids_in_other_branches_and_pull_requests_are_found(hub, folder, capsys, ref, first):
    """Also where the newest commit of the branch does not have them any more."""
    send(folder, hash_patient_ids=first)
    repo = hub.repos["datasets", NAME]
    start, data = repo.commits
    emptied = dataclasses.replace(data, oid="e" * 40, files=without_data(data))
    repo.commits[:] = [start, dataclasses.replace(emptied, oid="f" * 40)]
    repo.branches[ref] = [start, data, emptied]
    repo.tags.clear()
    assert push(folder, *([] if first else ["--hash_patient_ids"])) == 2
    assert data.oid[:12] in capsys.readouterr().err.splitlines()[-1]
    assert len(repo.commits) == 2
    assert push(folder, *(["--hash_patient_ids"] if first else [])) == 0


@pytest.mark.parametrize("patients", [["p" + "0" * 24, "13"], None, []])
def test_data_that_do_not_say_whether_ids_are_hashed_count_as_not_hashed(hub, folder, patients):
    import pyarrow as pa
    import pyarrow.parquet as pq

    send(folder, hash_patient_ids=True)
    buffer = io.BytesIO()
    pq.write_table(pa.table({"patient_id": patients} if patients else {"image_id": ["a"]}), buffer)
    content = b"not Parquet" if patients == [] else buffer.getvalue()
    repo = hub.repos["datasets", NAME]
    odd = hub.blobs.file(hub.blobs.write(iter([content]))[0], lfs=True)
    hub.new_commit(repo, "odd", {**repo.commits[-1].files, "data/a-00000-of-00001.parquet": odd})
    with pytest.raises(HubError, match="not hashed"):
        send(folder, hash_patient_ids=True)


@pytest.mark.parametrize("named", ["00.png", "image-0013.png", "train/p0013/a.png"])
def test_a_card_that_names_an_image_is_refused_with_hashed_ids(hub, pictures, tmp_path, capsys, named):
    splits = splits_of_thirty(pictures).map(lambda row: {"image_id": row["image_id"].replace("00.png", named)})
    prepare(Source(splits, LabelSpace(NAMES), "thirty"), tmp_path / "p", RECIPE)
    (tmp_path / "p/README.md").write_text(CARD + f"\nThe best of 30 images is {named}.\n")
    assert push(tmp_path / "p", "--hash_patient_ids") == 2
    error = capsys.readouterr().err
    assert f"README.md names {named!r}, of the source's column image_id" in error
    assert not hub.requests
    (tmp_path / "p/README.md").write_text(CARD + "\nOf 30 images, 0013 are good.\n")
    assert push(tmp_path / "p", "--hash_patient_ids") == 0


@pytest.mark.parametrize("secret", ["", "short"])
def test_a_secret_that_is_too_short_is_refused_before_the_question(folder, monkeypatch, capsys, secret):
    monkeypatch.setenv("HF_CXR_PATIENT_SECRET", secret)
    for flags in ([], ["--dry_run"]):
        assert push(folder, "--hash_patient_ids", *flags) == 2
        printed = capsys.readouterr()
        assert "HF_CXR_PATIENT_SECRET" in printed.err
        assert "at least 16 characters" in printed.err
        assert "Do the source's terms" not in printed.err + printed.out


def test_the_question_says_whose_the_key_is(folder, monkeypatch):
    questions = [plan_dataset(folder, NAME, licence="mit", hash_patient_ids=hashed).question for hashed in (0, 1)]
    monkeypatch.setenv("HF_CXR_PATIENT_SECRET", "a secret of sixteen letters")
    questions.append(plan_dataset(folder, NAME, licence="mit", hash_patient_ids=True).question)
    assert ["not kept" in text for text in questions] == [False, True, False]
    assert ["your HF_CXR_PATIENT_SECRET" in text for text in questions] == [False, False, True]
    assert ["as in the source" in text for text in questions] == [True, False, False]


def test_nothing_is_sent_without_a_yes(hub, folder, capsys, monkeypatch):
    words = ["push", str(folder), NAME, "--dataset", "--licence", "cc0-1.0"]
    monkeypatch.setattr("sys.stdin", io.StringIO("yes\n"))  # not a terminal: a pipe answers nothing
    assert hf_cxr_main(words) == 2
    error = capsys.readouterr().err
    assert "as in the source" in error
    assert "--i_may_redistribute" in error.splitlines()[-1]
    for answer, status in (("no\n", 2), ("", 2), ("y\n", 2), ("yes\n", 0)):
        terminal = io.StringIO(answer)
        terminal.isatty = lambda: True
        monkeypatch.setattr("sys.stdin", terminal)
        assert bool(hub.repos) is False
        assert hf_cxr_main(words) == status, answer
    assert hub.repos
    hub.repos.clear()
    plan = plan_dataset(folder, NAME, licence="cc0-1.0")
    for answer in (False, None, "yes"):
        with pytest.raises(ValueError, match="not answered by yes"):
            push_dataset(plan, may_redistribute=answer)
    assert not hub.repos


@pytest.mark.parametrize(
    ("name", "note"),
    [
        ("CheXpert", "Irvin et al.; research use agreement of Stanford AIMI"),
        ("MIMIC-CXR-JPG", "PhysioNet credentialed health data licence"),
        ("PadChest", None),
    ],
)
def test_a_source_that_forbids_copies_is_refused(hub, pictures, tmp_path, capsys, name, note):
    splits = splits_of_thirty(pictures)
    prepare(Source(splits, LabelSpace(NAMES), name, licence_note=note), tmp_path / "p", RECIPE)
    (tmp_path / "p/README.md").write_text(CARD)
    assert push(tmp_path / "p") == 2
    error = capsys.readouterr().err
    assert "forbid" in error
    assert "--i_have_permission" in error
    assert hub.requests == []
    assert push(tmp_path / "p", "--i_have_permission") == 0
    assert "WARNING" in capsys.readouterr().err
    assert hub.repos["datasets", NAME].private


def test_every_ready_description_is_known_to_forbid_copies_or_to_allow_them():
    """A new description has to be looked at: its terms are named here on one side or the other."""
    from hf_cxr.data.redistribution import forbids
    from hf_cxr.data.sources.table.description import load_description, ready_names

    refused = set()
    for ready in ready_names():
        description = load_description(ready)
        if forbids({"dataset": description.name, "licence_note": description.source, "hub": {"id": description.hub}}):
            refused.add(ready)
    assert refused == {
        *("chexpert", "chexpert_test", "cxr_lt_2023", "cxr_lt_2024", "cxr_lt_2024_45"),
        *("mimic_cxr", "padchest", "vindr_cxr"),
    }
    assert set(ready_names()) - refused == {
        *("chestx_det", "nih_cxr_lt", "nih_cxr_lt_single", "timm_nih_chest_xray_14"),
    }


def test_a_folder_that_must_not_go_is_refused_before_any_request(hub, folder, capsys):
    (folder / "README.md").rename(folder / "elsewhere.md")
    (folder / "README.md").symlink_to(folder / "elsewhere.md")
    assert push(folder) == 2
    assert "README.md is a link" in capsys.readouterr().err
    (folder / "README.md").unlink()
    for card, words in (
        ("# no metadata\n", "no metadata"),
        (CARD.replace("pretty_name: Thirty", "license: mit"), "states the licence mit"),
        (CARD + "\nfrom /home/ann/nih\n", "local paths would be published"),
        (CARD + f"\nhf_{'aB3' * 12}\n", "access token"),
        (CARD + f"\n{WRITE_TOKEN}\n", "access token"),
    ):
        (folder / "README.md").write_text(card)
        assert push(folder) == 2
        printed = capsys.readouterr()
        assert words in printed.err
        assert "aB3" not in printed.err
        assert WRITE_TOKEN not in printed.err
    (folder / "README.md").write_text(CARD)
    for words, named in (
        (["--dataset"], "--licence"),
        ([*YES, "--handler"], "--handler"),
        (["--licence", "mit"], "--dataset"),
    ):
        with pytest.raises(SystemExit):
            hf_cxr_main(["push", str(folder), NAME, *words])
        assert named in capsys.readouterr().err
    assert hf_cxr_main(["push", str(folder), "thirty", *YES]) == 2
    assert "you/thirty" in capsys.readouterr().err
    shard = next(folder.glob("train/*.arrow"))
    content = bytearray(shard.read_bytes())
    content[len(content) // 2] ^= 1
    shard.write_bytes(content)
    assert push(folder) == 2
    assert "SHA-256 differs" in capsys.readouterr().err
    assert hub.requests == []


def test_images_without_labels_stay_without(pointed, pictures, tmp_path):
    splits = splits_of_thirty(pictures).map(
        lambda row: {"labels": [float("nan")], "boxes": []}, features=features(("not labelled",))
    )
    prepare(Source(splits, LabelSpace(("not labelled",)), "thirty", labelled=False), tmp_path / "p", RECIPE)
    (tmp_path / "p/README.md").write_text(CARD)
    send(tmp_path / "p")
    assert "not labelled" not in datasets.load_dataset(NAME)["train"].column_names
    (tmp_path / "hf_cxr.yaml").write_bytes(pointed.read(NAME, "hf_cxr.yaml", "datasets"))
    args = DataArguments(dataset="table", table=str(tmp_path / "hf_cxr.yaml"))
    again = load_source(args, unlabelled=True)
    assert not again.labelled
    assert len(again.splits["train"]) == 20
    with pytest.raises(ValueError, match="has no findings"):
        load_source(args)


BOX = {"finding": "mass", "bbox": [0.25, 0.5, 0.5, 0.5]}


@pytest.mark.parametrize(
    ("cells", "message"),
    [
        ([[BOX, BOX | {"bbox": [0.0, 0.0, 1.0, 1.0]}], None, []], None),
        ([[BOX | {"finding": "Nodule"}], None, []], "Nodule.*add it to findings"),
        ([[], [BOX], [BOX | {"bbox": [0.75, 0.5, 0.5, 0.5]}]], "not inside its image.*c"),
        ([[], [BOX], [BOX | {"bbox": [0.25, float("nan"), 0.5, 0.5]}]], "not inside its image.*c"),
        ([[], [BOX], [BOX | {"bbox": [0.25, 0.5, 0.5]}]], "not inside its image.*c"),
        ([[], [BOX], [{"finding": "Mass", "box": [0.25]}]], "c has .*it must be a list of"),
        (["Mass", "", ""], "a has .*it must be a list of"),
    ],
)
def test_boxes_as_fractions_are_taken_as_they_are_or_refused(tmp_path, cells, message):
    import pyarrow as pa
    import pyarrow.parquet as pq

    buffer = io.BytesIO()
    Image.new("L", (4, 4)).save(buffer, format="PNG")
    rows = {"image": [{"bytes": buffer.getvalue()}] * 3, "id": list("abc"), "patient": list("xyz")}
    rows |= {"Mass": [1.0, 0.0, 1.0], "split": ["train", "validation", "test"], "drawn": cells}
    pq.write_table(pa.table(rows), tmp_path / "data.parquet")
    description = TableDescription(
        ("Mass",),
        files={"all": "data.parquet"},
        image_column="image",
        image_id="id",
        patient_column="patient",
        split_column="split",
        boxes={"fractions": "drawn"},
    )
    if message:
        with pytest.raises(ValueError, match=message):
            load_table(description, tmp_path)
        return
    splits, _ = load_table(description, tmp_path)
    boxes = {name: split["boxes"][0] for name, split in splits.items()}
    found = [{"finding": "Mass", "bbox": box["bbox"]} for box in cells[0]]
    assert boxes == {"train": found, "validation": [], "test": []}


@pytest.mark.parametrize(
    ("boxes", "more"),
    [
        ({"fractions": "drawn", "size": ["w", "h"]}, {}),
        ({"fractions": ["drawn", "more"]}, {}),
        ({"fractions": "drawn"}, {"merge": "any"}),
        ({"fractions": "drawn", "column": "drawn"}, {}),
    ],
)
def test_a_description_of_boxes_as_fractions_is_one_column_and_nothing_else(boxes, more):
    with pytest.raises(ValueError, match=r"boxes.*fractions"):
        TableDescription(("Mass",), files="a.csv", image_column="image", patient_column="p", boxes=boxes, **more)


def test_a_finding_with_the_name_of_a_column_is_refused():
    assert list(published_features(("Mass", "Sex"), studies=True))[:3] == ["image", "Mass", "Sex"]
    with pytest.raises(ValueError, match="finding sex has the name of a column"):
        published_features(("Mass", "sex"), studies=False)


@pytest.mark.parametrize("hashed", [True, False])
def test_the_card_of_prepare_is_written_for_the_copy(hub, folder, hashed):
    write_datasheet(folder)
    send(folder, hash_patient_ids=hashed)
    card = hub.read(NAME, "README.md", "datasets").decode()
    assert f'load_dataset("{NAME}")' in card
    assert "load_from_disk" not in card
    assert ("are hashes" in card) is hashed
    assert "Effusion, Mass, image_id" in card
    assert yaml.safe_load(card.split("---")[1])["license"] == "cc0-1.0"
    (folder / "README.md").unlink()
    send(folder, hash_patient_ids=hashed)
    assert hub.read(NAME, "README.md", "datasets").decode() == card


def test_a_prepared_folder_without_the_flag_and_a_run_with_it_are_told_apart(folder, tmp_path, capsys):
    assert hf_cxr_main(["push", str(folder), NAME, "--dry_run"]) == 2
    assert "give --dataset" in capsys.readouterr().err
    (tmp_path / "run").mkdir()
    (tmp_path / "run/config.yaml").write_text("loss: bce")
    assert push(tmp_path / "run", "--dry_run") == 2
    assert "is not a prepared folder" in capsys.readouterr().err


def test_an_id_that_is_a_local_path_is_refused(hub, pictures, tmp_path, capsys):
    splits = splits_of_thirty(pictures)
    moved = splits.map(lambda row: {"image_id": f"/home/ann/{row['image_id']}"})
    prepare(Source(moved, LabelSpace(NAMES), "thirty"), tmp_path / "p", RECIPE)
    (tmp_path / "p/README.md").write_text(CARD)
    assert push(tmp_path / "p") == 2
    assert "train (column image_id): /home/ann/00.png" in capsys.readouterr().err
    assert not hub.requests
    assert push(tmp_path / "p", "--hash_patient_ids") == 0


@pytest.mark.parametrize("flags", [[], ["--hash_patient_ids"]])
def test_a_token_in_a_column_is_refused_before_any_request(hub, pictures, tmp_path, capsys, flags):
    splits = splits_of_thirty(pictures).map(lambda row: {"view": WRITE_TOKEN})
    prepare(Source(splits, LabelSpace(NAMES), "thirty"), tmp_path / "p", RECIPE)
    (tmp_path / "p/README.md").write_text(CARD)
    assert push(tmp_path / "p", *flags) == 2
    assert "train, column view, contains an access token" in capsys.readouterr().err
    assert not hub.requests


def test_a_licence_that_the_hub_does_not_know_creates_nothing(hub, folder, capsys):
    assert hf_cxr_main(["push", str(folder), NAME, "--dataset", "--licence", "cc0", "--i_may_redistribute"]) == 2
    assert '"license"' in capsys.readouterr().err
    assert not hub.repos


def test_dry_run_needs_no_login_and_no_answer(folder, capsys):
    words = ["push", str(folder), NAME, "--dataset", "--licence", "cc0-1.0", "--dry_run"]
    assert hf_cxr_main(words) == 0
    printed = capsys.readouterr().out
    assert all(name in printed for name in ("README.md", "hf_cxr.yaml", "data/train-00000-of-00001.parquet"))
    assert "30 images of 30 patients" in printed
    (columns,) = [line.split(":")[1].strip() for line in printed.splitlines() if line.strip().startswith("columns:")]
    assert columns.split(", ") == list(published_features(NAMES, studies="study_id" in columns))
    assert "not compared with the repository: offline mode" in printed
    assert "nothing was sent" in printed.splitlines()[-1]


@pytest.mark.parametrize("synthetic", [True, False])
def test_the_description_of_synthetic_images_says_so(folder, synthetic):
    manifest = load_prepared(folder)[1] | {"synthetic": synthetic}
    description = TableDescription(**description_of(manifest, NAME, "cc0-1.0", studies=False))
    assert description.synthetic is synthetic


def test_a_model_of_the_same_name_is_left_alone(hub, folder):
    from hf_cxr.hub import prepare_repo

    prepare_repo(NAME)
    assert push(folder) == 0
    assert {kind for kind, _ in hub.repos} == {"models", "datasets"}
    assert not hub.files(NAME)


def test_a_tag_of_a_dataset_is_refused_before_the_commit_if_it_names_another(hub, folder, capsys):
    assert push(folder, "--tag", "v1") == 0
    assert push(folder, "--tag", "v1") == 0  # nothing changed
    (folder / "README.md").write_text(CARD + "\nMore.\n")
    assert push(folder, "--tag", "v1") == 2
    assert "v1" in capsys.readouterr().err
    assert len(hub.repos["datasets", NAME].commits) == 2


def test_the_token_is_in_nothing_that_is_printed_or_sent(hub, folder, capsys, tmp_path):
    hub.fail("POST", "/commit/", status=403, times=1)
    assert hf_cxr_main(["--debug", "push", str(folder), NAME, *YES]) == 2
    assert push(folder) == 0
    printed = capsys.readouterr()
    assert WRITE_TOKEN not in printed.out + printed.err
    assert WRITE_TOKEN.encode() not in b"".join(request.body for request in hub.requests)
    assert all(WRITE_TOKEN.encode() not in path.read_bytes() for path in folder.rglob("*") if path.is_file())
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["dataset"] == "thirty"
    assert Image.open(io.BytesIO(next(iter(_pngs(hub))))).info == {}


def _pngs(hub):
    import pyarrow.parquet as pq

    table = pq.read_table(io.BytesIO(hub.read(NAME, "data/test-00000-of-00001.parquet", "datasets")))
    yield from (cell["bytes"] for cell in table["image"].to_pylist())


def test_dry_run_of_a_dataset_compares_with_the_repository(hub, folder, capsys):
    words = ["push", str(folder), NAME, "--dataset", "--licence", "cc0-1.0", "--dry_run"]
    assert hf_cxr_main(words) == 0
    assert "does not exist: a push makes it, private" in capsys.readouterr().out
    send(folder, most=SIX)
    (folder / "README.md").write_text(CARD + "\nMore.\n")
    commits = len(hub.repos["datasets", NAME].commits)
    assert hf_cxr_main(words) == 0
    printed = capsys.readouterr().out
    assert "README.md  (changed)" in printed
    assert "hf_cxr.yaml  (unchanged)" in printed
    assert "data/train-00000-of-00001.parquet  (new)" in printed
    assert "data/test-00000-of-00001.parquet  (compared when it is written)" in printed
    deleted = {line.split()[1] for line in printed.splitlines() if line.split()[:1] == ["delete"]}
    assert deleted == {f"data/train-{n:05d}-of-00004.parquet" for n in range(4)}
    assert len(hub.repos["datasets", NAME].commits) == commits
    assert set(send(folder).deleted) == deleted


def test_data_of_another_program_are_not_replaced(hub, folder, capsys):
    send(folder, most=SIX)
    files = hub.repos["datasets", NAME].commits[-1].files
    del files["hf_cxr.yaml"]  # as Dataset.push_to_hub leaves a repository
    before = dict(files)
    for flags in (["--dry_run"], []):
        assert push(folder, *flags) == 2
        error = capsys.readouterr().err.splitlines()[-1]
        assert "files of another program" in error
        assert "give another name" in error
    assert hub.repos["datasets", NAME].commits[-1].files == before


def test_another_push_of_a_dataset_in_between_is_not_undone(hub, folder):
    send(folder)
    repo = hub.repos["datasets", NAME]
    theirs = dict(repo.commits[-1].files)
    (folder / "README.md").write_text(CARD + "\nMore.\n")
    hub.fail("POST", "/preupload/", status=0, then=lambda: hub.new_commit(repo, "theirs", theirs))
    with pytest.raises(HubError, match=r"changed meanwhile.*run the same command again"):
        send(folder)
    assert repo.commits[-1].title == "theirs"
    send(folder)
    assert b"More." in hub.read(NAME, "README.md", "datasets")
