"""Weights of another model for one part of a system, such as ImageNet's for its backbone."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn


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
            f"the weights for the {name} lack {len(missing)} of {len(wanted)}, such as {listed}; give a model that "
            "has this backbone, of the same sizes"
        )
    for key, weight in found.items():
        if weight.shape != wanted[key].shape:
            raise ValueError(
                f"the weights for the {name} have {key} in the shape {tuple(weight.shape)}, and this model has "
                f"{tuple(wanted[key].shape)}; give a model of the same sizes, or its sizes as model_kwargs"
            )
    with torch.no_grad():
        part.load_state_dict({**wanted, **found})


def _prefix(wanted: Mapping[str, Tensor], state_dict: Mapping[str, Tensor]) -> str:
    """What stands before a part's names in a larger model: of several, what finds most of them."""
    first = next(iter(wanted))
    before = [name.removesuffix(first) for name in state_dict if name == first or name.endswith("." + first)]
    return max(before, key=lambda prefix: sum(prefix + name in state_dict for name in wanted), default="")
