"""Sources of radiographs, each brought to one schema: see `schema.py`."""

import datasets
import numpy as np

from hf_cxr.config import DataArguments
from hf_cxr.data.description import TableDescription, load_description, ready_names
from hf_cxr.data.nih import load_nih
from hf_cxr.data.phantom import load_phantom
from hf_cxr.data.prepare import DecodedImages, check_images
from hf_cxr.data.splits import check_patients_disjoint, split_fingerprint
from hf_cxr.data.streaming import StreamedImages, is_streamed, load_streamed, with_images
from hf_cxr.data.tables import load_table, map_labels
from hf_cxr.labels import NIH14, LabelSpace

__all__ = [
    "DecodedImages",
    "StreamedImages",
    "TableDescription",
    "check_images",
    "check_patients_disjoint",
    "count_missing",
    "dataset_name",
    "is_streamed",
    "label_matrix",
    "load_description",
    "load_nih",
    "load_phantom",
    "load_splits",
    "load_streamed",
    "load_table",
    "map_labels",
    "ready_names",
    "split_fingerprint",
    "with_images",
]


def load_splits(args: DataArguments, *, seed: int = 0, images: bool = True) -> tuple[datasets.DatasetDict, LabelSpace]:
    """The splits train, validation and test that the arguments ask for, checked for shared patients; and the labels.

    Args:
        args: source and options.
        seed: of the permutation when ``shuffle_labels`` is set.
        images: False leaves the images out; a release or a table then needs no image file, and is listed whole.
    """
    label_names = NIH14
    if args.dataset == "nih":
        splits = load_nih(args.nih_root, images=images, missing_images=args.missing_images)
    elif args.streaming:
        splits, label_names = load_streamed(args.table, args.table_root)
        if not images:
            splits = splits.remove_columns("stream")
    elif args.dataset == "table":
        splits, label_names = load_table(
            args.table, args.table_root, images=images, missing_images=args.missing_images
        )
    else:
        splits = load_phantom(
            train=args.phantom_train,
            validation=args.phantom_validation,
            test=args.phantom_test,
            size=args.phantom_size,
            seed=args.phantom_seed,
            prevalence_floor=args.phantom_prevalence_floor,
        )
        if not images:
            splits = splits.remove_columns("image")
    check_patients_disjoint(splits)
    if args.train_limit is not None:
        n_images = len(splits["train"])
        # Evenly over the set and not its head: the release is sorted by patient.
        rows = np.unique(np.linspace(0, n_images - 1, min(args.train_limit, n_images)).round().astype(int))
        splits["train"] = splits["train"].select(rows)
    if args.shuffle_labels:
        splits["train"] = _with_shuffled_labels(splits["train"], np.random.default_rng(seed))
    return splits, label_names


def dataset_name(args: DataArguments) -> str:
    """What reports call the data."""
    names = {"phantom": "synthetic phantoms (no patients)", "nih": "ChestX-ray14"}
    return names[args.dataset] if args.dataset in names else load_description(args.table).name


def count_missing(args: DataArguments, splits: datasets.DatasetDict) -> dict[str, int]:
    """How many images each split lacks of those that the release or table lists; empty if it is whole."""
    if args.dataset == "phantom" or args.missing_images == "error":
        return {}
    if args.dataset == "nih":
        listed = load_nih(args.nih_root, images=False)
    else:
        listed, _ = load_table(args.table, args.table_root, images=False)
    if args.train_limit is not None:
        del listed["train"]
    missing = {name: len(split) - len(splits[name]) for name, split in listed.items()}
    return {name: count for name, count in missing.items() if count}


def label_matrix(dataset: datasets.Dataset) -> np.ndarray:
    """Labels of a split, (N, C) float32: 1 present, 0 absent, NaN unknown."""
    column = dataset.with_format("numpy", columns=["labels"])["labels"]
    return np.asarray(column[:], dtype=np.float32)


def _with_shuffled_labels(dataset: datasets.Dataset, rng: np.random.Generator) -> datasets.Dataset:
    labels = label_matrix(dataset)[rng.permutation(len(dataset))]
    return dataset.remove_columns("labels").add_column("labels", list(labels), feature=dataset.features["labels"])
