"""Which files of a run folder go to the Hub, and whether each of them may.

A literal list of names, never a pattern: checkpoints, logs, heat maps, hidden files and sub-folders are not sent. Sent
only if asked for: the predictions, which contain patient identifiers; a handler for Inference Endpoints; exported
models.

Refused, before anything is sent: a folder in which a file of a finished run is missing; a file that is a link, has a
second name, is empty, or is not a regular file inside the folder; and what `parsing`, `leaks` and `same_run` refuse.
"""

import re
import stat
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PureWindowsPath
from typing import Any

import yaml

from hf_cxr.arguments.model import INITIAL_WEIGHTS
from hf_cxr.exported_files import EXPORT, MODEL, ONNX, RESULT
from hf_cxr.hub.handler import HANDLER, handler_files
from hf_cxr.hub.leaks import LOCAL_PATH, check_no_local_path, check_no_token
from hf_cxr.hub.onnx_text import OnnxText, read_onnx
from hf_cxr.hub.parsing import PushFile, parse, read_weights, texts_of
from hf_cxr.hub.same_run import check_same_run
from hf_cxr.reporting.card.benchmark import BENCHMARK
from hf_cxr.saved_models import WEIGHTS, fingerprint

REQUIRED = (
    *("config.json", WEIGHTS, "preprocessor_config.json"),
    *("README.md", "config.yaml", "metrics.json", "report.html"),
)
"""The files of every finished run."""

FIGURES = ("figures/roc_test.png", "figures/precision_recall_test.png", "figures/training.png")
"""Sent if they exist; one that the card shows has to exist."""

OPTIONAL = (BENCHMARK, "input_check.safetensors")
"""Sent if they exist; the latter tells whether an image looks like those that the model was trained on."""

PUSHED = (*REQUIRED, *FIGURES, *OPTIONAL)
PREDICTIONS = ("predictions/validation.parquet", "predictions/test.parquet")

SENT_IF_ASKED = (*PREDICTIONS, *HANDLER, *ONNX)
LARGE = (WEIGHTS, *ONNX)

LOCAL_SETTINGS = ("data_root", "logging_dir", "nih_root", "output_dir", "resume_from_checkpoint", "table_root")
"""Keys of config.yaml that are not pushed: folders of the machine that trained. Of any other value that is a path, the
last name is kept, so that the pushed settings still name the same data."""

HUB_IDS = (*INITIAL_WEIGHTS, "trackio_bucket_id", "trackio_space_id", "trackio_static_space_id")
"""Keys whose value may contain a slash without being a path."""


@dataclass(frozen=True)
class PushExtras:
    """What is sent besides the files of every run.

    Args:
        predictions: ``predictions/``, which contain identifiers of patients and images.
        handler: handler.py and requirements.txt for Inference Endpoints; they are written here, not read.
        handler_requirement: the line of requirements.txt; None for this version of hf_cxr from a package index.
        onnx: the models in ``export/onnx/`` that `hf-cxr export` wrote; they go to ``onnx/``.
    """

    predictions: bool = False
    handler: bool = False
    onnx: bool = False
    handler_requirement: str | None = None


NO_EXTRAS = PushExtras()


def collect(run_dir: str | Path, extras: PushExtras = NO_EXTRAS, *, token: str | None = None) -> list[PushFile]:
    """The files of a run folder that are to be sent, each of them checked, sorted by name.

    Args:
        run_dir: a finished run folder.
        extras: what else to send.
        token: an access token that must not be in any file; whatever looks like one is refused too.

    Raises:
        FileNotFoundError: the folder is not a finished run; the message names what is missing or empty.
        ValueError: a file may not be sent; the message names it, says why, and what to do.
    """
    run_dir = Path(run_dir)
    if not run_dir.is_dir():
        raise FileNotFoundError(f"no run folder at {run_dir}; give the folder that training wrote (--output_dir)")
    names = list_names(run_dir, extras)
    data = {name: (run_dir / name).read_bytes() for name in names if name not in LARGE}
    parsed = {name: parse(run_dir / name, content) for name, content in data.items()}
    tensors = read_weights(run_dir / WEIGHTS)
    _check_card_figures(run_dir, names, parsed["README.md"])
    check_same_run(run_dir, parsed, tensors)

    kept, hidden = published_settings(parsed["config.yaml"], parsed["metrics.json"].get("protocol") or {})
    shown = {name: [text for _, text in texts_of(value)] for name, value in parsed.items()}
    models = {name: run_dir / EXPORT / name for name in names if name in ONNX}
    exported = {name: _text_of_export(path, run_dir) for name, path in models.items()}
    shown |= {WEIGHTS: [*tensors.metadata, *tensors.metadata.values()]}
    shown |= {name: [piece for _, piece in text.all] for name, text in exported.items()}
    check_no_token(run_dir, data, shown, token)
    data["config.yaml"] = yaml.safe_dump(kept, allow_unicode=True).encode()
    parsed["config.yaml"] = kept
    texts = {name: list(texts_of(parsed[name])) for name in data}
    texts[WEIGHTS] = [(f"metadata {key}", value) for key, value in tensors.metadata.items()]
    check_no_local_path(run_dir, texts, hidden)
    paths = {name: text.paths for name, text in exported.items()}
    check_no_local_path(run_dir, paths, hidden, "write these files with hf-cxr export, which leaves the paths out")
    data |= handler_files(extras.handler_requirement) if extras.handler else {}
    files = [PushFile.of(name, content) for name, content in data.items()]
    files += [PushFile.of(name, path) for name, path in {WEIGHTS: run_dir / WEIGHTS, **models}.items()]
    return sorted(files, key=lambda file: file.path)


