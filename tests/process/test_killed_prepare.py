"""A preparation that is killed, and run again."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from prepared_folders import content

from hf_cxr.data import prepare as module
from hf_cxr.data.sources.prepared import load_prepared, read_manifest


@pytest.fixture(autouse=True)
def _small_shards(monkeypatch):
    monkeypatch.setattr(module, "SHARD_BYTES", 6 * (32**2 + 512))  # six images a shard: 4 + 1 + 1 shards


def kill_while_preparing(root, out, after):
    """Prepare 200 phantoms in another process and kill it, without warning, once it has finished some shards."""
    code = (
        "from hf_cxr.data import prepare; prepare.SHARD_BYTES = 10 * (64**2 + 512)\n"
        "from hf_cxr.data.sources.phantom import load_phantom\n"
        "from hf_cxr.labels import NIH14\n"
        f"splits = load_phantom(train=160, validation=20, test=20, size=128)\n"
        "source = prepare.Source(splits, NIH14, 'phantoms', synthetic=True)\n"
        f"prepare.prepare(source, {str(out)!r}, prepare.Recipe(64, 3))\n"
    )
    process = subprocess.Popen([sys.executable, "-c", code], cwd=root, stderr=subprocess.DEVNULL)
    if after is None:
        assert process.wait(timeout=120) == 0
        return
    while process.poll() is None:
        if (out / "shards.jsonl").exists() and len((out / "shards.jsonl").read_text().splitlines()) >= after:
            process.send_signal(signal.SIGKILL)
        time.sleep(0.002)
    assert process.returncode == -signal.SIGKILL, "it ended before it could be killed"


def test_killed_and_run_again_it_is_whole(tmp_path):
    root = Path(__file__).parents[2]
    kill_while_preparing(root, tmp_path / "out", after=3)
    with pytest.raises(FileNotFoundError, match="was not prepared completely"):
        load_prepared(tmp_path / "out")
    finished = len((tmp_path / "out" / "shards.jsonl").read_text().splitlines())
    kill_while_preparing(root, tmp_path / "out", after=None)
    kill_while_preparing(root, tmp_path / "straight", after=None)
    assert content(tmp_path / "out") == content(tmp_path / "straight")
    assert read_manifest(tmp_path / "out")["decoded"] == 200 - 10 * finished


SLOW_WORKERS = """
import sys, time
from hf_cxr.data import load_phantom, prepare
from hf_cxr.data.images import decoding
from hf_cxr.labels import NIH14

real = decoding.decode_batch

def slow(batch, recipe):
    time.sleep(0.2)
    return real(batch, recipe)

if __name__ == "__main__":
    decoding.decode_batch, prepare.BATCH = slow, 1
    splits = load_phantom(train=1000, validation=4, test=4, size=32)
    source = prepare.Source(splits, NIH14, "phantoms", synthetic=True)
    try:
        prepare.prepare(source, sys.argv[1], prepare.Recipe(32, 3), workers=2)
    except KeyboardInterrupt:
        sys.exit(130)
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_decoding_processes_end_with_the_main_process(tmp_path, number):
    """Ctrl-C reaches them too, as in a terminal: it is the main process that answers it."""
    (tmp_path / "slow.py").write_text(SLOW_WORKERS)
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    line = [sys.executable, "slow.py", "out"]
    with (tmp_path / "errors").open("w") as errors:
        main = subprocess.Popen(line, cwd=tmp_path, stderr=errors, env=environment, start_new_session=True)
    deadline = time.monotonic() + 120
    while "1/1008" not in (tmp_path / "errors").read_text() and time.monotonic() < deadline:
        assert main.poll() is None, (tmp_path / "errors").read_text()
        time.sleep(0.05)
    workers = psutil.Process(main.pid).children(recursive=True)
    assert len(workers) >= 2
    os.killpg(main.pid, number) if number == signal.SIGINT else main.send_signal(number)
    assert main.wait(60) == (130 if number == signal.SIGINT else -number)
    assert not psutil.wait_procs(workers, timeout=60)[1]
    assert "Traceback" not in (tmp_path / "errors").read_text()
