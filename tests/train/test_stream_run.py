"""A run that is trained, measured and documented from a stream."""

import json
from pathlib import Path

import numpy as np
import pytest
from test_streaming import arguments, write_shards
from tiny import SWIN, swin

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
