"""The section on groups: what it says is what was measured, and what was not measured is named."""

import numpy as np
import pytest

from hf_cxr.evaluation.draws import PatientDraws
from hf_cxr.evaluation.groups import Attribute
from hf_cxr.evaluation.subgroups import measure_subgroups
from hf_cxr.files import plain
from hf_cxr.reporting.document import Document, Figure, Note, Table, Text
from hf_cxr.reporting.sections.subgroups import forest, subgroups_section

LONG = "$a_scanner$ of a maker with a name that is far too long for the margin of a figure"


@pytest.fixture(scope="module")
def values():
    rng = np.random.default_rng(0)
    patient_N = np.repeat(np.arange(160), 2)
    label_NC = (rng.random((320, 2)) < 0.4) + 0.0
    prob_NC = np.clip(0.4 + 0.25 * label_NC + 0.1 * rng.normal(size=label_NC.shape), 0, 1)
    scanner_N = np.array([LONG, "b"])[rng.integers(2, size=160)][patient_N].astype(object)
    prob_NC[scanner_N == "b", 0] = rng.random((scanner_N == "b").sum())
    scanner_N[patient_N < 4] = "c"
    attributes = {"scanner": Attribute.of(scanner_N)}
    draws = PatientDraws.of(list(patient_N), resamples=200)
    options = {"label_names": ["Mass", "Hernia"], "threshold_C": [0.55, np.nan]}
    options |= {"left_out": {"sex": "unknown for every image"}}
    return plain(measure_subgroups(prob_NC, label_NC, draws, attributes, **options).to_dict())


def blocks_of(section, kind):
    return [block for block in section.blocks if isinstance(block, kind)]


def test_the_table_has_a_row_a_group_and_the_measured_values(values):
    table = blocks_of(subgroups_section(values), Table)[0]
    group = values["attributes"]["scanner"]["groups"]["b"]
    head = list(table.frame.columns)
    rows = {row[0]: dict(zip(head, row, strict=True)) for row in table.rows}
    assert set(rows) == {f"scanner: {LONG}", "scanner: b", "scanner: c"}
    value, low, high = group["measures"]["auc"]["group"]["macro"].values()
    assert rows["scanner: b"]["macro AUC"] == f"{value:.3f} ({low:.3f}–{high:.3f})"
    assert rows["scanner: b"]["images"] == str(group["images"])
    assert rows["scanner: c"]["macro AUC"] == "–"
    other = blocks_of(subgroups_section(values), Table)[1]
    assert [row[0] for row in other.rows] == [f"scanner: {LONG}", "scanner: b"]
    assert "mAP\ngap (interval)" in other.frame.columns
    assert "mAP\np corrected" not in other.frame.columns
    missed = blocks_of(subgroups_section(values), Table)[2]
    rate = group["measures"]["fnr"]["group"]["macro"]["value"]
    assert dict(zip(missed.frame.columns, missed.rows[1], strict=True))["false negative rate"].startswith(
        f"{rate:.3f} ("
    )


def test_what_was_not_measured_and_what_fails_is_said(values):
    section = subgroups_section(values)
    cautions = " ".join(blocks_of(section, Note)[0].sentences)
    assert "scanner c (4 patients in the group, fewer than 20)" in cautions
    assert "sex (unknown for every image)" in cautions
    headline = blocks_of(section, Text)[0].text
    assert "scanner b: −" in headline
    assert LONG not in headline  # that group is the better one
    findings = next(one for one in blocks_of(section, Table) if one.frame.columns[0] == "finding")
    assert ["Mass", "scanner: b"] in [row[:2] for row in findings.rows]
    assert "Hernia" not in [row[0] for row in findings.rows]


def test_every_figure_is_drawn_with_a_row_for_every_measured_group(values, tmp_path):
    section = subgroups_section(values)
    assert {block.path for block in blocks_of(section, Figure)} == set(section.drawings)
    assert set(section.drawings) == {f"figures/subgroups_{key}.png" for key in ("auc", "fnr", "fpr")}
    figure = forest(values, "auc")
    figure.savefig(tmp_path / "forest.png")
    labels = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert len(labels) == 3  # the attribute and two groups; the one too small is not drawn
    assert labels[0] == "scanner"
    assert max(map(len, labels)) < 50


def test_the_section_is_written_in_every_form(values, tmp_path):
    document = Document("x", subgroups_section(values).blocks)
    for text in (document.to_terminal(), document.to_markdown(), document.to_html(tmp_path), document.to_latex()):
        assert "BNSP" in text


def test_without_a_measured_group_it_says_why(values):
    groups = {"c": values["attributes"]["scanner"]["groups"]["c"]}
    scanner = values["attributes"]["scanner"] | {"groups": groups, "widest": {}}
    section = subgroups_section(values | {"attributes": {"scanner": scanner}})
    assert section.drawings == {}
    assert "4 patients in the group" in blocks_of(section, Note)[0].sentences[0]
    nothing = subgroups_section(values | {"attributes": {}})
    assert blocks_of(nothing, Note)[0].sentences == ("sex: unknown for every image.",)
    assert len(subgroups_section(values | {"attributes": {}, "left_out": {}}).blocks) == 2
