"""Groups of images, from what is known about them: sex, age, view, follow-up, number of findings, any further column.

    attributes, left_out = image_attributes(labels, sex=predictions.sex, age=predictions.age)
    attributes["age"].groups                       # ("0-17", "18-39", ..., "unknown")

An attribute puts every image into exactly one group. Where its value is unknown, that is the group "unknown": those
images are measured as well, because a value is rarely missing at random.

Refused: a column of another length than the labels, ages below 0, starts of age bands that do not ascend, a crossing
of an attribute that is not there.

N = images, C = findings.
"""

import itertools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hf_cxr.evaluation.checks import check_labels

UNKNOWN = "unknown"
AGE_STARTS = (0, 18, 40, 60, 80)
NUMBER_OF_FINDINGS = "number of findings"
MOST_GROUPS = 20
"""A column with more different values is not one of groups, but of dates, numbers or names."""

_STUDY = re.compile(r"\d_(\d{3})(?:\.[A-Za-z]+)?$")


@dataclass(frozen=True, eq=False)
class Attribute:
    """One way to divide the images.

    Attributes:
        group_N: the group of each image.
        groups: those that occur, in the order in which they are shown, "unknown" last.
        from_labels: the labels themselves make these groups, so that a gap between them is partly arithmetic.
    """

    group_N: tuple[str, ...]
    groups: tuple[str, ...]
    from_labels: bool = False

    @classmethod
    def of(cls, group_N: Sequence[str], order: Sequence[str] = (), *, from_labels: bool = False) -> "Attribute":
        """Groups in the given order, then the rest in alphabetical order, then "unknown"."""
        group_N = [str(group) for group in group_N]
        found = set(group_N)
        last = {UNKNOWN} & found
        first = [group for group in order if group in found]
        groups = (*first, *sorted(found - set(first) - last), *last)
        return cls(tuple(group_N), groups, from_labels)

    def rows(self, group: str) -> NDArray[np.bool_]:
        """The images of a group, (N,)."""
        return np.array([one == group for one in self.group_N], dtype=bool)


def image_attributes(
    label_NC: ArrayLike,
    *,
    sex: Sequence[str | None] | None = None,
    age: ArrayLike | None = None,
    view: Sequence[str | None] | None = None,
    follow_up: Sequence[int | None] | None = None,
    columns: Mapping[str, Sequence[Any]] | None = None,
    age_starts: Sequence[int] = AGE_STARTS,
    crossings: Sequence[tuple[str, str]] = (),
) -> tuple[dict[str, Attribute], dict[str, str]]:
    """Every attribute that divides the images, and the reason why one of those given does not.

    Args:
        label_NC: 1, 0 or NaN; they give the number of findings. An image is of "several" with two known positives,
            of "none" or "one" only if all its labels are known, else "unknown".
        sex, view: N values, None for unknown; None as a whole if not known of any image.
        age: N years, NaN for unknown.
        follow_up: N numbers of the study, 0 for a patient's first (see `follow_up_numbers`), None for unknown.
        columns: further columns of N values, such as {"scanner": [...]}; None, NaN and "" are unknown. One with the
            name of an attribute becomes "NAME (column)".
        age_starts: the first year of each age band, ascending; the last band has no end.
        crossings: pairs of attributes, such as ("sex", "view"), whose combinations are groups too.

    Returns:
        name -> attribute, in the order of the arguments; name -> why it is left out (unknown of every image, or more
        than `MOST_GROUPS` different values).

    Raises:
        ValueError: see the module's first lines.
    """
    label_NC = check_labels(label_NC)
    given = {
        "sex": None if sex is None else Attribute.of([_text(value) for value in sex]),
        "age": None if age is None else age_bands(age, age_starts),
        "view": None if view is None else Attribute.of([_text(value) for value in view]),
        "study": None if follow_up is None else _follow_up(follow_up),
        NUMBER_OF_FINDINGS: _number_of_findings(label_NC),
    }
    for name, values in (columns or {}).items():
        name = f"{name} (column)" if name in given else name
        given[name] = Attribute.of([_text(value) for value in values])
    attributes, left_out = {}, {}
    for name, attribute in given.items():
        if attribute is None or attribute.groups == (UNKNOWN,):
            left_out[name] = "unknown for every image"
            continue
        if len(attribute.group_N) != len(label_NC):
            raise ValueError(f"{name} has {len(attribute.group_N)} values for {len(label_NC)} images")
        if len(attribute.groups) > MOST_GROUPS:
            left_out[name] = f"{len(attribute.groups):,} different values, more than {MOST_GROUPS}: not groups"
            continue
        attributes[name] = attribute
    for pair in crossings:
        crossed = " and ".join(pair)
        gone = [name for name in pair if name not in attributes]
        strange = [name for name in gone if name not in left_out]
        if strange or pair[0] == pair[1]:
            known = ", ".join(attributes)
            raise ValueError(f"cannot cross {crossed}: name two different attributes of {known}")
        if gone:
            left_out[crossed] = f"{gone[0]} is {left_out[gone[0]]}"
        else:
            attributes[crossed] = _cross(*(attributes[name] for name in pair))
    return attributes, left_out


