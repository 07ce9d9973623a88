"""Which training images an epoch draws, and in which order: label matrix in, index sampler out.

| name    | an epoch draws                                                          |
|---------|-------------------------------------------------------------------------|
| shuffle | every image once, in random order, less the last incomplete batch       |

N = training images, C = findings.
"""

from collections.abc import Iterator

import numpy as np
from torch.utils.data import Sampler


class ShuffleSampler(Sampler[int]):
    """Every image once in an order that depends on (seed, epoch) alone.

    The last incomplete batch of an epoch is left out (other images in each epoch). Otherwise the last optimizer
    step would see another number of images under another number of processes or accumulation steps, and the same
    run would give other weights.

    Args:
        label_NC: float labels; only their number is used here.
        batch_size: images an optimizer step, over all processes and accumulation steps.
        seed: of the order.

    Raises:
        ValueError: fewer images than one batch.

    >>> sampler = ShuffleSampler(np.zeros((5, 14)), batch_size=2, seed=0)
    >>> len(sampler), len(set(sampler))
    (4, 4)
    """

    def __init__(self, label_NC: np.ndarray, *, batch_size: int, seed: int):
        if len(label_NC) < batch_size:
            raise ValueError(
                f"{len(label_NC)} training images are fewer than one batch of {batch_size}; "
                "lower per_device_train_batch_size or gradient_accumulation_steps"
            )
        self.n_images, self.batch_size, self.seed, self.epoch = len(label_NC), batch_size, seed, 0

    def set_epoch(self, epoch: int) -> None:
        """Number of completed passes; the Trainer sets it before each pass and after a resume."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self.n_images // self.batch_size * self.batch_size

    def __iter__(self) -> Iterator[int]:
        order = np.random.default_rng([self.seed, self.epoch]).permutation(self.n_images)
        return iter(order[: len(self)].tolist())
