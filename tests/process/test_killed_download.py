"""A download or an unpacking that is killed, and run again."""

import os
import signal
import subprocess
import sys
import time

import pytest
from nih_server import ARCHIVE, QUICK, published_release

from hf_cxr.data import download
from hf_cxr.data.download import DownloadError, download_nih


@pytest.fixture
def release(tmp_path, monkeypatch):
    with published_release(tmp_path / "published", monkeypatch) as server:
        yield server


def test_killed_in_mid_download(release, tmp_path):
    root, size = tmp_path / "nih", 120_000
    release.plan[ARCHIVE] = [("stall", size)]
    file = next(file for file in download.NIH_FILES if file.name == ARCHIVE)
    code = (
        "from hf_cxr.data import download; from hf_cxr.data.download import RemoteFile;"
        f"download.NIH_FILES = ({file!r},); download.download_nih({str(root)!r}, mirror={release.url!r})"
    )
    process = subprocess.Popen([sys.executable, "-c", code], env=os.environ | {"HF_HUB_OFFLINE": "0"})
    part = root / f"{ARCHIVE}.part"
    try:
        deadline = time.monotonic() + 60
        while not (part.exists() and part.stat().st_size == size) and time.monotonic() < deadline:
            assert process.poll() is None
            time.sleep(0.02)
        with pytest.raises(DownloadError, match=r"another download into .* is running"):
            download_nih(root, mirror=release.url, only=[ARCHIVE], **QUICK)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert part.stat().st_size == size
    assert download_nih(root, mirror=release.url, only=[ARCHIVE], **QUICK) == [ARCHIVE]
    assert release.ranges(ARCHIVE) == [None, f"bytes={size}-"]
    assert release.asked[-1].if_range is not None
    assert len(list((root / "images_001/images").iterdir())) == 4


KILLED = """
import os, signal
from hf_cxr.data import archives, download
from hf_cxr.data.download import RemoteFile

real, written = archives._write_image, []

def write(content, path):
    written.append(path)
    if len(written) == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    real(content, path)

archives._write_image = write
"""


def test_killed_in_mid_unpacking(release, tmp_path):
    """What was unpacked goes, what was downloaded stays: the second run asks the server for nothing."""
    root = tmp_path / "nih"
    file = next(file for file in download.NIH_FILES if file.name == ARCHIVE)
    code = f"{KILLED}\ndownload.NIH_FILES = ({file!r},)\ndownload.download_nih({str(root)!r}, mirror={release.url!r})"
    done = subprocess.run([sys.executable, "-c", code], env=os.environ | {"HF_HUB_OFFLINE": "0"}, check=False)
    assert done.returncode == -signal.SIGKILL
    assert len(list((root / ".images_001.unpacking/images").iterdir())) == 2
    assert not (root / "images_001").exists()
    assert download_nih(root, mirror=release.url, only=[ARCHIVE], **QUICK) == [ARCHIVE]
    assert len(release.asked) == 1
    assert {path.name for path in root.iterdir() if path.suffix != ".lock"} == {"images_001"}
    assert len(list((root / "images_001/images").iterdir())) == 4
