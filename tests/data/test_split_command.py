"""`hf-cxr split`: files written, read and refused; training's splits dealt by them; splits checked."""

import csv
from functools import partial
from pathlib import Path

import datasets
import numpy as np
import pytest
import yaml
from PIL import Image
from test_duplicates import make_image

from hf_cxr.commands import run_command
from hf_cxr.config import parse_arguments
from hf_cxr.data import load_source, split_fingerprint
from hf_cxr.data.split_files import apply_split_file, read_split_file, write_split_file

PATIENTS = 30
FINDINGS = ("Effusion", "Mass")

main = partial(run_command, "split")


def write_source(folder: Path, *, patients: int = PATIENTS, size: int = 64) -> list[str]:
    """A table with images and its own splits, two images a patient; the flags that load it."""
    lines, rows = ["file,patient,Effusion,Mass,split"], []
    (folder / "images").mkdir(parents=True)
    for patient in range(patients):
        side = ("train", "train", "train", "validation", "test")[patient % 5]
        for number in range(2):
            name = f"{patient:04d}_{number}.png"
            Image.fromarray(make_image(2 * patient + number, size)).save(folder / "images" / name)
            rows.append((name, f"{patient:04d}", int(patient % 3 == 0), int(patient % 4 == number), side))
    lines += [",".join(map(str, row)) for row in rows]
    (folder / "table.csv").write_text("\n".join(lines) + "\n")
    description = {
        "name": "small",
        "files": {"all": "table.csv"},
        "image_column": "file",
        "image_root": "images",
        "patient_column": "patient",
        "label_format": "columns",
        "findings": {name: name for name in FINDINGS},
        "split_column": "split",
        "split_values": {name: name for name in ("train", "validation", "test")},
    }
    (folder / "small.yaml").write_text(yaml.safe_dump(description))
    return ["--dataset", "table", "--table", str(folder / "small.yaml"), "--missing_images", "skip"]


@pytest.fixture(scope="module")
def source(tmp_path_factory) -> list[str]:
    return write_source(tmp_path_factory.mktemp("source"))


def load(flags: list[str], *, images: bool = False) -> datasets.DatasetDict:
    return load_source(parse_arguments(flags).data, images=images).splits


def ids_of(splits, column: str = "image_id") -> dict[str, set[str]]:
    return {name: set(split[column][:]) for name, split in splits.items()}


def write_csv(path: Path, rows: list[list], header=("image_id", "patient_id", "split")) -> Path:
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([header, *rows])
    return path


GOOD = [["a1", "a", "train"], ["a2", "a", "train"], ["b1", "b", "validation"], ["c1", "c", "test"]]


def changed(row: int, column: int, value: str) -> list[list[str]]:
    return [[*cells[:column], value, *cells[column + 1 :]] if n == row else cells for n, cells in enumerate(GOOD)]


def test_a_file_reads_as_it_was_written_with_ids_as_text(tmp_path):
    ids, patients, sides = ["007", "07", "7"], ["0012", "012", "1.0"], [0, 2, 1]
    write_split_file(tmp_path / "s.csv", ids, patients, sides, column="fold")
    file = read_split_file(tmp_path / "s.csv")
    assert file.patients == {"007": "0012", "07": "012", "7": "1"}  # text, but a whole number is one id
    assert file.sides == {"007": "0", "07": "2", "7": "1"}
    assert file.folds == 3
    assert file.splits(2) == {"07": "test", "007": "validation", "7": "train"}  # after the last fold comes 0
    content = (tmp_path / "s.csv").read_bytes()
    with_mark = tmp_path / "bom.csv"
    with_mark.write_bytes(b"\xef\xbb\xbf" + content.replace(b"\n", b"\r\n") + b"\r\n")
    assert read_split_file(with_mark).sides == file.sides
    assert read_split_file(with_mark).sha256 != file.sha256


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (changed(1, 0, "a1"), r"an image is listed twice \(1, such as a1\)"),
        ([*GOOD, ["a1", "a", "test"]], r"an image is in two splits \(1, such as a1\)"),
        (changed(1, 2, "test"), r"a patient is in two splits \(1, such as a\)"),
        (changed(2, 1, "nan"), r"rows without patient_id \(1, such as row 3\)"),
        (changed(2, 1, " "), r"rows without patient_id \(1, such as row 3\)"),
        (changed(0, 0, ""), r"rows without image_id \(1, such as row 1\)"),
        (changed(3, 2, "tset"), r"split is not train, validation, test \(1, such as 'tset' of c1\)"),
        (GOOD[:3], "no image in test"),
        ([*GOOD, ["d1", "d"]], "row 5 has 2 cells for 3 columns"),
        ([], "has no rows"),
    ],
)
def test_bad_rows_are_refused(tmp_path, rows, message):
    with pytest.raises(ValueError, match=message) as refusal:
        read_split_file(write_csv(tmp_path / "bad.csv", rows))
    assert "bad.csv" in str(refusal.value)


