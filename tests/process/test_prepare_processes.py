"""`hf-cxr prepare` under accelerate launch: each process a part, and the folder of one process."""

import subprocess
import sys
from pathlib import Path

from prepared_folders import content

from hf_cxr.commands import main as hf_cxr_main

ROOT = Path(__file__).parents[2]
WORDS = ["--phantom_train=12", "--phantom_validation=5", "--phantom_test=5", "--phantom_size=64"]
WORDS += ["--image_size=32", "--resize_size=36", "--workers=1"]


def launched(out, *words) -> subprocess.CompletedProcess:
    config = ROOT / "configs" / "accelerate" / "cpu_processes.yaml"
    launch = [sys.executable, "-m", "accelerate.commands.launch", "--config_file", config]
    line = [*launch, ROOT / "scripts" / "prepare.py", *WORDS, *words, "--out", out]
    return subprocess.run(line, capture_output=True, text=True, cwd=ROOT, timeout=300)


def test_two_processes_write_the_folder_of_one(tmp_path):
    two = launched(tmp_path / "two")
    assert two.returncode == 0, two.stderr[-3000:]
    assert two.stdout.count("22 images (train 12, validation 5, test 5)") == 1
    assert hf_cxr_main(["prepare", *WORDS, "--out", str(tmp_path / "one")]) == 0
    assert content(tmp_path / "two") == content(tmp_path / "one")
    refused = launched(tmp_path / "two", "--resize_size=40")
    assert refused.returncode != 0
    assert refused.stderr.count("was prepared from a different source or with different settings") == 1
    assert content(tmp_path / "two") == content(tmp_path / "one")
