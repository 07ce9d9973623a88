"""Streams of Parquet shards: the table and the rows of the map-style road, whoever reads, from disk and from a Hub."""

import itertools
import json
from io import BytesIO
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from tiny import save_model
from torch.utils.data import DataLoader

from hf_cxr.config import DataArguments, parse_arguments
from hf_cxr.data import (
    DecodedImages,
    StreamedImages,
    label_matrix,
    load_source,
    load_streamed,
    split_fingerprint,
    with_images,
)
from hf_cxr.data.images.grey import ImageError
from hf_cxr.labels import NIH14
from hf_cxr.processing import collate
from hf_cxr.run.preflight import check_run_data

DESCRIPTION = {
    "name": "Shards",
    "files": {"all": "data/*.parquet"},
    "split_column": "part",
    "image_column": "image",
    "image_id": "name",
    "findings": list(NIH14),
    "blank": "unknown",
    "patient_column": "patient",
}
SIZE = (36, 3)  # working side, and bicubic


def png(rng, side) -> bytes:
    content = BytesIO()
    Image.fromarray(rng.integers(0, 256, (side, side), dtype=np.uint8)).save(content, "PNG")
    return content.getvalue()


def write_shards(root: Path, count=120, shards=3, group=8, side=40, bare=False, **change) -> Path:
    """Patients of two images, a third of them not in train; labels partly unknown. Row groups of 8 images."""
    rng = np.random.default_rng(0)
    cells = rng.integers(0, 2, (count, 14)).astype(object)
    cells[rng.random((count, 14)) < 0.1] = None
    frame = pd.DataFrame(cells, columns=list(NIH14), dtype="Float32")
    frame["name"] = [f"{n:04d}.png" for n in range(count)]
    frame["patient"] = np.arange(count) // 2
    frame["part"] = np.array(["train", "train", "train", "validation", "train", "test"])[frame["patient"] % 6]
    images = [png(rng, side) for _ in range(count)]
    for row, content in change.items():
        images[int(row.removeprefix("row_"))] = content
    frame["image"] = images if bare else [{"bytes": image, "path": None} for image in images]
    (root / "data").mkdir(parents=True)
    for number, index in enumerate(np.array_split(np.arange(count), shards)):
        table = pa.Table.from_pandas(frame.iloc[index], preserve_index=False)
        pq.write_table(table, root / "data" / f"train-{number:05d}-of-{shards:05d}.parquet", row_group_size=group)
    (root / "table.yaml").write_text(json.dumps(DESCRIPTION))
    return root


def arguments(root: Path, **keys) -> DataArguments:
    return DataArguments(dataset="table", table=str(root / "table.yaml"), streaming=True, **keys)


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    return write_shards(tmp_path_factory.mktemp("shards"))


@pytest.fixture(scope="module")
def split(shards):
    return load_streamed(shards / "table.yaml")[0]["train"]


@pytest.fixture(scope="module")
def map_style(shards, tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path_factory.mktemp("cache"))
        source = load_source(DataArguments(dataset="table", table=str(shards / "table.yaml")))
    return source.splits, source.labels


def stream(split, **keys):
    return StreamedImages(split, *SIZE, **({"batch_size": 4, "shuffle": True, "step_size": 8, "buffer": 16} | keys))


def numbers(images, workers=0) -> list[int]:
    """The rows that a DataLoader gets, in order."""
    loader = DataLoader(images, batch_size=images.batch_size, collate_fn=collate, num_workers=workers)
    return [int(row) for batch in loader for row in batch["row"]]


# --- the table, and rows without shuffling


def test_the_table_is_that_of_the_map_style_dataset(shards, map_style):
    source = load_source(arguments(shards))
    streamed, space = source.splits, source.labels
    expected, same_space = map_style
    assert space == same_space
    assert split_fingerprint(streamed) == split_fingerprint(expected)
    assert {name: len(split) for name, split in streamed.items()} == {"train": 80, "validation": 20, "test": 20}
    for name in expected:
        np.testing.assert_array_equal(label_matrix(streamed[name]), label_matrix(expected[name]))
        assert streamed[name]["image_id"][:] == expected[name]["image_id"][:]
    without = load_source(arguments(shards), images=False).splits["train"]
    assert not {"image", "stream"} & set(without.column_names)


@pytest.mark.parametrize("name", ["train", "test"])
def test_unshuffled_rows_are_those_of_the_map_style_dataset(shards, map_style, name):
    expected = DecodedImages(map_style[0][name], *SIZE)
    rows = list(stream(load_streamed(shards / "table.yaml")[0][name], shuffle=False, step_size=None))
    assert len(rows) == len(expected) > 10
    for row, example in enumerate(rows):
        assert example["row"] == row
        np.testing.assert_array_equal(example["pixels"], expected[row]["pixels"])
        np.testing.assert_array_equal(example["labels"], expected[row]["labels"])
    assert len({example["pixels"].tobytes() for example in rows}) == len(rows)  # they can differ


