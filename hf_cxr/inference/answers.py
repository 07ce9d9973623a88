"""What a model said of image files, a line of JSON for each: how `hf-cxr predict` keeps it until all are done.

A line has the absolute path, bytes and modification time in ns; then the probabilities as float32 in hexadecimal, what
the input check found (null for a model without one), the remarks on how the file was read, and why no picture or
report could be made of the image, if so; or null, the name and the reason of the error, and whether it has too many
pixels. Thresholds and label sets are the model's, which the first line of a file names by its fingerprint. That line
has the folders of pictures and reports, too: a file whose images have none is not continued by a command that asks for
them.

C = findings.
"""

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np

from hf_cxr.data.images.grey import ImageError, TooManyPixelsError
from hf_cxr.files import OutputError
from hf_cxr.inference.results import ImageResult, InputCheckResult

if TYPE_CHECKING:  # the command checks its output's place before scipy is loaded
    from hf_cxr.evaluation.conformal import ConformalSets
    from hf_cxr.inference.calls import Calls

FORMAT = 3
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
        extras: what else is written for each image: the name of the flag and the folder.
    """

    def __init__(
        self,
        calls: "Calls",
        label_sets: "ConformalSets | None",
        model: str,
        extras: Mapping[str, str | os.PathLike] | None = None,
    ):
        self.calls, self.label_sets, self.model = calls, label_sets, model
        self.extras = {name: os.path.abspath(folder) for name, folder in (extras or {}).items()}

    def header(self, key: str) -> dict[str, Any]:
        """The first line of a file of them; ``key`` says which kind of file it is."""
        extras = {"extras": self.extras} if self.extras else {}
        return {key: FORMAT, "model": self.model, "findings": list(self.calls.label_names), **extras}

    def check_header(self, line: bytes, key: str, place: Path) -> None:
        """Refuse a file whose first line is not ``header(key)``.

        Raises:
            OutputError: it is another kind of file, or of another version of this package, another model or other
                extras; with the repair.
        """
        try:
            found = json.loads(line)
            version = found[key]
        except (ValueError, TypeError, KeyError):
            refuse_foreign(place)
        expected = self.header(key)
        other = "remove the file to start again, or give another output file"
        if version != FORMAT:
            raise OutputError(f"{place} was written by another version of hf-cxr; finish with that version, {other}")
        extras = found.pop("extras", {})
        expected.pop("extras", None)
        if found != expected:
            raise OutputError(f"{place} contains rows of another model; finish with that model, {other}")
        if extras != self.extras:
            flags = " ".join(f"--{name} {folder}" for name, folder in extras.items())
            begun = f"with {flags}" if flags else "without pictures and reports"
            raise OutputError(f"{place} was begun {begun}; finish it like that, {other}")

    @staticmethod
    def line(path: Path, version: Version, answer: ImageResult | ImageError, failures: Sequence[str] = ()) -> str:
        """An answer as a line, without its end; ``failures`` say why a picture or a report could not be made."""
        if isinstance(answer, ImageError):
            values: tuple[Any, ...] = (None, answer.name, answer.reason, isinstance(answer, TooManyPixelsError))
        else:
            check = answer.input_check
            checked = None if check is None else [check.score, check.threshold, *check.reasons]
            values = (answer.probability_C.astype("<f4").tobytes().hex(), checked, answer.remarks, *failures)
        return json.dumps([os.path.abspath(path), *version, *values])

    def answer(self, line: bytes) -> Answer | None:
        """The answer of a line; None if the line is cut off or damaged."""
        try:
            name, size, changed, values, *rest = json.loads(line)
            path, version = Path(name), (int(size), int(changed))
            if not line.endswith(b"\n"):
                return None
            if values is None:
                *said, too_many_pixels = rest
                return path, version, (TooManyPixelsError if too_many_pixels else ImageError)(*said)
            probability_C = np.frombuffer(bytes.fromhex(values), "<f4").astype(np.float32)
            if probability_C.shape != (len(self.calls.label_names),):
                return None
            checked, remarks, *_ = rest
            check = None if checked is None else InputCheckResult(checked[0], checked[1], tuple(checked[2:]))
        except (ValueError, TypeError, LookupError):
            return None
        return path, version, ImageResult.of(name, probability_C, self.calls, self.label_sets, check, remarks)

    def failures(self, line: bytes) -> tuple[str, ...]:
        """Why pictures and reports of the image of a whole line could not be made; () where nothing failed."""
        _, _, _, values, *rest = json.loads(line)
        return () if values is None else tuple(rest[2:])


def refuse_foreign(place: Path) -> NoReturn:
    """Refuse a file that was not written by `AnswerLines`.

    Raises:
        OutputError: always.
    """
    raise OutputError(f"{place} is not a file of kept rows of hf-cxr predict; move it, or give another output file")
