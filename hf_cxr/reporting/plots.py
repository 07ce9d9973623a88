"""What every figure shares (colours, names, `save`), and the figures of a run: ROC curves, and curves of training.

Names of findings, runs and methods are drawn as they are, by way of `words.py`: a dollar sign begins no formula.

Each function draws on a new figure and returns it; `save` writes it. Colours are Okabe and Ito's (2008), which
colour-blind readers tell apart; nothing depends on colour alone. Figures have a white ground, on a dark page too.

N = images, C = findings.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from hf_cxr.evaluation.kernels import headline_metrics
from hf_cxr.evaluation.metrics import roc_curve_points
from hf_cxr.files import replacing
from hf_cxr.words import in_figure, in_title

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
        axis.set_title(finding_title(name, 28), fontsize=10)
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


def save(figure: Figure, path: str | Path, *, dpi: int = 130) -> Path:
    """Write a figure as its suffix says (png, pdf, svg), whole or not at all."""
    with replacing(path) as beside:
        figure.savefig(beside, dpi=dpi)
    return Path(path)


def finding_title(name: str, most: int = 40) -> str:
    """The name of a finding as a figure shows it: spaces for underscores, no longer than ``most``."""
    return in_figure(name.replace("_", " "), most)


def line_style(number: int) -> dict[str, Any]:
    """Colour and dash of the n-th method: two of the first eight share neither."""
    return {"color": COLORS[number % len(COLORS)], "linestyle": DASHES[(number + number // 8) % len(DASHES)]}


def _curve(axis, history: Sequence[Mapping[str, Any]], key: str, label: str, color: str, style: str) -> None:
    points = [(entry["epoch"], entry[key]) for entry in history if entry.get(key) is not None]
    if points:
        axis.plot(*zip(*points, strict=True), style, color=color, label=label, markersize=4)
