"""An export in JavaScript: the page in a browser, and transformers.js under Node, give Python's probabilities.

Both need npm packages, which no Python package brings. In any folder:

    npm install onnxruntime-web@1.30.0 @huggingface/transformers@4.3.1
    HF_CXR_NODE_MODULES=$PWD/node_modules python -m pytest tests/process/test_export_javascript.py
"""

import io
import json
import shutil
import subprocess
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import tiny
from browsers import CHROMIUM, MODULES, needs, needs_browser, needs_package
from PIL import Image

from hf_cxr.commands import run_command
from hf_cxr.exported_files import PAGE
from hf_cxr.inference.classifier import Classifier

WEB = MODULES / "onnxruntime-web"
needs_web = needs_package("onnxruntime-web")

# transformers.js on a folder of this machine; `images` is what `model_preprocessing.onnx` takes.
SCRIPT = """
import { AutoModel, AutoModelForImageClassification, AutoProcessor, RawImage, Tensor, env, pipeline }
  from "@huggingface/transformers";
const [folder, name, file, resized] = process.argv.slice(2);
env.allowRemoteModels = false;
env.localModelPath = folder;
const whole = await AutoModel.from_pretrained(name, { model_file_name: "model_preprocessing", dtype: "fp32" });
const image = (await RawImage.read(file)).grayscale();
const images = new Tensor("uint8", new Uint8Array(image.data), [1, image.height, image.width]);
const processor = await AutoProcessor.from_pretrained(name);
const model = await AutoModelForImageClassification.from_pretrained(name, { dtype: "fp32" });
const { logits } = await model(await processor(await RawImage.read(resized)));
const classify = await pipeline("image-classification", name, { dtype: "fp32" });
const scores = await classify(resized, { top_k: 100 });
console.log(JSON.stringify({
  whole: (await whole({ images })).probabilities.tolist()[0],
  resized: logits.sigmoid().tolist()[0],
  pipeline: scores.reduce((sum, one) => sum + one.score, 0),
}));
"""


# Two files, the second while the first is read; gives what the status line said meanwhile.
DROP_TWO = """
(bytes) => {
  const status = document.getElementById("status"), said = [];
  for (const name of ["first.png", "second.png"]) {
    const dataTransfer = new DataTransfer();
    dataTransfer.items.add(new File([new Uint8Array(bytes)], name));
    window.dispatchEvent(new DragEvent("drop", { dataTransfer }));
    said.push(status.textContent);
  }
  return said;
}
"""


@pytest.fixture(scope="module")
def exported(tmp_path_factory) -> Path:
    """A folder with a model in run/, its export with a page, and images: one of any size, one that is resized."""
    folder = tmp_path_factory.mktemp("javascript")
    tiny.save_model(folder / "run", spread=2.0)
    y, x = np.mgrid[:90, :75]
    grey_HW = (127 + 120 * np.sin(x / 7) * np.cos(y / 11)).astype(np.uint8)
    Image.fromarray(grey_HW).save(folder / "image.png")
    Image.fromarray(grey_HW).resize((36, 36), Image.Resampling.BICUBIC).save(folder / "resized.png")
    for name, image in refused(grey_HW).items():
        (folder / name).write_bytes(image)
    words = ["--page", "--onnxruntime_web", WEB, "--images", folder / "image.png"]
    assert run_command("export", [str(word) for word in (folder / "run", *words)]) == 0
    return folder


def refused(grey_HW: np.ndarray) -> dict[str, bytes]:
    """Files that a browser would read otherwise than Python, by their names."""
    grey = Image.fromarray(grey_HW)
    clear = grey.convert("RGBA")
    clear.putpixel((3, 3), (90, 90, 90, 254))
    twice = {"save_all": True, "append_images": [Image.fromarray(255 - grey_HW)]}
    return {
        "deep.png": encoded(Image.fromarray(grey_HW.astype(np.uint16) * 257), "PNG"),
        "clear.png": encoded(clear, "PNG"),
        "clear.webp": encoded(clear, "WEBP", lossless=True),
        "moving.png": encoded(grey, "PNG", **twice),
        "moving.webp": encoded(grey, "WEBP", **twice),
        "other.gif": encoded(grey, "GIF"),
        "gif.png": encoded(grey, "GIF"),
        "text.png": b"not an image at all",
    }


