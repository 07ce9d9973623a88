"""A search for a run's settings with Optuna, through the Trainer's `hyperparameter_search`; on validation alone.

    DIR/study.db            every trial so far: Optuna's own SQLite file
    DIR/trials/0007/        a trial's run folder: config.yaml, run.log, validation.json; no weights
    DIR/best.yaml           the best settings, for `hf-cxr train`
    DIR/tuning.html, .md, .csv, .json, figures/

A trial is a run with ``measure_test: false``: no test image is opened, let alone predicted. It is judged by the macro
mean of one metric on validation, of the checkpoint that the run ends with. All trials have the same seed, so they
differ in their settings alone.

The search is the same whether it was stopped or not: the sampler of each trial is seeded with the number of those that
are done, and a trial that was stopped is done again, from its checkpoint. What a run may change when it resumes, such
as the place of its data, may change between two starts of a search; the data themselves may not.

A trial that fails is reported, and the rest continue. A full disk, a folder in which another run works and other data
are no trial's fault: they stop the search, and the trial is done again at the next start.

Refused, before anything is trained: what `search_space` refuses; values that no run takes; a folder that holds a
search with other settings; a machine without Optuna.
"""

import dataclasses
import gc
import json
import logging
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from filelock import Timeout
from transformers import Trainer, TrainerCallback, TrainingArguments

from hf_cxr.config import FROM_DEVICES, NOT_COMPARED, DataArguments, RunArguments
from hf_cxr.data.fingerprint import data_fingerprint, load_state
from hf_cxr.evaluation import METRICS, headline_metrics
from hf_cxr.evaluation.metric import as_number
from hf_cxr.extras import need
from hf_cxr.files import check_output_folder, is_disk_full, write_text
from hf_cxr.locks import acquired
from hf_cxr.reporting.tuning import Trial, TuningResults, write_tuning
from hf_cxr.run.comparing.shared_settings import check_fresh_model, parsed, pinned_settings, with_flags
from hf_cxr.run.resume import FREE_ON_RESUME, changed_settings, settings_of
from hf_cxr.run.stage_files import STAGES
from hf_cxr.run.stages import run
from hf_cxr.run.tuning.search_space import Search
from hf_cxr.saved_models import read_json
from hf_cxr.words import plural
from hf_cxr.yaml_files import dump_yaml

if TYPE_CHECKING:
    import optuna

logger = logging.getLogger(__name__)

STUDY, BEST, LOCK = "study.db", "best.yaml", ".tune.lock"
STARTUP = 5  # random trials before the sampler learns, and finished ones before a trial is pruned
FOLDER, BEFORE, REASON = "folder", "before", "reason"  # attributes of a trial in the study
SETTINGS, DATA = "settings", "data"  # and of the study
FAILURES = (ValueError, RuntimeError, OSError, ArithmeticError)  # of a trial: reported, and the rest continue
# Keys of the data: trials differ in their data where one of these is searched.
DATA_KEYS = {field.name for field in dataclasses.fields(DataArguments)}


class SearchStopped(Exception):  # noqa: N818 - not an error of the trial
    """Something outside the trial is wrong, which would fail every other one as well."""


def check_optuna() -> None:
    """Refuse a machine without Optuna.

    Raises:
        MissingExtraError: see `extras.need`.
    """
    need("hf-cxr tune", "tune", "optuna")


def tune(search: Search, out: Path) -> TuningResults:
    """Do what is left of a search, and write its report and best.yaml.

    Args:
        search: from `load_search`.
        out: the folder of the trials and of the report.

    Raises:
        ValueError: see the module's first lines; or no trial has a validation figure.
    """
    check_optuna()
    import optuna

    optuna.logging.set_verbosity(optuna.logging.CRITICAL)  # failed trials are reported here, in a line each
    check_output_folder(out)
    for point in search.extremes():
        check_point(search, point)
    with _held(out):
        study = _open_study(search, out)
        search = pinned_search(search, study.user_attrs.get(SETTINGS))
        _check_settings(study, search, out)
        _repeat_interrupted(study)
        trainer = SearchTrainer(search, out)
        for number in range(_done(study), search.trials):
            try:
                trainer.hyperparameter_search(
                    hp_space=search.point,
                    n_trials=1,
                    direction=_direction(search),
                    backend="optuna",
                    study_name=study.study_name,
                    storage=_storage(out),
                    load_if_exists=True,
                    sampler=optuna.samplers.TPESampler(seed=search.seed + number, n_startup_trials=STARTUP),
                    pruner=_pruner(search),
                    catch=FAILURES,
                )
            except SearchStopped as stop:
                raise ValueError(str(stop)) from stop
            except ValueError:  # of a study without a finished trial, which has no best one
                if any(one.state.name == "COMPLETE" for one in study.get_trials(deepcopy=False)):
                    raise
            _log_trial(study.get_trials(deepcopy=False)[-1], search, number)
        results = read_results(search, out, study)
        if results.best is None:
            reasons = {trial.reason for trial in results.trials if trial.reason}
            raise ValueError(
                f"none of {plural(len(results.trials), 'trial')} has a validation figure: "
                f"{'; '.join(sorted(reasons)) or 'validation has no finding with both values'}"
            )
        write_text(out / BEST, best_config(search, results))
        write_tuning(results, out)
    return results


