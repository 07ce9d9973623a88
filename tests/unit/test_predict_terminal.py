"""The line of an image on a terminal: what a reader should know comes first, and then calls are in brackets."""

import pickle
from pathlib import Path

import numpy as np
import pydicom
import pytest
import tiny
from PIL import Image

from hf_cxr.commands import main
from hf_cxr.commands.predict_terminal import Terminal
from hf_cxr.data.images.grey import ImageError, TooManyPixelsError
from hf_cxr.evaluation import OperatingPoints
from hf_cxr.inference.answers import AnswerLines
from hf_cxr.inference.calls import Calls
from hf_cxr.inference.result_files import ResultColumns
from hf_cxr.inference.results import ImageResult, InputCheckResult

POINT = {"rule": "f1", "target": None, "f1": 0.5, "sensitivity": 0.5, "specificity": 0.5, "positives": 5}
CALLS = Calls(("Mass",), OperatingPoints.from_dict({"Mass": POINT | {"negatives": 50, "threshold": 0.3}}))


@pytest.mark.parametrize(
    ("reasons", "remarks", "line"),
    [
        ((), (), "x.png  Mass 0.500*"),
        (("inverted",), (), "x.png  UNUSUAL IMAGE: inverted;  Mass 0.500(*)"),
        ((), ("too flat", "cut"), "x.png  NOTE: too flat; cut;  Mass 0.500(*)"),
        (("inverted",), ("too flat",), "x.png  UNUSUAL IMAGE: inverted;  NOTE: too flat;  Mass 0.500(*)"),
    ],
)
def test_warnings_come_before_the_findings(capsys, reasons, remarks, line):
    check = InputCheckResult(1.0, 2.0, reasons)
    result = ImageResult.of("x.png", np.float32([0.5]), CALLS, None, check, remarks)
    terminal = Terminal()
    terminal.start(ResultColumns(CALLS, input_check=True), [Path("x.png")], top=5, spreadsheet_safe=False)
    terminal.row(result)
    assert capsys.readouterr().out == f"{line}\n"


def test_the_flag_says_how_large_an_image_may_be(tmp_path, capsys):
    model = tiny.save_model(tmp_path / "model", names=("Mass",))
    grey = np.random.default_rng(0).integers(0, 256, (100, 150), dtype=np.uint8)
    Image.fromarray(grey).save(tmp_path / "x.png")
    dataset = pydicom.Dataset()
    dataset.file_meta = pydicom.dataset.FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    dataset.SOPClassUID, dataset.SOPInstanceUID = pydicom.uid.DigitalXRayImageStorageForPresentation, "1.2.3"
    dataset.Rows, dataset.Columns = grey.shape
    dataset.SamplesPerPixel, dataset.PixelRepresentation, dataset.PhotometricInterpretation = 1, 0, "MONOCHROME2"
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 8, 8, 7
    dataset.PixelData = grey.tobytes()
    dataset.save_as(tmp_path / "x.dcm", enforce_file_format=True)
    limit = Image.MAX_IMAGE_PIXELS
    words = ["predict", str(tmp_path / "x.png"), str(tmp_path / "x.dcm"), "--model", str(model)]
    for megapixels, times in ((0.01, 2), (0.002, 2), (0.015, 0)):  # Pillow itself refuses more than twice the limit
        assert main([*words, "--max_megapixels", str(megapixels)]) == (2 if times else 0)
        printed = capsys.readouterr()
        assert printed.err.count("--max_megapixels") == times
        assert printed.out.count("Mass") == 2 - times
        assert limit == Image.MAX_IMAGE_PIXELS
    with pytest.raises(SystemExit):
        main([*words, "--max_megapixels", "0"])


def test_too_many_pixels_are_told_apart_when_kept_and_between_processes():
    lines = AnswerLines(CALLS, None, "model")
    for error in (TooManyPixelsError("x.png", "9 x 9"), ImageError("x.png", "cut")):
        _, _, found = lines.answer(lines.line(Path("/x.png"), (3, 4), error).encode() + b"\n")
        for copy in (found, pickle.loads(pickle.dumps(error))):
            assert (type(copy), str(copy)) == (type(error), str(error))
