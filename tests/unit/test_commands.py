"""What commands print when they fail: one line and a status; the traceback with --debug; on any system."""

import errno
import importlib
import json
import os
import pickle
import re
import runpy
import struct
import sys
import tarfile
import zipfile
import zlib
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from types import SimpleNamespace

import pyarrow.parquet
import pytest
import safetensors.torch
import torch
import yaml
from PIL import Image
from torch.utils.data import DataLoader, Dataset

from hf_cxr.commands import COMMANDS, main, run_command
from hf_cxr.commands.errors import describe_error
from hf_cxr.config import parse_arguments, split_words, take_config
from hf_cxr.files import OutputError
from hf_cxr.reporting.run import Report

ROOT = Path(__file__).parents[2]


def damaged_safetensors(folder):
    (folder / "model.safetensors").write_bytes(b"\xff" * 40)
    return safetensors.torch.load_file(folder / "model.safetensors")


def damaged_checkpoint(folder):
    (folder / "optimizer.pt").write_bytes(b"PK\x03\x04 cut off")
    return torch.load(folder / "optimizer.pt", weights_only=True)


def empty_pickle(folder):
    (folder / "x.pkl").write_bytes(b"")
    with (folder / "x.pkl").open("rb") as file:
        return pickle.load(file)


def damaged_parquet(folder):
    (folder / "x.parquet").write_bytes(b"PAR1 cut off")
    return pyarrow.parquet.read_table(folder / "x.parquet")


def damaged_zip(folder):
    (folder / "x.zip").write_bytes(b"PK cut off")
    return zipfile.ZipFile(folder / "x.zip")


def damaged_tar(folder):
    (folder / "x.tar").write_bytes(b"cut off")
    return tarfile.open(folder / "x.tar")


def not_utf8(folder):
    (folder / "x.json").write_bytes(b"\xff\xfe{")
    return json.loads((folder / "x.json").read_text(encoding="utf-8"))


def nested_too_deeply(folder):
    return json.loads("[" * 100_000)


def without_space(folder):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(folder / "checkpoint-3"))


class Broken(Dataset):
    def __len__(self):
        return 1

    def __getitem__(self, index):
        raise ValueError("a.png cannot be read:\n  it is cut off")


def broken_image_in_a_worker(folder):
    return list(DataLoader(Broken(), num_workers=1))


INPUT = {
    "safetensors": (damaged_safetensors, "safetensors file"),
    "torch": (damaged_checkpoint, ""),
    "pickle": (empty_pickle, "ends too early"),
    "parquet": (damaged_parquet, "Parquet"),
    "zip": (damaged_zip, "zip"),
    "tar": (damaged_tar, "file could not be opened"),
    "zlib": (lambda folder: zlib.decompress(b"cut off"), "decompress"),
    "struct": (lambda folder: struct.unpack("<I", b"x"), "4 bytes"),
    "encoding": (not_utf8, "utf-8"),
    "yaml": (lambda folder: yaml.safe_load("a: b: c"), "mapping values"),
    "key": (lambda folder: {}["age"], "unexpected KeyError: 'age'"),
    "nested": (nested_too_deeply, "recursion"),
    "folder": (lambda folder: folder.read_text(), "Is a directory"),
    "disk": (without_space, "disk is full"),
    "memory": (lambda folder: [0] * 2**60, "out of memory"),
    "worker": (broken_image_in_a_worker, "a.png cannot be read: it is cut off"),
    "missing package": (lambda folder: importlib.import_module("no_such_package"), "no_such_package"),
}


@pytest.fixture
def command(monkeypatch):
    """A function that makes `hf-cxr describe` do something else."""
    module = importlib.import_module("hf_cxr.commands.describe")
    return lambda what: monkeypatch.setattr(module, "main", what)


def raising(error):
    def main(words):
        raise error

    return main


