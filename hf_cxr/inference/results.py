"""What a model says of one image: `ImageResult`, which `predict`, the service, the demo and the endpoint all show.

    result = Classifier("runs/quickstart").predict("chest.png")
    result.probabilities["Effusion"]          # calibrated, if the model is
    [finding.name for finding in result.findings if finding.called]

C = findings.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from hf_cxr.evaluation.conformal import ConformalSets
    from hf_cxr.inference.calls import Calls

PRESENT, ABSENT = "present", "absent"
UNUSUAL_FOR = {
    (PRESENT,): "higher than usual without it",
    (ABSENT,): "lower than usual with it",
    (PRESENT, ABSENT): "usual with it and without it",
    (): "unusual with it and without it",
}
"""A label set in words for a reader, about the probability."""
NOT_RULED_OUT = {
    (PRESENT,): "present",
    (ABSENT,): "absent",
    (PRESENT, ABSENT): "both",
    (): "none",
}
"""A label set in a word, to be read after "not ruled out:". It is not a diagnosis: most images whose set is {present}
may be without a rare finding, because "absent" is ruled out where the probability is higher than usual without it."""


def reaches(probability_C: NDArray[np.float32], threshold_C: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Which findings are called, (C,): the probability is at least the threshold; False where that is NaN.

    >>> reaches(np.float32([0.5, 0.4, 0.9]), np.array([0.5, 0.5, np.nan])).tolist()
    [True, False, False]
    """
    return probability_C >= threshold_C  # float32 with float64: compared in float64


@dataclass(frozen=True)
class InputCheckResult:
    """Whether an image looks like those that the model was trained on.

    Attributes:
        score: how far it is from them; the higher, the less alike.
        threshold: the score from which an image is reported.
        reasons: what is unusual, each in plain words; empty for an image that looks as it should.
    """

    score: float
    threshold: float
    reasons: tuple[str, ...] = ()

    @property
    def unusual(self) -> bool:
        """Whether there is anything to report."""
        return bool(self.reasons)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            "unusual": self.unusual,
            "reasons": list(self.reasons),
            "score": self.score,
            "threshold": self.threshold,
        }


@dataclass(frozen=True)
class FindingResult:
    """What the model says of one finding.

    Attributes:
        name: of the finding.
        probability: 0 to 1.
        threshold: the operating point; None if the finding has none.
        called: whether the probability reaches the threshold; None without one.
        label_set: the labels that the conformal set contains, those that are not ruled out: ("present",),
            ("absent",), both, or neither; None for a model without label sets.
    """

    name: str
    probability: float
    threshold: float | None
    called: bool | None
    label_set: tuple[str, ...] | None

    @property
    def not_ruled_out(self) -> str | None:
        """The label set in a word, see ``NOT_RULED_OUT``; None without one."""
        return None if self.label_set is None else NOT_RULED_OUT[self.label_set]

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            "name": self.name,
            "probability": self.probability,
            "threshold": self.threshold,
            "called": self.called,
            "label_set": None if self.label_set is None else list(self.label_set),
        }


@dataclass(frozen=True, eq=False)
class ImageResult:
    """What the model says of one image.

    Attributes:
        name: of the image: its path, or what the caller called it.
        label_names: C findings.
        probability_C: float32, 0 to 1.
        threshold_C: operating points, float64; NaN for a finding without one.
        present_C, absent_C: whether the label set of each finding contains that label, bool; None without label sets.
        coverage: what the label sets were fitted for, such as 0.9; None without label sets.
        input_check: whether the image is unlike those of training; None where the model has no such check.
        remarks: what a reader should know of how the file was read, each a sentence; nearly always empty.
    """

    name: str
    label_names: tuple[str, ...]
    probability_C: NDArray[np.float32]
    threshold_C: NDArray[np.float64]
    present_C: NDArray[np.bool_] | None = None
    absent_C: NDArray[np.bool_] | None = None
    coverage: float | None = None
    input_check: InputCheckResult | None = None
    remarks: tuple[str, ...] = ()

    @classmethod
    def of(
        cls,
        name: str,
        probability_C: NDArray[np.float32],
        calls: "Calls",
        label_sets: "ConformalSets | None" = None,
        input_check: InputCheckResult | None = None,
        remarks: Sequence[str] = (),
    ) -> "ImageResult":
        """The result at a model's operating points and label sets, whose findings are in the order of the outputs."""
        sets: dict[str, Any] = {}
        if label_sets is not None:
            assert tuple(label_sets.label_names) == calls.label_names, "label sets in another order than the outputs"
            present_C, absent_C = label_sets.sets(probability_C)
            sets = {"present_C": present_C, "absent_C": absent_C, "coverage": label_sets.coverage}
        said = {"input_check": input_check, "remarks": tuple(remarks)}
        return cls(name, calls.label_names, probability_C, calls.threshold_C, **sets, **said)

    @property
    def called_C(self) -> NDArray[np.bool_]:
        """Which findings reach their threshold; False where there is none."""
        return reaches(self.probability_C, self.threshold_C)

    @property
    def unusual(self) -> bool:
        """Whether the input check reports the image; false without a check."""
        return self.input_check is not None and self.input_check.unusual

    @property
    def probabilities(self) -> Mapping[str, float]:
        """Finding -> probability, in the order of the outputs."""
        return dict(zip(self.label_names, self.probability_C.tolist(), strict=True))

    @property
    def findings(self) -> tuple[FindingResult, ...]:
        """Every finding, in the order of the outputs."""
        return tuple(self._finding(column) for column in range(len(self.label_names)))

    def _finding(self, column: int) -> FindingResult:
        threshold, label_set = float(self.threshold_C[column]), None
        if self.present_C is not None and self.absent_C is not None:
            label_set = (PRESENT,) * bool(self.present_C[column]) + (ABSENT,) * bool(self.absent_C[column])
        has_point = not np.isnan(threshold)
        return FindingResult(
            self.label_names[column],
            float(self.probability_C[column]),
            threshold if has_point else None,
            bool(self.called_C[column]) if has_point else None,
            label_set,
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON: "image", "findings", "label_set_coverage", "input_check" and "remarks"."""
        return {
            "image": self.name,
            "findings": [finding.to_dict() for finding in self.findings],
            "label_set_coverage": self.coverage,
            "input_check": None if self.input_check is None else self.input_check.to_dict(),
            "remarks": list(self.remarks),
        }
