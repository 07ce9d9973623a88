"""Where pre-trained weights come from: "no" for test images only where it is known, and what first weights add."""

import datasets
import pytest

from hf_cxr.config import parse_pretraining
from hf_cxr.data import Source
from hf_cxr.models.record import MASKED_LOSS, ModelRecord
from hf_cxr.reporting.pretraining import pretraining_document
from hf_cxr.run.pretraining.data import PretrainData
from hf_cxr.run.pretraining.origin import saw_test_images, weights_origin

OFFICIAL = "official test list; validation cut from the train_val list"
LAB = {
    "kind": "converted",
    "source": "the lab",
    "licence": "CC BY-NC 4.0",
    "saw_test_images": "no",
    "note": "asked in May",
}


def data(words=OFFICIAL, *, file=None, synthetic=False):
    split = datasets.Dataset.from_dict({"image_id": ["a", "b"], "patient_id": ["1", "2"]})
    source = Source(
        datasets.DatasetDict({"train": split}),
        (),
        name="ours",
        split_origin={"splits_from": words, "split_file": file},
        synthetic=synthetic,
        licence_note="name us",
        fingerprint="f" * 64,
    )
    return PretrainData(source)


@pytest.mark.parametrize(
    ("images", "answer"),
    [
        (data(), "no"),
        (data("drawn as they are", synthetic=True), "no"),
        (data("the folder's own test list of 4 images, not the official one of 25,596"), "unknown"),
        (data("the table's own"), "unknown"),  # a copy of ChestX-ray14 with a split of its own, or an archive
        (data(None), "unknown"),
        (data(file={"name": "split.csv"}), "unknown"),
    ],
)
def test_no_is_said_only_where_it_is_known(images, answer):
    assert saw_test_images(images) == answer


def args(tmp_path, *flags):
    path = tmp_path / "pretrain.yaml"
    path.write_text("dataset: phantom\nbf16: false\n")
    return parse_pretraining([str(path), *flags])


def origin(tmp_path, before, images=None):
    return weights_origin(args(tmp_path, "--model_name_or_path", "owner/first"), images or data(), before)


def test_from_random_weights_the_origin_is_the_images(tmp_path):
    found = weights_origin(args(tmp_path), data(), None)
    assert (found["licence"], found["saw_test_images"]) == ("name us", "no")
    assert found["source"] == "SimMIM on 2 training images of ours, no labels"
    assert "it was stated" in weights_origin(args(tmp_path, "--never_tested", "true"), data(), None)["note"]


def test_licence_source_and_note_of_first_weights_are_kept(tmp_path):
    found = origin(tmp_path, ModelRecord(weights_origin=LAB))
    assert found["licence"] == "first weights: CC BY-NC 4.0; images: name us"
    assert found["source"].endswith("started from owner/first, from the lab")
    assert found["note"].endswith("of the first weights: asked in May")
    again = origin(tmp_path, ModelRecord(weights_origin=found, split="e" * 64, loss={"name": MASKED_LOSS}))
    assert "CC BY-NC 4.0" in again["licence"]
    assert "from the lab" in again["source"]
    of_a_run = origin(tmp_path, ModelRecord(weights_origin=LAB, licence_note="name them", split="f" * 64))
    assert of_a_run["licence"] == "first weights: CC BY-NC 4.0; name them; images: name us"
    assert origin(tmp_path, None)["licence"] == "first weights: not stated; images: name us"


@pytest.mark.parametrize(
    ("before", "answer"),
    [
        (None, "unknown"),
        (ModelRecord(weights_origin=LAB), "no"),
        (ModelRecord(weights_origin=LAB | {"saw_test_images": "yes"}), "yes"),
        (ModelRecord(weights_origin=LAB | {"saw_test_images": "unknown"}), "unknown"),
        (ModelRecord(split="e" * 64), "unknown"),  # of a run of this package on any split
        (ModelRecord(split="f" * 64), "no"),  # on the same one
        (ModelRecord(split="e" * 64, synthetic=True), "no"),
        (ModelRecord(split="e" * 64, weights_origin=LAB), "unknown"),
        (ModelRecord(split="e" * 64, weights_origin=LAB, loss={"name": MASKED_LOSS}), "no"),
    ],
)
def test_what_first_weights_saw_counts_too(tmp_path, before, answer):
    assert origin(tmp_path, before)["saw_test_images"] == answer
    unknown = data("the table's own")
    assert origin(tmp_path, before, unknown)["saw_test_images"] == ("yes" if answer == "yes" else "unknown")


def test_the_page_has_the_origin_of_the_first_weights():
    protocol = {
        **{"dataset": "ours", "synthetic": False, "splits": {"train": {"images": 2, "patients": 2}}},
        **{"split_fingerprint": "f", "splits_from": None, "never_tested": False, "licence_note": None},
        **{"missing_images": {}, "unreadable_images": {}, "initial_weights": "local folder lab", "seed": 1},
        **{"mask_patch_size": 4, "masked_patches": [1, 2], "image_size": 32, "augmentation": {}},
        "saw_test_images": "unknown",
    }
    training = {"epochs": 1, "steps": 1, "resumed_from": None, "images_per_second": None, "peak_memory_gib": None}
    values = {"name": "run", "training": training, "history": [], "environment": {"device": "cpu"}}
    plain = pretraining_document(values | {"protocol": protocol}).to_markdown()
    from_the_lab = protocol | {"weights_origin": LAB | {"saw_test_images": "yes"}}
    page = pretraining_document(values | {"protocol": from_the_lab}).to_markdown()
    assert "CC BY-NC 4.0" not in plain
    assert "CC BY-NC 4.0" in page
    assert "The initial weights (the lab) were trained with images of ChestX-ray14" in page
