"""Two reporting guidelines, CLAIM 2024 and TRIPOD+AI, answered from what a run recorded.

checklist.yaml has the items. Each is answered by a function of this module, which reads the run's own record and says
"not done" where there is nothing to read, or it is for the authors of a study. Nothing is claimed without a record.

Adding a guideline is an entry in checklist.yaml; adding an answer is a function in `ANSWERS`.
"""

import functools
from collections import Counter
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hf_cxr.evaluation import METRICS, EvaluationReport
from hf_cxr.reporting.document import Block, Details, Table, Text
from hf_cxr.reporting.numbers import in_percent, join
from hf_cxr.reporting.protocol import component
from hf_cxr.reporting.sections.table import sections_of
from hf_cxr.yaml_files import read_yaml

if TYPE_CHECKING:
    from hf_cxr.reporting.run import Report

ITEMS = Path(__file__).with_name("checklist.yaml")
REPORTED, PARTLY, NOT_DONE, AUTHORS = "reported", "partly", "not done", "for the authors"

Answer = tuple[str, str]
"""The state of an item, and where or what."""


@dataclass(frozen=True)
class Evidence:
    """What a run recorded.

    Attributes:
        protocol, training, environment: as in metrics.json.
        test: the figures of the test set.
        sections: key of each analysis on the page -> its heading.
        done: keys of all analyses that were done, on the page or not.
    """

    protocol: Mapping[str, Any]
    training: Mapping[str, Any]
    environment: Mapping[str, Any]
    test: EvaluationReport
    sections: Mapping[str, str]
    done: Collection[str] = ()

    @classmethod
    def of(cls, report: "Report") -> "Evidence":
        """What the report of a run has."""
        headings = {key: section.blocks[0].text for key, section in sections_of(report.analysis).items()}
        done = tuple(report.analysis)
        return cls(report.protocol, report.training, report.environment, report.test, headings, done)

    @property
    def is_nih(self) -> bool:
        """Whether the labels are those that were mined from reports."""
        return self.protocol["dataset"] == "ChestX-ray14"

    @property
    def size(self) -> str:
        """The number of images and patients of each split, in words."""
        splits = self.protocol["splits"].items()
        return "; ".join(f"{name} {one['images']:,} images of {one['patients']:,} patients" for name, one in splits)


def checklist_blocks(evidence: Evidence) -> tuple[Block, ...]:
    """Each guideline as a folded table: item, state, and where or what."""
    blocks = []
    for guideline in guidelines():
        rows = answers(guideline, evidence)
        counts = Counter(row[3] for row in rows)
        counted = ", ".join(
            f"{counts[state]} {state}" for state in (REPORTED, PARTLY, NOT_DONE, AUTHORS) if counts[state]
        )
        words = (
            f"{len(rows)} items in our own words, filled from this run by the program: {counted}. It is a start for "
            f"the authors of a study and not a substitute for reading the guideline: {guideline['source']}"
        )
        table = Table.of(("item", "part", "what is asked", "state", "where, or what"), rows)
        blocks.append(Details(f"{guideline['title']} checklist: {counted}", (Text(words), table)))
    return tuple(blocks)


def answers(guideline: Mapping[str, Any], evidence: Evidence) -> list[tuple[str, str, str, str, str]]:
    """Every item of a guideline: its number, its part, what is asked, the state, and where or what."""
    return [
        (item["number"], item["part"], item["item"], *answer(item["answer"], evidence)) for item in guideline["items"]
    ]


@functools.cache
def guidelines() -> list[dict[str, Any]]:
    """The entries of checklist.yaml."""
    return read_yaml(ITEMS)


def answer(name: str, evidence: Evidence) -> Answer:
    """The answer of an item, see checklist.yaml."""
    if name == "authors":
        return AUTHORS, ""
    return (None if name == NOT_DONE else ANSWERS[name](evidence)) or (NOT_DONE, "")


# Study and data


def _design(run: Evidence) -> Answer:
    if run.protocol["synthetic"]:
        return REPORTED, "no study of patients: the images are synthetic phantoms"
    return (REPORTED, "retrospective: images and labels were there before") if run.is_nih else (AUTHORS, "")


def _source(run: Evidence) -> Answer:
    origin = run.protocol.get("splits_from")
    return PARTLY, f"{run.protocol['dataset']}" + (f"; splits: {origin}" if origin else "") + "; centres: the authors"


def _exclusions(run: Evidence) -> Answer:
    return PARTLY, f"left out by this run: {_left_out(run)}; the criteria of the data set: the authors"


