"""Maps that know nothing know nothing, and a randomised model keeps nothing of what was learnt."""

import numpy as np
import torch
from tiny import MODELS

from hf_cxr.evaluation.localization import CONTROLS
from hf_cxr.explain.controls import centre_map, random_maps, randomised, usual_place
from hf_cxr.explain.geometry import Geometry
from hf_cxr.models import fresh


def test_the_middle_is_the_middle_of_the_original_whatever_was_cropped():
    for geometry in (Geometry(120, 80, 73, 64), Geometry(50, 200, 64, 64), Geometry(64, 64, 80, 49)):
        back_HW = geometry.to_original(centre_map(geometry, 64)[None])[0]
        row, column = np.unravel_index(np.nanargmax(back_HW), back_HW.shape)
        assert abs((row + 0.5) / geometry.height - 0.5) < 0.03
        assert abs((column + 0.5) / geometry.width - 0.5) < 0.03
        assert np.nanmax(back_HW) > np.nanmin(back_HW)


def test_random_maps_depend_on_the_generator_alone():
    first, again, other = (random_maps((2, 7, 7), np.random.default_rng(seed)) for seed in (0, 0, 1))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)
    assert first.shape == (2, 7, 7)


def test_the_usual_place_is_that_of_other_patients():
    boxes = [
        ("a", "Mass", [[0.0, 0.0, 0.5, 0.5]]),
        ("a", "Mass", [[0.0, 0.0, 0.5, 0.5]]),
        ("b", "Mass", [[0.5, 0.5, 0.5, 0.5]]),
        ("c", "Mass", [[0.5, 0.5, 0.5, 0.5], [0.0, 0.5, 0.5, 0.5]]),
        ("c", "Hernia", [[0.0, 0.0, 1.0, 0.5]]),
    ]
    usual = usual_place(boxes, 4)
    np.testing.assert_array_equal(usual["a", "Mass"][::2, ::2], [[0, 0], [0.5, 1]])  # b and c
    np.testing.assert_array_equal(usual["b", "Mass"][::2, ::2], [[1, 0], [0.5, 0.5]])  # a twice, and c
    np.testing.assert_array_equal(usual["c", "Hernia"][::2, ::2], [[1, 0], [0, 0.5]])  # nobody else has one: any box
    assert not usual_place(boxes[:2], 4)["a", "Mass"].any()  # nobody else at all
    order = usual_place(boxes[::-1], 4)
    assert all(np.array_equal(usual[key], order[key]) for key in usual)


def test_randomised_weights_share_nothing_with_the_trained_ones():
    torch.manual_seed(0)  # the seed that is asked for below: a run's own initial weights are not drawn again
    model = fresh("swin", MODELS["swin"], ("Mass", "Nodule"), 32).eval()
    state = torch.random.get_rng_state()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    first, again, other, second = (randomised(model, *key) for key in ((0,), (0, 0), (1,), (0, 1)))
    assert torch.equal(torch.random.get_rng_state(), state)
    assert all(torch.equal(tensor, model.state_dict()[name]) for name, tensor in before.items())
    assert not first.training
    weights = [name for name, parameter in model.named_parameters() if parameter.std() > 0]
    assert len(weights) > 10
    for name in weights:
        drawn = first.get_parameter(name)
        assert not torch.equal(drawn, model.get_parameter(name))
        assert not torch.equal(drawn, other.get_parameter(name))
        assert not torch.equal(drawn, second.get_parameter(name))
    assert all(torch.equal(first.get_parameter(name), again.get_parameter(name)) for name in weights)


def test_every_control_has_a_title():
    assert set(CONTROLS) == {"random", "centre", "usual_place", "randomised_weights"}
