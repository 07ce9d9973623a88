"""Image files to pixels: which decoder is fastest, what `hf-cxr prepare` costs, and batches from files while training.

    python benchmarks/prepare.py FOLDER_OF_PNG [--tables decoders prepare loader workers] [--images 96] [--rounds 7]

Arms take turns (`arms.py`). The folder's images are taken again and again until there are as many as asked for.

| table | an arm's work |
|---|---|
| decoders | the bytes of each file to 8-bit grey pixels, (H, W) |
| prepare | the whole command with one process: read, decode, resize, hash, write shards |
| loader | rows to batches of 16 in the training process: decode and resize |
| workers | the same with 0, 1 and 2 DataLoader workers; here wall time is the figure, and it wants idle cores |

The peers of `decoders` are installed apart, and left out where they are not:

    pip install --no-deps --target PEERS pyspng imagecodecs opencv-python-headless    # and PEERS on PYTHONPATH

Every arm first proves that its pixels are the reference's. Arms called Pillow run with NUMBA_DISABLE_JIT=1.
"""

import io
import itertools
import sys
import tempfile
from pathlib import Path

import datasets
import numpy as np
from arms import Work, parser_of_arms, run_arms
from PIL import Image

from hf_cxr.data import DecodedImages, Source
from hf_cxr.data.images import engine
from hf_cxr.data.images.grey import read_grey
from hf_cxr.data.manifest import Recipe
from hf_cxr.data.prepare import prepare
from hf_cxr.data.schema import features
from hf_cxr.labels import LabelSpace

RELEASE = 112_120  # images of ChestX-ray14
RECIPE = Recipe(256, int(Image.Resampling.BICUBIC))


def parser():
    parser = parser_of_arms(__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--tables", nargs="+", choices=TABLES, default=list(TABLES))
    parser.add_argument("--images", type=int, default=96)
    return parser


def chosen_files() -> list[Path]:
    args = parser().parse_args()
    files = sorted(args.folder.glob("*.png"))
    if not files:
        raise SystemExit(f"no .png file in {args.folder}")
    return list(itertools.islice(itertools.cycle(files), args.images))


def table(files: list[Path]) -> datasets.DatasetDict:
    """A row for each file."""
    count = len(files)
    columns = {
        "image": [{"path": str(path), "bytes": None} for path in files],
        "labels": [[0.0]] * count,
        "image_id": [f"{row}/{path.name}" for row, path in enumerate(files)],
        "patient_id": [str(row) for row in range(count)],
        "view": [None] * count,
        "age": [40.0] * count,
        "sex": [None] * count,
        "boxes": [[]] * count,
    }
    return datasets.DatasetDict(train=datasets.Dataset.from_dict(columns, features(("Effusion",))))


def pillow_grey(content: bytes) -> np.ndarray:
    """Plain Pillow, without the checks and the 16-bit rule."""
    image = Image.open(io.BytesIO(content))
    return np.array(image if image.mode == "L" else image.convert("RGB").convert("L"))


def decoder(decode) -> Work:
    contents = [path.read_bytes() for path in chosen_files()]
    for content in dict.fromkeys(contents):
        assert np.array_equal(decode(content), pillow_grey(content))

    def work() -> int:
        for content in contents:
            decode(content)
        return len(contents)

    return work


def first_channel(pixels: np.ndarray) -> np.ndarray:
    """The grey of pixels whose colours are equal, as those of the release are; it costs a copy."""
    return pixels if pixels.ndim == 2 else np.ascontiguousarray(pixels[..., 0])


def decode_pyspng() -> Work:
    import pyspng

    return decoder(lambda content: first_channel(pyspng.load(content)))


def decode_imagecodecs_png() -> Work:
    import imagecodecs

    return decoder(lambda content: first_channel(imagecodecs.png_decode(content)))


def decode_imagecodecs_spng() -> Work:
    import imagecodecs

    return decoder(lambda content: first_channel(imagecodecs.spng_decode(content)))


def decode_opencv() -> Work:
    import cv2

    cv2.setNumThreads(1)
    return decoder(lambda c: first_channel(cv2.imdecode(np.frombuffer(c, np.uint8), cv2.IMREAD_UNCHANGED)))


def decode_here() -> Work:
    engine.warm_up()
    print(engine.engine_name(), file=sys.stderr)
    return decoder(read_grey)


def prepare_here() -> Work:
    engine.warm_up()
    files = chosen_files()
    source = Source(table(files), LabelSpace(["Effusion"]), name="benchmark")

    def work() -> int:
        with tempfile.TemporaryDirectory() as folder:
            return prepare(source, f"{folder}/out", RECIPE, duplicates="list")["decoded"]

    return work


def resized(row: dict) -> dict:
    return {"pixels": np.asarray(row["image"].convert("L").resize((256, 256), Image.Resampling.BICUBIC)).tobytes()}


def prepare_by_map() -> Work:
    """`datasets.map` with plain Pillow: no checks, no digests, no hash, no duplicates."""
    datasets.disable_progress_bars()
    split = table(chosen_files())["train"]

    def work() -> int:
        with tempfile.TemporaryDirectory() as folder:
            return len(split.map(resized, remove_columns=split.column_names, cache_file_name=f"{folder}/peer.arrow"))

    return work


def loader(workers: int) -> Work:
    from torch.utils.data import DataLoader

    from hf_cxr.processing import collate

    engine.warm_up()
    rows = DecodedImages(table(chosen_files())["train"], RECIPE.size, RECIPE.resample)
    batches = DataLoader(rows, batch_size=16, num_workers=workers, collate_fn=collate, persistent_workers=workers > 0)
    return lambda: sum(len(batch["labels"]) for batch in batches)


class PlainRows:
    """The peer's rows: plain Pillow."""

    def __init__(self, files: list[Path]):
        self.files = files

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, row: int) -> np.ndarray:
        with Image.open(self.files[row]) as image:
            return np.array(image.convert("L").resize((RECIPE.size, RECIPE.size), Image.Resampling.BICUBIC))