class SearchTrainer(Trainer):
    """The Trainer's search, whose trials are runs of this package.

    The Trainer's own trial changes fields of its TrainingArguments. A loss, its options, a sampler or an image size
    are none of them, so here a trial is a whole run with a separate Trainer; this one only conducts the search.
    """

    def __init__(self, search: Search, out: Path):
        with tempfile.TemporaryDirectory() as nowhere:
            super().__init__(
                model_init=lambda: torch.nn.Linear(1, 1),
                args=TrainingArguments(nowhere, report_to="none", save_strategy="no"),
            )
        self.search, self.out = search, out

    def train(self, resume_from_checkpoint: Any = None, trial: "optuna.Trial | None" = None, **kwargs: Any) -> None:
        """Do one trial; its figure is left in ``objective``, where the search reads it."""
        self.objective = do_trial(trial, self.hp_space(trial), self.search, self.out)


def do_trial(trial: "optuna.Trial", point: Mapping[str, Any], search: Search, out: Path) -> float:
    """Train with a point of the space, in a separate folder; the validation figure.

    Raises:
        optuna.TrialPruned: the trial is worse than earlier ones.
        ValueError, RuntimeError, OSError: it failed; the reason is kept in the study.
        SearchStopped: the disk is full, another run works in the folder, or the data are not those of the search.
    """
    import optuna

    folder = out / "trials" / f"{trial.user_attrs.get(FOLDER, trial.number):04d}"
    trial.set_user_attr(FOLDER, int(folder.name))
    logger.info("trial %s: %s", folder.name, ", ".join(f"{key} {value}" for key, value in point.items()))
    try:
        if not (folder / "validation.json").is_file():
            args = arguments_of(search, point, folder)
            same_data = [] if DATA_KEYS & set(search.space) else [SameData(trial, folder)]
            run(args, [*same_data, *([Pruning(trial, search.by)] if search.prune else [])])
        figure = as_number(read_json(folder / "validation.json")["validation"].get(search.by))
        if figure != figure:
            raise ValueError(f"validation {search.by} is undefined")
    except SystemExit as error:  # of the parser, which has printed its line
        trial.set_user_attr(REASON, "its settings are refused")
        raise ValueError("its settings are refused") from error
    except optuna.TrialPruned:
        _remove_weights(folder)
        raise
    except FAILURES as error:
        if words := _fault_outside(error):
            raise SearchStopped(f"trial {folder.name}: {words}") from error
        trial.set_user_attr(REASON, " ".join(str(error).split())[:500] or type(error).__name__)
        _remove_weights(folder)
        raise
    finally:
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
    _remove_weights(folder)
    return figure


class SameData(TrainerCallback):
    """Stops the search if a trial's images, patients, splits or labels are not those of the trials before it."""

    def __init__(self, trial: "optuna.Trial", folder: Path):
        self.trial, self.folder = trial, folder

    def on_train_begin(self, args, state, control, **kwargs) -> None:
        saved = load_state(self.folder)  # which the run has just written
        if saved is None:
            return
        now, before = data_fingerprint(saved), self.trial.study.user_attrs.get(DATA)
        if before is None:
            self.trial.study.set_user_attr(DATA, now)
        elif before != now:
            raise SearchStopped(
                f"trial {self.folder.name}: the images, patients, splits or labels are not those that the search was "
                "started with; give the same data, or another --out"
            )


class Pruning(TrainerCallback):
    """Reports each validation figure to the study, and ends a trial that the pruner gives up.

    A trial that resumes from a checkpoint first reports its earlier figures again.
    """

    def __init__(self, trial: "optuna.Trial", by: str):
        self.trial, self.by = trial, by

    def on_train_begin(self, args, state, control, **kwargs) -> None:
        for step, figure in self.trial.user_attrs.get(BEFORE, {}).items():
            if int(step) <= state.global_step:
                self.trial.report(figure, int(step))

    def on_evaluate(self, args, state, control, metrics: Mapping[str, float], **kwargs) -> None:
        import optuna

        figure = as_number(metrics.get(f"eval_{self.by}"))
        if figure != figure:
            return
        self.trial.report(figure, state.global_step)
        if self.trial.should_prune():
            raise optuna.TrialPruned(f"at epoch {state.epoch:g}")


