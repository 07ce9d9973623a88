"""`hf-cxr serve` as its users run it: a process of its own, requests over loopback, bad ones among them."""

import base64
import os
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO

import httpx2
import numpy as np
import psutil
import pytest
from PIL import Image
from tiny import save_model

from hf_cxr.commands import main
from hf_cxr.inference.classifier import Classifier

TOKEN = "a token of the tests"
RNG = np.random.default_rng(0)


def png(side=40, value=None) -> bytes:
    grey = RNG.integers(0, 256, (side, side + 7), dtype=np.uint8) if value is None else np.full((side, side), value)
    file = BytesIO()
    Image.fromarray(grey.astype(np.uint8)).save(file, "PNG")
    return file.getvalue()


class Service:
    """The command in a process, and a client for it."""

    def __init__(self, model, folder, *flags, token=None):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.log = folder / "serve.log"
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        environment |= dict.fromkeys(("HTTP_PROXY", "http_proxy"), "http://127.0.0.1:9")  # where nothing listens
        environment |= {} if token is None else {"HF_CXR_SERVE_TOKEN": token}
        command = [sys.executable, "-c", "import sys; from hf_cxr.commands import main; sys.exit(main())", "serve"]
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                [*command, str(model), "--port", str(self.port), *flags], stdout=log, stderr=log, env=environment
            )
        self.client = httpx2.Client(base_url=f"http://127.0.0.1:{self.port}", timeout=60)

    def wait(self):
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline:
            assert self.process.poll() is None, self.log.read_text()
            try:
                if self.client.get("/health").status_code == 200:
                    return self
            except httpx2.TransportError:
                pass
            time.sleep(0.2)
        raise AssertionError(self.log.read_text())

    def stop(self, how=signal.SIGINT):
        self.client.close()
        children = psutil.Process(self.process.pid).children(recursive=True)
        self.process.send_signal(how)
        status = self.process.wait(60)
        _, alive = psutil.wait_procs(children, timeout=20)
        assert alive == []
        return status

    def send(self, content: bytes, name="x.png"):
        return self.client.post("/predict", json={"image": base64.b64encode(content).decode(), "name": name})


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return save_model(tmp_path_factory.mktemp("model") / "mine", spread=1.0)


@pytest.fixture(scope="module")
def service(model, tmp_path_factory):
    flags = ("--name", "the model", "--max_megabytes", "0.1", "--max_pixels", "100000", "--batch_wait", "0.1")
    started = Service(model, tmp_path_factory.mktemp("serve"), *flags, token=TOKEN)
    started.client.headers["Authorization"] = f"Bearer {TOKEN}"
    yield started.wait()
    started.stop()
    assert TOKEN not in started.log.read_text()


def test_an_answer_is_what_the_classifier_says(service, model):
    image = png()
    expected = Classifier(model, device="cpu").predict(image, name="chest.png").to_dict()
    as_json = service.send(image, "chest.png")
    as_file = service.client.post("/predict-file", files={"image": ("chest.png", image)})
    for answer in (as_json, as_file):
        assert answer.status_code == 200
        values = answer.json()
        assert values.pop("notice").startswith("Not a medical device")
        assert values.pop("model")["name"] == "the model"
        for mine, theirs in zip(values["findings"], expected["findings"], strict=True):
            assert mine["probability"] == pytest.approx(theirs["probability"], abs=1e-6)
        assert {**values, "findings": None} == {**expected, "findings": None}


@pytest.mark.parametrize(
    ("request_", "status", "detail"),
    [
        ({"json": {"image": "!!!"}}, 422, "not base64"),
        ({"json": {"image": base64.b64encode(b"hello").decode(), "name": "n.png"}}, 422, "cannot read n.png"),
        ({"json": {"imag": "aGVsbG8="}}, 422, "image: Field required"),
        ({"content": b"{", "headers": {"content-type": "application/json"}}, 422, "JSON"),
        ({"json": {"image": "A" * 200_000}}, 413, "for a larger --max_megabytes"),
        ({"json": {"image": base64.b64encode(png(800, 0)).decode()}}, 422, "for a larger --max_pixels"),
        ({"content": iter([b"x"])}, 411, "Content-Length"),
        ({"json": {"image": "aGVsbG8="}, "headers": {"Authorization": "Bearer wrong"}}, 401, "token"),
    ],
)
def test_a_bad_request_is_told_why_and_the_service_lives(service, request_, status, detail):
    answer = service.client.post("/predict", **request_)
    assert answer.status_code == status
    assert detail in answer.json()["detail"]
    assert "aGVsbG8=" not in answer.text  # what was sent does not come back
    assert service.send(png()).status_code == 200


