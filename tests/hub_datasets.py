"""Datasets in the layout of the Hub's timm/nih-chest-xray-14, pushed to the loopback Hub by the real client."""

from io import BytesIO
from pathlib import Path

import datasets
import numpy as np
from huggingface_hub import HfApi, HfFileSystem
from PIL import Image

from hf_cxr.labels import NIH14

COLUMNS = {
    "image": datasets.Image(),
    "image_id": datasets.Value("string"),
    "labels": datasets.List(datasets.ClassLabel(names=list(NIH14))),
    "label_names": datasets.List(datasets.Value("string")),
    "fold": datasets.Value("int64"),
    "patient_id": datasets.Value("int64"),
    "follow_up": datasets.Value("int64"),
    "patient_age": datasets.Value("int64"),
    "patient_sex": datasets.Value("string"),
    "view_position": datasets.Value("string"),
}


def point_datasets_at(hub, home: Path, monkeypatch) -> None:
    """`datasets` in this process takes the loopback Hub for the Hub, and has a cache of its own."""
    HfFileSystem.clear_instance_cache()  # its instances remember another server
    monkeypatch.setattr(datasets.config, "HF_ENDPOINT", hub.url)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(datasets.config, "HF_UPDATE_DOWNLOAD_COUNTS", False)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", home / "datasets")


def rows(first: int, patients: int, *, fold: bool) -> dict[str, list]:
    """Three images a patient; the third has no label. ``first`` is the number of the first patient."""
    rng = np.random.default_rng(first)
    values: dict[str, list] = {name: [] for name in COLUMNS}
    for patient in range(first, first + patients):
        for follow_up in range(3):
            content = BytesIO()
            Image.fromarray(rng.integers(0, 256, (16, 16), dtype=np.uint8)).save(content, "JPEG")
            found = [] if follow_up == 2 else [(patient + 5 * follow_up) % 14]
            row = (
                *({"bytes": content.getvalue(), "path": None}, f"{patient:08d}_{follow_up:03d}"),
                *(found, [NIH14[number] for number in found], patient % 10 if fold else None, patient, follow_up),
                *(40 + patient % 5, "MF"[patient % 2], ("PA", "AP")[follow_up % 2]),
            )
            for name, value in zip(COLUMNS, row, strict=True):
                values[name].append(value)
    return values


def write_nih(folder: Path, *, train: int = 20, test: int = 6, shards: int = 2, drop: tuple[str, ...] = ()) -> Path:
    """A folder in the layout of the Hub's copy: data/train-00000-of-00002.parquet and so on.

    Args:
        folder: where.
        train, test: patients, three images each.
        shards: of the training rows.
        drop: columns that are left out.
    """
    (folder / "data").mkdir(parents=True)
    schema = datasets.Features({name: kind for name, kind in COLUMNS.items() if name not in drop})
    for split, first, patients, count in (("train", 1, train, shards), ("test", 1 + train, test, 1)):
        values = rows(first, patients, fold=split == "train")
        whole = datasets.Dataset.from_dict({name: values[name] for name in schema}, features=schema)
        for number in range(count):
            path = folder / "data" / f"{split}-{number:05d}-of-{count:05d}.parquet"
            whole.shard(count, number, contiguous=True).to_parquet(path, batch_size=10)
    (folder / "README.md").write_text("---\nlicense: cc0-1.0\n---\n# A copy in miniature\n", encoding="utf-8")
    return folder


def push(name: str, folder: Path) -> str:
    """Push a folder as a dataset repository; the commit's id."""
    api = HfApi()
    api.create_repo(name, repo_type="dataset", exist_ok=True)
    return api.upload_folder(folder_path=folder, repo_id=name, repo_type="dataset").oid
