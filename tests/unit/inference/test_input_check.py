"""The input check on drawn pictures: its rate of false alarms, what it finds and calls what, its file, its model."""

import json
from functools import cache

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.numpy import load_file, save_file
from tiny import save_model

from hf_cxr.inference.classifier import Classifier
from hf_cxr.inference.input_check import (
    INVERTED,
    MIRRORED,
    SIDEWAYS,
    UNIFORM,
    UPSIDE_DOWN,
    InputCheck,
    compared_values,
    features_sha256,
    fit_input_check,
)
from hf_cxr.inference.odd_images import DRAWN, ODD_IMAGES, odd_kinds
from hf_cxr.models.head import head
from hf_cxr.saved_models import INPUT_CHECK

SIDE = 32
MEASURED = {"false_alarms": {"value": 0.01, "low": 0.0, "high": 0.1, "images": 9}, "kinds": {}}


def pictures(images, seed):
    """Two dark fields in a bright body, the right one smaller: (N, S, S) uint8; and features (N, 5)."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[-1 : 1 : SIDE * 1j, -1 : 1 : SIDE * 1j]
    made = []
    for _ in range(images):
        left, top, width, level = rng.normal((-0.4, -0.2, 0.25, 150), (0.04, 0.04, 0.02, 12))
        body = np.where((np.abs(x) < 0.8) & (y > -0.8), level, 5)
        for centre, size in ((left, 1.2 * width), (-left, 0.7 * width)):
            body = np.where(((x - centre) / size) ** 2 + ((y - top) / (2 * size)) ** 2 < 1, level / 3, body)
        made.append(body + rng.normal(0, 6, (SIDE, SIDE)))
    return np.clip(made, 0, 255).astype(np.uint8), rng.normal(size=(images, 5))


@cache
def fitted(seed=0, images=200):
    pixels, features = pictures(images, seed)
    return fit_input_check(compared_values(pixels, features), np.arange(images) // 2, model_sha256="a" * 64)


def reasons(check, pixels, features=None):
    features = pictures(len(pixels), 9)[1] if features is None else features
    return [result.reasons for result in check.of(np.ascontiguousarray(pixels), features)]


def test_about_the_stated_share_of_new_ordinary_images_is_reported():
    new = pictures(800, 100)
    shares = [np.mean([result.unusual for result in fitted(seed).of(*new)]) for seed in range(3)]
    assert 0.002 < np.mean(shares) < 0.02
    pixels, features = pictures(200, 0)
    loose = fit_input_check(compared_values(pixels, features), np.arange(200), target=0.1)
    assert 0.05 < np.mean([result.unusual for result in loose.of(*new)]) < 0.15


@pytest.mark.parametrize(
    ("alter", "reason"),
    [
        (lambda pixels: 255 - pixels, INVERTED),
        (lambda pixels: np.rot90(pixels, 1, (1, 2)), SIDEWAYS),
        (lambda pixels: np.rot90(pixels, 3, (1, 2)), SIDEWAYS),
        (lambda pixels: np.rot90(pixels, 2, (1, 2)), UPSIDE_DOWN),
        (lambda pixels: pixels[:, :, ::-1], MIRRORED),
        (lambda pixels: pixels // 40 + 100, UNIFORM),
    ],
)
def test_what_can_be_undone_is_named(alter, reason):
    ordinary = pictures(40, 50)[0]
    assert sum(map(bool, reasons(fitted(), ordinary))) <= 3
    found = reasons(fitted(), alter(ordinary))
    assert sum(one == (reason,) for one in found) >= 38


def test_every_kind_of_drawn_image_is_reported_and_features_alone_suffice():
    check = fitted()
    for key, kind in ODD_IMAGES.items():
        if kind.draw is not None:
            pixels = kind.draw(SIDE, 3, np.random.default_rng(0))
            assert pixels.shape[1:] == (SIDE, SIDE)
            assert len(pixels) in (DRAWN, 2 * DRAWN)
            assert all(reasons(check, pixels)), key
    pixels, features = pictures(20, 60)
    far = reasons(check, pixels, features + 20)
    assert all("the model finds" in one[0] for one in far)
    assert all(reasons(check, pixels, np.full_like(features, np.nan)))


def test_drawn_radiographs_measure_nothing_for_a_model_of_radiographs():
    drawn = {key for key, kind in ODD_IMAGES.items() if kind.of_phantoms}
    assert drawn == {"lateral"}
    assert odd_kinds(synthetic=True).keys() - odd_kinds(synthetic=False).keys() == drawn


def test_scores_do_not_depend_on_the_batch_or_on_being_saved(tmp_path):
    check, (pixels, features) = fitted().with_measured(MEASURED), pictures(8, 70)
    check.save(tmp_path)
    again = InputCheck.load(tmp_path)
    whole = [result.score for result in check.of(pixels, features)]
    assert whole == [result.score for result in again.of(pixels, features)]
    single = [check.of(pixels[i : i + 1], features[i : i + 1])[0].score for i in range(8)]
    np.testing.assert_allclose(single, whole, rtol=1e-9)
    assert (again.threshold, again.target, again.images, again.patients) == (check.threshold, 0.01, 200, 100)
    assert again.measured == MEASURED
    first = (tmp_path / INPUT_CHECK).read_bytes()
    again.save(tmp_path)
    assert (tmp_path / INPUT_CHECK).read_bytes() == first
    assert InputCheck.load(tmp_path / "nowhere") is None


def test_few_images_give_the_rate_that_they_can_and_too_few_are_refused():
    pixels, features = pictures(60, 0)
    values = compared_values(pixels, features)
    assert fit_input_check(values, np.arange(60)).target == pytest.approx(1 / 61)
    with pytest.raises(ValueError, match="60 images of 6 patients"):
        fit_input_check(values, np.arange(60) // 10)
    with pytest.raises(ValueError, match="49 images"):
        fit_input_check({key: value[:49] for key, value in values.items()}, np.arange(49))


def rewritten(file, change_arrays=None, **changes):
    with safe_open(file, "numpy") as opened:
        values = json.loads(opened.metadata()["hf_cxr_input_check"])
    metadata = {"hf_cxr_input_check": json.dumps(values | changes)}
    save_file({**load_file(file), **(change_arrays or {})}, file, metadata)


def test_a_damaged_file_is_refused_in_one_line(tmp_path):
    file = tmp_path / INPUT_CHECK
    fitted().save(tmp_path)
    whole = file.read_bytes()
    rewritten(file)
    assert InputCheck.load(tmp_path).threshold == fitted().threshold  # what is changed below is the cause
    damages = [
        lambda: file.write_bytes(whole[:-40]),
        lambda: file.write_bytes(b""),
        lambda: file.write_bytes(b"\x80\x04pickle"),
        lambda: save_file(load_file(file), file),
        lambda: rewritten(file, threshold=float("nan")),
        lambda: rewritten(file, scales={}),
        lambda: rewritten(file, format=2),
        lambda: rewritten(file, measured={"kinds": {}}),
        lambda: rewritten(file, measured=MEASURED | {"kinds": {"noise": {"title": 3} | MEASURED["false_alarms"]}}),
        lambda: rewritten(file, {"layout.variance_A": np.zeros(64, np.float32)}),
    ]
    for damage in damages:
        file.write_bytes(whole)
        damage()
        with pytest.raises(ValueError, match="is damaged") as caught:
            InputCheck.load(tmp_path)
        assert "\n" not in str(caught.value)


def test_it_belongs_to_the_weights_below_the_head(tmp_path):
    folder = save_model(tmp_path / "model")
    classifier = Classifier(folder)
    assert classifier.input_check is None
    sha256 = features_sha256(classifier.model, classifier.pixels)
    pixels, features = pictures(60, 0)
    values = compared_values(pixels, np.resize(features, (60, head(classifier.model).in_features)))
    fit_input_check(values, np.arange(60), model_sha256=sha256).save(folder)
    with torch.no_grad():
        head(classifier.model).bias.add_(1)  # as calibration does
    assert features_sha256(classifier.model, classifier.pixels) == sha256
    classifier.model.save_pretrained(folder)
    assert Classifier(folder).input_check.model_sha256 == sha256
    assert Classifier(folder).predict(np.zeros((40, 40), np.uint8)).input_check.reasons == (UNIFORM,)
    with torch.no_grad():
        next(parameter for name, parameter in classifier.model.named_parameters() if "classifier" not in name).add_(1)
    classifier.model.save_pretrained(folder)
    with pytest.raises(ValueError, match="other weights"):
        Classifier(folder)
    assert Classifier(folder, input_check=False).input_check is None
