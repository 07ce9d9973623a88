"""`Report`: the one object that holds every figure of a run, as JSON, Markdown and one self-contained HTML page."""

import base64
import html
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hf_cxr.evaluation import EvaluationReport, FindingResult, format_interval, format_number

# Macro AUC over the 14 findings as published, each with its test set and protocol.
PUBLISHED_NIH14 = (
    ("Wang et al. 2017 (ResNet-50)", 0.745, "official test list"),
    ("Yao et al. 2018", 0.761, "official test list"),
    ("Guendel et al. 2018 (DNet)", 0.807, "official test list"),
    ("SwinCheX 2022 (Swin-L)", 0.810, "official test list"),
    ("Medical-MAE 2023 (ViT-B)", 0.830, "official test list, pre-trained on X-rays"),
    ("EVA-X-B 2024", 0.835, "official test list, pre-trained on X-rays"),
    ("the reference study (Swin-B, class-aware loss)", 0.874, "says official; its split sizes are a random cut's"),
)


@dataclass
class Report:
    """Everything that a reader needs to know what was done, on which patients, and how sure the figures are.

    Args:
        name: of the run.
        model_id: what the card's example loads: the Hub id, or the folder that the card is in.
        protocol: data, splits, fingerprint, loss, selection, calibration, seed.
        test: measured once, after everything was fixed.
        validation: chose the checkpoint and fitted the calibration; optimistic, and said to be.
        calibration: slopes and intercepts, or None.
        training: epochs, speed, memory.
        history: the Trainer's log.
        environment: versions and devices.
        stock_pipeline: its largest difference to the evaluation, and its answer for one test image.
        hub_url: where it was pushed.
        push_error: why it was not.
    """

    name: str
    model_id: str
    protocol: dict[str, Any]
    test: EvaluationReport
    validation: EvaluationReport
    calibration: dict[str, Any] | None
    training: dict[str, Any]
    history: list[dict[str, Any]]
    environment: dict[str, Any]
    stock_pipeline: dict[str, Any] = field(default_factory=dict)
    hub_url: str | None = None
    push_error: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values; a figure that is undefined is null. No patient's id, label or score is in it."""
        shown = ("images", "largest_difference", *(("image_id", "labels", "scores") * self.protocol["synthetic"]))
        return {
            "name": self.name,
            "protocol": self.protocol,
            "test": self.test.to_dict(),
            "validation": self.validation.to_dict(),
            "calibration": self.calibration,
            "training": self.training,
            "environment": self.environment,
            "stock_pipeline": {key: value for key, value in self.stock_pipeline.items() if key in shown},
            "history": self.history,
        }

    @classmethod
    def from_dict(cls, metrics: Mapping[str, Any], *, model_id: str) -> "Report":
        """Read what `to_dict` gave, or an earlier version's metrics.json.

        Raises:
            ValueError: it is not a run's.
        """
        names = ("name", "protocol", "calibration", "training", "environment")
        missing = sorted({*names, "test", "validation", "history"} - set(metrics))
        if missing:
            raise ValueError(f"not the metrics.json of a run: it lacks {', '.join(missing)}")
        return cls(
            model_id=model_id,
            test=EvaluationReport.from_dict(metrics["test"]),
            validation=EvaluationReport.from_dict(metrics["validation"]),
            history=[
                {key: math.nan if value is None else value for key, value in entry.items()}
                for entry in metrics["history"]
            ],
            stock_pipeline=metrics.get("stock_pipeline") or {},
            **{name: metrics[name] for name in names},
        )

    def cautions(self) -> list[str]:
        """What a reader must not overlook, in order of weight."""
        cautions = []
        if self.protocol["synthetic"]:
            cautions.append(
                "The images are synthetic phantoms. The figures show that the software works and say nothing about "
                "any patient."
            )
        if self.protocol["labels_shuffled"]:
            cautions.append(
                "The training labels were shuffled on purpose: the figures are the floor of chance, not a model's."
            )
        if self.protocol.get("similar_patient_ids"):
            cautions.append(
                "Some patients may be in two of the sets, which would inflate the figures: "
                + "; ".join(self.protocol["similar_patient_ids"])
                + "."
            )
        if self.protocol["split_file"] and not self.protocol["synthetic"]:
            cautions.append(
                f"The splits are those of {self.protocol['split_file']['name']}, not the source's own: figures on its "
                "official test set are of other images."
            )
        if self.protocol["selection"].endswith("was never defined"):
            cautions.append(
                f"No checkpoint was chosen; the weights are those of the {self.protocol['selection']} in any epoch."
            )
        if self.protocol["training_images_limited_to"]:
            cautions.append(f"Trained on {self.protocol['training_images_limited_to']} images only.")
        if self.protocol["missing_images"]:
            counts = ", ".join(f"{count:,} in {name}" for name, count in self.protocol["missing_images"].items())
            cautions.append(f"Images missing from the folder were skipped ({counts}): these are not the full splits.")
        if self.protocol.get("unreadable_images"):
            counts = ", ".join(f"{count:,} in {name}" for name, count in self.protocol["unreadable_images"].items())
            cautions.append(f"Images that cannot be read were left out ({counts}): these are not the full splits.")
        if self.test.undefined:
            cautions.append(
                "No AUC for findings that the test set does not have both label values of, left out of the means: "
                + ", ".join(self.test.undefined)
                + "."
            )
        never = [
            finding.name
            for finding, count in zip(self.test.findings, self.protocol.get("training_positives", ()), strict=False)
            if count == 0
        ]
        if never:
            cautions.append(f"No positive training image, so nothing was learnt of: {', '.join(never)}.")
        few = [finding for finding in self.test.findings if 0 < finding.positive_patients < 20]
        if few:
            listing = ", ".join(f"{finding.name} ({finding.positive_patients})" for finding in few)
            cautions.append(
                "Fewer than 20 patients with the finding in the test set: its intervals are too narrow to rely on: "
                f"{listing}."
            )
        exceptions = self.protocol["calibration_exceptions"]
        without = [name for name, reason in exceptions.items() if reason.startswith("identity")]
        unranked = [name for name, reason in exceptions.items() if "not above zero" in reason]
        shifted = [name for name in exceptions if name not in (*without, *unranked)]
        if unranked:
            cautions.append(
                "On validation the scores do not rank these findings, or rank them the wrong way round, so their "
                f"slope was not calibrated: {', '.join(unranked)}."
            )
        if shifted:
            cautions.append(
                f"Too few validation positives or negatives to calibrate the slope of: {', '.join(shifted)}."
            )
        if without:
            cautions.append(f"Not calibrated, as validation has no known label of: {', '.join(without)}.")
        cautions.append("Not a medical device. Not for diagnosis or treatment.")
        return cautions

    def headline(self) -> str:
        """Macro AUC and mAP on test with their intervals, in one line."""
        test = self.test
        return (
            f"macro AUC {format_interval(test.macro_auc, test.macro_auc_low, test.macro_auc_high)}, "
            f"mAP {format_interval(test.macro_ap, test.macro_ap_low, test.macro_ap_high)} "
            f"({test.n_images:,} test images of {test.n_patients:,} patients, {test.confidence:.0%} intervals)"
        )

    def captions(self) -> list[str]:
        """For each finding's ROC panel: AUC with its interval, and the number of positives."""
        return [
            "one label value only:\nno curve"
            if finding.name in self.test.undefined
            else f"AUC {_auc(finding)}\n{finding.positives} positives, {finding.positive_patients} patients"
            for finding in self.test.findings
        ]

    def summary(self, run_dir: Path) -> str:
        """What the terminal prints at the end of a run."""
        lines = ["", f"Test: {self.headline()}", *(f"  ! {caution}" for caution in self.cautions()), ""]
        if "scores" in (example := self.stock_pipeline):
            labels = ", ".join(example["labels"]) or "No Finding"
            lines += [
                f"The stock pipeline('image-classification') on test image {example['image_id']} ({labels}):",
                *(f"    {name:<20}{score:.3f}" for name, score in list(example["scores"].items())[:5]),
                f"    largest difference to the evaluation, over {example['images']} images: "
                f"{example['largest_difference']:.1e}",
                "",
            ]
        lines += [
            f"Report: {run_dir / 'report.html'}",
            f"Model:  {run_dir}  (load it with pipeline('image-classification', model='{run_dir}', "
            f"top_k={len(self.test.findings)}))",
        ]
        if self.hub_url:
            lines.append(f"Hub:    {self.hub_url}")
        return "\n".join(lines)

    def protocol_rows(self) -> list[tuple[str, str]]:
        """The protocol in words, a pair a line."""
        protocol, training = self.protocol, self.training
        splits = ", ".join(
            f"{name} {size['images']:,} images of {size['patients']:,} patients"
            for name, size in protocol["splits"].items()
        )
        speed = "–" if training["images_per_second"] is None else f"{training['images_per_second']:.1f}"
        smoothing = protocol["loss"].get("label_smoothing")
        stopped = ", stopped early" if training.get("stopped_early") else ""
        best = "" if training["best_epoch"] is None else f", checkpoint of epoch {training['best_epoch']:g} kept"
        return [
            ("data", protocol["dataset"]),
            (disjoint_by_patient(protocol), splits),
            ("splits from", protocol["splits_from"]),
            ("split fingerprint", protocol["split_fingerprint"]),
            ("initial weights", protocol["initial_weights"]),
            ("loss", _words(protocol["loss"]["options"], protocol["loss"]["name"])),
            *(
                [("label smoothing", f"{smoothing:g}")]
                if (smoothing := protocol["loss"].get("label_smoothing"))
                else []
            ),
            ("class weights", protocol["loss"]["class_weights_kind"]),
            ("sampler", _words(protocol["sampler"]["options"], protocol["sampler"]["name"])),
            *_stage_rows(protocol["stages"], training),
            ("training", f"{training['epochs']:g} epochs{stopped}{best}; selection: {protocol['selection']}"),
            ("calibration", protocol["calibration"] or "none"),
            ("seed", str(protocol["seed"])),
            *([("resumed from", training["resumed_from"])] if training["resumed_from"] else []),
            ("speed", f"{speed} images/s in training on {self.environment['device']}"),
            ("peak memory", "–" if training["peak_memory_gib"] is None else f"{training['peak_memory_gib']:.1f} GiB"),
        ]

    def to_html(self, figures: Path) -> str:
        """One self-contained page; the figures of the folder are embedded."""
        pictures = {path.stem: base64.b64encode(path.read_bytes()).decode() for path in sorted(figures.glob("*.png"))}
        published = (
            html_table(
                ("published", "macro AUC", "protocol"),
                [(name, f"{auc:.3f}", protocol) for name, auc, protocol in PUBLISHED_NIH14],
            )
            if self.protocol["dataset"] == "ChestX-ray14"
            else ""
        )
        return _PAGE.format(
            style=STYLE,
            name=html.escape(self.name),
            headline=html.escape(self.headline()),
            cautions="".join(f"<li>{html.escape(caution)}</li>" for caution in self.cautions()),
            findings=_finding_table(self.test),
            validation=_finding_table(self.validation),
            roc=html_picture(pictures.get("roc_test"), "ROC curve of each finding on the test set"),
            training=html_picture(pictures.get("training"), "losses and validation metrics over training"),
            protocol=html_table(("", ""), self.protocol_rows()),
            environment=html_table(("", ""), [(key, str(value)) for key, value in self.environment.items()]),
            published=published
            and "<h2>Published figures, with their protocols</h2><p>None was measured here, and a part of the test "
            f"list is not to be compared with the whole.</p>{published}",
            confidence=f"{self.test.confidence:.0%}",
            resamples=f"{self.test.resamples:,}",
        )


