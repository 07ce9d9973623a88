"""What a reader sees of a search for settings: its trials, what it chose, and what that figure is worth."""

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.figure import Figure as Drawing
from matplotlib.ticker import MaxNLocator, NullFormatter

from hf_cxr.evaluation.kernels import METRICS, headline_metrics
from hf_cxr.files import write_text
from hf_cxr.reporting import plots
from hf_cxr.reporting.document import Document, Facts, Figure, Heading, Note, Table, Text
from hf_cxr.reporting.numbers import number
from hf_cxr.reporting.protocol import data_cautions, split_facts
from hf_cxr.words import NOT_A_DEVICE, in_figure, plural

FIGURES = {
    "trials": (
        "Trials in their order",
        "Dots: the validation figure of each finished trial. Line: the best so far. Crosses: trials that were pruned "
        "or failed, without a figure.",
    ),
    "settings": (
        "The figure by each setting",
        "A dot a finished trial; the best one is orange. Trials differ in all settings at once, and the search visits "
        "good regions more often: a slope in one panel is not the effect of that setting alone.",
    ),
}


@dataclass(frozen=True)
class Trial:
    """One combination that was tried.

    Attributes:
        number: of its folder.
        state: "finished", "pruned" or "failed".
        point: key -> value, a choice by its name.
        figures: headline metric -> macro mean on validation; NaN without one.
        steps: the last step that a pruned trial reported; None if it reported none.
        seconds: that it took; None if not known.
        reason: why it failed.
    """

    number: int
    state: str
    point: dict[str, Any]
    figures: dict[str, float]
    steps: int | None = None
    seconds: float | None = None
    reason: str | None = None


@dataclass(frozen=True)
class TuningResults:
    """A search.

    Attributes:
        name: of its YAML.
        by: the metric that decides.
        space: key -> its values in words.
        trials: in their order.
        seed: of all trials, and of the search.
        pruned: whether trials could be pruned.
        protocol: of a trial: the data and the splits; {} if none is finished.
    """

    name: str
    by: str
    space: dict[str, str]
    trials: tuple[Trial, ...]
    seed: int
    pruned: bool = False
    protocol: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def finished(self) -> tuple[Trial, ...]:
        """The trials with a figure, the best first, the earlier of equal ones before the later."""
        sign = -1 if METRICS[self.by].higher_is_better else 1
        found = [one for one in self.trials if one.state == "finished" and not math.isnan(one.figures[self.by])]
        return tuple(sorted(found, key=lambda one: sign * one.figures[self.by]))

    @property
    def best(self) -> Trial | None:
        """The trial that best.yaml is of; None if none is finished."""
        return next(iter(self.finished), None)

    def to_dict(self) -> dict[str, Any]:
        """The content of tuning.json."""
        return dataclasses.asdict(self) | {"best": self.best and self.best.number}

    def records(self) -> pd.DataFrame:
        """A row a trial, plain values."""
        return pd.DataFrame(
            [
                {"trial": one.number, "state": one.state, **one.point, **one.figures, "seconds": one.seconds}
                for one in self.trials
            ]
        )


def tuning_document(results: TuningResults, drawn: Mapping[str, Any] = {}) -> Document:
    """Everything that a search has to say.

    Args:
        results: its trials.
        drawn: names of the figures that lie in figures/ next to the document.
    """
    title, best = METRICS[results.by].macro_title, results.best
    chosen = (
        "no trial has a figure"
        if best is None
        else (
            f"trial {best.number:04d}, validation {title} {number(best.figures[results.by])}: "
            + ", ".join(f"{key} {_written(value)}" for key, value in best.point.items())
        )
    )
    blocks = [
        Text(f"Best of {plural(len(results.trials), 'trial')}: {chosen}.", strong=True),
        Note(tuple(_cautions(results))),
        Heading("Trials"),
        _trials(results),
        Heading("What was searched"),
        Facts((*results.space.items(), ("decided by", f"{title} on validation"), ("seed", str(results.seed)))),
    ]
    for name, (heading, caption) in FIGURES.items():
        if name in drawn:
            blocks += [Heading(heading), Figure(f"figures/{name}.png", heading, caption)]
    if results.protocol:
        facts = [pair for pair in split_facts(results.protocol) if pair[0] != "initial weights"]
        blocks += [Heading("Data"), Facts(tuple(facts))]
    return Document(f"{results.name}: search", tuple(blocks), results.to_dict(), results.records())


def write_tuning(results: TuningResults, out: Path) -> None:
    """tuning.{md,csv,html,json} and figures/*.png; tuning.json last."""
    drawn = {"trials": history(results), "settings": by_setting(results)} if results.best else {}
    for name, figure in drawn.items():
        plots.save(figure, out / "figures" / f"{name}.png")
    document = tuning_document(results, drawn)
    write_text(out / "tuning.md", document.to_markdown())
    write_text(out / "tuning.csv", document.to_csv())
    write_text(out / "tuning.html", document.to_html(out))
    write_text(out / "tuning.json", document.to_json())


