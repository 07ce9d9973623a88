"""The files of configs/cluster: what SLURM and Jobs would be told, and the same commands on the CPU.

SLURM's commands are replaced: `srun` starts its command once for each of two nodes, here on this machine.
"""

import json
import os
import re
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import tiny
from PIL import Image
from test_run import ROOT, write_config

CLUSTER = ROOT / "configs" / "cluster"
FILES = sorted(CLUSTER.iterdir())
SLURM = {
    "SLURM_JOB_ID": "4711",
    "SLURM_JOB_NODELIST": "here[0-1]",
    "SLURM_NNODES": "2",
    "SLURM_ARRAY_TASK_ID": "3",
    "SLURM_ARRAY_TASK_COUNT": "16",
    "SLURM_ARRAY_TASK_MIN": "1",
    "SLURM_ARRAY_TASK_MAX": "16",
    "SLURM_CPUS_PER_TASK": "8",
}
REPLACED = {
    "scontrol": """
        if [ "$1" = show ]; then echo 127.0.0.1; sleep 0.1; echo 127.0.0.2; else echo "$@" >> "$ASKED"; fi""",
    "srun": """
        [ "$1" = --kill-on-bad-exit=1 ] && shift
        SLURM_NODEID=0 "$@" & first=$!
        SLURM_NODEID=1 "$@" & second=$!
        wait $first && wait $second""",
}
RECORD = (
    f"#!{sys.executable}\nimport json, os, sys\nopen(os.environ['ASKED'], 'a').write(json.dumps(sys.argv) + '\\n')\n"
)
# Options of sbatch that the files use, as its manual spells them.
SBATCH = {
    "job-name",
    "nodes",
    "ntasks",
    "ntasks-per-node",
    "gpus-per-node",
    "cpus-per-task",
    "mem",
    "exclusive",
    "time",
}
SBATCH |= {"requeue", "open-mode", "signal", "output"}


