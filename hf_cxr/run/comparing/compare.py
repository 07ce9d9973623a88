"""A comparison of methods from one YAML: tune each on validation, train each with every seed, write one report.

| key          | meaning                                                                                              |
|--------------|------------------------------------------------------------------------------------------------------|
| `base`       | a run's keys, or the path of a run's YAML (from this file's folder, or from here)                    |
| `overrides`  | with a path: keys that override it                                                                   |
| `methods`    | printed name -> keys in which the method differs, such as {loss: focal, gamma: 2}; or {predictions:  |
|              | FILE_OR_RUN}, another program's scores of the test images, which are measured beside the runs        |
| `baseline`   | the name of the method that every other method is compared with                                      |
| `seeds`      | one run of each method for each                                                                      |
| `tune`       | `grid`: key -> values (also an option, such as loss_kwargs.gamma: [1, 2]), each method tried on      |
|              | every combination; `seed` of these runs; `by`: the metric that decides, on validation, from METRICS. |
|              | Left out: nothing is tuned                                                                           |
| `tiers`      | `head`, `tail`: numbers of positive training images that divide the findings, see `LabelSpace.tiers` |
| `resamples`  | draws of patients behind intervals and p values                                                      |
| `confidence` | of the intervals                                                                                     |

Each run is a `hf-cxr train` in a separate process and folder. Tuning runs never predict a test image
(`measure_test: false`). A finished run with the same settings is not repeated and a stopped one resumes, so the
same command continues after a crash. A failed run is reported with the end of its log, and the rest continue.

Refused, before anything is started: an unknown key (with the nearest), settings that contradict each other, an option
that a method's loss does not take, two names for one folder, a baseline that is not a method, fewer draws than a low
corrected p value needs, a folder whose runs were made with other settings.
"""

import dataclasses
import logging
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from filelock import FileLock, Timeout
from tqdm.auto import tqdm

from hf_cxr.config import FROM_DEVICES, NOT_COMPARED, RunArguments
from hf_cxr.cores import usable_cores
from hf_cxr.data import load_source
from hf_cxr.evaluation import METRICS, headline_metrics, modern_figures
from hf_cxr.evaluation.metric import as_number
from hf_cxr.files import write_text
from hf_cxr.reporting.comparison import ComparisonResults, TunedPoint, compare_runs, write_comparison
from hf_cxr.reporting.numbers import number
from hf_cxr.run.comparing.plan import Plan, folder_name, load_plan
from hf_cxr.run.comparing.scheduler import run_in_slots
from hf_cxr.run.comparing.shared_settings import check_fresh_model, parsed, pinned_settings
from hf_cxr.run.data import started_settings
from hf_cxr.run.evaluating.label_source import labels_of_source
from hf_cxr.run.resume import FREE_ON_RESUME, changed_settings, settings_of
from hf_cxr.saved_models import read_json
from hf_cxr.words import plural
from hf_cxr.yaml_files import dump_yaml, read_yaml

__all__ = [
    "Plan",
    "Run",
    "best_point",
    "check_run",
    "compare",
    "final_runs",
    "load_plan",
    "tuned_points",
    "tuning_runs",
    "work",
]

logger = logging.getLogger(__name__)

BUSY = 75  # exit status of a run whose log another process has locked
TRAIN = f"""
import sys
from filelock import FileLock, Timeout
lock = FileLock(sys.argv[1])
try:
    lock.acquire(timeout=0)  # until this process ends, whatever ends it
except Timeout:
    sys.exit({BUSY})
from hf_cxr.commands import run_command
from hf_cxr.words import plural
sys.exit(run_command("train", sys.argv[2:]))
"""

# Set by a program that launched this one; the runs must not see them.
SET_BY_A_LAUNCHER = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


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
        return modern_figures(read_json(path)) if path.is_file() else None


