"""Prepared folders: killed at several moments, and two processes at once."""

import os
import subprocess
import sys
from pathlib import Path

from hf_cxr.data.sources.prepared import load_prepared

CALL = """
import sys, time
from pathlib import Path
from hf_cxr.data import load_phantom
from hf_cxr.data.manifest import Recipe
from hf_cxr.data.prepare import prepare
from hf_cxr.data.sources import Source
from hf_cxr.labels import NIH14

out, side, go = sys.argv[1:]
splits = load_phantom(train=20, validation=4, test=4, size=64)
print("ready", flush=True)
while not Path(go).exists():
    time.sleep(0.001)
try:
    prepare(Source(splits, NIH14, "phantoms", synthetic=True), out, Recipe(int(side), 3))
except ValueError as error:
    sys.exit(str(error))
"""


def test_two_calls_at_once_give_the_folder_of_one(tmp_path):
    """Started together into a folder that does not exist: the first wins, the second is refused in one line."""
    out, go = tmp_path / "deep" / "out", tmp_path / "go"
    runs = [
        subprocess.Popen(
            [sys.executable, "-c", CALL, str(out), str(side), str(go)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for side in (36, 40)
    ]
    assert [process.stdout.readline() for process in runs] == ["ready\n"] * 2
    go.touch()
    errors = [process.communicate(timeout=120)[1] for process in runs]
    status = [process.returncode for process in runs]
    assert sorted(status) == [0, 1]
    refused = errors[status.index(1)].splitlines()[-1]
    assert "another process is preparing" in refused or "was prepared from a different source" in refused
    manifest = load_prepared(out, verify=True)[1]
    assert manifest["recipe"]["size"] == (36, 40)[status.index(0)]


def test_killed_at_three_moments_and_run_again_it_equals_the_straight_one():
    script = Path(__file__).with_name("kill_prepare.py")
    line = [sys.executable, str(script), "--moments=3", "--scenarios=new"]
    done = subprocess.run(
        line, capture_output=True, text=True, env=os.environ | {"PYTHONPATH": str(script.parents[2])}
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("status -9") == done.stdout.count("status 0, equal") == 3
