"""The part of a run that fits and measures its input check: `check_inputs`.

    stages/input_check.json    the figures on test, or why there are none; analysis.json and the page have them too
    input_check.safetensors    the check itself, see `inference.input_check`; it is pushed with the model

Fitted on at most `MOST_VALIDATION` images of validation and measured on at most `MOST_TEST` of test, drawn at random,
and on every kind of `inference.odd_images`. A check that was fitted for the same features is not fitted again. What
keeps it from being made, such as a small validation set or too little memory, does not stop a run: the log and the
page say it.

The main process works alone.

N = images, S = side in pixels, D = features.
"""

import logging
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import torch
from torch.utils.data import DataLoader
from tqdm.auto import tqdm

from hf_cxr.config import RunArguments
from hf_cxr.data import DecodedImages, StreamedImages, is_streamed
from hf_cxr.evaluation.input_check import OddKindReported, measure_input_check
from hf_cxr.files import plain, write_json
from hf_cxr.inference.classifier import Classifier
from hf_cxr.inference.input_check import (
    InputCheck,
    check_enough,
    compared_values,
    features_sha256,
    fit_input_check,
)
from hf_cxr.inference.odd_images import odd_kinds
from hf_cxr.inference.results import InputCheckResult
from hf_cxr.models.record import ModelRecord
from hf_cxr.processing import collate
from hf_cxr.reporting.input_check_words import input_check_words
from hf_cxr.run.measuring import intervals_of
from hf_cxr.run.stage_files import STAGES
from hf_cxr.saved_models import INPUT_CHECK, read_json
from hf_cxr.words import error_words

logger = logging.getLogger(__name__)

FIGURES_FILE = f"{STAGES}/input_check.json"
KEY = "input_check"  # in analysis.json
MOST_VALIDATION, MOST_TEST, MOST_ALTERED = 2000, 1000, 200


def check_inputs(run_dir: Path, args: RunArguments, splits: Mapping[str, datasets.Dataset] | None) -> None:
    """Fit and measure the input check of a calibrated run, unless it has one for the same features.

    Args:
        run_dir: the run folder, calibrated.
        args: of the run.
        splits: validation and test with their images; None if they are not available.
    """
    if not args.evaluation.input_check:
        return _not_done(run_dir, "input_check is false")
    if splits is not None:
        try:
            check_enough(splits["validation"]["patient_id"][:])
        except ValueError as error:
            return _not_done(run_dir, str(error))
    classifier = Classifier(run_dir, attention=args.model.attention, input_check=False)
    sha256 = features_sha256(classifier.model, classifier.pixels)
    if has_check(run_dir, sha256):
        return None
    if splits is None:
        return _not_done(run_dir, "the images could not be read when it was to be fitted")
    start = time.perf_counter()
    try:
        check = fit_check(classifier, splits["validation"], sha256, args)
        rates = measure_check(classifier, check, splits["test"], args)
    except (ValueError, OSError, RuntimeError, MemoryError) as error:  # an ImageError is a ValueError
        logger.warning("no input check: %s", error_words(error))
        return _not_done(run_dir, error_words(error))
    rates |= {"target": check.target, "validation_images": check.images, "validation_patients": check.patients}
    write_json(run_dir / FIGURES_FILE, rates)
    check.with_measured(rates).save(run_dir)
    logger.info("%s (%.0f s)", input_check_words(rates), time.perf_counter() - start)
    return None


def _not_done(run_dir: Path, reason: str) -> None:
    """Record why the run has no check; one of other weights, or a damaged one, is removed."""
    (run_dir / INPUT_CHECK).unlink(missing_ok=True)
    write_json(run_dir / FIGURES_FILE, {"not_done": reason})


def has_check(run_dir: Path, sha256: str) -> bool:
    """Whether the run has a check of these features, with its figures."""
    try:
        check = InputCheck.load(run_dir)
    except ValueError as error:
        logger.warning("the input check is fitted again: %s", error)
        return False
    return check is not None and check.model_sha256 == sha256 and "kinds" in read_figures(run_dir)


def read_figures(run_dir: Path) -> dict[str, Any]:
    """The figures of the run's check; the key "not_done" in place of them if there is a reason; {} for an old run."""
    return read_json(run_dir / FIGURES_FILE) if (run_dir / FIGURES_FILE).is_file() else {}


def with_input_check(run_dir: Path, analysis: dict[str, Any]) -> dict[str, Any]:
    """The analyses of a run with that of its input check, or with why there is none."""
    values = read_figures(run_dir)
    if not values:
        return analysis
    if "not_done" in values:
        return analysis | {"not_done": {**analysis.get("not_done", {}), KEY: values["not_done"]}}
    return analysis | {KEY: values}


