"""A saved model that a stranger wrote: its code is never run, and what is broken in it is named in one line."""

import ast
import json
import shutil
from pathlib import Path

import pytest
import torch
from model_files import edit
from PIL import Image
from safetensors.torch import load_file, save_file
from tiny import save_model

import hf_cxr
from hf_cxr.config import ModelArguments
from hf_cxr.inference.classifier import Classifier, stock_pipeline
from hf_cxr.labels import NIH14
from hf_cxr.models.build import build_model, check_model
from hf_cxr.processing import image_processor_for

PACKAGE = Path(hf_cxr.__file__).parent
POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:0123\nsize 45\n"


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    return save_model(tmp_path_factory.mktemp("saved") / "model")


@pytest.fixture
def model(saved, tmp_path):
    """A copy that a test may break."""
    return Path(shutil.copytree(saved, tmp_path / "model"))


def readers(folder):
    arguments = ModelArguments(model_name_or_path=str(folder), image_size=32, resize_size=36)
    return {
        "Classifier": lambda: Classifier(folder, device="cpu"),
        "stock_pipeline": lambda: stock_pipeline(folder, [Image.new("L", (40, 40), 90)]),
        "check_model": lambda: check_model(arguments),
        "build_model": lambda: build_model(arguments, NIH14),
    }


def refused(folder, message, *, by=("Classifier", "check_model", "build_model")):
    for name in by:
        with pytest.raises((ValueError, OSError), match=message) as caught:
            readers(folder)[name]()
        assert "\n" not in str(caught.value), name


def test_the_model_that_the_tests_break_is_whole(saved):
    for read in readers(saved).values():
        read()


# Model code


@pytest.mark.parametrize("file", ["config.json", "preprocessor_config.json", "tokenizer_config.json"])
@pytest.mark.parametrize("key", ["auto_map", "custom_pipelines"])
def test_a_model_with_code_of_its_own_is_refused(model, file, key):
    if not (model / file).is_file():
        (model / file).write_text("{}")
    edit(model, file, **{key: {"AutoModelForImageClassification": "evil.Model"}})
    refused(model, rf"model needs its own code \({key} in its {file}\)", by=list(readers(model)))


def test_nested_code_and_a_kernel_from_the_hub_are_refused(model):
    edit(model, attn_implementation="stranger/kernel")
    refused(model, r"its own code \(attn_implementation", by=list(readers(model)))
    edit(model, attn_implementation="sdpa")
    Classifier(model, device="cpu")
    nested = {"image_processor": {"auto_map": {"AutoImageProcessor": "evil.Processor"}}}
    (model / "processor_config.json").write_text(json.dumps(nested))
    refused(model, r"its own code \(auto_map in its processor_config", by=list(readers(model)))


def test_every_loader_of_the_package_gets_trust_remote_code_false():
    loaders, found = {"from_pretrained", "from_config", "pipeline", "load_dataset"}, 0
    for path in PACKAGE.rglob("*.py"):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for call in (node for node in ast.walk(tree) if isinstance(node, ast.Call)):
            # partial(loader, ...) is a call of the loader
            named = [call.func, *(call.args[:1] if getattr(call.func, "id", None) == "partial" else [])]
            if not any(getattr(name, "attr", getattr(name, "id", None)) in loaders for name in named):
                continue
            given = {keyword.arg: keyword.value for keyword in call.keywords}
            value = given.get("trust_remote_code")
            assert isinstance(value, ast.Constant), f"{path.name}, line {call.lineno}: no trust_remote_code=False"
            assert value.value is False, f"{path.name}, line {call.lineno}: trust_remote_code is not False"
            found += 1
    assert found >= 6


def test_a_dataset_that_is_a_script_is_refused(tmp_path):
    from hf_cxr.data import load_table

    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "data.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
    (tmp_path / "t.yaml").write_text(
        "name: stranger\nhub: data\nimage_column: image\npatient_column: patient\nfindings: {Mass: Mass}\n"
    )
    with pytest.raises(ValueError, match=r"data needs .*code.* is never run"):
        load_table(tmp_path / "t.yaml", tmp_path)
    assert not (tmp_path / "ran").exists()


# Weights


def test_pickled_weights_are_not_read(model, tmp_path):
    class Evil:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "ran",))

    torch.save({"swin": Evil()}, model / "pytorch_model.bin")
    (model / "model.safetensors").unlink()
    refused(model, r"weights in pytorch_model\.bin and not in model\.safetensors", by=list(readers(model)))
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("tensor", "value"),
    [
        ("layernorm_before", float("nan")),
        ("patch_embeddings.projection", float("inf")),
        ("layernorm_before", -float("inf")),
    ],
)
def test_weights_that_are_not_finite_are_refused_by_name(model, value, tensor):
    tensors = load_file(model / "model.safetensors")
    key = next(name for name in tensors if tensor in name and name.endswith("weight"))
    tensors[key].view(-1)[1] = value
    save_file(tensors, model / "model.safetensors", metadata={"format": "pt"})
    refused(model, rf"has 1 weights in swin\..*{tensor}.*weight that are not finite")


