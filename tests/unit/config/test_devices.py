"""One process has one device: what several GPUs in one process would change in silence."""

import logging

import pytest
import torch

from hf_cxr.arguments.training import CXRTrainingArguments
from hf_cxr.run.training import log_unused_gpus


@pytest.fixture
def training(tmp_path, monkeypatch):
    """The arguments on a machine with so many GPUs, as far as transformers counts them."""

    def on(gpus: int) -> CXRTrainingArguments:
        monkeypatch.setattr(torch.accelerator, "is_available", lambda: gpus > 0)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
        return CXRTrainingArguments(
            output_dir=str(tmp_path), per_device_train_batch_size=8, per_device_eval_batch_size=4, bf16=False
        )

    return on


@pytest.mark.parametrize("gpus", [0, 1, 2, 8])
def test_a_process_has_one_device_and_its_batch(training, gpus, caplog):
    args = training(gpus)
    assert args.n_gpu == min(gpus, 1)
    assert (args.train_batch_size, args.eval_batch_size, args.images_per_step) == (8, 4, 8)
    with caplog.at_level(logging.INFO):
        log_unused_gpus(args)
    words = [record.getMessage() for record in caplog.records]
    assert len(words) == (gpus > 1)
    assert all(f"accelerate launch --multi_gpu --num_processes {gpus}" in line for line in words)
