"""One rule for ids: of patients, of images, of the keys that files are joined by, of the templates of image paths.

The same id is often spelled in several ways. A CSV that pandas or a spreadsheet has saved again writes 1003 as 1003.0
as soon as the column has an empty cell; a column of Parquet or JSON may hold numbers; text comes with spaces,
invisible marks, and accents in one character or two. Every reader brings ids to one spelling:

| spelled                                       | id                                                |
|-----------------------------------------------|---------------------------------------------------|
| 1003, 1003.0, 1003.00, +1003, 1.003e+03       | 1003: a whole number is one id                    |
| 20 digits, a Parquet integer                  | all of its digits                                 |
| 1.23457E+11, a float of 2**53 or more         | refused: digits are lost                          |
| spaces around, non-breaking, zero width       | without them; a non-breaking one inside: a space  |
| e and an accent, in one character or two      | one character (Unicode NFC)                       |
| nan, None, null, <NA>, NA, empty              | no id                                             |
| 00001003, p3, P3, 1.5, 1.2.840.10008, 1.0.png | as it is                                          |

Leading zeros and capital letters are part of an id: 00001003 and 1003 may be two patients. But one patient spelled in
two ways is more likely, so ids of two splits that differ in nothing else are reported (`similar_ids`).

Codes (the cells that name a split, a view or a sex) follow the same rule, except that "nan" and the like are codes,
true is 1 and false is 0.
"""

import math
import re
import unicodedata
from collections.abc import Iterable, Mapping
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from hf_cxr.words import plural

NIH_ID = r"\d{8}_\d{3}"  # of an image of ChestX-ray14, without .png: patient and follow-up number
NO_ID = frozenset(("", "nan", "nat", "none", "null", "na", "<na>", "n/a", "#n/a"))  # in lower case

_UNSEEN = dict.fromkeys(map(ord, "\u00ad\u200b\u200c\u200d\u200e\u200f\u2060\ufeff"))  # of no width: left out
_SPACES = dict.fromkeys(map(ord, "\u00a0\u1680\u2007\u202f\u205f\u3000"), " ") | dict.fromkeys(
    range(0x2000, 0x200B), " "
)
_INTEGER = re.compile(r"([+-]?)([0-9]+)(?:\.0*|,0)?")  # 1003,0 where the decimal mark is a comma
# With a point or a sign, as pandas, NumPy and spreadsheets write it: 12e4567 may well be a hexadecimal id.
_EXPONENT = re.compile(r"([+-]?)([1-9])(?:\.([0-9]+)[eE]\+?|[eE]\+)([0-9]{1,2})")
_SEPARATORS = dict.fromkeys(map(ord, " _\u2010\u2011\u2012\u2013\u2014\u2212"), "-")
_THOUSANDS = re.compile(r"[0-9]{1,3}(?:,[0-9]{3})+(?:\.0+)?")
# What the rules leave as it is: digits alone; or ASCII, with nothing around it, that does not begin or does not end as
# a number does.
_CANONICAL = r"^(?:[0-9]+|[!-*,./:-~](?:[ -~]*[!-~])?|[!-~][ -~]*[!-\-/:-~])$"
_LEADING_ZEROS = re.compile(r"^0+(?=.)|(?<![0-9.])0+(?=[0-9])")


def canonical_id(value: Any) -> str:
    """The one spelling of an id; "" for none.

    Args:
        value: text, or a number as Parquet or JSON holds it.

    Raises:
        ValueError: a number that has lost digits, such as 1.23457E+11.

    >>> [canonical_id(value) for value in (1003, 1003.0, " 1003.00 ", "00001003", "1.0.png", None)]
    ['1003', '1003', '1003', '00001003', '1.0.png', '']
    """
    text = whole_number(_plain(value))
    return "" if len(text) <= 4 and text.lower() in NO_ID else text


