"""Every figure of a set of predictions, as a run, an evaluation and an ensemble measure them. No torch."""

from collections.abc import Sequence

from hf_cxr.evaluation import EvaluationReport, evaluate_predictions
from hf_cxr.evaluation.draws import Intervals
from hf_cxr.evaluation.operating_points import OperatingPoints
from hf_cxr.labels import LabelSpace
from hf_cxr.predictions import Predictions


def measure_predictions(
    predictions: Predictions,
    points: OperatingPoints | None = None,
    *,
    intervals: Intervals,
    training_positives: Sequence[int] | None = None,
) -> EvaluationReport:
    """Every figure of a split, with patient-clustered intervals.

    Args:
        predictions: of the split.
        points: operating points; without them there are no decision metrics.
        intervals: how they are drawn.
        training_positives: positive training images of each finding: the means of head, medium and tail findings are
            measured too, if they are not all the same.
    """
    tier_of = LabelSpace(predictions.label_names).tiers(training_positives) if training_positives else {}
    tiers: dict[str, list[int]] = {}
    for column, tier in enumerate(tier_of.values()):
        tiers.setdefault(tier, []).append(column)
    return evaluate_predictions(
        predictions.probabilities,
        predictions.labels,
        predictions.patient_ids,
        label_names=predictions.label_names,
        tiers=tiers if len(tiers) > 1 else None,
        thresholds=None if points is None else points.threshold_C(predictions.label_names),
        interval=intervals.kind,
        resamples=intervals.resamples,
        confidence=intervals.confidence,
        seed=intervals.seed,
    )
