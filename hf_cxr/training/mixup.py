"""Mixup for many labels: each training image is mixed with a partner, and so are their labels.

    x = l x_i + (1 - l) x_j,    y = l y_i + (1 - l) y_j,    l ~ Beta(alpha, alpha)

x_i and x_j are two images as the model gets them, each augmented on its own and normalised. A label cell is a number
from 0 to 1, and known only where both images know it: where one is unknown, so is the mixture.

The partner j is drawn as the epoch draws images (evenly, or as often as the sampler draws each), so that the mixed
labels have the prevalence of the draws. j and l depend only on (seed, epoch, index), as the augmentation does: not on
how a step is divided into micro-batches or among processes. So a partner is not an image of the same batch, as in the
authors' code, but read next to it: twice as many images are read and augmented; the model computes as many as before.
Each image has its own l, and the authors' code one for a batch.

Losses get the soft labels. The losses of single cells are linear in the label, so that is the mixture of the losses
with both labels. A loss whose cells depend on the labels of other cells is refused.

Source: Zhang, Cisse, Dauphin and Lopez-Paz, "mixup: Beyond Empirical Risk Minimization", ICLR 2018, equation 1.

B = images, C = findings, N = training images, S and D = sides in pixels before and after the crop.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from scipy.special import betaincinv
from torch.utils.data import Sampler

from hf_cxr.processing import PixelProcessor, collate
from hf_cxr.uniforms import row_uniforms

STREAM = 2**32  # seeds are below it: these numbers are those of no augmentation
PARTNER = 2**48  # row numbers are below it: a partner is augmented by numbers of its own


class Mixup:
    """Draws partners and shares; pass it to `CXRTrainer` as ``mixup``, with its `sampler` and its `dataset`.

    Args:
        draws_N: how often an epoch draws each image on average, from `sampling.expected_draws`.
        alpha: of the Beta distribution, above 0. Towards 0 the share is 0 or 1: one of the two images alone; 1 is any
            share alike. The authors take 0.1 to 0.4 for ImageNet.
        seed: of the draws.

    Raises:
        ValueError: alpha is not above 0, or not finite.
    """

    def __init__(self, draws_N: np.ndarray, *, alpha: float, seed: int = 0):
        if not 0 < alpha < np.inf:
            raise ValueError(f"alpha is {alpha}; it must be above 0 and finite")
        self.end_N = np.cumsum(np.asarray(draws_N, dtype=np.float64))
        self.alpha, self.seed = alpha, seed

    def draw(self, index_B: np.ndarray, epoch: int) -> tuple[np.ndarray, np.ndarray]:
        """Partner rows (B,) int64 and shares l (B,) float32 for the sampler's indices in this epoch."""
        uniform_B2 = row_uniforms(self.seed + STREAM, epoch, np.asarray(index_B), 2)
        partner_B = np.searchsorted(self.end_N, uniform_B2[:, 0] * self.end_N[-1], side="right")
        share_B = betaincinv(self.alpha, self.alpha, uniform_B2[:, 1])
        return np.minimum(partner_B, len(self.end_N) - 1), share_B.astype(np.float32)

    def sampler(self, sampler: Sampler[int]) -> "PairSampler":
        """The sampler, with each index's partner next to it."""
        return PairSampler(sampler, self)

    def dataset(self, rows: Any) -> "PairedRows":
        """The training set by such pairs."""
        return PairedRows(rows)

    def mix_labels(self, batch: Mapping[str, Any], epoch: int) -> dict[str, Any]:
        """The batch of `PairedRows` with its labels mixed; unknown where one of the two is."""
        share_B1 = self._shares(batch, epoch, batch["labels"])[:, None]
        return {**batch, "labels": torch.lerp(batch["partner_labels"], batch["labels"], share_B1)}

    def mixed_pixels(self, pixels: PixelProcessor, batch: Mapping[str, Any], epoch: int) -> torch.Tensor:
        """Both images of each pair augmented and normalised, then mixed: (B, 3, D, D) float32."""
        own_B3DD = pixels.augment(batch["pixel_values"], batch["row"], epoch)
        partner_B3DD = pixels.augment(batch["partner_pixel_values"], batch["row"] + PARTNER, epoch)
        return partner_B3DD.lerp_(own_B3DD, self._shares(batch, epoch, own_B3DD)[:, None, None, None])

    def _shares(self, batch: Mapping[str, Any], epoch: int, like: torch.Tensor) -> torch.Tensor:
        _, share_B = self.draw(batch["row"], epoch)
        return torch.from_numpy(share_B).to(like.device, non_blocking=True)


class PairSampler(Sampler[tuple[int, int]]):
    """Indices of a sampler, each with its partner's row in this epoch."""

    def __init__(self, sampler: Sampler[int], mixup: Mixup):
        self.sampler, self.mixup, self.epoch = sampler, mixup, 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch
        self.sampler.set_epoch(epoch)

    def __len__(self) -> int:
        return len(self.sampler)

    def __iter__(self) -> Iterator[tuple[int, int]]:
        indices = list(self.sampler)
        partner_B, _ = self.mixup.draw(np.array(indices, dtype=np.int64), self.epoch)
        return zip(indices, partner_B.tolist(), strict=True)


class PairedRows:
    """A dataset by pairs (index, partner): the batch of the indices, with their partners' pixels and labels."""

    def __init__(self, rows: Any):
        self.rows = rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, pair: tuple[int, int]) -> dict[str, Any]:
        return self.__getitems__([pair])

    def __getitems__(self, pairs: Sequence[tuple[int, int]]) -> dict[str, Any]:
        # One request: a prepared split answers with the whole batch, read in the order of its file.
        indices = [index for index, _ in pairs] + [partner for _, partner in pairs]
        batched = getattr(self.rows, "__getitems__", None)
        both = collate([self.rows[index] for index in indices] if batched is None else batched(indices))
        halves = {name: (values[: len(pairs)], values[len(pairs) :]) for name, values in both.items()}
        own = {name: first for name, (first, _) in halves.items()}
        return own | {f"partner_{name}": halves[name][1] for name in ("pixel_values", "labels")}
