"""What a run did, for its report: the protocol, the training and the environment, as they were and not as set."""

import dataclasses
import importlib.metadata
import platform
import sys
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState

import hf_cxr
from hf_cxr.augmentation import Augmentation
from hf_cxr.config import RunArguments
from hf_cxr.data import label_matrix, near_shared_patients
from hf_cxr.evaluation.calibration import Calibration
from hf_cxr.evaluation.metrics import counts
from hf_cxr.evaluation.operating_points import OperatingPoints
from hf_cxr.losses import MultiLabelLoss
from hf_cxr.models.batch_norm import describe_batch_norm
from hf_cxr.models.names import network_name
from hf_cxr.reporting import claims
from hf_cxr.run.data import RunData
from hf_cxr.run.peak_memory import peak_memory_gib
from hf_cxr.run.preflight import without_blank_rows
from hf_cxr.sampling import resolved_options
from hf_cxr.training.trainer import CXRTrainer

PACKAGES = ("torch", "transformers", "datasets", "accelerate", "evaluate", "huggingface_hub", "pillow", "numpy")


def describe_protocol(args: RunArguments, data: RunData, trained: Mapping[str, Any]) -> dict[str, Any]:
    """What was done, on which patients: all that a figure must be read with, but for the calibration.

    Args:
        args: of the run.
        data: as it is measured: a split whose image was lost after training is without it.
        trained: what the training says of itself, see `describe_method`.
    """
    source, unreadable = data.source, data.unreadable
    splits = source.splits
    positives_C, negatives_C, _ = counts(label_matrix(splits["train"]))
    missing = Counter(data.origin.get("removed_images"))
    missing.update(source.missing)
    return {
        "dataset": source.name,
        "synthetic": source.synthetic,
        "prepared": source.recipe is not None,
        "splits": {
            name: {"images": len(split), "patients": len(set(split["patient_id"][:]))}
            for name, split in without_blank_rows(splits, data.blank_rows).items()
        },
        "similar_patient_ids": near_shared_patients(splits, examples=0),  # no patient's id in a report
        "split_fingerprint": source.fingerprint,
        **claims.split_source(source.split_origin, len(splits["test"]), missing, unreadable),
        **claims.data_origin(source.hub, source.notes),
        "training_views": claims.views(splits["train"]["view"][:]),
        "training_positives": positives_C.tolist(),
        "training_known": (positives_C + negatives_C).tolist(),
        "labels_shuffled": args.data.shuffle_labels,
        "training_images_limited_to": args.data.train_limit if args.data.train_limit == len(splits["train"]) else None,
        "missing_images": {name: count for name, count in missing.items() if count},
        "unreadable_images": unreadable,
        **trained,
        **describe_calibration(None),
        **describe_operating_points(None),
        "seed": args.training.seed,
    }


def describe_method(
    args: RunArguments, trainer: CXRTrainer, loss: MultiLabelLoss, weights: Mapping[str, Any]
) -> dict[str, Any]:
    """The part of the protocol that only training knows: weights, network, loss, draws, stages, choice of epoch."""
    return {
        **weights,
        "network": {
            "name": network_name(trainer.model.config),
            "architecture": trainer.model.config.model_type,
            "batch_norm": describe_batch_norm(trainer.model, trainer.args.images_per_step),
        },
        "loss": loss.describe(),
        "sampler": {
            "name": args.sampling.sampler,
            "options": resolved_options(args.sampling.sampler, **args.sampling.sampler_kwargs),
        },
        "augmentation": Augmentation.of(args.model).to_dict(),
        "stages": dataclasses.asdict(args.stages),
        **describe_recipe(args, trainer),
        "selection": claims.selection(trainer.args, trainer.state),
    }


def describe_recipe(args: RunArguments, trainer: CXRTrainer) -> dict[str, Any]:
    """The learning rates that differ between layers, and mixup, as far as the run has them; see docs/recipe.md."""
    rates = {} if trainer.rates is None else dataclasses.asdict(trainer.rates)
    recipe = rates | ({"mixup_alpha": args.sampling.mixup_alpha} if args.sampling.mixup_alpha else {})
    return {"recipe": recipe} if recipe else {}


def describe_calibration(calibration: Calibration | None) -> dict[str, Any]:
    """The part of the protocol that calibration fills; None if there is none."""
    return {
        "calibration": claims.calibration(calibration),
        "calibration_exceptions": calibration.exceptions if calibration else {},
    }


def describe_operating_points(saved: Mapping[str, Any] | None) -> dict[str, Any]:
    """The part of the protocol that the operating points fill; None if there are none.

    Args:
        saved: of the model's record.
    """
    return {"operating_points": claims.operating_points(saved and OperatingPoints.from_dict(saved))}


def describe_training(trainer: CXRTrainer, checkpoint: Path | None) -> dict[str, Any]:
    """Epochs, times, speed and peak memory, measured; after a resume, time and speed are those of the last leg."""
    state, clock = trainer.state, trainer.clock
    chosen = claims.chosen_step(trainer.args, state)
    best = [entry["epoch"] for entry in state.log_history if entry["step"] == chosen]
    return {
        "epochs": state.epoch,
        "steps": state.global_step,
        "best_epoch": best[0] if best else None,
        "step_seconds": clock.seconds,
        "images_per_second": clock.images / clock.seconds if clock.seconds else None,
        "resumed_from": checkpoint and checkpoint.name,
        "stopped_early": state.global_step < state.max_steps,
        "peak_memory_gib": peak_memory_gib(),
        "peak_device_memory_gib": torch.cuda.max_memory_allocated() / 2**30 if torch.cuda.is_available() else None,
        "parameters": sum(parameter.numel() for parameter in trainer.model.parameters()),
    }


def describe_environment(state: PartialState) -> dict[str, Any]:
    """Versions, processes and devices."""
    return {
        "hf_cxr": hf_cxr.__version__,
        "python": sys.version.split()[0],
        "platform": platform.platform(),
        **{name: importlib.metadata.version(name) for name in PACKAGES},
        "processes": state.num_processes,
        "device": torch.cuda.get_device_name() if state.device.type == "cuda" else state.device.type,
        "cpu_threads": torch.get_num_threads(),
    }
