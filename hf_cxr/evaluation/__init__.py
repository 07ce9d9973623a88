"""How good the predictions are: every figure with its interval, per finding first.

    report = evaluate_predictions(predictions.probabilities, predictions.labels, predictions.patient_ids)
    report.measured["all"]["auc"].macro_interval

Arrays in, values out; nothing here knows a model or needs torch. `metric` is the table of metrics, `kernels` their
arithmetic, `bootstrap` their intervals, `report` all figures of a set of predictions, `comparison` several methods
with several seeds, `calibration` the map that makes probabilities of scores.
"""

from typing import TYPE_CHECKING, Any

from hf_cxr.evaluation.bootstrap import BootstrapResult, PairedDifference, bootstrap_metrics, paired_difference
from hf_cxr.evaluation.calibration import Calibration, fit_calibration
from hf_cxr.evaluation.metric import METRICS, Measured, Metric
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
    "EvaluationReport",
    "Measured",
    "Metric",
    "MultiLabelMetric",
    "OperatingPoint",
    "OperatingPoints",
    "PairedDifference",
    "bootstrap_metrics",
    "choose_operating_points",
    "evaluate_predictions",
    "fit_calibration",
    "modern_figures",
    "paired_difference",
]


def __getattr__(name: str) -> Any:
    # evaluate and datasets take seconds to import, and only this class needs them.
    if name == "MultiLabelMetric":
        from hf_cxr.evaluation.hf_metric import MultiLabelMetric

        return MultiLabelMetric
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
