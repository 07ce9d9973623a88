"""The training step and the forward pass of a Swin: stock transformers, timm, and this package's fast pass.

Forward, binary cross-entropy, backward and AdamW on one random batch, without data loading.

    python benchmarks/step.py --model tiny --batch 8                       # one CPU thread, bf16 autocast
    python benchmarks/step.py --model tiny --batch 8 --precision fp32 --mode predict
    python benchmarks/step.py --model base --batch 32 --memory             # peak of a step; what backward keeps
    python benchmarks/step.py --model base --batch 32 128 --device cuda    # every arm also compiled and captured
    python benchmarks/step.py --attention                                  # the kernels of one window attention

On CPU the arms are processes of their own (`arms.py`). On CUDA they share one process and take turns; time is by CUDA
events, and peak memory is what a step allocates beyond weights, gradients and optimizer state. The share is of the
rate of a matrix product of 8,192 x 8,192 x 8,192 in the same precision, with the products that the stock model needs.

timm is left out if it is not installed.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from unittest import mock

import peers
from arms import parser_of_arms, run_arms

MODELS = {
    "tiny": {"image_size": 224, "embed_dim": 96, "depths": (2, 2, 6, 2), "num_heads": (3, 6, 12, 24)},
    "base": {"image_size": 224, "embed_dim": 128, "depths": (2, 2, 18, 2), "num_heads": (4, 8, 16, 32)},
    "quickstart": {"image_size": 64, "embed_dim": 32, "depths": (1, 2, 2), "num_heads": (2, 4, 8), "window_size": 4},
    "nih_small": {"image_size": 112, "embed_dim": 48, "depths": (2, 2, 2), "num_heads": (2, 4, 8)},
}
MODELS = {name: {"window_size": 7, **sizes} for name, sizes in MODELS.items()}
POSITIONS = ("quickstart", "nih_small")  # with absolute position embeddings, as their YAML files say
LABELS = 14
# arm -> model, AdamW fused; the reference is what the package ran on before it had a fast pass
TRAINING = {
    "stock SDPA": ("sdpa", False),
    "stock SDPA, fused AdamW": ("sdpa", True),
    "stock eager": ("eager", False),
    "stock eager, fused AdamW": ("eager", True),
    "timm": ("timm", False),
    "timm, fused AdamW": ("timm", True),
    "fast": ("fast", False),
    "fast, fused AdamW": ("fast", True),
}
PREDICTION = {"stock SDPA": "sdpa", "stock eager": "eager", "timm": "timm", "fast": "fast"}
# With --kernels, the fast pass with one attention kernel in every layer, and not the one that the package would take.
KERNELS = {
    "fast, attention by matrix products": "fast:matrix",
    "fast, SDPA": "fast:sdpa",
    "fast, Triton kernel": "fast:triton",
}
REFERENCE = "stock SDPA"


def parse() -> argparse.Namespace:
    parser = parser_of_arms(__doc__)
    parser.add_argument("--model", choices=MODELS, default="tiny")
    parser.add_argument("--batch", type=int, nargs="+", default=[8], help="images in a batch; several on CUDA")
    parser.add_argument("--precision", choices=["bf16", "fp32"], default="bf16", help="bf16 is autocast")
    parser.add_argument("--mode", choices=["train", "predict"], default="train")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--steps", type=int, default=1, help="steps of a round")
    parser.add_argument("--drop_path", type=float, default=0.0, help="rate of stochastic depth")
    parser.add_argument(
        "--how",
        nargs="+",
        choices=HOW,
        default=list(HOW),
        help="on CUDA: as written, captured as one CUDA graph, compiled, compiled with CUDA graphs, and autotuned",
    )
    parser.add_argument(
        "--memory", action="store_true", help="peak of a step on the CPU, and what its backward pass keeps"
    )
    parser.add_argument("--kernels", action="store_true", help="also the fast pass with each attention kernel")
    parser.add_argument("--attention", action="store_true", help="the kernels of one window attention, alone")
    return parser.parse_args()


def training_arms(args: argparse.Namespace) -> dict[str, tuple[str, bool]]:
    return TRAINING | ({name: (kind, True) for name, kind in KERNELS.items()} if args.kernels else {})


def prediction_arms(args: argparse.Namespace) -> dict[str, tuple[str, bool]]:
    kinds = PREDICTION | (KERNELS if args.kernels else {})
    return {name: (kind, False) for name, kind in kinds.items()}


def by_kernel(logits_of: Callable, kind: str) -> Callable:
    """The function of `build`, compiled or not, with the kernel that the arm names."""
    from hf_cxr.models import window_attention

    _, _, kernel = kind.partition(":")
    if not kernel:
        return logits_of
    if kernel == "triton" and not window_attention.HAS_TRITON:
        raise ImportError("no triton")

    def chosen(*_args) -> str:
        return kernel

    def with_it(pixels):
        with mock.patch.object(window_attention, "kernel_of", chosen):
            return logits_of(pixels)

    return with_it


def build(kind: str, args: argparse.Namespace):
    """(model, function from pixels to logits) of an arm, in training mode; `by_kernel` sets its kernel."""
    import torch

    torch.manual_seed(0)
    kind = kind.partition(":")[0]
    sizes = MODELS[args.model]
    if kind == "timm":
        from timm.models.swin_transformer import SwinTransformer

        model = SwinTransformer(
            img_size=sizes["image_size"],
            window_size=sizes["window_size"],
            embed_dim=sizes["embed_dim"],
            depths=sizes["depths"],
            num_heads=sizes["num_heads"],
            num_classes=LABELS,
            drop_path_rate=args.drop_path,
        )
        if args.model in POSITIONS:  # timm's Swin has none; without them its tokens would stay in bf16
            model.patch_embed = with_positions(model.patch_embed, sizes["embed_dim"])
        return model.train(), model
    from transformers import SwinConfig, SwinForImageClassification

    from hf_cxr.models.attention import use_attention

    config = SwinConfig(
        num_labels=LABELS, drop_path_rate=args.drop_path, use_absolute_embeddings=args.model in POSITIONS, **sizes
    )
    model = SwinForImageClassification(config).train()
    use_attention(model, kind, device=args.device)
    return model, lambda pixels: model(pixel_values=pixels).logits


def with_positions(patch_embed, channels: int):
    """timm's patch embedding, (B, height, width, C), and absolute position embeddings added to it."""
    import torch

    class Positions(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.patches = patch_embed
            self.positions = torch.nn.Parameter(torch.zeros(*patch_embed.grid_size, channels))

        def forward(self, pixels: torch.Tensor) -> torch.Tensor:
            return self.patches(pixels) + self.positions

    return Positions()


def batch_of(size: int, images: int, device: str):
    """(pixels (B, 3, S, S), targets (B, C)) of one seed."""
    import torch

    generator = torch.Generator().manual_seed(1)
    pixels = torch.randn(images, 3, size, size, generator=generator)
    targets = (torch.rand(images, LABELS, generator=generator) < 0.1).float()
    return pixels.to(device), targets.to(device)


def loss_of(logits, targets):
    from torch.nn.functional import binary_cross_entropy_with_logits

    return binary_cross_entropy_with_logits(logits.float(), targets)


def autocast(args: argparse.Namespace):
    import torch

    return torch.autocast(args.device, torch.bfloat16, enabled=args.precision == "bf16", cache_enabled=True)


def worker(kind: str, fused: bool, args: argparse.Namespace) -> Callable[[], int]:
    """One arm on the CPU."""
    import torch

    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    model, logits_of = build(kind, args)
    logits_of = by_kernel(logits_of, kind)
    images = args.batch[0]
    pixels, targets = batch_of(MODELS[args.model]["image_size"], images, "cpu")
    if args.mode == "predict":
        model.eval()

        def predict() -> int:
            with torch.inference_mode(), autocast(args):
                for _ in range(args.steps):
                    logits_of(pixels)
            return images * args.steps

        return predict
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, weight_decay=0.02, fused=fused or None)

    def train() -> int:
        for _ in range(args.steps):
            with autocast(args):
                logits = logits_of(pixels)
            loss_of(logits, targets).backward()
            optimizer.step()
            optimizer.zero_grad()
        return images * args.steps

    return train


