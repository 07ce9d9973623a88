"""`hf-cxr predict` of image files: the same numbers without the compiler, FSDP and what reads data sets."""

import os
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image
from tiny import save_model

HEAVY = ("torch._dynamo.convert_frame", "torch.distributed.fsdp", "scipy.optimize._optimize")
HEAVY += ("datasets", "pandas", "sklearn", "matplotlib", "scipy.stats", "transformers.pipelines")

PREDICT = f"""
import sys
from hf_cxr.commands import main
status = main(["predict", "a.png", "--model", "model", "--csv", sys.argv[1]])
import gc
assert gc.isenabled() and gc.get_freeze_count() == 0
print("heavy", [name for name in {HEAVY!r} if name in sys.modules])
"""

LISTED_ONCE = """
from hf_cxr.late_modules import import_transformers_lightly
import_transformers_lightly()
from transformers.utils import import_utils
opened = []
real = open
import_utils.open = lambda *args, **named: (opened.append(args), real(*args, **named))[1]
import transformers.models as models
print("opened", len(opened))
light = import_utils.define_import_structure(models.__file__)
import_utils.create_import_structure_from_path = import_utils.create_import_structure_from_path.__wrapped__
import_utils.create_import_structure_from_path.cache_clear()
import_utils.define_import_structure.cache_clear()
assert light == import_utils.define_import_structure(models.__file__)
assert len(opened) > 500 and sum(map(len, light.values())) > 500
from transformers.models.vit import ViTConfig
from transformers import SwinConfig
print("fine")
"""

LATER = """
from hf_cxr.late_modules import import_transformers_lightly
import_transformers_lightly()
import sys, torch
from transformers.models.swin.modeling_swin import SwinForImageClassification
import transformers.integrations.finegrained_fp8
from transformers.loss import loss_for_object_detection as detection
late = sys.modules["torch._dynamo"]
assert "sympy" not in sys.modules and "scipy.optimize._optimize" not in sys.modules
rows, columns = detection.linear_sum_assignment([[4, 1], [2, 9]])
assert (rows.tolist(), columns.tolist()) == ([0, 1], [1, 0])
assert torch.distributed.is_available()
calls = []
def double(x):
    return x * 2
assert torch.compile(double, backend="eager", fullgraph=True)(torch.ones(2)).tolist() == [2, 2]
assert sys.modules["torch._dynamo"] is not late and torch._dynamo is sys.modules["torch._dynamo"]
assert torch._dynamo.is_compiling is not None
print("fine")
"""


def run(code, *words, cwd=None, **env):
    done = subprocess.run(
        [sys.executable, "-c", code, *words], capture_output=True, text=True, cwd=cwd, env={**os.environ, **env}
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture
def folder(tmp_path):
    save_model(tmp_path / "model")
    pixels = np.random.default_rng(0).integers(0, 256, (50, 40), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    return tmp_path


def test_predict_imports_little_and_gives_the_same_numbers(folder):
    light = run(PREDICT, "light.csv", cwd=folder)
    assert "heavy []" in light
    usual = run(f"import transformers\n{PREDICT}", "usual.csv", cwd=folder)  # then nothing is put off
    assert "torch._dynamo.convert_frame" in usual
    assert (folder / "light.csv").read_text() == (folder / "usual.csv").read_text()


def test_the_source_of_the_models_is_listed_once_and_the_list_is_the_same(tmp_path):
    assert run(LISTED_ONCE, cwd=tmp_path).split() == ["opened", "0", "fine"]


def test_what_was_put_off_is_there_when_it_is_used(tmp_path):
    assert run(LATER, cwd=tmp_path).strip() == "fine"
