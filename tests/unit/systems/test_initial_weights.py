"""Weights of a larger model for one part of a system."""

import pytest
import torch
from torch import nn

from hf_cxr.systems.initial_weights import load_part


def part():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4))


def weights(prefix, shift=1.0):
    return {prefix + name: value + shift for name, value in part().state_dict().items()}


@pytest.mark.parametrize("prefix", ["", "model.", "timm_model.body."])
def test_a_part_is_found_under_any_prefix(prefix):
    layers = part()
    before = {name: value.clone() for name, value in layers.state_dict().items()}
    load_part(layers, {"classifier.0.weight": torch.zeros(2), **weights(prefix)}, "stem")
    assert all(torch.equal(value, before[name] + 1) for name, value in layers.state_dict().items())


def test_a_file_without_the_counters_of_batches_is_whole():
    layers, saved = part(), weights("")
    del saved["1.num_batches_tracked"]
    load_part(layers, saved, "stem")
    assert layers[1].running_mean.tolist() == [1.0] * 4


def test_missing_and_misshapen_weights_are_named_and_nothing_is_loaded():
    layers = part()
    before = {name: value.clone() for name, value in layers.state_dict().items()}
    lacking = weights("model.")
    del lacking["model.1.running_var"], lacking["model.0.bias"]
    with pytest.raises(
        ValueError, match=r"for the stem are incomplete: 2 of 7 are missing, such as 0\.bias, 1\.running_var; give"
    ):
        load_part(layers, lacking, "stem")
    with pytest.raises(ValueError, match="for the stem are incomplete: 6 of 7"):
        load_part(layers, {"embeddings.weight": torch.zeros(3)}, "stem")
    other = weights("") | {"0.weight": torch.zeros(4, 1, 1, 1)}
    with pytest.raises(ValueError, match=r"0\.weight in the shape \(4, 1, 1, 1\), and this model has \(4, 3, 1, 1\)"):
        load_part(layers, other, "stem")
    assert all(torch.equal(value, before[name]) for name, value in layers.state_dict().items())
