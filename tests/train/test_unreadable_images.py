"""A run whose images can no longer be read is still finished."""

import json
import re

import pytest
from test_checks import words, write_table

from hf_cxr.commands import main
from hf_cxr.config import CONFIGS


@pytest.fixture(autouse=True)
def own_memory(tmp_path_factory, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HOME", str(tmp_path_factory.mktemp("home")))


@pytest.fixture(scope="module")
def stopped(tmp_path_factory):
    """A table, and the folder of a run on it that was trained to its end and has not measured the test set."""
    folder = tmp_path_factory.mktemp("stopped")
    table = write_table(folder)
    assert (
        main(
            [
                "train",
                str(CONFIGS / "quickstart.yaml"),
                *words(table, "--output_dir", folder / "run", "--measure_test", "false"),
            ]
        )
        == 0
    )
    return table, folder / "run"


def test_a_trained_run_is_finished_when_images_are_lost(stopped, capsys):
    table, run = stopped
    images = table.parent / "img"
    weights = sorted(run.glob("checkpoint-*"))[-1] / "model.safetensors"
    trained = weights.read_bytes()
    images.joinpath("test3.png").write_bytes(images.joinpath("test3.png").read_bytes()[:200])  # broken
    images.joinpath("test4.png").unlink()  # gone
    images.joinpath("train5.png").write_bytes(b"")
    images.joinpath("validation0.png").write_bytes(b"")
    line = ["train", str(CONFIGS / "quickstart.yaml"), *words(table, "--output_dir", run)]
    assert main(line) == 2
    assert main([*line, "--unreadable_images", "skip"]) == 0
    metrics = json.loads((run / "metrics.json").read_text())
    assert metrics["protocol"]["unreadable_images"] == {"train": 1, "validation": 1, "test": 2}
    assert metrics["protocol"]["missing_images"] == {}
    assert metrics["protocol"]["splits"]["test"]["images"] == metrics["test"]["all"]["counts"]["images"] == 4
    assert metrics["protocol"]["splits"]["train"] == {"images": 11, "patients": 11}
    assert metrics["validation"]["all"]["counts"]["images"] == 5
    assert metrics["training"]["resumed_from"]
    assert metrics["training"]["steps"] == 3
    assert weights.read_bytes() == trained
    for page in ("README.md", "report.html"):
        assert "1 in train, 1 in validation, 2 in test" in (run / page).read_text()
    assert "model-index" not in (run / "README.md").read_text()  # figures of a part stand in no leaderboard

    capsys.readouterr()
    assert main(["evaluate", "--model", str(run), "--unreadable_images", "error"]) == 2
    assert "--unreadable_images skip" in capsys.readouterr().err
    assert main(["evaluate", "--model", str(run)]) == 0  # by the run's own config.yaml
    assert re.search(r"unreadable images\s+2\n", capsys.readouterr().out)
