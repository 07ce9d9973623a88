"""Training with batch norm: averages in checkpoints, a resume to the bit, averaged weights, frozen backbones."""

import pytest
import torch
from safetensors.torch import load_file
from tiny import MODELS, rows, trainer
from transformers import TrainerCallback

from hf_cxr.labels import NIH14
from hf_cxr.models import fresh
from hf_cxr.training.callbacks import WeightAverage


def resnet():
    torch.manual_seed(0)
    return fresh("resnet", MODELS["resnet"], NIH14, 32)


def run(folder, **kwargs):
    defaults = {"per_device_train_batch_size": 8, "num_train_epochs": 2, "save_strategy": "steps", "save_steps": 3}
    return trainer(folder, model=resnet(), **defaults | kwargs)


class StopAt(TrainerCallback):
    def __init__(self, step):
        self.step = step

    def on_step_end(self, args, state, control, **kwargs):
        control.should_training_stop = state.global_step == self.step


def buffers(model):
    return {name: value for name, value in model.state_dict().items() if "running" in name or "tracked" in name}


@pytest.mark.parametrize("average", [None, 0.9])
def test_a_resumed_run_ends_with_the_same_weights_and_averages_to_the_bit(tmp_path, average):
    def start(folder, **kwargs):
        return run(tmp_path / folder, average=average and WeightAverage(average), **kwargs)

    straight = start("straight")
    straight.train()
    stopped = start("stopped", callbacks=[StopAt(4)])
    stopped.train()
    resumed = start("stopped")
    resumed.train(resume_from_checkpoint=str(tmp_path / "stopped" / "checkpoint-3"))
    assert straight.state.global_step == 10
    expected, actual = straight.model.state_dict(), resumed.model.state_dict()
    assert all(torch.equal(actual[name], value) for name, value in expected.items())
    tracked = [value for name, value in expected.items() if "tracked" in name]
    assert {value.item() for value in tracked} == {10}  # one measurement a step, and none in evaluation
    assert any(value.abs().max() > 1e-3 for name, value in expected.items() if "running_mean" in name)


def test_an_average_has_the_buffers_of_the_weights_in_training(tmp_path):
    plain, averaged = run(tmp_path / "a"), run(tmp_path / "b", average=WeightAverage(0.9))
    plain.train()
    averaged.train()
    assert all(torch.equal(buffers(averaged.model)[name], value) for name, value in buffers(plain.model).items())
    weights = dict(averaged.model.named_parameters())
    assert not all(torch.equal(weights[name], value) for name, value in plain.model.named_parameters())
    saved = load_file(tmp_path / "b" / "checkpoint-9" / "model.safetensors")
    kept = load_file(tmp_path / "b" / "checkpoint-9" / "training_weights.safetensors")
    measured = [name for name in saved if "running_var" in name]
    assert measured
    assert all(torch.equal(saved[name], kept[name]) for name in measured)
    assert not all(torch.equal(value, kept[name]) for name, value in saved.items())


def test_a_step_that_would_be_split_up_is_refused_before_training(tmp_path):
    with pytest.raises(ValueError, match=r"batch norm layers, .* gradient_accumulation_steps 1, not 4"):
        run(tmp_path, gradient_accumulation_steps=4)
    with pytest.raises(ValueError, match="cannot normalise one image by itself"):
        run(tmp_path, per_device_train_batch_size=1)


def test_a_frozen_backbone_keeps_its_averages_and_may_be_split_up(tmp_path):
    before = {name: value.clone() for name, value in buffers(resnet()).items()}
    frozen = run(tmp_path, freeze=True, gradient_accumulation_steps=2, per_device_train_batch_size=4)
    frozen.train()
    assert all(torch.equal(buffers(frozen.model)[name], value) for name, value in before.items())


def test_evaluation_is_the_same_in_any_batch_and_measures_nothing(tmp_path):
    made = run(tmp_path, eval_dataset=rows(24, seed=1))
    made.train()
    before = {name: value.clone() for name, value in buffers(made.model).items()}
    logits = made.predict(made.eval_dataset).predictions
    one_by_one = run(tmp_path / "b", per_device_eval_batch_size=1)
    one_by_one.model.load_state_dict(made.model.state_dict())
    torch.testing.assert_close(
        torch.tensor(one_by_one.predict(made.eval_dataset).predictions), torch.tensor(logits), atol=1e-5, rtol=1e-4
    )
    assert all(torch.equal(buffers(made.model)[name], value) for name, value in before.items())
