"""Figures of a run: ROC curves of each finding, loss and metric curves of training.

Each function draws on a new figure and returns it; `save` writes it. Colours are Okabe and Ito's (2008), which
colour-blind readers tell apart; nothing depends on colour alone.

N = images, C = findings.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from hf_cxr.evaluation.metrics import roc_curve_points
from hf_cxr.files import replacing

BLUE, ORANGE, GREEN, GREY = "#0072B2", "#D55E00", "#009E73", "#777777"


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
    figure.suptitle(title)
    axes = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False).ravel()
    for column, (axis, name) in enumerate(zip(axes, label_names, strict=False)):
        known = ~np.isnan(label_NC[:, column])
        axis.plot([0, 1], [0, 1], color=GREY, linewidth=0.8, linestyle="--")
        if len(np.unique(label_NC[known, column])) == 2:
            false_positive, sensitivity = roc_curve_points(score_NC[known, column], label_NC[known, column])[:2]
            axis.step(false_positive, sensitivity, where="post", color=BLUE, linewidth=1.5)
        axis.set_title(name.replace("_", " "), fontsize=10)
        axis.text(0.97, 0.05, captions[column], ha="right", va="bottom", fontsize=8.5)
        axis.set_aspect("equal")
    for axis in axes[len(label_names) :]:
        axis.set_axis_off()
    figure.supxlabel("1 - specificity")
    figure.supylabel("sensitivity")
    return figure


def training_curves(history: Sequence[Mapping[str, Any]], best_epoch: float | None) -> Figure:
    """Training and validation loss, and validation AUC and mAP, over epochs.

    Args:
        history: the Trainer's log_history.
        best_epoch: epoch of the checkpoint that was kept; None if it was the last.
    """
    figure = Figure(figsize=(11, 4), layout="constrained")
    loss_axis, metric_axis = figure.subplots(1, 2)
    _curve(loss_axis, history, "loss", "training (with augmentation)", GREY, "-")
    _curve(loss_axis, history, "eval_loss", "validation", BLUE, "o-")
    loss_axis.set_ylabel("loss (nats, mean over known cells)")
    _curve(metric_axis, history, "eval_auc", "macro AUC", BLUE, "o-")
    _curve(metric_axis, history, "eval_mean_average_precision", "mAP", ORANGE, "s--")
    metric_axis.set_ylabel("validation")
    metric_axis.set_ylim(0, 1)
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


def _curve(axis, history: Sequence[Mapping[str, Any]], key: str, label: str, color: str, style: str) -> None:
    points = [(entry["epoch"], entry[key]) for entry in history if entry.get(key) is not None]
    if points:
        axis.plot(*zip(*points, strict=True), style, color=color, label=label, markersize=4)
