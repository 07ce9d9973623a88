"""Sources of radiographs, each brought to one schema: see `schema.py`.

Names of `streaming.py` are loaded when they are first used: it needs torch, which processes that only read tables or
decode images do without.
"""

import importlib
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import datasets
import numpy as np

from hf_cxr.data.duplicates import check_no_duplicates, find_duplicates, perceptual_hash
from hf_cxr.data.images.checks import check_images
from hf_cxr.data.images.decoded import DecodedImages, refuse_absent_bytes
from hf_cxr.data.positives import check_positives, why_untrainable
from hf_cxr.data.sources.nih import load_nih
from hf_cxr.data.sources.phantom import load_phantom
from hf_cxr.data.sources.prepared import SOURCE_COLUMNS, check_recipe, load_prepared, read_manifest
from hf_cxr.data.sources.table.description import TableDescription, load_description, ready_names
from hf_cxr.data.sources.table.reader import load_table, map_labels
from hf_cxr.data.split_files import apply_split_file, read_split_file
from hf_cxr.data.splits import (
    check_patients_disjoint,
    near_shared_images,
    near_shared_patients,
    patient_folds,
    patient_fractions,
    split_fingerprint,
    warn_of_near_shared,
    with_canonical_ids,
)
from hf_cxr.labels import NIH14, LabelSpace

if TYPE_CHECKING:
    from hf_cxr.config import DataArguments
    from hf_cxr.data.sources.streamed import StreamedImages, is_streamed, load_streamed, with_images