def test_a_few_images_are_read_by_their_rows(split, map_style):
    few = with_images(split, [79, 0, 31])
    assert few["image_id"][:] == [split["image_id"][row] for row in (79, 0, 31)]
    for example, row in zip(few, (79, 0, 31), strict=True):
        np.testing.assert_array_equal(np.asarray(example["image"]), np.asarray(map_style[0]["train"][row]["image"]))


def test_bytes_without_a_struct_and_a_folder_named_as_hub_read_the_same(shards, split, tmp_path):
    bare = load_streamed(write_shards(tmp_path, bare=True) / "table.yaml")[0]["train"]
    keys = {key: value for key, value in DESCRIPTION.items() if key != "files"} | {"hub": "."}
    (shards / "hub.yaml").write_text(json.dumps(keys))
    folder = load_streamed(shards / "hub.yaml")[0]["train"]
    for other in (bare, folder):
        for one, two in zip(stream(split), stream(other), strict=True):
            assert one["row"] == two["row"]
            np.testing.assert_array_equal(one["pixels"], two["pixels"])


def test_limit_and_permuted_labels_reach_the_stream(shards):
    splits = load_source(arguments(shards, train_limit=24, shuffle_labels=True)).splits
    plain = load_source(arguments(shards, train_limit=24)).splits
    rows = {example["row"]: example["labels"] for example in stream(splits["train"])}
    assert sorted(rows) == list(range(24))
    np.testing.assert_array_equal(np.array([rows[n] for n in range(24)]), label_matrix(splits["train"]))
    assert not np.array_equal(label_matrix(splits["train"]), label_matrix(plain["train"]), equal_nan=True)
    assert splits["train"]["stream"][:] == plain["train"]["stream"][:]


# --- the order


def test_same_seed_same_order_and_every_epoch_another(split):
    images = stream(split)
    first = numbers(images)
    assert len(images) == len(first) == 80
    assert sorted(first) == list(range(80))
    assert numbers(stream(split)) == first
    assert numbers(stream(split, seed=1)) != first
    images.set_epoch(1)
    assert numbers(images) != first
    images.set_epoch(0)
    assert numbers(images) == first


def test_neighbours_do_not_stay_neighbours(split):
    order = np.array(numbers(stream(split)))
    assert (np.diff(order) == 1).mean() < 0.2


def test_the_last_incomplete_step_is_left_out_and_is_another_each_epoch(split):
    images, left_out = stream(split, step_size=12, batch_size=4), []
    for epoch in range(4):
        images.set_epoch(epoch)
        drawn = numbers(images)
        assert len(drawn) == len(set(drawn)) == len(images) == 72
        left_out.append(frozenset(range(80)) - set(drawn))
    assert len(set(left_out)) > 1


