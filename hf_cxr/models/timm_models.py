"""Models of timm, through transformers' ``timm_wrapper``: what is particular about them.

timm has its own config.json (no model_type, ImageNet's labels), names its networks, keeps the classifier inside the
backbone, and builds some networks for one image size. `head`, `map_layer`, `architectures` and `batch_norm` ask here.
timm is an extra; without it nothing here is reached but the line that says how to install it.

Refused: a name that timm would look up elsewhere than in itself, and arguments that make it read files.
"""

import re
from collections.abc import Mapping
from typing import Any

from torch import nn

from hf_cxr.extras import need
from hf_cxr.models.values import MAX_BLOCKS, short

TIMM = "timm_wrapper"  # transformers' model_type
MAX_ARGUMENT = 65_536  # of any number among model_args
BLOCKS = ("depth", "layers", "num_layers", "block_config")  # how names of arguments that count blocks begin
# Arguments of timm.create_model that are not about the shape of a network: some read files, one of them a pickle.
NOT_SHAPES = (
    "cache_dir",
    "checkpoint_path",
    "exportable",
    "features_only",
    "pretrained",
    "pretrained_cfg",
    "pretrained_cfg_overlay",
    "pretrained_strict",
    "scriptable",
)


def is_timm(model: nn.Module) -> bool:
    """Whether a model is transformers' wrapper of a model of timm."""
    return getattr(getattr(model, "config", None), "model_type", None) == TIMM


def check_timm(values: Mapping[str, Any], where: str) -> None:
    """Refuse a network that timm cannot build, or would read from a repository or a folder.

    Args:
        values: keys of a config.json.
        where: what an error names.

    Raises:
        ValueError: timm is not installed, has no network of this name, or an argument is not about a network's shape.
    """
    need(f"{where}, a model of timm,", "timm", "timm")
    import timm

    name, arguments = values.get("architecture"), values.get("model_args") or {}
    # Other names mean a repository or a folder, whose config timm would read.
    if not isinstance(name, str) or not re.fullmatch(r"\w+(\.\w+)?", name) or not timm.is_model(name):
        raise ValueError(
            f"{where}: timm {timm.__version__} has no network {short(name)} (architecture of its config); "
            "timm.list_models() lists them"
        )
    if not isinstance(arguments, Mapping):
        raise ValueError(f"model_args in {where} is {short(arguments)}; it must be a mapping of options of {name}")
    wrong = [key for key in arguments if key in NOT_SHAPES]
    if wrong:
        raise ValueError(f"model_args in {where} has {wrong[0]!r}, which is not an option of a network; leave it out")
    if arguments.get("in_chans", 3) != 3:
        raise ValueError(f"{where} takes {short(arguments['in_chans'])} channels (in_chans); give a model of 3")
    for key, value in arguments.items():
        _check_argument(key, value, where)


def timm_values(values: Mapping[str, Any]) -> dict[str, Any]:
    """A config's values as timm_wrapper takes them: findings under its own key, the image size where it is fixed.

    ``pretrained_cfg`` is left out: with it transformers would read the preprocessing from there, and not from the
    processor that is saved with the model.
    """
    import timm

    made = {key: value for key, value in values.items() if key not in ("pretrained_cfg", "num_classes")}
    arguments = {key: value for key, value in (values.get("model_args") or {}).items() if key != "num_classes"}
    names = values.get("id2label")
    if names:
        made["label_names"] = [name for _, name in sorted(names.items(), key=lambda item: int(item[0]))]
        made["num_classes"] = len(names)
    known = timm.get_pretrained_cfg(values["architecture"].split(".")[0])
    if known is not None and known.fixed_input_size:
        arguments["img_size"] = values["image_size"]
    return {**made, "model_args": arguments or None}


def timm_side(values: Mapping[str, Any]) -> int | None:
    """The side in pixels that a config.json of timm says its weights were trained at; None if it does not say one."""
    described = values.get("pretrained_cfg")
    shape = described.get("input_size") if isinstance(described, Mapping) else None
    is_square = isinstance(shape, list | tuple) and len(shape) == 3 and shape[1] == shape[2]
    return shape[2] if is_square and type(shape[2]) is int else None


def timm_head(model: nn.Module) -> tuple[str, nn.Module] | None:
    """Name and layer of the classifier inside the wrapper; None if timm gives none or several."""
    layer = model.timm_model.get_classifier()
    return next(((name, part) for name, part in model.named_modules() if part is layer), None)


def timm_map_layer(network: nn.Module) -> str:
    """The path of the layer that heat maps are made of.

    Of a transformer it is the last block's first norm, before the class token has read the patches for the last time;
    of the rest, the last layer that timm lists as giving features.

    Raises:
        ValueError: timm lists none.
    """
    blocks = getattr(network, "blocks", None)
    if isinstance(blocks, nn.Sequential | nn.ModuleList) and len(blocks) and hasattr(blocks[-1], "norm1"):
        return "blocks.-1.norm1"
    listed = getattr(network, "feature_info", None)
    if not listed:
        raise ValueError(f"timm lists no layer of {type(network).__name__} that heat maps could be made of; give one")
    return listed[-1]["module"]


def _check_argument(key: str, value: Any, where: str) -> None:
    entries = list(value) if isinstance(value, list | tuple) else [value]
    if not all(isinstance(entry, bool | int | float | str | None) for entry in entries):
        raise ValueError(f"{key} of model_args in {where} is {short(value)}; give numbers, text, true or false")
    sizes = [abs(entry) for entry in entries if isinstance(entry, int | float)]
    blocks = key.startswith(BLOCKS)
    asked, most = (sum(sizes), MAX_BLOCKS) if blocks else (max(sizes, default=0), MAX_ARGUMENT)
    if not asked <= most or len(entries) > MAX_BLOCKS:
        raise ValueError(f"{key} of model_args in {where} is {short(value)}; the most that is built is {most:,}")
