"""A model's code is never run, whatever standard input answers."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from model_files import edit
from PIL import Image
from tiny import save_model

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    return save_model(tmp_path_factory.mktemp("saved") / "model")


@pytest.fixture
def model(saved, tmp_path):
    """A copy that a test may break."""
    return Path(shutil.copytree(saved, tmp_path / "model"))


EVIL = """
from pathlib import Path
Path({marker!r}).touch()
from transformers import SwinConfig as Config, SwinForImageClassification as Model, DeiTImageProcessor as Processor
"""


@pytest.mark.parametrize(
    ("command", "file"),
    [("predict", "config.json"), ("evaluate", "preprocessor_config.json"), ("train", "config.json")],
)
def test_no_answer_on_standard_input_makes_a_command_run_a_models_code(model, tmp_path, command, file):
    marker = tmp_path / "ran"
    (model / "evil.py").write_text(EVIL.format(marker=str(marker)))
    classes = {"AutoConfig": "evil.Config", "AutoModelForImageClassification": "evil.Model"}
    edit(model, "config.json", model_type="stranger" if file == "config.json" else "swin")
    edit(model, file, auto_map=classes | {"AutoImageProcessor": "evil.Processor"}, image_processor_type="Stranger")
    Image.new("L", (40, 40), 90).save(tmp_path / "image.png")
    (tmp_path / "data.yaml").write_text("dataset: phantom\nphantom_train: 8\nphantom_validation: 8\nphantom_test: 8\n")
    words = {
        "predict": ["predict", tmp_path / "image.png", "--model", model],
        "evaluate": ["evaluate", tmp_path / "data.yaml", "--model", model],
        "train": ["train", tmp_path / "data.yaml", "--model_name_or_path", model, "--output_dir", tmp_path / "run"],
    }[command]
    code = "import sys; from hf_cxr.commands import main; sys.exit(main(sys.argv[1:]))"
    environment = os.environ | {"HF_MODULES_CACHE": str(tmp_path / "modules"), "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, words)],
        input="y\n" * 5,
        capture_output=True,
        text=True,
        env=environment,
    )
    assert done.returncode == 2, done.stderr
    assert done.stderr.splitlines()[-1].startswith(f"hf-cxr {command}: {model} needs its own code")
    assert "[y/N]" not in done.stdout + done.stderr
    assert not marker.exists()
