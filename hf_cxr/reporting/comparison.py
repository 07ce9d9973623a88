"""The report of a comparison: read from run folders, as Markdown, LaTeX, CSV, JSON and one self-contained HTML page.

Refused: runs that were not measured on the same images, labels and split, or not on the same kind of training data.

What is said in words is computed from the numbers: which methods differ from the baseline beyond chance after the
correction, or that none does.

C = findings, N = images, K = points of a curve.
"""

import base64
import csv
import html
import json
import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml

from hf_cxr.arguments.components import flattened
from hf_cxr.arguments.spelling import modern_values
from hf_cxr.evaluation import format_number
from hf_cxr.evaluation.calibration import Calibration
from hf_cxr.evaluation.comparison import Comparison, Difference, Estimate, MethodFigures, compare_methods
from hf_cxr.evaluation.metrics import average_precision, macro, mean_predicted_probability, roc_auc
from hf_cxr.files import plain, replacing, write_json, write_text
from hf_cxr.labels import LabelSpace
from hf_cxr.losses import MultiLabelLoss, build_loss
from hf_cxr.predictions import Predictions
from hf_cxr.reporting import plots
from hf_cxr.reporting.run import PUBLISHED_NIH14, STYLE, disjoint_by_patient, html_picture, html_table
from hf_cxr.words import markdown

TIERS = ("head", "medium", "tail")
METRICS = {"auc": "AUC", "ap": "mAP"}
FEW_PATIENTS = 20
LEAST_IN_TIER = 50  # positive test patients of a tier's findings, added up, before methods are compared within it
FEW_SEEDS = 5
LEAST_DRAWS = 0.5  # share of draws that must define a difference before it is called one

# Of the reference study: method, macro AUC, mAP. Its other four rows, and single findings, are not at hand.
REFERENCE_STUDY = (
    ("the reference study (Swin-B, BCE)", 0.804, 0.268),
    ("the reference study (Swin-B, class-aware loss)", 0.874, 0.338),
)

# What must be one for all runs, beside images and labels.
SHARED = (
    "dataset",
    "split_fingerprint",
    "splits",
    "training_positives",
    "training_known",
    "labels_shuffled",
    "training_images_limited_to",
)


@dataclass(frozen=True)
class TunedPoint:
    """One point of a tuning grid and its validation figures, NaN where its run is not finished."""

    values: dict[str, Any]
    validation: dict[str, float]
    figure: float


@dataclass(frozen=True, eq=False)
class FinishedRun:
    """What a run folder holds, as far as a comparison needs it."""

    folder: Path
    metrics: dict[str, Any]
    config: dict[str, Any]
    validation: Predictions
    test: Predictions

    @classmethod
    def read(cls, folder: str | Path) -> "FinishedRun":
        folder = Path(folder)
        if not (folder / "metrics.json").is_file():
            raise FileNotFoundError(f"{folder} holds no finished run: there is no metrics.json")
        return cls(
            folder,
            json.loads((folder / "metrics.json").read_text(encoding="utf-8")),
            modern_values(yaml.safe_load((folder / "config.yaml").read_text(encoding="utf-8"))),
            *(Predictions.load(folder / "predictions" / f"{split}.parquet") for split in ("validation", "test")),
        )


