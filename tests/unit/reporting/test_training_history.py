"""Everything that a model was trained on is named, and nothing is denied that the record does not know."""

import pytest

from hf_cxr.models.record import ModelRecord
from hf_cxr.reporting.training_history import training_history

ORIGIN = {"source": "Ark+", "licence": "CC BY-NC", "saw_test_images": "yes", "kind": "converted"}


def words(**fields) -> str:
    return " ".join(training_history(ModelRecord(**fields)))


def test_earlier_trainings_are_named_in_order():
    stages = [{"dataset": "X-rays of A", "split": None, "held_out": "ab"}, {"dataset": None, "split": "1"}]
    text = words(dataset="ChestX-ray14", earlier_stages=[*stages, {"dataset": "CheXpert", "split": "2"}])
    assert "trained on ChestX-ray14." in text
    assert "X-rays of A, without labels; data that were not recorded; CheXpert." in text
    assert "not recorded: random" not in text


@pytest.mark.parametrize(("saw", "caution"), [("yes", "too good"), ("unknown", "is unknown"), ("no", None)])
def test_weights_of_another_program_are_named_with_what_they_saw(saw, caution):
    text = words(dataset="ChestX-ray14", weights_origin=ORIGIN | {"saw_test_images": saw})
    assert "Ark+ (converted from another program's file); licence CC BY-NC" in text
    assert f"in their training: {saw}" in text
    assert caution is None or caution in text
    assert ("figures on that list" in text) == (caution is not None)


def test_weights_that_are_not_recorded_are_not_called_none():
    fresh = words(dataset="ChestX-ray14")
    assert "Its initial weights are not recorded" in fresh
    assert f"SHA-256 {'a' * 12}..." in words(dataset="ChestX-ray14", initial_weights="a" * 64)
    assert words() == "The model does not say what it was trained on."
    converted = words(weights_origin=ORIGIN)
    assert "Ark+" in converted
    assert "does not say" not in converted
    for text in (fresh, converted):
        assert "no other images" not in text
