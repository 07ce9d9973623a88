"""Training as the package runs it against the bare loop, evaluation against training, and where the rest goes.

    python benchmarks/training.py                               # the quickstart
    python benchmarks/training.py --model swin_t                # Swin-T at 224 pixels, bf16, batch 8
    python benchmarks/training.py --model swin_b --device cuda --per_device_train_batch_size 128 --workers 8
    python benchmarks/training.py --parts account               # where a run's time goes, to the millisecond

| arm        | what it does                                                                                     |
|------------|--------------------------------------------------------------------------------------------------|
| bare       | forward, loss, backward, clipping, optimizer, schedule; batches ready on the device, augmented   |
| trainer    | `CXRTrainer` on the run's own images: loading, logging, bookkeeping; no evaluation or checkpoint |
| evaluation | validation as training does it: loading, logits, loss, AUC and AP                                |

All three have the same model, loss, optimizer, augmentation and precision. ``account`` runs the config's own epochs
with their evaluations and checkpoints in one process and says how many milliseconds of a step, and how much of the
whole, each part takes. Flags that are not listed are the run's own, such as ``--max_grad_norm 0``.
"""

import itertools
import sys
import tempfile
import threading
import time
from collections import Counter
from contextlib import nullcontext
from pathlib import Path

from arms import parser_of_arms, run_arms

ROOT = Path(__file__).resolve().parents[1]
SWIN = {
    "dataset": "phantom",
    "phantom_size": 256,
    "phantom_train": 64,
    "phantom_validation": 64,
    "phantom_test": 12,  # of several patients
    "phantom_prevalence_floor": 0.2,
    "architecture": "swin",
    "image_size": 224,
    "loss": "class_aware",
    "optimizer": "adamw",
    "bf16": True,
    "per_device_train_batch_size": 8,
    "per_device_eval_batch_size": 64,
    "logging_steps": 25,
}
MODELS = {
    "quickstart": None,
    "swin_t": SWIN | {"model_kwargs": {"embed_dim": 96, "depths": [2, 2, 6, 2], "num_heads": [3, 6, 12, 24]}},
    "swin_b": SWIN | {"model_kwargs": {"embed_dim": 128, "depths": [2, 2, 18, 2], "num_heads": [4, 8, 16, 32]}},
}


