"""The Python of README and docs runs, in a folder that has runs, averaged views and an image where they say.

That of the tutorial runs in test_tutorial.py, with its commands. What needs a Hub or an endpoint of the reader's is
fenced as "py"; test_stock_loading.py and test_handler.py load and call the same from the loopback Hub.
"""

import re
import shlex
from pathlib import Path

import pytest
from PIL import Image

from hf_cxr.commands import main

ROOT = Path(__file__).parents[2]
BLOCKS = [
    pytest.param(block, id=f"{page.stem}-{number}")
    for page in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))
    if page.stem != "tutorial"
    for number, block in enumerate(re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL))
]


def line_of_readme(start: str) -> list[str]:
    """The words of the only line of README.md that begins so, without its comment."""
    lines = [line for line in (ROOT / "README.md").read_text(encoding="utf-8").splitlines() if line.startswith(start)]
    assert len(lines) == 1
    return shlex.split(lines[0], comments=True)


@pytest.fixture(scope="module")
def folder(finished, tmp_path_factory):
    folder = tmp_path_factory.mktemp("reader")
    (folder / "runs").mkdir()
    for name in ("quickstart", "nih_swin_base"):
        (folder / "runs" / name).symlink_to(finished[0], target_is_directory=True)
    words = ["--test_time_augmentation", "flip", "--out", str(folder / "runs" / "nih_views")]
    assert main(["evaluate", "--model", str(finished[0]), *words, "--bootstrap_resamples", "10"]) == 0
    words = ["--preprocessing", "--program", "--out", str(folder / "export" / "quickstart")]
    assert main(["export", str(finished[0]), *words]) == 0
    with pytest.MonkeyPatch.context() as patched:
        patched.chdir(folder)
        exec(line_of_readme("python -c ")[-1], {})  # noqa: S102 - makes chest.png
    return folder


def test_the_image_that_the_readme_makes_is_predicted_as_it_says(folder, monkeypatch):
    monkeypatch.chdir(folder)
    assert Image.open("chest.png").mode == "L"
    assert main(line_of_readme("hf-cxr predict ")[1:]) == 0
    assert len(Path("predictions.csv").read_text(encoding="utf-8").splitlines()) == 2


def test_there_is_python_to_run():
    assert len(BLOCKS) >= 4


@pytest.mark.parametrize("block", BLOCKS)
def test_python_block_runs(block, folder, monkeypatch):
    monkeypatch.chdir(folder)
    names = {"__name__": "__main__"}
    exec(compile(block, "a block of the documents", "exec"), names)  # noqa: S102
    if "classify" in names:
        scores = names["classify"]("chest.png")
        assert len(scores) == 14
        assert all(0 < entry["score"] < 1 for entry in scores)
