"""Batches from the memory map: the pixels, labels and errors of single rows, however the rows were chosen."""

import logging
import pickle

import datasets
import numpy as np
import pytest
import torch
from PIL import Image
from prepared_folders import RECIPE, prepare_thirty, splits_of_thirty, write_thirty
from torch.utils.data import DataLoader, Subset

from hf_cxr.data import DecodedImages
from hf_cxr.data import prepare as module
from hf_cxr.data.images.grey import ImageError
from hf_cxr.data.images.mapped import MappedImages, pgm_header
from hf_cxr.data.schema import features
from hf_cxr.data.sources.prepared import SOURCE_COLUMNS, load_prepared
from hf_cxr.processing import collate
from hf_cxr.sampling import RepeatedRows

SIZE = RECIPE.size


@pytest.fixture(scope="module")
def splits(tmp_path_factory):
    """The thirty images, as files."""
    return splits_of_thirty(write_thirty(tmp_path_factory.mktemp("thirty") / "images"))


@pytest.fixture(scope="module")
def folder(splits, tmp_path_factory):
    """The thirty images, prepared in shards of six; not to be changed."""
    out = tmp_path_factory.mktemp("prepared") / "out"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "SHARD_BYTES", 6 * (SIZE**2 + 512))
        prepare_thirty(splits, out)
    return out


@pytest.fixture(scope="module")
def train(folder):
    split = load_prepared(folder)[0]["train"]
    assert len(split) == 20
    assert len(split.data.column("image").chunks) > 1
    return split


def opened(split, **options):
    return DecodedImages(split, SIZE, RECIPE.resample, **options)


def assert_same(actual, expected):
    assert list(actual) == ["pixel_values", "labels", "row"]
    for name in ("pixel_values", "labels"):
        assert actual[name].dtype == expected[name].dtype
        np.testing.assert_array_equal(actual[name].numpy(), expected[name].numpy())
        assert actual[name].is_contiguous()
    np.testing.assert_array_equal(actual["row"], expected["row"])
    assert isinstance(actual["row"], np.ndarray)


def one_by_one(images, rows):
    return collate([images[row] for row in rows])


VIEWS = {
    "whole": lambda split: split,
    "from the middle on": lambda split: split.select(range(7, 20)),
    "in another order": lambda split: split.shuffle(seed=1),
    "of that, some, one of them twice": lambda split: split.shuffle(seed=1).select([3, 0, 11, 3, 19]),
    "one after another": lambda split: datasets.concatenate_datasets([split.select(range(12, 20)), split]),
    "with another column": lambda split: split.remove_columns("image_id").add_column("image_id", ["x"] * len(split)),
    "in memory": lambda split: datasets.Dataset.from_dict(
        split.cast_column("image", datasets.Image(decode=False))[:], split.features
    ),
}


@pytest.mark.parametrize("view", VIEWS.values(), ids=VIEWS)
def test_a_batch_is_its_rows(train, view):
    images = opened(view(train))
    assert images.mapped is not None
    rows = np.random.default_rng(0).permutation(len(images)).tolist()
    batch = images.__getitems__(rows)
    assert_same(batch, one_by_one(images, rows))
    assert batch["pixel_values"].float().std() > 10
    assert_same(collate(batch), batch)
    assert_same(images.__getitems__([2, 2]), one_by_one(images, [2, 2]))


def test_the_pixels_are_those_of_the_files(splits, train):
    raw, ready = opened(splits["train"]), opened(train)
    rows = list(range(len(raw)))
    assert raw.mapped is None
    assert isinstance(raw.__getitems__(rows), list)
    assert_same(ready.__getitems__(rows), collate(raw.__getitems__(rows)))


def test_rows_that_are_left_out_are_black_and_unknown(train):
    images = opened(train, left_out=(3, 5))
    rows = [5, 4, 3]
    batch = images.__getitems__(rows)
    assert_same(batch, one_by_one(images, rows))
    assert batch["labels"].isnan().all(dim=1).tolist() == [True, False, True]
    assert batch["pixel_values"].float().flatten(1).any(dim=1).tolist() == [False, True, False]


@pytest.mark.parametrize("workers", [0, 2])
def test_a_loader_gives_each_row_once_and_repetitions_their_numbers(train, workers):
    images = opened(train)
    indices = [0, 21, 5, 45, 19, 39]  # row + 20 * repetition
    loader = DataLoader(
        RepeatedRows(images),
        batch_size=4,
        sampler=indices,
        collate_fn=collate,
        num_workers=workers,
        persistent_workers=workers > 0,
    )
    for _ in range(2):
        batches = list(loader)
        assert [batch["row"].tolist() for batch in batches] == [indices[:4], indices[4:]]
        for batch in batches:
            expected = one_by_one(images, [index % 20 for index in batch["row"].tolist()])
            assert_same(batch, expected | {"row": batch["row"]})
    share = Subset(images, [4, 9, 14])  # of one process
    assert_same(next(iter(DataLoader(share, batch_size=3, collate_fn=collate))), one_by_one(images, [4, 9, 14]))


