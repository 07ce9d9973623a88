"""The loss is the mean over masked pixels: as a slow loop in float64 has it, and however a step is cut."""

import itertools

import numpy as np
import pytest
import torch

from hf_cxr.pretraining.loss import MaskedL1
from hf_cxr.pretraining.masks import PatchMasks

SIDE, PATCH = 12, 2


@pytest.fixture
def batch():
    generator = torch.Generator().manual_seed(0)
    images, made = (torch.randn(5, 3, SIDE, SIDE, generator=generator) for _ in range(2))
    mask = torch.from_numpy(PatchMasks(SIDE, PATCH, 4, 0.5, seed=1).draw(np.arange(5), 0))
    return made, images, mask


def by_loop(made, images, mask):
    """The masked pixels one by one, in float64: their sum over channels, and their number."""
    total, pixels = np.float64(0), 0
    for image, y, x in itertools.product(range(len(images)), range(SIDE), range(SIDE)):
        if mask[image, y // PATCH * (SIDE // PATCH) + x // PATCH]:
            pixels += 1
            for channel in range(3):
                total += abs(np.float64(made[image, channel, y, x]) - np.float64(images[image, channel, y, x]))
    return total, pixels


def test_it_is_the_loop(batch):
    total, pixels = by_loop(*batch)
    loss = MaskedL1(PATCH)
    assert loss(*batch).item() == pytest.approx(total / pixels / 3, rel=1e-6)
    assert loss(*batch, num_items=torch.tensor(1000)).item() == pytest.approx(total / 3000, rel=1e-6)
    assert pixels == 5 * 5 * 4**2  # ceil(0.5 * 9) squares of 4 x 4 pixels in each image


def test_each_image_has_its_own(batch):
    made, images, mask = batch
    each = MaskedL1(PATCH).of_each(*batch)
    wanted = [by_loop(made[i : i + 1], images[i : i + 1], mask[i : i + 1]) for i in range(5)]
    np.testing.assert_allclose(each, [total / pixels / 3 for total, pixels in wanted], rtol=1e-6)
    assert MaskedL1(PATCH)(*batch).item() == pytest.approx(each.mean().item(), rel=1e-6)


def test_micro_batches_add_up(batch):
    loss, items = MaskedL1(PATCH), by_loop(*batch)[1]
    parts = [loss(*(tensor[cut] for tensor in batch), num_items=items) for cut in (slice(0, 2), slice(2, 5))]
    assert sum(parts).item() == pytest.approx(loss(*batch).item(), rel=1e-6)


def test_pixels_that_are_seen_do_not_count(batch):
    made, images, mask = batch
    made = made.clone().requires_grad_()
    loss = MaskedL1(PATCH)
    loss(made, images, mask).backward()
    masked = loss.pixel_mask(mask).bool().expand_as(images)
    assert (made.grad[~masked] == 0).all()
    assert (made.grad[masked].abs() > 0).all()
    assert loss(torch.where(masked, images, images + 9), images, mask) == 0


def test_an_image_without_a_masked_patch_takes_no_part(batch):
    made, images, mask = batch
    mask = mask.clone()
    mask[2] = False
    rest = [0, 1, 3, 4]
    loss = MaskedL1(PATCH)
    assert loss(made, images, mask).item() == pytest.approx(
        loss(made[rest], images[rest], mask[rest]).item(), rel=1e-6
    )
    assert torch.isnan(loss.of_each(made, images, mask)[2])


def test_bfloat16_is_summed_in_float32():
    ones = torch.ones(64, 3, SIDE, SIDE, dtype=torch.bfloat16)
    mask = torch.ones(64, (SIDE // PATCH) ** 2, dtype=torch.bool)
    assert MaskedL1(PATCH)(ones * 1.0, ones * 0, mask).item() == 1.0
