"""The site as a reader gets it: it builds strictly, asks no other host for anything, and its search works offline."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from browsers import CHROMIUM, needs_browser

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(folder)]
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, env=os.environ | {"NO_MKDOCS_2_WARNING": "1"}
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def test_no_page_loads_anything_from_another_host(site):
    pages = sorted(site.rglob("*.html"))
    assert len(pages) > 25
    for page in pages:
        tags = re.findall(r"<(?:script|link|img|iframe|source|video|audio)\b[^>]*>", page.read_text(encoding="utf-8"))
        assert len(tags) > 3
        for tag in tags:
            assert not re.search(r"\b(?:src|href|srcset)=[\"']?(?:https?:)?//", tag), f"{page.name}: {tag}"
    for sheet in site.rglob("*.css"):
        assert not re.search(r"@import|url\([\"']?(?:https?:)?//", sheet.read_text(encoding="utf-8")), sheet.name


def test_the_pages_have_their_files_and_parts(site):
    front = (site / "index.html").read_text(encoding="utf-8")
    assert "make quickstart" in re.sub("<[^>]+>", "", front)  # of the README
    assert (site / "images" / "report.png").is_file()
    assert (site / "source" / "configs" / "quickstart.yaml.html").is_file()
    assert "load_phantom" in (site / "source" / "notebooks" / "train_on_phantoms.ipynb.html").read_text()
    assert not (site / "hooks.py").exists()


@needs_browser()
def test_search_answers_in_a_folder_without_a_server_and_asks_nobody(site):
    from playwright.sync_api import sync_playwright

    asked, problems = [], []
    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1280, "height": 900})
        page.on("request", lambda request: asked.append(request.url))
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.goto((site / "index.html").as_uri())
        page.click("input.md-search__input")
        page.keyboard.type("reliability curve")
        page.wait_for_selector(".md-search-result__item a")
        found = [link.get_attribute("href") for link in page.query_selector_all(".md-search-result__item a")]
        page.set_viewport_size({"width": 390, "height": 844})
        page.goto((site / "papers.html").as_uri())  # the widest tables
        assert page.evaluate("document.documentElement.scrollWidth") == 390
        browser.close()
    assert any("calibration.html" in place for place in found)
    assert problems == []
    assert {url.split(":")[0] for url in asked} == {"file"}
