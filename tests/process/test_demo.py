"""The demo as a reader uses it, in a browser: uploads, bars, heat maps, errors; light and dark, phone and desktop.

Besides: nothing of an image is left on the disk, no request and no connection leaves this machine, and a closed page
is forgotten. Skipped where there is no Chromium (Debian: apt-get install chromium), Playwright or Gradio.
"""

import base64
import http.client
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from browsers import CHROMIUM, needs_browser
from demo_models import dicom, phantom, photograph, png, png_of_16_bits, save_demo_model
from hub_runs import write_run
from PIL import Image

ROOT = Path(__file__).parents[2]
SIZES = {"desktop": (1280, 900), "phone": (390, 844)}

# Whoever connects to another machine, or asks for its address, is written down and refused.
NO_NETWORK = """
import os, socket
connect, lookup = socket.socket.connect, socket.getaddrinfo
def check(host):
    if isinstance(host, (str, bytes)) and str(host) not in ("127.0.0.1", "localhost", "::1", "0.0.0.0"):
        with open(os.environ["REACHED"], "a") as file:
            file.write(f"{host}\\n")
        raise OSError("no network in this test")
def connect_here(self, address):
    if self.family in (socket.AF_INET, socket.AF_INET6):
        check(address[0])
    return connect(self, address)
def look_up_here(host, *args, **kwargs):
    if host is not None:
        check(host)
    return lookup(host, *args, **kwargs)
socket.socket.connect, socket.getaddrinfo = connect_here, look_up_here
"""


