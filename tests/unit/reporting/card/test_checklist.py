"""Checklists are whole, answer from the run alone, and claim nothing that was not done."""

import dataclasses

import numpy as np
import pytest
from tiny import PROTOCOL

from hf_cxr.evaluation import evaluate_predictions
from hf_cxr.reporting.card.checklist import (
    ANSWERS,
    AUTHORS,
    NOT_DONE,
    PARTLY,
    REPORTED,
    Evidence,
    answer,
    checklist_blocks,
    guidelines,
)

PARTS = {"3": 3, "5": 2, "6": 3, "8": 3, "9": 3, "12": 7, "18": 6, "20": 3, "23": 2, "27": 3}  # of TRIPOD+AI's items


@pytest.fixture
def run():
    rng = np.random.default_rng(0)
    label_NC = (rng.random((40, 2)) < 0.5).astype(float)
    label_NC[:3, 0] = np.nan
    test = evaluate_predictions(rng.random((40, 2)), label_NC, np.arange(40), label_names=("A", "B"), resamples=5)
    environment = {"hf_cxr": "1.2", "python": "3.11", "torch": "2"}
    return Evidence(PROTOCOL, {"epochs": 3.0, "parameters": 1234}, environment, test, {})


def state(run, name, **changes):
    return answer(name, dataclasses.replace(run, protocol=PROTOCOL | changes))[0]


def test_every_item_of_both_guidelines_is_there_and_has_an_answer():
    claim, tripod = guidelines()
    assert [item["number"] for item in claim["items"]] == [str(number) for number in range(1, 45)]
    expected = []
    for number in map(str, range(1, 28)):
        expected += [number + letter for letter in "abcdefg"[: PARTS[number]]] if number in PARTS else [number]
    assert [item["number"] for item in tripod["items"]] == expected
    assert len(expected) == 52
    used = {item["answer"] for guideline in (claim, tripod) for item in guideline["items"]}
    assert used - {"authors", NOT_DONE} == set(ANSWERS)
    for guideline in (claim, tripod):
        assert "https://doi.org/10." in guideline["source"]


def test_an_analysis_that_was_not_done_is_not_claimed(run):
    keys = {
        "stress": ("robustness", "poor_input"),
        "localization": ("explanations",),
        "operating_points": ("diagnostic",),
        "subgroups": ("characteristics", "subgroups"),
    }
    for key, names in keys.items():
        done = dataclasses.replace(run, sections={key: "A heading"})
        for name in names:
            assert answer(name, run) == (NOT_DONE, "")
            found, where = answer(name, done)
            assert found in (REPORTED, PARTLY)
            assert "A heading" in where
    assert answer("failures", run)[0] == NOT_DONE
    assert answer("failures", dataclasses.replace(run, done=("mistakes",)))[0] == PARTLY


def test_answers_are_those_of_the_run(run):
    assert "3 in test" in answer("missing", run)[1]
    assert "1,234 parameters" in answer("model", run)[1]
    assert "train 40 images of 20 patients" in answer("partitions", run)[1]
    lost = dataclasses.replace(run, protocol=PROTOCOL | {"missing_images": {"train": 1200}, "unreadable_images": {}})
    assert "1,200 missing images in train" in answer("exclusions", lost)[1]
    assert (state(run, "disjoint"), state(run, "disjoint", similar_patient_ids=[])) == (PARTLY, REPORTED)
    assert state(run, "disjoint", similar_patient_ids=["3 pairs"]) == PARTLY
    for name in ("labels", "annotators", "test_labels", "design"):
        assert state(run, name) == AUTHORS  # of a table nobody knows how its labels were made
        assert state(run, name, dataset="ChestX-ray14") != AUTHORS
        assert state(run, name, synthetic=True) == REPORTED


def test_both_lists_are_tables_with_their_counts(run):
    for block, guideline in zip(checklist_blocks(run), guidelines(), strict=True):
        table = block.blocks[1]
        assert len(table.rows) == len(guideline["items"])
        states = [row[3] for row in table.rows]
        assert set(states) <= {REPORTED, PARTLY, NOT_DONE, AUTHORS}
        for one in set(states):
            assert f"{states.count(one)} {one}" in block.summary
        assert all(row[4] for row in table.rows if row[3] in (REPORTED, PARTLY))
        assert not any(row[4] for row in table.rows if row[3] in (NOT_DONE, AUTHORS))
