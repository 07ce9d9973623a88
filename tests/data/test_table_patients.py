"""Patients and studies of a table: where they are read from, and what is refused."""

import numpy as np
import pytest
from table_files import ROWS, own
from test_ready_tables import write_mimic

from hf_cxr.data import load_table
from hf_cxr.data.schema import features

NIH = "file,part,Mass,Nodule\n" + "".join(
    f"{patient:08d}_{number:03d}.png,{part},{number % 2},{patient % 2}\n"
    for patient, part in enumerate(("train", "train", "validation", "test", "test"))
    for number in range(2)
)


def read(tmp_path, rows, **keys):
    return own(tmp_path, rows, **keys)[0]


def test_ids_that_name_the_patient_are_not_patients_of_their_own(tmp_path):
    keys = {"patient_column": None, "image_is_patient": True}
    with pytest.raises(
        ValueError, match=r"00000000_000.png.*10 images of 5 patients.*patient_column: file and patient_pattern"
    ):
        read(tmp_path, NIH, **keys)
    splits = read(tmp_path, NIH, patient_column="file", patient_pattern=r"^(\d{8})_")
    assert set(splits["test"]["patient_id"]) == {"00000003", "00000004"}
    other = NIH.replace("00000000_000.png", "scan.png")
    assert len(read(tmp_path, other, **keys)["train"]) == 4  # one other id: not the release's


def test_a_description_without_patients_is_told_how_to_read_them_from_names(tmp_path):
    with pytest.raises(ValueError, match=r"give patient_column.*patient_pattern: .*image_is_patient: true"):
        read(tmp_path, NIH, patient_column=None)


def test_studies_are_read_from_a_column_several_or_a_pattern(tmp_path):
    rows = "file,patient,visit,part,Mass,Nodule\na.png,1,1,train,1,\nb.png,1,1,train,0,1\n"
    rows += "c.png,2,,validation,0,1\nd.png,3,1,test,0,0\n"
    splits = read(tmp_path, rows, study_column=["patient", "visit"])
    assert splits["train"]["study_id"][:] == ["1/1", "1/1"]
    assert splits["validation"]["study_id"][:] == [None]
    assert splits["train"].features == features(["Mass", "Nodule"], images=False, studies=True)
    with pytest.raises(ValueError, match=r"'visit': a study has two patients .*study_column: \[patient, study\]"):
        read(tmp_path, rows, study_column="visit")
    with pytest.raises(ValueError, match="study_pattern goes with one study_column"):
        read(tmp_path, rows, study_column=["patient", "visit"], study_pattern="(.)")
    with pytest.raises(ValueError, match=r"study_pattern .* must have one group, the study"):
        read(tmp_path, rows, study_column="visit", study_pattern=".")
    assert "study_id" not in read(tmp_path, ROWS)["train"].column_names


def test_mimic_knows_the_study_of_two_views(tmp_path):
    splits, _ = load_table("mimic_cxr", write_mimic(tmp_path), images=False)
    assert splits["train"]["study_id"][:] == ["50414267", "50414267"]


def test_validation_rows_are_training_rows_only(tmp_path):
    rows = "file,patient,fold,part,Mass,Nodule\na.png,1,0,train,1,\nb.png,2,1.0,train,0,1\n"
    rows += "c.png,3,0,test,0,1\nd.png,4,,train,0,0\n"
    keys = {"validation_rows": {"fold": ["0"]}}
    splits = read(tmp_path, rows, **keys)
    images = {name: split["image_id"][:] for name, split in splits.items()}
    assert images == {"train": ["b.png", "d.png"], "validation": ["a.png"], "test": ["c.png"]}


def test_splits_of_the_data_can_be_ignored(tmp_path):
    rows = "file,patient,part,Mass,Nodule\n" + "".join(
        f"{n}.png,{n // 4},{('train', 'test')[n % 2]},{n % 3 // 2},{n % 2}\n" for n in range(80)
    )
    with pytest.raises(ValueError, match="ignore_splits: true cuts all rows"):
        read(tmp_path, rows, ignore_splits=True)
    splits = read(tmp_path, rows, split_column=None, ignore_splits=True, validation_fraction=0.2, test_fraction=0.2)
    assert sum(map(len, splits.values())) == 80
    assert not np.intersect1d(splits["train"]["patient_id"], splits["test"]["patient_id"]).size
