"""The site of docs/: every page is in the navigation, and what the hooks make of a page leads somewhere.

The whole site is built, strictly, in tests/process/test_site.py.
"""

import importlib.util
import json
import re
from pathlib import Path

import pytest
import yaml

from hf_cxr.hub.leaks import LOCAL_PATH

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
SITE = yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))


def load_hooks():
    """docs/hooks.py, which mkdocs loads by its path."""
    place = importlib.util.spec_from_file_location("site_hooks", DOCS / "hooks.py")
    module = importlib.util.module_from_spec(place)
    place.loader.exec_module(module)
    return module


hooks = load_hooks()


def pages_of(entry) -> list[str]:
    """The pages below an entry of the navigation, in order."""
    if isinstance(entry, str):
        return [entry]
    entries = entry.values() if isinstance(entry, dict) else entry
    return [page for each in entries for page in pages_of(each)]


def test_every_page_is_in_the_navigation_once():
    named = pages_of(SITE["nav"])
    assert sorted(named) == sorted(page.relative_to(DOCS).as_posix() for page in DOCS.rglob("*.md"))
    assert named[:2] == ["index.md", "tutorial.md"]


def test_nothing_is_taken_from_another_host():
    assert SITE["theme"]["font"] is False
    assert {"search", "offline"} <= set(SITE["plugins"])
    files = [*SITE["extra"]["polyfills"], *SITE["extra_css"]]
    assert all((DOCS / file).is_file() for file in files)
    assert any("iframe-worker" in file for file in files)  # without it the plugin offline names another host's


def test_strict_means_links_and_anchors():
    assert set(SITE["validation"]["links"].values()) == {"warn"}
    assert "mkdocs build --strict" in (ROOT / "Makefile").read_text()


def test_parts_of_the_readme_come_in_with_their_links_turned():
    front = hooks.with_readme((DOCS / "index.md").read_text(encoding="utf-8"))
    assert "<!-- README" not in front
    assert "make quickstart" in front
    targets = re.findall(r"\]\((?!https?:)([^)#]+)", front)
    assert len(targets) > 10
    assert all((DOCS / target).exists() for target in targets)
    assert any(target.startswith("../configs/") for target in targets)


def test_a_section_that_the_readme_does_not_have_is_an_error():
    with pytest.raises(hooks.PluginError, match="no section 'Nothing'"):
        hooks.with_readme("<!-- README: Nothing -->")


@pytest.mark.parametrize("page", sorted(DOCS.rglob("*.md")), ids=lambda page: page.stem)
def test_files_outside_docs_get_a_page(page):
    for path in hooks.OUTSIDE.findall(hooks.with_readme(page.read_text(encoding="utf-8"))):
        assert len(hooks.page_of(path)) > 20


def test_a_fence_is_longer_than_any_in_the_text():
    assert hooks.fenced("a\n```python\n```", "text").startswith("````text\n")
    assert hooks.fenced("a", "text") == "```text\na\n```"


def test_a_link_by_name_gets_the_heading():
    assert hooks.heading("data.md", None) == "Data"
    assert hooks.heading("training.md", "#stop-and-resume") == "Stop and resume"
    assert hooks.heading("absent.md", None) == "absent.md"


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_shipped_without_outputs_and_its_settings_can_be_replaced(path):
    book = json.loads(path.read_text(encoding="utf-8"))
    code = [cell for cell in book["cells"] if cell["cell_type"] == "code"]
    assert all(cell["outputs"] == [] and cell["execution_count"] is None for cell in code)
    assert [cell["metadata"].get("tags") for cell in code].count(["parameters"]) == 1
    for cell in code:
        compile("".join(cell["source"]), path.name, "exec")
    assert "Not a medical device. For research." in "".join(book["cells"][0]["source"])
    for cell in book["cells"]:
        source = "".join(cell["source"])
        assert not LOCAL_PATH.search(source)
        assert not re.search(r"hf_[A-Za-z]{20}", source)


def test_both_notebooks_are_shipped():
    assert [path.stem for path in NOTEBOOKS] == ["predict", "train_on_phantoms"]
