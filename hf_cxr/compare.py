"""A comparison of methods from one YAML: tune each on validation, train each with every seed, write one report.

| key          | meaning                                                                                              |
|--------------|------------------------------------------------------------------------------------------------------|
| `base`       | a run's keys, or the path of a run's YAML (from this file's folder, or from here)                    |
| `overrides`  | with a path: keys that go over it                                                                    |
| `methods`    | printed name -> keys in which the method differs, such as {loss: focal, gamma: 2}                    |
| `baseline`   | the name of the method that the others are compared with                                             |
| `seeds`      | one run of each method for each                                                                      |
| `tune`       | `grid`: key -> values, each method tried on every combination; `seed` of these runs; `by`: the       |
|              | validation figure that decides, auc or mean_average_precision. Left out: nothing is tuned            |
| `tiers`      | `head`, `tail`: numbers of positive training images that divide the findings, see `LabelSpace.tiers` |
| `resamples`  | draws of patients behind intervals and p values                                                      |
| `confidence` | of the intervals                                                                                     |

Each run is a `hf-cxr train` in a process and a folder of its own. Tuning runs never predict a test image
(`measure_test: false`). A run that is finished with the same settings is not repeated and one that was stopped goes
on, so the same command goes on after a crash. A run that fails is named, with the end of its log; the others go on.

Refused, before anything is started: an unknown key (with the nearest), settings that contradict each other, an option
that a method's loss does not take, two names for one folder, a baseline that is no method, fewer draws than a low
corrected p value needs, a folder whose runs were made with other settings.
"""

import fcntl
import itertools
import json
import logging
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from tqdm.auto import tqdm

from hf_cxr.comparison_report import ComparisonReport, TunedPoint, build_report
from hf_cxr.config import (
    LossArguments,
    RunArguments,
    known_keys,
    parse_arguments,
    unknown_key,
    without_others_options,
)
from hf_cxr.files import write_text
from hf_cxr.losses import build_loss
from hf_cxr.run import check_reweighting
from hf_cxr.run_folder import FREE_ON_RESUME

logger = logging.getLogger(__name__)

KEYS = ("base", "overrides", "methods", "baseline", "seeds", "tune", "tiers", "resamples", "confidence")
FIGURES = ("auc", "mean_average_precision")
TRAIN = "import sys; from hf_cxr.commands.train import main; sys.exit(main())"

# Keys that the comparison sets itself, or that have no place in one.
OURS = ("output_dir", "seed", "measure_test", "disable_tqdm", "resume_from_checkpoint")
NOT_HERE = ("push_to_hub", "on_existing_run", *(key for key in known_keys() if key.startswith("hub_")))

# What a run derives from its devices: no reason to take it for another one.
FROM_DEVICES = {"images_per_step", "use_cpu"}

# Of a launcher around this program, not of the runs.
OF_A_LAUNCHER = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


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
    """A comparison's YAML, checked; see the module's table. ``flags`` are a run's flags, the same for every run."""

    name: str
    base: dict[str, Any]
    methods: dict[str, dict[str, Any]]
    baseline: str
    seeds: tuple[int, ...]
    tuning: Tuning | None = None
    tiers: dict[str, int] = field(default_factory=dict)
    resamples: int = 2000
    confidence: float = 0.95
    flags: tuple[str, ...] = ()

    def values(self, method: str) -> dict[str, Any]:
        """The keys of a method's runs: those of the base, without the options of its loss or sampler if others."""
        own = self.methods[method]
        return without_others_options(self.base, own) | own


@dataclass(frozen=True)
class Run:
    """One run of the comparison: its keys, its folder and the file that says it is finished."""

    method: str
    label: str
    values: dict[str, Any]
    folder: Path
    settings: Path
    log: Path
    result: str

    @property
    def name(self) -> str:
        return f"{self.method}, {self.label}"

    def read_result(self) -> dict[str, Any] | None:
        """What the finished run measured; None if it is not finished."""
        path = self.folder / self.result
        return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None