def kept_bytes(kind: str, args: argparse.Namespace) -> int:
    """Bytes that the forward pass keeps for the backward pass, each storage once, without weights."""
    import torch

    model, logits_of = build(kind, args)
    pixels, targets = batch_of(MODELS[args.model]["image_size"], args.batch[0], "cpu")
    weights = {tensor.untyped_storage().data_ptr() for tensor in (*model.parameters(), *model.buffers())}
    kept = {}

    def keep(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        with autocast(args):
            logits = logits_of(pixels)
        loss = loss_of(logits, targets)
    del loss
    return sum(kept.values())


def step_memory(kind: str, args: argparse.Namespace) -> dict[str, int]:
    """Bytes of one training step on the CPU: at its peak, beyond what the process held before it, and kept.

    A step of one image comes first, so that the optimizer's state is there. "process" is the process's peak.
    """
    import psutil
    import torch

    torch.set_num_threads(args.threads)
    model, logits_of = build(kind, args)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, weight_decay=0.02, fused=True)
    size = MODELS[args.model]["image_size"]
    for images in (1, args.batch[0]):
        pixels, targets = batch_of(size, images, "cpu")
        before = psutil.Process().memory_info().rss
        with autocast(args):
            logits = logits_of(pixels)
        loss_of(logits, targets).backward()
        optimizer.step()
        optimizer.zero_grad()
    process = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024  # Linux counts KiB
    del logits, optimizer
    return {"step": process - before, "process": process, "kept": kept_bytes(kind, args)}


