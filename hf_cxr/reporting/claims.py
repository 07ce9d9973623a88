"""Sentences about a run that are computed from what happened, not from its settings."""

import logging
import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from hf_cxr.evaluation.calibration import Calibration
from hf_cxr.evaluation.operating_points import OperatingPoints
from hf_cxr.reporting.protocol import OFFICIAL_TEST
from hf_cxr.words import plural

if TYPE_CHECKING:  # transformers imports torch, which what is measured from a file does without
    from transformers import TrainerState, TrainingArguments

logger = logging.getLogger(__name__)

NEVER_DEFINED = "was never defined"


def chosen_step(args: "TrainingArguments", state: "TrainerState") -> int | None:
    """The step of the checkpoint that was restored; None if the run ends with its last weights.

    A checkpoint is chosen only if its figure is a number: a figure that is NaN in every epoch has no best.
    """
    if not args.load_best_model_at_end or not _is_defined(state):
        return None
    step = re.search(r"checkpoint-(\d+)[/\\]*$", state.best_model_checkpoint or "")
    return int(step.group(1)) if step else None


def selection(args: "TrainingArguments", state: "TrainerState") -> str:
    """Which weights the run ends with, and why; a warning is logged where they are not those that were asked for."""
    if not args.load_best_model_at_end:
        return "last epoch, none was chosen"
    metric = f"validation {str(args.metric_for_best_model).removeprefix('eval_')}"
    if chosen_step(args, state) is not None:
        return f"best {metric}"
    words = f"last epoch; {metric} {NEVER_DEFINED}"
    if _is_defined(state):
        words = f"last epoch; no checkpoint of the best {metric} was kept"
    logger.warning("selection: %s", words)
    return words


def _is_defined(state: "TrainerState") -> bool:
    # The Trainer starts at minus (or plus) infinity, which stays where every figure is NaN.
    return state.best_metric is not None and math.isfinite(state.best_metric)


def calibration(fitted: Calibration | None) -> str | None:
    """How many findings have which map; None if no finding has any."""
    if fitted is None or set(fitted.method_C) <= {"identity"}:
        return None
    if set(fitted.method_C) == {"affine"}:
        return "per finding, affine in the logit, fitted on validation"
    count = Counter(fitted.method_C)
    words = (("affine", "affine in the logit"), ("intercept", "a shift of the logit alone"), ("identity", "none"))
    return "per finding, fitted on validation: " + ", ".join(
        f"{text} for {count[method]}" for method, text in words if count[method]
    )


def operating_points(points: OperatingPoints | None) -> str | None:
    """What the thresholds aim at and which findings have none; None if no finding has any."""
    if points is None or not points.words:
        return None
    without = f"; none for {', '.join(points.without)}" if points.without else ""
    return f"per finding, chosen on validation for {points.words}{without}"


def views(view_N: Iterable[str | None]) -> dict[str, int]:
    """How many images have each view; those that no one knows under "unknown"."""
    return dict(sorted(Counter(view or "unknown" for view in view_N).items()))


def data_origin(hub: Mapping[str, str | None] | None, notes: Sequence[str]) -> dict[str, Any]:
    """A protocol's facts about the data besides their splits: the Hub dataset with its commit, and notes; {} if none.

    Args:
        hub, notes: of the `Source`.
    """
    values: dict[str, Any] = {}
    if hub:
        values["hub_dataset"] = f"{hub['id']} at commit {hub['commit'] or 'unknown (a local copy that does not say)'}"
    return values | ({"data_notes": list(notes)} if notes else {})


def split_source(
    source: Mapping[str, Any], test_images: int, missing: Mapping[str, int], unreadable: Mapping[str, int]
) -> dict[str, Any]:
    """Where the splits are from, with "official" only for a test list of the official length.

    Args:
        source: `Source.split_origin`.
        test_images: in the test set as it was measured.
        missing: by split, images that the list names and the folder lacks.
        unreadable: by split, images that cannot be read.
    """
    listed = test_images + missing.get("test", 0) + unreadable.get("test", 0)
    words = source["splits_from"]
    if words and words.startswith("official test list") and listed != OFFICIAL_TEST:
        given = f"the folder's own test list of {plural(listed, 'image')}, not the official one of {OFFICIAL_TEST:,}"
        words = words.replace("official test list", given, 1)
    return {**source, "splits_from": words}
