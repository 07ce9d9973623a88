"""Checks of a saved model's files, before transformers opens them.

A model comes from a local folder or from the Hub, and a stranger may have written it. Nothing in it is executed: code
that comes with a model (``auto_map``, ``custom_pipelines``, a kernel) is refused without a question, and weights are
read only from safetensors, because reading a pickle can execute code.

Refused, each in one line that names the file: a path that is not a folder, a folder without a model, JSON that does
not parse, a Git LFS pointer instead of a file, weights that are a pickle, empty, truncated or damaged.
"""

import hashlib
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from huggingface_hub import constants, snapshot_download
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    HFValidationError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from safetensors import SafetensorError, safe_open

from hf_cxr import files
from hf_cxr.words import error_words

CONFIG, PROCESSOR, WEIGHTS, INDEX = (
    "config.json",
    "preprocessor_config.json",
    "model.safetensors",
    "model.safetensors.index.json",
)
# Files that transformers may read: each can name code to execute.
CONFIGS = (CONFIG, PROCESSOR, "processor_config.json", "tokenizer_config.json")
SHARD = re.compile(r"model-\d+-of-\d+\.safetensors")
ADAPTER = "adapter_config.json"
INPUT_CHECK = "input_check.safetensors"  # see `inference.input_check`; a model may have none
FETCHED = (*CONFIGS, WEIGHTS, INDEX, "model-*-of-*.safetensors", INPUT_CHECK)
CODE_KEYS = ("auto_map", "custom_pipelines")
PICKLES = ("pytorch_model*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl", "tf_model.h5", "flax_model.msgpack")
TIMM_CONFIG = "pretrained_cfg"  # a key of every config.json that timm wrote
MOST_LABELS = 100_000
MULTI_LABEL = "multi_label_classification"  # problem_type of config.json
LFS_POINTER = b"version https://git-lfs"

Read = TypeVar("Read")


def model_folder(name: str | Path, revision: str = "main") -> Path:
    """The folder of a saved model; for a Hub id, its folder in the cache, with only the files that are read.

    Args:
        name: folder or Hub id.
        revision: branch, tag or commit of a Hub id.

    Raises:
        FileNotFoundError: a path was given and the folder does not exist, or it contains no model.
        ValueError: the path is a file, or the model needs its own code.
        OSError: it cannot be downloaded from the Hub.
    """
    refuse_missing_folder(name)
    path = Path(name)
    folder = path if path.is_dir() else _fetch(str(name), revision)
    if not (folder / CONFIG).is_file():
        inside = sorted(file.parent.name for file in folder.glob(f"*/{CONFIG}"))
        problem = "it is empty" if not any(folder.iterdir()) else f"it has no {CONFIG}"
        hint = f"give a folder inside it, such as {inside[0]}" if inside else "give the folder that contains the model"
        raise FileNotFoundError(f"{name} contains no saved model: {problem}; {hint}")
    if (folder / ADAPTER).is_file():
        raise ValueError(f"{name} contains a PEFT adapter ({ADAPTER}); merge it into its model and save that")
    for file in CONFIGS:
        if (folder / file).is_file():
            _refuse_own_code(name, file, read_json(folder / file))
    return folder


def public_name(model: str | Path) -> str:
    """What pages, pictures, reports and answers call a model: its Hub id, or the name of its folder.

    They may be passed on, and a whole path would name a person's home.

    >>> public_name("somebody/chest"), public_name("/data/of/somebody/runs/first"), public_name("/")
    ('somebody/chest', 'first', '/')
    """
    folder = Path(model)
    is_folder = folder.is_absolute() or folder.is_dir()
    return folder.resolve().name or str(model) if is_folder else str(model)


