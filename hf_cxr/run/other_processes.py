"""Whether a run may resume on another number of processes: 2 x 4 images a step as 1 x 8, or as 4 accumulations of 2.

Images, augmentation, masks and mixtures of a step are drawn from (seed, epoch, row), so they do not depend on how a
step is divided. What does is listed here, and such a run resumes as it was started.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from torch import nn

from hf_cxr.config import PretrainArguments, RunArguments
from hf_cxr.models.batch_norm import batch_norms
from hf_cxr.models.build import check_model
from hf_cxr.pretraining.model import build_masked_model
from hf_cxr.training.sharding import uses_fsdp

DIVISION = ("per_device_train_batch_size", "gradient_accumulation_steps")
"""The settings that say how the images of a step are divided."""


def why_bound(args: RunArguments | PretrainArguments) -> str | None:
    """Why a run must resume with the division of a step it was started with; None if any one gives its result."""
    if args.data.streaming:
        return "the order of a stream depends on how many processes read it"
    if uses_fsdp():
        return "a checkpoint of FSDP was not tried on another number of processes"
    model = build_masked_model(args.model) if isinstance(args, PretrainArguments) else check_model(args.model)
    if batch_norms(model):
        return "batch norm measures the images of a step in another way"
    parts = ", ".join(dict.fromkeys(random_parts(model)))
    return f"each process draws random numbers of its own for {parts}" if parts else None


def random_parts(model: nn.Module) -> Iterator[str]:
    """What a model draws random numbers for in training: options of its config, then classes of its modules."""
    yield from _drops(model.config.to_dict())
    for module in model.modules():
        for share in ("p", "drop_prob"):
            value = getattr(module, share, None)
            if isinstance(value, float) and value > 0 and "drop" in type(module).__name__.lower():
                yield type(module).__name__


def _drops(config: Mapping[str, Any]) -> Iterator[str]:
    for key, value in config.items():
        if isinstance(value, Mapping):
            yield from _drops(value)
        elif "drop" in str(key) and isinstance(value, int | float) and not isinstance(value, bool) and value > 0:
            yield f"{key} {value:g}"
