"""`Report`, which has every number of a run, and the document that shows it: report.html, and the terminal's summary.

The page goes from the headline and its protocol over the findings and the analyses (`sections.table`) to published
systems and limits; what only some readers want is folded in its appendix.

The model card (card.py) takes its sentences and tables from here.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hf_cxr.evaluation import EvaluationReport, modern_figures
from hf_cxr.labels import LabelSpace
from hf_cxr.reporting import plots
from hf_cxr.reporting.augmentation import augmentation_words
from hf_cxr.reporting.card.checklist import Evidence, checklist_blocks
from hf_cxr.reporting.document import Block, Details, Document, Facts, Figure, Heading, Note, Table, Text
from hf_cxr.reporting.evaluation import (
    equal_scores,
    evaluation_blocks,
    findings_table,
    further_blocks,
    headline,
    positive_patients,
    records,
)
from hf_cxr.reporting.numbers import number, with_interval
from hf_cxr.reporting.protocol import (
    OFFICIAL_LIST,
    OFFICIAL_TEST,
    component,
    data_cautions,
    few_patients,
    limits,
    measurement_words,
    network_facts,
    published,
    split_facts,
)
from hf_cxr.reporting.sections.curves import CURVE_STYLES
from hf_cxr.reporting.sections.table import draw_sections, section_blocks
from hf_cxr.saved_models import CONFIG, read_json
from hf_cxr.systems import SYSTEMS
from hf_cxr.words import NOT_A_DEVICE, plural

ROC_CURVES = Figure(CURVE_STYLES["roc"].path, "ROC curves on test")
TRAINING_CURVES = Figure("figures/training.png", "Training", "Loss, and validation metrics, over the epochs.")


@dataclass
class Report:
    """Everything that a reader needs to know what was done, on which patients, and how sure the numbers are.

    Args:
        name: of the run.
        model_id: what the card's example loads: the Hub id, or the folder that the card is in.
        protocol: data, splits, fingerprint, loss, selection, calibration, seed.
        test: the figures of the test set; `test_measurements` says how often it was measured.
        validation: chose the checkpoint and fitted the calibration, so it is optimistic, and the report says so.
        calibration: slopes and intercepts, or None.
        training: epochs, speed, memory.
        history: the Trainer's log.
        environment: versions and devices.
        stock_pipeline: its largest difference to the evaluation, and its answer for one test image.
        hub_url: where it was pushed.
        push_error: why it was not.
        test_measurements: how often the test set was measured, see `run.stage_files.next_measurement`; None in a run
            of an earlier version, which did not count.
        analysis: what else was measured on test, by key of `sections.table.SECTIONS`; not in `to_dict`, as it has
            a separate file.
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
    test_measurements: dict[str, Any] | None = None
    analysis: dict[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values; an undefined number is null. No patient's id, label or score is in it."""
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
            "test_measurements": self.test_measurements,
            "history": self.history,
        }

    @classmethod
    def from_dict(
        cls, values: Mapping[str, Any], *, model_id: str = ".", analysis: Mapping[str, Any] | None = None
    ) -> "Report":
        """Read what `to_dict` gave, or an earlier version's metrics.json, and what analysis.json has.

        Raises:
            ValueError: it is not a run's.
        """
        names = ("name", "protocol", "calibration", "training", "environment")
        missing = sorted({*names, "test", "validation", "history"} - set(values))
        if missing:
            raise ValueError(f"not the metrics.json of a run: it has no {', '.join(missing)}")
        values = modern_figures(values)
        return cls(
            model_id=model_id,
            test=EvaluationReport.from_dict(values["test"]),
            validation=EvaluationReport.from_dict(values["validation"]),
            history=[
                {key: math.nan if value is None else value for key, value in entry.items()}
                for entry in values["history"]
            ],
            stock_pipeline=values.get("stock_pipeline") or {},
            test_measurements=values.get("test_measurements"),
            analysis=dict(analysis or {}),
            **{name: values[name] for name in names},
        )

    def headline(self) -> str:
        """Every macro metric on test with its interval, in one line."""
        return headline(self.test)

    def tier_of(self) -> dict[str, str]:
        """By finding, whether it is head, medium or tail by its positive training images; {} if all are the same."""
        positives = self.protocol.get("training_positives")
        tiers = LabelSpace(self.test.label_names).tiers(positives) if positives else {}
        return dict(tiers) if len(set(tiers.values())) > 1 else {}

    def cautions(self) -> list[str]:
        """What a reader must not overlook, in order of weight."""
        protocol, test = self.protocol, self.test
        cautions = data_cautions(protocol)
        if protocol["selection"].endswith("was never defined"):
            cautions.append(
                f"No checkpoint was chosen; the weights are those of the {protocol['selection']} in any epoch."
            )
        if test.undefined():
            cautions.append(
                "One label value only in the test set, so these findings have no ranking metric and are left out of "
                f"the means: {', '.join(test.undefined())}."
            )
        never = [
            name
            for name, count in zip(test.label_names, protocol.get("training_positives", ()), strict=False)
            if count == 0
        ]
        if never:
            cautions.append(f"No positive training image, so the model never learned: {', '.join(never)}.")
        cautions += [*equal_scores(test), *few_patients(positive_patients(test), test.counts["all"].patients)]
        return [*cautions, *_calibration_cautions(protocol["calibration_exceptions"]), NOT_A_DEVICE]

    def protocol_facts(self) -> Facts:
        """What was done, a pair a line."""
        protocol, training = self.protocol, self.training
        speed = "–" if training["images_per_second"] is None else f"{training['images_per_second']:.1f}"
        stopped = ", stopped early" if training.get("stopped_early") else ""
        best = "" if training["best_epoch"] is None else f", checkpoint of epoch {training['best_epoch']:g} kept"
        smoothing = protocol["loss"].get("label_smoothing")
        memory = training["peak_memory_gib"]
        return Facts(
            (
                *split_facts(protocol),
                *network_facts(protocol, training),
                ("loss", component(protocol["loss"]["name"], protocol["loss"]["options"])),
                *([("label smoothing", f"{smoothing:g}")] if smoothing else []),
                ("class weights", protocol["loss"]["class_weights_kind"]),
                ("sampler", component(protocol["sampler"]["name"], protocol["sampler"]["options"])),
                *_recipe_facts(protocol.get("recipe") or {}),
                *(
                    [("augmentation", augmentation_words(protocol["augmentation"]))]
                    if "augmentation" in protocol
                    else []
                ),
                *_stage_facts(protocol["stages"], training, (protocol.get("network") or {}).get("batch_norm")),
                ("training", f"{training['epochs']:g} epochs{stopped}{best}; selection: {protocol['selection']}"),
                ("calibration", protocol["calibration"] or "none"),
                ("operating points", protocol.get("operating_points") or "none"),
                ("seed", str(protocol["seed"])),
                *([("resumed from", training["resumed_from"])] if training["resumed_from"] else []),
                ("speed", f"{speed} images/s in training on {self.environment['device']}"),
                ("peak memory", "–" if memory is None else f"{memory:.1f} GiB"),
            )
        )

    def document(self) -> Document:
        """All of it; its figures lie in figures/ next to it."""
        protocol, tier_of = self.protocol, self.tier_of()
        blocks = (
            Text(f"Test: {self.headline()}", strong=True),
            Note(tuple(self.cautions())),
            Heading("Protocol"),
            self.protocol_facts(),
            Heading("Test set, each finding"),
            *evaluation_blocks(self.test, tier_of),
            *further_blocks(self.test, tier_of),
            *section_blocks(self.analysis, self.test.counts["all"].patients),
            *published(protocol["dataset"], self._row_of_published()),
            Heading("Limits"),
            Note((self._validation_words(), *self._limits()), warning=False),
            Heading("Appendix"),
            *self._appendix(),
        )
        return Document(self.name, blocks, self.to_dict(), records(self.test))

    def draw(self, folder: Path) -> list[str]:
        """Draw every picture of the page to its place below the folder of the run, and give the paths."""
        drawn = draw_sections(self.analysis, folder)
        training = plots.training_curves(self.history, self.training["best_epoch"])
        plots.save(training, folder / TRAINING_CURVES.path)
        return [*drawn, TRAINING_CURVES.path]

    def _appendix(self) -> tuple[Block, ...]:
        environment = Facts(tuple((name, str(value)) for name, value in self.environment.items()))
        return (
            Details("Training: losses and validation metrics over the epochs", (TRAINING_CURVES,)),
            Details(
                "Validation set, each finding",
                (Text(self._validation_words()), findings_table(self.validation, tier_of=self.tier_of())),
            ),
            Details("Environment", (environment,)),
            *checklist_blocks(Evidence.of(self)),
        )

    def _validation_words(self) -> str:
        chose = "chose the checkpoint" * self.protocol["selection"].startswith("best")
        fitted = "fitted the calibration" * bool(self.protocol["calibration"])
        did = " and ".join(filter(None, (chose, fitted)))
        if not did:
            words = "The validation set chose nothing and fitted nothing."
        else:
            words = f"The validation set {did}, so its figures are optimistic: expect worse ones on new patients."
        return f"{words} {measurement_words(self.test_measurements)}".rstrip()

    def _limits(self) -> list[str]:
        return limits(self.protocol["dataset"], synthetic=self.protocol["synthetic"], own_split=True)

    def _row_of_published(self) -> tuple[str, str, str, str] | None:
        """This run among published systems, if its test set is the whole of the list that they share."""
        protocol, macro = self.protocol, self.test.headline().get("auc")
        part = protocol["missing_images"] or protocol.get("unreadable_images") or protocol["labels_shuffled"]
        official = (protocol["splits_from"] or "").startswith(OFFICIAL_LIST) and not protocol.get("split_file")
        if part or not official or macro is None or self.test.counts["all"].images != OFFICIAL_TEST:
            return None
        network = next((text for name, text in network_facts(protocol, self.training) if name == "network"), "–")
        return (f"this run ({self.name})", network, protocol["initial_weights"], with_interval(*macro.macro_interval))

    def summary(self, run_dir: Path) -> str:
        """What the terminal shows at the end of a run."""
        example = self.stock_pipeline
        blocks = [Text(f"Test: {self.headline()}"), Note(tuple(self.cautions()))]
        if "scores" in example:
            labels = ", ".join(example["labels"]) or "No Finding"
            scores = [(name, number(score)) for name, score in list(example["scores"].items())[:5]]
            difference = f"{example['largest_difference']:.1e}"
            blocks += [
                Heading(f"The stock pipeline('image-classification') on test image {example['image_id']} ({labels}):"),
                Table.of(
                    ("finding", "probability"),
                    scores,
                    f"Largest difference to the evaluation, over {example['images']} images: {difference}",
                ),
            ]
        load = f"pipeline('image-classification', model='{run_dir}', top_k={len(self.test.label_names)})"
        if (run_dir / CONFIG).is_file() and read_json(run_dir / CONFIG).get("model_type") in SYSTEMS:
            load = f"{load} after hf_cxr.register()"
        blocks += [Text(f"Report: {run_dir / 'report.html'}"), Text(f"Model: {run_dir} (load it with {load})")]
        blocks += [Text(f"Hub: {self.hub_url}")] if self.hub_url else []
        return Document(self.name, tuple(blocks)).to_terminal()


