"""How predictions are measured: the arguments that `hf-cxr evaluate --predictions` also takes, without torch."""

from dataclasses import dataclass, field

from hf_cxr.arguments import check
from hf_cxr.evaluation.draws import CONFIDENCE, INTERVAL, INTERVALS, RESAMPLES, Intervals
from hf_cxr.evaluation.threshold_rules import DEFAULT_RULE, RULES, check_rule


@dataclass
class EvaluationArguments:
    """Calibration, intervals, and whether the test set is measured."""

    bootstrap_resamples: int = field(default=RESAMPLES, metadata={"help": "Draws of patients behind each interval."})
    confidence: float = field(default=CONFIDENCE, metadata={"help": "Coverage of the intervals, between 0 and 1."})
    interval: str = field(
        default=INTERVAL,
        metadata={
            "choices": INTERVALS,
            "help": "How the metrics' intervals are computed from the resamples; bca corrects for bias and skew, in "
            "about 1.4 times the time. The other analyses have percentile intervals.",
        },
    )
    calibrate: bool = field(
        default=True,
        metadata={"help": "Fit an affine map of each logit on validation and fold it into the saved classifier."},
    )
    operating_point: str = field(
        default=DEFAULT_RULE,
        metadata={
            "choices": tuple(RULES),
            "help": "How each finding's threshold is chosen on validation: f1 (highest F1: about as many calls as "
            "positives), youden (highest sensitivity + specificity: many more calls than positives, if the finding is "
            "rare), sensitivity or specificity (the best that reaches --operating_target), cost (lowest cost, if a "
            "missed positive costs --operating_target false positives) or bayes (the same by calibrated "
            "probabilities: 1 / (1 + target)).",
        },
    )
    operating_target: float | None = field(
        default=None,
        metadata={
            "help": "What --operating_point aims at: for sensitivity and specificity a share, for cost a ratio."
        },
    )
    input_check: bool = field(
        default=True,
        metadata={
            "help": "Fit, on validation, a check of whether an image is unlike those of training, and measure it on "
            "test; hf-cxr predict reports such images. One more pass over at most 2,000 validation images, 1,000 test "
            "images and 1,800 that it should report."
        },
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
        try:
            check_rule(self.operating_point, self.operating_target)
        except ValueError as error:
            raise ValueError(f"operating_point, operating_target: {error}") from error
        if self.operating_point == "bayes" and not self.calibrate:
            raise ValueError("operating_point bayes needs calibrated probabilities: leave out --calibrate false")

    def intervals(self, seed: int) -> Intervals:
        """How intervals are drawn, with the seed of the run."""
        return Intervals(self.bootstrap_resamples, self.confidence, seed, self.interval)
