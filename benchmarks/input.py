"""The input road: rows of a data set to normalised float32 batches (B, 3, 224, 224), against what people use.

    python benchmarks/input.py FOLDER_OF_PNG [--batch 32] [--rounds 7] [--device cuda] [--only ARM ...]

FOLDER_OF_PNG has radiographs as they were published (ChestX-ray14: 1,024 px PNG, grey and RGBA); the first 48 are
taken, again and again where more are needed. Everything else is made beside them in a temporary folder: the same
images as 256 px PNG, and a prepared folder of 960 rows. Files are warm in the page cache. Each arm resizes to 256 and
crops 224, or does what its own recipe does instead:

| arm | what it is |
|---|---|
| prepared | `hf-cxr prepare`'s folder, a DataLoader without workers, `PixelProcessor`; host part: the uint8 batch |
| files | the same from the PNG files |
| HF | `datasets` with_transform and the image processor of microsoft/swin-*-224: resize to 224, no augmentation |
| timm | `create_loader`, evaluation, and its training default (random resized crop, flip, colour jitter) |
| xrv | torchxrayvision's NIH_Dataset with its centre crop and resizer; one channel, repeated |

With --device the prepared arms end on that device. Peers: see peers.py; those that are not installed are left out.
"""

import itertools
import os
import statistics
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from arms import Work, parser_of_arms, run_arms
from peers import allow_torchvision
from PIL import Image
from torch.utils.data import DataLoader

sys.path.remove(str(Path(__file__).resolve().parent))  # it has names of other packages, such as coverage

SIDE, CROP, FILES, ROWS = 256, 224, 48, 960
SIZES = ("1024", "256")
PLACE = "HF_CXR_BENCHMARK_INPUT"  # environment variable: the temporary folder, for the arms' processes
MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]


def arguments():
    parser = parser_of_arms(__doc__)
    parser.add_argument("folder", type=Path, help="radiographs as PNG")
    parser.add_argument("--batch", type=int, default=32, help="images in a batch")
    parser.add_argument("--device", default="cpu", help="where the prepared arms end")
    return parser.parse_args()


def place() -> Path:
    return Path(os.environ[PLACE])


def files(size: str) -> list[Path]:
    return sorted((place() / size / "class").glob("*.png"))


def table(paths: list[Path], count: int):
    """A split of the package's schema: these files in turn."""
    import datasets

    from hf_cxr.data.schema import features
    from hf_cxr.labels import NIH14

    chosen = list(itertools.islice(itertools.cycle(paths), count))
    rng = np.random.default_rng(0)
    columns = {
        "image": [{"path": str(path), "bytes": None} for path in chosen],
        "labels": rng.integers(0, 2, (count, len(NIH14))).astype(float).tolist(),
        "image_id": [f"{row}/{path.name}" for row, path in enumerate(chosen)],
        "patient_id": [str(row) for row in range(count)],
        "view": [None] * count,
        "age": [40.0] * count,
        "sex": [None] * count,
        "boxes": [[]] * count,
    }
    return datasets.Dataset.from_dict(columns, features(NIH14))


def set_up(folder: Path) -> None:
    """The files of both sizes, a table for torchxrayvision, and the prepared folder."""
    import datasets

    from hf_cxr.data import Source
    from hf_cxr.data.manifest import Recipe
    from hf_cxr.data.prepare import prepare
    from hf_cxr.labels import NIH14

    found = sorted(folder.glob("*.png"))[:FILES]
    if not found:
        sys.exit(f"no .png file in {folder}")
    for size in SIZES:
        (place() / size / "class").mkdir(parents=True)
    for path in found:
        (place() / "1024/class" / path.name).symlink_to(path.resolve())
        grey = Image.open(path).convert("RGB").convert("L")
        grey.resize((SIDE, SIDE), Image.Resampling.BICUBIC).save(place() / "256/class" / path.name)
    header = "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,View Position\n"
    rows = "".join(f"{path.name},No Finding,0,{number},40,M,PA\n" for number, path in enumerate(found))
    (place() / "table.csv").write_text(header + rows)
    datasets.disable_progress_bars()
    print(f"preparing {ROWS} rows of {len(found)} files", file=sys.stderr)
    source = Source(datasets.DatasetDict(train=table(files("1024"), ROWS)), NIH14, name="benchmark")
    prepare(source, place() / "prepared", Recipe(SIDE, int(Image.Resampling.BICUBIC)), duplicates="list")


def pass_over(loader, of: Callable) -> Work:
    """Work: one pass; ``of(batch)`` is the float batch."""

    def work() -> int:
        count = 0
        for batch in loader:
            pixels = of(batch)
            assert pixels.shape[-2:] in ((CROP, CROP), (SIDE, SIDE))
            count += len(pixels)
        if pixels.device.type == "cuda":
            torch.cuda.synchronize()
        return count

    return work


