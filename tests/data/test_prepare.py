"""Decoded once: the same pixels as from the files, whole after any stop, and nothing twice."""

import dataclasses
import errno
import json
import os
import shutil
from pathlib import Path

import datasets
import numpy as np
import pytest
from PIL import Image
from prepared_folders import (
    RECIPE,
    SIX_OF_THIRTY,
    content,
    encode,
    prepare_thirty,
    splits_of_thirty,
    write_thirty,
)

from hf_cxr.commands import main as hf_cxr_main
from hf_cxr.config import parse_arguments
from hf_cxr.data import DecodedImages, label_matrix, load_source, split_fingerprint
from hf_cxr.data import prepare as module
from hf_cxr.data.manifest import Recipe
from hf_cxr.data.sources.prepared import load_prepared, read_manifest
from hf_cxr.data.split_files import write_split_file
from hf_cxr.labels import NIH14


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """Thirty images, not to be changed."""
    return write_thirty(tmp_path_factory.mktemp("thirty") / "images")


@pytest.fixture(scope="module", autouse=True)
def _small_shards():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "SHARD_BYTES", SIX_OF_THIRTY)
        yield


@pytest.fixture(scope="module")
def splits(images):
    return splits_of_thirty(images)


@pytest.fixture(scope="module")
def whole(splits, tmp_path_factory):
    """The thirty images prepared straight through, not to be changed."""
    out = tmp_path_factory.mktemp("prepared") / "out"
    assert prepare_thirty(splits, out)["decoded"] == 30
    return out


@pytest.fixture
def out(whole, tmp_path):
    """A finished folder that a test may change."""
    return Path(shutil.copytree(whole, tmp_path / "out"))


@pytest.fixture
def own(images, tmp_path):
    """A copy of the images that a test may change; the sizes and times of its files are those of the originals."""
    return Path(shutil.copytree(images, tmp_path / "images"))


def test_pixels_and_columns_are_those_of_the_files(splits, whole):
    prepared, manifest = load_prepared(whole)
    for name, split in splits.items():
        raw, ready = DecodedImages(split, 32, RECIPE.resample), DecodedImages(prepared[name], 32, RECIPE.resample)
        for row in range(len(split)):
            assert (raw[row]["pixels"] == ready[row]["pixels"]).all()
            assert (np.array(prepared[name][row]["image"]) == ready[row]["pixels"]).all()  # for any reader of images
        assert ready[0]["pixels"].std() > 0
        for column in set(split.column_names) - {"image", "labels", "age"}:
            assert prepared[name][column][:] == split[column][:]
        np.testing.assert_array_equal(label_matrix(prepared[name]), label_matrix(split))
        np.testing.assert_array_equal(prepared[name]["age"][:], split["age"][:])
    assert manifest["split_fingerprint"] == split_fingerprint(splits)
    assert manifest["splits"] == {"train": 20, "validation": 5, "test": 5}


def test_load_from_disk_opens_it_memory_mapped_and_sharded(whole):
    train = datasets.load_from_disk(str(whole))["train"]
    assert len(train.cache_files) == 4
    assert train.num_rows == 20
    assert train[7]["image"].size == (32, 32)


def test_a_second_call_does_nothing(splits, out):
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*") if path.is_file()}
    assert prepare_thirty(splits, out)["decoded"] == 0
    assert {path: path.stat().st_mtime_ns for path in before} == before


def replace_file(folder):
    encode(folder / "02.png", np.full((40, 40), 77, dtype=np.uint8), "grey")


@pytest.mark.parametrize(
    ("change", "said", "decoded"),
    [
        ("file", r"files of 1 of 6 shards", 6),
        ("label", r"files of 6 of 6 shards", 30),
        ("size", r"recipe was .*'size': 32.*is .*'size': 24", 30),
        ("nothing", None, 0),
    ],
)
def test_a_changed_source_or_setting_is_noticed_and_only_what_changed_is_decoded(own, tmp_path, change, said, decoded):
    out = tmp_path / "out"
    prepare_thirty(splits_of_thirty(own), out)
    if change == "file":
        replace_file(own)
    splits = splits_of_thirty(own, 1.0 if change == "label" else 0.0)
    recipe = Recipe(24, RECIPE.resample) if change == "size" else RECIPE
    if said:
        with pytest.raises(ValueError, match=said):
            prepare_thirty(splits, out, recipe)
        load_prepared(out)  # the refusal leaves it as it was
    assert prepare_thirty(splits, out, recipe, update=True)["decoded"] == decoded
    straight = tmp_path / "straight"
    prepare_thirty(splits, straight, recipe)
    assert content(out) == content(straight)


