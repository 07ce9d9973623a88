"""The sampler: every image once, an order from (seed, epoch) alone, whole batches only."""

import numpy as np
import pytest

from hf_cxr.sampling import ShuffleSampler

LABELS = np.zeros((103, 14))


def test_whole_batches_without_repeats():
    drawn = list(ShuffleSampler(LABELS, batch_size=32, seed=1))
    assert len(drawn) == len(set(drawn)) == 96
    assert set(drawn) <= set(range(103))


def test_order_depends_on_seed_and_epoch_alone():
    one, two = (ShuffleSampler(LABELS, batch_size=32, seed=1) for _ in range(2))
    first = list(one)
    assert list(one) == first == list(two)  # iterating does not advance anything
    one.set_epoch(1)
    assert list(one) != first
    assert set(one) != set(first)  # another remainder is left out
    assert list(ShuffleSampler(LABELS, batch_size=32, seed=2)) != first
    one.set_epoch(0)
    assert list(one) == first


def test_neighbouring_seeds_and_epochs_do_not_share_an_order():
    # seed * epoch or seed + epoch as the generator's seed would repeat orders.
    one, two = ShuffleSampler(LABELS, batch_size=32, seed=1), ShuffleSampler(LABELS, batch_size=32, seed=2)
    one.set_epoch(2)
    two.set_epoch(1)
    assert list(one) != list(two)


def test_fewer_images_than_a_batch():
    with pytest.raises(ValueError, match=r"103 training images are fewer than one batch of 128; lower"):
        ShuffleSampler(LABELS, batch_size=128, seed=0)