def ours(size: str | None, *, augment: bool = False, host: bool = False, one_by_one: bool = False) -> Work:
    """This package, from files of a size, or (None) prepared."""
    allow_torchvision_if_there()
    from hf_cxr.data import DecodedImages
    from hf_cxr.data.sources.prepared import load_prepared
    from hf_cxr.processing import PixelProcessor, build_image_processor, collate
    from hf_cxr.sampling import RepeatedRows

    args = arguments()
    device = torch.device(args.device if size is None else "cpu")
    processor = build_image_processor(SIDE, CROP)
    pixels = PixelProcessor(processor, horizontal_flip=0.5, rotation_degrees=10).to(device)
    split = load_prepared(place() / "prepared")[0]["train"] if size is None else table(files(size), FILES)
    images = DecodedImages(split, SIDE, int(Image.Resampling.BICUBIC))
    rows = OneByOne(images) if one_by_one else RepeatedRows(images)
    pinned = device.type == "cuda"
    loader = DataLoader(rows, batch_size=args.batch, shuffle=True, collate_fn=collate, pin_memory=pinned)

    def of(batch):
        pixel_values = batch["pixel_values"].to(device, non_blocking=True)
        if host:
            return pixel_values
        return pixels.augment(pixel_values, batch["row"], 0) if augment else pixels(pixel_values)

    return pass_over(loader, of)


class OneByOne:
    """A data set that is asked for one row at a time."""

    def __init__(self, images):
        self.images = images

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, row: int):
        return self.images[row]


def allow_torchvision_if_there() -> None:
    try:
        allow_torchvision()
    except ImportError:  # whoever needs none goes on without
        return


def hugging_face(size: str, *, torchvision: bool) -> Work:
    allow_torchvision_if_there()
    if torchvision:
        from transformers import ViTImageProcessor as Processor
    else:
        from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil as Processor
    shape = {"height": CROP, "width": CROP}
    processor = Processor(size=shape, resample=int(Image.Resampling.BICUBIC), image_mean=MEAN, image_std=STD)

    def transform(rows):
        images = [image.convert("RGB") for image in rows["image"]]
        return {"pixel_values": processor(images, return_tensors="pt")["pixel_values"], "labels": rows["labels"]}

    def collate(rows):
        labels = torch.tensor([row["labels"] for row in rows])
        return {"pixel_values": torch.stack([row["pixel_values"] for row in rows]), "labels": labels}

    data = table(files(size), FILES).with_transform(transform)
    loader = DataLoader(data, batch_size=arguments().batch, shuffle=True, collate_fn=collate)
    return pass_over(loader, lambda batch: batch["pixel_values"])


def timm(size: str, *, training: bool) -> Work:
    allow_torchvision()
    from timm.data import ImageDataset, create_loader

    loader = create_loader(
        ImageDataset(str(place() / size)),
        (3, CROP, CROP),
        min(arguments().batch, FILES),
        is_training=training,
        use_prefetcher=False,
        interpolation="bicubic",
        crop_pct=CROP / SIDE,
        num_workers=0,
        persistent_workers=False,
        pin_memory=False,
    )
    return pass_over(loader, lambda batch: batch[0])


def xrv(size: str) -> Work:
    allow_torchvision()
    import torchxrayvision
    from torchvision import transforms

    data = torchxrayvision.datasets.NIH_Dataset(
        str(place() / size / "class"),
        csvpath=str(place() / "table.csv"),
        views=["PA"],
        unique_patients=False,
        transform=transforms.Compose(
            [torchxrayvision.datasets.XRayCenterCrop(), torchxrayvision.datasets.XRayResizer(CROP)]
        ),
    )
    loader = DataLoader(data, batch_size=arguments().batch, shuffle=True)
    return pass_over(loader, lambda batch: batch["img"].expand(-1, 3, -1, -1).contiguous())


OURS = "prepared, augmented"
ARMS: dict[str, Callable[[], Work]] = {
    OURS: lambda: ours(None, augment=True),
    "prepared, evaluation": lambda: ours(None),
    "prepared, host part alone": lambda: ours(None, host=True),
    "prepared, host part one row at a time": lambda: ours(None, host=True, one_by_one=True),
}
for _size in SIZES:
    ARMS |= {
        f"files of {_size} px, augmented": lambda size=_size: ours(size, augment=True),
        f"HF, PIL, {_size} px": lambda size=_size: hugging_face(size, torchvision=False),
        f"HF, torchvision, {_size} px": lambda size=_size: hugging_face(size, torchvision=True),
        f"timm, evaluation, {_size} px": lambda size=_size: timm(size, training=False),
        f"timm, training, {_size} px": lambda size=_size: timm(size, training=True),
        f"xrv, {_size} px": lambda size=_size: xrv(size),
    }


def main() -> None:
    args = arguments()
    with tempfile.TemporaryDirectory() as folder:
        if not args.arm:  # an arm's own process finds it ready
            os.environ[PLACE] = folder
            set_up(args.folder)
        title = f"Rows to a float batch of {args.batch}, prepared arms on {args.device}"
        rounds = run_arms(ARMS, reference=OURS, title=title, args=args)
        print(f"\nHow many times as fast as each arm, by CPU time, {OURS} is; median (range) of the rounds:\n")
        for name, entries in rounds.items():
            rate = [[entry["units"] / entry["cpu"] for entry in own] for own in (rounds[OURS], entries)]
            ratio = [mine / other for mine, other in zip(*rate, strict=True)]
            print(f"- {name}: {statistics.median(ratio):.3g} ({min(ratio):.3g} to {max(ratio):.3g})")


if __name__ == "__main__":
    main()
