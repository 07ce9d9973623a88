"""`hf-cxr export`: files that give the model's own numbers, contain nothing of this machine, or do not exist."""

import importlib.util
import json
import re
import sys
import tempfile
import zipfile
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnx
import pytest
import tiny
import torch
import yaml
from onnx import numpy_helper
from PIL import Image

from hf_cxr.commands import run_command
from hf_cxr.config import DataArguments, ModelArguments
from hf_cxr.data import load_source
from hf_cxr.data.images.grey import resize_grey
from hf_cxr.evaluation.operating_points import OperatingPoint, OperatingPoints
from hf_cxr.export import exporter
from hf_cxr.export.onnx_model import check_exportable
from hf_cxr.export.runtime import run, session
from hf_cxr.exported_files import EXPORT, MODEL, PROGRAM, QUANTIZED, RESULT, WHOLE
from hf_cxr.hub.file_list import PushExtras, collect
from hf_cxr.inference.classifier import Classifier, stock_pipeline
from hf_cxr.labels import NIH14
from hf_cxr.models.build import build_model
from hf_cxr.models.record import ModelRecord
from hf_cxr.processing import build_image_processor

SIZES = {"image_size": 32, "resize_size": 36}
FOLDERS = (Path(__file__).parents[2], Path.home(), tempfile.gettempdir(), sys.prefix, sys.base_prefix)
HERE = "|".join(re.escape(str(folder)) for folder in FOLDERS)
TRACES = re.compile(rf"({HERE})/|site-packages|\.py\b|File \"|stack_trace".encode())
DATA = {"dataset": "phantom", "phantom_train": 20, "phantom_validation": 16, "phantom_test": 60, "phantom_size": 36}


def save(folder: Path, name: str, *, resample=3, labels=NIH14) -> Path:
    """A model of random weights, large enough that every operator counts, with its image processor."""
    torch.manual_seed(0)
    model = build_model(ModelArguments(architecture=name, model_kwargs=tiny.MODELS[name], **SIZES), labels)
    for key, weight in model.named_parameters():
        if weight.ndim == 1:
            torch.nn.init.normal_(weight, mean=float("norm" in key.lower() and "weight" in key), std=0.3)
        else:
            torch.nn.init.normal_(weight, std=weight[0].numel() ** -0.5)
    points = OperatingPoints({"Effusion": OperatingPoint(0.25, "f1", None, 0.5, 0.5, 10, 50)})
    ModelRecord(version="0", dataset="phantoms", synthetic=True, operating_points=points.to_dict()).write(model.config)
    model.save_pretrained(folder)
    build_image_processor(36, 32, resample=resample).save_pretrained(folder)
    return folder


def export(*words) -> int:
    return run_command("export", [str(word) for word in words])


@pytest.fixture(scope="module")
def swin(tmp_path_factory) -> Path:
    """A folder that looks like a run, exported in every form but the page."""
    folder = save(tmp_path_factory.mktemp("runs") / "swin", "swin")
    settings = DATA | {"bootstrap_resamples": 50, "phantom_prevalence_floor": 0.3}
    (folder / "config.yaml").write_text(yaml.safe_dump(settings), encoding="utf-8")
    assert export(folder, "--onnx", "--preprocessing", "--int8", "--program") == 0
    return folder


