"""At the door: what is refused before the first step; and at the end: a run is finished though images were lost."""

import dataclasses
import io
import json
import logging

import datasets
import numpy as np
import pytest
import yaml
from decoding import check_image, check_images
from PIL import Image
from tiny import SWIN

from hf_cxr.commands import main
from hf_cxr.config import CONFIGS, parse_arguments
from hf_cxr.data import DecodedImages, load_source
from hf_cxr.data.images.checks import inspect_images
from hf_cxr.data.images.grey import ImageError, read_grey
from hf_cxr.data.images.sound_files import SoundFiles
from hf_cxr.labels import LabelSpace
from hf_cxr.run.preflight import check_labels, check_run_data, image_errors_explained

FINDINGS = ("Mass", "Effusion")
SPLITS = {"train": 12, "validation": 6, "test": 6}


def write_table(folder, *, suffix="png", labels=None, patients=None, splits=SPLITS):
    """A table of two findings, an image a patient, with both values of each finding in each split."""
    rng = np.random.default_rng(0)
    lines = ["Path,Patient,Mass,Effusion,split"]
    (folder / "img").mkdir(parents=True)
    for split, count in splits.items():
        for i in range(count):
            name = f"img/{split}{i}.{suffix}"
            Image.fromarray(rng.integers(0, 256, (36, 40), dtype=np.uint8)).save(folder / name)
            cells = (labels or {}).get(split, lambda i: (i % 2, i // 2 % 2))(i)
            patient = (patients or {}).get(split, lambda i, split=split: f"{split}{i}")(i)
            lines.append(",".join(map(str, (name, patient, *cells, split))))
    (folder / "table.csv").write_text("\n".join(lines) + "\n")
    description = {"files": "table.csv", "split_column": "split", "image_column": "Path", "patient_column": "Patient"}
    (folder / "t.yaml").write_text(yaml.safe_dump(description | {"findings": list(FINDINGS)}))
    return folder / "t.yaml"


def words(table, *flags):
    settings = SWIN | {
        "dataset": "table",
        "table": table,
        "num_train_epochs": 1,
        "per_device_train_batch_size": 4,
        "bootstrap_resamples": 10,
        "disable_tqdm": True,
        "loss": "bce",
    }
    small = SWIN["model_kwargs"] | {"depths": [1], "num_heads": [1], "drop_path_rate": 0.0}
    settings |= {"model_kwargs": json.dumps(small)}
    line = [str(word) for key, value in settings.items() for word in (f"--{key}", value)]
    return [*line, *map(str, flags)]


def at_the_door(table, *flags):
    args = parse_arguments(words(table, *flags))
    used, left_out = check_run_data(args, load_source(args.data))
    return used.splits, left_out


@pytest.fixture(autouse=True)
def own_memory(tmp_path_factory, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HOME", str(tmp_path_factory.mktemp("home")))


def encode(image, kind, **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


SMOOTH = Image.fromarray(np.random.default_rng(0).integers(0, 256, (20, 20), dtype=np.uint8)).resize((90, 110))
WIDE = Image.fromarray(np.asarray(SMOOTH).astype(np.uint16) * 200)
KINDS = {
    "PNG": {},
    "JPEG": {},
    "JPEG progressive": {"progressive": True},
    "TIFF": {},
    "TIFF lzw": {"compression": "tiff_lzw"},
    "GIF": {},
    "BMP": {},
    "WEBP": {},
    "PPM": {},
    "JPEG2000": {},
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", KINDS)
def test_no_image_that_decoding_refuses_passes_the_check(kind):
    """Cuts at 20 points and flipped bits: what the check lets through can be read, and a cut never shows in pixels."""
    whole = encode(SMOOTH, kind.split()[0], **KINDS[kind])
    pixels = read_grey(whole)
    assert check_image(whole) is None
    assert check_image(whole + b"\0" * 64) is None, "padding after the end is harmless"
    rng = np.random.default_rng(1)
    for position in np.linspace(1, len(whole) - 20, 20).astype(int):
        assert check_image(whole[:position]) is not None
    for position in rng.integers(0, len(whole), 40):
        flipped = bytearray(whole)
        flipped[position] ^= 1 << int(rng.integers(8))
        if check_image(bytes(flipped)) is None:
            assert read_grey(bytes(flipped)).ndim == 2
    assert np.ptp(pixels) > 0


def test_a_truncated_jpeg_in_test_is_refused_before_training(tmp_path, capsys):
    table = write_table(tmp_path, suffix="jpg")
    broken = tmp_path / "img" / "test3.jpg"
    broken.write_bytes(broken.read_bytes()[:-40])
    assert main(["train", str(CONFIGS / "quickstart.yaml"), *words(table, "--output_dir", tmp_path / "run")]) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert "1 of 24 image files cannot be read" in error
    assert "test3.jpg" in error
    assert "truncated" in error
    assert "--unreadable_images skip" in error
    assert not list((tmp_path / "run").glob("checkpoint-*"))


def test_an_error_at_the_end_names_the_option():
    with (
        pytest.raises(ValueError, match=r"a\.png: cut.*--unreadable_images skip"),
        image_errors_explained(),
    ):
        raise ImageError("a.png", "cut")


def test_an_error_from_a_worker_process_is_one_line():
    """As torch makes it again: from a text with the whole traceback in it."""
    last = "hf_cxr.data.images.grey.ImageError: cannot read a: b"
    text = f'Caught ImageError in worker 0.\nTraceback:\n  File "x"\n{last}\n'
    assert str(ImageError(text)) == "cannot read a: b"


def test_a_row_that_is_left_out_keeps_its_place_and_takes_part_in_nothing(tmp_path):
    splits = load_source(parse_arguments(words(write_table(tmp_path))).data).splits
    plain, without = (DecodedImages(splits["train"], 36, 2, left_out=rows) for rows in ((), (3,)))
    assert len(plain) == len(without) == 12
    assert np.isnan(without[3]["labels"]).all()
    assert not without[3]["pixels"].any()
    for row in (2, 4):
        np.testing.assert_array_equal(plain[row]["pixels"], without[row]["pixels"])
        np.testing.assert_array_equal(plain[row]["labels"], without[row]["labels"])
    assert plain[3]["pixels"].any()


def test_images_inside_a_parquet_table_are_checked_too(tmp_path):
    good = encode(SMOOTH, "JPEG")
    column = [{"bytes": good, "path": None}, {"bytes": good[:-30], "path": None}]
    split = datasets.Dataset.from_dict({"image": column, "image_id": ["a", "b"]}).cast_column(
        "image", datasets.Image()
    )
    with pytest.raises(ValueError, match=r"1 of 2 .*: b: .*truncated"):
        check_images({"test": split})


def counted(monkeypatch):
    """Names of the images that are decoded from here on."""
    decoded = []

    def count(source, **options):
        decoded.append(options["name"])
        return read_grey(source, **options)

    monkeypatch.setattr("hf_cxr.data.images.checks.read_grey", count)
    return decoded


def test_what_was_sound_is_not_decoded_again_until_it_changes(tmp_path, monkeypatch):
    splits = load_source(parse_arguments(words(write_table(tmp_path))).data).splits
    memory, decoded = tmp_path / "home" / "sound", counted(monkeypatch)
    broken = tmp_path / "img" / "test1.png"
    content = broken.read_bytes()
    broken.write_bytes(content[:100])
    first = inspect_images(splits, SoundFiles(memory), full=True)
    SoundFiles(memory).add(first.sound)
    assert (len(decoded), first.count, first.images) == (24, 1, 24)
    again = inspect_images(splits, SoundFiles(memory), full=True)
    assert [name.rpartition("/")[2] for name in decoded[24:]] == ["test1.png"]
    assert again.unreadable["test"].keys() == {1}
    broken.write_bytes(content)
    image = tmp_path / "img" / "train0.png"
    image.write_bytes(image.read_bytes() + b"\0")  # another size
    fixed = inspect_images(splits, SoundFiles(memory), full=True)
    assert {name.rpartition("/")[2] for name in decoded[25:]} == {"test1.png", "train0.png"}
    assert fixed.count == 0


def test_processes_share_the_images_and_together_see_all(tmp_path, monkeypatch):
    splits = load_source(parse_arguments(words(write_table(tmp_path))).data).splits
    (tmp_path / "img" / "train11.png").write_bytes(b"")
    (tmp_path / "img" / "test0.png").write_bytes(b"")
    decoded = counted(monkeypatch)
    parts = [inspect_images(splits, full=True, processes=5, process=process) for process in range(5)]
    assert len(decoded) == len(set(decoded)) == 24
    whole = parts[0]
    for part in parts[1:]:
        whole.add(part)
    assert {name: set(errors) for name, errors in whole.unreadable.items()} == {"train": {11}, "test": {0}}
    assert whole.images == 24


def test_validation_without_both_values_cannot_choose_by_auc(tmp_path, caplog):
    table = write_table(tmp_path, labels={"validation": lambda i: (0, 0)})
    for metric in ("auc", "ap"):
        with pytest.raises(ValueError, match=rf"validation has no finding with both.*{metric}.*best_model loss"):
            at_the_door(table, "--metric_for_best_model", metric)
    with caplog.at_level(logging.WARNING):
        at_the_door(table, "--metric_for_best_model", "loss")
        at_the_door(table, "--load_best_model_at_end", "false")
    assert "validation has one label value only of Mass, Effusion" in caplog.text


def test_validation_without_a_known_label_cannot_choose_at_all(tmp_path):
    table = write_table(tmp_path, labels={"validation": lambda i: ("", "")})
    with pytest.raises(ValueError, match="validation has no known label"):
        at_the_door(table, "--metric_for_best_model", "loss")


@pytest.mark.parametrize("split", ["validation", "test"])
def test_one_patient_has_no_interval(tmp_path, split):
    table = write_table(tmp_path, patients={split: lambda i: "only"})
    with pytest.raises(ValueError, match=f"{split} has images of 1 patient"):
        at_the_door(table)
    at_the_door(table, "--measure_test", "false")


def test_a_test_set_without_labels_is_refused_and_one_without_positives_is_reported(tmp_path, caplog):
    table = write_table(tmp_path / "a", labels={"test": lambda i: ("", "")})
    with pytest.raises(ValueError, match="test has no known label"):
        at_the_door(table)
    at_the_door(table, "--measure_test", "false")
    table = write_table(tmp_path / "b", labels={"test": lambda i: (0, "")})
    with caplog.at_level(logging.WARNING):
        at_the_door(table)
    assert "test has one label value only of Mass" in caplog.text
    assert "test has no known label of Effusion" in caplog.text


def test_a_split_that_nothing_is_left_of_is_refused(tmp_path):
    table = write_table(tmp_path)
    for path in (tmp_path / "img").glob("test*"):
        path.write_bytes(b"")
    with pytest.raises(ValueError, match="test: no image is left"):
        at_the_door(table, "--unreadable_images", "skip")
    for path in (tmp_path / "img").glob("train*"):
        path.write_bytes(b"")
    with pytest.raises(ValueError, match="train: no image is left"):
        at_the_door(table, "--unreadable_images", "skip")


def test_labels_are_checked_again_after_images_were_left_out(tmp_path):
    table = write_table(tmp_path, labels={"validation": lambda i: (int(i == 0), 0)})
    (tmp_path / "img" / "validation0.png").write_bytes(b"")
    with pytest.raises(ValueError, match="validation has no finding with both"):
        at_the_door(table, "--unreadable_images", "skip")


def test_a_sound_table_passes_without_a_word(tmp_path, caplog):
    args = parse_arguments(words(write_table(tmp_path)))
    source = load_source(args.data)
    with caplog.at_level(logging.WARNING):
        check_labels(args, source.splits, source.labels)
        same, left_out = check_run_data(args, source)
    assert (same, left_out, caplog.text) == (source, {}, "")
    assert dataclasses.asdict(args.data)["unreadable_images"] == "error"


@pytest.mark.parametrize("name", ["two\nlines", "tab\t", "\x00", "\ud800", " ", "line\N{LINE SEPARATOR}", ""])
def test_a_finding_name_that_breaks_a_table_or_fits_no_file_is_refused(name):
    with pytest.raises(ValueError, match="finding name"):
        LabelSpace(("Mass", name))
    assert LabelSpace((r"$\frac{$", "a|b", "<b>", "\N{LUNGS} 肺")).index("a|b") == 1
