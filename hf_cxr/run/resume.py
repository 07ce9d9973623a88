"""What must be the same when an unfinished run resumes: its settings, its data and its initial weights.

config.yaml holds the settings, ``data.parquet`` every row with its labels and its file (see `data/fingerprint.py`),
and each checkpoint's config.json the fingerprints of the data and of the initial weights.
"""

import dataclasses
import logging
import os
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa

from hf_cxr.arguments.components import KWARGS, flattened, with_defaults
from hf_cxr.arguments.data import DATA_PATHS, SOURCE_OPTIONS
from hf_cxr.arguments.model import INITIAL_WEIGHTS
from hf_cxr.arguments.spelling import modern_values
from hf_cxr.config import ARGUMENTS, PATHS, PretrainArguments, RunArguments
from hf_cxr.data import Source
from hf_cxr.data.fingerprint import FILE, changes, data_fingerprint, data_state, load_state, save_state
from hf_cxr.data.sources import SOURCES
from hf_cxr.files import file_sha256
from hf_cxr.models.record import ModelRecord
from hf_cxr.saved_models import CONFIG, read_json
from hf_cxr.yaml_files import dump_yaml, parse_yaml

logger = logging.getLogger(__name__)

# What may differ between a run and its continuation: nothing that changes what is computed.
FREE_ON_RESUME = {
    *DATA_PATHS,  # the data themselves are compared instead
    "changed_files",
    "check_images",
    "dataloader_num_workers",
    "disable_tqdm",
    "measure_test",  # a run that stopped after validation may continue to the test set
    "missing_images",  # images that are gone since are found by their rows: see `check_resume`
    "output_dir",
    "per_device_eval_batch_size",
    "report_to",
    "resume_from_checkpoint",
    "save_total_limit",
    "unreadable_images",  # what a run is finished with when an image was lost on the way; the report counts them
    "verify_prepared",
}


def settings_of(args: RunArguments | PretrainArguments) -> dict[str, Any]:
    """The run's settings as config.yaml gives them back; paths are absolute, so that any working folder will do."""
    values = args.to_dict()
    for key in PATHS:
        if values.get(key) and Path(values[key]).exists():
            values[key] = os.path.abspath(values[key])
    return parse_yaml(dump_yaml(values))


def changed_settings(before: Mapping[str, Any], now: Mapping[str, Any], *, free: set[str]) -> list[str]:
    """In words, the settings that differ from those of an earlier start; those of ``free`` may.

    A key that the earlier start did not know, because its version of this package had none, had its default. An
    option that the dataset does not take may differ. Of a local model the weights are compared, in `check_resume`,
    and not the path.
    """
    fields = [field for part in ARGUMENTS for field in dataclasses.fields(part)]
    defaults = {field.name: field.default for field in fields if field.default is not dataclasses.MISSING}
    before, now = flattened(with_defaults(defaults | modern_values(before))), flattened(now)
    for key in INITIAL_WEIGHTS:
        weights = [values.get(key) or "" for values in (before, now)]
        free = free | ({key} if all(map(os.path.isabs, weights)) else set())
    options = [key for key in before if "." in key and key not in now]
    kind = SOURCES.get(now.get("dataset"))
    free = free | (SOURCE_OPTIONS.difference(kind.options, ("split_file", "fold")) if kind else set())
    replaced = {mapping for key, mapping in KWARGS.items() if before.get(key) != now.get(key)}
    return [
        f"{key} was {before.get(key)} and is {now.get(key)}"
        for key in (*now, *options)
        # Options of another loss differ of course; that it is another one is named.
        if key not in free and before.get(key) != now.get(key) and key.partition(".")[0] not in replaced
    ]


def initial_weights(name: str | None) -> str | None:
    """SHA-256 of a local model's weights; None for a fresh model and a Hub id."""
    path = Path(name or "") / "model.safetensors"
    return file_sha256(path) if name and path.is_file() else None


