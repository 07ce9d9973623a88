"""Ready descriptions of labelled tables, each on the layout that its set was published in."""

import dataclasses
import gzip
import json
import logging
import re
from pathlib import Path

import numpy as np
import pytest
from table_files import CHEXPERT, by_image, named, picture, write, write_chexpert

from hf_cxr.data import (
    load_description,
    load_table,
    ready_names,
)
from hf_cxr.data.schema import features

NAN = np.nan


def dicom(path: Path, width: int, height: int) -> None:
    import pydicom

    path.parent.mkdir(parents=True, exist_ok=True)
    dataset = pydicom.Dataset()
    dataset.file_meta = pydicom.dataset.FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    dataset.SOPClassUID, dataset.SOPInstanceUID = "1.2.840.10008.5.1.4.1.1.1.1", "1.2.3"
    dataset.Rows, dataset.Columns = height, width
    dataset.save_as(path, enforce_file_format=True)


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
    assert all(split.features == features(space, studies=True) for split in splits.values())
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
    assert "1 row" in caplog.text
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
        hub = load_description(name).hub  # tested against the loopback Hub, in test_hub_tables.py
        assert hub or f'"{name}"' in tested
        assert "http" in load_description(name).source


@pytest.mark.parametrize("name", ready_names())
def test_a_description_made_from_another_is_the_same(name):
    """`load_source` makes one with the revision that its arguments ask for."""
    description = load_description(name)
    assert dataclasses.replace(description, hub_revision=description.hub_revision) == description