@pytest.fixture(scope="module")
def image(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("image") / "image.png"
    y, x = np.mgrid[:90, :75]
    Image.fromarray((127 + 120 * np.sin(x / 7) * np.cos(y / 11)).astype(np.uint8)).save(path)
    return path


def test_the_files_give_the_stock_pipelines_scores(swin, image):
    scores = stock_pipeline(swin, [str(image)])[0]
    grey_HW = np.asarray(Image.open(image))
    whole = run(session(swin / "export" / WHOLE), grey_HW[None])["probabilities"][0]
    assert {name: float(value) for name, value in zip(NIH14, whole, strict=True)} == pytest.approx(scores, abs=1e-3)
    pixels = Classifier(swin, device="cpu").pixels
    value_B3DD = pixels(torch.from_numpy(resize_grey(grey_HW, 36, 3))[None, None])
    logit_BC = run(session(swin / "export" / MODEL), value_B3DD.numpy())["logits"]
    of_program = torch.export.load(swin / "export" / PROGRAM).module()(value_B3DD).detach().numpy()
    for found_BC in (logit_BC, of_program):
        found = 1 / (1 + np.exp(-found_BC[0]))
        assert {name: float(value) for name, value in zip(NIH14, found, strict=True)} == pytest.approx(
            scores, abs=1e-4
        )
    assert np.ptp(logit_BC) > 0.1


def test_no_path_and_no_trace_of_this_machine_is_in_a_file(swin):
    files = [file for file in (swin / "export").rglob("*") if file.is_file() and file.suffix != ".pt2"]
    contents = {file.name: file.read_bytes() for file in files}
    with zipfile.ZipFile(swin / "export" / PROGRAM) as archive:
        contents |= {name: archive.read(name) for name in archive.namelist() if "/weights/" not in name}
    assert len(contents) > 8
    assert {name: TRACES.search(content) for name, content in contents.items() if TRACES.search(content)} == {}


def test_a_file_says_what_it_is_and_export_json_what_was_measured(swin):
    model = onnx.load(swin / "export" / MODEL)
    assert [entry.version for entry in model.opset_import if entry.domain == ""] == [18]
    metadata = {entry.key: entry.value for entry in model.metadata_props}
    assert json.loads(metadata["label_names"]) == list(NIH14)
    assert json.loads(metadata["thresholds"])["Effusion"] == 0.25
    result = json.loads((swin / "export" / RESULT).read_text(encoding="utf-8"))
    assert metadata["model_sha256"] == result["model"]["model_sha256"]
    for name in (MODEL, PROGRAM, WHOLE):
        parity = result["files"][name]["parity"]
        assert 0 < parity["logit"] < 1e-4
        assert (parity["images"], parity["largest_batch"]) == (16, 16)
    assert "phantoms of several sizes" in result["files"][WHOLE]["parity_with_resize"]["on"]
    cost = result["files"][QUANTIZED]["cost"]
    assert cost["way"] == "dynamic"
    assert (cost["paired"]["images"], cost["split"]) == (60, "test")
    assert abs(cost["paired"]["metrics"]["auc"]["macro"]["difference"]) < 0.2
    assert 0 < cost["largest_probability_difference"] < 0.2
    ids = load_source(DataArguments(**DATA)).splits["test"]["patient_id"][:]
    assert {one.split("_")[0] for one in ids} == {"synthetic"}
    assert "synthetic_" not in json.dumps(result)


def test_an_export_adds_to_one_of_the_same_model(swin, capsys):
    before = json.loads((swin / "export" / RESULT).read_text(encoding="utf-8"))["files"]
    assert export(swin, "--program") == 0
    after = json.loads((swin / "export" / RESULT).read_text(encoding="utf-8"))["files"]
    assert after.keys() == before.keys()
    for name in (MODEL, WHOLE, QUANTIZED):
        assert {*after[name]["versions"]} == {"hf_cxr", "torch", "opset", "onnxruntime"}
        assert after[name] == before[name]
    assert {*after[PROGRAM]["versions"]} == {"hf_cxr", "torch"}
    assert "onnx" not in capsys.readouterr().out
    other = save(swin.parent / "other", "vit")
    assert export(other, "--program", "--out", swin / "export") == 2
    assert "export of another model" in capsys.readouterr().err


@pytest.mark.parametrize(("name", "way"), [("convnextv2", "dynamic"), ("dnet", "static"), ("vit", "dynamic")])
def test_other_architectures(name, way, tmp_path, capsys):
    folder = save(tmp_path / name, name)
    words = [f"--{key}={value}" for key, value in (DATA | {"bootstrap_resamples": 20}).items()]
    assert export(folder, "--int8", "--out", tmp_path / "out", *words) == 0
    files = json.loads((tmp_path / "out" / RESULT).read_text(encoding="utf-8"))["files"]
    assert files[MODEL]["parity"]["probability"] < 1e-4
    assert files[QUANTIZED]["cost"]["way"] == way
    assert files[QUANTIZED]["cost"]["paired"]["metrics"]["auc"]["macro"]["first"] is not None
    assert "Not a medical device" in capsys.readouterr().out


def test_a_file_that_differs_is_not_kept(swin, tmp_path, monkeypatch, capsys):
    def wrong(*args):
        proto = onnx_of(*args)
        bias = next(tensor for tensor in proto.graph.initializer if tensor.name.endswith("classifier.bias"))
        bias.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(bias) + np.float32(1e-3), bias.name))
        return proto

    onnx_of = exporter.onnx_of
    monkeypatch.setattr(exporter, "onnx_of", wrong)
    assert export(swin, "--onnx", "--out", tmp_path / "out") == 2
    assert re.search(r"differs .* 1\.0e-03 in the logit .* not kept", capsys.readouterr().err)
    assert not (tmp_path / "out").exists()