def _left_out(run: Evidence) -> str:
    words = [
        f"{count:,} {what} in {name}"
        for what, key in (("missing images", "missing_images"), ("unreadable images", "unreadable_images"))
        for name, count in (run.protocol.get(key) or {}).items()
        if count
    ]
    limit = run.protocol["training_images_limited_to"]
    return "; ".join([*words, *([f"training images after the first {limit:,}"] if limit else [])]) or "nothing"


def _preprocessing(run: Evidence) -> Answer:
    once = "images were decoded and resized once, in a prepared folder; " if run.protocol.get("prepared") else ""
    return (
        REPORTED,
        f"{once}preprocessor_config.json, saved with the model, has the other steps and was used for every figure",
    )


def _subsets(run: Evidence) -> Answer:
    views = run.protocol.get("training_views") or {}
    counted = "; training views: " + ", ".join(f"{view} {count:,}" for view, count in views.items()) if views else ""
    return REPORTED, f"left out: {_left_out(run)}{counted}"


def _missing(run: Evidence) -> Answer:
    unknown = int(run.test.counts["all"].unknown_C.sum())
    return REPORTED, f"unknown labels take part in nothing ({unknown:,} in test); left out: {_left_out(run)}"


def _labels(run: Evidence) -> Answer:
    if run.protocol["synthetic"]:
        return REPORTED, "known, as the images were drawn from them"
    return (REPORTED, "mined from radiology reports by a program") if run.is_nih else (AUTHORS, "")


def _annotators(run: Evidence) -> Answer:
    if run.protocol["synthetic"]:
        return REPORTED, "no one: the images were generated from the labels"
    mined = "a program, from radiologists' reports; the images were not re-read"
    return (PARTLY, mined) if run.is_nih else (AUTHORS, "")


def _test_labels(run: Evidence) -> Answer:
    if run.protocol["synthetic"] or run.is_nih:
        return REPORTED, "as those of the training set"
    return AUTHORS, ""


def _partitions(run: Evidence) -> Answer:
    origin = run.protocol.get("splits_from") or (run.protocol.get("split_file") or {}).get("name")
    fingerprint = f"split fingerprint {run.protocol['split_fingerprint'][:12]}"
    return (REPORTED if origin else PARTLY), f"{run.size}{f'; from: {origin}' if origin else ''}; {fingerprint}"


def _disjoint(run: Evidence) -> Answer:
    alike = run.protocol.get("similar_patient_ids")
    if alike is None:
        return PARTLY, "patients; an earlier version did not look for ids that are nearly alike"
    if alike:
        return PARTLY, f"patients, but some may be in two splits: {'; '.join(alike)}"
    return REPORTED, "patients: none is in two of the splits"


def _same_source(run: Evidence) -> Answer:
    return PARTLY, f"all splits are of {run.protocol['dataset']}; patients' characteristics were not compared"


# Model and training


def _model(run: Evidence) -> Answer:
    count, network = run.training.get("parameters"), (run.protocol.get("network") or {}).get("name")
    return REPORTED, ", ".join(
        filter(None, (network, "config.json and model.safetensors", f"{count:,} parameters" if count else None))
    )


def _software(run: Evidence) -> Answer:
    names = ("hf_cxr", "python", "torch", "transformers")
    return REPORTED, ", ".join(f"{name} {run.environment[name]}" for name in names if name in run.environment)


def _initial(run: Evidence) -> Answer:
    return REPORTED, str(run.protocol["initial_weights"])


def _training(run: Evidence) -> Answer:
    loss, sampler = run.protocol["loss"], run.protocol["sampler"]
    return REPORTED, (
        f"loss {component(loss['name'], loss['options'])}; sampler {component(sampler['name'], sampler['options'])}; "
        f"{run.training['epochs']:g} epochs; seed {run.protocol['seed']}; every setting in config.yaml"
    )


def _selection(run: Evidence) -> Answer:
    return REPORTED, run.protocol["selection"]


def _ensemble(run: Evidence) -> Answer:
    return REPORTED, "none: one model"


def _imbalance(run: Evidence) -> Answer:
    loss, sampler = run.protocol["loss"], run.protocol["sampler"]
    return REPORTED, (
        f"loss {loss['name']} with class weights {loss['class_weights_kind']}; sampler {sampler['name']}; "
        f"calibration: {run.protocol['calibration'] or 'none'}"
    )


def _predictors(run: Evidence) -> Answer:
    return REPORTED, "the pixels of one image; no age, sex, view, report or earlier image"


