"""Predictions of one split: the file between the model and everything that evaluates it.

After training, evaluation, calibration, comparison and the report read this file; none of them needs the model. It is
one Parquet file of one row an image, with the columns

| column                | type              | meaning                                                     |
|-----------------------|-------------------|-------------------------------------------------------------|
| image_id              | string            | unique                                                      |
| patient_id            | string            | the unit of the bootstrap                                   |
| study_id              | string            | null unknown; no such column where the split has none       |
| view, sex             | string            | null unknown; no such column where the split has none       |
| age                   | float32           | years, NaN unknown; no such column where the split has none |
| logit/<finding>       | float32           | finite                                                      |
| label/<finding>       | float32           | 1, 0, or NaN for unknown                                    |
| probability/<finding> | float64           | only where another program gave probabilities: exactly those |
| meta/<name>           | float64 or string | further columns of the images, for subsets; null unknown    |

and, under the key "hf_cxr.predictions" of the schema's metadata, a JSON object: format, label_names, split, metadata.

Refused: fields of different lengths, an image_id twice, a missing id, a logit that is not finite, a label other than
1, 0 or NaN, and a file that this module did not write. Scores that another program wrote are read by
`hf_cxr.prediction_tables`.

N = images, C = findings.
"""

import json
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from numbers import Real
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from scipy.special import expit, logit

from hf_cxr.files import replacing
from hf_cxr.labels import LabelSpace

KEY = b"hf_cxr.predictions"
FORMAT = 1


