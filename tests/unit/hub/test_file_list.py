"""What of a run folder is sent: the listed names, whole, inside the folder, and without a path of this machine."""

import io
import json
import os
import re
import shutil
import zlib
from pathlib import Path

import onnx
import onnx_files
import pandas
import pytest
import torch
import yaml
from PIL import Image, PngImagePlugin
from safetensors.torch import save_file

import hf_cxr
from hf_cxr.commands import main as hf_cxr_main
from hf_cxr.exported_files import MODEL, ONNX, RESULT
from hf_cxr.files import file_sha256
from hf_cxr.hub import push_run
from hf_cxr.hub.file_list import PushExtras, collect, published_settings
from hf_cxr.hub.leaks import exposed_tokens
from hf_cxr.saved_models import fingerprint

FINDINGS = ("Mass", "Nodule")
CONFIG = {"image_size": 32, "id2label": {"0": "Mass", "1": "Nodule"}, "hf_cxr": {"split": "abc", "dataset": "set"}}
METRICS = {
    "protocol": {"dataset": "set", "split_fingerprint": "abc", "seed": 1, "base_model": None},
    "test": {"label_names": list(FINDINGS), "all": {"auc": {"macro": 0.8124}}},
    "environment": {"platform": "Linux-6.1-x86_64", "torch": "2.13.0+cpu"},
}
SETTINGS = {"image_size": 32, "loss": "bce", "seed": 1, "weight_decay": 0.05}
CARD = """---
library_name: transformers
---

# A run

Input: 12 / 3 images, 50 images/s, and/or `chest.png`. See [the paper](https://example.org/a/home/b/c), N/A.
`pipeline(model="you/name")("/path/to/chest.png")`

![Training](figures/training.png)
"""
PAGE = """<!doctype html>
<html><body><table><tr><td>AUC 0.812</td></tr></table><img src="data:image/png;base64,/ab/cd"><br /></body></html>
"""
NAMES = [
    "README.md",
    "config.json",
    "config.yaml",
    "figures/roc_test.png",
    "figures/training.png",
    "metrics.json",
    "model.safetensors",
    "preprocessor_config.json",
    "report.html",
]
HOME = "/home/ann/nih"


@pytest.fixture
def run(tmp_path) -> Path:
    """A finished run folder, small and without a model that could be loaded."""
    folder = tmp_path / "run"
    (folder / "figures").mkdir(parents=True)
    for name in ("roc_test", "training"):
        Image.new("L", (64, 64)).save(folder / f"figures/{name}.png")
    for name, value in (("config", CONFIG), ("metrics", METRICS), ("preprocessor_config", {"do_resize": True})):
        (folder / f"{name}.json").write_text(json.dumps(value))
    (folder / "config.yaml").write_text(yaml.safe_dump(SETTINGS))
    (folder / "README.md").write_text(CARD)
    (folder / "report.html").write_text(PAGE)
    save_file({"classifier.bias": torch.zeros(2), "x": torch.ones(30)}, folder / "model.safetensors")
    return folder


def change(path: Path, **values) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def sent_names(run: Path) -> list[str]:
    return [file.path for file in collect(run)]


def test_the_check_of_inputs_goes_along_if_there_is_one(run):
    save_file({"mean": torch.zeros(2)}, run / "input_check.safetensors")
    assert sent_names(run) == sorted([*NAMES, "input_check.safetensors"])
    for tensors, metadata, words in (
        ({"mean": torch.tensor([float("nan")])}, {}, "NaN or infinity in mean"),
        ({}, {}, "input_check.safetensors is truncated or damaged"),
        ({"mean": torch.zeros(2)}, {"from": HOME}, rf"\(metadata\.from\): {HOME}"),
        ({"mean": torch.zeros(2)}, {"from": "hf_" + "aB3" * 12}, "contains an access token"),
    ):
        save_file(tensors, run / "input_check.safetensors", metadata=metadata)
        with pytest.raises(ValueError, match=words):
            collect(run)
    (run / "input_check.safetensors").write_bytes(b"\0" * 40)
    with pytest.raises(ValueError, match=r"input_check\.safetensors is truncated"):
        collect(run)