def load_plan(path: str | Path, flags: Sequence[str] = ()) -> Plan:
    """Read and check a comparison's YAML.

    Args:
        path: the file.
        flags: a run's flags, such as --nih_root DIR, that go over every run's keys.

    Raises:
        FileNotFoundError, ValueError: see the module's first lines.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no such comparison: {path}")
    values = _mapping(yaml.load(path.read_text(encoding="utf-8"), _UniqueKeys), str(path))
    for key in values:
        if key not in KEYS:
            raise ValueError(unknown_key(key, str(path), KEYS))
    for key in ("base", "methods", "baseline", "seeds"):
        if key not in values:
            raise ValueError(f"{path} lacks the key {key}")
    methods = {str(name): _mapping(own or {}, f"{name} in {path}") for name, own in values["methods"].items()}
    tuning = _tuning(values["tune"], path) if values.get("tune") else None
    tiers = _mapping(values.get("tiers", {}), f"tiers in {path}")
    plan = Plan(
        name=path.stem,
        base=_base(values, path),
        methods=methods,
        baseline=str(values["baseline"]),
        seeds=_whole_numbers(values["seeds"], path),
        tuning=tuning,
        tiers=tiers,
        resamples=values.get("resamples", 2000),
        confidence=values.get("confidence", 0.95),
        flags=tuple(flags),
    )
    _check_plan(plan, path)
    return plan


def compare(plan: Plan, out: str | Path, *, jobs: int | None = None) -> ComparisonReport | None:
    """Do what is left of a comparison and write its report: comparison.{md,tex,csv,html,json} and figures.

    Args:
        plan: from `load_plan`.
        out: the folder of the runs and of the report.
        jobs: runs at once; by default one a GPU, one without any.

    Returns:
        The report, whose ``missing`` names the runs that failed; None if no method has a finished run.

    Raises:
        ValueError: a folder below ``out`` holds a run of other settings, or runs that cannot be compared.
    """
    out = Path(out)
    devices = visible_devices()
    jobs = jobs or max(1, len(devices))
    tuning, final = tuning_runs(plan, out), final_runs(plan, out, {})
    for run in (*tuning, *final):
        check_run(run, plan)
    _check_folders(tuning, plan)
    count = len(tuning) + len(final)
    with tqdm(total=count, desc="Runs", unit="run") as bar:
        failed = work(tuning, plan, jobs, devices, bar)
        tuned = {method: tuned_points(plan, out, method) for method in plan.methods} if plan.tuning else {}
        chosen = {method: best_point(points) for method, points in tuned.items()}
        log_choice(chosen)
        without = {method for method, point in chosen.items() if point is None}
        final = [run for run in final_runs(plan, out, chosen) if run.method not in without]
        _check_folders(final, plan)
        failed |= work(final, plan, jobs, devices, bar)
        failed |= {f"{method}, all seeds": "its tuning is not complete, so it was not trained" for method in without}
    folders = {method: {} for method in plan.methods}
    for run in final:
        if run.read_result() is not None:
            folders[run.method][run.values["seed"]] = run.folder
    if not folders[plan.baseline]:
        logger.error("no run of the baseline %s is finished: there is nothing to compare with", plan.baseline)
        return None
    logger.info("measuring %d runs in %s draws of patients", sum(map(len, folders.values())), f"{plan.resamples:,}")
    report = build_report(
        plan.name,
        folders,
        baseline=plan.baseline,
        tuned=tuned,
        tuned_by=plan.tuning.by if plan.tuning else None,
        missing=failed,
        tiers=plan.tiers,
        resamples=plan.resamples,
        confidence=plan.confidence,
    )
    report.write(out)
    return report


def tuning_runs(plan: Plan, out: Path) -> list[Run]:
    """A run for every method and point of the grid; none without `tune`."""
    if plan.tuning is None:
        return []
    return [
        _run(
            out,
            "tuning",
            method,
            ", ".join(f"{key} {value}" for key, value in point.items()),
            plan.values(method) | point | {"seed": plan.tuning.seed, "measure_test": False},
        )
        for method in plan.methods
        for point in plan.tuning.points()
    ]


def final_runs(plan: Plan, out: Path, chosen: Mapping[str, Mapping[str, Any] | None]) -> list[Run]:
    """A run for every method and seed, seed by seed, so that an early look has all methods."""
    return [
        _run(out, "runs", method, f"seed {seed}", plan.values(method) | (chosen.get(method) or {}) | {"seed": seed})
        for seed in plan.seeds
        for method in plan.methods
    ]


def tuned_points(plan: Plan, out: Path, method: str) -> list[TunedPoint]:
    """Every point of the grid with its validation figures, NaN where the run is not finished."""
    points = []
    for run, point in zip(
        [run for run in tuning_runs(plan, out) if run.method == method], plan.tuning.points(), strict=True
    ):
        figures = (run.read_result() or {}).get("validation", {})
        values = {name: float("nan") if figures.get(name) is None else figures[name] for name in FIGURES}
        points.append(TunedPoint(point, values, values[plan.tuning.by]))
    return points


def best_point(points: Sequence[TunedPoint]) -> dict[str, Any] | None:
    """The point of the best figure, the first of equal ones; None while one is missing."""
    figures = [point.figure for point in points]
    return None if np.isnan(figures).any() else points[int(np.argmax(figures))].values


def log_choice(chosen: Mapping[str, Mapping[str, Any] | None]) -> None:
    for method, point in chosen.items():
        if point is not None:
            logger.info("%s: chosen on validation: %s", method, ", ".join(f"{k} {v}" for k, v in point.items()))


def check_run(run: Run, plan: Plan) -> RunArguments:
    """A run's arguments, parsed as the run will.

    Raises:
        SystemExit: status 2 with one line, as `parse_arguments`.
        ValueError: the loss does not take an option, or not its value, or it does not go with the run's stages.
    """
    # images_per_step is about the devices of a run, which are not those of this process.
    values = {key: value for key, value in run.values.items() if key != "images_per_step"}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"{run.settings.stem}.yaml"
        path.write_text(yaml.safe_dump(values), encoding="utf-8")
        args = parse_arguments([str(path), *plan.flags], prog=f"hf-cxr compare: {run.name}")
    loss, count = args.loss, len(args.loss.given_class_weights or [1, 1])
    try:
        built = build_loss(
            loss.loss,
            positives_C=[1] * count,
            known_C=[2] * count,
            class_weights=loss.class_weights,
            given_class_weights=loss.given_class_weights,
            beta=loss.effective_number_beta,
            **loss.options(),
        )
        check_reweighting(args, built)
    except ValueError as error:
        raise ValueError(f"{run.method}: {error}") from error
    return args


def work(runs: Sequence[Run], plan: Plan, jobs: int, devices: Sequence[str], bar: tqdm) -> dict[str, str]:
    """Do the runs that are not finished, ``jobs`` at once.

    Returns:
        For each run that failed, by its name, the end of its log.
    """
    waiting, failed, held = deque(runs), {}, set()
    running: dict[int, tuple[Run, subprocess.Popen, float]] = {}
    try:
        while waiting or running:
            for slot in range(jobs):
                for _ in range(len(waiting) if slot not in running else 0):
                    run = waiting.popleft()
                    if run.read_result() is not None:
                        bar.update()
                        continue
                    process = _start(run, plan, _environment(slot, jobs, devices))
                    if process is not None:
                        running[slot] = (run, process, time.monotonic())
                        break
                    if run.name not in held:
                        logger.info("%s: a process of an earlier start is still at it; waiting for its end", run.name)
                        held.add(run.name)
                    waiting.append(run)
            time.sleep(0.2)
            for slot, (run, process, began) in list(running.items()):
                if process.poll() is not None:
                    del running[slot]
                    failed |= _settle(run, process.returncode, (time.monotonic() - began) / 60)
                    bar.update()
    finally:
        for _, process, _ in running.values():
            process.terminate()
        for _, process, _ in running.values():
            process.wait()
    return failed


def visible_devices() -> list[str]:
    """Names of the GPUs as CUDA_VISIBLE_DEVICES takes them; none on a machine without."""
    count = torch.cuda.device_count()  # looks, and does not occupy one
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    return named.split(",")[:count] if named else [str(number) for number in range(count)]


def _run(out: Path, kind: str, method: str, label: str, values: dict[str, Any]) -> Run:
    folder = out / kind / _slug(method) / _slug(label.replace("seed ", "seed"))
    name = f"{kind}-{_slug(method)}-{folder.name}"
    result = "validation.json" if kind == "tuning" else "metrics.json"
    values = values | {"output_dir": str(folder), "disable_tqdm": True}
    return Run(method, label, values, folder, out / "settings" / f"{name}.yaml", out / "logs" / f"{name}.log", result)


def _start(run: Run, plan: Plan, environment: dict[str, str]) -> subprocess.Popen | None:
    """The run's process; None if one of an earlier start, that outlived this program, is still at it."""
    run.log.parent.mkdir(parents=True, exist_ok=True)
    write_text(run.settings, yaml.safe_dump(run.values, sort_keys=True))
    with run.log.open("a", encoding="utf-8") as log:
        # The process inherits the open file, and the lock with it: it is held until the process ends, however that is.
        try:
            fcntl.flock(log, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return None
        log.write(f"--- {time.strftime('%Y-%m-%d %H:%M:%S')} {run.name}\n")
        log.flush()
        command = [sys.executable, "-c", TRAIN, str(run.settings), *plan.flags]
        return subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, env=environment
        )


