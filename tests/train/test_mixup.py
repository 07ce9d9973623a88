"""Mixup: shares from the Beta distribution, labels known where both are, and one result however a step is cut."""

import numpy as np
import pytest
import torch
from loss_batches import OF_HARD_LABELS
from scipy.stats import beta
from test_trainer import assert_same_gradients, gradients
from tiny import rows, trainer

from hf_cxr.losses import LOSSES, build_loss
from hf_cxr.sampling import EpochSampler, RepeatedRows
from hf_cxr.training.mixup import Mixup


@pytest.mark.parametrize("alpha", [0.2, 1.0])
def test_shares_have_the_beta_distribution_and_partners_that_of_the_draws(alpha):
    draws_N = np.array([1.0, 3.0, 0.0, 0.5, 1.5])
    partner_B, share_B = Mixup(draws_N, alpha=alpha, seed=1).draw(np.arange(20_000), epoch=0)
    grid = np.linspace(0.01, 0.99, 50)
    below = (share_B[:, None] <= grid).mean(axis=0)
    np.testing.assert_allclose(below, beta(alpha, alpha).cdf(grid), atol=0.012)  # 4 standard errors are 0.014
    counts = np.bincount(partner_B, minlength=5)
    np.testing.assert_allclose(counts / 20_000, draws_N / 6, atol=0.012)
    assert counts[2] == 0
    assert abs(np.corrcoef(partner_B, share_B)[0, 1]) < 0.03


def test_draws_depend_on_seed_epoch_and_index_alone():
    mixup = Mixup(np.ones(50), alpha=0.4, seed=1)
    index_B = np.arange(200)
    partner_B, share_B = mixup.draw(index_B, epoch=2)
    order = np.random.default_rng(0).permutation(200)
    again = mixup.draw(index_B[order], epoch=2)
    np.testing.assert_array_equal(again[0], partner_B[order])
    np.testing.assert_array_equal(again[1], share_B[order])
    for other in (Mixup(np.ones(50), alpha=0.4, seed=2).draw(index_B, 2), mixup.draw(index_B, 3)):
        assert (other[1] != share_B).mean() > 0.9
        assert (other[0] != partner_B).mean() > 0.9


def test_alpha_towards_0_leaves_one_of_the_two_images():
    _, share_B = Mixup(np.ones(5), alpha=1e-4, seed=0).draw(np.arange(1000), 0)
    assert np.quantile(np.minimum(share_B, 1 - share_B), 0.99) < 1e-6
    assert 0.4 < share_B.mean() < 0.6
    with pytest.raises(ValueError, match="alpha is 0; it must be above 0"):
        Mixup(np.ones(5), alpha=0)


def test_a_pair_is_both_images_and_a_label_is_known_where_both_know_it():
    dataset = RepeatedRows(rows(12))
    mixup = Mixup(np.ones(12), alpha=0.5, seed=4)
    sampler = mixup.sampler(EpochSampler(np.ones(12), batch_size=12, seed=0))
    sampler.set_epoch(3)
    pairs = list(sampler)
    batch = mixup.dataset(dataset).__getitems__(pairs)
    partner_B, share_B = mixup.draw(batch["row"], 3)
    assert [index for index, _ in pairs] == batch["row"].tolist() == list(sampler.sampler)
    assert [partner for _, partner in pairs] == partner_B.tolist()
    mixed = mixup.mix_labels(batch, 3)["labels"].numpy()
    for i, (index, partner) in enumerate(pairs):
        own, other = dataset[index], dataset[partner]
        np.testing.assert_array_equal(batch["pixel_values"][i, 0], own["pixels"])
        np.testing.assert_array_equal(batch["partner_pixel_values"][i, 0], other["pixels"])
        expected = share_B[i] * own["labels"] + (1 - share_B[i]) * other["labels"]
        np.testing.assert_allclose(mixed[i], expected, atol=1e-6)
    known = ~np.isnan(mixed)
    assert known.any()
    assert batch["labels"].isnan().sum() < (~known).sum()
    assert ((mixed[known] > 0) & (mixed[known] < 1)).any()