def test_exported_models_are_three_listed_files_and_only_when_asked(run):
    with pytest.raises(FileNotFoundError, match=r"model\.onnx is missing.*hf-cxr export"):
        collect(run, PushExtras(onnx=True))
    for name in ("model", "model_quantized", "model_preprocessing", "model_fp16"):
        onnx_files.write(run / f"export/onnx/{name}.onnx", fingerprint(run))
    (run / "export/onnx/model.onnx.data").write_bytes(b"weights")
    assert sent_names(run) == NAMES
    sent = {file.path: file for file in collect(run, PushExtras(onnx=True))}
    assert sorted(sent) == sorted([*NAMES, *ONNX])
    assert sent["onnx/model.onnx"].sha256 == file_sha256(run / "export/onnx/model.onnx")


def test_an_export_that_was_interrupted_is_refused(run):
    onnx_files.write(run / "export" / MODEL, fingerprint(run))
    (run / "export" / RESULT).unlink()  # which is written last
    with pytest.raises(FileNotFoundError, match=r"export\.json is missing, so the export was interrupted"):
        collect(run, PushExtras(onnx=True))


def test_an_export_of_another_model_is_refused(run):
    path = run / "export/onnx/model.onnx"
    onnx_files.write(path, fingerprint(run))
    collect(run, PushExtras(onnx=True))
    for sha256, words in (("0" * 64, "is an export of another model"), (None, "does not say which model")):
        onnx_files.write(path, sha256)
        with pytest.raises(ValueError, match=rf"{words}.*run hf-cxr export"):
            collect(run, PushExtras(onnx=True))


def add_metadata(entries, text):
    entry = entries.add()
    entry.key, entry.value = "pkg.torch.onnx.stack_trace", text


ONNX_TEXTS = {
    "metadata of the file": lambda model, text: add_metadata(model.metadata_props, text),
    "metadata of the graph": lambda model, text: add_metadata(model.graph.metadata_props, text),
    "metadata of a node": lambda model, text: add_metadata(model.graph.node[0].metadata_props, text),
    "metadata of a value": lambda model, text: add_metadata(model.graph.input[0].metadata_props, text),
    "description of the file": lambda model, text: setattr(model, "doc_string", text),
    "description of a node": lambda model, text: setattr(model.graph.node[0], "doc_string", text),
    "description of weights": lambda model, text: setattr(model.graph.initializer[0], "doc_string", text),
    "producer": lambda model, text: setattr(model, "producer_name", text),
    "name of a node": lambda model, text: setattr(model.graph.node[0], "name", text),
    "name of a value": lambda model, text: setattr(model.graph.input[0], "name", text),
    "attribute": lambda model, text: model.graph.node[0].attribute.append(onnx.helper.make_attribute("from", text)),
}


@pytest.mark.parametrize("place", ONNX_TEXTS)
def test_text_in_an_exported_model_is_searched(run, place):
    """torch's exporter writes the source line of each node, with its path, into the node's metadata."""
    path = run / "export/onnx/model.onnx"
    sha256 = fingerprint(run)
    onnx_files.write(path, sha256)
    assert len(collect(run, PushExtras(onnx=True))) == len(NAMES) + 1  # a node's name "/swin/MatMul" is not a path
    for text, words in ((f"{HOME}/model.py", f"{HOME}/model.py"), ("hf_" + "aB3" * 12, "contains an access token")):
        onnx_files.write(path, sha256, change=lambda model, text=text: ONNX_TEXTS[place](model, text))
        with pytest.raises(ValueError, match=words) as caught:
            collect(run, PushExtras(onnx=True))
        assert "aB3" not in str(caught.value)
        assert "model.onnx" in str(caught.value)


