"""What training shows while it runs: a progress bar in a terminal, and a table with a row an epoch in every log.

    epoch  train loss  val. loss  macro AUC     mAP  images/s  seconds
     1/14      0.0496     0.0443      0.631   0.145       334     10.5 *
     2/14      0.0441     0.0418      0.702   0.189       338     10.2 *

A row is a line of this module's logger, so a terminal, run.log and the log of a batch job all have the same. The bar
is one line on standard error, and only where that is a terminal.
"""

import logging
import math
import sys
import time
from collections.abc import Mapping, Sequence

import torch
from tqdm import tqdm
from transformers import TrainerCallback, TrainerState

from hf_cxr.evaluation import headline_metrics

logger = logging.getLogger(__name__)

BAR = "{desc} {percentage:3.0f} %|{bar}| {what}"
REDRAW_SECONDS = 0.1
WIDTH = {"epoch": 6, "train loss": 10, "val. loss": 9, "macro AUC": 9, "mAP": 6, "images/s": 8, "seconds": 7}


class StepClock(TrainerCallback):
    """Images per second in training: loading and steps, without evaluation, checkpoints and the first step.

    Attributes:
        images: number of images in the timed steps, over all processes.
        seconds: duration of the timed steps.
    """

    def __init__(self):
        self.images, self.seconds, self._since = 0, 0.0, None

    def on_step_end(self, args, state, control, **kwargs):
        if control.should_evaluate or control.should_save:
            _wait_for(args.device)  # what follows must not be charged for steps that the device still has to do
        now = time.perf_counter()
        if self._since is not None:
            self.images += args.images_per_step
            self.seconds += now - self._since
        self._since = now

    def on_epoch_end(self, args, state, control, **kwargs):
        _wait_for(args.device)
        now = time.perf_counter()
        if self._since is not None:
            self.seconds += now - self._since
            self._since = now

    def on_evaluate(self, args, state, control, **kwargs):
        self._since = self._since and time.perf_counter()

    on_save = on_evaluate
    on_epoch_begin = on_evaluate


class TrainingTable(TrainerCallback):
    """Logs the table: a row at each evaluation, and at the end of an epoch that has none.

    The training loss is the mean over the steps since the row before, with augmentation; images/s counts loading and
    steps alone; the seconds are all that passed since the row before. ``*`` marks the best figure so far by
    ``metric_for_best_model``. A resumed run continues the table: it knows from the checkpoint what the best was.

    Args:
        clock: counts images and seconds of steps.
        losses: the losses of the steps since the last row.
        shown: figures of an evaluation, key -> title; by default the headline metrics.
    """

    def __init__(self, clock: StepClock, losses: "LossMean", shown: Mapping[str, str] | None = None):
        self.clock, self.losses, self._since, self._measured = clock, losses, None, False
        self.shown = headline_titles() if shown is None else shown

    def on_train_begin(self, args, state, control, **kwargs):
        self._start_row()
        if state.is_world_process_zero and state.global_step < state.max_steps:
            logger.info("%s", header(self.shown))

    def on_epoch_begin(self, args, state, control, **kwargs):
        self._measured = False

    def on_evaluate(self, args, state, control, metrics, **kwargs):
        if self._since is None:  # measured without training
            return
        self._measured = True
        value, past = metrics.get(f"eval_{args.metric_for_best_model}"), _figures(state, args.metric_for_best_model)
        self._log_row(state, metrics, best=is_best(value, past[:-1], greater=bool(args.greater_is_better)))

    def on_epoch_end(self, args, state, control, **kwargs):
        if not (self._measured or control.should_evaluate) and self.losses.steps:
            self._log_row(state, {}, best=False)

    def on_train_end(self, args, state, control, **kwargs):
        self._since = None

    def _log_row(self, state: TrainerState, metrics: Mapping[str, float], *, best: bool) -> None:
        loss, seconds = self.losses.drain(), time.perf_counter() - self._since  # every process takes part in the mean
        images, step_seconds = (self.clock.images - self._images, self.clock.seconds - self._step_seconds)
        if state.is_world_process_zero:
            speed = images / step_seconds if step_seconds else None
            logger.info("%s", row(state, loss, metrics, speed, seconds, best=best, shown=self.shown))
        self._start_row()

    def _start_row(self) -> None:
        self._since = time.perf_counter()
        self._images, self._step_seconds = self.clock.images, self.clock.seconds