def test_one_bad_image_does_not_spoil_its_batch(service):
    images = [png(), b"no image", png(), png(), b"none either", png()]
    with ThreadPoolExecutor(len(images)) as pool:
        answers = list(pool.map(service.send, images))
    assert [answer.status_code for answer in answers] == [200, 422, 200, 200, 422, 200]
    together = max(int(answer.headers.get("x-hf-cxr-batch", 0)) for answer in answers)
    assert together > 1  # they did share a batch


def test_health_metrics_and_description_need_no_model(service):
    open_ = httpx2.Client(base_url=service.client.base_url)
    assert open_.get("/health").status_code == 200
    service.send(png())
    text = open_.get("/metrics").text
    counted = {line.split()[0]: float(line.split()[1]) for line in text.splitlines() if line[0] != "#"}
    assert counted['hf_cxr_requests_total{status="200"}'] >= 1
    assert counted["hf_cxr_requests_in_progress"] == 0
    assert open_.get("/info").status_code == 401
    about = service.client.get("/info").json()["model"]
    assert about["findings"][0] == "Atelectasis"
    assert os.sep not in about["name"]
    paths = service.client.get("/openapi.json").json()["paths"]
    assert {"/predict", "/predict-file", "/health", "/metrics"} <= set(paths)
    assert service.client.get("/docs").status_code == 404  # its scripts would come from another host


def test_sigterm_stops_every_process(model, tmp_path):
    service = Service(model, tmp_path, "--host", "0.0.0.0", "--no_token").wait()
    deadline = time.monotonic() + 60
    while "ready on" not in service.log.read_text() and time.monotonic() < deadline:
        time.sleep(0.1)
    assert service.stop(signal.SIGTERM) in (0, 130)
    with pytest.raises(httpx2.TransportError):
        httpx2.get(f"http://127.0.0.1:{service.port}/health")
    log = service.log.read_text()
    assert f"ready on http://0.0.0.0:{service.port}" in log
    assert "everyone who reaches this machine can use the service" in log
    assert "Traceback" not in log


def test_a_killed_worker_is_replaced(model, tmp_path):
    service = Service(model, tmp_path).wait()
    assert service.send(png()).status_code == 200
    for child in psutil.Process(service.process.pid).children():
        if "spawn_main" in " ".join(child.cmdline()):
            child.kill()
    deadline, status = time.monotonic() + 90, None
    while status != 200 and time.monotonic() < deadline:
        time.sleep(1)
        try:
            status = service.send(png()).status_code
        except httpx2.TransportError:
            status = None
    assert status == 200
    assert service.stop() in (0, 130)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--port", "80"), "--port is 80"),
        (("--batch_size", "0"), "batch_size is 0"),
        (("--batch_wait", "40"), "less than timeout"),
        (("--host", "0.0.0.0"), "set HF_CXR_SERVE_TOKEN, or give --no_token"),
        (("--host", "::"), "set HF_CXR_SERVE_TOKEN, or give --no_token"),
    ],
)
def test_what_cannot_be_served_is_one_line(model, flags, message, capsys):
    assert main(["serve", str(model), *flags]) == 2
    assert message in capsys.readouterr().err


def test_a_token_and_no_token_are_one_line(model, capsys, monkeypatch):
    monkeypatch.setenv("HF_CXR_SERVE_TOKEN", TOKEN)
    assert main(["serve", str(model), "--no_token"]) == 2
    error = capsys.readouterr().err
    assert "HF_CXR_SERVE_TOKEN is set; leave out one" in error
    assert TOKEN not in error


def test_a_port_in_use_is_one_line(model, capsys):
    with socket.socket() as used:
        used.bind(("127.0.0.1", 0))
        used.listen()
        assert main(["serve", str(model), "--port", str(used.getsockname()[1])]) == 2
    assert "cannot listen on 127.0.0.1" in capsys.readouterr().err


def test_a_folder_without_a_model_is_one_line(tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    assert main(["serve", str(tmp_path / "empty")]) == 2
    assert "contains no saved model" in capsys.readouterr().err
