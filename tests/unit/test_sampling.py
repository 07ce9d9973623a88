"""Samplers: what an epoch draws, from (seed, epoch) alone, whole batches only, the same however it is shared out."""

import numpy as np
import pytest
from accelerate.data_loader import BatchSamplerShard, skip_first_batches
from torch.utils.data import BatchSampler, DataLoader

from hf_cxr.sampling import (
    SAMPLERS,
    EpochSampler,
    RepeatedRows,
    expected_counts,
    expected_draws,
    sampler_options,
)

LABELS = np.zeros((103, 14))


def long_tail(n_images=1000, seed=0):
    """Four findings of falling frequency that co-occur, a fifth of the cells unknown, 60 rows wholly."""
    rng = np.random.default_rng(seed)
    label_NC = (rng.random((n_images, 4)) < [0.3, 0.1, 0.03, 0.01]).astype(np.float32)
    label_NC[rng.random((n_images, 4)) < 0.2] = np.nan
    label_NC[:60] = np.nan
    return label_NC


def sampler_of(name, label_NC, *, batch_size, seed, **options):
    """The sampler of a run with this method."""
    return EpochSampler(expected_draws(name, label_NC, **options), batch_size=batch_size, seed=seed)


def epochs_of(sampler, n_images, epochs):
    """How often each image is drawn in each epoch, (E, N)."""
    counts = []
    for epoch in range(epochs):
        sampler.set_epoch(epoch)
        counts.append(np.bincount(np.array(list(sampler)) % n_images, minlength=n_images))
    return np.stack(counts)


def test_whole_batches_without_repeats():
    drawn = list(sampler_of("shuffle", LABELS, batch_size=32, seed=1))
    assert len(drawn) == len(set(drawn)) == 96
    assert set(drawn) <= set(range(103))


def test_shuffling_is_one_permutation_of_numpy():
    expected = np.random.default_rng([1, 4]).permutation(103)[:96].tolist()
    sampler = sampler_of("shuffle", LABELS, batch_size=32, seed=1)
    sampler.set_epoch(4)
    assert list(sampler) == expected


@pytest.mark.parametrize("name", SAMPLERS)
def test_order_depends_on_seed_and_epoch_alone(name):
    labels = long_tail()
    one, two = (sampler_of(name, labels, batch_size=32, seed=1) for _ in range(2))
    first = list(one)
    assert list(one) == first == list(two)  # iterating does not advance anything
    one.set_epoch(1)
    assert len(list(one)) == len(one) == len(first)
    assert list(one) != first
    assert set(one) != set(first)  # another remainder is left out
    assert list(sampler_of(name, labels, batch_size=32, seed=2)) != first
    one.set_epoch(0)
    assert list(one) == first


def test_neighbouring_seeds_and_epochs_do_not_share_an_order():
    # seed * epoch or seed + epoch as the generator's seed would repeat orders.
    one, two = (
        sampler_of("shuffle", LABELS, batch_size=32, seed=1),
        sampler_of("shuffle", LABELS, batch_size=32, seed=2),
    )
    one.set_epoch(2)
    two.set_epoch(1)
    assert list(one) != list(two)


def test_draws_are_rounded_down_or_up_and_keep_their_mean():
    draws_N = np.array([0.0, 0.25, 0.5, 1.0, 1.75, 2.5, 3.0, 0.9])
    count_EN = epochs_of(EpochSampler(draws_N, batch_size=1, seed=0), 8, 4000)
    # 9.9 draws: 9 or 10 of which 9 are kept, so that every epoch has the same length.
    assert (count_EN.sum(axis=1) == 9).all()
    assert (count_EN <= np.ceil(draws_N)).all()
    short_EN = np.floor(draws_N) - count_EN
    assert short_EN.max() <= 1  # one at most was cut off with the remainder
    exact = EpochSampler(np.array([0.0, 0.25, 0.5, 1.0, 1.75, 2.5]), batch_size=1, seed=0)
    mean_N = epochs_of(exact, 6, 4000).mean(axis=0)
    np.testing.assert_allclose(mean_N, [0, 0.25, 0.5, 1, 1.75, 2.5], atol=0.03)