@pytest.mark.parametrize("kind", sorted(INPUT))
def test_what_input_causes_is_one_line_with_status_2(kind, command, capsys, tmp_path):
    cause, words = INPUT[kind]
    command(lambda _: cause(tmp_path))
    assert main(["describe"]) == 2
    err = capsys.readouterr().err
    assert err.startswith("hf-cxr describe: ")
    assert err.count("\n") == 1
    assert words in err
    assert "Traceback" not in err
    assert "  " not in err


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (BrokenProcessPool("A process in the process pool was terminated abruptly"), "fewer workers"),
        (RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed."), "fewer workers"),
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB."), "per_device_train_batch_size"),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"), "per_device_train_batch_size"),
        (safetensors.SafetensorError("I/O error: No space left on device (os error 28)"), "the disk is full"),
        (ValueError("first\nsecond\r\n\tthird"), "first second third"),
        (ConnectionError("the server is gone"), "the server is gone"),
    ],
)
def test_what_the_machine_causes_says_what_to_do(error, words, command, capsys):
    command(raising(error))
    assert main(["describe"]) == 2
    err = capsys.readouterr().err
    assert words in err
    assert err.count("\n") == 1


def test_a_full_disk_is_reported_once():
    line = describe_error(OutputError.of("a.csv", OSError(errno.ENOSPC, "No space left on device")))
    assert line == "cannot write a.csv: the disk is full; free disk space or give another place"


def test_a_full_disk_is_named_with_the_place():
    assert "/data/run/x" in describe_error(OSError(errno.ENOSPC, "No space left on device", "/data/run/x"))


@pytest.mark.parametrize("error", [TypeError("x"), AttributeError("x"), AssertionError("x"), NotImplementedError("x")])
def test_a_bug_is_called_one(error, command, capsys):
    command(raising(error))
    assert main(["describe"]) == 1
    err = capsys.readouterr().err
    assert f"unexpected {type(error).__name__}: x" in err
    assert "--debug" in err
    assert err.count("\n") == 1


def test_ctrl_c_is_status_130_without_a_traceback(command, capsys):
    command(raising(KeyboardInterrupt()))
    assert main(["describe"]) == 130
    assert capsys.readouterr().err == "hf-cxr describe: stopped\n"


def test_debug_shows_where_an_error_comes_from(command, capsys, monkeypatch):
    command(raising(ValueError("no")))
    for words in (["--debug", "describe"], ["describe", "--debug"]):
        assert main(words) == 2
        err = capsys.readouterr().err
        assert "Traceback (most recent call last)" in err
        assert err.endswith("hf-cxr describe: no\n")
    assert main(["describe"]) == 2
    assert "Traceback" not in capsys.readouterr().err
    monkeypatch.setenv("HF_CXR_DEBUG", "1")
    assert run_command("describe", []) == 2
    assert "Traceback" in capsys.readouterr().err


def test_debug_also_shows_what_a_command_refuses_itself(tmp_path, capsys):
    words = ["split", "--dataset", "table", "--table", str(tmp_path / "t.yaml"), "--check"]
    (tmp_path / "t.yaml").write_text("files: [no.csv]\n")
    assert main(words) == 2
    plain = capsys.readouterr().err
    assert plain.count("\n") == 1
    assert main(["--debug", *words]) == 2
    err = capsys.readouterr().err
    assert "Traceback" in err
    assert err.endswith(plain)


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_scripts_are_the_commands(name):
    assert f'run_command("{name}")' in (ROOT / "scripts" / f"{name}.py").read_text(encoding="utf-8")


# The config among the flags.


@pytest.mark.parametrize(
    ("words", "config"),
    [
        ("x.yaml --loss bce", "x.yaml"),
        ("--loss bce x.yaml", "x.yaml"),
        ("--bf16 x.yaml --seed 1", "x.yaml"),
        ("--bf16 false x.yaml", "x.yaml"),
        ("--no_calibrate x.yaml", "x.yaml"),
        ("--learning_rate -1e-3 x.yaml", "x.yaml"),
        ("--model_kwargs.depths [1,1] x.yml", "x.yml"),
        ("--nih_root D x.yaml", "x.yaml"),
        ("--table own.yaml x.yaml", "x.yaml"),
        ("--table own.yaml", None),
        ("--table=own.yaml --output-dir y.yaml", None),
        ("--tabel own.yaml", None),
        ("config_without_suffix --seed 1", "config_without_suffix"),
        ("", None),
    ],
)
def test_a_config_is_found_at_any_position(words, config):
    words = words.split()
    found, rest = take_config(words)
    assert found == config
    assert rest == [word for word in words if word != config]


