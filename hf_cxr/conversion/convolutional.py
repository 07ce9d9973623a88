"""ResNet and DenseNet from torchvision's (and timm's) names and shapes to the config and names of their models here.

A ResNet becomes transformers' `resnet`, with the stride in the 3x3 convolution, as torchvision and timm have it. No
file can say that its stride is elsewhere, as in the first ResNets. A DenseNet becomes the system `dnet`, whose two
convolutions in front of it are new.

No shape says at which image size they were trained: it is given.
"""

import dataclasses
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hf_cxr.conversion.checkpoint import Backbone
from hf_cxr.conversion.parts import Part, Shapes, Sizes, batch_norm
from hf_cxr.systems.densenet import modern_name, modern_names

EXPANSION = 4  # of a bottleneck


def resnet_config(backbone: Backbone, path: Path, sizes: Sizes) -> dict[str, Any]:
    """The keys of transformers' config.

    Raises:
        ValueError: a weight that every ResNet has is missing; no image size is given.
    """
    shapes, depths = Shapes(backbone, path), _counts(backbone, r"layer(\d+)\.(\d+)\.", first=0)
    last = "conv3" if "layer1.0.conv3.weight" in backbone.tensors else "conv2"
    return {
        "model_type": "resnet",
        "embedding_size": shapes.of("conv1.weight", 4)[0],
        "hidden_sizes": [shapes.of(f"layer{i + 1}.0.{last}.weight", 4)[0] for i in range(len(depths))],
        "depths": depths,
        "layer_type": "bottleneck" if last == "conv3" else "basic",
        "downsample_in_first_stage": False,
        "downsample_in_bottleneck": False,
        "image_size": _given_image_size(backbone, path, sizes),
    }


def resnet_parts(config: dict[str, Any]) -> Iterator[Part]:
    """Every weight of a ResNet with these sizes."""
    width, deep = config["embedding_size"], config["layer_type"] == "bottleneck"
    yield from _normed("conv1", "bn1", (width, 3, 7, 7), "resnet.embedder.embedder")
    for stage, (out, depth) in enumerate(zip(config["hidden_sizes"], config["depths"], strict=True)):
        for block in range(depth):
            own, target = f"layer{stage + 1}.{block}", f"resnet.encoder.stages.{stage}.layers.{block}"
            before = width if block == 0 else out
            inner = out // EXPANSION
            shapes = [(out, before, 3, 3), (out, out, 3, 3)]
            if deep:
                shapes = [(inner, before, 1, 1), (inner, inner, 3, 3), (out, inner, 1, 1)]
            for place, shape in enumerate(shapes):
                names = (f"{own}.conv{place + 1}", f"{own}.bn{place + 1}")
                yield from _normed(*names, shape, f"{target}.layer.{place}")
            if block == 0 and (before != out or stage > 0):
                names = (f"{own}.downsample.0", f"{own}.downsample.1")
                yield from _normed(*names, (out, before, 1, 1), f"{target}.shortcut")
        width = out


def densenet_config(backbone: Backbone, path: Path, sizes: Sizes) -> dict[str, Any]:
    """The keys of the config of `systems.dnet`.

    Raises:
        ValueError: a weight that every DenseNet has is missing; no image size is given.
    """
    shapes = Shapes(backbone, path)
    growth = shapes.of("features.denseblock1.denselayer1.conv2.weight", 4)[0]
    return {
        "model_type": "dnet",
        "growth_rate": growth,
        "depths": _counts(backbone, r"features\.denseblock(\d+)\.denselayer(\d+)\.", first=1),
        "width": shapes.of("features.conv0.weight", 4)[0],
        "bottleneck": shapes.of("features.denseblock1.denselayer1.conv1.weight", 4)[0] // growth,
        "image_size": _given_image_size(backbone, path, sizes),
    }


def densenet_parts(config: dict[str, Any]) -> Iterator[Part]:
    """Every weight of a DenseNet with these sizes; `systems.densenet` has torchvision's names."""
    growth, channels = config["growth_rate"], config["width"]
    inner = config["bottleneck"] * growth
    yield from _same("features.conv0", (channels, 3, 7, 7))
    yield from _same_norm("features.norm0", channels)
    for block, depth in enumerate(config["depths"], start=1):
        for layer in range(1, depth + 1):
            own = f"features.denseblock{block}.denselayer{layer}"
            yield from _same_norm(f"{own}.norm1", channels)
            yield from _same(f"{own}.conv1", (inner, channels, 1, 1))
            yield from _same_norm(f"{own}.norm2", inner)
            yield from _same(f"{own}.conv2", (growth, inner, 3, 3))
            channels += growth
        if block < len(config["depths"]):
            yield from _same_norm(f"features.transition{block}.norm", channels)
            yield from _same(f"features.transition{block}.conv", (channels // 2, channels, 1, 1))
            channels //= 2
    yield from _same_norm("features.norm5", channels)


def with_modern_names(backbone: Backbone) -> Backbone:
    """The same backbone; a DenseNet's weights are under today's names."""
    names = {modern_name(name): own for name, own in backbone.names.items()}
    return dataclasses.replace(backbone, tensors=modern_names(backbone.tensors), names=names)


def _given_image_size(backbone: Backbone, path: Path, sizes: Sizes) -> int:
    if sizes.image_size is None:
        raise ValueError(
            f"{path} is a {backbone.kind}, and the file does not say its image size; give --image_size, such as 224"
        )
    return sizes.image_size


def _normed(own: str, own_norm: str, shape: tuple[int, ...], target: str) -> Iterator[Part]:
    """A convolution without bias and the batch norm behind it."""
    yield f"{own}.weight", shape, (f"{target}.convolution.weight",)
    yield from batch_norm(own_norm, shape[0], f"{target}.normalization")


def _same(own: str, shape: tuple[int, ...]) -> Iterator[Part]:
    yield f"{own}.weight", shape, (f"densenet.{own}.weight",)


def _same_norm(own: str, width: int) -> Iterator[Part]:
    yield from batch_norm(own, width, f"densenet.{own}")


def _counts(backbone: Backbone, pattern: str, *, first: int) -> list[int]:
    """How many blocks each stage has; stages count from 1, blocks from ``first``."""
    places = {tuple(map(int, at.groups())) for name in backbone.tensors if (at := re.match(pattern, name))}
    stages = max(stage for stage, _ in places)
    return [
        1 - first + max((block for at, block in places if at == stage), default=first)
        for stage in range(1, stages + 1)
    ]
