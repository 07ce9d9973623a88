"""onnx and onnxruntime: whether they are there, and sessions that take as many threads as torch does.

B = images in a batch, C = findings.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from hf_cxr.extras import need

if TYPE_CHECKING:
    import onnxruntime

BATCHES = (1, 2, 7, 3, 16)
"""Sizes of the batches that a file is tried with, in turn: the batch is dynamic, and odd ones are where it shows."""


def check_installed() -> None:
    """Refuse to begin without the packages that write and run ONNX.

    Raises:
        MissingExtraError: see `extras.need`.
    """
    need("--onnx", "onnx", "onnx", "onnxscript", "onnxruntime")


def session(model: bytes | Path) -> "onnxruntime.InferenceSession":
    """A model on the CPU, with torch's number of threads."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.inter_op_num_threads = 1
    options.log_severity_level = 3  # errors; its warnings are about its own optimisations
    content = model if isinstance(model, bytes) else str(model)
    return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])


def run(session: "onnxruntime.InferenceSession", values: np.ndarray) -> Mapping[str, np.ndarray]:
    """Every output of a model with one input, by name."""
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, {session.get_inputs()[0].name: values}), strict=True))


def batches(images: int) -> Iterator[slice]:
    """Rows 0 to ``images`` in batches of `BATCHES`, in turn; the last may be smaller.

    >>> [(part.start, part.stop) for part in batches(12)]
    [(0, 1), (1, 3), (3, 10), (10, 12)]
    """
    start, number = 0, 0
    while start < images:
        stop = min(start + BATCHES[number % len(BATCHES)], images)
        yield slice(start, stop)
        start, number = stop, number + 1
