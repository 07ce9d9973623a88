"""`hf-cxr predict --heatmaps` and `--structured_reports`: a file for each image that has one, not among the images."""

import itertools
import json
import os
import signal
import sys
from pathlib import Path

import numpy as np
import pydicom
import pytest
import tiny
from PIL import Image

from hf_cxr.commands import main
from hf_cxr.inference import structured_report
from hf_cxr.inference.classifier import Classifier
from hf_cxr.inference.structured_report import ReportError
from hf_cxr.inference.views import AveragedViews
from hf_cxr.run.explain import Explainer

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
    files = sorted((images / "sub").iterdir())
    assert predict(*files, "--model", model, flag, images / "sub") == 2  # the next sub/* would have them
    assert "is in this folder" in capsys.readouterr().err.splitlines()[-1]
    assert sorted(images.rglob("*")) == before


def test_a_model_that_calls_nothing_has_no_maps_of_calls(images, tmp_path, capsys):
    folder = tiny.save_model(tmp_path / "plain", names=NAMES)
    assert predict(images, "--model", folder, "--heatmaps", tmp_path / "maps") == 2
    assert "no operating points" in capsys.readouterr().err.splitlines()[-1]
    assert not (tmp_path / "maps").exists()


def dicom_file(path: Path, grey_HW: np.ndarray, *, meta: bool = True, study: str = "1.2") -> Path:
    dataset = pydicom.Dataset()
    dataset.file_meta = pydicom.dataset.FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    dataset.SOPClassUID, dataset.SOPInstanceUID = pydicom.uid.DigitalXRayImageStorageForPresentation, "1.2.3"
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID, dataset.PatientID = study, "1.2.1", "P7"
    dataset.Rows = dataset.Columns = 40
    dataset.SamplesPerPixel, dataset.PixelRepresentation, dataset.PhotometricInterpretation = 1, 0, "MONOCHROME2"
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 8, 8, 7
    dataset.PixelData = np.ascontiguousarray(grey_HW).tobytes()
    if meta:
        dataset.save_as(path, enforce_file_format=True)
    else:
        del dataset.file_meta
        dataset.save_as(path, implicit_vr=True, little_endian=True)
    return path


@pytest.mark.parametrize("meta", [True, False])
def test_dicom_images_get_reports_and_others_are_counted(model, images, tmp_path, capsys, meta):
    from hf_cxr.inference.structured_report import read_probabilities

    dicom_file(tmp_path / "x.dcm", np.asarray(Image.open(images / "5.png")), meta=meta)
    words = (tmp_path / "x.dcm", images / "5.png", "--model", model, "--structured_reports", tmp_path / "reports")
    assert predict(*words, "--out", tmp_path / "x.jsonl") == 0
    printed = capsys.readouterr().err.splitlines()
    assert [line for line in printed if "highdicom" in line] == []
    assert f"wrote 1 structured report to {tmp_path / 'reports'}" in printed
    assert "1 image without a report: not DICOM, so in no study" in printed
    assert len((tmp_path / "x.jsonl").read_text().splitlines()) == 2
    (report,) = (tmp_path / "reports").iterdir()
    found = read_probabilities(pydicom.dcmread(report))
    assert found == pytest.approx(dict(Classifier(model).predict(tmp_path / "x.dcm").probabilities), abs=1e-6)


def test_a_dicom_image_without_a_study_is_a_failure(model, images, tmp_path, capsys):
    dicom_file(tmp_path / "x.dcm", np.asarray(Image.open(images / "5.png")), study="")
    assert predict(tmp_path / "x.dcm", "--model", model, "--structured_reports", tmp_path / "reports") == 2
    said = capsys.readouterr().err
    assert "x.dcm: the file has no StudyInstanceUID" in said
    assert "1 picture or report could not be made" in said.splitlines()[-1]
    assert "not DICOM" not in said