def print_memory(args: argparse.Namespace) -> None:
    """Each arm in a process of its own, one after the other."""
    if args.arm:
        print(json.dumps(step_memory(args.arm, args)))
        return
    from importlib.metadata import version

    print(f"\n**Memory of a training step: {args.model}, batch {args.batch[0]}, {args.precision}, CPU**")
    print(f"torch {version('torch')}, transformers {version('transformers')}\n")
    print("| arm | the step's peak, MiB | times fast | process, MiB | kept for the backward pass, MiB | times fast |")
    print("|---|---:|---:|---:|---:|---:|")
    fast: dict[str, int] = {}
    for name, kind in (("fast", "fast"), ("timm", "timm"), ("stock SDPA", "sdpa"), ("stock eager", "eager")):
        done = subprocess.run([sys.executable, *sys.argv, "--arm", kind], capture_output=True, text=True, check=False)
        if done.returncode:
            print(f"| {name} | left out: {(done.stderr.strip().splitlines() or [done.returncode])[-1]} | | | | |")
            continue
        found = json.loads(done.stdout)
        fast = fast or found
        step, process, kept = (found[key] / 2**20 for key in ("step", "process", "kept"))
        print(
            f"| {name} | {step:,.0f} | {found['step'] / fast['step']:.2f} | {process:,.0f} | {kept:,.0f} | "
            f"{found['kept'] / fast['kept']:.2f} |",
            flush=True,
        )


def flops_of_image(args: argparse.Namespace) -> float:
    """Floating-point operations of the stock model's matrix products for one image: forward, or a training step."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    with torch.device("meta"):
        logits_of = build("eager", args)[1]
        pixels = torch.randn(1, 3, *[MODELS[args.model]["image_size"]] * 2)
        with FlopCounterMode(display=False) as counter:
            logits = logits_of(pixels)
            if args.mode == "train":
                logits.sum().backward()
    return counter.get_total_flops()


def matrix_rate(args: argparse.Namespace) -> float:
    """Floating-point operations a second of a large matrix product in the arms' precision."""
    import torch

    n = 8192 if args.device == "cuda" else 2048
    dtype = torch.bfloat16 if args.precision == "bf16" else torch.float32
    a, b = (torch.randn(n, n, device=args.device, dtype=dtype) for _ in range(2))
    best = 0.0
    for _ in range(12):
        seconds = seconds_of(lambda: a @ b, 5, args.device)
        best = max(best, 2 * n**3 * 5 / seconds)
    return best


