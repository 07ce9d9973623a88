"""The datasheet of a prepared set: its numbers are the tables', it names nobody, and it survives what prepare does."""

import re
import runpy
import shutil
from pathlib import Path

import datasets
import pytest
from huggingface_hub import DatasetCard
from prepared_folders import NAMES, content, prepare_twelve, shards_of_three, splits_of_twelve, twelve_images

from hf_cxr.commands import main as hf_cxr_main
from hf_cxr.data.manifest import CARD, Recipe
from hf_cxr.data.prepare import prepare
from hf_cxr.data.prepared_folder import locked
from hf_cxr.data.sources import Source
from hf_cxr.data.sources.prepared import load_prepared
from hf_cxr.data.sources.table.description import UNLABELLED
from hf_cxr.hub.leaks import check_no_local_path
from hf_cxr.hub.parsing import texts_of
from hf_cxr.labels import LabelSpace
from hf_cxr.reporting.card.datasheet import Published, datasheet, published_datasheet, write_datasheet

images, _small_shards = twelve_images, shards_of_three  # fixtures of this module


@pytest.fixture(scope="module")
def whole(images, tmp_path_factory):
    out = tmp_path_factory.mktemp("prepared") / "out"
    prepare_twelve(images, out, label=1.0)
    return out


@pytest.fixture
def out(whole, tmp_path):
    return Path(shutil.copytree(whole, tmp_path / "out"))


def sheet(folder, *, published=None, **changes):
    splits, manifest = load_prepared(folder)
    return datasheet(manifest | changes, splits, published=published)


def rows(text):
    """The cells of every table, by the first of the row."""
    lines = [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("|")]
    return {cells[0]: cells[1:] for cells in lines}


def test_its_numbers_are_those_of_the_tables(whole):
    text = sheet(whole)
    splits, manifest = load_prepared(whole)
    found = rows(text)
    for column, split in enumerate(splits.values()):
        labels = split["labels"]
        assert found["patients"][column] == str(len(set(split["patient_id"])))
        for number, name in enumerate(NAMES):
            known = [row[number] for row in labels if row[number] == row[number]]
            assert found[name][column] == f"{sum(known):.0f} / {len(known)}"
    assert found["view PA"] == ["8 (100 %)", "2 (100 %)", "2 (100 %)"]
    assert not {"view unknown", "age unknown"} & set(found)
    assert found["sex unknown"][0] == "8 (100 %)"
    assert "train: unknown" not in text
    for key in ("split_fingerprint", "content_digest"):
        assert manifest[key] in text
    assert "16 x 16 pixels" in text
    assert "bicubic" in text


def test_unknown_cells_have_a_column_and_are_not_negative(images, tmp_path):
    prepare_twelve(images, tmp_path / "out", label=float("nan"))
    found = rows(sheet(tmp_path / "out"))
    first, second = NAMES
    assert found[first] == ["0 / 0", "0 / 0", "0 / 0", "8", "2", "2"]
    assert found[second] == ["8 / 8", "2 / 2", "2 / 2", "0", "0", "0"]


def test_its_metadata_are_the_hubs(whole):
    card = DatasetCard(sheet(whole))
    assert card.data.task_categories == ["image-classification"]
    assert card.data.size_categories == ["n<1K"]
    assert card.data.license is None  # whoever publishes the set has to choose one
    assert "synthetic" not in card.data.tags
    assert "synthetic" in DatasetCard(sheet(whole, synthetic=True)).data.tags
    odd = DatasetCard(sheet(whole, dataset="a: b\n---\n{{ x }} <b>"))
    assert odd.data.pretty_name.startswith("a: b --- {{ x }} <b>, prepared")
    assert "<b>" not in odd.text.replace("\\<b\\>", "")


def test_the_hubs_client_accepts_its_metadata(hub, whole):
    DatasetCard(sheet(whole)).validate(repo_type="dataset")
    (request,) = hub.calls("POST", "/api/validate-yaml")
    assert request.json()["repoType"] == "dataset"
    with pytest.raises(ValueError, match="license"):
        DatasetCard(sheet(whole).replace("size_categories:", "license: mine\nsize_categories:")).validate("dataset")


