"""Radiographs as `datasets.Dataset`s of one schema (`schema.py`): loading, splitting, preparing, describing them.

`load_source` loads whatever the arguments ask for; `load_nih`, `load_table` and `load_phantom` load one kind.

Names of `sources/streamed.py` are loaded when they are first used: it needs torch, which processes that only read
tables or decode images do without.
"""

import importlib
from typing import TYPE_CHECKING, Any

from hf_cxr.data.duplicates import check_no_duplicates, find_duplicates, perceptual_hash
from hf_cxr.data.images.decoded import DecodedImages
from hf_cxr.data.positives import check_positives, why_untrainable
from hf_cxr.data.schema import label_matrix
from hf_cxr.data.sources import Source, load_source
from hf_cxr.data.sources.nih import load_nih
from hf_cxr.data.sources.phantom import load_phantom
from hf_cxr.data.sources.table.description import TableDescription, load_description, ready_names
from hf_cxr.data.sources.table.reader import load_table, map_labels
from hf_cxr.data.splits import (
    check_patients_disjoint,
    near_shared_images,
    near_shared_patients,
    patient_folds,
    patient_fractions,
    split_fingerprint,
)

if TYPE_CHECKING:
    from hf_cxr.data.sources.streamed import StreamedImages, is_streamed, load_streamed, with_images

__all__ = [
    "DecodedImages",
    "Source",
    "StreamedImages",
    "TableDescription",
    "check_no_duplicates",
    "check_patients_disjoint",
    "check_positives",
    "find_duplicates",
    "is_streamed",
    "label_matrix",
    "load_description",
    "load_nih",
    "load_phantom",
    "load_source",
    "load_streamed",
    "load_table",
    "map_labels",
    "near_shared_images",
    "near_shared_patients",
    "patient_folds",
    "patient_fractions",
    "perceptual_hash",
    "ready_names",
    "split_fingerprint",
    "why_untrainable",
    "with_images",
]

_STREAMING = ("StreamedImages", "is_streamed", "load_streamed", "with_images")


def __getattr__(name: str) -> Any:
    if name not in _STREAMING:
        raise AttributeError(f"module hf_cxr.data has no attribute {name!r}; public: {', '.join(__all__)}")
    value = getattr(importlib.import_module("hf_cxr.data.sources.streamed"), name)
    globals()[name] = value
    return value
