"""Which architectures export, and how near the exported files are: a table for docs/exporting.md.

    PYTHONPATH=tests python benchmarks/exporting.py [ARCHITECTURE ...]

Each is a small model of `tests/tiny.py` with random weights, large enough that every operator counts, at 32
pixels. It is exported as the command does it, and compared with the package's own pass on random images in
batches of 1, 2, 7, 3 and 16.

N = images, C = findings.
"""

import copy
import sys
import time
from collections.abc import Callable

import numpy as np
import tiny
import torch

from hf_cxr.export.onnx_model import OUTPUT, ExportMetadata, Logits, check_clean, onnx_of, traceable
from hf_cxr.export.parity import TOLERANCE, measure_parity
from hf_cxr.export.program import check_clean_program, content_of, logits_of_file, program_of
from hf_cxr.export.quantize import quantised, way_of
from hf_cxr.export.runtime import BATCHES, run, session
from hf_cxr.labels import NIH14
from hf_cxr.models.attention import use_attention
from hf_cxr.models.build import fresh
from hf_cxr.processing import Preprocessing

SIDE = 32
STEPS = Preprocessing(36, SIDE, 3, 1 / 255, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
ABOUT = ExportMetadata(NIH14, [float("nan")] * len(NIH14), STEPS, {})
VALUES = np.random.default_rng(0).standard_normal((sum(BATCHES), 3, SIDE, SIDE), dtype=np.float32)

SCALES = (1, 1.25, 1.5, 2, 3, 4)
LEAST = 0.01
"""Mean spread of a logit over images: a model whose outputs are all the same would pass whatever was exported."""


def small_model(name: str, scale: float):
    """A model of random weights; with a larger ``scale`` images differ more in their logits."""
    torch.manual_seed(0)
    model = fresh(name, tiny.MODELS[name], NIH14, SIDE).eval()
    for key, weight in model.named_parameters():
        if weight.ndim == 1:
            torch.nn.init.normal_(weight, mean=float("norm" in key.lower() and "weight" in key), std=0.3)
        else:
            torch.nn.init.normal_(weight, std=scale * weight[0].numel() ** -0.5)
    return model


def own_logits(name: str, scale: float):
    """The model, and its logits (N, C) by the package's own pass."""
    model = small_model(name, scale)
    own = copy.deepcopy(model)
    use_attention(own)
    with torch.no_grad():
        return model, own(pixel_values=torch.from_numpy(VALUES)).logits.numpy()


def in_onnx(module: Logits, name: str, expected_NC: np.ndarray) -> tuple[str, str]:
    """The largest difference of a logit in float32, and how 8-bit weights are made."""
    proto = onnx_of(module, ABOUT, name)
    check_clean(proto, name)
    runtime = session(proto.SerializeToString())
    way = way_of(proto, name)
    small = session(quantised(proto, ABOUT, way, VALUES, name).SerializeToString())
    rounded_NC = run(small, VALUES)[OUTPUT]
    if not np.isfinite(rounded_NC).all():
        raise ValueError("the logits of the 8-bit model are not numbers")
    return difference(lambda value: run(runtime, value)[OUTPUT], expected_NC), way


def in_program(module: Logits, name: str, expected_NC: np.ndarray) -> str:
    """The largest difference of a logit."""
    content = content_of(program_of(module, SIDE, name), ABOUT)
    check_clean_program(content, name)
    return difference(lambda value: logits_of_file(content, value), expected_NC)


def difference(logits_of: Callable[[np.ndarray], np.ndarray], expected_NC: np.ndarray) -> str:
    """In bold if it is too large."""
    parity = measure_parity(logits_of, VALUES, expected_NC, "noise")
    return f"{parity.logit:.0e}" if parity.logit <= TOLERANCE else f"**{parity.logit:.0e}**"


def main(names: list[str]) -> None:
    print("| architecture | ONNX | `.pt2` | int8 | spread of the logits | CPU s |")
    print("|---|---|---|---|---|---|")
    for name in names:
        start = time.process_time()
        model, expected_NC = next(
            found for scale in SCALES if (found := own_logits(name, scale))[1].std(0).mean() > LEAST
        )
        module = traceable(model)
        try:
            onnx, int8 = in_onnx(module, name, expected_NC)
            cells = [name, onnx, in_program(module, name, expected_NC), int8]
        except ValueError as error:
            cells = [name, f"refused: {error}", "", ""]
        cells += [f"{expected_NC.std(0).mean():.2g}", f"{time.process_time() - start:.0f}"]
        print("| " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:] or list(tiny.MODELS))
