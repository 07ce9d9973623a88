"""The run folder: opened, or refused; logged to; written, whole or not at all. metrics.json is written last.

A folder that holds a finished run, or an unfinished one of other settings, is never overwritten.
"""

import logging
import shutil
import tempfile
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml
from accelerate import PartialState
from accelerate.utils import broadcast_object_list
from transformers import PreTrainedConfig, PreTrainedModel, TrainerState
from transformers.image_processing_utils import BaseImageProcessor

from hf_cxr import card, hub, plots
from hf_cxr.config import RunArguments
from hf_cxr.files import replace_all, write_json, write_text
from hf_cxr.predictions import Predictions
from hf_cxr.push_files import FIGURES, WEIGHTS, file_sha256
from hf_cxr.report import Report
from hf_cxr.trainer import last_complete_checkpoint

logger = logging.getLogger(__name__)

UNCALIBRATED = ".uncalibrated"  # folder of the trained model until its calibration is fitted

# What may differ between a run and its continuation: nothing that changes what is computed.
FREE_ON_RESUME = {
    "dataloader_num_workers",
    "disable_tqdm",
    "measure_test",  # a run that stopped after validation may go on to the test set
    "nih_root",  # the split's fingerprint is compared instead
    "output_dir",
    "per_device_eval_batch_size",
    "prepared",  # as nih_root
    "report_to",
    "resume_from_checkpoint",
    "save_total_limit",
    "split_file",  # as nih_root
    "table_root",  # as nih_root
}


def open_run_folder(args: RunArguments, state: PartialState) -> Path | None:
    """Make the run folder, or find where an unfinished run in it stopped.

    Returns:
        The checkpoint to go on from, or None to start.

    Raises:
        ValueError: the folder holds a finished run, or one of other settings.
    """
    run_dir = Path(args.training.output_dir)
    problem = [None]
    if state.is_main_process:
        try:
            _settle_existing_run(args, run_dir)
        except (ValueError, OSError) as error:
            problem = [str(error)]
    if state.num_processes > 1:
        broadcast_object_list(problem)
    if problem[0]:
        raise ValueError(problem[0])
    if args.training.resume_from_checkpoint:
        return Path(args.training.resume_from_checkpoint)
    return last_complete_checkpoint(run_dir, state.num_processes)


def _settle_existing_run(args: RunArguments, run_dir: Path) -> None:
    config = run_dir / "config.yaml"
    choice = args.training.on_existing_run
    repair = "give another --output_dir, or --on_existing_run move_aside to keep it under another name"
    started = (run_dir / "metrics.json").is_file() or any(run_dir.glob("checkpoint-*"))
    if config.is_file() and choice == "move_aside" and started:
        aside = next(path for i in range(1, 10_000) if not (path := run_dir.with_name(f"{run_dir.name}-{i}")).exists())
        run_dir.rename(aside)
        logger.info("moved the earlier run to %s", aside)
    elif config.is_file() and choice == "error" and started:
        push = _way_to_push(args) if (run_dir / "metrics.json").is_file() else ""
        raise ValueError(f"{run_dir} already holds a run; {push}{repair}")
    elif (run_dir / "metrics.json").is_file():
        raise ValueError(f"{run_dir} holds a finished run; {_way_to_push(args)}{repair}")
    elif config.is_file() and any(run_dir.glob("checkpoint-*")):
        before, now = yaml.safe_load(config.read_text(encoding="utf-8")), _as_yaml(args.to_dict())
        # A stream's order depends on how many read it.
        free = FREE_ON_RESUME - ({"dataloader_num_workers"} if args.data.streaming else set())
        changed = [key for key in now if key not in free and before.get(key) != now[key]]
        if changed:
            listing = ", ".join(f"{key} was {before.get(key)} and is {now[key]}" for key in changed[:5])
            raise ValueError(f"{run_dir} holds an unfinished run with other settings ({listing}); {repair}")
    elif not config.is_file() and run_dir.is_dir() and any(run_dir.iterdir()):
        raise ValueError(f"{run_dir} is not empty and holds no run of hf_cxr; give another --output_dir")
    write_text(config, yaml.safe_dump(_as_yaml(args.to_dict()), sort_keys=True))


