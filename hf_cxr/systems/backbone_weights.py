"""A backbone inside a system takes the weights of a saved model: the same kind, the same sizes, every tensor.

Refused, in one line: a backbone of another architecture, options that mean another network, and weights that are
missing, left over or of another shape.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedConfig

# Options of a backbone that may differ for the same weights: they act in training, or on the images' size alone.
FREE = frozenset(
    {
        "attention_dropout",
        "attention_probs_dropout_prob",
        "drop_path_rate",
        "encoder_stride",  # of a decoder that a classifier does not have
        "hidden_dropout_prob",
        "image_size",
        "initializer_range",
    }
)


def check_same_backbone(own: PreTrainedConfig, saved: PreTrainedConfig, *, kinds: Sequence[str], options: str) -> None:
    """Refuse a saved model of another architecture than a system's backbone, or of other sizes.

    Args:
        own: config of the backbone in the system.
        saved: config of the saved model.
        kinds: its architectures (model_type) that fit.
        options: where a run gives the backbone's options, such as ``model_kwargs``.

    Raises:
        ValueError: names the architecture, or each option with both values.
    """
    if saved.model_type not in kinds:
        raise ValueError(f"the backbone must be a {' or '.join(kinds)}, and this model is a {saved.model_type}")
    fields = set(type(own).__dataclass_fields__) & set(type(saved).__dataclass_fields__)
    fields -= set(PreTrainedConfig.__dataclass_fields__) | FREE
    differ = {key: (getattr(saved, key), getattr(own, key)) for key in sorted(fields) if not key.startswith("_")}
    differ = {key: pair for key, pair in differ.items() if _plain(pair[0]) != _plain(pair[1])}
    if differ:
        listed = ", ".join(f"{key} is {theirs} there and {ours} here" for key, (theirs, ours) in differ.items())
        raise ValueError(f"{listed}; set {options} to the saved model's values")


def load_exactly(backbone: nn.Module, state_dict: Mapping[str, torch.Tensor]) -> None:
    """Copy weights into a backbone.

    Args:
        backbone: the module that they are for.
        state_dict: its weights by their names in it.

    Raises:
        ValueError: weights are missing, left over or of another shape; the first names are given.
    """
    own = backbone.state_dict()
    shapes = [
        f"{key} {tuple(state_dict[key].shape)} for {tuple(tensor.shape)}"
        for key, tensor in own.items()
        if key in state_dict and state_dict[key].shape != tensor.shape
    ]
    problems = {
        "lacks": [key for key in own if key not in state_dict],
        "has no place for": [key for key in state_dict if key not in own],
        "has in another shape": shapes,
    }
    words = [f"{what} {len(keys)} ({', '.join(keys[:3])})" for what, keys in problems.items() if keys]
    if words:
        raise ValueError(f"of the backbone's {len(own)} weights this model {'; it '.join(words)}")
    backbone.load_state_dict(dict(state_dict))


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value
