"""A comparison in its own processes: killed and continued, a run that fails, a process that is still there."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path

import pytest
import yaml
from filelock import FileLock
from test_compare import BASE, write_plan

from hf_cxr.commands import main as hf_cxr_main
from hf_cxr.files import write_text
from hf_cxr.run.comparing.compare import BUSY, TRAIN, final_runs, load_plan, tuning_runs

ROOT = Path(__file__).parents[2]


def test_a_run_whose_log_is_locked_is_not_started(tmp_path):
    run = final_runs(load_plan(write_plan(tmp_path)), tmp_path / "out", {})[0]
    run.log.parent.mkdir(parents=True)
    with FileLock(run.log):
        done = subprocess.run([sys.executable, "-c", TRAIN, run.log, "no_such.yaml"], capture_output=True, text=True)
        assert (done.returncode, done.stderr) == (BUSY, "")
    done = subprocess.run([sys.executable, "-c", TRAIN, run.log, "no_such.yaml"], capture_output=True, text=True)
    assert done.returncode == 2
    assert "no such config: no_such.yaml" in done.stderr


def compare(path, out, *flags, **popen):
    command = [sys.executable, ROOT / "scripts" / "compare.py", path, "--out", out, "--jobs", "2", *flags]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT, env=environment, **popen
    )


def finish(process, status=0):
    out, err = process.communicate(timeout=500)
    assert process.returncode == status, err[-3000:]
    return out, err


@pytest.fixture(scope="module")
def compared(tmp_path_factory):
    """A comparison of which all runs but one are done, killed with its processes in that one, and started again.

    What needs no process of its own runs in this one: a new one imports for seconds.
    """
    folder = tmp_path_factory.mktemp("compare")
    out, path = folder / "out", write_plan(folder)
    plan = load_plan(path)
    tuning = tuning_runs(plan, out)
    final = final_runs(plan, out, {method: {"learning_rate": "1e-3"} for method in plan.methods})
    for run in (*tuning, *final[:-1]):
        write_text(run.settings, yaml.safe_dump(run.values))
        assert hf_cxr_main(["train", str(run.settings)]) == 0
    process = compare(path, out, start_new_session=True)
    deadline = time.monotonic() + 300
    while not (final[-1].folder / "config.yaml").exists():
        assert process.poll() is None, process.communicate()[1][-3000:]
        assert time.monotonic() < deadline
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    before = {file: file.stat().st_mtime_ns for file in out.rglob("*.json") if file.name in ("metrics.json", "validation.json")}  # fmt: skip  # noqa: E501
    assert not (out / "comparison.json").exists()
    with redirect_stdout(StringIO()) as printed:
        assert hf_cxr_main(["compare", str(path), "--out", str(out)]) == 0
    return path, out, before, printed.getvalue()


def test_killed_comparison_goes_on_and_repeats_nothing(compared):
    _, out, before, printed = compared
    assert len(before) == 5
    assert all(file.stat().st_mtime_ns == time for file, time in before.items())
    assert len(list(out.glob("runs/*/seed*/metrics.json"))) == 4
    assert "Report: " in printed
    assert "macro AUC ± sd" in printed
    values = json.loads((out / "comparison.json").read_text())
    assert {method: set(figures["runs"]) for method, figures in values["methods"].items()} == {
        "BCE": {"0", "1"},
        "Class-aware": {"0", "1"},
    }
    assert "synthetic phantoms" in values["cautions"][0]


def test_tuning_reads_no_test_image_and_its_choice_is_used(compared):
    _, out, _, _ = compared
    assert len(list(out.glob("tuning/*/*/validation.json"))) == 2
    assert not list(out.glob("tuning/*/*/predictions"))
    assert not list(out.glob("tuning/*/*/metrics.json"))
    configs = [yaml.safe_load(path.read_text()) for path in out.glob("runs/*/*/config.yaml")]
    assert {config["learning_rate"] for config in configs} == {1e-3}
    assert {(config["loss"], config["loss_kwargs"].get("margin")) for config in configs} == {
        ("bce", None),
        ("class_aware", 0.1),
    }


def test_other_settings_are_refused_and_a_failed_run_is_named(compared, capsys, tmp_path):
    path, out, _, _ = compared
    changed = write_plan(tmp_path, base=BASE | {"num_train_epochs": 3})
    assert hf_cxr_main(["compare", str(changed), "--out", str(out)]) == 2
    said = capsys.readouterr().err
    assert "BCE" in said
    assert "num_train_epochs was 2 and is 3" in said
    broken = tmp_path / "broken"
    shutil.copytree(out, broken)
    shutil.rmtree(broken / "runs" / "Class-aware" / "seed1")
    write_text(broken / "runs" / "Class-aware" / "seed1" / "notes.txt", "somebody's")
    assert hf_cxr_main(["compare", str(path), "--out", str(broken)]) == 1
    assert "Class-aware, seed 1" in capsys.readouterr().out
    values = json.loads((broken / "comparison.json").read_text())
    assert "not a run folder" in values["missing"]["Class-aware, seed 1"]
    assert list(values["methods"]["Class-aware"]["runs"]) == ["0"]


def test_a_process_of_an_earlier_start_is_waited_for_and_not_doubled(compared, tmp_path):
    path, out, _, _ = compared
    copy = tmp_path / "copy"
    shutil.copytree(out, copy)
    result = copy / "runs" / "BCE" / "seed1" / "metrics.json"
    result.rename(copy / "aside.json")
    log = copy / "logs" / "runs-BCE-seed1.log"
    holder = (
        "import filelock, shutil, sys; lock = filelock.FileLock(sys.argv[1]); lock.acquire(); "
        "print('held', flush=True); sys.stdin.readline(); shutil.move(sys.argv[2], sys.argv[3])"
    )
    with subprocess.Popen(
        [sys.executable, "-c", holder, log, copy / "aside.json", result],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as earlier:
        assert earlier.stdout.readline() == "held\n"
        started = log.read_text().count("---")
        process = compare(path, copy)
        lines = iter(process.stderr.readline, "")
        assert any("BCE, seed 1: a process of an earlier start is still running it" in line for line in lines)
        earlier.stdin.write("\n")  # it ends, and leaves its result
        earlier.stdin.flush()
        finish(process)
    assert log.read_text().count("---") == started
