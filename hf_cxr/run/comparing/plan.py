"""A comparison's YAML: read, and checked before anything is started; `compare` lists its keys."""

import itertools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from hf_cxr.arguments.components import KWARGS, flattened, merged
from hf_cxr.arguments.spelling import current_spelling
from hf_cxr.config import (
    EvaluationArguments,
    LossArguments,
    config_file,
    known_keys,
    text_keys,
    unknown_key,
    without_replaced_options,
)
from hf_cxr.evaluation.comparison import COMPARED_RESAMPLES
from hf_cxr.evaluation.kernels import metric_key
from hf_cxr.reporting.comparison.score_files import ScoreFile
from hf_cxr.words import plural
from hf_cxr.yaml_files import read_yaml

KEYS = ("base", "overrides", "methods", "baseline", "seeds", "tune", "tiers", "resamples", "confidence")
# Keys that the comparison sets itself, or that do not belong in one.
SET_BY_COMPARISON = ("output_dir", "seed", "measure_test", "disable_tqdm", "resume_from_checkpoint")
NOT_IN_COMPARISON = ("push_to_hub", "on_existing_run", *(key for key in known_keys() if key.startswith("hub_")))


@dataclass(frozen=True)
class Tuning:
    """Every combination of the grid's values, with one seed; the best validation figure decides."""

    grid: dict[str, list[Any]]
    seed: int
    by: str

    def points(self) -> list[dict[str, Any]]:
        return [dict(zip(self.grid, values, strict=True)) for values in itertools.product(*self.grid.values())]


