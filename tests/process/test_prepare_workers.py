"""Preparations that decode in several processes, or meet a limit of the system."""

import multiprocessing
import os
import resource
import signal

import datasets
import pytest
from prepared_folders import NAMES, RECIPE, SIX_OF_THIRTY, content, prepare_thirty, splits_of_thirty, write_thirty

from hf_cxr.data import prepare as module
from hf_cxr.data.images import decoding
from hf_cxr.data.prepare import Source, prepare
from hf_cxr.labels import LabelSpace


@pytest.fixture
def splits(tmp_path):
    return splits_of_thirty(write_thirty(tmp_path / "images"))


@pytest.fixture(autouse=True)
def _small_shards(monkeypatch):
    monkeypatch.setattr(module, "SHARD_BYTES", SIX_OF_THIRTY)


def test_processes_write_the_same_bytes_as_one(splits, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "BATCH", 4)
    prepare_thirty(splits, tmp_path / "one")
    prepare_thirty(splits, tmp_path / "two", workers=2)
    assert content(tmp_path / "one") == content(tmp_path / "two")


def _die(batch, recipe):
    os._exit(1)


def test_a_decoding_process_that_is_ended_is_one_error_and_what_was_finished_stays(splits, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "BATCH", 4)
    with monkeypatch.context() as killer:
        killer.setattr(decoding, "decode_batch", _die)
        with pytest.raises(OSError, match=r"was killed.*fewer --workers: finished shards stay"):
            prepare_thirty(splits, tmp_path / "out", workers=2)
    assert prepare_thirty(splits, tmp_path / "out")["decoded"] == 30


def _write_with_a_file_size_limit(out, images):
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
    try:
        prepare(Source(datasets.load_from_disk(images), LabelSpace(NAMES), "thirty"), out, RECIPE)
    except OSError as error:
        os._exit(7 if "finished shards stay" in str(error) else 8)
    os._exit(0)


def test_a_limit_of_the_file_size_is_met_in_earnest(splits, tmp_path):
    splits.save_to_disk(str(tmp_path / "source"))
    arguments = (str(tmp_path / "out"), str(tmp_path / "source"))
    # Its shards are of the module's own size here, 64 MB: 20 rows of 1.5 kB are one shard above the limit.
    process = multiprocessing.get_context("spawn").Process(target=_write_with_a_file_size_limit, args=arguments)
    process.start()
    process.join(120)
    assert process.exitcode == 7
    assert not list((tmp_path / "out").rglob("*.arrow"))
