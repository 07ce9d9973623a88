"""A pre-training Trainer for tests; and one step of it on each of several processes, started by tests/process."""

import json
import sys
from pathlib import Path

import numpy as np
import torch
from gradients_worker import Gradients
from tiny import rows, swin

from hf_cxr.commands.errors import leave_process_group
from hf_cxr.config import CXRTrainingArguments, ModelArguments
from hf_cxr.pretraining.masks import PatchMasks
from hf_cxr.pretraining.model import build_masked_model
from hf_cxr.pretraining.trainer import MaskedImageTrainer
from hf_cxr.processing import PixelProcessor, build_image_processor
from hf_cxr.sampling import EpochSampler

MASKS = {"image_size": 32, "patch_size": 2, "mask_patch_size": 4, "mask_ratio": 0.6, "seed": 3}
SETTINGS = {
    "optimizer": "adamw",
    "max_grad_norm": 0.0,
    "eval_strategy": "no",
    "save_strategy": "no",
    "load_best_model_at_end": False,
    "metric_for_best_model": "loss",
    "num_train_epochs": 1,
    "learning_rate": 1e-3,
    "disable_tqdm": True,
    "logging_steps": 1,
    "use_cpu": True,
}


def masked_trainer(output_dir, *, dataset=None, eval_dataset=None, left_out=(), callbacks=None, **kwargs):
    """A MaskedImageTrainer whose weights depend on nothing but the arguments."""
    torch.manual_seed(0)
    dataset = rows() if dataset is None else dataset
    args = CXRTrainingArguments(output_dir=str(output_dir), **(SETTINGS | kwargs))
    step_images = args.train_batch_size * args.gradient_accumulation_steps * args.world_size
    return MaskedImageTrainer(
        model=build_masked_model(ModelArguments(**swin(drop_path_rate=0.0))),
        args=args,
        masks=PatchMasks(**MASKS),
        left_out=left_out,
        pixels=PixelProcessor(build_image_processor(36, 32), horizontal_flip=0.5, rotation_degrees=15, seed=3),
        sampler=EpochSampler(np.ones(len(dataset)), batch_size=step_images, seed=3),
        train_dataset=dataset,
        eval_dataset=eval_dataset,
        callbacks=callbacks,
    )


def step(output_dir, batch_size, accumulation=1, **kwargs):
    """Gradients of the one step of an epoch of 40 images, its loss, and the loss of 10 held-out images after it."""
    kept = Gradients()
    held_out = rows(10, seed=1)
    run = masked_trainer(
        output_dir,
        per_device_train_batch_size=batch_size,
        gradient_accumulation_steps=accumulation,
        callbacks=[kept],
        eval_dataset=held_out,
        per_device_eval_batch_size=4,
        **kwargs,
    )
    run.train()
    (gradients,) = kept.steps
    return gradients, run.state.log_history[0]["loss"], run.evaluate()["eval_loss"]


if __name__ == "__main__":
    folder, batch_size, accumulation = sys.argv[1:]
    gradients, loss, held_out = step(folder, int(batch_size), int(accumulation))
    rank = torch.distributed.get_rank()
    torch.save(gradients, f"{folder}/gradients-{rank}.pt")
    Path(folder, f"losses-{rank}.json").write_text(json.dumps([loss, held_out]))
    leave_process_group()