def test_what_cannot_be_exported_is_refused_in_one_line(swin, tmp_path, monkeypatch, capsys):
    def refused(*words) -> str:
        assert export(*words) == 2
        error = capsys.readouterr().err.strip()
        assert "\n" not in error
        return error

    assert "no such run folder" in refused(tmp_path / "absent" / "run", "--onnx", "--out", tmp_path / "out")
    (tmp_path / "empty").mkdir()
    assert "contains no saved model" in refused(tmp_path / "empty", "--onnx")
    single = save(tmp_path / "single", "vit")
    config = json.loads((single / "config.json").read_text(encoding="utf-8"))
    changed = json.dumps(config | {"problem_type": "single_label_classification"})
    (single / "config.json").write_text(changed, encoding="utf-8")
    assert "multi-label" in refused(single, "--onnx")
    (tmp_path / "file").write_text("", encoding="utf-8")
    assert "cannot write" in refused(swin, "--onnx", "--out", tmp_path / "file")
    assert "not an export" in refused(swin, "--onnx", "--out", swin)
    lanczos = save(tmp_path / "lanczos", "vit", resample=1)
    assert "lanczos" in refused(lanczos, "--preprocessing")
    assert "leave out --int8" in refused(lanczos, "--int8")
    assert "npm install onnxruntime-web" in refused(lanczos, "--page", "--onnxruntime_web", tmp_path)
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: None if name == "onnx" else find(name, *rest))
    assert "pip install 'hf-cxr[onnx]'" in refused(swin, "--onnx", "--out", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_flags_that_say_nothing_are_refused(swin, capsys):
    for words, why in (
        ([swin], "say what to write"),
        (["--onnx"], "give one run folder"),
        (["a/b", "--onnx"], "--out"),
    ):
        with pytest.raises(SystemExit) as stop:
            export(*words)
        assert stop.value.code == 2
        assert why in capsys.readouterr().err


def test_models_of_timm_and_larger_than_a_file_are_refused():
    with pytest.raises(ValueError, match="timm"):
        check_exportable(SimpleNamespace(config=SimpleNamespace(model_type="timm_wrapper")), "run")
    with torch.device("meta"):
        large = torch.nn.Linear(30_000, 20_000)
    large.config = SimpleNamespace(model_type="vit")
    with pytest.raises(ValueError, match=r"2\.4 GB"):
        check_exportable(large, "run")


def test_an_exported_run_is_reported_with_its_export_and_pushed(tmp_path, capsys):
    settings = DATA | SIZES | {"model_kwargs": tiny.MODELS["swin"], "loss": "bce", "num_train_epochs": 1}
    settings |= {
        "bootstrap_resamples": 20,
        "per_device_train_batch_size": 8,
        "disable_tqdm": True,
        "phantom_prevalence_floor": 0.3,
    }
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(settings), encoding="utf-8")
    folder = tmp_path / "run"
    assert run_command("train", [str(tmp_path / "tiny.yaml"), "--output_dir", str(folder)]) == 0
    card = folder / "README.md"
    assert MODEL not in card.read_text(encoding="utf-8")
    assert export(folder, "--onnx") == 0
    printed = capsys.readouterr().out
    commands = re.search(r"hf-cxr (report \S+), .*hf-cxr (push \S+ HUB_ID --onnx)", printed)
    assert commands, printed
    name, *words = commands[1].split()
    assert run_command(name, words) == 0
    assert MODEL in card.read_text(encoding="utf-8")
    sent = {file.path: file for file in collect(folder, PushExtras(onnx=True))}
    assert sent[MODEL].content == folder / EXPORT / MODEL
    name, *words = commands[2].replace("HUB_ID", "you/name").split()
    assert run_command(name, [*words, "--dry_run"]) == 0
    assert MODEL in capsys.readouterr().out