def are_canonical(text_N: pa.Array | pa.ChunkedArray) -> bool:
    """Whether `canonical_id` leaves all of a column of text as it is; False only means that some may change.

    >>> [are_canonical(pa.array(ids)) for ids in (["00001003", "p3_1.png"], ["1003", "1003.0"], ["a", None], ["NA"])]
    [True, False, False, False]
    """
    if text_N.null_count or not pc.all(pc.match_substring_regex(text_N, _CANONICAL)).as_py():
        return len(text_N) == 0
    short = text_N.filter(pc.less_equal(pc.binary_length(text_N), max(map(len, NO_ID))))
    return not pc.any(pc.is_in(pc.ascii_lower(short), pa.array(sorted(NO_ID), short.type))).as_py()


def canonical_ids(cells: pd.Series, where: str) -> pd.Series:
    """A column of ids in their one spelling; a cell that holds a list stays as it is.

    Args:
        cells: text or numbers.
        where: file and column, for the error.

    Raises:
        ValueError: numbers that have lost digits; it says where, how many and which.
    """
    if isinstance(cells.dtype, pd.StringDtype) and are_canonical(pa.array(cells, pa.string(), from_pandas=True)):
        return cells.astype(str)
    return _each(cells, canonical_id, where)


def whole_numbers(cells: pd.Series, where: str) -> pd.Series:
    """As `canonical_ids`, but text other than a whole number, such as a path, does not change."""
    return _each(cells, whole_number, where)


def canonical_code(value: Any) -> str:
    """The one spelling of a code, such as a cell that names a split.

    >>> [canonical_code(value) for value in (0, "0.0", True, "False", " Train ")]
    ['0', '0', '1', '0', 'Train']
    """
    text = whole_number(_plain(value))
    return {"true": "1", "false": "0"}.get(text.lower(), text)


def canonical_codes(cells: pd.Series, where: str) -> pd.Series:
    """A column of codes in their one spelling."""
    return _each(cells, canonical_code, where)


def code_values(values: Mapping[str, Any], key: str) -> dict[str, Any]:
    """A description's map of codes, by their one spelling.

    Args:
        values: code -> what it means.
        key: of the description, for the error.

    Raises:
        ValueError: two spellings of one code mean different things.
    """
    found: dict[str, Any] = {}
    for value, target in values.items():
        code = canonical_code(value)
        if found.setdefault(code, target) != target:
            raise ValueError(
                f"{key} has {value!r} twice, spelled differently and with different values; keep one of them"
            )
    return found


def whole_number(text: str) -> str:
    """A whole number without decimal places, plus sign or exponent; any other text as it is.

    Raises:
        ValueError: digits are lost.
    """
    if not text or text.isdigit() or text[0] not in "+-0123456789" or text[-1] not in ".0123456789":
        return text
    if match := _INTEGER.fullmatch(text):
        sign, digits = match.groups()
        return digits if sign != "-" or not digits.strip("0") else sign + digits
    if match := _EXPONENT.fullmatch(text):
        sign, first, rest, power = match.groups()
        rest, power = rest or "", int(power)
        if rest[power:].strip("0"):
            return text  # not a whole number
        digits = first + rest[:power]
        if len(rest) < power or int(digits) >= 2**53:
            raise ValueError(f"{text} has lost digits")
        return digits if sign != "-" else sign + digits
    return text


def float_text(value: float, kind: np.dtype | type = float) -> str:
    """A floating-point number as text: without ".0", and in six digits with an exponent where the type holds no more.

    >>> float_text(1003.0), float_text(0.5), float_text(2.0**60)
    ('1003', '0.5', '1.15292e+18')
    """
    if not value.is_integer():
        return str(value)
    exact = 2 ** (np.finfo(kind).nmant + 1)
    return str(int(value)) if abs(value) < exact else f"{value:.5e}"


def likeness(identifier: str) -> str:
    """What ids have in common that differ only in leading zeros, capital letters, quotes, or ".0" at the end.

    Nor does it matter which of space, underscore and the many hyphens separates their parts, whether thousands have
    commas, or whether characters are of full width.

    >>> likeness("P0012") == likeness("p12"), likeness("1.05") == likeness("1.5")
    (True, False)
    """
    if not identifier.isascii():
        identifier = unicodedata.normalize("NFKC", identifier)
    text = identifier.casefold().strip("'\"=` ").translate(_SEPARATORS)
    if _THOUSANDS.fullmatch(text):
        text = text.replace(",", "")
    if text.endswith("0") and "." in text:
        text = re.sub(r"(?<=[0-9])\.0+$", "", text)
    return _LEADING_ZEROS.sub("", text) if "0" in text else text


