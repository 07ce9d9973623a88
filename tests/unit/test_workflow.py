"""The automatic checks ask for the tests of pages, install what these name, and build the image."""

import re
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[2]
WORKFLOW = yaml.safe_load((ROOT / ".github" / "workflows" / "checks.yml").read_text(encoding="utf-8"))
PACKAGE = r"@?[a-z/-]+@\d+\.\d+\.\d+"  # of npm, with its version


def commands(job: str) -> str:
    return "\n".join(step.get("run", "") for step in WORKFLOW["jobs"][job]["steps"])


def test_the_tests_of_pages_are_asked_for_with_what_they_need():
    browsers = (ROOT / "tests" / "browsers.py").read_text(encoding="utf-8")
    asked = WORKFLOW["jobs"]["checks"]["env"]
    assert set(asked) == set(re.findall(r'os\.environ\.get\("(HF_CXR_\w+)"', browsers))
    assert "apt-get install --yes --no-install-recommends chromium" in commands("checks")
    assert commands("checks").endswith("bash .ci/run")
    prefix = re.search(r"npm install --prefix (\S+)", commands("checks"))[1]
    assert asked["HF_CXR_NODE_MODULES"] == f"{prefix}/node_modules"
    page = (ROOT / "tests" / "process" / "test_export_javascript.py").read_text(encoding="utf-8")
    assert re.findall(PACKAGE, commands("checks")) == re.findall(PACKAGE, page.split('"""')[1])
    assert len(re.findall(PACKAGE, page.split('"""')[1])) == 2


def test_the_image_is_built_and_asked():
    text = commands("image")
    assert text.index("docker build") < text.index("docker run") < text.index("/health")
    assert "--host 0.0.0.0" in " ".join(re.findall(r'"([^"]+)"', (ROOT / "Dockerfile").read_text(encoding="utf-8")))
    assert "hf-cxr --no_token\n" in text  # such a host is refused without a token
    port = re.search(r"EXPOSE (\d+)", (ROOT / "Dockerfile").read_text(encoding="utf-8"))[1]
    assert f"127.0.0.1:{port}/health" in text
