"""One process or two, one micro-batch or four: the same gradients."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from test_trainer import assert_same_gradients, gradients

HERE = Path(__file__).parents[1]


def test_two_processes_give_the_gradients_of_one(tmp_path):
    (whole,), whole_loss = gradients(tmp_path, 32)
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", "--master_port", "0"]
    environment = os.environ | {"ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"}
    subprocess.run(
        [
            *command,
            "--rdzv_backend",
            "c10d",
            "--rdzv_endpoint",
            "localhost:0",
            HERE / "gradients_worker.py",
            tmp_path,
            "8",
            "2",
        ],
        check=True,
        env=environment,
        cwd=HERE.parent,
        capture_output=True,
    )
    saved = torch.load(tmp_path / "gradients.pt")
    assert len(saved["gradients"]) == 1
    assert_same_gradients(saved["gradients"][0], whole)
    assert saved["loss"] == pytest.approx(whole_loss, rel=1e-5)
    # Threads of the process group that outlive it abort the interpreter now and then, after the work is done.
    assert int((tmp_path / "threads_ended").read_text()) >= 2
