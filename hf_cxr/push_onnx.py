"""The text in an exported model, which is searched for local paths and tokens before it is pushed.

torch writes the source line of every node, with its path on the machine that exported, into the nodes' metadata.
Names, doc strings and attributes are text as well. Weights are not read.

Refused: a file that is truncated or not ONNX, and one that keeps its weights in another file.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hf_cxr.words import error_words

# Names of nodes and values may look like paths ("/swin/embeddings/Conv"); one that begins so is a path.
_ROOTS = (
    *("/home/", "/root/", "/Users/", "/tmp/", "/var/", "/opt/", "/usr/", "/mnt/", "/media/", "/srv/", "/work"),
    *("/data/", "/content/", "/kaggle/", "/scratch/", "/lustre/", "/nfs/", "/gpfs/", "/private/", "/workspace"),
)
_NAMES = ("name", "input", "output")
_WEIGHTS = ("raw_data", "float_data", "int32_data", "int64_data", "double_data", "uint64_data", "string_data")


@dataclass(frozen=True)
class Exported:
    """What an ONNX file says.

    Args:
        texts: every piece of text in it, after its place, each once.
        model_sha256: fingerprint of the model that it was exported from; None if it does not say.
    """

    texts: list[tuple[str, str]]
    model_sha256: str | None


def read_onnx(path: Path) -> Exported:
    """The text in an ONNX file.

    Raises:
        ImportError: the package onnx is not installed.
        ValueError: see the top of this module.
    """
    try:
        import onnx
    except ImportError as error:
        raise ImportError(
            f"{path} is checked before it is pushed, which needs onnx: pip install 'hf-cxr[onnx]'"
        ) from error
    again = "nothing was pushed; run hf-cxr export again"
    try:
        model = onnx.load_model(path, load_external_data=False)
        if not model.graph.node or not model.graph.output:
            raise ValueError("it has no nodes or no outputs")
    except Exception as error:  # protobuf's errors and onnx's share no base
        raise ValueError(f"{path} is truncated or damaged ({error_words(error)}); {again}") from error
    if any(tensor.external_data for tensor in model.graph.initializer):
        raise ValueError(
            f"{path} keeps its weights in another file, which is not pushed; {again}, which writes a single file"
        )
    facts = {entry.key: entry.value for entry in model.metadata_props}
    return Exported(list(dict.fromkeys(_texts(model, ""))), facts.get("model_sha256"))


def _texts(message: Any, where: str) -> Iterator[tuple[str, str]]:
    """All strings below a protobuf message, whatever its type."""
    for field, value in message.ListFields():
        place = f"{where}.{field.name}" if where else field.name
        if field.name in _WEIGHTS:
            continue
        repeated = not isinstance(value, str | bytes) and hasattr(value, "__len__")
        for entry in value if repeated else (value,):
            if isinstance(entry, bytes):
                entry = entry.decode("utf-8", errors="replace")
            if hasattr(entry, "ListFields"):
                yield from _texts(entry, place)
            elif isinstance(entry, str) and (field.name not in _NAMES or entry.startswith(_ROOTS)):
                yield place, entry
