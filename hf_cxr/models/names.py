"""What reports and cards call a network: by its usual name, never by another family's."""

from collections.abc import Mapping
from typing import Any

from transformers import PreTrainedConfig

from hf_cxr.models.timm_models import TIMM

# model_type -> the name that its authors use. One that is not here is called by its model_type.
NAMES = {
    "beit": "BEiT",
    "bit": "Big Transfer ResNet (BiT)",
    "convnext": "ConvNeXt",
    "convnextv2": "ConvNeXt V2",
    "data2vec-vision": "data2vec",
    "deit": "DeiT",
    "dinov2": "DINOv2",
    "dinov2_with_registers": "DINOv2 with registers",
    "dnet": "DNet (DenseNet-121 behind two convolutions)",
    "efficientnet": "EfficientNet",
    "focalnet": "FocalNet",
    "ijepa": "I-JEPA",
    "poolformer": "PoolFormer",
    "regnet": "RegNet",
    "resnet": "ResNet",
    "segformer": "SegFormer's encoder (MiT)",
    "swin": "Swin Transformer",
    "swinv2": "Swin Transformer V2",
    "vit": "Vision Transformer (ViT)",
    "vit_msn": "ViT (MSN)",
    "wang2017": "network of Wang 2017 (ResNet-50 with log-sum-exp pooling)",
    "yao2017": "network in the manner of Yao 2017 (DenseNet and LSTM)",
}


def network_name(config: PreTrainedConfig | Mapping[str, Any]) -> str:
    """The name of a model's network, from its config or the content of its config.json.

    >>> network_name({"model_type": "convnextv2"})
    'ConvNeXt V2'
    >>> network_name({"model_type": "timm_wrapper", "architecture": "densenet121"})
    'densenet121 of timm'
    """
    read = config.get if isinstance(config, Mapping) else lambda key: getattr(config, key, None)
    kind = read("model_type")
    return f"{read('architecture')} of timm" if kind == TIMM else NAMES.get(kind, kind)
