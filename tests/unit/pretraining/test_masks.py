"""Masks: as many squares in each image, of each as often, and a function of (seed, epoch, row) alone."""

import numpy as np
import pytest
from scipy import stats

from hf_cxr.pretraining.masks import EPOCH_OF_MEASURING, PatchMasks
from hf_cxr.uniforms import row_uniforms

ROWS = np.arange(4000)


def masks(**changes):
    return PatchMasks(
        **({"image_size": 32, "patch_size": 2, "mask_patch_size": 8, "mask_ratio": 0.6, "seed": 3} | changes)
    )


def squares(mask_BN, generator):
    """(B, side, each, side, each): whole squares, of the model's patches."""
    each = generator.mask_patch_size // generator.patch_size
    return mask_BN.reshape(-1, generator.side, each, generator.side, each)


def test_every_image_has_as_many_masked_squares_and_no_part_of_one():
    generator = masks()
    mask_BN = generator.draw(ROWS, 0)
    assert mask_BN.shape == (4000, 16 * 16)
    whole = squares(mask_BN, generator)
    assert (whole.all((2, 4)) == whole.any((2, 4))).all()
    assert set(whole.any((2, 4)).sum((1, 2))) == {10}  # ceil(0.6 * 16)
    assert set(mask_BN.sum(1) * 2**2) == {generator.masked_pixels} == {10 * 8**2}


def test_every_square_is_masked_as_often_and_pairs_too():
    mask_BM = squares(masks().draw(ROWS, 0), masks()).any((2, 4)).reshape(-1, 16)
    for counts, share in (
        (mask_BM.sum(0), 10 / 16),
        ((mask_BM[:, :8] & mask_BM[:, 8:]).sum(0), 10 / 16 * 9 / 15),
    ):
        # Within the bounds that 1 of 10^6 binomial counts exceeds
        low, high = stats.binom.interval(1 - 1e-6, len(ROWS), share)
        assert low <= counts.min() <= counts.max() <= high


def test_a_mask_depends_on_seed_epoch_and_row_alone():
    generator = masks()
    whole = generator.draw(ROWS, 5)
    shuffled = np.random.default_rng(0).permutation(ROWS)
    np.testing.assert_array_equal(generator.draw(shuffled, 5), whole[shuffled])
    np.testing.assert_array_equal(np.concatenate([masks().draw(part, 5) for part in np.split(ROWS, 8)]), whole)
    for other in (generator.draw(ROWS, 6), masks(seed=4).draw(ROWS, 5), generator.draw(ROWS, EPOCH_OF_MEASURING)):
        assert 0.4 < (other == whole).mean() < 0.6  # 0.625^2 + 0.375^2 = 0.53 agree by chance


def test_a_mask_says_nothing_of_the_augmentation_of_the_row():
    mask_BN = masks().draw(ROWS, 0)
    flip_B = row_uniforms(3, 0, ROWS, 1)[:, 0]
    correlation = np.corrcoef(mask_BN[:, 0], flip_B)[0, 1]
    assert abs(correlation) < 0.06  # 4 standard errors


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"mask_patch_size": 3}, "multiple of the model's patch_size, 2"),
        ({"mask_patch_size": 0}, "multiple of the model's patch_size"),
        ({"mask_patch_size": 12}, "does not divide image_size 32"),
        ({"mask_ratio": 0.0}, "mask some"),
        ({"mask_ratio": 0.99}, "masks 16 of 16"),
        ({"mask_patch_size": 32}, "masks 1 of 1"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        masks(**changes)
