"""The images that are pre-trained on: training patients' alone, and of the rest nothing but the ids in the tables.

Images of validation and test are never opened; where images are files, these may be absent. The fingerprints of the
whole split, and of its validation and test rows, go into the model's record: a run on another cut of the same data is
refused by `run.training.check_first_stage`.

Refuses: data without a test set, unless the user states that they will never be tested on; training images that are
missing or cannot be read, unless they are to be left out; and, on a resume, other data than at the start.
"""

import dataclasses
import logging
from pathlib import Path

import datasets
import numpy as np
import pyarrow.compute as pc

from hf_cxr.config import PretrainArguments
from hf_cxr.data import Source, is_streamed, load_source
from hf_cxr.data.splits import patient_split
from hf_cxr.processing import PixelProcessor
from hf_cxr.reporting import claims
from hf_cxr.run.data import OpenedData, loaded_in_turn
from hf_cxr.run.preflight import leave_out_unreadable
from hf_cxr.words import plural

logger = logging.getLogger(__name__)

HELD_OUT = "held_out"
BATCH = 4096  # rows of which the images' places are in memory


class PretrainData(OpenedData):
    """The images of a pre-training: those that are trained on and, if some training patients are held out, theirs.

    The source's fingerprints are those of the whole data set.
    """

    @property
    def train(self) -> datasets.Dataset:
        return self.source.splits["train"]

    @property
    def held_out(self) -> datasets.Dataset | None:
        return self.source.splits.get(HELD_OUT)


def open_training_images(
    args: PretrainArguments, run_dir: Path, before: Path | None, pixels: PixelProcessor, *, trained: bool = False
) -> PretrainData:
    """Load and check the images; every process calls it. The arguments are those of `run.data.open_data`.

    Raises:
        FileNotFoundError, ValueError: see the top of this module.
    """
    loaded = loaded_in_turn(args.data, lambda data: load_training_images(dataclasses.replace(args, data=data)))
    loaded.check_pixels(pixels.resize_size, int(pixels.resample))
    # The training images of a stream are read as training reaches them.
    read = [name for name, split in loaded.splits.items() if name != "train" or not is_streamed(split)]
    checked = leave_out_unreadable(args, loaded, read)
    data = PretrainData.compared(args, run_dir, before, loaded, checked, trained=trained)
    logger.info(
        "%s", ", ".join(f"{name}: {plural(len(split), 'image')}" for name, split in data.source.splits.items())
    )
    return data


def load_training_images(args: PretrainArguments) -> Source:
    """The source with the training patients' rows alone, cut into train and held_out; no image is opened.

    Raises:
        FileNotFoundError, ValueError: see the top of this module.
    """
    # Every row that is listed is wanted, with or without its image: the split's fingerprint is that of the tables.
    every_row = dataclasses.replace(args.data, missing_images="error", unreadable_images="skip")
    source = load_source(every_row, seed=args.training.seed, unlabelled=True)
    _check_tested(source, never_tested=args.masking.never_tested)
    train, share = source.splits["train"], args.masking.held_out_share
    splits = {"train": train}
    if share:
        # Stratified on nothing: labels are not looked at.
        nothing_N1 = np.zeros((len(train), 1), np.float32)
        chosen_N = patient_split(nothing_N1, train["patient_id"][:], fraction=share, seed=args.training.seed)
        splits = {"train": train.select(np.flatnonzero(~chosen_N)), HELD_OUT: train.select(np.flatnonzero(chosen_N))}
    there = {name: _there(name, split, args, source) for name, split in splits.items()}
    missing = {name: len(splits[name]) - len(there[name]) for name in splits}
    tested = len(source.splits.get("test", ()))
    return dataclasses.replace(
        source,
        splits=datasets.DatasetDict(there),
        split_origin=claims.split_source(source.split_origin, tested, source.missing, {}),
        listed=None,
        missing={name: count for name, count in missing.items() if count},
    )


def _check_tested(source: Source, *, never_tested: bool) -> None:
    test = source.splits.get("test")
    has_test = test is not None and len(test) > 0
    if has_test and never_tested:
        raise ValueError(
            f"--never_tested is for data without a test set, and {source.name} has one of "
            f"{plural(len(test), 'image')}: leave it out; the images of the training set are trained on"
        )
    if not has_test and not never_tested:
        raise ValueError(
            f"{source.name} has no test set, so later runs cannot know which images are safe for testing: give "
            "--split_file (hf-cxr split --out writes one), or, if no model that starts from these weights will ever "
            "be tested on these images, state it with --never_tested true"
        )


def _there(name: str, split: datasets.Dataset, args: PretrainArguments, source: Source) -> datasets.Dataset:
    """The rows whose image is there; the rest is refused, left out, or kept to be left out as unreadable."""
    absent = _absent_rows(split)
    if not absent:
        return split
    if args.data.missing_images == "skip":
        words = plural(len(absent), "image"), name.replace("_", "-")
        logger.warning("%s does not contain %s of the %s set, skipped", source.place, *words)
        return split.select([row for row in range(len(split)) if row not in absent])
    if args.data.unreadable_images == "skip":
        return split
    examples = split.select(sorted(absent)[:3])["image_id"]
    raise FileNotFoundError(
        f"{source.place} does not contain {len(absent):,} of {plural(len(split), 'image')} of the training patients, "
        f"such as {', '.join(examples)}: download them, or leave them out with --missing_images skip"
    )


def _absent_rows(split: datasets.Dataset) -> set[int]:
    if "image" not in split.column_names or not split.data.column("image").num_chunks:
        return set()
    stored = split.data.column("image")
    if all(chunk.field("bytes").null_count == 0 for chunk in stored.chunks):
        return set()
    undecoded = split.select_columns(["image"]).cast_column("image", datasets.Image(decode=False))
    rows: set[int] = set()
    for number, batch in enumerate(undecoded.with_format("arrow").iter(BATCH)):
        nothing = pc.and_(*(pc.is_null(pc.struct_field(batch["image"], part)) for part in ("bytes", "path")))
        rows |= {number * BATCH + int(row) for row in pc.indices_nonzero(nothing).to_pylist()}
    return rows