def disjoint_by_patient(protocol: dict[str, Any]) -> str:
    """What the row of the splits is called: the claim is made only where no two patients' ids are alike."""
    return "splits" if protocol.get("similar_patient_ids") else "splits, disjoint by patient"


def _auc(finding: FindingResult) -> str:
    return format_interval(finding.auc, finding.auc_low, finding.auc_high)


def _finding_table(result: EvaluationReport) -> str:
    head = ("finding", "positives (patients)", "negatives", "unknown", "AUC", "average precision", "its chance level",
            "mean probability if present", "if absent", "Brier", "ECE")  # fmt: skip
    rows = [
        (
            finding.name.replace("_", " "),
            f"{finding.positives:,} ({finding.positive_patients:,})",
            f"{finding.negatives:,}",
            f"{finding.unknown:,}",
            _auc(finding),
            format_interval(finding.ap, finding.ap_low, finding.ap_high),
            format_number(finding.prevalence),
            format_number(finding.mean_probability_positives),
            format_number(finding.mean_probability_negatives),
            format_number(finding.brier),
            format_number(finding.ece),
        )
        for finding in result.findings
    ]
    macro_auc = format_interval(result.macro_auc, result.macro_auc_low, result.macro_auc_high)
    macro_ap = format_interval(result.macro_ap, result.macro_ap_low, result.macro_ap_high)
    mean = ("mean of defined", "", "", "", macro_auc, macro_ap, format_number(result.macro_prevalence), "", "", "", "")
    return html_table(head, [*rows, mean])


