"""Which training images an epoch draws, how often and in which order: label matrix in, index sampler out.

A sampler is N numbers, the draws of each image that an epoch is expected to make. `EpochSampler` turns them into an
epoch: each image is drawn that often, rounded down or up at random so that the mean is kept, in random order, less the
last incomplete batch. All of it comes from (seed, epoch) alone. P_c: known positives of finding c; "without": an image
without a known positive, be its other cells 0 or unknown.

| name          | draws of an image with findings           | without           | images an epoch | source            |
|---------------|-------------------------------------------|-------------------|-----------------|-------------------|
| shuffle       | 1                                         | 1                 | N               |                   |
| over          | 1; oversample_share * N more for those    | 1                 | N (1 + share),  | ML-ROS: Charte    |
|               | with minority findings                    |                   | at most         | et al. 2015       |
| under         | 1                                         | 1 or less, by     | N or fewer      | negatives thinned |
|               |                                           | undersample_ratio |                 |                   |
| mixed         | as over                                   | as under          | fewer or more   | both              |
| repeat_factor | max of 1 and sqrt(t / f_c) over its       | 1                 | N or more       | Gupta et al. 2019 |
|               | findings, f_c = P_c over known cells      |                   |                 | (LVIS)            |
| class_aware   | each of K classes equally often: sum of   | one of K classes, | N               | Shen et al. 2016  |
|               | N / K / P_c over its findings             | or never          |                 |                   |

An unknown cell is neither positive nor negative: it makes no image rarer or more frequent, and takes no part in f_c.

What is drawn has a different prevalence from the data. The loss and the head's starting bias take it into account
(`expected_counts`), and the calibration on validation, which is never re-sampled, brings the natural one back.

An index is row + N * repetition: `RepeatedRows` undoes it, so that the copies of an image within an epoch can be
augmented each in its own way.

Refused: fewer draws than one batch, labels without an image, options out of range or of another sampler.

N = training images, C = findings.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from torch.utils.data import Sampler

from hf_cxr.options import Option, check_options, filled, nearest, options_of

GRAIN = 2**20
"""Draws are kept as whole multiples of 1 / GRAIN: sums are then exact, and an epoch's length is the same in each."""


def shuffle(label_NC: np.ndarray) -> np.ndarray:
    """Every image once."""
    return np.ones(len(label_NC))


def over(label_NC: np.ndarray, oversample_share: float = 0.25) -> np.ndarray:
    """Images with minority findings are drawn more often: ML-ROS in expectation.

    A finding's imbalance is the count of the most frequent finding over its own, and a minority finding is one above
    the mean imbalance. The extra draws go to the minority findings in equal parts, evenly over the positives of each,
    and to none that has come down to that mean. ML-ROS clones one random positive of each in turn; here every
    positive gets its expected share.

    Args:
        oversample_share: extra draws an epoch over N, above 0, at most 100; fewer are made if nothing is in the
            minority any more.

    Source: Charte, Rivera, del Jesus and Herrera, "Addressing imbalance in multilabel classification: Measures and
    random resampling algorithms", Neurocomputing 163 (2015).

    >>> label_NC = np.zeros((100, 3)); label_NC[:80, 0] = 1; label_NC[80:90, 1] = 1; label_NC[90:92, 2] = 1
    >>> over(label_NC, oversample_share=0.02)[[0, 80, 90, 99]].tolist()  # two more draws, for the third finding alone
    [1.0, 1.0, 2.0, 1.0]
    """
    _check(0 < oversample_share <= 100, "oversample_share", oversample_share, "above 0, at most 100")
    positive_NC = (label_NC == 1).astype(np.float64)
    draws_N, count_C = np.ones(len(label_NC)), positive_NC.sum(axis=0)
    if not count_C.any():
        return draws_N
    present_C = count_C > 0
    mean = (count_C.max() / count_C[present_C]).mean()
    rounds = 256
    for _ in range(rounds):
        drawn_C = draws_N @ positive_NC
        minority_C = present_C & (drawn_C.max() > mean * drawn_C * (1 + 1e-9))
        if not minority_C.any():
            break
        extra = oversample_share * len(label_NC) / rounds / minority_C.sum()
        draws_N = draws_N + positive_NC[:, minority_C] @ (extra / count_C[minority_C])
    return draws_N


