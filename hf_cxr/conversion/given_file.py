"""Whether a path can be a file of weights, from its first bytes; without torch, so that a mistake shows at once.

Refused, each in one line: no such file, a folder, an empty file, a web page saved under the file's name, a Git LFS
pointer.
"""

from pathlib import Path

from hf_cxr.saved_models import LFS_POINTER


def check_given(path: Path) -> bytes:
    """The first 64 bytes of a file that may contain weights.

    Raises:
        FileNotFoundError: no such file.
        ValueError: see the module's first lines.
    """
    if not path.exists():
        raise FileNotFoundError(f"no such file: {path}")
    if not path.is_file():
        raise ValueError(f"{path} is a folder; give the file with the weights in it, such as model.safetensors")
    with path.open("rb") as file:
        start = file.read(64)
    if not start:
        raise ValueError(f"{path} is empty; download it again")
    if start.startswith(LFS_POINTER):
        raise ValueError(
            f"{path} is a Git LFS pointer and not the file itself; run `git lfs pull` where it was cloned"
        )
    if start.lstrip().lower().startswith((b"<!doctype", b"<html")):
        raise ValueError(
            f"{path} is a web page and not weights: the download led to a page that asks something; open the address "
            "in a browser and save the file itself"
        )
    return start
