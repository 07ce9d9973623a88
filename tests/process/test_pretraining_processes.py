"""Pre-training on two processes is that on one: the same gradients, the same losses."""

import json

import pytest
import torch
from pretraining_worker import step
from process.test_two_processes import HERE, start_two
from test_trainer import assert_same_gradients


def test_two_processes_give_the_step_and_the_losses_of_one(tmp_path):
    whole, loss, held_out = step(tmp_path, 40)
    start_two(HERE / "pretraining_worker.py", tmp_path, "10", "2")
    for rank in range(2):
        assert_same_gradients(torch.load(tmp_path / f"gradients-{rank}.pt"), whole)
        losses = json.loads((tmp_path / f"losses-{rank}.json").read_text())
        assert losses == pytest.approx([loss, held_out], rel=1e-4)
