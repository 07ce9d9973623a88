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
        ("hf_cxr.prediction_tables", ("torch", "transformers", "matplotlib")),
        ("hf_cxr.commands.evaluate", ("torch", "transformers", "datasets", "matplotlib")),
        ("hf_cxr.losses", ("transformers", "datasets", "matplotlib")),
    ],
)
def test_import_is_light(module, heavy):
    code = f"import sys, {module}; print([name for name in {heavy!r} if name in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_scores_of_a_file_are_measured_without_torch(tmp_path):
    (tmp_path / "scores.csv").write_text("image,Mass\na,0.9\nb,0.2\nc,0.6\nd,0.1\n")
    (tmp_path / "labels.csv").write_text("image,patient,Mass\na,1,1\nb,1,0\nc,2,1\nd,3,0\n")
    words = ["evaluate", "--predictions", "scores.csv", "--labels", "labels.csv", "--bootstrap_resamples", "20"]
    words += ["--out", "out"]
    code = f"import sys; from hf_cxr.commands import main; print(main({words!r}), 'torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=tmp_path)
    assert done.stdout.splitlines()[-1] == "0 False"
    assert (tmp_path / "out" / "evaluation.json").is_file()
