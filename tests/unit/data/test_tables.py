"""Labelled tables: each ready description on its set's published layout, the policies, and what is refused."""

import gzip
import json
import logging
import re
from pathlib import Path

import datasets
import numpy as np
import pandas as pd
import pytest
from PIL import Image
from tiny import SWIN

from hf_cxr.commands import main
from hf_cxr.config import DataArguments, ModelArguments
from hf_cxr.data import (
    label_matrix,
    load_description,
    load_source,
    load_table,
    map_labels,
    ready_names,
)
from hf_cxr.data.schema import features
from hf_cxr.data.sources.table.description import TableDescription
from hf_cxr.data.sources.table.labels import merge_rows
from hf_cxr.labels import NIH14, LabelSpace
from hf_cxr.models.build import build_model
from hf_cxr.processing import build_image_processor

NAN = np.nan


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def picture(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((4, 4), 9, dtype=np.uint8)).save(path)


def dicom(path: Path, width: int, height: int) -> None:
    import pydicom

    path.parent.mkdir(parents=True, exist_ok=True)
    dataset = pydicom.Dataset()
    dataset.file_meta = pydicom.dataset.FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    dataset.SOPClassUID, dataset.SOPInstanceUID = "1.2.840.10008.5.1.4.1.1.1.1", "1.2.3"
    dataset.Rows, dataset.Columns = height, width
    dataset.save_as(path, enforce_file_format=True)


def by_image(splits) -> dict[str, dict]:
    return {row["image_id"]: row | {"split": name} for name, split in splits.items() for row in split}


def named(row, space, value=1.0) -> set[str]:
    """Findings of a row with this label; NaN asks for the unknown ones."""
    cells = zip(space, row["labels"], strict=True)
    return {name for name, cell in cells if cell == value or (value != value and cell != cell)}


# --- ready descriptions, each on the layout that its set was published in

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


def test_chexpert(tmp_path, caplog):
    root = write_chexpert(tmp_path / "renamed")
    for path in re.findall(
        r"CheXpert-v1.0-small/([^,]+)", (root / "train.csv").read_text() + (root / "valid.csv").read_text()
    ):
        picture(root / path)
    with caplog.at_level(logging.WARNING):
        splits, space = load_table("chexpert", root)
    assert "1 of 1" in caplog.text
    assert "'No Finding'" in caplog.text
    assert {name: len(split) for name, split in splits.items()} == {"train": 11, "validation": 1, "test": 1}
    assert all(split.features == features(space) for split in splits.values())
    assert len(space) == 13
    assert space.index("Support Devices") == 12
    rows = by_image(splits)
    row = rows["train/patient00001/study1/view1_frontal.jpg"]
    assert (named(row, space), named(row, space, NAN)) == ({"Support Devices"}, set())
    assert (row["patient_id"], row["view"], row["age"], row["sex"]) == ("patient00001", "AP", 68, "F")
    assert row["image"].size == (4, 4)
    lateral = rows["train/patient00002/study1/view2_lateral.jpg"]
    assert (lateral["view"], named(lateral, space)) == ("LATERAL", {"Lung Opacity", "Fracture"})
    uncertain = {"Cardiomegaly", "Edema", "Consolidation", "Atelectasis", "Pleural Effusion"}
    assert named(lateral, space, NAN) == uncertain
    assert lateral["split"] == rows[lateral["image_id"].replace("2_lateral", "1_frontal")]["split"]
    assert rows["train/patient00003/study1/view1_frontal.jpg"]["sex"] is None
    assert splits["test"][0]["patient_id"] == "patient64541"
    views = [rows[f"train/patient{n:05d}/study1/view1_frontal.jpg"]["view"] for n in range(1, 6)]
    assert views == ["AP", "AP", "PA", None, None]  # the last two are decubitus


def test_chexpert_test_set_of_studies(tmp_path):
    root = write_chexpert(tmp_path / "data")
    header = CHEXPERT.replace("Path,Sex,Age,Frontal/Lateral,AP/PA,", "Study,")
    studies = ("64741/study1,0,1,1,1,0,0,0,0,0,0,0,0,0,1", "64750/study1,1,0,0,0,0,0,0,0,0,0,0,0,0,0")
    lines = [f"CheXpert-v1.0/test/patient{study}" for study in studies]
    write(root / "groundtruth.csv", header + "\n".join(lines) + "\n")
    with pytest.raises(FileNotFoundError, match=r"groundtruth.csv .*2 of 2 studies.*view\*.jpg"):
        load_table("chexpert_test", root, images=False)
    for image in ("64741/study1/view1_frontal", "64741/study1/view2_lateral", "64750/study1/view1_frontal"):
        picture(root / f"test/patient{image}.jpg")
    splits, space = load_table("chexpert_test", root, images=False)
    assert {name: len(split) for name, split in splits.items()} == {"train": 12, "validation": 1, "test": 3}
    assert tuple(space) == tuple(load_description("chexpert").label_space)
    first, second, third = splits["test"]
    assert second["image_id"] == "test/patient64741/study1/view2_lateral.jpg"
    positive = {"Enlarged Cardiomediastinum", "Cardiomegaly", "Lung Opacity", "Support Devices"}
    assert named(first, space) == named(second, space) == positive
    assert third["labels"] == [0] * 13
    assert [row["patient_id"] for row in splits["test"]] == ["patient64741", "patient64741", "patient64750"]
    assert (first["view"], first["sex"], np.isnan(first["age"])) == (None, None, True)
    images = "".join((root / name).read_text() for name in ("train.csv", "valid.csv"))
    for path in re.findall(r"CheXpert-v1.0-small/([^,]+)", images):
        picture(root / path)
    assert load_table("chexpert_test", root)[0]["test"][1]["image"].size == (4, 4)


