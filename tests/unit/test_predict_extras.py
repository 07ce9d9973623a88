"""`hf-cxr predict --heatmaps` and `--structured_reports`: a file for each image that has one, not among the images."""

import json
from pathlib import Path

import numpy as np
import pytest
import tiny
from PIL import Image

from hf_cxr.commands import main
from hf_cxr.inference.classifier import Classifier

NAMES = ("Mass", "Hernia")
POINT = {"rule": "youden", "target": None, "sensitivity": 0.9, "specificity": 0.6, "positives": 12, "negatives": 80}


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    folder = tiny.save_model(tmp_path_factory.mktemp("model"), names=NAMES, spread=2.0)
    config = json.loads((folder / "config.json").read_text())
    record = {"version": "1", "operating_points": {name: POINT | {"threshold": 0.5} for name in NAMES}}
    (folder / "config.json").write_text(json.dumps(config | {"hf_cxr": record}))
    return folder


@pytest.fixture
def images(tmp_path) -> Path:
    folder = tmp_path / "images"
    (folder / "sub").mkdir(parents=True)
    for number in range(6):
        grey = np.random.default_rng(number).integers(0, 256, (40, 40), dtype=np.uint8)
        Image.fromarray(grey).save(folder / "sub" / f"{number}.png")
    Image.fromarray(grey).save(folder / "5.png")
    return folder


def predict(*words: object) -> int:
    return main(["predict", *map(str, words)])


def test_an_image_with_a_called_finding_gets_a_picture(model, images, tmp_path):
    maps = tmp_path / "maps"
    assert predict(images, "--model", model, "--heatmaps", maps, "--out", tmp_path / "x.csv") == 0
    results = list(Classifier(model).predict_images(sorted(images.rglob("*.png"))))
    called = sorted(Path(result.name).stem for result in results if result.called_C.any())
    assert 0 < len(called) < len(results)
    pictures = sorted(maps.iterdir())
    assert [picture.stem.split("_")[0] for picture in pictures] == called  # 5.png twice, or not at all
    for picture in pictures:
        assert np.ptp(np.asarray(Image.open(picture).convert("L"))) > 100


@pytest.mark.parametrize("flag", ["--heatmaps", "--structured_reports"])
def test_no_folder_among_the_images_is_filled(model, images, flag, capsys):
    before = sorted(images.rglob("*"))
    for place, said in ((images, "is an input"), (images / "sub" / "new", "inside the input folder")):
        assert predict(images, "--model", model, flag, place) == 2
        assert said in capsys.readouterr().err.splitlines()[-1]
    assert sorted(images.rglob("*")) == before


def test_a_model_that_calls_nothing_has_no_maps_of_calls(images, tmp_path, capsys):
    folder = tiny.save_model(tmp_path / "plain", names=NAMES)
    assert predict(images, "--model", folder, "--heatmaps", tmp_path / "maps") == 2
    assert "no operating points" in capsys.readouterr().err.splitlines()[-1]
    assert not (tmp_path / "maps").exists()


def test_dicom_images_get_reports_and_others_are_named(model, images, tmp_path, capsys):
    pydicom = pytest.importorskip("pydicom", reason="needs the extra dicom")
    pytest.importorskip("highdicom", reason="needs the extra dicom")
    from hf_cxr.inference.structured_report import read_probabilities

    dataset = pydicom.Dataset()
    dataset.file_meta = pydicom.dataset.FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    dataset.SOPClassUID, dataset.SOPInstanceUID = pydicom.uid.DigitalXRayImageStorageForPresentation, "1.2.3"
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID, dataset.PatientID = "1.2", "1.2.1", "P7"
    dataset.Rows = dataset.Columns = 40
    dataset.SamplesPerPixel, dataset.PixelRepresentation, dataset.PhotometricInterpretation = 1, 0, "MONOCHROME2"
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 8, 8, 7
    dataset.PixelData = np.asarray(Image.open(images / "5.png")).tobytes()
    dataset.save_as(tmp_path / "x.dcm", enforce_file_format=True)
    words = (tmp_path / "x.dcm", images / "5.png", "--model", model, "--structured_reports", tmp_path / "reports")
    assert predict(*words, "--out", tmp_path / "x.jsonl") == 2
    printed = capsys.readouterr().err.splitlines()
    assert [line for line in printed if "highdicom" in line] == []
    assert f"{images / '5.png'}: it is not a DICOM file" in printed[-1]
    assert len((tmp_path / "x.jsonl").read_text().splitlines()) == 2
    (report,) = (tmp_path / "reports").iterdir()
    found = read_probabilities(pydicom.dcmread(report))
    assert found == pytest.approx(dict(Classifier(model).predict(tmp_path / "x.dcm").probabilities), abs=1e-6)