def test_a_damaged_export_or_one_in_two_files_is_refused(run):
    path = onnx_files.write(run / "export/onnx/model.onnx", fingerprint(run))
    content = path.read_bytes()
    for broken in (content[:-20], b"\0" * 400, b"PK\x03\x04"):
        path.write_bytes(broken)
        with pytest.raises(ValueError, match=r"model\.onnx is truncated or damaged"):
            collect(run, PushExtras(onnx=True))
    model = onnx.load_model_from_string(content)
    onnx.save(model, path, save_as_external_data=True, location="model.onnx.data", size_threshold=0)
    with pytest.raises(ValueError, match="keeps its weights in another file"):
        collect(run, PushExtras(onnx=True))


def test_the_handler_is_written_by_the_push(run):
    """So that no file of the folder can stand in for it."""
    (run / "handler.py").write_text("import os")
    assert sent_names(run) == NAMES
    sent = {file.path: file.content for file in collect(run, PushExtras(handler=True))}
    assert sent["requirements.txt"] == f"hf-cxr[dicom]=={hf_cxr.__version__}\n".encode()
    assert b"import os" not in sent["handler.py"]
    line = "hf-cxr[dicom] @ git+https://example.org/x"
    sent = {file.path: file.content for file in collect(run, PushExtras(handler=True, handler_requirement=line))}
    assert sent["requirements.txt"] == f"{line}\n".encode()
    for wrong in ("torch", "hf-cxr[", "", f"{line}\ntorch"):
        with pytest.raises(ValueError, match=r"is needed is hf-cxr|not a requirement"):
            collect(run, PushExtras(handler=True, handler_requirement=wrong))
    assert b"EndpointHandler" in sent["handler.py"]


def test_the_listed_files_and_no_other(run):
    for name in (
        *("figures/.tmp.png", "figures/heat_maps/13.png", "figures/roc_test.png~", "figures/patient_13.png"),
        *("figures/roc_test-1.png", "backup/README.md", ".model-x/config.json", "checkpoint-1/model.safetensors"),
        *("run.log", "predictions/test.parquet", "training_args.bin", "README.md.bak", "metrics.json.tmp"),
    ):
        (run / name).parent.mkdir(exist_ok=True)
        (run / name).write_text("not for others")
    assert sent_names(run) == NAMES
    assert all(file.size == len(file.content) for file in collect(run) if isinstance(file.content, bytes))


def test_the_figure_for_a_benchmark_is_sent_and_has_to_be_the_runs(run):
    change(run / "metrics.json", test={"all": {"auc": {"macro": 0.812}}})
    entry = "- dataset: {{id: you/set, task_id: t}}\n  value: {}\n  notes: macro AUC over 14 findings\n"
    path = run / ".eval_results/hf_cxr.yaml"
    path.parent.mkdir()
    path.write_text(entry.format(0.812))
    (path.parent / "mine.yaml").write_text(entry.format(1.0))
    assert sent_names(run) == [".eval_results/hf_cxr.yaml", *NAMES]
    path.write_text(entry.format(0.912))
    with pytest.raises(ValueError, match=r"gives the macro AUC 0\.912, and metrics\.json 0\.8120"):
        collect(run)
    path.write_text("- value: 1")
    with pytest.raises(ValueError, match="truncated or damaged"):
        collect(run)


def test_predictions_are_two_listed_files_and_only_when_asked(run):
    (run / "predictions").mkdir()
    for name in ("validation", "test", "train"):
        pandas.DataFrame({"image_id": ["13_0.png"]}).to_parquet(run / f"predictions/{name}.parquet")
    assert sent_names(run) == NAMES
    names = {file.path for file in collect(run, PushExtras(predictions=True))}
    assert names == {*NAMES, "predictions/test.parquet", "predictions/validation.parquet"}
    pandas.DataFrame({"image_id": [f"{HOME}/13_0.png"]}).to_parquet(run / "predictions/test.parquet")
    with pytest.raises(ValueError, match=rf"test\.parquet \(image_id\): {HOME}"):
        collect(run, PushExtras(predictions=True))


@pytest.mark.parametrize("name", sorted({*NAMES} - {"figures/roc_test.png"}))
def test_a_missing_or_empty_file_is_named(run, name):
    content = (run / name).read_bytes()
    (run / name).unlink()
    with pytest.raises(FileNotFoundError, match=name):
        collect(run)
    (run / name).touch()
    with pytest.raises(FileNotFoundError, match=f"{name} is empty"):
        collect(run)
    (run / name).write_bytes(content)
    assert sent_names(run) == NAMES