def encoded(image: Image.Image, kind: str, **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


REASONS = {
    "deep.png": "16 bits per channel",
    "clear.png": "transparent pixels",
    "clear.webp": "transparent pixels",
    "moving.png": "an animation",
    "moving.webp": "an animation",
    "other.gif": "this file is none of them",
    "gif.png": "this file is none of them",
    "text.png": "this file is none of them",
}


def expected(exported: Path, name: str) -> dict[str, float]:
    return Classifier(exported / "run", device="cpu").predict(exported / name).probabilities


@needs_web
@needs_browser()
def test_the_page_gives_the_models_probabilities_and_asks_for_nothing_else(exported):
    from playwright.sync_api import expect, sync_playwright

    asked = []

    class Handler(SimpleHTTPRequestHandler):
        def log_message(self, *_):
            asked.append(self.requestline)

    page_folder = exported / "run" / "export" / PAGE
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=page_folder))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(
                executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu", "--disable-quic"]
            )
            page = browser.new_page()
            wanted, errors = [], []
            page.on("request", lambda request: wanted.append((request.method, request.url)))
            page.on("pageerror", lambda error: errors.append(str(error)))
            page.goto(f"http://127.0.0.1:{server.server_port}/")
            expect(page.locator("#status")).to_have_text("Ready.", timeout=60_000)
            loaded = len(wanted)
            page.set_input_files("#file", exported / "image.png")
            expect(page.locator("#name")).to_contain_text("image.png, 75 × 90 pixels", timeout=60_000)
            rows = page.locator("#bars li").all()
            found = {row.get_attribute("data-finding"): float(row.get_attribute("data-probability")) for row in rows}
            assert found == pytest.approx(expected(exported, "image.png"), abs=1e-3)
            expect(page.locator("#warning")).to_contain_text("Not a medical device")
            for name, reason in REASONS.items():
                page.set_input_files("#file", exported / name)
                expect(page.locator("#status")).to_contain_text(f"{name}: ", timeout=60_000)
                expect(page.locator("#status")).to_contain_text(reason)
                expect(page.locator("#result")).to_be_hidden()
            assert page.input_value("#file") == "", "the same file can be chosen again"
            said = page.evaluate(DROP_TWO, list((exported / "image.png").read_bytes()))
            assert [line for line in said if "second.png is next" in line]
            expect(page.locator("#name")).to_contain_text("second.png, 75 × 90 pixels", timeout=60_000)
            expect(page.locator("#limits")).to_contain_text("does not say what it was trained on")
            for kind in ("jpg", "webp", "bmp"):
                Image.open(exported / "image.png").save(exported / f"image.{kind}")
                page.set_input_files("#file", exported / f"image.{kind}")
                expect(page.locator("#name")).to_contain_text(f"image.{kind}, 75 × 90 pixels", timeout=60_000)
            browser.close()
    finally:
        server.shutdown()
    assert errors == []
    assert len(wanted) == loaded  # an image causes no request
    assert all(method == "GET" and f":{server.server_port}/" in url for method, url in wanted)


@needs_web
@needs(shutil.which("node"), "needs Node: apt-get install nodejs npm")
@needs_package("@huggingface/transformers")
def test_transformers_js_gives_the_models_probabilities(exported):
    script = exported / "script.mjs"
    script.write_text(SCRIPT, encoding="utf-8")
    (exported / "node_modules").symlink_to(MODULES)
    words = ["node", script, exported / "run", "export", exported / "image.png", exported / "resized.png"]
    done = subprocess.run(list(map(str, words)), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    for key, image, tolerance in (("whole", "image.png", 1e-3), ("resized", "resized.png", 1e-4)):
        assert found[key] == pytest.approx(list(expected(exported, image).values()), abs=tolerance)
    # docs/exporting.md warns of it: its pipeline gives a softmax. Where this fails, change the page.
    assert found["pipeline"] == pytest.approx(1.0, abs=1e-4)
