"""Where the weights of a pre-training come from: its images, and the weights that it started from.

"Official test images seen: no" is claimed only where it is known: of rendered images, and of images outside the
official test list of ChestX-ray14. Any other data may contain them: a copy of ChestX-ray14 with its own split, an
archive without a test set, a split file.
"""

from collections.abc import Mapping
from typing import Any

from hf_cxr.config import PretrainArguments
from hf_cxr.models.build import describe_initial_weights
from hf_cxr.models.record import ModelRecord
from hf_cxr.reporting.protocol import OFFICIAL_LIST
from hf_cxr.run.pretraining.data import PretrainData
from hf_cxr.weights_origin import seen_in_any

NOT_STATED = "not stated"


def weights_origin(args: PretrainArguments, data: PretrainData, before: ModelRecord | None) -> dict[str, Any]:
    """The origin for the record of this model, and for the card of those that start from it.

    Args:
        before: the record of the weights that pre-training starts from; None without one.

    Returns:
        As `hf_cxr.weights_origin.check_origin` says. Source, licence and what was seen are those of the images and of
        the first weights together.
    """
    source = data.source
    note = "images of validation and test were not opened"
    if args.masking.never_tested:
        note = "the data have no test set, and it was stated that no model will be tested on these images"
    origin = {
        "kind": "pretrained",
        "source": f"SimMIM on {len(data.train):,} training images of {source.name}, no labels",
        "licence": source.licence_note,
        "saw_test_images": saw_test_images(data),
        "note": note,
    }
    if args.model.model_name_or_path is None:
        return origin
    before = before or ModelRecord()
    earlier = before.weights_origin or {}
    first = describe_initial_weights(args.model)["initial_weights"]
    if earlier.get("source") and earlier["source"] not in first:
        first = f"{first}, from {earlier['source']}"
    terms = [earlier.get("licence"), None if before.unlabelled else before.licence_note]
    licence = "; ".join(dict.fromkeys(term for term in terms if term)) or NOT_STATED
    return origin | {
        "source": f"{origin['source']}; started from {first}",
        "licence": f"first weights: {licence}; images: {source.licence_note or NOT_STATED}",
        "saw_test_images": seen_in_any([origin["saw_test_images"], _seen_before(before, data)]),
        "note": f"{note}; of the first weights: {earlier['note']}" if earlier.get("note") else note,
    }


def saw_test_images(data: PretrainData) -> str:
    """Whether images of ChestX-ray14's official test list are among the training images: "no" or "unknown"."""
    return "no" if data.source.synthetic or _is_official(data.source.split_origin) else "unknown"


def _is_official(split_origin: Mapping[str, Any]) -> bool:
    return (split_origin["splits_from"] or "").startswith(OFFICIAL_LIST) and not split_origin["split_file"]


def _seen_before(before: ModelRecord, data: PretrainData) -> str:
    """What the first weights saw: what their origin says, and what is known about the data of their own run."""
    answers = [before.weights_origin["saw_test_images"]] if before.weights_origin else []
    if before.split is not None and not before.unlabelled:  # the origin of a pre-training is about its own data
        same = before.split == data.source.fingerprint
        answers.append("no" if before.synthetic else saw_test_images(data) if same else "unknown")
    return seen_in_any(answers)
