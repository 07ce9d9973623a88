"""A training step costs what its mathematics cost: the bare loop's numbers to the bit, and no wait for the device."""

import re

import numpy as np
import pytest
import torch
from tiny import rows, trainer
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import Trainer

from hf_cxr.losses import LOSSES
from hf_cxr.training.callbacks import WeightAverage

STEPS = {"num_train_epochs": 2, "per_device_train_batch_size": 8}  # 5 steps an epoch


def bare_loop(run):
    """The losses of a plain loop over the same draws, with the same model, loss, augmentation and optimizer."""
    run.create_optimizer_and_scheduler(10)
    losses = []
    for epoch in range(2):
        run.sampler.set_epoch(epoch)
        drawn = np.array(list(run.sampler)).reshape(-1, 8)
        for step in drawn:
            batch = run.data_collator([run.train_dataset[row] for row in step])
            run.model.train()
            pixels = run.pixels.augment(batch["pixel_values"], batch["row"], epoch)
            with torch.autocast("cpu", torch.bfloat16, enabled=run.args.bf16):
                logits = run.model(pixel_values=pixels).logits
            loss = run.loss(logits.float(), batch["labels"], num_items=run.loss.count_items(batch["labels"]))
            loss.backward()
            if run.args.max_grad_norm:
                torch.nn.utils.clip_grad_norm_(run.model.parameters(), run.args.max_grad_norm)
            run.optimizer.step()
            run.lr_scheduler.step()
            run.optimizer.zero_grad()
            losses.append(loss.item())
    return losses


@pytest.mark.parametrize("bf16", [False, True])
@pytest.mark.parametrize("max_grad_norm", [0.0, 0.1])
def test_the_curve_is_the_bare_loops_to_the_bit(tmp_path, bf16, max_grad_norm):
    settings = STEPS | {"bf16": bf16, "max_grad_norm": max_grad_norm, "lr_scheduler_type": "cosine"}
    evaluated = {"eval_dataset": rows(8, seed=1), "eval_strategy": "steps", "eval_steps": 3}
    run = trainer(tmp_path, **settings, **evaluated, metric_for_best_model="loss")
    run.train()
    alone = trainer(tmp_path, **settings)
    losses = bare_loop(alone)
    assert [entry["loss"] for entry in run.state.log_history if "loss" in entry] == losses
    assert len(set(losses)) == 10
    for (name, one), (_, other) in zip(run.model.named_parameters(), alone.model.named_parameters(), strict=True):
        assert torch.equal(one, other), name


@pytest.mark.parametrize(
    ("settings", "logged"),
    [
        ({"logging_steps": 1}, range(1, 11)),
        ({"logging_steps": 3, "logging_first_step": True}, [1, 3, 6, 9]),
        ({"logging_strategy": "epoch"}, [5, 10]),
    ],
    ids=str,
)
def test_a_log_entry_has_the_norm_of_its_step_and_no_other_step_computes_it(tmp_path, monkeypatch, settings, logged):
    every = trainer(tmp_path, **STEPS)
    every.train()
    norms = {entry["step"]: entry["grad_norm"] for entry in every.state.log_history if "grad_norm" in entry}
    computed = []
    inner = Trainer._get_grad_norm
    monkeypatch.setattr(Trainer, "_get_grad_norm", lambda *a, **k: computed.append(1) or inner(*a, **k))
    run = trainer(tmp_path, **(STEPS | settings))
    run.train()
    entries = [entry for entry in run.state.log_history if "loss" in entry]
    assert [entry["step"] for entry in entries] == list(logged)
    assert [entry["grad_norm"] for entry in entries] == [norms[step] for step in logged]
    assert min(norms.values()) > 0
    assert len(computed) == len(logged)


def test_operations_are_counted_as_the_trainer_counts_them(tmp_path):
    run = trainer(tmp_path)
    batch = run.data_collator(rows(4))
    assert run.floating_point_ops(batch) == Trainer.floating_point_ops(run, batch) > 0


class AnswerNeededError(AssertionError):
    """An operation whose result the host has to know before it goes on."""


class NoAnswers(TorchDispatchMode):
    """Refuses what would make the host wait for a GPU: a value read, or a shape that depends on values."""

    WAITING = re.compile(r"aten::(_local_scalar_dense|item|nonzero|masked_select|is_nonzero|equal|unique|_unique)")

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        waits = self.WAITING.match(operation.name())
        masks = operation.name().startswith(("aten::index.", "aten::index_put")) and any(
            index is not None and index.dtype == torch.bool for index in args[1]
        )
        if waits or masks:
            raise AnswerNeededError(operation.name())
        return operation(*args, **(kwargs or {}))


def test_a_wait_is_noticed():
    value, mask = torch.ones(3), torch.tensor([True, False, True])
    for wait in (lambda: value.sum().item(), lambda: value[mask], lambda: bool(mask.any()), lambda: mask.nonzero()):
        with pytest.raises(AnswerNeededError), NoAnswers():
            wait()
    with pytest.raises(AnswerNeededError), NoAnswers():
        value[mask] = 0
    with NoAnswers():
        assert torch.where(mask, value, 0).shape == (3,)


@pytest.mark.parametrize("loss", sorted(LOSSES))
def test_no_loss_makes_a_step_wait(tmp_path, loss):
    run = trainer(tmp_path, loss=loss, bf16=loss == "bce", max_grad_norm=1.0, drop_path_rate=0.3)
    batch = run.data_collator(rows(8))
    with NoAnswers():
        items = run._get_num_items_in_batch([batch], run.args.device)
        run.training_step(run.model, batch, items)
        run._get_grad_norm(run.model, run._clip_grad_norm(run.model))
        run.floating_point_ops(batch)
    assert any(parameter.grad.abs().max() > 0 for parameter in run.model.parameters() if parameter.grad is not None)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU: a CPU has nobody to wait for")
@pytest.mark.parametrize("average", [None, WeightAverage(0.9)], ids=["weights", "average"])
def test_steps_on_a_gpu_do_not_wait(tmp_path, average):
    from transformers import TrainerCallback

    class Strict(TrainerCallback):
        """From the third step on, a wait is an error."""

        def on_step_end(self, args, state, control, **kwargs):
            torch.cuda.set_sync_debug_mode("error" if 2 <= state.global_step < 9 else "default")

    run = trainer(
        tmp_path,
        average=average,
        callbacks=[Strict()],
        use_cpu=False,
        bf16=True,
        max_grad_norm=1.0,
        logging_steps=10,
        drop_path_rate=0.3,
        num_train_epochs=1,
        per_device_train_batch_size=4,  # 10 steps
    )
    try:
        run.train()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert run.state.global_step == 10