__all__ = [
    "DecodedImages",
    "StreamedImages",
    "TableDescription",
    "check_images",
    "check_no_duplicates",
    "check_patients_disjoint",
    "check_positives",
    "check_prepared",
    "count_missing",
    "count_removed",
    "dataset_name",
    "describe_split_source",
    "find_duplicates",
    "is_streamed",
    "is_synthetic",
    "label_matrix",
    "load_description",
    "load_nih",
    "load_phantom",
    "load_splits",
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


def load_splits(
    args: "DataArguments", *, seed: int = 0, images: bool = True
) -> tuple[datasets.DatasetDict, LabelSpace]:
    """The splits train, validation and test that the arguments ask for, checked for shared patients; and the labels.

    Args:
        args: source and options.
        seed: of the permutation when ``shuffle_labels`` is set.
        images: False leaves the images out; a release or a table then needs no image file, and is listed whole.
    """
    splits, label_names = _load_source(args, images=images)
    if args.split_file:
        # Images that are not at hand are still rows of the source: the file must agree with it whole.
        partial = images and args.missing_images == "skip" and args.dataset != "phantom"
        listed = _load_source(args, images=False)[0] if partial else None
        splits = apply_split_file(splits, read_split_file(args.split_file), fold=args.fold, listed=listed)
        if not is_synthetic(args) and set(SOURCE_COLUMNS) <= set(splits["train"].column_names):
            check_no_duplicates(splits)  # prepare has looked at the splits as they were
    check_patients_disjoint(splits)
    warn_of_near_shared(splits)
    if args.train_limit is not None:
        n_images = len(splits["train"])
        # Evenly over the set and not its head: the release is sorted by patient.
        rows = np.unique(np.linspace(0, n_images - 1, min(args.train_limit, n_images)).round().astype(int))
        splits["train"] = splits["train"].select(rows)
    if args.shuffle_labels:
        splits["train"] = _with_shuffled_labels(splits["train"], np.random.default_rng(seed))
    return splits, label_names


def _load_source(args: "DataArguments", *, images: bool) -> tuple[datasets.DatasetDict, LabelSpace]:
    """The source in its own splits."""
    # With unreadable_images skip, a file that is gone is one more image that cannot be read: its row stays, so that
    # the split is still the one that a run started with.
    missing = "keep" if (args.missing_images, args.unreadable_images) == ("error", "skip") else args.missing_images
    if args.dataset == "nih":
        return load_nih(args.nih_root, images=images, missing_images=missing), NIH14
    if args.streaming:
        from hf_cxr.data.sources.streamed import load_streamed

        splits, label_names = load_streamed(args.table, args.table_root)
        return splits if images else splits.remove_columns("stream"), label_names
    if args.dataset == "table":
        return load_table(args.table, args.table_root, images=images, missing_images=missing)
    if args.dataset == "prepared":
        splits, manifest = load_prepared(args.prepared, verify=args.verify_prepared)
        for name, split in splits.items():
            refuse_absent_bytes(split, Path(args.prepared) / name)
        splits = with_canonical_ids(splits)
        label_names = LabelSpace(manifest["label_names"], manifest.get("aliases"))
        return splits if images else splits.remove_columns("image"), label_names
    splits = load_phantom(
        train=args.phantom_train,
        validation=args.phantom_validation,
        test=args.phantom_test,
        size=args.phantom_size,
        seed=args.phantom_seed,
        prevalence_floor=args.phantom_prevalence_floor,
    )
    return splits if images else splits.remove_columns("image"), NIH14


def describe_split_source(args: "DataArguments") -> dict[str, Any]:
    """Where the splits are from: ``splits_from`` in words, ``split_file`` its name, SHA-256 and fold, or None."""
    if not args.split_file and args.dataset == "prepared":
        return {name: read_manifest(args.prepared)[name] for name in ("splits_from", "split_file")}
    if not args.split_file:
        words = {
            "phantom": "drawn as they are",
            "nih": "official test list; validation cut from the train_val list by patient, stratified on findings",
            "table": "the table's own, as its description says; those that it lacks cut by patient, stratified",
        }
        return {"splits_from": words[args.dataset], "split_file": None}
    file = read_split_file(args.split_file)
    fold = "" if args.fold is None else f", fold {args.fold} of {file.folds} as test"
    return {
        "splits_from": f"split file {file.path.name} (SHA-256 {file.sha256[:16]}){fold}",
        "split_file": {"name": file.path.name, "sha256": file.sha256, "fold": args.fold},
    }


def dataset_name(args: "DataArguments") -> str:
    """What reports call the data."""
    if args.dataset == "prepared":
        return read_manifest(args.prepared)["dataset"]
    names = {"phantom": "synthetic phantoms (no patients)", "nih": "ChestX-ray14"}
    return names[args.dataset] if args.dataset in names else load_description(args.table).name


def is_synthetic(args: "DataArguments") -> bool:
    """Whether the images are no patients'."""
    return args.dataset == "phantom" or (args.dataset == "prepared" and read_manifest(args.prepared)["synthetic"])


def check_prepared(args: "DataArguments", size: int, resample: int) -> None:
    """Refuse prepared pixels of another size or filter than the model's preprocessing has; any other source passes.

    Raises:
        ValueError: see `prepared.check_recipe`.
    """
    if args.dataset == "prepared":
        check_recipe(read_manifest(args.prepared), size, resample, args.prepared)


def count_missing(args: "DataArguments", splits: datasets.DatasetDict) -> dict[str, int]:
    """How many images each split lacks of those that the release or table lists; empty if it is whole.

    Of a prepared folder that a split file re-splits, "all splits" together.
    """
    if args.dataset == "prepared":
        manifest = read_manifest(args.prepared)
        missing = Counter(manifest["missing"]) + Counter(entry["split"] for entry in manifest["refused"])
        if args.train_limit is not None:
            del missing["train"]
        # A split file that agrees with the folder has no split for what the folder lacks.
        return {"all splits": missing.total()} if args.split_file and missing else dict(missing)
    if args.dataset == "phantom" or args.missing_images == "error":
        return {}
    listed = _listed(args)
    if args.train_limit is not None:
        del listed["train"]
    missing = {name: len(split) - len(splits[name]) for name, split in listed.items()}
    return {name: count for name, count in missing.items() if count}


def count_removed(args: "DataArguments", gone: Sequence[tuple[str, str]]) -> dict[str, int]:
    """By split, how many of the images that a run was started with `count_missing` does not count: nobody lists them.

    Args:
        args: of the run that resumes.
        gone: (split, image id) of the images that its data had and have no longer.
    """
    if args.dataset == "prepared":  # whose manifest has numbers and no ids
        counted = Counter(count_missing(args, datasets.DatasetDict()))
        return dict(Counter(split for split, _ in gone) - counted)
    ids = {name: set(split["image_id"][:]) for name, split in _listed(args).items()}
    return dict(Counter(split for split, image in gone if image not in ids[split]))


def _listed(args: "DataArguments") -> datasets.DatasetDict:
    listed = _load_source(args, images=False)[0]
    if args.split_file:
        listed = apply_split_file(listed, read_split_file(args.split_file), fold=args.fold)
    return listed


def label_matrix(dataset: datasets.Dataset) -> np.ndarray:
    """Labels of a split, (N, C) float32: 1 present, 0 absent, NaN unknown."""
    column = dataset.with_format("numpy", columns=["labels"])["labels"]
    return np.asarray(column[:], dtype=np.float32)


def _with_shuffled_labels(dataset: datasets.Dataset, rng: np.random.Generator) -> datasets.Dataset:
    labels = label_matrix(dataset)[rng.permutation(len(dataset))]
    return dataset.remove_columns("labels").add_column("labels", list(labels), feature=dataset.features["labels"])
