"""Radiographs as `datasets.Dataset`s of one schema (`schema.py`): loading, splitting, preparing, describing them.

`load_source` loads whatever the arguments ask for; `load_nih`, `load_table` and `load_phantom` load one kind.

Every name is loaded when it is first used: a process that decodes images needs no tables, one that reads tables needs
no torch, and `predict` of image files needs neither datasets nor pandas.
"""

from hf_cxr.late_names import late_names

_HOME = {
    "DecodedImages": "images.decoded",
    "Source": "sources",
    "StreamedImages": "sources.streamed",
    "TableDescription": "sources.table.description",
    "check_no_duplicates": "duplicates",
    "check_patients_disjoint": "splits",
    "check_positives": "positives",
    "find_duplicates": "duplicates",
    "is_streamed": "sources.streamed",
    "label_matrix": "schema",
    "load_description": "sources.table.description",
    "load_nih": "sources.nih",
    "load_phantom": "sources.phantom",
    "load_source": "sources",
    "load_streamed": "sources.streamed",
    "load_table": "sources.table.reader",
    "map_labels": "sources.table.reader",
    "near_shared_images": "splits",
    "near_shared_patients": "splits",
    "patient_folds": "splits",
    "patient_fractions": "splits",
    "perceptual_hash": "duplicates",
    "pin_source": "sources",
    "ready_names": "sources.table.description",
    "split_fingerprint": "splits",
    "why_untrainable": "positives",
    "with_images": "sources.streamed",
}

__all__ = sorted(_HOME)


__getattr__, __dir__ = late_names(__name__, {name: f"hf_cxr.data.{module}" for name, module in _HOME.items()})