@pytest.fixture
def cluster(tmp_path, monkeypatch):
    """A function that starts a file with some commands recorded and not run; and what was recorded."""
    commands, asked = tmp_path / "bin", tmp_path / "asked"
    commands.mkdir()
    for name, text in REPLACED.items():
        (commands / name).write_text(f"#!/bin/bash\n{text}\n")

    def start(file, *words, recorded=(), gpus=2, wait=True):
        for name in recorded:
            (commands / name).write_text(RECORD)
        for path in commands.iterdir():
            path.chmod(0o755)
        path = f"{commands}{os.pathsep}{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        environment = os.environ | SLURM | {"PATH": path, "ASKED": str(asked), "SLURM_GPUS_ON_NODE": str(gpus)}
        process = subprocess.Popen(
            ["bash", CLUSTER / file, *map(str, words)],
            cwd=ROOT,
            env=environment | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        if not wait:
            return process
        out, err = process.communicate(timeout=500)
        return process.returncode, out, err

    start.asked = lambda: [json.loads(line) for line in asked.read_text().splitlines()]
    start.path, start.commands = asked, commands
    return start


@pytest.mark.parametrize("file", FILES, ids=lambda path: path.name)
def test_a_file_is_a_lab_note_that_bash_can_read(file):
    text = file.read_text()
    assert subprocess.run(["bash", "-n", file]).returncode == 0
    assert "# Costs: " in text
    assert re.search(r"# Run (on a cluster|there): not yet", text)
    assert not [line for line in text.splitlines() if len(line) > 119]
    before, _, after = text.partition("set -euo pipefail")
    assert "#SBATCH" not in after  # SLURM reads none after the first command
    assert {line.split("--")[1].split("=")[0] for line in before.splitlines() if line.startswith("#SBATCH")} <= SBATCH


@pytest.mark.parametrize(
    ("file", "gpus", "processes"),
    [
        ("train_one_gpu.sbatch", 2, 1),
        ("train_one_node.sbatch", 2, 2),
        ("predict_one_node.sbatch", 2, 2),
        ("predict_one_node.sbatch", 1, 1),  # its note: the same command resumes on any number of GPUs
    ],
)
def test_accelerate_takes_the_flags_of_one_node(cluster, file, gpus, processes):
    from accelerate.commands.launch import launch_command_parser

    status, _, err = cluster(file, "a b.yaml", "--nih_root", "c d", recorded=["accelerate"], gpus=gpus)
    assert status == 0, err
    ((_, launch, *words),) = cluster.asked()
    args = launch_command_parser().parse_args(words)
    assert launch == "launch"
    assert (args.num_processes, args.num_machines, args.multi_gpu) == (processes, 1, processes > 1)
    assert (ROOT / args.training_script).is_file()
    assert args.training_script_args == ["a b.yaml", "--nih_root", "c d"]


@pytest.mark.parametrize("file", [path.name for path in FILES if "USR1" in path.read_text()])
def test_a_job_near_its_limit_goes_back_into_the_queue(cluster, file):
    sleep = f"#!/bin/bash\necho '[\"started\"]' >> {cluster.path}\nexec sleep 60\n"
    (cluster.commands / "accelerate").write_text(sleep)
    (cluster.commands / "srun").write_text(sleep)
    job = cluster(file, "x", wait=False)
    try:
        while not cluster.path.exists():
            assert job.poll() is None, job.communicate()
            time.sleep(0.02)
        job.send_signal(signal.SIGUSR1)
        ended = False
        while len(cluster.path.read_text().splitlines()) < 2:
            assert not ended
            ended = job.poll() is not None
            time.sleep(0.02)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(job.pid, signal.SIGKILL)  # as the real requeue ends the job and what it has started
        job.communicate()
    assert cluster.path.read_text().splitlines()[1:] == ["requeue 4711"]


def test_jobs_of_an_array_prepare_their_parts_and_one_merges(cluster):
    for file in ("prepare_array.sbatch", "prepare_merge.sbatch"):
        status, _, err = cluster(file, "a b.yaml", "--out", "c", recorded=["hf-cxr"])
        assert status == 0, err
    part, merge = (words[1:] for words in cluster.asked())
    assert part == ["prepare", "a b.yaml", "--out", "c", "--shard", "3/16", "--workers", "8"]
    assert merge == ["prepare", "a b.yaml", "--out", "c", "--merge"]


def test_lacking_parts_are_submitted_again_alone(cluster, monkeypatch):
    """What SLURM tells task 7 of `sbatch --array=3,7`; sbatch passes on the shell's PARTS."""
    again = {"TASK_ID": "7", "TASK_COUNT": "2", "TASK_MIN": "3", "TASK_MAX": "7"}
    for name, value in again.items():
        monkeypatch.setitem(SLURM, f"SLURM_ARRAY_{name}", value)
    status, _, err = cluster("prepare_array.sbatch", "a.yaml", recorded=["hf-cxr"])
    assert status == 2
    assert "PARTS=16" in err
    assert not cluster.path.exists()
    monkeypatch.setenv("PARTS", "16")
    status, _, err = cluster("prepare_array.sbatch", "a.yaml", recorded=["hf-cxr"])
    assert status == 0, err
    ((_, *words),) = cluster.asked()
    assert words == ["prepare", "a.yaml", "--shard", "7/16", "--workers", "8"]


@pytest.mark.skipif("HF_CXR_LONG_TESTS" not in os.environ, reason="takes half a minute: HF_CXR_LONG_TESTS=1 runs it")
def test_two_nodes_train_one_model(cluster, tmp_path):
    settings = {"num_train_epochs": 1, "per_device_train_batch_size": 4, "images_per_step": 8, "disable_tqdm": True}
    words = [write_config(tmp_path, **settings), "--output_dir", tmp_path / "run"]
    status, out, err = cluster("train_nodes.sbatch", *words, gpus=1)
    assert status == 0, err[-3000:]
    assert out.count("Report: ") == 1
    environment = json.loads((tmp_path / "run" / "metrics.json").read_text())["environment"]
    assert environment["processes"] == 2


def test_one_node_predicts_what_one_process_predicts(cluster, tmp_path):
    from hf_cxr.commands import main

    model = tiny.save_model(tmp_path / "model", spread=2.0)
    for number in range(9):
        grey = np.random.default_rng(number).integers(0, 256, (40, 40), dtype=np.uint8)
        Image.fromarray(grey).save(tmp_path / f"{number}.png")
    words = [*sorted(tmp_path.glob("*.png")), "--model", model, "--batch_size", "2", "--csv"]
    status, out, err = cluster("predict_one_node.sbatch", *words, tmp_path / "two.csv")
    assert status == 0, err[-3000:]
    assert main(["predict", *map(str, words), str(tmp_path / "one.csv")]) == 0
    assert (tmp_path / "two.csv").read_bytes() == (tmp_path / "one.csv").read_bytes()
    assert out.count("wrote 9 rows") == 1


def test_jobs_flags_are_those_of_the_installed_command(cluster, monkeypatch):
    help_text = subprocess.run(
        [Path(sys.executable).parent / "hf", "jobs", "run", "--help"], capture_output=True, text=True, check=True
    ).stdout
    monkeypatch.setenv("DATA", "org/nih_256")
    monkeypatch.setenv("MODEL", "org/swin")
    status, _, err = cluster("hf_jobs_train.sh", "configs/nih_swin_base.yaml", "--seed", "2", recorded=["hf"])
    assert status == 0, err
    ((_, *words),) = cluster.asked()
    command = words.index("bash")
    options, (shell, flag, script, *rest) = words[2 : command - 1], words[command:]
    assert (words[:2], words[command - 1], shell, flag) == (["jobs", "run"], "python:3.12", "bash", "-c")
    assert all(f"{word} " in help_text for word in options if word.startswith("--"))
    assert re.search(rf"[|\[]{re.escape(options[options.index('--flavor') + 1])}[|\]]", help_text)
    assert "hf://datasets/org/nih_256:/data:ro" in options
    assert rest == ["org/swin", "configs/nih_swin_base.yaml", "--seed", "2"]
    assert subprocess.run(["bash", "-n"], input=script, text=True).returncode == 0
    assert '"$0"' in script
    monkeypatch.delenv("MODEL")
    status, _, err = cluster("hf_jobs_train.sh", "x", recorded=["hf"])
    assert status != 0
    assert "MODEL: give the repository" in err
