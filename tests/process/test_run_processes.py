"""A run in processes of its own: what it prints, a kill, two processes."""

import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from test_run import ROOT, TINY, train, write_config
from tiny import swin

from hf_cxr.config import parse_arguments
from hf_cxr.data import load_source
from hf_cxr.labels import NIH14
from hf_cxr.predictions import Predictions


def started(config, output_dir):
    """A training command in a process group of its own."""
    command = [sys.executable, ROOT / "scripts" / "train.py", config, "--output_dir", output_dir]
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True, cwd=ROOT, start_new_session=True)


def test_killed_run_goes_on_to_the_same_weights(tmp_path, capsys):
    settings = {"eval_strategy": "steps", "eval_steps": 2, "save_strategy": "steps", "save_steps": 2}
    config = write_config(tmp_path, **settings)
    assert train(config, tmp_path / "straight") == 0
    process = started(config, tmp_path / "killed")
    deadline = time.monotonic() + 240
    while not (tmp_path / "killed" / "checkpoint-8" / "trainer_state.json").exists():  # in the second of three epochs
        assert process.poll() is None, process.communicate()[1][-3000:]
        assert time.monotonic() < deadline
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert not (tmp_path / "killed" / "metrics.json").exists()

    assert train(config, tmp_path / "killed", "--loss", "bce") == 2
    assert (
        "contains an unfinished run with other settings (loss was class_aware and is bce)" in capsys.readouterr().err
    )
    assert train(config, tmp_path / "killed", "--save_total_limit", "3") == 0
    straight, killed = ((tmp_path / name / "model.safetensors").read_bytes() for name in ("straight", "killed"))
    assert straight == killed
    logs = [json.loads((tmp_path / name / "metrics.json").read_text()) for name in ("straight", "killed")]
    assert logs[0]["test"] == logs[1]["test"]


def test_two_processes_make_the_run_of_one(tmp_path, capsys):
    still = {**swin(drop_path_rate=0.0), "num_train_epochs": 2, "images_per_step": 8}
    assert train(write_config(tmp_path, **still), tmp_path / "one") == 0
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2"]
    command += ["--rdzv_backend", "c10d", "--rdzv_endpoint", "localhost:0", ROOT / "scripts" / "train.py"]
    command += [
        write_config(tmp_path, **still),
        "--output_dir",
        tmp_path / "two",
        "--per_device_train_batch_size",
        "4",
    ]
    environment = os.environ | {"ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"}
    subprocess.run(command, env=environment, cwd=ROOT, check=True, capture_output=True)
    one, two = (Predictions.load(tmp_path / name / "predictions" / "test.parquet") for name in ("one", "two"))
    assert one.image_ids == two.image_ids
    np.testing.assert_allclose(one.logits, two.logits, atol=1e-3)
    assert np.ptp(one.logits) > 0.1

    (tmp_path / "two" / "metrics.json").unlink()
    deep = {**still, **swin(drop_path_rate=0.2)}
    assert train(write_config(tmp_path, **deep), tmp_path / "two") == 2
    assert "contains an unfinished run with other settings (" in capsys.readouterr().err
    assert train(write_config(tmp_path, **still), tmp_path / "two") == 0


def test_pushed_run_is_loaded_by_the_stock_pipeline(hub, tmp_path):
    push = ("--push_to_hub", "--hub_model_id", "tester/tiny", "--hub_private_repo", "false")
    assert train(write_config(tmp_path), tmp_path / "tiny", *push) == 0
    pushed = set(hub.files("tester/tiny"))
    assert {"README.md", "model.safetensors", "config.json", "preprocessor_config.json", "report.html"} <= pushed
    assert not [name for name in pushed if "checkpoint" in name or "predictions" in name or name.endswith(".bin")]
    assert hub.read("tester/tiny", "README.md") == (tmp_path / "tiny" / "README.md").read_bytes()
    assert 'model="tester/tiny"' in hub.read("tester/tiny", "README.md").decode()
    assert str(tmp_path) not in hub.read("tester/tiny", "config.yaml").decode()

    saved = Predictions.load(tmp_path / "tiny" / "predictions" / "test.parquet")
    arguments = [f"--{key}={value}" for key, value in TINY.items() if key.startswith(("dataset", "phantom"))]
    image = load_source(parse_arguments(arguments).data).splits["test"][0]["image"]
    image.save(tmp_path / "image.png")
    code = (
        "import json, sys; from transformers import pipeline; "
        "print(json.dumps(pipeline('image-classification', model='tester/tiny', top_k=14)(sys.argv[1])))"
    )
    environment = {key: value for key, value in os.environ.items() if key != "HF_TOKEN"}
    environment |= hub.environment(tmp_path / "home", token=None)
    answer = subprocess.run(
        [sys.executable, "-c", code, tmp_path / "image.png"],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    scores = {entry["label"]: entry["score"] for entry in json.loads(answer.stdout)}
    assert scores == pytest.approx(dict(zip(NIH14, saved.probabilities[0], strict=True)), abs=1e-5)
