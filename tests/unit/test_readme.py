"""The README shows what exists: targets, files, flags and commands."""

import re
import shlex
from pathlib import Path

import pytest

from hf_cxr.commands import COMMANDS
from hf_cxr.config import known_keys

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```bash\n(.*?)```", README, re.DOTALL)
LINES = [line for block in BLOCKS for line in block.replace("\\\n", " ").splitlines() if line and line[0] != "#"]


def test_make_targets_exist():
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    named = re.findall(r"^make ([a-z-]+)", "\n".join(LINES), re.MULTILINE)
    assert named == ["quickstart", "test"]
    assert set(named) <= set(targets)


@pytest.mark.parametrize("line", [line for line in LINES if "scripts/" in line or line.startswith("hf-cxr")])
def test_commands_name_files_and_flags_that_exist(line):
    words = shlex.split(line, comments=True)
    for word in words:
        if word.startswith(("scripts/", "configs/")):
            assert (ROOT / word).is_file(), word
    if words[0] == "hf-cxr":
        assert words[1] in COMMANDS
    own = {"config_file", "model", "csv", "out", "only", "folds", "check", "images", "jobs", "dry_run", "public"}
    for word in words:
        if word.startswith("--"):
            assert word[2:].split("=")[0] in own | set(known_keys()), word


def test_set_up_uses_the_constraints():
    installs = [line for line in (*LINES, *(ROOT / "Makefile").read_text().splitlines()) if "pip install" in line]
    assert len(installs) >= 3
    assert all("--constraint constraints.txt" in line for line in installs)
    pins = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if not line.startswith("#")]
    assert all(re.fullmatch(r"[A-Za-z0-9_.-]+==[A-Za-z0-9_.!-]+", pin) for pin in pins)
    assert any(pin.startswith("torch==") for pin in pins)
