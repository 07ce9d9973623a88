"""Swin and SwinV2, from the official layout's names and shapes to transformers' config and names.

The architecture is read from the shapes: width, depths, heads, window, patch, MLP ratio, biases and position tables.
The size of the image, and of SwinV2 the window and the windows of pre-training, show only in tables that the official
code and timm before 0.9 save (attention masks, relative coordinates). Where a file has no such table they are given;
the error names the flags and what the file's name says.

What is done: the joint weight of query, key and value is split in three, SwinV2's separate biases become those of
query and value (its key has none), and parts are renamed. All three layouts concatenate the four patches that they
merge in the same order, so merging weights stay as they are; timm's stand in the next stage. A test compares outputs.

Refused, by name: windows that differ between stages; positions that are numbered otherwise; and what `parts` refuses.

D = width of a stage, H = heads, w = side of a window.
"""

import math
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from hf_cxr.conversion.checkpoint import Backbone
from hf_cxr.conversion.parts import Part, Shapes, Sizes, linear, norm
from hf_cxr.words import plural

FIRST = "layers.0.blocks.0.attn"
BLOCK = r"layers\.(\d{1,3})\.blocks\.(\d{1,4})\."
CPB_WIDTH = 512  # of SwinV2's network from coordinates to position biases; transformers knows no other


def config_from_shapes(backbone: Backbone, path: Path, sizes: Sizes) -> dict[str, Any]:
    """The keys of transformers' config, ``model_type`` first.

    Args:
        backbone: from `checkpoint.find_backbone`.
        path: of the file, for messages.
        sizes: what the file does not say.

    Raises:
        ValueError: a weight is missing, the shapes belong to no Swin of transformers, or a size is neither in the file
            nor given, or given and not what the file says.
    """
    shapes = Shapes(backbone, path)
    second = f"{FIRST}.logit_scale" in backbone.tensors
    embed_dim, channels, patch, _ = shapes.of("patch_embed.proj.weight", 4)
    if channels != 3:
        raise ValueError(f"{path} takes images of {plural(channels, 'channel')}; only models of 3 are converted")
    depths = _depths(backbone, path)
    table = "logit_scale" if second else "relative_position_bias_table"
    heads = [
        shapes.of(f"layers.{i}.blocks.0.attn.{table}", 3 if second else 2)[0 if second else 1] for i in _up(depths)
    ]
    config = {
        "model_type": "swinv2" if second else "swin",
        "patch_size": patch,
        "embed_dim": embed_dim,
        "depths": depths,
        "num_heads": heads,
        "mlp_ratio": shapes.of("layers.0.blocks.0.mlp.fc1.weight", 2)[0] / embed_dim,
        "qkv_bias": f"{FIRST}.{'q_bias' if second else 'qkv.bias'}" in backbone.tensors,
        "use_absolute_embeddings": "absolute_pos_embed" in backbone.tensors,
    }
    _check_positions(backbone, path)
    if second:
        return _second_version(config, backbone, path, sizes)
    return _first_version(config, shapes, backbone, path, sizes)


def parts(config: dict[str, Any]) -> Iterator[Part]:
    """Every weight of a Swin with these sizes; query, key and value share one, which is split."""
    root, embed_dim, patch = config["model_type"], config["embed_dim"], config["patch_size"]
    stem = f"{root}.embeddings"
    yield "patch_embed.proj.weight", (embed_dim, 3, patch, patch), (f"{stem}.patch_embeddings.projection.weight",)
    yield "patch_embed.proj.bias", (embed_dim,), (f"{stem}.patch_embeddings.projection.bias",)
    yield from norm("patch_embed.norm", embed_dim, f"{stem}.norm")
    if config["use_absolute_embeddings"]:
        side = config["image_size"] // patch
        yield "absolute_pos_embed", (1, side**2, embed_dim), (f"{stem}.position_embeddings",)
    for stage, depth in enumerate(config["depths"]):
        width = embed_dim * 2**stage
        for block in range(depth):
            own = f"layers.{stage}.blocks.{block}"
            yield from _block(config, own, width, config["num_heads"][stage], f"{root}.encoder.{own}")
        if stage < len(config["depths"]) - 1:
            own = f"layers.{stage}.downsample"
            joined = 2 * width if root == "swinv2" else 4 * width
            yield from norm(f"{own}.norm", joined, f"{root}.encoder.{own}.norm")
            yield f"{own}.reduction.weight", (2 * width, 4 * width), (f"{root}.encoder.{own}.reduction.weight",)
    yield from norm("norm", embed_dim * 2 ** (len(config["depths"]) - 1), f"{root}.layernorm")


