"""Stages of a run repeated alone: the calibration with all that follows from it, or the report."""

import logging
from collections.abc import Sequence
from pathlib import Path

import datasets

from hf_cxr.arguments.data import DATA_PATHS
from hf_cxr.config import RunArguments
from hf_cxr.files import write_text
from hf_cxr.reporting.card.benchmark import Benchmark
from hf_cxr.reporting.run import Report
from hf_cxr.run import stage_files as files
from hf_cxr.run.data import load
from hf_cxr.run.stages import document, finish
from hf_cxr.yaml_files import dump_yaml, read_yaml

logger = logging.getLogger(__name__)

CHANGEABLE = (
    *("calibrate", "bootstrap_resamples", "confidence", "operating_point", "operating_target"),
    "input_check",
)


def report_again(run_dir: Path, benchmark: Benchmark | None = None) -> Report:
    """Write report, figures and card of a finished run again; no figure changes.

    Args:
        run_dir: the run folder; held by the caller.
        benchmark: of the Hub, for which the test figure is written; by default the one of before, or none.

    Raises:
        ValueError, FileNotFoundError: the run is not finished, or its files are damaged.
    """
    if not files.is_done(run_dir, "measure"):
        raise ValueError(f"{run_dir} is not a finished run: it has no metrics.json; run its training to the end")
    return document(run_dir, benchmark=benchmark)


def calibrate_again(run_dir: Path, flags: Sequence[str] = ()) -> Report:
    """Calibrate a run again from its uncalibrated predictions, and measure and document it again.

    Args:
        run_dir: the run folder; held by the caller.
        flags: of ``CHANGEABLE``, which config.yaml has from then on, and where the data lie.

    Raises:
        ValueError: the run has no uncalibrated predictions, or a flag is of the training.
    """
    if not files.is_done(run_dir, "predict"):
        if files.is_done(run_dir, "document"):
            raise ValueError(
                f"{run_dir} has no uncalibrated predictions ({files.LAST_FILE['predict']}): an earlier version of "
                "hf_cxr wrote it and did not keep them; its calibration stays as it is. To write its report again, "
                f"run hf-cxr report {run_dir}"
            )
        raise ValueError(f"{run_dir} is not a finished run and has no predictions yet; run its training to the end")
    _check_flags(flags)
    args = files.saved_arguments(run_dir, flags, prog="hf-cxr calibrate")
    _save_settings(run_dir, args)
    return finish(run_dir, args, _images(args))


def _check_flags(flags: Sequence[str]) -> None:
    known = (*CHANGEABLE, *DATA_PATHS)
    for word in flags:
        name = word.removeprefix("--").split("=")[0].replace("-", "_").removeprefix("no_")
        if word.startswith("--") and name not in known:
            raise ValueError(
                f"{word} is not about the calibration of a run that is trained: hf-cxr calibrate takes "
                f"{', '.join(f'--{key}' for key in known)}"
            )


def _save_settings(run_dir: Path, args: RunArguments) -> None:
    path = run_dir / "config.yaml"
    before = read_yaml(path)
    now = before | {key: getattr(args.evaluation, key) for key in CHANGEABLE}
    if now != before:
        files.forget(run_dir, "calibrate")  # first: the figures there are of the earlier settings
        write_text(path, dump_yaml(now))


def _images(args: RunArguments) -> datasets.DatasetDict | None:
    try:
        return load(args).splits
    except (ValueError, OSError) as error:
        logger.warning(
            "the saved model is not compared with the stock pipeline, and no input check is fitted, as the data "
            "cannot be read: %s",
            error,
        )
        return None