def under(label_NC: np.ndarray, undersample_ratio: float = 1.0) -> np.ndarray:
    """Images without a known positive are thinned, different ones in each epoch; none with a finding is left out.

    Args:
        undersample_ratio: images without a known positive drawn for each image with one, above 0. Where there are no
            more of them than that, all are kept.

    >>> under(np.array([[1.0], [0.0], [0.0], [np.nan], [0.0]])).tolist()
    [1.0, 0.25, 0.25, 0.25, 0.25]
    """
    _check(undersample_ratio > 0, "undersample_ratio", undersample_ratio, "above 0")
    found_N = (label_NC == 1).any(axis=1)
    if found_N.all() or not found_N.any():
        return np.ones(len(label_NC))
    return np.where(found_N, 1.0, min(1.0, undersample_ratio * found_N.sum() / (~found_N).sum()))


def mixed(label_NC: np.ndarray, oversample_share: float = 0.25, undersample_ratio: float = 1.0) -> np.ndarray:
    """Images with findings as `over` draws them, images without as `under` does.

    Args:
        oversample_share: extra draws an epoch over N, above 0, at most 100; see `over`.
        undersample_ratio: images without a known positive drawn for each image with one, above 0.
    """
    found_N = (label_NC == 1).any(axis=1)
    return np.where(found_N, over(label_NC, oversample_share), under(label_NC, undersample_ratio))


def repeat_factor(label_NC: np.ndarray, repeat_factor_threshold: float = 0.05) -> np.ndarray:
    """Images with findings rarer than a threshold are repeated: the square root of how much rarer the rarest is.

    Args:
        repeat_factor_threshold: t, the prevalence from which on nothing is repeated; above 0, at most 1. The paper's
            0.001 is for 1,200 object categories and below every finding of ChestX-ray14.

    Source: Gupta, Dollár and Girshick, "LVIS: A Dataset for Large Vocabulary Instance Segmentation", CVPR 2019: max
    over the image's categories of max(1, sqrt(t / f_c)), the fraction rounded at random in each epoch.

    >>> label_NC = np.zeros((100, 2)); label_NC[:50, 0] = 1; label_NC[49:51, 1] = 1
    >>> repeat_factor(label_NC, repeat_factor_threshold=0.08)[[0, 49, 50, 99]].tolist()
    [1.0, 2.0, 2.0, 1.0]
    """
    threshold = repeat_factor_threshold
    _check(0 < threshold <= 1, "repeat_factor_threshold", threshold, "above 0, at most 1")
    positive_NC = label_NC == 1
    frequency_C = positive_NC.sum(axis=0) / np.maximum((~np.isnan(label_NC)).sum(axis=0), 1)
    factor_C = np.sqrt(threshold / np.where(frequency_C > 0, frequency_C, threshold))
    return np.where(positive_NC, np.maximum(factor_C, 1.0), 1.0).max(axis=1)


