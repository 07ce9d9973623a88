"""One rule for ages, as tables and DICOM write them, to years.

| written              | years                                                                             |
|----------------------|-----------------------------------------------------------------------------------|
| 58, 58.0, 058Y, 58 y | 58                                                                                |
| 006M, 003W, 010D     | 6/12, 21/365.25, 10/365.25                                                        |
| 90+, >89, >=90       | 90, the least that it can be, with a warning: hospitals publish high ages like this |
| empty                | unknown                                                                           |
| below 0, above 120   | unknown, with a warning                                                           |
| NA, unknown, adult   | refused, with the number of rows                                                  |

N = rows.
"""

import logging
import re

import numpy as np
import pandas as pd

from hf_cxr.words import plural

logger = logging.getLogger(__name__)

OLDEST = 120  # years; above it, an age is taken as unknown: the original NIH table has ages such as 411
YEARS = {"": 1.0, "y": 1.0, "m": 1 / 12, "w": 7 / 365.25, "d": 1 / 365.25}
AGE = re.compile(r"(>=|≥|>)?\s*([+-]?(?:\d+\.?\d*|\.\d+)(?:e[+-]?\d+)?)\s*([ymwd]?)\s*(\+?)", re.ASCII)


def years(text_N: pd.Series, where: str) -> np.ndarray:
    """Ages in years, (N,) float32; NaN where the age is unknown.

    Args:
        text_N: cells as text, "" if empty.
        where: file and column, for warnings and the error.

    Raises:
        ValueError: cells that are not ages; it says how many and which.

    >>> years(pd.Series(["058Y", "006M", "", "90+"]), "ages").tolist()
    [58.0, 0.5, nan, 90.0]
    """
    code_N, texts = pd.factorize(text_N)
    matches = [AGE.fullmatch(text.strip().lower()) for text in texts]
    strange = [text for text, match in zip(texts, matches, strict=True) if match is None and text.strip()]
    if strange:
        rows = text_N[text_N.isin(strange)]
        shown = ", ".join(map(repr, strange[:3]))
        raise ValueError(
            f"{where} is not an age ({plural(len(rows), 'row')}, such as {shown}): write years, such as 58, or 058Y, "
            "006M, 003W, 010D; or leave the cell empty where the age is unknown"
        )
    age_N = np.array([np.nan if match is None else _years(match) for match in matches] + [np.nan])[code_N]
    open_ended = {text for text, match in zip(texts, matches, strict=True) if match and (match[1] or match[4])}
    if open_ended:
        logger.warning(
            "%s: %s without an upper limit, such as %s, read as the lowest possible age",
            *(where, plural(int(text_N.isin(open_ended).sum()), "age"), min(open_ended)),
        )
    return plausible(age_N, where)


def plausible(age_N: np.ndarray, where: str) -> np.ndarray:
    """Years as float32, NaN for those below 0 or above `OLDEST`, with a warning that counts them."""
    strange_N = (age_N > OLDEST) | (age_N < 0)
    if strange_N.any():
        logger.warning(
            "%s: %s below 0 or above %d years taken as unknown, such as %g",
            *(where, plural(strange_N.sum(), "age"), OLDEST, age_N[strange_N][0]),
        )
    return np.where(strange_N, np.nan, age_N).astype(np.float32)


def _years(match: re.Match) -> float:
    number = float(match[2]) * YEARS[match[3]]
    return np.floor(number) + 1 if match[1] == ">" else number
