"""Parts of a prepared folder: any number of jobs give the folder of one, byte for byte; what is lacking is named."""

import os
import shutil
from pathlib import Path

import pytest
from filelock import FileLock
from prepared_folders import (
    NAMES,
    RECIPE,
    SIX_OF_THIRTY,
    content,
    prepare_thirty,
    splits_of_thirty,
    write_thirty,
)

from hf_cxr.commands import main as hf_cxr_main
from hf_cxr.data import prepare as module
from hf_cxr.data import prepare_parts
from hf_cxr.data.manifest import Recipe, append_shard
from hf_cxr.data.prepare import prepare_part
from hf_cxr.data.prepare_cut import cut
from hf_cxr.data.prepare_parts import Part, all_finished
from hf_cxr.data.prepared_folder import BusyError
from hf_cxr.data.sources import Source
from hf_cxr.data.sources.prepared import load_prepared, read_manifest
from hf_cxr.labels import LabelSpace


@pytest.fixture(scope="module", autouse=True)
def _small_shards():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "SHARD_BYTES", SIX_OF_THIRTY)  # 4 + 1 + 1 shards
        yield


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    return write_thirty(tmp_path_factory.mktemp("thirty") / "images")


@pytest.fixture(scope="module")
def splits(images):
    return splits_of_thirty(images)


@pytest.fixture(scope="module")
def straight(splits, tmp_path_factory):
    out = tmp_path_factory.mktemp("prepared") / "out"
    prepare_thirty(splits, out)
    return out


def part_of_thirty(splits, out, number, of, recipe=RECIPE, **options):
    return prepare_part(Source(splits, LabelSpace(NAMES), "thirty"), out, recipe, Part(number, of), **options)


def all_parts(splits, out, of, recipe=RECIPE, **options):
    return [part_of_thirty(splits, out, number, of, recipe, **options) for number in range(of, 0, -1)]


@pytest.mark.parametrize("of", [1, 3, 8])
def test_parts_give_the_same_bytes_as_one_call(splits, straight, tmp_path, of):
    records = all_parts(splits, tmp_path / "out", of)
    assert sum(record["decoded"] for record in records) == 30
    assert all_finished(tmp_path / "out", of)
    with pytest.raises(FileNotFoundError, match="run hf-cxr prepare with --merge"):
        read_manifest(tmp_path / "out")
    manifest = prepare_thirty(splits, tmp_path / "out", merge=True)
    assert manifest["decoded"] == 30
    assert manifest["workers"] == of
    assert content(tmp_path / "out") == content(straight)
    assert not (tmp_path / "out" / ".parts").exists()
    load_prepared(tmp_path / "out", verify=True)


@pytest.mark.parametrize("of", [1, 2, 3, 5, 6, 7, 100])
def test_every_shard_is_in_one_part_and_the_parts_are_even(splits, of):
    shards = cut(splits, RECIPE, SIX_OF_THIRTY)
    assert len(shards) == 6
    parts = [Part(number, of).of_shards(shards) for number in range(1, of + 1)]
    assert [shard for part in parts for shard in part] == shards
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


@pytest.mark.parametrize("text", ["0/4", "5/4", "1", "1/0", "a/b", "-1/4", "1/2/3", "1/10000", ""])
def test_a_part_that_cannot_be_is_refused(text):
    with pytest.raises(ValueError, match="i from 1 to n"):
        Part.read(text)