def class_aware(label_NC: np.ndarray, class_aware_no_finding: bool = True) -> np.ndarray:
    """Each finding is drawn for equally often, then one of its images: N draws an epoch.

    The classes are the findings that have a positive. An image of several findings is drawn for each of them, so that
    common companions of rare findings stay more frequent. A finding of few images repeats them many times an epoch.

    Args:
        class_aware_no_finding: images without a known positive are one class more. Without it none of them is drawn,
            and the model never sees a normal radiograph.

    Source: Shen, Lin and Huang, "Relay Backpropagation for Effective Learning of Deep CNNs", ECCV 2016: a list of
    classes, and one of images for each, gone through in turn and shuffled at each end. Here the number of draws is the
    same and their order is random over the epoch.

    >>> class_aware(np.array([[1.0, 0], [1, 0], [1, 0], [0, 1], [0, np.nan], [0, 0]])).round(3).tolist()
    [0.667, 0.667, 0.667, 2.0, 1.0, 1.0]
    """
    class_NK = label_NC == 1
    if class_aware_no_finding:
        class_NK = np.concatenate([class_NK, ~class_NK.any(axis=1, keepdims=True)], axis=1)
    count_K = class_NK.sum(axis=0)
    present_K = count_K > 0
    if not present_K.any():
        raise ValueError("class_aware draws for findings, and no training image has one: choose --sampler shuffle")
    return class_NK[:, present_K] @ (len(label_NC) / present_K.sum() / count_K[present_K])


SAMPLERS = {
    "shuffle": shuffle,
    "over": over,
    "under": under,
    "mixed": mixed,
    "repeat_factor": repeat_factor,
    "class_aware": class_aware,
}
"""Name, as in configs and on the command line -> function of the labels (N, C) that gives the draws (N,)."""


def sampler_options(name: str) -> dict[str, Option]:
    """The options of a sampler by name, from its function: for ``sampler_kwargs`` in a config and for ``--help``.

    Raises:
        ValueError: an unknown sampler.

    >>> list(sampler_options("mixed"))
    ['oversample_share', 'undersample_ratio']
    """
    if name not in SAMPLERS:
        raise ValueError(f"unknown sampler {name!r}{nearest(name, SAMPLERS)}; known: {', '.join(SAMPLERS)}")
    return options_of(SAMPLERS[name])


def resolved_options(name: str, **options: Any) -> dict[str, Any]:
    """Every option of a sampler with the value that it has, given or by default.

    Raises:
        ValueError: an option that this sampler does not take.

    >>> resolved_options("mixed", undersample_ratio=2.0)
    {'oversample_share': 0.25, 'undersample_ratio': 2.0}
    """
    known = sampler_options(name)
    check_options(name, options, known)
    return filled(options, known)


def expected_draws(name: str, label_NC: np.ndarray, **options: Any) -> np.ndarray:
    """How often an epoch draws each image on average, (N,) float64 in whole multiples of 1 / ``GRAIN``.

    Args:
        name: a key of ``SAMPLERS``.
        label_NC: 1, 0 or NaN.
        **options: see ``sampler_options``; one left out has the sampler's default.

    Raises:
        ValueError: unknown name, an option that this sampler lacks, or one out of range; labels without a row.
    """
    options = resolved_options(name, **options)
    label_NC = np.asarray(label_NC)
    if label_NC.ndim != 2 or not len(label_NC):
        raise ValueError(f"labels must have shape (N, C), N at least 1; got {label_NC.shape}")
    return np.round(SAMPLERS[name](label_NC, **options) * GRAIN) / GRAIN