def _unread(run: Evidence) -> Answer:
    return REPORTED, "not applicable: the only predictor is the image"


def _unchanged(run: Evidence) -> Answer:
    return REPORTED, "none: the test set was measured after everything was fixed"


def _predictions(run: Evidence) -> Answer:
    return REPORTED, "by the saved model with its own image processor, one image at a time"


def _output(run: Evidence) -> Answer:
    words = f"a probability of each finding; calibration: {run.protocol['calibration'] or 'none'}"
    section = run.sections.get("operating_points")
    return (REPORTED, f"{words}; thresholds: section {section}") if section else (PARTLY, f"{words}; no thresholds")


def _settings(run: Evidence) -> Answer:
    return PARTLY, "config.yaml has every setting of the run; a study's own protocol: the authors"


def _availability(run: Evidence) -> Answer:
    return PARTLY, f"software: hf_cxr {run.environment['hf_cxr']}; model and data: the authors"


# Evaluation and results


def _metrics(run: Evidence) -> Answer:
    titles = [METRICS[key].title for key in run.test.measured["all"] if key in METRICS]
    return REPORTED, f"{join(titles)}; each finding and means"


def _uncertainty(run: Evidence) -> Answer:
    drawn = f"{in_percent(run.test.confidence)} intervals over {run.test.resamples:,} draws of patients"
    return REPORTED, f"{drawn}; they do not cover training noise"


def _internal(run: Evidence) -> Answer:
    counts = run.test.counts["all"]
    return REPORTED, f"the test split: {counts.images:,} images of {counts.patients:,} patients"


def _numbers(run: Evidence) -> Answer:
    return REPORTED, f"{run.size}; left out: {_left_out(run)}"


def _events(run: Evidence) -> Answer:
    trained = run.protocol.get("training_positives")
    if not trained:
        return PARTLY, "test: the table of findings; training: not recorded by an earlier version"
    pairs = zip(run.test.label_names, trained, strict=True)
    return REPORTED, (
        "test: the table of findings; positive training images: "
        + ", ".join(f"{name} {count:,}" for name, count in pairs)
    )


def _performance(run: Evidence) -> Answer:
    groups = run.sections.get("subgroups")
    return REPORTED, "the table of findings, with intervals" + (f"; groups: section {groups}" if groups else "")


def _limitations(run: Evidence) -> Answer:
    return PARTLY, "section Limits, and the notes at the top; those of the study: the authors"


def _failures(run: Evidence) -> Answer | None:
    # The sheet shows patients' images, so it is on no page.
    sheet = "a contact sheet of the most confident mistakes, kept next to the run"
    return (PARTLY, sheet) if "mistakes" in run.done else None


def _in_section(key: str, *, state: str = REPORTED, words: str = "") -> Callable[[Evidence], Answer | None]:
    """An answer that is an analysis on the page; not done if it is not there."""

    def found(run: Evidence) -> Answer | None:
        heading = run.sections.get(key)
        return None if heading is None else (state, f"section {heading}{words}")

    return found


ANSWERS: dict[str, Callable[[Evidence], Answer | None]] = {
    "annotators": _annotators,
    "availability": _availability,
    "characteristics": _in_section("subgroups", state=PARTLY, words=": counts of the test set alone"),
    "design": _design,
    "diagnostic": _in_section("operating_points"),
    "disjoint": _disjoint,
    "ensemble": _ensemble,
    "events": _events,
    "exclusions": _exclusions,
    "explanations": _in_section("localization"),
    "failures": _failures,
    "imbalance": _imbalance,
    "initial": _initial,
    "internal": _internal,
    "labels": _labels,
    "limitations": _limitations,
    "metrics": _metrics,
    "missing": _missing,
    "model": _model,
    "numbers": _numbers,
    "output": _output,
    "partitions": _partitions,
    "performance": _performance,
    "poor_input": _in_section("stress", state=PARTLY, words=": degraded images; a rule for their use: the authors"),
    "predictions": _predictions,
    "predictors": _predictors,
    "preprocessing": _preprocessing,
    "robustness": _in_section("stress"),
    "same_source": _same_source,
    "selection": _selection,
    "settings": _settings,
    "software": _software,
    "source": _source,
    "subgroups": _in_section("subgroups", state=PARTLY, words=": measured; nothing was done for it in training"),
    "subsets": _subsets,
    "test_labels": _test_labels,
    "training": _training,
    "unchanged": _unchanged,
    "uncertainty": _uncertainty,
    "unread": _unread,
}
