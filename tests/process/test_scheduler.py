"""Slots of processes: how many at once, order, tasks that wait, and what an early end leaves behind."""

import subprocess
import sys
from collections import Counter

import pytest

from hf_cxr.run.comparing.scheduler import run_in_slots

AGAIN = 75


def python(code: str, *words) -> subprocess.Popen:
    return subprocess.Popen([sys.executable, "-S", "-c", code, *map(str, words)])


def test_every_task_ends_once_with_its_own_status():
    tasks = [0, 3, 2, 1]
    ends = list(run_in_slots(tasks, lambda task, slot: python(f"raise SystemExit({task})"), slots=2, again=AGAIN))
    assert sorted((task, status) for task, status, _ in ends) == [(n, n) for n in range(4)]
    assert all(seconds > 0 for _, _, seconds in ends)


def test_a_slot_is_never_taken_twice_at_once():
    used, last = Counter(), {}

    def start(task, slot):
        assert slot not in last or last[slot].poll() is not None
        used[slot] += 1
        last[slot] = python("import time; time.sleep(0.1)")
        return last[slot]

    assert [status for _, status, _ in run_in_slots(range(6), start, slots=3, again=AGAIN)] == [0] * 6
    assert sum(used.values()) == 6
    assert set(used) <= {0, 1, 2}


def test_one_slot_keeps_the_order():
    ended = [task for task, _, _ in run_in_slots("cab", lambda task, slot: python("pass"), slots=1, again=AGAIN)]
    assert ended == ["c", "a", "b"]


def test_a_task_that_cannot_run_yet_goes_behind_the_rest():
    """Whether `start` says so or the process itself, by its exit status."""
    calls = Counter()

    def start(task, slot):
        calls[task] += 1
        if task == "locked" and calls[task] == 1:
            return AGAIN
        return python(f"raise SystemExit({AGAIN if task == 'busy' and calls[task] == 1 else 0})")

    ended = [end[:2] for end in run_in_slots(["locked", "busy", "free"], start, slots=1, again=AGAIN)]
    assert ended == [("free", 0), ("locked", 0), ("busy", 0)]
    assert calls == {"locked": 2, "busy": 2, "free": 1}


def test_a_task_without_a_process_ends_with_none():
    assert [end[:2] for end in run_in_slots([1], lambda task, slot: None, slots=2, again=AGAIN)] == [(1, None)]


def test_closing_early_stops_what_runs_and_starts_nothing_more():
    started = []

    def start(task, slot):
        started.append(python("pass" if task == 0 else "import time; time.sleep(600)"))
        return started[-1]

    ends = run_in_slots(range(5), start, slots=2, again=AGAIN)
    assert next(ends)[0] == 0
    ends.close()
    count = len(started)
    assert count < 5
    assert all(process.returncode is not None for process in started)
    assert any(process.returncode != 0 for process in started)
    assert len(started) == count


def test_an_error_of_start_is_raised_and_stops_the_rest():
    started = []

    def start(task, slot):
        if task == "bad":
            raise OSError("disk full")
        started.append(python("import time; time.sleep(600)"))
        return started[-1]

    with pytest.raises(OSError, match="disk full"):
        list(run_in_slots(["long", "bad"], start, slots=2, again=AGAIN))
    assert [process.returncode is not None for process in started] == [True]