MIMIC_LABELS = (
    "subject_id,study_id,Atelectasis,Cardiomegaly,Consolidation,Edema,Enlarged Cardiomediastinum,Fracture,Lung Lesion,"
    "Lung Opacity,No Finding,Pleural Effusion,Pleural Other,Pneumonia,Pneumothorax,Support Devices\n"
)
MIMIC_METADATA = (
    "dicom_id,subject_id,study_id,PerformedProcedureStepDescription,ViewPosition,Rows,Columns,StudyDate,StudyTime,"
    "ProcedureCodeSequence_CodeMeaning,ViewCodeSequence_CodeMeaning,PatientOrientationCodeSequence_CodeMeaning\n"
)
MIMIC_IMAGES = [  # dicom, study, subject, split, view
    ("02aa804e-bde0afdd", "50414267", "10000032", "train", "PA"),
    ("174413ec-4ec4c1f7", "50414267", "10000032", "train", "LATERAL"),
    ("2a2277a9-b0ded155", "53189527", "10000764", "validate", "XTABLE AP"),
    ("e084de3b-be89b11e", "53911762", "11000898", "test", ""),
    ("f2b413af-94926aa8", "59999999", "11000899", "train", "AP"),
]


def write_mimic(root: Path) -> Path:
    root.mkdir(parents=True, exist_ok=True)
    split = "dicom_id,study_id,subject_id,split\n" + "".join(f"{d},{t},{s},{p}\n" for d, t, s, p, _ in MIMIC_IMAGES)
    with gzip.open(root / "mimic-cxr-2.0.0-split.csv.gz", "wt") as file:
        file.write(split)
    labels = (
        "10000032,50414267,,,,,,,,,1.0,,,,,\n"
        "10000764,53189527,-1.0,1.0,0.0,,,,,,,,,,,\n"
        "11000898,53911762,,,,,,,,,,1.0,,,,1.0\n"
    )
    write(root / "mimic-cxr-2.0.0-chexpert.csv", MIMIC_LABELS + labels)  # unpacked: either is taken
    metadata = "".join(
        f'{d},{s},{t},CHEST (PA AND LAT),{v},3056,2544,21800506,213014.531,CHEST (PA AND LAT),"x, y",Erect\n'
        for d, t, s, _, v in MIMIC_IMAGES
    )
    with gzip.open(root / "mimic-cxr-2.0.0-metadata.csv.gz", "wt") as file:
        file.write(MIMIC_METADATA + metadata)
    return root


def test_mimic_cxr_joins_three_tables(tmp_path, caplog):
    root = write_mimic(tmp_path)
    picture(root / "files/p10/p10000032/s50414267/02aa804e-bde0afdd.jpg")
    with caplog.at_level(logging.WARNING):
        splits, space = load_table("mimic_cxr", root, images=False)
    assert "1 row(s)" in caplog.text
    assert "not in mimic-cxr-2.0.0-chexpert.csv" in caplog.text
    rows = by_image(splits)
    assert {image: row["split"] for image, row in rows.items()} == {
        "02aa804e-bde0afdd": "train",
        "174413ec-4ec4c1f7": "train",
        "2a2277a9-b0ded155": "validation",
        "e084de3b-be89b11e": "test",
    }
    assert [row["view"] for row in rows.values()] == ["PA", "LATERAL", None, None]
    assert rows["02aa804e-bde0afdd"]["labels"] == [0] * 13
    assert named(rows["2a2277a9-b0ded155"], space) == {"Cardiomegaly"}
    assert named(rows["2a2277a9-b0ded155"], space, NAN) == {"Atelectasis"}
    assert named(rows["e084de3b-be89b11e"], space) == {"Pleural Effusion", "Support Devices"}
    with pytest.raises(FileNotFoundError, match=r"missing 3 of 4 .*174413ec-4ec4c1f7"):
        load_table("mimic_cxr", root)


def cxr_lt(name: str, names, cells: dict[str, dict[str, int]]) -> str:
    """A table of the challenge: ids first, one 0/1 column a class."""
    names = list(names)
    lines = ["dicom_id,subject_id,study_id,ViewPosition,ViewCodeSequence_CodeMeaning,fpath," + ",".join(names)]
    for dicom, study, subject, _, view in MIMIC_IMAGES:
        if dicom in cells:
            path = f"files/p{subject[:2]}/p{subject}/s{study}/{dicom}.jpg"
            row = ",".join(str(cells[dicom].get(finding, 0)) for finding in names)
            lines.append(f"{dicom},{subject},{study},{view},postero-anterior,{path},{row}")
    return "\n".join(lines) + "\n"


@pytest.mark.parametrize(
    ("name", "files", "count", "normal"),
    [
        (
            "cxr_lt_2023",
            ("cxr-lt-2023/train.csv", "cxr-lt-2023/development.csv", "cxr-lt-2023/test.csv"),
            26,
            "No Finding",
        ),
        (
            "cxr_lt_2024",
            (
                "cxr-lt-2024/train_labeled.csv",
                "cxr-lt-2024/development_labeled_task1.csv",
                "cxr-lt-2024/test_labeled_task1.csv",
            ),
            40,
            "Normal",
        ),
    ],
)
def test_cxr_lt(tmp_path, name, files, count, normal):
    root, space = write_mimic(tmp_path), load_description(name).label_space
    contents = (
        {"02aa804e-bde0afdd": {"Hernia": 1, "Mass": 1}, "174413ec-4ec4c1f7": {normal: 1}},
        {"2a2277a9-b0ded155": {"Tortuous Aorta": 1}},
        {"e084de3b-be89b11e": {"Support Devices": 1, "Nodule": 1}},
    )
    for file, cells in zip(files, contents, strict=True):
        write(root / file, cxr_lt(name, space, cells))
    for dicom, study, subject, _, _ in MIMIC_IMAGES:
        picture(root / f"files/p{subject[:2]}/p{subject}/s{study}/{dicom}.jpg")
    splits, found = load_table(name, root)
    assert len(space) == len(found) == count
    rows = by_image(splits)
    assert [named(row, space) for row in rows.values()] == [
        {"Hernia", "Mass"},
        {normal},
        {"Tortuous Aorta"},
        {"Support Devices", "Nodule"},
    ]
    assert not any(np.isnan(row["labels"]).any() for row in rows.values())
    assert [row["patient_id"] for row in rows.values()] == ["10000032", "10000032", "10000764", "11000898"]
    assert [row["view"] for row in rows.values()] == ["PA", "LATERAL", None, None]


