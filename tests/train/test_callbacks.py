"""Deferred re-weighting and averaged weights: what they do in each step, and that a resumed run is the same run."""

import copy
import json

import pytest
import torch
from safetensors.torch import load_file
from tiny import rows, trainer
from transformers import TrainerCallback, TrainerControl, TrainerState

from hf_cxr.training.callbacks import TRAINING_WEIGHTS, DeferredReweighting, EarlyStopping, WeightAverage
from hf_cxr.training.checkpoints import usable_checkpoint

STEPS = {
    "num_train_epochs": 3,
    "per_device_train_batch_size": 8,  # 5 steps an epoch
    "save_strategy": "steps",
    "save_steps": 1,
    "save_total_limit": None,
    "drop_path_rate": 0.3,
}


class Recorder(TrainerCallback):
    """Keeps the weights after each step, and whether the class weights acted in it."""

    def __init__(self, stop=None):
        self.weights, self.active, self.stop = [], [], stop

    def on_train_begin(self, args, state, control, model, **kwargs):
        self.weights.append(copy.deepcopy(model.state_dict()))

    def on_step_end(self, args, state, control, model, **kwargs):
        self.weights.append(copy.deepcopy(model.state_dict()))
        control.should_training_stop = state.global_step == self.stop


def equal(one, other):
    return all(torch.equal(one[name], other[name]) for name in one)


def test_average_is_the_recursion_over_the_steps(tmp_path):
    kept = Recorder()
    run = trainer(tmp_path, average=WeightAverage(0.5), callbacks=[kept], **(STEPS | {"save_strategy": "no"}))
    run.train()
    expected = {name: value.double() for name, value in kept.weights[0].items()}
    for step, now in enumerate(kept.weights[1:], start=1):
        decay = min(0.5, (1 + step) / (10 + step))
        expected = {name: decay * value + (1 - decay) * now[name].double() for name, value in expected.items()}
    final = run.model.state_dict()
    for name, value in final.items():
        torch.testing.assert_close(value.double(), expected[name], atol=1e-6, rtol=1e-5)
    assert not equal(final, kept.weights[-1])
    assert len(kept.weights) == 16


def test_average_leaves_training_alone_and_without_decay_is_the_weights(tmp_path):
    plain, averaged, undecayed = Recorder(), Recorder(), Recorder()
    settings = {"eval_dataset": rows(8, seed=1), "eval_strategy": "epoch", "metric_for_best_model": "loss", **STEPS}
    trainer(tmp_path / "a", callbacks=[plain], **settings).train()
    trainer(tmp_path / "b", average=WeightAverage(0.9), callbacks=[averaged], **settings).train()
    assert all(map(equal, plain.weights, averaged.weights))  # evaluated and saved with others in between
    run = trainer(tmp_path / "c", average=WeightAverage(0.0), callbacks=[undecayed], **STEPS)
    run.train()
    assert equal(run.model.state_dict(), undecayed.weights[-1])


@pytest.mark.parametrize("stop", [5, 7], ids=["end of an epoch", "mid-epoch"])
def test_resumed_run_has_the_same_average_to_the_bit(tmp_path, stop):
    straight = trainer(tmp_path / "straight", average=WeightAverage(0.9), **STEPS)
    straight.train()
    trainer(tmp_path / "stopped", average=WeightAverage(0.9), callbacks=[Recorder(stop)], **STEPS).train()
    checkpoint = usable_checkpoint(tmp_path / "stopped")
    assert checkpoint.name == f"checkpoint-{stop}"
    resumed = trainer(tmp_path / "stopped", average=WeightAverage(0.9), **STEPS)
    resumed.train(resume_from_checkpoint=str(checkpoint))
    assert equal(resumed.model.state_dict(), straight.model.state_dict())
    for file in ("model.safetensors", TRAINING_WEIGHTS):
        one, other = (load_file(tmp_path / name / "checkpoint-15" / file) for name in ("straight", "stopped"))
        assert equal(one, other)


def test_checkpoint_is_chosen_and_measured_by_its_average(tmp_path):
    kept = Recorder()
    run = trainer(
        tmp_path,
        average=WeightAverage(0.9),
        callbacks=[kept],
        eval_dataset=rows(16, seed=1),
        **(STEPS | {"save_strategy": "epoch", "eval_strategy": "epoch", "load_best_model_at_end": True}),
    )
    scores, seen = iter([0.6, 0.9, 0.7]), []

    def measure(prediction):
        seen.append(copy.deepcopy(run.model.state_dict()))
        return {"auc": next(scores)}

    run._metrics_of_set = measure
    run.train()
    best = type(run.model).from_pretrained(tmp_path / "checkpoint-10").state_dict()
    assert equal(best, seen[1])
    assert equal(run.model.state_dict(), best)
    assert not equal(best, kept.weights[10])
    assert not equal(best, seen[2])
    training = load_file(tmp_path / "checkpoint-10" / TRAINING_WEIGHTS)
    assert all(torch.equal(training[name], kept.weights[10][name]) for name in training)
    run.save_model(str(tmp_path / "final"))
    assert not (tmp_path / "final" / TRAINING_WEIGHTS).exists()
    assert equal(type(run.model).from_pretrained(tmp_path / "final").state_dict(), best)


def test_average_needs_a_checkpoint_with_one(tmp_path):
    trainer(tmp_path, **STEPS).train()
    run = trainer(tmp_path, average=WeightAverage(0.9), **STEPS)
    with pytest.raises(ValueError, match=r"checkpoint-5 has no training_weights.safetensors: .* without --ema_decay"):
        run.train(resume_from_checkpoint=str(tmp_path / "checkpoint-5"))
    with pytest.raises(ValueError, match=r"decay is 1; it must be 0 to below 1"):
        WeightAverage(1)


