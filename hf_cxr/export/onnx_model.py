"""A classifier as ONNX: `pixel_values` (B, 3, D, D) float32 in, `logits` (B, C) float32 out, any B.

The calibration is in the head's weights, so the sigmoid of a logit is the calibrated probability. torch's exporter
writes into each node the lines of source code that it came from, with their paths: `strip` removes them, and
`check_clean` searches all text of the file for a path or an access token that is left.

Refused: a model of timm, a model of more than 2 GB (one file of ONNX cannot be larger), and one that torch's exporter
cannot trace.

B = images in a batch, C = findings, D = side in pixels.
"""

import contextlib
import io
import json
import logging
import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from PIL import Image
from torch import nn
from transformers import PreTrainedModel

from hf_cxr.hub.leaks import check_no_local_path, check_no_token
from hf_cxr.hub.onnx_text import onnx_text
from hf_cxr.models.attention import use_attention
from hf_cxr.models.timm_models import is_timm
from hf_cxr.processing import Preprocessing
from hf_cxr.words import NOTICE, error_words

if TYPE_CHECKING:
    import onnx

OPSET = 18
"""The version of ONNX's operators: torch's own exporter writes it, and `Resize` has antialias since then."""

INPUT, OUTPUT = "pixel_values", "logits"  # as transformers.js and optimum call them
MOST_BYTES = 2 * 10**9  # protobuf's limit is 2 GiB


@dataclass(frozen=True)
class ExportMetadata:
    """What a file says of itself, in its metadata.

    Attributes:
        label_names: C findings, in the order of the outputs.
        threshold_C: of each finding, at its operating point; NaN where it has none.
        steps: the preprocessing.
        facts: further keys with text or JSON values, such as the model's checksum.
    """

    label_names: Sequence[str]
    threshold_C: Sequence[float]
    steps: Preprocessing
    facts: Mapping[str, Any]

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        steps = self.steps
        pairs = zip(self.label_names, self.threshold_C, strict=True)
        return {
            "label_names": list(self.label_names),
            "thresholds": {name: None if math.isnan(value) else float(value) for name, value in pairs},
            "resize_size": steps.resize_size,
            "image_size": steps.image_size,
            "resample": Image.Resampling(steps.resample).name.lower(),
            "rescale_factor": steps.rescale_factor,
            "mean": list(steps.mean),
            "std": list(steps.std),
            "warning": NOTICE,
            **self.facts,
        }

    def metadata(self) -> dict[str, str]:
        """Text for each key: ONNX's metadata are strings. What is not text is JSON."""
        return {key: value if isinstance(value, str) else json.dumps(value) for key, value in self.to_dict().items()}


class Logits(nn.Module):
    """A classifier whose output is the matrix of logits alone."""

    def __init__(self, model: PreTrainedModel):
        super().__init__()
        self.model = model

    def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """(B, 3, D, D) to (B, C)."""
        return self.model(pixel_values=pixel_values).logits


def check_exportable(model: PreTrainedModel, name: str) -> None:
    """Refuse at the start what cannot be exported.

    Raises:
        ValueError: see the module's first lines.
    """
    if is_timm(model):
        raise ValueError(f"{name} is a model of timm, and these are not exported; timm has its own onnx_export.py")
    size = sum(tensor.numel() * tensor.element_size() for tensor in model.state_dict().values())
    if size > MOST_BYTES:
        raise ValueError(
            f"{name} has {size / 1e9:.1f} GB of weights, and one file of ONNX has at most 2 GB; export a smaller model"
        )


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Silence torch's exporters: what they log and warn of is operators of torchvision, and their own deprecations."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()), torch.no_grad():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def traceable(model: PreTrainedModel) -> Logits:
    """The module that an exporter traces: stock code and eager attention. The model is changed; load one for this."""
    use_attention(model, "eager")
    return Logits(model).eval()


def example_input(image_size: int) -> torch.Tensor:
    """(2, 3, D, D): one image would be taken for a batch that is always one."""
    return torch.randn(2, 3, image_size, image_size, generator=torch.Generator().manual_seed(0))


def onnx_of(module: Logits, about: ExportMetadata, name: str) -> "onnx.ModelProto":
    """The model as ONNX, stripped, with its metadata.

    Args:
        module: from `traceable`, on the CPU, in float32.
        about: what the file says of itself.
        name: of the model, for a message.

    Raises:
        ValueError: torch's exporter cannot trace it.
    """
    with quiet():
        try:
            program = torch.onnx.export(
                module,
                (example_input(about.steps.image_size),),
                dynamo=True,
                input_names=[INPUT],
                output_names=[OUTPUT],
                dynamic_shapes={INPUT: {0: torch.export.Dim("batch")}},
                opset_version=OPSET,
                verbose=False,
            )
        except MemoryError:
            raise
        except Exception as error:  # torch's exporter wraps whatever a model or an operator raises
            raise ValueError(f"{name} cannot be exported to ONNX: {error_words(_cause(error))}") from error
    proto = program.model_proto
    strip(proto)
    describe(proto, about)
    return proto


def strip(proto: "onnx.ModelProto") -> None:
    """Remove whatever says where and by which lines a model was made: documentation and metadata, at every depth."""
    for message in _messages(proto):
        for field in ("doc_string", "metadata_props"):
            if field in message.DESCRIPTOR.fields_by_name:
                message.ClearField(field)


def describe(proto: "onnx.ModelProto", about: ExportMetadata) -> None:
    """Give a file its metadata, in place of any other."""
    import onnx

    proto.ClearField("metadata_props")
    onnx.helper.set_model_props(proto, about.metadata())


def check_clean(proto: "onnx.ModelProto", name: str) -> None:
    """Refuse a file with a local path or an access token in any text of it.

    Raises:
        ValueError: with the text.
    """
    text = onnx_text(proto)
    check_no_local_path(Path(name), {"onnx": text.paths})
    check_no_token(Path(name), {}, {"onnx": [piece for _, piece in text.all]}, None)


def _messages(proto: Any) -> Iterator[Any]:
    yield proto
    for field, value in proto.ListFields():
        if field.type == field.TYPE_MESSAGE:
            for entry in value if field.is_repeated else (value,):
                yield from _messages(entry)


def _cause(error: BaseException) -> BaseException:
    while error.__cause__ is not None:
        error = error.__cause__
    return error