def test_cxr_lt_2024_with_the_five_findings_of_task_3(tmp_path):
    root, space = write_mimic(tmp_path), load_description("cxr_lt_2024_45").label_space
    folder = root / "cxr-lt-2024"
    write(folder / "train_labeled.csv", cxr_lt("", space[:40], {"02aa804e-bde0afdd": {"Hernia": 1}}))
    write(folder / "development_labeled_task1.csv", cxr_lt("", space[:40], {"2a2277a9-b0ded155": {"Mass": 1}}))
    write(folder / "test_labeled_task1.csv", cxr_lt("", space[:40], {"e084de3b-be89b11e": {"Mass": 1}}))
    write(folder / "test_labeled_task3.csv", cxr_lt("", space[40:], {"e084de3b-be89b11e": {"Scoliosis": 1}}))
    splits, _ = load_table("cxr_lt_2024_45", root, images=False)
    assert set(space[40:]) == {"Bulla", "Cardiomyopathy", "Hilum", "Osteopenia", "Scoliosis"}
    train, test = splits["train"][0], splits["test"][0]
    assert (named(train, space), named(train, space, NAN)) == ({"Hernia"}, set(space[40:]))
    assert (named(test, space), named(test, space, NAN)) == ({"Mass", "Scoliosis"}, set())
    assert len(splits["test"]) == 1


PADCHEST = [  # id, folder, date, patient, birth, sex, projection, labels
    ("a1.png", 0, "20140915", "p1", "1930.0", "F", "PA", "['pulmonary fibrosis', 'chronic changes', 'kyphosis']"),
    ("a2.png", 0, "20140915", "p1", "1930.0", "F", "L", "['normal']"),
    (
        "b1.png",
        36,
        "20090102",
        "p2",
        "",
        "M",
        "AP_horizontal",
        "['laminar atelectasis', ' pneumonia', 'apical pleural thickening']",
    ),
    ("c1.png", 36, "20090102", "p3", "1951.0", "", "COSTAL", "['unchanged', 'hiatal hernia']"),
    ("d1.png", 54, "20170102", "p4", "1951.0", "O", "PA", ""),
    *((f"e{n}.png", 54, "20170102", f"q{n}", "1951", "M", "PA", "['pleural effusion']") for n in range(16)),
]


def test_padchest(tmp_path):
    lines = [
        ",ImageID,ImageDir,StudyDate_DICOM,StudyID,PatientID,PatientBirth,PatientSex_DICOM,ViewPosition_DICOM,"
        "Projection,MethodProjection,Pediatric,Modality_DICOM,ReportID,Report,MethodLabel,Labels,Localizations"
    ]
    for number, (image, folder, date, patient, birth, sex, projection, labels) in enumerate(PADCHEST):
        lines.append(
            f"{number},{image},{folder},{date},s{number},{patient},{birth},{sex},POSTEROANTERIOR,{projection},Manual,"
            f'No,CR,1,"informe, texto",Physician,"{labels}","[\'loc basal\']"'
        )
        picture(tmp_path / str(folder) / image)
    write(tmp_path / "PADCHEST_chest_x_ray_images_labels_160K_01.02.19.csv", "\n".join(lines) + "\n")
    splits, space = load_table("padchest", tmp_path)
    assert {name: len(split) for name, split in splits.items()} == {"train": 17, "validation": 2, "test": 2}
    rows = by_image(splits)
    assert named(rows["a1.png"], space) == {"Pulmonary Fibrosis", "Kyphosis"}
    assert named(rows["a1.png"], space, NAN) == set()
    assert rows["a2.png"]["labels"] == [0] * len(space)
    assert named(rows["b1.png"], space) == {"Atelectasis", "Pneumonia", "Pleural Thickening"}
    assert named(rows["c1.png"], space) == {"Hiatal Hernia"}  # "unchanged" says nothing of the rest
    assert named(rows["c1.png"], space, NAN) == set(space) - {"Hiatal Hernia"}
    assert np.isnan(rows["d1.png"]["labels"]).all()
    assert (rows["a1.png"]["age"], rows["a1.png"]["sex"], rows["a1.png"]["view"]) == (84, "F", "PA")
    assert np.isnan(rows["b1.png"]["age"])
    assert [rows[image]["view"] for image in ("a2.png", "b1.png", "c1.png")] == ["LATERAL", "AP", None]
    assert (rows["c1.png"]["sex"], rows["d1.png"]["sex"]) == (None, None)


