"""The backbone's weights among what a checkpoint contains.

A training program saves more than a backbone: a student next to its teacher, an optimizer, a decoder, classifiers.
Here one state_dict is chosen, the prefix of the backbone is found, and weights of other parts are left out by
the patterns of `INSIDE` and `OUTSIDE`, which say of each what it is. Nothing is left out because its name is not
known: a weight that no pattern knows stays in `Backbone`, and the conversion refuses it by name.
"""

import dataclasses
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from hf_cxr.words import one_line, plural

# Kind of a backbone -> a weight that only it has, in the layouts that are converted.
ANCHORS = {
    "swin": r"layers\.0\.blocks\.0\.attn\.qkv\.weight",
    "densenet": r"features\.denseblock1\.denselayer1\.conv\.?1\.weight",
    "resnet": r"layer1\.0\.conv1\.weight",
}
TABLES = r"(.+\.)?(relative_position_index|relative_coords_table|attn_mask)"

# What is left out of a backbone and what of its surroundings: pattern of the name -> what it is.
INSIDE = {
    r"head\.(fc\.)?(weight|bias)": "the classifier",
    r"head_dist\.(weight|bias)": "the distillation's classifier",
    r"omni_heads\.\d+\.(weight|bias)": "the classifiers of several data sets (Ark)",
    r"projector\.(\d+\.)?(weight|bias)": "the projection in front of the classifiers (Ark)",
    r"(fc|classifier)\.(weight|bias)": "the classifier",
    r"mask_token": "SimMIM's mask token",
    TABLES: "tables that follow from the sizes; transformers computes them",
}
OUTSIDE = {
    r"decoder\.\d+\.(weight|bias)": "the decoder of masked or shuffled patches (SimMIM, POPAR, PEAC)",
    r"mlp(_local)?\.\d+\.(weight|bias)": "the projections of whole images and patches (PEAC)",
    r"head\.(weight|bias)|bias": "the classifier of patch positions (POPAR, PEAC)",
    r"cls_head\.\d+\.\w+": "the classifier (POPAR)",
}


@dataclass(frozen=True)
class Backbone:
    """The weights of a backbone, with the names of the official layout.

    Attributes:
        kind: a key of ``ANCHORS``.
        tensors: name in the official layout, without prefix -> tensor; the tables of ``TABLES`` are among them.
        names: the same names -> name in the file.
        key: which of the file's state_dicts was taken; "" if the file is one.
        left_out: what a part is -> the names of its weights in the file.
        unknown: names in the file, outside the backbone, of weights that no pattern knows.
    """

    kind: str
    tensors: dict[str, torch.Tensor]
    names: dict[str, str]
    key: str
    left_out: dict[str, list[str]]
    unknown: list[str]


def find_backbone(content: Mapping[str, Any], path: Path, key: str | None = None) -> Backbone:
    """The backbone in what a file contains.

    Args:
        content: from `reading.read_file`.
        path: of the file, for messages.
        key: which state_dict to take where the file has several, such as "teacher".

    Raises:
        ValueError: there is none, or there are several and no key chooses.
    """
    chosen, weights = _chosen(content, path, key)
    weights = _without("module.", weights)  # of torch's DataParallel
    kind = _kind(weights)
    prefixes = [name[: at.start()] for name in weights if (at := _anchor(kind, name))]
    if len(prefixes) != 1:
        raise ValueError(
            f"{path} has {len(prefixes)} backbones, {' and '.join(map(repr, prefixes))}; write the one that you want "
            "into a separate file"
        )
    prefix = prefixes[0]
    found = Backbone(kind, {}, {}, chosen, {}, [])
    for name, tensor in weights.items():
        inside = name.startswith(prefix)
        short = name.removeprefix(prefix) if inside else name
        what = _what_it_is(short, INSIDE if inside else OUTSIDE)
        if what is not None:
            found.left_out.setdefault(what, []).append(name)
        if inside and (what is None or re.fullmatch(TABLES, short)):
            found.tensors[short], found.names[short] = tensor, name
        elif what is None:
            found.unknown.append(name)
    return _in_official_places(found)


def _chosen(content: Mapping[str, Any], path: Path, key: str | None) -> tuple[str, dict[str, torch.Tensor]]:
    """The key of the state_dict and its tensors."""
    found = {str(name): value for name, value in content.items() if _kind(value)}
    if _kind(content):
        found = {"": content}
    if not found:
        names = [str(name) for name in content]
        raise ValueError(
            f"{path} contains no Swin or SwinV2 in the official layout or timm's, and no ResNet or DenseNet in "
            f"torchvision's: it has {plural(len(names), 'entry', 'entries')}, "
            f"{one_line(', '.join(names[:5]))}{', ...' * (len(names) > 5)}, and no weight with a name such as "
            "layers.0.blocks.0.attn.qkv.weight"
        )
    if key is not None and "" in found:
        raise ValueError(f"{path} is one set of weights and not several; leave out --key")
    if key is not None and key not in found:
        raise ValueError(f"{path} has no weights under {key!r}; give --key {_or(found)}")
    if key is None and len(found) > 1:
        raise ValueError(f"{path} contains the weights of {' and of '.join(found)}; choose with --key {_or(found)}")
    key = key if key is not None else next(iter(found))
    weights = {str(name): value for name, value in found[key].items()}
    strange = [name for name, value in weights.items() if not isinstance(value, torch.Tensor)]
    if strange:
        raise ValueError(f"{strange[0]} in {path} is a {type(weights[strange[0]]).__name__} and not a weight")
    return key, weights


def _kind(value: Any) -> str | None:
    """Which backbone a mapping of weights is of; None if it is nothing of the kind."""
    if not isinstance(value, Mapping):
        return None
    names = [name for name, tensor in value.items() if isinstance(name, str) and isinstance(tensor, torch.Tensor)]
    return next((kind for kind in ANCHORS if any(_anchor(kind, name) for name in names)), None)


def _anchor(kind: str | None, name: str) -> re.Match[str] | None:
    return kind and re.search(rf"(?<![^.]){ANCHORS[kind]}$", name)


def _without(prefix: str, weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    if all(name.startswith(prefix) for name in weights):
        return {name.removeprefix(prefix): tensor for name, tensor in weights.items()}
    return weights


def _what_it_is(name: str, patterns: Mapping[str, str]) -> str | None:
    return next((what for pattern, what in patterns.items() if re.fullmatch(pattern, name)), None)


def _in_official_places(backbone: Backbone) -> Backbone:
    """timm (from 0.9) merges patches at the beginning of a stage, the official layout at the end of the one before."""
    if "layers.0.downsample.reduction.weight" in backbone.tensors:
        return backbone

    def official(name: str) -> str:
        return re.sub(r"^layers\.([1-9]\d*)\.downsample\.", lambda at: f"layers.{int(at[1]) - 1}.downsample.", name)

    return dataclasses.replace(
        backbone,
        tensors={official(name): tensor for name, tensor in backbone.tensors.items()},
        names={official(name): own for name, own in backbone.names.items()},
    )


def _or(names: Mapping[str, Any]) -> str:
    return " or ".join(f"--key {name}" for name in names).removeprefix("--key ")