class Noting(DeferredReweighting):
    """Also keeps the value of the loss's switch in each step."""

    def on_step_end(self, args, state, control, **kwargs):
        self.noted = {**getattr(self, "noted", {}), state.global_step: self.loss.reweighting}


def deferred(folder, start, **settings):
    run = trainer(folder, **settings)
    callback = Noting(run.loss, start)
    run.add_callback(callback)
    return run, callback


def test_class_weights_act_from_their_epoch_on_and_after_a_resume(tmp_path):
    straight, noting = deferred(tmp_path / "a", 2, **STEPS)
    straight.train()
    assert noting.noted == {step: step > 10 for step in range(1, 16)}
    stopped, _ = deferred(tmp_path / "b", 2, callbacks=[Recorder(12)], **STEPS)
    stopped.train()
    resumed, noting = deferred(tmp_path / "b", 2, **STEPS)
    resumed.train(resume_from_checkpoint=str(usable_checkpoint(tmp_path / "b")))
    assert noting.noted == dict.fromkeys((13, 14, 15), True)
    assert equal(resumed.model.state_dict(), straight.model.state_dict())


def test_before_its_epoch_the_loss_is_the_unweighted_one(tmp_path):
    losses = {}
    for name, start in (("never", 9), ("second", 1), ("always", 0)):
        run, _ = deferred(tmp_path / name, start, **(STEPS | {"save_strategy": "no", "drop_path_rate": 0.0}))
        run.train()
        losses[name] = [entry["loss"] for entry in run.state.log_history if "loss" in entry]
    assert losses["second"][:5] == losses["never"][:5]
    assert losses["second"][5] != losses["never"][5]
    assert losses["second"][0] != losses["always"][0]
    weighted = trainer(tmp_path / "plain", **(STEPS | {"save_strategy": "no", "drop_path_rate": 0.0}))
    weighted.train()
    assert [entry["loss"] for entry in weighted.state.log_history if "loss" in entry] == losses["always"]
    assert json.dumps(losses)  # plain numbers


EARLY = {
    "num_train_epochs": 6,
    "per_device_train_batch_size": 8,  # 5 steps an epoch
    "eval_strategy": "steps",
    "eval_steps": 3,
    "save_strategy": "steps",
    "save_steps": 3,
    "save_total_limit": None,
    "metric_for_best_model": "loss",
    "drop_path_rate": 0.3,
}


@pytest.mark.parametrize("evaluations", [2, 4], ids=["in the count", "with the count full"])
def test_a_resumed_run_stops_early_where_the_straight_one_does(tmp_path, evaluations):
    def build(folder, *more):
        # No value is better by 10, so that the first one starts a count of three.
        callbacks = [EarlyStopping(3, 10.0), *more]
        return trainer(tmp_path / folder, eval_dataset=rows(8), callbacks=callbacks, **EARLY)

    straight = build("straight")
    straight.train()
    assert straight.state.global_step == 12 < straight.state.max_steps == 30
    build("stopped", Recorder(stop=3 * evaluations)).train()
    resumed = build("stopped")
    resumed.train(resume_from_checkpoint=str(tmp_path / "stopped" / f"checkpoint-{3 * evaluations}"))
    assert resumed.state.global_step == 12
    assert equal(resumed.model.state_dict(), straight.model.state_dict())
    assert [entry.get("eval_loss") for entry in resumed.state.log_history if "eval_loss" in entry] == [
        entry["eval_loss"] for entry in straight.state.log_history if "eval_loss" in entry
    ]


def test_a_checkpoint_of_an_earlier_version_keeps_its_count_under_the_metrics_new_name(tmp_path):
    def build(*more):
        settings = EARLY | {"metric_for_best_model": "ap"}
        callbacks = [EarlyStopping(3, 0.0), *more]
        return trainer(
            tmp_path, eval_dataset=rows(8), callbacks=callbacks, compute_metrics=lambda _: {"ap": 0.5}, **settings
        )

    build(Recorder(stop=6)).train()
    checkpoint = tmp_path / "checkpoint-6"
    state = (checkpoint / "trainer_state.json").read_text()
    assert state.count('"eval_ap"') == 2
    (checkpoint / "trainer_state.json").write_text(state.replace('"eval_ap"', '"eval_mean_average_precision"'))
    resumed = build()
    resumed.train(resume_from_checkpoint=str(checkpoint))
    assert resumed.state.global_step == 12 < resumed.state.max_steps
    assert [entry["step"] for entry in resumed.state.log_history if "eval_ap" in entry] == [3, 6, 9, 12]


def test_an_undefined_figure_counts_as_no_better(tmp_path):
    stopping = EarlyStopping(2, 0.0)
    values = [0.6, float("nan"), 0.7, 0.65, float("nan")]
    state = TrainerState(log_history=[{"eval_auc": value} for value in values])
    control = TrainerControl()
    args = trainer(tmp_path, eval_strategy="epoch", metric_for_best_model="auc", eval_dataset=rows(4)).args
    args.greater_is_better = True
    stopping.on_train_begin(args, state, control)
    assert (stopping.early_stopping_patience_counter, control.should_training_stop) == (2, True)
    state.log_history.pop()
    control = TrainerControl()
    stopping.on_train_begin(args, state, control)
    assert (stopping.early_stopping_patience_counter, control.should_training_stop) == (1, False)
