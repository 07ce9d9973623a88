"""How good the predictions are: every figure with its interval, per finding first.

    report = evaluate_predictions(predictions.probabilities, predictions.labels, predictions.patient_ids)
    report.measured["all"]["auc"].macro_interval

Arrays in, values out; nothing here knows a model or needs torch. `kernels` is the table of metrics and their
arithmetic, `draws` the draws of patients, `bootstrap` the metrics' intervals, `report` all figures of a set of
predictions, `comparison` several methods with several seeds, `calibration` the map that makes probabilities of scores.
"""

from typing import TYPE_CHECKING, Any

from hf_cxr.evaluation.bootstrap import BootstrapResult, PairedDifference, bootstrap_metrics, paired_difference
from hf_cxr.evaluation.calibration import Calibration, fit_calibration
from hf_cxr.evaluation.draws import PatientDraws
from hf_cxr.evaluation.estimates import Estimate, Estimates
from hf_cxr.evaluation.kernels import METRICS, headline_metrics
from hf_cxr.evaluation.metric import Measured, Metric
from hf_cxr.evaluation.older import modern_figures
from hf_cxr.evaluation.operating_points import OperatingPoint, OperatingPoints, choose_operating_points
from hf_cxr.evaluation.report import (
    Counts,
    EvaluationReport,
    evaluate_predictions,
)

if TYPE_CHECKING:
    from hf_cxr.evaluation.hf_metric import MultiLabelMetric

__all__ = [
    "METRICS",
    "BootstrapResult",
    "Calibration",
    "Counts",
    "Estimate",
    "Estimates",
    "EvaluationReport",
    "Measured",
    "Metric",
    "MultiLabelMetric",
    "OperatingPoint",
    "OperatingPoints",
    "PairedDifference",
    "PatientDraws",
    "bootstrap_metrics",
    "choose_operating_points",
    "evaluate_predictions",
    "fit_calibration",
    "headline_metrics",
    "modern_figures",
    "paired_difference",
]


def __getattr__(name: str) -> Any:
    # evaluate and datasets take seconds to import, and only this class needs them.
    if name == "MultiLabelMetric":
        from hf_cxr.evaluation.hf_metric import MultiLabelMetric

        return MultiLabelMetric
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
