"""Pushing from processes of their own."""

import json
import os
import subprocess
import sys
import urllib.request
from pathlib import Path

import numpy as np
import pytest
from hub_runs import REPO, write_run
from hub_server import USER
from PIL import Image

from hf_cxr.hub import push_run
from hf_cxr.labels import NIH14


@pytest.fixture(scope="module")
def finished_run(tmp_path_factory) -> Path:
    return write_run(tmp_path_factory.mktemp("run"))


LOAD = """
import json, sys
from transformers import AutoImageProcessor, AutoModelForImageClassification, pipeline

repo, image = sys.argv[1:]
model = AutoModelForImageClassification.from_pretrained(repo)
AutoImageProcessor.from_pretrained(repo)
scores = pipeline("image-classification", model=repo)(image, top_k=14)
print(json.dumps({"class": type(model).__name__, "problem": model.config.problem_type, "scores": scores}))
"""


def direct_scores(run: Path, path: Path) -> dict[str, float]:
    """The 14 probabilities by hand: grey to RGB, bicubic to 36, centre 32, normalise, model, sigmoid."""
    import torch
    from transformers import SwinForImageClassification

    model = SwinForImageClassification.from_pretrained(run).eval()
    image = Image.open(path).convert("RGB").resize((36, 36), Image.Resampling.BICUBIC).crop((2, 2, 34, 34))
    pixels_HWC = np.asarray(image, dtype=np.float32) / 255
    pixels_HWC = (pixels_HWC - np.float32([0.485, 0.456, 0.406])) / np.float32([0.229, 0.224, 0.225])
    with torch.no_grad():
        logit_C = model(torch.from_numpy(pixels_HWC.transpose(2, 0, 1)[None])).logits[0]
    return dict(zip(NIH14, torch.sigmoid(logit_C).tolist(), strict=True))


def test_pushed_model_loads_elsewhere_and_gives_the_same_scores(hub, finished_run, tmp_path):
    push_run(finished_run, REPO, private=False)
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 256, (50, 44), dtype=np.uint8)).save(tmp_path / "x.png")
    hub.requests.clear()
    home = tmp_path / "another_home"
    done = subprocess.run(
        [sys.executable, "-c", LOAD, REPO, tmp_path / "x.png"],
        env={name: value for name, value in os.environ.items() if name != "HF_TOKEN"} | hub.environment(home, None),
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    loaded = json.loads(done.stdout.splitlines()[-1])
    assert (loaded["class"], loaded["problem"]) == ("SwinForImageClassification", "multi_label_classification")
    got = {row["label"]: row["score"] for row in loaded["scores"]}
    expected = direct_scores(finished_run, tmp_path / "x.png")
    assert set(got) == set(NIH14)
    assert got == pytest.approx(expected, abs=1e-5)
    assert max(expected.values()) - min(expected.values()) > 0.01  # the comparison can fail
    assert sum(expected.values()) > 1.5  # 14 sigmoids, not a softmax
    assert len(hub.calls("GET", "/cdn/")) == 1  # the weights came from this server, once
    assert any(home.rglob("model.safetensors"))
    assert all("authorization" not in request.headers for request in hub.requests)  # a public repository


def test_server_runs_by_hand():
    command = [sys.executable, Path(__file__).parents[1] / "hub_server.py"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        try:
            exports = {}
            while (line := server.stdout.readline()).startswith("export "):
                name, value = line.removeprefix("export ").strip().split("=", 1)
                exports[name] = value
            request = urllib.request.Request(f"{exports['HF_ENDPOINT']}/api/whoami-v2")
            request.add_header("Authorization", f"Bearer {exports['HF_TOKEN']}")
            opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
            assert json.load(opener.open(request, timeout=10))["name"] == USER
        finally:
            server.terminate()
