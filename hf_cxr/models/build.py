"""Hub id, folder or config to a multi-label `SwinForImageClassification`.

Refuses what is not a Swin, one that does not fit together (see `swin.py`), weights that are damaged, missing, of other
shapes or not finite, and a model that needs code of its own (see `checkpoints.py`).

C = findings, D = features.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import SwinConfig, SwinForImageClassification
from transformers.utils import logging as transformers_logging

from hf_cxr.config import ModelArguments
from hf_cxr.models.swin import check_findings, swin_config
from hf_cxr.saved_models import CONFIG, check_weights, model_folder, read_json, reading

FRESH = "a fresh model (model_kwargs)"


def build_model(
    args: ModelArguments,
    label_names: Sequence[str],
    head_bias_C: Sequence[float] | None = None,
    *,
    keep_head: bool = False,
) -> SwinForImageClassification:
    """A Swin with a head of C independent outputs.

    The head is new unless it is to be kept, whatever the checkpoint's number of classes, so that a checkpoint that
    happens to have C classes of its own does not lend its weights to other findings.

    Args:
        args: where the weights come from, or the shape of a fresh model.
        label_names: C finding names, in order; they become id2label.
        head_bias_C: where the bias of each output starts, in logits; zero if left out. Not read if the head is kept.
        keep_head: go on with the checkpoint's head, its calibration included, instead of a new one.

    Raises:
        ValueError: the checkpoint is refused (see the module's first lines), or its head is to be kept and is one of
            other findings.
    """
    names = {"id2label": dict(enumerate(label_names)), "label2id": {name: i for i, name in enumerate(label_names)}}
    multi_label = {"problem_type": "multi_label_classification", **names}
    if args.model_name_or_path is None:
        model = SwinForImageClassification(swin_config(_fresh(args) | multi_label, FRESH))
    else:
        name = args.model_name_or_path
        folder = model_folder(name, args.model_revision)
        saved = read_json(folder / CONFIG)
        if keep_head:
            _check_kept_findings(saved, name, label_names)
        changes = {**args.model_kwargs, "image_size": args.image_size, "num_labels": len(label_names), **multi_label}
        config = saved_config(saved, name, **changes)
        model = _load(folder, name, config, new=None if keep_head else "classifier.")
    if not keep_head:
        reset_head(model, head_bias_C)
    return model


def check_model(args: ModelArguments) -> None:
    """Refuse at the door, before data are read, what `build_model` would refuse after; nothing is kept.

    Raises:
        ValueError, OSError: as `build_model`.
    """
    if args.model_name_or_path is None:
        swin_config(_fresh(args), FRESH)
        return
    folder = model_folder(args.model_name_or_path, args.model_revision)
    head = {"id2label": {0: "any"}, "label2id": {"any": 0}, "num_labels": 1}
    head |= {"problem_type": "multi_label_classification"}
    changes = {**args.model_kwargs, "image_size": args.image_size, **head}
    config = saved_config(read_json(folder / CONFIG), args.model_name_or_path, **changes)
    model = _load(folder, args.model_name_or_path, config, new="classifier.").eval()
    with torch.inference_mode():
        logits = model(pixel_values=torch.zeros(1, 3, args.image_size, args.image_size)).logits
    if not logits.isfinite().all():
        raise ValueError(
            f"{args.model_name_or_path} gives {logits[0, 0].item()} for an even image: give another model"
        )


def describe_initial_weights(args: ModelArguments) -> dict[str, Any]:
    """What a report says of the initial weights. Asked before training: a folder can be gone after it.

    A report is published, so of a local folder it has the name alone, and which data it was trained on.

    Returns:
        ``initial_weights`` in words, and ``base_model``, the Hub id, or None where there is none.
    """
    name = args.model_name_or_path
    if name is None:
        return {"initial_weights": "random", "base_model": None}
    folder = Path(name).expanduser()
    if not folder.exists():
        return {"initial_weights": name, "base_model": name}
    place = folder.resolve()
    words = f"{place.name} of {place.parent.name}" if place.name.startswith("checkpoint-") else place.name
    try:
        split = json.loads((folder / "config.json").read_text(encoding="utf-8"))["hf_cxr"]["split"]
    except (OSError, ValueError, LookupError, TypeError):  # not a model of this package
        return {"initial_weights": f"local folder {words}", "base_model": None}
    return {"initial_weights": f"local folder {words}, trained on the split {split}", "base_model": None}


def freeze_backbone(model: SwinForImageClassification) -> None:
    """Everything but the classifier gets no gradient; the Trainer then keeps it in evaluation mode."""
    model.base_model.requires_grad_(False)


def load_weights(name: str | Path, revision: str = "main") -> SwinForImageClassification:
    """A saved Swin in float32, all of it, with the findings that it was saved with.

    Args:
        name: Hub id or folder.
        revision: branch, tag or commit of a Hub id.

    Raises:
        ValueError: see the module's first lines; or its config.json does not name each output.
        FileNotFoundError: no such folder, or no model in it.
        OSError: the Hub does not give it.
    """
    folder = model_folder(name, revision)
    saved = read_json(folder / CONFIG)
    config = saved_config(saved, name)
    check_findings(saved, f"{name}")
    return _load(folder, name, config)


def saved_config(saved: Mapping[str, Any], name: str | Path, **changes: Any) -> SwinConfig:
    """The config of a saved model, checked, with some keys changed.

    Raises:
        ValueError: it is not a Swin's, or not one that fits together.
    """
    if "model_type" not in saved:
        raise ValueError(f"{name} has no model_type in its {CONFIG}; hf_cxr works with Swin models")
    return swin_config({**saved, **changes}, str(name))


def _fresh(args: ModelArguments) -> dict[str, Any]:
    if args.architecture != "swin":
        raise ValueError(f"architecture is {args.architecture}; hf_cxr works with Swin models: give swin")
    return {**args.model_kwargs, "image_size": args.image_size}


def _load(folder: Path, name: str | Path, config: SwinConfig, *, new: str | None = None) -> SwinForImageClassification:
    """The weights of a folder in a model of this config; those whose name begins with ``new`` may be missing.

    transformers would warn of missing weights, take random ones, and not report NaN.
    """
    check_weights(folder, name)
    load = partial(
        SwinForImageClassification.from_pretrained,
        folder,
        config=config,
        trust_remote_code=False,
        use_safetensors=True,
        local_files_only=True,
        ignore_mismatched_sizes=True,
        output_loading_info=True,
        dtype=torch.float32,
    )
    with _without_report():
        model, loading = reading(f"the weights of {name}", load)
    mismatched = {entry[0] if isinstance(entry, tuple) else entry for entry in loading["mismatched_keys"]}
    lost = sorted(key for key in mismatched | set(loading["missing_keys"]) if new is None or not key.startswith(new))
    if lost:
        raise ValueError(
            f"{name} lacks {len(lost)} of the model's weights, or has them in another shape: {', '.join(lost[:3])}; "
            f"image_size is {config.image_size}: is it the checkpoint's?"
        )
    for key, weight in model.state_dict().items():
        if weight.is_floating_point() and not weight.isfinite().all():
            wrong = weight[~weight.isfinite()]
            raise ValueError(
                f"{name} has {wrong.numel():,} weights in {key} that are not finite, such as {wrong[0].item()}: its "
                "training diverged or its file is damaged; give another checkpoint"
            )
    return model


@contextmanager
def _without_report() -> Iterator[None]:
    """Without transformers' table of what was loaded, of which a new head is the usual content."""
    before = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity_error()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(before)


def _check_kept_findings(saved: Mapping[str, Any], name: str, label_names: Sequence[str]) -> None:
    check_findings(saved, name)
    names = [entry for _, entry in sorted(saved["id2label"].items(), key=lambda item: int(item[0]))]
    if names != list(label_names):
        raise ValueError(
            f"the head of {name} cannot be kept: it is for {len(names)} classes "
            f"({', '.join(names[:3])}, ...), the data have {len(label_names)} findings "
            f"({', '.join(label_names[:3])}, ...); leave out --reinitialize_head false"
        )


def reset_head(model: SwinForImageClassification, bias_C: Sequence[float] | None = None) -> None:
    """Start the classifier again: weights normal with the config's initializer_range, the bias as given or zero."""
    with torch.no_grad():
        model.classifier.weight.normal_(std=model.config.initializer_range)
        model.classifier.bias.copy_(
            torch.zeros(model.config.num_labels) if bias_C is None else torch.as_tensor(bias_C, dtype=torch.float32)
        )


def fold_into_head(model: SwinForImageClassification, weight_CD: np.ndarray, bias_C: np.ndarray) -> None:
    """Replace the classifier's weight (C, D) and bias (C,), as calibration gives them."""
    with torch.no_grad():
        model.classifier.weight.copy_(torch.as_tensor(weight_CD))
        model.classifier.bias.copy_(torch.as_tensor(bias_C))