@dataclass(frozen=True, eq=False)
class ComparisonReport:
    """Everything that the written report says; made by `build_report`.

    Attributes:
        runs: method -> seed -> run; of finished runs only.
        test: figures with spreads and differences.
        tiers: tier -> names of its findings, without those that have no AUC in the test set.
        thresholds: positive training images from which a finding is head, and below which it is tail.
        tuned: method -> points of its grid; empty if nothing was tuned.
        missing: name of a run that failed -> why.
    """

    name: str
    runs: dict[str, dict[int, FinishedRun]]
    test: Comparison
    label_names: tuple[str, ...]
    tiers: dict[str, tuple[str, ...]]
    thresholds: dict[str, int]
    tuned: dict[str, list[TunedPoint]]
    tuned_by: str | None
    missing: dict[str, str]

    @property
    def protocol(self) -> dict[str, Any]:
        """What all runs share: the protocol of the baseline's first."""
        return self._first(self.test.baseline).metrics["protocol"]

    @property
    def seeds(self) -> dict[str, list[int]]:
        return {method: list(runs) for method, runs in self.runs.items()}

    def _first(self, method: str) -> FinishedRun:
        return next(iter(self.runs[method].values()))

    def metric(self, key: str) -> dict[str, MethodFigures]:
        """Figures by method; "auc" or "ap"."""
        return {"auc": self.test.auc, "ap": self.test.ap}[key]

    def ranks(self, key: str) -> dict[str, int]:
        """1 for the method of the highest figure; equal figures share a rank."""
        means = {method: figures.overall.mean for method, figures in self.metric(key).items()}
        return {method: 1 + sum(other > mean for other in means.values()) for method, mean in means.items()}

    def different(self, key: str) -> list[str]:
        """Methods whose corrected p value is below 1 - confidence, if enough draws define it."""
        return [
            method
            for method, difference in self.compared(key).items()
            if self._testable(difference) and difference.p_corrected < 1 - self.test.confidence
        ]

    def compared(self, key: str) -> dict[str, Difference]:
        """The differences to the baseline by method."""
        return {m: f.difference for m, f in self.metric(key).items() if f.difference is not None}

    def _testable(self, difference: Difference) -> bool:
        return difference.draws >= LEAST_DRAWS * self.test.resamples

    def conclusions(self) -> list[str]:
        """What the figures support, and what not, in words."""
        sentences = [self._conclusion(key) for key in METRICS] if len(self.runs) > 1 else []
        for key, name in METRICS.items():
            best = [method for method, rank in self.ranks(key).items() if rank == 1]
            sentences.append(f"Highest {_long(name)} in this sample: {', '.join(best)}.")
        if len(self.runs) > 1 and not any(map(self.different, METRICS)):
            sentences.append(
                "So this comparison does not say which method is better. The order in the table is that of this "
                "sample and may be another with other patients or other seeds; it does not show that the methods are "
                "equally good either."
            )
        sentences += self.tier_conclusions()
        overlap = all(_overlap([figures.overall for figures in self.metric(key).values()]) for key in METRICS)
        if len(self.runs) > 1 and overlap:
            sentences.append(
                "The intervals of all methods overlap, in AUC and in mAP; the paired differences are the sharper test."
            )
        chance = [method for method, figures in self.test.auc.items() if figures.overall.low <= 0.5]
        if chance:
            sentences.append(
                f"The AUC interval of {', '.join(chance)} does not lie above 0.5: not shown to be better than chance. "
                "Losses cannot be told apart on models that have learnt so little."
            )
        return sentences

    def tier_conclusions(self) -> list[str]:
        """For each tier and metric, which methods differ from the baseline within it."""
        sentences, baseline = [], self.test.baseline
        for tier in self.tested_tiers():
            for key, name in METRICS.items():
                within = f"On {tier} findings by {_long(name)},"
                compared = {m: f.group_differences[tier] for m, f in self.metric(key).items() if f.group_differences}
                testable = {
                    method: difference for method, difference in compared.items() if self._testable(difference)
                }
                told = {m: d for m, d in testable.items() if d.p_corrected < 1 - self.test.confidence}
                words = "; ".join(f"{method} ({_difference_words(difference)})" for method, difference in told.items())
                if not testable:
                    sentences.append(f"{within} nothing can be tested: most draws of patients lack some finding.")
                elif told:
                    rest = " The others do not." if len(told) < len(compared) else ""
                    sentences.append(f"{within} these differ from {baseline}: {words}.{rest}")
                else:
                    sentences.append(f"{within} no method differs from {baseline}, after correction.")
        untested = [tier for tier in self.tiers if tier not in self.tested_tiers()]
        if untested and len(self.runs) > 1:
            sentences.append(
                f"Not tested, because fewer than {LEAST_IN_TIER} test patients have them, all findings of the tier "
                f"added up: {', '.join(untested)} findings."
            )
        return sentences

    def tested_tiers(self) -> list[str]:
        """Tiers whose findings have `LEAST_IN_TIER` positive test patients, added up: with fewer, none is tested."""
        tested = {tier for figures in self.test.auc.values() for tier in figures.group_differences}
        return [tier for tier in TIERS if tier in tested]

    def _tier_comparisons(self) -> int:
        return (len(self.runs) - 1) * len(self.tested_tiers())

    def _conclusion(self, key: str) -> str:
        name, baseline = _long(METRICS[key]), self.test.baseline
        level, count = f"{1 - self.test.confidence:.0%}", len(self.runs) - 1
        comparisons = f"{count} comparison{'s' * (count > 1)}"
        compared = self.compared(key)
        told = [f"{method} ({_difference_words(compared[method])})" for method in self.different(key)]
        if told:
            rest = [method for method in compared if method not in self.different(key)]
            tail = f" The others do not: {', '.join(rest)}." if rest else ""
            unsteady = [method for method in self.different(key) if not _one_sign(compared[method])]
            if unsteady:
                tail += f" Not of one sign in all seeds, so the chance of training may be all: {', '.join(unsteady)}."
            return (
                f"By {name}, beyond the chance of which patients are in the test set (p below {level} after "
                f"correction for {comparisons}), these differ from {baseline}: {'; '.join(told)}.{tail}"
            )
        defined = {method: difference for method, difference in compared.items() if self._testable(difference)}
        if not defined:
            return (
                f"By {name}, nothing can be tested: in most draws of patients some finding has no positive. The test "
                "set is too small."
            )
        nearest = min(defined, key=lambda method: defined[method].p)
        return (
            f"By {name}, no method differs from {baseline} beyond the chance of which patients are in the test set, "
            f"at the {level} level after correction for {comparisons}. The nearest is {nearest}: "
            f"{_difference_words(defined[nearest])}."
        )

    def cautions(self) -> list[str]:
        """What a reader must not overlook."""
        protocol, test = self.protocol, self.test
        cautions = []
        if protocol["synthetic"]:
            cautions.append("The images are synthetic phantoms: the figures say nothing about any patient.")
        if self.missing:
            cautions.append(f"Runs that failed and are missing from the figures: {'; '.join(self.missing)}.")
        if protocol["labels_shuffled"]:
            cautions.append("The training labels were shuffled on purpose: the figures are the floor of chance.")
        if protocol["missing_images"]:
            counts = ", ".join(f"{count:,} in {name}" for name, count in protocol["missing_images"].items())
            cautions.append(
                f"Images missing from the folder were skipped ({counts}): the rest is no random sample of the data "
                "set, prevalences are not natural, and no figure here is one of the data set."
            )
        if protocol.get("unreadable_images"):
            counts = ", ".join(f"{count:,} in {name}" for name, count in protocol["unreadable_images"].items())
            cautions.append(f"Images that cannot be read were left out ({counts}): these are not the full splits.")
        cautions.append(f"The test set has {test.n_images:,} images of {test.n_patients:,} patients.")
        few = [
            f"{finding['name']} ({finding['positive_patients']})"
            for finding in self._first(test.baseline).metrics["test"]["findings"]
            if 0 < finding["positive_patients"] < FEW_PATIENTS
        ]
        if few:
            cautions.append(
                f"Fewer than {FEW_PATIENTS} test patients have these findings: {', '.join(few)}. Each weighs as much "
                "in the means as the others, and intervals and p values are optimistic."
            )
        if test.undefined:
            names = ", ".join(self.label_names[column] for column in test.undefined)
            cautions.append(f"One label value only in the test set, so left out of every mean: {names}.")
        draws = [difference.draws for key in METRICS for difference in self.compared(key).values()]
        if draws and min(draws) < test.resamples:
            cautions.append(
                f"{test.resamples - min(draws):,} of {test.resamples:,} draws had no positive of some finding and "
                "have no mean; intervals and p values come from the others."
            )
        if len(self.runs) > 2:
            cautions.append(
                f"Each method was tested against {test.baseline} only: between the others a higher figure shows "
                "nothing by itself, and the highest of several is partly luck and tends to be lower in new patients."
            )
        steps = {method: self._first(method).metrics["training"].get("steps") for method in self.runs}
        if len(set(steps.values())) > 1:
            counts = ", ".join(f"{method} {count:,}" for method, count in steps.items())
            cautions.append(
                f"The methods did not take as many optimizer steps ({counts}): a difference may be that of more or "
                "less training."
            )
        cautions.append(self._seed_words())
        cautions.append(self._tuning_words())
        cautions.append("Not a medical device. Not for diagnosis or treatment.")
        return cautions

    def _seed_words(self) -> str:
        most = max(len(seeds) for seeds in self.seeds.values())
        if most == 1:
            return (
                "One seed: how figures move when training is repeated is not known, and intervals and p values, which "
                "are about other test patients, do not hold it."
            )
        return (
            f"The standard deviation over {most} seeds is not the interval: it says how figures move when training is "
            "repeated on the same data, the interval and the p value how they move with other test patients. Neither "
            "holds the other"
            + (
                f", and {most} seeds give a rough standard deviation: of two equal methods one is higher in all of "
                f"them by luck alone in 1 of {2 ** (most - 1)} comparisons."
                if most < FEW_SEEDS
                else "."
            )
        )

    def _tuning_words(self) -> str:
        if not self.tuned:
            return (
                "Nothing was tuned: learning rate and weight decay are what the methods were given, and may suit one "
                "better than another. What else they differ in stands under Settings."
            )
        points = next(iter(self.tuned.values()))
        grid = " and ".join(points[0].values)
        words = (
            f"Chosen for each method by validation {'macro AUC' if self.tuned_by == 'auc' else 'mAP'}: {grid}, among "
            f"{len(points)} combinations, one run each ({len(points) * len(self.tuned)} tuning runs, which predicted "
            "no test image)."
        )
        if any(len({str(point.values[key]) for point in points}) == 2 for key in points[0].values):
            words += " Two values of a key are a coarse grid: a finer or wider one may serve a method better."
        edge = self._at_the_edge()
        return words + (
            f" The best value lies at the edge of the grid, and a wider one may serve better: {'; '.join(edge)}."
            if edge
            else ""
        )

    def _at_the_edge(self) -> list[str]:
        edge = []
        for method, points in self.tuned.items():
            if method not in self.runs:  # its tuning may not be complete
                continue
            best = max(points, key=lambda point: point.figure).values
            for key, value in best.items():
                values = sorted({str(point.values[key]) for point in points}, key=_as_number)
                if len(values) > 2 and str(value) in (values[0], values[-1]):
                    edge.append(f"{method} ({key} {value})")
        return edge

    def headline(self) -> str:
        test = self.test
        return (
            f"{len(self.runs)} methods, {sum(map(len, self.runs.values()))} runs, {test.n_images:,} test images of "
            f"{test.n_patients:,} patients of {self.protocol['dataset']}"
        )

    def summary(self, out: Path) -> str:
        """What the terminal prints at the end."""
        lines = ["", _text_table(self.main_table()), ""]
        lines += [*self.conclusions(), "", *(f"  ! {caution}" for caution in self.cautions()), ""]
        return "\n".join([*lines, f"Report: {out / 'comparison.html'} (also .md, .tex, .csv, .json, figures/)"])

    # Tables: a head and rows of words, which each format writes in its own way.

    def main_table(self) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
        percent = f"{self.test.confidence:.0%}"
        figures = [(f"{name} ± sd", f"{percent} interval", "rank") for name in ("macro AUC", "mAP")]
        head = ("method", "seeds", *figures[0], *figures[1])
        rows = []
        for method in self.runs:
            cells = [method, str(len(self.runs[method]))]
            for key in METRICS:
                overall = self.metric(key)[method].overall
                cells += [_mean_sd(overall), _interval(overall.low, overall.high), str(self.ranks(key)[method])]
            rows.append(tuple(cells))
        return head, rows

    def difference_table(self) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
        head = (f"minus {self.test.baseline}",)
        for name in METRICS.values():
            head += (f"{name} difference (interval)", "p", "p corrected", "seeds above")
        rows = []
        for method in self.runs:
            cells = [method]
            for key in METRICS:
                cells += _difference_cells(self.metric(key)[method].difference)
            rows.append(tuple(cells))
        return head, [row for row in rows if row[0] != self.test.baseline]

    def tier_table(self) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
        shown = [tier for tier in TIERS if tier in self.tiers]
        head = ("method", *(f"{tier} {name} (interval)" for name in METRICS.values() for tier in shown))
        rows = []
        for method in self.runs:
            estimates = [self.metric(key)[method].groups[tier] for key in METRICS for tier in shown]
            rows.append((method, *(f"{_mean_sd(one)} ({_interval(one.low, one.high)})" for one in estimates)))
        return head, rows

    def tier_difference_table(self) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
        head = (f"minus {self.test.baseline}", "tier")
        for name in METRICS.values():
            head += (f"{name} difference (interval)", "p", "p corrected", "seeds above")
        rows = []
        for tier in self.tested_tiers():
            for method in (method for method in self.runs if method != self.test.baseline):
                cells = [_difference_cells(self.metric(key)[method].group_differences[tier]) for key in METRICS]
                rows.append((method, tier, *(cell for part in cells for cell in part)))
        return head, rows

    def tier_words(self) -> str:
        """Which findings are in which tier, and why."""
        parts = [
            f"{tier}: {', '.join(name.replace('_', ' ') for name in self.tiers[tier])}"
            for tier in TIERS
            if tier in self.tiers
        ]
        return (
            f"Tiers by positive training images (head from {self.thresholds['head']:,}, tail below "
            f"{self.thresholds['tail']:,}). {'; '.join(parts)}."
        )

    def finding_table(self, key: str) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
        positives = dict(zip(self.label_names, self.protocol["training_positives"], strict=True))
        tested = {finding["name"]: finding for finding in self._first(self.test.baseline).metrics["test"]["findings"]}
        chance = {
            name: (format_number(finding["prevalence"] or 0.0),) * (key == "ap") for name, finding in tested.items()
        }
        head = ("finding", "train +", "test + (patients)", *(("chance",) * (key == "ap")), *self.runs)
        rows = [
            (
                name.replace("_", " "),
                f"{positives[name]:,}",
                f"{tested[name]['positives']:,} ({tested[name]['positive_patients']:,})",
                *chance[name],
                *(format_number(self.metric(key)[method].finding_C[column]) for method in self.runs),
            )
            for column, name in enumerate(self.label_names)
        ]
        return head, rows

    def settings_table(self) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
        """What each method's runs used: loss, options, tuned keys, what else is its own, validation figures."""
        keys = self._tuned_keys()
        own = {method: self._own_settings(method) for method in self.runs}
        more = (f"other than {self.test.baseline} in",) * any(own.values())
        head = ("method", "loss", "class weights", *keys, *more, "validation AUC", "validation mAP")
        rows = []
        for method in self.runs:
            run = self._first(method)
            loss = run.metrics["protocol"]["loss"]
            options = ", ".join(f"{key} {value}" for key, value in loss["options"].items() if value is not None)
            rows.append(
                (
                    method,
                    f"{loss['name']} ({options})" if options else loss["name"],
                    str(loss["class_weights_kind"]),
                    *(str(flattened(run.config)[key]) for key in keys),
                    *(own[method] or "–",) * len(more),
                    *(format_number(value) for value in self.validation_figures(method)),
                )
            )
        return head, rows

    def _tuned_keys(self) -> list[str]:
        return list(next(iter(self.tuned.values()))[0].values) if self.tuned else ["learning_rate", "weight_decay"]

    def _own_settings(self, method: str) -> str:
        """The keys in which a method differs from the baseline, without its loss's, the tuned and the run's own."""
        base, own = (flattened(self._first(name).config) for name in (self.test.baseline, method))
        apart = {"output_dir", "seed", "loss", *(key for key in own if key.startswith("loss_kwargs"))}
        apart |= {*self._tuned_keys()}
        return ", ".join(f"{key} {own[key]}" for key in own if key not in apart and own[key] != base.get(key))

    def validation_figures(self, method: str) -> tuple[float, float]:
        """Macro AUC and mAP on validation, mean over seeds: what chose the checkpoints, so optimistic."""
        runs = [run.validation for run in self.runs[method].values()]
        return tuple(
            float(np.mean([macro(measure(run.logits, run.labels)) for run in runs]))
            for measure in (roc_auc, average_precision)
        )

    def published_table(self) -> tuple[tuple[str, ...], list[tuple[str, ...]]] | None:
        if self.protocol["dataset"] != "ChestX-ray14":
            return None
        study = [name for name, *_ in REFERENCE_STUDY]
        protocol = next(protocol for name, _, protocol in PUBLISHED_NIH14 if name == study[-1])
        rows = [(name, f"{auc:.3f}", f"{ap:.3f}", protocol) for name, auc, ap in REFERENCE_STUDY]
        rows += [(name, f"{auc:.3f}", "–", of) for name, auc, of in PUBLISHED_NIH14 if name not in study]
        return ("published", "macro AUC", "mAP", "protocol"), rows

    def protocol_rows(self) -> list[tuple[str, str]]:
        protocol, first = self.protocol, self._first(self.test.baseline)
        splits = ", ".join(
            f"{name} {size['images']:,} images of {size['patients']:,} patients"
            for name, size in protocol["splits"].items()
        )
        environment = first.metrics["environment"]
        same = not any(self._own_settings(method) for method in self.runs)
        return [
            (
                "settings",
                "of every run" if same else f"of {self.test.baseline}; what others change: see Settings",
            ),
            ("data", protocol["dataset"]),
            (disjoint_by_patient(protocol), splits),
            ("split fingerprint", protocol["split_fingerprint"]),
            ("initial weights", protocol["initial_weights"]),
            ("parameters", f"{first.metrics['training']['parameters']:,}"),
            ("image size", f"{first.config['image_size']} pixels"),
            ("epochs", f"{first.config['num_train_epochs']:g}; {protocol['selection']}"),
            ("head bias at the start", first.config["head_bias"].replace("_", " ")),
            ("calibration", protocol["calibration"] or "none"),
            ("seeds", "; ".join(f"{method}: {', '.join(map(str, seeds))}" for method, seeds in self.seeds.items())),
            (
                "intervals and p values",
                f"{self.test.resamples:,} bootstrap draws of patients, paired over all runs; p values two-sided, "
                f"corrected by Holm for {len(self.runs) - 1} comparisons, AUC and mAP each by itself; within tiers "
                f"for {self._tier_comparisons()}",
            ),
            ("software", f"hf_cxr {environment['hf_cxr']}, torch {environment['torch']}, {environment['device']}"),
        ]

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values; a figure that is undefined is null."""
        methods = {}
        for method in self.runs:
            figures = {}
            for key in METRICS:
                measured = self.metric(key)[method]
                figures[key] = {
                    **_estimate_dict(measured.overall),
                    "rank": self.ranks(key)[method],
                    "tiers": {tier: _estimate_dict(estimate) for tier, estimate in measured.groups.items()},
                    "findings": dict(zip(self.label_names, measured.finding_C.tolist(), strict=True)),
                    "difference": measured.difference and _difference_dict(measured.difference),
                    "tier_differences": {t: _difference_dict(d) for t, d in measured.group_differences.items()},
                }
            validation = dict(zip(METRICS, self.validation_figures(method), strict=True))
            runs = {str(seed): str(run.folder) for seed, run in self.runs[method].items()}
            methods[method] = figures | {"validation": validation, "runs": runs}
        return plain(
            {
                "name": self.name,
                "baseline": self.test.baseline,
                "methods": methods,
                "conclusions": self.conclusions(),
                "cautions": self.cautions(),
                "tiers": self.tiers,
                "thresholds": self.thresholds,
                "tuned_by": self.tuned_by,
                "tuned": {method: [asdict(point) for point in points] for method, points in self.tuned.items()},
                "missing": self.missing,
                "protocol": self.protocol,
                "confidence": self.test.confidence,
                "resamples": self.test.resamples,
                "images": self.test.n_images,
                "patients": self.test.n_patients,
            }
        )

    def to_markdown(self) -> str:
        parts = [f"# {markdown(self.name)}: comparison", markdown(self.headline()) + ".", "## What it says"]
        parts += [_bullets(self.conclusions()), "## What to keep in mind", _bullets(self.cautions())]
        for title, table, note in self._sections():
            parts += [f"## {markdown(title)}", _markdown_table(table), markdown(note)]
        parts += ["## Protocol", _markdown_table((("", ""), self.protocol_rows()))]
        return "\n\n".join(part for part in parts if part) + "\n"

    def to_latex(self) -> str:
        """Tables for `\\input`, with booktabs and graphicx."""
        parts = [
            "% Tables of a comparison by hf_cxr. Needs \\usepackage{booktabs,graphicx}.",
            *(_latex_table(title, table, note) for title, table, note in self._sections()),
        ]
        return "\n\n".join(parts) + "\n"

    def to_html(self, figures: Path) -> str:
        """One self-contained page; the figures of the folder are embedded."""
        sections = []
        for title, table, note in self._sections():
            body = f"<p>{html.escape(note)}</p>" if note else ""
            sections.append(f"<h2>{html.escape(title)}</h2>{body}{html_table(*table)}")
        for stem, (title, note) in PICTURES.items():
            path = figures / f"{stem}.png"
            if path.is_file():
                data = base64.b64encode(path.read_bytes()).decode()
                sections.append(f"<h2>{html.escape(title)}</h2><p>{html.escape(note)}</p>{html_picture(data, title)}")
        return _PAGE.format(
            style=STYLE + _STYLE,
            name=html.escape(self.name),
            headline=html.escape(self.headline()),
            conclusions="".join(f"<li>{html.escape(sentence)}</li>" for sentence in self.conclusions()),
            cautions="".join(f"<li>{html.escape(caution)}</li>" for caution in self.cautions()),
            sections="".join(sections),
            protocol=html_table(("", ""), self.protocol_rows()),
        )

    def _sections(self) -> list[tuple[str, tuple, str]]:
        seeds = (
            "Mean over seeds ± standard deviation over seeds (n - 1); the interval is over test patients. With few "
            "positives that of mAP leans upwards: a patient who is drawn twice is two hits in a row."
        )
        sections = [("Methods", self.main_table(), seeds)]
        if len(self.runs) > 1:
            note = (
                "Paired by patient, means over seeds. p: two-sided; p corrected: by Holm, for each metric. Seeds "
                "above: runs with a higher figure than the baseline's run of the same seed."
            )
            sections.append((f"Differences to {self.test.baseline}", self.difference_table(), note))
        sections.append(("Head, medium and tail findings", self.tier_table(), self.tier_words()))
        if self.tested_tiers():
            note = (
                f"p corrected: by Holm for the {self._tier_comparisons()} comparisons of methods and tiers, for each "
                "metric."
            )
            title = f"Differences to {self.test.baseline}, head, medium and tail"
            sections.append((title, self.tier_difference_table(), note))
        for key, name in METRICS.items():
            title = f"{'Average precision' if key == 'ap' else name} of each finding"
            chance = " Chance is the prevalence in the test set." if key == "ap" else " Chance is 0.5."
            spread = " Intervals of single findings are in each run's own report; their order was not tested."
            sections.append((title, self.finding_table(key), "Mean over seeds." + chance + spread))
        note = "Validation figures chose checkpoints and settings: they are optimistic. "
        sections.append(("Settings", self.settings_table(), note + (self._tuning_words() if self.tuned else "")))
        published = self.published_table()
        if published:
            note = (
                "Not comparable with the tables above: other patients, other models, other training data. Copied, not "
                "measured here. The reference study's other rows and figures of single findings are not listed."
            )
            sections.append(("Published figures, with their protocols", published, note))
        return sections

    def write_csv(self, path: Path) -> None:
        """A row a method, plain numbers, empty where undefined."""
        rows = []
        for method in self.runs:
            row = {"method": method, "seeds": len(self.runs[method])}
            for key, name in (("auc", "auc"), ("ap", "map")):
                figures, difference = self.metric(key)[method], self.metric(key)[method].difference
                row |= {f"{name}_{field}": getattr(figures.overall, field) for field in ("mean", "sd", "low", "high")}
                row[f"{name}_rank"] = self.ranks(key)[method]
                for field in ("value", "low", "high", "p", "p_corrected"):
                    row[f"{name}_difference_{field}"] = getattr(difference, field) if difference else math.nan
                for tier, estimate in figures.groups.items():
                    row |= {f"{name}_{tier}_mean": estimate.mean, f"{name}_{tier}_sd": estimate.sd}
                    within = figures.group_differences.get(tier)
                    for field in ("value", "low", "high", "p_corrected"):
                        row[f"{name}_{tier}_difference_{field}"] = getattr(within, field) if within else math.nan
                row |= {
                    f"{name}/{finding}": value
                    for finding, value in zip(self.label_names, figures.finding_C.tolist(), strict=True)
                }
            rows.append({k: "" if isinstance(v, float) and math.isnan(v) else v for k, v in row.items()})
        with replacing(path) as beside, beside.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, fieldnames=list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)

    def figures(self) -> dict[str, Any]:
        """Every figure by name; see PICTURES."""
        drawn = {
            "roc": plots.roc_comparison(
                {method: [run.test.logits for run in runs.values()] for method, runs in self.runs.items()},
                self._first(self.test.baseline).test.labels,
                self.label_names,
                "ROC curves on test, averaged over seeds",
            ),
            "training": plots.training_comparison(
                {method: [run.metrics["history"] for run in runs.values()] for method, runs in self.runs.items()}
            ),
            "mean_probability": self._mean_probability(calibrated=False),
        }
        if len(self.runs) > 1:
            drawn["differences"] = self._difference_figure()
        losses = {"loss_by_method": self._loss_by_method(), "loss_by_prevalence": self._loss_by_prevalence()}
        drawn |= {name: figure for name, figure in losses.items() if figure is not None}
        if all(run.metrics["calibration"] for runs in self.runs.values() for run in runs.values()):
            drawn["mean_probability_calibrated"] = self._mean_probability(calibrated=True)
        return drawn

    def write(self, out: str | Path) -> None:
        """comparison.{md,tex,csv,html,json} and figures/*.{png,pdf}; comparison.json last."""
        out = Path(out)
        for name, figure in self.figures().items():
            for suffix in ("png", "pdf"):
                plots.save(figure, out / "figures" / f"{name}.{suffix}", dpi=150)
        write_text(out / "comparison.md", self.to_markdown())
        write_text(out / "comparison.tex", self.to_latex())
        self.write_csv(out / "comparison.csv")
        write_text(out / "comparison.html", self.to_html(out / "figures"))
        write_json(out / "comparison.json", self.to_dict())

    def _difference_figure(self):
        shown = {}
        for key, name in METRICS.items():
            compared = self.compared(key).items()
            shown[name] = {m: (d.value, d.low, d.high, list(d.by_seed.values())) for m, d in compared}
        title = (
            f"Difference to {self.test.baseline}, {self.test.confidence:.0%} intervals over patients, not corrected "
            "(ticks: single seeds)"
        )
        return plots.differences(shown, self.test.baseline, title)

    def _mean_probability(self, *, calibrated: bool):
        labels = self._first(self.test.baseline).test.labels
        means = {}
        for method, runs in self.runs.items():
            sides = [_mean_sides(run, calibrated=calibrated) for run in runs.values()]
            means[method] = tuple(np.mean(side, axis=0) for side in zip(*sides, strict=True))
        kind = "after calibration" if calibrated else "as trained, before calibration"
        title = f"Mean predicted probability on test, {kind}"
        return plots.mean_probability(means, np.nanmean(labels, axis=0), self.label_names, title)

    def _loss(self, method: str) -> MultiLabelLoss:
        """The method's loss as its runs built it: from the prevalences that their sampler draws."""
        config, told = self._first(method).config, self._first(method).metrics["protocol"]["loss"]
        with warnings.catch_warnings(action="ignore"):  # of findings without positives: the runs have told it
            loss = build_loss(
                config["loss"],
                positives_C=self.protocol["training_positives"],
                known_C=self.protocol["training_known"],
                **config.get("loss_kwargs", {}),
            )
        for name in ("prevalence", *loss.statistics):
            if told.get(name) is not None:
                loss.get_buffer(f"{name}_C").copy_(torch.tensor(told[name]))
        return loss

    def _by_frequency(self) -> list[int]:
        """Columns of the findings that have positive training images, frequent ones first."""
        positives_C = np.array(self.protocol["training_positives"])
        return [int(column) for column in np.argsort(-positives_C, kind="stable") if positives_C[column] > 0]

    def _prevalence(self, column: int) -> float:
        return self.protocol["training_positives"][column] / max(1, self.protocol["training_known"][column])

    def _loss_by_method(self):
        """Of every method whose loss has a value for a cell by itself; None if none does."""
        column = self._by_frequency()[len(self._by_frequency()) // 2]
        prob_K = np.linspace(0.002, 0.998, 499)
        losses = {method: self._loss(method) for method in self.runs}
        curves = {
            method: loss_curves(loss, column, prob_K) for method, loss in losses.items() if has_loss_of_a_cell(loss)
        }
        if not curves:
            return None
        title = (
            f"Losses of the methods, for {self.label_names[column].replace('_', ' ')} "
            f"(prevalence {self._prevalence(column):.1%}), without class weights"
        )
        return plots.loss_over_probability(curves, prob_K, title)

    def _loss_by_prevalence(self):
        """Of the last method whose loss depends on the prevalence; None if none does."""
        depends = [method for method in self.runs if self._loss(method).prevalence_C is not None]
        columns = self._by_frequency()
        if not depends or not columns:
            return None
        columns = [columns[place] for place in np.unique(np.linspace(0, len(columns) - 1, 5).round().astype(int))]
        prob_K = np.linspace(0.002, 0.998, 499)
        loss = self._loss(depends[-1])
        curves = {
            f"{self.label_names[column].replace('_', ' ')} ({loss.prevalence_C[column]:.1%})": loss_curves(
                loss, column, prob_K
            )
            for column in columns
        }
        title = f"{depends[-1]}: the loss of findings of different prevalence, without class weights"
        return plots.loss_over_probability(curves, prob_K, title, one_scale=False)


# Figure -> title and what to look for; in the order of the page.
PICTURES = {
    "differences": (
        "Differences in one picture",
        "Dots are differences of means over seeds, lines their intervals over test patients, ticks single seeds. An "
        "interval that crosses 0 shows no difference; those that do not are not yet corrected for their number.",
    ),
    "roc": ("ROC curves", "Sensitivity at equal specificity, averaged over seeds."),
    "mean_probability": (
        "Mean predicted probability, before calibration",
        "What a loss makes of the raw outputs. They need not be probabilities: the further the dots of a method lie "
        "from the prevalence, the more calibration has to do.",
    ),
    "mean_probability_calibrated": (
        "Mean predicted probability, after calibration",
        "What the saved models say. The wider the gap between present and absent, the better they separate.",
    ),
    "loss_by_method": (
        "The losses",
        "Loss of one cell over its predicted probability, from the code that trains; the image's other cells are "
        "negative. Losses that only compare cells with one another (two_way, zlpr) have no such curve.",
    ),
    "loss_by_prevalence": ("One loss, findings of different prevalence", "Frequent findings first."),
    "training": ("Training", "Bold: mean over seeds; thin: single runs. Heights of losses are not comparable."),
}


def build_report(
    name: str,
    folders: Mapping[str, Mapping[int, str | Path]],
    *,
    baseline: str,
    tuned: Mapping[str, list[TunedPoint]] | None = None,
    tuned_by: str | None = None,
    missing: Mapping[str, str] | None = None,
    tiers: Mapping[str, int] | None = None,
    resamples: int = 2000,
    confidence: float = 0.95,
    seed: int = 0,
) -> ComparisonReport:
    """Read finished run folders and compare them on test.

    Args:
        name: of the comparison.
        folders: method -> seed -> run folder; a method without any is left out.
        baseline: the method that the others are compared with.
        tuned, tuned_by, missing: see `ComparisonReport`.
        tiers: `head` and `tail` of `LabelSpace.tiers`.
        resamples, confidence, seed: of the bootstrap.

    Raises:
        FileNotFoundError: a folder without a finished run.
        ValueError: runs that cannot be compared, or no run of the baseline.
    """
    runs = {
        method: {seed: FinishedRun.read(folder) for seed, folder in by_seed.items()}
        for method, by_seed in folders.items()
        if by_seed
    }
    if baseline not in runs:
        raise ValueError(f"no finished run of the baseline {baseline}")
    first = next(iter(runs[baseline].values()))
    for by_seed in runs.values():
        for run in by_seed.values():
            check_comparable(first, run)
    label_names = first.test.label_names
    thresholds = {"head": 5000, "tail": 1000} | dict(tiers or {})
    tier_of = LabelSpace(label_names).tiers(first.metrics["protocol"]["training_positives"], **thresholds)
    undefined = np.isnan(roc_auc(first.test.logits, first.test.labels))
    members = {
        tier: [column for column, name in enumerate(label_names) if tier_of[name] == tier and not undefined[column]]
        for tier in TIERS
    }
    members = {tier: columns for tier, columns in members.items() if columns}
    patients_C = [finding["positive_patients"] for finding in first.metrics["test"]["findings"]]
    # Draws of a handful of patients are no measure of what other patients would show, however small their p value.
    tested = {tier for tier, columns in members.items() if sum(patients_C[c] for c in columns) >= LEAST_IN_TIER}
    test = compare_methods(
        {method: {seed: run.test.logits for seed, run in by_seed.items()} for method, by_seed in runs.items()},
        first.test.labels,
        first.test.patient_ids,
        baseline=baseline,
        groups=members,
        tested=tested,
        resamples=resamples,
        confidence=confidence,
        rng=np.random.default_rng(seed),
    )
    return ComparisonReport(
        name=name,
        runs=runs,
        test=test,
        label_names=label_names,
        tiers={tier: tuple(label_names[column] for column in columns) for tier, columns in members.items()},
        thresholds=thresholds,
        tuned=dict(tuned or {}),
        tuned_by=tuned_by,
        missing=dict(missing or {}),
    )


def check_comparable(first: FinishedRun, other: FinishedRun) -> None:
    """Refuse two runs that were not measured on the same images and labels, or not trained on the same."""
    for key in SHARED:
        if first.metrics["protocol"].get(key) != other.metrics["protocol"].get(key):
            raise ValueError(
                f"{first.folder} and {other.folder} cannot be compared: {key} is {first.metrics['protocol'].get(key)} "
                f"in one and {other.metrics['protocol'].get(key)} in the other"
            )
    for split in ("validation", "test"):
        one, two = getattr(first, split), getattr(other, split)
        same = {
            "findings": one.label_names == two.label_names,
            "images or their order": one.image_ids == two.image_ids,
            "patients": one.patient_ids == two.patient_ids,
            "labels": one.labels.shape == two.labels.shape and np.array_equal(one.labels, two.labels, equal_nan=True),
        }
        differ = [name for name, equal in same.items() if not equal]
        if differ:
            raise ValueError(
                f"{first.folder} and {other.folder} cannot be compared: their {split} sets differ in "
                f"{', '.join(differ)}"
            )


def has_loss_of_a_cell(loss: MultiLabelLoss) -> bool:
    """Whether a cell has a loss by itself, as it has not where cells are compared with one another."""
    return type(loss).forward is MultiLabelLoss.forward


def loss_curves(loss: MultiLabelLoss, column: int, prob_K: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The loss of a positive and of a negative cell of one finding, in nats, without its class weight, each (K,).

    The image's other cells are negative.

    Args:
        loss: as a run builds it; see `has_loss_of_a_cell`.
        column: of the finding.
        prob_K: predicted probabilities in (0, 1).
    """
    prob_K = torch.as_tensor(prob_K, dtype=torch.float64)
    count = next((len(buffer_C) for buffer_C in loss.buffers()), column + 1)
    logit_KC = torch.logit(prob_K)[:, None].expand(-1, count).contiguous()
    negative_KC = torch.zeros_like(logit_KC)
    positive_KC = negative_KC.clone()
    positive_KC[:, column] = 1
    with torch.no_grad():
        sides = [loss.elementwise(logit_KC, target_KC)[:, column] for target_KC in (positive_KC, negative_KC)]
    return tuple(side.numpy() for side in sides)


def _mean_sides(run: FinishedRun, *, calibrated: bool) -> tuple[np.ndarray, np.ndarray]:
    logits = run.test.logits.astype(np.float64)
    if run.metrics["calibration"] and not calibrated:
        calibration = Calibration.from_dict(run.metrics["calibration"])
        logits = (logits - calibration.intercept_C) / calibration.slope_C
    return mean_predicted_probability(1 / (1 + np.exp(-np.clip(logits, -700, 700))), run.test.labels)


def _estimate_dict(estimate: Estimate) -> dict[str, Any]:
    return asdict(estimate) | {"by_seed": {str(seed): value for seed, value in estimate.by_seed.items()}}


def _difference_dict(difference: Difference) -> dict[str, Any]:
    return asdict(difference) | {"by_seed": {str(seed): value for seed, value in difference.by_seed.items()}}


def _mean_sd(estimate: Estimate) -> str:
    if math.isnan(estimate.mean):
        return "undefined"
    return f"{estimate.mean:.3f}" + ("" if math.isnan(estimate.sd) else f" ± {estimate.sd:.3f}")


def _interval(low: float, high: float) -> str:
    return "undefined" if math.isnan(low) else f"{low:.3f}–{high:.3f}"


def _signed(value: float) -> str:
    return "undefined" if math.isnan(value) else f"{value:+.3f}".replace("-", "−")


def _p(value: float) -> str:
    if math.isnan(value):
        return "undefined"
    return "<0.001" if value < 0.001 else f"{value:.3f}" if value < 0.1 else f"{value:.2f}"


def _seeds_above(difference: Difference) -> str:
    return f"{sum(value > 0 for value in difference.by_seed.values())} of {len(difference.by_seed)}"


def _one_sign(difference: Difference) -> bool:
    return all(value * difference.value > 0 for value in difference.by_seed.values())


def _difference_cells(difference: Difference | None) -> list[str]:
    if difference is None:
        return ["", "", "", ""]
    interval = f"{_signed(difference.value)} ({_signed(difference.low)} to {_signed(difference.high)})"
    return [interval, _p(difference.p), _p(difference.p_corrected), _seeds_above(difference)]


def _difference_words(difference: Difference) -> str:
    return (
        f"{_signed(difference.value)}, interval {_signed(difference.low)} to {_signed(difference.high)}, corrected p "
        f"{_p(difference.p_corrected)}, higher in {_seeds_above(difference)} seeds"
    )


def _long(metric: str) -> str:
    return "macro AUC" if metric == "AUC" else metric


def _overlap(estimates: Sequence[Estimate]) -> bool:
    return max(estimate.low for estimate in estimates) <= min(estimate.high for estimate in estimates)


def _as_number(value: Any) -> tuple[int, float | str]:
    # YAML 1.1 reads 1e-4 as a word.
    try:
        return 0, float(value)
    except (TypeError, ValueError):
        return 1, str(value)


def _bullets(sentences: Sequence[str]) -> str:
    return "\n".join(f"- {markdown(sentence)}" for sentence in sentences)


def _text_table(table: tuple[Sequence[str], Sequence[Sequence[str]]]) -> str:
    lines = [table[0], *table[1]]
    widths = [max(len(line[column]) for line in lines) for column in range(len(table[0]))]
    return "\n".join("  ".join(f"{cell:<{width}}" for cell, width in zip(line, widths, strict=True)) for line in lines)


def _markdown_table(table: tuple[Sequence[str], Sequence[Sequence[str]]]) -> str:
    head, rows = table
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(map(markdown, line))} |" for line in lines)


def _latex_table(title: str, table: tuple[Sequence[str], Sequence[Sequence[str]]], note: str) -> str:
    head, rows = table
    columns = "l" * len(head)
    lines = [" & ".join(map(latex, row)) + " \\\\" for row in (head, *rows)]
    return "\n".join(
        [
            "\\begin{table}",
            "\\centering\\footnotesize\\setlength{\\tabcolsep}{3pt}",
            f"\\caption{{{latex(title)}. {latex(note)}}}",
            # Shrinks what is too wide, and nothing else.
            "\\resizebox{\\ifdim\\width>\\linewidth\\linewidth\\else\\width\\fi}{!}{%",
            f"\\begin{{tabular}}{{{columns}}}",
            "\\toprule",
            lines[0],
            "\\midrule",
            *lines[1:],
            "\\bottomrule",
            "\\end{tabular}}",
            "\\end{table}",
        ]
    )


def latex(text: str) -> str:
    r"""Text with LaTeX's own characters made harmless and signs as commands.

    >>> print(latex("5 % of A_B: −0.1 ± 0.2"))
    5 \% of A\_B: $-$0.1 $\pm$ 0.2
    """
    signs = {
        "\\": "\\textbackslash{}",
        "~": "\\textasciitilde{}",
        "^": "\\textasciicircum{}",
        "<": "$<$",
        ">": "$>$",
        "±": "$\\pm$",
        "−": "$-$",
        "–": "--",
        "α": "$\\alpha$",
        "γ": "$\\gamma$",
    }
    signs |= {sign: f"\\{sign}" for sign in "&%$#_{}"}
    return "".join(signs.get(character, character) for character in text)


_STYLE = """.conclusions { background: #eef5fb; border-left: 4px solid #0072b2; padding: .6em 1em .6em 2.2em }
p { max-width: 60em }
"""

_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>{name}: comparison</title>
<style>{style}</style></head><body>
<h1>{name}</h1>
<p class="headline">{headline}</p>
<h2>What it says</h2><ul class="conclusions">{conclusions}</ul>
<h2>What to keep in mind</h2><ul class="cautions">{cautions}</ul>
{sections}
<h2>Protocol</h2>{protocol}
</body></html>
"""
