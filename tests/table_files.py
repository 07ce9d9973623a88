"""Labelled tables of tests: CheXpert's published layout, and a small table of one's own with its description."""

import json
from pathlib import Path

import numpy as np
from PIL import Image

from hf_cxr.data import (
    load_table,
)


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def picture(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((4, 4), 9, dtype=np.uint8)).save(path)


def by_image(splits) -> dict[str, dict]:
    return {row["image_id"]: row | {"split": name} for name, split in splits.items() for row in split}


def named(row, space, value=1.0) -> set[str]:
    """Findings of a row with this label; NaN asks for the unknown ones."""
    cells = zip(space, row["labels"], strict=True)
    return {name for name, cell in cells if cell == value or (value != value and cell != cell)}


CHEXPERT = (
    "Path,Sex,Age,Frontal/Lateral,AP/PA,No Finding,Enlarged Cardiomediastinum,Cardiomegaly,Lung Opacity,Lung Lesion,"
    "Edema,Consolidation,Pneumonia,Atelectasis,Pneumothorax,Pleural Effusion,Pleural Other,Fracture,Support Devices\n"
)


def chexpert_row(split, patient, view, sex, age, projection, cells):
    side, suffix = ("Lateral", "lateral") if not projection else ("Frontal", "frontal")
    path = f"CheXpert-v1.0-small/{split}/patient{patient:05d}/study1/view{view}_{suffix}.jpg"
    return f"{path},{sex},{age},{side},{projection},{cells}\n"


def write_chexpert(root: Path) -> Path:
    rows = [
        chexpert_row("train", 1, 1, "Female", 68, "AP", "1.0,,,,,,,,,0.0,,,,1.0"),
        chexpert_row("train", 2, 1, "Female", 87, "AP", ",,-1.0,1.0,,-1.0,-1.0,,-1.0,,-1.0,,1.0,"),
        chexpert_row("train", 2, 2, "Female", 87, "", ",,-1.0,1.0,,-1.0,-1.0,,-1.0,,-1.0,,1.0,"),
        *(
            chexpert_row("train", n, 1, "Unknown", 0, {4: "LL", 5: "RL"}.get(n, "PA"), ",,1.0,,,,,,,,1.0,,,")
            for n in range(3, 12)
        ),
    ]
    write(root / "train.csv", CHEXPERT + "".join(rows))
    valid = chexpert_row(
        "valid", 64541, 1, "Male", 73, "AP", "0.0,1.0,1.0,1.0,0.0,0.0,0.0,0.0,0.0,0.0,0.0,0.0,0.0,0.0"
    )
    write(root / "valid.csv", CHEXPERT + valid)
    return root


OWN = {
    "files": "rows.csv",
    "split_column": "part",
    "image_column": "file",
    "findings": ["Mass", "Nodule"],
    "blank": "unknown",
    "patient_column": "patient",
}
ROWS = (
    "file,patient,part,Mass,Nodule\na.png,1,train,1,\nb.png,1,train,-1,1\nc.png,2,validation,0,1\nd.png,3,test,0,0\n"
)


def own(tmp_path: Path, rows: str = ROWS, **keys):
    """The splits of a table of one's own, with these keys of its description changed; None leaves one out."""
    values = {key: value for key, value in {**OWN, **keys}.items() if value is not None}
    write(tmp_path / "table.yaml", json.dumps(values))
    write(tmp_path / "rows.csv", rows)
    return load_table(tmp_path / "table.yaml", images=False)
