"""What a page says of initial weights that this package did not train, from `hf_cxr.weights_origin`."""

from collections.abc import Mapping
from typing import Any

from hf_cxr.weights_origin import KINDS

CAUTIONS = {
    "yes": (
        "The initial weights ({source}) were trained with images of ChestX-ray14's official test list: figures on "
        "that list are too good, by an unknown amount, and no comparison with a model that never saw them is fair."
    ),
    "unknown": (
        "Whether the initial weights ({source}) were trained with images of ChestX-ray14's official test list is "
        "unknown: figures on that list may be too good."
    ),
}


def origin_cautions(origin: Mapping[str, Any] | None) -> list[str]:
    """A caution where their training saw test images, or where that is unknown; [] for weights of no stated origin."""
    words = CAUTIONS.get(origin["saw_test_images"]) if origin else None
    return [words.format(source=origin.get("source") or "source not stated")] if words else []


def origin_facts(origin: Mapping[str, Any] | None) -> list[tuple[str, str]]:
    """Source, licence and what their training saw, as a row of a page's facts."""
    return [("origin of the initial weights", origin_words(origin))] if origin else []


def origin_words(origin: Mapping[str, Any]) -> str:
    """Source, licence and what their training saw, without a full stop."""
    file = f"; file {origin['file']}, SHA-256 {origin['sha256']}" if origin.get("sha256") else ""
    note = f"; {origin['note']}" if origin.get("note") else ""
    return (
        f"{origin.get('source') or 'source not stated'} ({KINDS[origin['kind']]}); licence "
        f"{origin.get('licence') or 'not stated'}; official test images of ChestX-ray14 in their training: "
        f"{origin['saw_test_images']}{file}{note}"
    )
