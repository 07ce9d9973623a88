"""Predictions of a saved model: for a whole split, to evaluate it, or for image files.

Everything is computed from the saved folder (or Hub id), so that a user loads exactly what was measured, in float32
unless ``bf16`` is asked for.

B = images in a batch, C = findings.
"""

import copy
import hashlib
import itertools
import json
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from accelerate import PartialState
from torch.utils.data import DataLoader, Dataset, Subset
from tqdm.auto import tqdm

from hf_cxr import processes
from hf_cxr.arguments.model import Attention
from hf_cxr.data.images.files import find_images as find_images  # part of this module's interface
from hf_cxr.data.images.grey import RULE, ImageError
from hf_cxr.evaluation.conformal import ConformalSets
from hf_cxr.evaluation.operating_points import OperatingPoints
from hf_cxr.inference.answers import Version
from hf_cxr.inference.calls import Calls
from hf_cxr.inference.devices import full_float32
from hf_cxr.inference.input_check import InputCheck, features_sha256
from hf_cxr.inference.pipeline import stock_images as stock_images  # these two as well
from hf_cxr.inference.pipeline import stock_pipeline as stock_pipeline
from hf_cxr.inference.reading import ReadImage, read_ahead
from hf_cxr.inference.results import ImageResult
from hf_cxr.inference.sources import AnyImage, name_of
from hf_cxr.inference.views import AveragedViews
from hf_cxr.models.attention import use_attention
from hf_cxr.models.build import load_weights
from hf_cxr.models.head import logits_and_features
from hf_cxr.models.record import ModelRecord
from hf_cxr.processing import PixelProcessor, check_geometry, collate, load_processor
from hf_cxr.saved_models import check_multi_label, fingerprint, model_folder

if TYPE_CHECKING:  # prediction of files does without what these import
    import datasets

    from hf_cxr.predictions import Predictions

NOT_THE_MODEL = {"_name_or_path", "transformers_version"}  # keys of a config that change when the model does not