@pytest.mark.parametrize("name", SAMPLERS)
def test_epochs_draw_what_is_expected(name):
    labels = long_tail()
    draws_N = expected_draws(name, labels)
    count_EN = epochs_of(sampler_of(name, labels, batch_size=1, seed=3), len(labels), 60)
    positives_C, negatives_C = expected_counts(draws_N, labels)
    np.testing.assert_allclose((count_EN @ (labels == 1)).mean(axis=0), positives_C, rtol=0.02)
    np.testing.assert_allclose((count_EN @ (labels == 0)).mean(axis=0), negatives_C, rtol=0.02)


@pytest.mark.parametrize("name", SAMPLERS)
@pytest.mark.parametrize("processes", [1, 2])
def test_processes_share_an_epoch_without_overlap(name, processes):
    labels = long_tail()
    whole = list(sampler_of(name, labels, batch_size=32, seed=1))
    shards = [
        list(BatchSamplerShard(BatchSampler(sampler, 32 // processes, drop_last=False), processes, process))
        for process in range(processes)
        for sampler in [sampler_of(name, labels, batch_size=32, seed=1)]
    ]
    assert len(set(whole)) == len(whole)  # an index is row and repetition, so no draw is made twice
    dealt = [index for batches in zip(*shards, strict=True) for batch in batches for index in batch]
    assert dealt == whole


@pytest.mark.parametrize("name", SAMPLERS)
def test_a_resumed_epoch_goes_on_where_it_stopped(name):
    labels = long_tail()
    sampler = sampler_of(name, labels, batch_size=20, seed=1)
    sampler.set_epoch(2)
    whole = list(sampler)
    again = sampler_of(name, labels, batch_size=20, seed=1)
    again.set_epoch(2)
    rows = RepeatedRows([{"row": row} for row in range(len(labels))])
    loader = DataLoader(rows, sampler=again, batch_size=20, collate_fn=lambda batch: [row["row"] for row in batch])
    rest = [index for batch in skip_first_batches(loader, 7) for index in batch]
    assert rest == whole[140:]


@pytest.mark.parametrize("name", SAMPLERS)
def test_unknown_is_neither_positive_nor_negative(name):
    # An unknown cell turned into a known 0 changes no draw, but where prevalence is over known cells.
    labels = long_tail()
    filled = np.nan_to_num(labels, nan=0.0)
    same = np.array_equal(expected_draws(name, labels), expected_draws(name, filled))
    assert same == (name != "repeat_factor")
    turned = np.nan_to_num(labels, nan=1.0)
    assert np.array_equal(expected_draws(name, labels), expected_draws(name, turned)) == (name == "shuffle")


@pytest.mark.parametrize("name", SAMPLERS)
def test_all_negative_or_all_unknown_labels_are_drawn_evenly(name):
    for labels in (np.zeros((50, 3)), np.full((50, 3), np.nan)):
        np.testing.assert_array_equal(expected_draws(name, labels), np.ones(50))


def test_class_aware_draws_for_each_class_equally_often():
    # Findings that do not co-occur: each of the four and no finding get a fifth.
    labels = np.zeros((500, 4))
    labels[np.arange(215), np.repeat(np.arange(4), [150, 50, 10, 5])] = 1
    positives_C, _ = expected_counts(expected_draws("class_aware", labels), labels)
    np.testing.assert_allclose(positives_C, 100, atol=1e-3)
    draws_N = expected_draws("class_aware", labels, class_aware_no_finding=False)
    assert (draws_N[215:] == 0).all()
    np.testing.assert_allclose(expected_counts(draws_N, labels)[0], 125, atol=1e-3)


def test_repeat_factor_is_the_square_root_of_the_rarity():
    labels = long_tail()
    frequency_C = np.nanmean(labels, axis=0)
    draws_N = expected_draws("repeat_factor", labels, repeat_factor_threshold=0.2)
    for row in range(len(labels)):
        factors = [max(1, (0.2 / frequency_C[column]) ** 0.5) for column in range(4) if labels[row, column] == 1]
        assert draws_N[row] == pytest.approx(max(factors, default=1), abs=1e-6)
    rarest = frequency_C.min()
    np.testing.assert_array_equal(
        expected_draws("repeat_factor", labels, repeat_factor_threshold=rarest), np.ones(len(labels))
    )


def test_oversampling_stops_at_its_share_or_at_the_mean_imbalance():
    labels = long_tail()
    positive_NC = labels == 1
    count_C = positive_NC.sum(axis=0)
    mean = (count_C.max() / count_C).mean()
    minority_C = count_C.max() / count_C > mean
    assert minority_C.tolist() == [False, False, True, True]
    little = expected_draws("over", labels, oversample_share=0.002)
    assert little.sum() == pytest.approx(1002, abs=0.01)
    assert (little[~positive_NC[:, minority_C].any(axis=1)] == 1).all()
    assert (little[positive_NC[:, minority_C].any(axis=1)] > 1).all()
    much = expected_draws("over", labels, oversample_share=1)
    drawn_C = much @ positive_NC
    assert 1002 < much.sum() < 2000
    np.testing.assert_allclose(drawn_C.max() / drawn_C[minority_C], mean, rtol=0.2)


def test_undersampling_drops_only_images_without_a_finding_and_draws_again_each_epoch():
    labels = long_tail()
    found_N = (labels == 1).any(axis=1)
    draws_N = expected_draws("under", labels, undersample_ratio=0.5)
    assert (draws_N[found_N] == 1).all()
    assert draws_N[~found_N].sum() == pytest.approx(0.5 * found_N.sum(), abs=0.01)
    count_EN = epochs_of(sampler_of("under", labels, batch_size=1, seed=0, undersample_ratio=0.5), 1000, 80)
    assert count_EN.max() == 1
    assert (count_EN.sum(axis=0) > 0).all()  # over epochs every image has its turn
    np.testing.assert_array_equal(expected_draws("under", labels, undersample_ratio=100), np.ones(1000))


def test_mixed_is_both():
    labels = long_tail()
    found_N = (labels == 1).any(axis=1)
    draws_N = expected_draws("mixed", labels, oversample_share=0.05, undersample_ratio=0.5)
    np.testing.assert_array_equal(draws_N[found_N], expected_draws("over", labels, oversample_share=0.05)[found_N])
    np.testing.assert_array_equal(draws_N[~found_N], expected_draws("under", labels, undersample_ratio=0.5)[~found_N])


def test_repetitions_come_from_one_row_under_different_numbers():
    rows = RepeatedRows([{"row": 0, "pixels": "a"}, {"row": 1, "pixels": "b"}])
    sampler = EpochSampler(np.array([1.0, 3.0]), batch_size=4, seed=0)
    drawn = [rows[index] for index in sampler]
    assert sorted((row["pixels"], row["row"]) for row in drawn) == [("a", 0), ("b", 1), ("b", 3), ("b", 5)]
    assert len(rows) == len(list(rows)) == 2


def test_every_option_has_a_meaning():
    options = {name: sampler_options(name) for name in SAMPLERS}
    assert list(options["mixed"]) == [*options["over"], *options["under"]]
    assert all(option.meaning for known in options.values() for option in known.values())


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("class_awre", {}, "unknown sampler 'class_awre'; did you mean class_aware"),
        (
            "under",
            {"oversample_share": 0.1},
            "under takes no option 'oversample_share'; did you mean",
        ),
        ("under", {"undersample_ratio": 0.0}, r"undersample_ratio is 0\.0; it must be above 0"),
        ("over", {"oversample_share": -1}, "oversample_share is -1; it must be above 0"),
        ("repeat_factor", {"repeat_factor_threshold": 2}, "repeat_factor_threshold is 2; it must be above 0, at most"),
    ],
)
def test_bad_samplers_are_refused(name, options, message):
    with pytest.raises(ValueError, match=message):
        expected_draws(name, long_tail(), **options)


def test_fewer_images_than_a_batch():
    with pytest.raises(ValueError, match=r"103 training images are fewer than one batch of 128; lower"):
        sampler_of("shuffle", LABELS, batch_size=128, seed=0)
    labels = long_tail()
    with pytest.raises(ValueError, match="draws an epoch are fewer than one batch of 900"):
        sampler_of("under", labels, batch_size=900, seed=0)
    with pytest.raises(ValueError, match="class_aware draws for findings, and no training image has one"):
        expected_draws("class_aware", np.zeros((4, 2)), class_aware_no_finding=False)
