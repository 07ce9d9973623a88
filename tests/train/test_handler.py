"""handler.py of a pushed repository, called as the service of Inference Endpoints calls it.

`Service` does what huggingface-inference-toolkit does: download the repository, import handler.py from the folder,
make its EndpointHandler, decode the body by its content type, and answer any error with status 400.
"""

import base64
import importlib.util
import io
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from hub_runs import REPO, write_run
from hub_server import HubServer, point_this_process_at
from huggingface_hub import snapshot_download
from PIL import Image
from pydicom import uid
from pydicom.dataset import Dataset, FileMetaDataset

from hf_cxr import Classifier
from hf_cxr.hub import Extras, push_run
from hf_cxr.labels import NIH14
from hf_cxr.serving import handler as of_package

GREY = np.random.default_rng(0).integers(0, 256, (50, 44), dtype=np.uint8)


class Service:
    """One endpoint on a folder that has the repository's files."""

    def __init__(self, folder: Path):
        spec = importlib.util.spec_from_file_location("handler.EndpointHandler", folder / "handler.py")
        module = importlib.util.module_from_spec(spec)
        sys.modules[spec.name] = module
        try:
            spec.loader.exec_module(module)
        finally:
            del sys.modules[spec.name]
        self.handler = module.EndpointHandler(str(folder))

    def post(self, body: bytes, content_type: str = "application/json") -> tuple[int, Any]:
        try:
            if content_type.startswith("image/"):
                data = {"inputs": Image.open(io.BytesIO(body)).convert("RGB")}
            else:
                data = json.loads(body)
            if "inputs" not in data:
                raise ValueError(f"Body needs to provide a inputs key, received: {body!r:.80}")
            return 200, json.loads(json.dumps(self.handler(data), allow_nan=False))
        except Exception as error:
            return 400, {"error": str(error)}

    def ask(self, inputs: Any, **parameters: Any) -> tuple[int, Any]:
        return self.post(json.dumps({"inputs": inputs} | ({"parameters": parameters} if parameters else {})).encode())


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    return write_run(tmp_path_factory.mktemp("run"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory, run) -> Path:
    """The repository's files, pushed and downloaded through the loopback Hub."""
    home, target = tmp_path_factory.mktemp("home"), tmp_path_factory.mktemp("endpoint")
    with HubServer(tmp_path_factory.mktemp("hub")) as server, pytest.MonkeyPatch.context() as patch:
        for name, value in server.environment(home).items():
            patch.setenv(name, value)
        point_this_process_at(server, home, patch)
        tag = push_run(run, REPO, extras=Extras(handler=True)).tag
        snapshot_download(REPO, revision=tag, local_dir=target)
    return target


@pytest.fixture(scope="module")
def service(folder) -> Service:
    return Service(folder)


@pytest.fixture(scope="module")
def expected(run) -> dict[str, float]:
    return dict(Classifier(run).predict(png()).probabilities)


def png(pixel_HW: np.ndarray = GREY) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixel_HW).save(buffer, format="PNG")
    return buffer.getvalue()


def text(content: bytes) -> str:
    return base64.b64encode(content).decode()


def dicom(stored: np.ndarray = GREY) -> bytes:
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = uid.ExplicitVRLittleEndian
    dataset.SOPClassUID, dataset.SOPInstanceUID = uid.DigitalXRayImageStorageForPresentation, "1.2.3"
    dataset.PatientName = "Doe^Jane"
    dataset.Rows, dataset.Columns = stored.shape
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.BitsAllocated = dataset.BitsStored = 8
    dataset.HighBit, dataset.PixelRepresentation = 7, 0
    dataset.PixelData = stored.tobytes()
    buffer = io.BytesIO()
    pydicom.dcmwrite(buffer, dataset, enforce_file_format=True)
    return buffer.getvalue()


def probabilities(answer: dict) -> dict[str, float]:
    return {finding["name"]: finding["probability"] for finding in answer["findings"]}


@pytest.mark.parametrize(
    "content", [png(), dicom(), png(GREY.astype(np.uint16) * 257)], ids=["png", "dicom", "16 bit"]
)
def test_base64_in_json_gives_the_typed_result(service, expected, content):
    status, answer = service.ask(text(content))
    assert status == 200
    assert set(answer) == {"image", "findings", "label_set_coverage", "input_check", "remarks"}
    assert probabilities(answer) == pytest.approx(expected, abs=1e-6)
    assert list(probabilities(answer)) == list(NIH14)
    assert np.ptp(list(expected.values())) > 0.01
    assert "Doe" not in json.dumps(answer)


