"""Label smoothing: the target y (1 - e) + e / 2 of known cells, in training alone, for losses of single cells."""

import pytest
import torch
import torch.nn.functional as F
from loss_batches import OF_HARD_LABELS

from hf_cxr.losses import LOSSES, build_loss

POSITIVES, KNOWN = [20, 300, 90], [1000, 1000, 900]
LINEAR = sorted(set(LOSSES) - OF_HARD_LABELS)


def build(name, epsilon=0.0, dtype=torch.float64):
    loss = build_loss(name, positives_C=POSITIVES, known_C=KNOWN).to(dtype)
    loss.set_label_smoothing(epsilon)
    return loss


@pytest.fixture
def batch():
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(6, 3, generator=generator, dtype=torch.float64) * 3
    targets = (torch.rand(6, 3, generator=generator) < 0.4).to(torch.float64)
    targets[0, 1] = targets[4] = torch.nan
    return logits, targets


def test_bce_is_the_cross_entropy_of_the_smoothed_target(batch):
    logits, targets = batch
    known = ~targets.isnan()
    for epsilon in (0.1, 0.5, 0.9):
        smooth = targets[known] * (1 - epsilon) + epsilon / 2
        wanted = F.binary_cross_entropy_with_logits(logits[known], smooth)
        torch.testing.assert_close(build("bce", epsilon)(logits, targets), wanted, rtol=1e-12, atol=0)
    assert not torch.isclose(build("bce", 0.5)(logits, targets), build("bce")(logits, targets))


@pytest.mark.parametrize("name", sorted(LOSSES))
def test_a_loss_takes_hard_labels_alone_if_a_cell_depends_on_the_label_of_another(name, batch):
    logits, targets = batch
    gradients = []
    for label in (0.0, 1.0):
        targets[1, 2] = label
        z = logits.clone().requires_grad_()
        build(name)(z, targets).backward()
        gradients.append(z.grad[1, :2])
    assert gradients[0].abs().min() > 0
    assert torch.equal(*gradients) == (name not in OF_HARD_LABELS)


@pytest.mark.parametrize("name", LINEAR)
def test_a_loss_that_is_linear_in_the_label_takes_the_soft_target(name, batch):
    logits, targets = batch
    loss = build(name, 0.2)
    known = ~targets.isnan()
    positive, negative = (loss.elementwise(logits, torch.full_like(logits, value)) for value in (1.0, 0.0))
    soft = torch.where(known, targets, 0) * 0.8 + 0.1
    cells = soft * positive + (1 - soft) * negative
    if loss.class_weights_C is not None:
        cells = cells * loss.class_weights_C
    torch.testing.assert_close(loss(logits, targets), cells[known].mean(), rtol=1e-6, atol=0)


@pytest.mark.parametrize("name", sorted(set(LOSSES) - OF_HARD_LABELS))
def test_gradients_are_finite_and_right_and_unknown_cells_have_none(name, batch):
    logits, targets = batch
    loss = build(name, 0.2)
    assert torch.autograd.gradcheck(lambda z: loss(z, targets), logits.clone().requires_grad_(), atol=1e-4)
    z = logits.clone().requires_grad_()
    loss(z, targets).backward()
    assert (z.grad[targets.isnan()] == 0).all()
    assert (z.grad[~targets.isnan()] != 0).any()


@pytest.mark.parametrize("name", sorted(LOSSES))
def test_without_smoothing_and_in_evaluation_the_loss_is_the_same_to_the_bit(name, batch):
    logits, targets = batch
    plain = build_loss(name, positives_C=POSITIVES, known_C=KNOWN).to(torch.float64)
    assert torch.equal(build(name, 0.0)(logits, targets), plain(logits, targets))
    assert build(name, 0.0).describe() == plain.describe()
    if name in OF_HARD_LABELS:
        with pytest.raises(ValueError, match=r"label_smoothing_factor is 0\.1"):
            build(name, 0.1)
        return
    smooth = build(name, 0.1)
    assert not torch.equal(smooth(logits, targets), plain(logits, targets))
    assert torch.equal(smooth.eval()(logits, targets), plain(logits, targets))
    assert smooth.describe()["label_smoothing"] == 0.1


def test_the_starting_bias_is_where_the_smoothed_loss_settles():
    prevalence = torch.tensor([0.02, 0.3, 0.1], dtype=torch.float64)
    bias = build("bce", 0.2).no_information_logits(prevalence)
    torch.testing.assert_close(bias, torch.logit(prevalence * 0.8 + 0.1), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("epsilon", [-0.1, 1.0, float("nan")])
def test_a_share_out_of_range_is_refused(epsilon):
    with pytest.raises(ValueError, match="0 to below 1"):
        build("bce", epsilon)