def plain_loader(workers: int) -> Work:
    from torch.utils.data import DataLoader

    batches = DataLoader(PlainRows(chosen_files()), batch_size=16, num_workers=workers, persistent_workers=workers > 0)
    return lambda: sum(map(len, batches))


TABLES = {
    "decoders": (
        "Pillow alone",
        {
            "Pillow alone": lambda: decoder(pillow_grey),
            "pyspng": decode_pyspng,
            "imagecodecs png": decode_imagecodecs_png,
            "imagecodecs spng": decode_imagecodecs_spng,
            "OpenCV": decode_opencv,
            "read_grey, Pillow": decode_here,
            "read_grey, compiled": decode_here,
        },
    ),
    "prepare": (
        "prepare, Pillow",
        {
            "datasets.map, Pillow alone": prepare_by_map,
            "prepare, Pillow": prepare_here,
            "prepare, compiled": prepare_here,
        },
    ),
    "loader": (
        "plain rows, Pillow alone",
        {
            "plain rows, Pillow alone": lambda: plain_loader(0),
            "rows, Pillow": lambda: loader(0),
            "rows, compiled": lambda: loader(0),
        },
    ),
    "workers": (
        "0 workers, compiled",
        {
            f"{workers} workers, {how}": lambda workers=workers: loader(workers)
            for workers in (0, 1, 2)
            for how in ("Pillow", "compiled")
        },
    ),
}
EVERY_ARM = {name: build for _, arms in TABLES.values() for name, build in arms.items()}
ENVIRONMENTS = {name: {"NUMBA_DISABLE_JIT": "1"} for name in EVERY_ARM if name.endswith(", Pillow")}


def main() -> None:
    args = parser().parse_args()
    if args.arm:
        run_arms(EVERY_ARM, reference="", title="", args=args)
    for title in args.tables:
        reference, arms = TABLES[title]
        rounds = run_arms(arms, reference=reference, title=title, args=args, environments=ENVIRONMENTS)
        if title == "workers":
            print("\nThe columns of CPU time above leave out the workers' own.")
            print("\n| arm | wall time, times 0 workers, compiled: median |\n|---|---|")
            for name, entries in rounds.items():
                pairs = zip(entries, rounds[reference], strict=True)
                ratio = np.median([(one["units"] / one["wall"]) / (two["units"] / two["wall"]) for one, two in pairs])
                print(f"| {name} | {ratio:.2f} |")
        if title == "prepare":
            for name, entries in rounds.items():
                minutes = RELEASE * np.median([entry["cpu"] / entry["units"] for entry in entries]) / 60
                print(f"{name}: {minutes:.0f} min of one core for all {RELEASE:,} images of the release")


if __name__ == "__main__":
    main()
