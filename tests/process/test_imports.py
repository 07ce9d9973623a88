"""What an import of a part brings with it, in a fresh interpreter."""

import subprocess
import sys

import pytest


@pytest.mark.parametrize(
    ("module", "heavy"),
    [
        ("hf_cxr", ("torch", "transformers", "datasets", "numpy", "matplotlib")),
        ("hf_cxr.commands", ("torch", "transformers", "datasets", "numpy", "matplotlib")),
        ("hf_cxr.evaluation", ("torch", "transformers", "datasets", "evaluate")),
        ("hf_cxr.data", ("torch", "transformers", "matplotlib")),  # a decoding process imports it
        ("hf_cxr.commands.prepare", ("torch", "transformers")),  # and this, by way of scripts/prepare.py
        ("hf_cxr.losses", ("transformers", "datasets", "matplotlib")),
    ],
)
def test_import_is_light(module, heavy):
    code = f"import sys, {module}; print([name for name in {heavy!r} if name in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
