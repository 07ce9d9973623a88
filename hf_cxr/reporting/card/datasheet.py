"""The datasheet of a prepared set: README.md in its folder, with the Hub's metadata on top.

    write_datasheet(folder)         # what `hf-cxr prepare` does at its end, and `hf-cxr prepare --out DIR --datasheet`
    datasheet(manifest, splits)     # the text alone
    published_datasheet(folder, manifest, splits, Published("you/set", columns))    # of its Parquet copy on the Hub

The last line of a written README.md is a digest of the text above it, by which a sheet that was changed by hand is
known, in every version.

It answers those questions of "Datasheets for Datasets" (Gebru et al., https://arxiv.org/abs/1803.09010) that the
folder itself can answer, from its manifest and its tables, and names the rest: they are for the publisher of the set.
No pixel is read. No path, and no id of an image or a patient, is in it.
"""

import hashlib
import os
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow.compute as pc
from huggingface_hub import DatasetCard, DatasetCardData
from PIL import Image

from hf_cxr import __version__
from hf_cxr.data.manifest import CARD
from hf_cxr.data.prepared_folder import locked
from hf_cxr.data.sources.prepared import load_prepared
from hf_cxr.data.sources.table.description import UNLABELLED
from hf_cxr.data.statistics import UNKNOWN, SplitStatistics, describe_splits
from hf_cxr.files import write_text
from hf_cxr.reporting.card.citations import dataset_citations, software_citation
from hf_cxr.reporting.claims import data_origin
from hf_cxr.reporting.document import Block, Facts, Heading, Note, Table, Text, block_markdown
from hf_cxr.reporting.numbers import join, percent
from hf_cxr.reporting.protocol import SYNTHETIC
from hf_cxr.words import markdown, one_line, plural

SIZES = ((10**3, "n<1K"), (10**4, "1K<n<10K"), (10**5, "10K<n<100K"), (10**6, "100K<n<1M"), (10**7, "1M<n<10M"))
REPEATS = {"identical": "byte for byte", "near": "nearly"}
LARGER = "10M<n<100M"
NOT_KNOWN = (
    "Motivation: who made the source, for which purpose, and who paid for it.",
    "Collection: how, when and whose images were taken, who approved it, and whether people consented.",
    "Labels: who or what labelled the images, and how often two readers agree.",
    "People: whether an image or an id can be traced to a person, and what was done so that it cannot.",
    "Distribution and maintenance: under which licence this copy may be passed on, who keeps it, and how a person can "
    "have an image removed.",
)
"""The questions that a folder cannot answer."""


USES = (
    "For: training and measuring classifiers of chest radiographs, in research.",
    "Not for: decisions about a patient, finding out who a patient is, or reading by people: the pixels are too few.",
    "Labels can be wrong or missing. Prevalences, views, sex and age are those of this set, not those of a hospital.",
)


def write_datasheet(folder: str | os.PathLike) -> Path:
    """Write README.md of a prepared folder, from what is in it; a file that is right already is not touched.

    Returns:
        The path of README.md.

    Raises:
        FileNotFoundError, ValueError: the folder is not a finished prepared one, is damaged, or is being written.
        OSError: it cannot be written.
    """
    folder = Path(folder)
    load_prepared(folder)  # refuses what is not a prepared folder, before a lock is made in it
    with locked(folder):
        splits, manifest = load_prepared(folder)
        text, path = _signed(datasheet(manifest, splits)), folder / CARD
        if not path.is_file() or path.read_bytes() != text.encode():
            write_text(path, text)
    return path


@dataclass(frozen=True)
class Published:
    """What a copy of a prepared set on the Hub has of its own.

    Args:
        hub_id: of the copy, which `datasets.load_dataset` reads.
        columns: of its files.
        hashed_ids: the ids of images and patients are hashes of the source's.
    """

    hub_id: str
    columns: Sequence[str]
    hashed_ids: bool = False