@dataclass(frozen=True, eq=False)
class Predictions:
    """Logits, labels and identities of one split's images; checked when built.

    Attributes:
        logits: (N, C) float32, finite.
        labels: (N, C) float32, 1, 0 or NaN for unknown.
        image_ids: N unique strings.
        patient_ids: N strings.
        label_names: C names, in the order of the columns.
        view: N of "PA", "AP", "LATERAL" or None; None as a whole if the split has no such column.
        age: (N,) float32 years, NaN unknown; or None.
        sex: N of "M", "F" or None; or None.
        split: "train", "validation", "test" or any other name.
        study_ids: N ids of examinations, None unknown; or None.
        metadata: whatever JSON can hold, such as the split's fingerprint and whether the logits are calibrated.
        extra: name -> N numbers or N strings, None unknown: further columns of the images, such as a scanner.
        exact_probabilities: (N, C) float64 as another program gave them, 0 and 1 included, of which the logits are
            the rounded form; None where the logits are what the model gave.

    Raises:
        ValueError: anything that the module's first lines refuse, with the row or the id.
    """

    logits: NDArray[np.float32]
    labels: NDArray[np.float32]
    image_ids: tuple[str, ...]
    patient_ids: tuple[str, ...]
    label_names: tuple[str, ...]
    view: tuple[str | None, ...] | None = None
    age: NDArray[np.float32] | None = None
    sex: tuple[str | None, ...] | None = None
    split: str = ""
    metadata: dict[str, Any] = field(default_factory=dict)
    extra: Mapping[str, tuple[float | str | None, ...]] = field(default_factory=dict)
    exact_probabilities: NDArray[np.float64] | None = None
    study_ids: tuple[str | None, ...] | None = None

    def __post_init__(self) -> None:
        exact = self.exact_probabilities
        values = {
            "logits": np.asarray(self.logits, dtype=np.float32),
            "labels": np.asarray(self.labels, dtype=np.float32),
            "image_ids": _ids(self.image_ids, "image_id"),
            "patient_ids": _ids(self.patient_ids, "patient_id"),
            "label_names": tuple(LabelSpace(self.label_names)),
            "study_ids": _strings_or_none(self.study_ids, "study_id"),
            "view": _strings_or_none(self.view, "view"),
            "age": None if self.age is None else np.asarray(self.age, dtype=np.float32),
            "sex": _strings_or_none(self.sex, "sex"),
            "metadata": _json_object(self.metadata),
            "extra": {str(name): _numbers_or_strings(column, str(name)) for name, column in self.extra.items()},
            "exact_probabilities": None if exact is None else np.asarray(exact, dtype=np.float64),
        }
        for name, value in values.items():
            object.__setattr__(self, name, value)
        self._check_lengths()
        self._check_values()

    def __len__(self) -> int:
        return len(self.image_ids)

    @property
    def probabilities(self) -> NDArray[np.float64]:
        """(N, C) float64: the exact ones, else the sigmoid of the logits; of a logit of -80 it is 1.8e-35, not 0."""
        if self.exact_probabilities is not None:
            return self.exact_probabilities
        return expit(self.logits.astype(np.float64))

    @classmethod
    def of_probabilities(cls, prob_NC: NDArray[np.float64], **fields: Any) -> "Predictions":
        """From probabilities of another program, which `probabilities` then gives back to the bit.

        Args:
            prob_NC: in [0, 1].
            fields: all others but ``logits``.
        """
        prob_NC = np.asarray(prob_NC, dtype=np.float64)
        return cls(logits=finite_logits(prob_NC), exact_probabilities=prob_NC, **fields)

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the Parquet file; its folder is made if need be.

        The file is written under another name and then renamed, so that ``path`` is at all times the old file, the
        whole new one, or absent.
        """
        with replacing(path) as beside:
            pq.write_table(self._table(), beside)
        return Path(path)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> "Predictions":
        """Read what `save` wrote, equal to the bit.

        Raises:
            FileNotFoundError: the file does not exist.
            ValueError: not a Parquet file, not one of predictions, or one of a later format.
        """
        if not Path(path).is_file():
            raise FileNotFoundError(f"no predictions file {path}")
        try:
            with pq.ParquetFile(path) as file:
                table = file.read()
        except (pa.ArrowInvalid, OSError) as error:
            raise ValueError(f"{path} is not a readable Parquet file: {error}") from error
        header = _header(table, path)
        names = header["label_names"]
        columns = {"image_id", "patient_id", *(f"{kind}/{name}" for kind in ("logit", "label") for name in names)}
        missing = sorted(columns - set(table.column_names))
        if missing:
            raise ValueError(f"{path} has no columns {', '.join(missing)}")
        has = set(table.column_names)
        return cls(
            logits=_matrix(table, "logit", names),
            labels=_matrix(table, "label", names),
            image_ids=table["image_id"].to_pylist(),
            patient_ids=table["patient_id"].to_pylist(),
            label_names=names,
            study_ids=table["study_id"].to_pylist() if "study_id" in has else None,
            view=table["view"].to_pylist() if "view" in has else None,
            age=table["age"].to_numpy() if "age" in has else None,
            sex=table["sex"].to_pylist() if "sex" in has else None,
            split=header["split"],
            metadata=header["metadata"],
            extra={
                name.removeprefix("meta/"): table[name].to_pylist()
                for name in table.column_names
                if name.startswith("meta/")
            },
            exact_probabilities=_matrix(table, "probability", names) if f"probability/{names[0]}" in has else None,
        )

    def _table(self) -> pa.Table:
        columns = {"image_id": pa.array(self.image_ids, pa.string())}
        columns["patient_id"] = pa.array(self.patient_ids, pa.string())
        if self.study_ids is not None:
            columns["study_id"] = pa.array(self.study_ids, pa.string())
        if self.view is not None:
            columns["view"] = pa.array(self.view, pa.string())
        if self.age is not None:
            columns["age"] = pa.array(self.age, pa.float32())
        if self.sex is not None:
            columns["sex"] = pa.array(self.sex, pa.string())
        for name, values in self.extra.items():
            columns[f"meta/{name}"] = pa.array(values, pa.string() if _is_text(values) else pa.float64())
        matrices = {"logit": self.logits, "label": self.labels, "probability": self.exact_probabilities}
        for kind, value_NC in matrices.items():
            for name, value_N in zip(self.label_names, () if value_NC is None else value_NC.T, strict=False):
                columns[f"{kind}/{name}"] = pa.array(np.ascontiguousarray(value_N))
        header = {
            "format": FORMAT,
            "label_names": self.label_names,
            "split": self.split,
            "metadata": self.metadata,
        }
        return pa.table(columns).replace_schema_metadata({KEY: json.dumps(header)})

    def _check_lengths(self) -> None:
        shape = (len(self.image_ids), len(self.label_names))
        for name in ("logits", "labels", "exact_probabilities"):
            if getattr(self, name) is not None and getattr(self, name).shape != shape:
                raise ValueError(
                    f"{name} have shape {getattr(self, name).shape}; "
                    f"expected {shape} for {shape[0]} image ids and {shape[1]} findings"
                )
        named = {name: getattr(self, name) for name in ("patient_ids", "study_ids", "view", "age", "sex")}
        for name, value in (named | {f"extra {name}": column for name, column in self.extra.items()}).items():
            if value is not None and np.shape(value) != (shape[0],):
                raise ValueError(f"{name} has shape {np.shape(value)} for {shape[0]} image ids")

    def _check_values(self) -> None:
        twice = [image_id for image_id, count in Counter(self.image_ids).items() if count > 1]
        if twice:
            raise ValueError(f"{len(twice)} image ids appear more than once, such as {', '.join(twice[:3])}")
        known_NC = ~np.isnan(self.labels)
        wrong_label_NC = known_NC & (self.labels != 0) & (self.labels != 1)
        for name, wrong_NC, expected in (
            ("logits", ~np.isfinite(self.logits), "a finite number"),
            ("labels", wrong_label_NC, "0, 1 or NaN"),
        ):
            if wrong_NC.any():
                row, column = np.argwhere(wrong_NC)[0]
                raise ValueError(
                    f"{name}: {getattr(self, name)[row, column]} for {self.label_names[column]} of image "
                    f"{self.image_ids[row]} (row {row}); expected {expected}"
                )
        exact_NC = self.exact_probabilities
        if exact_NC is not None and not np.array_equal(finite_logits(exact_NC), self.logits):
            raise ValueError(
                "exact_probabilities are not those of the logits; with other logits, give exact_probabilities=None"
            )


def finite_logits(prob_NC: NDArray[np.float64]) -> NDArray[np.float32]:
    """Log odds as float32; those of 0 and 1 are -744.4 and 36.7, which are beyond those of all other probabilities.

    Raises:
        ValueError: a probability outside [0, 1], or NaN.
    """
    wrong = ~((prob_NC >= 0) & (prob_NC <= 1))
    if wrong.any():
        raise ValueError(f"{prob_NC[wrong][0]:g} is not a probability: expected a number in [0, 1]")
    return logit(np.clip(prob_NC, np.nextafter(0, 1), np.nextafter(1, 0))).astype(np.float32)


def _ids(values: Sequence[str], name: str) -> tuple[str, ...]:
    values = tuple(values)
    if set(map(type, values)) <= {str} and "" not in values:  # the usual case, quickly
        return values
    for row, value in enumerate(values):
        if not isinstance(value, str) or not value:
            raise ValueError(f"{name} at row {row} is {value!r}; expected a string that is not empty")
    return tuple(str(value) for value in values)


def _strings_or_none(values: Sequence[str | None] | None, name: str) -> tuple[str | None, ...] | None:
    if values is None:
        return None
    values = tuple(values)
    if set(map(type, values)) <= {str, type(None)}:  # the usual case, quickly
        return values
    for row, value in enumerate(values):
        if value is not None and not isinstance(value, str):
            raise ValueError(f"{name} at row {row} is {value!r}; expected a string, or None for unknown")
    return tuple(None if value is None else str(value) for value in values)


def _numbers_or_strings(values: Sequence[float | str | None], name: str) -> tuple[float | str | None, ...]:
    """All numbers or all strings; None, and NaN, for unknown."""
    values = tuple(None if value is None or value != value else value for value in values)
    known = [value for value in values if value is not None]
    if all(isinstance(value, Real) and not isinstance(value, bool) for value in known):
        return tuple(None if value is None else float(value) for value in values)
    if not all(isinstance(value, str) for value in known):
        raise ValueError(f"extra {name} must contain numbers or strings, not both, and None for unknown")
    return tuple(None if value is None else str(value) for value in values)


def _is_text(values: Sequence[float | str | None]) -> bool:
    return any(isinstance(value, str) for value in values)


def _json_object(metadata: dict[str, Any]) -> dict[str, Any]:
    """As JSON will give it back: tuples become lists now rather than after a reload."""
    try:
        return json.loads(json.dumps(dict(metadata), allow_nan=False))
    except (TypeError, ValueError) as error:
        raise ValueError(f"metadata must be what JSON can hold: {error}") from error


def _header(table: pa.Table, path: str | os.PathLike[str]) -> dict[str, Any]:
    metadata = table.schema.metadata or {}
    if KEY not in metadata:
        raise ValueError(
            f"{path} is a Parquet file, but not one of predictions: its schema has no {KEY.decode()!r} entry. "
            "Predictions.save writes such files"
        )
    header = json.loads(metadata[KEY])
    if header["format"] > FORMAT:
        raise ValueError(f"{path} has format {header['format']}; this version reads up to {FORMAT}: update hf-cxr")
    return header


def _matrix(table: pa.Table, kind: str, names: Sequence[str]) -> NDArray[np.float32]:
    return np.stack([table[f"{kind}/{name}"].to_numpy() for name in names], axis=1)