def test_a_figure_that_the_card_does_not_show_may_be_missing(run):
    (run / "figures/roc_test.png").unlink()
    assert sent_names(run) == sorted({*NAMES} - {"figures/roc_test.png"})


def test_an_unfinished_run_says_how_to_finish(run):
    (run / "report.html").unlink()
    with pytest.raises(FileNotFoundError, match=r"report\.html is missing.*another --output_dir"):  # it is finished
        collect(run)
    (run / "metrics.json").unlink()
    (run / "checkpoint-3").mkdir()
    with pytest.raises(FileNotFoundError, match=r"metrics\.json is missing.*hf-cxr train"):
        collect(run)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("how", ["link out", "link inside", "hard link", "folder", "pipe"])
def test_only_regular_files_are_taken(run, tmp_path, name, how):
    path = run / name
    outside = shutil.move(path, (run if how == "link inside" else tmp_path) / "secret.bin")
    {
        "link out": lambda: path.symlink_to(outside),
        "link inside": lambda: path.symlink_to(outside),
        "hard link": lambda: os.link(outside, path),
        "folder": path.mkdir,
        "pipe": lambda: os.mkfifo(path),
    }[how]()
    words = {"hard link": "is a hard link", "folder": "is not a regular file", "pipe": "is not a regular file"}
    with pytest.raises(ValueError, match=f"{name} {words.get(how, 'is a link')}"):
        collect(run)


@pytest.mark.parametrize("inside", [True, False])
def test_a_linked_folder_is_refused(run, tmp_path, inside):
    target = (run if inside else tmp_path) / "elsewhere"
    (run / "figures").rename(target)
    (run / "figures").symlink_to(target)
    with pytest.raises(ValueError, match="figures is a link"):
        collect(run)


def test_a_run_folder_may_itself_be_reached_by_a_link(run, tmp_path):
    (tmp_path / "latest").symlink_to(run)
    assert sent_names(tmp_path / "latest") == NAMES


@pytest.mark.parametrize("name", sorted({*NAMES} - {"README.md"}))
@pytest.mark.parametrize("left", [0.3, 0.9, -1])
def test_a_file_that_is_cut_off_is_refused(run, name, left):
    content = (run / name).read_bytes().rstrip()
    (run / name).write_bytes(content[: int(len(content) * left) if left > 0 else left])
    with pytest.raises(ValueError, match=rf"{name} is truncated or damaged"):
        collect(run)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("config.yaml", b"loss: [bce"),
        ("config.yaml", b"- a\n- b\n"),
        ("config.yaml", b"loss: &itself [*itself]\nweight_decay: 0.05\n"),
        ("metrics.json", b"[]"),
        ("README.md", b"---\na: b\n---\n\xff\xfe"),
        ("figures/training.png", b"\xff\xd8\xff\xe0 a JPEG"),
        ("model.safetensors", b"\0" * 4096),
    ],
)
def test_a_file_of_another_kind_is_refused(run, name, content):
    (run / name).write_bytes(content)
    with pytest.raises(ValueError, match=name):
        collect(run)


def test_a_picture_with_something_behind_it_is_refused(run):
    with (run / "figures/training.png").open("ab") as file:
        file.write(b"PK\x03\x04 an archive")
    with pytest.raises(ValueError, match=r"training\.png.*after the end"):
        collect(run)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_refused(run, value):
    weights = torch.ones(3, dtype=torch.bfloat16)
    save_file({"classifier.bias": torch.zeros(2), "layer": weights}, run / "model.safetensors")
    assert sent_names(run) == NAMES
    weights[1] = value
    save_file({"classifier.bias": torch.zeros(2), "layer": weights}, run / "model.safetensors")
    with pytest.raises(ValueError, match=r"NaN or infinity in layer"):
        collect(run)