def refuse_missing_folder(name: str | Path) -> None:
    """Refuse a name that is neither a folder nor a possible Hub id, before a misspelt folder is looked for on the Hub.

    Raises:
        FileNotFoundError: no such folder.
        ValueError: a file; an empty name, which Path would read as ".".
    """
    if not str(name).strip():
        raise ValueError("the name of the model is empty; give its folder or its Hub id")
    path = Path(name)
    if path.is_dir():
        return
    if path.exists() or path.is_symlink():
        raise ValueError(f"{name} is not a folder; give the folder that contains {CONFIG} and {WEIGHTS}, or a Hub id")
    if str(name).count("/") > 1 or (len(path.parts) == 2 and path.parent.is_dir()):
        raise FileNotFoundError(f"no such run folder or model folder: {name}")
    if not re.fullmatch(r"(?!\.)[\w.-]+(/[\w.-]+)?", str(name), re.ASCII):
        raise FileNotFoundError(f"no such run folder or model folder: {str(name)!r}, which is not a Hub id either")


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file of a model or a run, which may have been cloned from the Hub.

    Raises:
        ValueError: the file is not a JSON object, or is a Git LFS pointer.
    """
    _refuse_pointer(path)
    return files.read_json(path, repair="copy or download it again")


def read_config(folder: Path) -> dict[str, Any]:
    """The config.json of a saved model; timm's, which says less, with transformers' keys: model_type and id2label.

    Raises:
        ValueError: as `read_json`.
    """
    values = read_json(folder / CONFIG)
    if "model_type" not in values and TIMM_CONFIG in values:
        values["model_type"] = "timm_wrapper"
    if values.get("model_type") == "timm_wrapper" and "id2label" not in values:
        names, number = values.get("label_names"), values.get("num_classes")
        if isinstance(names, list):
            values["id2label"] = {str(index): name for index, name in enumerate(names)}
        elif type(number) is int and number > 0:
            values["id2label"] = {str(index): f"LABEL_{index}" for index in range(min(number, MOST_LABELS))}
    return values


def check_multi_label(problem_type: str | None, name: str | Path) -> None:
    """Refuse a classifier whose findings exclude one another.

    Args:
        problem_type: of its config.
        name: of the model, for the message.

    Raises:
        ValueError: it is not a multi-label classifier.
    """
    if problem_type != MULTI_LABEL:
        raise ValueError(f"{name} was not trained as a multi-label classifier (problem_type in its config.json)")


def saved_side(folder: Path) -> int | None:
    """The side of a model's input by its image processor, for a config.json without an image_size, such as a ResNet's.

    None where there is no processor, or it does not say one side.
    """
    if not (folder / PROCESSOR).is_file():
        return None
    values = read_json(folder / PROCESSOR)
    size = values.get("crop_size") or values.get("size")
    sides = set(size.values()) if isinstance(size, Mapping) else {size}
    return sides.pop() if len(sides) == 1 else None


def check_weights(folder: Path, name: str | Path) -> None:
    """Refuse weights that are missing, pickled, or incomplete. Their header is read, their values are not.

    Raises:
        FileNotFoundError: there are no safetensors files.
        ValueError: a file is damaged.
    """
    weights = [folder / WEIGHTS]
    if not weights[0].is_file() and (folder / INDEX).is_file():
        weights = [folder / shard for shard in _shards(folder / INDEX)]
    elif not weights[0].is_file():
        pickles = sorted(file.name for pattern in PICKLES for file in folder.glob(pattern))
        if pickles:
            raise ValueError(
                f"{name} has its weights in {pickles[0]} and not in {WEIGHTS}: only safetensors files are read, "
                "because reading a pickle can execute code; convert it where it was made, with save_pretrained"
            )
        raise FileNotFoundError(f"{name} has no {WEIGHTS} (other formats, such as pytorch_model.bin, are not read)")
    for file in weights:
        if not file.is_file():
            raise FileNotFoundError(f"{name} lacks {file.name}, which {INDEX} names; copy or download it again")
        _refuse_pointer(file)
        try:
            with safe_open(file, framework="numpy"):
                pass
        except (SafetensorError, OSError, ValueError) as error:
            size = file.stat().st_size
            raise ValueError(
                f"{file} is damaged or incomplete ({size:,} bytes; {error_words(error)}); copy or download it again"
            ) from error


def weights_files(folder: Path) -> list[Path]:
    """The files with a model's weights, sorted by name; call `check_weights` first."""
    if (folder / WEIGHTS).is_file():
        return [folder / WEIGHTS]
    return [folder / shard for shard in _shards(folder / INDEX)]


