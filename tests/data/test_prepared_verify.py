"""A prepared folder that was damaged, half-written or is being written is refused in one line, and repaired."""

import json
import os
import random
import shutil
from pathlib import Path

import datasets
import pyarrow as pa
import pytest
from filelock import FileLock
from prepared_folders import NAMES, content, prepare_twelve, shards_of_three, splits_of_twelve, twelve_images

from hf_cxr.commands import main as hf_cxr_main
from hf_cxr.config import parse_arguments
from hf_cxr.data import prepare as module
from hf_cxr.data.manifest import TIMING, Recipe
from hf_cxr.data.prepare import prepare
from hf_cxr.data.sources import Source, load_source, prepared
from hf_cxr.data.sources.prepared import load_prepared, read_manifest
from hf_cxr.labels import LabelSpace

SMALL_FILES = ("manifest.json", "shards.jsonl", "dataset_dict.json", "train/state.json", "train/dataset_info.json")
SHARD = "train/data-00001-of-00003.arrow"


images, _small_shards = twelve_images, shards_of_three  # fixtures of this module


@pytest.fixture(scope="module")
def whole(images, tmp_path_factory):
    """A finished folder, not to be changed."""
    out = tmp_path_factory.mktemp("prepared") / "out"
    prepare_twelve(images, out)
    return out


@pytest.fixture
def out(whole, tmp_path):
    return Path(shutil.copytree(whole, tmp_path / "out"))


