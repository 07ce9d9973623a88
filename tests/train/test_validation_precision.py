"""Validation during training: in the precision of training, near the figures of float32, gathered once."""

import numpy as np
import pytest
import torch
from tiny import rows, trainer
from torch.utils._python_dispatch import TorchDispatchMode

from hf_cxr.augmentation import Augmentation
from hf_cxr.evaluation import headline_metrics

HIDDEN = 64  # channels before the classifier


def learnable(n_images, seed):
    """Images on which each finding is a bright square at a place of its own."""
    rng = np.random.default_rng(seed)
    images = rows(n_images, seed)
    for row in images:
        row["labels"] = (rng.random(14) < 0.4).astype(np.float32)
        pixels = rng.integers(60, 200, (36, 36))
        for finding in np.flatnonzero(row["labels"]):
            top, left = 9 * (finding // 4), 9 * (finding % 4)
            pixels[top : top + 8, left : left + 8] += 50
        row["pixels"] = np.clip(pixels, 0, 255).astype(np.uint8)
    return images


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The weights of a model that has learnt something."""
    settings = {"learning_rate": 5e-3, "per_device_train_batch_size": 16, "num_train_epochs": 6}
    run = trainer(tmp_path_factory.mktemp("trained"), dataset=learnable(400, 0), logging_strategy="epoch", **settings)
    run.pixels.augmentation = Augmentation()
    run.train()
    return {name: value.clone() for name, value in run.model.state_dict().items()}


def evaluated(folder, weights, **settings):
    """Logits and labels of a validation, its metrics, and the trainer."""
    kept = {}

    def keep(prediction):
        kept["logits"], kept["labels"] = prediction.predictions, prediction.label_ids
        return {}

    run = trainer(folder, eval_dataset=learnable(150, 1), compute_metrics=keep, **settings)
    run.model.load_state_dict(weights)
    metrics = run.evaluate()
    return kept["logits"], kept["labels"], metrics, run


def test_bfloat16_validation_is_near_float32s(tmp_path, trained):
    full, labels, full_metrics, _ = evaluated(tmp_path, trained)
    half, _, half_metrics, _ = evaluated(tmp_path, trained, bf16=True)
    assert full.dtype == half.dtype == np.float32
    assert full.std() > 0.5  # the model says something
    assert 0 < np.abs(half - full).max() < 0.05
    assert half_metrics["eval_loss"] == pytest.approx(full_metrics["eval_loss"], rel=2e-3)
    for metric in headline_metrics().values():
        one_C, other_C = (metric.measure(logits.astype(np.float64), labels) for logits in (full, half))
        assert one_C.mean() > 0.65  # and what it says is not chance
        assert np.abs(one_C - other_C).max() < 0.006
        assert abs(one_C.mean() - other_C.mean()) < 0.003


class WeightCasts(TorchDispatchMode):
    """Counts how often the classifier's weights are cast."""

    def __init__(self):
        super().__init__()
        self.casts = 0

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        cast = operation.name().startswith(("aten::to.", "aten::_to_copy"))
        to_bfloat16 = torch.bfloat16 in [*args[1:], *(kwargs or {}).values()]
        self.casts += cast and to_bfloat16 and args[0].shape == (14, HIDDEN)
        return operation(*args, **(kwargs or {}))


@pytest.mark.parametrize("bf16", [False, True])
def test_the_precision_is_that_of_training_and_weights_are_cast_once(tmp_path, trained, bf16):
    found = set()

    def note(module, inputs, output):
        found.add((module.training, output.dtype))

    run = trainer(tmp_path, bf16=bf16, eval_dataset=rows(20), per_device_eval_batch_size=4, eval_strategy="epoch",
                  per_device_train_batch_size=20, metric_for_best_model="loss")  # fmt: skip
    run.model.classifier.register_forward_hook(note)
    run.train()
    dtype = torch.bfloat16 if bf16 else torch.float32
    assert found == {(True, dtype), (False, dtype)}
    with WeightCasts() as counted:
        run.evaluate()
    assert counted.casts == bf16


def test_training_goes_on_after_a_validation_before_it(tmp_path):
    # A tensor that a model kept from inference mode could not take part in a backward pass.
    weights = []
    for first in (False, True):
        run = trainer(tmp_path, bf16=True, eval_dataset=rows(8), eval_strategy="epoch", eval_on_start=first,
                      num_train_epochs=2, metric_for_best_model="loss")  # fmt: skip
        run.train()
        weights.append(run.model.classifier.weight.detach().clone())
        assert sum("eval_loss" in entry for entry in run.state.log_history) == 2 + first
    assert torch.equal(*weights)
