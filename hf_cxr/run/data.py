"""The data of a run: loaded once, checked before the first step, handed to every stage that reads images."""

import dataclasses
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self, TypeVar

import datasets

from hf_cxr import processes
from hf_cxr.config import DataArguments, PretrainArguments, RunArguments
from hf_cxr.data import Source, check_positives, label_matrix, load_source, pin_source
from hf_cxr.evaluation.metrics import counts
from hf_cxr.labels import LabelSpace
from hf_cxr.models.build import check_findings_fit
from hf_cxr.processing import PixelProcessor
from hf_cxr.run.folder import on_main_process
from hf_cxr.run.preflight import LeftOut, check_run_data, unreadable_ids
from hf_cxr.run.resume import check_resume
from hf_cxr.words import plural
from hf_cxr.yaml_files import read_yaml

logger = logging.getLogger(__name__)

Arguments = TypeVar("Arguments")
REVISION = "table_revision"


@dataclass(frozen=True)
class OpenedData:
    """Data whose images were checked, and which were compared with those that the run was started with.

    Attributes:
        source: its splits are without unreadable images, but for the training set, which keeps its rows.
        blank_rows: the numbers of the training rows whose images cannot be read.
        unreadable: by split, how many images cannot be read.
        origin: of `check_resume`: fingerprints of the data and the initial weights, and images removed since.
    """

    source: Source
    blank_rows: tuple[int, ...] = ()
    unreadable: dict[str, int] = field(default_factory=dict)
    origin: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def compared(
        cls,
        args: RunArguments | PretrainArguments,
        run_dir: Path,
        before: Path | None,
        loaded: Source,
        checked: tuple[Source, LeftOut],
        *,
        trained: bool,
    ) -> Self:
        """The data of a run, compared with those of its start, or recorded if it starts; every process calls it.

        Args:
            args, run_dir, before, trained: as for `open_data`.
            loaded: the data with every row.
            checked: what `preflight.leave_out_unreadable` says of them.

        Raises:
            ValueError: as `check_resume`.
        """
        used, left_out = checked
        unreadable = unreadable_ids(loaded.splits, left_out)
        origin = on_main_process(
            lambda: check_resume(args, run_dir, before, loaded, unreadable=unreadable, trained=trained)
        )
        counts = {name: len(rows) for name, rows in left_out.items()}
        return cls(used, left_out.get("train", ()), counts, origin)


class RunData(OpenedData):
    """The data of a run: they are trained on and measured."""

    @property
    def splits(self) -> datasets.DatasetDict:
        return self.source.splits

    @property
    def label_names(self) -> LabelSpace:
        return self.source.labels

    @property
    def fingerprint(self) -> str:
        return self.source.fingerprint


def load(args: RunArguments) -> Source:
    """The source with every split; the main process renders or reads into the cache, and the rest find it there."""
    return loaded_in_turn(args.data, lambda data: load_source(data, seed=args.training.seed))


def loaded_in_turn(data: DataArguments, work: Callable[[DataArguments], Source]) -> Source:
    """A source, loaded by the main process first; the others wait for it as long as it takes.

    Prepared shards are verified once on each machine, not by each of its processes.
    """
    if not processes.is_first_of_machine():
        data = dataclasses.replace(data, verify_prepared=False)
    return processes.main_first(lambda: work(data))


def pinned(args: Arguments) -> Arguments:
    """The arguments with the data of this moment, or of the start of the run that resumes, the same on every process.

    Args:
        args: of a run or of a pre-training: a dataclass with ``data`` and ``training``.
    """
    training = args.training
    folder = Path(training.output_dir) if training.on_existing_run == "resume" else None
    data = on_main_process(lambda: pinned_data(args.data, folder and started_settings(folder)))
    return args if data == args.data else dataclasses.replace(args, data=data)


def pinned_data(data: DataArguments, started: Mapping[str, Any] | None) -> DataArguments:
    """The data of this moment, see `hf_cxr.data.pin_source`; or the commit that an earlier start read.

    A branch of the Hub may move before a run resumes. The run then reads the commit that it was started with, unless
    a revision is given.

    Args:
        data: the arguments.
        started: the settings of the earlier start, as its config.yaml has them; None if there is none.
    """
    started = started or {}
    kept = started.get(REVISION) if data.table_revision is None and started.get("dataset") == data.dataset else None
    if kept and Path(started.get("table") or "").name == Path(data.table or "").name:
        logger.info("reading %s at commit %s, as at the start", data.table, kept)
        data = dataclasses.replace(data, table_revision=kept)
    return pin_source(data)


def started_settings(run_dir: Path) -> dict[str, Any] | None:
    """The settings in a run folder's config.yaml; None if it has none that can be read (`run.folder` reports that)."""
    try:
        values = read_yaml(run_dir / "config.yaml")
    except (OSError, ValueError):
        return None
    return values if isinstance(values, dict) else None


def open_data(
    args: RunArguments, run_dir: Path, before: Path | None, pixels: PixelProcessor, *, trained: bool = False
) -> RunData:
    """Load and check the data of a run; every process calls it.

    Args:
        args: of the run.
        run_dir: its folder, opened; a new run's data state is written to it.
        before: checkpoint or trained model of this run, whose data these must be; None for a new run.
        pixels: the model's preprocessing.
        trained: ``before`` is the trained model, so the initial weights are not checked.

    Raises:
        ValueError: a split, a label or an image is refused, or the data are not those the run was started with.
    """
    loaded = load(args)
    empty = [name for name, split in loaded.splits.items() if not len(split)]
    if empty:
        raise ValueError(
            f"{loaded.name} has no image in {' and '.join(empty)}: models can be measured on it (hf-cxr evaluate), "
            "but not trained on it; its description needs files or fractions for these splits"
        )
    log_splits(loaded.splits, loaded.labels)
    check_positives(loaded.splits["train"])
    if not trained:
        check_findings_fit(args.model, loaded.labels)
    loaded.check_pixels(pixels.resize_size, int(pixels.resample))
    return RunData.compared(args, run_dir, before, loaded, check_run_data(args, loaded), trained=trained)


def log_splits(splits: Mapping[str, datasets.Dataset], label_names: LabelSpace) -> None:
    """Log how many images each split has, and which findings cannot be learnt."""
    logger.info("%s", ", ".join(f"{name}: {plural(len(split), 'image')}" for name, split in splits.items()))
    positives_C = counts(label_matrix(splits["train"]))[0]
    without = [name for name, positives in zip(label_names, positives_C, strict=True) if positives == 0]
    if without:
        logger.warning("no positive training image of %s: it cannot be learnt", ", ".join(without))
