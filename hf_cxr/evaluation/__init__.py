"""How good the predictions are: every figure with its interval, per finding first.

    report = evaluate_predictions(predictions.probabilities, predictions.labels, predictions.patient_ids)
    report.measured["all"]["auc"].macro_interval

Arrays in, values out; nothing here knows a model or needs torch. `kernels` is the table of metrics and their
arithmetic, `draws` the draws of patients, `bootstrap` the metrics' intervals, `report` all figures of a set of
predictions, `comparison` several methods with several seeds, `calibration` the map that makes probabilities of scores.

Every name is loaded when it is first used: `predict` needs no bootstrap, and only `MultiLabelMetric` needs the package
evaluate and datasets.
"""

from hf_cxr.late_names import late_names

_HOME = {
    "METRICS": "kernels",
    "BootstrapResult": "bootstrap",
    "Calibration": "calibration",
    "Counts": "report",
    "Estimate": "estimates",
    "Estimates": "estimates",
    "EvaluationReport": "report",
    "Measured": "metric",
    "Metric": "metric",
    "MultiLabelMetric": "hf_metric",
    "OperatingPoint": "operating_points",
    "OperatingPoints": "operating_points",
    "PairedDifference": "bootstrap",
    "PatientDraws": "draws",
    "bootstrap_metrics": "bootstrap",
    "choose_operating_points": "operating_points",
    "evaluate_predictions": "report",
    "fit_calibration": "calibration",
    "headline_metrics": "kernels",
    "modern_figures": "older",
    "paired_difference": "bootstrap",
}

__all__ = sorted(_HOME)


__getattr__, __dir__ = late_names(__name__, {name: f"hf_cxr.evaluation.{module}" for name, module in _HOME.items()})
