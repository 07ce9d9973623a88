"""Rows of text to labels: (N, C) float32 of 1 present, 0 absent, NaN unknown.

Whatever a table says, the rules are the description's: what -1 and empty cells become, what an unnamed finding means,
and how several readers' rows become one. Nothing unknown becomes negative unless the description says so.

Refuses: cells that are no label, names outside the vocabulary.

N = rows, M = images, C = findings, K = distinct cells.
"""

import ast
import json
import logging
import math
from collections.abc import Sequence

import numpy as np
import pandas as pd

from hf_cxr.data.description import TableDescription
from hf_cxr.data.table_files import refuse
from hf_cxr.labels import LabelSpace

logger = logging.getLogger(__name__)

POLICY = {"zero": 0.0, "one": 1.0, "ignore": math.nan, "unknown": math.nan}
CELLS = {"1": 1.0, "1.0": 1.0, "true": 1.0, "0": 0.0, "0.0": 0.0, "false": 0.0, "-1": -1.0, "-1.0": -1.0, "": math.inf}
# Within this module: -1 is uncertain, infinity an empty cell, NaN a column that the row's file has not got.


def labels_of(rows: pd.DataFrame, description: TableDescription) -> np.ndarray:
    """(N, C) float32 of 1, 0 and NaN by the description's policies.

    Raises:
        ValueError: a cell that is none of 1, 0, -1 and empty; in lists, a name that is no finding.
    """
    if description.label_format == "columns":
        return _from_columns(rows, description)
    return _from_lists(rows[description.label_column], description)


def merge_rows(label_NC: np.ndarray, image_N: np.ndarray, rule: str) -> np.ndarray:
    """Labels of several rows an image to one row an image, over those rows that know: (M, C).

    Args:
        label_NC: 1, 0, NaN.
        image_N: the number of each row's image, from 0 to M - 1.
        rule: any (one reader says 1), majority (more than half of those who said 1 or 0), all (each of them says 1).

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
        cell_N[cell_N == -1] = POLICY[description.uncertain_as(finding)]
        empty_N = np.isinf(cell_N)
        cell_N[empty_N] = np.where(nothing_N[empty_N], 0.0, POLICY[description.blank])
        label_NC[:, c] = cell_N
    contradicting = nothing_N & (label_NC == 1).any(axis=1)
    if contradicting.any():
        logger.warning(
            "%s: %d of %d rows with %r also name a finding, such as a device; both are kept",
            *(description.name, contradicting.sum(), nothing_N.sum(), description.no_finding),
        )
    return label_NC


def _cells(cells: pd.Series, description: TableDescription) -> np.ndarray:
    code_N, texts = pd.factorize(cells)
    values = np.array([*(CELLS.get(str(text).lower(), np.nan) for text in texts), np.nan])
    strange = [text for text, value in zip(texts, values, strict=False) if np.isnan(value)]
    refuse(
        cells[cells.isin(strange)] if strange else (),
        f"{description.name}: column {cells.name!r} holds what is no label",
        "write 1 for present, 0 for absent, -1 for uncertain, or nothing",
    )
    return values[code_N]


def _from_lists(cells: pd.Series, description: TableDescription) -> np.ndarray:
    code_N, distinct = pd.factorize(cells)
    names_K = [_names(cell, description) for cell in distinct]
    columns = columns_of_names({name for names in names_K for name in names}, description)
    strange = {name for name, column in columns.items() if column is None}
    if strange and description.other_labels == "error":
        wrong = [cell for cell, names in zip(distinct, names_K, strict=True) if strange & set(names)]
        refuse(
            [cell if isinstance(cell, str) else ", ".join(cell) for cell in cells[cells.isin(wrong)]],
            f"{description.name}: column {description.label_column!r} names what is no finding, "
            f"{', '.join(sorted(strange)[:3])}",
            "add it to findings, aliases or rename, or leave such names out with other_labels: ignore",
        )
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


def columns_of_names(names: set[str], description: TableDescription) -> dict[str, int | str | None]:
    """Each name's column; "" for those that mean nothing was found or nothing is known; None for the others."""
    space = description.label_space
    renamed = {name.casefold(): finding for name, finding in description.rename.items()}
    silent = {name.casefold() for name in (description.no_finding, *description.unknown_labels) if name}
    columns: dict[str, int | str | None] = {}
    for name in names:
        folded = name.casefold()
        columns[name] = "" if folded in silent else column_of(renamed.get(folded, name), space)
    return columns


def column_of(name: str, space: LabelSpace) -> int | None:
    """Column of a finding by name or alias; None if it is not there."""
    try:
        return space.index(name)
    except ValueError:
        return None


def _names(cell: str | Sequence[str], description: TableDescription) -> list[str]:
    if not isinstance(cell, str):
        return [name.strip() for name in cell if name.strip()]
    if description.label_format == "delimited":
        return [name.strip() for name in cell.split(description.label_delimiter) if name.strip()]
    if not cell:
        return []
    for parse in (ast.literal_eval, json.loads):
        try:
            names = parse(cell)
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            continue
        if isinstance(names, list | tuple) and all(isinstance(name, str) for name in names):
            return [name.strip() for name in names if name.strip()]
    raise ValueError(
        f"{description.name}: column {description.label_column!r} holds {cell[:80]!r}, which is no list of names such "
        "as ['Mass', 'Nodule']; for names joined by a character take label_format: delimited"
    )
