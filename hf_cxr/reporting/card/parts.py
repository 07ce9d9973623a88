"""The parts of a model card, each from what a run recorded: blocks, or nothing where nothing was measured.

    parts = CardParts.of(report, config)
    parts.operating_points()        # () if the run has none

`model_card.md` orders them and has the words that are the same for every run. No picture is in a part: the card shows
those that are pushed with it (card.py).
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from transformers import PreTrainedConfig

from hf_cxr.evaluation import METRICS
from hf_cxr.evaluation.metric import as_number
from hf_cxr.models.names import network_name
from hf_cxr.models.record import ModelRecord
from hf_cxr.reporting.card.checklist import AUTHORS, NOT_DONE, PARTLY, REPORTED, Evidence, answers, guidelines
from hf_cxr.reporting.document import Block, Details, Facts, Note, Table, Text
from hf_cxr.reporting.numbers import (
    finding_triple,
    in_percent,
    join,
    number,
    p_value,
    percent,
    percent_with_interval,
    ratio_with_interval,
    signed_interval,
    triple,
    with_interval,
)
from hf_cxr.reporting.protocol import SYNTHETIC, limits, measurement_words, split_facts
from hf_cxr.reporting.run import Report
from hf_cxr.reporting.sections.section import Section
from hf_cxr.reporting.sections.table import sections_of
from hf_cxr.words import NOT_A_DEVICE, plural

Blocks = tuple[Block, ...]

VIEWS = {"PA": "PA", "AP": "AP", "LATERAL": "lateral", "unknown": "unknown"}
FRONTAL = {"PA", "AP"}
RATES = {"sensitivity": "sensitivity", "specificity": "specificity", "ppv": "PPV"}
MOST_GAPS = 5
SHOWN = ("curves", "reliability", "operating_points", "subgroups", "input_check")
"""Analyses that have a place of their own in the card; of the rest, the answer is shown in a line."""


@dataclass(frozen=True)
class CardParts:
    """The parts of one card.

    Args:
        report: of the run.
        record: of its model; empty for a model that has none.
        image_size: side of the model's input, in pixels.
        network: its name in print.
        architecture: its model type, as config.json has it.
    """

    report: Report
    record: ModelRecord
    image_size: int
    network: str
    architecture: str

    @classmethod
    def of(cls, report: Report, config: PreTrainedConfig) -> "CardParts":
        """The parts for a model with this config."""
        record = ModelRecord.of(config) or ModelRecord()
        return cls(report, record, config.image_size, network_name(config), config.model_type)

    @property
    def protocol(self) -> Mapping[str, Any]:
        return self.report.protocol

    @property
    def synthetic(self) -> bool:
        return bool(self.protocol["synthetic"])

    @property
    def findings(self) -> list[str]:
        return list(self.report.test.label_names)

    @property
    def views(self) -> Mapping[str, int]:
        """Training images of each view; {} where an earlier version did not count them."""
        return self.protocol.get("training_views") or {}

    @property
    def frontal(self) -> bool:
        """Whether every training image is known to be a frontal view."""
        return bool(self.views) and set(self.views) <= FRONTAL

    def sections(self) -> dict[str, Section]:
        """Of the analyses that were done, by key, in the order of the report."""
        return sections_of(self.report.analysis)

    # The top

    def cautions(self) -> Note:
        """What a reader must not overlook, but for the line on top: that it is not a medical device."""
        return Note(tuple(one for one in self.report.cautions() if one != NOT_A_DEVICE))

    def at_a_glance(self) -> Table:
        """What goes in, what comes out, and of whom it is known."""
        splits, names = self.protocol["splits"], self.findings
        output = "a probability of each finding" if len(names) > 1 else "a probability of the finding"
        output += ", calibrated on validation" if self.protocol["calibration"] else ", not calibrated"
        points = self.protocol.get("operating_points")
        known_by = f"{len(names)}: {', '.join(names)}" if len(names) > 1 else names[0]
        rows = [
            ("input", self.input_words()),
            ("output", output),
            ("findings" if len(names) > 1 else "finding", known_by),
            ("thresholds", points or "none were chosen"),
            ("network", f"{self.network} (model type {self.architecture})"),
            ("trained on", f"{self.protocol['dataset']}: {_size(splits.get('train'))}"),
            ("measured on", f"{_size(splits.get('test'))}, from the same source only"),
        ]
        return Table.of(("at a glance", "what"), rows)

    def input_words(self) -> str:
        """What the model takes."""
        known = [VIEWS.get(view, view) for view in self.views if view != "unknown"]
        views = f" ({' or '.join(known)})" if self.frontal else ""
        kind = "frontal chest radiograph" if self.frontal else "chest radiograph"
        kind = "drawing of a chest radiograph" if self.synthetic else kind
        side = self.image_size
        return f"one {kind}{views}, 8-bit grey or colour, any size; the model sees {side} x {side} pixels of it"

    # Use

    def out_of_scope(self) -> Note:
        """For what the model is not, as far as the run knows it."""
        names, source = self.findings, self.protocol["dataset"]
        lateral = "" if self.views.get("LATERAL") else "lateral views, "
        seen = ", ".join(f"{VIEWS.get(view, view)} {count:,}" for view, count in self.views.items())
        trained = f" It was trained on these views: {seen}." if seen else ""
        sentences = [
            "Diagnosis, triage, treatment, or any other decision about a patient. This card reports no clinical "
            "evaluation.",
            f"Ruling out disease: low probabilities of {_all_of(names)} do not mean that the chest is healthy. It may "
            "show what is not in the list.",
            f"Image types it was not trained on: {lateral}photographs of films or screens, CT, other parts of the "
            f"body.{trained}",
        ]
        if self.synthetic:
            sentences.append(
                "Real radiographs: trained only on synthetic drawings; its output on a patient's image is meaningless."
            )
        else:
            sentences.append(
                f"Images of a hospital, device or population other than those of {source}, before it was measured "
                "there."
            )
        unmeasured = [
            f"{attribute} {name}"
            for attribute, content in (self.report.analysis.get("subgroups") or {}).get("attributes", {}).items()
            for name, group in content["groups"].items()
            if group["not_measured"] and not content["from_labels"]
        ]
        if unmeasured:
            sentences.append(f"Groups with too few test patients to measure: {', '.join(unmeasured)}.")
        return Note(tuple(sentences), warning=False)

    # How good it is

    def calibration(self) -> Blocks:
        """Whether probabilities are right on average, and the errors of probabilities."""
        how = self.protocol["calibration"]
        blocks: list[Block] = [Text(f"Calibration: {how}." if how else "The probabilities were not calibrated.")]
        section = self.sections().get("reliability")
        if section is not None:
            blocks.append(Text(answer_of(section)))
        measured = self.report.test.measured["all"]
        keys = [key for key in ("ece", "brier", "log_loss") if key in measured]
        means = [f"{METRICS[key].macro_title} {with_interval(*measured[key].macro_interval)}" for key in keys]
        if means:
            blocks.append(Text(f"On test: {', '.join(means)}. Lower is better."))
        if section is not None:
            blocks.append(self._calibration_table())
        return tuple(blocks)

    def _calibration_table(self) -> Details:
        values = self.report.analysis["reliability"]
        rows = [
            (
                name,
                percent(curve["prevalence"]["value"]),
                percent_with_interval(curve["mean_probability"]),
                *(ratio_with_interval(curve[key]) for key in ("expected_over_observed", "slope")),
            )
            for name, curve in values["findings"].items()
        ]
        caption = (
            f"{in_percent(values['confidence'])} patient-clustered intervals. Expected / observed: mean probability "
            "over prevalence, 1 if probabilities are right on average. Slope: 1 if they are neither too extreme "
            "(below 1) nor too timid (above 1)."
        )
        head = ("finding", "prevalence", "mean probability", "expected / observed", "slope")
        return Details("Calibration of each finding", (Table.of(head, rows, caption),))

    def operating_points(self) -> Blocks:
        """The thresholds, and what a yes or no at them is worth on test."""
        words = self.protocol.get("operating_points")
        if not words:
            return ()
        values = self.report.analysis.get("operating_points")
        if values is None or not values["sets"]["chosen"]["rule"]:
            return (Text(f"Thresholds: {words}. Sensitivity and specificity at them were not measured."),)
        chosen, ends = values["sets"]["chosen"], values["threshold_interval"] or {}
        rows = [
            (
                name,
                _threshold(chosen["threshold"][name], ends.get(name)),
                *(with_interval(*finding_triple(chosen[key], name)) for key in RATES),
            )
            for name in values["label_names"]
        ]
        confidence = in_percent(values["confidence"])
        caption = (
            f"On {values['images']:,} test images of {values['patients']:,} patients, {confidence} intervals over "
            "patients. Present: the probability is at least the threshold. PPV depends on how frequent a finding is: "
            "at another prevalence it is different."
        )
        return (
            Text(f"Thresholds: {words}."),
            Text(answer_of(self.sections()["operating_points"])),
            Table.of(("finding", "threshold", *RATES.values()), rows, caption),
        )

    def subgroups(self) -> Blocks:
        """Where the model is worse: the groups whose macro AUC is farthest below that of all other images."""
        values = self.report.analysis.get("subgroups")
        if values is None:
            return ()
        gaps = sorted(
            (
                (triple(group["measures"]["auc"]["gap"]["macro"]), attribute, name, group)
                for attribute, content in values["attributes"].items()
                for name, group in content["groups"].items()
                if "auc" in group["measures"] and not content["from_labels"]
            ),
            key=lambda one: one[0][0],
        )
        worse = [one for one in gaps if one[0][0] < 0][:MOST_GAPS]
        rows = []
        for gap, attribute, name, group in worse:
            one = group["measures"]["auc"]
            own, rest = (triple(one[side]["macro"]) for side in ("group", "rest"))
            p = as_number(one["p_corrected"]["macro"])
            size = f"{group['images']:,} ({group['patients']:,})"
            rows.append(
                (f"{attribute}: {name}", size, with_interval(*own), number(rest[0]), signed_interval(*gap), p_value(p))
            )
        title = METRICS["auc"].macro_title
        head = ("group", "images (patients)", title, "of the others", "gap (interval)", "p corrected")
        caption = (
            f"The groups that lie farthest below all other images, at most {MOST_GAPS}; intervals and p as in the "
            "report. A gap can be that of harder cases or worse labels."
        )
        table = [Table.of(head, rows, caption)] if rows else []
        return (Text(answer_of(self.sections()["subgroups"])), *table)

    def input_check(self) -> Blocks:
        """How often images that are no frontal radiograph are flagged; () if the run has no such check."""
        section = self.sections().get("input_check")
        if section is None:
            return ()
        shown = tuple(block for block in section.blocks[1:] if isinstance(block, Text | Note | Table))
        return (*shown, Text("Only hf_cxr runs this check: the pipeline and the ONNX files do not."))

    def further(self) -> Blocks:
        """The answer of every other analysis, a line each."""
        pairs = [
            (section.blocks[0].text, answer_of(section, strong=True))
            for key, section in self.sections().items()
            if key not in SHOWN
        ]
        found = tuple((heading, answer) for heading, answer in pairs if answer)
        return (Facts(found),) if found else ()

    # Data and method

    def data(self) -> Blocks:
        """Whose images, how they were split, and the terms of the data."""
        facts = [pair for pair in split_facts(self.protocol) if pair[0] not in _OF_WEIGHTS]
        blocks: list[Block] = [Facts(tuple(facts))]
        if not self.synthetic:
            note = self.record.licence_note
            blocks.append(
                Text(f"Source and terms of the data: {note}")
                if note
                else Text(
                    "The run recorded neither source nor terms of the data: the publisher of the model must add both."
                )
            )
        return tuple(blocks)

    def test_set(self) -> Blocks:
        """How often the test set was measured, and that it shares no patient; () if neither is known."""
        words = measurement_words(self.report.test_measurements)
        apart = "" if self.protocol.get("similar_patient_ids") else "No patient is in two of the sets."
        text = " ".join(filter(None, (words, apart)))
        return (Text(text),) if text else ()

    def method(self) -> Facts:
        """How it was trained: the facts of the report but for those of the data."""
        data = {name for name, _ in split_facts(self.protocol)} - _OF_WEIGHTS
        return Facts(tuple(pair for pair in self.report.protocol_facts().pairs if pair[0] not in data))

    def environment(self) -> Details:
        """Versions and devices."""
        pairs = tuple((name, str(value)) for name, value in self.report.environment.items())
        return Details("Environment: versions and devices", (Facts(pairs),))

    def limits(self) -> Note:
        """What the figures cannot say."""
        sentences = limits(self.protocol["dataset"], synthetic=self.synthetic, own_split=True)
        sentences = [one for one in sentences if one != NOT_A_DEVICE]
        return Note((*([SYNTHETIC] if self.synthetic else []), *sentences), warning=False)

    # For the record

    def checklist(self) -> Blocks:
        """How many items of CLAIM the run answers and which are left to the authors, and all of them folded."""
        guideline = guidelines()[0]
        rows = answers(guideline, Evidence.of(self.report))
        count = Counter(row[3] for row in rows)
        left = [f"{row[0]} ({row[2]})" for row in rows if row[3] == AUTHORS]
        undone = [f"{row[0]} ({row[2]})" for row in rows if row[3] == NOT_DONE]
        sentences = [
            f"Of the {len(rows)} items of {guideline['title']}, this run answers {count[REPORTED]} in full and "
            f"{count[PARTLY]} in part; {count[AUTHORS]} are for the authors, and {count[NOT_DONE]} were not done."
        ]
        if undone:
            sentences.append(f"Not done: {'; '.join(undone)}.")
        if left:
            sentences.append(f"Left to the authors: {'; '.join(left)}.")
        caption = (
            f"Items in our own words; the guideline itself: {guideline['source']}. Sections are those of report.html."
        )
        table = Table.of(("item", "part", "what is asked", "state", "where, or what"), rows, caption)
        return (
            Text(sentences[0]),
            *([Note(tuple(sentences[1:]), warning=False)] if sentences[1:] else []),
            Details(f"{guideline['title']}, item by item", (table,)),
        )


_OF_WEIGHTS = {"initial weights", "origin of the initial weights"}


def answer_of(section: Section, *, strong: bool = False) -> str:
    """The line of a section that a reader in a hurry should read: its first strong text, else its first text.

    Args:
        section: of a page.
        strong: take a strong text alone; "" if there is none.
    """
    texts = [block for block in section.blocks if isinstance(block, Text)]
    first = [text for text in texts if text.strong] or ([] if strong else texts)
    return first[0].text if first else ""


def _size(split: Mapping[str, int] | None) -> str:
    if not split:
        return "unknown"
    return f"{plural(split['images'], 'image')} of {plural(split['patients'], 'patient')}"


def _all_of(names: Sequence[str]) -> str:
    return f"all {len(names)} findings" if len(names) > 1 else join(names)


def _threshold(value: float | None, ends: Sequence[float] | None) -> str:
    """Three decimals or two digits, with the interval if there is one; "none" where none could be chosen."""
    if value is None:
        return "none"
    text, *limits = (f"{one:.3f}" if one >= 0.01 else f"{one:.2g}" for one in (value, *(ends or ())))
    return f"{text} ({'–'.join(limits)})" if limits else text