def fit_check(classifier: Classifier, validation: datasets.Dataset, sha256: str, args: RunArguments) -> InputCheck:
    """The check of a model, from its validation images."""
    rows = drawn_rows(len(validation), MOST_VALIDATION, args.training.seed)
    parts, row_parts = [], []
    for row_B, pixel_BSS in batches(classifier, validation, rows, args, "Input check: validation"):
        parts.append(compared_values(pixel_BSS, features(classifier, pixel_BSS)))
        row_parts.append(row_B)
    values = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    patient_ids = np.asarray(validation["patient_id"][:], dtype=str)[np.concatenate(row_parts)]
    return fit_input_check(values, patient_ids, model_sha256=sha256, seed=args.training.seed)


def measure_check(
    classifier: Classifier, check: InputCheck, test: datasets.Dataset, args: RunArguments
) -> dict[str, Any]:
    """How often the check reports ordinary test images, and images of every kind that it should report."""
    rows = drawn_rows(len(test), MOST_TEST, args.training.seed)
    rng = np.random.default_rng(args.training.seed)
    altered = set(rng.permutation(rows)[:MOST_ALTERED].tolist())
    patient_ids = np.asarray(test["patient_id"][:], dtype=str)
    reported, row_parts, kept, kept_rows = [], [], [], []
    for row_B, pixel_BSS in batches(classifier, test, rows, args, "Input check: test"):
        reported += [result.unusual for result in results_of(classifier, check, pixel_BSS)]
        row_parts.append(row_B)
        chosen = [place for place, row in enumerate(row_B.tolist()) if row in altered]
        kept.append(pixel_BSS[chosen])
        kept_rows.append(row_B[chosen])
    pixel_NSS, own_N = np.concatenate(kept), patient_ids[np.concatenate(kept_rows)]
    kinds, size = {}, args.training.per_device_eval_batch_size
    record = ModelRecord.of(classifier.model.config)
    odd = odd_kinds(synthetic=record is not None and bool(record.synthetic))
    for key, kind in tqdm(odd.items(), desc="Input check: odd images", leave=False, disable=None):
        side, resample = classifier.pixels.resize_size, classifier.pixels.resample
        if kind.alter is not None:
            odd_NSS, cluster_N = kind.alter(pixel_NSS, rng), own_N
        else:
            odd_NSS = kind.draw(side, resample, rng)
            cluster_N = np.arange(len(odd_NSS))
        results = [
            result
            for start in range(0, len(odd_NSS), size)
            for result in results_of(classifier, check, np.ascontiguousarray(odd_NSS[start : start + size]))
        ]
        named_N = None
        if kind.reason is not None:
            named_N = np.array([kind.reason in result.reasons for result in results])
        unusual_N = np.array([result.unusual for result in results])
        kinds[key] = OddKindReported(kind.title, unusual_N, cluster_N.tolist(), named_N)
    rates = measure_input_check(reported, patient_ids[np.concatenate(row_parts)], kinds, intervals=intervals_of(args))
    return plain(rates.to_dict())


def drawn_rows(rows: int, most: int, seed: int) -> np.ndarray:
    """Up to so many rows at random, in order."""
    return np.sort(np.random.default_rng(seed).permutation(rows)[:most])


def batches(
    classifier: Classifier, split: datasets.Dataset, rows: np.ndarray, args: RunArguments, words: str
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Rows (B,) of a split and their resized grey images (B, S, S) uint8.

    Raises:
        ImageError: an image cannot be read.
    """
    size, chosen = args.training.per_device_eval_batch_size, split.select(rows.tolist())
    side, resample = classifier.pixels.resize_size, classifier.pixels.resample
    if is_streamed(split):
        images = StreamedImages(chosen, side, resample, batch_size=size)
    else:
        images = DecodedImages(chosen, side, resample)
    loader = DataLoader(images, size, collate_fn=collate, num_workers=args.training.dataloader_num_workers)
    for batch in tqdm(loader, desc=words, unit="batch", leave=False, disable=None):
        yield rows[batch["row"]], batch["pixel_values"][:, 0].numpy()


def results_of(classifier: Classifier, check: InputCheck, pixel_BSS: np.ndarray) -> list[InputCheckResult]:
    """What the check says of images."""
    return check.of(pixel_BSS, features(classifier, pixel_BSS))


def features(classifier: Classifier, pixel_BSS: np.ndarray) -> np.ndarray:
    """What the model's head gets of resized grey images, (B, D) float32."""
    return classifier.outputs(torch.from_numpy(pixel_BSS)[:, None])[1]