@dataclass(frozen=True)
class Plan:
    """A comparison's YAML, checked; see the module's table. ``flags`` are a run's flags, the same for every run.

    ``methods`` are those that are trained; ``files`` are the rows that are only a file of predictions.
    """

    name: str
    base: dict[str, Any]
    methods: dict[str, dict[str, Any]]
    baseline: str
    seeds: tuple[int, ...]
    tuning: Tuning | None = None
    tiers: dict[str, int] = field(default_factory=dict)
    resamples: int = COMPARED_RESAMPLES
    confidence: float = EvaluationArguments.confidence
    flags: tuple[str, ...] = ()
    files: dict[str, ScoreFile] = field(default_factory=dict)

    def values(self, method: str, point: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """The keys of a method's runs: the base's, without the options of another loss; its own; a point's."""
        own = self.methods[method]
        return merged(merged(without_replaced_options(self.base, own), own), point or {})


def load_plan(path: str | Path, flags: Sequence[str] = ()) -> Plan:
    """Read and check a comparison's YAML.

    Args:
        path: the file.
        flags: a run's flags, such as --nih_root DIR, that override every run's keys.

    Raises:
        FileNotFoundError, ValueError: see the module's first lines.
    """
    path = config_file(path)
    if not path.is_file():
        raise FileNotFoundError(f"no such comparison: {path}")
    values = as_mapping(read_yaml(path, text_keys=text_keys() | {"base", "baseline"}), str(path))
    for key in values:
        if key not in KEYS:
            raise ValueError(unknown_key(key, str(path), KEYS))
    for key in ("base", "methods", "baseline", "seeds"):
        if key not in values:
            raise ValueError(f"{path} has no key {key}")
    methods = {
        name: as_mapping({} if own is None else own, f"{name} in {path}")
        for name, own in as_mapping(values["methods"], f"methods in {path}").items()
    }
    files = {name: _score_file(own, name, path) for name, own in methods.items() if "predictions" in own}
    methods = {name: own for name, own in methods.items() if name not in files}
    tuning = _tuning(values["tune"], path) if values.get("tune") else None
    tiers = as_mapping(values.get("tiers", {}), f"tiers in {path}")
    plan = Plan(
        name=path.stem,
        base=base_values(values, path),
        methods=methods,
        baseline=str(values["baseline"]),
        seeds=_whole_numbers(values["seeds"], path),
        tuning=tuning,
        tiers=tiers,
        flags=tuple(flags),
        files=files,
        **{key: values[key] for key in ("resamples", "confidence") if key in values},
    )
    _check_plan(plan, path)
    return plan


def _check_plan(plan: Plan, path: Path) -> None:
    if not plan.methods:
        raise ValueError(f"{path} names no method that is trained")
    if plan.baseline in plan.files:
        raise ValueError(
            f"baseline {plan.baseline} in {path} is a file of predictions; the baseline must be trained here, because "
            "the report describes the data and the protocol of its runs"
        )
    if plan.baseline not in plan.methods:
        raise ValueError(f"baseline {plan.baseline} in {path} is not among the methods: {', '.join(plan.methods)}")
    slugs: dict[str, str] = {}
    for method, own in plan.methods.items():
        slug = folder_name(method).casefold()
        if not slug:
            raise ValueError(f"the method {method!r} in {path} has no letter or digit for a folder's name; rename it")
        if slug in slugs:
            raise ValueError(f"the method {method!r} in {path} would have the folder of {slugs[slug]}; rename one")
        slugs[slug] = method
        check_run_keys(own, f"{method} in {path}", (*SET_BY_COMPARISON, *NOT_IN_COMPARISON))
    grid = plan.tuning.grid if plan.tuning else {}
    for key in grid:
        users = [method for method, own in plan.methods.items() if key in flattened(own)]
        if users:
            raise ValueError(f"{key} in {path} is tuned and also set by {', '.join(users)}; remove one of the two")
    if set(plan.tiers) - {"head", "tail"}:
        raise ValueError(unknown_key(min(set(plan.tiers) - {"head", "tail"}), f"tiers in {path}", ("head", "tail")))
    if not (isinstance(plan.resamples, int) and plan.resamples >= 100):
        raise ValueError(f"resamples in {path} is {plan.resamples}; it must be a whole number, at least 100")
    if not 0 < plan.confidence < 1:
        raise ValueError(f"confidence in {path} is {plan.confidence}; it must be between 0 and 1")
    comparisons = 3 * (len(plan.methods) + len(plan.files) - 1)  # within three tiers: the most that p is corrected for
    level = 1 - plan.confidence
    if _least_p(comparisons, plan.resamples) >= level:
        enough = next(draws for draws in itertools.count(100) if _least_p(comparisons, draws) < level)
        raise ValueError(
            f"resamples in {path} is {plan.resamples}: after correction for {plural(comparisons, 'comparison')} "
            f"within tiers no p value could be below {_least_p(comparisons, plan.resamples):.3f}, and no difference "
            f"could be shown at {level:.3g}; give at least {enough}"
        )
    varied = [*grid, *(key for own in plan.methods.values() for key in flattened(own))]
    check_shared_flags(plan.flags, varied, path)


def check_shared_flags(
    flags: Sequence[str], varied: Sequence[str], path: Path, *, runs: str = "runs", set_by: str = "comparison"
) -> None:
    """Refuse flags for all runs of keys that the comparison or search sets or varies.

    Args:
        flags: the words.
        varied: keys in which the runs differ.
        path: of the YAML.
        runs: what the message calls them.
        set_by: what the message calls the whole.

    Raises:
        ValueError: with the flag.
    """
    fixed = {*SET_BY_COMPARISON, *NOT_IN_COMPARISON, *varied, *(key.split(".")[0] for key in varied)}
    for word in flags:
        key = word.lstrip("-").split("=")[0].replace("-", "_")  # argparse takes --weight-decay as well
        if word.startswith("--") and key in fixed:
            raise ValueError(f"--{key} cannot be given to all {runs}: the {set_by} sets it; change it in {path}")


def _least_p(comparisons: int, resamples: int) -> float:
    """The least corrected p value that so many draws can give: two-sided, none of the draws beyond 0."""
    return 2 * comparisons / (resamples + 1)


def _score_file(own: Mapping[str, Any], name: str, path: Path) -> ScoreFile:
    """A row that is only a file of predictions; its path is from the YAML's folder, or from here."""
    where = f"{name} in {path}"
    for key in own:
        if key not in ("predictions", "scores"):
            raise ValueError(
                f"{key} of {where} is a key of training, but {name} is a file of predictions: leave out one"
            )
    if own.get("scores") not in (None, "probabilities", "logits"):
        raise ValueError(f"scores of {where} is {own['scores']!r}; write probabilities or logits")
    text = str(own["predictions"])
    found = [place for place in (path.parent / text, Path(text)) if place.exists()]
    if not found:
        raise ValueError(f"predictions of {where}: no such file: {text}")
    return ScoreFile(found[0], own.get("scores"))


def base_values(values: dict[str, Any], path: Path, *, set_by: str = "comparison") -> dict[str, Any]:
    """The keys that every run has: ``base``, which may be the path of a run's YAML, and ``overrides``.

    Args:
        values: of the YAML.
        path: of the YAML.
        set_by: "comparison" or "search", for messages.

    Raises:
        ValueError: an unknown key, or one that a comparison or search sets itself.
    """
    base, over = values["base"], as_mapping(values.get("overrides", {}), f"overrides in {path}")
    where = str(path)
    if isinstance(base, str):
        found = [place for place in (path.parent / base, Path(base)) if place.is_file()]
        if not found:
            raise ValueError(f"base in {path}: no such file: {base}")
        where, base = str(found[0]), read_yaml(found[0], text_keys=text_keys()) or {}
    elif over:
        raise ValueError(f"overrides in {path} go with a base that is a path; put them into base")
    base = current_spelling(as_mapping(base, f"base in {where}"), f"base in {where}")
    check_run_keys(base, f"base in {where}", NOT_IN_COMPARISON, set_by=set_by)
    check_run_keys(over, f"overrides in {path}", (*SET_BY_COMPARISON, *NOT_IN_COMPARISON), set_by=set_by)
    base = without_replaced_options(base, over)
    base = {key: value for key, value in base.items() if key not in SET_BY_COMPARISON}
    return {"loss": LossArguments.loss} | merged(base, over)


def _tuning(values: Any, path: Path) -> Tuning:
    where = f"tune in {path}"
    values = as_mapping(values, where)
    for key in values:
        if key not in ("grid", "seed", "by"):
            raise ValueError(unknown_key(key, where, ("grid", "seed", "by")))
    grid = as_mapping(values.get("grid"), f"grid of {where}")
    check_run_keys(grid, f"grid of {where}", (*SET_BY_COMPARISON, *NOT_IN_COMPARISON))
    for key, points in grid.items():
        if not isinstance(points, list) or not points:
            raise ValueError(f"{key} in the grid of {where} is {points!r}; it must be a list of values")
    # Points are named as they are written: 1e-3 stays 1e-3 in the report and in the names of folders. As an option of
    # a component, where nothing says that text is to become a number, 1e-3 is the number.
    written = yaml.safe_load(path.read_text(encoding="utf-8-sig"))["tune"]["grid"]
    grid = {
        key: points if "." in key or any(isinstance(v, dict | list) for v in points) else written.get(key, points)
        for key, points in grid.items()
    }
    try:
        by = metric_key(values.get("by", "auc"))
    except ValueError as error:
        raise ValueError(f"by in {where}: {error}") from error
    return Tuning(grid, _whole_numbers([values.get("seed", 1000)], path)[0], by)


def check_run_keys(
    values: Mapping[str, Any], where: str, refused: Sequence[str], *, set_by: str = "comparison"
) -> None:
    """Refuse keys that no run has, and those of ``refused``, which the comparison or search (``set_by``) sets.

    Raises:
        ValueError: with the nearest key.
    """
    for key in current_spelling(values, where):
        if key in refused:
            raise ValueError(f"{key} cannot be set for {where}: the {set_by} sets it, or it does not belong in one")
        mapping, dot, _ = key.partition(".")
        if key not in known_keys() and not (dot and mapping in KWARGS.values()):
            raise ValueError(unknown_key(key, where))


def _whole_numbers(values: Any, path: Path) -> tuple[int, ...]:
    good = isinstance(values, list) and values and all(type(value) is int and value >= 0 for value in values)
    if not good or len(set(values)) < len(values):
        raise ValueError(f"seeds in {path} are {values!r}; they must be different whole numbers, 0 or more")
    return tuple(values)


def as_mapping(values: Any, where: str) -> dict[str, Any]:
    """The value, if it is a mapping.

    Raises:
        ValueError: it is something else.
    """
    if not isinstance(values, dict):
        raise ValueError(f"{where} must contain one 'key: value' a line; it contains a {type(values).__name__}")
    return values


def folder_name(name: str) -> str:
    """A folder's name, on Windows too: no colon, no dot at the end, and not the name of a device."""
    slug = re.sub(r"[^A-Za-z0-9.+-]+", "_", name).strip("_").rstrip(".")
    device = re.fullmatch(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", slug, re.IGNORECASE)
    return f"{slug}_" if device else slug
