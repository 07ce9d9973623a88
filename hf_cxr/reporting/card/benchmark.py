"""A run's figure for a benchmark of the Hub: `.eval_results/hf_cxr.yaml`, which the Hub shows on the benchmark's page.

    write_benchmark(run_dir, benchmark_entry(report, Benchmark("you/set", "multi-label")))

A benchmark is a dataset on the Hub whose eval.yaml names its tasks. The file is written only if the user names the
benchmark: that the test set of this run is the benchmark's is the user's statement; the notes say what was measured.

Refuses figures of a part of a test set, of the user's own splits, of shuffled labels, and of phantoms.
"""

from dataclasses import dataclass
from pathlib import Path

import yaml
from huggingface_hub import EvalResultEntry, eval_result_entries_to_yaml, parse_eval_result_entries
from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id

from hf_cxr.evaluation import METRICS
from hf_cxr.files import write_text
from hf_cxr.reporting.card.model_card import hub_dataset, is_partial
from hf_cxr.reporting.numbers import in_percent, interval
from hf_cxr.reporting.run import Report
from hf_cxr.words import plural

BENCHMARK = ".eval_results/hf_cxr.yaml"
"""The file's place in a run folder and in a repository."""


@dataclass(frozen=True)
class Benchmark:
    """One task of a benchmark.

    Args:
        dataset: Hub id of the benchmark, OWNER/DATASET.
        task: as the benchmark's eval.yaml names it.
        metric: key of the headline metric that the task ranks by.

    Raises:
        ValueError: not a Hub id of that form, an empty task, or another metric.
    """

    dataset: str
    task: str
    metric: str = "auc"

    def __post_init__(self):
        try:
            validate_repo_id(self.dataset)
        except HFValidationError as error:
            raise ValueError(f"--benchmark_id is {self.dataset!r}, not a Hub id: {error}") from error
        if "/" not in self.dataset:
            raise ValueError(f"--benchmark_id is {self.dataset!r}; give OWNER/DATASET")
        if not self.task.strip():
            raise ValueError("--benchmark_task is empty; give a task of the benchmark's eval.yaml")
        known = [key for key, metric in METRICS.items() if metric.headline]
        if self.metric not in known:
            raise ValueError(f"--benchmark_metric is {self.metric!r}; choose from {', '.join(known)}")


def benchmark_entry(report: Report, benchmark: Benchmark) -> EvalResultEntry:
    """The run's macro mean as an entry of the Hub's format.

    Raises:
        ValueError: the figure is not one of the whole test set, or is undefined.
    """
    protocol, measured = report.protocol, report.test.headline().get(benchmark.metric)
    hub_id, commit = hub_dataset(report)
    if protocol["synthetic"] and hub_id != benchmark.dataset:
        raise ValueError(
            f"the run was measured on synthetic phantoms, which are not the benchmark {benchmark.dataset}"
        )
    if is_partial(report):
        raise ValueError(
            "the run was measured on a part of its test set, on its own splits, or with shuffled labels: its "
            f"result does not count for the benchmark {benchmark.dataset}"
        )
    if measured is None or measured.macro != measured.macro:
        raise ValueError(f"the run has no {METRICS[benchmark.metric].macro_title}: it is undefined on its test set")
    counts, names = report.test.counts["all"], report.test.label_names
    defined = len(names) - len(report.test.undefined())
    confidence, title = in_percent(report.test.confidence), METRICS[benchmark.metric].macro_title
    notes = (
        f"{title} over {plural(defined, 'finding')}, {confidence} interval "
        f"{interval(measured.macro_low, measured.macro_high)}; {plural(counts.images, 'test image')} of "
        f"{plural(counts.patients, 'patient')}; split fingerprint {protocol['split_fingerprint']}"
    )
    return EvalResultEntry(
        dataset_id=benchmark.dataset,
        task_id=benchmark.task,
        value=round(measured.macro, 4),
        dataset_revision=commit if hub_id == benchmark.dataset else None,
        notes=notes,
    )


def write_benchmark(run_dir: Path, entry: EvalResultEntry) -> Path:
    """Write an entry into the run's folder; its path."""
    values = eval_result_entries_to_yaml([entry])
    write_text(run_dir / BENCHMARK, yaml.safe_dump(values, sort_keys=False, allow_unicode=True, width=1000))
    return run_dir / BENCHMARK


def written_benchmark(run_dir: Path) -> Benchmark | None:
    """The benchmark that the run's folder has an entry for; None if it has none.

    Raises:
        ValueError: the file is not one that this module wrote.
    """
    path = run_dir / BENCHMARK
    if not path.is_file():
        return None
    try:
        (entry,) = parse_eval_result_entries(yaml.safe_load(path.read_text(encoding="utf-8")))
        (metric,) = [key for key, one in METRICS.items() if (entry.notes or "").startswith(f"{one.macro_title} over ")]
        return Benchmark(entry.dataset_id, entry.task_id, metric)
    except (ValueError, TypeError, KeyError, AttributeError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ValueError(
            f"{path} is not an entry that hf_cxr wrote; remove it, or name the benchmark again"
        ) from error
