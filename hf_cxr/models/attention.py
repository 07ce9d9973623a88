"""Which forward pass and which attention a model runs on: the choices of ``--attention``.

A choice changes speed and memory, nothing else: weights, config, saved files and, up to rounding, outputs stay.
"""

from transformers import PreTrainedModel
from transformers.models.swin import modeling_swin

from hf_cxr.arguments.model import ATTENTIONS
from hf_cxr.models.fast_swin import SwinForImageClassification


def use_attention(model: PreTrainedModel, attention: str = "auto", *, training: bool, sharded: bool = False) -> str:
    """Let a model run on an attention; it can be changed again.

    Args:
        model: on the device that it will run on.
        attention: "eager" or "sdpa", transformers' own; "fast", `fast_swin`, for a Swin; "auto", the fastest by
            measurement, see `fastest`.
        training: the model will be trained, and not only evaluated.
        sharded: its layers will be split over devices by FSDP.

    Returns:
        What was chosen: "eager", "sdpa" or "fast".

    Raises:
        ValueError: the choice is unknown, or this model cannot run on it.
    """
    if attention not in ATTENTIONS:
        raise ValueError(f"attention is {attention!r}; it must be one of {', '.join(ATTENTIONS)}")
    if attention == "auto":
        attention = fastest(model, training=training, sharded=sharded)
    if attention == "fast":
        if not is_swin(model):
            raise ValueError(f"attention fast is for Swin, and this model is a {model.config.model_type}; use auto")
        if sharded:
            raise ValueError(
                "attention fast does not work with FSDP: it reads weights of layers that it does not call; use auto"
            )
        model.__class__ = SwinForImageClassification
        model.plan_of(model.config.image_size, model.config.image_size)
        return attention
    if is_swin(model):
        model.__class__ = modeling_swin.SwinForImageClassification
    model.set_attn_implementation(attention)
    return attention


def is_swin(model: PreTrainedModel) -> bool:
    """Whether a model is transformers' Swin classifier, so that ``fast`` is for it."""
    return type(model) in (modeling_swin.SwinForImageClassification, SwinForImageClassification)


def fastest(model: PreTrainedModel, *, training: bool, sharded: bool = False) -> str:
    """What "auto" stands for."""
    if is_swin(model) and not sharded:
        return "fast"
    return "sdpa"