def compare(plan: Plan, out: str | Path, *, jobs: int | None = None) -> ComparisonResults | None:
    """Do what is left of a comparison and write its report: comparison.{md,tex,csv,html,json} and figures.

    Args:
        plan: from `load_plan`.
        out: the folder of the runs and of the report.
        jobs: runs at once; by default one a GPU, one without any.

    Returns:
        The results, whose ``missing`` names the runs that failed; None if no method has a finished run.

    Raises:
        ValueError: a folder below ``out`` holds a run of other settings, or runs that cannot be compared.
    """
    out = Path(out)
    devices = visible_devices()
    jobs = jobs or max(1, len(devices))
    for run in (*tuning_runs(plan, out), *final_runs(plan, out, {})):
        check_run(run, plan)
    plan = pinned_plan(plan, out)
    tuning, final = tuning_runs(plan, out), final_runs(plan, out, {})
    _check_folders(tuning, plan)
    _check_score_files(plan, check_run(final[0], plan))
    _check_data([run for run in (*tuning, *final) if run.read_result() is None], plan)
    count = len(tuning) + len(final)
    with tqdm(total=count, desc="Runs", unit="run") as bar:
        failed = work(tuning, plan, jobs, devices, bar)
        tuned = {method: tuned_points(plan, out, method) for method in plan.methods} if plan.tuning else {}
        chosen = {method: best_point(points, plan.tuning.by) for method, points in tuned.items()}
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
    logger.info(
        "measuring %s in %s of patients",
        plural(sum(map(len, folders.values())), "run"),
        plural(plan.resamples, "draw"),
    )
    results = compare_runs(
        plan.name,
        folders,
        baseline=plan.baseline,
        tuned=tuned,
        tuned_by=plan.tuning.by if plan.tuning else None,
        missing=failed,
        files=plan.files,
        tiers=plan.tiers,
        resamples=plan.resamples,
        confidence=plan.confidence,
    )
    write_comparison(results, out)
    return results


def pinned_plan(plan: Plan, out: Path) -> Plan:
    """The plan with the data of this moment, or of its earlier start, the same for every run: `pinned_settings`."""
    final = final_runs(plan, out, {})
    folders = [run.folder for run in (*tuning_runs(plan, out), *final)]
    started = next(filter(None, map(started_settings, folders)), None)
    base, flags = pinned_settings(plan.base, plan.flags, check_run(final[0], plan), started)
    return dataclasses.replace(plan, base=base, flags=flags)


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
            plan.values(method, point) | {"seed": plan.tuning.seed, "measure_test": False},
        )
        for method in plan.methods
        for point in plan.tuning.points()
    ]


def final_runs(plan: Plan, out: Path, chosen: Mapping[str, Mapping[str, Any] | None]) -> list[Run]:
    """A run for every method and seed, seed by seed, so that an early look has all methods."""
    return [
        _run(out, "runs", method, f"seed {seed}", plan.values(method, chosen.get(method) or {}) | {"seed": seed})
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
        values = {key: as_number(figures.get(key)) for key in headline_metrics()}
        points.append(TunedPoint(point, values, values[plan.tuning.by]))
    return points


def best_point(points: Sequence[TunedPoint], by: str) -> dict[str, Any] | None:
    """The point of the best figure by a metric, the first of equal ones; None while one is missing."""
    figures = [point.figure for point in points]
    best = np.argmax if METRICS[by].higher_is_better else np.argmin
    return None if np.isnan(figures).any() else points[int(best(figures))].values


def log_choice(chosen: Mapping[str, Mapping[str, Any] | None]) -> None:
    for method, point in chosen.items():
        if point is not None:
            logger.info("%s: chosen on validation: %s", method, ", ".join(f"{k} {v}" for k, v in point.items()))


def check_run(run: Run, plan: Plan) -> RunArguments:
    """A run's arguments, parsed as the run will.

    Raises:
        SystemExit: status 2 with one line, as `parse_arguments`.
        ValueError: a fresh model of another shape than its architecture allows.
    """
    # images_per_step is about the devices of a run, which are not those of this process.
    values = {key: value for key, value in run.values.items() if key != "images_per_step"}
    args = parsed(values, plan.flags, name=run.settings.stem, prog=f"hf-cxr compare: {run.name}")
    check_fresh_model(args, run.method)
    return args


def _check_data(runs: Sequence[Run], plan: Plan) -> None:
    """Read the tables that these runs will read, without an image: what is missing would otherwise fail every run."""
    data = {repr(args.data): args.data for args in (check_run(run, plan) for run in runs)}
    for arguments in data.values():
        load_source(arguments, images=False)


def work(runs: Sequence[Run], plan: Plan, jobs: int, devices: Sequence[str], bar: tqdm) -> dict[str, str]:
    """Do the runs that are not finished, ``jobs`` at once.

    Returns:
        For each run that failed, by its name, the end of its log.
    """
    failed, held = {}, set()

    def start(run: Run, slot: int) -> subprocess.Popen | int | None:
        if run.read_result() is not None:
            return None
        process = _start(run, plan, _environment(slot, jobs, devices))
        if process is None and run.name not in held:
            logger.info("%s: a process of an earlier start is still running it; waiting for it to end", run.name)
            held.add(run.name)
        return BUSY if process is None else process

    with closing(run_in_slots(runs, start, slots=jobs, again=BUSY)) as ended:
        for run, status, seconds in ended:
            if status is not None:
                failed |= _report_end(run, status, seconds / 60)
            bar.update()
    return failed


def visible_devices() -> list[str]:
    """Names of the GPUs as CUDA_VISIBLE_DEVICES takes them; none on a machine without."""
    count = torch.cuda.device_count()  # does not occupy one
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    return named.split(",")[:count] if named else [str(number) for number in range(count)]


def _run(out: Path, kind: str, method: str, label: str, values: dict[str, Any]) -> Run:
    folder = out / kind / folder_name(method) / folder_name(label.replace("seed ", "seed"))
    name = f"{kind}-{folder_name(method)}-{folder.name}"
    result = "validation.json" if kind == "tuning" else "metrics.json"
    values = values | {"output_dir": str(folder), "disable_tqdm": True}
    return Run(method, label, values, folder, out / "settings" / f"{name}.yaml", out / "logs" / f"{name}.log", result)


def _start(run: Run, plan: Plan, environment: dict[str, str]) -> subprocess.Popen | None:
    """The run's process; None while a process that an earlier start left behind is still doing the run."""
    run.log.parent.mkdir(parents=True, exist_ok=True)
    write_text(run.settings, dump_yaml(run.values))
    try:
        with FileLock(run.log, timeout=0):
            pass  # the process takes the lock itself, and so holds it when this program is gone
    except Timeout:
        return None
    with run.log.open("a", encoding="utf-8") as log:
        log.write(f"--- {time.strftime('%Y-%m-%d %H:%M:%S')} {run.name}\n")
        log.flush()
        command = [sys.executable, "-c", TRAIN, str(run.log), str(run.settings), *plan.flags]
        return subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, env=environment
        )