def test_a_line_that_was_cut_off_costs_its_shard_only(splits, whole, out):
    (out / "manifest.json").unlink()
    shards = out / "shards.jsonl"
    shards.write_text(shards.read_text()[:-20])
    assert prepare_thirty(splits, out)["decoded"] == 5
    assert content(out) == content(whole)


def spoil(folder):
    (folder / "03.png").write_bytes((folder / "03.png").read_bytes()[:200])
    (folder / "26.png").write_text("not an image")
    (folder / "27.png").unlink()


def test_unreadable_images_are_all_named_and_by_choice_left_out_and_listed(own, tmp_path):
    out, splits = tmp_path / "out", splits_of_thirty(own)
    spoil(own)
    with pytest.raises(ValueError, match=r"3 of 30 images cannot be read: train 03.png: .*test 26.png: .*27.png"):
        prepare_thirty(splits, out)
    with pytest.raises(FileNotFoundError, match="not prepared completely"):
        read_manifest(out)
    manifest = prepare_thirty(splits, out, unreadable="skip")
    assert manifest["decoded"] == 0  # the others had been kept
    assert [entry["image_id"] for entry in manifest["refused"]] == ["03.png", "26.png", "27.png"]
    assert manifest["splits"] == {"train": 19, "validation": 5, "test": 3}
    prepared, _ = load_prepared(out)
    assert "03.png" not in prepared["train"]["image_id"][:]
    with pytest.raises(ValueError, match="3 of 30"):
        prepare_thirty(splits, out)  # said without --unreadable skip, a finished folder does not hide them


def test_fixed_files_are_read_again(own, tmp_path):
    out, splits, good = tmp_path / "out", splits_of_thirty(own), (own / "03.png").read_bytes()
    (own / "03.png").write_bytes(good[:200])
    with pytest.raises(ValueError, match="1 of 30"):
        prepare_thirty(splits, out)
    (own / "03.png").write_bytes(good)
    assert prepare_thirty(splits, out)["decoded"] == 6
    assert read_manifest(out)["splits"]["train"] == 20


def test_images_that_can_be_read_now_are_read_though_their_files_are_the_same(splits, whole, tmp_path, monkeypatch):
    out = tmp_path / "out"
    with monkeypatch.context() as small:
        small.setattr(Image, "MAX_IMAGE_PIXELS", 60 * 70)  # refused for now are those with 71 rows or more
        with pytest.raises(
            ValueError, match=r"9 of 30 images cannot be read: .*pixels are more than 4,200, the limit"
        ):
            prepare_thirty(splits, out)
        assert prepare_thirty(splits, out, unreadable="skip")["decoded"] == 0
    with pytest.raises(ValueError, match=r"images of 2 of 6 shards that were left out can be read now.*--update"):
        prepare_thirty(splits, out, unreadable="skip")  # a finished folder does not change by itself
    (out / "manifest.json").unlink()
    assert prepare_thirty(splits, out)["decoded"] == 10
    assert content(out) == content(whole)


def test_a_shard_that_was_replaced_before_a_kill_is_decoded_again(splits, whole, out, monkeypatch):
    real = module.append_shard

    def killed(folder, entry):
        if "bytes" in entry:
            raise KeyboardInterrupt
        real(folder, entry)

    with monkeypatch.context() as kill:
        kill.setattr(module, "append_shard", killed)
        with pytest.raises(KeyboardInterrupt):  # between the first shard's file and its line
            prepare_thirty(splits, out, Recipe(32, int(Image.Resampling.NEAREST)), update=True)
    assert prepare_thirty(splits, out)["decoded"] == 6
    assert content(out) == content(whole)


def test_a_whole_shard_may_be_unreadable(own, tmp_path):
    for number in range(6):
        (own / f"{number:02d}.png").write_bytes(b"")
    prepare_thirty(splits_of_thirty(own), tmp_path / "out", unreadable="skip")
    assert load_prepared(tmp_path / "out")[0]["train"]["image_id"][:] == [f"{n:02d}.png" for n in range(6, 20)]


