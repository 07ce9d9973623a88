"""One optimizer step on each of several processes; the first writes its gradients. Started by test_trainer.py."""

import os
import sys
from pathlib import Path

import psutil
import torch
from tiny import trainer
from transformers import TrainerCallback

from hf_cxr.commands.errors import leave_process_group


class Gradients(TrainerCallback):
    """Keeps the gradients as the optimizer is about to see them."""

    def __init__(self):
        self.steps = []

    def on_pre_optimizer_step(self, args, state, control, model=None, **kwargs):
        self.steps.append({name: p.grad.clone() for name, p in model.named_parameters() if p.requires_grad})


def main(folder, batch_size, accumulation):
    """Train for one epoch; save the gradients of each step."""
    kept = Gradients()
    run = trainer(
        folder,
        per_device_train_batch_size=int(batch_size),
        gradient_accumulation_steps=int(accumulation),
        callbacks=[kept],
    )
    run.train()
    if run.is_world_process_zero():
        torch.save({"gradients": kept.steps, "loss": run.state.log_history[0]["loss"]}, f"{folder}/gradients.pt")


if __name__ == "__main__":
    main(*sys.argv[1:])
    threads = psutil.Process().num_threads()
    leave_process_group()
    if os.environ.get("RANK") == "0":
        ended = threads - psutil.Process().num_threads()
        Path(sys.argv[1], "threads_ended").write_text(str(ended))
