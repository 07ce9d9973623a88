"""Where weights that this package did not train come from: a part of a model's record that fine-tuning carries on.

Whether their training saw test images of ChestX-ray14 decides what a figure on that test set is worth, so it is asked
for, and "unknown" is reported.
"""

from collections.abc import Iterable, Mapping
from typing import Any

KINDS = {"converted": "converted from another program's file", "pretrained": "pre-trained without labels"}
"""Kind of an origin -> what a page says of it."""
SAW_TEST_IMAGES = ("yes", "no", "unknown")


def seen_in_any(answers: Iterable[str]) -> str:
    """What several trainings, one after the other, saw together; each answer is one of ``SAW_TEST_IMAGES``.

    >>> seen_in_any(["no", "unknown"]), seen_in_any(["unknown", "yes"]), seen_in_any(["no"]), seen_in_any([])
    ('unknown', 'yes', 'no', 'unknown')
    """
    given = set(answers)
    return "yes" if "yes" in given else "no" if given == {"no"} else "unknown"


def check_origin(origin: Any) -> None:
    """Refuse a value that is not the origin of weights.

    Args:
        origin: a mapping of text: "source", "licence", "saw_test_images" (one of ``SAW_TEST_IMAGES``; the images of
            ChestX-ray14's official test list), "kind" (one of ``KINDS``), and, where there is more to say, "note",
            "file" and "sha256" of the file that was converted. None stands for nothing.

    Raises:
        ValueError: it is not such a mapping.
    """
    if not isinstance(origin, Mapping):
        raise ValueError(f"weights_origin is {origin!r:.40}; it must be a mapping")
    for name, value in origin.items():
        if value is not None and not isinstance(value, str):
            raise ValueError(f"weights_origin.{name} is {value!r:.40}; it must be text")
    for name, known in (("saw_test_images", SAW_TEST_IMAGES), ("kind", KINDS)):
        if origin.get(name) not in known:
            raise ValueError(
                f"weights_origin.{name} is {origin.get(name)!r:.40}; it must be one of {', '.join(known)}"
            )
