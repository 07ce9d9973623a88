"""Position tables at another size: laws of the resizing, and checkpoints that load at another size or window."""

import json

import numpy as np
import pytest
import torch
from tiny import MODELS

from hf_cxr.config import ModelArguments
from hf_cxr.models.architectures import checked_config, with_image_size
from hf_cxr.models.build import build_model, check_model, describe_positions, load_weights
from hf_cxr.models.positions import resized, shape_changes, with_trained_windows
from hf_cxr.processing import build_image_processor

NAMES = ["a", "b"]
KEYS = {  # name -> (key, tokens, whether they come last, sides before and after)
    "absolute": ("x.position_embeddings", 1, False, (7, 12)),
    "absolute without tokens": ("x.position_embeddings", 0, False, (6, 15)),
    "relative": ("x.relative_position_bias_table", 0, True, (13, 23)),
    "relative of BEiT": ("x.relative_position_bias_table", 3, True, (5, 9)),
    "smaller": ("x.position_embeddings", 2, False, (12, 5)),
}


def table_of(kind, grid_GGD, tokens_KD):
    parts = [grid_GGD.reshape(-1, grid_GGD.shape[-1]), tokens_KD]
    table = torch.cat(parts if KEYS[kind][2] else parts[::-1])
    return table[None] if "absolute" in kind or kind == "smaller" else table


def parts_of(kind, table):
    _, tokens, last, (_, side) = KEYS[kind]
    rows = table.reshape(-1, table.shape[-1])
    grid, rest = (rows[: side**2], rows[side**2 :]) if last else (rows[tokens:], rows[:tokens])
    return grid.reshape(side, side, -1), rest


def resize(kind, grid_GGD, tokens_KD):
    key, tokens, _, (_, after) = KEYS[kind]
    return parts_of(kind, resized(key, table_of(kind, grid_GGD, tokens_KD), after**2 + tokens))


def cubic(values, count):
    """Cubic convolution with a = -0.75 along the first axis, edges repeated, in float64: a slow loop."""
    a, length, out = -0.75, len(values), []
    for place in range(count):
        x = (place + 0.5) * length / count - 0.5
        total = 0.0
        for near in range(int(np.floor(x)) - 1, int(np.floor(x)) + 3):
            t = abs(x - near)
            inner, outer = (a + 2) * t**3 - (a + 3) * t**2 + 1, a * (t**3 - 5 * t**2 + 8 * t - 4)
            total = total + (inner if t <= 1 else outer) * values[min(max(near, 0), length - 1)]
        out.append(total)
    return np.array(out)


@pytest.mark.parametrize("kind", KEYS)
def test_a_table_is_resized_over_its_grid_and_its_tokens_are_kept(kind):
    _, tokens, _, (before, after) = KEYS[kind]
    rng = np.random.default_rng(0)
    grid, rest = rng.normal(size=(before, before, 3)), torch.from_numpy(rng.normal(size=(tokens, 3))).float()
    found, kept = resize(kind, torch.from_numpy(grid).float(), rest)
    expected = cubic(cubic(grid, after).transpose(1, 0, 2), after).transpose(1, 0, 2)
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-5)
    assert torch.equal(kept, rest)


@pytest.mark.parametrize("kind", KEYS)
def test_a_constant_stays_and_a_ramp_is_a_ramp_inside(kind):
    _, tokens, _, (before, after) = KEYS[kind]
    constant, _ = resize(kind, torch.full((before, before, 2), 0.7), torch.zeros(tokens, 2))
    torch.testing.assert_close(constant, torch.full((after, after, 2), 0.7))
    ramp = torch.arange(before).float()[:, None, None].expand(-1, before, 2)
    found, _ = resize(kind, ramp, torch.zeros(tokens, 2))
    places = (torch.arange(after) + 0.5) * before / after - 0.5
    inside = (places >= 1) & (places <= before - 2)
    # The filter of a = -0.75 follows a line to 5 % of the distance between two entries.
    assert (found[inside] - places[inside][:, None, None]).abs().max() < 0.05
    assert inside.sum() >= 3


