"""What single parts cost: augmentation, the parts of a prepared row, kept answers, and layer decay.

    python benchmarks/parts.py                                        # all tables, one thread
    python benchmarks/parts.py --tables augmentation --batch 128 --device cuda
    python benchmarks/parts.py --tables rows answers optimizer --rounds 10

The arms of a table share this process and take turns, A B C A B C ...; time is CPU time of the process, and on CUDA
wall time between two waits for the device. A ratio is formed within a round; printed are the best and the median of
the rounds, and the median of the ratios with its range. Nothing is read but what the script makes itself.

| table | what it is |
|---|---|
| augmentation | `PixelProcessor` and mixup on a batch of 256 px bytes, to 224 px |
| rows | a prepared batch and its augmentation, part by part, beside the same done in the usual way |
| answers | answers of `hf-cxr predict`, 14 findings with label sets: kept, read again, written, joined |
| optimizer | AdamW's step on a Swin-T, one learning rate against one for each layer |

B = images of a batch, C = findings, S = 256, D = 224 pixels.
"""

import argparse
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from io import BytesIO
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
ROOT = Path(__file__).resolve().parents[1]
sys.path[:] = [str(ROOT), *(path for path in sys.path if Path(path).resolve() != Path(__file__).resolve().parent)]

import numpy as np  # noqa: E402
import torch  # noqa: E402
import torch.nn.functional as F  # noqa: E402
from PIL import Image  # noqa: E402

from hf_cxr.labels import NIH14  # noqa: E402
from hf_cxr.processing import CACHED_PIXELS, PixelProcessor, build_image_processor, collate  # noqa: E402

SIDE, CROP = 256, 224
PLAIN = {"horizontal_flip": 0.5, "rotation_degrees": 10}
LEVERS = {
    "with a crop": {"random_resized_crop": (0.6, 1.0)},
    "with brightness and contrast": {"brightness": 0.2, "contrast": 0.2},
    "with erasing": {"erasing": 0.25, "erasing_area": (0.02, 0.1)},
}
Arms = dict[str, Callable[[], object]]


def augmentation(args: argparse.Namespace, _folder: Path) -> tuple[Arms, str, int]:
    """Arms, the reference, and how many units a call is."""
    from hf_cxr.training.mixup import Mixup

    pixel_B1SS, row_B = batch_of_bytes(args), np.arange(args.batch)
    kinds = {"flips and rotations": {}, **LEVERS}
    kinds["with everything"] = {key: value for levers in LEVERS.values() for key, value in levers.items()}
    arms: Arms = {"evaluation": partial(processor(args), pixel_B1SS)}
    for name, levers in kinds.items():
        arms[name] = partial(processor(args, **PLAIN, **levers).augment, pixel_B1SS, row_B, 0)
    mixup, plain = Mixup(np.ones(1000), alpha=0.2), processor(args, **PLAIN)
    pair = {"pixel_values": pixel_B1SS, "partner_pixel_values": pixel_B1SS.flip(0), "row": row_B}
    arms["flips and rotations, mixup"] = lambda: mixup.mixed_pixels(plain, pair, 0)
    return arms, "flips and rotations", args.batch


def processor(args: argparse.Namespace, **augmentation) -> PixelProcessor:
    return PixelProcessor(build_image_processor(SIDE, CROP), **augmentation).to(args.device)


def batch_of_bytes(args: argparse.Namespace) -> torch.Tensor:
    """(B, 1, S, S) uint8."""
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (args.batch, 1, SIDE, SIDE), generator=generator, dtype=torch.uint8).to(args.device)


