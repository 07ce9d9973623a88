"""What the start of a command costs: help, a misspelt flag, one predicted image, the first step of the quickstart.

    python benchmarks/startup.py [--rounds 5] [--only help predict] [--first_step]

Each command is started anew in every round, in turns with the peer, a bare ``import torch, transformers``. CPU time is
user and system time of the command and of the processes that it starts. One round before the first is thrown away: it
fills the page cache and writes the bytecode. With --first_step the quickstart runs from an empty cache of phantoms
until its first step is done, and is then stopped.
"""

import argparse
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
PEER = "import torch, transformers"
COMMAND = "import sys; from hf_cxr.commands import main; sys.exit(main(sys.argv[1:]))"

# The train command with one more callback, which reports the end of the first step to this script.
STEP_DONE = b"benchmarks/startup.py: first step done\n"
TRAIN = f"""
import os, sys
from transformers import TrainerCallback, trainer
class Report(TrainerCallback):
    def on_step_end(self, *args, **kwargs):
        os.write(1, {STEP_DONE!r})
trainer.DEFAULT_CALLBACKS.append(Report)
{COMMAND}
"""

SAVE = """
import sys
from hf_cxr.config import parse_arguments
from hf_cxr.labels import NIH14
from hf_cxr.models.build import build_model
from hf_cxr.processing import build_image_processor
args = parse_arguments([sys.argv[1]]).model
build_model(args, NIH14).save_pretrained(sys.argv[2])
build_image_processor(args.resize_size, args.image_size).save_pretrained(sys.argv[2])
"""


def commands(folder: Path) -> dict[str, list[str]]:
    """Name -> words after ``python``."""
    from hf_cxr.commands import COMMANDS

    quickstart = str(ROOT / "configs" / "quickstart.yaml")
    helps = {f"hf-cxr {name} --help": ["-c", COMMAND, name, "--help"] for name in COMMANDS}
    return {
        PEER: ["-c", PEER],
        "hf-cxr --help": ["-c", COMMAND, "--help"],
        **helps,
        "hf-cxr train, a misspelt flag": ["-c", COMMAND, "train", quickstart, "--sede", "1"],
        "hf-cxr predict, one image": ["-m", "hf_cxr", "predict", str(folder / "a.png"), "--model", str(folder)],
    }


def run(words: list[str], env: dict[str, str], cwd: Path) -> dict[str, float]:
    """Seconds of wall and CPU time of one start."""
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    done = subprocess.run([sys.executable, *words], capture_output=True, env=env, cwd=cwd, check=False)
    wall, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode not in (0, 2):
        raise SystemExit(done.stderr.decode())
    return {"wall": wall, "cpu": after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime}


def first_step(env: dict[str, str]) -> dict[str, float]:
    """Seconds until the quickstart has done its first step, from an empty cache."""
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        words = ["train", str(ROOT / "configs" / "quickstart.yaml"), "--output_dir", str(place / "run")]
        words += ["--max_steps", "1", "--eval_strategy", "no", "--save_strategy", "no"]
        words += ["--load_best_model_at_end", "false", "--warmup_steps", "0"]
        before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
        child = subprocess.Popen(
            [sys.executable, "-c", TRAIN, *words],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env={**env, "HF_DATASETS_CACHE": str(place / "cache")},
            cwd=place,
        )
        said, wall = b"", None
        while chunk := child.stdout.read1(65536):
            said += chunk
            if STEP_DONE in said:
                wall = time.perf_counter() - start
                child.kill()
                break
        child.stdout.close()
        child.wait()
        if wall is None:
            raise SystemExit(f"the quickstart ended before its first step was done:\n{said.decode(errors='replace')}")
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return {"wall": wall, "cpu": after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime}


def table(times: dict[str, list[dict[str, float]]], rounds: int) -> None:
    load = os.getloadavg()[0]
    print(f"\n**Start of a command** ({rounds} rounds in turns, OMP_NUM_THREADS=1, load {load:.1f})")
    print(f"CPython {platform.python_version()} on {platform.machine()}, {os.cpu_count()} cores\n")
    print("| command | CPU s: best | median | wall s: best | median | CPU against the peer: median |")
    print("|---|---|---|---|---|---|")
    for name, entries in times.items():
        cpu, wall = ([entry[key] for entry in entries] for key in ("cpu", "wall"))
        ratios = [own / entry["cpu"] for own, entry in zip(cpu, times[PEER], strict=True)]
        print(
            f"| {name} | {min(cpu):.2f} | {statistics.median(cpu):.2f} | {min(wall):.2f} | "
            f"{statistics.median(wall):.2f} | {statistics.median(ratios):.2f} |"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", nargs="+", default=[""], help="commands whose name has one of these words")
    parser.add_argument("--first_step", action="store_true", help="also the first step of the quickstart")
    args = parser.parse_args()
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    env = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "PYTHONPATH": os.pathsep.join(paths)}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        Image.fromarray(np.random.default_rng(0).integers(0, 256, (256, 256), dtype=np.uint8)).save(folder / "a.png")
        config = str(ROOT / "configs" / "quickstart.yaml")
        subprocess.run([sys.executable, "-c", SAVE, config, name], check=True, env=env, capture_output=True)
        arms = commands(folder)
        arms = {arm: words for arm, words in arms.items() if arm == PEER or any(word in arm for word in args.only)}
        times: dict[str, list[dict[str, float]]] = {arm: [] for arm in arms}
        for number in range(args.rounds + 1):
            for arm, words in arms.items():
                taken = run(words, env, folder)
                if number:
                    times[arm].append(taken)
    table(times, args.rounds)
    if args.first_step:
        steps = [first_step(env) for _ in range(args.rounds)]
        wall, cpu = ([entry[key] for entry in steps] for key in ("wall", "cpu"))
        print(
            f"\nFirst step of the quickstart from an empty cache: wall {min(wall):.1f} s best, "
            f"{statistics.median(wall):.1f} s median; CPU {min(cpu):.1f} s best, {statistics.median(cpu):.1f} s median"
        )


if __name__ == "__main__":
    main()
