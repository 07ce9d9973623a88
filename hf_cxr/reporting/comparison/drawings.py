"""Drawings of a comparison: what the losses look like, which probabilities they end at, ROC and training curves of all
methods, differences with their intervals.

N = images, C = findings, K = points of a curve.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from hf_cxr.evaluation.kernels import headline_metrics
from hf_cxr.evaluation.metrics import roc_curve_points
from hf_cxr.reporting.plots import (
    BLUE,
    COLORS,
    GREY,
    ORANGE,
    frame,
    frame_rows,
    line_style,
    name_rows,
    panel_title,
    panels,
)
from hf_cxr.words import in_figure, in_legend, in_title, plural


def loss_over_probability(
    curves: Mapping[str, tuple[np.ndarray, np.ndarray]], prob_K: np.ndarray, title: str, *, one_scale: bool = True
) -> Figure:
    """The loss of a positive and of a negative cell over the predicted probability, a curve an entry.

    Args:
        curves: label -> loss of a positive and of a negative, each (K,), in nats.
        prob_K: the probabilities.
        title: above the panels.
        one_scale: the panels have one vertical scale; False suits a loss whose sides differ by orders of magnitude.
            Scales end where the curves are at p = 0.05 and 0.95, for the ends may be infinite.
    """
    figure = Figure(figsize=(11, 4.6), layout="constrained")
    figure.suptitle(in_title(title))
    axes = figure.subplots(1, 2, sharey=one_scale)
    inner_K = (prob_K >= 0.05) & (prob_K <= 0.95)
    tops = [max(float(np.max(pair[side][inner_K])) for pair in curves.values()) for side in (0, 1)]
    for number, (label, (positive_K, negative_K)) in enumerate(curves.items()):
        for axis, loss_K in zip(axes, (positive_K, negative_K), strict=True):
            axis.plot(prob_K, loss_K, label=in_legend(label), linewidth=1.8, **line_style(number))
    absent = "the finding is absent" + ("" if one_scale else " (another scale)")
    for axis, side, top in zip(axes, ("the finding is present", absent), tops, strict=True):
        axis.set_title(side, fontsize=11)
        axis.set_xlabel("predicted probability")
        axis.set_xlim(0, 1)
        axis.set_ylim(0, 1.05 * (max(tops) if one_scale else top))
        frame(axis)
    axes[0].set_ylabel("loss of the cell (nats)")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=3, frameon=False)
    return figure


def mean_probability(
    means: Mapping[str, tuple[np.ndarray, np.ndarray]],
    prevalence_C: np.ndarray,
    label_names: Sequence[str],
    title: str,
) -> Figure:
    """Mean predicted probability of the positives and of the negatives of each finding, a panel a method.

    Args:
        means: method -> mean over positives and over negatives, each (C,); NaN where there are none.
        prevalence_C: share of positives, which a calibrated model's two means lie around; gives the order.
        label_names: C findings.
        title: above the panels.
    """
    columns = min(3, len(means))
    rows = -(-len(means) // columns)
    order = np.argsort(-prevalence_C, kind="stable")
    figure = Figure(figsize=(2.2 + 3.1 * columns, 1.2 + (0.9 + 0.25 * len(order)) * rows), layout="constrained")
    figure.suptitle(in_title(title))
    axes = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
    row_C = np.arange(len(order))
    for axis, (method, (positive_C, negative_C)) in zip(axes.flat, means.items(), strict=False):
        axis.hlines(row_C, negative_C[order], positive_C[order], color="#BBBBBB", linewidth=2, zorder=1)
        axis.scatter(positive_C[order], row_C, 34, color=ORANGE, marker="o", label="finding present", zorder=3)
        axis.scatter(negative_C[order], row_C, 34, color=BLUE, marker="D", label="finding absent", zorder=2)
        axis.scatter(prevalence_C[order], row_C, 70, color="black", marker="|", label="prevalence", zorder=4)
        axis.set_title(in_figure(method, 40), fontsize=11)
        axis.set_xlabel("mean predicted probability")
        axis.set_xlim(-0.02, 1.02)
        frame(axis, "x")
    for axis in axes.flat[len(means) :]:
        axis.set_axis_off()
    name_rows(axes[0, 0], [label_names[column] for column in order])
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=3, frameon=False)
    return figure


def roc_comparison(
    scores: Mapping[str, Sequence[np.ndarray]], label_NC: np.ndarray, label_names: Sequence[str], title: str
) -> Figure:
    """ROC curves of all methods, a panel a finding: sensitivity averaged over a method's runs at equal specificity.

    Args:
        scores: method -> (N, C) scores of each of its runs.
        label_NC: 1, 0 or NaN.
        label_names: C findings.
        title: above the panels.
    """
    figure, axes = panels(len(label_names), 2.75, sharex=True, sharey=True)
    grid_K = np.linspace(0, 1, 501)
    for column, (axis, name) in enumerate(zip(axes, label_names, strict=True)):
        known_N = ~np.isnan(label_NC[:, column])
        label_N = label_NC[known_N, column]
        axis.plot([0, 1], [0, 1], color="#BBBBBB", linewidth=0.8)
        for number, (method, runs) in enumerate(scores.items()):
            if len(np.unique(label_N)) == 2:
                points = [roc_curve_points(score_NC[known_N, column], label_N)[:2] for score_NC in runs]
                # The last point at or left of a false positive rate: the curve is a step function.
                mean_K = np.mean([y[np.searchsorted(x, grid_K, side="right") - 1] for x, y in points], axis=0)
                axis.plot(grid_K, mean_K, label=in_legend(method), linewidth=1.3, **line_style(number))
            else:
                axis.plot([], [], label=in_legend(method), **line_style(number))
        panel_title(axis, name)
        few = (
            plural(int((label_N == 1).sum()), "positive")
            if len(np.unique(label_N)) == 2
            else "one label value only:\nno curve"
        )
        axis.text(0.97, 0.05, few, ha="right", va="bottom", fontsize=8.5)
        axis.set_aspect("equal")
    figure.supxlabel("1 - specificity", fontsize=11)
    figure.supylabel("sensitivity", fontsize=11)
    legend = {"loc": "outside upper center", "ncols": 3, "frameon": False, "title_fontsize": 12}
    figure.legend(*axes[0].get_legend_handles_labels(), title=in_title(title), **legend)
    return figure


def training_comparison(histories: Mapping[str, Sequence[Sequence[Mapping[str, Any]]]]) -> Figure:
    """Validation metrics of all methods over epochs, and below, a panel a method, its losses on its own scale.

    Losses of different methods are different quantities: their heights say nothing of which is better.

    Args:
        histories: method -> the Trainer's log_history of each of its runs. Bold is the mean over runs, thin each run.
    """
    columns = max(2, min(3, len(histories)))
    rows = -(-len(histories) // columns)
    figure = Figure(figsize=(11, 4.2 + 2.3 * rows), layout="constrained")
    upper, lower = figure.subfigures(2, 1, height_ratios=(3.6, 0.6 + 2.3 * rows))
    metric_axes = upper.subplots(1, len(headline_metrics()), squeeze=False)[0]
    for axis, metric in zip(metric_axes, headline_metrics().values(), strict=True):
        for number, (method, runs) in enumerate(histories.items()):
            curves = [_points(history, f"eval_{metric.key}") for history in runs]
            for points in curves:
                axis.plot(*points, color=COLORS[number % len(COLORS)], linewidth=0.5, alpha=0.5)
            epochs, mean = _mean_curve(curves)
            axis.plot(epochs, mean, label=in_legend(method), linewidth=2, **line_style(number))
        axis.set_ylabel(f"validation {metric.macro_title}")
        axis.set_xlabel("epoch")
        axis.spines[["top", "right"]].set_visible(False)
    upper.legend(*metric_axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=3, frameon=False)
    loss_axes = lower.subplots(rows, columns, sharex=True, squeeze=False).ravel()
    for axis, (method, runs) in zip(loss_axes, histories.items(), strict=False):
        for key, name, color, dash in (
            ("loss", "training (with augmentation)", GREY, "-"),
            ("eval_loss", "validation", BLUE, "--"),
        ):
            for number, history in enumerate(runs):
                label = name if number == 0 else None
                axis.plot(*_points(history, key), color=color, linestyle=dash, linewidth=1.1, label=label)
        axis.set_title(in_figure(method, 40), fontsize=10)
        axis.spines[["top", "right"]].set_visible(False)
    for axis in loss_axes[len(histories) :]:
        axis.set_axis_off()
    lower.supxlabel("epoch", fontsize=11)
    lower.supylabel("loss (nats), each on its own scale", fontsize=11)
    lower.legend(*loss_axes[0].get_legend_handles_labels(), loc="outside upper center", ncols=2, frameon=False)
    return figure


def differences(
    metrics: Mapping[str, Mapping[str, tuple[float, float, float, Sequence[float]]]], baseline: str, title: str
) -> Figure:
    """Each method's difference to the baseline with its interval, a panel a metric; small dots are single seeds.

    Args:
        metrics: metric -> method -> difference, low and high end of its interval, difference of each seed;
            the same methods for every metric.
        baseline: its name.
        title: above the panels.
    """
    count = len(next(iter(metrics.values())))
    figure = Figure(figsize=(11, 1.9 + 0.45 * count), layout="constrained")
    figure.suptitle(in_title(title))
    axes = figure.subplots(1, len(metrics), sharey=True, squeeze=False)[0]
    for axis, (metric, methods) in zip(axes, metrics.items(), strict=True):
        for row, (value, low, high, seeds) in enumerate(methods.values()):
            axis.plot([low, high], [row, row], color=BLUE, linewidth=2)
            axis.plot(value, row, "o", color=BLUE, markersize=7)
            axis.plot(seeds, [row + 0.22] * len(seeds), "|", color=ORANGE, markersize=7)
        axis.axvline(0, color="black", linewidth=1)
        axis.set_xlabel(f"{in_figure(metric)} minus that of {in_figure(baseline, 40)}")
        frame_rows(axis)
        axis.locator_params(axis="x", nbins=5)
    name_rows(axes[0], list(next(iter(metrics.values()))))
    return figure


def _points(history: Sequence[Mapping[str, Any]], key: str) -> tuple[list[float], list[float]]:
    found = [(entry["epoch"], entry[key]) for entry in history if entry.get(key) is not None]
    return [epoch for epoch, _ in found], [value for _, value in found]


def _mean_curve(curves: Sequence[tuple[list[float], list[float]]]) -> tuple[list[float], list[float]]:
    """Mean over runs at the epochs that all have."""
    by_run = [dict(zip(*points, strict=True)) for points in curves]
    epochs = sorted(set.intersection(*map(set, by_run))) if by_run else []
    return epochs, [float(np.mean([run[epoch] for run in by_run])) for epoch in epochs]