def test_the_same_grid_is_the_same_table_and_other_tokens_are_refused():
    table = torch.randn(1, 1 + 49, 4, generator=torch.Generator().manual_seed(0))
    assert resized("position_embeddings", table, 50) is table
    for rows in (51, 49, 60):  # two tokens, none, no square
        with pytest.raises(ValueError, match="has 50 rows, which cannot be made"):
            resized("position_embeddings", table, rows)


def saved(folder, name, image_size=32, **kwargs):
    """A saved model whose position tables are random."""
    torch.manual_seed(0)
    arguments = ModelArguments(architecture=name, model_kwargs=MODELS[name] | kwargs, image_size=image_size)
    model = build_model(arguments, NAMES).eval()
    with torch.no_grad():
        for key, weight in model.named_parameters():
            if "position" in key:
                weight.normal_()
    model.save_pretrained(folder)
    return model


def at(folder, image_size, **kwargs):
    return ModelArguments(model_name_or_path=str(folder), image_size=image_size, model_kwargs=kwargs)


ABSOLUTE = {
    "vit": {},
    "deit": {},
    "vit_msn": {},
    "ijepa": {},
    "beit": {"use_absolute_position_embeddings": True},
    "data2vec-vision": {"use_absolute_position_embeddings": True},
    "dinov2": {},
    "dinov2_with_registers": {},
    "swin": {"use_absolute_embeddings": True},
}  # transformers' SwinV2 with absolute positions runs at no size: its table has a row for a class token


@pytest.mark.parametrize("sizes", [(32, 48), (48, 32)], ids=["larger", "smaller"])
@pytest.mark.parametrize("name", ABSOLUTE)
def test_absolute_positions_are_what_the_model_itself_would_interpolate(tmp_path, name, sizes):
    before, after = sizes
    model = saved(tmp_path, name, before, **ABSOLUTE[name])
    loaded = build_model(at(tmp_path, after), NAMES)
    own, new = (one.base_model.embeddings for one in (model, loaded))
    tokens = torch.zeros_like(new.position_embeddings)
    expected = own.interpolate_pos_encoding(tokens, after, after)
    torch.testing.assert_close(new.position_embeddings, expected, atol=1e-6, rtol=0)
    assert new.position_embeddings.shape != own.position_embeddings.shape
    assert loaded(pixel_values=torch.zeros(1, 3, after, after)).logits.isfinite().all()
    assert "interpolated from" in describe_positions(at(tmp_path, after))


def test_the_same_size_is_the_same_to_the_bit(tmp_path):
    model = saved(tmp_path, "swin", use_absolute_embeddings=True)
    loaded = build_model(at(tmp_path, 32, window_size=4), NAMES)
    for key, weight in model.base_model.state_dict().items():
        assert torch.equal(loaded.base_model.state_dict()[key], weight), key
    assert describe_positions(at(tmp_path, 32)) is None
    assert describe_positions(at(tmp_path, 32, window_size=4)) is None
    assert describe_positions(ModelArguments()) is None


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("name", ["beit", "data2vec-vision"])
def test_relative_biases_of_beit_keep_those_of_the_class_token(tmp_path, name, shared):
    kind = {"use_relative_position_bias": not shared, "use_shared_relative_position_bias": shared}
    model = saved(tmp_path, name, **kind)
    loaded = build_model(at(tmp_path, 64), NAMES)
    old, new = ({k: w for k, w in one.state_dict().items() if "bias_table" in k} for one in (model, loaded))
    assert old.keys() == new.keys()
    for key, table in old.items():
        assert (len(table), len(new[key])) == (7**2 + 3, 15**2 + 3)
        assert torch.equal(new[key][-3:], table[-3:])
        assert torch.equal(new[key], resized(key, table, 15**2 + 3))
    assert describe_positions(at(tmp_path, 64)) == "position tables interpolated from 4 x 4 to 8 x 8"


