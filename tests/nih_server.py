"""A release of ChestX-ray14 in four tables and two small archives, on a server of the loopback interface."""

import hashlib
import io
import os
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from file_server import FileServer
from huggingface_hub import constants
from test_nih import write_release

from hf_cxr.data import download
from hf_cxr.data.download import RemoteFile

ARCHIVE, LIST = "images_001.tar.gz", "test_list.txt"
QUICK = {"timeout": 0.4, "tries": 3, "backoff": 0.01}


def tar_gz(members: dict[str, bytes | tarfile.TarInfo]) -> bytes:
    """A packed archive: names to content, or to an entry without content."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for name, content in members.items():
            entry = content if isinstance(content, tarfile.TarInfo) else tarfile.TarInfo(name)
            entry.size = 0 if entry is content else len(content)
            tar.addfile(entry, None if entry is content else io.BytesIO(content))
    return buffer.getvalue()


def publish(monkeypatch: pytest.MonkeyPatch, files: dict[str, bytes]) -> None:
    """Make these the release, with size and checksum."""
    checksum = {name: "md5:" + hashlib.md5(content).hexdigest() for name, content in files.items()}
    table = [RemoteFile(name, "http://nowhere.invalid", len(files[name]), checksum[name]) for name in files]
    monkeypatch.setattr(download, "NIH_FILES", tuple(table))


@contextmanager
def published_release(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FileServer]:
    """The server; offline mode is off for the length of the test."""
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1,localhost")
    folder.mkdir()
    write_release(folder, folders=2)
    files = {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
    for number in (1, 2):
        images = (folder / f"images_{number:03d}/images").iterdir()
        packed = {f"images/{path.name}": path.read_bytes() for path in images}
        # Noise that does not compress, outside images/: the archive is long enough to be cut anywhere.
        files[f"images_{number:03d}.tar.gz"] = tar_gz(packed | {"note.txt": os.urandom(200_000)})
    publish(monkeypatch, files)
    with FileServer(files) as server:
        yield server