def test_vindr_cxr_merges_its_readers(tmp_path, caplog):
    columns = [names[0] for names in load_description("vindr_cxr").findings.values()] + ["No finding"]
    assert len(columns) == 28

    def line(image, reader, *findings):
        return f"{image},{reader}," + ",".join(str(int(column in findings)) for column in columns) + "\n"

    header = "image_id,rad_id," + ",".join(columns) + "\n"
    readers = [
        line("000434271f63a053c4128a0ba6352c7f", "R2", "ILD", "Nodule/Mass", "Other diseases"),
        line("000434271f63a053c4128a0ba6352c7f", "R3", "ILD", "Cardiomegaly"),
        line("000434271f63a053c4128a0ba6352c7f", "R6", "Other diseases"),
        *(line(f"{n:032x}", f"R{r}", "No finding") for n in range(9) for r in (1, 2, 3)),
    ]
    write(tmp_path / "annotations/image_labels_train.csv", header + "".join(readers))
    test_header = header.replace("Other diseases", "Other disease").replace("image_id,rad_id", "image_id")
    consensus = ",".join(str(int(column in ("Other diseases", "Edema"))) for column in columns)
    write(tmp_path / "annotations/image_labels_test.csv", test_header + f"{'f' * 32},{consensus}\n")
    with caplog.at_level(logging.WARNING):
        splits, space = load_table("vindr_cxr", tmp_path, images=False)
    assert "no patient ids" in caplog.text
    assert {name: len(split) for name, split in splits.items()} == {"train": 9, "validation": 1, "test": 1}
    rows = by_image(splits)
    assert named(rows["000434271f63a053c4128a0ba6352c7f"], space) == {"ILD", "Other diseases"}
    assert named(rows["f" * 32], space) == {"Other diseases", "Edema"}
    assert not any(np.isnan(row["labels"]).any() for row in rows.values())
    (tmp_path / "train").mkdir()
    (tmp_path / "train" / "000434271f63a053c4128a0ba6352c7f.dicom").write_bytes(b"DICM")
    with pytest.raises(FileNotFoundError, match="missing 10 of 11"):
        load_table("vindr_cxr", tmp_path)
    assert not any(row["boxes"] for row in rows.values())  # their file is not there, and not asked for

    corners = "image_id,rad_id,class_name,x_min,y_min,x_max,y_max\n"
    empty = "".join(f"{n:032x},R{r},No finding,,,,\n" for n in range(9) for r in (1, 2, 3))
    one = "".join(
        f"000434271f63a053c4128a0ba6352c7f,{box}\n" for box in ("R2,ILD,50.0,20.0,150.0,60.0", "R3,ILD,40,20,200.5,80")
    )
    write(tmp_path / "annotations/annotations_train.csv", corners + empty + one)
    write(
        tmp_path / "annotations/annotations_test.csv",
        corners.replace("rad_id,", "") + f"{'f' * 32},Edema,0,0,100,10\n",
    )
    for image, row in rows.items():
        dicom(tmp_path / ("test" if row["split"] == "test" else "train") / f"{image}.dicom", width=200, height=100)
    rows = by_image(load_table("vindr_cxr", tmp_path)[0].select_columns(["image_id", "boxes"]))
    assert [box["finding"] for box in rows["000434271f63a053c4128a0ba6352c7f"]["boxes"]] == ["ILD", "ILD"]
    first, second = (box["bbox"] for box in rows["000434271f63a053c4128a0ba6352c7f"]["boxes"])
    assert first == pytest.approx([0.25, 0.2, 0.5, 0.4])
    assert second == pytest.approx([0.2, 0.2, 0.8, 0.6])  # cut at the edge
    assert rows["f" * 32]["boxes"] == [{"finding": "Edema", "bbox": pytest.approx([0, 0, 0.5, 0.1])}]
    assert rows["0" * 32]["boxes"] == []


def test_a_description_that_is_not_yaml_is_refused_in_one_line(tmp_path):
    path = tmp_path / "own.yaml"
    path.write_text(": [\n")
    with pytest.raises(ValueError, match=r"\A[^\n]*own.yaml [^\n]*line 1, column 1[^\n]*\Z"):
        load_description(path)


def test_chestx_det(tmp_path):
    def entry(name, *syms):
        outline = [[100, 100], [200, 100], [200, 200]]
        boxes = [[1 + n, 0, 3 + n, 2] for n in range(len(syms))]
        return {"file_name": name, "syms": list(syms), "boxes": boxes, "polygons": [outline] * len(syms)}

    train = [entry("36346.png", "Diffuse Nodule", "Nodule", "Nodule"), entry("36199.png")]
    train += [entry(f"{n}.png", "Effusion") for n in range(10, 18)]
    write(tmp_path / "ChestX_Det_train.json", json.dumps(train))
    write(tmp_path / "ChestX_Det_test.json", json.dumps([entry("63983.png", "Pleural Thickening")]))
    for row in train:
        picture(tmp_path / "train_data/train" / row["file_name"])
    picture(tmp_path / "test_data/test/63983.png")
    splits, space = load_table("chestx_det", tmp_path)
    rows = by_image(splits)
    assert len(space) == 13
    assert {name: len(split) for name, split in splits.items()} == {"train": 9, "validation": 1, "test": 1}
    assert named(rows["36346.png"], space) == {"Diffuse Nodule", "Nodule"}
    assert rows["36199.png"]["labels"] == [0] * 13
    assert named(rows["63983.png"], space) == {"Pleural Thickening"}
    assert rows["36346.png"]["boxes"] == [
        {"finding": "Diffuse Nodule", "bbox": [0.25, 0, 0.5, 0.5]},
        {"finding": "Nodule", "bbox": [0.5, 0, 0.5, 0.5]},
        {"finding": "Nodule", "bbox": [0.75, 0, 0.25, 0.5]},  # cut at the edge
    ]
    assert rows["36199.png"]["boxes"] == []
    assert load_table("chestx_det", tmp_path, images=False)[0]["test"]["boxes"][:] == [[]]


BOXES = {"file": "boxes.csv", "by": "file", "finding": "what", "corners": ["l", "t", "r", "b"], "size": ["W", "H"]}


def test_boxes_with_the_images_sizes_in_columns(tmp_path):
    lines = ("a.png,mass,10,20,60,70,100,200", "d.png,Nodule,0,0,10,10,10,20", "z.png,Mass,0,0,1,1,9,9")
    write(tmp_path / "boxes.csv", "\n".join(["file,what,l,t,r,b,W,H", *lines]) + "\n")
    splits, _ = own(tmp_path, boxes=BOXES)
    rows = by_image(splits)
    assert rows["a.png"]["boxes"] == [{"finding": "Mass", "bbox": pytest.approx([0.1, 0.1, 0.5, 0.25])}]
    assert rows["d.png"]["boxes"] == [{"finding": "Nodule", "bbox": [0, 0, 1, 0.5]}]
    assert rows["b.png"]["boxes"] == []


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("a.png,Mas,1,2,6,7,100,200", r"not a finding .*'Mas'"),
        ("a.png,Mass,6,2,1,7,100,200", r"no area .*'a.png'"),
        ("a.png,Mass,101,2,110,7,100,200", r"no area .*'a.png'"),
        ("a.png,Mass,1,2,,7,100,200", r"not numbers .*'a.png'"),
        ("z.png,Mass,1,2,6,7,100,200", r"no box .*'z.png'"),
    ],
)
def test_bad_boxes_are_refused(tmp_path, line, message):
    write(tmp_path / "boxes.csv", f"file,what,l,t,r,b,W,H\n{line}\n")
    with pytest.raises(ValueError, match=message):
        own(tmp_path, boxes=BOXES)


