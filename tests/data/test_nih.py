"""The NIH release as eight rows: both layouts, both headers, every contradiction refused."""

import logging
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hf_cxr.data.schema import features
from hf_cxr.data.sources.nih import load_nih
from hf_cxr.labels import NIH14

HEADER = (
    "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,View Position,"
    "OriginalImage[Width,Height],OriginalImagePixelSpacing[x,y]"
)
ROWS = [  # image, findings, age, sex, view
    ("00000001_000.png", "Cardiomegaly", "58", "M", "PA"),
    ("00000001_001.png", "Cardiomegaly|Emphysema", "58", "M", "PA"),
    ("00000002_000.png", "No Finding", "81", "F", "AP"),
    ("00000003_000.png", "Hernia", "411", "F", "PA"),
    ("00000004_000.png", "Mass|Nodule", "", "", ""),
    ("00000005_000.png", "No Finding", "70", "M", "PA"),
    ("00000006_000.png", "Infiltration", "33", "F", "AP"),
    ("00000006_001.png", "Pleural_Thickening|Infiltration", "33", "F", "AP"),
]
TEST_IMAGES = ("00000006_000.png", "00000006_001.png")
BOXES = (
    "Image Index,Finding Label,Bbox [x,y,w,h],,,\n"
    "00000006_001.png,Infiltrate,512,256,128,64,,,\n"
    "00000001_000.png,Cardiomegaly,0,0,1024,1024,,,\n"
    "00000006_001.png,Mass,102.4,0,51.2,10.24,,,\n"
)


def write_release(root: Path, *, edition: str = "v2020", folders: int = 0) -> Path:
    """A release of eight images; ``folders``: 0 for images/, else that many images_00N/images/."""
    tail = "," if edition == "original" else ""
    lines = [HEADER + tail]
    for number, (image, findings, age, sex, view) in enumerate(ROWS):
        age = f"{age:>03}Y" if edition == "oldest" and age else age
        lines.append(f"{image},{findings},{number},{int(image[:8])},{age},{sex},{view},2682,2749,0.143,0.143{tail}")
    table = "Data_Entry_2017.csv" if edition != "v2020" else "Data_Entry_2017_v2020.csv"
    (root / table).write_text("\n".join(lines) + "\n")
    images = [row[0] for row in ROWS]
    (root / "train_val_list.txt").write_text("\n".join(i for i in images if i not in TEST_IMAGES) + "\n")
    (root / "test_list.txt").write_text("\r\n".join(TEST_IMAGES))
    (root / "BBox_List_2017.csv").write_text(BOXES)
    for number, image in enumerate(images):
        folder = root / (f"images_{number % folders + 1:03d}/images" if folders else "images")
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((4, 4), number, dtype=np.uint8)).save(folder / image)
    return root


def rows_by_image(splits) -> dict[str, dict]:
    return {row["image_id"]: row for split in splits.values() for row in split}


@pytest.mark.parametrize("edition", ["v2020", "original", "oldest"])
@pytest.mark.parametrize("folders", [0, 3])
def test_both_headers_and_both_layouts(tmp_path, edition, folders):
    splits = load_nih(write_release(tmp_path, edition=edition, folders=folders))
    assert list(splits) == ["train", "validation", "test"]
    assert {name: len(split) for name, split in splits.items()} == {"train": 5, "validation": 1, "test": 2}
    assert all(split.features == features(NIH14) for split in splits.values())
    assert sorted(splits["test"]["image_id"]) == list(TEST_IMAGES)
    rows = rows_by_image(splits)
    for number, (image, findings, _, sex, view) in enumerate(ROWS):
        row = rows[image]
        assert [name for name, cell in zip(NIH14, row["labels"], strict=True) if cell] == [
            name for name in NIH14 if name in findings.split("|")
        ]
        assert row["patient_id"] == image[:8]
        assert (row["sex"], row["view"]) == (sex or None, view or None)
        assert np.asarray(row["image"])[0, 0] == number
    assert [rows[image]["age"] for image in ("00000001_000.png", "00000006_001.png")] == [58, 33]
    assert np.isnan([rows["00000003_000.png"]["age"], rows["00000004_000.png"]["age"]]).all()


