"""Predictions of a saved model: for a whole split, to evaluate it, or for image files.

Everything is computed in float32 from the saved folder (or Hub id), so that a user loads exactly what was measured.

B = images in a batch, C = findings.
"""

import copy
import hashlib
import itertools
import json
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from accelerate import PartialState
from PIL import Image
from torch.utils.data import DataLoader, Dataset, Subset
from tqdm.auto import tqdm

from hf_cxr import processes
from hf_cxr.arguments.model import Attention
from hf_cxr.data.images.files import find_images as find_images  # part of this module's interface
from hf_cxr.data.images.grey import RULE, ImageError, resize_grey
from hf_cxr.evaluation.conformal import ConformalSets
from hf_cxr.evaluation.operating_points import OperatingPoints
from hf_cxr.files import version_of
from hf_cxr.inference.calls import Calls
from hf_cxr.inference.results import ImageResult
from hf_cxr.inference.sources import AnyImage, name_of, read_image
from hf_cxr.inference.views import AveragedViews
from hf_cxr.models.attention import use_attention
from hf_cxr.models.build import load_weights
from hf_cxr.models.record import ModelRecord
from hf_cxr.processing import PixelProcessor, check_geometry, collate, load_processor
from hf_cxr.saved_models import check_weights, fingerprint, model_folder
from hf_cxr.systems import register

if TYPE_CHECKING:  # prediction of files does without what these import
    import datasets

    from hf_cxr.predictions import Predictions

NOT_THE_MODEL = {"_name_or_path", "transformers_version"}  # keys of a config that change when the model does not


