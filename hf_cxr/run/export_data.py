"""The images of a run for its export: some to compare files on, and labelled ones for the cost of 8-bit weights.

Refused: a split that is not there; a stream, whose images pass by once; data that were resized in another way than the
model does it.

N = images, S = resized side.
"""

import logging
from pathlib import Path

import datasets
import numpy as np
from numpy.typing import NDArray

from hf_cxr.config import RunArguments
from hf_cxr.data import DecodedImages, Source, is_streamed, label_matrix
from hf_cxr.export.exporter import Labelled, Pixels
from hf_cxr.export.images import IMAGES, Images, of_split
from hf_cxr.inference.classifier import Classifier
from hf_cxr.predictions import Predictions
from hf_cxr.processing import collate
from hf_cxr.run.evaluating.evaluate import in_the_findings_of, warn_of_other_split
from hf_cxr.run.measuring import intervals_of
from hf_cxr.run.preflight import check_patients

logger = logging.getLogger(__name__)

SAME_MODEL = 1e-3  # largest difference of a logit between the saved predictions and the model of today


def images_of(source: Source, classifier: Classifier) -> Images:
    """The first validation images.

    Raises:
        ValueError: see the module's first lines.
        ImageError: one cannot be read.
    """
    pixels = classifier.pixels
    split = _split(source, "validation")
    _check(source, split, classifier)
    return of_split(split, "validation", pixels.resize_size, pixels.resample)


def labelled_of(source: Source, classifier: Classifier, name: str, run_dir: Path, args: RunArguments) -> Labelled:
    """A labelled split, and images of another one to calibrate on.

    Args:
        name: "test" or "validation". The images to calibrate on are of validation, or else of train.
        run_dir: whose predictions of this split are taken if they are of this model and these images.
        args: of the run: how intervals are drawn.

    Raises:
        ValueError: see the module's first lines; no finding is shared, or the split is of one patient.
    """
    other = "train" if name == "validation" else "validation"
    chosen, _ = in_the_findings_of(classifier, {name: _split(source, name)}, source.labels)
    split, calibration = chosen[name], _split(source, other)
    for one in (split, calibration):
        _check(source, one, classifier)
    check_patients(name, split)
    warn_of_other_split(classifier, source.fingerprint, name)
    pixels = _pixels(split, classifier)
    return Labelled(
        pixels=pixels,
        label_NC=label_matrix(split),
        patient_ids_N=tuple(split["patient_id"][:]),
        name=name,
        calibration=_pixels(calibration, classifier),
        calibration_images=len(calibration),
        float_NC=_saved_logits(run_dir / "predictions" / f"{name}.parquet", split, pixels, classifier),
        intervals=intervals_of(args),
    )


def _split(source: Source, name: str) -> datasets.Dataset:
    if name not in source.splits or (not is_streamed(source.splits[name]) and not len(source.splits[name])):
        raise ValueError(f"{source.name} has no {name} images, which an export reads; give --images, or other data")
    return source.splits[name]


def _saved_logits(
    file: Path, split: datasets.Dataset, pixels: Pixels, classifier: Classifier
) -> NDArray[np.float32] | None:
    """The logits of the run's own predictions, if they are of these images and this model; None to compute them."""
    if not file.is_file():
        return None
    saved = Predictions.load(file)
    same = saved.image_ids == tuple(split["image_id"][:]) and saved.label_names == classifier.label_names
    if not same:
        return None
    import torch

    number = min(IMAGES, len(split))
    again = classifier.logits(torch.from_numpy(pixels(0, number)))
    return saved.logits if np.abs(again - saved.logits[:number]).max() < SAME_MODEL else None


def _pixels(split: datasets.Dataset, classifier: Classifier) -> Pixels:
    rows = DecodedImages(split, classifier.pixels.resize_size, classifier.pixels.resample)

    def pixels(start: int, stop: int) -> NDArray[np.uint8]:
        return collate(rows.__getitems__(range(start, stop)))["pixel_values"].numpy()

    return pixels


def _check(source: Source, split: datasets.Dataset, classifier: Classifier) -> None:
    if is_streamed(split):
        raise ValueError("an export reads images more than once; leave out --streaming")
    source.check_pixels(classifier.pixels.resize_size, classifier.pixels.resample)
