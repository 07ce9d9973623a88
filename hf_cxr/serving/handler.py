"""The handler of a Hugging Face Inference Endpoint: `hf-cxr push RUN HUB_ID --handler` puts it into the repository.

The service makes one ``EndpointHandler(folder)`` and calls it with the body of each request:

    {"inputs": "<base64 of a file>"}                            JSON: PNG, JPEG, TIFF, DICOM, 8- or 16-bit
    {"inputs": ["...", "..."], "parameters": {...}}             several, up to `MOST_IMAGES`
    the bytes of a PNG or JPEG, with its content type           the service makes a PIL image of it

| parameter | value              | answer                                                                            |
|-----------|--------------------|-----------------------------------------------------------------------------------|
| output    | "result" (default) | `ImageResult.to_dict()`: probabilities, calls, label sets, the check of the input |
|           | "labels"           | [{"label": ..., "score": ...}, ...], highest first, as stock clients expect       |
| top_k     | a whole number     | with "labels": only so many; by default all                                       |

One image gives one answer, a list a list. The service opens image/* bodies as RGB before they come here, which turns
16-bit pixels white: send such files, and DICOM, as base64 in JSON. For that the endpoint's task must be "Custom".

A request that cannot be answered raises a ValueError of one line, which the service returns with status 400 as
{"error": ...}. Refused: a body without an image, strings that are not base64 (paths and addresses are never opened),
files that are not images, more than `MOST_BYTES` or `MOST_IMAGES`, unknown parameters. Nothing is written to disk.

Not a medical device. For research.
"""

import base64
import binascii
from collections.abc import Mapping
from typing import Any

from PIL import Image

from hf_cxr.data.images.grey import ImageError
from hf_cxr.inference.classifier import Classifier
from hf_cxr.inference.results import ImageResult

MOST_BYTES = 64 * 2**20  # of one decoded file
MOST_IMAGES = 32  # in one request
OUTPUTS = ("result", "labels")


class EndpointHandler:
    """One model, ready to answer.

    Args:
        path: folder of the pushed model.

    Raises:
        FileNotFoundError, ValueError: as `Classifier`.
    """

    def __init__(self, path: str = ""):
        self.classifier = Classifier(path or ".")

    def __call__(self, data: Mapping[str, Any]) -> Any:
        """The answer to one request; see the top of this module.

        Args:
            data: the request's body, as the service has decoded it.

        Raises:
            ValueError: one line that the service sends back with status 400.
        """
        images, several = _images(data)
        output, top_k = _parameters(data.get("parameters"))
        names = [f"image {number}" if several else "the image" for number in range(1, len(images) + 1)]
        answers = list(self.classifier.predict_images(images, names=names))
        failed = next((answer for answer in answers if isinstance(answer, ImageError)), None)
        if failed is not None:
            raise ValueError(str(failed))
        shown = [_labels(answer, top_k) if output == "labels" else answer.to_dict() for answer in answers]
        return shown if several else shown[0]


def _images(data: Any) -> tuple[list[bytes | Image.Image], bool]:
    """The images of a request, and whether they came as a list."""
    if not isinstance(data, Mapping) or "inputs" not in data:
        raise ValueError('the body needs "inputs": base64 of an image or a DICOM file, or a list of these')
    inputs = data["inputs"]
    several = isinstance(inputs, list | tuple)
    entries = list(inputs) if several else [inputs]
    if not entries:
        raise ValueError('"inputs" is an empty list; give at least one image')
    if len(entries) > MOST_IMAGES:
        raise ValueError(f'"inputs" has {len(entries)} images; give at most {MOST_IMAGES} in one request')
    names = [f'"inputs"[{number}]' if several else '"inputs"' for number in range(len(entries))]
    return [_image(entry, name) for entry, name in zip(entries, names, strict=True)], several


def _image(entry: Any, name: str) -> bytes | Image.Image:
    if isinstance(entry, Image.Image):
        return entry
    if isinstance(entry, str):
        if len(entry) > MOST_BYTES * 4 // 3 + 64:  # base64 has four letters for three bytes
            raise _too_large(name)
        try:
            entry = base64.b64decode(entry.split(",", 1)[1] if entry.startswith("data:") else entry, validate=True)
        except (binascii.Error, ValueError, IndexError) as error:
            raise ValueError(
                f"{name} is not base64: send the content of the image or DICOM file, not a path or an address"
            ) from error
    if not isinstance(entry, bytes | bytearray):
        raise ValueError(f"{name} is of type {type(entry).__name__}; it must be base64 of an image or a DICOM file")
    if len(entry) > MOST_BYTES:
        raise _too_large(name)
    if not entry:
        raise ValueError(f"{name} is empty")
    return bytes(entry)


def _too_large(name: str) -> ValueError:
    return ValueError(f"{name} is larger than {MOST_BYTES // 2**20} MiB")


def _parameters(given: Any) -> tuple[str, int | None]:
    values = dict(given) if isinstance(given, Mapping) else {} if given is None else None
    if values is None:
        raise ValueError('"parameters" must be an object such as {"output": "labels", "top_k": 5}')
    output, top_k = values.pop("output", OUTPUTS[0]), values.pop("top_k", None)
    if values:
        raise ValueError(f"unknown parameter {next(iter(values))!r:.80}; known: output, top_k")
    if output not in OUTPUTS:
        raise ValueError(f"output is {output!r:.80}; it must be {' or '.join(OUTPUTS)}")
    if top_k is not None and (output != "labels" or isinstance(top_k, bool) or not isinstance(top_k, int)):
        raise ValueError('top_k must be a whole number, and goes with "output": "labels"')
    if top_k is not None and top_k < 1:
        raise ValueError("top_k must be at least 1")
    return output, top_k


def _labels(result: ImageResult, top_k: int | None) -> list[dict[str, Any]]:
    rows = [{"label": name, "score": score} for name, score in result.probabilities.items()]
    return sorted(rows, key=lambda row: row["score"], reverse=True)[:top_k]