def similar_pairs(first: Iterable[str], second: Iterable[str]) -> list[tuple[str, str]]:
    """Pairs of different ids, one of each side, with the same `likeness`; in the first's order, one pair an id."""
    by_likeness = {likeness(identifier): identifier for identifier in second}
    pairs = ((identifier, by_likeness.get(likeness(identifier))) for identifier in dict.fromkeys(first))
    return [(one, other) for one, other in pairs if other is not None and one != other]


def similar_ids(values: Mapping[str, Iterable[str]], noun: str, *, examples: int = 3) -> list[str]:
    """A sentence for every two splits with ids that differ only in their spelling.

    Args:
        values: split -> its ids, in their one spelling.
        noun: what they are of: "patient".
        examples: how many pairs each sentence shows.

    Returns:
        Such as "train and test: 10 patient ids differ only in leading zeros, capital letters or the like, such as
        1003 and 00001003".
    """
    values = {name: list(found) for name, found in values.items()}
    if _have_one_template([identifier for found in values.values() for identifier in found]):
        return []
    kin = {name: {likeness(identifier): identifier for identifier in set(found)} for name, found in values.items()}
    sentences = []
    for first, second in combinations(kin, 2):
        shared = kin[first].keys() & kin[second].keys()
        pairs = sorted((kin[first][key], kin[second][key]) for key in shared if kin[first][key] != kin[second][key])
        if pairs:
            shown = ", ".join(f"{one} and {other}" for one, other in pairs[:examples])
            count = plural(len(pairs), f"{noun} id differs", f"{noun} ids differ")
            sentences.append(
                f"{first} and {second}: {count} only in leading zeros, capital letters or the like"
                + (f", such as {shown}" if shown else "")
            )
    return sentences


def _have_one_template(ids: list[str]) -> bool:
    """Whether all ids are the same ASCII text but for their digits: then different ones also differ in `likeness`.

    The digits stand in groups of the same places and widths, of which `likeness` takes no more than leading zeros, or
    a last group of zeros.
    """
    if not ids or not ids[0].isascii():
        return False
    template = "".join("[0-9]" if character.isdigit() else re.escape(character) for character in ids[0])
    return pc.all(pc.match_substring_regex(pa.array(ids, pa.string()), f"^{template}$")).as_py()


def _plain(value: Any) -> str:
    """A cell as text, without invisible characters."""
    text = value if type(value) is str else _text(value)
    if not text.isascii():
        text = unicodedata.normalize("NFC", text.translate(_UNSEEN).translate(_SPACES))
    return text.strip()


def _text(value: Any) -> str:
    if value is None or value is pd.NA or (isinstance(value, float | np.floating) and math.isnan(value)):
        return ""
    return float_text(float(value), np.asarray(value).dtype) if isinstance(value, float | np.floating) else str(value)


def _each(cells: pd.Series, rule, where: str) -> pd.Series:
    if cells.dtype == object and cells.map(lambda cell: isinstance(cell, tuple | list)).any():
        return cells
    code_N, distinct = pd.factorize(cells)
    if isinstance(cells.dtype, pd.StringDtype):
        distinct = distinct.to_numpy(dtype=object)  # its own iteration takes ten times as long
    texts, lost = [], []
    for value in distinct:
        try:
            texts.append(rule(value))
        except ValueError:
            texts.append("")
            lost.append(value)
    if lost:
        shown = ", ".join(repr(str(value)) for value in lost[:3])
        raise ValueError(
            f"{where} contains rounded numbers ({plural(int(cells.isin(lost).sum()), 'row')}, such as {shown}): "
            "digits are lost, and different ids may look the same; export the ids again, as text or whole numbers"
        )
    return pd.Series(np.array([*texts, ""], dtype=object)[code_N], index=cells.index, name=cells.name, dtype=str)