class Classifier:
    """A saved model with the preprocessing that was saved with it.

    Several threads may share one. On a CUDA device they run the model in turns, and code of the same process that is
    not of this class must not run convolutions meanwhile if it counts on TF32 (see `devices.full_float32`).

    Args:
        model: run folder or Hub id.
        revision: branch, tag or commit of a Hub id.
        device: by default the process's own (Accelerate's).
        attention: see `models.attention.use_attention`.
        bf16: the model computes in bfloat16 (autocast); logits and everything after them are float32.
        views: test-time augmentation: the logits are the mean over these views, calibrated if the views bring a
            calibration. The operating points are then theirs, and not those of the model's record.
        input_check: read the model's input check, if it has one (see `inference.input_check`).

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
        bf16: bool = False,
        views: AveragedViews | None = None,
        input_check: bool = True,
    ):
        if views is not None and views.model_sha256 is not None:
            views.check_model(fingerprint(model_folder(model, revision)), f"{model}")
        self.views, self.bf16 = views, bf16
        self.device = torch.device(device or PartialState().device)
        self.model = load_weights(model, revision)
        check_multi_label(self.model.config.problem_type, model)
        self.model.to(self.device).eval()
        use_attention(self.model, attention, device=self.device.type, bf16=bf16)
        processor = load_processor(model, revision)
        check_geometry(processor)
        self.pixels = PixelProcessor(processor).to(self.device)
        self.input_check = self._input_check(model, revision) if input_check else None

    def _input_check(self, model: str | Path, revision: str) -> InputCheck | None:
        check = InputCheck.load(model_folder(model, revision))
        if check is not None:
            check.check_model(features_sha256(self.model, self.pixels), model)
        return check

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
        return record and record.conformal and ConformalSets.from_dict(record.conformal, self.label_names)

    def predict(self, image: AnyImage, *, name: str | None = None) -> ImageResult:
        """Everything that the model says of one image.

        Args:
            image: a path, the bytes of a file, a PIL image, an array (H, W) uint8 or uint16 or (H, W, 3) uint8, or a
                pydicom Dataset; see `inference.sources`.
            name: what to call it; by default the path, or "an image in memory".

        Raises:
            ImageError: it cannot be read.
        """
        names = None if name is None else [name]
        answer = next(self.predict_images([image], names=names, batch_size=1, workers=0))
        if isinstance(answer, ImageError):
            raise answer
        return answer

    def predict_images(
        self,
        images: Iterable[AnyImage],
        *,
        names: Iterable[str] | None = None,
        batch_size: int = 16,
        workers: int | None = None,
    ) -> Iterator[ImageResult | ImageError]:
        """What the model says of each image, in order; an image that cannot be read gives its error.

        Whatever goes wrong with one image, the rest are predicted. A batch that does not fit into the device's memory
        is tried image by image. Reading does not change the numbers: they are the same with any ``workers``.

        Args:
            images: as for `predict`; of a generator, a few batches are taken ahead.
            names: what to call each of them.
            batch_size: images that the model gets at once.
            workers: threads that read and decode while the model works; by default one for each core, at most 16,
                shared by the processes of a launch; 0 for none.

        Raises:
            RuntimeError: the model cannot run on any image of a batch, so the images are not the cause.
        """
        named = zip(images, itertools.repeat(None), strict=False) if names is None else zip(images, names, strict=True)
        called = ((image, name or name_of(image)) for image, name in named)
        for _, answer in self._predicted(called, batch_size, workers):
            yield answer

    def predict_files(
        self, paths: Sequence[Path], *, batch_size: int = 16, workers: int | None = None
    ) -> Iterator[tuple[Path, np.ndarray | ImageError]]:
        """(path, probabilities (C,) float32) of each image file, in order; an unreadable file comes with its error.

        See `predict_images`, which gives calls and label sets as well.
        """
        for path, _, answer in self.predict_versions(paths, batch_size=batch_size, workers=workers):
            yield path, answer if isinstance(answer, ImageError) else answer.probability_C

    def predict_versions(
        self, paths: Sequence[Path], *, batch_size: int = 16, workers: int | None = None
    ) -> Iterator[tuple[Path, Version, ImageResult | ImageError]]:
        """Each image file with its size and time of change from before it was read, and what the model says of it."""
        named = ((path, os.fspath(path)) for path in paths)
        for path, (read, answer) in zip(paths, self._predicted(named, batch_size, workers), strict=True):
            yield path, read.version, answer

    def logits(self, pixel_B1SS: torch.Tensor) -> np.ndarray:
        """Logits (B, C) float32 of resized grey images (B, 1, S, S) uint8; of averaged views, if there are any."""
        return self.outputs(pixel_B1SS)[0]

    @torch.inference_mode()
    def outputs(self, pixel_B1SS: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
        """Logits (B, C) and the features (B, D) that the head got, both float32, of one forward pass.

        Args:
            pixel_B1SS: resized grey images, uint8. With averaged views, the logits are their mean, and the features
                are those of the first view, which is the image as it is.
        """
        pixel_B1SS = pixel_B1SS.to(self.device)
        if self.views is None:
            return self._outputs(self.pixels(pixel_B1SS))
        outputs = [
            self._outputs(self.pixels.view(pixel_B1SS, flip=view.flip, scale=view.scale)) for view in self.views.views
        ]
        return self.views.average([logit_BC for logit_BC, _ in outputs]), outputs[0][1]

    def _outputs(self, value_B3DD: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
        precision = torch.autocast(self.device.type, torch.bfloat16) if self.bf16 else nullcontext()
        with full_float32() if self.device.type == "cuda" else nullcontext(), precision:
            logit_BC, feature_BD = logits_and_features(self.model, value_B3DD)
        return logit_BC.float().cpu().numpy(), feature_BD.float().cpu().numpy()

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

    def fingerprint(self) -> str:
        """SHA-256 of everything that a prediction depends on besides the image: weights, names, preprocessing."""
        digest = hashlib.sha256()
        pixels = self.pixels
        rules = [RULE, pixels.resize_size, pixels.image_size, int(pixels.resample), list(self.label_names)]
        rules += [] if self.views is None else [self.views.to_dict()]
        rules += ["bf16"] if self.bf16 else []
        rules += [] if self.input_check is None else [self.input_check.threshold]
        config = {key: value for key, value in self.model.config.to_dict().items() if key not in NOT_THE_MODEL}
        digest.update(json.dumps([*rules, config], sort_keys=True, default=str).encode())
        for module in (self.model, pixels):
            for name, tensor in sorted(module.state_dict().items()):
                content = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
                digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
                digest.update(content.numpy())
        return digest.hexdigest()

    def _predicted(
        self, images: Iterable[tuple[AnyImage, str]], batch_size: int, workers: int | None
    ) -> Iterator[tuple[ReadImage, ImageResult | ImageError]]:
        """Each image as it was read, and what the model says of it."""
        size, resample = self.pixels.resize_size, self.pixels.resample
        read = read_ahead(images, size=size, resample=resample, batch_size=batch_size, workers=workers)
        rules = self.calls, self.label_sets
        with closing(read):
            while batch := list(itertools.islice(read, batch_size)):
                sound = [entry for entry in batch if not isinstance(entry.pixel_SS, ImageError)]
                answers = iter(self._results(sound, *rules) if sound else ())
                for entry in batch:
                    yield entry, entry.pixel_SS if isinstance(entry.pixel_SS, ImageError) else next(answers)

    def _results(
        self, images: Sequence[ReadImage], calls: Calls, sets: ConformalSets | None
    ) -> list[ImageResult | ImageError]:
        """What the model says of images that could be read, or why it says nothing."""
        pixel_BSS = np.stack([image.pixel_SS for image in images])
        try:
            logit_BC, feature_BD = self.outputs(torch.from_numpy(pixel_BSS[:, None]))
        except (RuntimeError, MemoryError):
            if len(images) == 1:
                raise
            # All images have the same size here, so the device's memory is the reason: one at a time needs less.
            return self._one_by_one(images, calls, sets)
        probability_BC = torch.sigmoid(torch.from_numpy(logit_BC)).numpy()
        check = self.input_check
        checks = [None] * len(images) if check is None else check.of(pixel_BSS, feature_BD)
        damaged = "the model's output is not a number; is the model damaged?"
        return [
            ImageResult.of(image.name, probability_C, calls, sets, checked, image.remarks)
            if np.isfinite(probability_C).all()
            else ImageError(image.name, damaged)
            for image, probability_C, checked in zip(images, probability_BC, checks, strict=True)
        ]

    def _one_by_one(
        self, images: Sequence[ReadImage], calls: Calls, sets: ConformalSets | None
    ) -> list[ImageResult | ImageError]:
        answers, failures = [], []
        for image in images:
            try:
                answers += self._results([image], calls, sets)
            except (RuntimeError, MemoryError) as error:
                failures.append(error)
                answers.append(ImageError(image.name, f"the model failed on it: {' '.join(str(error).split())}"))
        if len(failures) == len(images):
            raise failures[-1]
        return answers
