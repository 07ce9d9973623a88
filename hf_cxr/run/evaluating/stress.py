"""A saved model on a split's images at decreasing quality: what `hf-cxr evaluate --stress` measures.

An image is decoded once, and every version of it is predicted while it is in memory. All processes share the work.

N = images, C = findings.

Refused: an unknown kind, a streamed split (its images pass by once), and what `Predictions` refuses.
"""

from collections.abc import Sequence

import datasets
import numpy as np
import torch
from scipy.special import expit
from torch.utils.data import DataLoader, Subset
from tqdm.auto import tqdm

from hf_cxr import processes
from hf_cxr.data import DecodedImages, is_streamed, label_matrix
from hf_cxr.evaluation.draws import Intervals
from hf_cxr.evaluation.stress import Stress, measure_stress
from hf_cxr.inference.classifier import Classifier
from hf_cxr.inference.perturbations import PERTURBATIONS, versions
from hf_cxr.options import nearest


def check_kinds(kinds: Sequence[str]) -> tuple[str, ...]:
    """The kinds in the table's order; ``all`` is every one.

    Raises:
        ValueError: a kind is not in `PERTURBATIONS`.
    """
    if list(kinds) == ["all"]:
        return tuple(PERTURBATIONS)
    for kind in kinds:
        if kind not in PERTURBATIONS:
            raise ValueError(
                f"--stress: {kind} is not known{nearest(kind, PERTURBATIONS)}; choose from "
                f"{', '.join(PERTURBATIONS)} or all"
            )
    return tuple(kind for kind in PERTURBATIONS if kind in kinds)


def predict_versions(
    classifier: Classifier,
    split: datasets.Dataset,
    kinds: tuple[str, ...],
    *,
    batch_size: int = 16,
    workers: int = 0,
    seed: int = 0,
) -> np.ndarray:
    """Logits of the clean image and of every level of every kind, in the table's order: (1 + levels, N, C) float32.

    Raises:
        ValueError: the split is streamed.
        ImageError: an image cannot be read.
    """
    if is_streamed(split):
        raise ValueError("--stress needs images that can be read again; leave out --streaming")
    size = classifier.pixels.resize_size
    rows = DecodedImages(split, size, classifier.pixels.resample)
    share = processes.whole_batches(len(rows), batch_size)
    loader = DataLoader(
        Subset(_Versions(rows, kinds, seed), share), batch_size=batch_size, num_workers=workers, collate_fn=list
    )
    parts = []
    for batch in tqdm(loader, desc="Predicting under stress", unit="batch", disable=not processes.is_main()):
        processes.check()
        pixel_VBSS = torch.from_numpy(np.stack([pixels for _, pixels in batch], axis=1))
        logit_VBC = np.stack([classifier.logits(pixel_BSS[:, None]) for pixel_BSS in pixel_VBSS])
        parts.append((np.array([row for row, _ in batch]), logit_VBC))
    parts = [part for parts_of_one in processes.gather(parts) for part in parts_of_one]
    row_N = np.concatenate([row_B for row_B, _ in parts])
    return np.concatenate([logit_VBC for _, logit_VBC in parts], axis=1)[:, np.argsort(row_N)]


def stress(
    classifier: Classifier,
    split: datasets.Dataset,
    kinds: tuple[str, ...],
    *,
    batch_size: int = 16,
    workers: int = 0,
    intervals: Intervals,
) -> Stress | None:
    """Predict every version of a split's images and measure each, paired with the clean images.

    Returns:
        The figures, on the main process; None on the others, which share the prediction alone.
    """
    logit_VNC = predict_versions(classifier, split, kinds, batch_size=batch_size, workers=workers, seed=intervals.seed)
    if not processes.is_main():
        return None
    clean_NC, *worse = expit(logit_VNC.astype(np.float64))
    levels = [(kind, float(level)) for kind in kinds for level in PERTURBATIONS[kind].levels]
    return measure_stress(
        clean_NC,
        label_matrix(split),
        intervals.draws(split["patient_id"][:]),
        dict(zip(levels, worse, strict=True)),
        label_names=classifier.label_names,
        confidence=intervals.confidence,
    )


class _Versions(torch.utils.data.Dataset):
    """(row, the versions of its image)."""

    def __init__(self, rows: DecodedImages, kinds: tuple[str, ...], seed: int) -> None:
        self.rows, self.kinds, self.seed = rows, kinds, seed

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, row: int) -> tuple[int, np.ndarray]:
        return row, versions(self.rows[row]["pixels"], self.kinds, (self.seed, row))
