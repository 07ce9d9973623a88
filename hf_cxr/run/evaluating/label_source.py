"""The labels of any dataset that the package knows, as a table that scores are matched with. No torch, no images.

Refused: a split without images.
"""

import numpy as np

from hf_cxr.data import Source, label_matrix
from hf_cxr.prediction_tables import LabelTable
from hf_cxr.reporting import claims


def labels_of_source(source: Source, split: str) -> LabelTable:
    """The labels of a split of any dataset.

    Raises:
        ValueError: it has no image.
    """
    check_has_images(source, split)
    rows = source.splits[split]
    return LabelTable(
        f"the {split} split of {source.name}",
        tuple(rows["image_id"][:]),
        tuple(rows["patient_id"][:]),
        label_matrix(rows),
        source.labels,
        view=tuple(rows["view"][:]),
        age=np.asarray(rows["age"][:], dtype=np.float32),
        sex=tuple(rows["sex"][:]),
        study_ids=tuple(rows["study_id"][:]) if "study_id" in rows.column_names else None,
        facts={
            "dataset": source.name,
            "synthetic": source.synthetic,
            "split_fingerprint": source.fingerprint,
            **claims.split_source(source.split_origin, len(source.splits["test"]), {}, {}),
            **claims.data_origin(source.hub, source.notes),
        },
    )


def check_has_images(source: Source, split: str) -> None:
    """Refuse a split without images.

    Raises:
        ValueError: with the splits that have some.
    """
    if not len(source.splits[split]):
        others = [name for name, rows in source.splits.items() if len(rows)]
        raise ValueError(f"{source.name} has no {split} images; measure --split {' or '.join(others)}")