def _block(config: dict[str, Any], own: str, width: int, heads: int, target: str) -> Iterator[Part]:
    attention = f"{target}.attention.self"
    three = tuple(f"{attention}.{name}" for name in ("query", "key", "value"))
    yield from norm(f"{own}.norm1", width, f"{target}.layernorm_before")
    yield from norm(f"{own}.norm2", width, f"{target}.layernorm_after")
    yield f"{own}.attn.qkv.weight", (3 * width, width), tuple(f"{name}.weight" for name in three)
    if config["model_type"] == "swinv2":
        yield f"{own}.attn.logit_scale", (heads, 1, 1), (f"{attention}.logit_scale",)
        for name, shape in (("0.weight", (CPB_WIDTH, 2)), ("0.bias", (CPB_WIDTH,)), ("2.weight", (heads, CPB_WIDTH))):
            yield f"{own}.attn.cpb_mlp.{name}", shape, (f"{attention}.continuous_position_bias_mlp.{name}",)
        if config["qkv_bias"]:
            yield f"{own}.attn.q_bias", (width,), (f"{attention}.query.bias",)
            yield f"{own}.attn.v_bias", (width,), (f"{attention}.value.bias",)
    else:
        table = "relative_position_bias_table"
        yield f"{own}.attn.{table}", ((2 * config["window_size"] - 1) ** 2, heads), (f"{attention}.{table}",)
        if config["qkv_bias"]:
            yield f"{own}.attn.qkv.bias", (3 * width,), tuple(f"{name}.bias" for name in three)
    hidden = int(config["mlp_ratio"] * width)
    yield from linear(f"{own}.attn.proj", (width, width), f"{target}.attention.output.dense")
    yield from linear(f"{own}.mlp.fc1", (hidden, width), f"{target}.intermediate.dense")
    yield from linear(f"{own}.mlp.fc2", (width, hidden), f"{target}.output.dense")


def _depths(backbone: Backbone, path: Path) -> list[int]:
    places = {tuple(map(int, at.groups())) for name in backbone.tensors if (at := re.match(BLOCK, name))}
    depths = [sum(stage == i for stage, _ in places) for i in range(1 + max(stage for stage, _ in places))]
    for stage, depth in enumerate(depths):
        lacking = [block for block in range(max(1, depth)) if (stage, block) not in places]
        if lacking:
            raise ValueError(f"{path} has no weights of layers.{stage}.blocks.{lacking[0]}; it is not a complete Swin")
    return depths