def test_repetitions_of_rows_that_have_no_batches():
    single = RepeatedRows([{"row": 0, "pixels": "a"}, {"row": 1, "pixels": "b"}])
    assert single.__getitems__([3, 0]) == [{"row": 3, "pixels": "b"}, {"row": 0, "pixels": "a"}]


def test_repetitions_of_files_are_rows_of_their_own(splits):
    rows = RepeatedRows(opened(splits["train"]))
    assert_same(collate(rows.__getitems__([23, 3])), collate([rows[23], rows[3]]))


def test_another_process_gets_names_of_files_and_not_images(train):
    images = opened(train)
    before = images.__getitems__([0, 19])
    content = pickle.dumps(images)
    assert len(content) < 20 * SIZE**2 / 2
    assert_same(pickle.loads(content).__getitems__([0, 19]), before)


def test_batches_share_no_memory(train):
    images = opened(train)
    first = images.__getitems__([0, 1])
    kept = first["pixel_values"].clone()
    second = images.__getitems__([2, 3])
    second["pixel_values"].zero_()
    first["labels"].zero_()
    assert torch.equal(first["pixel_values"], kept)
    assert_same(images.__getitems__([0, 1]), one_by_one(images, [0, 1]))


def test_rows_out_of_range_are_refused(train):
    images = opened(train)
    for rows in ([0, 20], [-1, 0]):
        with pytest.raises(IndexError, match="of 20"):
            images.__getitems__(rows)


def split_of(*contents):
    """A prepared split whose images are these bytes."""
    schema = datasets.Features({**features(("Effusion",)), **SOURCE_COLUMNS})
    row = dict.fromkeys(schema) | {"patient_id": "p", "boxes": [], "labels": [1.0]}
    rows = [{**row, "image_id": f"r{n}", "image": {"bytes": b, "path": None}} for n, b in enumerate(contents)]
    return datasets.Dataset.from_list(rows, schema)


def stored(level, header=None):
    return (pgm_header(SIZE) if header is None else header) + bytes([level]) * SIZE**2


DAMAGED = {
    "cut short": stored(9)[:-5],
    "of another kind": b"XX" + stored(9)[2:],
    "empty": b"",
    "no image": b"text",
}


@pytest.mark.parametrize("content", DAMAGED.values(), ids=DAMAGED)
def test_a_damaged_image_is_the_error_of_its_row(content):
    split = split_of(stored(7), stored(8), content, stored(9))
    images = opened(split)
    with pytest.raises(ImageError) as alone:
        images[2]
    with pytest.raises(ImageError) as caught:
        images.__getitems__([0, 2, 1])
    assert str(caught.value) == str(alone.value)
    assert str(caught.value).startswith("cannot read r2: ")
    assert_same(images.__getitems__([0, 3, 1]), one_by_one(images, [0, 3, 1]))
    kept = opened(split, left_out=(2,))
    assert kept.__getitems__([2])["labels"].isnan().all()
    assert not kept.__getitems__([2])["pixel_values"].any()


def test_a_damaged_shard_on_the_disk_is_the_error_of_its_row(folder, tmp_path):
    path = folder / "train" / "data-00000-of-00004.arrow"
    content = bytearray(path.read_bytes())
    place = content.index(pgm_header(SIZE), content.index(pgm_header(SIZE)) + 1)
    content[place : place + 2] = b"XX"
    (tmp_path / "damaged.arrow").write_bytes(content)
    images = opened(datasets.Dataset.from_file(str(tmp_path / "damaged.arrow")))
    assert len(images.__getitems__([0, 2])["row"]) == 2
    with pytest.raises(ImageError, match=r"cannot read .*: not an image of a known format"):
        images.__getitems__([0, 1])


def test_images_in_another_form_are_decoded_and_that_is_said_once(caplog):
    def png(level):
        image = Image.fromarray(np.full((SIZE, SIZE), level, np.uint8))
        return datasets.Image().encode_example(image)["bytes"]

    caplog.set_level(logging.INFO, logger="hf_cxr")
    mixed = opened(split_of(stored(7), stored(8, b"P5\n# a comment\n%d %d\n255\n" % (SIZE, SIZE)), png(9)))
    assert mixed.mapped is not None
    assert not caplog.records
    assert mixed.__getitems__([2, 0, 1])["pixel_values"][:, 0, 0, 0].tolist() == [9, 7, 8]
    other = opened(split_of(png(3), png(4)))
    assert other.mapped is None
    for _ in range(2):
        batch = collate(other.__getitems__([1, 0]))
    assert batch["pixel_values"][:, 0, 0, 0].tolist() == [4, 3]
    assert ["each is decoded" in record.message for record in caplog.records] == [True]


def test_a_header_of_another_size_is_not_taken():
    images = MappedImages(split_of(stored(1)).cast_column("image", datasets.Image(decode=False)), SIZE)
    assert images.read(np.array([0]), np.empty((1, SIZE, SIZE), np.uint8)).tolist() == []
    turned = stored(1, b"P5 %d %d 255\n" % (SIZE // 2, SIZE * 2))
    assert len(turned) == len(stored(1))
    other = MappedImages(split_of(turned).cast_column("image", datasets.Image(decode=False)), SIZE)
    assert other.read(np.array([0]), np.empty((1, SIZE, SIZE), np.uint8)).tolist() == [0]
