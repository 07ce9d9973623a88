"""The text in an ONNX model, which is searched for local paths and access tokens: when it is exported, and pushed.

torch writes the source line of every node, with its path on the machine that exported, into the nodes' metadata.
Names, doc strings, attributes and tensors of text are text as well. The numbers of tensors are not read.

Refused: a file that is truncated or not ONNX, and one that keeps its weights in another file.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hf_cxr.extras import need
from hf_cxr.words import error_words

_SOURCES = (".py", ".pyc", ".onnx", ".safetensors", ".pt", ".pth")
_NAMES = ("name", "input", "output")
_BYTES = ("s", "strings", "string_data")  # of attributes and tensors of text


@dataclass(frozen=True)
class OnnxText:
    """The text in a model, each piece once, after its place.

    Args:
        all: every piece: none may have an access token.
        paths: those that may have no local path: all but names of nodes and values such as "/swin/embeddings/Conv".
    """

    all: list[tuple[str, str]]
    paths: list[tuple[str, str]]


@dataclass(frozen=True)
class Exported:
    """What an ONNX file says.

    Args:
        text: in it.
        model_sha256: fingerprint of the model that it was exported from; None if it does not say.
    """

    text: OnnxText
    model_sha256: str | None


def read_onnx(path: Path) -> Exported:
    """The text in an ONNX file.

    Raises:
        ValueError: the package onnx is not installed (`extras.need`); see the top of this module.
    """
    need(f"checking {path} before it is pushed", "onnx", "onnx")
    import onnx

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
    return Exported(onnx_text(model), facts.get("model_sha256"))


def onnx_text(model: Any) -> OnnxText:
    """The text in a protobuf message of ONNX, at every depth."""
    found = list(dict.fromkeys(_texts(model, "")))
    return OnnxText(
        [(where, text) for where, text, _ in found],
        [(where, text) for where, text, is_name in found if not is_name or _is_path(text)],
    )


def _texts(message: Any, where: str) -> Iterator[tuple[str, str, bool]]:
    """Each piece of text below a message: its place, itself, and whether it is the name of a node or a value."""
    for field, value in message.ListFields():
        if field.type not in (field.TYPE_MESSAGE, field.TYPE_STRING) and field.name not in _BYTES:
            continue  # millions of numbers
        place = f"{where}.{field.name}" if where else field.name
        for entry in value if field.is_repeated else (value,):
            if field.type == field.TYPE_MESSAGE:
                yield from _texts(entry, place)
            elif field.type == field.TYPE_STRING:
                yield place, entry, field.name in _NAMES
            else:
                yield place, entry.decode("utf-8", errors="replace"), False


def _is_path(name: str) -> bool:
    """Whether a name is a path and not a scope: exporters write scopes as "/swin/embeddings/Conv".

    It is one if a part of it ends as a file does, or if it begins with a folder of the machine that pushes.
    """
    if not name.startswith("/"):
        return True  # "C:/x", "~/x", "file:///x" are seen as paths, and "swin/Conv" is not
    parts = Path(name).parts  # "/", the first folder, and what is in it
    return any(part.lower().endswith(_SOURCES) for part in parts) or Path(*parts[:3]).exists()