@pytest.mark.parametrize(
    ("name", "files"),
    [
        ("nih_cxr_lt", [f"PruneCXR/miccai2023_nih-cxr-lt_labels_{part}.csv" for part in ("train", "val", "test")]),
        (
            "nih_cxr_lt_single",
            [f"LongTailCXR/nih-cxr-lt_single-label_{part}.csv" for part in ("train", "balanced-val", "test")],
        ),
    ],
)
@pytest.mark.parametrize("subfolder", [True, False])
def test_nih_cxr_lt(tmp_path, name, files, subfolder):
    space = load_description(name).label_space
    assert len(space) == 20
    rows = [
        ("00000001_000.png", "Hernia"),
        ("00000002_000.png", "Pleural Thickening"),
        ("00000003_001.png", "No Finding"),
    ]
    header = "id," + ",".join(space).replace(
        "Pleural Thickening", "Pleural_Thickening" if subfolder else "Pleural Thickening"
    )
    for number, (file, (image, finding)) in enumerate(zip(files, rows, strict=True)):
        cells = ",".join(str(int(column == finding)) for column in space)
        path = tmp_path / (file if subfolder else Path(file).name)
        write(path, f"{header},subj_id\n{image},{cells},{int(image[:8])}\n")
        picture(tmp_path / f"images_{number + 1:03d}/images" / image)
    splits, _ = load_table(name, tmp_path)
    assert [named(split[0], space) for split in splits.values()] == [{finding} for _, finding in rows]
    assert [split[0]["patient_id"] for split in splits.values()] == ["00000001", "00000002", "00000003"]


def test_every_ready_description_is_tested_and_says_its_source():
    tested = Path(__file__).read_text(encoding="utf-8")
    for name in ready_names():
        assert f'"{name}"' in tested
        assert "http" in load_description(name).source


# --- the user's own table

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


@pytest.mark.parametrize(
    ("uncertain", "blank", "expected"),
    [
        ("ignore", "unknown", [[1, NAN], [NAN, 1]]),
        ("zero", "zero", [[1, 0], [0, 1]]),
        ("one", "unknown", [[1, NAN], [1, 1]]),
        ({"Mass": "zero", "default": "one"}, "zero", [[1, 0], [0, 1]]),
        ({"Nodule": "one"}, "zero", [[1, 0], [NAN, 1]]),
    ],
)
def test_policies_of_uncertain_and_empty_cells(tmp_path, uncertain, blank, expected):
    splits, _ = own(tmp_path, uncertain=uncertain, blank=blank)
    np.testing.assert_array_equal(label_matrix(splits["train"]), np.array(expected, np.float32))


@pytest.mark.parametrize(
    ("rule", "expected"), [("any", [1, 1, 1, NAN]), ("majority", [1, 0, 1, NAN]), ("all", [0, 0, 1, NAN])]
)
def test_rules_for_several_readers(rule, expected):
    """Two of three, one of two, one of one that knows, none that knows."""
    label_NC = np.array([[1, 1, 1, NAN], [1, 0, NAN, NAN], [0, NAN, NAN, NAN]], np.float32)
    merged = merge_rows(np.vstack([label_NC, np.zeros((1, 4))]), np.array([0, 0, 0, 1]), rule)
    np.testing.assert_array_equal(merged, np.array([expected, [0] * 4], np.float32))


def test_list_and_delimited_labels_are_equal(tmp_path):
    texts = {
        "list": ["\"['Mass', 'nodule']\"", '"[""NODULE""]"', "['clear']", ""],
        "delimited": ["Mass; nodule", "NODULE", "clear", ""],
    }
    for label_format, cells in texts.items():
        rows = "file,patient,part,found\n" + "".join(
            f"{name}.png,{name},{part},{cell}\n"
            for name, part, cell in zip("abcd", ("train", "train", "validation", "test"), cells, strict=True)
        )
        keys = {"label_format": label_format, "label_column": "found", "label_delimiter": ";", "no_finding": "Clear"}
        splits, _ = own(tmp_path, rows, **keys)
        np.testing.assert_array_equal(label_matrix(splits["train"]), [[1, 1], [0, 1]])
        np.testing.assert_array_equal(label_matrix(splits["validation"]), [[0, 0]])
        np.testing.assert_array_equal(label_matrix(splits["test"]), [[NAN, NAN]])
        with pytest.raises(ValueError, match=r"'found' .*not findings.*clear .*1 row"):
            own(tmp_path, rows, **{**keys, "no_finding": None})


def test_parquet_says_the_same_as_csv(tmp_path):
    expected, _ = own(tmp_path)
    pd.read_csv(tmp_path / "rows.csv").to_parquet(tmp_path / "rows.parquet")  # numbers there, with NaN among them
    write(tmp_path / "parquet.yaml", json.dumps({**OWN, "files": {"all": ["rows.parquet"]}}))
    splits, _ = load_table(tmp_path / "parquet.yaml", images=False)
    for name in splits:
        assert splits[name]["patient_id"] == expected[name]["patient_id"]
        np.testing.assert_array_equal(label_matrix(splits[name]), label_matrix(expected[name]))


def test_an_imagefolder_with_its_metadata(tmp_path):
    for number, split in enumerate(("train", "validation", "test")):
        write(tmp_path / split / "metadata.csv", f"file_name,patient,Mass,Nodule\nscan.png,{number},1,0\n")
        picture(tmp_path / split / "scan.png")
    keys = {"files": {split: f"{split}/metadata.csv" for split in ("train", "validation", "test")}}
    keys |= {"image_path": "{folder}/{file_name}"}
    values = {k: v for k, v in OWN.items() if k not in ("split_column", "image_column")} | keys
    write(tmp_path / "table.yaml", json.dumps(values))
    splits, _ = load_table(tmp_path / "table.yaml")
    assert [split[0]["image_id"] for split in splits.values()] == [
        "train/scan.png",
        "validation/scan.png",
        "test/scan.png",
    ]
    assert splits["test"][0]["image"].size == (4, 4)


