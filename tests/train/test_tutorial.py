"""Every snippet of docs/tutorial.md runs, in order, in an empty folder, against the loopback Hub."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from hub_server import USER
from PIL import Image

from hf_cxr.commands import main

PAGE = (Path(__file__).parents[2] / "docs" / "tutorial.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```(\w+)\n(.*?)```", PAGE, re.DOTALL)


def run_bash(block: str) -> None:
    """The lines of a block: hf-cxr in this process, which has imported what it needs, and anything else by bash."""
    rest = []
    for line in block.replace("\\\n", " ").splitlines():
        if line.startswith("hf-cxr "):
            assert main(shlex.split(line)[1:]) == 0, line
        else:
            rest.append(line)
    subprocess.run(["bash", "-euc", "\n".join(rest)], check=True)


@pytest.fixture
def names(tmp_path, monkeypatch, hub):
    """What the Python of the page has defined, after all snippets ran; the folder is the working folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", str(Path(sys.executable).parent) + os.pathsep + os.environ["PATH"])  # for hf
    defined = {"__name__": "__main__"}
    for language, block in BLOCKS:
        block = block.replace("you/", f"{USER}/")
        if language == "bash":
            run_bash(block)
        elif language == "python":
            exec(compile(block, "a block of the tutorial", "exec"), defined)  # noqa: S102
    return defined


def test_every_snippet_runs_and_does_what_the_page_says(names, hub):
    assert {language for language, _ in BLOCKS} == {"bash", "python", "text"}
    shown = next(block for language, block in BLOCKS if language == "text")
    assert Path("chests/labels.csv").read_text().startswith(shown)
    assert names["rows"][0]["file"] == pd.read_csv("predictions.csv")["image"].iloc[0].rsplit("/")[-1]
    sent = hub.files(f"{USER}/first-chests")
    assert {"model.safetensors", "README.md", "report.html"} <= sent.keys()
    assert hub.repos["models", f"{USER}/first-chests"].private
    image = Image.open("chests/images/synthetic_00000_001.png")
    stock = {entry["label"]: entry["score"] for entry in names["classify"](image)}
    assert stock == pytest.approx(names["result"].probabilities, abs=1e-5)