def test_a_full_disk_leaves_what_was_finished(splits, whole, tmp_path, monkeypatch):
    out = tmp_path / "out"
    real, written = module.ArrowWriter.finalize, []

    def full(writer, *args, **kwargs):
        written.append(writer)
        if len(written) == 3:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real(writer, *args, **kwargs)

    monkeypatch.setattr(module.ArrowWriter, "finalize", full)
    with pytest.raises(OSError, match=r"cannot write .*train.data-00002.*finished shards stay"):
        prepare_thirty(splits, out)
    assert not [path for path in out.rglob("*.arrow") if path.name.startswith(".")]
    assert prepare_thirty(splits, out)["decoded"] == 18
    assert content(out) == content(whole)


def test_room_is_looked_for_first(splits, tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10**9, 10**9, 1000))
    with pytest.raises(OSError, match=r"GB are needed for 30 images and 0.00 GB are free"):
        prepare_thirty(splits, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_folder_with_other_files_is_refused_and_unchanged(splits, tmp_path):
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter1.tex").write_text("x")
    with pytest.raises(ValueError, match="not a prepared dataset"):
        prepare_thirty(splits, tmp_path / "thesis")
    with pytest.raises(ValueError, match="is a file"):
        prepare_thirty(splits, tmp_path / "thesis" / "chapter1.tex")


def test_two_at_once_are_refused(splits, tmp_path):
    from filelock import FileLock

    (tmp_path / "out").mkdir()
    with FileLock(tmp_path / "out" / ".lock"), pytest.raises(ValueError, match="another process is preparing"):
        prepare_thirty(splits, tmp_path / "out")


def test_a_cut_off_or_missing_shard_is_reported_at_load_and_written_again(splits, out):
    shard = out / "train" / "data-00001-of-00004.arrow"
    shard.write_bytes(shard.read_bytes()[:-100])
    with pytest.raises(ValueError, match=r"data-00001-of-00004.arrow has .* bytes, but .* were written"):
        load_prepared(out)
    assert prepare_thirty(splits, out)["decoded"] == 6
    shard.unlink()
    with pytest.raises(FileNotFoundError, match=r"00001-of-00004.arrow is missing.*Run the same hf-cxr prepare"):
        load_prepared(out)
    assert prepare_thirty(splits, out)["decoded"] == 6
    load_prepared(out)


def test_what_opening_refuses_prepare_repairs(splits, out):
    before = (out / "manifest.json").read_bytes()
    manifest = json.loads(before)
    manifest["splits"]["train"] += 1
    (out / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(ValueError, match=r"manifest.json is damaged"):
        load_prepared(out)
    assert prepare_thirty(splits, out)["decoded"] == 0
    load_prepared(out)


def test_the_command_and_training_from_its_folder(tmp_path, capsys):
    phantoms = ["--phantom_train=24", "--phantom_validation=8", "--phantom_test=8", "--phantom_size=64"]
    line = ["prepare", *phantoms, "--resize_size=36", "--image_size=32", "--out", str(tmp_path / "out"), "--workers=1"]
    assert hf_cxr_main(line) == 0
    out = capsys.readouterr().out
    assert "40 images (train 24, validation 8, test 8) of 36 x 36 pixels" in out
    datasheet = tmp_path / "out" / "README.md"
    text = datasheet.read_text()
    assert "| images | 24 | 8 | 8 |" in text
    assert json.loads((tmp_path / "out" / "manifest.json").read_text())["split_fingerprint"] in text
    datasheet.unlink()
    assert hf_cxr_main(line) == 0
    assert "nothing to do" in capsys.readouterr().out
    assert datasheet.read_text() == text
    args = parse_arguments(["--dataset=prepared", f"--prepared={tmp_path / 'out'}"]).data
    source = load_source(args)
    prepared, names = source.splits, source.labels
    drawn = load_source(parse_arguments(phantoms).data).splits
    assert names == NIH14
    assert names.aliases == NIH14.aliases  # by which a set with other names is measured
    assert split_fingerprint(prepared) == split_fingerprint(drawn)
    assert "image" not in load_source(args, images=False).splits["train"].column_names
    with pytest.raises(ValueError, match="prepared at"):
        DecodedImages(prepared["train"], 48, 3)


def test_bad_lines_are_refused(tmp_path, capsys):
    def refused(*words):
        with pytest.raises(SystemExit) as stop:
            hf_cxr_main(["prepare", "--out", str(tmp_path / "out"), *words])
        assert stop.value.code == 2
        return capsys.readouterr().err

    assert "--resize_size" in refused("--dataset=phantom")
    assert "for training" in refused("--resize_size=72", "--train_limit=3")
    assert "at least 1" in refused("--resize_size=72", "--workers=0")
    assert "what this command writes" in refused("--resize_size=72", "--dataset=prepared", f"--prepared={tmp_path}")
    assert not (tmp_path / "out").exists()


def test_another_size_than_the_models_is_refused_before_training(whole):
    prepared = load_source(parse_arguments(["--dataset=prepared", f"--prepared={whole}"]).data)
    prepared.check_pixels(32, RECIPE.resample)
    for size, resample in ((36, RECIPE.resample), (32, int(Image.Resampling.BILINEAR))):
        with pytest.raises(ValueError, match="was prepared with size 32, resample 3"):
            prepared.check_pixels(size, resample)


def test_a_picture_in_two_splits_is_refused_by_name_or_listed(own, tmp_path):
    out, splits = tmp_path / "out", splits_of_thirty(own)
    shutil.copyfile(own / "04.png", own / "27.png")  # train and test: byte for byte
    Image.open(own / "00.png").save(own / "10.png", compress_level=0)  # within train: other bytes
    with pytest.raises(ValueError, match=r"1 image is in two splits: 27.png \(test\) is byte for byte 04.png"):
        prepare_thirty(splits, out)
    manifest = prepare_thirty(splits, out, duplicates="list")
    assert [(twice["image_id"], twice["kind"]) for twice in manifest["duplicates"]] == [
        ("27.png", "identical"),
        ("10.png", "near"),
    ]
    assert prepare_thirty(splits, out, duplicates="list")["decoded"] == 0
    with pytest.raises(ValueError, match="in two splits"):
        prepare_thirty(splits, out)
    args = parse_arguments(["--dataset=prepared", f"--prepared={out}"]).data
    load_source(args)  # they were accepted when the folder was made, and its manifest lists them


def test_a_split_file_may_not_put_copies_of_an_image_into_two_splits(own, tmp_path):
    out, listed = tmp_path / "out", tmp_path / "split.csv"
    Image.open(own / "00.png").save(own / "10.png", compress_level=0)  # within train, under another patient
    prepare_thirty(splits_of_thirty(own), out)
    rows = {f"{n:02d}.png": "train" if n < 20 else "validation" if n < 25 else "test" for n in range(30)}

    def dealt(**change):
        lines = [f"{image},p{int(image[:2])},{side}\n" for image, side in (rows | change).items()]
        listed.write_text("image_id,patient_id,split\n" + "".join(lines))
        words = ["--dataset=prepared", f"--prepared={out}", f"--split_file={listed}"]
        return load_source(parse_arguments(words).data).splits

    assert dealt(**{"11.png": "test"})["test"].num_rows == 6
    with pytest.raises(ValueError, match=r"10.png \(test\) is, but for 0 of 1024 bits, 00.png \(train\)"):
        dealt(**{"10.png": "test"})


def test_what_the_source_lacked_and_what_was_refused_is_counted(own, tmp_path):
    spoil(own)
    prepare_thirty(splits_of_thirty(own), tmp_path / "out", unreadable="skip", missing={"train": 5})
    args = parse_arguments(["--dataset=prepared", f"--prepared={tmp_path / 'out'}"]).data
    prepared = load_source(args)
    assert prepared.missing == {"train": 6, "test": 2}
    assert load_source(dataclasses.replace(args, train_limit=3)).missing == {"test": 2}
    listed = tmp_path / "split.csv"
    rows = [(row["image_id"], row["patient_id"], name) for name, split in prepared.splits.items() for row in split]
    write_split_file(listed, *zip(*rows, strict=True), column="split")
    assert load_source(dataclasses.replace(args, split_file=str(listed))).missing == {"all splits": 8}
    assert json.loads((tmp_path / "out" / "manifest.json").read_text())["missing"] == {"train": 5}
