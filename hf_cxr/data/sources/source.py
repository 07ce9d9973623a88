"""`Source`, what a dataset is once it is loaded; and `Kind`, what a module of this folder gives to load one."""

import dataclasses
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow as pa

from hf_cxr.data.manifest import Recipe
from hf_cxr.labels import LabelSpace

Arguments = Any  # `hf_cxr.arguments.data.DataArguments`, which is built from the kinds and so cannot be imported here


@dataclass(frozen=True)
class Source:
    """A dataset: its rows in splits, and all that training, evaluation and reports ask about it.

    Attributes:
        splits: train, validation and test in the columns of `hf_cxr.data.schema`.
        labels: the C findings, with their other names.
        name: what reports call the data.
        split_origin: ``splits_from`` in words; ``split_file``: its name, SHA-256 and fold, or None.
        synthetic: no patient is behind the images.
        decodable: this package drew or decoded every image, so none can be unreadable.
        missing: by split, how many images the dataset lists that are not there; under "all splits" where a split file
            re-splits a dataset of which only these numbers are known. Images of a limited training set do not count.
        listed: where images are missing, ``image_id`` and ``patient_id`` of all that are listed, in the same splits.
        recipe: how the pixels were resized already; None if they are as published.
        place: the folder or file that a message about the data names.
        hub: ``id`` and ``commit`` of the Hub dataset that it is; the commit is None if a local copy does not say.
        notes: sentences that whoever reads a figure of these data must know.
        licence_note: the terms that published weights and figures must repeat; None if there are none.
        labelled: False for images without any label, which are for pre-training alone.
        fingerprint: the split's name, `split_fingerprint` of all rows; `load_source` computes it.
        held_out: the same of all validation and test rows that are listed; "" if there are none.
    """

    splits: datasets.DatasetDict
    labels: LabelSpace
    name: str
    split_origin: dict[str, Any] = field(default_factory=lambda: {"splits_from": None, "split_file": None})
    synthetic: bool = False
    decodable: bool = False
    missing: dict[str, int] = field(default_factory=dict)
    listed: Mapping[str, datasets.Dataset] | None = None
    recipe: Recipe | None = None
    place: Path | None = None
    licence_note: str | None = None
    hub: Mapping[str, str | None] | None = None
    notes: tuple[str, ...] = ()
    labelled: bool = True
    fingerprint: str = ""
    held_out: str = ""

    def with_splits(self, splits: Mapping[str, datasets.Dataset]) -> "Source":
        """The same source, of which only these rows are used; the fingerprint stays that of all rows."""
        return dataclasses.replace(self, splits=datasets.DatasetDict(splits))

    def check_pixels(self, size: int, resample: int) -> None:
        """Refuse pixels that were resized in another way than the model's preprocessing does it.

        Args:
            size: working side in pixels.
            resample: Pillow's number of the filter.

        Raises:
            ValueError: another size or filter, or another rule by which files become 8-bit grey.
        """
        wanted = Recipe(size, resample)
        if self.recipe is not None and self.recipe != wanted:
            raise ValueError(
                f"{self.place} was prepared with {self.recipe.words}, but the model's image processor needs "
                f"{wanted.words}: prepare it again with this --resize_size and model, or change these here"
            )

    def removed(self, gone: Sequence[tuple[str, str]]) -> dict[str, int]:
        """By split, how many of the images that a run started with are gone from the dataset's own list as well.

        Those are not in ``missing``, which counts listed images only.

        Args:
            gone: (split, image id) of images that the run's data had and this source does not have.
        """
        ids = {name: set(split["image_id"][:]) for name, split in (self.listed or self.splits).items()}
        unlisted = Counter(split for split, image in gone if image not in ids[split])
        return dict(unlisted if self.listed else unlisted - Counter(self.missing))


@dataclass(frozen=True)
class Kind:
    """What ``--dataset NAME`` stands for; a line of `SOURCES` for each.

    Attributes:
        help: for ``--help``.
        options: the keys of `DataArguments` that say where such data are and how they are read. A key that no kind
            lists goes with every kind. A new kind needs no key of its own: ``data_root`` is the folder of any dataset.
        load: (args, images=bool) -> the `Source` in the dataset's own splits; without images if they are not wanted.
            `load_source` does the rest: split file, checks, limit, fingerprint.
        check: (args) -> ValueError for options that are missing or contradict each other. It reads no data.
        pin: (args) -> the options that a run keeps in its config.yaml in place of those given, so that it reads the
            same data when it is resumed or repeated, such as the commit that a branch stands for.
    """

    help: str
    options: tuple[str, ...]
    load: Callable[..., Source]
    check: Callable[[Arguments], None] = lambda args: None
    pin: Callable[[Arguments], dict[str, Any]] = lambda args: {}


def check_range(name: str, value: float, least: float, most: float | None = None) -> None:
    """Refuse a number that is out of its range.

    Raises:
        ValueError: one line with the key.
    """
    if value < least or (most is not None and value > most):
        wanted = f"at least {least}" if most is None else f"between {least} and {most}"
        raise ValueError(f"{name} is {value}; it must be {wanted}")


def rule_for_missing(args: Arguments) -> str:
    """What a loader does about a listed image that is not there: "error", "skip", or "keep" its row.

    With ``unreadable_images skip``, a missing file is one more image that cannot be read: its row stays, so that the
    split is the one that the run started with.
    """
    return "keep" if (args.missing_images, args.unreadable_images) == ("error", "skip") else args.missing_images


def listed_ids(table: pa.Table, rows: Mapping[str, np.ndarray]) -> datasets.DatasetDict:
    """The ids of some rows of a table of the schema, by split: what `Source.listed` is."""
    ids = table.select(["image_id", "patient_id"]).replace_schema_metadata()
    return datasets.DatasetDict({name: datasets.Dataset(ids.take(pa.array(index))) for name, index in rows.items()})