def datasheet(
    manifest: Mapping[str, Any], splits: Mapping[str, datasets.Dataset], *, published: Published | None = None
) -> str:
    """A dataset card in Markdown, with the Hub's metadata.

    Args:
        manifest: of the prepared folder, see `hf_cxr.data.manifest`.
        splits: its tables; pixels are not read.
        published: the copy on the Hub that the text is about; None for the folder itself.
    """
    sheet = _Sheet(manifest, splits, published)
    return str(DatasetCard(f"---\n{sheet.metadata().to_yaml()}\n---\n\n{sheet.text()}"))


def published_datasheet(
    folder: str | os.PathLike,
    manifest: Mapping[str, Any],
    splits: Mapping[str, datasets.Dataset],
    published: Published,
) -> str:
    """The card of a copy on the Hub: the sheet of the copy, with what people have written into the folder's README.md.

    Lines of the folder's sheet that do not hold for the copy, such as how to load it, are replaced by the copy's.

    Raises:
        ValueError: such a line is left, because it was changed in part, or an earlier version wrote it in other words;
            with the repair.
    """
    path = Path(folder) / CARD
    own = path.read_text(encoding="utf-8") if path.is_file() else None
    sheet, copy = datasheet(manifest, splits), datasheet(manifest, splits, published=published)
    if own is None or _is_as_written(own) or own == sheet:  # the last: of earlier versions
        return copy
    return _for_the_copy(path, _SIGNATURE.sub("", own), sheet, copy, hashed=published.hashed_ids)


def _for_the_copy(path: Path, own: str, sheet: str, copy: str, *, hashed: bool) -> str:
    """An edited datasheet, with the lines about the folder replaced by those about the copy."""
    before, after = sheet.split("\n"), copy.split("\n")
    lines = list(enumerate(own.split("\n"), 1))
    for tag, start, stop, first, last in SequenceMatcher(None, before, after, autojunk=False).get_opcodes():
        if tag != "equal" and any(before[start:stop]):
            lines = _replace(lines, before[start:stop], after[first:last])
    wrong = re.compile("|".join([*_OF_FOLDER, *(_OF_SOURCE_IDS if hashed else [])]))
    for number, line in lines:
        if line not in after and (found := wrong.search(line)):
            raise ValueError(
                f"{path}, line {number}: {found[0]!r} does not hold for the copy on the Hub; "
                "correct the line or delete it"
            )
    return "\n".join(line for _, line in lines).rstrip("\n") + "\n"


def _replace(lines: list[tuple[int, str]], old: list[str], new: list[str]) -> list[tuple[int, str]]:
    """Numbered lines, with new ones wherever the old ones follow one another; these keep the number of the first."""
    result, place = [], 0
    while place < len(lines):
        if [line for _, line in lines[place : place + len(old)]] == old:
            result += [(lines[place][0], line) for line in new]
            place += len(old)
        else:
            result.append(lines[place])
            place += 1
    return result


SOURCE_IDS = "ids are those of the source"
LOAD_FOLDER = "load_from_disk"
TRAIN_ON_FOLDER = "--dataset prepared"
LABEL_ORDER = "in the order of the findings"
STORED = "Stored without compression"
ALL_DIGEST = "digest of all pixels"
FINGERPRINT, OF_SOURCE = "split fingerprint", " (with the source's ids)"
# What a sheet of the folder says and that of a copy must not. Every version has used these words; its lines differ.
_OF_FOLDER = [
    *map(re.escape, (LOAD_FOLDER, TRAIN_ON_FOLDER, LABEL_ORDER, STORED, ALL_DIGEST)),
    "[Cc]olumns:.*file_sha256",
]
_OF_SOURCE_IDS = [re.escape(SOURCE_IDS), FINGERPRINT + f"(?!{re.escape(OF_SOURCE)})"]  # not of hashed ones

_SIGNATURE = re.compile("<!-- Written by hf-cxr prepare; SHA-256 of the text above: [0-9a-f]{64} -->")


def _signed(text: str) -> str:
    digest = hashlib.sha256(text.encode()).hexdigest()
    return f"{text}\n<!-- Written by hf-cxr prepare; SHA-256 of the text above: {digest} -->\n"