@pytest.mark.parametrize(
    ("name", "values", "words"),
    [
        ("config.json", {"hf_cxr": {"split": "other"}}, "split"),
        ("config.json", {"hf_cxr": {"split": "abc", "dataset": "other"}}, "dataset"),
        ("config.json", {"id2label": {"0": "Nodule", "1": "Mass"}}, "findings"),
        ("config.json", {"image_size": 64}, "image_size"),
        ("metrics.json", {"protocol": {"seed": 2}}, "seed"),
        ("metrics.json", {"protocol": {"loss": {"name": "focal"}}}, "loss"),
        ("metrics.json", {"test": {"all": {"auc": {"macro": 0.9}}}}, "0.900"),
    ],
)
def test_files_of_two_runs_are_refused(run, name, values, words):
    change(run / name, **values)
    with pytest.raises(ValueError, match=rf"different runs.*{words}"):
        collect(run)


def test_weights_that_are_not_those_that_were_measured_are_refused(run):
    change(run / "metrics.json", model_sha256=file_sha256(run / "model.safetensors"))
    assert sent_names(run) == NAMES
    content = bytearray((run / "model.safetensors").read_bytes())
    content[-1] ^= 1
    (run / "model.safetensors").write_bytes(content)
    with pytest.raises(ValueError, match=r"model\.safetensors.*SHA-256"):
        collect(run)


@pytest.mark.parametrize("kind", ["auc", "roc_auc"])  # today's name, and that of earlier versions
def test_a_card_with_other_figures_is_refused(run, kind):
    results = [
        {
            "task": {"type": "image-classification"},
            "dataset": {"name": "set", "type": "set", "split": "test"},
            "metrics": [{"type": kind, "value": 0.95}],
        }
    ]
    card = yaml.safe_dump({"model-index": [{"name": "run", "results": results}]})
    (run / "README.md").write_text(f"---\n{card}---\n\n# A run\n")
    with pytest.raises(ValueError, match=r"different runs.*0\.95.*0\.8124"):
        collect(run)


PATHS = [
    "/home/ann/nih",
    "/Users/ann/x.png",
    "/tmp",
    "~/data",
    "~ann/data",
    "C:\\Users\\Ann\\nih",
    "d:/data/nih",
    "\\\\server\\share\\nih",
    "file:///srv/nih",
    "/mnt/Größe/x",
    "//home/ann/x",
    "sqlite:////home/ann/runs.db",
    "vscode://file/home/ann/x",
]


@pytest.mark.parametrize("path", PATHS)
def test_a_local_path_in_any_file_is_refused(run, path):
    for name, content in (
        ("README.md", CARD + f"\n- initial weights: {path}\n"),
        ("report.html", PAGE.replace("AUC", f"AUC {path.replace('/', '&#x2F;')}")),
        ("metrics.json", json.dumps(METRICS | {"note": [f"from {path}, say"]}).replace("/", "\\u002f")),
        ("config.json", json.dumps(CONFIG | {"_name_or_path": path})),
        ("preprocessor_config.json", json.dumps({"a": {path: 1}})),
    ):
        before = (run / name).read_text()
        (run / name).write_text(content)
        with pytest.raises(ValueError, match="local paths would be published") as caught:
            collect(run)
        assert f"{name} (" in str(caught.value)
        assert re.sub(r"^(sqlite|vscode):", "", path) in str(caught.value)
        (run / name).write_text(before)
    assert sent_names(run) == NAMES


def test_a_local_path_in_a_pictures_or_the_weights_metadata_is_refused(run):
    info = PngImagePlugin.PngInfo()
    info.add_text("Source", HOME)
    Image.new("L", (4, 4)).save(run / "figures/training.png", pnginfo=info)
    with pytest.raises(ValueError, match=rf"training\.png \(Source\): {HOME}"):
        collect(run)
    Image.new("L", (4, 4)).save(run / "figures/training.png")
    save_file({"x": torch.ones(3)}, run / "model.safetensors", metadata={"from": HOME})
    with pytest.raises(ValueError, match=rf"safetensors \(metadata from\): {HOME}"):
        collect(run)


