"""The ranking metrics as an `evaluate.Metric`, for code that expects one.

Every number comes from `metrics`; this module holds no computation. It needs no network: the metric is this class and
is not looked up on the Hub. Predictions and references stay in memory, so concurrent processes share no file.

    metric = MultiLabelMetric(NIH14)
    metric.compute(predictions=scores, references=labels)["mean_average_precision"]
"""

import os
from collections.abc import Sequence
from typing import Any

import datasets
import evaluate
import numpy as np

from hf_cxr.evaluation.metrics import average_precision, macro, roc_auc
from hf_cxr.labels import NIH14, LabelSpace

DESCRIPTION = "AUC and average precision of each finding and their mean over findings; NaN labels are skipped."
INPUTS = """
Args:
    predictions: N lists of C scores, any real numbers; logits and probabilities give the same result.
    references: N lists of C labels: 1, 0, or NaN for unknown.

Returns:
    "auc" and "mean_average_precision": means over the findings that are defined; "auc_<finding>" and "ap_<finding>":
    NaN for a finding whose known labels have one value only; "undefined": the names of those findings.
"""


class MultiLabelMetric(evaluate.Metric):
    """AUC and average precision of C findings, macro and each; `INPUTS` says what goes in and out.

    Args:
        label_names: C unique names, in the order of the columns.
        **kwargs: as `evaluate.Metric` takes them, except ``keep_in_memory`` and the number of processes: gather the
            predictions of all processes first, as `transformers.Trainer` does.
    """

    def __init__(self, label_names: Sequence[str] = NIH14, **kwargs: Any) -> None:
        self.label_names = LabelSpace(label_names)
        super().__init__(keep_in_memory=True, **kwargs)

    # The base class makes a folder in the user's cache, even for a metric that stores nothing there; that would fail
    # where the home folder cannot be written.
    def _build_data_dir(self) -> str:
        return os.path.join(self._data_dir_root, self.name, self.config_name)

    def _info(self) -> evaluate.MetricInfo:
        # float64, so that no score is rounded on its way to the metric and ties stay as they were.
        row = datasets.List(datasets.Value("float64"), length=len(self.label_names))
        return evaluate.MetricInfo(
            description=DESCRIPTION,
            citation="",
            inputs_description=INPUTS,
            features=datasets.Features({"predictions": row, "references": row}),
        )

    def _compute(self, *, predictions: Sequence[Any], references: Sequence[Any]) -> dict[str, Any]:
        score_NC, label_NC = np.asarray(predictions, np.float64), np.asarray(references, np.float64)
        auc_C, ap_C = roc_auc(score_NC, label_NC), average_precision(score_NC, label_NC)
        result: dict[str, Any] = {"auc": macro(auc_C), "mean_average_precision": macro(ap_C)}
        result |= {f"auc_{name}": float(value) for name, value in zip(self.label_names, auc_C, strict=True)}
        result |= {f"ap_{name}": float(value) for name, value in zip(self.label_names, ap_C, strict=True)}
        undefined_C = np.isnan(auc_C)
        return result | {"undefined": [name for name, no in zip(self.label_names, undefined_C, strict=True) if no]}
