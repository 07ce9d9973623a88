"""A Swin's own values: numbers in range, stages that agree, and a last grid that holds the attention window."""

from collections.abc import Mapping
from typing import Any

from hf_cxr.models.values import MAX_BLOCKS, check_whole, short

# Least and most of each number; Swin-L has 192 channels, windows of 7 to 12, 18 blocks in a stage.
WHOLE = {"embed_dim": (1, 4096), "window_size": (1, 64), "encoder_stride": (1, 8192)}
REAL = {
    "mlp_ratio": (0.0, 64.0),
    "hidden_dropout_prob": (0.0, 1.0),
    "attention_probs_dropout_prob": (0.0, 1.0),
    "drop_path_rate": (0.0, 0.999),
    "initializer_range": (0.0, 10.0),
    "layer_norm_eps": (0.0, 1.0),
}
MAX_STAGES = 8


def check_swin(values: Mapping[str, Any], where: str) -> None:
    """Refuse sizes that no Swin can have, or on which transformers would fail in the middle of the first forward pass.

    Args:
        values: keys of a config.json, with every default filled in.
        where: what an error names.

    Raises:
        ValueError: a value is out of range, or the values contradict each other.
    """
    for key in ("use_absolute_embeddings", "qkv_bias"):
        if not isinstance(values[key], bool):
            raise ValueError(f"{key} in {where} is {short(values[key])}; it must be true or false")
    for key, (least, most) in WHOLE.items():
        check_whole(values[key], key, least, most, where)
    for key, (least, most) in REAL.items():
        value = values[key]
        if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value <= most:
            raise ValueError(f"{key} in {where} is {short(value)}; it must be a number from {least:g} to {most:g}")
    _check_stages(values, where)
    _check_grid(values, where)


def _check_stages(values: Mapping[str, Any], where: str) -> None:
    for key in ("depths", "num_heads"):
        stages = values[key]
        if not isinstance(stages, list | tuple) or not 1 <= len(stages) <= MAX_STAGES:
            wanted = f"a list of 1 to {MAX_STAGES} whole numbers, one for each stage"
            raise ValueError(f"{key} in {where} is {short(stages)}; it must be {wanted}")
        for number in stages:
            check_whole(number, key, 1, MAX_BLOCKS if key == "depths" else values["embed_dim"] * 2**MAX_STAGES, where)
    depths, heads = values["depths"], values["num_heads"]
    if len(depths) != len(heads):
        raise ValueError(f"depths in {where} has {len(depths)} stages and num_heads has {len(heads)}; give as many")
    for stage, number in enumerate(heads):
        width = values["embed_dim"] * 2**stage
        if width % number:
            raise ValueError(
                f"stage {stage + 1} of {where} has {width} channels (embed_dim {values['embed_dim']} x {2**stage}), "
                f"which {number} attention heads (num_heads) cannot share evenly"
            )


def _check_grid(values: Mapping[str, Any], where: str) -> None:
    image, patch, window = (values[key] for key in ("image_size", "patch_size", "window_size"))
    shrink = patch * 2 ** (len(values["depths"]) - 1)
    grid = -(-image // shrink)  # each stage pads its grid to whole pairs
    if grid < window:
        raise ValueError(
            f"image_size {image} of {where} leaves a last grid of {grid} x {grid} patches, smaller than its window of "
            f"{window}; set image_size to {(window - 1) * shrink + 1} or more, or window_size to {grid}"
        )