def test_the_bytes_of_an_image_and_an_address_with_data(service, expected):
    status, answer = service.post(png(), "image/png")
    assert status == 200
    assert probabilities(answer) == pytest.approx(expected, abs=1e-6)
    status, answer = service.ask(f"data:image/png;base64,{text(png())}")
    assert status == 200
    assert probabilities(answer) == pytest.approx(expected, abs=1e-6)


def test_a_list_gives_a_list_in_its_order(service, expected):
    status, answers = service.ask([text(png()), text(png(255 - GREY)), text(dicom())])
    assert status == 200
    assert probabilities(answers[0]) == probabilities(answers[2]) == pytest.approx(expected, abs=1e-6)
    assert probabilities(answers[1]) != probabilities(answers[0])
    assert [answer["image"] for answer in answers] == ["image 1", "image 2", "image 3"]


def test_stock_clients_get_labels_and_scores(service, expected):
    status, answer = service.ask(text(png()), output="labels")
    assert status == 200
    assert {row["label"]: row["score"] for row in answer} == pytest.approx(expected, abs=1e-6)
    assert [row["score"] for row in answer] == sorted(expected.values(), reverse=True)
    status, shorter = service.ask(text(png()), output="labels", top_k=3)
    assert shorter == answer[:3]
    status, answers = service.ask([text(png())], output="labels", top_k=100)
    assert [len(rows) for rows in answers] == [14]


@pytest.mark.parametrize(
    ("inputs", "parameters", "words"),
    [
        ("/etc/passwd", {}, "not base64"),
        ("https://example.org/chest.png", {}, "not a path or an address"),
        ("data:image/png", {}, "not base64"),
        ("", {}, '"inputs" is empty'),
        ([], {}, "empty list"),
        (None, {}, "NoneType"),
        (7, {}, "int"),
        ({"image": "x"}, {}, "dict"),
        ([text(png()), 7], {}, '"inputs"[1]'),
        ([text(png())] * 33, {}, "at most 32"),
        (text(b"not an image"), {}, "cannot read the image"),
        (text(png()[:200]), {}, "cannot read the image"),
        (text(dicom()[:400]), {}, "cannot read the image"),
        ([text(png()), text(b"not an image")], {}, "cannot read image 2"),
        (text(png()), {"top": 3}, "known: output, top_k"),
        (text(png()), {"output": "xml"}, "result or labels"),
        (text(png()), {"top_k": 3}, '"output": "labels"'),
        (text(png()), {"output": "labels", "top_k": 0}, "at least 1"),
        (text(png()), {"output": "labels", "top_k": "3"}, "whole number"),
    ],
)
def test_a_bad_request_is_a_400_of_one_line_and_the_endpoint_lives(service, expected, inputs, parameters, words):
    status, answer = service.ask(inputs, **parameters)
    assert status == 400
    assert set(answer) == {"error"}
    assert words in answer["error"]
    assert len(answer["error"].splitlines()) == 1
    assert len(answer["error"]) < 400
    status, answer = service.ask(text(png()))
    assert status == 200


def test_a_body_without_inputs_and_parameters_of_another_kind(service):
    assert service.post(b'{"image": 1}')[0] == 400
    for data in ({}, [], None, {"image": 1}):
        with pytest.raises(ValueError, match='needs "inputs"'):
            service.handler(data)
    with pytest.raises(ValueError, match='"parameters" must be an object'):
        service.handler({"inputs": text(png()), "parameters": [1]})


def test_a_file_that_is_too_large_is_refused_before_it_is_decoded(service, monkeypatch):
    monkeypatch.setattr(of_package, "MOST_BYTES", 1000)
    for content in (png(), b"x" * 1001):
        status, answer = service.ask(text(content))
        assert status == 400
        assert "larger than" in answer["error"]
    monkeypatch.setattr(of_package, "MOST_BYTES", 10**6)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    status, answer = service.ask(text(png()))
    assert status == 400
    assert "cannot read the image" in answer["error"]


def test_nothing_of_an_image_is_kept_on_disk(service, folder, tmp_path, monkeypatch):
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    for content in (png(), dicom(), b"not an image"):
        service.ask(text(content))
    service.post(png(), "image/png")
    assert not list(tmp_path.iterdir())
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*") if "__pycache__" not in path.parts} == {
        path: time for path, time in before.items() if "__pycache__" not in path.parts
    }


def test_the_requirements_name_this_version(folder):
    import hf_cxr

    assert (folder / "requirements.txt").read_text() == f"hf-cxr[dicom]=={hf_cxr.__version__}\n"
