"""Convolutions in full float32: within the block, in every thread, and as before after it."""

import threading

import torch

from hf_cxr.inference.devices import full_float32


def test_threads_are_in_the_block_in_turns_and_the_switch_is_as_before():
    before, inside, entered = torch.backends.cudnn.allow_tf32, [], threading.Event()

    def second():
        with full_float32():
            entered.set()
            inside.append(torch.backends.cudnn.allow_tf32)

    try:
        torch.backends.cudnn.allow_tf32 = True
        thread = threading.Thread(target=second)
        with full_float32():
            thread.start()
            assert not entered.wait(0.05)
            inside.append(torch.backends.cudnn.allow_tf32)
        thread.join()
        assert entered.is_set()
        assert inside == [False, False]
        assert torch.backends.cudnn.allow_tf32  # a thread that leaves last does not restore what it found inside
    finally:
        torch.backends.cudnn.allow_tf32 = before
