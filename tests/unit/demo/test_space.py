"""The folder of a Space: only what is listed, no path of this machine, metadata that the Hub reads."""

import importlib.util
import socket

import pytest
from hub_runs import KEPT_HERE, write_run
from huggingface_hub import SpaceCard

from hf_cxr.commands import main
from hf_cxr.demo.space import COPIED, export_space

OURS = {".gitattributes", "README.md", "app.py", "requirements.txt"}


def files(folder) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return write_run(tmp_path_factory.mktemp("home") / "first_run")


def test_a_run_is_copied_by_name(run, tmp_path):
    place = tmp_path / "space"
    names = export_space(run, place)
    copied = {f"model/{name}" for name in COPIED if (run / name).is_file()}
    assert files(place) == set(names) == OURS | copied
    assert copied == {"model/config.json", "model/model.safetensors", "model/preprocessor_config.json"}
    assert not {name.split("/")[-1] for name in names} & {name.split("/")[-1] for name in KEPT_HERE} - set(COPIED)
    for path in place.rglob("*"):
        if path.is_file():
            assert str(run.parent).encode() not in path.read_bytes()
    compile((place / "app.py").read_text(), "app.py", "exec")
    data = SpaceCard.load(place / "README.md").data
    assert (data.sdk, data.app_file, data.models) == ("gradio", "app.py", None)
    assert data.sdk_version == importlib.metadata.version("gradio")


def test_a_hub_model_is_named(tmp_path):
    place = tmp_path / "space"
    export_space("somebody/chest", place, revision="abc", requirement="hf-cxr[demo] @ git+https://example.org/x")
    assert files(place) == OURS
    assert "show('somebody/chest', revision='abc')" in (place / "app.py").read_text()
    assert SpaceCard.load(place / "README.md").data.models == ["somebody/chest"]
    assert "git+https://example.org/x" in (place / "requirements.txt").read_text()


def test_nothing_is_written_where_something_is(run, tmp_path, capsys):
    (tmp_path / "patient.png").write_bytes(b"x")
    assert main(["demo", str(run), "--export_space", str(tmp_path)]) == 2
    assert "not empty" in capsys.readouterr().err
    assert files(tmp_path) == {"patient.png"}


@pytest.mark.parametrize("requirement", ["torch", "hf-cxr[", ""])
def test_what_a_space_installs_is_this_package(run, tmp_path, requirement):
    with pytest.raises(ValueError, match=r"requirement|is needed is hf-cxr"):
        export_space(run, tmp_path / "space", requirement=requirement)
    assert not (tmp_path / "space").exists()


def test_a_taken_port_is_refused_before_the_model_is_loaded(capsys):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        assert main(["demo", "no/such/run", "--port", str(taken.getsockname()[1])]) == 2
    assert main(["demo", "no/such/run", "--host", "no host", "--no_password"]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert [f"cannot listen at {place}" in line for place, line in zip(("port", "no host"), lines, strict=True)]


def test_a_network_needs_a_password(capsys, monkeypatch):
    monkeypatch.delenv("HF_CXR_DEMO_AUTH", raising=False)
    assert main(["demo", "no/such/run", "--host", "0.0.0.0"]) == 2
    monkeypatch.setenv("HF_CXR_DEMO_AUTH", "ann:secret")
    assert main(["demo", "no/such/run", "--no_password"]) == 2
    lines = capsys.readouterr().err.splitlines()
    expected = ("set HF_CXR_DEMO_AUTH=user:password, or give --no_password", "leave out one of them")
    assert [words in line for words, line in zip(expected, lines, strict=True)] == [True] * 2
    assert "secret" not in "".join(lines)


def test_the_command_refuses_what_it_cannot_do(run, capsys, monkeypatch):
    for words in (["--port", "70000"], ["--space_requirement", "x"]):
        with pytest.raises(SystemExit, match="2"):
            main(["demo", str(run), *words])
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, package=None: None)
    assert main(["demo", str(run)]) == 2
    lines = capsys.readouterr().err.splitlines()
    expected = ("70000 is not a port", "give both", "pip install 'hf-cxr[demo]'")
    assert [words in line for words, line in zip(expected, lines, strict=True)] == [True] * 3
