"""One process has one device: what several GPUs in one process would change in silence."""

import logging

import pytest
import torch

from hf_cxr.arguments.training import CXRTrainingArguments
from hf_cxr.run.training import log_unused_gpus


@pytest.fixture
def training(tmp_path, monkeypatch):
    """The arguments on a machine with so many GPUs, as far as transformers counts them."""

    def on(gpus: int, **changes: int) -> CXRTrainingArguments:
        monkeypatch.setattr(torch.accelerator, "is_available", lambda: gpus > 0)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
        sizes = {"per_device_train_batch_size": 8, "per_device_eval_batch_size": 4} | changes
        return CXRTrainingArguments(output_dir=str(tmp_path), bf16=False, **sizes)

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
    assert all(f"accelerate launch --multi_gpu --num_processes {gpus} -m hf_cxr train" in line for line in words)


@pytest.mark.parametrize(
    ("gpus", "changes"),
    [
        (2, {}),
        (8, {}),
        (8, {"per_device_train_batch_size": 4, "gradient_accumulation_steps": 8}),
        (3, {}),
        (3, {"gradient_accumulation_steps": 2, "images_per_step": 16}),
    ],
)
def test_the_command_for_all_gpus_has_the_steps_that_it_says(training, gpus, changes, caplog):
    """Its flags are taken by as many processes, with the same images a step unless it says how many."""
    args = training(gpus, **changes)
    log_unused_gpus(args, "pretrain")
    line = caplog.records[-1].getMessage()
    command, _, note = line.partition(" (another")
    flags = command.split("-m hf_cxr pretrain ... ")[1].split()
    given = {"per_device_train_batch_size": 8, "gradient_accumulation_steps": 1, "images_per_step": None} | changes
    given |= {name.removeprefix("--"): int(value) for name, value in zip(flags[::2], flags[1::2], strict=True)}
    step = given["per_device_train_batch_size"] * given["gradient_accumulation_steps"] * gpus
    assert given["images_per_step"] in (None, step)
    assert (step == args.images_per_step) == (not note)