def png_with(*chunks: tuple[bytes, bytes], before: bytes) -> bytes:
    """A picture with chunks (name, data) before the first chunk of a name."""
    buffer = io.BytesIO()
    Image.new("L", (4, 4)).save(buffer, format="PNG")
    content = buffer.getvalue()
    place = content.index(before) - 4
    parts = [(len(data).to_bytes(4, "big"), name + data) for name, data in chunks]
    inserted = b"".join(size + part + zlib.crc32(part).to_bytes(4, "big") for size, part in parts)
    return content[:place] + inserted + content[place:]


@pytest.mark.parametrize("before", [b"IDAT", b"IEND"])
def test_a_local_path_is_found_anywhere_in_a_picture(run, before):
    picture = run / "figures/training.png"
    for name, data, words in (
        (b"tEXt", b"Source\0/home/ann/nih", "local paths would be published"),
        (b"zTXt", b"Source\0\0" + zlib.compress(b"/home/ann/nih"), "local paths would be published"),
        (b"prVt", b"/home/ann/nih", "prVt"),
    ):
        picture.write_bytes(png_with((name, data), before=before))
        with pytest.raises(ValueError, match=rf"training\.png.*{words}|{words}.*training\.png"):
            collect(run)
    picture.write_bytes(png_with((b"tEXt", b"Software\0matplotlib"), before=before))
    assert sent_names(run) == NAMES


@pytest.mark.parametrize("key", ["nih_root", "prepared", "split_file", "table", "table_root", "model_name_or_path"])
def test_settings_go_up_without_paths(run, key):
    for path in [*PATHS, "data/nih", "../nih", "./nih/x", "nih\\images"]:
        setting = yaml.safe_dump(SETTINGS | {key: path, "output_dir": path, "fsdp_config": {"file": path}})
        (run / "config.yaml").write_text(setting)
        (config,) = (file for file in collect(run) if file.path == "config.yaml")
        settings = yaml.safe_load(config.content)
        assert settings.items() >= SETTINGS.items(), path
        assert "output_dir" not in settings, path
        name = path.replace("\\", "/").rstrip("/").rsplit("/", 1)[-1]
        assert settings.get(key) in (None, name), path
        assert path not in config.content.decode(), path
        if key in ("prepared", "split_file", "model_name_or_path"):  # without it, the settings would be another run's
            assert settings[key] == name, path
        assert (run / "config.yaml").read_text() == setting  # the run's own keeps its paths: it can be repeated


def test_a_hub_id_and_a_ready_table_stay_in_the_settings():
    settings = {"model_name_or_path": "microsoft/swin-base", "table": "chexpert", "trackio_space_id": "you/space"}
    kept, hidden = published_settings(settings, {"base_model": "microsoft/swin-base"})
    assert (kept, hidden) == (settings, set())
    assert published_settings(settings, {})[0] == settings  # an older run does not say where its weights came from
    kept, hidden = published_settings(settings, {"base_model": None})
    assert kept["model_name_or_path"] == "swin-base"
    assert hidden == {"microsoft/swin-base"}


def test_a_relative_path_of_the_settings_is_in_no_other_file(run):
    (run / "config.yaml").write_text(yaml.safe_dump(SETTINGS | {"nih_root": "dr_who/nih"}))
    assert sent_names(run) == NAMES
    (run / "README.md").write_text(CARD + "\nTrained on dr_who/nih.\n")
    with pytest.raises(ValueError, match=r"README\.md \(line 12\): dr_who/nih"):
        collect(run)


@pytest.mark.parametrize("name", ["README.md", "config.json", "config.yaml", "metrics.json", "report.html"])
@pytest.mark.parametrize("secret", ["hf_" + "aB3" * 12, "api_org_" + "aB3" * 12, "some-other-token"])
def test_a_token_is_refused_and_not_repeated(run, name, secret):
    old = {"README.md": "A run", "config.yaml": "bce", "report.html": "AUC"}.get(name, "set")
    (run / name).write_text((run / name).read_text().replace(old, f"{old} {secret}"))
    with pytest.raises(ValueError, match=f"{name} contains an access token") as caught:
        collect(run, token="some-other-token")
    assert secret not in str(caught.value)


