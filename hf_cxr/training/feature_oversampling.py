"""Minority over-sampling in feature space, for a head that is re-trained on a frozen backbone.

When the sampler draws an image again within an epoch, the head gets, instead of a copy, a point between its features
f_i and those of a neighbour f_j,

    f = f_i + u (f_j - f_i),    u uniform in [0, 1),

j one of the k nearest among the images that share the image's rarest finding (Euclidean, known positives only). A
label cell of the point is known where i and j agree; where they differ, or one is unknown, it is unknown: no label
describes what lies between a lung with an effusion and one without. The first draw of an image, and every draw of one
without a finding or without a neighbour, is the image itself.

f_i comes from the augmented image, f_j from the plain one, computed once: the backbone is frozen. j and u depend only
on (seed, epoch, index). The loss uses the prevalence of the draws, as without interpolation: the cells that become
unknown are not subtracted.

Source: SMOTE, Chawla, Bowyer, Hall and Kegelmeyer, Journal of Artificial Intelligence Research 16 (2002), between
neighbours of a class; MLSMOTE, Charte et al., Knowledge-Based Systems 89 (2015), one minority label at a time in
multi-label data, whose "intersection" of the labels this is, with unknown instead of absent. Over-sampling minority
findings in feature space in a second stage is due to Park et al., as the reference cites it; their exact definition
was not available, so this is named after what it does and not after them.

N = training images, C = findings, D = features, B = images in a batch, K = neighbours.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, Subset
from tqdm.auto import tqdm
from transformers import PreTrainedModel

from hf_cxr.models.head import features, head
from hf_cxr.processing import PixelProcessor, collate


class FeatureOversampling:
    """Interpolates between training images in feature space; pass it to `CXRTrainer` as ``interpolation``.

    Args:
        feature_ND: float32 features of each training image; not read for images without a known positive.
        label_NC: 1, 0 or NaN.
        neighbours: k, at least 1.
        seed: of the draws of neighbours and places.
    """

    def __init__(self, feature_ND: torch.Tensor, label_NC: np.ndarray, *, neighbours: int = 5, seed: int = 0):
        if neighbours < 1:
            raise ValueError(f"neighbours is {neighbours}; it must be at least 1")
        self.feature_ND, self.seed = feature_ND, seed
        self.label_NC = torch.as_tensor(label_NC, dtype=torch.float32)
        self.neighbour_N = nearest_of_rarest(feature_ND, label_NC, neighbours)

    def draw(self, index_B: np.ndarray, epoch: int) -> tuple[np.ndarray, np.ndarray]:
        """Partner rows (B,) and places u (B,) float32 for the sampler's indices; the row itself and 0 for a copy."""
        n_images = len(self.label_NC)
        partner_B, place_B = index_B % n_images, np.zeros(len(index_B), dtype=np.float32)
        for i, index in enumerate(index_B):
            near = self.neighbour_N[index % n_images]
            if index >= n_images and len(near):
                rng = np.random.default_rng([self.seed, epoch, index])
                partner_B[i], place_B[i] = near[rng.integers(len(near))], rng.random(dtype=np.float32)
        return partner_B, place_B

    def mix_labels(self, batch: Mapping[str, Any], epoch: int) -> dict[str, Any]:
        """The batch with the labels of its points: known where both images agree."""
        partner_B, _ = self.draw(batch["row"], epoch)
        label_BC = batch["labels"]
        other_BC = self.label_NC[partner_B].to(label_BC.device)
        alone_B1 = torch.from_numpy(partner_B == batch["row"])[:, None].to(label_BC.device)
        return {**batch, "labels": torch.where(alone_B1 | (label_BC == other_BC), label_BC, torch.nan)}

    @contextmanager
    def applied_to(self, model: PreTrainedModel, row_B: np.ndarray, epoch: int) -> Iterator[None]:
        """Within the block the head gets the points instead of the images' features."""
        partner_B, place_B = self.draw(row_B, epoch)
        handle = head(model).register_forward_pre_hook(
            lambda _, inputs: (self._between(inputs[0], partner_B, place_B),)
        )
        try:
            yield
        finally:
            handle.remove()

    def _between(self, feature_BD: torch.Tensor, partner_B: np.ndarray, place_B: np.ndarray) -> torch.Tensor:
        other_BD = self.feature_ND[partner_B].to(feature_BD)
        place_B1 = torch.from_numpy(place_B)[:, None].to(feature_BD)
        # The partner of a first draw is the image without augmentation: at place 0 its features stay bit by bit.
        return torch.where(place_B1 > 0, feature_BD + place_B1 * (other_BD - feature_BD), feature_BD)


def nearest_of_rarest(feature_ND: torch.Tensor, label_NC: np.ndarray, neighbours: int) -> list[np.ndarray]:
    """For each image, the rows of its nearest neighbours with its rarest finding, nearest first; may be empty.

    >>> features = torch.tensor([[0.0], [1.0], [5.0], [0.1]])
    >>> labels = np.array([[1, 1], [1, 1], [1, 0], [1, np.nan]])
    >>> [near.tolist() for near in nearest_of_rarest(features, labels, 1)]
    [[1], [0], [1], [0]]
    """
    positive_NC = label_NC == 1
    count_C = positive_NC.sum(axis=0)
    found_N = positive_NC.any(axis=1)
    rarest_N = np.where(positive_NC, count_C, np.inf).argmin(axis=1)
    near_N: list[np.ndarray] = [np.zeros(0, dtype=np.int64)] * len(label_NC)
    for finding in np.unique(rarest_N[found_N]):
        rows = np.flatnonzero(positive_NC[:, finding])
        for start in np.array_split(np.flatnonzero(found_N & (rarest_N == finding)), len(rows) // 1024 + 1):
            distance = torch.cdist(feature_ND[start], feature_ND[rows])
            distance[torch.from_numpy(start[:, None] == rows).to(distance.device)] = torch.inf
            k = min(neighbours, len(rows) - 1)
            for row, near in zip(start, distance.topk(k, largest=False).indices.cpu().numpy(), strict=True):
                near_N[row] = rows[near]
    return near_N


@torch.inference_mode()
def features_of(
    model: PreTrainedModel,
    pixels: PixelProcessor,
    dataset: Dataset,
    rows: np.ndarray,
    *,
    device: torch.device,
    batch_size: int = 64,
    workers: int = 0,
) -> torch.Tensor:
    """The features of these rows without augmentation: (N, D) float32 on the device, zeros for all other rows."""
    model.to(device).eval()
    pixels.to(device)
    feature_ND = torch.zeros(len(dataset), head(model).in_features, device=device)
    subset = Subset(dataset, rows.tolist())
    loader = DataLoader(subset, batch_size=batch_size, collate_fn=collate, num_workers=workers)
    for batch in tqdm(loader, desc="Features of training images", unit="batch"):
        pixel_values = pixels(batch["pixel_values"].to(device))
        feature_ND[batch["row"]] = features(model, pixel_values).float()
    return feature_ND.clone()
