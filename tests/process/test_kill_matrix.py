"""A training run that is killed, moved or damaged ends as the straight one: four moments of `kill_matrix.py`."""

import subprocess
import sys
from pathlib import Path


def test_killed_moved_and_damaged_runs_end_as_the_straight_one(tmp_path):
    script = Path(__file__).with_name("kill_matrix.py")
    command = [sys.executable, script, "--moments", "5", "--out", tmp_path]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "5 of 5 moments" in done.stdout
    for what in ("moved", "bit flipped in checkpoint-", "as it was", "status  -9"):
        assert what in done.stdout