def test_a_swin_with_a_wider_window_keeps_the_bias_of_no_offset_and_its_neighbours(tmp_path):
    """7 to 12, as from 224 to 384 pixels, in a small model."""
    model = saved(tmp_path, "swin", 56, window_size=7, patch_size=4)
    loaded = build_model(at(tmp_path, 96, window_size=12), NAMES)
    old, new = (one.base_model.encoder.layers[0].blocks[0].attention for one in (model, loaded))
    before, after = (
        next(weight for key, weight in part.state_dict().items() if key.endswith("bias_table")) for part in (old, new)
    )
    assert (len(before), len(after)) == (13**2, 23**2)
    torch.testing.assert_close(after.reshape(23, 23, -1)[11, 11], before.reshape(13, 13, -1)[6, 6])  # no offset
    assert describe_positions(at(tmp_path, 96, window_size=12)) == (
        "position tables interpolated from 7 x 7 to 12 x 12"
    )
    loaded.save_pretrained(tmp_path / "again")
    again = load_weights(tmp_path / "again")
    pixels = torch.randn(2, 3, 96, 96, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        assert torch.equal(again.eval()(pixel_values=pixels).logits, loaded.eval()(pixel_values=pixels).logits)
    assert describe_positions(at(tmp_path / "again", 96)) is None


@pytest.mark.parametrize("named", [32, None])
def test_tables_of_another_grid_than_config_json_says_are_refused_and_not_random(tmp_path, named):
    model = saved(tmp_path, "vit", 48)
    file = tmp_path / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"image_size": named}))
    with pytest.raises(ValueError, match=r"position_embeddings; if .* was trained at another size than 64 pixels"):
        build_model(at(tmp_path, 64), NAMES)
    with pytest.raises(ValueError, match="position_embeddings"):
        check_model(at(tmp_path, 64))
    own = build_model(at(tmp_path, 48), NAMES).base_model.embeddings  # its own size is in the weights
    assert torch.equal(own.position_embeddings, model.base_model.embeddings.position_embeddings)


def test_a_config_without_an_image_size_has_that_of_its_processor_or_its_architecture_or_the_runs(tmp_path):
    for name in ("resnet", "vit"):
        folder = tmp_path / name
        saved(folder, name, 224)
        values = json.loads((folder / "config.json").read_text())
        values.pop("image_size", None)
        (folder / "config.json").write_text(json.dumps(values))
        check_model(at(folder, 96))
    assert describe_positions(at(tmp_path / "resnet", 96)) is None
    interpolated = "position tables interpolated from 28 x 28 to 12 x 12"
    assert describe_positions(at(tmp_path / "vit", 96)) == interpolated
    assert describe_positions(at(tmp_path / "resnet", 96, depths=[1, 1, 1, 1])) is None
    with pytest.raises(ValueError, match=r"image_size in .*resnet is None"):  # nothing says at which size to use it
        load_weights(tmp_path / "resnet")
    build_image_processor(64, 48).save_pretrained(tmp_path / "resnet")
    assert load_weights(tmp_path / "resnet").config.image_size == 48
    assert load_weights(tmp_path / "vit").config.image_size == 224


def test_an_image_size_is_its_own_then_timms_then_the_processors_then_the_architectures():
    timm = {"model_type": "timm_wrapper", "pretrained_cfg": {"input_size": [3, 288, 288]}}
    for values, size in (
        ({"model_type": "vit", "image_size": 64}, 64),
        ({**timm, "image_size": 64}, 64),
        (timm, 288),
        ({"model_type": "vit"}, 224),
        ({"model_type": "dnet"}, 1024),
        ({"model_type": "resnet"}, 96),
        ({"model_type": ["no name"]}, 96),
    ):
        assert with_image_size(values, None, 96) == {**values, "image_size": size}
    assert with_image_size({"model_type": "vit"}, 128, 96)["image_size"] == 128


def test_more_pixels_with_the_same_window_need_no_interpolation(tmp_path):
    saved(tmp_path, "swin", 32)
    assert describe_positions(at(tmp_path, 64)) is None
    build_model(at(tmp_path, 64), NAMES)