def expected_counts(draws_N: np.ndarray, label_NC: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Positive and negative cells of each finding that an epoch is expected to draw, each (C,) float64.

    >>> expected_counts(np.array([2.0, 0.5]), np.array([[1, 0], [np.nan, 1]]))
    (array([2. , 0.5]), array([0., 2.]))
    """
    return draws_N @ (label_NC == 1).astype(np.float64), draws_N @ (label_NC == 0).astype(np.float64)


class EpochSampler(Sampler[int]):
    """Whole batches of indices from the expected draws, in an order that depends on (seed, epoch) alone.

    The last incomplete batch of an epoch is left out (different images in each epoch). Otherwise the number of
    images in the last optimizer step would depend on the number of processes and accumulation steps, and so would
    the weights. Accelerate distributes the batches over the processes: each makes the same epoch, so that no draw is
    made twice.

    Args:
        draws_N: from `expected_draws`. An image is drawn that often, rounded down or up: over epochs the mean is kept,
            and the sum is the same in each but for one draw (systematic sampling of the fractions, in random order).
        batch_size: images an optimizer step, over all processes and accumulation steps.
        seed: of the order.

    Raises:
        ValueError: fewer draws than one batch.

    >>> sampler = EpochSampler(np.array([3.0, 0.5, 0.5]), batch_size=2, seed=0)
    >>> sorted(index % 3 for index in sampler)[:3], len(sampler)
    ([0, 0, 0], 4)
    """

    def __init__(self, draws_N: np.ndarray, *, batch_size: int, seed: int):
        grains_N = np.round(np.asarray(draws_N, dtype=np.float64) * GRAIN).astype(np.int64)
        self.whole_N, self.fraction_N = np.divmod(grains_N, GRAIN)
        self.drawn = int(self.whole_N.sum() + self.fraction_N.sum() // GRAIN)
        if self.drawn < batch_size:
            what = "training images" if (draws_N == 1).all() else "draws an epoch"
            raise ValueError(
                f"{self.drawn} {what} are fewer than one batch of {batch_size}; "
                "lower per_device_train_batch_size or gradient_accumulation_steps"
            )
        self.batch_size, self.seed, self.epoch = batch_size, seed, 0

    def set_epoch(self, epoch: int) -> None:
        """Number of completed passes; the Trainer sets it before each pass and after a resume."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self.drawn // self.batch_size * self.batch_size

    def __iter__(self) -> Iterator[int]:
        rng = np.random.default_rng([self.seed, self.epoch])
        count_N = self._rounded(rng)
        row = np.repeat(np.arange(len(count_N)), count_N)
        repetition = np.arange(len(row)) - np.repeat(np.cumsum(count_N) - count_N, count_N)
        return iter(rng.permutation(row + len(count_N) * repetition)[: len(self)].tolist())

    def _rounded(self, rng: np.random.Generator) -> np.ndarray:
        """Draws of each image in this epoch. Whole draws use no random number: shuffling stays what it was."""
        if not self.fraction_N.any():
            return self.whole_N
        # A ruler with a mark at each whole number, laid at random along the images in random order: an image gets one
        # more draw if a mark falls into its stretch, which is as long as its fraction.
        order = rng.permutation(len(self.fraction_N))
        end = (np.cumsum(self.fraction_N[order]) + rng.integers(GRAIN)) // GRAIN
        count_N = self.whole_N.copy()
        count_N[order] += np.diff(end, prepend=0)
        return count_N


class RepeatedRows:
    """A dataset of N rows by the sampler's index, row + N * repetition; "row" becomes that index.

    Augmentation is drawn from (seed, epoch, "row"), so the copies of an image within an epoch differ.

    >>> RepeatedRows([{"row": 0}, {"row": 1}])[5]
    {'row': 5}
    """

    def __init__(self, dataset: Any):
        self.dataset = dataset

    def __len__(self) -> int:
        return len(self.dataset)

    def __iter__(self) -> Iterator[Mapping[str, Any]]:
        # No index is out of range, so that Python's way of iterating by index would never end.
        return (self[row] for row in range(len(self)))

    def __getitem__(self, index: int) -> Mapping[str, Any]:
        return {**self.dataset[index % len(self.dataset)], "row": index}

    def __getitems__(self, indices: Sequence[int]) -> list[Mapping[str, Any]] | Mapping[str, Any]:
        # A DataLoader asks for a batch at once; the dataset may answer with the rows, or with the batch as a whole.
        batched = getattr(self.dataset, "__getitems__", None)
        if batched is None:
            return [self[index] for index in indices]
        rows = batched([index % len(self.dataset) for index in indices])
        if isinstance(rows, Mapping):
            return {**rows, "row": np.array(indices, dtype=np.int64)}
        return [{**row, "row": index} for row, index in zip(rows, indices, strict=True)]


def _check(holds: bool, name: str, value: Any, wanted: str) -> None:
    if not holds:
        raise ValueError(f"{name} is {value}; it must be {wanted}")