def rows(args: argparse.Namespace, folder: Path) -> tuple[Arms, str, int]:
    from torch.utils.data import DataLoader

    from hf_cxr.data import DecodedImages
    from hf_cxr.data.sources.prepared import load_prepared
    from hf_cxr.uniforms import row_uniforms

    images = DecodedImages(load_prepared(prepared(folder))[0]["train"], SIDE, int(Image.Resampling.BICUBIC))
    picks = np.random.default_rng(0).permutation(len(images))[: args.batch].tolist()
    from_worker = endless(DataLoader(images, batch_size=args.batch, shuffle=True, collate_fn=collate, num_workers=1))
    pixels = processor(args, **PLAIN)
    pixel_B1SS = batch_of_bytes(args)
    float_B1SS, value_B1DD = pixel_B1SS.float(), pixel_B1SS[..., :CROP, :CROP].float().contiguous()
    row_B = np.arange(args.batch)
    step_B32 = torch.from_numpy(pixels.draw(row_B, 0).steps())
    theta_B23 = step_B32.transpose(1, 2).contiguous()
    group = max(CACHED_PIXELS // CROP**2, 1)
    parts = [slice(start, start + group) for start in range(0, args.batch, group)]

    grid_BDD2 = grid_of(slice(None), step_B32, pixels.axis)

    def sample_in_parts() -> list[torch.Tensor]:
        return [F.grid_sample(float_B1SS[part], grid_BDD2[part], align_corners=False) for part in parts]

    def channels_in_parts() -> torch.Tensor:
        new_B3DD = torch.from_numpy(np.empty((args.batch, 3, CROP, CROP), np.float32))
        for part in parts:
            for channel in range(3):
                scale, shift = float(pixels.scale[0, channel]), pixels.shift[0, channel]
                torch.add(shift, value_B1DD[part][:, 0], alpha=scale, out=new_B3DD[part][:, channel])
        return new_B3DD

    arms: Arms = {
        "all of it: a batch from the map, augmented": lambda: pixels.augment(
            images.__getitems__(picks)["pixel_values"], row_B, 0
        ),
        "read, from the map into a batch": lambda: images.__getitems__(picks),
        "read, decoded row by row and collated": lambda: collate([images[row] for row in picks]),
        "read by a dataloader worker, taken over": lambda: next(from_worker),
        "draws, a hash for the batch": lambda: row_uniforms(0, 0, row_B, 13),
        "draws, a generator a row": lambda: [
            np.random.default_rng((0, 0, row)).random(2) for row in range(args.batch)
        ],
        "grid, a sum of two lines": lambda: [grid_of(part, step_B32, pixels.axis) for part in parts],
        "grid, affine_grid": lambda: F.affine_grid(theta_B23, (args.batch, 1, CROP, CROP), align_corners=False),
        "uint8 to float, in parts": lambda: [pixel_B1SS[part].float() for part in parts],
        "uint8 to float": pixel_B1SS.float,
        "grid_sample, in parts": sample_in_parts,
        "grid_sample": lambda: F.grid_sample(float_B1SS, grid_BDD2, align_corners=False),
        "3 channels normalised, in parts": channels_in_parts,
        "3 channels normalised": lambda: (value_B1DD.expand(-1, 3, -1, -1) * pixels.scale) + pixels.shift,
    }
    return arms, "all of it: a batch from the map, augmented", args.batch


def grid_of(part: slice, step_B32: torch.Tensor, axis: torch.Tensor) -> torch.Tensor:
    right_G2, down_G2, centre_G2 = (step[..., None, None] for step in step_B32[part].unbind(1))
    return ((right_G2 * axis + centre_G2) + down_G2 * axis[:, None]).permute(0, 2, 3, 1)


def endless(loader) -> Iterator:
    while True:
        yield from loader


def prepared(folder: Path) -> Path:
    """A prepared folder of 512 smooth images."""
    import datasets

    from hf_cxr.data import Source
    from hf_cxr.data.manifest import Recipe
    from hf_cxr.data.prepare import prepare
    from hf_cxr.data.schema import features

    datasets.disable_progress_bars()
    rng, count, stored = np.random.default_rng(0), 512, []
    for _ in range(count):
        file = BytesIO()
        small = Image.fromarray(rng.integers(0, 256, (16, 16), dtype=np.uint8))
        small.resize((SIDE, SIDE), Image.Resampling.BICUBIC).save(file, "PNG")
        stored.append({"path": None, "bytes": file.getvalue()})
    columns = {
        "image": stored,
        "labels": rng.integers(0, 2, (count, len(NIH14))).astype(float).tolist(),
        "image_id": [f"{row}.png" for row in range(count)],
        "patient_id": [str(row) for row in range(count)],
        **{name: [None] * count for name in ("view", "age", "sex")},
        "boxes": [[]] * count,
    }
    table = datasets.Dataset.from_dict(columns, features(NIH14))
    source = Source(datasets.DatasetDict(train=table), NIH14, name="benchmark")
    prepare(source, folder / "prepared", Recipe(SIDE, int(Image.Resampling.BICUBIC)), duplicates="list")
    return folder / "prepared"


def answers(args: argparse.Namespace, folder: Path) -> tuple[Arms, str, int]:
    from hf_cxr.evaluation.conformal import ConformalSets
    from hf_cxr.inference.answers import AnswerLines
    from hf_cxr.inference.calls import Calls
    from hf_cxr.inference.prediction_rows import PredictionRows
    from hf_cxr.inference.result_files import FORMATS, ResultColumns
    from hf_cxr.inference.results import ImageResult

    count, findings, version = 5000, len(NIH14), (400_000, 1_700_000_000_000_000_000)
    calls, patients_C = Calls(NIH14, None), np.full(findings, 1000)
    sets = ConformalSets(NIH14, 0.9, np.full(findings, 0.3), np.full(findings, 0.6), patients_C, patients_C)
    lines = AnswerLines(calls, sets, "benchmark")
    paths = [folder / "images" / f"{number:08d}.png" for number in range(count)]
    probability_NC = np.random.default_rng(0).random((count, findings), dtype=np.float32)
    results = [ImageResult.of(str(path), p_C, calls, sets) for path, p_C in zip(paths, probability_NC, strict=True)]
    kept = [f"{lines.line(path, version, result)}\n".encode() for path, result in zip(paths, results, strict=True)]
    columns = ResultColumns(calls, label_sets=True)
    print(f"a kept answer: {statistics.mean(map(len, kept)) - len(str(paths[0])):.0f} bytes and the path", flush=True)

    def keep() -> None:
        with PredictionRows(folder / "out.csv", lines) as store:
            for path, result in zip(paths, results, strict=True):
                store.add(path, version, result)
            store.partial.unlink()

    def join() -> None:
        with PredictionRows(folder / "joined.csv", lines) as store:
            for line in kept:
                store.add(*lines.answer(line))
            store.partial.unlink()

    def write(suffix: str) -> None:
        with FORMATS[suffix](folder / f"out{suffix}", columns, spreadsheet_safe=False) as row:
            for result in results:
                row(result)

    arms: Arms = {
        "kept on the disk": keep,
        "read again": lambda: [lines.answer(line) for line in kept],
        "joined: read from a part and kept": join,
        "a row of CSV": lambda: write(".csv"),
        "a row of Parquet": lambda: write(".parquet"),
        "a line of JSON": lambda: write(".jsonl"),
    }
    return arms, "kept on the disk", count


def optimizer(args: argparse.Namespace, _folder: Path) -> tuple[Arms, str, int]:
    from transformers import SwinConfig, SwinForImageClassification

    from hf_cxr.training.layer_rates import LayerRates

    arms: Arms = {}
    for name, rates in {"one rate": LayerRates(), "a rate for each layer": LayerRates(layer_decay=0.8)}.items():
        model = SwinForImageClassification(SwinConfig(num_labels=len(NIH14))).to(args.device)
        decayed = [key for key, value in model.named_parameters() if value.ndim > 1]
        groups = rates.groups(model, decayed, learning_rate=1e-5, weight_decay=0.05)
        for parameter in model.parameters():
            parameter.grad = torch.full_like(parameter, 1e-3)
        arms[f"{name}, {len(groups)} groups"] = torch.optim.AdamW(groups, lr=1e-5, fused=True).step
    return arms, next(iter(arms)), 1


# table -> (builder, what a unit is)
TABLES = {
    "augmentation": (augmentation, "image", True),
    "rows": (rows, "image", False),
    "answers": (answers, "row", False),
    "optimizer": (optimizer, "step", True),
}
"""By name: what makes the arms, the unit of a figure, and whether it is measured on --device; else on the CPU."""


def take_turns(arms: Arms, calls: int, rounds: int, device: str) -> dict[str, list[float]]:
    """Seconds of ``calls`` calls of each arm, one entry a round."""
    on_cpu = device == "cpu"
    clock, wait = (time.process_time, lambda: None) if on_cpu else (time.perf_counter, torch.cuda.synchronize)
    seconds: dict[str, list[float]] = {name: [] for name in arms}
    for number in range(rounds + 1):  # the first warms up
        for name, work in arms.items():
            wait()
            start = clock()
            for _ in range(calls):
                work()
            wait()
            if number:
                seconds[name].append(clock() - start)
    return seconds


def print_table(table: str, args: argparse.Namespace, folder: Path) -> None:
    build, unit, anywhere = TABLES[table]
    if not anywhere:
        args = argparse.Namespace(**{**vars(args), "device": "cpu"})
    arms, reference, units = build(args, folder)
    calls = 1 if units > 1000 else args.calls
    seconds = take_turns(arms, calls, args.rounds, args.device)
    of_batch = f", batch {args.batch}" if unit == "image" else ""
    print(f"\n**{table}**{of_batch} ({args.rounds} rounds in turns of {calls} call(s), {machine(args)})\n")
    print(f"| arm | us a {unit}: best | median | {unit}s/s: best | times {reference!r}: median (range) |")
    print("|---|---:|---:|---:|---:|")
    for name, own in seconds.items():
        best, median = (1e6 * value / calls / units for value in (min(own), statistics.median(own)))
        ratios = [mine / other for mine, other in zip(own, seconds[reference], strict=True)]
        spread = f"{statistics.median(ratios):.3g} ({min(ratios):.3g} to {max(ratios):.3g})"
        print(f"| {name} | {best:.3g} | {median:.3g} | {1e6 / best:,.0f} | {spread} |", flush=True)


def machine(args: argparse.Namespace) -> str:
    name = platform.machine() if args.device == "cpu" else torch.cuda.get_device_name()
    return f"{name}, {torch.get_num_threads()} thread(s), torch {torch.__version__}, load {os.getloadavg()[0]:.1f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tables", nargs="+", choices=TABLES, default=list(TABLES))
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--calls", type=int, default=4, help="calls of an arm in a round, where a call is one batch")
    parser.add_argument("--batch", type=int, default=32, help="images in a batch")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="of augmentation and optimizer")
    args = parser.parse_args()
    for table in args.tables:
        with tempfile.TemporaryDirectory() as folder:
            print_table(table, args, Path(folder))


if __name__ == "__main__":
    main()