def _calibration_cautions(exceptions: Mapping[str, str]) -> list[str]:
    """Which findings are not calibrated as the others are, by the reason."""
    without = [name for name, reason in exceptions.items() if reason.startswith("identity")]
    unranked = [name for name, reason in exceptions.items() if "not above zero" in reason]
    shifted = [name for name in exceptions if name not in (*without, *unranked)]
    sentences = {
        "On validation the scores do not rank these findings, or rank them the wrong way round, so their slope was "
        "not calibrated": unranked,
        "Too few validation positives or negatives to calibrate the slope of": shifted,
        "Not calibrated, because validation has no known label of": without,
    }
    return [f"{sentence}: {', '.join(names)}." for sentence, names in sentences.items() if names]


def _recipe_facts(recipe: Mapping[str, Any]) -> list[tuple[str, str]]:
    decay, head = recipe.get("layer_decay", 1), recipe.get("head_learning_rate")
    frozen, alpha = recipe.get("freeze_backbone_epochs"), recipe.get("mixup_alpha")
    words = {
        "layer decay": decay != 1 and f"learning rate times {decay:g} with each layer towards the input",
        "learning rate of the classifier": head and f"{head:g}",
        "backbone": frozen and f"trained after {plural(frozen, 'epoch')} of the classifier alone",
        "mixup": alpha and f"of two images and their labels, alpha {alpha:g}",
    }
    return [(name, text) for name, text in words.items() if text]


