"""When a process counts as killed: its heartbeat stopped while this one went on."""

import pytest

from hf_cxr import processes


class Store:
    """A key-value store of counters that answers as torch's does."""

    def __init__(self):
        self.beats = 0

    def add(self, key, amount):
        assert (key, amount) == ("beats/1", 0)
        return self.beats


@pytest.fixture
def watch(monkeypatch):
    """Looks at process 1 after so many seconds, in which its heart has beaten so often."""
    store, clock = Store(), [0.0]
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setattr(processes, "_store", lambda: store)
    monkeypatch.setattr(processes.time, "monotonic", lambda: clock[0])
    beats = processes.Heartbeats()

    def look(seconds, *, beaten=0):
        clock[0] += seconds
        store.beats += beaten
        beats.look([1])

    return look


def test_a_process_counts_as_killed_once_its_heart_has_not_beaten_for_two_minutes(watch):
    for _ in range(100):
        watch(6, beaten=1)
    for _ in range(20):
        watch(6)
    with pytest.raises(ValueError, match=r"process 1 of 2 .* has not answered for 120 seconds"):
        watch(6)


def test_a_job_that_was_suspended_goes_on(watch):
    watch(6, beaten=1)
    watch(6)
    watch(3600)  # both stood still, and this one wakes up first
    watch(6)
    watch(6, beaten=1)
    for _ in range(20):
        watch(6)
    with pytest.raises(ValueError, match="has not answered"):
        watch(6)
