"""Compiled functions: a disk that cannot keep them is nobody's error."""

import errno

import numba
import numpy as np
from numba.core import caching

from hf_cxr.compiling import compiled


def test_a_full_disk_costs_the_next_process_the_compilation_and_nothing_else(monkeypatch, caplog):
    def full(*args):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(caching.FunctionCache, "save_overload", full)
    monkeypatch.setattr(caching.FunctionCache, "load_overload", lambda *args: None)

    @compiled()
    def double(x_N):
        return 2 * x_N

    for _ in range(2):  # the first call compiles
        assert double(np.arange(3)).tolist() == [0, 2, 4]
    assert double(np.arange(3.0)).tolist() == [0, 2, 4]  # another type is compiled and not kept either
    assert caplog.text.count("No space left on device") == 1


def test_without_a_folder_that_can_be_written_to_it_is_compiled_again(monkeypatch, caplog):
    real = numba.njit

    def nowhere(*args, cache=False, **options):
        if cache:
            raise RuntimeError("no locator available")
        return real(*args, **options)

    monkeypatch.setattr(numba, "njit", nowhere)

    @compiled()
    def double(value_N):
        for place in range(len(value_N)):
            value_N[place] *= 2

    value_N = np.ones(3)
    double(value_N)
    assert value_N.tolist() == [2, 2, 2]
    assert "no locator available" in caplog.text


def test_what_is_loaded_at_once_is_what_is_called():
    from hf_cxr.data.images import compiled as loops

    loops.load_all()
    known = len(loops.unfilter_grey.signatures)
    loops.unfilter_grey(np.frombuffer(bytes(20), np.uint8), np.zeros((4, 4), np.uint8))
    assert known == len(loops.unfilter_grey.signatures) == 1
