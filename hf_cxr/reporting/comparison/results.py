"""What a comparison found: read from finished run folders and measured on the same test images.

Refused: runs that were not measured on the same images, labels and split, or not trained on the same kind of data.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from hf_cxr.arguments.components import flattened
from hf_cxr.arguments.model import INITIAL_WEIGHTS
from hf_cxr.arguments.spelling import modern_values
from hf_cxr.config import EvaluationArguments
from hf_cxr.evaluation.bootstrap import number_patients
from hf_cxr.evaluation.comparison import Comparison, Difference, MethodFigures, OverSeeds, compare_methods, is_testable
from hf_cxr.evaluation.kernels import METRICS, headline_metrics
from hf_cxr.evaluation.metrics import macro
from hf_cxr.evaluation.older import modern_figures
from hf_cxr.evaluation.report import Counts
from hf_cxr.labels import TIER_THRESHOLDS, LabelSpace
from hf_cxr.prediction_tables import LabelTable
from hf_cxr.predictions import Predictions
from hf_cxr.reporting.comparison.score_files import ScoreFile
from hf_cxr.saved_models import read_json
from hf_cxr.yaml_files import read_yaml

TIERS = ("head", "medium", "tail")
LEAST_IN_TIER = 50  # positive test patients of a tier's findings, added up, before methods are compared within it
FILE = "file"  # in place of a seed, of a row that was not trained here

# Keys of a run that are about its network, beside model_kwargs; the table of systems has them where networks differ.
OF_THE_NETWORK = ("architecture", "image_size", "resize_size", *INITIAL_WEIGHTS)

# What all runs must share, beside images and labels.
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
    """One point of a tuning grid and its validation metrics, NaN where its run is not finished."""

    values: dict[str, Any]
    validation: dict[str, float]
    figure: float


@dataclass(frozen=True, eq=False)
class FinishedRun:
    """What a comparison needs of a run folder."""

    folder: Path
    metrics: dict[str, Any]
    config: dict[str, Any]
    validation: Predictions
    test: Predictions

    @classmethod
    def read(cls, folder: str | Path) -> "FinishedRun":
        folder = Path(folder)
        if not (folder / "metrics.json").is_file():
            raise FileNotFoundError(f"{folder} is not a finished run: it has no metrics.json")
        return cls(
            folder,
            modern_figures(read_json(folder / "metrics.json")),
            modern_values(read_yaml(folder / "config.yaml")),
            *(Predictions.load(folder / "predictions" / f"{split}.parquet") for split in ("validation", "test")),
        )

    @property
    def architecture(self) -> str:
        """As transformers names it: a saved model's own, where the settings' key would be of a fresh one."""
        network = self.metrics["protocol"].get("network") or {}  # runs of earlier versions have none
        return network.get("architecture") or self.config["architecture"]

    @property
    def parameters(self) -> int:
        """Weights of the network, those that are not trained among them."""
        return self.metrics["training"]["parameters"]

    @property
    def settings(self) -> dict[str, Any]:
        """The config with nested options as dotted keys, such as loss_kwargs.margin."""
        return flattened(self.config)

    def counts(self) -> Counts:
        """What the test set holds."""
        return Counts.of(self.test.labels, number_patients(self.test.patient_ids, len(self.test.labels))[0])


@dataclass(frozen=True, eq=False)
class ComparisonResults:
    """Every number of a comparison; made by `compare_runs`.

    Attributes:
        runs: method -> seed -> run; of finished runs only.
        test: metrics with spreads and differences.
        tiers: tier -> names of its findings, without those that have one label value only in the test set.
        thresholds: positive training images from which a finding is head, and below which it is tail.
        tuned: method -> points of its grid; empty if nothing was tuned.
        tuned_by: key of the validation metric that chose among them.
        missing: name of a run that failed -> why.
        files: rows that were not trained here -> their file of predictions.
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
    files: dict[str, Path] = field(default_factory=dict)

    @property
    def methods(self) -> list[str]:
        """Every row: those that were trained, then the files."""
        return [*self.runs, *self.files]

    @property
    def baseline(self) -> str:
        return self.test.baseline

    @property
    def other_methods(self) -> list[str]:
        """All methods but the baseline."""
        return [method for method in self.methods if method != self.baseline]

    @property
    def protocol(self) -> dict[str, Any]:
        """What all runs share: the protocol of the baseline's first."""
        return self.first(self.baseline).metrics["protocol"]

    def first(self, method: str) -> FinishedRun:
        return next(iter(self.runs[method].values()))

    @property
    def systems_differ(self) -> bool:
        """Whether the methods have different networks: architecture, parameters, image size or initial weights."""
        runs = [self.first(method) for method in self.runs]
        weights = [run.metrics["protocol"]["initial_weights"] for run in runs]
        networks = [(run.architecture, run.parameters, run.config["image_size"]) for run in runs]
        return len(set(zip(networks, weights, strict=True))) > 1

    def metric(self, key: str) -> dict[str, MethodFigures]:
        """What a metric is for each method."""
        return self.test.figures[key]

    def ranks(self, key: str) -> dict[str, int]:
        """1 for the best method by this metric; equal ones share a rank."""
        sign = 1 if METRICS[key].higher_is_better else -1
        means = {method: sign * figures.overall.mean for method, figures in self.metric(key).items()}
        return {method: 1 + sum(other > mean for other in means.values()) for method, mean in means.items()}

    def compared(self, key: str, tier: str | None = None) -> dict[str, Difference]:
        """The differences to the baseline by method, over all findings or within a tier."""
        if tier is None:
            return {m: f.difference for m, f in self.metric(key).items() if f.difference is not None}
        return {m: f.group_differences[tier] for m, f in self.metric(key).items() if f.group_differences}

    def testable(self, key: str, tier: str | None = None) -> dict[str, Difference]:
        """Those differences that enough draws of patients define."""
        return {m: d for m, d in self.compared(key, tier).items() if is_testable(d.draws, self.test.resamples)}

    def different(self, key: str, tier: str | None = None) -> dict[str, Difference]:
        """Those differences whose corrected p value is below 1 - confidence."""
        level = 1 - self.test.confidence
        return {m: d for m, d in self.testable(key, tier).items() if d.p_corrected < level}

    def tested_tiers(self) -> list[str]:
        """Tiers whose findings have `LEAST_IN_TIER` positive test patients, added up: with fewer, none is tested."""
        methods = next(iter(self.test.figures.values())).values()
        tested = {tier for figures in methods for tier in figures.group_differences}
        return [tier for tier in TIERS if tier in tested]

    def validation(self, method: str) -> dict[str, float]:
        """Macro metrics on validation, mean over seeds: they chose the checkpoints, so they are optimistic."""
        runs = [run.validation for run in self.runs[method].values()]
        return {
            key: float(np.mean([macro(metric.measure(run.logits, run.labels)) for run in runs]))
            for key, metric in headline_metrics().items()
        }

    def counts(self) -> Counts:
        """What the test set holds."""
        return self.first(self.baseline).counts()

    def tuned_keys(self) -> list[str]:
        return list(next(iter(self.tuned.values()))[0].values) if self.tuned else ["learning_rate", "weight_decay"]

    def own_settings(self, method: str) -> str:
        """The keys in which a method differs from the baseline, without its loss's, the tuned ones and the run's.

        Where networks differ, theirs are left out too: the table of systems has them.
        """
        runs = self.first(self.baseline), self.first(method)
        base, own = (run.settings for run in runs)
        of_losses = {name for run in runs for name in run.metrics["protocol"]["loss"]["options"]}
        apart = {"output_dir", "seed", "loss", "class_weights", *of_losses, *self.tuned_keys()}
        mappings = ("loss_kwargs.", *(["model_kwargs."] if self.systems_differ else []))
        apart |= set(OF_THE_NETWORK) if self.systems_differ else set()
        keys = [key for key in own if key not in apart and not key.startswith(mappings)]
        return ", ".join(f"{key} {own[key]}" for key in keys if own[key] != base.get(key))

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON; what is undefined is NaN."""
        methods = {}
        for method in self.methods:
            measured = {key: self.metric(key)[method] for key in headline_metrics()}
            methods[method] = {
                key: {
                    **_with_text_seeds(figures.overall),
                    "rank": self.ranks(key)[method],
                    "tiers": {tier: _with_text_seeds(estimate) for tier, estimate in figures.groups.items()},
                    "findings": dict(zip(self.label_names, figures.finding_C.tolist(), strict=True)),
                    "difference": figures.difference and _with_text_seeds(figures.difference),
                    "tier_differences": {t: _with_text_seeds(d) for t, d in figures.group_differences.items()},
                }
                for key, figures in measured.items()
            }
            if method in self.files:
                methods[method]["predictions"] = str(self.files[method])
                continue
            run = self.first(method)
            methods[method] |= {"architecture": run.architecture, "parameters": run.parameters}
            methods[method]["initial_weights"] = run.metrics["protocol"]["initial_weights"]
            methods[method]["validation"] = self.validation(method)
            methods[method]["runs"] = {str(seed): str(run.folder) for seed, run in self.runs[method].items()}
        return {
            "name": self.name,
            "baseline": self.baseline,
            "methods": methods,
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

    def records(self) -> pd.DataFrame:
        """A row a method, plain numbers, NaN where undefined."""
        rows = []
        for method in self.methods:
            run = self.first(method) if method in self.runs else None
            row = {"method": method, "seeds": len(self.runs.get(method, ()))}
            row |= {"architecture": run and run.architecture, "parameters": run and run.parameters}
            for key in headline_metrics():
                figures = self.metric(key)[method]
                row |= {f"{key}_{part}": getattr(figures.overall, part) for part in ("mean", "sd", "low", "high")}
                row[f"{key}_rank"] = self.ranks(key)[method]
                for part in ("value", "low", "high", "p", "p_corrected"):
                    row[f"{key}_difference_{part}"] = getattr(figures.difference, part, np.nan)
                for tier, estimate in figures.groups.items():
                    row |= {f"{key}_{tier}_mean": estimate.mean, f"{key}_{tier}_sd": estimate.sd}
                    within = figures.group_differences.get(tier)
                    for part in ("value", "low", "high", "p_corrected"):
                        row[f"{key}_{tier}_difference_{part}"] = getattr(within, part, np.nan)
                values = figures.finding_C.tolist()
                row |= {f"{key}/{name}": value for name, value in zip(self.label_names, values, strict=True)}
            rows.append(row)
        return pd.DataFrame(rows)


def compare_runs(
    name: str,
    folders: Mapping[str, Mapping[int, str | Path]],
    *,
    baseline: str,
    tuned: Mapping[str, list[TunedPoint]] | None = None,
    tuned_by: str | None = None,
    missing: Mapping[str, str] | None = None,
    files: Mapping[str, ScoreFile] | None = None,
    tiers: Mapping[str, int] | None = None,
    resamples: int,
    confidence: float = EvaluationArguments.confidence,
    seed: int = 0,
) -> ComparisonResults:
    """Read finished run folders and compare them on test.

    Args:
        name: of the comparison.
        folders: method -> seed -> run folder; a method without any is left out.
        baseline: the method that every other one is compared with.
        tuned, tuned_by, missing: see `ComparisonResults`.
        files: name of a row -> the file of predictions that it is.
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
    thresholds = TIER_THRESHOLDS | dict(tiers or {})
    members = _columns_of_tiers(first, thresholds)
    # Draws of a handful of patients do not measure what other patients would show, however small their p value.
    patients_C = first.counts().positive_patients_C
    tested = {tier for tier, columns in members.items() if patients_C[columns].sum() >= LEAST_IN_TIER}
    labels = LabelTable.of_predictions("the test set", first.test)
    scores = {method: {seed: run.test.logits for seed, run in by_seed.items()} for method, by_seed in runs.items()}
    scores |= {name: {FILE: file.scores_of(labels, name)} for name, file in (files or {}).items()}
    test = compare_methods(
        scores,
        first.test.labels,
        first.test.patient_ids,
        baseline=baseline,
        groups=members,
        tested=tested,
        resamples=resamples,
        confidence=confidence,
        rng=np.random.default_rng(seed),
    )
    return ComparisonResults(
        name=name,
        runs=runs,
        test=test,
        label_names=label_names,
        tiers={tier: tuple(label_names[column] for column in columns) for tier, columns in members.items()},
        thresholds=thresholds,
        tuned=dict(tuned or {}),
        tuned_by=tuned_by,
        missing=dict(missing or {}),
        files={name: file.path for name, file in (files or {}).items()},
    )


def _columns_of_tiers(run: FinishedRun, thresholds: Mapping[str, int]) -> dict[str, list[int]]:
    """Tier -> columns of its findings, without those that have one label value only in the test set."""
    label_names, both_C = run.test.label_names, run.counts().both_C
    tier_of = LabelSpace(label_names).tiers(run.metrics["protocol"]["training_positives"], **thresholds)
    members = {
        tier: [column for column, name in enumerate(label_names) if tier_of[name] == tier and both_C[column]]
        for tier in TIERS
    }
    return {tier: columns for tier, columns in members.items() if columns}


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


def _with_text_seeds(spread: OverSeeds | Difference) -> dict[str, Any]:
    return asdict(spread) | {"by_seed": {str(seed): value for seed, value in spread.by_seed.items()}}
