"""Hub id, folder or options to a multi-label classifier, as `transformers.AutoModelForImageClassification` gives it.

Position tables of a checkpoint that was trained at another size are interpolated (see `positions`).

Refuses an architecture or sizes that cannot be used (see `architectures`), weights that are damaged, missing, of other
shapes or not finite, and a model that needs code of its own (see `saved_models`).

C = findings.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import try_to_load_from_cache
from transformers import AutoModelForImageClassification, PreTrainedConfig, PreTrainedModel
from transformers.utils import logging as transformers_logging

from hf_cxr.config import ModelArguments
from hf_cxr.models.architectures import check_findings, check_model_options, checked_config, with_image_size
from hf_cxr.models.attention import check_attention
from hf_cxr.models.head import head_keys, reset_head
from hf_cxr.models.positions import (
    describe_changes,
    describe_windows,
    is_position_table,
    resize_tables,
    shape_changes,
    with_trained_windows,
)
from hf_cxr.models.record import MASKED_LOSS, ModelRecord
from hf_cxr.saved_models import CONFIG, check_weights, model_folder, read_config, reading, saved_side
from hf_cxr.words import plural

COUNTER = ".num_batches_tracked"  # of batch norm: older checkpoints lack it, and with a fixed momentum it is not read


def fresh(name: str, kwargs: Mapping[str, Any], label_names: Sequence[str], image_size: int) -> PreTrainedModel:
    """A model of random weights with a head of C independent outputs, in float32.

    Args:
        name: of the architecture, from `hf_cxr.arguments.components.ARCHITECTURES`.
        kwargs: arguments of the architecture's config, such as ``{"embed_dim": 96, "depths": [2, 2, 6, 2]}``.
        label_names: C finding names, in order; they become id2label.
        image_size: side of the input in pixels.

    Raises:
        ValueError: no such architecture or option, or sizes that do not fit together.
    """
    config = _fresh_config(name, kwargs, label_names, image_size)
    return AutoModelForImageClassification.from_config(config, trust_remote_code=False)


def build_model(
    args: ModelArguments,
    label_names: Sequence[str],
    head_bias_C: Sequence[float] | None = None,
    *,
    keep_head: bool = False,
) -> PreTrainedModel:
    """A model with a head of C independent outputs, fresh or from a checkpoint.

    The head is new unless it is kept, whatever the checkpoint's number of classes: a checkpoint that happens to have C
    classes of its own must not lend its weights to other findings.

    Args:
        args: where the weights come from, or the options of a fresh model.
        label_names: C finding names, in order; they become id2label.
        head_bias_C: where the bias of each output starts, in logits; zero if left out. Not read if the head is kept.
        keep_head: keep the checkpoint's head, its calibration included, instead of starting a new one.

    Raises:
        ValueError: the checkpoint is refused (see the module's first lines), or its head is to be kept and belongs to
            other findings.
    """
    name = args.model_name_or_path
    if name is None:
        model = fresh(args.architecture, args.model_kwargs, label_names, args.image_size)
        if args.backbone_name_or_path is not None:
            _load_backbone(model, args)
    else:
        folder = model_folder(name, args.model_revision)
        saved = _saved_values(folder, args.image_size)
        if keep_head:
            _check_kept_findings(saved, name, label_names)
        config = _changed_config(saved, args, label_names, new_head=not keep_head)
        model = _load(folder, name, config, new_head=not keep_head)
    if not keep_head:
        reset_head(model, head_bias_C)
    return model


def check_model(args: ModelArguments) -> PreTrainedModel:
    """Refuse at the start, before data are read, what `build_model` would refuse later.

    Returns:
        The model with one output, for further checks; a fresh one has shapes and no values (the meta device).

    Raises:
        ValueError, OSError: as `build_model`.
    """
    name = args.model_name_or_path
    if name is None:
        config = _fresh_config(args.architecture, args.model_kwargs, ["any"], args.image_size)
        with torch.device("meta"):
            model = AutoModelForImageClassification.from_config(config, trust_remote_code=False)
        if args.backbone_name_or_path is not None:
            _load_backbone(model, args)  # the meta device takes shapes and no values
        check_attention(model, args.attention)
        return model
    folder = model_folder(name, args.model_revision)
    config = _changed_config(_saved_values(folder, args.image_size), args, ["any"], new_head=True)
    model = _load(folder, name, config, new_head=True).eval()
    check_attention(model, args.attention)
    with torch.inference_mode():
        logits = model(pixel_values=torch.zeros(1, 3, args.image_size, args.image_size)).logits
    if not logits.isfinite().all():
        raise ValueError(f"{name} gives {logits[0, 0].item()} for a uniform image; give another model")
    return model


def check_findings_fit(args: ModelArguments, label_names: Sequence[str]) -> None:
    """Refuse, once the data's findings are known and before images are read, what `build_model` would refuse of them.

    Raises:
        ValueError: an option of the model names other findings, such as a saved label_order.
    """
    if args.model_name_or_path is None:
        _fresh_config(args.architecture, args.model_kwargs, label_names, args.image_size)
        return
    folder = model_folder(args.model_name_or_path, args.model_revision)
    _changed_config(_saved_values(folder, args.image_size), args, label_names, new_head=True)


def describe_initial_weights(args: ModelArguments) -> dict[str, Any]:
    """What a report says about the initial weights. Call it before training: a folder can be gone afterwards.

    A report is published, so for a local folder it gives only the name, and the data it was trained on.

    Returns:
        ``initial_weights`` in words, ``base_model``, the Hub id, or None if there is none, and ``weights_origin`` for
        weights whose record has one.
    """
    name = args.initial_model
    part = "" if args.backbone_name_or_path is None else "backbone from "
    if name is None:
        return {"initial_weights": "random", "base_model": None}
    record = initial_record(args) or ModelRecord()
    origin = {} if record.weights_origin is None else {"weights_origin": dict(record.weights_origin)}
    folder = Path(name).expanduser()
    if not folder.exists():
        return {"initial_weights": part + name, "base_model": name, **origin}
    place = folder.resolve()
    words = f"{place.name} of {place.parent.name}" if place.name.startswith("checkpoint-") else place.name
    if record.split is not None:  # of this package
        unlabelled = (record.loss or {}).get("name") == MASKED_LOSS
        how = "pre-trained without labels on the training images of" if unlabelled else "trained on"
        words = f"{words}, {how} the split {record.split}"
    elif origin:
        words = f"{words}, from {record.weights_origin.get('source')}"
    return {"initial_weights": f"{part}local folder {words}", "base_model": None, **origin}


def initial_record(args: ModelArguments) -> ModelRecord | None:
    """The record of the model that weights come from, all or a backbone's; None without one.

    A Hub id's is in the cache.
    """
    name = args.initial_model
    if name is None:
        return None
    config = Path(name).expanduser() / CONFIG
    if not config.parent.exists():
        cached = try_to_load_from_cache(name, CONFIG, revision=args.model_revision)
        config = Path(cached) if isinstance(cached, str) else config
    return ModelRecord.of(read_config(config.parent)) if config.is_file() else None


def describe_positions(args: ModelArguments) -> str | None:
    """What a report says about position tables that do not fit the run's sizes; None if all do."""
    if args.model_name_or_path is None:
        return None
    name = args.model_name_or_path
    saved = _saved_values(model_folder(name, args.model_revision), args.image_size)
    if not args.model_kwargs and saved["image_size"] == args.image_size:
        return None
    own, config = _own_config(saved, name), _changed_config(saved, args, ["any"], new_head=True)
    with torch.device("meta"):
        build = partial(AutoModelForImageClassification.from_config, trust_remote_code=False)
        before, after = build(own), build(config)
    sentences = describe_changes(shape_changes(before, after)), describe_windows(saved, config)
    return "; ".join(filter(None, sentences)) or None


def load_weights(name: str | Path, revision: str = "main") -> PreTrainedModel:
    """A saved model in float32, whole, with the findings that it was saved with.

    Args:
        name: Hub id or folder.
        revision: branch, tag or commit of a Hub id.

    Raises:
        ValueError: see the module's first lines; or its config.json does not name each output.
        FileNotFoundError: no such folder, or no model in it.
        OSError: it cannot be downloaded from the Hub.
    """
    folder = model_folder(name, revision)
    saved = read_config(folder)
    if "SwinForMaskedImageModeling" in (saved.get("architectures") or ()):
        raise ValueError(
            f"{name} was pre-trained and has no classifier: train one with hf-cxr train CONFIG.yaml "
            f"--model_name_or_path {name}"
        )
    config = checked_config(with_image_size(saved, saved_side(folder)), f"{name}")
    check_findings(saved, f"{name}")
    return _load(folder, name, config)


def _saved_values(folder: Path, image_size: int) -> dict[str, Any]:
    """The config.json of a saved model that will run at ``image_size``.

    Where neither it nor its image processor nor its architecture says a size, the weights depend on none, and it is
    given the run's.
    """
    return with_image_size(read_config(folder), saved_side(folder), image_size)


def _fresh_config(
    name: str, kwargs: Mapping[str, Any], label_names: Sequence[str], image_size: int
) -> PreTrainedConfig:
    where = f"a fresh {name} model"
    check_model_options(name, kwargs, where)
    return checked_config({"model_type": name, **kwargs, "image_size": image_size, **_outputs(label_names)}, where)


def _changed_config(
    saved: Mapping[str, Any], args: ModelArguments, label_names: Sequence[str], *, new_head: bool
) -> PreTrainedConfig:
    """A checkpoint's config with the run's own values."""
    where = f"{args.model_name_or_path}"
    check_model_options(saved.get("model_type"), args.model_kwargs, where)
    changes = {**args.model_kwargs, "image_size": args.image_size, **_outputs(label_names)}
    changes = with_trained_windows(saved, changes)
    if new_head:
        changes["architectures"] = []  # whichever classifier the checkpoint was, its head is not read
    return checked_config({**saved, **changes}, where)


def _outputs(label_names: Sequence[str]) -> dict[str, Any]:
    return {
        "problem_type": "multi_label_classification",
        "num_labels": len(label_names),
        "id2label": dict(enumerate(label_names)),
        "label2id": {name: i for i, name in enumerate(label_names)},
    }


def _own_config(saved: Mapping[str, Any], where: str) -> PreTrainedConfig:
    """A checkpoint's config at its own sizes, for the class of model that `_changed_config` leads to."""
    return checked_config({**saved, "architectures": []}, where)


def _load(folder: Path, name: str | Path, config: PreTrainedConfig, *, new_head: bool = False) -> PreTrainedModel:
    """The weights of a folder in a model of this config; those of a head that will be new may be missing.

    transformers would only warn about missing weights, use random ones, and not report NaN.
    """
    check_weights(folder, name)
    model, mismatched, missing = loaded(folder, name, config)
    lost = (mismatched | missing) - (head_keys(model) if new_head else set())
    if any(map(is_position_table, mismatched)):
        own = _own_config(_saved_values(folder, config.image_size), f"{name}")
        before, *unread = loaded(folder, name, own)
        tables = {change.key for change in shape_changes(before, model)} & mismatched
        tables -= set().union(*unread)  # these are random: config.json gives another size than the tables have
        resize_tables(before, model, tables)
        lost -= tables
    if lost:
        raise ValueError(
            f"{name} does not have {len(lost)} of the model's weights, or has them in another shape: "
            f"{', '.join(sorted(lost)[:3])}; "
            f"if the checkpoint was trained at another size than {config.image_size} pixels, set image_size to that"
        )
    check_finite(model, name)
    return model


def loaded(
    folder: Path, name: str | Path, config: PreTrainedConfig, kind: Any = AutoModelForImageClassification
) -> tuple[PreTrainedModel, set[str], set[str]]:
    """The model as transformers loads it, and the keys of weights of another shape, and of missing ones.

    Args:
        folder: with checked weights, see `saved_models.check_weights`.
        name: what an error names.
        config: of the model, checked.
        kind: the class whose ``from_pretrained`` loads it.
    """
    load = partial(
        kind.from_pretrained,
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
    return model, mismatched, {key for key in loading["missing_keys"] if not key.endswith(COUNTER)}


def check_finite(model: PreTrainedModel, name: str | Path) -> None:
    """Refuse weights that are not finite.

    Raises:
        ValueError: names the first such weight.
    """
    for key, weight in model.state_dict().items():
        if weight.is_floating_point() and not weight.isfinite().all():
            wrong = weight[~weight.isfinite()]
            raise ValueError(
                f"{name} has {wrong.numel():,} weights in {key} that are not finite, such as {wrong[0].item()}: its "
                "training diverged or its file is damaged; give another checkpoint"
            )


def _load_backbone(model: PreTrainedModel, args: ModelArguments) -> None:
    """Give the backbone within a system the weights of a saved model's, which is checked as any saved model is.

    Raises:
        ValueError: the saved model is refused, is of another kind or size than the backbone, or lacks weights.
    """
    name = args.backbone_name_or_path
    folder = model_folder(name, args.model_revision)
    config = _own_config(_saved_values(folder, args.image_size), name)
    source = _load(folder, name, config, new_head=True)
    try:
        model.load_backbone(source.state_dict(), source.config)
    except ValueError as error:
        raise ValueError(f"{name} cannot be the backbone of {args.architecture}: {error}") from error


@contextmanager
def _without_report() -> Iterator[None]:
    """Silence transformers' table of what was loaded: a new head is expected to be in it."""
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
            f"the head of {name} cannot be kept: it is for {plural(len(names), 'class', 'classes')} "
            f"({', '.join(names[:3])}, ...), the data have {plural(len(label_names), 'finding')} "
            f"({', '.join(label_names[:3])}, ...); leave out --reinitialize_head false"
        )
