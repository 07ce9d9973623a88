"""The files that are pushed, each parsed: the form in which its text is searched and its figures are compared.

Refused: a file that is truncated or does not parse; weights that are not finite.
"""

import dataclasses
import hashlib
import html
import io
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from huggingface_hub import parse_eval_result_entries
from PIL import Image

from hf_cxr.files import file_sha256
from hf_cxr.reporting.card.benchmark import BENCHMARK
from hf_cxr.words import error_words

LAST_SETTING = "weight_decay"
"""The last key of every config.yaml."""

_EMBEDDED = re.compile(r"data:[\w/+.-]+;base64,[A-Za-z0-9+/=]*")


@dataclass(frozen=True)
class PushFile:
    """A file as it is sent.

    Args:
        path: in the folder and in the repository.
        content: the bytes that were checked; for a large file, its path.
        size: in bytes.
        sha256: of the content.
    """

    path: str
    content: bytes | Path
    size: int
    sha256: str

    @classmethod
    def of(cls, path: str, content: bytes | Path) -> "PushFile":
        """The file, with its size and SHA-256 as they are now."""
        if isinstance(content, bytes):
            return cls(path, content, len(content), hashlib.sha256(content).hexdigest())
        return cls(path, content, content.stat().st_size, file_sha256(content))


@dataclass(frozen=True)
class Weights:
    """What a file of weights contains: each tensor's shape, its metadata and the file's SHA-256."""

    shapes: dict[str, tuple[int, ...]]
    metadata: dict[str, str]
    sha256: str


def _tensors(content: bytes) -> dict[str, Any]:
    """The names of the tensors and the metadata of a small safetensors file, whose values must be finite."""
    from safetensors.numpy import load

    tensors = load(content)
    broken = [name for name, value in tensors.items() if value.dtype.kind == "f" and not np.isfinite(value).all()]
    if broken or not tensors:
        raise ValueError(f"NaN or infinity in {', '.join(broken[:3])}" if broken else "it contains no tensors")
    length = int.from_bytes(content[:8], "little")
    return {"tensors": list(tensors), "metadata": json.loads(content[8 : 8 + length]).get("__metadata__", {})}


def read_weights(path: Path) -> Weights:
    """The tensors' names and shapes; every value is read and must be finite.

    Raises:
        ValueError: the file is truncated, damaged or empty, or has a value that is not finite.
    """
    from safetensors import SafetensorError, safe_open  # with torch behind it, which takes a second

    shapes, broken = {}, []
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            for name in file.keys():  # noqa: SIM118 - not a mapping
                tensor = file.get_tensor(name)
                shapes[name] = tuple(tensor.shape)
                if tensor.is_floating_point() and not tensor.isfinite().all():
                    broken.append(name)
    except SafetensorError as error:
        raise ValueError(f"{path} is truncated or damaged ({error}); {_AGAIN}") from error
    if not shapes:
        raise ValueError(f"{path} contains no weights; {_AGAIN}")
    if broken:
        raise ValueError(f"{path}: NaN or infinity in {', '.join(broken[:3])}: the training diverged; {_AGAIN}")
    return Weights(shapes, metadata, file_sha256(path))


_AGAIN = "nothing was pushed; train again with another --output_dir, or restore the file from a copy"


def parse(path: Path, content: bytes) -> Any:
    """A file's content in the form that is searched for paths: text, a mapping or a list.

    Raises:
        ValueError: the file is truncated or damaged; the message names it.
    """
    try:
        read = _benchmark if path.parts[-2:] == Path(BENCHMARK).parts else PARSERS[path.suffix]
        value = read(content)
        for _ in texts_of(value):  # a YAML node can contain itself
            pass
        return value
    except Exception as error:  # each library has its own errors
        raise ValueError(f"{path} is truncated or damaged ({error_words(error)}); {_AGAIN}") from error