class LossMean:
    """The mean of the losses of steps, without waiting for the device before it is asked for.

    Args:
        reduce: the mean of a scalar tensor over all processes.
    """

    def __init__(self, reduce):
        self.reduce, self.steps, self._sum = reduce, 0, None

    def add(self, loss: torch.Tensor, *, last: bool) -> None:
        """The loss of a micro-batch, detached; ``last``: of its optimizer step."""
        self._sum = loss.clone() if self._sum is None else self._sum.add_(loss)
        self.steps += last

    def drain(self) -> float | None:
        """The mean over the steps since the last call; None if there was none."""
        total, steps = self._sum, self.steps
        self._sum, self.steps = None, 0
        return None if total is None or not steps else self.reduce(total).item() / steps


class TrainingBar(TrainerCallback):
    """One line on a terminal: epoch, share done, the last logged loss, images/s and the time left.

    The time left counts evaluations and checkpoints at the rate of this run so far.

    Args:
        clock: counts images and seconds of steps.
    """

    def __init__(self, clock: StepClock):
        self.clock, self.bar, self._loss, self._batches = clock, None, None, 0

    def on_train_begin(self, args, state, control, **kwargs):
        if state.is_world_process_zero and sys.stderr.isatty():
            self.bar = _Bar(total=state.max_steps, initial=state.global_step, bar_format=BAR, leave=False,
                            dynamic_ncols=True, mininterval=REDRAW_SECONDS)  # fmt: skip
            self._first, self._since = state.global_step, time.perf_counter()
            self._describe(state)

    def on_step_end(self, args, state, control, **kwargs):
        if self.bar is not None:
            self._describe(state)
            self.bar.update(state.global_step - self.bar.n)

    def on_log(self, args, state, control, logs, **kwargs):
        self._loss = logs.get("loss", self._loss)

    def on_prediction_step(self, args, state, control, eval_dataloader=None, **kwargs):
        if self.bar is not None:
            self._batches += 1
            self.bar.what = f"validation, batch {self._batches} of {len(eval_dataloader)}"
            self.bar.redraw()

    def on_evaluate(self, args, state, control, **kwargs):
        self._batches = 0
        if self.bar is not None:
            self._describe(state)

    def on_train_end(self, args, state, control, **kwargs):
        if self.bar is not None:
            self.bar.close()
            self.bar = None

    def _describe(self, state: TrainerState) -> None:
        self.bar.desc = f"epoch {max(1, math.ceil(state.epoch or 0))}/{state.num_train_epochs}"
        parts = [] if self._loss is None else [f"loss {self._loss:.4f}"]
        if self.clock.seconds:
            parts.append(f"{speed_words(self.clock.images / self.clock.seconds)} images/s")
        done = state.global_step - self._first
        if done:
            left = (time.perf_counter() - self._since) / done * (state.max_steps - state.global_step)
            parts.append(f"{time_words(left)} left")
        self.bar.what = ", ".join(parts)


class _Bar(tqdm):
    """tqdm whose format knows ``what``, the words after the bar."""

    what = ""

    @property
    def format_dict(self):
        return super().format_dict | {"what": self.what}

    def redraw(self) -> None:
        if self._time() - self.last_print_t >= REDRAW_SECONDS:
            self.last_print_t = self._time()
            self.refresh()


def header(shown: Mapping[str, str] | None = None) -> str:
    """The names of the columns; ``shown`` as for `TrainingTable`."""
    return "  ".join(f"{name:>{width}}" for name, width in _columns(shown).items())


