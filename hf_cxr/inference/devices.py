"""Which device a name means: "cpu", "cuda", "cuda:1", "mps", ... as torch calls them; and their arithmetic."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from hf_cxr import processes

_FLAGS = threading.Lock()  # cuDNN's flags are the process's, not a thread's


def device_of(name: str) -> torch.device:
    """The device of this name, which this machine has.

    Raises:
        ValueError: it is not a name of a device; this machine has no such device; or several processes would share one
            accelerator.
    """
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ValueError(f"{name!r} is not a device; give cpu, cuda, cuda:1, mps or the like") from error
    if device.type == "cpu":
        return torch.device("cpu")
    found = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    count = 0 if found is None or found.type != device.type else torch.accelerator.device_count()
    if (device.index or 0) >= count:
        has = "no accelerator" if found is None else f"{torch.accelerator.device_count()} of type {found.type}"
        raise ValueError(f"there is no device {name} here: this machine has {has}; leave out --device, or give cpu")
    if processes.count() > 1:
        raise ValueError(f"several processes would share {name}; leave out --device: each takes its own device")
    return device


@contextmanager
def full_float32() -> Iterator[None]:
    """Within the block, cuDNN's convolutions do not round float32 to 10 bits (TF32), as they do by default.

    The switch is the whole process's, so one thread at a time is in such a block: the next one waits.
    """
    with _FLAGS, torch.backends.cudnn.flags(enabled=torch.backends.cudnn.enabled, allow_tf32=False):
        yield