def _words(values: dict[str, Any], name: str) -> str:
    options = ", ".join(f"{key} {value}" for key, value in values.items() if value is not None)
    return f"{name} ({options})" if options else name


def _reweighting(start: int, training: dict[str, Any]) -> str:
    """What deferred re-weighting did, to the weights that were kept."""
    kept = training["best_epoch"]
    if training["epochs"] <= start:
        return f"class weights did not act: training ended before epoch {start}, counted from 0"
    before = f"; the checkpoint kept, of epoch {kept:g}, is from before" if kept is not None and kept <= start else ""
    return f"class weights act from epoch {start} on, counted from 0{before}"


def _stage_rows(stages: dict[str, Any], training: dict[str, Any]) -> list[tuple[str, str]]:
    said = {
        "deferred re-weighting": stages["reweight_from_epoch"] is not None
        and _reweighting(stages["reweight_from_epoch"], training),
        "weights": stages["ema_decay"] is not None
        and f"exponential moving average, decay {stages['ema_decay']:g}, with warm-up",
        "second stage": stages["freeze_backbone"] and "the classifier alone was trained, on a frozen backbone",
        "over-sampling in feature space": stages["feature_oversampling"] is not None
        and f"between an image drawn again and one of its {stages['feature_oversampling']} nearest",
        "classifier": not stages["reinitialize_head"] and "went on from that of the initial weights",
    }
    return [(name, words) for name, words in said.items() if words]