# Nothing listens there, so whoever asks a proxy for this machine itself fails.
DEAD_PROXY = dict.fromkeys(("HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "ALL_PROXY"), "http://127.0.0.1:9")


def start(words, folder: Path, cwd: Path, **environment) -> SimpleNamespace:
    """A demo in a process of its own, whose every folder is below ``folder``."""
    for name in ("tmp", "home", "patched"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    (folder / "patched" / "sitecustomize.py").write_text(NO_NETWORK)
    settings = {
        "PYTHONPATH": os.pathsep.join([str(folder / "patched"), str(ROOT)]),
        "TMPDIR": str(folder / "tmp"),
        "HOME": str(folder / "home"),
        "REACHED": str(folder / "reached.txt"),
        "HF_HUB_OFFLINE": "1",
        "PYTHONUNBUFFERED": "1",
        **DEAD_PROXY,
    }
    kept = {key: value for key, value in os.environ.items() if key in ("PATH", "LANG", "SystemRoot")}
    process = subprocess.Popen(
        [sys.executable, *words],
        cwd=cwd,
        env=kept | settings | environment,
        stdout=subprocess.PIPE,
        stderr=(folder / "stderr.txt").open("w"),
        text=True,
    )
    return SimpleNamespace(process=process, folder=folder)


def free_port() -> int:
    import socket

    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def wait_for(condition, what: str, seconds: float = 60.0):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if value := condition():
            return value
        time.sleep(0.05)
    raise AssertionError(f"{what} did not happen in {seconds} s")


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    return save_demo_model(tmp_path_factory.mktemp("models") / "phantom_model")


@pytest.fixture(scope="module")
def demo(model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("demo")
    words = [str(ROOT / "scripts" / "demo.py"), str(model), "--port", str(free_port())]
    (folder / "work").mkdir()
    one = start([*words, "--max_megabytes", "1", "--max_megapixels", "0.5"], folder, folder / "work")
    lines = []
    while not lines or not lines[-1].startswith("open "):
        lines.append(one.process.stdout.readline())
        assert lines[-1], (folder / "stderr.txt").read_text()
    one.lines, one.address = lines, re.search(r"http://[\d.]+:\d+", lines[-1])[0]
    yield one
    if one.process.poll() is None:
        one.process.kill()
        one.process.wait()


@pytest.fixture(scope="module")
def browser():
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        one = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        yield one
        one.close()


@pytest.fixture
def page_of(browser, demo):
    """A function that opens the demo; what its pages asked of other hosts, or complained about, fails the test."""
    contexts, asked, complaints = [], [], []

    def opened(size="desktop", scheme="light"):
        width, height = SIZES[size]
        context = browser.new_context(color_scheme=scheme, viewport={"width": width, "height": height})
        contexts.append(context)
        page = context.new_page()
        page.on("request", lambda request: asked.append(request.url))
        page.on("console", lambda line: complaints.append(line.text) if line.type == "error" else None)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.goto(demo.address)
        page.wait_for_selector(".cxr-drop")
        return page

    yield opened
    for context in contexts:
        context.close()
    assert len(asked) > 5
    assert [url for url in asked if not url.startswith((demo.address, "data:", "blob:"))] == []
    assert complaints == []


def give(page, content: bytes, name: str, *, error: bool = False) -> None:
    """Upload a file and wait for what the page says of it."""
    last = page.locator(".cxr-error").get_attribute("data-at") if page.locator(".cxr-error").count() else None
    page.set_input_files("input[type=file]", {"name": name, "mimeType": "", "buffer": content})
    if error:
        page.wait_for_selector(f".cxr-error:not([data-at='{last}'])")
        page.wait_for_selector(".cxr-findings", state="detached")
    else:
        page.wait_for_selector(f".cxr-picture figcaption:has-text('{name}')")
        page.wait_for_selector(f".cxr-findings[aria-label='Findings of {name}']")


def bars(page) -> list[tuple[str, str, str]]:
    """The findings as a reader sees them: name, number, words."""
    return page.evaluate(
        """() => [...document.querySelectorAll('.cxr-findings li')].map((row) => [
             row.querySelector('button').dataset.finding,
             row.querySelector('.cxr-number').textContent,
             row.querySelector('.cxr-words').textContent])"""
    )


def expected_bars(result) -> list[list[str]]:
    """What the page has to show of a result, written down a second time."""
    rows = []
    for finding in sorted(result.findings, key=lambda one: -one.probability):
        threshold = "no threshold"
        if finding.threshold is not None:
            threshold = f"{'at or above' if finding.called else 'below'} its threshold, {finding.threshold:.3f}"
        usual = {
            ("present",): "higher than usual without it",
            ("absent",): "lower than usual with it",
            ("present", "absent"): "usual with it and without it",
            (): "unusual with it and without it",
        }
        words = f"{threshold} · {usual[finding.label_set]}"
        number = f"{finding.probability:.3f}" if finding.probability >= 0.0005 else "<0.001"
        rows.append([finding.name, number, words])
    return rows


@needs_browser()
def test_bars_are_the_numbers_of_predict_for_a_png_and_a_dicom(page_of, model):
    from hf_cxr.inference.classifier import Classifier

    classifier, page, seen = Classifier(model), page_of(), []
    for content, name in ((png(), "chest.png"), (dicom(), "chest.dcm"), (png_of_16_bits(), "deep.png")):
        give(page, content, name)
        expected = classifier.predict(content, name=name)
        seen.append(bars(page))
        assert seen[-1] == expected_bars(expected)
        assert name in page.inner_text(".cxr-picture figcaption")
        called = sum(bool(finding.called) for finding in expected.findings)
        assert page.inner_text(".cxr-summary").startswith(f"{called} of 13 findings")
        assert page.locator(".cxr-chip").count() == called
    assert seen[0] != seen[1] != seen[2]
    assert {"no threshold" in words for *_, words in seen[0]} == {True, False}
    assert "not checked" in page.inner_text(".cxr-viewer")


@needs_browser()
def test_a_finding_is_chosen_for_its_heat_map_and_chosen_again_to_leave_it(page_of):
    page = page_of()
    page.click("button[data-example='1']")
    page.wait_for_selector(".cxr-picture img")
    assert "not a patient" in page.inner_text(".cxr-viewer")
    plain, shown = page.get_attribute(".cxr-picture img", "src"), []
    for finding in [row[0] for row in bars(page)][:2]:
        page.click(f"button[data-finding='{finding}']")
        page.wait_for_selector(f"[data-map='{finding}']")
        assert page.get_attribute(f"button[data-finding='{finding}']", "aria-pressed") == "true"
        assert "not that the finding is there" in page.inner_text(".cxr-picture figcaption")
        shown.append(page.get_attribute(".cxr-picture img", "src"))
    assert len({plain, *shown}) == 3
    page.click("button[data-back]")
    page.wait_for_selector("[data-map]", state="detached")
    assert page.get_attribute(".cxr-picture img", "src") == plain


ERRORS = {
    "notes.txt": (b"hello", "Cannot read notes.txt"),
    "<img src=x onerror=alert(1)>.png": (png()[:2000], "Cannot read <img src=x onerror=alert(1)>.png"),
    "cut.dcm": (dicom()[:400], "cut.dcm"),
    "empty.png": (b"", "empty.png is empty"),
    "large.png": (bytes(1_000_001), "large.png is larger than 1 MB"),
    "wide.png": (png(720), "720 x 720 pixels; this page takes at most 0.5 million"),
}


@needs_browser()
def test_what_cannot_be_read_is_one_line_and_the_page_lives(page_of):
    page = page_of()
    for name, (content, words) in ERRORS.items():
        give(page, content, name, error=True)
        line = page.inner_text(".cxr-error")
        assert words in line
        assert "\n" not in line.strip()
    assert page.locator("img[src='x']").count() == 0
    give(page, photograph(), "photo.jpg")
    assert "The image has colours" in page.inner_text(".cxr-viewer")
    assert len(bars(page)) == 14


@needs_browser()
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", SIZES)
def test_it_fits_a_phone_and_a_desktop_in_light_and_dark(page_of, size, scheme, tmp_path):
    page = page_of(size, scheme)
    banner = page.locator(".cxr-banner")
    assert banner.inner_text() == "Not a medical device. For research."
    assert banner.bounding_box()["y"] < 80
    give(page, png(), "chest.png")
    page.click(".cxr-findings button >> nth=0")
    page.wait_for_selector("[data-map]")
    page.screenshot(path=tmp_path / f"{size}_{scheme}.png", full_page=True)
    width = SIZES[size][0]
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    boxes = [page.locator(name).bounding_box() for name in (".cxr-drop", ".cxr-picture", ".cxr-findings")]
    assert all(box["x"] >= 0 and box["x"] + box["width"] <= width for box in boxes)
    assert (boxes[2]["y"] > boxes[1]["y"] + boxes[1]["height"]) == (size == "phone"), "one column on a phone"
    ink, ground = (
        np.mean([int(part) for part in re.findall(r"\d+", page.evaluate(f"getComputedStyle({what})"))[:3]])
        for what in (
            "document.querySelector('.cxr-name')).getPropertyValue('color'",
            "document.querySelector('.cxr-findings button')).getPropertyValue('background-color'",
        )
    )
    assert abs(ink - ground) > 150
    assert (ground > 200) == (scheme == "light")


def post(address: str, path: str, body: bytes, **headers) -> int:
    connection = http.client.HTTPConnection(address.removeprefix("http://"), timeout=30)
    connection.request("POST", path, body, headers)
    return connection.getresponse().status


def holders(folder: Path, needles: list[bytes]) -> list[str]:
    """The files below a folder that have one of some bytes."""
    found = []
    for path in folder.rglob("*"):
        if path.is_file() and not path.is_symlink():
            content = path.read_bytes()
            found += [str(path)] * any(needle in content for needle in needles)
    return found


@needs_browser()
def test_nothing_of_an_image_is_left_on_the_disk_and_nothing_reaches_another_host(page_of, demo):
    files = {"secret_patient.png": png(210), "secret_patient.dcm": dicom(160), "secret_cut.png": png(220)[:-500]}
    page = page_of()
    for name, content in files.items():
        give(page, content, name, error="cut" in name)
    give(page, files["secret_patient.png"], "secret_patient.png")
    page.click(".cxr-findings button >> nth=0")
    page.wait_for_selector("[data-map]")
    disposition = b'Content-Disposition: form-data; name="files"; filename="secret_patient.png"'
    multipart = b"\r\n".join((b"--x", disposition, b"", b"secret_patient", b"--x--"))
    for path in ("/gradio_api/upload", "/upload"):
        assert post(demo.address, path, multipart, **{"Content-Type": "multipart/form-data; boundary=x"}) == 403
    assert post(demo.address, "/gradio_api/queue/join", bytes(2_000_000)) == 413
    needles = [b"secret_", b"Secret^Patient", phantom(160)[80].tobytes()]
    for content in files.values():
        middle = len(content) // 2 // 3 * 3
        part = content[middle : middle + 48]
        needles += [part, base64.b64encode(part)]
    assert holders(demo.folder, needles) == []
    (demo.folder / "work" / "control").write_bytes(b"..." + files["secret_patient.dcm"])
    assert holders(demo.folder, needles) == [str(demo.folder / "work" / "control")], "the search finds what is there"
    (demo.folder / "work" / "control").unlink()
    assert not (demo.folder / "reached.txt").exists(), "a host that the server tried to reach"


@needs_browser()
def test_ctrl_c_ends_it_and_leaves_no_file(demo, browser):
    assert demo.lines[0] == "Not a medical device. For research.\n"
    assert post(demo.address, "/gradio_api/upload", b"") == 403  # it still runs after all the tests above
    demo.process.send_signal(signal.SIGINT)
    assert demo.process.wait(timeout=60) == 0
    assert list((demo.folder / "tmp").iterdir()) == []
    assert list((demo.folder / "work").iterdir()) == []
    assert (demo.folder / "stderr.txt").read_text() == ""


def test_a_password_is_asked_for_and_a_space_runs_as_its_server_runs_it(tmp_path):
    from hf_cxr.demo.space import export_space

    run = write_run(tmp_path / "run")
    export_space(run, tmp_path / "space")
    shutil.rmtree(run)
    port = free_port()
    settings = {"GRADIO_SERVER_PORT": str(port), "GRADIO_SERVER_NAME": "127.0.0.1", "HF_CXR_DEMO_AUTH": "ann:secret"}
    space = start(["app.py"], tmp_path / "machine", tmp_path / "space", **settings)
    try:

        def answers():
            assert space.process.poll() is None, (space.folder / "stderr.txt").read_text()
            try:
                connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
                connection.request("GET", "/config")
                return connection.getresponse().status
            except OSError:
                return None

        assert wait_for(answers, "an answer") == 401
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
        form = {"Content-Type": "application/x-www-form-urlencoded"}
        connection.request("POST", "/login", "username=ann&password=secret", form)
        answer = connection.getresponse()
        answer.read()
        cookie = "; ".join(line.split(";")[0] for line in answer.headers.get_all("set-cookie"))
        connection.request("GET", "/config", headers={"Cookie": cookie})
        page = connection.getresponse().read().decode()
        assert "Not a medical device. For research." in page
        assert "Give a chest radiograph" in page
        assert not (space.folder / "reached.txt").exists()
    finally:
        space.process.send_signal(signal.SIGINT)
        space.process.wait(timeout=60)


def test_a_closed_page_is_forgotten(model, monkeypatch, tmp_path):
    from hf_cxr.demo.limits import Limits
    from hf_cxr.demo.show import page_of, quiet_gradio

    for name in ("GRADIO_ANALYTICS_ENABLED", "HF_HUB_DISABLE_TELEMETRY", "GRADIO_TEMP_DIR"):
        monkeypatch.setenv(name, "")  # put back afterwards
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    quiet_gradio()
    from hf_cxr.demo.about import PageFacts
    from hf_cxr.demo.app import build_page, serve
    from hf_cxr.demo.memory import Memory
    from hf_cxr.demo.session import Session
    from hf_cxr.inference.classifier import Classifier

    session, memory = Session(Classifier(model)), Memory(600, 5)
    page_of(model, limits=Limits(megapixels=0.2))
    assert Image.MAX_IMAGE_PIXELS == 200_000, "Pillow's own limit is the page's"
    page = build_page(session, PageFacts.of(session.classifier, model), memory)
    address = serve(page, session.limits, port=free_port(), wait=False).removeprefix("http://").rstrip("/")
    try:
        call = next(number for number, one in page.fns.items() if one.name == "on_give")
        heartbeat = http.client.HTTPConnection(address, timeout=30)
        heartbeat.request("GET", "/gradio_api/heartbeat/reader")
        heartbeat.getresponse()
        content = base64.b64encode(png()).decode()
        body = {
            "data": [],
            "fn_index": call,
            "session_hash": "reader",
            "event_data": {"name": "a.png", "content": content},
        }
        assert (
            post(address, "/gradio_api/queue/join", json.dumps(body).encode(), **{"Content-Type": "application/json"})
            == 200
        )
        wait_for(lambda: len(memory) == 1, "a look at the image")
        assert "reader" in page.app.state_holder.session_data
        heartbeat.sock.close()
        heartbeat.close()
        wait_for(lambda: len(memory) == 0, "forgetting")
        wait_for(lambda: "reader" not in page.app.state_holder.session_data, "forgetting the page")
    finally:
        page.close(verbose=False)