def row(
    state: TrainerState,
    loss: float | None,
    metrics: Mapping[str, float],
    images_per_second: float | None,
    seconds: float,
    *,
    best: bool,
    shown: Mapping[str, str] | None = None,
) -> str:
    """One row; a figure that was not measured is "-", one that is undefined "nan".

    Args:
        state: where training is.
        loss: mean training loss of the steps of this row.
        metrics: of the evaluation, with the Trainer's prefix ``eval_``.
        images_per_second: of loading and steps; None if it is unknown.
        seconds: since the row before.
        best: the best so far.
        shown: as for `TrainingTable`.
    """
    titles = headline_titles() if shown is None else shown
    figures = {key: metrics.get(f"eval_{key}") for key in ("loss", *titles)}
    cells = [
        epoch_words(state),
        _number(loss, 4),
        _number(figures.pop("loss"), 4),
        *(_number(value, 3) for value in figures.values()),
        "-" if images_per_second is None else speed_words(images_per_second),
        f"{seconds:,.1f}",
    ]
    widths = _columns(shown).values()
    line = "  ".join(f"{cell:>{width}}" for cell, width in zip(cells, widths, strict=True))
    return f"{line} *" if best else line


def epoch_words(state: TrainerState) -> str:
    """The epoch and how many there will be: a part of one where training ends within it (``max_steps``).

    >>> epoch_words(TrainerState(epoch=0.4, num_train_epochs=1, global_step=4, max_steps=8))
    '0.4/0.8'
    >>> epoch_words(TrainerState(epoch=2.0, num_train_epochs=3, global_step=20, max_steps=30))
    '2/3'
    """
    epoch, last = state.epoch or 0, state.num_train_epochs
    if state.global_step and epoch:
        ends = epoch * state.max_steps / state.global_step
        last = ends if ends < 0.98 * last else last  # the last step of an epoch may be a smaller one
    return f"{round(epoch, 2):g}/{round(last, 2):g}"


def is_best(value: float | None, past: Sequence[float], *, greater: bool) -> bool:
    """Whether a figure is better than all before it; an undefined one never is.

    >>> is_best(0.7, [0.6, float("nan")], greater=True), is_best(0.7, [0.7], greater=True)
    (True, False)
    """
    if value is None or value != value:
        return False
    return all(value > other if greater else value < other for other in past if other == other)


def speed_words(images_per_second: float) -> str:
    """About three significant figures.

    >>> speed_words(3.2049), speed_words(72), speed_words(1234.5)
    ('3.20', '72.0', '1,234')
    """
    digits = 2 if images_per_second < 10 else 1 if images_per_second < 100 else 0
    return f"{images_per_second:,.{digits}f}"


def time_words(seconds: float) -> str:
    """Hours, minutes and seconds, the two largest that there are.

    >>> time_words(7.2), time_words(127), time_words(7384)
    ('7 s', '2 min 7 s', '2 h 3 min')
    """
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {seconds} s" if minutes else f"{seconds} s"


def headline_titles() -> dict[str, str]:
    """Key -> title of the metrics that a table shows by default."""
    return {key: metric.macro_title for key, metric in headline_metrics().items()}


def _columns(shown: Mapping[str, str] | None = None) -> dict[str, int]:
    """Column -> width; a headline metric that is new has a column too."""
    titles = headline_titles() if shown is None else shown
    names = ["epoch", "train loss", "val. loss", *titles.values()]
    return {name: WIDTH.get(name, len(name)) for name in (*names, "images/s", "seconds")}


def _number(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def _figures(state: TrainerState, metric: str) -> list[float]:
    """A figure of every evaluation so far, in order."""
    return [entry[f"eval_{metric}"] for entry in state.log_history if f"eval_{metric}" in entry]


def _wait_for(device: torch.device) -> None:
    if device.type != "cpu":
        torch.accelerator.synchronize(device)