def test_fractions_are_cut_by_patient(tmp_path):
    rows = "file,patient,Mass,Nodule\n" + "".join(f"{n}.png,{n // 2},{n % 2},{n // 2 % 2}\n" for n in range(200))
    keys = {"split_column": None, "validation_fraction": 0.1, "test_fraction": 0.2}
    splits, _ = own(tmp_path, rows, **keys)
    assert {name: len(split) for name, split in splits.items()} == {"train": 140, "validation": 20, "test": 40}
    assert label_matrix(splits["test"]).mean(axis=0) == pytest.approx([0.5, 0.5], abs=0.03)
    again, _ = own(tmp_path, rows, **keys)
    other, _ = own(tmp_path, rows, **keys, split_seed=1)
    assert again["test"]["image_id"] == splits["test"]["image_id"] != other["test"]["image_id"]


@pytest.mark.parametrize("split_column", ["part", None])
def test_a_dataset_on_disk_or_the_hub(tmp_path, split_column):
    feature = datasets.List(datasets.ClassLabel(names=["Nodule", "Mass"]))
    schema = datasets.Features(
        {
            "picture": datasets.Image(),
            "found": feature,
            "who": datasets.Value("int64"),
            "part": datasets.Value("string"),
        }
    )
    parts = ["train", "test", "train", "validation", "train"]
    columns = {
        "picture": [Image.fromarray(np.full((4, 4), 10 * n, np.uint8)) for n in range(5)],
        "found": [[0], [0, 1], [], [1], [1]],
        "who": [7, 8, 7, 9, 7],
        "part": parts,
    }
    whole = datasets.Dataset.from_dict(columns, features=schema)
    if split_column:
        whole.save_to_disk(tmp_path / "saved")
    else:
        rows = {name: [n for n, part in enumerate(parts) if part == name] for name in ("train", "validation", "test")}
        datasets.DatasetDict({name: whole.select(index) for name, index in rows.items()}).save_to_disk(
            tmp_path / "saved"
        )
    description = TableDescription(
        hub="saved",
        split_column=split_column,
        image_column="picture",
        label_format="list",
        label_column="found",
        findings=["Mass", "Nodule"],
        blank="zero",
        patient_column="who",
    )
    splits, space = load_table(description, tmp_path)
    assert splits["train"].features == features(space)
    np.testing.assert_array_equal(label_matrix(splits["train"]), [[0, 1], [0, 0], [1, 0]])
    np.testing.assert_array_equal(label_matrix(splits["test"]), [[1, 1]])
    assert [np.asarray(row["image"])[0, 0] for row in splits["train"]] == [0, 20, 40]
    assert np.asarray(splits["validation"][0]["image"])[0, 0] == 30
    assert splits["validation"]["patient_id"][:] == ["9"]
    assert "image" not in load_table(description, tmp_path, images=False)[0]["train"].column_names


def test_missing_images_are_skipped_with_their_number(tmp_path, caplog):
    own(tmp_path)
    for name in "acd":
        picture(tmp_path / f"{name}.png")
    with caplog.at_level(logging.WARNING):
        splits, _ = load_table(tmp_path / "table.yaml", missing_images="skip")
    for number in ("1 of 4", "1 of 2 in train", "0 of 1 in validation", "skipped"):
        assert number in caplog.text
    assert splits["train"]["image_id"][:] == ["a.png"]
    (tmp_path / "d.png").unlink()
    with pytest.raises(ValueError, match="no image of test"):
        load_table(tmp_path / "table.yaml", missing_images="skip")


def test_no_positive_in_train_is_reported(tmp_path, caplog):
    with caplog.at_level(logging.WARNING):
        own(tmp_path, ROWS.replace("a.png,1,train,1,", "a.png,1,train,0,"))
    assert "no positive training image of Mass" in caplog.text


# --- what is refused: rows or keys changed, and the words of the message

