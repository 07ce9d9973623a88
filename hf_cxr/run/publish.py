"""A run that is pushed: its repository is made before training, the finished folder is sent after it."""

import dataclasses
import logging
from pathlib import Path

from hf_cxr import hub
from hf_cxr.config import CXRTrainingArguments
from hf_cxr.reporting.run import Report

logger = logging.getLogger(__name__)


def prepare_hub(training: CXRTrainingArguments, run_dir: Path) -> str | None:
    """Create the Hub repository if the run is to be pushed: before the training hours, not after."""
    if not training.push_to_hub:
        return None
    name, private = hub.push_target(training)
    repo_id = hub.prepare_repo(name, private=private, token=training.hub_token)
    command = hub.push_command(run_dir, repo_id, private=private)
    logger.info("the run goes to %s at its end; if that push is interrupted, finish it with: %s", repo_id, command)
    return repo_id


def push_after_training(run_dir: Path, training: CXRTrainingArguments, repo_id: str | None, report: Report) -> Report:
    """Push the finished run folder, unless ``repo_id`` is None.

    Returns:
        The report with its address, or with why it could not be pushed.
    """
    if repo_id is None:
        return report
    _, private = hub.push_target(training)
    try:
        pushed = hub.push_run(run_dir, repo_id, private=private, token=training.hub_token)
        logger.info("pushed as %s; load exactly these files with revision=%r", pushed.url, pushed.tag)
        return dataclasses.replace(report, hub_url=pushed.url)
    except (hub.HubError, ValueError, OSError) as error:
        command = hub.push_command(run_dir, repo_id, private=private)
        problem = f"{error}. The run folder is complete; push it with: {command}"
        logger.error("not pushed: %s", problem)
        return dataclasses.replace(report, push_error=problem)
