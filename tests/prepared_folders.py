"""Prepared folders of tests: thirty images in five containers at 32 pixels, and twelve of 20 x 20 pixels at 16."""

import json
from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path

import datasets
import numpy as np
import pytest
from PIL import Image

from hf_cxr.data import prepare as module
from hf_cxr.data.manifest import TIMING, Recipe
from hf_cxr.data.prepare import prepare
from hf_cxr.data.schema import features
from hf_cxr.data.sources import Source
from hf_cxr.labels import LabelSpace

NAMES = ("Effusion", "Mass")
RECIPE = Recipe(size=32, resample=int(Image.Resampling.BICUBIC))
SIX_OF_THIRTY = 6 * (32**2 + 512)  # bytes of a shard: 4 + 1 + 1 shards of six images
THREE_OF_TWELVE = 3 * (16**2 + 512)  # 3 + 1 + 1 shards of at most three images


def encode(path: Path, image_HW: np.ndarray, kind: str) -> None:
    """One picture in each container that a folder may hold."""
    image = Image.fromarray(image_HW)
    if kind == "rgba":
        image = image.convert("RGBA")
    elif kind == "palette":
        image = image.convert("P")
    elif kind == "deep":
        image = Image.fromarray((image_HW.astype(np.uint16) << 4) + 3)
    image.save(path, format="JPEG" if kind == "jpeg" else "PNG")


def write_thirty(folder: Path) -> Path:
    """00.png to 29.png, each of another height."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    kinds = ("grey", "rgba", "palette", "deep", "jpeg")
    for n in range(30):
        encode(folder / f"{n:02d}.png", rng.integers(0, 256, (50 + n, 60), dtype=np.uint8), kinds[n % 5])
    return folder


def write_twelve(folder: Path) -> Path:
    """00.png to 11.png."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    for n in range(12):
        Image.fromarray(rng.integers(0, 256, (20, 20), dtype=np.uint8)).save(folder / f"{n:02d}.png")
    return folder


def _splits(columns: Callable[[int], dict], *parts: Iterable[int]) -> datasets.DatasetDict:
    schema = features(NAMES)
    rows = ([columns(n) for n in part] for part in parts)
    tables = [datasets.Dataset.from_dict({key: [row[key] for row in part] for key in schema}, schema) for part in rows]
    return datasets.DatasetDict(zip(("train", "validation", "test"), tables, strict=True))


@cache
def splits_of_thirty(folder: Path, label: float = 0.0) -> datasets.DatasetDict:
    """20, 5 and 5 images, read from their files when needed; the first finding is ``label``, the second unknown."""

    def columns(n: int) -> dict:
        return {
            "image": {"path": str(folder / f"{n:02d}.png"), "bytes": None},
            "labels": [label, float("nan")],
            "image_id": f"{n:02d}.png",
            "patient_id": f"p{n}",
            "view": "PA" if n % 2 else None,
            "age": float("nan") if n % 3 else 40.0,
            "sex": None,
            "boxes": [{"finding": "Mass", "bbox": [0.1, 0.2, 0.3, 0.4]}] if n == 2 else [],
        }

    return _splits(columns, range(20), range(20, 25), range(25, 30))


@cache
def splits_of_twelve(folder: Path, label: float = 0.0) -> datasets.DatasetDict:
    """8, 2 and 2 images, read from their files when needed."""

    def columns(n: int) -> dict:
        return {
            "image": {"path": str(folder / f"{n:02d}.png"), "bytes": None},
            "labels": [label, 1.0],
            "image_id": f"{n:02d}.png",
            "patient_id": f"p{n}",
            "view": "PA",
            "age": 40.0,
            "sex": None,
            "boxes": [],
        }

    return _splits(columns, range(8), range(8, 10), range(10, 12))


def prepare_thirty(splits: datasets.DatasetDict, out: Path, recipe: Recipe = RECIPE, **options) -> dict:
    missing = options.pop("missing", {})
    return prepare(Source(splits, LabelSpace(NAMES), "thirty", missing=missing), out, recipe, **options)


def prepare_twelve(images: Path, out: Path, *, label: float = 0.0, **options) -> dict:
    return prepare(Source(splits_of_twelve(images, label), LabelSpace(NAMES), "twelve"), out, Recipe(16, 3), **options)


def content(folder: Path) -> tuple[dict, dict[str, bytes]]:
    """All that a folder holds, but for how long it took: the manifest, and every other file."""
    files = {str(path.relative_to(folder)): path for path in sorted(folder.rglob("*")) if path.is_file()}
    files.pop(".lock", None)
    manifest = json.loads(files.pop("manifest.json").read_text())
    what = {key: value for key, value in manifest.items() if key not in TIMING}
    return what, {name: path.read_bytes() for name, path in files.items()}


@pytest.fixture(scope="module")
def twelve_images(tmp_path_factory):
    """The folder of `write_twelve`, one for each module of tests."""
    return write_twelve(tmp_path_factory.mktemp("twelve") / "images")


@pytest.fixture(autouse=True, scope="module")
def shards_of_three():
    """Within the module of tests that has this, shards have at most three of the twelve images."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "SHARD_BYTES", THREE_OF_TWELVE)
        yield