def arguments_of(search: Search, point: Mapping[str, Any], folder: Path) -> RunArguments:
    """The arguments of a trial, parsed as a run's YAML and flags are.

    Raises:
        SystemExit: status 2 with one line, as `parse_arguments`.
    """
    set_here = {"output_dir": str(folder), "seed": search.seed, "measure_test": False, "disable_tqdm": True}
    return parsed(
        search.values(point) | set_here,
        search.flags,
        name=f"trial-{folder.name}",
        prog=f"hf-cxr tune: trial {folder.name}",
    )


def check_point(search: Search, point: Mapping[str, Any]) -> RunArguments:
    """Refuse a point that no run takes, before anything is trained.

    Raises:
        SystemExit: status 2 with one line.
        ValueError: a fresh model that cannot be built or not be trained so.
    """
    args = arguments_of(search, point, Path("check"))
    check_fresh_model(args, ", ".join(f"{key} {value}" for key, value in point.items()))
    return args


def pinned_search(search: Search, before: Mapping[str, Any] | None) -> Search:
    """The search with the data of this moment, or of its earlier start, the same for every trial: `pinned_settings`.

    Args:
        before: what the study says of the earlier start, as `settings_of_search` gives it; None if there is none.
    """
    args = arguments_of(search, search.extremes()[0], Path("check"))
    base, flags = pinned_settings(search.base, search.flags, args, (before or {}).get("run"))
    return dataclasses.replace(search, base=base, flags=flags)


def settings_of_search(search: Search) -> dict[str, Any]:
    """What two starts of a search have in common, as JSON has it: `Search.settings`, and a trial's as ``run``."""
    args = arguments_of(search, search.extremes()[0], Path("check"))
    return json.loads(json.dumps(search.settings() | {"run": settings_of(args)}, default=str))


def read_results(search: Search, out: Path, study: "optuna.Study") -> TuningResults:
    """Every trial with its settings and figures."""
    trials = []
    for one in study.get_trials(deepcopy=False):
        if not _is_done(one):
            continue
        folder = out / "trials" / f"{one.user_attrs.get(FOLDER, one.number):04d}"
        result = read_json(folder / "validation.json") if (folder / "validation.json").is_file() else {}
        figures = result.get("validation", {})
        trials.append(
            Trial(
                number=int(folder.name),
                state=one.state.name.lower().replace("complete", "finished").replace("fail", "failed"),
                point=dict(one.params),
                figures={key: as_number(figures.get(key)) for key in headline_metrics()},
                steps=max(one.intermediate_values, default=None),
                seconds=None if one.duration is None else one.duration.total_seconds(),
                reason=one.user_attrs.get(REASON),
            )
        )
    example = next((out / "trials").glob("*/validation.json"), None)
    return TuningResults(
        name=search.name,
        by=search.by,
        space={key: values.words for key, values in search.space.items()},
        trials=tuple(trials),
        seed=search.seed,
        pruned=search.prune,
        protocol=read_json(example)["protocol"] if example else {},
    )


def best_config(search: Search, results: TuningResults) -> str:
    """best.yaml: the best trial's settings with the flags, for `hf-cxr train`; its first lines say what it is."""
    best = results.best
    point = {key: search.space[key].of_name(value) for key, value in best.point.items()}
    values = with_flags(search.values(point), search.flags, arguments_of(search, point, Path("best")))
    title = METRICS[search.by].macro_title
    return (
        f"# The best of {plural(len(results.finished), 'trial')} of `hf-cxr tune`, search {results.name}, trial "
        f"{best.number:04d}: validation {title} {best.figures[search.by]:.4f}.\n"
        "# That figure is optimistic: it is the best of several on the same validation images. No test image was "
        "opened.\n"
        f"# Trained with seed {search.seed}; with another --seed the figure differs. Searched: "
        f"{', '.join(results.space)}.\n" + dump_yaml({key: value for key, value in values.items() if key != "seed"})
    )


@contextmanager
def _held(out: Path) -> Iterator[None]:
    """Within the block the search is this command's alone."""
    out.mkdir(parents=True, exist_ok=True)
    busy = ValueError(f"another hf-cxr tune works in {out}: wait until it ends, or give another --out")
    lock = acquired(out / LOCK, busy)
    try:
        yield
    finally:
        lock.release()


