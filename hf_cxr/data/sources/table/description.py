"""What a labelled table looks like: the small YAML file by which `reader.py` reads it.

| key                 | meaning                                                                                       |
|---------------------|-----------------------------------------------------------------------------------------------|
| name, source        | what the report calls the data; paper, licence, address                                       |
| files               | train / validation / test / all -> a file or several: CSV, TSV, Parquet, JSON, JSON lines;    |
|                     | test alone: data on which models are measured, and none is trained                            |
| hub                 | instead of files: Hub id, or `save_to_disk` folder below the root; hub_config; hub_revision:  |
|                     | branch, tag or commit (`--table_revision` overrides it; `hub.py` makes a commit of it)        |
| notes               | sentences that whoever reads a figure of these data must know; logged, and in every report    |
| synthetic           | true: a program drew the images, and no patient is behind them; every report and card says so |
| encoding, delimiter | of text files; UTF-8 and by suffix unless given                                               |
| join                | further files: {file, by: [key columns], columns: [taken over], unmatched: error or drop}     |
| keep                | column -> values: other rows are left out                                                     |
| split_column        | with split_values (value -> train, validation, test, or null to leave the row out)            |
| validation_rows     | column -> values: training rows with one of them are validation, such as one fold of several  |
| validation_fraction | share of all training images, cut by patient, where no file or value says validation          |
| test_fraction       | the same for test; split_seed: of both cuts                                                   |
| ignore_splits       | true: the data's own splits are not used; validation_fraction and test_fraction cut all rows  |
| splits_from         | where the splits are from, in the report's words; by default "the table's own, ..."           |
| image_column        | path of the image below image_root; with hub, or in Parquet: the image itself, as bytes       |
| image_path          | or a template: "files/p{subject_id:.2}/s{study_id}/{dicom_id}.jpg"; also {split}, {folder}    |
| image_folders       | or folders (wildcards allowed) in one of which a file of that base name lies                  |
| image_strip         | regular expression: what is taken off each path's start, as the release's or a machine's own  |
|                     | folder; backslashes are slashes; what is left lies below image_root, without ".." or drive    |
| studies             | {column, images: "view*.jpg"}: a file with this column and no image_column has a row a study; |
|                     | its images are those files in the folder that the column names; what it lacks is unknown      |
| image_id            | column of the id, any text; by default the path below image_root, after image_strip           |
| label_format        | columns: one a finding; list: a list (also as Python or JSON text); delimited: "Mass, Nodule" |
| label_column        | of list and delimited; label_delimiter. Lists hold names; or each row's has exactly one cell  |
|                     | (1, 0, -1, null) for each finding, in their order. Other numbers are refused; class numbers   |
|                     | are read as names where the column is a datasets ClassLabel (-1: unknown)                     |
| findings            | names in order, or name -> its column, or columns of which a file has one; none ([]): images  |
|                     | without labels, to pre-train on (`hf-cxr pretrain`), which may be without splits too          |
| aliases             | other name -> finding: the same thing, in tables and in `map_labels`                          |
| rename              | name in the table -> finding: read as it, but not the same thing (a part, a subtype)          |
| no_finding          | the column, or in lists the name, that says that nothing was found                            |
| unknown_labels      | in lists: a row with one of these says nothing about findings that it does not name           |
| other_labels        | in lists: error or ignore names that are not findings                                        |
| absent_findings     | error or unknown: findings that a file has no column for                                      |
| merge               | several rows an image (readers): any, majority (of those with 1 or 0), all; null refuses      |
| uncertain           | what -1 becomes: zero, one, ignore (unknown); or finding -> one of these, with default        |
| blank               | what an empty cell becomes: zero or unknown. nan, none, null, n/a, na, - are empty, and are   |
|                     | dropped from lists, unless a finding has that name; a list that names nothing is empty        |
| patient_column      | whole cell, or its one group of patient_pattern; image_is_patient: true if there is no id     |
| study_column        | the examination: whole cell, or its one group of study_pattern; several columns are joined    |
|                     | by "/"; a study has one patient. Left out: studies are unknown                                |
| view_column         | with view_values: value -> PA, AP, LATERAL or null; "*" is any other value. Several columns   |
|                     | are read as one, a space between their cells: [Frontal/Lateral, AP/PA] has "Frontal AP"       |
| age_column          | years; or birth_column and study_date_column, whose first four digits are years               |
| boxes               | {file, by, finding, corners: [left, top, right, bottom columns]}: a row a box, in pixels; or  |
|                     | {column} beside a list label_column; size: [width, height columns], else of the image's file; |
|                     | or {fractions: column} of data that hold their images: lists as in `schema`                   |
| sex_column          | with sex_values: value -> M, F or null; "*" is any other value                                |

Refuses: unknown keys (naming the nearest), values outside these tables, contradictions. Nothing is read here but the
description itself.
"""