@pytest.mark.parametrize("workers", [0, 3])
@pytest.mark.parametrize("processes", [1, 2])
def test_processes_and_workers_share_the_rows_without_overlap(split, processes, workers):
    parts = [numbers(stream(split, processes=processes, process=n), workers) for n in range(processes)]
    assert {len(part) for part in parts} == {80 // processes}
    assert sorted(itertools.chain(*parts)) == list(range(80))


@pytest.mark.parametrize("workers", [0, 3])
def test_evaluation_reads_each_row_once_and_fills_up_with_unknown_ones(split, workers):
    images = [stream(split, shuffle=False, step_size=None, processes=3, process=n) for n in range(3)]
    parts = [numbers(part, workers) for part in images]
    assert [len(part) for part in parts] == [27, 27, 27]
    assert sorted(itertools.chain(*parts)) == [-1, *range(80)]
    blank = [example for part in images for example in part if example["row"] < 0]
    assert len(blank) == 1
    assert np.isnan(blank[0]["labels"]).all()


def test_persistent_workers_get_the_epoch(split):
    images = stream(split)
    loader = DataLoader(images, batch_size=4, collate_fn=collate, num_workers=2, persistent_workers=True)
    epochs = []
    for epoch in range(2):
        images.set_epoch(epoch)
        epochs.append([int(row) for batch in loader for row in batch["row"]])
    assert epochs[0] != epochs[1]
    assert sorted(epochs[0]) == sorted(epochs[1])


# --- the Trainer


def test_predictions_are_those_of_the_map_style_dataset(tmp_path, shards, map_style, monkeypatch):
    from hf_cxr.inference.classifier import Classifier

    classifier, read = Classifier(save_model(tmp_path / "model")), StreamedImages._read
    expected = classifier.predict_split(map_style[0]["test"], "test", batch_size=3)
    for workers in (0, 2):
        split = load_source(arguments(shards)).splits["test"]
        got = classifier.predict_split(split, "test", batch_size=3, workers=workers)
        np.testing.assert_allclose(got.logits, expected.logits, atol=1e-6)
        assert got.image_ids == expected.image_ids
    assert np.ptp(expected.logits, axis=0).max() > 1e-5

    monkeypatch.setattr(StreamedImages, "_read", lambda images, first, stop: list(read(images, first, stop))[1:])
    with pytest.raises(ValueError, match="logits"):  # a row that never came is no prediction
        classifier.predict_split(split, "test", batch_size=3)


# --- what is refused


def test_a_broken_image_is_named_when_it_comes(tmp_path):
    root = write_shards(tmp_path, row_51=b"no image")
    images = stream(load_streamed(root / "table.yaml")[0]["train"])
    with pytest.raises(ImageError, match=r"train-00001-of-00003.parquet, row group 1, row 3 \(0051.png\)"):
        numbers(images)


def test_broken_images_of_a_stream_are_found_by_row_in_any_process(tmp_path):
    root = write_shards(tmp_path / "broken", row_7=png(np.random.default_rng(0), 40)[:200], row_6=b"no image")
    validation = load_streamed(root / "table.yaml")[0]["validation"]
    names = validation["image_id"][:]
    for processes in (1, 3):
        shares = [
            StreamedImages(validation, 8, 0, batch_size=1, processes=processes, process=process)
            for process in range(processes)
        ]
        found = {row: error for share in shares for row, error in share.unreadable().items()}
        assert {names[row] for row in found} == {"0006.png", "0007.png"}
        assert all("row group 0" in error.name for error in found.values())
        assert sum(share.own_rows for share in shares) == len(validation)
    args = arguments(root, unreadable_images="skip")
    line = [f"--{key}={getattr(args, key)}" for key in ("dataset", "table", "streaming", "unreadable_images")]
    source = load_source(args)
    kept, left_out = check_run_data(parse_arguments(line), source)
    assert [names[row] for row in left_out["validation"]] == ["0006.png", "0007.png"]
    assert len(kept.splits["validation"]) == len(names) - 2
    with pytest.raises(ValueError, match=r"2 of 40 image files cannot be read: .*row 6"):
        check_run_data(parse_arguments(line[:3]), source)


def test_missing_images_are_reported_before_anything_is_read(tmp_path):
    root = write_shards(tmp_path, row_7=None)
    with pytest.raises(ValueError, match=r"train-00000-of-00003.parquet: 1 of 40 rows have no image bytes"):
        load_streamed(root / "table.yaml")


def test_what_cannot_be_streamed_is_refused(tmp_path, shards, split):
    rows = "file,name,patient,part," + ",".join(NIH14) + "\na.png,a,1,train" + ",1" * 14 + "\n"
    (tmp_path / "rows.csv").write_text(rows)
    (tmp_path / "table.yaml").write_text(json.dumps({**DESCRIPTION, "files": "rows.csv", "image_column": "file"}))
    with pytest.raises(ValueError, match="Shards cannot be streamed: files must be Parquet"):
        load_source(arguments(tmp_path))
    with pytest.raises(ValueError, match="--streaming needs --missing_images error"):
        arguments(shards, missing_images="skip")
    with pytest.raises(ValueError, match="--streaming is given, but --dataset"):
        DataArguments(streaming=True)
    with pytest.raises(ValueError, match="streaming_buffer is 0; it must be at least 1"):
        arguments(shards, streaming_buffer=0)
    with pytest.raises(ValueError, match="80 training images are fewer than one batch of 96"):
        stream(split, step_size=96)
    with pytest.raises(ValueError, match="8 images a step cannot be divided into batches of 4 on 3 processes"):
        stream(split, processes=3)


# --- memory, and the Hub


def test_a_truncated_shard_and_a_misspelt_column_are_named(tmp_path):
    root = write_shards(tmp_path)
    description = json.loads((root / "table.yaml").read_text())
    (root / "misspelt.yaml").write_text(json.dumps({**description, "image_column": "picture"}))
    with pytest.raises(ValueError, match=r"train-00000-of-00003.parquet has no column 'picture'; it has .*image"):
        load_streamed(root / "misspelt.yaml")
    shard = next(root.rglob("train-00000-of-00003.parquet"))
    shard.write_bytes(shard.read_bytes()[:3000])
    with pytest.raises(ValueError, match=r"train-00000-of-00003.parquet cannot be read as Parquet"):
        load_streamed(root / "table.yaml")