def _environment(slot: int, jobs: int, devices: Sequence[str]) -> dict[str, str]:
    environment = {key: value for key, value in os.environ.items() if key not in OF_A_LAUNCHER}
    package = str(Path(__file__).parents[1])
    environment["PYTHONPATH"] = os.pathsep.join([package, *filter(None, [environment.get("PYTHONPATH")])])
    if devices:
        environment["CUDA_VISIBLE_DEVICES"] = devices[slot % len(devices)]
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    environment.setdefault("OMP_NUM_THREADS", str(max(1, cores // jobs)))
    return environment


def _settle(run: Run, status: int, minutes: float) -> dict[str, str]:
    """Say how a run ended; {} or its name with the end of its log."""
    result = run.read_result()
    if status == 0 and result is not None:
        validation = result["validation"]
        auc = validation.get("auc", validation.get("macro_auc"))
        figure = "undefined" if auc is None else f"{auc:.3f}"
        logger.info("%s: validation AUC %s, %.1f minutes", run.name, figure, minutes)
        if run.result == "validation.json":  # its figures and curves stay; a checkpoint is as large as the model
            for checkpoint in run.folder.glob("checkpoint-*"):
                shutil.rmtree(checkpoint)
        return {}
    lines = [line.strip() for line in run.log.read_text(encoding="utf-8", errors="replace").splitlines()]
    end = " | ".join([line for line in lines if line][-3:])
    logger.error("%s failed with status %d after %.1f minutes: %s (%s)", run.name, status, minutes, end, run.log)
    return {run.name: end}


def _check_folders(runs: Sequence[Run], plan: Plan) -> None:
    """Refuse a folder whose run, finished or not, has other settings than the plan now gives it."""
    for run in runs:
        config = run.folder / "config.yaml"
        if not config.is_file():
            continue
        before = yaml.safe_load(config.read_text(encoding="utf-8"))
        now = yaml.safe_load(yaml.safe_dump(check_run(run, plan).to_dict()))
        free = FREE_ON_RESUME | FROM_DEVICES
        changed = [key for key in now if key not in free and before.get(key) != now[key]]
        if changed:
            listing = ", ".join(f"{key} was {before.get(key)} and is now {now[key]}" for key in changed[:5])
            raise ValueError(
                f"{run.folder} holds a run of {run.method} with other settings ({listing}); give another --out, or "
                "remove that folder to have the run made anew"
            )


def _check_plan(plan: Plan, path: Path) -> None:
    if not plan.methods:
        raise ValueError(f"{path} names no method")
    if plan.baseline not in plan.methods:
        raise ValueError(f"baseline {plan.baseline} in {path} is not among the methods: {', '.join(plan.methods)}")
    slugs: dict[str, str] = {}
    for method, own in plan.methods.items():
        slug = _slug(method).casefold()
        if not slug or slug in slugs:
            raise ValueError(f"the method {method!r} in {path} has no folder of its own: {slugs.get(slug, 'no name')}")
        slugs[slug] = method
        _check_run_keys(own, f"{method} in {path}", (*OURS, *NOT_HERE))
    grid = plan.tuning.grid if plan.tuning else {}
    for key in grid:
        users = [method for method, own in plan.methods.items() if key in own]
        if users:
            raise ValueError(f"{key} in {path} is tuned and also set by {', '.join(users)}; one of the two")
    if set(plan.tiers) - {"head", "tail"}:
        raise ValueError(unknown_key(min(set(plan.tiers) - {"head", "tail"}), f"tiers in {path}", ("head", "tail")))
    if not (isinstance(plan.resamples, int) and plan.resamples >= 100):
        raise ValueError(f"resamples in {path} is {plan.resamples}; it must be a whole number, at least 100")
    if not 0 < plan.confidence < 1:
        raise ValueError(f"confidence in {path} is {plan.confidence}; it must be between 0 and 1")
    least = 2 * 3 * (len(plan.methods) - 1) / (plan.resamples + 1)  # of the corrected p values within three tiers
    if least >= 1 - plan.confidence:
        raise ValueError(
            f"resamples in {path} is {plan.resamples}: after correction for {3 * (len(plan.methods) - 1)} comparisons "
            f"within tiers no p value could be below {least:.3f}, and nothing be told apart at "
            f"{1 - plan.confidence:.3g}; give more"
        )
    fixed = {*OURS, *NOT_HERE, *grid, *(key for own in plan.methods.values() for key in own)}
    for word in plan.flags:
        key = word.lstrip("-").split("=")[0].replace("-", "_")  # argparse takes --weight-decay as well
        if word.startswith("--") and key in fixed:
            raise ValueError(f"--{key} is not for all runs alike: the comparison sets it; change it in {path}")


def _base(values: dict[str, Any], path: Path) -> dict[str, Any]:
    base, over = values["base"], _mapping(values.get("overrides", {}), f"overrides in {path}")
    where = str(path)
    if isinstance(base, str):
        found = [place for place in (path.parent / base, Path(base)) if place.is_file()]
        if not found:
            raise ValueError(f"base in {path}: there is no such file as {base}")
        where, base = str(found[0]), yaml.safe_load(found[0].read_text(encoding="utf-8")) or {}
    elif over:
        raise ValueError(f"overrides in {path} go with a base that is a path; put them into base")
    base = _mapping(base, f"base in {where}")
    _check_run_keys(base, f"base in {where}", NOT_HERE)
    _check_run_keys(over, f"overrides in {path}", (*OURS, *NOT_HERE))
    base = without_others_options(base, over)
    base = {key: value for key, value in base.items() if key not in OURS} | over
    return {"loss": LossArguments.loss} | base


def _tuning(values: Any, path: Path) -> Tuning:
    where = f"tune in {path}"
    values = _mapping(values, where)
    for key in values:
        if key not in ("grid", "seed", "by"):
            raise ValueError(unknown_key(key, where, ("grid", "seed", "by")))
    grid = _mapping(values.get("grid"), f"grid of {where}")
    _check_run_keys(grid, f"grid of {where}", (*OURS, *NOT_HERE))
    for key, points in grid.items():
        if not isinstance(points, list) or not points:
            raise ValueError(f"{key} in the grid of {where} is {points!r}; it must be a list of values")
    by = values.get("by", "auc")
    if by not in FIGURES:
        raise ValueError(f"by in {where} is {by!r}; choose from {', '.join(FIGURES)}")
    return Tuning(grid, _whole_numbers([values.get("seed", 1000)], path)[0], by)


def _check_run_keys(values: Mapping[str, Any], where: str, refused: Sequence[str]) -> None:
    for key in values:
        if key in refused:
            raise ValueError(f"{key} cannot be set for {where}: the comparison sets it, or it has no place in one")
        if key not in known_keys():
            raise ValueError(unknown_key(key, where))


def _whole_numbers(values: Any, path: Path) -> tuple[int, ...]:
    good = isinstance(values, list) and values and all(type(value) is int and value >= 0 for value in values)
    if not good or len(set(values)) < len(values):
        raise ValueError(f"seeds in {path} are {values!r}; they must be different whole numbers, 0 or more")
    return tuple(values)


def _mapping(values: Any, where: str) -> dict[str, Any]:
    if not isinstance(values, dict):
        raise ValueError(f"{where} must hold one 'key: value' a line; it holds a {type(values).__name__}")
    return values


def _slug(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9.+-]+", "_", name).strip("_")


class _UniqueKeys(yaml.SafeLoader):
    """YAML in which a key that stands twice is an error: of two methods of one name, the last would win in silence."""

    def construct_mapping(self, node, deep=False):
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        twice = [key for key in keys if keys.count(key) > 1]
        if twice:
            raise ValueError(f"{twice[0]} stands twice in one mapping, the last in line {node.end_mark.line}")
        return super().construct_mapping(node, deep)