def seconds_of(work: Callable, times: int, device: str) -> float:
    """Seconds that ``times`` calls take: by CUDA events, or CPU time."""
    import torch

    if device == "cpu":
        start = time.process_time()
        for _ in range(times):
            work()
        return time.process_time() - start
    begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    begin.record()
    for _ in range(times):
        work()
    end.record()
    end.synchronize()
    return begin.elapsed_time(end) / 1000


def as_written(step: Callable) -> Callable:
    return step


def captured(step: Callable) -> Callable:
    """The whole step as one CUDA graph."""
    import torch

    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            step()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step()

    def replay(_kept=step) -> None:  # the graph reads the model's memory, so the model has to live as long
        graph.replay()

    return replay


# how -> (torch.compile's mode for the model, or None; what is done with the step)
HOW = {
    "written": (None, as_written),
    "graph": (None, captured),
    "compiled": ("default", as_written),
    "compiled-graph": ("default", captured),
    "autotuned": ("max-autotune-no-cudagraphs", captured),
}


def cuda_step(kind: str, fused: bool, how: str, images: int, args: argparse.Namespace) -> Callable[[], None]:
    import torch

    model, logits_of = build(kind, args)
    model.to("cuda").train(args.mode == "train")
    mode, finish = HOW[how]
    pixels, targets = batch_of(MODELS[args.model]["image_size"], images, "cuda")
    if mode is not None:
        torch._dynamo.reset()
        logits_of = torch.compile(logits_of, mode=mode, dynamic=False)
    logits_of = by_kernel(logits_of, kind)
    # Within a graph a cast weight must not be kept from one step to the next.
    context = partial(torch.autocast, "cuda", torch.bfloat16, enabled=args.precision == "bf16", cache_enabled=True)
    if args.mode == "predict":

        def predict() -> None:
            with torch.no_grad(), context():
                logits_of(pixels)

        step = predict
    else:
        optimizer = torch.optim.AdamW(
            model.parameters(), lr=1e-4, weight_decay=0.02, fused=fused or None, capturable=finish is captured
        )

        def train() -> None:
            with context():
                logits = logits_of(pixels)
            loss_of(logits, targets).backward()
            optimizer.step()
            optimizer.zero_grad()

        step = train
    for _ in range(3):
        step()
    return finish(step)