def history(results: TuningResults) -> Drawing:
    """The figure of each trial in their order, and the best so far."""
    figure = Drawing(figsize=(8, 3.4), layout="constrained")
    axis = figure.subplots()
    better = max if METRICS[results.by].higher_is_better else min
    places, values, bests, without = [], [], [], []
    for place, one in enumerate(results.trials, 1):
        value = one.figures[results.by]
        if one.state != "finished" or math.isnan(value):
            without.append(place)
            continue
        places.append(place)
        values.append(value)
        bests.append(better(bests[-1], value) if bests else value)
    axis.step(places, bests, where="post", color=plots.ORANGE, linewidth=1.2, label="best so far")
    axis.plot(places, values, "o", color=plots.BLUE, markersize=4.5, label="trial")
    if without:
        axis.plot(without, [min(values)] * len(without), "x", color=plots.GREY, label="pruned or failed")
    axis.set_xlabel("trial")
    axis.xaxis.get_major_locator().set_params(integer=True)
    axis.set_ylabel(f"validation {METRICS[results.by].macro_title}")
    axis.legend(frameon=False)
    plots.frame(axis)
    return figure


def by_setting(results: TuningResults) -> Drawing:
    """The figure of each trial by each setting, a panel a setting."""
    figure, axes = plots.panels(len(results.space), 2.4, columns=min(3, len(results.space)), sharey=True)
    for axis, (key, words) in zip(axes, results.space.items(), strict=True):
        for one in reversed(results.finished):  # the best on top
            color, size = (plots.ORANGE, 6) if one is results.best else (plots.BLUE, 4)
            value = one.point[key]
            axis.plot([in_figure(value, 14) if isinstance(value, str) else value], [one.figures[results.by]], "o",
                      color=color, markersize=size)  # fmt: skip
        if "logarithmic" in words:
            axis.set_xscale("log")
            axis.xaxis.set_minor_formatter(NullFormatter())
            axis.margins(x=0.15)
        if "whole numbers" in words:
            axis.xaxis.set_major_locator(MaxNLocator(integer=True))
        plots.panel_title(axis, key)
        plots.frame(axis)
    figure.supylabel(f"validation {METRICS[results.by].macro_title}")
    return figure


def _cautions(results: TuningResults) -> list[str]:
    title = METRICS[results.by].macro_title
    failed = [one for one in results.trials if one.state == "failed"]
    stopped = sum(one.state == "pruned" for one in results.trials)
    cautions = data_cautions(results.protocol) if results.protocol else []
    cautions.append(
        f"The best trial's {title} is optimistic: it is the best of {plural(len(results.finished), 'trial')} on the "
        "same validation images, and part of its lead is chance. Measure best.yaml once on the test set "
        "(hf-cxr train best.yaml --output_dir NEW_FOLDER)."
    )
    cautions.append(
        f"All trials have one seed ({results.seed}): how much another seed changes a figure is not measured here, and "
        "small differences between trials mean nothing (hf-cxr compare trains several seeds)."
    )
    cautions.append("No test image was opened: the search reads training and validation alone.")
    if stopped:
        cautions.append(f"Stopped early, below the median of earlier trials: {plural(stopped, 'trial')}.")
    if failed:
        reasons = "; ".join(sorted({one.reason or "unknown" for one in failed}))
        cautions.append(f"Failed: {plural(len(failed), 'trial')} ({reasons}).")
    return [*cautions, NOT_A_DEVICE]


def _trials(results: TuningResults) -> Table:
    keys, metrics = list(results.space), headline_metrics()
    head = ["trial", "state", *keys, *(f"validation\n{metric.macro_title}" for metric in metrics.values()), "minutes"]
    ranked = [*results.finished, *(one for one in results.trials if one not in results.finished)]
    rows = [
        [
            f"{one.number:04d}",
            one.state + (f" at step {one.steps}" if one.state == "pruned" and one.steps is not None else ""),
            *(_written(one.point.get(key)) for key in keys),
            *("–" if math.isnan(one.figures[key]) else number(one.figures[key]) for key in metrics),
            "–" if one.seconds is None else f"{one.seconds / 60:.1f}",
        ]
        for one in ranked
    ]
    bold = frozenset((0, column) for column in range(len(head))) if results.best else frozenset()
    order = "highest" if METRICS[results.by].higher_is_better else "lowest"
    return Table.of(head, rows, f"The {order} {METRICS[results.by].macro_title} first.", bold)


def _written(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else "–" if value is None else str(value)
