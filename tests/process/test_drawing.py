"""Phantoms drawn by several processes: to the bit, in order, and without a process left behind."""

import itertools

import psutil
import pytest

from hf_cxr.phantom import drawing
from hf_cxr.phantom.drawing import BLOCK, draw_phantoms

WHAT = {"split": "test", "seed": 3, "size": 40, "prevalence_floor": 0.05}


def test_several_processes_draw_what_one_draws():
    images = 3 * BLOCK + 3  # the last block is not full, and one process has a block more
    alone = list(draw_phantoms(images, processes=1, **WHAT))
    together = list(draw_phantoms(images, processes=2, **WHAT))
    assert len(alone) == images
    assert together == alone
    assert len({drawn.png for _, drawn in alone}) == images
    assert any(drawn.boxes for _, drawn in alone)


def test_whoever_stops_reading_leaves_no_process():
    phantoms = draw_phantoms(10_000, processes=2, **WHAT)
    first = list(itertools.islice(phantoms, 3))
    children = psutil.Process().children()
    assert len(children) == 2
    phantoms.close()
    assert len(first) == 3
    assert not [child for child in children if child.is_running()]


def test_a_process_that_ends_early_is_named(monkeypatch):
    phantoms = draw_phantoms(10_000, processes=2, **WHAT)
    next(phantoms)
    for child in psutil.Process().children():
        child.kill()
    with pytest.raises(OSError, match="a process that draws phantoms ended early"):
        list(phantoms)
    assert drawing.processes_worth(10, 40, cores=8) == 1
