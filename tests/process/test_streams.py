"""Streams in processes of their own: two of them, their memory, a Hub dataset."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from test_stream_run import configure
from test_streaming import DESCRIPTION, arguments, stream, write_shards

from hf_cxr.data import (
    load_source,
    load_streamed,
)
from hf_cxr.predictions import Predictions

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    return write_shards(tmp_path_factory.mktemp("shards"))


@pytest.fixture(scope="module")
def split(shards):
    return load_streamed(shards / "table.yaml")[0]["train"]


def test_two_processes_train_and_measure_from_a_stream(tmp_path, shards):
    config = configure(
        tmp_path, shards, per_device_train_batch_size=4, per_device_eval_batch_size=8, images_per_step=8
    )
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", "--rdzv_backend", "c10d"]
    command += ["--rdzv_endpoint", "localhost:0", ROOT / "scripts/train.py", config]
    environment = os.environ | {"ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=200)
    assert done.returncode == 0, done.stderr[-3000:]
    assert json.loads((tmp_path / "out/metrics.json").read_text())["training"]["steps"] == 10
    for name, split in load_source(arguments(shards)).splits.items():
        if name != "train":
            saved = Predictions.load(tmp_path / f"out/predictions/{name}.parquet")
            assert list(saved.image_ids) == split["image_id"][:]
            assert np.isfinite(saved.logits).all()
            assert len(np.unique(saved.logits[:, 0])) == len(split)  # no row twice


def test_memory_does_not_grow_with_the_rows_read(tmp_path):
    """One process reads twelve times its buffer: past the first sixth, memory stays where it is."""
    script = ROOT / "benchmarks" / "stream_memory.py"
    command = [sys.executable, script, "--rows", "6000", "--every", "1000", "--folder", tmp_path, "--buffer", "500"]
    out = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120).stdout
    mib = {int(words[0].replace(",", "")): float(words[1]) for words in map(str.split, out.splitlines()[2:])}
    assert list(mib) == [1000, 2000, 3000, 4000, 5000, 6000]
    assert mib[6000] - mib[1000] < 10  # the rows read since are 20 MiB of pixels, and as much encoded


HUB = """
import json, sys, urllib.error, urllib.request
from hf_cxr.data import StreamedImages, load_streamed
splits, _ = load_streamed(sys.argv[1])
try:
    urllib.request.urlopen(sys.argv[2] + "/the-table-is-read")
except urllib.error.HTTPError:
    pass
images = StreamedImages(splits["test"], 36, 3, batch_size=4)
print(json.dumps([[example["row"], int(example["pixels"].sum())] for example in images]))
"""


def bytes_asked(requests) -> int:
    """Of files' contents; a request for a whole file counts as endless."""
    gets = [request for request in requests if request.method == "GET" and request.status in (200, 206)]
    ranges = [request.headers.get("range", "bytes=0-9999999999").removeprefix("bytes=").split("-") for request in gets]
    return sum(int(last) - int(first) + 1 for first, last in ranges)


def test_a_hub_dataset_is_streamed_without_a_copy(tmp_path, hub):
    from huggingface_hub import HfApi

    local = write_shards(tmp_path / "local", side=150)
    size = sum(path.stat().st_size for path in local.glob("data/*"))
    api = HfApi()
    api.create_repo("tester/shards", repo_type="dataset")
    api.upload_folder(repo_id="tester/shards", repo_type="dataset", folder_path=local, allow_patterns="data/*")
    keys = {key: value for key, value in DESCRIPTION.items() if key != "files"} | {"hub": "tester/shards"}
    (tmp_path / "table.yaml").write_text(json.dumps(keys))
    environment = os.environ | hub.environment(tmp_path / "home") | {"PYTHONPATH": str(ROOT)}
    before = len(hub.requests)
    command = [sys.executable, "-c", HUB, tmp_path / "table.yaml", hub.url]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=120)
    assert done.returncode == 0, done.stderr[-3000:]
    expected = stream(load_streamed(local / "table.yaml")[0]["test"], shuffle=False, step_size=None)
    got = json.loads(done.stdout.splitlines()[-1])
    assert got == [[example["row"], int(example["pixels"].sum())] for example in expected]
    assert not [path for path in (tmp_path / "home").rglob("*") if path.suffix in (".parquet", ".arrow")]
    asked = [request for request in hub.requests[before:] if request.path.startswith(("/cdn", "/datasets"))]
    marker = next(i for i, request in enumerate(hub.requests) if request.path == "/the-table-is-read")
    of_table = [request for request in asked if request in hub.requests[:marker]]
    assert 0 < bytes_asked(of_table) < size / 4  # labels and ids, and footers; not the images
    assert bytes_asked(asked) > size / 4
