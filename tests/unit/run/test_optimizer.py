"""The optimizers of a run, by their first steps."""

import pytest
import torch

from hf_cxr.config import CXRTrainingArguments, parse_arguments
from hf_cxr.run.training import optimizer_of


def steps(tmp_path, **kwargs):
    """A weight of 2 after two steps of gradient 1 at a rate of 0.1, L2 decay 0.5."""
    training = CXRTrainingArguments(output_dir=str(tmp_path), use_cpu=True, learning_rate=0.1, **kwargs)
    kind, options = optimizer_of(training)
    weight = torch.nn.Parameter(torch.tensor(2.0, dtype=torch.float64))
    optimizer = kind([{"params": [weight], "weight_decay": 0.5}], **options)
    values = []
    for _ in range(2):
        weight.grad = torch.ones_like(weight)
        optimizer.step()
        values.append(weight.item())
    return values


def test_sgd_has_its_momentum_and_l2_decay(tmp_path):
    first = 2 - 0.1 * (1 + 0.5 * 2)
    assert steps(tmp_path, optimizer="sgd", sgd_momentum=0) == pytest.approx([1.8, first - 0.1 * (1 + 0.5 * first)])
    second = first - 0.1 * (0.9 * (1 + 0.5 * 2) + 1 + 0.5 * first)
    assert steps(tmp_path, optimizer="sgd") == pytest.approx([first, second])


def test_adam_decays_by_the_gradient_and_adamw_by_the_weight(tmp_path):
    assert steps(tmp_path, optimizer="adam")[0] == pytest.approx(1.9)
    assert steps(tmp_path, optimizer="adamw")[0] == pytest.approx(2 * (1 - 0.1 * 0.5) - 0.1)


def test_a_momentum_that_no_optimizer_reads_is_refused(tmp_path):
    for optimizer in ("adam", "adamw"):
        with pytest.raises(
            ValueError, match=f"sgd_momentum is 0.8 .* optimizer is {optimizer}; leave it out, or give"
        ):
            CXRTrainingArguments(output_dir=str(tmp_path), use_cpu=True, optimizer=optimizer, sgd_momentum=0.8)
        CXRTrainingArguments(output_dir=str(tmp_path), use_cpu=True, optimizer=optimizer, sgd_momentum=0.9)


def test_a_momentum_of_1_is_refused(tmp_path):
    with pytest.raises(SystemExit):
        parse_arguments(["--dataset=phantom", f"--output_dir={tmp_path}", "--optimizer=sgd", "--sgd_momentum=1"])
