"""A CSV file as text, by one rule: no column is shifted, and no cell is lost without a message.

Refused: rows that all have more cells than the header has names; pandas would cut them off with a warning alone.
"""

import warnings
from collections.abc import Iterable
from pathlib import Path

import pandas as pd


def read_header(path: Path, *, delimiter: str, encoding: str) -> list[str]:
    """The names of the columns, stripped, as they are written; pandas would rename the second of two alike.

    Raises:
        ValueError, OSError: whatever pandas refuses.
    """
    row = pd.read_csv(path, header=None, nrows=1, sep=delimiter, encoding=encoding, dtype=str, keep_default_na=False)
    return [str(name).strip() for name in row.iloc[0]]


def read_csv(path: Path, *, delimiter: str, encoding: str, skip_spaces: bool = False) -> pd.DataFrame:
    """All columns and rows, each cell as it is written; empty cells after the last column are left out.

    Args:
        skip_spaces: those after a delimiter, so that a quotation mark may follow them.

    Raises:
        ValueError, OSError: whatever pandas refuses, and rows that are longer than the header.
    """
    options = {"sep": delimiter, "encoding": encoding, "dtype": str, "keep_default_na": False}
    options["skipinitialspace"] = skip_spaces
    with warnings.catch_warnings():
        warnings.filterwarnings("error", "Length of header", pd.errors.ParserWarning)
        try:
            # All columns, because with usecols pandas does not notice a row that is too long. With index_col=False it
            # does not shift the columns where every row ends in a delimiter.
            return pd.read_csv(path, index_col=False, **options)
        except pd.errors.ParserWarning:
            pass
    # Every row has more cells than the header. Without index_col pandas takes the first ones for an index.
    shifted = pd.read_csv(path, **options)
    columns = list(shifted.columns)
    cells = pd.concat([shifted.index.to_frame(index=False), shifted.reset_index(drop=True)], axis=1)
    if not (cells.iloc[:, len(columns) :].fillna("") == "").all(axis=None):
        raise ValueError("its rows have more cells than its header has names")
    return cells.iloc[:, : len(columns)].set_axis(columns, axis=1)


def first_repeated(names: Iterable[str]) -> str | None:
    """The first name, in alphabetical order, that occurs twice; None if there is none. Empty names do not count."""
    names = [name.strip() for name in names]
    return min((name for name in names if name and names.count(name) > 1), default=None)
