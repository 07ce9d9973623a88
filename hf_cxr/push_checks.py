"""Checks of the files that are pushed: each is parsed, and searched for what must not leave this machine.

Refused: a file that is truncated or does not parse; weights that are not finite; files of different runs in one
folder; an access token; a path on this machine or on the one that trained. Which files are pushed: see `push_files`.
"""

import dataclasses
import hashlib
import html
import io
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from huggingface_hub import ModelCard, parse_eval_result_entries
from PIL import Image

from hf_cxr.evaluation import headline_metrics, modern_figures
from hf_cxr.evaluation.kernels import OLD_KEYS
from hf_cxr.files import file_sha256
from hf_cxr.models.head import outputs_of
from hf_cxr.models.record import ModelRecord
from hf_cxr.saved_models import WEIGHTS
from hf_cxr.words import error_words, one_line

BENCHMARK = ".eval_results/hf_cxr.yaml"
"""The figure of a run for a benchmark of the Hub, see reporting/benchmark.py."""

LAST_SETTING = "weight_decay"
"""The last key of every config.yaml."""

# The Hub's access tokens are "hf_" (an organisation's "api_org_") and 34 letters or digits; a browser's, "hf_oauth_".
_TOKEN = re.compile(r"(?<![A-Za-z0-9])(?:hf_oauth|hf|api_org)_[A-Za-z0-9]{30,}")

# Network addresses; those on a disk, such as file: and sqlite:, are paths.
_URL = re.compile(r"\b(?:https?|ftps?|s3|gs|hf|ssh|git)://\S*", re.IGNORECASE)
LOCAL_PATH = re.compile(
    r"""
    file:/+[^\s"'<>|`)\]]+                              # file:///home/ann/x
    | (?<![\w\\])\\\\[\w.$-]+\\[^\s"'<>|`)\]]+          # \\server\share
    | (?<![\w])[A-Za-z]:[\\/][^\s"'<>|`)\]]*            # C:\Users\Ann, C:/Users/Ann
    | (?<![\w.~/])~(?:[a-z_][\w-]*)?[\\/][^\s"'<>|`)\]]*  # ~/x, ~ann/x
    | (?<![\w.<~/)\]}%])/{1,4}[\w.@~+-][^\s"'<>|`,;:)\]}]*   # /home/ann/x, sqlite:////home/ann/x
    """,
    re.VERBOSE,
)
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


def check_no_local_path(
    run_dir: Path,
    texts: dict[str, list[tuple[str, str]]],
    hidden: Iterable[str] = (),
    repair: str = "replace each by a name in that file and push again",
) -> None:
    """Refuse a file that contains a local path: a home folder names a person, and shows where patients' images are.

    Args:
        run_dir: for the message.
        texts: for each file, pairs of place in the file and text.
        hidden: relative paths that were left out of the settings.
        repair: for the message.
    """
    relative = [re.compile(rf"(?<![\w/.-]){re.escape(path)}(?![\w-])") for path in hidden]
    found = [
        f"{name} ({where}): {path}"
        for name, entries in texts.items()
        for where, text in entries
        for path in _local_paths(text, relative)
    ]
    found = list(dict.fromkeys(found))
    if found:
        more = f", and {len(found) - 3} more" if len(found) > 3 else ""
        raise ValueError(f"{run_dir}: local paths would be published: {'; '.join(found[:3])}{more}; {repair}")


def _local_paths(text: str, relative: Sequence[re.Pattern]) -> Iterator[str]:
    text = _URL.sub(" ", text)
    for match in LOCAL_PATH.finditer(text):
        path = match[0].rstrip(".,")
        if path.startswith("/path/to/"):  # what documentation writes for "your own"
            continue
        # "/" and one name may be prose; two names are a path.
        if not path.startswith("/") or path.strip("/").count("/") or Path(path).exists():
            yield path
    for pattern in relative:
        yield from (match[0] for match in pattern.finditer(text))


def check_no_token(run_dir: Path, data: dict[str, bytes], shown: dict[str, list[str]], token: str | None) -> None:
    """Refuse a file that contains an access token: once pushed, it is stolen.

    Args:
        run_dir: for the message.
        data: the bytes of each file.
        shown: the texts in it as a reader sees them: without escapes, not compressed.
        token: one that must not be in any file; whatever looks like one is refused too.
    """
    for name, texts in shown.items():
        for text in (data.get(name, b"").decode("utf-8", errors="replace"), *texts):
            if _TOKEN.search(text) or (token and token in text):
                raise ValueError(
                    f"{run_dir / name} contains an access token; remove it, and revoke it if anyone saw the file"
                )