def check_resume(
    args: RunArguments | PretrainArguments,
    run_dir: Path,
    checkpoint: Path | None,
    source: Source,
    *,
    unreadable: Collection[str] = (),
    trained: bool = False,
) -> dict[str, Any]:
    """Refuse to resume on other data or from other initial weights; record both when a run starts.

    Args:
        args: of the run.
        run_dir: the run folder; data.parquet is written there when a run starts.
        checkpoint: to resume from; None to start.
        source: the data, with every row that was loaded.
        unreadable: ids of images that are left out and counted, so that it does not matter how their files changed.
        trained: ``checkpoint`` is the trained model: its initial weights are not needed again, and may be gone.

    Returns:
        What a checkpoint's config.json is to say: ``data`` and ``initial_weights``; and, if there are any,
        ``removed_images``: by split, how many of the images that the run was started with the data no longer list,
        for the report to count.

    Raises:
        ValueError: labels, images, their order or files, patients or initial weights are not those that the run was
            started with; the message names them.
    """
    weights = initial_weights(args.model.initial_model)
    state = data_state(source.splits, source.labels)
    fingerprint = data_fingerprint(state)
    if checkpoint is None:
        save_state(state, run_dir)
        return {"data": fingerprint, "initial_weights": weights}
    saved = _record(checkpoint)
    if saved.data is None:
        check_split(source.fingerprint, checkpoint)
        logger.warning("%s was written by an earlier version: its labels and files cannot be compared", checkpoint)
        save_state(state, run_dir)  # for the next time
        return {"data": fingerprint, "initial_weights": weights}
    if trained:
        weights = saved.initial_weights
    if saved.initial_weights != weights:
        raise ValueError(
            f"{run_dir} started from different weights from those of {args.model.initial_model}: give the model it "
            "was started with (--model_name_or_path or --backbone_name_or_path), or another --output_dir"
        )
    gone = _check_state(args, run_dir, checkpoint, state, saved.data, unreadable)
    removed = source.removed(gone) if gone else {}
    return {"data": saved.data, "initial_weights": weights} | ({"removed_images": removed} if removed else {})


def check_split(fingerprint: str, checkpoint: Path) -> None:
    """Refuse a checkpoint that was trained on another split.

    Raises:
        ValueError: its split's fingerprint is another one.
    """
    saved = _record(checkpoint).split
    if saved != fingerprint:
        raise ValueError(
            f"{checkpoint} was trained on the split {saved}, the data are now {fingerprint}: different images or "
            "different splits; give the data it was started with, or another --output_dir"
        )


def _record(checkpoint: Path) -> ModelRecord:
    return ModelRecord.of(read_json(checkpoint / CONFIG)) or ModelRecord()


def _check_state(
    args: RunArguments, run_dir: Path, checkpoint: Path, now: pa.Table, trained_on: str, unreadable: Collection[str]
) -> list[tuple[str, str]]:
    """The (split, image id) of images that are gone since the start, and may be."""
    before = load_state(run_dir)
    if before is None or data_fingerprint(before) != trained_on:
        if data_fingerprint(now) != trained_on:
            raise ValueError(
                f"{checkpoint} was trained on other data: labels, images, patients or their order changed since "
                f"({run_dir / FILE}, which records the differences, is missing or damaged); give the data it was "
                "started with, or another --output_dir"
            )
        logger.warning("%s is missing or damaged: whether image files changed cannot be checked", run_dir / FILE)
        return []
    found = changes(before, now, ignore_files_of=unreadable)
    if found.rows:
        raise ValueError(
            f"{checkpoint} was trained on other data: {'; '.join(found.rows)}. Give the data it was started with, or "
            "another --output_dir to start a run on these"
        )
    if found.gone and args.data.missing_images != "skip":
        raise ValueError(
            f"since {run_dir} was started, {'; '.join(found.gone)}. Restore them, or leave them out and "
            "count them with --missing_images skip"
        )
    if found.files and args.data.changed_files != "accept":
        raise ValueError(
            f"since {run_dir} was started, {'; '.join(found.files)}. Restore the files; if they contain the "
            "same images, as after a copy, resume with --changed_files accept"
        )
    for sentence in (*found.gone, *found.files):
        logger.warning("since the run was started: %s", sentence)
    return found.gone_keys
