"""Prepared shards are verified by one process of each machine, and loaded by the main process first."""

import pytest

from hf_cxr import processes
from hf_cxr.config import DataArguments
from hf_cxr.run.data import loaded_in_turn


@pytest.mark.parametrize(("rank", "place", "verified"), [(0, 0, True), (1, 1, False), (2, 0, True), (3, 1, False)])
def test_one_process_of_each_machine_verifies(monkeypatch, rank, place, verified):
    for name, value in {"RANK": rank, "WORLD_SIZE": 4, "LOCAL_RANK": place}.items():
        monkeypatch.setenv(name, str(value))
    done = []
    monkeypatch.setattr(processes, "meet", lambda: done.append("met"))
    data = DataArguments(dataset="prepared", prepared="somewhere", verify_prepared=True)
    loaded_in_turn(data, lambda own: done.append(own.verify_prepared))
    assert done == ([verified, "met"] if rank == 0 else ["met", verified])


def test_alone_the_process_verifies():
    data = DataArguments(dataset="prepared", prepared="somewhere", verify_prepared=True)
    assert loaded_in_turn(data, lambda own: own.verify_prepared)
