"""What `hf-cxr prepare` costs: images a second, against `datasets.map` with plain Pillow; and for the whole release.

    python benchmarks/prepare.py FOLDER_OF_IMAGES [--size 256] [--images 480] [--workers 1 2]

The folder's images are taken again and again until there are as many as asked for; each road decodes and resizes all
of them in the same run. Ratios are what to quote: machines differ, and are noisy.
"""

import argparse
import itertools
import os
import tempfile
import time
from pathlib import Path

import datasets
import numpy as np
from PIL import Image

from hf_cxr.data import DecodedImages, Source
from hf_cxr.data.manifest import Recipe
from hf_cxr.data.prepare import prepare
from hf_cxr.data.schema import features
from hf_cxr.data.sources.prepared import load_prepared
from hf_cxr.labels import LabelSpace

RELEASE = 112_120  # images of ChestX-ray14


def table(files: list[Path], count: int) -> datasets.DatasetDict:
    """``count`` rows that take the files in turn."""
    chosen = list(itertools.islice(itertools.cycle(files), count))
    columns = {
        "image": [{"path": str(path), "bytes": None} for path in chosen],
        "labels": [[0.0]] * count,
        "image_id": [f"{row}/{path.name}" for row, path in enumerate(chosen)],
        "patient_id": [str(row) for row in range(count)],
        "view": [None] * count,
        "age": [40.0] * count,
        "sex": [None] * count,
        "boxes": [[]] * count,
    }
    return datasets.DatasetDict(train=datasets.Dataset.from_dict(columns, features(("Effusion",))))


def resized(row: dict, size: int) -> dict:
    """The peer's row: plain Pillow, without the checks and the 16-bit rule."""
    return {"pixels": np.asarray(row["image"].convert("L").resize((size, size), Image.Resampling.BICUBIC)).tobytes()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--images", type=int, default=480)
    parser.add_argument("--workers", type=int, nargs="+", default=sorted({1, os.cpu_count() or 1}))
    args = parser.parse_args()
    files = sorted(args.folder.glob("*.png"))
    if not files:
        parser.error(f"no .png file in {args.folder}")
    datasets.disable_progress_bars()
    splits = table(files, args.images)
    source = Source(splits, LabelSpace(["Effusion"]), name="benchmark")
    recipe = Recipe(args.size, int(Image.Resampling.BICUBIC))
    print(f"{args.images} images from {len(files)} files, to {args.size} x {args.size}\n")
    print("| road | processes | images/s | to datasets.map | all 112,120 images |")
    print("|---|---|---|---|---|")
    for workers in args.workers:
        with tempfile.TemporaryDirectory() as folder:
            began = time.perf_counter()
            splits["train"].map(
                resized,
                fn_kwargs={"size": args.size},
                remove_columns=splits["train"].column_names,
                num_proc=workers if workers > 1 else None,
                cache_file_name=f"{folder}/peer.arrow",
            )
            peer = args.images / (time.perf_counter() - began)
            manifest = prepare(source, f"{folder}/out", recipe, duplicates="list", workers=workers)
            ours = manifest["decoded"] / manifest["seconds"]
            for name, rate in (("datasets.map", peer), ("hf-cxr prepare", ours)):
                print(f"| {name} | {workers} | {rate:.0f} | {rate / peer:.2f} | {RELEASE / rate / 60:.0f} min |")
            if workers == args.workers[-1]:
                prepared, _ = load_prepared(f"{folder}/out")
                reading(DecodedImages(splits["train"], args.size, 3), DecodedImages(prepared["train"], args.size, 3))
                each = manifest["bytes"] / args.images
                print(f"{each:,.0f} bytes an image: {each * RELEASE / 1e9:.2f} GB for all {RELEASE:,}")


def reading(raw: DecodedImages, ready: DecodedImages) -> None:
    """Rows a second when training asks for them, from the files and from the prepared folder."""
    rows = np.random.default_rng(0).permutation(len(raw))[:200].tolist()
    rates = []
    for road in (raw, ready):
        began = time.perf_counter()
        for row in rows:
            road[row]
        rates.append(len(rows) / (time.perf_counter() - began))
    print(f"\nreading rows, one process: {rates[0]:.0f} a second from the files, {rates[1]:.0f} prepared", end=" ")
    print(f"({rates[1] / rates[0]:.0f} times)")


if __name__ == "__main__":
    main()
