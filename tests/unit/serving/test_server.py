"""The routes of the service without its processes: what reaches the model, and what stays in memory."""

import tempfile

import numpy as np
import pytest
from starlette.formparsers import MultiPartParser
from starlette.responses import JSONResponse
from starlette.testclient import TestClient
from tiny import save_model

from hf_cxr.serving import server as serving
from hf_cxr.serving.server import Settings, build_server, describe_model


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return save_model(tmp_path_factory.mktemp("model") / "mine")


@pytest.fixture
def client(model, monkeypatch):
    """A client of the app, whose worker answers with the size of what it got."""

    async def answer(self, upload, kind):
        return JSONResponse({"name": upload.name, "bytes": len(upload.content)})

    monkeypatch.setattr(serving.RegularRequestHandler, "handle_request", answer)
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


def test_a_model_is_described_by_its_name_and_not_its_place(model):
    about = describe_model(Settings(str(model)), model)
    assert about["name"] == "mine"
    assert str(model.parent) not in str(about)
    assert len(about["sha256"]) == 64


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"batch_size": 0}, "batch_size is 0"),
        ({"timeout": 0}, "timeout is 0"),
        ({"timeout": float("nan")}, "timeout is nan"),
        ({"batch_wait": -1}, "batch_wait is -1"),
        ({"token": " "}, "the token"),
        ({"token": "tökén"}, "the token"),
    ],
)
def test_a_setting_out_of_range_is_named(values, message):
    with pytest.raises(ValueError, match=message):
        Settings("m", **values)
