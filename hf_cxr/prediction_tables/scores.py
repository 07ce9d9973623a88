"""Columns of scores: which finding each is of, finite numbers, and whether they are probabilities or logits.

A column is of a finding if its name is the finding's, by alias or synonym; before it may stand "logit/",
"probability/" or "score/". Whether scores are probabilities is never guessed in silence: a file or the caller says so,
or they are all in [0, 1]; other scores are refused until they are called logits.

N = images, C = findings.
"""

import logging
import os
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.special import expit

from hf_cxr.data.findings import is_no_finding, matching_column
from hf_cxr.data.label_cells import is_placeholder
from hf_cxr.evaluation.checks import SCORE_KINDS, ScoreKind
from hf_cxr.labels import LabelSpace
from hf_cxr.prediction_tables.files import Columns, read_columns, shown
from hf_cxr.prediction_tables.labels import LabelTable, labels_of_columns
from hf_cxr.predictions import KEY, Predictions

logger = logging.getLogger(__name__)

PREFIXES = {"logit/": "logits", "probability/": "probabilities", "score/": None}
SATURATED = 20  # below, float64 tells the probabilities of different float32 logits apart
NOT_SCORES = ("label/", "meta/")
FORMAT_KEY, FORMAT = "hf_cxr.scores", 1  # of the Parquet schema's metadata, see docs/predictions.md


@dataclass(frozen=True, eq=False)
class ScoreTable:
    """A file of scores, whose columns are read when it is known which of them are findings.

    Attributes:
        name: what messages and reports call it.
        image_ids: N unique ids.
        columns: name of a finding, as the file spells it -> column.
        stated: what the file says that its scores are; None if it says nothing.
        file: its columns.
        predictions: if it is a file of this package, its content.
    """

    name: str
    image_ids: tuple[str, ...]
    columns: dict[str, str]
    stated: ScoreKind | None
    file: Columns | None = None
    predictions: Predictions | None = None

    @property
    def has_labels(self) -> bool:
        """Whether the labels are in the same file."""
        return self.predictions is not None or any(name.startswith("label/") for name in self.file.frame)

    def own_labels(self) -> LabelTable:
        """The labels of the same file.

        Raises:
            ValueError: it has none.
        """
        if self.predictions is not None:
            return LabelTable.of_predictions(self.name, self.predictions)
        if not self.has_labels:
            raise ValueError(
                f"{self.name} has scores and no labels: give --labels TABLE, or the data with --dataset; in one file, "
                "labels are columns named label/FINDING"
            )
        return labels_of_columns(self.file)

    def matching(self, findings: LabelSpace) -> dict[str, str]:
        """Finding -> the name under which this file has it; findings that it lacks are left out.

        Raises:
            ValueError: several columns are the same finding, or one is several.
        """
        names = LabelSpace(self.columns)
        for one in findings:
            same = [name for name in names if matching_column(one, LabelSpace((name,)), findings) is not None]
            if len(same) > 1:
                raise ValueError(f"{self.name}: the columns {' and '.join(map(repr, same))} are both {one}; keep one")
        found = {one: matching_column(one, names, findings) for one in findings}
        found = {one: names[column] for one, column in found.items() if column is not None}
        twice = [name for name in names if list(found.values()).count(name) > 1]
        if twice:
            raise ValueError(f"{self.name}: the column {twice[0]!r} matches several findings of the labels; rename it")
        return found

    def probabilities(
        self, findings: tuple[str, ...], kind: ScoreKind | None = None
    ) -> tuple[NDArray[np.float64], str]:
        """Probabilities (N, C) of some of the columns.

        Args:
            findings: names in ``columns``.
            kind: what the caller says that the scores are; the file's own statement must agree.

        Returns:
            The probabilities; and in words, what the scores were taken for.

        Raises:
            ValueError: cells that are not finite numbers; probabilities outside [0, 1]; scores of unknown kind.
        """
        if kind not in (None, *SCORE_KINDS):
            raise ValueError(f"the kind of scores is {kind!r}; choose probabilities or logits")
        if self.stated and kind and self.stated != kind:
            raise ValueError(
                f"{self.name} says that its scores are {self.stated}, but {kind} were given as their kind"
            )
        score_NC = self._numbers(findings)
        words = "as stated" if kind else "as the file says"
        outside_NC = (score_NC < 0) | (score_NC > 1)
        where = self._place(outside_NC, score_NC, findings)
        if kind is None and self.stated is None:
            if where:
                raise ValueError(
                    f"{where}, outside [0, 1], so the scores of {self.name} are not probabilities: if they are "
                    "logits, say so with --scores logits, or --against_scores logits for a second system"
                )
            return score_NC, "probabilities: all are in [0, 1]"
        if (kind or self.stated) == "logits":
            prob_NC, lost = _sigmoid(score_NC)
            if lost:
                words += f"; {lost:,} different ones are equal as probabilities, which are 1 in float64 from 37 on"
                logger.warning(
                    "%s: logits, %s: divided by a temperature they would keep their order", self.name, words
                )
            return prob_NC, f"logits, {words}"
        if where:
            raise ValueError(f"{where}, outside [0, 1], but the scores of {self.name} are declared probabilities")
        return score_NC, f"probabilities, {words}"

    def _numbers(self, findings: tuple[str, ...]) -> NDArray[np.float64]:
        """Scores (N, C), finite."""
        if self.predictions is not None:
            columns = [self.predictions.label_names.index(name) for name in findings]
            exact = self.predictions.exact_probabilities
            return (self.predictions.logits.astype(np.float64) if exact is None else exact)[:, columns]
        score_NC = np.stack([_column(self.file, self.columns[name]) for name in findings], axis=1)
        where = self._place(~np.isfinite(score_NC), score_NC, findings)
        if where:
            raise ValueError(f"{where}; every score must be a finite number: correct it, or leave out the image")
        return score_NC

    def _place(self, wrong_NC: NDArray[np.bool_], score_NC: NDArray[np.float64], findings: tuple[str, ...]) -> str:
        """Where the first wrong score is, and how many there are; "" if there is none."""
        if not wrong_NC.any():
            return ""
        row, column = np.argwhere(wrong_NC)[0]
        value = score_NC[row, column]
        what = "empty or NaN" if np.isnan(value) else f"{value:g}"
        more = f" (and {wrong_NC.sum() - 1:,} more)" if wrong_NC.sum() > 1 else ""
        return f"{self.name}: row {row + 1}, image {self.image_ids[row]}, column {findings[column]!r} is {what}{more}"


