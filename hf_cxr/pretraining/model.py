"""The network that reconstructs: transformers' `SwinForMaskedImageModeling`, a Swin with a mask token and a decoder.

Its backbone has the names and shapes of the classifier's, so that a run starts from its folder by
``--model_name_or_path``: every weight of the backbone is taken, mask token and decoder are left, the head is new.

Refuses: an architecture other than Swin, an image that the last stage's patches do not fill, an ``encoder_stride``
that does not lead back to the image's size, and what `hf_cxr.models.build` refuses of a saved model.
"""

from typing import Any

import torch
from transformers import PreTrainedConfig, SwinForMaskedImageModeling

from hf_cxr.config import ModelArguments
from hf_cxr.models.architectures import check_model_options, checked_config
from hf_cxr.models.build import check_finite, loaded
from hf_cxr.saved_models import CONFIG, check_weights, model_folder, read_json

MASK_TOKEN = "swin.embeddings.mask_token"
DROPPED = (MASK_TOKEN, "decoder.0.weight", "decoder.0.bias")
"""The weights that a classifier has no use for: all others are its backbone's."""


def build_masked_model(args: ModelArguments) -> SwinForMaskedImageModeling:
    """The network in float32, fresh or with the backbone of a saved Swin (its decoder too, if it has one).

    Raises:
        ValueError: see the top of this module.
        OSError: a Hub model cannot be downloaded.
    """
    name = args.model_name_or_path
    if name is None:
        config = _config({"model_type": args.architecture}, args, f"a fresh {args.architecture} model")
        return _with_mask_token(SwinForMaskedImageModeling(config))
    folder = model_folder(name, args.model_revision)
    config = _config({**read_json(folder / CONFIG), "architectures": []}, args, name)
    check_weights(folder, name)
    model, mismatched, missing = loaded(folder, name, config, SwinForMaskedImageModeling)
    lost = sorted((mismatched | missing) - set(DROPPED))
    if lost:
        raise ValueError(
            f"{name} does not have {len(lost)} of the backbone's weights, or has them in another shape "
            f"({', '.join(lost[:3])}); if it was trained at another size than {config.image_size} pixels, set "
            "image_size to that"
        )
    check_finite(model, name)
    return _with_mask_token(model) if MASK_TOKEN in missing else model


def check_masked_model(args: ModelArguments) -> int:
    """Refuse at the start, before data are read, what `build_masked_model` would refuse; nothing is kept.

    Returns:
        The side of the model's patches in pixels.
    """
    return build_masked_model(args).config.patch_size


def _with_mask_token(model: SwinForMaskedImageModeling) -> SwinForMaskedImageModeling:
    """A random mask token, as in SimMIM's code.

    transformers starts it at zero, where the norm of the first layer multiplies its gradient by 1 / sqrt(1e-5): the
    norm of all gradients is then that of the mask token alone, and clipping would stop the rest from learning.
    """
    torch.nn.init.trunc_normal_(model.swin.embeddings.mask_token, std=0.02)
    return model


def _config(saved: dict[str, Any], args: ModelArguments, where: str) -> PreTrainedConfig:
    kind = saved.get("model_type")
    if kind != "swin":
        raise ValueError(
            f"{where} is of architecture {kind}; pre-training is for swin alone: give --architecture swin, or a saved "
            "Swin"
        )
    check_model_options(kind, args.model_kwargs, where)
    config = checked_config({**saved, **args.model_kwargs, "image_size": args.image_size, **_OUTPUT}, where)
    stride = config.patch_size * 2 ** (len(config.depths) - 1)
    if args.image_size % stride:
        raise ValueError(
            f"image_size is {args.image_size}; the last patches of {where} have {stride} pixels a side, and must fill "
            f"the image: set image_size to {max(1, round(args.image_size / stride)) * stride}"
        )
    if args.model_kwargs.get("encoder_stride", stride) != stride:
        raise ValueError(
            f"encoder_stride is {args.model_kwargs['encoder_stride']}; the last patches of {where} have {stride} "
            "pixels a side: leave it out"
        )
    config.encoder_stride = stride
    return config


_OUTPUT = {"num_labels": 1, "id2label": {0: "any"}, "label2id": {"any": 0}, "problem_type": None}
# A config cannot be without an output; the network has none, and a run replaces it by its findings.
