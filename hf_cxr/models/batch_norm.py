"""Batch norm: layers that normalise by the mean and variance of a batch of images, and the rule for training them.

In training such a layer sees the images of one forward pass, so a result depends on how a step is split up into
processes and micro-batches, which nothing else here does. So a step is taken whole: by one process, or on several GPUs
by `nn.SyncBatchNorm`, which measures over all of them. In evaluation the layers use the averages that they kept in
training, buffers of the model that are saved with it. A layer of a frozen part stays in evaluation mode; the rule is
not about it.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm as AnyBatchNorm

from hf_cxr.models.timm_models import is_timm

MAX_MOMENTUM = 0.5  # the share of the last step in a layer's averages; torch's default is 0.1


def frozen_parts(model: nn.Module) -> Iterator[nn.Module]:
    """The largest parts of a model whose every parameter is without gradient; a part without parameters is in none."""
    for part in model.children():
        trained = [parameter.requires_grad for parameter in part.parameters()]
        if trained and not any(trained):
            yield part
        elif any(trained):
            yield from frozen_parts(part)


def batch_norms(model: nn.Module) -> list[nn.Module]:
    """The batch norm layers that training measures the images in: those outside frozen parts."""
    frozen = {layer for part in frozen_parts(model) for layer in part.modules()}
    return [layer for layer in model.modules() if isinstance(layer, AnyBatchNorm) and layer not in frozen]


def check_batch_norm(
    model: nn.Module, *, images: int, accumulation: int, processes: int, device: str, sharded: bool = False
) -> None:
    """Refuse to train batch norm where the images of a step are not normalised together.

    Args:
        model: with its frozen parts frozen.
        images: of an optimizer step.
        accumulation: micro-batches of a step, on each process.
        processes: how many share a step.
        device: type of the processes' device, such as "cuda".
        sharded: FSDP or DeepSpeed splits the model.

    Raises:
        ValueError: the model has batch norm, and several processes without a GPU each, several micro-batches, a
            sharded model, a single image in a step, or averages that forget all but the last step.
    """
    layers = len(batch_norms(model))
    if not layers:
        return
    name = f"{type(model).__name__} has {layers} batch norm layers"
    if accumulation > 1:
        raise ValueError(
            f"{name}, whose results depend on how a step is split up: use gradient_accumulation_steps 1, not "
            f"{accumulation}, or a model without batch norm"
        )
    if processes > 1 and device != "cuda":
        raise ValueError(
            f"{name}, which are synchronised between GPUs only: use 1 process on {device}, not {processes}, "
            "or a model without batch norm"
        )
    if sharded:
        raise ValueError(f"{name}, which do not work here with FSDP or DeepSpeed: use neither, or another model")
    momentum = max(layer.momentum or 0.0 for layer in batch_norms(model))
    if momentum > MAX_MOMENTUM:
        raise ValueError(
            f"{name} whose averages are {momentum:.2%} those of the last step (batch_norm_momentum {momentum:g}, "
            f"which torch reads the other way round): give --model_kwargs.batch_norm_momentum {1 - momentum:.2g}"
        )
    if images < 2:
        raise ValueError(
            f"{name}, which cannot normalise one image by itself: use per_device_train_batch_size 2 or more"
        )


def synchronised(model: nn.Module) -> nn.Module:
    """The model with its batch norm layers as `nn.SyncBatchNorm`, over the same weights and buffers.

    timm's layers do more than normalise, so timm converts them itself.
    """
    if is_timm(model):
        from timm.layers import convert_sync_batchnorm

        return convert_sync_batchnorm(model)
    return nn.SyncBatchNorm.convert_sync_batchnorm(model)


def describe_batch_norm(model: nn.Module, images: int) -> Mapping[str, Any] | None:
    """What a report says of the layers: how many, the images that they measure at once; None without any."""
    layers = batch_norms(model)
    return {"layers": len(layers), "images": images} if layers else None