def test_the_column_that_the_nih_renamed(tmp_path):
    table = write_release(tmp_path) / "Data_Entry_2017_v2020.csv"
    before = rows_by_image(load_nih(tmp_path, images=False))
    table.write_text(table.read_text().replace("Patient Gender", "Patient Sex"))
    after = rows_by_image(load_nih(tmp_path, images=False))
    assert {image: row["sex"] for image, row in after.items()} == {image: sex or None for image, _, _, sex, _ in ROWS}
    assert after.keys() == before.keys()


def test_boxes_are_fractions_and_infiltrate_is_infiltration(tmp_path):
    rows = rows_by_image(load_nih(write_release(tmp_path), images=False))
    first, second = rows["00000006_001.png"]["boxes"]
    assert first == {"finding": "Infiltration", "bbox": [0.5, 0.25, 0.125, 0.0625]}
    assert second["finding"] == "Mass"
    assert second["bbox"] == pytest.approx([0.1, 0, 0.05, 0.01])
    assert rows["00000001_000.png"]["boxes"] == [{"finding": "Cardiomegaly", "bbox": [0, 0, 1, 1]}]
    assert sum(len(row["boxes"]) for row in rows.values()) == 3


def test_a_release_without_boxes(tmp_path):
    (write_release(tmp_path) / "BBox_List_2017.csv").unlink()
    assert all(row["boxes"] == [] for row in rows_by_image(load_nih(tmp_path, images=False)).values())


def test_tables_alone_need_no_images(tmp_path):
    shutil.rmtree(write_release(tmp_path) / "images")
    splits = load_nih(tmp_path, images=False)
    assert splits["train"].features == features(NIH14, images=False)
    assert sum(map(len, splits.values())) == len(ROWS)
    with pytest.raises(FileNotFoundError, match=r"neither images/ nor images_001/images/.*images=False"):
        load_nih(tmp_path)


def test_ages_of_the_oldest_table(tmp_path, caplog):
    table = write_release(tmp_path, edition="oldest") / "Data_Entry_2017.csv"
    table.write_text(table.read_text().replace("081Y", "006M").replace("070Y", "014D"))
    with caplog.at_level(logging.WARNING, logger="hf_cxr.data.sources.nih"):
        rows = rows_by_image(load_nih(tmp_path, images=False))
    assert rows["00000002_000.png"]["age"] == 0.5
    assert rows["00000005_000.png"]["age"] == pytest.approx(14 / 365.25)
    assert "1 age below 0 or above 120 years taken as unknown, such as 411" in caplog.text


def test_missing_images_are_an_error_or_skipped_with_their_number(tmp_path, caplog):
    root = write_release(tmp_path)
    whole = load_nih(root, images=False)
    gone = whole["train"][0]["image_id"]
    for image in (gone, TEST_IMAGES[0]):
        (root / "images" / image).unlink()
    with pytest.raises(FileNotFoundError, match=rf"is missing 2 of 8 images, such as {gone}.*missing_images='skip'"):
        load_nih(root)
    with caplog.at_level(logging.WARNING, logger="hf_cxr.data.sources.nih"):
        splits = load_nih(root, missing_images="skip")
    assert "1 of 5 in train, 0 of 1 in validation, 1 of 2 in test" in caplog.text
    for name, split in splits.items():  # what is left is where the full release has it
        assert set(split["image_id"]) == set(whole[name]["image_id"]) - {gone, TEST_IMAGES[0]}
    (root / "images" / TEST_IMAGES[1]).unlink()
    with pytest.raises(ValueError, match=r"no image of test \(missing: .*2 of 2 in test\)"):
        load_nih(root, missing_images="skip")
    with pytest.raises(ValueError, match="'error' or 'skip'; got 'ignore'"):
        load_nih(root, missing_images="ignore")


