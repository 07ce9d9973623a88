"""The label space: which findings, in which order, under which other names, and what a label cell means.

A label cell is 1 (present), 0 (absent) or NaN (unknown). Unknown is not negative: losses, samplers, statistics
and metrics skip NaN cells. "No Finding" is not a finding; it is the row in which every cell is 0.

C = findings.
"""

import difflib
from collections.abc import Iterable, Mapping, Sequence
from typing import Literal
from unicodedata import category

CONTROL = {"Cc", "Cs", "Zl", "Zp"}  # control characters, surrogates, line and paragraph separators

Tier = Literal["head", "medium", "tail"]

TIER_THRESHOLDS = {"head": 5000, "tail": 1000}
"""Positive training images from which a finding is head, and below which it is tail."""


class LabelSpace(tuple):
    """Finding names in their fixed order: a tuple of C strings that also knows the findings' other names.

    It compares equal to the plain tuple of its names, so that it goes wherever a tuple of names goes.

    >>> space = LabelSpace(("Effusion", "Hernia"), aliases={"Pleural Effusion": "Effusion"})
    >>> space.index("pleural effusion"), len(space), space == ("Effusion", "Hernia")
    (0, 2, True)
    """

    aliases: Mapping[str, str]

    def __new__(cls, names: Iterable[str], aliases: Mapping[str, str] | None = None) -> "LabelSpace":
        names = tuple(names)
        if not names:
            raise ValueError("a label space needs at least one finding; got none")
        # A line break ends a table's row; half a character (a lone surrogate) can be written to no file.
        strange = [name for name in names if not name.strip() or any(category(sign) in CONTROL for sign in name)]
        if strange:
            raise ValueError(
                f"finding name {strange[0]!r} is empty or has a line break or control character: rename it"
            )
        repeated = sorted({name for name in names if names.count(name) > 1})
        if repeated:
            raise ValueError(f"finding names must be unique; repeated: {', '.join(repeated)}")
        unknown = sorted(set((aliases or {}).values()) - set(names))
        if unknown:
            raise ValueError(f"aliases point to names that are not in the label space: {', '.join(unknown)}")
        space = super().__new__(cls, names)
        space.aliases = dict(aliases or {})
        return space

    def __getnewargs__(self):
        return tuple(self), self.aliases

    def index(self, name: str) -> int:
        """Column of a finding, by name or alias; case, spaces, hyphens and underscores do not matter.

        Raises:
            ValueError: the name is unknown; the message gives the nearest known one.
        """
        columns = {_fold(known): column for column, known in enumerate(self)}
        columns |= {_fold(alias): super(LabelSpace, self).index(target) for alias, target in self.aliases.items()}
        if _fold(name) in columns:
            return columns[_fold(name)]
        nearest = difflib.get_close_matches(_fold(name), columns, n=1)
        hint = f"; did you mean {self[columns[nearest[0]]]}?" if nearest else f"; known: {', '.join(self)}"
        raise ValueError(f"unknown finding {name!r}{hint}")

    def id2label(self) -> dict[int, str]:
        """Column number to name, as a transformers config wants it."""
        return dict(enumerate(self))

    def tiers(
        self, positives: Sequence[int], *, head: int = TIER_THRESHOLDS["head"], tail: int = TIER_THRESHOLDS["tail"]
    ) -> dict[str, Tier]:
        """Head, medium and tail findings by their number of positive training images.

        Args:
            positives: C counts of positive training images.
            head: at least this many is head. 5,000 and 1,000 divide ChestX-ray14 into 3, 9 and 2 findings.
            tail: fewer than this many is tail.

        >>> LabelSpace(("Effusion", "Hernia")).tiers([8659, 141])
        {'Effusion': 'head', 'Hernia': 'tail'}
        """
        if len(positives) != len(self):
            raise ValueError(f"{len(positives)} counts for {len(self)} findings")
        return {
            name: "head" if count >= head else "tail" if count < tail else "medium"
            for name, count in zip(self, positives, strict=True)
        }


def _fold(name: str) -> str:
    return "".join(character for character in name.casefold() if character not in " -_")


NIH14 = LabelSpace(
    (
        "Atelectasis",
        "Cardiomegaly",
        "Effusion",
        "Infiltration",
        "Mass",
        "Nodule",
        "Pneumonia",
        "Pneumothorax",
        "Consolidation",
        "Edema",
        "Emphysema",
        "Fibrosis",
        "Pleural_Thickening",
        "Hernia",
    ),
    aliases={
        "Pleural Effusion": "Effusion",
        "Enlarged Heart": "Cardiomegaly",
        "Enlarged Cardiac Silhouette": "Cardiomegaly",
        "Hiatal Hernia": "Hernia",
        "Pulmonary Edema": "Edema",
        "Pulmonary Fibrosis": "Fibrosis",
    },
)
"""The 14 findings of ChestX-ray14 in the release's order (Wang et al., CVPR 2017)."""
