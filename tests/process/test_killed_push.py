"""A push that was killed, of a run or of a dataset, is finished by the same command, which sends what is missing."""

import os
import shlex
import signal
import subprocess
import sys
import time

import pytest
import yaml
from prepared_folders import prepare_twelve, write_twelve
from test_push_run import REPO, TINY

from hf_cxr.commands import main as hf_cxr_main

START = [sys.executable, "-c", "import sys; from hf_cxr.commands import main; sys.exit(main(sys.argv[1:]))"]


@pytest.fixture
def config(tmp_path) -> str:
    path = tmp_path / "tiny.yaml"
    path.write_text(yaml.safe_dump(TINY))
    return str(path)


def test_a_push_that_was_killed_is_finished_by_the_command_the_next_run_names(hub, tmp_path, config, capsys):
    run = tmp_path / "a run"
    words = ["train", config, "--output_dir", str(run), "--push_to_hub", "--hub_model_id", "tiny"]
    released = hub.hold("POST", "/commit/main")
    process = subprocess.Popen([*START, *words], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 240
    while not hub.calls("POST", "/commit/main"):
        assert process.poll() is None, process.communicate()[1][-3000:]
        assert time.monotonic() < deadline
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    released.set()
    assert not hub.files(REPO)

    assert hf_cxr_main(words) == 2
    message = capsys.readouterr().err.strip().splitlines()[-1]
    command = shlex.split(message.split("run: ")[1].split(" ; ")[0])
    assert command == ["hf-cxr", "push", str(run), "tiny"]
    assert shlex.join([*command[:-1], REPO]) in (run / "run.log").read_text()
    assert hf_cxr_main(command[1:]) == 0
    assert "model.safetensors" in hub.files(REPO)
    assert hub.repos["models", REPO].private
    assert len(hub.calls("PUT", "/lfs/")) == 1  # the weights that had arrived are not sent again
    assert hf_cxr_main(command[1:]) == 0
    assert len(hub.repos["models", REPO].commits) == 2


def test_a_killed_push_of_a_dataset_is_finished_by_the_same_command(hub, tmp_path):
    prepare_twelve(write_twelve(tmp_path / "images"), tmp_path / "prepared")
    (tmp_path / "prepared/README.md").write_text("---\npretty_name: Twelve\n---\n# Twelve\n")
    words = [
        "push",
        str(tmp_path / "prepared"),
        "tester/twelve",
        "--dataset",
        "--licence",
        "mit",
        "--i_may_redistribute",
    ]
    hub.fail("PUT", "/lfs/", status=0)  # the first file arrives
    released = hub.hold("PUT", "/lfs/")  # the second does not
    process = subprocess.Popen([*START, *words], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 240
    while len(hub.calls("PUT", "/lfs/")) < 2:
        assert process.poll() is None, process.communicate()[1][-3000:]
        assert time.monotonic() < deadline
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    released.set()
    assert not hub.files("tester/twelve", "datasets")
    hub.requests.clear()
    assert hf_cxr_main(words) == 0
    assert len(hub.calls("PUT", "/lfs/")) == 2  # of three
    assert len(hub.files("tester/twelve", "datasets")) == 5