@pytest.mark.parametrize(
    ("changes", "there", "absent"),
    [
        ({"licence_note": "Ask the hospital."}, "Ask the hospital.", "does not state the terms"),
        ({"licence_note": None}, "does not state the terms", "Ask the hospital."),
        ({"dataset": "ChestX-ray14"}, "@inproceedings{wang2017chestxray8", "as its publisher asks"),
        ({"missing": {"train": 1200}}, "1,200 images that the source lists in train", "No image that the source"),
        ({"notes": ["Scanned from film."]}, "Scanned from film.", "-none-"),
        ({"hub": {"id": "you/set", "commit": "c" * 40}}, "you/set at commit " + "c" * 40, "-none-"),
        ({"synthetic": True}, "only hf_cxr's terms apply", "terms also apply to this copy"),
    ],
)
def test_it_says_what_the_manifest_knows(whole, changes, there, absent):
    text = sheet(whole, **changes)
    assert there in text
    assert absent not in text


def test_what_was_left_out_and_what_repeats_is_counted_and_not_named(whole):
    refused = [{"split": "train", "image_id": "secret.png", "reason": "/home/ann/secret.png is broken"}]
    pair = {"split": "train", "image_id": "secret.png", "other_split": "test", "other_image_id": "hidden.png"}
    repeated = [pair | {"kind": "near", "distance": 2}, pair | {"kind": "identical", "distance": 0}]
    text = sheet(whole, refused=refused, duplicates=repeated)
    assert "Left out: 1 image that could not be read." in text
    assert "1 byte for byte and 1 nearly; 2 across splits" in text
    assert "secret" not in text
    assert "hidden" not in text


def test_it_names_no_path_and_no_patient(whole, images):
    text = sheet(whole)
    check_no_local_path(whole, {CARD: list(texts_of(text))})
    splits, _ = load_prepared(whole)
    names = {name for split in splits.values() for key in ("image_id", "patient_id") for name in split[key]}
    assert not names & set(re.findall(r"[\w.]+", text))
    assert str(images) not in text


def test_a_set_without_labels_says_so(images, tmp_path):
    splits = datasets.DatasetDict(
        {
            name: split.map(lambda row: {"labels": [float("nan")]}, features=_one_label(split))
            for name, split in splits_of_twelve(images).items()
        }
    )
    prepare(Source(splits, LabelSpace([UNLABELLED]), "films", labelled=False), tmp_path / "out", Recipe(16, 3))
    text = sheet(tmp_path / "out")
    assert "without labels" in text
    assert "for pre-training" in text
    assert UNLABELLED not in text
    assert DatasetCard(text).data.task_ids is None


def _one_label(split):
    features = split.features.copy()
    features["labels"] = datasets.List(datasets.Value("float32"), length=1)
    return features


def test_how_to_load_it_is_said_of_the_folder_and_of_the_hub(out, tmp_path, monkeypatch):
    (code,) = re.findall(r"```python\n(.*?)```", sheet(out), re.DOTALL)
    monkeypatch.chdir(out)
    (tmp_path / "load.py").write_text(code)
    found = runpy.run_path(str(tmp_path / "load.py"))
    assert {name: len(split) for name, split in found["splits"].items()} == {"train": 8, "validation": 2, "test": 2}


def test_of_a_copy_on_the_hub_it_says_what_the_copy_has(out):
    splits, manifest = load_prepared(out)
    copy = Published("you/set", ("image", "Effusion", "Mass", "image_id", "patient_id"), hashed_ids=True)
    write_datasheet(out)
    text = published_datasheet(out, manifest, splits, copy)
    assert text == sheet(out, published=copy)
    assert 'load_dataset("you/set")' in text
    assert "Columns: image, Effusion, Mass, image_id, patient_id. Image and patient ids are hashes" in text
    for words in ("file_sha256", manifest["content_digest"], "load_from_disk", "without compression"):
        assert words in sheet(out)
        assert words not in text
    (out / CARD).write_text("---\nlicense: mit\n---\n\n# Ours\n")
    assert published_datasheet(out, manifest, splits, copy).endswith("# Ours\n")


