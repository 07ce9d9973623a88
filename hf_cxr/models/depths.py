"""How deep in a model each parameter lies, counted in layers: for learning rates that fall towards the input.

Depth 0 is what comes before the first layer (patch embedding, position table, stem), 1 the first layer, and so on.
What comes after the last layer, the final norm and the head, has the greatest depth. A layer is

- a block of a Swin, SwinV2, FocalNet or ResNet; a patch merging or a stem of a stage goes with the nearest block of
  its stage: as in the fine-tuning of SimMIM (Xie et al., CVPR 2022, github.com/microsoft/SimMIM, ``get_swin_layer``);
- a block of a ViT, DeiT, BEiT or DINOv2: as in BEiT (Bao et al., ICLR 2022) and ELECTRA (Clark et al., ICLR 2020);
- three blocks of a stage of a ConvNeXt or ConvNeXtV2, so that their Base has 12: as in ConvNeXt (Liu et al., CVPR
  2022, github.com/facebookresearch/ConvNeXt, ``get_num_layer_for_convnext``);
- for any other model: a member of the list of modules (`ModuleList` or `Sequential`, three members or more) that holds
  most parameters. A model without such a list is refused.

The names of timm's models (``layers.0.blocks.1``, ``stages.0.blocks.1``, ``blocks.1``, ``layer1.0``) are known too.
"""

import re
from collections.abc import Iterator

from torch import nn
from transformers import PreTrainedModel

from hf_cxr.models.head import head_keys

# Where a parameter's name has the stage and the number of its block, or the number alone.
BLOCKS = (
    re.compile(r"(?P<stage>.*?\blayers\.\d+)\.blocks\.(?P<block>\d+)\."),  # Swin, SwinV2
    re.compile(r"(?P<stage>.*?\bstages\.\d+)\.(?:layers|blocks)\.(?P<block>\d+)\."),  # ConvNeXt, ResNet, FocalNet
    re.compile(r"(?P<stage>.*?\blayer[1-4])\.(?P<block>\d+)\."),  # timm's ResNet
    re.compile(r"(?P<stage>.*?\bdenseblock\d+)\.denselayer(?P<block>\d+)\."),  # DenseNet
    re.compile(r"(?P<stage>.*?\b(?:layers|layer|blocks))\.(?P<block>\d+)\."),  # ViT, DeiT, BEiT, DINOv2
)
CONVNEXT_BLOCKS = 3  # of a layer


def depth_of_parameters(model: PreTrainedModel) -> dict[str, int]:
    """The depth of each parameter by its name, see the module's first lines.

    Raises:
        ValueError: the model has no list of layers.
    """
    top = head_names(model)
    names = [name for name, _ in model.named_parameters() if name not in top]
    pattern = next((known for known in BLOCKS if any(map(known.match, names))), None) or _largest_list(model)
    layer_of = {name: _layer(pattern.match(name), model) for name in names}
    layers = list(dict.fromkeys(layer for layer in layer_of.values() if layer))  # from the input on
    depths, before = {}, 0  # before: the depth of the last block so far
    for name, layer in layer_of.items():
        if layer:
            depths[name] = before = 1 + layers.index(layer)
        else:
            depths[name] = _depth_outside(name, layers, before)
    return depths | dict.fromkeys(top, len(layers) + 1)


def head_names(model: PreTrainedModel) -> set[str]:
    """The names of the head's parameters: its own layer, and whatever lies outside the backbone."""
    prefix = f"{model.base_model_prefix}."
    backbone = {name for name, _ in model.named_parameters() if name.startswith(prefix)}
    outside = {name for name, _ in model.named_parameters()} - backbone if backbone else set()
    return outside | head_keys(model)


def _layer(match: re.Match | None, model: PreTrainedModel) -> tuple[str, str] | None:
    """The stage and the layer in it that a block belongs to; None outside the blocks."""
    if match is None:
        return None
    block = match["block"]
    return match["stage"], str(int(block) // CONVNEXT_BLOCKS) if _is_convnext(model) else block


def _depth_outside(name: str, layers: list[tuple[str, str]], before: int) -> int:
    """The depth of a parameter outside the blocks, such as of a patch merging; ``before``: of the block before it."""
    own = [depth for depth, (stage, _) in enumerate(layers, 1) if name.startswith(f"{stage}.")]
    if own:
        return own[0] if before < own[0] else own[-1]
    return len(layers) + 1 if before == len(layers) else before


def _is_convnext(model: PreTrainedModel) -> bool:
    names = (model.config.model_type, str(getattr(model.config, "architecture", "")))
    return any(name.startswith("convnext") for name in names)


def _largest_list(model: PreTrainedModel) -> re.Pattern:
    """The pattern of the names in the largest list of modules, for a model that no pattern of `BLOCKS` knows."""
    lists = dict(_lists(model))
    if not lists:
        raise ValueError(
            f"{type(model).__name__} has no list of layers, so layer_decay has no depths to go by; leave it out"
        )
    path = max(lists, key=lambda path: sum(part.numel() for part in lists[path].parameters()))
    members = "|".join(re.escape(name) for name, _ in lists[path].named_children())
    return re.compile(rf"(?P<stage>{re.escape(path)})\.(?P<block>{members})\.")


def _lists(model: PreTrainedModel) -> Iterator[tuple[str, nn.Module]]:
    """The lists of three modules or more that have parameters, and their paths."""
    for path, part in model.named_modules():
        members = [member for member in part.children() if any(True for _ in member.parameters())]
        if isinstance(part, nn.ModuleList | nn.Sequential) and len(members) >= 3:
            yield path, part