def test_positional_words_may_be_anywhere():
    words = [
        "--use_cpu",
        "runs/a",
        "--seed",
        "1",
        "runs/b",
        "--model_kwargs.depths",
        "[1, 1]",
        "runs/c",
        "--tabel",
        "own.yaml",
        "--nih_root=D",
        "runs/d",
    ]
    runs, flags = split_words(words)
    assert runs == ["runs/a", "runs/b", "runs/c", "runs/d"]
    assert flags == [word for word in words if word not in runs]


def test_flags_may_come_before_the_config(tmp_path, capsys):
    path = tmp_path / "x.yaml"
    path.write_text("loss: focal\nseed: 3\n")
    args = parse_arguments(["--loss", "bce", "--bf16", str(path)])
    assert (args.loss.loss, args.training.seed, args.training.bf16) == ("bce", 3, True)
    with pytest.raises(SystemExit):
        parse_arguments([str(path), str(path)])
    assert "two configs" in capsys.readouterr().err


def test_compare_takes_flags_before_its_plan(tmp_path, capsys):
    plan = tmp_path / "plan.yaml"
    plan.write_text("base: {}\nmethods: {A: {}}\nbaseline: B\nseeds: [0]\n")
    assert main(["compare", "--nih_root", str(tmp_path), str(plan)]) == 2
    assert f"baseline B in {plan}" in capsys.readouterr().err
    with pytest.raises(SystemExit) as stop:
        main(["compare", "--nih_root", str(tmp_path)])
    assert stop.value.code == 2
    assert "give the comparison" in capsys.readouterr().err


def test_the_line_to_paste_has_the_models_own_number_of_findings(tmp_path):
    example = {"scores": {}, "labels": [], "image_id": "a", "images": 8, "largest_difference": 0.0}
    done = SimpleNamespace(
        name="x",
        test=SimpleNamespace(label_names=[None] * 20),
        headline=str,
        cautions=list,
        stock_pipeline=example,
        hub_url=None,
    )
    assert "model='runs/x', top_k=20))" in Report.summary(done, Path("runs/x"))
    (tmp_path / "config.json").write_text('{"model_type": "dnet"}')
    assert "top_k=20) after hf_cxr.register())" in " ".join(Report.summary(done, tmp_path).split())


# Other systems.


def test_peak_memory_is_what_this_process_has_had():
    from hf_cxr.run.peak_memory import peak_memory_gib

    assert 0.05 < peak_memory_gib() < 100


def test_text_files_are_opened_with_their_encoding():
    found = 0
    for path in sorted((ROOT / "hf_cxr").rglob("*.py")):
        lines = path.read_text(encoding="utf-8").splitlines()
        source = "\n".join(line for line in lines if not line.strip().startswith((">>>", "...")))
        for call in re.findall(r"\.(?:read_text|write_text|open)\(([^()]*)\)", source):
            found += 1
            binary = re.search(r"[\"'][rwax]\+?b\+?[\"']", call)
            if binary or not re.search(r"^$|[\"'][rwax]\+?[\"']", call):
                continue
            assert "encoding" in call, f"{path.name}: {call}"
    assert found > 20


WRITERS = {
    "compare": ["plan.yaml", "--out"],
    "describe": ["--out"],
    "download": ["nih"],
    "ensemble": ["run", "--out"],
    "evaluate": ["config.yaml", "--model", "run", "--out"],
    "predict": ["image.png", "--model", "run", "--csv"],
    "prepare": ["config.yaml", "--out"],
    "split": ["--out"],
    "train": ["config.yaml", "--output_dir"],
}


