"""A run says by which split file it was made."""

import json

import pytest
import yaml
from test_split_command import load, main, write_source
from tiny import SWIN

from hf_cxr.commands.train import main as train
from hf_cxr.data import split_fingerprint
from hf_cxr.data.split_files import read_split_file


@pytest.fixture(scope="module")
def source(tmp_path_factory) -> list[str]:
    return write_source(tmp_path_factory.mktemp("source"))


def test_a_run_says_which_split_file_it_was_of(source, tmp_path):
    out = tmp_path / "k.csv"
    main([*source, "--out", str(out), "--folds", "3"])
    config = tmp_path / "tiny.yaml"
    short = {"num_train_epochs": 1, "per_device_train_batch_size": 8, "bootstrap_resamples": 20}
    config.write_text(yaml.safe_dump(SWIN | short))
    flags = ["--split_file", str(out), "--fold", "1", "--output_dir", str(tmp_path / "run")]
    assert train([str(config), *source, *flags]) == 0
    protocol = json.loads((tmp_path / "run" / "metrics.json").read_text())["protocol"]
    assert protocol["split_file"] == {"name": "k.csv", "sha256": read_split_file(out).sha256, "fold": 1}
    assert protocol["split_fingerprint"] == split_fingerprint(load([*source, *flags[:4]]))
    card = (tmp_path / "run" / "README.md").read_text()
    assert "split file k.csv" in card
    assert "not the source's own" in card
