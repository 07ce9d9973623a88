"""Weights of another model for one part of a system, such as ImageNet's for its backbone."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
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


def load_part(part: nn.Module, state_dict: Mapping[str, Tensor], name: str) -> None:
    """Load every weight of a part from a larger model, wherever the part is in it.

    Args:
        part: its weights are replaced.
        state_dict: of a model that has this part, under any prefix, and whatever else, such as a classifier.
        name: of the part, for errors.

    Raises:
        ValueError: weights are missing or have another shape; the part is as it was.

    >>> layer = nn.Linear(1, 1)
    >>> load_part(layer, {"model.last.weight": torch.ones(1, 1), "model.last.bias": torch.zeros(1)}, "layer")
    >>> layer.weight.item()
    1.0
    """
    wanted = part.state_dict()
    prefix = _prefix(wanted, state_dict)
    found = {key: state_dict[prefix + key] for key in wanted if prefix + key in state_dict}
    # Counters of batches: no output depends on them, and older files lack them.
    missing = [key for key in wanted.keys() - found.keys() if not key.endswith("num_batches_tracked")]
    if missing:
        listed = ", ".join(sorted(missing)[:3])
        raise ValueError(
            f"the weights for the {name} are incomplete: {len(missing)} of {len(wanted)} are missing, such as "
            f"{listed}; give a model that has this backbone, of the same sizes"
        )
    for key, weight in found.items():
        if weight.shape != wanted[key].shape:
            raise ValueError(
                f"the weights for the {name} have {key} in the shape {tuple(weight.shape)}, and this model has "
                f"{tuple(wanted[key].shape)}; give a model of the same sizes, or its sizes as model_kwargs"
            )
    if any(weight.is_meta for weight in wanted.values()):
        return  # a model that is only checked has shapes and no values
    with torch.no_grad():
        part.load_state_dict({**wanted, **found})


def _prefix(wanted: Mapping[str, Tensor], state_dict: Mapping[str, Tensor]) -> str:
    """What stands before a part's names in a larger model: of several, what finds most of them."""
    first = next(iter(wanted))
    before = [name.removesuffix(first) for name in state_dict if name == first or name.endswith("." + first)]
    return max(before, key=lambda prefix: sum(prefix + name in state_dict for name in wanted), default="")


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


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value