TABLE, TRAIN_VAL, TEST, BOX = "Data_Entry_2017_v2020.csv", "train_val_list.txt", "test_list.txt", "BBox_List_2017.csv"
CONTRADICTIONS = {  # what is wrong: file, old text, new text, message
    "in both lists": (TEST, "00000006_000.png", "00000005_000.png\n00000006_000.png", "both .*1 row.*00000005_000"),
    "in neither list": (TRAIN_VAL, "00000002_000.png\n", "", "neither .*00000002_000"),
    "listed twice": (TRAIN_VAL, "00000002_000.png", "00000002_000.png\n00000002_000.png", "listed twice.*00000002"),
    "listed and unknown": (TEST, "00000006_000.png", "00000009_000.png", "test_list.*is not in.*00000009_000"),
    "empty list": (TEST, "00000006_000.png\n00000006_001.png", "", "test_list.txt lists no image"),
    "patient in both lists": (
        TEST,
        "00000006_000.png",
        "00000001_001.png\n00000006_000.png",
        "train_val_list.*00000001",
    ),
    "image twice": (TABLE, "00000001_001.png", "00000001_000.png", "occurs twice.*00000001_000"),
    "odd image name": (TABLE, "00000001_001.png", "1_001.png", "not like 00000001_000.png.*'1_001.png'"),
    "other patient": (TABLE, "No Finding,2,2,", "No Finding,2,3,", "Patient ID differs.*00000002_000"),
    "unknown finding": (TABLE, "Hernia", "Hermia", "not in the release; known: .*'Hermia'"),
    "empty finding": (TABLE, "Hernia", "", "not in the release; known"),
    "finding and none": (TABLE, "Hernia", "No Finding|Hernia", "'No Finding' together with a finding.*Hernia'"),
    "odd age": (TABLE, ",81,", ",old,", "Patient Age is not an age .*'old'"),
    "odd view": (TABLE, ",AP,", ",LL,", "view is not PA, AP or empty .*3 row.*'LL'"),
    "odd sex": (TABLE, ",F,", ",X,", "sex is not M, F or empty .*'X'"),
    "missing column": (TABLE, "View Position", "View", r"has no column 'View Position'; it has .*'View'"),
    "no rows": (TABLE, None, HEADER + "\n", "has no rows"),
    "no table": (TABLE, None, "", "is not a CSV table"),
    "odd box header": (BOX, "Bbox [x", "Box [x", "does not begin with"),
    "box of an unknown finding": (BOX, "Infiltrate", "Opacity", "Finding Label is not one of .*'Opacity'"),
    "box on an unknown image": (BOX, "00000001_000.png", "00000009_000.png", "box is on an image.*00000009_000"),
    "box outside": (BOX, "0,0,1024,1024", "1,0,1024,1024", "not inside an image of 1024 x 1024.*00000001_000"),
    "box without a number": (BOX, "0,0,1024,1024", "0,0,1024,", "not inside an image of 1024 x 1024.*00000001_000"),
}


@pytest.mark.parametrize("contradiction", CONTRADICTIONS)
def test_contradictions_are_refused(tmp_path, contradiction):
    file_name, old, new, message = CONTRADICTIONS[contradiction]
    path = write_release(tmp_path) / file_name
    text = path.read_text()
    assert old is None or old in text
    if contradiction == "patient in both lists":
        other = tmp_path / TRAIN_VAL
        other.write_text(other.read_text().replace("00000001_001.png\n", ""))
    path.write_text(new if old is None else text.replace(old, new))
    with pytest.raises(ValueError, match=message) as caught:
        load_nih(tmp_path)
    assert str(tmp_path) in str(caught.value)


@pytest.mark.parametrize("file_name", [TABLE, TRAIN_VAL, TEST])
def test_a_missing_file_is_named_with_where_to_get_it(tmp_path, file_name):
    (write_release(tmp_path) / file_name).unlink()
    with pytest.raises(FileNotFoundError, match=f"{file_name[:15]}.*download it from https://"):
        load_nih(tmp_path)
    with pytest.raises(FileNotFoundError, match="is not a folder"):
        load_nih(tmp_path / "absent")


def test_of_two_tables_the_revised_one_is_read(tmp_path, caplog):
    write_release(tmp_path, edition="original")
    with caplog.at_level(logging.WARNING, logger="hf_cxr.data.sources.nih"):
        load_nih(write_release(tmp_path), images=False)
    assert "reading the revised one, Data_Entry_2017_v2020.csv" in caplog.text
    (tmp_path / TABLE).rename(tmp_path / "Data_Entry_2017 (1).csv")
    with pytest.raises(ValueError, match=r"has 2 tables: .*keep one"):
        load_nih(tmp_path, images=False)
