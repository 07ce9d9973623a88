"""How predictions are measured: the arguments that `hf-cxr evaluate --predictions` also takes, without torch."""

from dataclasses import dataclass, field

from hf_cxr.arguments import check


@dataclass
class EvaluationArguments:
    """Calibration, intervals, and whether the test set is measured."""

    bootstrap_resamples: int = field(default=1000, metadata={"help": "Resamples of patients behind each interval."})
    confidence: float = field(default=0.95, metadata={"help": "Coverage of the intervals, between 0 and 1."})
    calibrate: bool = field(
        default=True,
        metadata={"help": "Fit an affine map of each logit on validation and fold it into the saved classifier."},
    )
    measure_test: bool = field(
        default=True,
        metadata={
            "help": "False stops after validation: no test image is predicted; for tuning. The same run with true "
            "continues to the test set."
        },
    )

    def __post_init__(self):
        check(self.bootstrap_resamples >= 10, "bootstrap_resamples", self.bootstrap_resamples, "at least 10")
        check(0 < self.confidence < 1, "confidence", self.confidence, "between 0 and 1")
