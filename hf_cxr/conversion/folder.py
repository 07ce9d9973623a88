"""A file of weights to a model folder: config.json, model.safetensors, preprocessor_config.json and a README.md.

The folder contains a backbone without a classifier. `hf-cxr train --model_name_or_path FOLDER` takes every weight of
it and starts a new head; a command that needs a finished model refuses it, because its head is missing.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from transformers import AutoModelForImageClassification, PreTrainedConfig

import hf_cxr
from hf_cxr.config import ModelArguments
from hf_cxr.conversion.checkpoint import Backbone, find_backbone
from hf_cxr.conversion.convolutional import (
    densenet_config,
    densenet_parts,
    resnet_config,
    resnet_parts,
    with_modern_names,
)
from hf_cxr.conversion.parts import Part, Sizes, taken
from hf_cxr.conversion.reading import read_file
from hf_cxr.conversion.swin import config_from_shapes
from hf_cxr.conversion.swin import parts as swin_parts
from hf_cxr.files import file_sha256, write_text
from hf_cxr.models.architectures import checked_config
from hf_cxr.models.build import build_model
from hf_cxr.models.record import ModelRecord
from hf_cxr.processing import build_image_processor
from hf_cxr.saved_models import WEIGHTS
from hf_cxr.weights_origin import check_origin
from hf_cxr.words import markdown

NOTHING_GIVEN = Sizes()


@dataclass(frozen=True)
class Layout:
    """How a kind of backbone is translated.

    Attributes:
        config: backbone, path of the file, what it may not say -> the keys of the model's config.
        parts: those keys -> every weight of the model.
        classes: ``model_type`` of the config -> the class that config.json names.
        renamed: the backbone under the names that ``parts`` has.
        started: how names of weights begin that the model has and no file.
    """

    config: Callable[[Backbone, Path, Sizes], dict[str, Any]]
    parts: Callable[[dict[str, Any]], Iterator[Part]]
    classes: Mapping[str, str]
    renamed: Callable[[Backbone], Backbone] = lambda backbone: backbone
    started: tuple[str, ...] = ()


# Kind of a backbone (`checkpoint.ANCHORS`) -> its layout.
LAYOUTS = {
    "swin": Layout(config_from_shapes, swin_parts, {"swin": "SwinModel", "swinv2": "Swinv2Model"}),
    "resnet": Layout(resnet_config, resnet_parts, {"resnet": "ResNetModel"}),
    "densenet": Layout(densenet_config, densenet_parts, {"dnet": "DNet"}, with_modern_names, ("reduction.",)),
}


@dataclass(frozen=True)
class Converted:
    """A backbone in transformers' layout.

    Attributes:
        config: of the model, with its record.
        tensors: its weights in float32, under the names that they have on the Hub.
        key: which of the file's state_dicts they are; "" if the file is one.
        left_out: what a part of the file is -> the names of its weights, which were not taken.
        started: names of new weights, which the file does not have: those in front of a DenseNet.
    """

    config: PreTrainedConfig
    tensors: Mapping[str, torch.Tensor]
    key: str
    left_out: Mapping[str, Sequence[str]]
    started: tuple[str, ...] = ()

    @property
    def origin(self) -> Mapping[str, Any]:
        """Where the weights come from, see `weights_origin`."""
        return ModelRecord.of(self.config).weights_origin


def convert_file(
    path: Path, origin: Mapping[str, str | None], *, key: str | None = None, sizes: Sizes = NOTHING_GIVEN
) -> Converted:
    """Read a file of weights and translate it; nothing is written.

    Args:
        path: of the file.
        origin: "source", "licence", "saw_test_images" and "note"; see `weights_origin`.
        key: which state_dict to take where the file has several.
        sizes: what the file does not say.

    Raises:
        FileNotFoundError, ValueError: see `reading`, `checkpoint`, `swin` and `weights_origin`.
    """
    content = read_file(path)
    origin = {**origin, "kind": "converted", "file": path.name, "sha256": file_sha256(path)}
    check_origin(origin)
    backbone = find_backbone(content, path, key)
    layout = LAYOUTS[backbone.kind]
    backbone = layout.renamed(backbone)
    values = layout.config(backbone, path, sizes)
    kind = backbone.kind if values["model_type"] == backbone.kind else f"{backbone.kind} ({values['model_type']})"
    tensors = taken(backbone, layout.parts(values), path, kind)
    config = checked_config(values, f"{path}")
    config.architectures = [layout.classes[config.model_type]]
    ModelRecord(version=hf_cxr.__version__, weights_origin=origin).write(config)
    started = {}
    if layout.started:
        model = AutoModelForImageClassification.from_config(config, trust_remote_code=False)
        started = {name: tensor for name, tensor in model.state_dict().items() if name.startswith(layout.started)}
    return Converted(config, {**tensors, **started}, backbone.key, backbone.left_out, tuple(started))


def write_folder(
    converted: Converted,
    folder: Path,
    *,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
) -> None:
    """Write the model folder and load it once.

    Args:
        converted: from `convert_file`.
        folder: an empty folder.
        mean, std: of the three channels, for grey levels from 0 to 1, that the weights were trained with; None for
            ImageNet's.

    Raises:
        ValueError: transformers does not take every weight.
    """
    config = converted.config
    config.save_pretrained(folder)
    save_file(dict(converted.tensors), folder / WEIGHTS, metadata={"format": "pt"})
    args = ModelArguments(str(folder), image_size=config.image_size)
    values = {name: given for name, given in (("mean", mean), ("std", std)) if given is not None}
    build_image_processor(args.resize_size, args.image_size, **values).save_pretrained(folder)
    write_text(folder / "README.md", _readme(converted))
    # Loaded as training will load it: refused if a weight is missing or has another shape.
    build_model(args, ["any"])


def size_words(config: PreTrainedConfig) -> str:
    """The architecture in a line."""
    window = f"window {config.window_size}, " if hasattr(config, "window_size") else ""
    width = next(getattr(config, name) for name in ("embed_dim", "embedding_size", "width") if hasattr(config, name))
    return f"{config.model_type}: width {width}, depths {list(config.depths)}, {window}{config.image_size} pixels"


def differences(converted: Converted) -> list[str]:
    """What was not taken, and what is new: each part with the names of its weights, the first few of many."""
    started = [f"new, not in the file: {', '.join(converted.started)}"] if converted.started else []
    return started + [
        f"left out: {what}: {', '.join(names[:3])}{f' and {len(names) - 3:,} more' if len(names) > 3 else ''}"
        for what, names in converted.left_out.items()
    ]


def _readme(converted: Converted) -> str:
    origin = converted.origin
    note = [f"- note: {markdown(origin['note'])}"] if origin.get("note") else []
    number = sum(tensor.numel() for tensor in converted.tensors.values())
    return "\n".join(
        [
            f"# {markdown(origin['source'])}",
            "",
            f"A backbone without a classifier ({size_words(converted.config)}; {number:,} numbers), converted to "
            f"transformers' layout by hf_cxr {hf_cxr.__version__}. It gives no probabilities before it is fine-tuned:",
            "",
            f"    hf-cxr train --model_name_or_path FOLDER --image_size {converted.config.image_size} ...",
            "",
            f"- source: {markdown(origin['source'])}",
            f"- licence: {markdown(origin['licence'])}",
            f"- images of ChestX-ray14's official test list in its training: {origin['saw_test_images']}",
            *note,
            f"- file: {markdown(origin['file'])}, SHA-256 {origin['sha256']}"
            + (f", of which {markdown(converted.key)}" if converted.key else ""),
            "",
            "What was not taken, and what is new:",
            "",
            *[f"- {markdown(words)}" for words in differences(converted)],
            "",
        ]
    )