def make_old(folder):
    """Take away what folders of earlier versions lack."""
    manifest = json.loads((folder / "manifest.json").read_text())
    for key in ("check", "content_digest", "files"):
        del manifest[key]
    (folder / "manifest.json").write_text(json.dumps(manifest))
    entries = [json.loads(line) for line in (folder / "shards.jsonl").read_text().splitlines()]
    lines = [{key: value for key, value in entry.items() if key not in ("check", "sha256")} for entry in entries]
    (folder / "shards.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def flip(path, at):
    data = bytearray(path.read_bytes())
    data[at] ^= 1 << (at % 8)
    path.write_bytes(data)


def loaded(folder, **options):
    """What opening gives, or the one line that it is refused with."""
    try:
        splits, manifest = load_prepared(folder, **options)
    except (ValueError, OSError) as error:
        assert len(str(error).splitlines()) == 1  # noqa: PT017
        return str(error)
    return {name: split.to_dict() for name, split in splits.items()}, {
        key: value for key, value in manifest.items() if key not in TIMING
    }


@pytest.mark.parametrize("name", SMALL_FILES)
def test_a_changed_or_cut_off_small_file_is_refused_or_harmless(whole, out, name):
    right, good = loaded(whole), (whole / name).read_bytes()
    rng, refused = random.Random(name), 0
    for _ in range(100):
        damaged = bytearray(good)
        if rng.random() < 0.3:
            del damaged[rng.randrange(len(damaged)) :]
        else:
            damaged[rng.randrange(len(damaged))] ^= 1 << rng.randrange(8)
        (out / name).write_bytes(damaged)
        found = loaded(out)
        if isinstance(found, str):
            refused += 1
            assert name.rpartition("/")[2] in found
            assert "run the same hf-cxr prepare command again" in found or "format" in found
        else:
            assert found == right  # a blank between two values, or the seconds that it took
    assert refused > 50


@pytest.mark.parametrize("name", SMALL_FILES)
def test_in_a_folder_of_an_earlier_version_damage_is_never_a_traceback(out, name):
    make_old(out)
    good = (out / name).read_bytes()
    rng, found = random.Random(name), set()
    for _ in range(100):
        damaged = bytearray(good)
        if rng.random() < 0.3:
            del damaged[rng.randrange(len(damaged)) :]
        else:
            damaged[rng.randrange(len(damaged))] = rng.randrange(256)
        (out / name).write_bytes(damaged)
        found.add(type(loaded(out)))
    assert str in found


OTHER_SHAPES = ("", "[]", "null", "3", '"x"', "{}", '{"format": 1}', '{"format": "1"}', "[" * 100_000, "\udcff", "NaN")
MANIFEST, LINES, *OF_DATASETS = SMALL_FILES


def replace(path, text):
    path.write_bytes(text.encode("utf-8", "surrogateescape"))


@pytest.mark.parametrize(("old", "value"), [*((False, value) for value in OTHER_SHAPES), (True, "[]"), (True, "{}")])
def test_json_of_another_shape_is_refused(out, value, old):
    if old:
        make_old(out)
    for name in SMALL_FILES:
        good = (out / name).read_bytes()
        replace(out / name, value)
        assert name.rpartition("/")[2] in loaded(out)
        (out / name).write_bytes(good)
    loaded_again = loaded(out)
    assert not isinstance(loaded_again, str), loaded_again


@pytest.mark.parametrize(
    ("old", "value"),
    [(False, ""), (False, "[]"), (False, "{}"), (False, "[" * 100_000), (False, "\udcff"), (True, "{}")],
)
@pytest.mark.parametrize(("names", "decoded"), [([MANIFEST], 0), ([LINES], 12), (OF_DATASETS, 0)])
def test_json_of_another_shape_is_repaired_without_decoding(out, whole, images, names, decoded, value, old):
    if old:
        make_old(out)
    for name in names:
        replace(out / name, value)
    assert prepare_twelve(images, out)["decoded"] == decoded
    assert content(out) == content(whole)


@pytest.mark.parametrize(
    "part", ["splits", "recipe", "label_names", "refused", "duplicates", "source_digest", "bytes"]
)
def test_a_manifest_with_a_wrong_part_is_refused(out, part):
    make_old(out)
    manifest = json.loads((out / "manifest.json").read_text())
    for value in (None, [], {}, 7, "x", ["x"], {"x": "y"}, [{"x": 1}], {"../../etc": 3}):
        if manifest[part] == value:
            continue
        (out / "manifest.json").write_text(json.dumps(manifest | {part: value}))
        found = loaded(out)
        if isinstance(found, str):
            assert "manifest.json" in found
        else:  # label names, the digest of the source: an old folder has nothing to compare these with
            assert (part, value) in [("label_names", ["x"]), ("source_digest", "x")]


def test_a_later_format_is_refused_by_both_and_stays_as_it_is(out, images):
    (out / "manifest.json").write_text('{"format": 2}')
    assert "format 2" in loaded(out)
    with pytest.raises(ValueError, match=r"format 2.*another folder"):
        prepare_twelve(images, out)
    assert (out / "manifest.json").read_text() == '{"format": 2}'


def test_the_list_of_shards_may_be_in_another_order_or_repeat_itself_but_not_lack_a_line(out, whole):
    lines = (out / "shards.jsonl").read_text().splitlines(keepends=True)
    for same in (lines[::-1], lines * 2):
        (out / "shards.jsonl").write_text("".join(same))
        assert loaded(out) == loaded(whole)
    (out / "shards.jsonl").write_text("".join(lines[:1] + lines[2:]))
    assert f"no complete line for {SHARD}" in loaded(out)
    (out / "shards.jsonl").write_text("".join(lines[:2] + lines[3:]))
    assert "shards.jsonl" in loaded(out)
    (out / "shards.jsonl").unlink()
    assert "shards.jsonl is missing" in loaded(out)


@pytest.mark.parametrize("name", ["train/state.json", "train/dataset_info.json", "dataset_dict.json", "test"])
@pytest.mark.parametrize("old", [False, True])
def test_what_is_missing_is_named_and_written_again(out, whole, images, name, old):
    if old:
        make_old(out)
    path = out / name
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    assert f"{name} is missing" in loaded(out) or "test/state.json is missing" in loaded(out)
    assert prepare_twelve(images, out)["decoded"] == (2 if name == "test" else 0)
    assert content(out) == content(whole)


def test_files_that_the_command_did_not_write_stay(out, whole, images):
    (out / "notes.txt").write_text("mine")
    (out / "train" / "cache-1.arrow").write_text("of datasets")
    assert loaded(out) == loaded(whole)
    assert prepare_twelve(images, out, label=1.0, update=True)["decoded"] == 12
    assert (out / "notes.txt").read_text() == "mine"
    assert (out / "train" / "cache-1.arrow").exists()


@pytest.mark.parametrize("old", [False, True])
@pytest.mark.parametrize("where", ["absolute", "up", "other"])
def test_a_shard_outside_the_folder_is_never_opened(out, images, whole, where, old):
    """The list of shards is what is opened, and names in it are computed."""
    if old:
        make_old(out)
    outside = out.parent / "outside.arrow"
    shutil.copyfile(out / SHARD, outside)
    name = {"absolute": str(outside), "up": "../../outside.arrow", "other": "data-00000-of-00003.arrow"}[where]
    state = json.loads((out / "train" / "state.json").read_text())
    state["_data_files"][1]["filename"] = name
    (out / "train" / "state.json").write_text(json.dumps(state))
    assert "state.json is damaged" in loaded(out)
    assert prepare_twelve(images, out)["decoded"] == 0
    assert content(out) == content(whole)
    lines = [json.loads(line) for line in (out / "shards.jsonl").read_text().splitlines()]
    lines[1] |= {"file": name}
    (out / "shards.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert f"no complete line for {SHARD}" in loaded(out)


def test_a_row_that_names_a_file_in_place_of_its_pixels_is_refused(out, images):
    make_old(out)  # a new folder's shard is seen by its size or its digest
    table = datasets.Dataset.from_file(str(out / SHARD)).cast_column("image", datasets.Image(decode=False))
    rows = [dict(row) for row in table]
    rows[1]["image"] = {"bytes": None, "path": str(images / "00.png")}
    schema = table.cast_column("image", datasets.Image()).features
    with module.ArrowWriter(features=schema, path=str(out / SHARD)) as writer:
        for row in rows:
            writer.write(row)
        writer.finalize()
    entries = [json.loads(line) for line in (out / "shards.jsonl").read_text().splitlines()]
    manifest = json.loads((out / "manifest.json").read_text())
    size = (out / SHARD).stat().st_size
    manifest["bytes"] += size - entries[1]["bytes"]
    entries[1]["bytes"] = size
    (out / "manifest.json").write_text(json.dumps(manifest))
    (out / "shards.jsonl").write_text("".join(json.dumps(line) + "\n" for line in entries))
    assert "rows without their pixels" in loaded(out)


def test_every_byte_of_every_shard_counts_with_verify(out, whole, images):
    assert loaded(out, verify=True) == loaded(whole)
    rng = random.Random(0)
    for name in (SHARD, "test/data-00000-of-00001.arrow"):
        size = (out / name).stat().st_size
        for at in (0, size - 1, *(rng.randrange(size) for _ in range(10))):
            flip(out / name, at)
            assert f"1 of 5 shards in {out} are damaged: {name}" in loaded(out, verify=True)
            flip(out / name, at)
    assert loaded(out, verify=True) == loaded(whole)


def test_all_damaged_shards_are_named_and_only_these_are_decoded_again(out, whole, images, caplog):
    flip(out / SHARD, 1500)
    first, third = "train/data-00000-of-00003.arrow", "train/data-00002-of-00003.arrow"
    shutil.copyfile(out / "validation/data-00000-of-00001.arrow", out / "test/data-00000-of-00001.arrow")  # same size
    (out / third).unlink()
    found = loaded(out, verify=True)
    assert "3 of 5 shards" in found
    assert SHARD in found
    assert f"{third} is missing" in found
    assert "test/data-00000-of-00001.arrow" in found
    assert first not in found
    manifest = prepare_twelve(images, out, verify=True)
    assert manifest["decoded"] == 3 + 2 + 2
    assert SHARD in caplog.text
    assert content(out) == content(whole)
    assert loaded(out, verify=True) == loaded(whole)


def test_a_shard_that_is_not_arrow_is_refused_in_one_line(out, whole, images):
    (out / SHARD).write_bytes(b"x" * (out / SHARD).stat().st_size)
    found = loaded(out)
    assert "cannot be opened" in found
    assert "--verify" in found
    assert prepare_twelve(images, out, verify=True)["decoded"] == 3
    assert content(out) == content(whole)


def test_a_folder_without_digests_opens_and_gets_them_from_the_same_command(out, whole, images):
    make_old(out)
    assert "content_digest" not in read_manifest(out)
    assert loaded(out)[0] == loaded(whole)[0]
    assert "recorded no digests" in loaded(out, verify=True)
    assert prepare_twelve(images, out)["decoded"] == 0
    assert loaded(out, verify=True) == loaded(whole)
    assert content(out) == content(whole)


def test_the_content_digest_is_that_of_the_shards(out, whole, images, tmp_path):
    prepare_twelve(images, tmp_path / "again")
    digests = [read_manifest(folder)["content_digest"] for folder in (whole, tmp_path / "again")]
    assert digests[0] == digests[1]
    prepare_twelve(images, out, label=1.0, update=True)
    assert read_manifest(out)["content_digest"] != digests[0]


def test_a_damaged_manifest_does_not_let_another_source_in_unasked(out, images):
    (out / "manifest.json").write_text("{")
    before = (out / SHARD).read_bytes()
    with pytest.raises(ValueError, match=r"manifest.json is damaged, and 5 of its shards.*--update"):
        prepare_twelve(images, out, label=1.0)
    assert (out / SHARD).read_bytes() == before
    assert prepare_twelve(images, out, label=1.0, update=True)["decoded"] == 12


HALF_WRITTEN = (".skeleton-ab_c1d2e", ".manifest-ab_c1d2e.json", ".shards-ab_c1d2e.jsonl")
HALF_WRITTEN_OF_A_SPLIT = (
    ".data-00000-of-00003-ab_c1d2e.arrow",
    ".state-ab_c1d2e.json",
    ".dataset_info-ab_c1d2e.json",
)


@pytest.mark.parametrize("finished", [False, True])
def test_unfinished_files_of_a_killed_call_are_removed_and_nothing_else(out, whole, images, tmp_path, finished):
    """They do not make a folder foreign, even if the call had not begun its list of shards."""
    folder = out if finished else tmp_path / "new"
    (folder / "train").mkdir(parents=True, exist_ok=True)
    if not finished:
        (folder / "train").rmdir()
    for name in HALF_WRITTEN:
        (folder / name).mkdir() if name.startswith(".skeleton") else (folder / name).write_text("half")
    if finished:
        (folder / ".skeleton-ab_c1d2e" / "train").mkdir()
        for name in HALF_WRITTEN_OF_A_SPLIT:
            (folder / "train" / name).write_text("half")
        (folder / ".mine-ab_c1d2e.json").write_text("x")
    assert prepare_twelve(images, folder)["decoded"] == (0 if finished else 12)
    if finished:
        assert (folder / ".mine-ab_c1d2e.json").read_text() == "x"
        (folder / ".mine-ab_c1d2e.json").unlink()
    assert content(folder) == content(whole)


def test_a_folder_of_something_else_is_left_alone(images, tmp_path):
    for name, text in (("manifest.json", '{"name": "an app"}'), ("train", None), ("data.arrow", "x")):
        folder = tmp_path / name
        folder.mkdir()
        (folder / name).mkdir() if text is None else (folder / name).write_text(text)
        with pytest.raises(ValueError, match="not a prepared dataset"):
            prepare_twelve(images, folder)
        assert [path.name for path in folder.iterdir()] == [name]


def test_out_may_be_a_link_to_a_folder_but_not_to_nothing_or_through_a_file(images, whole, tmp_path):
    (tmp_path / "disk").mkdir()
    (tmp_path / "link").symlink_to("disk")
    prepare_twelve(images, tmp_path / "link")
    assert content(tmp_path / "disk") == content(whole)
    (tmp_path / "nowhere").symlink_to("gone")
    with pytest.raises(ValueError, match="link to a folder that does not exist"):
        prepare_twelve(images, tmp_path / "nowhere")
    (tmp_path / "file").write_text("x")
    with pytest.raises(OSError, match=r"cannot write in .*file/out"):
        prepare_twelve(images, tmp_path / "file" / "out")
    assert (tmp_path / "file").read_text() == "x"
    assert not (tmp_path / "gone").exists()


def test_the_lock_is_taken_before_anything_is_read(out, images, monkeypatch):
    def read(*args):
        raise AssertionError("read before the lock was taken")

    monkeypatch.setattr(module, "read_manifest", read)
    monkeypatch.setattr(module, "read_shards", read)
    with FileLock(out / ".lock"), pytest.raises(ValueError, match="another process is preparing"):
        prepare_twelve(images, out)


def test_a_folder_that_is_being_written_says_so(out, images):
    (out / "manifest.json").unlink()
    assert "was not prepared completely" in loaded(out)
    with FileLock(out / ".lock"):
        assert "is being prepared by another process" in loaded(out)
        with pytest.raises(FileNotFoundError, match="is being prepared by another process"):
            read_manifest(out)


def test_a_folder_that_is_prepared_again_while_it_is_opened_is_no_mixture(out, images, monkeypatch):
    real = prepared.datasets.load_from_disk

    def slow(folder):
        monkeypatch.setattr(prepared.datasets, "load_from_disk", real)
        prepare_twelve(images, out, label=1.0, update=True)
        return real(folder)

    monkeypatch.setattr(prepared.datasets, "load_from_disk", slow)
    assert "prepared again while it was opened" in loaded(out)
    assert loaded(out)[0]["train"]["labels"][0] == [1.0, 1.0]


def test_a_call_that_fails_before_it_writes_leaves_no_folder(images, tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10**9, 10**9, 0))
    with pytest.raises(OSError, match="not enough disk space"):
        prepare_twelve(images, tmp_path / "new" / "out")
    assert not (tmp_path / "new").exists()


def test_an_image_with_empty_bytes_is_unreadable_and_its_path_is_not_followed(images, tmp_path):
    splits = datasets.DatasetDict(splits_of_twelve(images))
    table = splits["test"].data.table
    empty = pa.array([{"bytes": b"", "path": str(images / "00.png")}, {"bytes": None, "path": str(images / "11.png")}])
    table = table.set_column(table.column_names.index("image"), "image", empty.cast(table["image"].type))
    splits["test"] = datasets.Dataset(table, info=splits["test"].info)
    manifest = prepare(Source(splits, LabelSpace(NAMES), "x"), tmp_path / "out", Recipe(16, 3), unreadable="skip")
    assert [(entry["image_id"], entry["reason"]) for entry in manifest["refused"]] == [("10.png", "the file is empty")]


def test_the_command_verifies_without_a_source_and_training_by_an_option(out, capsys):
    words = [f"--prepared={out}", "--dataset=prepared", "--verify_prepared=true"]
    assert hf_cxr_main(["prepare", "--verify", "--out", str(out)]) == 0
    assert "5 shards" in capsys.readouterr().out
    load_source(parse_arguments(words).data)
    flip(out / SHARD, os.path.getsize(out / SHARD) // 2)
    assert hf_cxr_main(["prepare", "--verify", "--out", str(out)]) == 2
    error = capsys.readouterr().err
    assert SHARD in error
    assert error.count("\n") == 1
    load_source(parse_arguments(words[:2]).data)
    with pytest.raises(ValueError, match=SHARD):
        load_source(parse_arguments(words).data)
    with pytest.raises(SystemExit):
        parse_arguments(["--verify_prepared=true"])


def test_ctrl_c_is_one_line_and_status_130(tmp_path, monkeypatch, capsys):
    def interrupted(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "_write_shard", interrupted)
    phantoms = ["--phantom_train=4", "--phantom_validation=4", "--phantom_test=4", "--phantom_size=64"]
    line = ["prepare", *phantoms, "--resize_size=36", "--image_size=32", "--out", str(tmp_path / "out"), "--workers=1"]
    assert hf_cxr_main(line) == 130
    assert "the same command continues" in capsys.readouterr().err.splitlines()[-1]