def fingerprint(folder: Path) -> str:
    """SHA-256 of everything that determines a model's outputs: config, preprocessing and weights."""
    digest = hashlib.sha256()
    for file in (folder / CONFIG, folder / PROCESSOR, *weights_files(folder)):
        if file.is_file():
            digest.update(bytes.fromhex(files.file_sha256(file)))
    return digest.hexdigest()


def reading(what: str, read: Callable[[], Read]) -> Read:
    """Call a loading function of transformers; whatever it raises becomes one line.

    On a broken file transformers, safetensors and torch raise AttributeError, KeyError, TypeError, RuntimeError,
    EOFError and more; which one depends on the release.

    Raises:
        ValueError: the function failed; its error is the cause.
        MemoryError: unchanged.
    """
    try:
        return read()
    except MemoryError:
        raise
    except Exception as error:
        raise ValueError(f"cannot read {what}: {error_words(error)}") from error


def _fetch(name: str, revision: str) -> Path:
    """Download the files of a Hub id that are read, all of one commit; without a network, the cached ones."""
    try:
        return Path(snapshot_download(name, revision=revision, allow_patterns=list(FETCHED)))
    except (EntryNotFoundError, HFValidationError, OSError) as error:
        raise OSError(
            f"{name} is not a local folder, and it cannot be downloaded from the Hub: {_reason(error)}"
        ) from error


def _reason(error: Exception) -> str:
    if isinstance(error, LocalEntryNotFoundError):
        offline = "HF_HUB_OFFLINE is set" if constants.is_offline_mode() else "no connection"
        return f"{offline}, and it is not in the cache ({constants.HF_HUB_CACHE})"
    if isinstance(error, GatedRepoError):
        return "accept the conditions on its page first, and log in with `hf auth login`"
    if isinstance(error, RevisionNotFoundError):
        return "the revision does not exist"
    if isinstance(error, RepositoryNotFoundError):
        return "no such repository, or a private one that this token may not read (`hf auth login`)"
    return error_words(error)


def _refuse_own_code(name: str | Path, file: str, value: Any) -> None:
    for key, entry in _entries(value):
        # transformers downloads an attention named owner/repository from the Hub, as compiled code.
        kernel = key.endswith("attn_implementation") and "/" in str(entry)
        if (key in CODE_KEYS and entry) or kernel:
            raise ValueError(
                f"{name} needs its own code ({key} in its {file}); code that comes with a model is never run: give "
                "a model that transformers itself can load"
            )


def _entries(value: Any):
    if isinstance(value, Mapping):
        for key, entry in value.items():
            yield key, entry
            yield from _entries(entry)
    elif isinstance(value, list):
        for entry in value:
            yield from _entries(entry)


def _refuse_pointer(path: Path) -> None:
    with path.open("rb") as file:
        head = file.read(len(LFS_POINTER))
    if head == LFS_POINTER:
        raise ValueError(
            f"{path} is a Git LFS pointer and not the file itself; run `git lfs pull` where it was cloned, or "
            "download the model again"
        )


def _shards(index: Path) -> list[str]:
    shards = read_json(index).get("weight_map")
    if not isinstance(shards, dict) or not shards:
        raise ValueError(f"{index} has no weight_map; copy or download it again")
    strange = [file for file in shards.values() if not isinstance(file, str) or not SHARD.fullmatch(file)]
    if strange:
        raise ValueError(f"{index} names {strange[0]!r}, which is not a valid shard name (model-00001-of-00002...)")
    return sorted(set(shards.values()))