def _way_to_push(args: RunArguments) -> str:
    # The run was to be pushed: perhaps it was killed while it was.
    if not args.training.push_to_hub:
        return ""
    repo_id, private = hub.push_target(args.training)
    return f"to push it run: {hub.push_command(args.training.output_dir, repo_id, private=private)} ; for another run "


@contextmanager
def logged_to(path: Path, state: PartialState) -> Iterator[None]:
    """Within the block, what is logged goes to this file too (main process only; a resumed run appends)."""
    if not state.is_main_process:
        yield
        return
    handler = logging.FileHandler(path, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    logging.getLogger().addHandler(handler)
    logging.captureWarnings(True)
    try:
        yield
    except Exception:
        handler.stream.write(traceback.format_exc())  # the terminal gets one line of it
        raise
    finally:
        logging.captureWarnings(False)
        logging.getLogger().removeHandler(handler)
        handler.close()


def write_run_folder(
    run_dir: Path, model_config: PreTrainedConfig, report: Report, predictions: Sequence[Predictions]
) -> None:
    """Predictions, every figure as picture and number, the report and the card."""
    for split in predictions:
        split.save(run_dir / "predictions" / f"{split.split}.parquet")
    test = predictions[-1]
    drawn = (
        plots.roc_curves(
            test.probabilities, test.labels, test.label_names, report.captions(), f"{report.name}: ROC curves on test"
        ),
        plots.training_curves(report.history, report.training["best_epoch"]),
    )
    for name, figure in zip(FIGURES, drawn, strict=True):  # what is pushed is listed by name
        plots.save(figure, run_dir / name)
    write_text(run_dir / "report.html", report.to_html(run_dir / "figures"))
    write_text(run_dir / "README.md", card.render(report, model_config))
    metrics = report.to_dict() | {"model_sha256": file_sha256(run_dir / WEIGHTS)}
    write_json(run_dir / "metrics.json", metrics)  # last: it says that the folder is complete


def write_validation(
    run_dir: Path, protocol: dict[str, Any], training: dict[str, Any], state: TrainerState
) -> dict[str, Any]:
    """validation.json of a run that does not look at the test set: the figures of the checkpoint that was chosen.

    They are those of the best epoch if one is chosen, else of the last one: of the weights that the run ends with.

    The folder stays an unfinished run: without ``measure_test: false`` the same command goes on from its checkpoint.
    """
    measured = [entry for entry in state.log_history if "eval_loss" in entry]
    # The Trainer notes a best step even if it does not go back to it.
    chosen = [entry for entry in measured if entry["epoch"] == training["best_epoch"]] or measured[-1:]
    names = ("loss", "auc", "mean_average_precision")
    figures = {name: chosen[0].get(f"eval_{name}") for name in names} if chosen else {}
    shutil.rmtree(run_dir / UNCALIBRATED, ignore_errors=True)
    report = {"protocol": protocol, "validation": figures, "training": training, "history": state.log_history}
    write_json(run_dir / "validation.json", report)
    return report


def save_model_folder(run_dir: Path, model: PreTrainedModel, processor: BaseImageProcessor) -> None:
    """model.safetensors, preprocessor_config.json and, last, config.json: each written beside and renamed."""
    with tempfile.TemporaryDirectory(dir=run_dir, prefix=".model-") as beside:
        model.save_pretrained(beside)
        processor.save_pretrained(beside)
        replace_all(beside, run_dir, last="config.json")
    shutil.rmtree(run_dir / UNCALIBRATED)


def _as_yaml(values: dict[str, Any]) -> dict[str, Any]:
    # What a round trip through the file gives, so that comparing with what was read compares like with like.
    return yaml.safe_load(yaml.safe_dump(values))
