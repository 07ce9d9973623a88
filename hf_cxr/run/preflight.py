"""Checks before the first training step what evaluation, calibration and report will need after the last.

Refuses, in one line that every process raises alike: a split without images; images that cannot be read (unless they
are to be left out); one patient where intervals need two; a validation set that cannot choose a checkpoint; a test set
without a known label. Warns of what can be reported honestly: findings of one label value, and images left out.

C = findings.
"""

import logging
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import datasets
import numpy as np
from accelerate import PartialState
from huggingface_hub import constants

from hf_cxr import processes
from hf_cxr.config import PretrainArguments, RunArguments
from hf_cxr.data import Source, StreamedImages, is_streamed, label_matrix
from hf_cxr.data.images.checks import Inspection, inspect_images, refusal
from hf_cxr.data.images.grey import ImageError
from hf_cxr.data.images.sound_files import SoundFiles
from hf_cxr.evaluation.kernels import headline_metrics
from hf_cxr.evaluation.metrics import counts
from hf_cxr.labels import LabelSpace

logger = logging.getLogger(__name__)

MEASURED_SPLITS = ("validation", "test")

LeftOut = dict[str, tuple[int, ...]]
"""By split, the numbers of the rows whose images cannot be read, counted in the split as it was loaded."""


def check_run_data(args: RunArguments, source: Source) -> tuple[Source, LeftOut]:
    """Check labels, patients and images of a run; every process calls it, and the images are shared between them.

    Returns:
        As `leave_out_unreadable`.

    Raises:
        ValueError: see the top of this module.
    """
    check_labels(args, source.splits, source.labels)
    # No test image is opened before it is measured.
    read = [name for name in source.splits if args.evaluation.measure_test or name != "test"]
    used, left_out = leave_out_unreadable(args, source, read)
    if left_out:
        check_labels(args, used.splits, used.labels)
    return used, left_out


def leave_out_unreadable(
    args: RunArguments | PretrainArguments, source: Source, read: Collection[str]
) -> tuple[Source, LeftOut]:
    """Check the images of the splits ``read``; every process calls it, and the images are shared between them.

    Returns:
        The source, and what is left out of its splits. They are without the rows of unreadable images, which only
        ``--unreadable_images skip`` leaves out. The training set alone keeps its rows, for `DecodedImages` to make
        blank, so that a resumed run draws the same images as before.

    Raises:
        ValueError: see the top of this module.
    """
    found = inspect(args, source.with_splits({name: source.splits[name] for name in read}))
    if not found.count:
        return source, {}
    used = source.with_splits(leave_out(source.splits, found, keep="train"))
    return used, {name: tuple(sorted(rows)) for name, rows in found.unreadable.items() if rows}


def check_labels(args: RunArguments, splits: Mapping[str, datasets.Dataset], label_names: LabelSpace) -> None:
    """Refuse, or warn of, splits whose labels or patients are too few for what will be done with them.

    Raises:
        ValueError: see the top of this module.
    """
    empty = [name for name, split in splits.items() if not len(split)]
    if empty:
        raise ValueError(f"{' and '.join(empty)}: no image is left; a run needs images in every split")
    if args.evaluation.measure_test:
        for name in MEASURED_SPLITS:
            check_patients(name, splits[name])
    label_NC = {name: label_matrix(splits[name]) for name in MEASURED_SPLITS}
    _check_selection(args, label_NC["validation"])
    if args.evaluation.measure_test and np.isnan(label_NC["test"]).all():
        raise ValueError(
            "test has no known label, so nothing can be measured on it: give labels, or stop after validation with "
            "--measure_test false"
        )
    for name in MEASURED_SPLITS if args.evaluation.measure_test else MEASURED_SPLITS[:1]:
        _warn_of_one_value(name, label_NC[name], label_names)


def check_patients(name: str, split: datasets.Dataset) -> None:
    """Refuse to measure a split of one patient: intervals are drawn over patients.

    Raises:
        ValueError: see above.
    """
    if len(set(split["patient_id"][:])) < 2:
        raise ValueError(
            f"{name} has images of 1 patient, and intervals need at least 2: give it more patients"
            + (", or stop after validation with --measure_test false" if name == "test" else "")
        )


def _check_selection(args: RunArguments, label_NC: np.ndarray) -> None:
    training = args.training
    metric = training.metric_for_best_model
    stops_early = getattr(training, "early_stopping_patience", None) is not None
    if not (training.load_best_model_at_end or training.save_strategy == "best" or stops_early):
        return
    if np.isnan(label_NC).all():
        raise ValueError(
            f"validation has no known label: nothing can be chosen by {metric}; give labels, or keep the last epoch "
            "with --load_best_model_at_end false"
        )
    if metric != "loss" and not _has_both(label_NC).any():
        raise ValueError(
            f"validation has no finding with both values: nothing can be chosen by {metric}; use "
            "--metric_for_best_model loss, or give validation images with and without a finding"
        )


def _has_both(label_NC: np.ndarray) -> np.ndarray:
    positives_C, negatives_C, _ = counts(label_NC)
    return (positives_C > 0) & (negatives_C > 0)