BAD = {
    "duplicate ids": ({}, ("b.png", "a.png"), r"rows.csv.* twice .*'a.png'.*merge"),
    "id above the folder": ({}, ("b.png", "../b.png"), r"leaves the image folder .*'\.\./b.png'"),
    "id above, on Windows": ({}, ("b.png", r"x\..\b.png"), "leaves the image folder"),
    "absolute id": ({}, ("b.png", "/etc/b.png"), "leaves the image folder"),
    "no id": ({}, ("b.png", ""), "without an image id"),
    "missing column": (
        {},
        ("patient", "Patient ID"),
        r"missing .*'patient' .*did you mean 'Patient ID'",
    ),
    "missing finding": (
        {},
        ("Nodule", "Nodules"),
        r"missing .*'Nodule' .*did you mean 'Nodules'",
    ),
    "a label that is no number": (
        {},
        ("-1,1", "yes,1"),
        r"'Mass' .*invalid labels .*'yes'.*1 for present",
    ),
    "a label that is a probability": ({}, ("-1,1", "0.7,1"), r"'Mass' .*invalid labels .*'0.7'"),
    "no patient": ({}, ("b.png,1", "b.png,NaN"), r"'patient' .*empty .*'b.png'"),
    "a patient in two splits": ({}, ("d.png,3", "d.png,1"), r"train and test share 1 patient"),
    "an image in two splits": ({"merge": "any"}, ("d.png,3", "a.png,1"), r"two splits .*'a.png'"),
    "a file with two ids": (
        {"image_id": "Nodule", "findings": ["Mass"]},
        ("a.png,1,train,1,", "b.png,1,train,1,9"),
        "two ids .*'1'",
    ),
    "unknown split": ({}, ("test", "tset"), r"'part' .*unknown splits .*'tset'.*split_values"),
    "empty split": ({}, ("test", "train"), "no image in test"),
    "no rows": ({}, (ROWS[30:], ""), "rows.csv .*no rows"),
    "a column twice": ({}, ("patient,", "Mass,patient,"), "'Mass' twice"),
    "another suffix": ({"files": "table.yaml"}, None, "yaml table .*suffix .*csv"),
    "no such file": ({"files": "absent.csv"}, None, "no absent.csv.*--table_root"),
    "odd patient": ({"patient_pattern": r"(\d\d)"}, None, r"'patient' .*not match .*4 row.*'1'"),
    "odd view": ({"view_column": "part"}, None, "'part' .*unknown view .*'train'.*view_values"),
    "odd age": ({"age_column": "file"}, None, "'file' .*not an age .*'a.png'"),
    "another delimiter": (
        {"delimiter": ";"},
        None,
        "missing .*'file,patient,part,Mass,Nodule'.*delimiter",
    ),
    "a stray comma": (
        {},
        ("c.png,2", "c.png,,2"),
        "csv table .*5 fields in line 4, saw 6",
    ),
    "no such encoding": ({"encoding": "utf-99"}, None, "encoding is 'utf-99'"),
    "a number for a column": ({"image_column": 3}, None, "image_column is 3.*text"),
    "a list for a map": ({"aliases": ["x"]}, None, "aliases is .*value: other value"),
    "text for a join": ({"join": "x"}, None, "join is 'x'.*a list"),
    "an alias that is a finding": ({"aliases": {"Mass": "Nodule"}}, None, "aliases .*'Mass'.* finding"),
    "nothing is kept": ({"keep": {"part": "never"}}, None, "no row .*part .*never"),
    "unknown key": ({"patient_colum": "x"}, None, "unknown key patient_colum in .*did you mean patient_column?"),
    "unknown policy": ({"uncertain": "maybe"}, None, "uncertain is 'maybe'; choose from zero, one, ignore"),
    "policy of an unknown finding": ({"uncertain": {"Mas": "one"}}, None, "uncertain names 'Mas'.*did you mean Mass?"),
    "alias of an unknown finding": ({"aliases": {"x": "Nodul"}}, None, "aliases points to 'Nodul'.*mean Nodule?"),
    "no patients at all": ({"patient_column": None}, None, "give patient_column.*image_is_patient: true"),
    "no split": ({"split_column": None}, None, "validation.* add validation_fraction"),
    "fraction beside a split": ({"test_fraction": 0.1}, None, "test_fraction .*split test"),
    "fraction too large": ({"test_fraction": 2}, None, "test_fraction is 2.*between 0 and 1"),
    "a template with code": ({"image_column": None, "image_path": "{file.x!r}"}, None, "a field is {column}"),
    "a pattern without group": ({"patient_pattern": "p"}, None, "must have one group"),
    "a broken pattern": ({"patient_pattern": "("}, None, r"table.yaml.*patient_pattern '\(' .*missing"),
    "a broken start": ({"image_strip": "[a"}, None, r"table.yaml.*image_strip '\[a' .*unterminated"),
    "findings twice": ({"findings": ["Mass", "Mass"]}, None, "findings repeat a name"),
    "no findings": ({"findings": []}, None, "findings .*a list"),
    "a list without its column": ({"label_format": "list"}, None, "label_column goes with"),
    "half of a box": (
        {"boxes": {"file": "boxes.csv"}},
        None,
        "boxes is .*file, by, finding and corners, or column",
    ),
    "three corners": ({"boxes": BOXES | {"corners": ["l", "t", "r"]}}, None, "corners is .*4 columns"),
    "boxes without lists": ({"boxes": {"column": "Mass"}}, None, "goes with label_format list"),
    "half of a study": ({"studies": {"column": "Study"}}, None, "studies is .*column and images"),
    "neither files nor hub": ({"files": None}, None, "either files or hub"),
    "join on a key that repeats": (
        {"join": [{"file": "rows.csv", "by": "patient", "columns": ["part"]}]},
        None,
        r"rows.csv.* patient .*twice .*'1'",
    ),
}


@pytest.mark.parametrize("bad", BAD)
def test_bad_tables_and_descriptions_are_refused(tmp_path, bad):
    keys, change, message = BAD[bad]
    rows = ROWS if change is None else ROWS.replace(*change)
    assert change is None or rows != ROWS
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        own(tmp_path, rows, **keys)


def test_another_encoding_is_named_and_can_be_given(tmp_path):
    own(tmp_path)
    (tmp_path / "rows.csv").write_bytes(ROWS.replace("a.png", "ä.png").encode("latin-1"))
    with pytest.raises(ValueError, match=r"rows.csv .*utf-8-sig .*encoding"):
        load_table(tmp_path / "table.yaml", images=False)
    write(tmp_path / "table.yaml", json.dumps({**OWN, "encoding": "latin-1"}))
    assert load_table(tmp_path / "table.yaml", images=False)[0]["train"]["image_id"][0] == "ä.png"


def test_mixed_types_are_read_as_text_or_refused(tmp_path):
    own(tmp_path)
    frame = pd.read_csv(tmp_path / "rows.csv")
    frame["patient"] = pd.Series([1, "1", 2.0, "x"], dtype=object)
    records = json.dumps(frame.astype(object).where(frame.notna(), None).to_dict("records"))
    write(tmp_path / "rows.json", records)
    write(tmp_path / "table.yaml", json.dumps({**OWN, "files": "rows.json"}))
    splits, _ = load_table(tmp_path / "table.yaml", images=False)
    assert [list(split["patient_id"]) for split in splits.values()] == [["1", "1"], ["2"], ["x"]]
    write(
        tmp_path / "rows.json",
        records.replace('"Mass": 1.0', '"Mass": "high"').replace('"Mass": 1,', '"Mass": "high",'),
    )
    with pytest.raises(ValueError, match=r"'Mass' .*invalid labels .*'high'"):
        load_table(tmp_path / "table.yaml", images=False)


def test_an_unknown_name_lists_the_ready_ones():
    with pytest.raises(FileNotFoundError, match=r"chexprt.*chexpert, chexpert_test, cxr_lt_2023"):
        load_description("chexprt")


# --- one vocabulary in another's columns


