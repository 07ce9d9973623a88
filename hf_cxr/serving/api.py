"""The inference worker of `hf-cxr serve`: requests to results, a batch at a time.

A worker is a separate process with a copy of the model. LitServe hands it batches of requests; the model sees all
their images at once. What is wrong with one request is that request's answer, with a status of 4xx.

B = requests in a batch.
"""

import base64
import binascii
import logging
import signal
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import litserve
from PIL import Image
from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import JSONResponse

from hf_cxr.data.images.grey import ImageError, TooManyPixelsError
from hf_cxr.inference.results import ImageResult
from hf_cxr.words import NOTICE

logger = logging.getLogger(__name__)

BATCH_HEADER = "x-hf-cxr-batch"  # images that were predicted together with this one, itself among them
UNUSUAL_HEADER = "x-hf-cxr-unusual"  # of an image that is unlike those of training
UNREADABLE = 422
NO_NAME, LONGEST_NAME = "image", 200
PIXELS_REPAIR = "if the file is sound, ask who runs the service for a larger --max_pixels"
Outcome = tuple[ImageResult | ImageError, int]
"""A result, or why there is none; and how many images were predicted together."""


class ImageRequest(BaseModel):
    """One image, as JSON."""

    model_config = ConfigDict(
        extra="forbid", json_schema_extra={"examples": [{"image": "iVBORw0KGgoAAAANSUhEUg...", "name": "chest.png"}]}
    )

    image: Annotated[str, Field(min_length=1, description="The bytes of an image or DICOM file, in base64.")]
    name: Annotated[str, Field(max_length=LONGEST_NAME, description="Comes back with the answer.")] = NO_NAME


@dataclass(frozen=True)
class Upload:
    """One image, as the bytes of its file."""

    content: bytes
    name: str


class PredictAPI(litserve.LitAPI):
    """What LitServe runs in each worker.

    Args:
        folder: of the model.
        max_pixels: the largest image that is decoded, width times height.
        described: of the model, in every answer: name, fingerprint, whether it is of synthetic images.
        max_batch_size: images that the model sees at once.
        batch_timeout: seconds that the first image of a batch waits for others.
    """

    def __init__(
        self,
        folder: Path,
        max_pixels: int,
        described: Mapping[str, Any],
        *,
        max_batch_size: int,
        batch_timeout: float,
    ):
        super().__init__(max_batch_size=max_batch_size, batch_timeout=batch_timeout, api_path="/predict")
        self.folder, self.max_pixels, self.described = folder, max_pixels, described

    def setup(self, device: str) -> None:
        """Load the model, and run it once, so that the first request does not wait for that."""
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches every process: the first one ends this one

        import numpy as np
        import torch
        from transformers.utils.logging import disable_progress_bar

        from hf_cxr.inference.classifier import Classifier
        from hf_cxr.saved_models import fingerprint

        Image.MAX_IMAGE_PIXELS = self.max_pixels
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # of images that are refused
        disable_progress_bar()  # of reading the weights
        if fingerprint(self.folder) != self.described["sha256"]:  # a worker may be started again much later
            raise ValueError(f"the model in {self.folder} changed since the service started; restart the service")
        self.classifier = Classifier(self.folder, device=torch.device(device))
        self.classifier.predict(np.zeros((64, 64), np.uint8))

    def decode_request(self, request: ImageRequest) -> Upload | ImageError:
        """The bytes of the file, or why there are none."""
        if isinstance(request, Upload):
            return request
        try:
            return Upload(base64.b64decode(request.image, validate=True), request.name)
        except (binascii.Error, ValueError):
            return ImageError(request.name, "the field image is not base64")

    def batch(self, inputs: list[Upload | ImageError]) -> list[Upload | ImageError]:
        """As they are: images of different sizes are stacked only after they were resized."""
        return list(inputs)

    def predict(self, inputs: Any) -> list[Outcome]:
        """The result of each request, and how many images were predicted together."""
        requests = inputs if isinstance(inputs, list) else [inputs]  # without batches LitServe hands over one
        uploads = [request for request in requests if isinstance(request, Upload)]
        answers = self.classifier.predict_images(
            (upload.content for upload in uploads),
            names=[upload.name for upload in uploads],
            batch_size=max(1, len(uploads)),
        )
        found = [next(answers) if isinstance(request, Upload) else request for request in requests]
        together = [(one, len(uploads)) for one in found]
        return together if isinstance(inputs, list) else together[0]

    def unbatch(self, output: list[Outcome]) -> list[Outcome]:
        """One entry for each request."""
        return output

    def encode_response(self, output: Outcome) -> JSONResponse:
        """200 with the result, or 422 with the reason."""
        answer, together = output
        if isinstance(answer, ImageError):
            too_large = isinstance(answer, TooManyPixelsError)
            detail = f"cannot read {answer.name}: {answer.reason_with(PIXELS_REPAIR)}" if too_large else str(answer)
            return JSONResponse({"detail": detail, "image": answer.name}, status_code=UNREADABLE)
        headers = {BATCH_HEADER: f"{together}"}
        if answer.unusual:
            headers[UNUSUAL_HEADER] = "1"
        return JSONResponse({**answer.to_dict(), "model": self.described, "notice": NOTICE}, headers=headers)
