"""The routes of the service without its processes: what reaches the model, and what stays in memory."""

import queue
import tempfile
from types import SimpleNamespace

import numpy as np
import pytest
from starlette.formparsers import MultiPartParser
from starlette.responses import JSONResponse
from starlette.testclient import TestClient
from tiny import save_model

from hf_cxr.serving import server as serving
from hf_cxr.serving.server import Settings, build_server, describe_input_check, describe_model


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return save_model(tmp_path_factory.mktemp("model") / "mine")


@pytest.fixture
def client(model, monkeypatch):
    """A client of the app, whose worker answers with the size of what it got."""

    async def answer(self, upload, kind):
        return JSONResponse({"name": upload.name, "bytes": len(upload.content)})

    monkeypatch.setattr(serving.OneRequest, "handle_request", answer)
    server = build_server(Settings(str(model), device="cpu", max_megabytes=2))
    return TestClient(server.app, raise_server_exceptions=False)


def test_an_upload_over_a_megabyte_is_not_written_to_disk(client, monkeypatch):
    """Starlette's parser would; LitServe sets its limit so high that it does not."""

    def refuse(*_, **__):
        raise AssertionError("written to disk")

    monkeypatch.setattr(tempfile, "TemporaryFile", refuse)
    content = np.random.default_rng(0).bytes(1_800_000)
    assert client.post("/predict-file", files={"image": ("chest.png", content)}).json()["bytes"] == len(content)
    monkeypatch.setattr(MultiPartParser, "spool_max_size", 1024 * 1024)
    assert client.post("/predict-file", files={"image": ("chest.png", content)}).status_code != 200


def test_a_file_is_held_to_its_size_and_its_name_is_cut(client):
    assert client.post("/predict-file", files={"image": ("x.png", b"")}).status_code == 422
    assert client.post("/predict-file", files={"image": ("x.png", bytes(2_000_001))}).status_code == 413
    assert client.post("/predict-file", files={"image": ("x.png", bytes(2_000_000))}).status_code == 200
    long = client.post("/predict-file", files={"image": ("a" * 500 + ".png", b"x")}).json()
    assert (len(long["name"]), long["name"][-4:]) == (200, ".png")
    wrong = client.post("/predict-file", files={"file": ("x.png", b"the image")})
    assert wrong.status_code == 422
    assert "the image" not in wrong.text


def test_nothing_is_kept_of_a_request_that_is_given_up(model, monkeypatch):
    """LitServe itself, whose worker never answers."""
    monkeypatch.setattr(serving, "GRACE", 0.2)
    server = build_server(Settings(str(model), device="cpu", timeout=0.1, batch_wait=0))
    sent = queue.Queue()
    server.litapi_request_queues["/predict"], server.app.response_queue_id = sent, 0
    client = TestClient(server.app)
    for request in (
        lambda: client.post("/predict", json={"image": "aGVsbG8=", "name": "patient.png"}),
        lambda: client.post("/predict-file", files={"image": ("patient.png", b"hello")}),
    ):
        assert request().status_code == 504
        assert server.response_buffer == {}
    assert [payload.name for *_, payload in sent.queue] == ["patient.png"] * 2, "both did reach the queue"


def test_litserves_own_key_is_asked_for_at_both_routes(model, monkeypatch):
    monkeypatch.setattr("litserve.server.LIT_SERVER_API_KEY", "secret")
    client = TestClient(build_server(Settings(str(model), device="cpu")).app)
    files, body = {"image": ("a.png", b"x")}, {"image": "aGVsbG8="}
    for answer in (client.post("/predict", json=body), client.post("/predict-file", files=files)):
        assert answer.status_code in (401, 403)


def test_a_model_is_described_by_its_name_and_not_its_place(model):
    about = describe_model(Settings(str(model)), model)
    assert about["name"] == "mine"
    assert str(model.parent) not in str(about)
    assert len(about["sha256"]) == 64
    assert about["training"] == ["The model does not say what it was trained on."]
    assert about["input_check"] is None
    assert describe_model(Settings(str(model), name="chest 3"), model)["name"] == "chest 3"


def test_the_input_check_says_how_often_it_is_wrong():
    share = {"value": 0.02, "low": 0.01, "high": 0.04, "images": 500}
    measured = {"false_alarms": share, "kinds": {"m": share | {"title": "mirrored"}}}
    words = " ".join(describe_input_check(SimpleNamespace(target=0.01, measured=measured))["limits"])
    for part in ("2.0 % (1.0–4.0) of 500", "misses most of these: mirrored", "Lateral views"):
        assert part in words
    assert "was not measured" in str(describe_input_check(SimpleNamespace(target=0.01, measured=None))["limits"])


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"batch_size": 0}, "batch_size is 0"),
        ({"timeout": 0}, "timeout is 0"),
        ({"timeout": float("nan")}, "timeout is nan"),
        ({"batch_wait": -1}, "batch_wait is -1"),
        ({"token": " "}, "the token"),
        ({"token": "tökén"}, "the token"),
        ({"name": " "}, "name must be"),
    ],
)
def test_a_setting_out_of_range_is_named(values, message):
    with pytest.raises(ValueError, match=message):
        Settings("m", **values)