def test_logits_of_a_smooth_table_are_near_those_of_the_finer_table(tmp_path):
    def smooth(grid):
        place = (torch.arange(grid) + 0.5) / grid
        waves = [torch.sin(place * (1 + i / 4) + i)[:, None] * torch.cos(place * (1 + i / 5))[None] for i in range(16)]
        return torch.stack(waves, -1).reshape(1, grid**2, 16)

    model = saved(tmp_path, "vit", 64)
    with torch.no_grad():
        model.base_model.embeddings.position_embeddings[:, 1:] = smooth(8)
    model.save_pretrained(tmp_path)
    torch.manual_seed(1)
    loaded = build_model(at(tmp_path, 128), NAMES).eval()
    with torch.no_grad():
        table = loaded.base_model.embeddings.position_embeddings
        pixels = torch.randn(4, 3, 128, 128)
        found = loaded(pixel_values=pixels).logits
        kept = table.clone()
        table[:, 1:] = smooth(16)
        expected = loaded(pixel_values=pixels).logits
        table.copy_(kept.roll(40, dims=1))  # a table of the same values at other places
        wrong = loaded(pixel_values=pixels).logits
    assert (found - expected).abs().max() < 0.05 * (wrong - expected).abs().max()


def test_a_swinv2_is_told_the_windows_that_it_was_trained_with(tmp_path):
    model = saved(tmp_path, "swinv2", 32, patch_size=4)  # grids of 8 and 4, windows of 4
    wider = at(tmp_path, 64, window_size=8)
    loaded = build_model(wider, NAMES)
    assert list(loaded.config.pretrained_window_sizes) == [4, 4]
    assert "windows of 8 by a model trained with 4" in describe_positions(wider)
    old, new = (one.base_model.encoder.layers[0].blocks[0].attention for one in (model, loaded))
    tables = [next(buffer for key, buffer in part.named_buffers() if "coords_table" in key) for part in (old, new)]
    # The same offset has the same coordinate: 3 to the right in a window of 4 and in one of 8.
    torch.testing.assert_close(tables[0].reshape(7, 7, 2)[3, 6], tables[1].reshape(15, 15, 2)[7, 10])
    assert not any(build_model(at(tmp_path, 64), NAMES).config.pretrained_window_sizes)


def test_trained_windows_are_those_of_each_stage_and_a_given_value_stands():
    base = {"model_type": "swinv2", "image_size": 256, "window_size": 16, "depths": [2, 2, 6, 2]}
    changed = with_trained_windows(base, {"image_size": 384, "window_size": 24})
    assert changed["pretrained_window_sizes"] == [16, 16, 16, 8]  # as the official swinv2_base_window16to24_192to384
    given = {"window_size": 24, "pretrained_window_sizes": [12, 12, 12, 6]}
    assert with_trained_windows(base, given) == given
    twice = base | {"pretrained_window_sizes": [12, 12, 12, 6]}
    assert with_trained_windows(twice, {"window_size": 24}) == {"window_size": 24}
    assert with_trained_windows({"model_type": "swin"}, {"window_size": 24}) == {"window_size": 24}


@pytest.mark.parametrize(
    ("image_size", "window", "grid"), [(384, 7, 12), (384, 12, 12), (448, 7, 14), (512, 8, 16), (512, 16, 16)]
)
def test_windows_that_fit_384_to_512_pixels_and_one_more_is_refused(image_size, window, grid):
    values = {"model_type": "swin", "image_size": image_size, "window_size": window, "depths": [1, 1, 1, 1]}
    values |= {"embed_dim": 8, "num_heads": [1, 1, 1, 1], "num_labels": 2}
    checked_config(values, "a model")
    with pytest.raises(ValueError, match=rf"last grid of {grid} x {grid} .* window of {grid + 1}"):
        checked_config(values | {"window_size": grid + 1}, "a model")


def test_only_grids_of_the_same_width_are_changes():
    with torch.device("meta"):
        narrow, wide = torch.nn.Module(), torch.nn.Module()
        narrow.position_embeddings = torch.nn.Parameter(torch.zeros(1, 17, 4))
        wide.position_embeddings = torch.nn.Parameter(torch.zeros(1, 65, 8))
    assert shape_changes(narrow, wide) == []