def build(args, flags, **training):
    """A `CXRTrainer` on the images of the config; small training sets are repeated to ``--images``."""
    from dataclasses import replace

    import datasets
    import torch
    import yaml

    from hf_cxr.config import parse_arguments
    from hf_cxr.processing import PixelProcessor, image_processor_for
    from hf_cxr.run.data import open_data
    from hf_cxr.run.training import build_first_model, build_trainer, build_training_loss, draw_training_images

    torch.set_num_threads(args.threads)
    folder = Path(tempfile.mkdtemp(prefix="benchmark-"))
    config = ROOT / "configs" / "quickstart.yaml"
    if MODELS[args.model] is not None:
        config = folder / "config.yaml"
        config.write_text(yaml.safe_dump(MODELS[args.model]))
    device = {"use_cpu": args.device == "cpu", "dataloader_num_workers": args.workers, "disable_tqdm": True}
    words = [str(word) for key, value in (device | training).items() for word in (f"--{key}", value)]
    run = parse_arguments([str(config), "--output_dir", str(folder / "run"), *words, *flags])
    processor = image_processor_for(run.model)
    data = open_data(run, folder, None, PixelProcessor(processor))
    train = data.splits["train"]
    if args.images and len(train) < args.images:
        train = datasets.concatenate_datasets([train] * -(-args.images // len(train)))
        splits = datasets.DatasetDict(data.splits | {"train": train})
        data = replace(data, source=replace(data.source, splits=splits))
    draws_N = draw_training_images(run, train)
    loss, head_bias_C = build_training_loss(run, train, draws_N, data.label_names)
    model = build_first_model(run, data, loss, head_bias_C)
    return build_trainer(run, data, model, processor, loss, draws_N)


def bare(args, flags):
    import torch

    trainer = build(args, flags, eval_strategy="no", save_strategy="no", load_best_model_at_end="false")
    model, pixels, loss, device = trainer.model, trainer.pixels, trainer.loss, trainer.args.device
    trainer.create_optimizer_and_scheduler(10**6)
    optimizer, schedule = trainer.optimizer, trainer.lr_scheduler
    loader = itertools.islice(trainer.get_train_dataloader(), 16)
    batches = itertools.cycle([(b["pixel_values"], b["labels"], b["row"]) for b in loader])
    half = torch.autocast(device.type, torch.bfloat16) if trainer.args.bf16 else nullcontext()
    model.train()
    loss.train()

    def work():
        for pixel_values, labels, rows in itertools.islice(batches, args.steps):
            augmented = pixels.augment(pixel_values, rows, 0)
            with half:
                logits = model(pixel_values=augmented).logits
            loss(logits.float(), labels).backward()
            if trainer.args.max_grad_norm:
                torch.nn.utils.clip_grad_norm_(model.parameters(), trainer.args.max_grad_norm)
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
        wait_for(device)
        return args.steps * trainer.args.train_batch_size

    return work


def whole(args, flags):
    from transformers import TrainerCallback

    settings = {"eval_strategy": "no", "save_strategy": "no", "load_best_model_at_end": "false"}
    trainer = build(args, flags, num_train_epochs=10**4, **settings)
    go, done = threading.Semaphore(0), threading.Semaphore(0)

    class Turns(TrainerCallback):
        """Holds the training thread between two rounds."""

        def on_train_begin(self, *args, **kwargs):
            go.acquire()

        def on_step_end(self, _, state, control, **kwargs):
            if state.global_step % args.steps == 0:
                wait_for(trainer.args.device)
                done.release()
                go.acquire()

    trainer.add_callback(Turns())
    threading.Thread(target=trainer.train, daemon=True).start()

    def work():
        go.release()
        done.acquire()
        return args.steps * trainer.args.train_batch_size

    return work


def evaluation(args, flags):
    trainer = build(args, flags)

    def work():
        trainer.evaluate()
        wait_for(trainer.args.device)
        return len(trainer.eval_dataset)

    return work


def wait_for(device):
    import torch

    if device.type != "cpu":
        torch.accelerator.synchronize(device)


def account(args, flags):
    """Run the config and print how long each part took: CPU time; on an accelerator, for how long it kept the host."""
    trainer = build(args, flags)
    clock = time.process_time if args.device == "cpu" and not args.workers else time.perf_counter
    spent, depth = Counter(), []

    def timed(holder, name, part):
        inner = getattr(holder, name)

        def outer(*args, **kwargs):
            start, before = clock(), sum(spent.values())
            depth.append(part)
            try:
                return inner(*args, **kwargs)
            finally:
                depth.pop()
                # A part within another part is its own.
                spent[part] += clock() - start - (sum(spent.values()) - before)

        setattr(holder, name, outer)

    for name, part in {
        "_run_epoch": "the Trainer's bookkeeping",
        "get_batch_samples": "loading",
        "training_step": "augmentation, forward, loss, backward",
        "_clip_grad_norm": "clipping",
        "_get_grad_norm": "clipping",
        "log": "log entries",
        "evaluate": "evaluation",
        "_save_checkpoint": "checkpoints",
    }.items():
        timed(trainer, name, part)
    prepare = trainer._prepare_for_training

    def prepare_and_time(*args, **kwargs):
        prepared = prepare(*args, **kwargs)
        timed(trainer.optimizer, "step", "optimizer, and freeing the gradients")
        timed(trainer.model, "zero_grad", "optimizer, and freeing the gradients")
        return prepared

    trainer._prepare_for_training = prepare_and_time
    trainer.train()
    steps, total = trainer.state.global_step, sum(spent.values())
    images = steps * trainer.args.images_per_step
    print(f"\n**Where {steps} steps go** ({args.model}, {args.device}, {args.threads} thread(s))\n")
    print("| part | ms a step | share |\n|---|---|---|")
    for part, seconds in spent.most_common():
        print(f"| {part} | {1000 * seconds / steps:.2f} | {100 * seconds / total:.1f} % |")
    print(f"| all: {images / total:.4g} images/s | {1000 * total / steps:.2f} | 100 % |")
    apart = spent["evaluation"] + spent["checkpoints"]
    print(f"| without evaluation and checkpoints: {images / (total - apart):.4g} images/s | | |")
    measured = len(trainer.eval_dataset) * sum("eval_loss" in entry for entry in trainer.state.log_history)
    if measured:
        print(f"| evaluation: {measured / spent['evaluation']:.4g} images/s | | |")


def main():
    parser = parser_of_arms(__doc__)
    parser.add_argument("--model", choices=MODELS, default="quickstart")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--steps", type=int, default=20, help="steps a round")
    parser.add_argument("--images", type=int, default=1024, help="training images at least, by repetition")
    parser.add_argument("--workers", type=int, default=0, help="dataloader workers")
    parser.add_argument("--parts", nargs="+", choices=("arms", "account"), default=["arms", "account"])
    args, flags = parser.parse_known_args()
    builders = {"bare": bare, "trainer": whole, "evaluation": evaluation}
    arms = {name: lambda builder=builder: builder(args, flags) for name, builder in builders.items()}
    title = f"Training of {args.model} on {args.device}, {args.steps} steps a round"
    if args.arm or "arms" in args.parts:
        run_arms(arms, reference="bare", title=title, args=args, by="cpu" if args.device == "cpu" else "wall")
    if "account" in args.parts:
        account(args, flags)


if __name__ == "__main__":
    sys.exit(main())
