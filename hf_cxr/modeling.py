"""Hub id, folder or config to a multi-label `SwinForImageClassification`.

Refuses what is not a Swin, and a Swin whose last grid is smaller than its attention window.

C = findings, D = features.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoConfig, PreTrainedConfig, SwinConfig, SwinForImageClassification

from hf_cxr.config import ModelArguments


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
        ValueError: the checkpoint is not a Swin, its last grid is smaller than its window, or its head is to be kept
            and is one of other findings.
    """
    names = {"id2label": dict(enumerate(label_names)), "label2id": {name: i for i, name in enumerate(label_names)}}
    multi_label = {"problem_type": "multi_label_classification", "drop_path_rate": args.drop_path_rate, **names}
    if args.model_name_or_path is None:
        config = SwinConfig(
            image_size=args.image_size,
            patch_size=args.swin_patch_size,
            window_size=args.swin_window_size,
            embed_dim=args.swin_embed_dim,
            depths=args.swin_depths,
            num_heads=args.swin_num_heads,
            use_absolute_embeddings=args.swin_absolute_embeddings,
            initializer_range=args.swin_initializer_range,
            **multi_label,
        )
        check_grid(config)
        model = SwinForImageClassification(config)
    else:
        config = AutoConfig.from_pretrained(
            args.model_name_or_path, revision=args.model_revision, image_size=args.image_size, **multi_label
        )
        _check_swin(config, args.model_name_or_path)
        check_grid(config)
        if keep_head:
            _check_findings(args, label_names)
        but = None if keep_head else "classifier."
        model = load_weights(args.model_name_or_path, args.model_revision, config, but=but)
    if not keep_head:
        reset_head(model, head_bias_C)
    return model


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


def load_weights(
    name: str | Path, revision: str, config: SwinConfig | None = None, *, but: str | None = None
) -> SwinForImageClassification:
    """A saved Swin in float32, all of it.

    Args:
        name: Hub id or folder.
        revision: branch, tag or commit of a Hub id.
        config: in place of the saved one.
        but: prefix of the weights that may be missing or of another shape.

    Raises:
        ValueError: it is not a Swin, or weights are missing or have other shapes; transformers would warn and go on
            with random ones.
    """
    config = config or AutoConfig.from_pretrained(name, revision=revision)
    _check_swin(config, name)
    model, loading = SwinForImageClassification.from_pretrained(
        name,
        revision=revision,
        config=config,
        ignore_mismatched_sizes=True,
        output_loading_info=True,
        dtype=torch.float32,
    )
    mismatched = {entry[0] if isinstance(entry, tuple) else entry for entry in loading["mismatched_keys"]}
    lost = sorted(key for key in mismatched | set(loading["missing_keys"]) if but is None or not key.startswith(but))
    if lost:
        raise ValueError(
            f"{name} lacks {len(lost)} of the model's weights, or has them in another shape: {', '.join(lost[:3])}; "
            f"image_size is {config.image_size}: is it the checkpoint's?"
        )
    return model


def _check_swin(config: PreTrainedConfig, name: str | Path) -> None:
    if config.model_type != "swin":
        raise ValueError(f"{name} is a {config.model_type} model; hf_cxr works with Swin models")


def _check_findings(args: ModelArguments, label_names: Sequence[str]) -> None:
    saved = AutoConfig.from_pretrained(args.model_name_or_path, revision=args.model_revision)
    names = [saved.id2label[i] for i in range(saved.num_labels)]
    if names != list(label_names):
        raise ValueError(
            f"the head of {args.model_name_or_path} cannot be kept: it is for {len(names)} classes "
            f"({', '.join(names[:3])}, ...), the data have {len(label_names)} findings "
            f"({', '.join(label_names[:3])}, ...); leave out --reinitialize_head false"
        )


def check_grid(config: SwinConfig) -> None:
    """Refuse a config whose last stage has fewer patches a side than the attention window has.

    transformers fails on it in the middle of the first forward pass.
    """
    last_grid = config.image_size // config.patch_size // 2 ** (len(config.depths) - 1)
    if last_grid < config.window_size:
        least = config.window_size * config.patch_size * 2 ** (len(config.depths) - 1)
        raise ValueError(
            f"image_size {config.image_size} leaves a last grid of {last_grid} x {last_grid} patches, smaller than "
            f"its window of {config.window_size}; set image_size to {least} or more or swin_window_size to {last_grid}"
        )


def reset_head(model: SwinForImageClassification, bias_C: Sequence[float] | None = None) -> None:
    """Start the classifier anew: weights normal with the config's initializer_range, the bias as given or zero."""
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
