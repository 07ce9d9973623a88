"""Rows of text to labels: (N, C) float32 of 1 present, 0 absent, NaN unknown.

Whatever a table says, the rules are the description's: what -1 and empty cells become, what an unnamed finding means,
and how several readers' rows become one. Nothing unknown becomes negative unless the description says so.

A placeholder (see `data.label_cells`) is an empty cell, alone and in a list: a list of nothing else follows
``blank``. A name that the description knows is a name, even if it is NA. Lists of numbers are label vectors if each
list of the column has one cell for each finding; all other numbers are refused, because a number names no finding.

Refuses: cells that are not labels, lists that cannot be read, names outside the vocabulary, numbers for names.

N = rows, M = images, C = findings, K = distinct cells.
"""

import ast
import json
import logging
import math
import re
import tokenize
from collections import Counter
from collections.abc import Sequence
from io import StringIO

import numpy as np
import pandas as pd

from hf_cxr.data.findings import column_of
from hf_cxr.data.label_cells import NOTHING, UNCERTAIN, is_placeholder, label_of
from hf_cxr.data.sources.table.description import TableDescription
from hf_cxr.data.sources.table.files import refuse
from hf_cxr.words import plural

logger = logging.getLogger(__name__)

POLICY = {"zero": 0.0, "one": 1.0, "ignore": math.nan, "unknown": math.nan}
# Within this module NaN is a column that the row's file has not got; see `data.label_cells` for the rest.

NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)(e[-+]?\d+)?|true|false", re.IGNORECASE)
GAP = re.compile(r"""['"]\s+['"]""")
SHOWN = 80  # characters of a cell in a message


def labels_of(rows: pd.DataFrame, description: TableDescription) -> np.ndarray:
    """(N, C) float32 of 1, 0 and NaN by the description's policies.

    Raises:
        ValueError: a cell that is none of 1, 0, -1 and empty; in lists, a name that is not a finding, or a number
            that is not part of a label vector.
    """
    if description.label_format == "columns":
        return _from_columns(rows, description)
    return _from_lists(rows[description.label_column], description)


def merge_rows(label_NC: np.ndarray, image_N: np.ndarray, rule: str) -> np.ndarray:
    """Labels of several rows an image to one row an image, over those rows that know: (M, C).

    Args:
        label_NC: 1, 0, NaN.
        image_N: the number of each row's image, from 0 to M - 1.
        rule: any (one reader says 1), majority (more than half of the readers with 1 or 0), all (each of them says 1).

    >>> merge_rows(np.array([[1, 0], [1, np.nan], [0, np.nan]]), np.array([0, 0, 0]), "majority")
    array([[1., 0.]], dtype=float32)
    """
    shape = (int(image_N.max()) + 1, label_NC.shape[1])
    positive_MC, known_MC = np.zeros(shape), np.zeros(shape)
    np.add.at(positive_MC, image_N, label_NC == 1)
    np.add.at(known_MC, image_N, ~np.isnan(label_NC))
    needed_MC = {"any": np.ones(shape), "majority": known_MC / 2 + 0.25, "all": np.maximum(known_MC, 1)}[rule]
    return np.where(known_MC > 0, positive_MC >= needed_MC, np.nan).astype(np.float32)


def _from_columns(rows: pd.DataFrame, description: TableDescription) -> np.ndarray:
    label_NC = np.full((len(rows), len(description.findings)), np.nan, dtype=np.float32)
    nothing_N = np.zeros(len(rows), dtype=bool)
    if description.no_finding:
        nothing_N = _cells(rows[description.no_finding], description) == 1
    for c, (finding, columns) in enumerate(description.findings.items()):
        present = [column for column in columns if column in rows]
        if not present:
            continue
        cells = rows[present[0]]
        for column in present[1:]:
            cells = cells.where(cells.notna(), rows[column])
        cell_N = _cells(cells, description)
        empty_N = np.isinf(cell_N)
        label_N = _by_policy(cell_N, finding, description)
        label_NC[:, c] = np.where(empty_N & nothing_N, 0.0, label_N)
    contradicting = nothing_N & (label_NC == 1).any(axis=1)
    if contradicting.any():
        logger.warning(
            "%s: %d of %d rows with %r also name a finding, such as a device; both are kept",
            *(description.name, contradicting.sum(), nothing_N.sum(), description.no_finding),
        )
    return label_NC