def test_a_token_is_found_as_a_reader_has_it(run):
    secret = "hf_" + "aB3" * 12
    compressed = b"Note\0\0" + zlib.compress(secret.encode())
    for name, content in (
        ("config.yaml", yaml.safe_dump(SETTINGS | {"a": 1}).replace("a: 1", f'a: "\\x68{secret[1:]}"').encode()),
        ("preprocessor_config.json", json.dumps({"a": secret}).replace("hf_", "\\u0068f_").encode()),
        ("report.html", PAGE.replace("AUC", f"AUC {secret.replace('_', '&#95;')}").encode()),
        ("README.md", f"{CARD}\nx_{secret} hf_oauth_{'aB3' * 12}\n".encode()),
        ("figures/training.png", png_with((b"zTXt", compressed), before=b"IEND")),
    ):
        before = (run / name).read_bytes()
        (run / name).write_bytes(content)
        with pytest.raises(ValueError, match=f"{name} contains an access token"):
            collect(run)
        (run / name).write_bytes(before)
    assert sent_names(run) == NAMES
    save_file({"classifier.bias": torch.zeros(2)}, run / "model.safetensors", metadata={"from": secret})
    with pytest.raises(ValueError, match="safetensors contains an access token"):
        collect(run)


def test_a_token_that_an_earlier_version_left_in_a_checkpoint_is_reported(run, capsys):
    (run / "checkpoint-3").mkdir()
    arguments = run / "checkpoint-3/training_args.bin"
    torch.save({"hub_token": None}, arguments)
    assert exposed_tokens(run) == []
    torch.save({"hub_token": "hf_" + "aB3" * 12}, arguments)
    assert exposed_tokens(run) == [arguments]
    assert hf_cxr_main(["push", str(run), "you/name", "--dry_run"]) == 0
    error = capsys.readouterr().err
    assert str(arguments) in error
    assert "aB3" not in error


def test_dry_run_lists_names_and_sizes_and_asks_for_nothing(run, capsys, monkeypatch):
    """Offline, as every test is, and without a token."""
    monkeypatch.setattr("hf_cxr.hub.runs.get_token", lambda: None)
    assert hf_cxr_main(["push", str(run), "you/name", "--dry_run"]) == 0
    *rows, tag, why, total = (line.split() for line in capsys.readouterr().out.splitlines())
    assert tag[0] == "tag"
    assert tag[1].startswith("run-")
    assert "offline" in why
    sizes = {row[-1]: int(row[0].replace(",", "")) for row in rows}
    assert sorted(sizes) == NAMES
    assert sizes["model.safetensors"] == (run / "model.safetensors").stat().st_size
    assert int(total[0].replace(",", "")) == sum(sizes.values())


@pytest.mark.parametrize("repo", ["you/name", "a/b/c"])
def test_dry_run_refuses_what_a_push_refuses(run, capsys, repo):
    if repo == "you/name":
        (run / "report.html").unlink()
    for flags in (["--dry_run"], []):
        assert hf_cxr_main(["push", str(run), repo, *flags]) == 2
        printed = capsys.readouterr()
        assert printed.out == ""
        assert len(printed.err.splitlines()) == 1
        assert ("report.html is missing" if repo == "you/name" else "a/b/c") in printed.err


def test_predictions_do_not_go_into_a_public_repository(run, capsys):
    with pytest.raises(ValueError, match=r"identifiers of patients.*--public"):
        push_run(run, "you/name", private=False, extras=PushExtras(predictions=True))
    for flags in ([], ["--dry_run"]):
        with pytest.raises(SystemExit, match="2"):
            hf_cxr_main(["push", str(run), "you/name", "--public", "--include_predictions", *flags])
        assert "does not go with --public" in capsys.readouterr().err
    with pytest.raises(SystemExit, match="2"):
        hf_cxr_main(["push", str(run), "you/name", "--handler_requirement", "hf-cxr"])
    assert "give both" in capsys.readouterr().err
