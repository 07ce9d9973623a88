"""What a model said of image files, a line of JSON for each: how `hf-cxr predict` keeps it until all are done.

A line has the absolute path, bytes and modification time in ns; then the probabilities as float32 in hexadecimal, and
what the input check found, if the model has one; or null, and the name and the reason of the error. Thresholds and
label sets are the model's, which the first line of a file names by its fingerprint.

C = findings.
"""

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from hf_cxr.data.images.grey import ImageError
from hf_cxr.inference.results import ImageResult, InputCheckResult

if TYPE_CHECKING:  # the command checks its output's place before scipy is loaded
    from hf_cxr.evaluation.conformal import ConformalSets
    from hf_cxr.inference.calls import Calls

FORMAT = 2
Version = tuple[int, int]
"""Bytes and modification time in ns of a file."""
Answer = tuple[Path, Version, ImageResult | ImageError]
"""A file, its version when it was read, and what the model says of it or why it says nothing."""


class AnswerLines:
    """Lines of one model's answers, and answers from lines.

    Args:
        calls: of the model.
        label_sets: of the model; None without.
        model: its fingerprint.
    """

    def __init__(self, calls: "Calls", label_sets: "ConformalSets | None", model: str):
        self.calls, self.label_sets, self.model = calls, label_sets, model

    def header(self, key: str) -> dict[str, Any]:
        """The first line of a file of them; ``key`` says which kind of file it is."""
        return {key: FORMAT, "model": self.model, "findings": list(self.calls.label_names)}

    @staticmethod
    def line(path: Path, version: Version, answer: ImageResult | ImageError) -> str:
        """An answer as a line, without its end."""
        if isinstance(answer, ImageError):
            values: tuple[Any, ...] = (None, answer.name, answer.reason)
        else:
            check = answer.input_check
            checked = () if check is None else ([check.score, check.threshold, *check.reasons],)
            values = (answer.probability_C.astype("<f4").tobytes().hex(), *checked)
        return json.dumps([os.path.abspath(path), *version, *values])

    def answer(self, line: bytes) -> Answer | None:
        """The answer of a line; None if the line is cut off or damaged."""
        try:
            name, size, changed, values, *rest = json.loads(line)
            path, version = Path(name), (int(size), int(changed))
            if not line.endswith(b"\n"):
                return None
            if values is None:
                return path, version, ImageError(*rest)
            probability_C = np.frombuffer(bytes.fromhex(values), "<f4").astype(np.float32)
            if probability_C.shape != (len(self.calls.label_names),):
                return None
            check = InputCheckResult(rest[0][0], rest[0][1], tuple(rest[0][2:])) if rest else None
        except (ValueError, TypeError, LookupError):
            return None
        return path, version, ImageResult.of(name, probability_C, self.calls, self.label_sets, check)