@pytest.mark.parametrize("sides", ["012x", "123", "001", ["0", "1", "2.5"], ["0", "1", "-1"]])
def test_folds_that_are_not_0_to_n_are_refused(tmp_path, sides):
    rows = [[f"i{n}", f"p{n}", side] for n, side in enumerate(sides)]
    with pytest.raises(ValueError, match=r"folds must be 0, 1, 2, \.\.\. and at least three"):
        read_split_file(write_csv(tmp_path / "bad.csv", rows, header=("image_id", "patient_id", "fold")))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"\n\n", "is empty"),
        (b"image_id,split\na,train\n", "has the columns 'image_id', 'split'; a split file is"),
        (b"image_id,patient_id,split,fold\na,b,train,1\n", "and split or fold"),
        (b"image_id,image_id,patient_id,fold\na,a,b,1\n", "each once"),
        (b"image_id,patient_id,split\n\xff\xfe,b,train\n", "is not a split file .*utf-8"),
        (b'image_id,patient_id,split\n"a,b,train\n', "is not a split file"),
        (b"\x89PNG\r\n\x1a\n\x00\x00", "is not a split file"),
    ],
)
def test_files_that_are_not_split_files_are_refused(tmp_path, content, message):
    path = tmp_path / "bad.csv"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=message):
        read_split_file(path)


def test_a_file_that_could_not_be_read_again_is_not_written(tmp_path):
    with pytest.raises(ValueError, match="a patient is in two folds"):
        write_split_file(tmp_path / "s.csv", ["1", "2", "3"], ["a", "a", "b"], [0, 1, 2], column="fold")
    assert list(tmp_path.iterdir()) == []


def data_of(rows: list[list[str]]) -> datasets.DatasetDict:
    half = len(rows) // 2
    parts = {"train": rows[:half], "test": rows[half:]}
    return datasets.DatasetDict(
        {
            name: datasets.Dataset.from_dict({"image_id": [r[0] for r in part], "patient_id": [r[1] for r in part]})
            for name, part in parts.items()
        }
    )


def test_rows_are_assigned_by_image_id_in_any_order(tmp_path):
    file = read_split_file(write_csv(tmp_path / "s.csv", GOOD[::-1]))
    splits = apply_split_file(data_of(GOOD), file)
    assert ids_of(splits) == {"train": {"a1", "a2"}, "validation": {"b1"}, "test": {"c1"}}
    assert splits["train"]["image_id"][:] == ["a1", "a2"]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (GOOD[:3], r"names images that are not in the data \(1, such as c1\)"),
        ([*GOOD, ["d1", "d", ""]], r"does not list images that the data have \(1, such as d1\)"),
        (changed(3, 1, "x"), r"patients differ from the data's \(1, such as c1: c in the file, x in the data\)"),
        (changed(3, 1, "00c"), r"leading zeros \(a spreadsheet removes them\)"),
        (
            changed(3, 0, "C1"),
            r"not in the data \(1, such as c1\): 1 differ only in their spelling \(c1 in the file, C1 in the",
        ),
    ],
)
def test_a_file_of_other_data_is_refused(tmp_path, data, message):
    with pytest.raises(ValueError, match=message):
        apply_split_file(data_of(data), read_split_file(write_csv(tmp_path / "s.csv", GOOD)))


def test_missing_images_are_checked_against_the_list(tmp_path):
    file = read_split_file(write_csv(tmp_path / "s.csv", GOOD))
    at_hand = data_of([GOOD[0], GOOD[2], GOOD[3]])
    assert ids_of(apply_split_file(at_hand, file, listed=data_of(GOOD)))["train"] == {"a1"}
    with pytest.raises(ValueError, match="names images that are not in the data"):
        apply_split_file(at_hand, file)
    with pytest.raises(ValueError, match="none of the available images in validation"):
        apply_split_file(data_of([GOOD[0], GOOD[3]]), file, listed=data_of(GOOD))


