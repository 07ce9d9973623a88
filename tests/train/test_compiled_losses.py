"""Compiled, each loss is one graph and has the value and the gradient that it has without."""

import pytest
import test_losses
import test_losses_longtail
import torch
from loss_batches import value_and_gradient


def check(loss, logits, *arguments, backend):
    torch.compiler.reset()
    compiled = torch.compile(loss, fullgraph=True, backend=backend)
    for one in arguments:
        value, gradient = value_and_gradient(compiled, logits, *one)
        expected, expected_gradient = value_and_gradient(loss, logits, *one)
        torch.testing.assert_close(value, expected)
        torch.testing.assert_close(gradient, expected_gradient)
        assert expected > 0
        assert gradient.any()


@test_losses.in_every_case
def test_a_loss_compiles_to_one_graph(function, options):
    logits, targets = test_losses.random_batch()
    loss = test_losses.module(function, options)
    check(loss, logits, (targets,), (targets, torch.tensor(40.0)), backend="aot_eager")


@test_losses_longtail.in_every_case
def test_a_long_tail_loss_compiles_to_one_graph(name, options):
    logits, targets = test_losses_longtail.random_batch(dtype=torch.float32)
    loss = test_losses_longtail.build(name, options)
    check(loss, logits, (targets,), (targets, loss.count_items(targets) + 3), backend="eager")


@pytest.mark.parametrize("name", sorted({name for name, _ in test_losses_longtail.CASES.values()}))
def test_compiled_backward_gives_the_same_gradient(name):
    logits, targets = test_losses_longtail.random_batch(dtype=torch.float32)
    check(test_losses_longtail.build(name), logits, (targets,), backend="aot_eager")
