"""The Python of README and docs runs, in a folder that has runs, averaged views and an image where they say.

That of the tutorial runs in test_tutorial.py, with its commands. What needs a Hub or an endpoint of the reader's is
fenced as "py"; test_stock_loading.py and test_handler.py load and call the same from the loopback Hub.
"""

import re
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
    Image.linear_gradient("L").save(folder / "chest.png")
    return folder


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
