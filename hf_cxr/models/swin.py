"""A Swin's shape, checked before a tensor of it is made.

A config.json may come from a stranger, and a flag may be mistyped: sizes that no machine could hold, values of another
type, and parts that contradict each other are refused here by name, in milliseconds and without memory. What the
checks do not foresee is seen by one pass of the model on the meta device, which computes shapes and no values.

Refused: what is not a Swin, other than three channels, a last grid smaller than the attention window.
"""

import math
from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
from transformers import SwinConfig, SwinForImageClassification
from transformers.activations import ACT2FN

from hf_cxr.saved_models import reading

# Least and most of each whole number; Swin-L has 224 to 384 pixels, 192 channels, windows of 7 to 12, 18 blocks.
WHOLE = {
    "image_size": (1, 4096),
    "patch_size": (1, 256),
    "embed_dim": (1, 4096),
    "window_size": (1, 64),
    "encoder_stride": (1, 8192),
}
REAL = {
    "mlp_ratio": (0.0, 64.0),
    "hidden_dropout_prob": (0.0, 1.0),
    "attention_probs_dropout_prob": (0.0, 1.0),
    "drop_path_rate": (0.0, 0.999),
    "initializer_range": (0.0, 10.0),
    "layer_norm_eps": (0.0, 1.0),
}
MAX_STAGES, MAX_BLOCKS, MAX_CLASSES = 8, 200, 100_000
MAX_PATCHES = 4_000_000
MAX_NUMBERS = 2_000_000_000  # parameters and position tables: ten times Swin-L, 8 GB in float32
REFUSED_KEYS = {
    "quantization_config": "quantized weights are not read; give the model in float32, float16 or bfloat16",
    "transformers_weights": "weights are read from model.safetensors alone; leave the key out",
}


def swin_config(values: Mapping[str, Any], where: str) -> SwinConfig:
    """The config of these values, checked.

    Args:
        values: keys of a config.json, with whatever replaces them.
        where: what an error names: a file, or the flags of a fresh model.

    Raises:
        ValueError: a value that cannot be, or parts that contradict each other.
    """
    _check_values({**_defaults(), **values}, where)
    config = reading(where, partial(SwinConfig.from_dict, dict(values)))
    check_grid(config)
    _check_runs(config, where)
    return config


def check_grid(config: SwinConfig) -> None:
    """Refuse a config whose last stage has fewer patches a side than the attention window has.

    transformers fails on it in the middle of the first forward pass.
    """
    last_grid = config.image_size // config.patch_size // 2 ** (len(config.depths) - 1)
    if last_grid < config.window_size:
        least = config.window_size * config.patch_size * 2 ** (len(config.depths) - 1)
        raise ValueError(
            f"image_size {config.image_size} leaves a last grid of {last_grid} x {last_grid} patches, smaller than "
            f"its window of {config.window_size}; set image_size to {least} or more or window_size to {last_grid}"
        )


def check_findings(values: Mapping[str, Any], where: str) -> None:
    """Refuse an id2label that does not name the outputs 0, 1, 2, ... once each.

    Raises:
        ValueError: it has gaps, names that are not text, or a name twice.
    """
    names = values.get("id2label")
    if not isinstance(names, Mapping) or not names:
        raise ValueError(f"{where} has no id2label: which finding each output stands for is not known")
    if sorted(map(str, names)) != sorted(map(str, range(len(names)))):
        raise ValueError(f"id2label in {where} must number the findings 0 to {len(names) - 1}; it has {_some(names)}")
    strange = [name for name in names.values() if not isinstance(name, str) or not name.strip()]
    if strange:
        raise ValueError(f"id2label in {where} names a finding {strange[0]!r}; a name is text and not empty")
    if len(set(names.values())) < len(names):
        raise ValueError(f"id2label in {where} has one name for two findings: {_some(names.values())}")


def _defaults() -> dict[str, Any]:
    fields = SwinConfig.__dataclass_fields__
    return {key: fields[key].default for key in (*WHOLE, *REAL, "depths", "num_heads", "hidden_act")}


def _check_values(values: Mapping[str, Any], where: str) -> None:
    kind = values.get("model_type", "swin")
    if kind != "swin":
        raise ValueError(f"{where} is a {kind} model; hf_cxr works with Swin models")
    for key, why in REFUSED_KEYS.items():
        if values.get(key):
            raise ValueError(f"{key} in {where}: {why}")
    for key in ("use_absolute_embeddings", "qkv_bias", "return_dict"):
        if not isinstance(values.get(key, True), bool):
            raise ValueError(f"{key} in {where} is {_short(values[key])}; it must be true or false")
    if values.get("return_dict") is False:
        raise ValueError(f"return_dict in {where} is false; leave it out")
    if not isinstance(values.get("hf_cxr", {}), Mapping):
        raise ValueError(f"hf_cxr in {where} is {_short(values['hf_cxr'])}; it must be what training wrote")
    channels = values.get("num_channels", 3)
    if type(channels) is not int or channels != 3:
        raise ValueError(
            f"{where} takes {_short(channels)} channel{'' if channels == 1 else 's'} (num_channels); this package "
            "feeds 3 equal ones: give a model with num_channels 3"
        )
    for key, (least, most) in WHOLE.items():
        _check_whole(values[key], key, least, most, where)
    for key, (least, most) in REAL.items():
        value = values[key]
        if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value <= most:
            raise ValueError(f"{key} in {where} is {_short(value)}; it must be a number from {least:g} to {most:g}")
    if not isinstance(values["hidden_act"], str) or values["hidden_act"] not in ACT2FN:
        raise ValueError(f"hidden_act in {where} is {_short(values['hidden_act'])}; transformers has no such function")
    _check_stages(values, where)
    _check_classes(values, where)
    _check_amount(values, where)


