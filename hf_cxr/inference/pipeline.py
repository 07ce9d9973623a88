"""What transformers' own `pipeline("image-classification")` says of a saved model, and the images that it can read."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from hf_cxr.saved_models import check_weights, model_folder
from hf_cxr.systems import register

if TYPE_CHECKING:  # the pipeline does without what it imports
    import datasets


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