def _sigmoid(logit_NC: NDArray[np.float64]) -> tuple[NDArray[np.float64], int]:
    """Probabilities, and how many different logits of a finding become equal."""
    prob_NC = expit(logit_NC)
    if np.abs(logit_NC).max() < SATURATED:
        return prob_NC, 0
    pairs = zip(logit_NC.T, prob_NC.T, strict=True)
    return prob_NC, sum(len(np.unique(logit_N)) - len(np.unique(prob_N)) for logit_N, prob_N in pairs)


def read_scores(path: str | os.PathLike[str]) -> ScoreTable:
    """Read a file of scores: CSV or Parquet of any program, or what `Predictions.save` wrote.

    Raises:
        FileNotFoundError, ValueError: see `files.read_columns`; no column can be a score; a later format.
    """
    file = read_columns(path)
    if KEY.decode() in file.metadata:
        predictions = Predictions.load(path)
        return score_table(str(path), predictions)
    header = file.metadata.get(FORMAT_KEY, {})
    if not isinstance(header, dict) or header.get("format", FORMAT) > FORMAT:
        raise ValueError(f"{path} has another format of {FORMAT_KEY} than {FORMAT}; update hf-cxr")
    columns, stated = _columns_of(file)
    kinds = {*stated, header.get("scores")} - {None}
    if len(kinds) > 1 or kinds - {*SCORE_KINDS}:
        raise ValueError(f"{path} calls its scores {shown(sorted(map(str, kinds)))}; write probabilities or logits")
    return ScoreTable(str(path), file.image_ids, columns, kinds.pop() if kinds else None, file)


def score_table(name: str, predictions: Predictions) -> ScoreTable:
    """Predictions of this package as a table of scores."""
    stated: ScoreKind = "logits" if predictions.exact_probabilities is None else "probabilities"
    columns = {label: label for label in predictions.label_names}
    return ScoreTable(name, predictions.image_ids, columns, stated, predictions=predictions)


def _columns_of(file: Columns) -> tuple[dict[str, str], list[Any]]:
    """Name of a finding -> column, and what their prefixes say."""
    names = [name for name in file.rest() if not name.startswith(NOT_SCORES) and _has_numbers(file, name)]
    prefixed = {name: prefix for name in names for prefix in PREFIXES if name.startswith(prefix)}
    if "probability/" in prefixed.values() and "logit/" in prefixed.values():  # of one model: the exact ones
        names = [name for name in names if prefixed.get(name) != "logit/"]
        prefixed = {name: prefix for name, prefix in prefixed.items() if prefix != "logit/"}
    if prefixed:  # then the rest says what it is, too: it is something else
        names = list(prefixed)
    columns = {name.removeprefix(prefixed.get(name, "")): name for name in names}
    columns = {name: column for name, column in columns.items() if not is_no_finding(name)}
    if not columns:
        raise ValueError(
            f"{file.path} has no column of scores (columns: {shown(file.frame.columns)}); name a column after each "
            "finding"
        )
    return columns, [PREFIXES[prefix] for prefix in prefixed.values()]


def _has_numbers(file: Columns, name: str) -> bool:
    """Whether any cell of a column is a number; a name of a split or of a hospital is not a score."""
    cells = file.frame[name]
    if pd.api.types.is_numeric_dtype(cells.dtype):
        return True
    return any(_is_number(cell) for cell in cells if not is_placeholder(cell)) or cells.map(is_placeholder).all()


def _is_number(cell: Any) -> bool:
    try:
        float(cell)
    except (TypeError, ValueError):
        return False
    return True


def _column(file: Columns, name: str) -> NDArray[np.float64]:
    """A column as numbers, each the nearest float64 to its text; NaN where it is empty.

    Raises:
        ValueError: a cell that is not a number.
    """
    cells = file.frame[name]
    if pd.api.types.is_numeric_dtype(cells.dtype):
        return cells.to_numpy(dtype=np.float64, na_value=np.nan)
    values = np.empty(len(cells))
    for row, cell in enumerate(cells):
        try:
            values[row] = np.nan if is_placeholder(cell) else float(cell)
        except (TypeError, ValueError) as error:
            raise ValueError(
                f"{file.path}: row {row + 1}, image {file.image_ids[row]}, column {name!r} is {str(cell)[:40]!r}, "
                "which is not a number"
            ) from error
    return values
