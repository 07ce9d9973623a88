"""A run that is trained, measured and documented from a stream."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
from safetensors.torch import load_file
from test_streaming import arguments, write_shards
from tiny import MODELS, SWIN, swin

from hf_cxr.config import parse_arguments
from hf_cxr.data import (
    label_matrix,
    load_source,
)
from hf_cxr.predictions import Predictions
from hf_cxr.run.stages import run


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    return write_shards(tmp_path_factory.mktemp("shards"))


def configure(folder: Path, data: Path, **changes) -> str:
    keys = {"dataset": "table", "table": str(data / "table.yaml"), "streaming": True, "streaming_buffer": 16}
    keys |= {"num_train_epochs": 1, "per_device_train_batch_size": 8, "bootstrap_resamples": 20, "logging_steps": 1}
    path = folder / "config.yaml"
    path.write_text(json.dumps({**SWIN, **keys, "output_dir": str(folder / "out"), "use_cpu": True, **changes}))
    return str(path)


def test_a_run_trains_measures_and_documents_from_a_stream(tmp_path, shards):
    report = run(parse_arguments([configure(tmp_path, shards, **swin(drop_path_rate=0.0), dataloader_num_workers=2)]))
    assert report.stock_pipeline["largest_difference"] < 0.02  # the images are resized
    saved = Predictions.load(tmp_path / "out/predictions/test.parquet")
    test = load_source(arguments(shards)).splits["test"]
    assert list(saved.image_ids) == test["image_id"][:]
    np.testing.assert_array_equal(saved.labels, label_matrix(test))
    assert report.training["steps"] == 10
    assert np.ptp(saved.logits, axis=0).max() > 0


def test_batch_norm_measures_each_step_of_a_stream_once_and_the_papers_name_the_network(tmp_path, shards):
    network = {"architecture": "resnet", "model_kwargs": MODELS["resnet"]}
    report = run(parse_arguments([configure(tmp_path, shards, **network)]))
    weights = load_file(tmp_path / "out/model.safetensors")
    assert {value.item() for name, value in weights.items() if name.endswith("num_batches_tracked")} == {10}
    norm = {"layers": 16, "images": 8}
    assert report.protocol["network"] == {"name": "ResNet", "architecture": "resnet", "batch_norm": norm}
    for name in ("README.md", "report.html", "run.log"):
        text = (tmp_path / "out" / name).read_text(encoding="utf-8")
        text = re.sub(r"data:image/png;base64,[\w+/=]*", "", text)
        assert "resnet" in text.lower() or name == "run.log"
        assert "swin" not in text.lower(), name