def _warn_of_one_value(name: str, label_NC: np.ndarray, label_names: LabelSpace) -> None:
    both_C, known_C = _has_both(label_NC), ~np.isnan(label_NC).all(axis=0)
    no_metric = f"no {' or '.join(metric.title for metric in headline_metrics().values())}"
    consequence = no_metric + (", and at most a shift for calibration" * (name == "validation"))
    for chosen_C, what in ((~both_C & known_C, "one label value only"), (~known_C, "no known label")):
        names = [finding for finding, chosen in zip(label_names, chosen_C, strict=True) if chosen]
        if names:
            logger.warning("%s has %s of %s: %s", name, what, ", ".join(names), consequence)
            consequence = f"{no_metric}, and no calibration"


def inspect(args: RunArguments | PretrainArguments, source: Source) -> Inspection:
    """What checking every image finds, the same on every process: each checks its share.

    ``--check_images`` says how far a file is read. What this package has drawn or decoded itself is not checked here.
    Of a stream, validation and test are read once, which costs what one evaluation costs; its training images are read
    as training reaches them.

    Raises:
        ValueError: images cannot be read, and they are not to be left out.
    """
    state = PartialState()
    share = {"processes": state.num_processes, "process": state.process_index}
    memory = SoundFiles(Path(constants.HF_HOME) / "hf_cxr" / "checked_images")
    found, problem = Inspection(), None
    try:
        found = Inspection() if source.decodable else _inspect_share(args, source.splits, memory, share)
    except Exception as error:  # if one process left here, the rest would wait for it endlessly
        problem = error
    if state.num_processes > 1:
        parts = processes.gather((found, problem and f"{type(problem).__name__}: {problem}"))
        problems = [text for _, text in parts if text]
        if problem is None and problems:
            problem = ValueError(problems[0])
        found = Inspection()
        for part, _ in parts:
            found.add(part)
    if problem is not None:
        raise problem
    if state.is_main_process:
        memory.add(found.sound)
        found.warn()
    if found.count and args.data.unreadable_images == "error":
        raise ValueError(refusal(found))
    return found


def _inspect_share(
    args: RunArguments, splits: Mapping[str, datasets.Dataset], memory: SoundFiles, share: dict[str, int]
) -> Inspection:
    if not any(map(is_streamed, splits.values())):
        return inspect_images(splits, memory, full=args.data.check_images == "full", **share)
    found = Inspection()
    for name in [name for name in MEASURED_SPLITS if name in splits] or splits:
        if share["process"] == 0:
            logger.info("checking the %s images of %s, a stream, once", f"{len(splits[name]):,}", name)
        images = StreamedImages(splits[name], 8, 0, batch_size=1, **share)
        found.add(Inspection(unreadable={name: images.unreadable()}, images=images.own_rows))
    return found


def readable(args: RunArguments, source: Source) -> datasets.DatasetDict:
    """The splits of a source that is only measured, without unreadable images where these are to be left out.

    Raises:
        ValueError: an image cannot be read and is not to be left out, or no image of a split is left.
    """
    found = inspect(args, source)
    return leave_out(source.splits, found) if found.count else source.splits


def leave_out(
    splits: Mapping[str, datasets.Dataset], found: Inspection, *, keep: str | None = None
) -> datasets.DatasetDict:
    """The splits without the rows of unreadable images, which are logged; those of ``keep`` stay in their places.

    Raises:
        ValueError: no image of a split can be read.
    """
    logger.warning("left out because of --unreadable_images skip: %s", found.in_words())
    kept = dict(splits)
    for name, gone in found.unreadable.items():
        if gone and len(gone) == len(splits[name]):
            raise ValueError(f"{name}: no image is left; {found.in_words()}")
        if gone and name != keep:
            kept[name] = splits[name].select([row for row in range(len(splits[name])) if row not in gone])
    return datasets.DatasetDict(kept)


def without_blank_rows(splits: datasets.DatasetDict, blank_rows: Collection[int]) -> datasets.DatasetDict:
    """The splits as they were learnt from: the training set without the rows that are blank."""
    gone = set(blank_rows)
    if not gone:
        return splits
    train = splits["train"].select([row for row in range(len(splits["train"])) if row not in gone])
    return datasets.DatasetDict({**splits, "train": train})


def unreadable_ids(splits: datasets.DatasetDict, left_out: LeftOut) -> set[str]:
    """Ids of the images that are left out, in the splits as they were loaded."""
    return {image for name, rows in left_out.items() for image in splits[name].select(rows)["image_id"]}


@contextmanager
def image_errors_explained() -> Iterator[None]:
    """Within the block, an image that cannot be read is an error that says how to finish the run.

    Raises:
        ValueError: an `ImageError` left the block.
    """
    try:
        yield
    except ImageError as error:
        raise ValueError(
            f"{error}. Repair the file and run the same command again, or add --unreadable_images skip, which leaves "
            "such images out and counts them; a stopped run resumes from its last checkpoint"
        ) from error
