"""The browser of the tests, Node and its packages; Debian: apt-get install chromium nodejs npm.

A test of a page is skipped where they are not there. HF_CXR_BROWSER_TESTS=1, which the automatic checks set, makes
their absence an error instead.
"""

import os
import shutil
from pathlib import Path

import pytest

WANTED = os.environ.get("HF_CXR_BROWSER_TESTS", "") not in ("", "0")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
"""Its program; None if there is none."""
MODULES = Path(os.environ.get("HF_CXR_NODE_MODULES", "node_modules")).resolve()
"""Where npm has put its packages."""


def needs(there: object, reason: str) -> pytest.MarkDecorator:
    """The mark of a test that is skipped if something is not there; an error if the tests were asked for."""
    if WANTED and not there:
        raise RuntimeError(f"HF_CXR_BROWSER_TESTS is set, and a test {reason}")
    return pytest.mark.skipif(not there, reason=reason)


def needs_browser() -> pytest.MarkDecorator:
    """The mark of a test in Chromium."""
    return needs(CHROMIUM, "needs a browser: apt-get install chromium")


def needs_package(name: str) -> pytest.MarkDecorator:
    """The mark of a test of a package of npm."""
    return needs((MODULES / name).is_dir(), f"needs npm's {name}: npm install {name}, and HF_CXR_NODE_MODULES")
