"""Parts of a recipe that act on one another: a run that is stopped and resumed is the straight one, to the bit."""

import pytest
import torch
from safetensors.torch import load_file
from tiny import MODELS, trainer
from transformers import TrainerCallback

from hf_cxr.labels import NIH14
from hf_cxr.models import fresh
from hf_cxr.run.training import optimizer_of
from hf_cxr.training.callbacks import WeightAverage
from hf_cxr.training.layer_rates import LayerRates

LEVERS = {
    "yao2017 with mixup": {"architecture": "yao2017", "mixup_alpha": 0.4},
    "batch norm, the head first, averaged weights": {"architecture": "resnet", "head_first": 1, "decay": 0.9},
    "sgd": {"architecture": "swin", "optimizer": "sgd", "kwargs": {"drop_path_rate": 0.2}},
    "all": {"architecture": "yao2017", "mixup_alpha": 0.4, "head_first": 1, "decay": 0.9, "optimizer": "sgd"},
}


class StopAt(TrainerCallback):
    def __init__(self, step):
        self.step = step

    def on_step_end(self, args, state, control, **kwargs):
        control.should_training_stop = state.global_step == self.step


def start(folder, *, architecture, kwargs=(), head_first=0, decay=None, **settings):
    torch.manual_seed(0)
    model = fresh(architecture, MODELS[architecture] | dict(kwargs), NIH14, 32)
    run = trainer(
        folder,
        model=model,
        loss="bce",
        rates=LayerRates(freeze_backbone_epochs=head_first) if head_first else None,
        average=None if decay is None else WeightAverage(decay),
        learning_rate=1e-2,
        per_device_train_batch_size=8,
        num_train_epochs=2,  # of 5 steps
        save_strategy="steps",
        save_steps=3,
        save_total_limit=None,
        **settings,
    )
    run.optimizer_cls_and_kwargs = optimizer_of(run.args)
    return run


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("checkpoint", [3, 6], ids=["first epoch", "second epoch"])
@pytest.mark.parametrize("name", LEVERS)
def test_a_resumed_run_ends_as_the_straight_one_to_the_bit(tmp_path, name, checkpoint):
    straight = start(tmp_path / "straight", **LEVERS[name])
    straight.train()
    start(tmp_path / "stopped", callbacks=[StopAt(checkpoint + 1)], **LEVERS[name]).train()
    resumed = start(tmp_path / "stopped", **LEVERS[name])
    resumed.train(resume_from_checkpoint=str(tmp_path / "stopped" / f"checkpoint-{checkpoint}"))
    assert same(resumed.model.state_dict(), straight.model.state_dict())
    states = [run.optimizer.optimizer.state_dict() for run in (resumed, straight)]
    assert states[0]["param_groups"] == states[1]["param_groups"]
    assert all(same(states[0]["state"][place], state) for place, state in states[1]["state"].items())
    assert len(states[1]["state"]) == len(list(straight.model.parameters()))
    middle = load_file(tmp_path / "straight" / "checkpoint-6" / "model.safetensors")
    assert not same(middle, straight.model.state_dict())


def test_yaos_chain_gets_the_mixed_labels(tmp_path):
    run, given = start(tmp_path, **LEVERS["yao2017 with mixup"]), []
    run.model.register_forward_pre_hook(
        lambda _model, _args, kwargs: given.append(kwargs["known_labels"]), with_kwargs=True
    )
    run.loss.register_forward_pre_hook(lambda _loss, inputs: given.append(inputs[1]))
    run.train()
    assert len(given) == 20
    for known, target in zip(given[::2], given[1::2], strict=True):
        torch.testing.assert_close(known, target, rtol=0, atol=0, equal_nan=True)
        assert ((known > 0) & (known < 1)).any()


def test_while_the_head_alone_learns_batch_norm_measures_and_the_average_moves(tmp_path):
    run = start(tmp_path, **LEVERS["batch norm, the head first, averaged weights"])
    before = {name: value.clone() for name, value in run.model.state_dict().items()}
    run.train()
    saved = tmp_path / "checkpoint-3"
    averaged, weights = load_file(saved / "model.safetensors"), load_file(saved / "training_weights.safetensors")
    moved = {name for name, value in weights.items() if not torch.equal(value, before[name])}
    heads = {name for name in weights if name.startswith("classifier.")}
    assert moved - heads == {name for name in weights if "running" in name or "tracked" in name}
    assert heads <= moved
    assert {name for name in weights if not torch.equal(weights[name], averaged[name])} == heads