@pytest.mark.parametrize("flag", ["--heatmaps", "--structured_reports"])
def test_a_file_that_changes_after_it_was_predicted_has_no_picture_or_report(
    model, tmp_path, monkeypatch, capsys, flag
):
    pixels = [np.random.default_rng(seed).integers(0, 256, (40, 40), dtype=np.uint8) for seed in range(12)]
    results = Classifier(model).predict_images(pixels)
    called, other = [grey for grey, result in zip(pixels, results, strict=True) if result.called_C.any()][:2]
    path = dicom_file(tmp_path / "x.dcm", called)
    real = Classifier.outputs

    def overwritten(self, pixel_B1SS):
        dicom_file(path, other)
        os.utime(path, (1, 1))
        return real(self, pixel_B1SS)

    with monkeypatch.context() as patched:
        patched.setattr(Classifier, "outputs", overwritten)
        assert predict(path, "--model", model, flag, tmp_path / "made") == 2
    assert f"{path}: it changed while it was read" in capsys.readouterr().err
    assert not list((tmp_path / "made").glob("*"))
    assert predict(path, "--model", model, flag, tmp_path / "made") == 0
    assert len(list((tmp_path / "made").iterdir())) == 1


def stop_after(monkeypatch, batches: int) -> None:
    """Let Ctrl-C come after so many batches."""
    real, count = Classifier.outputs, itertools.count()

    def interrupted(self, pixel_B1SS):
        if next(count) == batches:
            signal.raise_signal(signal.SIGINT)
        return real(self, pixel_B1SS)

    monkeypatch.setattr(Classifier, "outputs", interrupted)


@pytest.mark.parametrize("first", [(), ("--heatmaps", "other")])
def test_rows_without_these_pictures_are_not_continued_with_them(model, images, tmp_path, monkeypatch, capsys, first):
    monkeypatch.chdir(tmp_path)
    words = (images, "--model", model, "--batch_size", 1, "--workers", 0, "--out", "x.csv")
    with monkeypatch.context() as patched:
        stop_after(patched, 3)
        assert predict(*words, *first) == 130
    before = (tmp_path / "x.csv.partial").read_bytes()
    assert predict(*words, "--heatmaps", "maps") == 2
    said = capsys.readouterr().err.splitlines()[-1]
    assert ("begun without pictures" in said) == (not first)
    assert (str(tmp_path / "other") in said) == bool(first)
    assert (tmp_path / "x.csv.partial").read_bytes() == before
    assert not (tmp_path / "maps").exists()
    assert predict(*words, *first) == 0


def test_what_failed_before_a_stop_counts_after_it(model, images, tmp_path, monkeypatch, capsys):
    words = (images, "--model", model, "--batch_size", 1, "--workers", 0)
    words += ("--out", tmp_path / "x.csv", "--structured_reports", tmp_path / "reports")

    def fail(image, name):
        raise ReportError(f"no structured report of {name}: no study")

    monkeypatch.setattr(structured_report, "read_header", fail)
    with monkeypatch.context() as patched:
        stop_after(patched, 3)
        assert predict(*words) == 130
    partial = tmp_path / "x.csv.partial"
    assert len(partial.read_text().splitlines()) == 1 + 3
    capsys.readouterr()
    with monkeypatch.context() as patched:
        stop_after(patched, 0)
        assert predict(*words) == 130
    capsys.readouterr()
    assert predict(*words) == 2
    said = capsys.readouterr().err.splitlines()
    assert f"wrote 0 structured reports to {tmp_path / 'reports'} in this command" in said
    assert sum("no study" in line for line in said) == 7
    assert "7 pictures or reports could not be made" in said[-1]
    assert "3 of 7 images are done" in "".join(said)


def test_a_closed_pipe_ends_no_pictures(model, images, tmp_path, monkeypatch):
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w") as closed:
        monkeypatch.setattr(sys, "stdout", closed)
        assert predict(images, "--model", model, "--batch_size", 1, "--heatmaps", tmp_path / "maps") == 0
        monkeypatch.undo()
    called = [result for result in Classifier(model).predict_images(images.rglob("*.png")) if result.called_C.any()]
    assert len(list((tmp_path / "maps").iterdir())) == len(called) > 1


def test_a_picture_of_averaged_views_says_so(model):
    for views, words in ((None, 0), (AveragedViews(("flip",)), 1)):
        note = Explainer(Classifier(model, views=views), "mine", "grad_cam").about()["note"]
        assert note.count("of 2 averaged views") == words