def test_a_sheet_is_changed_by_people_and_not_by_a_new_version(out, monkeypatch):
    splits, manifest = load_prepared(out)
    copy = Published("you/set", ("image", "Effusion"))
    write_datasheet(out)
    written = (out / CARD).read_text(encoding="utf-8")
    monkeypatch.setattr("hf_cxr.reporting.card.datasheet.__version__", "99.0")
    assert "99.0" not in written
    assert "99.0" in published_datasheet(out, manifest, splits, copy)
    (out / CARD).write_text(written.replace("## Splits", "## Our splits"), encoding="utf-8")
    text = published_datasheet(out, manifest, splits, copy)
    assert "## Our splits" in text
    assert "SHA-256 of the text above" not in text  # it would be wrong there
    (out / CARD).write_text(sheet(out), encoding="utf-8")  # of a version that wrote no digest
    assert published_datasheet(out, manifest, splits, copy) == sheet(out, published=copy)


ANSWER = "Labels: two radiologists read each image."


def edited(out, *, published=None, more=("", "")):
    """The sheet with one of its questions answered, as people do before they publish it."""
    question = next(line for line in sheet(out).splitlines() if line.startswith("- Labels:"))
    text = sheet(out, published=published)
    assert question in text
    return text.replace(question, f"- {ANSWER}").replace(*more)


@pytest.mark.parametrize("hashed", [True, False])
@pytest.mark.parametrize("written", [True, False])
def test_an_edited_sheet_keeps_the_answers_and_is_true_for_the_copy(out, hashed, written):
    splits, manifest = load_prepared(out)
    copy = Published("you/set", ("image", "Effusion", "patient_id"), hashed_ids=hashed)
    if written:  # with the digest of the text before it was edited
        write_datasheet(out)
        digest = (out / CARD).read_text(encoding="utf-8").rpartition("\n<!--")
        (out / CARD).write_text(edited(out) + digest[1] + digest[2], encoding="utf-8")
    else:
        (out / CARD).write_text(edited(out), encoding="utf-8")
    text = published_datasheet(out, manifest, splits, copy)
    assert text.rstrip() == edited(out, published=copy).rstrip()
    assert ANSWER in text
    assert ("are hashes" in text, "ids are those of the source" in text) == (hashed, not hashed)
    assert "load_from_disk" not in text
    assert manifest["content_digest"] not in text


@pytest.mark.parametrize(
    ("more", "hashed", "named"),
    [
        (("whose", "by whom and whose"), True, None),
        (("Stored without compression.", "Stored as PNG, we think."), False, None),
        (("Columns: image", "There are image"), True, "ids are those of the source"),
        (("Columns: image", "There are image"), False, "in the order of the findings"),
        # An earlier version wrote these lines in other words.
        (("Columns:", "All columns:"), False, "file_sha256"),
        (("make sure that they are", "whoever passes it on makes sure that they are"), False, "file_sha256"),
        (("Nothing was cropped", "Nothing was ever cropped"), False, "Stored without compression"),
        (("# this folder", "# here"), False, "load_from_disk"),
        (("To train on it:", "For training:"), False, "--dataset prepared"),
        (
            ("- digest of all pixels, labels and ids", "- digest of all pixels and labels"),
            False,
            "digest of all pixels",
        ),
        (("- split fingerprint", "- our split fingerprint"), True, "split fingerprint"),
    ],
)
def test_a_changed_line_that_is_wrong_for_the_copy_is_refused(out, more, hashed, named):
    splits, manifest = load_prepared(out)
    copy = Published("you/set", ("image", "Effusion"), hashed_ids=hashed)
    text = edited(out, more=more)
    assert text != edited(out)
    (out / CARD).write_text(text, encoding="utf-8")
    if named is None:
        assert more[1] in published_datasheet(out, manifest, splits, copy)
        return
    with pytest.raises(ValueError, match=rf"README.md, line \d+: .*{named}.*correct the line") as caught:
        published_datasheet(out, manifest, splits, copy)
    number = int(re.search(r"line (\d+):", str(caught.value))[1])
    assert number == next(number for number, line in enumerate(text.splitlines(), 1) if more[1] in line)