def test_finite_weights_whose_outputs_are_not_are_refused_or_reported(model, tmp_path):
    tensors = {key: torch.full_like(value, 3e38) for key, value in load_file(model / "model.safetensors").items()}
    save_file(tensors, model / "model.safetensors", metadata={"format": "pt"})
    refused(model, "gives nan for a uniform image", by=["check_model"])
    Image.new("L", (40, 40), 90).save(tmp_path / "image.png")
    [(_, answer)] = Classifier(model, device="cpu").predict_files([tmp_path / "image.png"])
    assert "image.png: the model's output is not a number" in str(answer)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (lambda whole: b"", "damaged or incomplete .0 bytes"),
        (lambda whole: whole[:5], "damaged or incomplete .5 bytes"),
        (lambda whole: whole[: len(whole) // 2], "damaged or incomplete"),
        (lambda whole: whole[:-1], "damaged or incomplete"),
        (lambda whole: b"\xff" * 400, "damaged or incomplete"),
        (lambda whole: POINTER.encode(), "is a Git LFS pointer .*git lfs pull"),
    ],
)
def test_broken_weights_are_refused_with_their_file(model, content, message):
    file = model / "model.safetensors"
    file.write_bytes(content(file.read_bytes()))
    refused(model, rf"model\.safetensors.*{message}", by=list(readers(model)))


def test_shards_must_be_there_and_inside(model):
    (model / "model.safetensors").rename(model / "model-00001-of-00002.safetensors")
    index = model / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"a": "model-00001-of-00002.safetensors", "b": "../b.safetensors"}}))
    refused(model, r"names '\.\./b\.safetensors'")
    index.write_text(json.dumps({"weight_map": {"a": "model-00002-of-00002.safetensors"}}))
    refused(model, "has no model-00002-of-00002")
    index.write_text("{}")
    refused(model, "no weight_map")
    names = load_file(model / "model-00001-of-00002.safetensors")
    shards = dict.fromkeys(names, "model-00001-of-00002.safetensors")
    index.write_text(json.dumps({"metadata": {}, "weight_map": shards}))
    Classifier(model, device="cpu")


# Folders and configs


def test_what_is_not_a_model_folder_is_named(model, tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "dangling").symlink_to(tmp_path / "nothing")
    for name, message in {
        "empty": "empty contains no saved model: it is empty",
        "model/config.json": "is not a folder",
        "dangling": "is not a folder",
        "nothing": "no such run folder",
    }.items():
        refused(tmp_path / name, message)
    refused(tmp_path, "contains no saved model: it has no config.json; give a folder inside it, such as model")
    refused("a name", "is not a Hub id")
    refused("nobody/nothing", "nobody/nothing .*: HF_HUB_OFFLINE is set")
    (model / "model.safetensors").unlink()
    refused(model, r"has no model\.safetensors")
    (model / "adapter_config.json").write_text("{}")
    refused(model, "PEFT adapter")


@pytest.mark.parametrize("content", ["", "{", "[]", "[" * 99_999, '{"image_size": ' + 5000 * "9" + "}", POINTER])
def test_broken_json_is_refused_with_its_file(model, content):
    for file in ("config.json", "preprocessor_config.json"):
        before = (model / file).read_text()
        (model / file).write_text(content)
        refused(model, rf"{file} (is not valid JSON|is not a JSON object|is a Git LFS pointer)")
        (model / file).write_text(before)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ({"0": "a", "2": "b"}, "must number the findings 0 to 1"),
        ({"x": "a"}, "must number the outputs"),
        (["a"], "must name each output"),
        ({"0": "a", "1": "a"}, "one name for two findings"),
        ({"0": "a", "1": 7}, "names a finding 7"),
        (..., "has no id2label"),
    ],
)
def test_a_classifier_must_name_its_outputs(model, names, message):
    edit(model, id2label=names)
    refused(model, message, by=["Classifier"])
    edit(model, id2label={str(i): name for i, name in enumerate(NIH14)})
    assert Classifier(model, device="cpu").label_names == tuple(NIH14)


@pytest.mark.parametrize(
    "file", [None, "config.json", "model.safetensors"], ids=["whole", "with code", "without safetensors"]
)
def test_a_model_on_the_hub_is_read_under_the_same_rules(hub, model, tmp_path, file):
    from huggingface_hub import HfApi

    if file == "config.json":
        edit(model, auto_map={"AutoConfig": "evil.Config"})
    if file == "model.safetensors":
        torch.save(load_file(model / file), model / "pytorch_model.bin")
        (model / file).unlink()
    api = HfApi()
    api.create_repo("tester/model")
    api.upload_folder(repo_id="tester/model", folder_path=model)
    if file is None:
        assert Classifier("tester/model", device="cpu").label_names == tuple(NIH14)
        arguments = ModelArguments(model_name_or_path="tester/model", image_size=32, resize_size=36)
        check_model(arguments)
        assert image_processor_for(arguments).size["height"] == 36
    else:
        message = {"config.json": "needs its own code", "model.safetensors": r"has no model\.safetensors"}[file]
        refused("tester/model", f"tester/model {message}", by=["Classifier", "check_model"])
    assert not [request for request in hub.requests if request.method == "GET" and request.path.endswith(".bin")]
    refused("tester/none", "tester/none .*: no such repository", by=["Classifier"])