import codecs
import dataclasses
import difflib
import os
import re
import string
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from hf_cxr.labels import LabelSpace

READY = Path(__file__).parent / "descriptions"
SPLITS = ("train", "validation", "test")
UNLABELLED = "not labelled"  # the one finding, unknown everywhere, of a table without findings
OWN_FIELDS = ("split", "folder")  # of the template, beside the table's columns
CHOICES = {
    "label_format": ("columns", "list", "delimited"),
    "other_labels": ("error", "ignore"),
    "absent_findings": ("error", "unknown"),
    "merge": (None, "any", "majority", "all"),
    "blank": ("zero", "unknown"),
}
UNCERTAIN = ("zero", "one", "ignore")
KINDS = {  # by the beginning of a field's type
    "str": (lambda value: value is None or isinstance(value, str), "text"),
    "bool": (lambda value: isinstance(value, bool), "true or false"),
    "int": (lambda value: isinstance(value, int) and not isinstance(value, bool), "a whole number"),
    "Mapping[str, str": (
        lambda value: isinstance(value, Mapping) and all(isinstance(to, str | None) for to in value.values()),
        "value: other value, one or more",
    ),
    "tuple[Mapping": (
        lambda value: isinstance(value, list | tuple) and all(isinstance(entry, Mapping) for entry in value),
        "a list of {file, by, columns}",
    ),
}
SEVERAL_COLUMNS = ("view_column", "study_column")  # one column or several, whose cells are read as one
NIH_PATIENT = r"^(\d{8})_"  # of 00000001_000.png
JOIN_KEYS = ("file", "by", "columns", "unmatched")  # "by", because YAML reads "on" as true


