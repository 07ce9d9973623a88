"""Figures of a run: ROC curves of each finding, loss and metric curves of training; of a data set: how many images
have each finding, how many have none, which findings occur together; and of a comparison: what the losses look like,
which probabilities they end at, ROC and training curves of all methods, differences with their intervals.

Names of findings, runs and methods are drawn as they are, by way of `words.py`: a dollar sign begins no formula.

Each function draws on a new figure and returns it; `save` writes it. Colours are Okabe and Ito's (2008), which
colour-blind readers tell apart; nothing depends on colour alone.

N = images, C = findings, K = points of a curve. Of a matrix CC the first axis is the row.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from hf_cxr.evaluation.kernels import headline_metrics
from hf_cxr.evaluation.metrics import roc_curve_points
from hf_cxr.files import replacing
from hf_cxr.words import in_figure, in_legend, in_title

BLUE, ORANGE, GREEN, GREY = "#0072B2", "#D55E00", "#009E73", "#777777"

# One a method or finding, in this order; colours repeat after eight, with another dash.
COLORS = ("#000000", BLUE, ORANGE, GREEN, "#CC79A7", "#56B4E9", "#E69F00", GREY)
DASHES = ("-", "--", "-.", (0, (1, 1.2)), (0, (6, 1, 1, 1, 1, 1)), (0, (3, 2)), (0, (8, 2)), (0, (1, 3)))

METRIC_STYLES = ((BLUE, "o-"), (ORANGE, "s--"), (GREEN, "^:"), (GREY, "D-."))  # of the metrics in one panel


def roc_curves(
    score_NC: np.ndarray,
    label_NC: np.ndarray,
    label_names: Sequence[str],
    captions: Sequence[str],
    title: str,
) -> Figure:
    """One small panel a finding, with its caption (AUC and interval) in it; a finding without a curve says so."""
    columns = 4
    rows = -(-len(label_names) // columns)
    figure = Figure(figsize=(11, 2.75 * rows + 0.6), layout="constrained")
    figure.suptitle(in_title(title))
    axes = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False).ravel()
    for column, (axis, name) in enumerate(zip(axes, label_names, strict=False)):
        known = ~np.isnan(label_NC[:, column])
        axis.plot([0, 1], [0, 1], color=GREY, linewidth=0.8, linestyle="--")
        if len(np.unique(label_NC[known, column])) == 2:
            false_positive, sensitivity = roc_curve_points(score_NC[known, column], label_NC[known, column])[:2]
            axis.step(false_positive, sensitivity, where="post", color=BLUE, linewidth=1.5)
        axis.set_title(_finding(name, 28), fontsize=10)
        axis.text(0.97, 0.05, captions[column], ha="right", va="bottom", fontsize=8.5)
        axis.set_aspect("equal")
    for axis in axes[len(label_names) :]:
        axis.set_axis_off()
    figure.supxlabel("1 - specificity")
    figure.supylabel("sensitivity")
    return figure


def training_curves(history: Sequence[Mapping[str, Any]], best_epoch: float | None) -> Figure:
    """Training and validation loss, and every validation metric, over epochs.

    Args:
        history: the Trainer's log_history.
        best_epoch: epoch of the checkpoint that was kept; None if it was the last.
    """
    figure = Figure(figsize=(11, 4), layout="constrained")
    loss_axis, metric_axis = figure.subplots(1, 2)
    _curve(loss_axis, history, "loss", "training (with augmentation)", GREY, "-")
    _curve(loss_axis, history, "eval_loss", "validation", BLUE, "o-")
    loss_axis.set_ylabel("loss (nats, mean over known cells)")
    for number, metric in enumerate(headline_metrics().values()):
        style = METRIC_STYLES[number % len(METRIC_STYLES)]
        _curve(metric_axis, history, f"eval_{metric.key}", metric.macro_title, *style)
    metric_axis.set_ylabel("validation")
    low_M, high_M = zip(*(metric.range for metric in headline_metrics().values()), strict=True)
    metric_axis.set_ylim(min(low_M), max(high_M))
    for axis in (loss_axis, metric_axis):
        if best_epoch is not None:
            axis.axvline(best_epoch, color=GREEN, linestyle=":", label="checkpoint kept")
        axis.set_xlabel("epoch")
        axis.legend(frameon=False)
    return figure


def finding_counts(
    counts: Mapping[str, tuple[np.ndarray, np.ndarray]], label_names: Sequence[str], title: str = ""
) -> Figure:
    """Positives and negatives of each finding on a logarithmic scale, a panel a split, frequent findings first.

    Args:
        counts: for each split, C positives and C negatives. The first split gives the order of the findings.
        label_names: C findings.
        title: above the panels; by default what they show.
    """
    order = np.argsort(-next(iter(counts.values()))[0], kind="stable")
    figure = Figure(figsize=(2.2 + 4.3 * len(counts), 1.7 + 0.42 * len(order)), layout="constrained")
    figure.suptitle(in_title(title) or "Images with and without each finding")
    row_C = np.arange(len(order))
    most = max(1, *(np.max(pair) for pair in counts.values()))
    axes = figure.subplots(1, len(counts), sharex=True, sharey=True, squeeze=False)[0]
    for axis, (name, (positives_C, negatives_C)) in zip(axes, counts.items(), strict=True):
        # A logarithmic axis has no 0: bars start at 0.5 and an empty one is its number alone.
        axis.barh(row_C - 0.2, np.maximum(positives_C[order], 0.5), 0.4, color=ORANGE, label="present")
        axis.barh(
            row_C + 0.2, np.maximum(negatives_C[order], 0.5), 0.4, facecolor="#BBD4E6", edgecolor=BLUE, label="absent"
        )
        for row, count in zip(row_C, positives_C[order], strict=True):
            axis.text(max(count, 0.5) * 1.15, row - 0.2, f"{count:,}", va="center", fontsize=8.5)
        axis.set_title(in_figure(name), fontsize=11)
        axis.set_xscale("log")
        axis.set_xlim(0.5, 3 * most)
        axis.spines[["top", "right"]].set_visible(False)
        axis.set_xlabel("images (logarithmic)")
    axes[0].set_yticks(row_C, [_finding(label_names[column]) for column in order])
    axes[0].set_ylim(len(order) - 0.4, -0.6)
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=2, frameon=False)
    return figure


def findings_per_image(histograms: Mapping[str, Mapping[int, int]], title: str = "") -> Figure:
    """Share of images without a finding, with one, two, and three or more: a bar a split, from 0 to 100 %.

    Args:
        histograms: for each split, how many labelled images have a number of findings.
        title: above the bars; by default what they show.
    """
    parts = (("none", "#D9D9D9"), ("one", "#9ECAE1"), ("two", BLUE), ("three or more", "#08306B"))
    figure = Figure(figsize=(9, 1.7 + 0.75 * len(histograms)), layout="constrained")
    figure.suptitle(in_title(title) or "How many findings an image has")
    axis = figure.subplots()
    for row, histogram in enumerate(histograms.values()):
        counts = [histogram.get(number, 0) for number in range(3)]
        counts.append(sum(histogram.values()) - sum(counts))
        left, total = 0.0, max(sum(counts), 1)
        for number, (count, (label, color)) in enumerate(zip(counts, parts, strict=True)):
            share = 100 * count / total
            axis.barh(row, share, left=left, color=color, edgecolor="white", label=label if row == 0 else None)
            if share >= 4:  # narrower parts have no room for a number
                text = f"{share:.1f} %" + (f"\n{count:,}" if share >= 7 else "")
                style = {"color": "white" if number >= 2 else "black", "rotation": 0 if share >= 7 else 90}
                axis.text(left + share / 2, row, text, ha="center", va="center", fontsize=9, **style)
            left += share
    axis.set_yticks(
        range(len(histograms)), [f"{in_figure(n)}\n{sum(h.values()):,} images" for n, h in histograms.items()]
    )
    axis.invert_yaxis()
    axis.set_xlim(0, 100)
    axis.set_xlabel("share of labelled images (%)")
    axis.spines[["top", "right"]].set_visible(False)
    figure.legend(*axis.get_legend_handles_labels(), loc="outside lower center", ncols=4, frameon=False)
    return figure


def co_occurrence(both_CC: np.ndarray, conditional_CC: np.ndarray, label_names: Sequence[str], title: str) -> Figure:
    """Heat map of P(column | row) in percent, with the number of images under it; the diagonal has the positives.

    Args:
        both_CC: images with both findings; the diagonal is the positives of each.
        conditional_CC: P(column | row), 0 to 1, NaN where the row is never present. The diagonal is not drawn.
        label_names: C findings.
        title: above the map.
    """
    names = [_finding(name) for name in label_names]
    side = 3.2 + 0.72 * len(names)
    figure = Figure(figsize=(side + 0.6, side), layout="constrained")
    axis = figure.subplots()
    axis.set_title(in_title(title, 60), fontsize=13, pad=12)
    shown_CC = np.where(np.eye(len(names), dtype=bool), np.nan, 100 * conditional_CC)
    top = max(float(np.nanmax(shown_CC, initial=0)), 1.0)
    axis.set_facecolor("#DDDDDD")
    image = axis.imshow(shown_CC, cmap="Blues", vmin=0, vmax=top)
    for row, column in np.ndindex(shown_CC.shape):
        share, count = shown_CC[row, column], f"{both_CC[row, column]:,}"
        text = f"{share:.{1 if share < 10 else 0}f} %\n{count}" if share > 0 else "–" if np.isnan(share) else "0"
        text = count if row == column else text
        style = {"weight": "bold"} if row == column else {"color": "white" if share > 0.6 * top else "black"}
        axis.text(column, row, text, ha="center", va="center", fontsize=9.5, **style)
    axis.set_xticks(np.arange(len(names) + 1) - 0.5, minor=True)
    axis.set_yticks(np.arange(len(names) + 1) - 0.5, minor=True)
    axis.grid(which="minor", color="white", linewidth=1)
    axis.set_xticks(range(len(names)), names, rotation=50, ha="right", rotation_mode="anchor")
    axis.set_yticks(range(len(names)), names)
    axis.set_ylabel("of the images with this finding ...")
    axis.set_xlabel("... the share that also has this one (on the diagonal: all images with it)")
    axis.tick_params(which="both", length=0)
    axis.spines[:].set_visible(False)
    figure.colorbar(image, ax=axis, shrink=0.6, label="P(column | row), %")
    return figure


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
            axis.plot(prob_K, loss_K, label=in_legend(label), linewidth=1.8, **_line(number))
    absent = "the finding is absent" + ("" if one_scale else " (another scale)")
    for axis, side, top in zip(axes, ("the finding is present", absent), tops, strict=True):
        axis.set_title(side, fontsize=11)
        axis.set_xlabel("predicted probability")
        axis.set_xlim(0, 1)
        axis.set_ylim(0, 1.05 * (max(tops) if one_scale else top))
        axis.grid(color="#E5E5E5", linewidth=0.7)
        axis.spines[["top", "right"]].set_visible(False)
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
        axis.grid(axis="x", color="#E5E5E5", linewidth=0.7)
        axis.spines[["top", "right"]].set_visible(False)
    for axis in axes.flat[len(means) :]:
        axis.set_axis_off()
    axes[0, 0].set_yticks(row_C, [_finding(label_names[column]) for column in order])
    axes[0, 0].set_ylim(len(order) - 0.4, -0.6)
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
    columns = 4
    rows = -(-len(label_names) // columns)
    figure = Figure(figsize=(11, 2.75 * rows + 1.0), layout="constrained")
    axes = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False).ravel()
    grid_K = np.linspace(0, 1, 501)
    for column, (axis, name) in enumerate(zip(axes, label_names, strict=False)):
        known_N = ~np.isnan(label_NC[:, column])
        label_N = label_NC[known_N, column]
        axis.plot([0, 1], [0, 1], color="#BBBBBB", linewidth=0.8)
        for number, (method, runs) in enumerate(scores.items()):
            if len(np.unique(label_N)) == 2:
                points = [roc_curve_points(score_NC[known_N, column], label_N)[:2] for score_NC in runs]
                # The last point at or left of a false positive rate: the curve is a step function.
                mean_K = np.mean([y[np.searchsorted(x, grid_K, side="right") - 1] for x, y in points], axis=0)
                axis.plot(grid_K, mean_K, label=in_legend(method), linewidth=1.3, **_line(number))
            else:
                axis.plot([], [], label=in_legend(method), **_line(number))
        axis.set_title(_finding(name, 28), fontsize=10)
        few = (
            f"{int((label_N == 1).sum())} positives"
            if len(np.unique(label_N)) == 2
            else "one label value only:\nno curve"
        )
        axis.text(0.97, 0.05, few, ha="right", va="bottom", fontsize=8.5)
        axis.set_aspect("equal")
    for axis in axes[len(label_names) :]:
        axis.set_axis_off()
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
            axis.plot(epochs, mean, label=in_legend(method), linewidth=2, **_line(number))
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
        axis.grid(axis="x", color="#E5E5E5", linewidth=0.7)
        axis.spines[["top", "right", "left"]].set_visible(False)
        axis.tick_params(axis="y", length=0)
        axis.locator_params(axis="x", nbins=5)
    axes[0].set_yticks(range(count), [in_figure(method, 40) for method in next(iter(metrics.values()))])
    axes[0].set_ylim(count - 0.4, -0.6)
    return figure


def save(figure: Figure, path: str | Path, *, dpi: int = 130) -> Path:
    """Write a figure as its suffix says (png, pdf, svg), whole or not at all."""
    with replacing(path) as beside:
        figure.savefig(beside, dpi=dpi)
    return Path(path)


def _finding(name: str, most: int = 40) -> str:
    return in_figure(name.replace("_", " "), most)


def _curve(axis, history: Sequence[Mapping[str, Any]], key: str, label: str, color: str, style: str) -> None:
    points = [(entry["epoch"], entry[key]) for entry in history if entry.get(key) is not None]
    if points:
        axis.plot(*zip(*points, strict=True), style, color=color, label=label, markersize=4)


def _line(number: int) -> dict[str, Any]:
    return {"color": COLORS[number % len(COLORS)], "linestyle": DASHES[(number + number // 8) % len(DASHES)]}


def _points(history: Sequence[Mapping[str, Any]], key: str) -> tuple[list[float], list[float]]:
    found = [(entry["epoch"], entry[key]) for entry in history if entry.get(key) is not None]
    return [epoch for epoch, _ in found], [value for _, value in found]


def _mean_curve(curves: Sequence[tuple[list[float], list[float]]]) -> tuple[list[float], list[float]]:
    """Mean over runs at the epochs that all have."""
    by_run = [dict(zip(*points, strict=True)) for points in curves]
    epochs = sorted(set.intersection(*map(set, by_run))) if by_run else []
    return epochs, [float(np.mean([run[epoch] for run in by_run])) for epoch in epochs]