def _settings(content: bytes) -> dict[str, Any]:
    settings = _mapping(yaml.safe_load(content.decode("utf-8")))
    # The keys are in alphabetical order: a truncated file has lost the last of them.
    if not content.endswith(b"\n") or LAST_SETTING not in settings:
        raise ValueError(f"its end is missing: no {LAST_SETTING}")
    return settings


def _benchmark(content: bytes) -> dict[str, Any]:
    (entry,) = parse_eval_result_entries(yaml.safe_load(content.decode("utf-8")))
    return dataclasses.asdict(entry)


def _mapping(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ValueError("not a mapping of names to values")
    return value


def _page(content: bytes) -> str:
    text = content.decode("utf-8")
    if not text.rstrip().endswith("</html>"):
        raise ValueError("no </html> at its end")
    return _EMBEDDED.sub("", text)


# The chunks of a PNG with pixels and text. Any other chunk is private to some program, and its content is unknown.
_CHUNKS = {"IHDR", "PLTE", "tRNS", "IDAT", "IEND", "bKGD", "cHRM", "gAMA", "pHYs", "sBIT", "sRGB", "tIME"}
_TEXT_CHUNKS = {"tEXt", "zTXt", "iTXt", "eXIf"}


def _png(content: bytes) -> dict[str, str]:
    for check in (Image.Image.verify, Image.Image.load):  # the checksums, then the pixels; verify leaves it unusable
        with Image.open(io.BytesIO(content), formats=["PNG"]) as image:
            check(image)
            # Text after the pixels is only in `text`.
            info = image.info | dict(image.text)
    if not content.endswith(b"IEND\xaeB`\x82"):
        raise ValueError("bytes after the end of the picture")
    strange = sorted(set(_chunk_names(content)) - _CHUNKS - _TEXT_CHUNKS)
    if strange:
        raise ValueError(f"the picture has a part that is neither pixels nor text: {strange[0]}")
    return {key: value.decode("latin-1") if isinstance(value, bytes) else str(value) for key, value in info.items()}


def _chunk_names(content: bytes) -> Iterator[str]:
    """The names of a PNG's chunks: each has length (4 bytes), name (4), data, and a checksum (4)."""
    place = 8
    while place + 8 <= len(content):
        yield content[place + 4 : place + 8].decode("latin-1")
        place += 12 + int.from_bytes(content[place : place + 4], "big")


def _parquet(content: bytes) -> dict[str, Any]:
    import pyarrow
    import pyarrow.parquet

    table = pyarrow.parquet.read_table(io.BytesIO(content))
    metadata = {key.decode(): value.decode() for key, value in (table.schema.metadata or {}).items()}
    kinds = (pyarrow.string(), pyarrow.large_string())
    strings = [name for name in table.column_names if table.schema.field(name).type in kinds]
    return metadata | {name: table.column(name).unique().to_pylist() for name in strings}


PARSERS = {
    ".json": lambda content: _mapping(json.loads(content.decode("utf-8"))),
    ".yaml": _settings,
    ".md": lambda content: content.decode("utf-8"),
    ".html": _page,
    ".png": _png,
    ".parquet": _parquet,
    ".safetensors": _tensors,
}


def texts_of(value: Any) -> Iterator[tuple[str, str]]:
    """Every piece of text in a parsed file, and its place."""
    if isinstance(value, str):
        # As a reader of the card or the page sees them: "&#47;" is a slash.
        yield from ((f"line {number}", html.unescape(line)) for number, line in enumerate(value.splitlines(), 1))
    else:
        yield from _strings(value, "")


def _strings(value: Any, where: str) -> Iterator[tuple[str, str]]:
    if isinstance(value, dict):
        for key, entry in value.items():
            place = f"{where}.{key}" if where else str(key)
            yield place, str(key)
            yield from _strings(entry, place)
    elif isinstance(value, list):
        for entry in value:
            yield from _strings(entry, where)
    elif isinstance(value, str):
        yield where, value
