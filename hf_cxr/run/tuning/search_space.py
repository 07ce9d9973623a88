"""A search's YAML: the base, the space of values and how the search goes; read and checked before anything is started.

| key         | meaning                                                                                               |
|-------------|-------------------------------------------------------------------------------------------------------|
| `base`      | a run's keys, or the path of a run's YAML (from this file's folder, or from here)                     |
| `overrides` | with a path: keys that override it                                                                    |
| `space`     | key -> values: a list of choices; or {low, high}, with `log: true`, or `step`. Whole numbers if low   |
|             | and high are (`type: float` for others). Any key of a run, also an option such as loss_kwargs.gamma   |
| `trials`    | how many combinations are tried; `--trials` overrides it                                              |
| `seed`      | of every trial's training, and of the search                                                          |
| `by`        | the validation metric that decides, from METRICS; `auc` by default                                    |
| `prune`     | true: a trial that is below the median of earlier ones at the same step stops; false by default       |

Refused: unknown keys (with the nearest), invalid ranges, metrics of the test set, keys that the search sets.
"""

import difflib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hf_cxr.arguments.components import merged
from hf_cxr.config import config_file, text_keys, unknown_key, without_replaced_options
from hf_cxr.evaluation.kernels import metric_key
from hf_cxr.run.comparing.plan import (
    NOT_IN_COMPARISON,
    SET_BY_COMPARISON,
    as_mapping,
    base_values,
    check_run_keys,
    check_shared_flags,
)
from hf_cxr.yaml_files import read_yaml

if TYPE_CHECKING:
    import optuna

KEYS = ("base", "overrides", "space", "trials", "seed", "by", "prune")
RANGE = ("low", "high", "log", "step", "type")
SEED = 1000  # as the tuning of a comparison
TRIALS = 20


@dataclass(frozen=True)
class Range:
    """Numbers from low to high, both included.

    Attributes:
        low, high: the ends.
        whole: only whole numbers.
        log: evenly over the logarithms.
        step: distance of the values; None for any.
    """

    low: float
    high: float
    whole: bool
    log: bool = False
    step: float | None = None

    def suggest(self, trial: "optuna.trial.BaseTrial", key: str) -> float | int:
        if self.whole:
            return trial.suggest_int(key, int(self.low), int(self.high), step=int(self.step or 1), log=self.log)
        return trial.suggest_float(key, self.low, self.high, step=self.step, log=self.log)

    def of_name(self, value: Any) -> Any:
        """The value that Optuna keeps as this."""
        return value

    def ends(self) -> tuple[float | int, float | int]:
        """The lowest and the highest value."""
        return (int(self.low), int(self.high)) if self.whole else (self.low, self.high)

    @property
    def words(self) -> str:
        kind = ", whole numbers" if self.whole else ""
        return f"{self.low:g} to {self.high:g}{kind}{', logarithmic' if self.log else ''}" + (
            f", step {self.step:g}" if self.step else ""
        )


@dataclass(frozen=True)
class Choices:
    """Some values, each by its name: Optuna keeps names, and a value may be a list or a mapping."""

    values: tuple[Any, ...]

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(value if isinstance(value, str) else json.dumps(value) for value in self.values)

    def suggest(self, trial: "optuna.trial.BaseTrial", key: str) -> Any:
        return self.of_name(trial.suggest_categorical(key, self.names))

    def of_name(self, name: str) -> Any:
        """The value that Optuna keeps as this name."""
        return self.values[self.names.index(name)]

    def ends(self) -> tuple[Any, ...]:
        """All of them."""
        return self.values

    @property
    def words(self) -> str:
        return ", ".join(self.names)


@dataclass(frozen=True)
class Search:
    """A search's YAML, checked; see the module's table. ``flags`` are a run's flags, the same for every trial."""

    name: str
    base: dict[str, Any]
    space: dict[str, Range | Choices]
    trials: int = TRIALS
    seed: int = SEED
    by: str = "auc"
    prune: bool = False
    flags: tuple[str, ...] = field(default=())

    def values(self, point: Mapping[str, Any]) -> dict[str, Any]:
        """The keys of a trial: the base's, without the options of another loss, and the point's."""
        return merged(without_replaced_options(self.base, point), point)

    def point(self, trial: "optuna.trial.BaseTrial") -> dict[str, Any]:
        """The values of a trial, by key."""
        return {key: values.suggest(trial, key) for key, values in self.space.items()}

    def extremes(self) -> list[dict[str, Any]]:
        """Points that have every choice and both ends of every range at least once."""
        ends = {key: values.ends() for key, values in self.space.items()}
        most = max(map(len, ends.values()))
        return [{key: values[number % len(values)] for key, values in ends.items()} for number in range(most)]

    def settings(self) -> dict[str, Any]:
        """What two starts of a search have in common, besides their runs' settings; the number of trials may grow."""
        space = {key: values.words for key, values in self.space.items()}
        return {"space": space, "seed": self.seed, "by": self.by, "prune": self.prune}


