"""A checkpoint's position tables at another image size or window: interpolated, as their authors do it.

A table belongs to a grid. Absolute positions (1, K + G^2, D) of ViT, DeiT, BEiT, DINOv2 and Swin belong to that of
the patches. Relative biases (G^2 + K, D) of Swin and BEiT belong to that of the offsets between two places of a
window, with G = 2 window - 1. transformers refuses a table of another grid, or starts a new one.

Each table is resized by the bicubic filter over its grid; class tokens and the like are kept. So do the repositories
of Swin (Liu et al., ICCV 2021, utils.load_pretrained) and DINOv2 (Oquab et al., TMLR 2024), and transformers where
its models resize absolute positions. transformers' BEiT resizes its biases by the bilinear filter instead.

SwinV2 computes its biases from offsets (Liu et al., CVPR 2022) and has no table to resize, but it must know the
windows that it was trained with: `with_trained_windows`.

G = side of a grid, K = tokens besides the grid, D = channels or heads.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn import functional
from transformers import PreTrainedConfig

ABSOLUTE, RELATIVE = "position_embeddings", "relative_position_bias_table"
MAX_TOKENS = 3  # BEiT's biases from and to its class token, and of the token itself
ANTIALIASED = ("dinov2_with_registers",)  # models whose own code in transformers takes the antialiased filter


@dataclass(frozen=True)
class Resized:
    """A position table that was resized: its key, and the side of its grid of patches, or window, before and after."""

    key: str
    before: int
    after: int


def is_position_table(key: str) -> bool:
    """Whether a weight is a table of positions that `resized` takes."""
    return key.split(".")[-1] in (ABSOLUTE, RELATIVE)


def resized(key: str, table: torch.Tensor, rows: int, *, antialias: bool = False) -> torch.Tensor:
    """A table for another grid; the same table for its own.

    Args:
        key: of the weight.
        table: (1, K + G^2, D) for absolute positions, (G^2 + K, D) for relative biases.
        rows: K + G^2 of the new table.
        antialias: use the antialiased filter, as some models do.

    Returns:
        (1, rows, D) or (rows, D), in the table's dtype.

    Raises:
        ValueError: the old and the new table are not two square grids with the same tokens besides them.
    """
    relative = key.endswith(RELATIVE)
    table_ND = table if relative else table[0]
    old, new = _grid(key, len(table_ND)), _grid(key, rows)
    if old is None or new is None or old[1] != new[1]:
        raise ValueError(
            f"{key} has {len(table_ND)} rows, which cannot be made {rows}: these are not two square grids"
        )
    (side, tokens), target = old, new[0]
    if side == target:
        return table
    start = 0 if relative else tokens  # absolute tables begin with their tokens, relative ones end with them
    grid_1DGG = table_ND[start : start + side**2].T.reshape(1, -1, side, side)
    # In float32: a bicubic filter at half precision would shift the values.
    grid_1DGG = functional.interpolate(
        grid_1DGG.float(), size=(target, target), mode="bicubic", align_corners=False, antialias=antialias
    )
    grid_MD = grid_1DGG[0].flatten(1).T.to(table.dtype)
    table_RD = torch.cat([table_ND[:start], grid_MD, table_ND[start + side**2 :]])
    return table_RD if relative else table_RD[None]


def shape_changes(before: nn.Module, after: nn.Module) -> list[Resized]:
    """The position tables that differ in their grid between two models of the same architecture.

    The models may be on the meta device.
    """
    old = {key: weight.shape for key, weight in before.state_dict().items() if is_position_table(key)}
    found = []
    for key, weight in after.state_dict().items():
        if key in old and old[key] != weight.shape and old[key][-1] == weight.shape[-1]:
            sides = [_side(key, shape) for shape in (old[key], weight.shape)]
            if None not in sides:
                found.append(Resized(key, *sides))
    return found


def resize_tables(before: nn.Module, after: nn.Module, keys: set[str]) -> None:
    """Write the tables of one model into another of other grids.

    Args:
        before: with the checkpoint's weights, at its own sizes.
        after: the tables of ``keys`` are replaced.

    Raises:
        ValueError: see `resized`.
    """
    source, antialias = before.state_dict(), after.config.model_type in ANTIALIASED
    with torch.no_grad():
        for key, weight in after.state_dict().items():
            if key in keys:
                rows = len(weight) if key.endswith(RELATIVE) else weight.shape[1]
                weight.copy_(resized(key, source[key], rows, antialias=antialias))


def describe_changes(changes: list[Resized]) -> str | None:
    """A report's sentence about tables that were resized, or None if none was.

    >>> describe_changes([Resized("a.relative_position_bias_table", 7, 12)])
    'position tables interpolated from 7 x 7 to 12 x 12'
    """
    if not changes:
        return None
    pairs = list(dict.fromkeys((change.before, change.after) for change in changes))
    return "position tables interpolated " + " and ".join(f"from {a} x {a} to {b} x {b}" for a, b in pairs)


def with_trained_windows(saved: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """The changes to a SwinV2's config, with the windows that it was trained with, if it is to have others.

    Its biases are a function of the offset as a share of the window. A checkpoint that names no trained windows was
    trained with its own, of which no stage has a larger one than its grid.
    """
    changes = dict(changes)
    if saved.get("model_type") != "swinv2" or "pretrained_window_sizes" in changes:
        return changes
    image, patch, window = (saved.get(key, default) for key, default in SWINV2.items())
    stages = len(saved.get("depths", (2, 2, 6, 2)))
    if any(saved.get("pretrained_window_sizes") or ()):
        return changes
    before = _swinv2_windows(image, patch, window, stages)
    after = _swinv2_windows(
        changes.get("image_size", image), changes.get("patch_size", patch), changes.get("window_size", window), stages
    )
    return changes if before == after else changes | {"pretrained_window_sizes": before}


SWINV2 = {"image_size": 224, "patch_size": 4, "window_size": 7}  # defaults of transformers' config


def _swinv2_windows(image: int, patch: int, window: int, stages: int) -> list[int]:
    """The window of each stage: a stage whose grid is smaller takes its grid for a window; 0 stands for one of 1."""
    windows = [min(window, image // patch // 2**stage) for stage in range(stages)]
    return [side if side > 1 else 0 for side in windows]


def describe_windows(saved: Mapping[str, Any], config: PreTrainedConfig) -> str | None:
    """A report's sentence about a SwinV2 whose windows are not those of its checkpoint."""
    trained = getattr(config, "pretrained_window_sizes", None)
    if not trained or not any(trained) or list(trained) == list(saved.get("pretrained_window_sizes") or ()):
        return None
    return f"positions computed for windows of {config.window_size} by a model trained with {max(trained)}"


def _grid(key: str, rows: int) -> tuple[int, int] | None:
    """Side and tokens of a table with so many rows: its grid is square, and a relative one has an odd side."""
    for tokens in range(MAX_TOKENS + 1):
        side = math.isqrt(max(rows - tokens, 0))
        if side and side**2 + tokens == rows and (side % 2 or not key.endswith(RELATIVE)):
            return side, tokens
    return None


def _side(key: str, shape: torch.Size) -> int | None:
    """Side of the patches' grid, or of the window."""
    grid = _grid(key, shape[0] if key.endswith(RELATIVE) else shape[1])
    if grid is None:
        return None
    return (grid[0] + 1) // 2 if key.endswith(RELATIVE) else grid[0]
