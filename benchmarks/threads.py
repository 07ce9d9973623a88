"""One thread or several for a training step on CPU, alone and beside programs that keep cores busy.

    python benchmarks/threads.py [--busy 1] [--model quickstart] [--rounds 7]
    python benchmarks/threads.py --busy 1 --model nih_swin_base --bf16

Read the column of wall time: threads that spin use CPU time and get nothing done. ``--busy N`` starts N endless Python
loops, tied to no core. The arms with two threads try the settings of libgomp, which torch's wheels ship.
"""

import subprocess
import sys

import numpy as np
import torch
from arms import parser_of_arms, run_arms

from hf_cxr.config import CONFIGS, parse_arguments
from hf_cxr.labels import NIH14
from hf_cxr.losses import build_loss
from hf_cxr.models.build import build_model

TWO = {"OMP_NUM_THREADS": "2", "MKL_NUM_THREADS": "2"}
SETTINGS = {
    "1 thread": {},
    "2 threads": TWO,
    "2 threads, OMP_WAIT_POLICY=passive": {**TWO, "OMP_WAIT_POLICY": "passive"},
    "2 threads, GOMP_SPINCOUNT=0": {**TWO, "GOMP_SPINCOUNT": "0"},
}


def parse():
    parser = parser_of_arms(__doc__)
    parser.add_argument("--busy", type=int, default=0, help="endless loops beside the arms")
    parser.add_argument("--model", default="quickstart", help="a config of configs/")
    parser.add_argument("--bf16", action="store_true", help="under autocast")
    parser.add_argument("--batch", type=int, default=16, help="images a step")
    parser.add_argument("--steps", type=int, default=10, help="steps a round")
    return parser.parse_args()


def build():
    """A training step of the config's model on random images."""
    args = parse()
    config = parse_arguments([str(CONFIGS / f"{args.model}.yaml"), "--dataset", "phantom"])
    torch.manual_seed(0)
    model = build_model(config.model, NIH14).train()
    loss = build_loss("bce", positives_C=[1] * len(NIH14), known_C=[2] * len(NIH14))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
    side = config.model.image_size
    pixels = torch.randn(args.batch, 3, side, side)
    labels = torch.from_numpy(np.random.default_rng(0).integers(0, 2, (args.batch, len(NIH14)))).float()

    def work() -> int:
        for _ in range(args.steps):
            with torch.autocast("cpu", torch.bfloat16, enabled=args.bf16):
                logits = model(pixel_values=pixels).logits
            loss(logits.float(), labels).backward()
            optimizer.step()
            optimizer.zero_grad()
        return args.steps * args.batch

    return work


if __name__ == "__main__":
    given = parse()
    loops = (
        [] if given.arm else [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(given.busy)]
    )
    try:
        run_arms(
            dict.fromkeys(SETTINGS, build),
            reference="1 thread",
            title=f"A training step of {given.model} beside {given.busy} busy loop(s)",
            args=given,
            environments=SETTINGS,
        )
    finally:
        for loop in loops:
            loop.kill()
            loop.wait()
