"""What is written of a model: nothing of this machine, nothing over other files, and nothing that differs too much."""

import json

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from hf_cxr.export.onnx_model import ExportMetadata, check_clean, describe, strip
from hf_cxr.export.page import RUNTIME_FILES, WEB, check_runtime
from hf_cxr.export.parity import measure_parity
from hf_cxr.export.place import check_place
from hf_cxr.export.quantize import quantised, way_of
from hf_cxr.exported_files import MODEL, QUANTIZED, RESULT, Wanted
from hf_cxr.hub.onnx_text import onnx_text
from hf_cxr.processing import Preprocessing
from hf_cxr.words import NOTICE

STEPS = Preprocessing(36, 32, 3, 1 / 255, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
ABOUT = ExportMetadata(("Effusion", "Mass"), (0.25, float("nan")), STEPS, {"model_sha256": "a" * 64})


def model_of(*nodes, weights=()) -> onnx.ModelProto:
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", 4]) for name in ("x", "y")]
    graph = helper.make_graph(list(nodes), "graph", values[:1], values[1:], initializer=list(weights))
    return helper.make_model(graph)


def with_traces() -> onnx.ModelProto:
    """A model as torch writes it: with the lines of source code, one of them in a branch of a node."""
    inner = helper.make_node("Relu", ["x"], ["inner"])
    branch = helper.make_graph([inner], "branch", [], [helper.make_tensor_value_info("inner", 1, None)])
    node = helper.make_node("If", ["c"], ["y"], then_branch=branch, else_branch=branch)
    model = model_of(node)
    trace = 'File "/home/ann/model.py", line 1'
    node = model.graph.node[0]
    for place in (node, node.attribute[0].g.node[0], model.graph):
        place.metadata_props.add(key="stack_trace", value=trace)
        place.doc_string = trace
    return model


def test_traces_are_removed_at_every_depth_and_what_is_left_is_searched():
    model = with_traces()
    assert b"/home/ann" in model.SerializeToString()
    with pytest.raises(ValueError, match="/home/ann"):
        check_clean(model, MODEL)
    strip(model)
    assert b"/home" not in model.SerializeToString()
    assert "If" in [text for _, text in onnx_text(model).all]
    check_clean(model, MODEL)
    for text, word in (("/home/ann/x.png", "/home/ann"), ("hf_" + "a" * 34, "token")):
        model.graph.node[0].attribute.append(helper.make_attribute("note", text))
        with pytest.raises(ValueError, match=word):
            check_clean(model, MODEL)
        model.graph.node[0].attribute.pop()


def test_a_scope_in_a_name_is_no_path_and_a_path_and_a_token_are_found_there():
    model = model_of(helper.make_node("Relu", ["x"], ["y"], "/swin/embeddings/Relu"))
    check_clean(model, MODEL)
    for name, word in (("/home/ann/a.py/Relu", "/home/ann"), ("/w/e/model.py", "/w/e"), ("hf_" + "a" * 34, "token")):
        for place in ("node", "value"):
            changed = onnx.ModelProto()
            changed.CopyFrom(model)
            if place == "node":
                changed.graph.node[0].name = name
            else:
                changed.graph.node[0].output.append(name)
            with pytest.raises(ValueError, match=word):
                check_clean(changed, MODEL)


def test_the_page_says_what_everything_that_is_made_of_a_model_says():
    assert NOTICE in (WEB / "index.html").read_text(encoding="utf-8")


def test_a_file_says_what_it_is():
    model = model_of(helper.make_node("Relu", ["x"], ["y"]))
    describe(model, ABOUT)
    describe(model, ABOUT)  # in place of the first, not after it
    metadata = {entry.key: entry.value for entry in model.metadata_props}
    assert len(metadata) == len(model.metadata_props)
    assert json.loads(metadata["label_names"]) == ["Effusion", "Mass"]
    assert json.loads(metadata["thresholds"]) == {"Effusion": 0.25, "Mass": None}
    assert metadata["model_sha256"] == "a" * 64
    assert metadata["resample"] == "bicubic"
    assert "Not a medical device" in metadata["warning"]


def test_parity_is_the_largest_difference_in_batches_of_every_size():
    rng = np.random.default_rng(0)
    logit_NC = rng.normal(size=(5, 2)).astype(np.float32)
    sizes = []

    def logits_of(value):
        sizes.append(len(value))
        moved = value.copy()
        moved[0, 1] += 0.25
        return moved

    parity = measure_parity(logits_of, logit_NC, logit_NC, "5 images")
    assert sizes == [1, 2, 7, 3, 16]
    assert parity.logit == pytest.approx(0.25, abs=1e-6)
    assert 0.03 < parity.probability < 0.0625  # the sigmoid's slope is at most a quarter
    with pytest.raises(ValueError, match=r"model\.onnx differs .* not kept"):
        parity.check(MODEL)
    measure_parity(lambda value: value, logit_NC, logit_NC, "5 images").check(MODEL)


def test_what_is_not_a_number_is_no_parity():
    logit_NC = np.zeros((2, 1), np.float32)
    parity = measure_parity(lambda value: value + np.nan, logit_NC, logit_NC, "images")
    with pytest.raises(ValueError, match="nan"):
        parity.check(MODEL)


@pytest.mark.parametrize(("kind", "shape", "way"), [("MatMul", (4, 4), "dynamic"), ("Conv", (4, 4, 3, 3), "static")])
def test_the_way_of_quantising_follows_the_weights(kind, shape, way):
    weight = helper.make_tensor("w", TensorProto.FLOAT, shape, np.ones(shape, np.float32).ravel())
    assert way_of(model_of(helper.make_node(kind, ["x", "w"], ["y"]), weights=[weight]), "run") == way


def test_a_model_without_such_weights_is_refused():
    with pytest.raises(ValueError, match="no matrix products"):
        way_of(model_of(helper.make_node("Relu", ["x"], ["y"])), "run")


def test_what_onnxruntime_cannot_quantise_is_one_line():
    weight = helper.make_tensor("w", TensorProto.FLOAT, (4, 4), np.ones(16, np.float32))
    nodes = [helper.make_node("MatMul", ["x", "w"], ["z"]), helper.make_node("NoSuchOperator", ["z"], ["y"])]
    with pytest.raises(ValueError, match=r"onnxruntime cannot quantise run .*leave out --int8"):
        quantised(model_of(*nodes, weights=[weight]), ABOUT, "dynamic", np.zeros((0, 1), np.float32), "run")


def test_files_are_added_to_an_export_of_the_same_model_and_to_nothing_else(tmp_path):
    assert check_place(tmp_path / "new", "a") == {}
    assert check_place(tmp_path, "a") == {}
    (tmp_path / "onnx").mkdir()
    (tmp_path / MODEL).write_bytes(b"model")
    with pytest.raises(ValueError, match=r"interrupted.*remove the folder and run the same command"):
        check_place(tmp_path, "a")
    (tmp_path / "notes.txt").write_text("")
    with pytest.raises(ValueError, match=r"not empty .*is not an export"):
        check_place(tmp_path, "a")
    (tmp_path / "notes.txt").unlink()
    values = {"model": {"model_sha256": "a"}, "files": {MODEL: {"bytes": 5}, QUANTIZED: {"bytes": 3}}}
    (tmp_path / RESULT).write_text(json.dumps(values), encoding="utf-8")
    assert check_place(tmp_path, "a") == {MODEL: {"bytes": 5}}  # the other is gone
    with pytest.raises(ValueError, match="another model"):
        check_place(tmp_path, "b")


def test_whatever_is_asked_for_in_onnx_comes_with_the_model():
    assert Wanted(int8=True).names == (MODEL, QUANTIZED)
    assert Wanted(program=True).any_onnx is False
    assert Wanted(page=True).whole


def test_the_page_names_the_line_that_installs_its_runtime(tmp_path):
    with pytest.raises(FileNotFoundError, match="npm install onnxruntime-web"):
        check_runtime(tmp_path)
    (tmp_path / "dist").mkdir()
    for name in RUNTIME_FILES:
        (tmp_path / "dist" / name).write_bytes(b"")
    assert check_runtime(tmp_path) == tmp_path / "dist"