def html_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    top = "<tr>" + "".join(f"<th>{html.escape(cell)}</th>" for cell in head) + "</tr>" if any(head) else ""
    body = "".join("<tr>" + "".join(f"<td>{html.escape(str(cell))}</td>" for cell in row) + "</tr>" for row in rows)
    return f'<div class="wide"><table>{top}{body}</table></div>'


def html_picture(data: str | None, description: str) -> str:
    return f'<img alt="{html.escape(description)}" src="data:image/png;base64,{data}">' if data else ""


STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 1250px; margin: 2em auto; padding: 0 1em; color: #1a1a1a }
h1 { margin-bottom: .2em } h2 { margin-top: 2em }
.headline { font-size: 1.15em; font-weight: 600 }
.cautions { background: #fff4e0; border-left: 4px solid #d55e00; padding: .6em 1em .6em 2.2em }
.wide { overflow-x: auto }
table { border-collapse: collapse; font-size: 13px; font-variant-numeric: tabular-nums }
td { white-space: nowrap }
th, td { text-align: left; padding: .25em .7em; border-bottom: 1px solid #ddd }
th { background: #f4f4f4 }
img { max-width: 100% }
"""
"""Of a report's page, and of a comparison's, which adds to it."""

_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>{name}: report</title>
<style>{style}</style></head><body>
<h1>{name}</h1>
<p class="headline">Test: {headline}</p>
<ul class="cautions">{cautions}</ul>
<h2>Test set, each finding</h2>
<p>{confidence} intervals from {resamples} bootstrap resamples of patients, not of images. Average precision has to be
read against its chance level, the prevalence. ECE: expected calibration error.</p>
{findings}
<h2>ROC curves on test</h2>{roc}
<h2>Training</h2>{training}
<h2>Protocol</h2>{protocol}
{published}
<h2>Validation set</h2>
<p>Selection and calibration, as far as the protocol names any, used this set: its figures are optimistic, no estimate
for new patients.</p>
{validation}
<h2>Environment</h2>{environment}
</body></html>
"""
