"""The weights of an architecture, name by name, taken from a backbone: all of them, and nothing else.

Refused, by the name that a weight has in its file: one that is left over, missing, of another shape, or not finite.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from hf_cxr.conversion.checkpoint import TABLES, Backbone
from hf_cxr.words import plural

MOST_NAMED = 5
COUNTER = "num_batches_tracked"  # of a batch norm: no output depends on it, and older files lack it

# Name in the official layout, shape, names in transformers; several names share a weight that is split among them.
Part = tuple[str, tuple[int, ...], tuple[str, ...]]


def taken(backbone: Backbone, parts: Iterable[Part], path: Path, what: str) -> dict[str, torch.Tensor]:
    """The weights in float32 under their names in transformers.

    Args:
        backbone: from `checkpoint.find_backbone`.
        parts: of the architecture.
        path: of the file, for messages.
        what: the architecture's name, for messages.

    Raises:
        ValueError: see the module's first lines.
    """
    left, result = dict(backbone.tensors), {}
    missing, misshapen = [], []
    for name, shape, targets in parts:
        tensor = left.pop(name, torch.tensor(0) if name.endswith(COUNTER) else None)
        if tensor is None:
            missing.append(name)
        elif tuple(tensor.shape) != shape:
            misshapen.append(f"{backbone.names[name]} is {tuple(tensor.shape)} and not {shape}")
        elif not tensor.isfinite().all():
            raise ValueError(f"{backbone.names[name]} in {path} has values that are not finite; it is damaged")
        elif name.endswith(COUNTER):
            result[targets[0]] = tensor.clone()
        else:
            pieces = tensor.to(torch.float32).chunk(len(targets))
            result |= {target: piece.contiguous() for target, piece in zip(targets, pieces, strict=True)}
    over = [backbone.names[name] for name in left if not re.fullmatch(TABLES, name)] + backbone.unknown
    problems = [
        f"{plural(len(names), 'weight is', 'weights are')} {problem}: {', '.join(names[:MOST_NAMED])}"
        for problem, names in (("missing", missing), ("of another shape", misshapen), ("left over", over))
        if names
    ]
    if problems:
        raise ValueError(
            f"{path} is not a whole {what} backbone that transformers knows: {'; '.join(problems)}; nothing was "
            "converted"
        )
    return result


def norm(own: str, width: int, target: str) -> Iterator[Part]:
    """Weight and bias of a layer norm."""
    for name in ("weight", "bias"):
        yield f"{own}.{name}", (width,), (f"{target}.{name}",)


def batch_norm(own: str, width: int, target: str) -> Iterator[Part]:
    """Weight, bias, mean, variance and counter of a batch norm."""
    for name in ("weight", "bias", "running_mean", "running_var"):
        yield f"{own}.{name}", (width,), (f"{target}.{name}",)
    yield f"{own}.{COUNTER}", (), (f"{target}.{COUNTER}",)


def linear(own: str, shape: tuple[int, int], target: str) -> Iterator[Part]:
    """Weight (out, in) and bias (out,) of a linear layer."""
    yield f"{own}.weight", shape, (f"{target}.weight",)
    yield f"{own}.bias", shape[:1], (f"{target}.bias",)


@dataclass(frozen=True)
class Sizes:
    """What a file may not say, as it was given; None leaves it to the file.

    Attributes:
        image_size: side of the image in pixels.
        window_size: side of SwinV2's window in patches.
        pretrained_window_sizes: of SwinV2, the window of pre-training by stage; 0 for the window itself.
    """

    image_size: int | None = None
    window_size: int | None = None
    pretrained_window_sizes: Sequence[int] | None = None


@dataclass(frozen=True)
class Shapes:
    """The shapes of a backbone's weights; one that is missing is named."""

    backbone: Backbone
    path: Path

    def of(self, name: str, dimensions: int) -> tuple[int, ...]:
        """The shape of a weight.

        Raises:
            ValueError: there is no such weight, or it has another number of dimensions.
        """
        tensor = self.backbone.tensors.get(name)
        if tensor is None or tensor.ndim != dimensions:
            what = "has no weight" if tensor is None else f"has a weight of shape {tuple(tensor.shape)} named"
            raise ValueError(f"{self.path} {what} {name}, which every network of this kind has; nothing was converted")
        return tuple(tensor.shape)