def test_the_model_gets_the_mixture_and_the_loss_its_labels(tmp_path):
    run = trainer(tmp_path, mixup_alpha=0.5, per_device_train_batch_size=32)
    seen = {}
    run.model.register_forward_pre_hook(
        lambda model, args, kwargs: seen.update(pixels=kwargs["pixel_values"]), with_kwargs=True
    )
    run.loss.register_forward_pre_hook(lambda loss, inputs: seen.update(labels=inputs[1]))
    pairs = list(run.sampler)
    run.train()
    batch = run.train_dataset.__getitems__(pairs)
    _, share_B = run.mixup.draw(batch["row"], 0)
    share_B111 = torch.from_numpy(share_B)[:, None, None, None]
    own = run.pixels.augment(batch["pixel_values"], batch["row"], 0)
    rotated = [seen["pixels"][i] - share_B111[i] * own[i] for i in range(32)]  # what is left is of the partner
    partner = torch.stack(rotated) / (1 - share_B111)
    plain = run.pixels(batch["partner_pixel_values"])
    chosen = share_B < 0.5
    assert chosen.sum() > 5
    torch.testing.assert_close(partner[chosen].mean((1, 2, 3)), plain[chosen].mean((1, 2, 3)), atol=0.15, rtol=0)
    assert (partner[chosen] - plain[chosen]).abs().mean() > 0.05  # it has an augmentation of its own
    torch.testing.assert_close(seen["labels"], run.mixup.mix_labels(batch, 0)["labels"], equal_nan=True)


@pytest.mark.parametrize("loss", ["bce", "class_aware", "ldam"])
def test_accumulation_gives_the_gradients_of_the_whole_batch(tmp_path, loss):
    (whole,), whole_loss = gradients(tmp_path / "a", 32, loss=loss, mixup_alpha=0.4)
    (cut,), cut_loss = gradients(tmp_path / "b", 8, 4, loss=loss, mixup_alpha=0.4)
    assert_same_gradients(cut, whole)
    assert cut_loss == pytest.approx(whole_loss, rel=1e-5)
    (plain,), _ = gradients(tmp_path / "c", 32, loss=loss)
    with pytest.raises(AssertionError, match="Tensor-likes are not close"):
        assert_same_gradients(plain, whole)


def test_workers_read_the_same_pairs(tmp_path):
    steps = [
        gradients(tmp_path / str(workers), 32, mixup_alpha=0.4, dataloader_num_workers=workers)[0][0]
        for workers in (0, 1)
    ]
    assert all(torch.equal(steps[0][name], steps[1][name]) for name in steps[0])


def test_validation_is_not_mixed(tmp_path):
    dataset = rows(16, seed=1)
    losses = [
        trainer(tmp_path, eval_dataset=dataset, mixup_alpha=alpha).evaluate()["eval_loss"] for alpha in (0.0, 0.4)
    ]
    assert losses[0] == losses[1]


@pytest.mark.parametrize("name", sorted(LOSSES))
def test_a_loss_takes_the_soft_label_as_the_mixture_of_its_losses_or_is_refused(name, tmp_path):
    loss = build_loss(name, positives_C=[20, 300, 90], known_C=[1000, 1000, 900]).to(torch.float64)
    if name in OF_HARD_LABELS:
        with pytest.raises(ValueError, match=rf"mixup_alpha is 0\.4, and {name} has no loss of one cell"):
            trainer(tmp_path, loss=name, mixup_alpha=0.4)
        return
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(6, 3, generator=generator, dtype=torch.float64) * 3
    one, other = ((torch.rand(6, 3, generator=generator) < 0.4).double() for _ in range(2))
    one[0, 1] = other[4, 2] = torch.nan
    share = torch.rand(6, 1, generator=generator, dtype=torch.float64)
    soft = torch.lerp(other, one, share)
    known = ~soft.isnan()
    assert known.sum() == 16
    hard = [torch.where(known, labels, torch.nan) for labels in (one, other)]
    # Of single images, so that each has its own share.
    expected = sum(
        share[i, 0] * loss(logits[i : i + 1], hard[0][i : i + 1], num_items=16)
        + (1 - share[i, 0]) * loss(logits[i : i + 1], hard[1][i : i + 1], num_items=16)
        for i in range(6)
    )
    torch.testing.assert_close(loss(logits, soft), expected, rtol=1e-6, atol=1e-9)