def _check_stages(values: Mapping[str, Any], where: str) -> None:
    for key in ("depths", "num_heads"):
        stages = values[key]
        if not isinstance(stages, list | tuple) or not 1 <= len(stages) <= MAX_STAGES:
            wanted = f"a list of 1 to {MAX_STAGES} whole numbers, one for each stage"
            raise ValueError(f"{key} in {where} is {_short(stages)}; it must be {wanted}")
        for number in stages:
            _check_whole(number, key, 1, MAX_BLOCKS if key == "depths" else values["embed_dim"] * 2**MAX_STAGES, where)
    depths, heads = values["depths"], values["num_heads"]
    if len(depths) != len(heads):
        raise ValueError(f"depths in {where} has {len(depths)} stages and num_heads has {len(heads)}; give as many")
    if sum(depths) > MAX_BLOCKS:
        raise ValueError(f"depths in {where} has {sum(depths):,} blocks; at most {MAX_BLOCKS} are built")
    for stage, number in enumerate(heads):
        width = values["embed_dim"] * 2**stage
        if width % number:
            raise ValueError(
                f"stage {stage + 1} of {where} has {width} channels (embed_dim {values['embed_dim']} x {2**stage}), "
                f"which {number} attention heads (num_heads) cannot share evenly"
            )


def _check_classes(values: Mapping[str, Any], where: str) -> None:
    names, number = values.get("id2label"), values.get("num_labels")
    if names is not None and not isinstance(names, Mapping):
        raise ValueError(f"id2label in {where} is {_short(names)}; it must name each output")
    if names and not all(str(key).isdecimal() for key in names):
        raise ValueError(f"id2label in {where} must number the outputs 0, 1, 2, ...; it has {_some(names)}")
    if number is not None:
        _check_whole(number, "num_labels", 1, MAX_CLASSES, where)
    if names is not None and len(names) > MAX_CLASSES:
        raise ValueError(f"id2label in {where} has {len(names):,} classes; at most {MAX_CLASSES:,} are built")
    if names is not None and number not in (None, len(names)):
        raise ValueError(f"{where} says num_labels {number}, and its id2label names {len(names)}")


def _check_amount(values: Mapping[str, Any], where: str) -> None:
    """Refuse more patches, or more numbers in the model, than any Swin has; estimated from the config alone."""
    side = math.ceil(values["image_size"] / values["patch_size"])
    if side**2 > MAX_PATCHES:
        raise ValueError(
            f"{where} cuts an image of {values['image_size']} pixels into {side**2:,} patches of "
            f"{values['patch_size']}; at most {MAX_PATCHES:,} are taken"
        )
    window, numbers = values["window_size"], 0.0
    for stage, blocks in enumerate(values["depths"]):
        width = values["embed_dim"] * 2**stage
        tables = window**4 + (2 * window - 1) ** 2 * values["num_heads"][stage]
        numbers += blocks * ((4 + 2 * values["mlp_ratio"]) * width**2 + tables) + 8 * width**2
    if numbers > MAX_NUMBERS:
        raise ValueError(
            f"{where} describes a model of about {numbers:.1e} numbers (embed_dim {values['embed_dim']}, depths "
            f"{_short(values['depths'])}, window_size {window}); at most {MAX_NUMBERS:.0e} are built"
        )


def _check_runs(config: SwinConfig, where: str) -> None:
    """One pass on the meta device: shapes alone, so that nothing is allocated and no random number is drawn."""

    def forward() -> None:
        with torch.device("meta"), torch.no_grad():
            side = config.image_size
            SwinForImageClassification(config).eval()(pixel_values=torch.zeros(1, config.num_channels, side, side))

    try:
        reading(where, forward)
    except ValueError as error:
        raise ValueError(
            f"{where} describes a Swin that cannot take an image of {config.image_size} pixels in patches of "
            f"{config.patch_size}: {error.__cause__}"
        ) from error


def _check_whole(value: Any, key: str, least: int, most: int, where: str) -> None:
    if type(value) is not int or not least <= value <= most:
        raise ValueError(f"{key} in {where} is {_short(value)}; it must be a whole number from {least:,} to {most:,}")


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 40 else text[:37] + "..."


def _some(names) -> str:
    listed = [str(name) for name in names]
    return ", ".join(listed[:5]) + (", ..." if len(listed) > 5 else "")
