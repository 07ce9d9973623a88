"""ResNet and DenseNet in torchvision's layout: the outputs of a network written out here in float64."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from converted_files import ORIGIN, converted, saved

from hf_cxr.conversion.folder import convert_file
from hf_cxr.conversion.parts import Sizes
from hf_cxr.models.head import features

SIDE = 64


class Layers:
    """Convolutions and batch norms that make up their weights as they are named, and apply them in float64."""

    def __init__(self, seed=0):
        self.rng, self.weights = np.random.default_rng(seed), {}

    def _made(self, name, values):
        self.weights.setdefault(name, torch.from_numpy(values).float())
        return self.weights[name].double()

    def conv(self, name, x, out, kernel, stride=1):
        weight = self._made(f"{name}.weight", self.rng.normal(0, 0.3, (out, x.shape[1], kernel, kernel)))
        return F.conv2d(x, weight, stride=stride, padding=kernel // 2)

    def norm(self, name, x):
        for key in ("weight", "running_var"):
            self._made(f"{name}.{key}", self.rng.uniform(0.5, 1.5, x.shape[1]))
        for key in ("bias", "running_mean"):
            self._made(f"{name}.{key}", self.rng.normal(0, 0.3, x.shape[1]))
        self.weights.setdefault(f"{name}.num_batches_tracked", torch.tensor(7))
        own = [self.weights[f"{name}.{key}"].double() for key in ("running_mean", "running_var", "weight", "bias")]
        return F.batch_norm(x, *own)


def resnet(layers, x, *, deep, depths=(1, 2), width=8):
    x = F.max_pool2d(layers.norm("bn1", layers.conv("conv1", x, width, 7, 2)).relu(), 3, 2, 1)
    for stage, depth in enumerate(depths):
        inner = width * 2**stage
        for block in range(depth):
            own, stride, out = f"layer{stage + 1}.{block}", 2 if stage and not block else 1, inner * (4 if deep else 1)
            kernels = ((inner, 1, 1), (inner, 3, stride), (out, 1, 1)) if deep else ((inner, 3, stride), (out, 3, 1))
            y = x
            for place, (channels, kernel, step) in enumerate(kernels, start=1):
                y = layers.norm(f"{own}.bn{place}", layers.conv(f"{own}.conv{place}", y, channels, kernel, step))
                y = y.relu() if place < len(kernels) else y
            if x.shape != y.shape:
                x = layers.norm(f"{own}.downsample.1", layers.conv(f"{own}.downsample.0", x, out, 1, stride))
            x = (x + y).relu()
    return x.mean(dim=(2, 3))


def densenet(layers, x, *, depths=(2, 3), growth=4, width=8):
    x = layers.norm("features.norm0", layers.conv("features.conv0", x, width, 7, 2)).relu()
    x = F.max_pool2d(x, 3, 2, 1)
    for block, depth in enumerate(depths, start=1):
        for layer in range(1, depth + 1):
            own = f"features.denseblock{block}.denselayer{layer}"
            y = layers.conv(f"{own}.conv1", layers.norm(f"{own}.norm1", x).relu(), 4 * growth, 1)
            x = torch.cat([x, layers.conv(f"{own}.conv2", layers.norm(f"{own}.norm2", y).relu(), growth, 3)], dim=1)
        if block < len(depths):
            own = f"features.transition{block}"
            x = F.avg_pool2d(layers.conv(f"{own}.conv", layers.norm(f"{own}.norm", x).relu(), x.shape[1] // 2, 1), 2)
    return layers.norm("features.norm5", x).relu().mean(dim=(2, 3))


@pytest.mark.parametrize("deep", [True, False])
def test_a_resnet_gives_the_features_of_its_equations(tmp_path, deep):
    layers, pixels = Layers(), torch.from_numpy(np.random.default_rng(1).normal(size=(1, 3, SIDE, SIDE)))
    expected = resnet(layers, pixels, deep=deep)
    content = layers.weights | {"fc.weight": torch.ones(5, expected.shape[1]), "fc.bias": torch.ones(5)}
    bare = {name: tensor for name, tensor in content.items() if "tracked" not in name}  # as before torch 0.4.1
    model = converted(tmp_path, saved(tmp_path / "resnet.pth", {"state_dict": bare}), sizes=Sizes(SIDE))
    with torch.inference_mode():
        found = features(model, pixels.float()).flatten(1).double()
    assert expected.std() > 0.05
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("old", [True, False])
def test_a_densenet_becomes_the_one_in_dnet(tmp_path, old):
    layers, pixels = Layers(), torch.from_numpy(np.random.default_rng(1).normal(size=(1, 3, SIDE, SIDE)))
    expected = densenet(layers, pixels)
    content = layers.weights | {
        "classifier.weight": torch.ones(5, expected.shape[1]),
        "classifier.bias": torch.ones(5),
    }
    if old:
        pairs = (("norm1.", "norm.1."), ("norm2.", "norm.2."), ("conv1.", "conv.1."), ("conv2.", "conv.2."))
        for new, before in pairs:
            content = {n.replace(new, before) if "denselayer" in n else n: t for n, t in content.items()}
    model = converted(tmp_path, saved(tmp_path / "densenet.pth", content), sizes=Sizes(4 * SIDE))
    with torch.inference_mode():
        found = model.densenet(pixels.float()).mean(dim=(2, 3)).double()
    assert expected.std() > 0.05
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


def test_both_need_a_size_and_all_their_weights(tmp_path):
    layers = Layers()
    densenet(layers, torch.zeros(1, 3, SIDE, SIDE, dtype=torch.float64))
    path = saved(tmp_path / "densenet.pth", layers.weights)
    with pytest.raises(ValueError, match="give --image_size"):
        convert_file(path, ORIGIN)
    del layers.weights["features.norm5.bias"]
    with pytest.raises(ValueError, match=r"missing: features\.norm5\.bias"):
        convert_file(saved(path, layers.weights), ORIGIN, sizes=Sizes(SIDE))
    layers = Layers()
    resnet(layers, torch.zeros(1, 3, SIDE, SIDE, dtype=torch.float64), deep=True)
    layers.weights["layer2.1.se.weight"] = torch.ones(3)
    with pytest.raises(ValueError, match=r"left over: layer2\.1\.se\.weight"):
        convert_file(saved(path, layers.weights), ORIGIN, sizes=Sizes(SIDE))