def test_labels_are_mapped_by_name_alias_and_synonym(tmp_path):
    splits, source = load_table("chexpert", write_chexpert(tmp_path), images=False)
    mapped, shared, rest = map_labels(splits, source, NIH14)
    assert shared == (
        "Atelectasis",
        "Cardiomegaly",
        "Effusion",
        "Pneumonia",
        "Pneumothorax",
        "Consolidation",
        "Edema",
    )
    assert set(rest["target"]) == set(NIH14) - set(shared)
    assert {"Support Devices", "Lung Opacity"} <= set(rest["source"])
    before, after = label_matrix(splits["train"]), label_matrix(mapped["train"])
    np.testing.assert_array_equal(after[:, 2], before[:, source.index("Pleural Effusion")])
    assert np.isnan(after[:, NIH14.index("Hernia")]).all()
    assert mapped["train"].features == features(NIH14, images=False)
    assert mapped["test"]["image_id"] == splits["test"]["image_id"]
    back, _, _ = map_labels(mapped, NIH14, source)
    both = [source.index({"Effusion": "Pleural Effusion"}.get(name, name)) for name in shared]
    np.testing.assert_array_equal(label_matrix(back["train"])[:, both], before[:, both])


def test_synonyms_work_between_plain_names_and_subtypes_are_not_shared():
    space = load_description("padchest").label_space
    schema = datasets.Features({"labels": features(space)["labels"]})
    split = datasets.Dataset.from_dict({"labels": [[1.0] * len(space)]}, features=schema)
    _, shared, _ = map_labels({"test": split}, space, NIH14)
    assert shared == NIH14
    other = load_description("cxr_lt_2024").label_space
    _, shared, rest = map_labels({"test": split}, space, other)
    assert {"Infiltration", "Hernia", "Pneumoperitoneum", "Fracture"} <= set(shared)
    assert {"Lobar Atelectasis", "Rib Fracture", "Normal"} <= set(rest["target"])
    with pytest.raises(ValueError, match="no finding is shared"):
        map_labels({"test": split}, space, LabelSpace(["Scoliosis of the Moon"]))
    with pytest.raises(ValueError, match="are both Edema"):
        map_labels({}, LabelSpace(["Oedema", "Pulmonary Edema"]), LabelSpace(["Edema"]))


# --- through the arguments


def test_limit_and_permuted_labels_work_with_a_table(tmp_path):
    lines = [
        f"{n}.png,{n},{'train' if n < 60 else 'validation' if n < 70 else 'test'},{n % 3 % 2}," for n in range(80)
    ]
    own(tmp_path, "file,patient,part,Mass,Nodule\n" + "\n".join(lines) + "\n")
    keys = {"dataset": "table", "table": str(tmp_path / "table.yaml")}
    plain = load_source(DataArguments(**keys), images=False).splits
    limited = load_source(DataArguments(**keys, train_limit=7), images=False).splits
    assert limited["train"]["image_id"][:] == [f"{n}.png" for n in (0, 10, 20, 30, 39, 49, 59)]
    assert len(limited["test"]) == len(plain["test"]) == 10
    mixed = load_source(DataArguments(**keys, shuffle_labels=True), seed=1, images=False).splits
    before, after = label_matrix(plain["train"]), label_matrix(mixed["train"])
    assert not np.array_equal(before, after, equal_nan=True)
    np.testing.assert_array_equal(np.sort(before, axis=0), np.sort(after, axis=0))
    np.testing.assert_array_equal(label_matrix(mixed["test"]), label_matrix(plain["test"]))
    assert mixed["train"].features == plain["train"].features
    assert mixed["train"]["patient_id"][:] == plain["train"]["patient_id"][:]


def test_a_table_is_a_source(tmp_path, caplog):
    own(tmp_path, name="Our hospital")
    for name in "acd":
        picture(tmp_path / f"{name}.png")
    args = DataArguments(dataset="table", table=str(tmp_path / "table.yaml"), missing_images="skip")
    source = load_source(args)
    assert source.labels == ("Mass", "Nodule")
    assert {name: len(split) for name, split in source.splits.items()} == {"train": 1, "validation": 1, "test": 1}
    assert source.missing == {"train": 1}
    assert source.name == "Our hospital"


def test_a_model_of_other_findings_is_measured_on_the_shared_ones(tmp_path, caplog):
    """External validation: a model of ChestX-ray14's findings on CheXpert's table."""
    root = write_chexpert(tmp_path / "data")
    rows = "".join(
        chexpert_row(
            "valid", 64541 + n, 1, "Male", 70, "AP", f"0.0,1.0,{n % 2}.0,1.0,0,0,0,0,0,0,{n % 3 // 2}.0,0,0,0"
        )
        for n in range(12)
    )
    write(root / "valid.csv", CHEXPERT + rows)
    for table in ("train.csv", "valid.csv"):
        for path in re.findall(r"CheXpert-v1.0-small/([^,]+)", (root / table).read_text()):
            picture(root / path)
    build_model(ModelArguments(**SWIN), NIH14).save_pretrained(tmp_path / "model")
    build_image_processor(36, 32).save_pretrained(tmp_path / "model")
    keys = f"dataset: table\ntable: chexpert\ntable_root: {root}\nbootstrap_resamples: 20\n"
    config = write(tmp_path / "c.yaml", keys)
    assert main(["evaluate", str(config), "--model", str(tmp_path / "model"), "--out", str(tmp_path / "out")]) == 0
    assert "7 findings" in caplog.text
    figures = json.loads((tmp_path / "out/evaluation.json").read_text())
    assert figures["dataset"] == "CheXpert"
    assert "Hernia" in figures["findings_not_in_data"]
    assert "Lung Opacity" in figures["findings_not_in_model"]
    defined = {name for name, value in figures["all"]["auc"]["value"].items() if value is not None}
    assert defined == {"Cardiomegaly", "Effusion"}


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"dataset": "table"}, "dataset table needs --table"),
        ({"table": "chexpert"}, "--table is given, but --dataset phantom does not take it: add --dataset table"),
        ({"table_root": "/data"}, "--table_root is given, but --dataset phantom does not take it"),
        ({"dataset": "table", "table": "chexpert"}, "ready description: give --table_root"),
        ({"dataset": "table", "table": "absent.yaml"}, "--table absent.yaml does not exist"),
        (
            {"dataset": "table", "table": "chexpert", "table_root": "/absent"},
            "--table_root /absent is not a folder",
        ),
    ],
)
def test_arguments_are_checked_at_the_door(keys, message):
    with pytest.raises(ValueError, match=message):
        DataArguments(**keys)