def _is_as_written(text: str) -> bool:
    """Whether a sheet is as it was written."""
    found = _SIGNATURE.search(text)
    return found is not None and _signed(text[: found.start()].removesuffix("\n")) == text


class _Sheet:
    """One datasheet while it is put together."""

    def __init__(
        self, manifest: Mapping[str, Any], splits: Mapping[str, datasets.Dataset], published: Published | None
    ):
        self.manifest, self.published = manifest, published
        filled = {name: split for name, split in splits.items() if len(split)}
        self.splits = filled
        self.empty = [name for name, split in splits.items() if not len(split)]
        self.statistics = describe_splits(filled, manifest["label_names"])
        self.labelled = list(manifest["label_names"]) != [UNLABELLED]

    @property
    def images(self) -> int:
        return sum(len(split) for split in self.splits.values())

    @property
    def size(self) -> int:
        return self.manifest["recipe"]["size"]

    def metadata(self) -> DatasetCardData:
        """The Hub's metadata. The licence is left out: who publishes the set has to have one."""
        manifest = self.manifest
        return DatasetCardData(
            pretty_name=one_line(f"{manifest['dataset']}, prepared at {self.size} pixels"),
            task_categories=["image-classification"],
            task_ids=["multi-label-image-classification"] if self.labelled else None,
            size_categories=[next((name for most, name in SIZES if self.images < most), LARGER)],
            tags=["chest-x-ray", "medical", "hf-cxr", *["synthetic"] * manifest["synthetic"]],
        )

    @property
    def title(self) -> str:
        return f"{self.manifest['dataset']}, prepared at {self.size} pixels"

    def text(self) -> str:
        """Everything below the metadata."""
        cautions = ["For research. Not for diagnosis or treatment."]
        cautions += [SYNTHETIC] if self.manifest["synthetic"] else []
        cautions += self.manifest.get("notes") or []
        blocks: list[Block | str] = [
            f"# {markdown(self.title)}",
            Note(tuple(cautions)),
            Text(self._summary()),
            self._loading(),
            Heading("What it contains"),
            self._images_table(),
            *self._findings(),
            self._columns(),
            Heading("Splits"),
            Facts(tuple(self._split_facts())),
            Heading("What was done to the images"),
            Note(tuple(self._steps()), warning=False),
            Heading("What is not in it"),
            Note(tuple(self._left_out()), warning=False),
            Heading("Terms"),
            *self._terms(),
            Heading("Uses"),
            Note(USES, warning=False),
            Heading("How to cite"),
            *self._citations(),
            Heading("What the publisher must add"),
            Text("Add the answers to these questions:"),
            Note(NOT_KNOWN, warning=False),
        ]
        return "\n\n".join(block if isinstance(block, str) else block_markdown(block) for block in blocks) + "\n"

    def _summary(self) -> str:
        manifest, size = self.manifest, self.size
        patients = sum(split.patients for split in self.statistics.splits.values())
        kind = "synthetic chest radiograph" if manifest["synthetic"] else "chest radiograph"
        return (
            f"{plural(self.images, kind)} of {plural(patients, 'patient')} from {manifest['dataset']}, "
            f"{self._labels_words()}, decoded once to 8-bit grey of {size} x {size} pixels, in "
            f"{plural(len(self.splits), 'split')}. No patient is in two splits. hf_cxr prepared it for training; it "
            "adds no image and no label to its source."
        )

    def _loading(self) -> str:
        load = (
            f'from datasets import load_dataset\n\nsplits = load_dataset("{self.published.hub_id}")'
            if self.published
            else f'from datasets import {LOAD_FOLDER}\n\nsplits = {LOAD_FOLDER}(".")  # this folder'
        )
        train = (
            ""
            if self.published
            else f"\n\nTo train on it: `hf-cxr train CONFIG.yaml {TRAIN_ON_FOLDER} --prepared FOLDER`."
        )
        return f"```python\n{load}\n```{train}"

    def _labels_words(self) -> str:
        names = self.manifest["label_names"]
        return f"with labels of {plural(len(names), 'finding')}" if self.labelled else "without labels"

    def _images_table(self) -> Table:
        splits = self.statistics.splits
        rows = [
            ("images", *(f"{split.images:,}" for split in splits.values())),
            ("patients", *(f"{split.patients:,}" for split in splits.values())),
            ("images per patient: mean, most", *(_per_patient(split) for split in splits.values())),
        ]
        if self.labelled:
            rows.append(("images with none of the findings", *(f"{s.without_findings:,}" for s in splits.values())))
            rows.append(("images without any known label", *(f"{s.unlabelled:,}" for s in splits.values())))
        for key in ("view", "sex"):
            values = dict.fromkeys(value for split in splits.values() for value in getattr(split, key))
            for value in [*(value for value in values if value != UNKNOWN), UNKNOWN]:
                counts = [getattr(split, key).get(value, 0) for split in splits.values()]
                shares = zip(counts, splits.values(), strict=True)
                cells = [f"{count:,} ({percent(count / split.images)})" for count, split in shares]
                rows += [(f"{key} {value}", *cells)] if any(counts) else []
        rows.append(("age: median, lowest to highest", *(_ages(split) for split in splits.values())))
        if any(split.age[UNKNOWN] for split in splits.values()):
            rows.append(("age unknown", *(f"{split.age[UNKNOWN]:,}" for split in splits.values())))
        boxes = [_with_boxes(split) for split in self.splits.values()]
        if any(boxes):
            rows.append(("images with boxes", *(f"{count:,}" for count in boxes)))
        return Table.of(("", *splits), rows, "Shares are of the images of the split.")

    def _findings(self) -> tuple[Block, ...]:
        if not self.labelled:
            return (Text("It has no labels: it is for pre-training."),)
        splits = self.statistics.splits
        unknown = [name for name, split in splits.items() if split.unknown_C.any()]
        head = [
            "finding",
            *(f"{name}: positive / known" for name in splits),
            *(f"{name}: unknown" for name in unknown),
        ]
        rows = [
            [
                finding,
                *(f"{s.positives_C[c]:,} / {s.images - s.unknown_C[c]:,}" for s in splits.values()),
                *(f"{splits[name].unknown_C[c]:,}" for name in unknown),
            ]
            for c, finding in enumerate(self.statistics.label_names)
        ]
        caption = (
            "Images. Known: the label is present or absent. An unknown label is neither, and training and evaluation "
            "leave it out. An image with none of the findings is not a normal image: only these were looked for."
        )
        return (Table.of(head, rows, caption),)

    def _columns(self) -> Text:
        published = self.published
        if published is None:
            names = list(next(iter(self.splits.values())).features) if self.splits else []
            labels = f"Labels are 1 (present), 0 (absent) or NaN (unknown), {LABEL_ORDER}."
        else:
            names = list(published.columns)
            labels = "The column of a finding is 1 (present), 0 (absent) or null (unknown)."
        ids = (
            "Image and patient ids are hashes of the source's."
            if published and published.hashed_ids
            else f"Image and patient {SOURCE_IDS}: before you pass the set on, make sure that they are pseudonyms."
        )
        return Text(
            f"Columns: {', '.join(names)}. {ids} {labels if self.labelled else ''} Where a source names no patients, "
            "each image counts as a separate patient."
        )

    def _split_facts(self) -> list[tuple[str, str]]:
        manifest, hub = self.manifest, self.manifest.get("hub")
        file = manifest.get("split_file")
        facts = [("source", manifest["dataset"])]
        facts += [("Hub dataset", data_origin(hub, ())["hub_dataset"])] if hub else []
        facts += [("splits from", manifest["splits_from"])] if manifest["splits_from"] else []
        if file:
            words = ", ".join(f"{key} {value}" for key, value in file.items() if value is not None)
            facts.append(("split file", words))
        of_source = OF_SOURCE if self.published and self.published.hashed_ids else ""
        facts.append((f"{FINGERPRINT}{of_source}", manifest["split_fingerprint"]))
        if "content_digest" in manifest and not self.published:
            facts.append((f"{ALL_DIGEST}, labels and ids", manifest["content_digest"]))
        return facts

    def _steps(self) -> list[str]:
        recipe, size = self.manifest["recipe"], self.size
        steps = [
            "Decoded to one 8-bit grey channel: colour to luma, 16-bit pixels by the full scale of their bits, DICOM "
            f"as a viewer would first show it (rule {recipe['rule']} of hf_cxr's grey.py).",
            f"Resized to {size} x {size} pixels with Pillow's {Image.Resampling(recipe['resample']).name.lower()} "
            "filter; the sides of an image that is not square are scaled differently.",
            f"{'Stored as PNG' if self.published else STORED}. Nothing was cropped, stretched in "
            "contrast, or masked: text burnt into a picture is still there.",
        ]
        unused = self.manifest.get("unused_bits")
        if unused:
            steps.append(
                f"{plural(unused, 'image leaves', 'images leave')} the top bits of a 16-bit file unused and may have "
                "been read brighter than meant."
            )
        return steps

    def _left_out(self) -> list[str]:
        manifest = self.manifest
        kinds = Counter(one["kind"] for one in manifest["duplicates"])
        across = sum(one["split"] != one["other_split"] for one in manifest["duplicates"])
        missing = {name: count for name, count in manifest["missing"].items() if count}
        words = [
            f"{plural(count, 'image')} that the source lists in {name} and had no file of"
            for name, count in missing.items()
        ]
        refused = len(manifest["refused"])
        words += [f"{plural(refused, 'image')} that could not be read"] if refused else []
        sentences = [f"Left out: {'; '.join(words)}." if words else "No image that the source lists was left out."]
        if self.empty:
            sentences.append(f"No image is in: {', '.join(self.empty)}.")
        if manifest["synthetic"]:
            sentences.append("Phantoms share their anatomy and were not compared with one another.")
        elif kinds:
            counted = join([f"{kinds[kind]:,} {words}" for kind, words in REPEATS.items() if kinds[kind]])
            sentences.append(f"Images that repeat another and are in it: {counted}; {across:,} across splits.")
        else:
            sentences.append("No image repeats another, to the byte or nearly.")
        sentences.append("No report, no diagnosis, and no name, date or place of a patient: only the columns above.")
        return sentences

    def _terms(self) -> tuple[Block, ...]:
        if self.manifest["synthetic"]:
            return (Text("The images were drawn by hf_cxr; only hf_cxr's terms apply."),)
        note = self.manifest.get("licence_note")
        known = (
            f"Source and terms of the source, as its description states them: {note}"
            if note
            else "The folder does not state the terms of its source."
        )
        return (
            Text(known),
            Text(
                "The source's terms also apply to this copy. Do not pass it on before you have read them: many sets "
                "may not be passed on at all, in any size."
            ),
        )

    def _citations(self) -> tuple[Block | str, ...]:
        known = dataset_citations(self.manifest["dataset"])
        entries = [*known, software_citation(__version__)]
        asks = "The source, and the software:" if known else "The source as its publisher asks, and the software:"
        asks = "The software:" if self.manifest["synthetic"] else asks
        return Text(asks), "```bibtex\n" + "\n\n".join(entries) + "\n```"


def _per_patient(split: SplitStatistics) -> str:
    return f"{split.images_per_patient.mean:.1f}, {split.images_per_patient.max}"


def _ages(split: SplitStatistics) -> str:
    ages = split.age_summary
    return "–" if np.isnan(ages["median"]) else f"{ages['median']:g}, {ages['min']:g} to {ages['max']:g}"


def _with_boxes(split: datasets.Dataset) -> int:
    """How many images have a box."""
    if "boxes" not in split.features:
        return 0
    column = split.select_columns(["boxes"]).with_format("arrow")[:]["boxes"]
    return int(pc.sum(pc.greater(pc.list_value_length(column), 0)).as_py() or 0)
