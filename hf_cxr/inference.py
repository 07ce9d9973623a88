"""A saved model to predictions: over a whole split for evaluation, or over image files for a reader.

Everything is computed in float32 from the saved folder (or Hub id), so that what is measured is what a user loads.

B = images in a batch, C = findings.
"""

import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import torch
from accelerate import PartialState
from accelerate.utils import gather_object
from PIL import Image
from torch.utils.data import DataLoader, Dataset, Subset
from tqdm.auto import tqdm
from transformers import pipeline

from hf_cxr.checkpoints import check_weights, model_folder
from hf_cxr.data import DecodedImages, StreamedImages, is_streamed, label_matrix
from hf_cxr.data.decoded import grey_of
from hf_cxr.data.images import ImageError, read_grey, resize_grey
from hf_cxr.modeling import load_weights
from hf_cxr.predictions import Predictions
from hf_cxr.processing import PixelProcessor, check_geometry, collate, load_processor

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".dcm", ".dicom")


class Classifier:
    """A saved model with the preprocessing that was saved with it.

    Args:
        model: run folder or Hub id.
        revision: branch, tag or commit of a Hub id.
        device: by default the process's own (Accelerate's).

    Raises:
        FileNotFoundError: a path was given and there is no such folder.
        ValueError: the model is not a Swin, lacks weights, has no multi-label head, or has a preprocessing that this
            package cannot match.
    """

    def __init__(self, model: str | Path, *, revision: str = "main", device: torch.device | str | None = None):
        self.device = torch.device(device or PartialState().device)
        self.model = load_weights(model, revision)
        if self.model.config.problem_type != "multi_label_classification":
            raise ValueError(f"{model} was not trained as a multi-label classifier (problem_type in its config.json)")
        self.model.to(self.device).eval()
        processor = load_processor(model, revision)
        check_geometry(processor)
        self.pixels = PixelProcessor(processor).to(self.device)

    @property
    def label_names(self) -> tuple[str, ...]:
        """C finding names in the order of the outputs."""
        return tuple(self.model.config.id2label[i] for i in range(self.model.config.num_labels))

    @torch.inference_mode()
    def logits(self, pixel_B1SS: torch.Tensor) -> np.ndarray:
        """Logits (B, C) float32 of resized grey images (B, 1, S, S) uint8."""
        pixel_values = self.pixels(pixel_B1SS.to(self.device))
        # cuDNN's convolutions round float32 to 10 bits unless told not to.
        with torch.backends.cudnn.flags(enabled=torch.backends.cudnn.enabled, allow_tf32=False):
            return self.model(pixel_values=pixel_values).logits.cpu().numpy()

    def predict_split(
        self, split: datasets.Dataset, name: str, *, batch_size: int = 64, workers: int = 0
    ) -> Predictions:
        """Logits of every image of a split, in its order. Several processes share the work; each gets the whole.

        Args:
            split: of the schema, with images.
            name: "validation" or "test"; kept with the predictions.
            batch_size: images a process and batch.
            workers: decoding processes beside each process.
        """
        state = PartialState()
        rows = self._rows_of(split, batch_size, state)
        loader = DataLoader(rows, batch_size=batch_size, collate_fn=collate, num_workers=workers)
        bar = tqdm(loader, desc=f"Predicting {name}", unit="batch", disable=not state.is_main_process)
        parts = [(batch["row"], self.logits(batch["pixel_values"])) for batch in bar]
        row_M, logit_MC = map(
            np.concatenate, zip(*(gather_object(parts) if state.num_processes > 1 else parts), strict=True)
        )
        logits = np.full((len(split), logit_MC.shape[1]), np.nan, logit_MC.dtype)  # Predictions refuses a row left NaN
        logits[row_M[row_M >= 0]] = logit_MC[row_M >= 0]  # dataloader workers hand a stream's rows out in turn
        return Predictions(
            logits=logits,
            labels=label_matrix(split),
            image_ids=split["image_id"][:],
            patient_ids=split["patient_id"][:],
            label_names=self.label_names,
            view=split["view"][:],
            age=split["age"][:],
            sex=split["sex"][:],
            split=name,
            metadata={
                "split": (getattr(self.model.config, "hf_cxr", None) or {}).get("split"),
                "calibrated": "calibration" in (getattr(self.model.config, "hf_cxr", None) or {}),
            },
        )

    def _rows_of(self, split: datasets.Dataset, batch_size: int, state: PartialState) -> Dataset:
        """This process's share of a split, as pixels."""
        size, resample = self.pixels.resize_size, self.pixels.resample
        if is_streamed(split):
            share = {"processes": state.num_processes, "process": state.process_index}
            return StreamedImages(split, size, resample, batch_size=batch_size, **share)
        rows = DecodedImages(split, size, resample)
        return Subset(rows, np.array_split(np.arange(len(rows)), state.num_processes)[state.process_index].tolist())

    def predict_files(
        self, paths: Sequence[Path], *, batch_size: int = 16
    ) -> Iterator[tuple[Path, np.ndarray | ImageError]]:
        """(path, probabilities (C,) float32) of each image file, in order; an unreadable file comes with its error."""
        for start in range(0, len(paths), batch_size):
            batch = paths[start : start + batch_size]
            answers: dict[Path, np.ndarray | ImageError] = {}
            pixels = {}
            for path in batch:
                try:
                    pixels[path] = resize_grey(read_grey(path), self.pixels.resize_size, self.pixels.resample)
                except ImageError as error:
                    answers[path] = error
            if pixels:
                logit_BC = torch.from_numpy(self.logits(torch.from_numpy(np.stack(list(pixels.values()))[:, None])))
                answers |= zip(pixels, torch.sigmoid(logit_BC).numpy(), strict=True)
                finite_B = logit_BC.isfinite().all(dim=1).tolist()
                for path in (path for path, finite in zip(pixels, finite_B, strict=True) if not finite):
                    answers[path] = ImageError(f"{path}: the model's output is not a number; use another model")
            yield from ((path, answers[path]) for path in batch)


