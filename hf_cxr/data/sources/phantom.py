"""Phantoms as a dataset: synthetic radiographs with the 14 NIH findings, to try everything without a download.

No patient is behind any of it: what a model reaches on phantoms shows that the code works, and says nothing about
radiographs. `hf_cxr.phantom` decides who is drawn and renders them; here they become datasets of the common schema.
"""

import functools
import hashlib
from collections.abc import Iterator
from pathlib import Path

import datasets
from tqdm.auto import tqdm

import hf_cxr.phantom
from hf_cxr.cores import usable_cores
from hf_cxr.data import schema
from hf_cxr.data.manifest import PHANTOM_SPLITS
from hf_cxr.data.sources.source import Arguments, Kind, Source, check_range
from hf_cxr.labels import NIH14
from hf_cxr.phantom.cases import SPLITS, draw_cases
from hf_cxr.phantom.drawing import draw_phantoms, processes_worth
from hf_cxr.phantom.render import SIZES, check_size

RENDERER_VERSION = 1
"""Raise it when pixels, boxes or labels change. It is in the cache's key, as is the code, should this be forgotten."""


def _check(args: Arguments) -> None:
    check_range("phantom_seed", args.phantom_seed, 0, 2**32 - 1)
    for name in ("phantom_train", "phantom_validation", "phantom_test"):
        check_range(name, getattr(args, name), 1)
    check_range("phantom_size", args.phantom_size, *SIZES)
    check_range("phantom_prevalence_floor", args.phantom_prevalence_floor, 0, 0.3)


def _load(args: Arguments, *, images: bool) -> Source:
    splits = load_phantom(
        train=args.phantom_train,
        validation=args.phantom_validation,
        test=args.phantom_test,
        size=args.phantom_size,
        seed=args.phantom_seed,
        prevalence_floor=args.phantom_prevalence_floor,
    )
    return Source(
        splits if images else splits.remove_columns("image"),
        NIH14,
        name="synthetic phantoms (no patients)",
        split_origin={"splits_from": PHANTOM_SPLITS, "split_file": None},
        synthetic=True,
        decodable=True,
    )


PHANTOM = Kind(
    help="procedural synthetic radiographs",
    options=(
        "phantom_train",
        "phantom_validation",
        "phantom_test",
        "phantom_size",
        "phantom_seed",
        "phantom_prevalence_floor",
    ),
    check=_check,
    load=_load,
)


def load_phantom(
    *,
    train: int = 0,
    validation: int = 0,
    test: int = 0,
    size: int = 256,
    seed: int = 0,
    prevalence_floor: float = 0.0,
) -> datasets.DatasetDict:
    """Phantoms as a `datasets.DatasetDict` of the common schema, rendered once and kept in the datasets cache.

    Args:
        train, validation, test: numbers of images; a split of 0 images is left out. No patient is in two splits.
        size: pixels along a side.
        seed: another seed, other patients.
        prevalence_floor: least prevalence of a finding, as a fraction of images; 0 keeps the real table's, in which
            Hernia is 0.2 %. Label sets stay those of the table, only their weights change.

    Raises:
        ValueError: no image was asked for, or an argument is out of range.
    """
    counts = {split: images for split, images in zip(SPLITS, (train, validation, test), strict=True) if images}
    if not counts:
        raise ValueError("no phantom was asked for: give train, validation or test a number of images")
    check_size(size)
    loaded = datasets.DatasetDict()
    for split, images in counts.items():
        draw_cases(images, split=split, seed=seed, prevalence_floor=prevalence_floor)  # refuses before a cache is made
        loaded[split] = datasets.Dataset.from_generator(
            _rows,
            features=schema.features(NIH14),
            gen_kwargs={
                "images": images,
                "split_name": split,
                "size": size,
                "seed": seed,
                "prevalence_floor": prevalence_floor,
                "renderer": f"{RENDERER_VERSION}-{renderer_digest()}",
            },
            split=datasets.NamedSplit(split),
        )
        loaded[split].info.description = f"Synthetic phantoms, not patients (renderer version {RENDERER_VERSION})."
    return loaded


@functools.cache
def renderer_digest() -> str:
    """SHA-256 over the code that makes the rows: no image that other code rendered is taken from the cache."""
    folder = Path(hf_cxr.phantom.__file__).parent
    digest = hashlib.sha256()
    for path in (*sorted(folder.glob("*.py")), Path(__file__)):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


# `renderer` is not read: it is an argument because arguments make the cache's key.
def _rows(
    images: int, split_name: str, size: int, seed: int, prevalence_floor: float, renderer: str
) -> Iterator[dict]:
    processes = processes_worth(images, size, usable_cores())
    drawn = draw_phantoms(
        images, split=split_name, seed=seed, size=size, prevalence_floor=prevalence_floor, processes=processes
    )
    for case, (png, boxes) in tqdm(drawn, total=images, desc=f"Drawing {split_name} phantoms", unit="image"):
        yield {
            "image": {"path": case.image_id, "bytes": png},
            "labels": case.labels,
            "image_id": case.image_id,
            "patient_id": case.patient_id,
            "view": case.view,
            "age": case.age,
            "sex": case.sex,
            "boxes": boxes,
        }