def age_bands(age_N: ArrayLike, starts: Sequence[int] = AGE_STARTS) -> Attribute:
    """Bands of ages in years; an age below the first start is of "below START".

    >>> age_bands([17.9, 18, 85, float("nan")]).group_N
    ('0-17', '18-39', '80+', 'unknown')
    """
    starts = list(starts)
    if not starts or starts[0] < 0 or any(low >= high for low, high in itertools.pairwise(starts)):
        raise ValueError(f"age bands begin at {starts}; give ascending years, such as 0 18 40 60 80")
    age_N = np.asarray(age_N, dtype=np.float64)
    if (age_N < 0).any():
        row = int(np.flatnonzero(age_N < 0)[0])
        raise ValueError(f"age at row {row} is {age_N[row]:g}; give years, or NaN for unknown")
    names = [f"below {starts[0]}"]
    names += [f"{low}-{high - 1}" for low, high in itertools.pairwise(starts)] + [f"{starts[-1]}+"]
    band_N = np.searchsorted(starts, age_N, side="right")
    known_N = ~np.isnan(age_N)
    return Attribute.of(
        [names[band] if known else UNKNOWN for band, known in zip(band_N, known_N, strict=True)], names
    )


def follow_up_numbers(image_ids: Sequence[str]) -> tuple[int, ...] | None:
    """The number of each study, from ids like ChestX-ray14's ``00000013_005.png`` (5); None if some id is not so.

    >>> follow_up_numbers(["00000013_000.png", "00000013_005.png"]), follow_up_numbers(["a.png"])
    ((0, 5), None)
    """
    found = [_STUDY.search(image_id) for image_id in image_ids]
    return tuple(int(match[1]) for match in found) if found and all(found) else None


def _follow_up(number_N: Sequence[int | None]) -> Attribute:
    names = ("first study", "follow-up")
    return Attribute.of([UNKNOWN if number is None else names[number > 0] for number in number_N], names)


def _number_of_findings(label_NC: NDArray[np.float64]) -> Attribute:
    names = ("none", "one", "several")
    positives_N, known_N = (label_NC == 1).sum(axis=1), ~np.isnan(label_NC).any(axis=1)
    group_N = [
        names[min(positives, 2)] if known or positives >= 2 else UNKNOWN
        for positives, known in zip(positives_N, known_N, strict=True)
    ]
    return Attribute.of(group_N, names, from_labels=True)


def _cross(first: Attribute, second: Attribute) -> Attribute:
    pairs = zip(first.group_N, second.group_N, strict=True)
    group_N = [UNKNOWN if UNKNOWN in pair else f"{pair[0]}, {pair[1]}" for pair in pairs]
    order = [f"{one}, {two}" for one in first.groups for two in second.groups]
    return Attribute.of(group_N, order, from_labels=first.from_labels or second.from_labels)


def _text(value: Any) -> str:
    if value is None or value != value or not str(value).strip():  # NaN is unequal to itself
        return UNKNOWN
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value).strip()
