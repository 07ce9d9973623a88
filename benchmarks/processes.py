"""What two processes do beside one, at one thread each: training steps, and `hf-cxr predict` of image files.

    python benchmarks/processes.py [--rounds 5] [--processes 2] [--only train predict]

The processes are forked once, join by gloo and then take turns: in a round first one process does the work alone while
the others wait asleep, then all do it together, each its share. Wall time is taken between two meetings, so it
includes the all-reduce of the gradients and the joining of the parts. A ratio is formed within a round. On a machine
where other programs run, two processes meet more of them than one: read the CPU time of the work beside it.
"""

import argparse
import os
import platform
import socket
import statistics
import sys
import tempfile
import time
from pathlib import Path

for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ[name] = "1"
ROOT = Path(__file__).resolve().parents[1]
sys.path[:] = [str(ROOT), *(path for path in sys.path if Path(path).resolve() != Path(__file__).resolve().parent)]

import numpy as np  # noqa: E402
import torch  # noqa: E402
from PIL import Image  # noqa: E402

from hf_cxr import processes  # noqa: E402
from hf_cxr.config import CONFIGS, parse_arguments  # noqa: E402
from hf_cxr.inference.classifier import Classifier  # noqa: E402
from hf_cxr.inference.shared_files import predict_together  # noqa: E402
from hf_cxr.labels import NIH14  # noqa: E402
from hf_cxr.models.build import build_model  # noqa: E402
from hf_cxr.processing import image_processor_for  # noqa: E402

IMAGES_A_STEP, STEPS, FILES, BATCH = 32, 4, 512, 16


def main() -> None:
    """Fork the processes, let them take turns, and print one table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--only", nargs="+", choices=("train", "predict"), default=("train", "predict"))
    args = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="processes-"))
    config = parse_arguments([str(CONFIGS / "nih_small.yaml"), "--nih_root", "unread"])
    model = build_model(config.model, NIH14)
    model.save_pretrained(folder / "model")
    image_processor_for(config.model).save_pretrained(folder / "model")
    rng = np.random.default_rng(0)
    (folder / "images").mkdir()
    for number in range(FILES):
        smooth = np.asarray(Image.fromarray(rng.integers(0, 256, (32, 32), dtype=np.uint8)).resize((256, 256)))
        Image.fromarray(smooth).save(folder / "images" / f"{number:04d}.png")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    children = [_forked(index, port, folder, args) for index in range(args.processes)]
    if any(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children):
        raise SystemExit("a process failed; its error is above")


def _forked(index: int, port: int, folder: Path, args: argparse.Namespace) -> int:
    child = os.fork()
    if child:
        return child
    status = 1
    try:
        os.environ |= {"RANK": str(index), "LOCAL_RANK": str(index), "WORLD_SIZE": str(args.processes)}
        os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "ACCELERATE_USE_CPU": "true"}
        from accelerate.state import AcceleratorState, PartialState

        AcceleratorState._reset_state()
        PartialState._reset_state()
        torch.set_num_threads(1)
        processes.connect()
        _take_turns(folder, args)
        status = 0
    finally:
        sys.stdout.flush()
        processes.leave()
        os._exit(status)


def _take_turns(folder: Path, args: argparse.Namespace) -> None:
    works = {"train": _training, "predict": _prediction}
    rows = []
    for name in args.only:
        alone, together, units = works[name](folder)
        times: list[tuple[float, float, float]] = []
        for _ in range(args.rounds + 1):  # the first warms up
            processes.meet()
            start, cpu = time.perf_counter(), time.process_time()
            if processes.is_main():
                alone()
            one, cpu_one = time.perf_counter() - start, time.process_time() - cpu
            processes.meet()
            start, cpu = time.perf_counter(), time.process_time()
            together()
            processes.meet()
            cpus = processes.gather(time.process_time() - cpu)
            times.append((one, time.perf_counter() - start, sum(cpus) / cpu_one if processes.is_main() else 0.0))
        rows.append((name, units, times[1:]))
    if processes.is_main():
        _print(rows, args)


def _training(folder: Path):
    """Forward, backward and AdamW of configs/nih_small.yaml on 32 images a step, alone and with averaged gradients."""
    config = parse_arguments([str(CONFIGS / "nih_small.yaml"), "--nih_root", "unread"])
    torch.manual_seed(0)
    model = build_model(config.model, NIH14).train()
    shared = torch.nn.parallel.DistributedDataParallel(model)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
    side = config.model.image_size

    def steps(of, images: int) -> None:
        pixels, labels = torch.randn(images, 3, side, side), torch.zeros(images, len(NIH14))
        for _ in range(STEPS):
            with torch.autocast("cpu", torch.bfloat16, enabled=config.training.bf16):
                logits = of(pixel_values=pixels).logits
            torch.nn.functional.binary_cross_entropy_with_logits(logits.float(), labels).backward()
            optimizer.step()
            optimizer.zero_grad()

    share = IMAGES_A_STEP // processes.count()
    return lambda: steps(model, IMAGES_A_STEP), lambda: steps(shared, share), STEPS * share * processes.count()


def _prediction(folder: Path):
    """`hf-cxr predict --csv` of 256-pixel PNG files, from the search's end to the joined answers."""
    classifier = Classifier(folder / "model")
    paths = sorted((folder / "images").iterdir())
    (folder / "out.csv.partial").touch()  # as the command keeps it open

    def alone() -> None:
        for _ in classifier.predict_versions(paths, batch_size=BATCH):
            pass

    def together() -> None:
        for _ in predict_together(classifier, paths, BATCH, out=str(folder / "out.csv")):
            pass

    return alone, together, FILES


def _print(rows, args: argparse.Namespace) -> None:
    print(
        f"{platform.machine()}, {os.cpu_count()} cores, one thread a process, {args.rounds} rounds, load "
        f"{os.getloadavg()[0]:.1f}, torch {torch.__version__}\n"
    )
    several = f"{args.processes} processes"
    print(
        f"| work | 1 process, images/s | {several}, images/s | ratio: median (range) | CPU time of {several} / of 1 |"
    )
    print("|---|---:|---:|---:|---:|")
    for name, units, times in rows:
        one, two = (statistics.median(units / entry[which] for entry in times) for which in (0, 1))
        ratios = sorted(entry[0] / entry[1] for entry in times)
        cpu = statistics.median(entry[2] for entry in times)
        spread = f"{statistics.median(ratios):.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f})"
        print(f"| {name} | {one:.0f} | {two:.0f} | {spread} | {cpu:.2f} |")


if __name__ == "__main__":
    main()
