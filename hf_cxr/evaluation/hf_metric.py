"""The table of metrics as an `evaluate.Metric`: what the Trainer uses, and other code that expects one.

Every number comes from `kernels.METRICS`; this module holds no computation. It needs no network: the metric is this
class and is not looked up on the Hub. Predictions and references stay in memory: concurrent processes share no file.

    metric = MultiLabelMetric(NIH14)
    metric.compute(predictions=scores, references=labels)["ap"]
"""

import os
from collections.abc import Sequence
from typing import Any

import datasets
import evaluate
import numpy as np

from hf_cxr.evaluation.kernels import headline_metrics
from hf_cxr.evaluation.metrics import macro
from hf_cxr.labels import NIH14, LabelSpace

INPUTS = """
Args:
    predictions: N lists of C scores, any real numbers; logits and probabilities give the same ranking metrics.
    references: N lists of C labels: 1, 0, or NaN for unknown.

Returns:
    For each headline metric, "<key>": its mean over the findings that are defined, and "<key>_<finding>": NaN where
    undefined, as every ranking metric is for a finding whose known labels have one value only; "undefined": the
    names of the findings that some metric does not define.
"""


class MultiLabelMetric(evaluate.Metric):
    """Every metric of C findings, macro and each; `INPUTS` says what goes in and out.

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
        titles = ", ".join(metric.title for metric in headline_metrics().values())
        # float64, so that no score is rounded on its way to the metric and ties stay as they were.
        row = datasets.List(datasets.Value("float64"), length=len(self.label_names))
        return evaluate.MetricInfo(
            description=f"{titles} of each finding and their mean over findings; NaN labels are skipped.",
            citation="",
            inputs_description=INPUTS,
            features=datasets.Features({"predictions": row, "references": row}),
        )

    def _compute(self, *, predictions: Sequence[Any], references: Sequence[Any]) -> dict[str, Any]:
        score_NC, label_NC = np.asarray(predictions, np.float64), np.asarray(references, np.float64)
        value_C = {key: metric.measure(score_NC, label_NC) for key, metric in headline_metrics().items()}
        result: dict[str, Any] = {key: macro(array_C) for key, array_C in value_C.items()}
        for key, array_C in value_C.items():
            result |= {f"{key}_{name}": float(value) for name, value in zip(self.label_names, array_C, strict=True)}
        undefined_C = np.isnan(list(value_C.values())).any(axis=0)
        return result | {"undefined": [name for name, no in zip(self.label_names, undefined_C, strict=True) if no]}
