"""`Source`: what every kind of dataset gives, which options each takes, and that a new kind is one table line."""

import dataclasses

import datasets
import pandas as pd
import pytest

from hf_cxr.arguments.data import DATA_PATHS, SOURCE_OPTIONS, DataArguments
from hf_cxr.data import split_fingerprint
from hf_cxr.data.manifest import Recipe
from hf_cxr.data.schema import features
from hf_cxr.data.sources import SOURCES, Kind, Source, load_source
from hf_cxr.data.split_files import write_split_file
from hf_cxr.labels import LabelSpace

LABELS = LabelSpace(("Mass", "Nodule"))
ROWS = {"train": 6, "validation": 3, "test": 3}


def toy_split(name, rows):
    columns = {
        "labels": [[float(row % 2), 0.0] for row in range(rows)],
        "image_id": [f"{name}-{row}" for row in range(rows)],
        "patient_id": [f"{name}-{row}" for row in range(rows)],
        "view": ["PA"] * rows,
        "age": [40.0] * rows,
        "sex": ["F"] * rows,
        "boxes": [[]] * rows,
    }
    return datasets.Dataset.from_dict(columns, features(LABELS, images=False))


def load_toy(args, *, images):
    """The last validation image and the last two test images are listed and not there."""
    listed = datasets.DatasetDict({name: toy_split(name, rows) for name, rows in ROWS.items()})
    gone = {"train": 0, "validation": 1, "test": 2}
    splits = datasets.DatasetDict(
        {name: split.select(range(ROWS[name] - gone[name])) for name, split in listed.items()}
    )
    return Source(splits, LABELS, name=f"toy at {args.data_root}", listed=listed)


@pytest.fixture
def toy(monkeypatch):
    monkeypatch.setitem(SOURCES, "toy", Kind(help="a toy", options=("data_root",), load=load_toy))


def test_a_new_kind_needs_no_more_than_its_line_of_the_table(toy):
    source = load_source(DataArguments(dataset="toy", data_root="/toys"))
    assert source.name == "toy at /toys"
    assert source.labels == LABELS
    assert source.missing == {"validation": 1, "test": 2}
    assert source.fingerprint == split_fingerprint(source.splits)
    limited = load_source(DataArguments(dataset="toy", data_root="/toys", train_limit=2))
    assert len(limited.splits["train"]) == 2
    assert limited.fingerprint != source.fingerprint


def test_a_split_file_re_splits_every_listed_image(toy, tmp_path):
    place = tmp_path / "split.csv"
    ids = [f"{name}-{row}" for name, rows in ROWS.items() for row in range(rows)]
    sides = [("train", "validation", "test")[number % 3] for number in range(len(ids))]
    write_split_file(place, ids, ids, sides, column="split")
    source = load_source(DataArguments(dataset="toy", data_root="/toys", split_file=str(place)))
    here = {name: set(split["image_id"][:]) for name, split in source.splits.items()}
    wanted = {name: {image for image, side in zip(ids, sides, strict=True) if side == name} for name in here}
    assert {name: len(wanted[name] - here[name]) for name in here if wanted[name] != here[name]} == source.missing
    assert sum(source.missing.values()) == 3
    assert source.split_origin["split_file"]["name"] == "split.csv"


def test_images_that_nobody_lists_are_removed_and_listed_ones_are_missing(toy):
    source = load_source(DataArguments(dataset="toy", data_root="/toys"))
    assert source.removed([("test", "test-2"), ("test", "elsewhere"), ("validation", "validation-2")]) == {"test": 1}
    counted = dataclasses.replace(source, listed=None, missing={"test": 1})  # a prepared folder knows numbers alone
    assert counted.removed([("test", "a"), ("test", "b")]) == {"test": 1}


def test_pixels_of_another_recipe_are_refused():
    source = Source(datasets.DatasetDict(), LABELS, "any")
    source.check_pixels(32, 3)
    prepared = dataclasses.replace(source, recipe=Recipe(32, 3))
    prepared.check_pixels(32, 3)
    for size, resample in ((36, 3), (32, 2)):
        with pytest.raises(ValueError, match=f"needs size {size}, resample {resample}"):
            prepared.check_pixels(size, resample)


def test_every_option_of_a_kind_exists_and_every_place_belongs_to_a_kind_or_to_all():
    keys = {field.name for field in dataclasses.fields(DataArguments)}
    assert keys >= SOURCE_OPTIONS
    assert set(DATA_PATHS) - SOURCE_OPTIONS == {"data_root"}  # of kinds to come


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"dataset": "tabel"}, "did you mean table"),
        ({"dataset": "nih"}, "needs --nih_root"),
        ({"dataset": "prepared"}, "needs --prepared"),
        ({"dataset": "nih", "nih_root": "/nih", "table_root": "/data"}, "--table_root .* add --dataset table"),
        ({"verify_prepared": True}, "--verify_prepared .* add --dataset prepared"),
        ({"phantom_size": 31}, "phantom_size is 31"),
        ({"phantom_test": 0}, "phantom_test is 0; it must be at least 1"),
        ({"phantom_seed": 2**32}, "phantom_seed"),
        ({"phantom_prevalence_floor": 0.31}, "between 0 and 0.3"),
    ],
)
def test_options_are_checked_by_the_kind(keys, message):
    with pytest.raises(ValueError, match=message):
        DataArguments(**keys)


def test_options_of_another_dataset_are_allowed():
    """The config.yaml of every run has them, whatever its dataset."""
    assert DataArguments(dataset="nih", nih_root="/nih", phantom_train=3200, phantom_prevalence_floor=0.05)


def test_a_table_is_read_once_though_images_are_missing(tmp_path, monkeypatch):
    from PIL import Image

    names = [f"{split}{number}" for split in ("train", "validation", "test") for number in (0, 1)]
    rows = [f"{name}.png,{name},{name[:-1]},1" for name in names]
    (tmp_path / "rows.csv").write_text("\n".join(["Path,Patient,split,Mass", *rows]))
    (tmp_path / "table.yaml").write_text(
        "files: {all: rows.csv}\nimage_column: Path\npatient_column: Patient\nsplit_column: split\nfindings: [Mass]\n"
        "source: somebody's terms\n"
    )
    for name in names[:-1]:
        Image.new("L", (8, 8)).save(tmp_path / f"{name}.png")
    read, reads = pd.read_csv, []
    monkeypatch.setattr(pd, "read_csv", lambda *args, **options: (reads.append(options), read(*args, **options))[1])
    args = DataArguments(dataset="table", table=str(tmp_path / "table.yaml"), missing_images="skip")
    source = load_source(args)
    assert source.missing == {"test": 1}
    assert source.removed([("test", "test1.png"), ("test", "test2.png")]) == {"test": 1}
    assert source.licence_note == "somebody's terms"
    assert sum("nrows" not in options for options in reads) == 1  # and once more for the header alone