def stock_pipeline(model: str | Path, images: Sequence[Any]) -> list[dict[str, float]]:
    """What transformers' own `pipeline("image-classification")` says of images: finding to score, highest first.

    No code of this package takes part. A run compares it with its own evaluation.

    Args:
        model: run folder or Hub id.
        images: what the pipeline takes: paths or PIL images.
    """
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


def stock_images(split: datasets.Dataset, rows: Sequence[int]) -> list[Image.Image]:
    """Images of a split as the stock pipeline can take them: as stored, wherever it would see the evaluated greys.

    It turns 16-bit files white and knows no DICOM; of these it gets the evaluated 8-bit grey.

    Raises:
        ImageError: one can't be decoded.
    """
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


def find_images(paths: Iterable[str | Path]) -> list[Path]:
    """Image files among the paths; folders are searched for `IMAGE_SUFFIXES`, in depth, in the order of names.

    Raises:
        FileNotFoundError: a path does not exist, or nothing was found.
        OSError: a folder may not be read; without a word its images would be lost.
    """
    found: list[Path] = []
    for path in map(Path, paths):
        if path.is_dir():
            # A link that leads nowhere is a file here, and is told of when it is read.
            files = (
                Path(folder, name) for folder, _, names in os.walk(path, onerror=_refuse_folder) for name in names
            )
            found += sorted(file for file in files if file.suffix.lower() in IMAGE_SUFFIXES and not file.is_dir())
        elif path.is_file():
            found.append(path)
        else:
            raise FileNotFoundError(f"no such image or folder: {path}")
    if not found:
        raise FileNotFoundError(f"no {', '.join(IMAGE_SUFFIXES)} file in {', '.join(map(str, paths))}")
    return found


def _refuse_folder(error: OSError) -> None:
    raise OSError(f"cannot read the folder {error.filename}: {error.strerror}; give the right to read, or move it out")
