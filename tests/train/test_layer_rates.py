"""Learning rates by layer: which parameter has which, that a step is that long, and the head before the backbone."""

import copy

import pytest
import torch
from test_callbacks import STEPS, Recorder, equal
from tiny import trainer

from hf_cxr.models.depths import depth_of_parameters
from hf_cxr.training.callbacks import WeightAverage
from hf_cxr.training.checkpoints import usable_checkpoint
from hf_cxr.training.layer_rates import LayerRates

ONE_STEP = {"per_device_train_batch_size": 32, "weight_decay": 0.0, "learning_rate": 1e-3}
LEVERS = LayerRates(layer_decay=0.7, head_learning_rate=3e-3, freeze_backbone_epochs=1)


@pytest.mark.parametrize("optimizer", ["adam", "adamw"])
def test_one_rate_for_all_is_the_plain_run_to_the_bit(tmp_path, optimizer):
    settings = {**STEPS, "save_strategy": "no", "optimizer": optimizer, "weight_decay": 0.05}
    plain, grouped = Recorder(), Recorder()
    trainer(tmp_path / "plain", callbacks=[plain], **settings).train()
    rates = LayerRates(head_learning_rate=1e-3)  # as the backbone's: parameters are grouped, and nothing else
    trainer(tmp_path / "grouped", callbacks=[grouped], rates=rates, **settings).train()
    assert all(map(equal, plain.weights, grouped.weights))
    assert not equal(plain.weights[0], plain.weights[-1])


@pytest.mark.parametrize("optimizer", ["adam", "adamw", "sgd"])
def test_every_parameter_is_in_one_group_with_its_rate_and_decay(tmp_path, optimizer):
    run = trainer(tmp_path, optimizer=optimizer, rates=LEVERS, weight_decay=0.05, learning_rate=1e-3)
    depths, decayed = depth_of_parameters(run.model), set(run.get_decay_parameter_names(run.model))
    group_of = {id(parameter): group for group in run.create_optimizer().param_groups for parameter in group["params"]}
    assert sum(len(group["params"]) for group in run.optimizer.param_groups) == len(group_of)
    top = max(depths.values())
    assert top == 5  # four blocks
    for name, parameter in run.model.named_parameters():
        group = group_of[id(parameter)]
        rate = 3e-3 if name.startswith("classifier") else 1e-3 * 0.7 ** (top - depths[name])
        assert group["lr"] == pytest.approx(rate, rel=1e-12), name
        assert group["weight_decay"] == (0.05 if name in decayed else 0.0), name
    assert run.optimizer.param_groups[0]["lr"] == 3e-3  # the head's: it is the one in the log
    assert len(decayed) == len(depths) if optimizer != "adamw" else 0 < len(decayed) < len(depths)


def test_a_step_is_as_long_as_the_rate_of_the_layer(tmp_path):
    # Adam's first step has the length of the rate wherever the gradient is not tiny.
    kept = Recorder()
    rates = LayerRates(layer_decay=0.5, head_learning_rate=4e-3)
    run = trainer(tmp_path, callbacks=[kept], rates=rates, **ONE_STEP)
    run.train()
    before, after = kept.weights
    longest = {}
    for name, depth in depth_of_parameters(run.model).items():
        key = "head" if name.startswith("classifier") else depth
        longest[key] = max(longest.get(key, 0), (after[name] - before[name]).abs().max().item())
    assert longest.pop("head") == pytest.approx(4e-3, rel=1e-3)
    assert longest == {depth: pytest.approx(1e-3 * 0.5 ** (5 - depth), rel=1e-2) for depth in range(6)}


def test_the_head_is_trained_before_the_backbone(tmp_path):
    kept = Recorder()
    settings = {**STEPS, "save_strategy": "no", "weight_decay": 0.05, "lr_scheduler_type": "cosine", "warmup_steps": 2}
    run = trainer(tmp_path, callbacks=[kept], rates=LayerRates(freeze_backbone_epochs=1), **settings)
    run.train()
    heads = {"classifier.weight", "classifier.bias"}
    start = kept.weights[0]
    for step, now in enumerate(kept.weights):
        moved = {name for name in start if not torch.equal(now[name], start[name])}
        if step in (0, 1):  # the warm-up begins at 0
            assert moved == set()
        elif step <= 5:
            assert moved == heads
    assert moved == set(dict(run.model.named_parameters()))
    rates = [entry["learning_rate"] for entry in run.state.log_history if "learning_rate" in entry]
    assert rates[:3] == [0.0, 5e-4, 1e-3]  # of the head, in every epoch


def test_the_smallest_rate_of_a_schedule_is_in_proportion_to_each_layers(tmp_path):
    settings = {"lr_scheduler_type": "cosine_with_min_lr", "lr_scheduler_kwargs": {"min_lr": 1e-4}, **ONE_STEP}
    run = trainer(tmp_path, rates=LayerRates(layer_decay=0.5), num_train_epochs=3, **settings)
    run.train()
    first, last = run.optimizer.param_groups[0], run.optimizer.param_groups[-1]
    assert first["lr"] == pytest.approx(1e-4)
    assert last["lr"] == pytest.approx(1e-4 * 0.5**5)


@pytest.mark.parametrize("stop", [5, 7], ids=["end of an epoch", "mid-epoch"])
def test_resumed_run_with_every_lever_is_the_same_to_the_bit(tmp_path, stop):
    settings = {**STEPS, "rates": LEVERS, "mixup_alpha": 0.3, "lr_scheduler_type": "cosine", "warmup_steps": 3}
    straight = trainer(tmp_path / "straight", average=WeightAverage(0.9), **settings)
    straight.train()
    trainer(tmp_path / "stopped", average=WeightAverage(0.9), callbacks=[Recorder(stop)], **settings).train()
    checkpoint = usable_checkpoint(tmp_path / "stopped")
    assert checkpoint.name == f"checkpoint-{stop}"
    resumed = trainer(tmp_path / "stopped", average=WeightAverage(0.9), **settings)
    start = copy.deepcopy(resumed.model.state_dict())
    resumed.train(resume_from_checkpoint=str(checkpoint))
    assert equal(resumed.model.state_dict(), straight.model.state_dict())
    assert not equal(resumed.model.state_dict(), start)
    rates = [[group["lr"] for group in run.optimizer.param_groups] for run in (resumed, straight)]
    assert rates[0] == rates[1]


def test_gradient_checkpointing_is_the_same_run(tmp_path):
    settings = {**STEPS, "save_strategy": "no", "drop_path_rate": 0.0, "num_train_epochs": 2}
    settings |= {"rates": LEVERS, "mixup_alpha": 0.3}
    runs = [trainer(tmp_path, activation_checkpointing=again, **settings) for again in (False, True)]
    for run in runs:
        run.train()
    one, other = (run.model.state_dict() for run in runs)
    assert [run.model.is_activation_checkpointing for run in runs] == [False, True]
    assert all(torch.allclose(one[name], other[name], atol=1e-5) for name in one)


def test_a_run_that_would_never_train_its_backbone_is_refused(tmp_path):
    run = trainer(tmp_path, rates=LayerRates(freeze_backbone_epochs=2), max_steps=8, per_device_train_batch_size=8)
    with pytest.raises(ValueError, match="freeze_backbone_epochs is 2, that is 10 steps, and the run has 8"):
        run.train()