def load_search(path: str | Path, flags: Sequence[str] = (), *, trials: int | None = None) -> Search:
    """Read and check a search's YAML.

    Args:
        path: the file.
        flags: a run's flags, such as --nih_root DIR, that override every trial's keys.
        trials: in place of the file's.

    Raises:
        FileNotFoundError, ValueError: see the module's first lines.
    """
    path = config_file(path)
    if not path.is_file():
        raise FileNotFoundError(f"no such search: {path}")
    values = as_mapping(read_yaml(path, text_keys=text_keys() | {"base"}), str(path))
    for key in values:
        if key not in KEYS:
            raise ValueError(unknown_key(key, str(path), KEYS))
    for key in ("base", "space"):
        if not values.get(key):
            raise ValueError(f"{path} has no key {key}")
    where = f"space of {path}"
    space = as_mapping(values["space"], where)
    check_run_keys(space, where, (*SET_BY_COMPARISON, *NOT_IN_COMPARISON), set_by="search")
    search = Search(
        name=path.stem,
        base=base_values(values, path, set_by="search"),
        space={key: _dimension(key, written, where) for key, written in space.items()},
        trials=_whole("trials", trials if trials is not None else values.get("trials", TRIALS), path, least=1),
        seed=_whole("seed", values.get("seed", SEED), path, least=0),
        by=_metric(values.get("by", "auc"), path),
        prune=_switch("prune", values.get("prune", False), path),
        flags=tuple(flags),
    )
    check_shared_flags(search.flags, list(search.space), path, runs="trials", set_by="search")
    return search


def _dimension(key: str, written: Any, where: str) -> Range | Choices:
    if isinstance(written, list):
        choices = Choices(tuple(written))
        if len(written) < 2 or len(set(choices.names)) < len(written):
            raise ValueError(f"{key} in the {where} is {written!r}; give two or more different values")
        return choices
    if not isinstance(written, Mapping) or not {"low", "high"} <= set(written):
        raise ValueError(
            f"{key} in the {where} is {written!r}; write a list of choices, or {{low: 1e-5, high: 1e-3, log: true}}"
        )
    for name in written:
        if name not in RANGE:
            nearest = difflib.get_close_matches(str(name), RANGE, n=1)
            hint = f"did you mean {nearest[0]}?" if nearest else f"known: {', '.join(RANGE)}"
            raise ValueError(f"unknown key {name} for {key} in the {where}; {hint}")
    numbers = [_number(written.get(name), f"{name} of {key} in the {where}") for name in ("low", "high", "step")]
    low, high, step = numbers
    log = _switch(f"log of {key}", written.get("log", False), where)
    kind = written.get("type")
    if kind not in (None, "int", "float"):
        raise ValueError(f"type of {key} in the {where} is {kind!r}; write int or float")
    whole = kind == "int" or (kind is None and all(isinstance(one, int) for one in (low, high)))
    if whole and not all(float(one).is_integer() for one in (low, high, step or 1)):
        raise ValueError(f"{key} in the {where} is of whole numbers, but low, high and step are {low}, {high}, {step}")
    if not low < high:
        raise ValueError(f"{key} in the {where}: low is {low} and high is {high}; low must be below high")
    if log and (low <= 0 or step):
        raise ValueError(f"{key} in the {where}: log: true needs a low above 0, and no step")
    if step is not None and not 0 < step <= high - low:
        raise ValueError(f"{key} in the {where}: step is {step}; it must be above 0 and at most high - low")
    return Range(low, high, whole, log, step)


def _number(value: Any, what: str) -> float | int | None:
    if value is None:
        return None
    if isinstance(value, str):  # a key whose values are text elsewhere, or 1e-3 in quotes
        try:
            value = float(value)
        except ValueError:
            raise ValueError(f"{what} is {value!r}; it must be a number") from None
    if isinstance(value, bool) or not isinstance(value, int | float) or value != value or abs(value) == float("inf"):
        raise ValueError(f"{what} is {value!r}; it must be a number")
    return value


def _whole(key: str, value: Any, path: Path, *, least: int) -> int:
    if type(value) is not int or value < least:
        raise ValueError(f"{key} of {path} is {value!r}; it must be a whole number, at least {least}")
    return value


def _switch(key: str, value: Any, where: str | Path) -> bool:
    if not isinstance(value, bool):
        raise ValueError(f"{key} in {where} is {value!r}; it must be true or false")
    return value


def _metric(value: Any, path: Path) -> str:
    if "test" in str(value).lower():
        raise ValueError(
            f"by in {path} is {value}: a search reads validation alone, and never the test set; write the metric, "
            "such as auc"
        )
    try:
        return metric_key(value)
    except ValueError as error:
        raise ValueError(f"by in {path}: {error}") from error
