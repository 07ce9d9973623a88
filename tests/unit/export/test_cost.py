"""What 8-bit weights cost is the paired difference of both models on the same images."""

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score

from hf_cxr.evaluation.draws import Intervals
from hf_cxr.export.cost import measure_cost
from hf_cxr.export.summary import cost_lines


def costs(noise, resamples=200):
    rng = np.random.default_rng(0)
    label_NC = (rng.random((240, 2)) < 0.3).astype(np.float32)
    float_NC = (label_NC + rng.normal(size=label_NC.shape)).astype(np.float32)
    int8_NC = float_NC + noise * rng.normal(size=label_NC.shape).astype(np.float32)
    cost = measure_cost(
        int8_NC,
        float_NC,
        label_NC,
        [f"p{number // 3}" for number in range(240)],
        label_names=("Effusion", "Mass"),
        threshold_C=(0.5, np.nan),
        split="test",
        size=(25, 100),
        speed=1.5,
        way="dynamic",
        intervals=Intervals(resamples, seed=1),
    )
    return cost, label_NC, float_NC, int8_NC


def test_the_difference_is_that_of_scikit_learn():
    cost, label_NC, float_NC, int8_NC = costs(2.0)
    values = cost.to_dict()["paired"]["metrics"]
    for key, metric in (("auc", roc_auc_score), ("ap", average_precision_score)):
        by_model = [np.mean([metric(label_NC[:, c], logit[:, c]) for c in (0, 1)]) for logit in (int8_NC, float_NC)]
        macro = values[key]["macro"]
        assert macro["difference"] == pytest.approx(by_model[0] - by_model[1], abs=1e-9)
        assert macro["low"] < macro["difference"] < macro["high"] < 0  # so much noise is seen
    called = [logit_NC[:, 0] >= 0 for logit_NC in (int8_NC, float_NC)]  # Mass has no threshold
    assert cost.calls_changed == pytest.approx(np.mean(called[0] != called[1]))
    assert cost.to_dict()["paired"]["patients"] == 80


def test_the_same_model_costs_nothing():
    cost, *_ = costs(0.0)
    macro = cost.to_dict()["paired"]["metrics"]["auc"]["macro"]
    assert (macro["difference"], macro["low"], macro["high"]) == (0, 0, 0)
    assert (cost.probability, cost.calls_changed) == (0, 0)


def test_the_sentences_have_the_figures():
    text = "\n".join(cost_lines(costs(2.0)[0].to_dict()))
    for figure in ("25%", "1.50", "240 images of 80 patients", "macro AUC", "lowest: "):
        assert figure in text
