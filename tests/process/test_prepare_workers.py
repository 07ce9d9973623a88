"""Preparations that decode in several processes, or meet a limit of the system."""

import multiprocessing
import os
import resource
import signal

import datasets
import numpy as np
import pytest
from test_prepare import NAMES, RECIPE, encode, files, write

from hf_cxr.data import prepare as module
from hf_cxr.data.images import decoding
from hf_cxr.data.prepare import Source, prepare
from hf_cxr.data.schema import features
from hf_cxr.labels import LabelSpace


@pytest.fixture
def source(tmp_path):
    """A function that reads the splits again from the files of tmp_path/images, as a second call of the command."""
    folder = tmp_path / "images"
    folder.mkdir()
    rng = np.random.default_rng(0)
    kinds = ("grey", "rgba", "palette", "deep", "jpeg")
    for number in range(30):
        encode(
            folder / f"{number:02d}.png", rng.integers(0, 256, (50 + number, 60), dtype=np.uint8), kinds[number % 5]
        )

    def splits(label=0.0):
        def part(numbers):
            rows = {
                "image": [{"path": str(folder / f"{n:02d}.png"), "bytes": None} for n in numbers],
                "labels": [[label, float("nan")] for _ in numbers],
                "image_id": [f"{n:02d}.png" for n in numbers],
                "patient_id": [f"p{n}" for n in numbers],
                "view": ["PA" if n % 2 else None for n in numbers],
                "age": [float("nan") if n % 3 else 40.0 for n in numbers],
                "sex": [None for _ in numbers],
                "boxes": [[{"finding": "Mass", "bbox": [0.1, 0.2, 0.3, 0.4]}] if n == 2 else [] for n in numbers],
            }
            return datasets.Dataset.from_dict(rows, features(NAMES))

        return datasets.DatasetDict(train=part(range(20)), validation=part(range(20, 25)), test=part(range(25, 30)))

    return splits


@pytest.fixture(autouse=True)
def _small_shards(monkeypatch):
    monkeypatch.setattr(module, "SHARD_BYTES", 6 * (32**2 + 512))  # six images a shard: 4 + 1 + 1 shards


def test_processes_write_the_same_bytes_as_one(source, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "BATCH", 4)
    write(source(), tmp_path / "one")
    write(source(), tmp_path / "two", workers=2)
    assert files(tmp_path / "one") == files(tmp_path / "two")


def _die(batch, recipe):
    os._exit(1)


def test_a_decoding_process_that_is_ended_is_one_error_and_what_was_finished_stays(source, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "BATCH", 4)
    with monkeypatch.context() as killer:
        killer.setattr(decoding, "decode_batch", _die)
        with pytest.raises(OSError, match=r"was killed.*fewer --workers: finished shards stay"):
            write(source(), tmp_path / "out", workers=2)
    assert write(source(), tmp_path / "out")["decoded"] == 30


def _write_with_a_file_size_limit(out, images):
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
    try:
        prepare(Source(datasets.load_from_disk(images), LabelSpace(NAMES), "thirty"), out, RECIPE)
    except OSError as error:
        os._exit(7 if "finished shards stay" in str(error) else 8)
    os._exit(0)


def test_a_limit_of_the_file_size_is_met_in_earnest(source, tmp_path):
    source().save_to_disk(str(tmp_path / "source"))
    arguments = (str(tmp_path / "out"), str(tmp_path / "source"))
    # Its shards are of the module's own size here, 64 MB: 20 rows of 1.5 kB are one shard above the limit.
    process = multiprocessing.get_context("spawn").Process(target=_write_with_a_file_size_limit, args=arguments)
    process.start()
    process.join(120)
    assert process.exitcode == 7
    assert not list((tmp_path / "out").rglob("*.arrow"))
