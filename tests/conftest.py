"""What every test gets: no network. And the ``hub`` fixture: a Hub on the loopback interface.

A test in ``test_*.py`` runs with HF_HUB_OFFLINE=1, set here before huggingface_hub is imported, because it reads its
environment at import. ``hub`` opens the way to the loopback server, and to nothing else, for the length of one test.
"""

import gc
import logging
import os
import signal
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # a process a core: the models of tests are too small for threads
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as a shell starts a job in the background; tests press Ctrl-C
    signal.signal(signal.SIGINT, signal.default_int_handler)
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"

import pytest
from hub_server import WRITE_TOKEN, HubServer, point_this_process_at


def pytest_collection(session):
    """Collection imports torch and all test modules: garbage collection finds nothing in that and costs seconds."""
    gc.disable()


def pytest_collection_finish(session):
    gc.freeze()  # what is imported stays, and is not scanned again
    gc.enable()


@pytest.fixture(scope="session")
def release() -> Path:
    """The NIH release, or a part of it, for tests on real data; they are skipped without one."""
    if "HF_CXR_NIH_ROOT" not in os.environ:
        pytest.skip("HF_CXR_NIH_ROOT is not set: no copy of the NIH release to read")
    return Path(os.environ["HF_CXR_NIH_ROOT"])


@pytest.fixture(scope="session")
def part(release, tmp_path_factory) -> Path:
    """Every twentieth patient of the release with all rows, and the folder of all images: what commands read fast."""
    root = tmp_path_factory.mktemp("part")
    for file in (file for file in release.iterdir() if file.is_file()):
        lines = file.read_text(encoding="utf-8").splitlines(keepends=True)
        kept = [line for line in lines if not line[:8].isdecimal() or int(line[:8]) % 20 == 0]
        (root / file.name).write_text("".join(kept), encoding="utf-8")
    (root / "images").symlink_to(release / "images")
    return root


@pytest.fixture(scope="session")
def finished(tmp_path_factory) -> tuple[Path, str]:
    """A tiny run, trained once a session and worker: its folder, beside the config tiny.yaml, and what was printed.

    A test that changes the folder works on a copy.
    """
    from test_run import train, write_config

    folder, printed, log = tmp_path_factory.mktemp("run"), StringIO(), logging.getLogger("hf_cxr")
    level = log.level
    log.setLevel(logging.INFO)  # a command sets it on the root logger, which is pytest's here
    with redirect_stdout(printed):
        status = train(write_config(folder), folder / "tiny", "--report_to", "tensorboard")
    log.setLevel(level)
    assert status == 0, printed.getvalue()
    return folder / "tiny", printed.getvalue()


@pytest.fixture
def hub(tmp_path_factory, monkeypatch):
    """A running ``HubServer`` that this process and its subprocesses take for the Hub, logged in with write access.

    Subprocesses see it through the environment: ``subprocess.run([sys.executable, "scripts/train.py", ...])`` as it
    is, or with ``env=os.environ | hub.environment(another_home, token=None)`` for a reader with a cache of its own.
    In this process, huggingface_hub and what asks it (``hf_cxr.hub``, ``from_pretrained``) see it too.

    ``hub.files("tester/name")`` is what was pushed, ``hub.requests`` what was asked, and ``hub.fail`` breaks things.
    """
    home = tmp_path_factory.mktemp("hf_home")
    with HubServer(tmp_path_factory.mktemp("hub")) as server:
        for name in (
            "HF_HUB_CACHE",
            "HUGGINGFACE_HUB_CACHE",
            "HF_TOKEN_PATH",
            "HF_OIDC_RESOURCE",
            "HF_DATASETS_CACHE",
        ):
            monkeypatch.delenv(name, raising=False)
        for name, value in server.environment(home, WRITE_TOKEN).items():
            monkeypatch.setenv(name, value)
        point_this_process_at(server, home, monkeypatch)
        yield server