def _stage_facts(
    stages: Mapping[str, Any], training: Mapping[str, Any], batch_norm: Mapping[str, Any] | None
) -> list[tuple[str, str]]:
    words = {
        "deferred re-weighting": stages["reweight_from_epoch"] is not None
        and _reweighting(stages["reweight_from_epoch"], training),
        "weights": stages["ema_decay"] is not None
        and f"exponential moving average, decay {stages['ema_decay']:g}, with warm-up"
        + ("; batch norm with the averages of the weights in training" if batch_norm else ""),
        "second stage": stages["freeze_backbone"] and "the classifier alone was trained, on a frozen backbone",
        "over-sampling in feature space": stages["feature_oversampling"] is not None
        and f"between an image drawn again and one of its {stages['feature_oversampling']} nearest",
        "classifier": not stages["reinitialize_head"] and "continued from that of the initial weights",
    }
    return [(name, text) for name, text in words.items() if text]


def _reweighting(start: int, training: Mapping[str, Any]) -> str:
    """What deferred re-weighting did, to the weights that were kept."""
    kept = training["best_epoch"]
    if training["epochs"] <= start:
        return f"class weights did not act: training ended before epoch {start}, counted from 0"
    before = f"; the checkpoint kept, of epoch {kept:g}, is from before" if kept is not None and kept <= start else ""
    return f"class weights act from epoch {start} on, counted from 0{before}"