def test_split_writes_what_training_reads(source, tmp_path, capsys):
    out = tmp_path / "s.csv"
    assert main([*source, "--out", str(out), "--fractions", "0.5", "0.2", "0.3", "--seed", "1"]) == 0
    said = capsys.readouterr().out
    assert f"train on it with --split_file {out}" in said
    splits = load([*source, "--split_file", str(out)])
    assert {name: len(split) for name, split in splits.items()} == {"train": 30, "validation": 12, "test": 18}
    assert f"fingerprint {split_fingerprint(splits)}" in said
    own = load(source)
    assert set.union(*ids_of(splits).values()) == set.union(*ids_of(own).values())
    assert split_fingerprint(splits) != split_fingerprint(own)
    assert main([*source, "--out", str(out)]) == 2
    assert "already exists" in capsys.readouterr().err
    main([*source, "--out", str(tmp_path / "again.csv"), "--fractions", "0.5", "0.2", "0.3", "--seed", "1"])
    assert (tmp_path / "again.csv").read_bytes() == out.read_bytes()
    main([*source, "--out", str(tmp_path / "other.csv"), "--fractions", "0.5", "0.2", "0.3", "--seed", "2"])
    assert (tmp_path / "other.csv").read_bytes() != out.read_bytes()


def test_each_fold_is_test_once_and_validation_once(source, tmp_path, capsys):
    out = tmp_path / "k.csv"
    assert main([*source, "--out", str(out), "--folds", "4"]) == 0
    assert "--fold 0" in capsys.readouterr().out
    dealt = [ids_of(load([*source, "--split_file", str(out), "--fold", str(fold)])) for fold in range(4)]
    for fold, splits in enumerate(dealt):
        assert splits["validation"] == dealt[(fold + 1) % 4]["test"]
        assert not splits["train"] & (splits["test"] | splits["validation"])
    assert len(set.union(*(splits["test"] for splits in dealt))) == sum(len(splits["test"]) for splits in dealt) == 60
    for flags, message in (([], "choose the test set with --fold"), (["--fold", "4"], "has folds 0 to 3")):
        with pytest.raises(ValueError, match=message):
            load([*source, "--split_file", str(out), *flags])


def test_a_fold_of_a_file_without_folds_is_refused(source, tmp_path):
    main([*source, "--out", str(tmp_path / "s.csv")])
    with pytest.raises(ValueError, match="has splits, not folds: leave --fold 1 out"):
        load([*source, "--split_file", str(tmp_path / "s.csv"), "--fold", "1"])


def test_a_partial_copy_keeps_the_files_assignment(tmp_path):
    flags = write_source(tmp_path / "source")
    out = tmp_path / "s.csv"
    main([*flags, "--out", str(out)])
    whole = ids_of(load([*flags, "--split_file", str(out)]))
    for name in ("0001_0.png", "0007_1.png"):
        (tmp_path / "source" / "images" / name).unlink()
    args = parse_arguments([*flags, "--split_file", str(out)]).data
    source = load_source(args)
    part = ids_of(source.splits)
    assert sum(map(len, part.values())) == 58
    assert all(part[name] <= whole[name] for name in whole)
    assert source.missing == {name: len(whole[name] - part[name]) for name in whole if whole[name] != part[name]}


def test_the_origin_of_splits_is_recorded(source, tmp_path):
    main([*source, "--out", str(tmp_path / "k.csv"), "--folds", "3"])
    args = parse_arguments([*source, "--split_file", str(tmp_path / "k.csv"), "--fold", "2"])
    origin = load_source(args.data).split_origin
    digest = read_split_file(tmp_path / "k.csv").sha256
    assert origin["split_file"] == {"name": "k.csv", "sha256": digest, "fold": 2}
    assert origin["splits_from"] == f"split file k.csv (SHA-256 {digest[:16]}), fold 2 of 3 as test"
    own = load_source(parse_arguments(source).data).split_origin
    assert own["splits_from"].startswith("the table's own")
    assert own["split_file"] is None


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ([], "give either --out FILE.csv, to write a split, or --check"),
        (["--check", "--out", "s.csv"], "give either"),
        (["--check", "--folds", "3"], "need --out"),
        (["--out", "s.csv", "--images"], "--images needs --check"),
        (["--out", "s.csv", "--folds", "2"], "--folds is 2; it must be 3 or more"),
        (["--out", "s.csv", "--folds", "3", "--fractions", "0.5", "0.2", "0.3"], "not allowed with"),
        (["--check", "--split_file", "nowhere.csv"], "--split_file nowhere.csv does not exist"),
        (["--check", "--fold", "1"], "--fold 1 needs --split_file"),
    ],
)
def test_flags_that_do_not_go_together(flags, message, capsys):
    with pytest.raises(SystemExit) as stop:
        main(flags)
    assert stop.value.code == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--folds", "31"], "folds is 31; it must be from 2 to the number of patients, 30"),
        (["--fractions", "0.7", "0.2", "0.2"], "fractions must be two or more above 0 that sum to 1"),
        (["--train_limit", "5"], "train_limit and shuffle_labels are for training"),
    ],
)
def test_splits_that_cannot_be_made_are_one_line(source, tmp_path, capsys, flags, message):
    assert main([*source, "--out", str(tmp_path / "s.csv"), *flags]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "s.csv").exists()


