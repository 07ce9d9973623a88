"""Which forward pass and which attention a model runs on: the choices of ``--attention``.

A choice changes speed and memory, nothing else: weights, config, saved files and, up to rounding, outputs stay.
"""

from typing import get_args

from transformers import PreTrainedModel

from hf_cxr.arguments.model import Attention
from hf_cxr.models.fast_swin import give_fast_pass, give_stock_pass, is_swin
from hf_cxr.models.timm_models import is_timm

CHOICES = get_args(Attention)

# transformers' faster attention on a CPU, by precision; elsewhere it is "sdpa". Measured on one thread, three layers,
# batch 4, as the speed of sdpa in times that of eager, training and prediction: bf16 0.95 and 0.95 (ViT), 0.93 and
# 0.98 (BEiT), 0.83 and 0.88 (DINOv2); float32 1.13 and 1.16, 1.04 and 1.07, 1.11 and 1.03. A stock Swin trains in
# bf16 1.1 to 1.4 times as fast with eager: the gradient of its bias rules out SDPA's own kernels.
ON_CPU = {"bf16": "eager", "float32": "sdpa"}


def use_attention(
    model: PreTrainedModel,
    attention: Attention = "auto",
    *,
    device: str = "cpu",
    bf16: bool = False,
    sharded: bool = False,
) -> str:
    """Let a model run on an attention; it can be changed again, before accelerate has prepared the model.

    Args:
        model: any classifier of transformers.
        attention: "eager" or "sdpa", transformers' own; "fast", `fast_swin`, for a Swin; "auto", the fastest by
            measurement: fast for a Swin, otherwise as `ON_CPU` says.
        device: type of the device that it will run on, such as "cuda".
        bf16: it will run in bf16 autocast.
        sharded: FSDP will split its layers over devices. "auto" is then transformers' own.

    Returns:
        What was chosen: "eager", "sdpa" or "fast".

    Raises:
        ValueError: the choice is unknown, or this model cannot run on it.
    """
    if attention not in CHOICES:
        raise ValueError(f"attention is {attention!r}; it must be one of {', '.join(CHOICES)}")
    if attention == "auto":
        chosen = device == "cpu" and not is_timm(model)
        own = ON_CPU["bf16" if bf16 else "float32"] if chosen else "sdpa"
        attention = "fast" if is_swin(model) and not sharded else own
    check_attention(model, attention, sharded=sharded)
    if attention == "fast":
        give_fast_pass(model)
        return attention
    if is_swin(model):
        give_stock_pass(model)
    if model.config._attn_implementation != attention and model._supports_sdpa:
        model.set_attn_implementation(attention)
    return model.config._attn_implementation  # a convolutional network has none to set


def check_attention(model: PreTrainedModel, attention: Attention, *, sharded: bool = False) -> None:
    """Refuse an attention that a model cannot run on.

    Raises:
        ValueError: fast, and the model is not a Swin or FSDP will split its layers; eager, and timm chooses itself.
    """
    if attention == "eager" and is_timm(model):
        raise ValueError("attention eager is not for models of timm, which choose it themselves; use auto")
    if attention != "fast":
        return
    if not is_swin(model):
        raise ValueError(f"attention fast is for a Swin, and this model is a {model.config.model_type}; use auto")
    if sharded:
        raise ValueError("attention fast does not work with FSDP: it reads weights of layers that it does not call")
