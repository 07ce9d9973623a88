"""Which cores a process may use, how many threads it takes, and when it warns of them."""

import logging
import os
import sys

import pytest

from hf_cxr import cores


@pytest.fixture
def machine(monkeypatch):
    """A machine of so many cores and such a load."""

    def machine(count, load):
        monkeypatch.setattr(os, "cpu_count", lambda: count)
        monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(count)), raising=False)
        monkeypatch.setattr(os, "getloadavg", lambda: (load, load, load), raising=False)

    return machine


@pytest.fixture
def without_torch(monkeypatch):
    """As at the start of a command: torch is not imported, and nobody has asked for threads."""
    monkeypatch.delitem(sys.modules, "torch", raising=False)
    for name in (cores.THREADS, cores.WAITING):  # set first, so that what a test sets is undone
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    monkeypatch.delenv("ACCELERATE_MIXED_PRECISION", raising=False)


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({}, 8),
        ({"cpu.max": "max 100000"}, 8),
        ({"cpu.max": "350000 100000"}, 3),
        ({"cpu.max": "50000 100000"}, 1),
        ({"cpu.max": "3200000 100000"}, 8),
        ({"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, 8),
        ({"cpu/cpu.cfs_quota_us": "200000", "cpu/cpu.cfs_period_us": "100000"}, 2),
    ],
)
def test_a_container_may_use_what_its_control_group_grants(machine, tmp_path, files, expected):
    machine(8, 0)
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(f"{text}\n")
    assert cores.usable_cores(tmp_path) == expected


def test_a_process_that_is_tied_to_some_cores_uses_these(machine, monkeypatch, tmp_path):
    machine(8, 0)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {2, 5}, raising=False)
    assert cores.usable_cores(tmp_path) == 2


@pytest.mark.parametrize(
    ("count", "load", "idle"), [(2, 0.1, 2), (2, 1.0, 1), (2, 7.5, 1), (64, 20.3, 44), (64, 0.0, 64)]
)
def test_idle_cores_are_those_without_load(machine, tmp_path, count, load, idle):
    machine(count, load)
    assert cores.idle_cores(tmp_path) == idle


def test_load_elsewhere_on_the_machine_does_not_count_against_few_cores(machine, monkeypatch, tmp_path):
    machine(64, 20)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1}, raising=False)
    assert cores.idle_cores(tmp_path) == 2


def test_one_thread_unless_more_are_asked_for(without_torch, monkeypatch):
    cores.set_threads()
    assert os.environ[cores.THREADS] == "1"
    assert cores.WAITING not in os.environ
    monkeypatch.setenv(cores.THREADS, "2")
    cores.set_threads()
    assert (os.environ[cores.THREADS], os.environ[cores.WAITING]) == ("2", "passive")
    monkeypatch.setenv(cores.WAITING, "active")
    cores.set_threads()
    assert os.environ[cores.WAITING] == "active"


def test_a_program_that_has_loaded_torch_keeps_its_threads(without_torch, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", object())
    cores.set_threads()
    assert cores.THREADS not in os.environ


@pytest.mark.parametrize(
    ("threads", "processes", "load", "warned"),
    [
        (None, 1, 8.0, False),
        ("1", 1, 8.0, False),
        ("2", 1, 0.2, False),
        ("2", 1, 1.0, True),
        ("4", 1, 0.2, False),
        ("8", 1, 0.2, True),
        ("2", 2, 0.2, False),
        ("4", 2, 0.2, True),
    ],
)
def test_more_threads_than_idle_cores_are_warned_of_once(
    machine, monkeypatch, tmp_path, caplog, threads, processes, load, warned
):
    machine(2 if load == 1.0 else 4, load)
    monkeypatch.setattr(cores, "CGROUP", tmp_path)
    if threads is None:
        monkeypatch.delenv(cores.THREADS, raising=False)
    else:
        monkeypatch.setenv(cores.THREADS, threads)
    with caplog.at_level(logging.WARNING):
        cores.warn_of_busy_cores(processes)
    assert [cores.THREADS in record.getMessage() for record in caplog.records] == [True] * warned