def test_check_counts_and_accepts_disjoint_splits(source, capsys):
    assert main(["--check", *source]) == 0
    said = capsys.readouterr().out
    for line in (
        r"images .* 36 .* 12 .* 12",
        r"patients .* 18 .* 6 .* 6",
        "positive: Mass",
        "largest shift of test: ",
        f"fingerprint {split_fingerprint(load(source))}",
        "no patient and no image id is in two splits",
        "images were not compared",
    ):
        assert all(part in said for part in line.split(" .* ")), line
    assert main(["--check", "--images", *source]) == 0
    assert "images that repeat one of another split: 0; of their own split: 0" in capsys.readouterr().out


def test_check_names_images_that_two_splits_share(tmp_path, capsys):
    flags = write_source(tmp_path / "source")
    images = tmp_path / "source" / "images"
    (images / "0004_0.png").write_bytes((images / "0000_0.png").read_bytes())  # test and train
    Image.open(images / "0001_1.png").resize((200, 200)).save(images / "0003_1.png")  # validation and train
    (images / "0005_0.png").write_bytes((images / "0005_1.png").read_bytes())  # train and train
    assert main(["--check", *flags]) == 0
    capsys.readouterr()
    assert main(["--check", "--images", *flags]) == 2
    said = capsys.readouterr()
    assert "repeat one of another split: 2; of their own split: 1" in said.out
    assert "0005_1.png (train) is byte for byte 0005_0.png (train)" in said.out
    assert "2 images are also in another split" in said.err
    assert "0004_0.png (test) is byte for byte 0000_0.png (train)" in said.err
    assert "0003_1.png (validation) is, but for" in said.err


def test_check_compares_a_prepared_set_without_reading_it(source, capsys, monkeypatch):
    """A prepared data set brings the columns file_sha256 and perceptual_hash."""
    flags = source
    source = load_source(parse_arguments(flags).data, images=False)
    prepared = datasets.DatasetDict(
        {
            name: split.add_column("file_sha256", split["image_id"][:]).add_column(
                "perceptual_hash", [f"{number:0256x}" for number in range(len(split))]
            )
            for name, split in source.splits.items()
        }
    )
    monkeypatch.setattr("hf_cxr.data.load_source", lambda *_, **__: source.with_splits(prepared))
    assert main(["--check", *flags]) == 2
    assert "is, but for 0 of 1024 bits," in capsys.readouterr().err


def test_check_names_shared_patients(tmp_path, capsys):
    flags = write_source(tmp_path / "source")
    table = tmp_path / "source" / "table.csv"
    table.write_text(table.read_text().replace("0000_1.png,0000,1,0,train", "0000_1.png,0000,1,0,test"))
    assert main(["--check", *flags]) == 2
    assert "train and test share 1 patient, such as 0000" in capsys.readouterr().err


def test_a_finding_without_a_training_image_is_named(source, tmp_path, capsys):
    splits = load(source)
    whole = datasets.concatenate_datasets(list(splits.values()))
    ill = np.array(whole["labels"])[:, 0] == 1
    sides = np.where(ill, "test", "train").astype(object)
    sides[np.flatnonzero(~ill)[:2]] = "validation"  # of one patient
    path = tmp_path / "s.csv"
    write_split_file(path, whole["image_id"][:], whole["patient_id"][:], sides.tolist(), column="split")
    assert main(["--check", *source, "--split_file", str(path)]) == 0
    assert "! train: no positive image of Effusion: it cannot be learnt" in capsys.readouterr().out
