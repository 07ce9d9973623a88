"""The section on controls: the model next to a score without pixels, finding by finding, undefined named."""

import numpy as np
import pytest

from hf_cxr.evaluation.controls import Known, measure_controls
from hf_cxr.evaluation.draws import PatientDraws
from hf_cxr.files import plain
from hf_cxr.reporting.document import Document, Figure, Note, Table, Text
from hf_cxr.reporting.sections.controls import PICTURE, controls_section, findings_figure


@pytest.fixture(scope="module")
def values():
    rng = np.random.default_rng(0)
    label_NC = (rng.random((120, 3)) < 0.4) + 0.0
    label_NC[5:, 2] = np.nan
    score_NC = np.nan_to_num(label_NC) + rng.normal(size=label_NC.shape)
    known = Known(view=rng.choice(["AP", "PA"], 120).tolist(), age=rng.uniform(1, 90, 120))
    draws = PatientDraws.of(list(np.arange(120) // 2), resamples=30)
    options = {"label_names": ["Mass", "$Edema$", "Hernia"], "shuffles": 20, "rng": np.random.default_rng(0)}
    return plain(measure_controls(score_NC, label_NC, draws, known, **options).to_dict())


def test_tables_and_sentences_have_the_measured_values(values):
    section = controls_section(values)
    texts = [block.text for block in section.blocks if isinstance(block, Text)]
    full = values["without_pixels"]["view and age"]
    assert f"{full['control']['macro']:.3f} (" in texts[0]
    assert f"is {values['shuffled']['mean']:.3f} on average" in texts[1]
    known, findings = (block for block in section.blocks if isinstance(block, Table))
    assert [row[0] for row in known.rows] == ["view and age", "view", "age"]
    assert [row[0] for row in findings.rows] == ["Mass", "$Edema$", "Hernia", "macro mean"]
    assert findings.rows[0][1].startswith(f"{full['control']['value']['Mass']:.3f} (")
    assert findings.rows[0][2].startswith(f"{full['model']['value']['Mass']:.3f} (")
    assert findings.rows[2][1:] == ["undefined"] * 4
    (note,) = (block for block in section.blocks if isinstance(block, Note))
    assert "Hernia: " in note.sentences[-1]
    assert "shortcut" in note.sentences[0]


def test_the_figure_has_a_row_for_every_finding_with_a_control(values, tmp_path):
    section = controls_section(values)
    assert [block.path for block in section.blocks if isinstance(block, Figure)] == [PICTURE] == list(section.drawings)
    figure = findings_figure("view and age", values["without_pixels"]["view and age"])
    figure.savefig(tmp_path / "controls.png")
    assert len(figure.axes[0].get_yticklabels()) == 2
    Document("x", section.blocks).to_latex()


def test_without_view_age_and_sex_it_says_so(values):
    section = controls_section(values | {"without_pixels": {}, "not_measured": "view is unknown"})
    assert section.drawings == {}
    assert "view is unknown" in section.blocks[1].text
    assert f"{values['shuffled']['value']:.3f}" in section.blocks[2].text