class Classifier:
    """A saved model with the preprocessing that was saved with it.

    Args:
        model: run folder or Hub id.
        revision: branch, tag or commit of a Hub id.
        device: by default the process's own (Accelerate's).
        attention: see `models.attention.use_attention`.
        views: test-time augmentation: the logits are the mean over these views, calibrated if the views bring a
            calibration. The operating points are then theirs, and not those of the model's record.

    Raises:
        FileNotFoundError: a path was given and the folder does not exist.
        ValueError: the model cannot be used (see `models.build`), has no multi-label head, or has a preprocessing that
            this package cannot reproduce.
    """

    def __init__(
        self,
        model: str | Path,
        *,
        revision: str = "main",
        device: torch.device | str | None = None,
        attention: Attention = "auto",
        views: AveragedViews | None = None,
    ):
        if views is not None and views.model_sha256 is not None:
            views.check_model(fingerprint(model_folder(model, revision)), f"{model}")
        self.views = views
        self.device = torch.device(device or PartialState().device)
        self.model = load_weights(model, revision)
        if self.model.config.problem_type != "multi_label_classification":
            raise ValueError(f"{model} was not trained as a multi-label classifier (problem_type in its config.json)")
        self.model.to(self.device).eval()
        use_attention(self.model, attention, device=self.device.type)
        processor = load_processor(model, revision)
        check_geometry(processor)
        self.pixels = PixelProcessor(processor).to(self.device)

    @property
    def label_names(self) -> tuple[str, ...]:
        """C finding names in the order of the outputs."""
        return tuple(self.model.config.id2label[i] for i in range(self.model.config.num_labels))

    @property
    def calls(self) -> Calls:
        """At the operating points of the model's record, or of the averaged views."""
        if self.views is not None:
            return Calls(self.label_names, self.views.operating_points)
        record = ModelRecord.of(self.model.config)
        saved = None if record is None else record.operating_points
        return Calls(self.label_names, None if saved is None else OperatingPoints.from_dict(saved))

    @property
    def label_sets(self) -> ConformalSets | None:
        """Conformal label sets of the model's record; None without, and for averaged views, which have none."""
        record = None if self.views is not None else ModelRecord.of(self.model.config)
        return record and record.conformal and ConformalSets.from_dict(record.conformal)

    def predict(self, image: AnyImage, *, name: str | None = None) -> ImageResult:
        """Everything that the model says of one image.

        Args:
            image: a path, the bytes of a file, a PIL image, an array (H, W) uint8 or uint16 or (H, W, 3) uint8, or a
                pydicom Dataset; see `inference.sources`.
            name: what to call it; by default the path, or "an image in memory".

        Raises:
            ImageError: it cannot be read.
        """
        answer = next(self.predict_images([image], names=None if name is None else [name]))
        if isinstance(answer, ImageError):
            raise answer
        return answer

    def predict_images(
        self, images: Iterable[AnyImage], *, names: Iterable[str] | None = None, batch_size: int = 16
    ) -> Iterator[ImageResult | ImageError]:
        """What the model says of each image, in order; an image that cannot be read gives its error.

        Args:
            images: as for `predict`; of a generator, a batch at a time is taken.
            names: what to call each of them.
            batch_size: images that the model gets at once.

        Raises:
            RuntimeError: the model cannot run on any image of a batch, so the images are not the cause.
        """
        calls, sets = self.calls, self.label_sets
        named = zip(images, itertools.repeat(None), strict=False) if names is None else zip(images, names, strict=True)
        while batch := list(itertools.islice(named, batch_size)):
            called = [name or name_of(image) for image, name in batch]
            pixels = [self._pixels_or_error(image, name) for (image, _), name in zip(batch, called, strict=True)]
            for name, answer in zip(called, self._answers(called, pixels), strict=True):
                yield answer if isinstance(answer, ImageError) else ImageResult.of(name, answer, calls, sets)

    @torch.inference_mode()
    def logits(self, pixel_B1SS: torch.Tensor) -> np.ndarray:
        """Logits (B, C) float32 of resized grey images (B, 1, S, S) uint8; of averaged views, if there are any."""
        pixel_B1SS = pixel_B1SS.to(self.device)
        if self.views is None:
            return self._logits(self.pixels(pixel_B1SS))
        views = (self.pixels.view(pixel_B1SS, flip=view.flip, scale=view.scale) for view in self.views.views)
        return self.views.average([self._logits(value_B3DD) for value_B3DD in views])

    def _logits(self, value_B3DD: torch.Tensor) -> np.ndarray:
        # By default cuDNN's convolutions round float32 to 10 bits.
        with torch.backends.cudnn.flags(enabled=torch.backends.cudnn.enabled, allow_tf32=False):
            return self.model(pixel_values=value_B3DD).logits.cpu().numpy()

    def with_views(self, views: AveragedViews | None) -> "Classifier":
        """The same model with other views; the weights are shared."""
        other = copy.copy(self)
        other.views = views
        return other

    def predict_split(
        self, split: "datasets.Dataset", name: str, *, batch_size: int = 64, workers: int = 0
    ) -> "Predictions":
        """Logits of every image of a split, in its order. Several processes share the work; each gets all logits.

        Whole batches are shared, so the logits of N processes are those of one to the bit (a stream's to rounding).

        Args:
            split: of the schema, with images.
            name: "validation" or "test"; kept with the predictions.
            batch_size: images per process and batch.
            workers: decoding processes for each process.
        """
        from hf_cxr.data import label_matrix
        from hf_cxr.predictions import Predictions

        state, record = PartialState(), ModelRecord.of(self.model.config) or ModelRecord()
        rows = self._rows_of(split, batch_size, state)
        loader = DataLoader(rows, batch_size=batch_size, collate_fn=collate, num_workers=workers)
        bar = tqdm(loader, desc=f"Predicting {name}", unit="batch", disable=None if state.is_main_process else True)
        parts = []
        for batch in bar:
            processes.check()
            parts.append((batch["row"], self.logits(batch["pixel_values"])))
        parts = [part for parts_of_one in processes.gather(parts) for part in parts_of_one]
        row_M, logit_MC = map(np.concatenate, zip(*parts, strict=True))
        logits = np.full((len(split), logit_MC.shape[1]), np.nan, logit_MC.dtype)  # Predictions refuses a row left NaN
        logits[row_M[row_M >= 0]] = logit_MC[row_M >= 0]  # dataloader workers return a stream's rows in turn
        return Predictions(
            logits=logits,
            labels=label_matrix(split),
            image_ids=split["image_id"][:],
            patient_ids=split["patient_id"][:],
            study_ids=split["study_id"][:] if "study_id" in split.column_names else None,
            label_names=self.label_names,
            view=split["view"][:],
            age=split["age"][:],
            sex=split["sex"][:],
            split=name,
            metadata={"split": record.split, **self._origin(record)},
        )

    def _origin(self, record: ModelRecord) -> dict[str, Any]:
        """What predictions say of how they were made."""
        if self.views is None:
            return {"calibrated": record.calibration is not None}
        return {"calibrated": self.views.calibration is not None, "averaged_views": list(self.views.kinds)}

    def _rows_of(self, split: "datasets.Dataset", batch_size: int, state: PartialState) -> Dataset:
        """This process's share of a split, as pixels."""
        from hf_cxr.data import DecodedImages, StreamedImages, is_streamed

        size, resample = self.pixels.resize_size, self.pixels.resample
        if is_streamed(split):
            share = {"processes": state.num_processes, "process": state.process_index}
            return StreamedImages(split, size, resample, batch_size=batch_size, **share)
        rows = DecodedImages(split, size, resample)
        return Subset(rows, processes.whole_batches(len(rows), batch_size))

    def predict_files(
        self, paths: Sequence[Path], *, batch_size: int = 16
    ) -> Iterator[tuple[Path, np.ndarray | ImageError]]:
        """(path, probabilities (C,) float32) of each image file, in order; an unreadable file comes with its error.

        Whatever goes wrong with one file, the rest are predicted. A batch that does not fit into the device's memory
        is tried image by image.

        Raises:
            RuntimeError: the model cannot run on any image of a batch, so the images are not the cause.
        """
        for start in range(0, len(paths), batch_size):
            batch = paths[start : start + batch_size]
            pixels = [self._pixels_or_error(path, os.fspath(path)) for path in batch]
            yield from zip(batch, self._answers([os.fspath(path) for path in batch], pixels), strict=True)

    def fingerprint(self) -> str:
        """SHA-256 of everything that a prediction depends on besides the image: weights, names, preprocessing."""
        digest = hashlib.sha256()
        pixels = self.pixels
        rules = [RULE, pixels.resize_size, pixels.image_size, int(pixels.resample), list(self.label_names)]
        rules += [] if self.views is None else [self.views.to_dict()]
        config = {key: value for key, value in self.model.config.to_dict().items() if key not in NOT_THE_MODEL}
        digest.update(json.dumps([*rules, config], sort_keys=True, default=str).encode())
        for module in (self.model, pixels):
            for name, tensor in sorted(module.state_dict().items()):
                content = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
                digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
                digest.update(content.numpy())
        return digest.hexdigest()

    def _answers(
        self, names: Sequence[str], pixels: Sequence[np.ndarray | ImageError]
    ) -> list[np.ndarray | ImageError]:
        """Probabilities (C,) float32 of each resized grey image (S, S), or why there are none."""
        sound = [i for i, entry in enumerate(pixels) if isinstance(entry, np.ndarray)]
        answers = list(pixels)
        if sound:
            found = self._probabilities([names[i] for i in sound], [pixels[i] for i in sound])
            for i, answer in zip(sound, found, strict=True):
                answers[i] = answer
        return answers

    def _pixels_or_error(self, image: AnyImage, name: str) -> np.ndarray | ImageError:
        """Resized grey (S, S) uint8 of an image, or why there is none; nothing but an interrupt is raised."""
        is_file = isinstance(image, str | os.PathLike)
        try:
            before = version_of(image) if is_file else None
            pixel_SS = resize_grey(read_image(image, name), self.pixels.resize_size, self.pixels.resample)
            if is_file and version_of(image) != before:
                return ImageError(name, "it changed while it was read; run again when it is complete")
            return pixel_SS
        except ImageError as error:
            return error
        except MemoryError:
            return ImageError(name, "it is too large, or its sides too unequal, to decode and resize")
        except Exception as error:  # whatever is wrong with this image, the rest are predicted
            reason = getattr(error, "strerror", None) or f"{type(error).__name__}: {error}"
            return ImageError(name, " ".join(str(reason).split()))

    def _probabilities(self, names: Sequence[str], images: Sequence[np.ndarray]) -> list[np.ndarray | ImageError]:
        """Probabilities (C,) float32 of each resized grey image (S, S), or why there are none."""
        try:
            logit_BC = self.logits(torch.from_numpy(np.stack(images)[:, None]))
        except (RuntimeError, MemoryError):
            if len(images) == 1:
                raise
            # All images have the same size here, so the device's memory is the reason: one at a time needs less.
            return self._one_by_one(names, images)
        probability_BC = torch.sigmoid(torch.from_numpy(logit_BC)).numpy()
        damaged = "the model's output is not a number; is the model damaged?"
        return [
            probability_C if np.isfinite(probability_C).all() else ImageError(name, damaged)
            for name, probability_C in zip(names, probability_BC, strict=True)
        ]

    def _one_by_one(self, names: Sequence[str], images: Sequence[np.ndarray]) -> list[np.ndarray | ImageError]:
        answers, failures = [], []
        for name, image in zip(names, images, strict=True):
            try:
                answers += self._probabilities([name], [image])
            except (RuntimeError, MemoryError) as error:
                failures.append(error)
                answers.append(ImageError(name, f"the model failed on it: {' '.join(str(error).split())}"))
        if len(failures) == len(names):
            raise failures[-1]
        return answers


