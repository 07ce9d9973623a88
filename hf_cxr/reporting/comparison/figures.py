"""The figures of a comparison: what the losses look like, which probabilities they end at, curves, differences.

C = findings, N = images, K = points of a curve.
"""

import warnings

import matplotlib.figure
import numpy as np
import torch

from hf_cxr.evaluation.calibration import Calibration
from hf_cxr.evaluation.kernels import headline_metrics
from hf_cxr.evaluation.metrics import mean_predicted_probability
from hf_cxr.losses import MultiLabelLoss, build_loss
from hf_cxr.reporting.comparison import drawings
from hf_cxr.reporting.comparison.results import ComparisonResults, FinishedRun
from hf_cxr.reporting.numbers import in_percent

# Name of a figure -> heading and how to read it; in the order of the page.
FIGURES = {
    "differences": (
        "Differences in one picture",
        "Dots are differences of means over seeds, lines their intervals over test patients, ticks single seeds. An "
        "interval that crosses 0 shows no difference; those that do not are not yet corrected for their number.",
    ),
    "roc": ("ROC curves", "Sensitivity at equal specificity, averaged over seeds."),
    "mean_probability": (
        "Mean predicted probability, before calibration",
        "What a loss makes of the raw outputs. They need not be probabilities: the farther the dots of a method lie "
        "from the prevalence, the more calibration has to do.",
    ),
    "mean_probability_calibrated": (
        "Mean predicted probability, after calibration",
        "The outputs of the saved models. The wider the gap between present and absent, the better they separate.",
    ),
    "loss_by_method": (
        "The losses",
        "Loss of one cell over its predicted probability, from the code that trains; the image's other cells are "
        "negative. Losses that only compare cells with one another (two_way, w_cel, zlpr) have no such curve.",
    ),
    "loss_by_prevalence": ("One loss, findings of different prevalence", "Frequent findings first."),
    "training": ("Training", "Bold: mean over seeds; thin: single runs. Heights of losses are not comparable."),
}
_PROB_K = np.linspace(0.002, 0.998, 499)


def draw(results: ComparisonResults) -> dict[str, matplotlib.figure.Figure]:
    """Every figure that these runs have, by name; see `FIGURES`."""
    drawn = {
        "roc": drawings.roc_comparison(
            {method: [run.test.logits for run in runs.values()] for method, runs in results.runs.items()},
            results.first(results.baseline).test.labels,
            results.label_names,
            "ROC curves on test, averaged over seeds",
        ),
        "training": drawings.training_comparison(
            {method: [run.metrics["history"] for run in runs.values()] for method, runs in results.runs.items()}
        ),
        "mean_probability": _mean_probability(results, calibrated=False),
    }
    if results.other_methods:
        drawn["differences"] = _differences(results)
    losses = {"loss_by_method": _loss_by_method(results), "loss_by_prevalence": _loss_by_prevalence(results)}
    drawn |= {name: figure for name, figure in losses.items() if figure is not None}
    if all(run.metrics["calibration"] for runs in results.runs.values() for run in runs.values()):
        drawn["mean_probability_calibrated"] = _mean_probability(results, calibrated=True)
    return drawn


def has_loss_of_a_cell(loss: MultiLabelLoss) -> bool:
    """Whether a cell has a loss by itself, as it has not where cells are compared with one another."""
    return type(loss).forward is MultiLabelLoss.forward


