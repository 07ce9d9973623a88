"""What every figure shares (colours, panels, names, `save`), and the curves of training.

Names of findings, runs and methods are drawn as they are, by way of `words.py`: a dollar sign begins no formula.

Each function draws on a new figure and returns it; `save` writes it. Colours are Okabe and Ito's (2008), which
colour-blind readers tell apart; nothing depends on colour alone. Figures have a white ground, on a dark page too.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from hf_cxr.evaluation.kernels import headline_metrics
from hf_cxr.files import replacing
from hf_cxr.words import in_figure

BLUE, ORANGE, GREEN, GREY = "#0072B2", "#D55E00", "#009E73", "#777777"
SOFT, GRID = "#444444", "#E5E5E5"

# One a method or finding, in this order; colours repeat after eight, with another dash.
COLORS = ("#000000", BLUE, ORANGE, GREEN, "#CC79A7", "#56B4E9", "#E69F00", GREY)
DASHES = ("-", "--", "-.", (0, (1, 1.2)), (0, (6, 1, 1, 1, 1, 1)), (0, (3, 2)), (0, (8, 2)), (0, (1, 3)))

METRIC_STYLES = ((BLUE, "o-"), (ORANGE, "s--"), (GREEN, "^:"), (GREY, "D-."))  # of the metrics in one panel


def panels(count: int, height: float, *, columns: int = 4, **share: bool) -> tuple[Figure, list[Axes]]:
    """A figure of small panels, such as one a finding: ``columns`` in a row, each 2.75 inches wide.

    Args:
        count: of panels.
        height: of one, in inches.
        columns: in a row.
        share: ``sharex`` and ``sharey`` of matplotlib; shared ticks are labelled under the last panel of a column.
    """
    rows = -(-count // columns)
    figure = Figure(figsize=(2.75 * columns, height * rows + 0.6), layout="constrained")
    figure.get_layout_engine().set(rect=(0, 0, 1, 0.99))
    axes = figure.subplots(rows, columns, squeeze=False, **share).ravel()
    for axis in axes[count:]:
        axis.set_axis_off()
    if share.get("sharex"):
        for number, axis in enumerate(axes[:count]):
            axis.tick_params(labelbottom=number + columns >= count)
    return figure, list(axes[:count])


def panel_title(axis: Axes, name: str, words: str = "") -> None:
    """The name of a finding above its panel, and below it some words in grey."""
    axis.set_title(in_figure(name, 30), fontsize=10.5, fontweight="bold", loc="left", pad=17 if words else 6)
    if words:
        text = axis.text(0, 1.035, words, transform=axis.transAxes, fontsize=8, color=SOFT)
        text.set_in_layout(False)  # panels stay as large as their number allows


def empty_panel(axis: Axes, words: str = "one label value only:\nno curve") -> None:
    """Why there is nothing to draw, on a panel without ticks."""
    axis.text(0.5, 0.5, words, ha="center", va="center", fontsize=9, color=SOFT, transform=axis.transAxes)
    axis.set_xticks([])
    axis.set_yticks([])


def frame(axis: Axes, grid: Literal["both", "x", "y"] = "both") -> None:
    """A light grid, and no frame above and on the right."""
    axis.grid(axis=grid, color=GRID, linewidth=0.7)
    axis.spines[["top", "right"]].set_visible(False)


def frame_rows(axis: Axes) -> None:
    """A light grid for rows of intervals, which have names and no axis on the left."""
    frame(axis, "x")
    axis.spines["left"].set_visible(False)
    axis.tick_params(axis="y", length=0)


def name_rows(axis: Axes, names: Sequence[str], most: int = 40) -> None:
    """A row for each name, the first on top."""
    axis.set_yticks(range(len(names)), [in_figure(name, most) for name in names])
    axis.set_ylim(len(names) - 0.4, -0.6)


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


def line_style(number: int) -> dict[str, Any]:
    """Colour and dash of the n-th method: two of the first eight share neither."""
    return {"color": COLORS[number % len(COLORS)], "linestyle": DASHES[(number + number // 8) % len(DASHES)]}


def _curve(axis, history: Sequence[Mapping[str, Any]], key: str, label: str, color: str, style: str) -> None:
    points = [(entry["epoch"], entry[key]) for entry in history if entry.get(key) is not None]
    if points:
        axis.plot(*zip(*points, strict=True), style, color=color, label=label, markersize=4)
