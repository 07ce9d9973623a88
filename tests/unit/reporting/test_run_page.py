"""The page of a run: its order, what it says of validation, and when the run stands among published systems."""

import numpy as np
import pytest
from tiny import PROTOCOL

from hf_cxr.evaluation import PatientDraws, evaluate_predictions
from hf_cxr.evaluation.curves import measure_curves
from hf_cxr.reporting import protocol as words
from hf_cxr.reporting.document import Details, Figure, Heading, Note, Table
from hf_cxr.reporting.run import Report

NAMES = ("Mass", "Hernia")
RNG = np.random.default_rng(0)
LABEL_NC = (RNG.random((60, 2)) < 0.4).astype(float)
PROB_NC = RNG.random((60, 2))


def report(analysis=None, **protocol):
    figures = evaluate_predictions(PROB_NC, LABEL_NC, np.arange(60), label_names=NAMES, resamples=5)
    return Report(
        name="run",
        model_id=".",
        protocol=PROTOCOL | protocol,
        test=figures,
        validation=figures,
        calibration=None,
        training={"epochs": 1.0, "best_epoch": None, "images_per_second": None, "resumed_from": None,
                  "peak_memory_gib": None, "parameters": 28_000_000},
        history=[],
        environment={"hf_cxr": "1", "device": "cpu"},
        analysis=analysis or {},
    )  # fmt: skip


@pytest.fixture(scope="module")
def analysis():
    draws = PatientDraws.of(np.arange(60), resamples=5)
    return {"curves": measure_curves(PROB_NC, LABEL_NC, draws, label_names=NAMES).to_dict(), "mistakes": {}}


def headings(blocks):
    return [block.text for block in blocks if isinstance(block, Heading) and block.level == 2]


def test_the_page_goes_from_the_headline_to_the_appendix(analysis):
    blocks = report(analysis, dataset="ChestX-ray14").document().blocks
    assert blocks[0].strong
    assert headings(blocks) == [
        "Protocol",
        "Test set, each finding",
        "ROC and precision-recall curves",
        "Published systems, with their protocols",
        "Limits",
        "Appendix",
    ]
    after = blocks[[getattr(block, "text", "") for block in blocks].index("Appendix") + 1 :]
    assert all(isinstance(block, Details) for block in after)
    paths = [block.path for block in blocks if isinstance(block, Figure)]
    assert len(paths) == len(set(paths)) == 2
    claim = next(block for block in after if block.summary.startswith("CLAIM"))
    failures = next(row for row in claim.blocks[1].rows if row[0] == "39")
    assert failures[3] == "partly"  # the sheet of mistakes is on no page, but was made


def test_what_validation_did_is_what_the_protocol_says():
    def first_limit(**protocol):
        blocks = report(**protocol).document().blocks
        return next(block for block in blocks if isinstance(block, Note) and not block.warning).sentences[0]

    both = first_limit(selection="best validation auc", calibration="per finding")
    assert "chose the checkpoint and fitted the calibration" in both
    assert "fitted" not in first_limit(selection="best validation auc", calibration=None)
    assert "chose nothing" in first_limit(selection="last epoch, none was chosen", calibration=None)


def test_tiers_are_shown_where_there_are_several():
    frequent = report(training_positives=[9000, 20])
    assert frequent.tier_of() == {"Mass": "head", "Hernia": "tail"}
    assert report(training_positives=[30, 20]).tier_of() == {}
    assert report().tier_of() == {}


def test_a_run_stands_among_published_systems_only_on_the_whole_official_list(monkeypatch):
    def own_row(**protocol):
        nih = {"dataset": "ChestX-ray14", "splits_from": "official test list, validation cut by patient"}
        blocks = report(**nih | protocol).document().blocks
        table = next(block for block in blocks if isinstance(block, Table) and "published" in block.frame)
        return [row for row in table.rows if row[0].startswith("this run")]

    assert own_row() == []  # 60 images are not the list
    monkeypatch.setattr("hf_cxr.reporting.run.OFFICIAL_TEST", 60)
    ((name, network, weights, auc, _),) = own_row()
    assert (name, network, weights) == ("this run (run)", "28 M parameters", "random")
    assert auc.startswith(f"{report().test.measured['all']['auc'].macro:.3f} (")
    for change in (
        {"missing_images": {"test": 1}},
        {"labels_shuffled": True},
        {"splits_from": "the folder's own test list of 60 images"},
        {"split_file": {"name": "mine.csv"}},
    ):
        assert own_row(**change) == []
    assert words.OFFICIAL_TEST == 25_596
