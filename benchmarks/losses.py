"""What each loss costs: forward and backward in microseconds, against torch's BCEWithLogitsLoss in the same run.

    python benchmarks/losses.py [--device cuda] [--eager] [--only zlpr two_way]

Rounds of the loss and of BCEWithLogitsLoss alternate, so that whatever else the machine does meets both; a figure is
the least over rounds, which other work disturbs least. Compiled losses go through torch.compile with
fullgraph=True, which refuses a graph break, and Inductor, which needs a C++ compiler on the CPU. The step that an
eager loss is a share of is one of configs/nih_small.yaml: forward, backward and optimizer of a small Swin on 32
images, taken B / 32 times.

B = images, C = findings.
"""

import argparse
import os
import platform
import shutil
import statistics
import sys
import time
import warnings
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parents[1]
sys.path[:] = [str(ROOT), *(path for path in sys.path if Path(path).resolve() != Path(__file__).resolve().parent)]

from hf_cxr.config import CONFIGS, parse_arguments  # noqa: E402
from hf_cxr.labels import NIH14  # noqa: E402
from hf_cxr.losses import LOSSES, build_loss  # noqa: E402
from hf_cxr.models.build import build_model  # noqa: E402

SHAPES = ((32, 14), (4096, 45))


def main(argv=None) -> None:
    """Measure and print two tables in Markdown."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--eager", action="store_true", help="leave the compiled losses out")
    parser.add_argument("--only", nargs="+", choices=LOSSES, default=list(LOSSES), metavar="LOSS")
    parser.add_argument("--rounds", type=int, default=30)
    args = parser.parse_args(argv)
    compiled = not args.eager and (args.device != "cpu" or shutil.which("g++") is not None)
    if not compiled:
        print("Compiled losses are left out: asked for, or no C++ compiler here.\n")
    step = swin_step_seconds(args.device)  # 32 images
    print(f"{machine(args.device)}; a step of configs/nih_small.yaml: {1e3 * step:.0f} ms\n")
    for shape in SHAPES:
        print(f"| {shape} | us | x BCEWithLogits | compiled, us | x compiled BCEWithLogits | share of the step |")
        print("| --- | ---: | ---: | ---: | ---: | ---: |")
        for name in args.only:
            eager = against_bce(name, shape, args.device, args.rounds, compiled=False)
            cells = [
                f"{1e6 * eager[0]:.0f}",
                f"{eager[1]:.1f}",
                "",
                "",
                f"{100 * eager[0] / (step * shape[0] / 32):.3f} %",
            ]
            if compiled:
                fast = against_bce(name, shape, args.device, args.rounds, compiled=True)
                cells[2:4] = f"{1e6 * fast[0]:.0f}", f"{fast[1]:.1f}"
            print(f"| `{name}` | {' | '.join(cells)} |", flush=True)
        print()


def against_bce(name: str, shape: tuple[int, int], device: str, rounds: int, *, compiled: bool) -> tuple[float, float]:
    """Seconds of a forward and backward pass, and its ratio to that of BCEWithLogitsLoss."""
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(shape, generator=generator).to(device).requires_grad_()
    targets = (torch.rand(shape, generator=generator) < 0.1).float().to(device)
    counts = torch.logspace(2, 4, shape[1]).round().numpy()
    losses = [
        build_loss(name, positives_C=counts, known_C=[70000] * shape[1]).to(device),
        torch.nn.BCEWithLogitsLoss(),
    ]
    if compiled:
        torch.compiler.reset()
        losses = [torch.compile(loss, fullgraph=True, dynamic=False) for loss in losses]

    def run(loss, repeats: int) -> float:
        synchronize(device)
        start = time.perf_counter()
        for _ in range(repeats):
            torch.autograd.grad(loss(logits, targets), logits)
        synchronize(device)
        return (time.perf_counter() - start) / repeats

    for loss in losses:
        run(loss, 3)
    repeats = max(1, int(0.005 / run(losses[0], 3)))
    pairs = [tuple(run(loss, repeats) for loss in losses) for _ in range(rounds)]
    ours, bce = map(min, zip(*pairs, strict=True))
    return ours, ours / bce


def swin_step_seconds(device: str) -> float:
    """Median seconds of five training steps of the small config's model on random pixels, with its autocast."""
    config = parse_arguments([str(CONFIGS / "nih_small.yaml"), "--nih_root", "unread"])
    model = build_model(config.model, NIH14).to(device).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    images, side = config.training.per_device_train_batch_size, config.model.image_size
    pixels = torch.randn(images, 3, side, side, device=device)
    labels = torch.zeros(images, len(NIH14), device=device)
    seconds = []
    for _ in range(7):
        synchronize(device)
        start = time.perf_counter()
        with torch.autocast(torch.device(device).type, torch.bfloat16, enabled=config.training.bf16):
            logits = model(pixel_values=pixels).logits
        torch.nn.functional.binary_cross_entropy_with_logits(logits.float(), labels).backward()
        optimizer.step()
        optimizer.zero_grad()
        synchronize(device)
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds[2:])


def synchronize(device: str) -> None:
    """Wait for a device that works on its own."""
    if torch.device(device).type != "cpu":
        torch.accelerator.synchronize()


def machine(device: str) -> str:
    """What was measured on."""
    if torch.device(device).type == "cuda":
        return f"{torch.cuda.get_device_name(device)}, torch {torch.__version__}"
    threads = torch.get_num_threads()
    return f"{platform.machine()} CPU, {os.cpu_count()} cores, {threads} threads, torch {torch.__version__}"


if __name__ == "__main__":
    warnings.filterwarnings("ignore", message="prevalence is")
    main()