@dataclass(frozen=True)
class TableDescription:
    """A labelled table, described: the keys are those of this module's table. Made by `load_description`."""

    findings: Mapping[str, Any]
    name: str = "table"
    source: str = ""
    files: Mapping[str, Any] = field(default_factory=dict)
    hub: str | None = None
    hub_config: str | None = None
    hub_revision: str | None = None
    notes: tuple[str, ...] = ()
    synthetic: bool = False
    encoding: str = "utf-8-sig"
    delimiter: str | None = None
    join: tuple[Mapping[str, Any], ...] = ()
    keep: Mapping[str, Any] = field(default_factory=dict)
    split_column: str | None = None
    split_values: Mapping[str, str | None] = field(default_factory=lambda: {split: split for split in SPLITS})
    validation_rows: Mapping[str, Any] = field(default_factory=dict)
    validation_fraction: float | None = None
    test_fraction: float | None = None
    split_seed: int = 0
    ignore_splits: bool = False
    splits_from: str | None = None
    image_column: str | None = None
    image_path: str | None = None
    image_root: str = "."
    image_strip: str | None = None
    image_folders: tuple[str, ...] = ()
    image_id: str | None = None
    label_format: str = "columns"
    label_column: str | None = None
    label_delimiter: str = "|"
    aliases: Mapping[str, str] = field(default_factory=dict)
    rename: Mapping[str, str] = field(default_factory=dict)
    no_finding: str | None = None
    unknown_labels: tuple[str, ...] = ()
    other_labels: str = "error"
    absent_findings: str = "error"
    merge: str | None = None
    uncertain: Any = "ignore"
    blank: str = "unknown"
    patient_column: str | None = None
    patient_pattern: str | None = None
    image_is_patient: bool = False
    study_column: Any = None
    study_pattern: str | None = None
    view_column: Any = None
    view_values: Mapping[str, str | None] = field(
        default_factory=lambda: {"PA": "PA", "AP": "AP", "LATERAL": "LATERAL"}
    )
    age_column: str | None = None
    birth_column: str | None = None
    study_date_column: str | None = None
    sex_column: str | None = None
    sex_values: Mapping[str, str | None] = field(default_factory=lambda: {"M": "M", "F": "F"})
    boxes: Mapping[str, Any] = field(default_factory=dict)
    studies: Mapping[str, str] = field(default_factory=dict)
    path: Path | None = None
    """The file that it was read from; not a key."""

    def __post_init__(self):
        self._check_kinds()
        names = self.findings
        if isinstance(names, list | tuple):
            names = {name: name for name in names}
            if len(names) < len(self.findings):
                raise ValueError(f"findings repeat a name: {', '.join(map(str, self.findings))}")
        if not isinstance(names, Mapping):
            raise ValueError("findings must be a list of names, or name: column; [] for images without labels")
        if not names:
            if self.label_format != "columns" or self.no_finding:
                raise ValueError("findings has no names, so label_format and no_finding say nothing: leave them out")
            names = {UNLABELLED: UNLABELLED}
            self._set("absent_findings", "unknown")
        self._set("findings", {name: _strings(f"findings: {name}", columns) for name, columns in names.items()})
        files = self.files if isinstance(self.files, Mapping) else {"all": self.files}
        self._set("files", {split: _strings(f"files: {split}", paths) for split, paths in files.items()})
        for key in ("keep", "validation_rows"):
            values = getattr(self, key)
            if not isinstance(values, Mapping):
                raise ValueError(f"{key} is {values!r}; it must be column: values")
            self._set(key, {column: _strings(key, cells) for column, cells in values.items()})
        for key in ("image_folders", "unknown_labels", "notes"):
            self._set(key, _strings(key, getattr(self, key)))
        for key in SEVERAL_COLUMNS:
            if getattr(self, key) is not None:
                self._set(key, _strings(key, getattr(self, key)))
        self._check_boxes()
        self._set("join", tuple({"unmatched": "error", **entry} for entry in self.join))
        for key in ("split_values", "view_values", "sex_values"):
            self._set(key, {_plain(value): target for value, target in getattr(self, key).items()})
        self._check_choices()
        self._check_source()
        self._check_image_and_patient()

    def _check_boxes(self) -> None:
        if not self.boxes:
            return
        if not isinstance(self.boxes, Mapping):
            raise ValueError(f"boxes is {self.boxes!r}; it must be a mapping")
        given = {
            key: value for key, value in self.boxes.items() if value != ()
        }  # () of a description made from another
        keys = ({"file", "by", "finding", "corners"}, {"column"})
        if set(given) - {"size"} not in keys and set(given) != {"fractions"}:
            raise ValueError(
                f"boxes is {given!r}; it needs file, by, finding and corners, or column, and may have size; or "
                "fractions"
            )
        boxes = {"size": (), **given}
        for key, count in (("corners", 4), ("size", 2)):
            if key in given:
                boxes[key] = _strings(f"boxes: {key}", given[key])
                if len(boxes[key]) != count:
                    raise ValueError(f"boxes: {key} is {given[key]!r}; it must be {count} columns")
        if "file" in boxes:
            boxes["file"] = _strings("boxes: file", boxes["file"])
        elif "fractions" in boxes:
            if not isinstance(boxes["fractions"], str) or self.merge:
                raise ValueError("boxes: fractions is the name of one column, with one row an image (no merge)")
        elif self.label_format != "list" or self.merge:
            raise ValueError("boxes: column goes with label_format list and one row an image (no merge)")
        self._set("boxes", boxes)

    def _set(self, key: str, value: Any) -> None:
        object.__setattr__(self, key, value)  # frozen from here on

    @property
    def label_space(self) -> LabelSpace:
        """The findings in their order, with their aliases."""
        return LabelSpace(self.findings, aliases=self.aliases)

    @property
    def test_alone(self) -> bool:
        """Whether all images are test images: for measuring a model that was trained elsewhere, not for training."""
        return not self.split_column and set(self.files) == {"test"}

    @property
    def labelled(self) -> bool:
        """Whether there are findings."""
        return UNLABELLED not in self.findings

    @property
    def template_fields(self) -> tuple[str, ...]:
        """Columns that the image's path is made of."""
        if self.image_path is None:
            return (self.image_column,)
        return tuple(name for _, name, _, _ in string.Formatter().parse(self.image_path) if name)

    def uncertain_as(self, finding: str) -> str:
        """zero, one or ignore: what -1 becomes for a finding."""
        if isinstance(self.uncertain, str):
            return self.uncertain
        return self.uncertain.get(finding, self.uncertain.get("default", "ignore"))

    def columns(self) -> list[str]:
        """Columns that must be there, save those of findings, in no file twice."""
        joined = {column for entry in self.join for column in entry["columns"]}
        wanted = [
            *(name for name in self.template_fields if name not in OWN_FIELDS),
            *(
                getattr(self, key)
                for key in dataclasses.asdict(self)
                if key.endswith("_column") and key not in SEVERAL_COLUMNS
            ),
            *(column for key in SEVERAL_COLUMNS for column in getattr(self, key) or ()),
            *(self.image_id, *self.keep, *self.validation_rows, self.boxes.get("by"), self.boxes.get("column")),
            self.boxes.get("fractions"),
            *(self.boxes.get("size", ()) if "column" in self.boxes else ()),
            *(key for entry in self.join for key in _strings("join: by", entry["by"])),
            *([self.no_finding] if self.label_format == "columns" else []),
        ]
        return [column for column in dict.fromkeys(wanted) if column and column not in joined]

    def _check_kinds(self) -> None:
        for item in dataclasses.fields(self):
            value = getattr(self, item.name)
            written = item.type.__name__ if isinstance(item.type, type) else str(item.type)
            for kind, (holds, wanted) in KINDS.items():
                if written.replace("collections.abc.", "").startswith(kind) and not holds(value):
                    raise ValueError(f"{item.name} is {value!r}; it must be {wanted}")
        try:
            codecs.lookup(self.encoding)
        except LookupError as error:
            raise ValueError(f"encoding is {self.encoding!r}; it must be one like utf-8 or latin-1") from error
        for key in ("delimiter", "label_delimiter"):
            if getattr(self, key) is not None and len(getattr(self, key)) != 1:
                raise ValueError(f"{key} is {getattr(self, key)!r}; it must be one character")

    def _check_choices(self) -> None:
        for key, allowed in CHOICES.items():
            _check_choice(key, getattr(self, key), allowed)
        if not isinstance(self.uncertain, Mapping):
            _check_choice("uncertain", self.uncertain, UNCERTAIN)
        else:
            for finding, policy in self.uncertain.items():
                if finding not in ("default", *self.findings):
                    nearest = _nearest(finding, self.findings)
                    raise ValueError(f"uncertain names {finding!r}, which is not a finding{nearest}")
                _check_choice(f"uncertain: {finding}", policy, UNCERTAIN)
        for key, allowed in (
            ("split_values", (*SPLITS, None)),
            ("view_values", ("PA", "AP", "LATERAL", None)),
            ("sex_values", ("M", "F", None)),
        ):
            for value, target in getattr(self, key).items():
                _check_choice(f"{key}: {value}", target, allowed)
        for key in ("validation_fraction", "test_fraction"):
            fraction = getattr(self, key)
            if fraction is not None and not (isinstance(fraction, int | float) and 0 < fraction < 1):
                raise ValueError(f"{key} is {fraction!r}; it must be between 0 and 1")
        for key in ("aliases", "rename"):
            strange = sorted(set(getattr(self, key).values()) - set(self.findings))
            if strange:
                raise ValueError(
                    f"{key} points to {strange[0]!r}, which is not a finding{_nearest(strange[0], self.findings)}"
                )
        taken = sorted(set(self.aliases) & set(self.findings))
        if taken:
            raise ValueError(f"aliases has {taken[0]!r}, which is itself a finding")
        if (self.label_format == "columns") != (self.label_column is None):
            raise ValueError("label_column goes with label_format list or delimited, and both need it")

    def _check_source(self) -> None:
        if bool(self.files) == bool(self.hub):
            raise ValueError("give either files or hub")
        for split in self.files:
            _check_choice("files", split, (*SPLITS, "all"))
        if "all" in self.files and len(self.files) > 1:
            raise ValueError(
                f"files has 'all' together with {', '.join(set(self.files) - {'all'})}; name splits, or all"
            )
        for entry in self.join:
            if set(entry) - set(JOIN_KEYS) or not all(entry.get(key) for key in JOIN_KEYS[:3]):
                raise ValueError(f"join has {entry}; it needs file, by and columns, and may have unmatched")
            _check_choice("join: unmatched", entry["unmatched"], ("error", "drop"))
        named = set(self.split_values.values()) if self.split_column else set(self.files)
        named |= {"validation"} if self.validation_rows else set()
        if self.ignore_splits:
            self._check_ignored_splits()
            named = set()
        for split, fraction in (("validation", self.validation_fraction), ("test", self.test_fraction)):
            if not self.hub and split not in named and fraction is None and not self.test_alone and self.labelled:
                raise ValueError(f"no key says which images are {split}; add {split}_fraction: 0.1, or name the split")
            if not self.hub and split in named and fraction is not None:
                raise ValueError(f"{split}_fraction is given, and so is the split {split}; leave one of them out")

    def _check_ignored_splits(self) -> None:
        if self.split_column or self.validation_rows or None in (self.validation_fraction, self.test_fraction):
            raise ValueError(
                "ignore_splits: true cuts all rows by patient: give validation_fraction and test_fraction, and leave "
                "out split_column and validation_rows"
            )

    def _check_image_and_patient(self) -> None:
        if (self.image_column is None) == (self.image_path is None):
            raise ValueError("give image_column (a path in the table) or image_path (a template), one of them")
        for _, name, spec, conversion in string.Formatter().parse(self.image_path or ""):
            if name is not None and (not name or conversion or not re.fullmatch(r"(\.\d+)?", spec)):
                raise ValueError(f"image_path {self.image_path!r}: a field is {{column}} or {{column:.2}}, no more")
        for key in ("image_strip", "patient_pattern", "study_pattern"):
            try:
                re.compile(getattr(self, key) or "")
            except re.error as error:
                raise ValueError(f"{key} {getattr(self, key)!r} is not a valid regular expression: {error}") from error
        if self.studies and (set(self.studies) != {"column", "images"} or self.hub or not self.image_column):
            raise ValueError(f"studies is {self.studies!r}; it needs column and images, and goes with image_column")
        if self.hub and self.image_path:
            raise ValueError("a Hub dataset contains its images: give image_column, not image_path")
        if bool(self.patient_column) == self.image_is_patient:
            raise ValueError(
                "give patient_column, or a patient could be in two splits unnoticed; if image names begin with the "
                f"patient, as ChestX-ray14's do, patient_column is that column, with patient_pattern: {NIH_PATIENT!r};"
                " only if the data have no patient ids, image_is_patient: true"
            )
        for key, example in (("patient_pattern", r"(patient\d+)"), ("study_pattern", r"(patient\d+/study\d+)")):
            if getattr(self, key) is not None and re.compile(getattr(self, key)).groups != 1:
                raise ValueError(
                    f"{key} {getattr(self, key)!r} must have one group, the {key.split('_')[0]}: {example!r}"
                )
        if self.study_pattern is not None and len(self.study_column or ()) != 1:
            raise ValueError("study_pattern goes with one study_column")
        if (self.birth_column is None) != (self.study_date_column is None):
            raise ValueError("birth_column and study_date_column go together: age is their difference in years")