def _environment(slot: int, jobs: int, devices: Sequence[str]) -> dict[str, str]:
    environment = {key: value for key, value in os.environ.items() if key not in SET_BY_A_LAUNCHER}
    package = str(Path(__file__).parents[3])
    environment["PYTHONPATH"] = os.pathsep.join([package, *filter(None, [environment.get("PYTHONPATH")])])
    if devices:
        environment["CUDA_VISIBLE_DEVICES"] = devices[slot % len(devices)]
    environment["NUMBA_NUM_THREADS"] = str(max(1, usable_cores() // jobs))  # of the draws; a step takes one thread
    return environment


def _report_end(run: Run, status: int, minutes: float) -> dict[str, str]:
    """Log how a run ended. Returns {}, or the run's name with the end of its log if it failed."""
    result = run.read_result()
    if status == 0 and result is not None:
        validation = result["validation"]
        # A tuning run has the macro mean alone, a final run every figure of it.
        macro = {
            k: validation["all"][k]["macro"] if "all" in validation else validation.get(k) for k in headline_metrics()
        }
        figures = ", ".join(f"{METRICS[k].macro_title} {number(as_number(v))}" for k, v in macro.items())
        logger.info("%s: validation %s, %.1f minutes", run.name, figures, minutes)
        if run.result == "validation.json":  # its figures and curves stay; a checkpoint is as large as the model
            for checkpoint in run.folder.glob("checkpoint-*"):
                shutil.rmtree(checkpoint)
        return {}
    lines = [line.strip() for line in run.log.read_text(encoding="utf-8", errors="replace").splitlines()]
    end = " | ".join([line for line in lines if line][-3:])
    logger.error("%s failed with status %d after %.1f minutes: %s (%s)", run.name, status, minutes, end, run.log)
    return {run.name: end}


def _check_score_files(plan: Plan, args: RunArguments) -> None:
    """Refuse, before anything is trained, files that do not have scores of the test images and all findings."""
    if plan.files:
        source = load_source(args.data, seed=args.training.seed, images=False)
        labels = labels_of_source(source, "test")
        all_there = "skip" not in (args.data.missing_images, args.data.unreadable_images)
        for name, file in plan.files.items():
            file.scores_of(labels, name, all_images=all_there)


def _check_folders(runs: Sequence[Run], plan: Plan) -> None:
    """Refuse a folder whose run, finished or not, has other settings than the plan now gives it."""
    for run in runs:
        config = run.folder / "config.yaml"
        if not config.is_file():
            continue
        now = settings_of(check_run(run, plan))
        changed = changed_settings(read_yaml(config), now, free={*FREE_ON_RESUME, *FROM_DEVICES, *NOT_COMPARED})
        if changed:
            raise ValueError(
                f"{run.folder} contains a run of {run.method} with other settings ({', '.join(changed[:5])}); give "
                "another --out, or remove that folder to repeat the run"
            )