@pytest.fixture
def in_a_folder(tmp_path, monkeypatch):
    """A working folder with what the commands above read, up to their output."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "run").mkdir()
    for path in ("config.yaml", "run/config.yaml"):
        (tmp_path / path).write_text("dataset: phantom\n")
    plan = {"base": {"dataset": "phantom"}, "methods": {"a": {"loss": "bce"}, "b": {"loss": "focal"}}}
    (tmp_path / "plan.yaml").write_text(yaml.safe_dump(plan | {"baseline": "a", "seeds": [0]}))
    return tmp_path


@pytest.mark.parametrize("command", WRITERS)
@pytest.mark.parametrize("kind", ["empty", "too long", "a link to itself", "a file", "below a file"])
def test_an_output_that_cannot_be_is_one_line_and_nothing_is_written(command, kind, in_a_folder, capsys):
    (in_a_folder / "loop").symlink_to("loop")
    (in_a_folder / "file.png").write_bytes(b"\x89PNG")
    place = {"empty": "", "too long": "n" * 300, "a link to itself": "loop"}.get(kind, "file.png")
    before = sorted(path.name for path in in_a_folder.rglob("*"))
    try:
        status = main([command, *WRITERS[command], f"{place}/x" if kind == "below a file" else place])
    except SystemExit as stop:  # argparse
        status = stop.code
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("hf-cxr")]
    assert status == 2
    assert len(lines) == 1
    assert "Errno" not in lines[0]
    assert re.search("; |it must be", lines[0])  # the repair
    assert sorted(path.name for path in in_a_folder.rglob("*")) == before
    assert (in_a_folder / "file.png").read_bytes() == b"\x89PNG"


@pytest.mark.parametrize("command", COMMANDS)
def test_a_wrong_command_line_is_one_line(command, capsys):
    try:
        status = main([command, "--no_such_option"])
    except SystemExit as stop:
        status = stop.code
    assert status == 2
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.parametrize("words", [[".", "--model", ""], ["", "--model", "run"]])
def test_an_empty_name_is_not_the_working_folder(words, in_a_folder, capsys):
    Image.new("L", (8, 8)).save(in_a_folder / "image.png")
    assert main(["predict", *words]) == 2
    assert "is empty; give" in capsys.readouterr().err


def test_prepare_takes_flags_before_its_config(in_a_folder, capsys):
    sizes = {"phantom_train": 4, "phantom_validation": 2, "phantom_test": 2, "phantom_size": 40}
    (in_a_folder / "config.yaml").write_text(yaml.safe_dump({"image_size": 32, "resize_size": 36} | sizes))
    assert main(["prepare", "--workers", "1", "--phantom_train", "5", "config.yaml", "--out", "prepared"]) == 0
    assert "9 images (train 5, validation 2, test 2) of 36 x 36" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        main(["prepare", "--phantom_train", "5", "--out", "other"])
    assert "--resize_size" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["push", "run", "you/name", "--dryrun"], "did you mean --dry_run?"),
        (["predict", "x.png", "--model", "run", "--cvs", "x.csv"], "did you mean --csv?"),
    ],
)
def test_a_misspelt_flag_names_the_nearest(words, said, capsys):
    with pytest.raises(SystemExit) as stop:
        main(words)
    assert stop.value.code == 2
    assert said in capsys.readouterr().err


def test_a_run_folder_in_place_of_a_config_names_the_config_in_it(tmp_path, capsys):
    (tmp_path / "config.yaml").write_text("seed: 1\n")
    with pytest.raises(SystemExit):
        parse_arguments([str(tmp_path)])
    assert f"give the config in it: {tmp_path / 'config.yaml'}" in capsys.readouterr().err


def test_python_m_hf_cxr_is_the_command(monkeypatch, capsys):
    seen = []
    for words in ([], ["predcit"]):
        monkeypatch.setattr(sys, "argv", ["hf-cxr", *words])
        with pytest.raises(SystemExit) as ended:
            runpy.run_module("hf_cxr", run_name="__main__")
        seen.append((ended.value.code, *capsys.readouterr()))
    assert seen == [(main(words), *capsys.readouterr()) for words in ([], ["predcit"])]
    assert [status for status, *_ in seen] == [0, 2]
