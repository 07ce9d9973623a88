"""The section of two systems: its sentences agree with its numbers, also when it is read back from JSON."""

import json

import numpy as np
import pytest

from hf_cxr.evaluation.draws import Intervals
from hf_cxr.evaluation.paired import measure_paired
from hf_cxr.files import plain
from hf_cxr.reporting.document import Document, Figure, Note, Table, Text
from hf_cxr.reporting.sections.paired import paired_section


def section(first_NC, second_NC, label_NC, resamples=200, **options):
    names = [f"finding {column}" for column in range(label_NC.shape[1])]
    paired = measure_paired(
        first_NC,
        second_NC,
        label_NC,
        range(len(label_NC)),
        label_names=names,
        intervals=Intervals(resamples),
        **options,
    )
    return paired_section(json.loads(json.dumps(plain(paired.to_dict()))))


@pytest.fixture(name="label_NC")
def truth():
    label_NC = (np.random.default_rng(0).random((120, 3)) < 0.4).astype(float)
    label_NC[:, 2] = 1  # undefined
    return label_NC


def texts(blocks):
    said = [block.text for block in blocks if isinstance(block, Text)]
    return " ".join(said + [one for block in blocks if isinstance(block, Note) for one in block.sentences])


def test_a_difference_is_said_with_its_finding_and_undefined_is_named(label_NC):
    rng = np.random.default_rng(1)
    good_NC = np.clip(0.5 * label_NC + 0.5 * rng.random((120, 3)), 0, 1)
    poor_NC = good_NC.copy()
    poor_NC[:, 0] = rng.random(120)
    blocks = section(
        good_NC, poor_NC, label_NC, left_out={"images of the first": 7, "findings of the second": ["Rib"]}
    ).blocks
    said = texts(blocks)
    assert "these findings differ after Holm's correction: finding 0 +" in said
    assert "finding 1" not in said
    assert "7 images of the first, 1 findings of the second (Rib)" in said
    table, of_ap = [block for block in blocks if isinstance(block, Table)]
    assert [row[0] for row in of_ap.rows] == [row[0] for row in table.rows]
    assert [row[0] for row in table.rows] == ["finding 0", "finding 1", "finding 2", "macro mean"]
    assert "undefined" in table.rows[2]
    assert "finding 0" in Document("page", blocks).to_markdown()


def test_the_picture_has_a_dot_for_each_defined_finding_and_fills_those_that_differ(label_NC):
    rng = np.random.default_rng(1)
    good_NC = np.clip(0.5 * label_NC + 0.5 * rng.random((120, 3)), 0, 1)
    poor_NC = good_NC.copy()
    poor_NC[:, 0] = rng.random(120)
    found = section(good_NC, poor_NC, label_NC)
    [picture] = [block for block in found.blocks if isinstance(block, Figure)]
    figure = found.drawings[picture.path]()
    for axis in figure.axes:
        dots = [line for line in axis.lines if line.get_marker() == "o"]
        filled = [dot.get_markerfacecolor() != "white" for dot in dots]
        defined = [not np.isnan(float(np.squeeze(dot.get_xdata()))) for dot in dots]
        assert defined == [True, True, False, True]
        assert filled == [True, False, False, True]


def test_no_difference_is_not_called_equal(label_NC):
    prob_NC = np.random.default_rng(1).random((120, 3))
    said = texts(section(prob_NC, prob_NC, label_NC).blocks)
    assert said.count("are not shown to differ") == 2
    assert said.count("no single finding differs") == 2


def test_draws_that_are_too_few_for_a_corrected_p_value_are_said(label_NC):
    prob_NC = np.random.default_rng(1).random((120, 3))
    few = texts(section(prob_NC, prob_NC, label_NC, resamples=50).blocks)
    assert "no corrected p value can be below" in few
    assert "no corrected p value can be below" not in texts(section(prob_NC, prob_NC, label_NC, resamples=200).blocks)