def _storage(out: Path) -> str:
    return f"sqlite:///{(out / STUDY).absolute()}"


def _direction(search: Search) -> str:
    return "maximize" if METRICS[search.by].higher_is_better else "minimize"


def _open_study(search: Search, out: Path) -> "optuna.Study":
    import optuna

    try:
        study = optuna.create_study(
            study_name=search.name, storage=_storage(out), direction=_direction(search), load_if_exists=True
        )
        others = [name for name in optuna.get_all_study_names(_storage(out)) if name != search.name]
    except Exception as error:  # SQLAlchemy, sqlite3 and Optuna each have errors of their own for a damaged file
        raise ValueError(f"{out / STUDY} cannot be read ({type(error).__name__}); give another --out") from error
    if others:
        raise _other_settings(out, [f"it is called {' and '.join(others)}"])
    return study


def _check_settings(study: "optuna.Study", search: Search, out: Path) -> None:
    """Refuse a search with other settings; keep those of a new one."""
    before, now = study.user_attrs.get(SETTINGS), settings_of_search(search)
    if before is None and not study.get_trials(deepcopy=False):
        study.set_user_attr(SETTINGS, now)
        return
    before = before or {}
    changed = [key for key in now if key != "run" and before.get(key) != now[key]]
    free = {*FREE_ON_RESUME, *FROM_DEVICES, *NOT_COMPARED}
    changed += changed_settings(before["run"], now["run"], free=free) if "run" in before else ["those of its runs"]
    if changed:
        raise _other_settings(out, changed)


def _other_settings(out: Path, changed: list[str]) -> ValueError:
    return ValueError(
        f"{out} contains a search with other settings ({', '.join(changed[:5])}); give another --out, or remove that "
        "folder"
    )


def _repeat_interrupted(study: "optuna.Study") -> None:
    """Queue the trials again that were stopped: with the same settings, in the same folder."""
    import optuna

    states = optuna.trial.TrialState
    trials = study.get_trials(deepcopy=False)
    waiting = {one.user_attrs.get(FOLDER) for one in trials if one.state == states.WAITING}
    for one in trials:
        if one.state == states.RUNNING:  # this command holds the folder: nobody does it
            study.tell(one.number, state=states.FAIL)
            if REASON in one.user_attrs:  # it had failed, and was stopped before the study knew
                continue
        elif not (one.state == states.FAIL and not _is_done(one)):
            continue
        folder = one.user_attrs.get(FOLDER, one.number)
        repeated = any(other.number > one.number and other.user_attrs.get(FOLDER) == folder for other in trials)
        if folder not in waiting and not repeated:
            reported = {str(step): figure for step, figure in one.intermediate_values.items()}
            # One that was stopped twice may not have reported its first figures again.
            study.enqueue_trial(
                one.params, user_attrs={FOLDER: folder, BEFORE: one.user_attrs.get(BEFORE, {}) | reported}
            )
            waiting.add(folder)


def _done(study: "optuna.Study") -> int:
    """Trials that are not to be done again."""
    return sum(map(_is_done, study.get_trials(deepcopy=False)))


def _is_done(trial: "optuna.trial.FrozenTrial") -> bool:
    """Whether a trial is not to be done again: finished, pruned, or failed for a reason; not stopped from outside."""
    return trial.state.is_finished() and (trial.state.name != "FAIL" or REASON in trial.user_attrs)


def _pruner(search: Search) -> "optuna.pruners.BasePruner":
    import optuna

    return optuna.pruners.MedianPruner(n_startup_trials=STARTUP) if search.prune else optuna.pruners.NopPruner()


def _remove_weights(folder: Path) -> None:
    """A trial's figures stay; a checkpoint, and a model that was trained, are as large as the network."""
    for place in (*folder.glob("checkpoint-*"), folder / STAGES):
        if place.is_dir():
            shutil.rmtree(place)


def _fault_outside(error: BaseException) -> str:
    """In words, what stops the whole search and not only a trial: a full disk, or a folder in use; "" if nothing."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, Timeout):
            return str(error)
        if is_disk_full(cause):
            words = " ".join(str(cause).split())[:200]
            return f"the disk is full ({words}); free disk space and run the same command again"
        cause = cause.__cause__ or cause.__context__
    return ""


def _log_trial(trial: "optuna.trial.FrozenTrial", search: Search, number: int) -> None:
    reason = trial.user_attrs.get(REASON)
    figure = f"validation {METRICS[search.by].macro_title} {trial.value:.4f}" if trial.value is not None else reason
    logger.info("%d of %d: %s%s", number + 1, search.trials, trial.state.name.lower(), f", {figure}" if figure else "")
