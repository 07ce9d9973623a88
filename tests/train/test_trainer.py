"""The Trainer: the same gradients however a step is cut up, the same weights after a resume, the best checkpoint."""

import numpy as np
import pytest
import torch
from gradients_worker import Gradients
from tiny import rows, trainer
from transformers import TrainerCallback

from hf_cxr.training.checkpoints import usable_checkpoint


def gradients(folder, batch_size, accumulation=1, **kwargs):
    kept = Gradients()
    run = trainer(
        folder,
        per_device_train_batch_size=batch_size,
        gradient_accumulation_steps=accumulation,
        callbacks=[kept],
        **kwargs,
    )
    run.train()
    return kept.steps, run.state.log_history[0]["loss"]


def assert_same_gradients(one, other):
    largest = max(value.abs().max() for value in other.values())
    assert largest > 1e-4  # they are not all zero
    for name, value in other.items():
        torch.testing.assert_close(
            one[name], value, atol=2e-6, rtol=1e-4, msg=lambda text, name=name: f"{name}: {text}"
        )


@pytest.mark.parametrize("loss", ["bce", "class_aware", "zlpr"])
def test_accumulation_gives_the_gradients_of_the_whole_batch(tmp_path, loss):
    (whole,), whole_loss = gradients(tmp_path / "a", 32, loss=loss)
    (cut,), cut_loss = gradients(tmp_path / "b", 8, 4, loss=loss)
    assert_same_gradients(cut, whole)
    assert cut_loss == pytest.approx(whole_loss, rel=1e-5)


def test_a_loss_whose_pieces_do_not_add_up_takes_the_step_whole(tmp_path):
    with pytest.raises(
        ValueError, match=r"TwoWayLoss: .* depends on other images of its batch.*1 process and .* not 1 and 4"
    ):
        trainer(tmp_path, loss="two_way", per_device_train_batch_size=8, gradient_accumulation_steps=4)
    (step,), value = gradients(tmp_path, 32, loss="two_way")
    assert value > 0
    assert max(gradient.abs().max() for gradient in step.values()) > 1e-4


def test_gradients_are_those_of_the_loss_itself(tmp_path):
    (step,), _ = gradients(tmp_path, 32)
    run = trainer(tmp_path)
    chosen = list(trainer(tmp_path, per_device_train_batch_size=32).sampler)
    batch = run.data_collator([run.train_dataset[i] for i in chosen])
    run.model.train()
    logits = run.model(pixel_values=run.pixels.augment(batch["pixel_values"], batch["row"], 0)).logits
    run.loss(logits, batch["labels"]).backward()
    assert_same_gradients(step, {name: value.grad for name, value in run.model.named_parameters()})


def test_a_mean_of_means_would_give_other_gradients(tmp_path, monkeypatch):
    # The two tests above can fail: without the count over the whole step, unknown cells shift the gradient.
    (whole,), _ = gradients(tmp_path / "a", 32)
    monkeypatch.setattr("hf_cxr.training.trainer.CXRTrainer._get_num_items_in_batch", lambda *args: None)
    monkeypatch.setattr("hf_cxr.training.trainer.CXRTrainer.loss_is_scaled_for_ga", False)
    (naive,), _ = gradients(tmp_path / "b", 8, 4)
    with pytest.raises(AssertionError, match="Tensor-likes are not close"):
        assert_same_gradients(naive, whole)


class StopAt(TrainerCallback):
    """Ends training at a step, as a killed job does as far as the checkpoints are concerned."""

    def __init__(self, step):
        self.step = step

    def on_step_end(self, args, state, control, **kwargs):
        control.should_training_stop = state.global_step >= self.step


