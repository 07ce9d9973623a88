"""Threads of a command that `accelerate launch` starts: one, unless somebody has asked for more."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CODE = """
import os
from hf_cxr import cores
before = os.environ["OMP_NUM_THREADS"]
cores.set_threads()
print("threads", before, os.environ["OMP_NUM_THREADS"])
"""


@pytest.mark.parametrize(("flags", "taken"), [([], "1"), (["--num_cpu_threads_per_process", "3"], "3")])
def test_the_launchers_own_choice_is_not_taken_for_ours(tmp_path, flags, taken):
    script = tmp_path / "script.py"
    script.write_text(CODE)
    launch = [sys.executable, "-m", "accelerate.commands.launch"]
    config = ROOT / "configs" / "accelerate" / "cpu.yaml"
    env = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
    done = subprocess.run(
        [*launch, "--config_file", str(config), *flags, str(script)],
        capture_output=True,
        text=True,
        check=True,
        env={**env, "PYTHONPATH": f"{ROOT}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"},
    )
    name, _, now = done.stdout.split()
    assert (name, now) == ("threads", taken)
