"""The browser of the tests; Debian: apt-get install chromium."""

import shutil

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
"""Its program; None if there is none."""