@pytest.mark.parametrize("stop", [5, 7], ids=["end of an epoch", "mid-epoch"])
def test_resumed_run_ends_with_the_same_weights_to_the_bit(tmp_path, stop):
    settings = {
        "num_train_epochs": 3,
        "per_device_train_batch_size": 4,
        "gradient_accumulation_steps": 2,  # 5 steps an epoch
        "save_strategy": "steps",
        "save_steps": 1,
        "save_total_limit": None,
        "drop_path_rate": 0.3,  # random at each step: the generators' states have to come back too
        "lr_scheduler_type": "cosine",
        "ignore_data_skip": False,
    }
    straight = trainer(tmp_path / "straight", **settings)
    straight.train()
    trainer(tmp_path / "stopped", callbacks=[StopAt(stop)], **settings).train()
    checkpoint = usable_checkpoint(tmp_path / "stopped")
    assert checkpoint.name == f"checkpoint-{stop}"
    resumed = trainer(tmp_path / "stopped", **settings)
    start = {name: value.clone() for name, value in resumed.model.named_parameters()}
    resumed.train(resume_from_checkpoint=str(checkpoint))
    assert resumed.state.global_step == straight.state.global_step == 15
    for (name, one), (_, other) in zip(
        resumed.model.named_parameters(), straight.model.named_parameters(), strict=True
    ):
        assert torch.equal(one, other), name
    assert any(not torch.equal(value, start[name]) for name, value in resumed.model.named_parameters())


def test_best_checkpoint_is_what_remains(tmp_path):
    scores = iter([0.6, 0.9, 0.7])
    run = trainer(
        tmp_path,
        eval_dataset=rows(16, seed=1),
        num_train_epochs=3,
        per_device_train_batch_size=8,
        eval_strategy="epoch",
        save_strategy="epoch",
        load_best_model_at_end=True,
    )
    run._metrics_of_set = lambda prediction: {"auc": next(scores)}
    run.train()
    best = type(run.model).from_pretrained(tmp_path / "checkpoint-10").state_dict()
    last = type(run.model).from_pretrained(tmp_path / "checkpoint-15").state_dict()
    now = run.model.state_dict()
    assert all(torch.equal(now[name], best[name]) for name in now)
    assert any(not torch.equal(now[name], last[name]) for name in now)


def test_validation_loss_is_over_the_whole_set_however_it_is_cut(tmp_path):
    dataset = rows(23, seed=2)
    losses = []
    for size in (23, 4):
        run = trainer(tmp_path, eval_dataset=dataset, per_device_eval_batch_size=size)
        losses.append(run.evaluate()["eval_loss"])
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
    batch = run.data_collator(dataset)
    run.model.eval()
    with torch.no_grad():
        expected = run.loss(run.model(pixel_values=run.pixels(batch["pixel_values"])).logits, batch["labels"])
    assert losses[0] == pytest.approx(expected.item(), rel=1e-5)


@pytest.mark.parametrize(("optimizer", "all_decay"), [("adam", True), ("adamw", False), ("sgd", True)])
def test_weight_decay_is_where_the_recipe_has_it(tmp_path, optimizer, all_decay):
    run = trainer(tmp_path, optimizer=optimizer, weight_decay=0.01)
    names = set(run.get_decay_parameter_names(run.model))
    assert "classifier.weight" in names
    assert ("classifier.bias" in names) == all_decay
    assert ("swin.layernorm.weight" in names) == all_decay


def test_bf16_changes_little_and_leaves_the_pixels_alone(tmp_path):
    (full,), full_loss = gradients(tmp_path / "a", 32)
    (half,), half_loss = gradients(tmp_path / "b", 32, bf16=True)
    assert half_loss == pytest.approx(full_loss, rel=0.02)
    assert half_loss != full_loss
    together = sum((half[name] * full[name]).sum() for name in full)
    lengths = [sum((step[name] ** 2).sum() for name in full).sqrt() for step in (half, full)]
    assert together / (lengths[0] * lengths[1]) > 0.98
    run = trainer(tmp_path / "c", bf16=True)
    batch = run.data_collator(rows(4))
    with torch.autocast("cpu", torch.bfloat16):
        inside = run.pixels.augment(batch["pixel_values"], batch["row"], 0)
    assert torch.equal(inside, run.pixels.augment(batch["pixel_values"], batch["row"], 0))


def test_logits_come_out_in_order(tmp_path):
    dataset = rows(9, seed=4)
    run = trainer(tmp_path, per_device_eval_batch_size=4)
    prediction = run.predict(dataset)
    np.testing.assert_array_equal(prediction.label_ids, np.stack([row["labels"] for row in dataset]))
    assert prediction.predictions.shape == (9, 14)


def test_a_run_that_diverged_ends_with_the_reason(tmp_path):
    run = trainer(tmp_path, eval_dataset=rows(16, seed=1), eval_strategy="epoch", learning_rate=1e38)
    with pytest.raises(ValueError, match=r"diverged.* 16 of 16 .*epoch 1;.*learning_rate"):
        run.train()