def loss_curves(loss: MultiLabelLoss, column: int, prob_K: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The loss of a positive and of a negative cell of one finding, in nats, without its class weight, each (K,).

    The image's other cells are negative.

    Args:
        loss: as a run builds it; see `has_loss_of_a_cell`.
        column: of the finding.
        prob_K: predicted probabilities in (0, 1).
    """
    prob_K = torch.as_tensor(prob_K, dtype=torch.float64)
    count = next((len(buffer_C) for buffer_C in loss.buffers()), column + 1)
    logit_KC = torch.logit(prob_K)[:, None].expand(-1, count).contiguous()
    negative_KC = torch.zeros_like(logit_KC)
    positive_KC = negative_KC.clone()
    positive_KC[:, column] = 1
    with torch.no_grad():
        sides = [loss.elementwise(logit_KC, target_KC)[:, column] for target_KC in (positive_KC, negative_KC)]
    return tuple(side.numpy() for side in sides)


def _differences(results: ComparisonResults) -> matplotlib.figure.Figure:
    shown = {
        metric.macro_title: {
            method: (one.value, one.low, one.high, list(one.by_seed.values()))
            for method, one in results.compared(key).items()
        }
        for key, metric in headline_metrics().items()
    }
    title = (
        f"Difference to {results.baseline}, {in_percent(results.test.confidence)} intervals over patients, not "
        "corrected (ticks: single seeds)"
    )
    return drawings.differences(shown, results.baseline, title)


def _mean_probability(results: ComparisonResults, *, calibrated: bool) -> matplotlib.figure.Figure:
    labels = results.first(results.baseline).test.labels
    means = {}
    for method, runs in results.runs.items():
        sides = [_mean_sides(run, calibrated=calibrated) for run in runs.values()]
        means[method] = tuple(np.mean(side, axis=0) for side in zip(*sides, strict=True))
    kind = "after calibration" if calibrated else "as trained, before calibration"
    title = f"Mean predicted probability on test, {kind}"
    return drawings.mean_probability(means, np.nanmean(labels, axis=0), results.label_names, title)


def _mean_sides(run: FinishedRun, *, calibrated: bool) -> tuple[np.ndarray, np.ndarray]:
    """Mean probability of positives and of negatives, each (C,)."""
    logits = run.test.logits.astype(np.float64)
    if run.metrics["calibration"] and not calibrated:
        calibration = Calibration.from_dict(run.metrics["calibration"])
        logits = (logits - calibration.intercept_C) / calibration.slope_C
    return mean_predicted_probability(1 / (1 + np.exp(-np.clip(logits, -700, 700))), run.test.labels)


def _loss(results: ComparisonResults, method: str) -> MultiLabelLoss:
    """The method's loss as its runs built it: from the prevalences that their sampler draws."""
    described = results.first(method).metrics["protocol"]["loss"]
    with warnings.catch_warnings(action="ignore"):  # about findings without positives: the runs have shown it
        loss = build_loss(
            described["name"],
            positives_C=results.protocol["training_positives"],
            known_C=results.protocol["training_known"],
            **described["options"],
        )
    for name in ("prevalence", *loss.statistics):
        if described.get(name) is not None:
            loss.get_buffer(f"{name}_C").copy_(torch.tensor(described[name]))
    return loss


def _by_frequency(results: ComparisonResults) -> list[int]:
    """Columns of the findings that have positive training images, frequent ones first."""
    positives_C = np.array(results.protocol["training_positives"])
    return [int(column) for column in np.argsort(-positives_C, kind="stable") if positives_C[column] > 0]


def _loss_by_method(results: ComparisonResults) -> matplotlib.figure.Figure | None:
    """Of every method whose loss has a value for a cell by itself; None if none has."""
    columns = _by_frequency(results)
    losses = {method: _loss(results, method) for method in results.runs}
    shown = {method: loss for method, loss in losses.items() if has_loss_of_a_cell(loss)}
    if not columns or not shown:
        return None
    column = columns[len(columns) // 2]
    prevalence = results.protocol["training_positives"][column] / max(1, results.protocol["training_known"][column])
    title = (
        f"Losses of the methods, for {results.label_names[column]} (prevalence {prevalence:.1%}), without class "
        "weights"
    )
    curves = {method: loss_curves(loss, column, _PROB_K) for method, loss in shown.items()}
    return drawings.loss_over_probability(curves, _PROB_K, title)


def _loss_by_prevalence(results: ComparisonResults) -> matplotlib.figure.Figure | None:
    """Of the last method whose loss depends on the prevalence; None if none does."""
    depends = [method for method in results.runs if _loss(results, method).prevalence_C is not None]
    columns = _by_frequency(results)
    if not depends or not columns:
        return None
    loss = _loss(results, depends[-1])
    curves = {
        f"{results.label_names[column]} ({loss.prevalence_C[column]:.1%})": loss_curves(loss, column, _PROB_K)
        for column in (columns[place] for place in np.unique(np.linspace(0, len(columns) - 1, 5).round().astype(int)))
    }
    title = f"{depends[-1]}: the loss of findings of different prevalence, without class weights"
    return drawings.loss_over_probability(curves, _PROB_K, title, one_scale=False)
