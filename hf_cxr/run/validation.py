"""What a run leaves that stops after validation (``measure_test: false``): validation.json and its checkpoints."""

import logging
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hf_cxr.config import RunArguments
from hf_cxr.evaluation import headline_metrics
from hf_cxr.files import write_json
from hf_cxr.run import stage_files as files
from hf_cxr.run.data import RunData
from hf_cxr.run.provenance import describe_protocol
from hf_cxr.saved_models import read_json

logger = logging.getLogger(__name__)

FIGURES = ("loss", *headline_metrics())


def write_validation(run_dir: Path, args: RunArguments, data: RunData) -> None:
    """validation.json: the validation figures of the weights that the run ends with.

    The folder stays an unfinished run: without ``measure_test: false`` the same command resumes from its checkpoint.
    The trained model is removed, as tuning makes many such runs.
    """
    trained = read_json(run_dir / files.LAST_FILE["train"])
    training, history = trained["training"], trained["history"]
    values = {
        "protocol": describe_protocol(args, data, trained["protocol"]),
        "validation": chosen_figures(history, training["best_epoch"]),
        "training": training,
        "history": history,
    }
    write_json(run_dir / "validation.json", values)
    files.forget(run_dir, "train")
    shutil.rmtree(run_dir / files.STAGES)
    logger.info("stopped after validation, as measure_test is false: no test image was predicted")


def chosen_figures(history: Sequence[dict[str, Any]], best_epoch: float | None) -> dict[str, float | None]:
    """Validation figures of the epoch that was chosen; of the last one if none was."""
    measured = [entry for entry in history if "eval_loss" in entry]
    # The Trainer notes a best step even if it does not go back to it.
    chosen = [entry for entry in measured if entry["epoch"] == best_epoch] or measured[-1:]
    return {name: chosen[0].get(f"eval_{name}") for name in FIGURES} if chosen else {}
