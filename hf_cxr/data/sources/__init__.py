"""Datasets: one module or folder for each kind, and one function that loads any of them.

Contract of the family: a module defines a `Kind`: which options of `DataArguments` it takes, how it checks them, and
how it loads a `Source` in the columns of `hf_cxr.data.schema`. To add a dataset that no table description fits, write
such a module and add its line to `SOURCES`: ``--dataset NAME --data_root DIR`` then works in every command.
"""

import dataclasses
import logging
from typing import Any

import datasets
import numpy as np

from hf_cxr.data.duplicates import check_no_duplicates
from hf_cxr.data.schema import label_matrix
from hf_cxr.data.sources.nih import NIH
from hf_cxr.data.sources.phantom import PHANTOM
from hf_cxr.data.sources.prepared import PREPARED, SOURCE_COLUMNS
from hf_cxr.data.sources.source import Arguments, Kind, Source
from hf_cxr.data.sources.table import TABLE
from hf_cxr.data.split_files import SplitFile, apply_split_file, read_split_file
from hf_cxr.data.splits import check_patients_disjoint, split_fingerprint, warn_of_near_shared

__all__ = ["SOURCES", "Kind", "Source", "check_options", "load_source", "pin_source", "source_options"]

logger = logging.getLogger(__name__)

SOURCES: dict[str, Kind] = {
    "phantom": PHANTOM,
    "nih": NIH,
    "table": TABLE,
    "prepared": PREPARED,
}


def load_source(args: Arguments, *, seed: int = 0, images: bool = True, unlabelled: bool = False) -> Source:
    """The dataset that the arguments ask for, in its final splits, checked for patients and images in two of them.

    Args:
        args: `DataArguments`.
        seed: of the permutation when ``shuffle_labels`` is set.
        images: False leaves the images out; a release or a table then needs no image file, and every row that it
            lists is there.
        unlabelled: images without any label are wanted too.

    Raises:
        OSError: data are missing or cannot be read.
        ValueError: the data contradict themselves, their description or the split file; splits share a patient.
    """
    source = SOURCES[args.dataset].load(args, images=images)
    if not (source.labelled or unlabelled):
        raise ValueError(
            f"{source.name} has no findings: such images can only be used for pre-training (hf-cxr pretrain); "
            "give the findings in its description"
        )
    if args.split_file:
        source = _re_split(source, read_split_file(args.split_file), args.fold)
    for note in source.notes:
        logger.warning("%s: %s", source.name, note)
    splits, missing = source.splits, source.missing
    if source.listed is not None:
        missing = {name: len(rows) - len(splits[name]) for name, rows in source.listed.items()}
        missing = {name: count for name, count in missing.items() if count}
    check_patients_disjoint(splits)
    warn_of_near_shared(splits)
    if args.train_limit is not None:
        splits = datasets.DatasetDict({**splits, "train": _evenly(splits["train"], args.train_limit)})
        missing = {name: count for name, count in missing.items() if name != "train"}
    if args.split_file and source.listed is None and missing:
        missing = {"all splits": sum(missing.values())}  # of images without an id, the split file says nothing
    if args.shuffle_labels:
        shuffled = _with_shuffled_labels(splits["train"], np.random.default_rng(seed))
        splits = datasets.DatasetDict({**splits, "train": shuffled})
    held_out = {name: rows for name, rows in (source.listed or splits).items() if name != "train" and len(rows)}
    return dataclasses.replace(
        source,
        splits=splits,
        missing=missing,
        fingerprint=split_fingerprint(splits),
        held_out=split_fingerprint(held_out) if held_out else "",
    )


def pin_source(args: Arguments) -> Arguments:
    """The arguments of the data as they are now: a branch of the Hub is the commit that it stands for.

    Raises:
        ValueError, OSError: the dataset or its revision does not exist, or cannot be reached.
    """
    pinned = SOURCES[args.dataset].pin(args)
    return dataclasses.replace(args, **pinned) if pinned else args


def check_options(args: Arguments) -> None:
    """Refuse options that the dataset does not take, lacks, or that contradict each other. No data are read.

    Raises:
        ValueError: one line with the option and what to do.
    """
    for option in dataclasses.fields(args):
        takers = [name for name, kind in SOURCES.items() if option.name in kind.options]
        # Only a place or a switch can be given by mistake. Numbers have a default for every dataset, and a run's
        # config.yaml has them all.
        given = (option.default is None or option.default is False) and getattr(args, option.name)
        if given and takers and args.dataset not in takers:
            raise ValueError(
                f"--{option.name} is given, but --dataset {args.dataset} does not take it: add --dataset "
                f"{' or '.join(takers)}, or leave it out"
            )
    SOURCES[args.dataset].check(args)


def source_options() -> set[str]:
    """The options that belong to one dataset, and stay behind when a command chooses another."""
    return {"split_file", "fold"}.union(*(kind.options for kind in SOURCES.values()))


def _re_split(source: Source, file: SplitFile, fold: int | None) -> Source:
    """The source with all its images in the splits of a split file."""
    # Images that are not there are rows of the source all the same: the file must agree with all of them.
    splits = apply_split_file(source.splits, file, fold=fold, listed=source.listed)
    listed = source.listed and apply_split_file(source.listed, file, fold=fold)
    if not source.synthetic and set(SOURCE_COLUMNS) <= set(splits["train"].column_names):
        check_no_duplicates(splits)  # prepare has compared the images across the former splits
    words = "" if fold is None else f", fold {fold} of {file.folds} as test"
    origin: dict[str, Any] = {
        "splits_from": f"split file {file.path.name} (SHA-256 {file.sha256[:16]}){words}",
        "split_file": {"name": file.path.name, "sha256": file.sha256, "fold": fold},
    }
    return dataclasses.replace(source, splits=splits, listed=listed, split_origin=origin)


def _evenly(train: datasets.Dataset, limit: int) -> datasets.Dataset:
    """So many rows, evenly over the set and not its head: a release is sorted by patient."""
    images = len(train)
    return train.select(np.unique(np.linspace(0, images - 1, min(limit, images)).round().astype(int)))


def _with_shuffled_labels(dataset: datasets.Dataset, rng: np.random.Generator) -> datasets.Dataset:
    labels = label_matrix(dataset)[rng.permutation(len(dataset))]
    return dataset.remove_columns("labels").add_column("labels", list(labels), feature=dataset.features["labels"])