def load_description(path_or_name: str | os.PathLike) -> TableDescription:
    """Read a description: a YAML file, or the name of a ready one.

    Args:
        path_or_name: "my_table.yaml", or one of `ready_names`, such as "chexpert".

    Raises:
        FileNotFoundError: neither a file nor a ready name.
        ValueError: an unknown key (the message names the nearest), a wrong value, or a contradiction.
    """
    path = Path(path_or_name)
    if path.suffix not in (".yaml", ".yml"):
        path = READY / f"{path_or_name}.yaml"
    if not path.is_file():
        raise FileNotFoundError(
            f"no table description {path_or_name}; give a .yaml file or one of {', '.join(ready_names())}"
        )
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not a YAML file: {' '.join(str(error).split())}") from error
    if not isinstance(values, dict):
        raise ValueError(f"{path} must contain one 'key: value' a line")
    known = [item.name for item in dataclasses.fields(TableDescription) if item.name != "path"]
    for key in values:
        if key not in known:
            raise ValueError(f"unknown key {key} in {path}{_nearest(str(key), known)}")
    try:
        return TableDescription(**values, path=path)
    except (TypeError, ValueError, AttributeError, re.error) as error:
        raise ValueError(f"{path}: {error}") from error


def ready_names() -> list[str]:
    """Names of the descriptions that come with the package."""
    return sorted(path.stem for path in READY.glob("*.yaml"))


def _strings(key: str, value: Any) -> tuple[str, ...]:
    values = (value,) if isinstance(value, str) else value
    if not isinstance(values, list | tuple) or not all(isinstance(entry, str) and entry for entry in values):
        raise ValueError(f"{key} is {value!r}; it must be text, or a list of texts (quote numbers: '0')")
    return tuple(values)


def _plain(value: Any) -> str:
    return value if isinstance(value, str) else str(value)


def _check_choice(key: str, value: Any, allowed: tuple) -> None:
    if value not in allowed:
        raise ValueError(f"{key} is {value!r}; choose from {', '.join(map(str, allowed))}")


def _nearest(name: str, known) -> str:
    nearest = difflib.get_close_matches(str(name), list(known), n=1, cutoff=0.5)
    return f"; did you mean {nearest[0]}?" if nearest else f"; known: {', '.join(known)}"
