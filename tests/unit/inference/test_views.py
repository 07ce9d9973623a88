"""Averaged views: which they are, what their mean is, and what their calibration belongs to."""

import numpy as np
import pytest
import torch
from tiny import save_model

from hf_cxr.evaluation.calibration import Calibration
from hf_cxr.inference.classifier import Classifier
from hf_cxr.inference.views import AveragedViews, View, check_views

NAMES = ["Effusion", "Hernia"]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return save_model(tmp_path_factory.mktemp("model"), NAMES, spread=1.0)


@pytest.fixture
def batch():
    return torch.from_numpy(np.random.default_rng(0).integers(0, 256, (5, 1, 36, 36), dtype=np.uint8))


def calibration(slope, intercept):
    return Calibration([slope] * 2, [intercept] * 2, ("affine",) * 2, tuple(NAMES), ("",) * 2)


def test_views_are_every_combination_and_the_first_is_the_image_as_it_is():
    assert AveragedViews(("flip",)).views == (View(), View(flip=True))
    assert [view.scale for view in AveragedViews(("scales",)).views] == [1.0, 0.9, 1.1]
    both = AveragedViews(("scales", "flip"))
    assert both.kinds == ("flip", "scales")
    assert len(set(both.views)) == 6
    assert both.views[0] == View()
    assert "6 views" in both.words


@pytest.mark.parametrize(("kinds", "message"), [((), "no kind of view"), (("flips",), "did you mean flip")])
def test_unknown_kinds_are_refused(kinds, message):
    with pytest.raises(ValueError, match=message):
        check_views(kinds)


def test_averaged_logits_are_the_mean_of_the_models_logits_of_each_view(model, batch):
    one = Classifier(model)
    many = Classifier(model, views=AveragedViews(("flip", "scales")))
    found = many.logits(batch)
    with torch.no_grad():
        values = [one.pixels.view(batch, flip=flip, scale=s) for s in (1.0, 0.9, 1.1) for flip in (False, True)]
        expected = np.mean([one.model(pixel_values=value).logits.numpy() for value in values], axis=0)
    np.testing.assert_allclose(found, expected, atol=1e-6)
    assert found.dtype == np.float32
    assert np.abs(found - one.logits(batch)).max() > 1e-3


def test_a_mirrored_image_has_the_same_average(model, batch):
    many = Classifier(model, views=AveragedViews(("flip", "scales")))
    np.testing.assert_allclose(many.logits(batch.flip(-1)), many.logits(batch), atol=1e-4)
    one = Classifier(model)
    assert np.abs(one.logits(batch.flip(-1)) - one.logits(batch)).max() > 1e-3


def test_calibration_acts_on_the_average_and_without_views_nothing_changes(model, batch):
    plain = Classifier(model, views=AveragedViews(("flip",)))
    fitted = plain.with_views(AveragedViews(("flip",), calibration(2.0, -0.5)))
    np.testing.assert_allclose(fitted.logits(batch), 2 * plain.logits(batch) - 0.5, atol=1e-6)
    np.testing.assert_array_equal(plain.with_views(None).logits(batch), Classifier(model).logits(batch))


def test_a_rest_of_predictions_of_other_views_is_not_taken_up(model):
    kinds = [None, AveragedViews(("flip",)), AveragedViews(("scales",))]
    kinds.append(AveragedViews(("flip",), calibration(2.0, 0.0)))
    one = Classifier(model)
    assert len({one.with_views(views).fingerprint() for views in kinds}) == 4


def test_saved_views_load_and_belong_to_one_model(model, tmp_path):
    from hf_cxr.saved_models import fingerprint, model_folder

    views = AveragedViews(("flip",), calibration(1.5, 0.25), None, fingerprint(model_folder(model)))
    views.save(tmp_path)
    loaded = AveragedViews.load(tmp_path)
    assert loaded.to_dict() == views.to_dict()
    assert Classifier(model, views=loaded).calls.note().startswith("this model has no operating points")
    other = AveragedViews(("flip",), calibration(1.5, 0.25), None, "0" * 64)
    with pytest.raises(ValueError, match="fitted for another model"):
        Classifier(model, views=other)


def test_a_folder_without_or_with_damaged_views_is_one_line(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"has no test_time_augmentation/calibration\.json; make it with"):
        AveragedViews.load(tmp_path)
    (tmp_path / "test_time_augmentation").mkdir()
    file = tmp_path / "test_time_augmentation" / "calibration.json"
    for content in ("{", "{}", '{"views": 3}', '{"views": ["flip"], "calibration": 3}', '{"views": ["odd"]}'):
        file.write_text(content)
        with pytest.raises(ValueError, match=r"calibration\.json|kind of view") as caught:
            AveragedViews.load(tmp_path)
        assert "\n" not in str(caught.value)