def _text_of_export(path: Path, run_dir: Path) -> OnnxText:
    model = read_onnx(path)
    if model.model_sha256 != fingerprint(run_dir):
        what = (
            "does not say which model it was exported from"
            if model.model_sha256 is None
            else "is an export of another model, or of this one before it changed"
        )
        raise ValueError(
            f"{path} {what}; nothing was pushed; remove {path.parents[1]} and run hf-cxr export {run_dir} again"
        )
    return model.text


def list_names(run_dir: Path, extras: PushExtras = NO_EXTRAS) -> list[str]:
    """The files of the folder that are to be sent, by their names in the repository.

    No content is read; each is checked to be a regular file inside the folder.
    """
    wanted = (*REQUIRED, *(PREDICTIONS if extras.predictions else ()))
    there = {name: _place(run_dir, name) for name in (*wanted, *FIGURES, *OPTIONAL)}
    there |= {name: _place(run_dir, f"{EXPORT}/{name}") for name in (ONNX if extras.onnx else ())}
    if extras.onnx and there[MODEL] is None:
        raise FileNotFoundError(
            f"{run_dir / EXPORT / MODEL} is missing; nothing was pushed; write it with `hf-cxr export {run_dir} "
            "--onnx`, or leave --onnx out"
        )
    if extras.onnx and _place(run_dir, f"{EXPORT}/{RESULT}") is None:
        raise FileNotFoundError(
            f"{run_dir / EXPORT / RESULT} is missing, so the export was interrupted; nothing was pushed; remove "
            f"{run_dir / EXPORT} and run hf-cxr export again, or leave --onnx out"
        )
    wrong = [f"{name} is missing" for name in wanted if there[name] is None]
    wrong += [f"{name} is empty" for name, status in there.items() if status and status.st_size == 0]
    if wrong:
        if (run_dir / "manifest.json").is_file():
            repair = "if it is a prepared dataset, give --dataset"
        elif there["metrics.json"] is None and any(run_dir.glob("checkpoint-*")):
            repair = "run the same `hf-cxr train` command again to finish the run"
        elif there["metrics.json"] is None:
            repair = "give the folder that training wrote at its end, not a checkpoint inside it"
        else:
            repair = "restore what is missing from a copy, or train again with another --output_dir"
        raise FileNotFoundError(
            f"{run_dir} is not a complete run folder: {', '.join(wrong)}; nothing was pushed; {repair}"
        )
    return sorted(name for name, status in there.items() if status)


def _place(run_dir: Path, name: str):
    """The status of a regular file inside the folder; None if nothing has this name."""
    path = run_dir / name
    try:
        status = path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        status = None
    copy = f"nothing was pushed from {run_dir}; replace it by a copy"
    folder = path.parent
    if folder.exists() and folder.resolve() != (run_dir.resolve() / name).parent:
        raise ValueError(f"{folder} is a link that can lead out of the run folder; {copy}")
    if status is None:
        return None
    if stat.S_ISLNK(status.st_mode):
        raise ValueError(f"{path} is a link that can lead out of the run folder; {copy}")
    if not stat.S_ISREG(status.st_mode):
        raise ValueError(f"{path} is not a regular file; {copy}")
    if status.st_nlink > 1:
        raise ValueError(f"{path} is a hard link: the same file has another name on this disk; {copy}")
    return status


def published_settings(settings: dict[str, Any], protocol: dict[str, Any]) -> tuple[dict[str, Any], set[str]]:
    """The settings without their paths, and those paths: no other file may contain them either.

    Args:
        settings: the content of config.yaml.
        protocol: that of metrics.json, which records whether the initial weights came from the Hub.
    """
    hidden = {value for key in LOCAL_SETTINGS if isinstance(value := settings.get(key), str) and key != "output_dir"}

    def publish(key: str, value: Any) -> Any:
        if isinstance(value, dict):
            return {name: publish(name, entry) for name, entry in value.items()}
        if isinstance(value, list):
            return [publish(key, entry) for entry in value]
        if not isinstance(value, str) or not _is_local(key, value, protocol):
            return value
        hidden.add(value)
        return PureWindowsPath(value).name or None  # it accepts both kinds of separator

    kept = {key: publish(key, value) for key, value in settings.items() if key not in LOCAL_SETTINGS}
    return kept, {path for path in hidden if re.search(r"[\\/]", path.strip("/\\"))}


def _is_local(key: str, value: str, protocol: dict[str, Any]) -> bool:
    if key in INITIAL_WEIGHTS and "base_model" in protocol:
        return protocol["base_model"] != value  # what it was when the run began
    if key not in HUB_IDS or LOCAL_PATH.match(value) or value.startswith((".", "~")):
        return value.startswith(("~", ".")) or "/" in value or "\\" in value
    return "\\" in value or value.count("/") > 1 or Path(value).exists()


def _check_card_figures(run_dir: Path, names: Sequence[str], card: str) -> None:
    missing = [figure for figure in FIGURES if figure not in names and f"({figure})" in card]
    if missing:
        raise FileNotFoundError(
            f"{run_dir} is not a complete run folder: the card shows {', '.join(missing)}, which is missing; nothing "
            "was pushed; restore the figure, or remove it from README.md"
        )