def _first_version(
    config: dict[str, Any], shapes: Shapes, backbone: Backbone, path: Path, sizes: Sizes
) -> dict[str, Any]:
    windows = []
    for stage in _up(config["depths"]):
        name = f"layers.{stage}.blocks.0.attn.relative_position_bias_table"
        rows = shapes.of(name, 2)[0]
        side = math.isqrt(rows)
        if side**2 != rows or side % 2 == 0:
            raise ValueError(f"{name} in {path} has {rows} rows, which belong to no square window")
        windows.append((side + 1) // 2)
    if len(set(windows)) > 1:
        raise ValueError(
            f"the stages of {path} have windows of {', '.join(map(str, windows))} patches; transformers' Swin has one "
            "window for all stages: give a checkpoint whose last grid is at least as large as its window"
        )
    for name, given in (
        ("window_size", sizes.window_size),
        ("pretrained_window_sizes", sizes.pretrained_window_sizes),
    ):
        if given is not None:
            raise ValueError(f"{path} is a Swin, whose shapes say that its window is {windows[0]}; leave out --{name}")
    image = _one_size("image_size", _image_sizes(config, backbone), sizes.image_size, path)
    if image is None:
        usual = windows[0] * config["patch_size"] * 2 ** (len(windows) - 1)
        raise ValueError(f"{path} does not say at which image size it was trained; give {_hint(path, config, usual)}")
    return config | {"window_size": windows[0], "image_size": image}


def _second_version(config: dict[str, Any], backbone: Backbone, path: Path, sizes: Sizes) -> dict[str, Any]:
    windows = {stage: window for stage in _up(config["depths"]) if (window := _window_of(backbone, stage))}
    window = _one_size("window_size", {max(windows.values())} if windows else set(), sizes.window_size, path)
    found = _image_sizes(config, backbone)
    clipped = {stage: side for stage, side in windows.items() if side < (window or 0)}
    found |= {side * config["patch_size"] * 2**stage for stage, side in clipped.items()}
    image = _one_size("image_size", found, sizes.image_size, path)
    before = _pretrained_windows(config, backbone)
    given = sizes.pretrained_window_sizes
    if given is not None and before is not None and list(given) != before:
        raise ValueError(f"{path} says that its windows of pre-training are {before}; leave out the flag")
    before = before if before is not None else given and list(given)
    if before is not None and len(before) != len(config["depths"]):
        raise ValueError(
            f"{path} has {plural(len(config['depths']), 'stage')}; give as many --pretrained_window_sizes"
        )
    if window is None or image is None or before is None:
        lacking = [
            words
            for words, value in (("its window", window), ("its image size", image), ("its earlier windows", before))
            if value is None
        ]
        raise ValueError(f"{path} does not say {' and '.join(lacking)}; give {_hint(path, config, None)}")
    for stage, side in windows.items():
        grid = image // config["patch_size"] // 2**stage
        if side != min(window, grid):
            raise ValueError(f"stage {stage + 1} of {path} has a window of {side}; at {image} pixels it has {grid}")
    return config | {"window_size": window, "pretrained_window_sizes": before, "image_size": image}


def _up(values: Sequence[Any]) -> range:
    return range(len(values))


def _image_sizes(config: dict[str, Any], backbone: Backbone) -> set[int]:
    """The sizes that attention masks and absolute positions belong to; one in a whole file, none in a bare one."""
    found, patch = set(), config["patch_size"]
    for stage, depth in enumerate(config["depths"]):
        mask = backbone.tensors.get(f"layers.{stage}.blocks.1.attn_mask") if depth > 1 else None
        if mask is not None and mask.ndim == 3:  # (windows, w * w, w * w)
            found.add(math.isqrt(mask.shape[1]) * math.isqrt(mask.shape[0]) * patch * 2**stage)
    positions = backbone.tensors.get("absolute_pos_embed")
    if positions is not None and positions.ndim == 3:
        found.add(math.isqrt(positions.shape[1]) * patch)
    return found


def _one_size(name: str, found: set[int], given: int | None, path: Path) -> int | None:
    """The size that the file says or, if it says none, that was given."""
    if len(found) > 1:
        raise ValueError(f"the tables in {path} belong to several sizes ({name} {sorted(found)}); it is damaged")
    if found and given not in (None, *found):
        raise ValueError(
            f"{path} says {name} {min(found)}, and --{name} {given} was given; leave it out (for another image size, "
            "give it to hf-cxr train)"
        )
    return min(found) if found else given


def _window_of(backbone: Backbone, stage: int) -> int | None:
    index = backbone.tensors.get(f"layers.{stage}.blocks.0.attn.relative_position_index")
    if index is not None and index.ndim == 2:
        return math.isqrt(index.shape[0])
    table = backbone.tensors.get(f"layers.{stage}.blocks.0.attn.relative_coords_table")
    return (table.shape[1] + 1) // 2 if table is not None and table.ndim == 4 else None


def _pretrained_windows(config: dict[str, Any], backbone: Backbone) -> list[int] | None:
    """From SwinV2's tables of coordinates, whose largest is log2(1 + 8 (w - 1) / (p - 1)) / 3 for windows p before.

    (Liu et al. 2022, arXiv 2111.09883, equation 4, with the factor 8 and the base of the official code.)
    """
    result = []
    for stage in _up(config["depths"]):
        table = backbone.tensors.get(f"layers.{stage}.blocks.0.attn.relative_coords_table")
        if table is None or table.ndim != 4:
            return None
        window, ratio = (table.shape[1] + 1) // 2, (8 ** float(table.max()) - 1) / 8
        result.append(0 if window == 1 or math.isclose(ratio, 1, abs_tol=1e-4) else round(1 + (window - 1) / ratio))
    return result


def _check_positions(backbone: Backbone, path: Path) -> None:
    """Refuse a table of position numbers other than the one that transformers computes."""
    for name, index in backbone.tensors.items():
        if not name.endswith("relative_position_index"):
            continue
        side = math.isqrt(index.shape[0]) if index.ndim == 2 else 0
        row, column = torch.arange(side**2) // max(side, 1), torch.arange(side**2) % max(side, 1)
        rows, columns = row[:, None] - row + side - 1, column[:, None] - column + side - 1
        if side == 0 or not torch.equal(index.long(), rows * (2 * side - 1) + columns):
            raise ValueError(
                f"{backbone.names[name]} in {path} numbers positions in a different way from the official code"
            )


def _hint(path: Path, config: dict[str, Any], usual: int | None) -> str:
    """The flags to give, with what the file's name says."""
    said = re.search(r"window(\d+)(?:to(\d+))?_(?:\d+to)?(\d+)", f"{path.resolve().parent.name} {path.name}")
    if config["model_type"] == "swin":
        size = int(said[3]) if said else usual
        return f"--image_size {size} if that is right ({'so its name says' if said else 'its window fits that size'})"
    flags = "--window_size, --image_size and --pretrained_window_sizes"
    if not said:
        return f"{flags} (see its name or web page; {'0 ' * len(config['depths'])}where none is given)"
    first, image = int(said[1]), int(said[3])
    before = re.search(r"_(\d+)to\d+", said[0])
    stages = [0] * len(config["depths"])
    if said[2]:
        sides = [int(before[1] if before else image) // config["patch_size"] // 2**stage for stage in _up(stages)]
        stages = [min(first, side) for side in sides]
    window = int(said[2] or first)
    words = f"--window_size {window} --image_size {image} --pretrained_window_sizes {' '.join(map(str, stages))}"
    return f"{words} if that is right (so its name says)"
