"""Which architectures export, and how near the exported files are: a table for docs/exporting.md.

    python benchmarks/exporting.py [ARCHITECTURE ...]

Each is a small model of `tests/tiny.py` with random weights (of norms and biases too, so that every operator counts) at
32 pixels. It is exported as the command does it, and compared with the package's own pass on random images in batches
of 1, 2, 7, 3 and 16.
"""

import copy
import sys
import time
from pathlib import Path

import numpy as np
import torch

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT / "tests"), str(ROOT)]


import tiny

from hf_cxr.export.onnx_model import OUTPUT, About, check_clean, onnx_of, traceable
from hf_cxr.export.parity import TOLERANCE, measure_parity
from hf_cxr.export.program import check_clean_program, content_of, logits_of_file, program_of
from hf_cxr.export.quantize import quantised, way_of
from hf_cxr.export.runtime import BATCHES, run, session
from hf_cxr.labels import NIH14
from hf_cxr.models.attention import use_attention
from hf_cxr.models.build import fresh
from hf_cxr.processing import Preprocessing

SIDE = 32


def main(names: list[str]) -> None:
    steps = Preprocessing(36, SIDE, 3, 1 / 255, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    about = About(NIH14, [float("nan")] * len(NIH14), steps, {})
    rng = np.random.default_rng(0)
    value_N3DD = rng.standard_normal((sum(BATCHES), 3, SIDE, SIDE), dtype=np.float32)
    print("| architecture | ONNX, largest difference of a logit | `.pt2` | spread of the logits | int8 | CPU s |")
    print("|---|---|---|---|---|---|")
    for name in names:
        start = time.process_time()
        torch.manual_seed(0)
        model = fresh(name, tiny.MODELS[name], NIH14, SIDE).eval()
        for key, weight in model.named_parameters():
            if weight.ndim == 1:
                torch.nn.init.normal_(weight, mean=float("norm" in key.lower() and "weight" in key), std=0.3)
        own = copy.deepcopy(model)
        use_attention(own)
        with torch.no_grad():
            expected_NC = own(pixel_values=torch.from_numpy(value_N3DD)).logits.numpy()
        module = traceable(model)
        cells = [name]
        try:
            proto = onnx_of(module, about, name)
            check_clean(proto, name)
            runtime = session(proto.SerializeToString())
            parity = measure_parity(lambda value: run(runtime, value)[OUTPUT], value_N3DD, expected_NC, "noise")
            cells.append(f"{parity.logit:.0e}" if parity.logit <= TOLERANCE else f"**{parity.logit:.0e}**")
        except ValueError as error:
            proto = None
            cells.append(f"no: {error}")
        try:
            content = content_of(program_of(module, SIDE, name), about)
            check_clean_program(content, name)
            parity = measure_parity(lambda value: logits_of_file(content, value), value_N3DD, expected_NC, "noise")
            cells.append(f"{parity.logit:.0e}" if parity.logit <= TOLERANCE else f"**{parity.logit:.0e}**")
        except ValueError as error:
            cells.append(f"no: {error}")
        cells.append(f"{expected_NC.std(0).mean():.2g}")
        if proto is not None:
            way = way_of(proto, name)
            small = session(quantised(proto, about, way, value_N3DD).SerializeToString())
            difference = np.abs(run(small, value_N3DD)[OUTPUT] - expected_NC).max()
            cells.append(f"{way}, {difference:.0e}")
        else:
            cells.append("")
        cells.append(f"{time.process_time() - start:.0f}")
        print("| " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:] or list(tiny.MODELS))