def test_a_line_is_counted_as_in_the_file_after_lines_that_are_replaced(out):
    splits, manifest = load_prepared(out)
    write_datasheet(out)
    more = "\nWe store all images without compression.\n\nThey are Stored without compression.\n"
    text = (out / CARD).read_text(encoding="utf-8") + more  # after the comment with the digest
    (out / CARD).write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=f"line {len(text.splitlines())}: 'Stored without compression'"):
        published_datasheet(out, manifest, splits, Published("you/set", ("image",)))


@pytest.mark.parametrize("hashed", [True, False])
def test_each_line_that_a_copy_does_not_have_is_one_that_is_refused(out, hashed):
    """The words by which such lines are known are in all of them, so a new wording has to keep them."""
    splits, manifest = load_prepared(out)
    copy = Published("you/set", ("image", "Effusion"), hashed_ids=hashed)
    true = sheet(out, published=copy)
    wrong = [line for line in sheet(out).splitlines() if line not in true.splitlines()]
    assert len(wrong) == 7 if hashed else 6
    for line in wrong:
        (out / CARD).write_text(f"{true}\nMore: {line}\n", encoding="utf-8")
        with pytest.raises(ValueError, match=f"line {len(true.splitlines()) + 2}: "):
            published_datasheet(out, manifest, splits, copy)
    (out / CARD).write_text(f"{true}\nMore.\n", encoding="utf-8")
    assert published_datasheet(out, manifest, splits, copy) == f"{true}\nMore.\n"


def test_text_below_the_digest_stays_and_the_digest_goes(out):
    splits, manifest = load_prepared(out)
    copy = Published("you/set", ("image", "Effusion"))
    write_datasheet(out)
    with (out / CARD).open("a", encoding="utf-8") as file:
        file.write("\n## Motivation\n\nOurs.\n")
    text = published_datasheet(out, manifest, splits, copy)
    assert text.startswith(sheet(out, published=copy))
    assert text.endswith("\n\n## Motivation\n\nOurs.\n")
    assert "SHA-256 of the text above" not in text


def test_writing_it_again_changes_nothing_and_a_folder_without_one_gets_it(out, capsys):
    before, files = content(out)
    assert hf_cxr_main(["prepare", "--out", str(out), "--datasheet"]) == 0
    assert str(out / CARD) in capsys.readouterr().out
    text, when = (out / CARD).read_bytes(), (out / CARD).stat().st_mtime_ns
    write_datasheet(out)
    assert (out / CARD).stat().st_mtime_ns == when
    after, files_after = content(out)
    assert after == before
    assert files_after == files | {CARD: text}
    (out / CARD).write_text("by hand")
    assert hf_cxr_main(["prepare", "--out", str(out), "--datasheet"]) == 0
    assert (out / CARD).read_bytes() == text


def test_prepare_accepts_it_and_takes_it_away_when_the_folder_changes(out, images):
    write_datasheet(out)
    assert prepare_twelve(images, out, label=1.0)["decoded"] == 0
    assert (out / CARD).is_file()
    (out / "manifest.json").unlink()  # a call that was killed
    (out / "shards.jsonl").write_text("")
    (out / f".README-{'a' * 8}.md").write_text("half")
    prepare_twelve(images, out, label=0.0)
    assert not (out / CARD).exists()  # until the command has written that of the folder as it is now
    assert not list(out.glob(".README-*"))
    load_prepared(out, verify=True)


def test_a_folder_that_is_not_finished_or_is_being_written_is_refused(out, tmp_path, capsys):
    assert hf_cxr_main(["prepare", "--out", str(tmp_path / "none"), "--datasheet"]) == 2
    assert "is not a prepared folder" in capsys.readouterr().err
    assert not (tmp_path / "none").exists()
    with locked(out):
        assert hf_cxr_main(["prepare", "--out", str(out), "--datasheet"]) == 2
    assert "another process is preparing" in capsys.readouterr().err
    assert not (out / CARD).exists()
    with pytest.raises(SystemExit):
        hf_cxr_main(["prepare", "--out", str(out), "--datasheet", "--resize_size", "16"])
    assert "--out alone" in capsys.readouterr().err