def stock_pipeline(model: str | Path, images: Sequence[Any]) -> list[dict[str, float]]:
    """Scores by transformers' own `pipeline("image-classification")`: finding -> score, highest first.

    It runs no code of this package, but for the model of a published system, whose class is here (`hf_cxr.systems`).
    A run compares its scores with those of the evaluation.

    Args:
        model: run folder or Hub id.
        images: what the pipeline takes: paths or PIL images.
    """
    from transformers import pipeline

    register()
    folder = model_folder(model)
    check_weights(folder, model)
    classify = pipeline(
        "image-classification",
        model=str(folder),
        device="cpu",
        trust_remote_code=False,
        model_kwargs={"use_safetensors": True},
    )
    answers = classify(list(images), top_k=classify.model.config.num_labels)
    return [{entry["label"]: entry["score"] for entry in answer} for answer in answers]


def stock_images(split: "datasets.Dataset", rows: Sequence[int]) -> list[Image.Image]:
    """Images of a split for the stock pipeline: as stored, if it would see the grey levels that were evaluated.

    The pipeline turns 16-bit files white and cannot read DICOM; for these it gets the evaluated 8-bit grey.

    Raises:
        ImageError: an image cannot be decoded.
    """
    import datasets

    from hf_cxr.data.images.decoded import grey_of

    stored = split.select_columns(["image", "image_id"]).cast_column("image", datasets.Image(decode=False))
    images = []
    for row in rows:
        example = stored[row]
        grey_HW = grey_of(example)
        try:
            image = datasets.Image().decode_example(example["image"])
            same = np.array_equal(np.asarray(image.convert("RGB").convert("L")), grey_HW)
        except OSError:  # Pillow does not know the format
            same = False
        images.append(image if same else Image.fromarray(grey_HW))
    return images
