"""Learning-rate schedules, built once on a dummy parameter before data are read, so that a wrong one fails early."""

import difflib
import inspect
import math
import warnings
from collections.abc import Mapping
from typing import Any

import torch
from transformers.optimization import TYPE_TO_SCHEDULER_FUNCTION, get_scheduler
from transformers.trainer_utils import SchedulerType

# Filled in by the Trainer.
GIVEN = {"optimizer", "num_warmup_steps", "num_training_steps", "last_epoch"}
WITHOUT_OPTIONS = ("constant", "constant_with_warmup")
BY_A_METRIC = ("reduce_lr_on_plateau", "greedy")


def resolve_schedule(
    name: str,
    options: Mapping[str, Any] | None,
    *,
    learning_rate: float,
    warmup_steps: float,
    max_steps: int,
    greater_is_better: bool,
) -> dict[str, Any] | None:
    """Check a schedule and its options.

    Args:
        name: as in `transformers.SchedulerType`.
        options: ``lr_scheduler_kwargs``.
        warmup_steps: steps, or below 1 a share of all steps.
        max_steps: steps of the run; 0 or less: not known yet.
        greater_is_better: of the metric that chooses the checkpoint, which also drives the schedules that watch one.

    Returns:
        The options with ``mode``, for a schedule that watches a metric: transformers assumes that less is better, and
        would lower the learning rate whenever AUC rises.

    Raises:
        ValueError: the schedule needs an option, does not take one, or makes a learning rate below 0 or not finite.
    """
    given = dict(options or {})
    where = f"lr_scheduler_type {name}"
    for key, value in given.items():
        if isinstance(value, float) and not math.isfinite(value):
            raise ValueError(f"{key} in lr_scheduler_kwargs is {value}; it must be a finite number")
    if name in WITHOUT_OPTIONS:
        if given:
            raise ValueError(f"{where} takes no lr_scheduler_kwargs, and {', '.join(given)} is given; leave it out")
        return options
    if name in BY_A_METRIC:
        return _with_mode(name, given, learning_rate, greater_is_better)
    parameters = inspect.signature(TYPE_TO_SCHEDULER_FUNCTION[SchedulerType(name)]).parameters
    own = [key for key in parameters if key not in GIVEN]
    for key in given:
        if key not in own:
            nearest = difflib.get_close_matches(key, own, n=1)
            hint = f"did you mean {nearest[0]}?" if nearest else f"it takes {', '.join(own) or 'none'}"
            raise ValueError(f"lr_scheduler_kwargs contains {key}, which {where} does not take; {hint}")
    lacking = [key for key in own if parameters[key].default is inspect.Parameter.empty and key not in given]
    if lacking:
        raise ValueError(
            f"{where} needs {', '.join(lacking)} in lr_scheduler_kwargs, such as {{{lacking[0]}: 100}}; give it, or "
            "another lr_scheduler_type"
        )
    _try(where, name, given, learning_rate, warmup_steps, max_steps if max_steps > 0 else 1_000_000)
    return options


def _try(where: str, name: str, given: dict[str, Any], learning_rate: float, warmup_steps: float, steps: int) -> None:
    warm = int(warmup_steps) if warmup_steps >= 1 else math.ceil(steps * warmup_steps)
    words = f"{where} with lr_scheduler_kwargs {given}" if given else where
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            schedule = get_scheduler(name, _optimizer(learning_rate), warm, steps, given)
        factors = [float(schedule.lr_lambdas[0](step)) for step in sorted({0, 1, steps // 2, steps - 1, steps})]
    except Exception as error:  # whatever arithmetic does with the options
        raise ValueError(f"{words} does not work: {error}") from error
    bad = [factor for factor in factors if not (math.isfinite(factor) and factor >= 0)]
    if bad:
        raise ValueError(f"{words} makes the learning rate {bad[0] * learning_rate:g}; it must stay 0 or more")


def _with_mode(name: str, given: dict[str, Any], learning_rate: float, greater_is_better: bool) -> dict[str, Any]:
    where = f"lr_scheduler_type {name}"
    mode = "max" if greater_is_better else "min"
    if given.get("mode", mode) != mode:
        raise ValueError(
            f"lr_scheduler_kwargs has mode {given['mode']}, but the best metric_for_best_model is the "
            f"{'greatest' if greater_is_better else 'least'}: leave mode out"
        )
    given = {**given, "mode": mode}
    try:
        schedule = get_scheduler(name, _optimizer(learning_rate), scheduler_specific_kwargs=given)
    except Exception as error:
        raise ValueError(f"{where} with lr_scheduler_kwargs {given} does not work: {error}") from error
    if name == "greedy":
        low, high = (float(torch.as_tensor(value).flatten()[0]) for value in (schedule.min_lrs, schedule.max_lrs))
        if not low <= learning_rate <= high:
            raise ValueError(
                f"{where} keeps the learning rate between min_lr {low:g} and max_lr {high:g}, and learning_rate is "
                f"{learning_rate:g}: set them in lr_scheduler_kwargs, such as {{min_lr: {learning_rate / 100:g}}}"
            )
    return given


def _optimizer(learning_rate: float) -> torch.optim.Optimizer:
    return torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=learning_rate)
