"""The entry for a benchmark of the Hub: the run's own figure, in the client's format, and only of a whole test set."""

import dataclasses
import json

import numpy as np
import pytest
import yaml
from huggingface_hub import parse_eval_result_entries
from tiny import PROTOCOL

from hf_cxr.evaluation import evaluate_predictions
from hf_cxr.hub.parsing import parse
from hf_cxr.reporting.card.benchmark import BENCHMARK, Benchmark, benchmark_entry, write_benchmark, written_benchmark
from hf_cxr.reporting.run import Report

ONE = Benchmark("you/set", "multi-label")


def report(label_NC=None, **protocol):
    rng = np.random.default_rng(0)
    label_NC = (rng.random((40, 2)) < 0.5).astype(float) if label_NC is None else label_NC
    figures = evaluate_predictions(
        rng.random((40, 2)), label_NC, np.arange(40), label_names=("Mass", "Hernia"), resamples=5
    )
    return Report(
        name="run",
        model_id=".",
        protocol=PROTOCOL | protocol,
        test=figures,
        validation=figures,
        calibration=None,
        training={},
        history=[],
        environment={},
    )


@pytest.mark.parametrize("metric", ["auc", "ap"])
def test_the_file_is_the_clients_and_has_the_runs_figure(tmp_path, metric):
    run = report()
    wanted = dataclasses.replace(ONE, metric=metric)
    path = write_benchmark(tmp_path, benchmark_entry(run, wanted))
    assert path == tmp_path / BENCHMARK
    (entry,) = parse_eval_result_entries(yaml.safe_load(path.read_text()))
    assert (entry.dataset_id, entry.task_id) == ("you/set", "multi-label")
    assert entry.value == round(run.test.headline()[metric].macro, 4)
    assert "40 test images of 40 patients" in entry.notes
    assert PROTOCOL["split_fingerprint"] in entry.notes
    assert written_benchmark(tmp_path) == wanted
    assert parse(path, path.read_bytes())["value"] == entry.value  # as a push reads it
    assert json.dumps(parse(path, path.read_bytes()))


def test_the_commit_is_that_of_the_benchmark_alone():
    hub = f"you/set at commit {'c' * 40}"
    assert benchmark_entry(report(hub_dataset=hub), ONE).dataset_revision == "c" * 40
    assert benchmark_entry(report(hub_dataset=hub), Benchmark("me/other", "t")).dataset_revision is None
    unknown = "you/set at commit unknown (a local copy that does not say)"
    assert benchmark_entry(report(hub_dataset=unknown), ONE).dataset_revision is None


@pytest.mark.parametrize(
    ("protocol", "message"),
    [
        ({"synthetic": True}, "synthetic phantoms"),
        ({"missing_images": {"test": 2}}, "a part of its test set"),
        ({"labels_shuffled": True}, "shuffled labels"),
        ({"dataset": "ChestX-ray14"}, "its own splits"),
    ],
)
def test_other_figures_are_refused(protocol, message):
    with pytest.raises(ValueError, match=message):
        benchmark_entry(report(**protocol), ONE)


def test_an_undefined_figure_is_refused():
    with pytest.raises(ValueError, match="undefined on its test set"):
        benchmark_entry(report(np.ones((40, 2))), ONE)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (("set", "t"), "give OWNER/DATASET"),
        (("a/b/c", "t"), "not a Hub id"),
        (("you/set", " "), "--benchmark_task is empty"),
        (("you/set", "t", "f1"), "choose from auc, ap"),
    ],
)
def test_a_benchmark_that_cannot_be_is_refused(values, message):
    with pytest.raises(ValueError, match=message):
        Benchmark(*values)


@pytest.mark.parametrize("text", ["", "a: b", "- dataset: {id: you/set, task_id: t}\n  value: 1\n", "- 1", "["])
def test_a_file_that_was_not_written_here_is_refused_in_one_line(tmp_path, text):
    assert written_benchmark(tmp_path) is None
    (tmp_path / BENCHMARK).parent.mkdir()
    (tmp_path / BENCHMARK).write_text(text)
    with pytest.raises(ValueError, match="not an entry that hf_cxr wrote"):
        written_benchmark(tmp_path)
