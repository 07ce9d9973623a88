"""The typed result of one image, and what may be given as an image."""

import json
from io import BytesIO

import numpy as np
import pydicom
import pytest
from PIL import Image

from hf_cxr.data.images.grey import ImageError, read_grey
from hf_cxr.evaluation import OperatingPoints, choose_operating_points
from hf_cxr.evaluation.conformal import fit_conformal
from hf_cxr.inference.calls import Calls
from hf_cxr.inference.results import ImageResult, InputCheckResult
from hf_cxr.inference.sources import IN_MEMORY, name_of, read_image

NAMES = ("Mass", "Hernia", "Edema")
GREY = np.random.default_rng(0).integers(0, 256, (12, 9), dtype=np.uint8)


def points() -> OperatingPoints:
    rng = np.random.default_rng(1)
    label_NC = rng.integers(0, 2, (60, 3)).astype(float)
    label_NC[:, 1] = 0  # no positive: no operating point
    return choose_operating_points(rng.random((60, 3)), label_NC, rule="f1", label_names=NAMES)


def test_a_result_has_calls_and_sets_by_the_models_thresholds():
    sets = fit_conformal(
        np.linspace(0.01, 0.99, 90).reshape(30, 3),
        np.tile([0, 1], 45).reshape(30, 3),
        range(30),
        label_names=NAMES,
        coverage=0.8,
    )
    chosen = points()
    at_C = np.nan_to_num(chosen.threshold_C(NAMES), nan=0.3)
    result = ImageResult.of("chest.png", at_C.astype(np.float32) + np.float32(1e-3), Calls(NAMES, chosen), sets)
    below = ImageResult.of("chest.png", at_C.astype(np.float32) - np.float32(1e-3), Calls(NAMES, chosen), sets)
    assert [finding.called for finding in result.findings] == [True, None, True]
    assert [finding.called for finding in below.findings] == [False, None, False]
    assert result.findings[1].threshold is None
    present_C, absent_C = sets.sets(result.probability_C)
    for column, finding in enumerate(result.findings):
        assert ("present" in finding.label_set, "absent" in finding.label_set) == (
            present_C[column],
            absent_C[column],
        )
    assert present_C.any()


def test_a_result_is_plain_json():
    check = InputCheckResult(12.0, 9.0, ("nearly uniform",))
    result = ImageResult.of("x", np.array([0.1, 0.2, 0.3], np.float32), Calls(NAMES, None), None, check)
    values = json.loads(json.dumps(result.to_dict()))
    assert [finding["name"] for finding in values["findings"]] == list(NAMES)
    assert values["findings"][0] == {
        "name": "Mass",
        "probability": pytest.approx(0.1),
        "threshold": None,
        "called": None,
        "label_set": None,
    }
    assert values["input_check"]["unusual"]
    assert not InputCheckResult(1.0, 9.0).unusual


def as_png(image: Image.Image) -> bytes:
    file = BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


@pytest.mark.parametrize("kind", ["uint8", "uint16", "rgb", "bytes", "pil", "path", "bytearray"])
def test_every_kind_of_image_gives_the_same_grey(kind, tmp_path):
    path = tmp_path / "x.png"
    path.write_bytes(as_png(Image.fromarray(GREY)))
    given = {
        "uint8": GREY,
        "uint16": GREY.astype(np.uint16) * 257,
        "rgb": np.stack([GREY] * 3, axis=-1),
        "bytes": path.read_bytes(),
        "bytearray": bytearray(path.read_bytes()),
        "pil": Image.fromarray(GREY),
        "path": path,
    }[kind]
    if kind == "uint16":
        given[0, 0] = 65535  # the full scale is in the image
    found = read_image(given, "x")
    same = np.ones(GREY.shape, bool)
    same[0, 0] = kind != "uint16"
    np.testing.assert_array_equal(found[same], GREY[same])
    assert not np.array_equal(found, 255 - GREY)


def test_a_strided_array_is_read_as_it_looks():
    np.testing.assert_array_equal(read_image(GREY[::-1, ::2], "x"), GREY[::-1, ::2])


@pytest.mark.parametrize("with_meta", [True, False])
def test_a_pydicom_dataset_is_read_as_its_file(with_meta, tmp_path):
    dataset = pydicom.Dataset()
    dataset.Rows, dataset.Columns = GREY.shape
    dataset.SamplesPerPixel, dataset.PixelRepresentation, dataset.PhotometricInterpretation = 1, 0, "MONOCHROME1"
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 8, 8, 7
    dataset.SOPClassUID, dataset.SOPInstanceUID = pydicom.uid.DigitalXRayImageStorageForPresentation, "1.2.3"
    dataset.PixelData = GREY.tobytes()
    if with_meta:
        dataset.file_meta = pydicom.dataset.FileMetaDataset()
        dataset.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    np.testing.assert_array_equal(read_image(dataset, "chest.png"), 255 - GREY)
    if with_meta:
        dataset.save_as(tmp_path / "x.dcm", enforce_file_format=True)
        np.testing.assert_array_equal(read_grey(tmp_path / "x.dcm"), 255 - GREY)


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (GREY.astype(float), "float64"),
        (GREY.astype(np.int32), "int32"),
        (np.zeros((0, 4), np.uint8), r"\(0, 4\)"),
        (np.zeros((4, 4, 4), np.uint8), r"\(4, 4, 4\)"),
        (None, "NoneType is not an image"),
        (b"", "empty"),
    ],
)
def test_what_is_no_image_is_refused_with_its_name(image, message):
    with pytest.raises(ImageError, match=f"(?s)the third.*{message}"):
        read_image(image, "the third")


def test_names():
    assert name_of("a/b.png") == "a/b.png"
    assert name_of(GREY) == IN_MEMORY
