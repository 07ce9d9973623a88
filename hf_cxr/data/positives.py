"""A training set can teach something only if at least one of its labels is positive.

N = images, C = findings.
"""

import datasets
import numpy as np

from hf_cxr.data.schema import label_matrix


def why_untrainable(train: datasets.Dataset) -> str | None:
    """One line if no image of a training set has any finding; None if one has."""
    label_NC = label_matrix(train)
    if (label_NC == 1).any():
        return None
    absent, unknown = int((label_NC == 0).sum()), int(np.isnan(label_NC).sum())
    return (
        f"none of the {len(label_NC):,} training images has a finding ({absent:,} labels are absent, {unknown:,} "
        "unknown): nothing can be learnt from them. Check that the description reads the right labels (label_column, "
        "findings, rename, other_labels), or train on more images (train_limit, missing_images, split_file)"
    )


def check_positives(train: datasets.Dataset) -> None:
    """Refuse a training set without any positive label, before anything is built.

    Raises:
        ValueError: no image has any finding.
    """
    reason = why_untrainable(train)
    if reason:
        raise ValueError(reason)
