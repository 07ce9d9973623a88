"""A file of weights, safetensors or PyTorch's, to its tensors; nothing in the file is executed.

A PyTorch file is a pickle. It is read by `torch.load(weights_only=True)`, which knows tensors and plain containers
alone. Training programs also save their settings in it: objects of the classes in `STAND_INS`. Empty classes of our
own are used in place of these, so that neither yacs, argparse nor numpy is called. A file that needs any other class
is refused.

Refused, each in one line: what `given_file` refuses, and a damaged file.
"""

import re
import zipfile
from collections import OrderedDict
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from hf_cxr.conversion.given_file import check_given
from hf_cxr.saved_models import reading
from hf_cxr.words import one_line


class Skipped:
    """Stands in a file for an object that is not a weight; what the file says of it is forgotten."""

    def __new__(cls, *_: Any) -> "Skipped":
        """Whatever the file gives it."""
        return super().__new__(cls)

    def __init__(self, *_: Any) -> None:
        """Nothing is kept."""

    def __setstate__(self, _: Any) -> None:
        """Nothing is kept."""


# Name of a class in a pickle -> what is made in its place. yacs' settings are a dict, and torch fills only dicts.
STAND_INS = {
    "yacs.config.CfgNode": OrderedDict,
    "argparse.Namespace": Skipped,
    "numpy.dtype": Skipped,
    "numpy.core.multiarray.scalar": Skipped,
    "numpy._core.multiarray.scalar": Skipped,
}


def read_file(path: Path) -> Mapping[str, Any]:
    """What a file of weights contains: names to tensors, or to further mappings, settings and numbers.

    Raises:
        FileNotFoundError, ValueError: see the module's first lines.
    """
    start = check_given(path)
    if start[8:9] == b"{":  # eight bytes of length, then JSON
        return reading(f"the weights in {path}", lambda: load_file(path))
    content = _load_pickle(path)
    if not isinstance(content, Mapping):
        raise ValueError(
            f"{path} contains a {type(content).__name__} and not named weights; give a file that was written from a "
            "model's state_dict"
        )
    return content


def _load_pickle(path: Path) -> Any:
    # Mapped, so that an optimizer's state, often twice the weights, is not read.
    load = partial(torch.load, path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    with torch.serialization.safe_globals([(stand_in, name) for name, stand_in in STAND_INS.items()]):
        try:
            return reading(f"the weights in {path}", load)
        except ValueError as error:
            name = re.search(r"GLOBAL ([\w.]+)", str(error.__cause__))
            if name is None and "weights_only" in str(
                error.__cause__
            ):  # torch's advice there is to read it all the same
                raise ValueError(
                    f"{path} is not a file of PyTorch weights, or it is damaged; nothing was read. Give a .pth or a "
                    ".safetensors file"
                ) from error
            if name is None:
                raise
            raise ValueError(
                f"{path} contains an object of {one_line(name[1])}, and making one could execute code; nothing was "
                "read. Where you trust the file, write its weights alone into a new one: "
                "safetensors.torch.save_file(state_dict, 'weights.safetensors')"
            ) from error