def _by_policy(cell_N: np.ndarray, finding: str, description: TableDescription) -> np.ndarray:
    """Labels of one finding: what -1 becomes, and what an empty cell does."""
    label_N = np.where(cell_N == UNCERTAIN, POLICY[description.uncertain_as(finding)], cell_N)
    return np.where(np.isinf(cell_N), POLICY[description.blank], label_N)


def _cells(cells: pd.Series, description: TableDescription) -> np.ndarray:
    code_N, texts = pd.factorize(cells)
    values = np.array([label_of(text) for text in texts] + [None], dtype=np.float64)  # None: not a label, or no cell
    strange = [text for text, value in zip(texts, values, strict=False) if np.isnan(value)]
    refuse(
        cells[cells.isin(strange)] if strange else (),
        f"{description.name}: column {cells.name!r} contains invalid labels",
        "write 1 for present, 0 for absent, -1 for uncertain, or nothing",
    )
    return values[code_N]


def _from_lists(cells: pd.Series, description: TableDescription) -> np.ndarray:
    code_N, distinct = pd.factorize(cells)
    column = f"{description.name}: column {description.label_column!r}"

    def rows_of(chosen_K: Sequence[bool]) -> list[str]:
        """What the rows with these cells say, for a message."""
        shown_K = np.array([_shown(cell) for cell in distinct], dtype=object)
        return list(shown_K[code_N[np.isin(code_N, np.flatnonzero(chosen_K))]])

    entries_K = [_entries(cell, description) for cell in distinct]
    refuse(
        rows_of([entries is None for entries in entries_K]),
        f"{column} has cells that are not lists of names such as ['Mass', 'Nodule']",
        "correct them; for names joined by a character take label_format: delimited",
    )
    columns = columns_of_names({entry for entries in entries_K for entry in entries}, description)
    numbers = {name for name, c in columns.items() if c is None and NUMBER.fullmatch(name)}
    if numbers:
        vectors_K = [_vector(entries, description) for entries in (*entries_K, [])]
        wrong_K = np.array([vector is None for vector in vectors_K[:-1]])
        numeric_K = np.array([bool(numbers & set(entries)) for entries in entries_K])
        refuse(
            rows_of(wrong_K & numeric_K) or (rows_of(numeric_K) if wrong_K.any() else ()),
            f"{column} contains numbers, which are not names of findings",
            "write the names; or, in every row, one cell (1, 0, -1 or null) for each of the "
            f"{len(description.findings)} findings in their order; or make class numbers a datasets ClassLabel, which "
            "has the names; a number that means that nothing was found is the value of no_finding",
        )
        cell_KC = np.array(vectors_K)
        label_CK = [_by_policy(cell_KC[:, c], finding, description) for c, finding in enumerate(description.findings)]
        return np.array(label_CK, dtype=np.float32).T[code_N]

    names_K = [[name for name in e if columns[name] is not None or not is_placeholder(name)] for e in entries_K]
    strange = {name for names in names_K for name in names if columns[name] is None}
    known = any(isinstance(c, int) for c in columns.values())
    if strange and description.other_labels == "error":
        refuse(
            rows_of([bool(strange & set(names)) for names in names_K]),
            f"{column} contains names that are not findings, {', '.join(sorted(strange)[:3])}",
            "add them to findings, aliases or rename, or leave such names out with other_labels: ignore"
            if known
            else "no name in the column is a finding: check label_column, and the names under findings",
        )
    _warn_of_ignored(strange, names_K, code_N, column, known=known)
    label_KC = np.zeros((len(distinct) + 1, len(description.findings)), dtype=np.float32)
    vague = {name.casefold() for name in description.unknown_labels}
    for k, names in enumerate(names_K):
        if not names:
            label_KC[k] = POLICY[description.blank]
        elif vague & {name.casefold() for name in names}:
            label_KC[k] = np.nan
        label_KC[k, [columns[name] for name in names if isinstance(columns[name], int)]] = 1
    label_KC[-1] = POLICY[description.blank]
    return label_KC[code_N]


