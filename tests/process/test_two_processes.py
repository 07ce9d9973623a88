"""One process or two, one micro-batch or four: the same gradients, and the same validation."""

import json
import os
import subprocess
import sys
from pathlib import Path

import evaluation_worker
import numpy as np
import pytest
import torch
from test_trainer import assert_same_gradients, gradients

HERE = Path(__file__).parents[1]


def start_two(*command):
    """Run a worker on two processes."""
    launcher = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", "--master_port", "0"]
    meeting = ["--rdzv_backend", "c10d", "--rdzv_endpoint", "localhost:0"]
    environment = os.environ | {"ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"}
    subprocess.run([*launcher, *meeting, *command], check=True, env=environment, cwd=HERE.parent, capture_output=True)


def test_two_processes_give_the_gradients_of_one(tmp_path):
    (whole,), whole_loss = gradients(tmp_path, 32)
    start_two(HERE / "gradients_worker.py", tmp_path, "8", "2")
    saved = torch.load(tmp_path / "gradients.pt")
    assert len(saved["gradients"]) == 1
    assert_same_gradients(saved["gradients"][0], whole)
    assert saved["loss"] == pytest.approx(whole_loss, rel=1e-5)
    # Threads of the process group that outlive it abort the interpreter now and then, after the work is done.
    assert int((tmp_path / "threads_ended").read_text()) >= 2


def test_two_processes_measure_what_one_does(tmp_path):
    one = evaluation_worker.measure(tmp_path)
    start_two(HERE / "evaluation_worker.py", tmp_path)
    assert len(one["labels"]) == evaluation_worker.IMAGES
    for rank in range(2):
        two = json.loads((tmp_path / f"measured-{rank}.json").read_text())
        np.testing.assert_array_equal(two["labels"], one["labels"])  # each image once, in the set's order
        np.testing.assert_allclose(two["logits"], one["logits"], atol=1e-6)
        assert two["loss"] == pytest.approx(one["loss"], rel=1e-6)