def run_cuda(images: int, args: argparse.Namespace) -> None:
    import torch
    import transformers

    torch.backends.cuda.matmul.allow_tf32 = False
    rate, flops = matrix_rate(args), flops_of_image(args)
    print(f"\n**{args.model}, batch {images}, {args.precision}, {args.mode}** ({torch.cuda.get_device_name()})")
    print(f"torch {torch.__version__}, transformers {transformers.__version__}; {args.rounds} rounds in turns")
    print(f"matrix products: {rate / 1e12:.0f} TFLOP/s; the model: {flops / 1e9:.1f} GFLOP an image\n", flush=True)
    table = {name: pair for name, pair in training_arms(args).items() if pair[1] or name == REFERENCE}
    if args.mode == "predict":
        table = prediction_arms(args)
    steps, memory, left_out = {}, {}, {}
    for how in dict.fromkeys(("written", *args.how)):
        for name, (kind, fused) in table.items():
            arm = name if how == "written" else f"{name}, {how}"
            if args.only and name not in args.only and name != REFERENCE:
                continue
            if name == REFERENCE and how != "written":
                continue  # ratios are against the stock model as it comes
            if name != REFERENCE and how not in args.how:
                continue
            try:
                step = cuda_step(kind, fused, how, images, args)
                torch.cuda.synchronize()
                resident = torch.cuda.memory_allocated()
                torch.cuda.reset_peak_memory_stats()
                step()
                torch.cuda.synchronize()
                memory[arm] = (torch.cuda.max_memory_allocated() - resident) / 2**30
                steps[arm] = step
            except Exception as error:
                left_out[arm] = f"{type(error).__name__}: {error}".splitlines()[0][:120]
            torch.cuda.empty_cache()
    rates = {arm: [] for arm in steps}
    if REFERENCE not in steps:
        raise SystemExit(f"the reference, {REFERENCE}, cannot be run: {left_out[REFERENCE]}")
    for _ in range(args.rounds):
        for arm, step in steps.items():
            rates[arm].append(images * args.steps / seconds_of(step, args.steps, "cuda"))
    print(f"| arm | images/s: median (best) | times {REFERENCE}: median (range) | matrix rate | GiB a step |")
    print("|---|---|---|---|---|")
    for arm, own in rates.items():
        ratios = [a / b for a, b in zip(own, rates[REFERENCE], strict=True)]
        median = statistics.median(own)
        print(
            f"| {arm} | {median:,.0f} ({max(own):,.0f}) | {statistics.median(ratios):.2f} ({min(ratios):.2f} to "
            f"{max(ratios):.2f}) | {100 * median * flops / rate:.0f} % | {memory[arm]:.1f} |"
        )
    for arm, error in left_out.items():
        print(f"| {arm} | left out: {error} | | | |")
    steps.clear()
    torch.cuda.empty_cache()


def print_attention(args: argparse.Namespace) -> None:
    """Milliseconds of each kernel of one window attention: forward, and forward and backward."""
    import torch

    from hf_cxr.models.window_attention import KERNELS

    torch.set_num_threads(args.threads)
    sizes, dtype = MODELS[args.model], torch.bfloat16 if args.precision == "bf16" else torch.float32
    print(f"\n**One window attention: {args.model}, batch {args.batch[0]}, {args.precision}, {args.device}**\n")
    print("| stage | kernel | forward, ms | forward and backward, ms |\n|---|---|---|---|")
    for number, heads in enumerate(sizes["num_heads"]):
        area, width = sizes["window_size"] ** 2, sizes["embed_dim"] * 2**number // heads
        windows = (sizes["image_size"] // 4 // 2**number) ** 2 // area
        shape = (args.batch[0] * windows, area, 3, heads, width)
        qkv = torch.randn(shape, device=args.device, dtype=dtype, requires_grad=True)
        bias = torch.randn(heads, area, area, device=args.device, requires_grad=True)
        mask = torch.zeros(windows, area, area, device=args.device) if windows > 1 else None
        for name, kernel in KERNELS.items():
            forward = partial(kernel, qkv, bias, mask, width**-0.5)
            try:
                gradient = torch.randn_like(forward())
                both = best_ms(lambda: forward().backward(gradient), args.device)  # noqa: B023
                with torch.no_grad():
                    alone = best_ms(forward, args.device)
            except Exception as error:
                print(f"| {number + 1} | {name} | left out: {type(error).__name__}: {str(error)[:60]} | |")
                continue
            print(f"| {number + 1} | {name} | {alone:.3f} | {both:.3f} |")


def best_ms(work: Callable, device: str) -> float:
    work()
    return 1000 * min(seconds_of(work, 5, device) / 5 for _ in range(4))


def main() -> None:
    args = parse()
    with suppress(ImportError):
        peers.allow_torchvision()  # where it is installed, transformers imports it
    if args.attention:
        print_attention(args)
    elif args.memory:
        print_memory(args)
    elif args.device == "cuda":
        for images in args.batch:
            run_cuda(images, args)
    else:
        table = training_arms(args) if args.mode == "train" else prediction_arms(args)
        arms = {name: partial(worker, *pair, args) for name, pair in table.items()}
        title = f"{args.model}, batch {args.batch[0]}, {args.precision}, {args.mode}"
        run_arms(arms, reference=REFERENCE, title=title, args=args)


if __name__ == "__main__":
    main()