def exposed_tokens(run_dir: str | Path, token: str | None = None) -> list[Path]:
    """Files of an earlier version's checkpoints that contain an access token in clear. They are never sent.

    transformers saves its arguments as a pickle, and a ``--hub_token`` was among them. The bytes are searched and not
    unpickled.
    """
    found = []
    for path in sorted(Path(run_dir).glob("checkpoint-*/training_args.bin")):
        if path.is_file():
            text = path.read_bytes().decode("latin-1")
            if _TOKEN.search(text) or (token and token in text):
                found.append(path)
    return found


def _claimed(card: str, dataset: str | None) -> dict[str, float]:
    """By metric, the macro mean on the run's own test set in the card's metadata."""
    return {
        OLD_KEYS.get(result.metric_type, result.metric_type): result.metric_value
        for result in ModelCard(card, ignore_metadata_errors=True).data.eval_results or []
        if result.dataset_split == "test" and result.dataset_name == one_line(dataset or "")
        if isinstance(result.metric_value, float)
    }


def check_same_run(run_dir: Path, parsed: dict[str, Any], weights: Weights) -> None:
    """Refuse a folder whose files contradict each other, such as a model with the figures of another run.

    A value that a file lacks contradicts nothing.
    """
    config, metrics, settings = parsed["config.json"], modern_figures(parsed["metrics.json"]), parsed["config.yaml"]
    record, protocol = ModelRecord.of(config) or ModelRecord(), metrics.get("protocol") or {}
    loss = protocol.get("loss") or {}
    findings = list((config.get("id2label") or {}).values()) or config.get("label_names")  # the latter from timm
    outputs = outputs_of(weights.shapes)
    test = metrics.get("test") or {}
    pairs = [
        ("metrics.json", "config.json", "split", protocol.get("split_fingerprint"), record.split),
        ("metrics.json", "config.json", "dataset", protocol.get("dataset"), record.dataset),
        ("metrics.json", "config.json", "loss", loss or None, record.loss),
        ("metrics.json", "config.json", "calibration", metrics.get("calibration"), record.calibration),
        ("metrics.json", "config.json", "findings", test.get("label_names"), findings or None),
        ("metrics.json", "config.yaml", "loss", loss.get("name"), settings.get("loss")),
        ("metrics.json", "config.yaml", "seed", protocol.get("seed"), settings.get("seed")),
        *(
            ("metrics.json", "config.yaml", key, value, settings.get(key))
            for key, value in {**(protocol.get("stages") or {}), **(protocol.get("recipe") or {})}.items()
        ),
        ("config.json", "config.yaml", "image_size", config.get("image_size"), settings.get("image_size")),
        (WEIGHTS, "metrics.json", "SHA-256 of the weights", weights.sha256, metrics.get("model_sha256")),
        (WEIGHTS, "config.json", "number of findings", outputs, findings and len(findings)),
    ]
    wrong = [
        f"{one} and {other} differ in the {what}"
        for one, other, what, value, expected in pairs
        if value is not None and expected is not None and value != expected
    ]
    claimed, benchmark = _claimed(parsed["README.md"], protocol.get("dataset")), parsed.get(BENCHMARK) or {}
    for key, metric in headline_metrics().items():
        value = test.get("all", {}).get(key, {}).get("macro")
        if not isinstance(value, float):
            continue
        if f"{value:.3f}" not in parsed["report.html"]:
            wrong.append(f"report.html does not have the {metric.macro_title} of metrics.json, {value:.3f}")
        if metric.macro_title == (benchmark.get("notes") or "").partition(" over ")[0] and (
            abs(benchmark["value"] - value) > 0.001
        ):
            wrong.append(
                f"{BENCHMARK} gives the {metric.macro_title} {benchmark['value']:g}, and metrics.json {value:.4f}"
            )
        if abs(claimed.get(key, value) - value) > 0.001:
            wrong.append(f"README.md gives the {metric.macro_title} {claimed[key]:g}, and metrics.json {value:.4f}")
    if wrong:
        raise ValueError(
            f"{run_dir} contains files of different runs, or changed ones: {'; '.join(wrong[:3])}; nothing was "
            "pushed; push the folder as one run wrote it"
        )