def _warn_of_ignored(
    strange: set[str], names_K: list[list[str]], code_N: np.ndarray, column: str, *, known: bool
) -> None:
    if not strange:
        return
    counts: Counter[str] = Counter()
    rows = 0
    for names, count in zip(names_K, np.bincount(code_N[code_N >= 0], minlength=len(names_K)).tolist(), strict=True):
        ignored = strange & set(names)
        rows += count if ignored else 0
        counts.update(dict.fromkeys(ignored, count))
    most = ", ".join(f"{name} ({count:,})" for name, count in counts.most_common(5))
    logger.warning(
        "%s: other_labels: ignore leaves out %s of no finding, in %s of %s rows; most often %s%s",
        *(column, plural(len(strange), "name"), f"{rows:,}", f"{len(code_N):,}", most),
        "" if known else "; no name in the column is a finding, so no image has one: check label_column and findings",
    )


def columns_of_names(names: set[str], description: TableDescription) -> dict[str, int | str | None]:
    """Each name's column; "" for those that mean nothing was found or nothing is known; None for any other name."""
    space = description.label_space
    renamed = {name.casefold(): finding for name, finding in description.rename.items()}
    silent = {name.casefold() for name in (description.no_finding, *description.unknown_labels) if name}
    columns: dict[str, int | str | None] = {}
    for name in names:
        folded = name.casefold()
        columns[name] = "" if folded in silent else column_of(renamed.get(folded, name), space)
    return columns


def _vector(entries: list[str], description: TableDescription) -> list[float] | None:
    """The cells of a list that has one for each finding, all empty if it names nothing; None of any other list."""
    if all(is_placeholder(entry) for entry in entries):
        return [NOTHING] * len(description.findings)
    values = [label_of(entry) for entry in entries]
    return None if len(values) != len(description.findings) or None in values else values


def _entries(cell: str | Sequence[str], description: TableDescription) -> list[str] | None:
    """What a cell lists, as text, placeholders included; None if it is not such a list."""
    if not isinstance(cell, str):
        nested = any(entry.startswith(("[", "{")) for entry in cell)
        return None if nested else [entry.strip() for entry in cell]
    if description.label_format == "delimited":
        return [entry.strip() for entry in cell.split(description.label_delimiter)] if cell else []
    if is_placeholder(cell) or NUMBER.fullmatch(cell):
        return [cell]
    text = _separated(cell)
    # The last one for words such as nan that are not in quotes, as str() of pandas' values has them.
    for parse in (json.loads, ast.literal_eval, lambda text: ast.literal_eval(_quoted(text))):
        try:
            entries = parse(text)
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            continue
        if isinstance(entries, list | tuple) and all(
            entry is None or isinstance(entry, str | int | float) for entry in entries
        ):
            return [str(entry).strip() for entry in entries]
    return None


def _separated(cell: str) -> str:
    """The text of a list with commas between its entries: str() of a numpy array has none, and Python joins texts."""
    values = cell[1:-1].split() if cell.startswith("[") and cell.endswith("]") else []
    if len(values) > 1 and all(NUMBER.fullmatch(value) or is_placeholder(value) for value in values):
        return f"[{', '.join(values)}]"
    if not GAP.search(cell):
        return cell
    try:
        tokens = [token for token in tokenize.generate_tokens(StringIO(cell).readline) if token.string.strip()]
    except (tokenize.TokenError, SyntaxError):
        return cell
    pairs = zip([None, *tokens], tokens, strict=False)
    return "".join(
        (", " if before and before.type == token.type == tokenize.STRING else "") + token.string
        for before, token in pairs
    )


def _quoted(cell: str) -> str:
    """The text of a list with its bare placeholders in quotes."""
    if not (cell.startswith("[") and cell.endswith("]")):
        return cell
    entries = cell[1:-1].split(",")
    return f"[{', '.join(repr(entry.strip()) if is_placeholder(entry) else entry for entry in entries)}]"


def _shown(cell: str | Sequence[str]) -> str:
    text = cell if isinstance(cell, str) else ", ".join(cell)
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}..."