def test_a_part_that_was_stopped_continues_and_a_finished_one_does_nothing(splits, straight, tmp_path, monkeypatch):
    out, real, written = tmp_path / "out", module.ArrowWriter.finalize, []

    def stopped(writer, *args, **kwargs):
        written.append(writer)
        if len(written) == 3:
            raise KeyboardInterrupt
        return real(writer, *args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(module.ArrowWriter, "finalize", stopped)
        with pytest.raises(KeyboardInterrupt):
            part_of_thirty(splits, out, 1, 2)
    assert not all_finished(out, 1)
    with pytest.raises(ValueError, match=r"4 of its shards are missing: 1/2 is not finished; 2/2 was not begun"):
        prepare_thirty(splits, out, merge=True)
    assert part_of_thirty(splits, out, 1, 2)["decoded"] == 6
    assert part_of_thirty(splits, out, 1, 2)["decoded"] == 0
    with pytest.raises(ValueError, match=r"missing: 2/2 was not begun\. Run these parts"):
        prepare_thirty(splits, out, merge=True)
    part_of_thirty(splits, out, 2, 2)
    assert prepare_thirty(splits, out, merge=True)["decoded"] == 18  # by the calls that were not stopped
    assert content(out) == content(straight)
    assert part_of_thirty(splits, out, 2, 2)["decoded"] == 0
    assert not (out / ".parts").exists()
    assert prepare_thirty(splits, out, merge=True)["decoded"] == 0


def test_one_call_takes_over_what_parts_have_finished(splits, straight, tmp_path):
    part_of_thirty(splits, tmp_path / "out", 2, 3)
    assert prepare_thirty(splits, tmp_path / "out")["decoded"] == 22
    assert content(tmp_path / "out") == content(straight)


@pytest.mark.parametrize("moment", [0, 2, 5])
@pytest.mark.parametrize("where", ["before a move", "before a line"])
def test_a_merge_that_was_killed_continues(splits, straight, tmp_path, monkeypatch, where, moment):
    out, calls = tmp_path / "out", []
    all_parts(splits, out, 2)
    place, name, real = {
        "before a move": (prepare_parts.os, "replace", os.replace),
        "before a line": (prepare_parts, "append_shard", append_shard),
    }[where]

    def killed(*args):
        calls.append(args)
        if len(calls) > moment:
            raise KeyboardInterrupt
        return real(*args)

    with monkeypatch.context() as patch:
        patch.setattr(place, name, killed)
        with pytest.raises(KeyboardInterrupt):
            prepare_thirty(splits, out, merge=True)
    with pytest.raises(FileNotFoundError):
        read_manifest(out)
    prepare_thirty(splits, out, merge=True)
    assert content(out) == content(straight)


def test_an_old_line_does_not_confirm_a_file_that_was_put_in_its_place(splits, straight, tmp_path, monkeypatch):
    """Both recipes give files of one size: only the order of the steps tells them apart after a kill."""
    out = Path(shutil.copytree(straight, tmp_path / "out"))
    nearest = Recipe(32, 0)
    all_parts(splits, out, 2, nearest, update=True)
    with monkeypatch.context() as patch:

        def killed(folder, entry):
            if "bytes" in entry:
                raise KeyboardInterrupt
            append_shard(folder, entry)

        patch.setattr(prepare_parts, "append_shard", killed)
        with pytest.raises(KeyboardInterrupt):
            prepare_thirty(splits, out, nearest, merge=True, update=True)
    shutil.rmtree(out / ".parts")
    assert prepare_thirty(splits, out, update=True)["decoded"] == 6  # the shard that was moved, and no other
    assert content(out) == content(straight)


def test_parts_of_something_else_are_refused(splits, images, tmp_path):
    out = tmp_path / "out"
    part_of_thirty(splits, out, 1, 2)
    with pytest.raises(ValueError, match=r"part 1/2 .* different settings: recipe was .*'size': 32.*is .*'size': 24"):
        part_of_thirty(splits, out, 2, 2, Recipe(24, RECIPE.resample))
    with pytest.raises(ValueError, match=r"has parts of 2, and this is part 1/3: give --shard i/2"):
        part_of_thirty(splits, out, 1, 3)
    fewer = splits.copy() | {"train": splits["train"].select(range(7))}
    with pytest.raises(ValueError, match="different numbers of images"):
        part_of_thirty(type(splits)(fewer), out, 2, 2)
    part_of_thirty(splits, out, 2, 2)
    with pytest.raises(ValueError, match=r"5 of its shards are missing: 1/2 has different settings .*2/2 has"):
        prepare_thirty(splits, out, Recipe(24, RECIPE.resample), merge=True)
    with pytest.raises(ValueError, match=r"rows or files of train/data-00000-of-00004.arrow, .* have changed since"):
        prepare_thirty(splits_of_thirty(images, 1.0), out, merge=True)
    with pytest.raises(ValueError, match="has no parts"):
        prepare_thirty(splits, tmp_path / "empty", merge=True)


def test_with_update_parts_follow_a_changed_source(splits, images, straight, tmp_path):
    out = Path(shutil.copytree(straight, tmp_path / "out"))
    changed = splits_of_thirty(images, 1.0)
    with pytest.raises(ValueError, match=r"rows or files of 3 of 3 shards changed.*--update"):
        part_of_thirty(changed, out, 1, 2)
    load_prepared(out)  # the refusal leaves it as it was
    all_parts(changed, out, 2, update=True)
    load_prepared(out)  # and so do the parts
    with pytest.raises(ValueError, match="--update"):
        prepare_thirty(changed, out, merge=True)
    assert prepare_thirty(changed, out, merge=True, update=True)["decoded"] == 30
    prepare_thirty(changed, tmp_path / "straight")
    assert content(out) == content(tmp_path / "straight")


def test_a_part_that_is_being_prepared_is_left_alone(splits, tmp_path):
    out = tmp_path / "out"
    all_parts(splits, out, 2)
    with FileLock(out / ".parts" / "0002-of-0002" / ".lock"):
        for refused in (lambda: prepare_thirty(splits, out, merge=True), lambda: part_of_thirty(splits, out, 2, 2)):
            with pytest.raises(BusyError, match=r"another process is preparing part 2/2 of"):
                refused()
        assert part_of_thirty(splits, out, 1, 2)["decoded"] == 0


def test_a_damaged_part_is_named(splits, straight, tmp_path):
    out = tmp_path / "out"
    all_parts(splits, out, 2)
    shard = out / ".parts" / "0001-of-0002" / "train" / "data-00001-of-00004.arrow"
    whole = shard.read_bytes()
    shard.write_bytes(whole[:-9])
    with pytest.raises(ValueError, match=r"1 of its shards are missing: .*train/data-00001-of-00004.arrow"):
        prepare_thirty(splits, out, merge=True)
    shard.write_bytes(whole[:5000] + bytes([whole[5000] ^ 1]) + whole[5001:])
    with pytest.raises(ValueError, match=r"part 1/2 of .* is damaged: train/data-00001-of-00004.arrow has changed"):
        prepare_thirty(splits, out, merge=True, verify=True)
    assert part_of_thirty(splits, out, 1, 2, verify=True)["decoded"] == 6
    prepare_thirty(splits, out, merge=True, verify=True)
    assert content(out) == content(straight)


def test_what_parts_cannot_see_alone_is_found_when_they_are_put_together(images, tmp_path):
    own, out = Path(shutil.copytree(images, tmp_path / "images")), tmp_path / "out"
    shutil.copyfile(own / "04.png", own / "27.png")  # a part each: train and test
    (own / "03.png").write_bytes(b"")
    (own / "26.png").write_text("not an image")
    splits = splits_of_thirty(own)
    second, first = all_parts(splits, out, 2)
    assert [entry["image_id"] for entry in first["refused"] + second["refused"]] == ["03.png", "26.png"]
    with pytest.raises(ValueError, match=r"2 of 30 images cannot be read: train 03.png: .*test 26.png"):
        prepare_thirty(splits, out, merge=True)
    with pytest.raises(ValueError, match=r"27.png \(test\) is byte for byte 04.png"):
        prepare_thirty(splits, out, merge=True, unreadable="skip")
    manifest = prepare_thirty(splits, out, merge=True, unreadable="skip", duplicates="list")
    assert manifest["splits"] == {"train": 19, "validation": 5, "test": 4}
    prepare_thirty(splits, tmp_path / "straight", unreadable="skip", duplicates="list")
    assert content(out) == content(tmp_path / "straight")


def test_the_command_puts_the_parts_together_when_the_last_is_finished(tmp_path, capsys):
    phantoms = ["--phantom_train=9", "--phantom_validation=4", "--phantom_test=4", "--phantom_size=64"]
    line = ["prepare", *phantoms, "--resize_size=36", "--image_size=32", "--workers=1"]
    parts = [*line, "--out", str(tmp_path / "out")]
    assert hf_cxr_main([*parts, "--merge"]) == 2
    assert "has no parts" in capsys.readouterr().err
    assert hf_cxr_main([*parts, "--shard", "2/2"]) == 0
    assert capsys.readouterr().out.splitlines()[0].startswith("part 2/2 of")
    assert hf_cxr_main([*parts, "--shard", "1/2"]) == 0
    assert "17 images (train 9, validation 4, test 4)" in capsys.readouterr().out
    assert hf_cxr_main([*line, "--out", str(tmp_path / "one")]) == 0
    assert content(tmp_path / "out") == content(tmp_path / "one")
    assert hf_cxr_main([*parts, "--shard", "1/2"]) == 0
    assert "nothing to do" in capsys.readouterr().out
    for words, said in ((["--shard", "3/2"], "i from 1 to n"), (["--shard", "1/2", "--merge"], "not both")):
        with pytest.raises(SystemExit) as stop:
            hf_cxr_main([*parts, *words])
        assert stop.value.code == 2
        assert said in capsys.readouterr().err
