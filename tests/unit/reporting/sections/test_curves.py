"""The section of the curves draws what was measured, names what has no curve, and takes any name as text."""

import json

import numpy as np
import pytest

from hf_cxr.evaluation import PatientDraws
from hf_cxr.evaluation.curves import measure_curves
from hf_cxr.reporting.document import Figure, Heading, Text
from hf_cxr.reporting.sections.curves import CURVE_STYLES, curves_section, draw_curves

NAMES = ("Mass", "Hernia", r"Pleural_Thickening $\frac{$")


@pytest.fixture(scope="module")
def values():
    rng = np.random.default_rng(0)
    label_NC = (rng.random((80, 3)) < 0.3).astype(float)
    label_NC[:, 1] = 0
    score_NC = label_NC + rng.normal(size=label_NC.shape)
    draws = PatientDraws.of(np.arange(80) // 2, resamples=8)
    curves = measure_curves(score_NC, label_NC, draws, label_names=NAMES)
    return json.loads(json.dumps(curves.to_dict(), allow_nan=False))


def test_lines_and_bands_are_those_that_were_measured(values):
    for kind, style in CURVE_STYLES.items():
        mean, mass, thickening = draw_curves(values, kind).axes
        band = values[kind]["findings"]["Mass"]
        line = mass.get_lines()[-1]
        np.testing.assert_array_equal(line.get_ydata()[-101:], band["value"])
        np.testing.assert_array_equal(line.get_xdata()[-101:], values["grid"])
        filled = mass.collections[0].get_paths()[0].vertices
        assert {*band["low"], *band["high"]} <= {*filled[:, 1]}
        np.testing.assert_array_equal(mean.get_lines()[-1].get_ydata()[-101:], values[kind]["mean"]["value"])
        assert "mean of 2 findings" in mean.get_title(loc="left")
        assert f"{style.area} {band['area']['value']:.3f} (" in mass.texts[0].get_text()
        assert thickening.get_title(loc="left").startswith("Pleural_Thickening")
    chance = draw_curves(values, "precision_recall").axes[1].get_lines()[0]
    assert set(chance.get_ydata()) == {values["findings"]["Mass"]["prevalence"]}


def test_every_figure_of_the_section_is_drawn_and_any_name_is_text(values, tmp_path):
    section = curves_section(values)
    assert any(NAMES[1] in block.text for block in section.blocks if isinstance(block, Text))  # has no curve
    assert isinstance(section.blocks[0], Heading)
    assert {block.path for block in section.blocks if isinstance(block, Figure)} == set(section.drawings)
    for draw in section.drawings.values():
        figure = draw()
        figure.set_layout_engine("none")
        figure.savefig(tmp_path / "a.png", dpi=30)  # a formula in a name would raise


def test_one_finding_has_no_mean_and_none_has_no_figure():
    label_NC = np.column_stack([np.arange(20) % 2, np.zeros(20)]).astype(float)
    score_NC = np.random.default_rng(0).random((20, 2))
    draws = PatientDraws.of(np.arange(20), resamples=5)
    one = measure_curves(score_NC, label_NC, draws, label_names=NAMES[:2]).to_dict()
    (axis,) = draw_curves(one, "roc").axes
    assert axis.get_title(loc="left") == "Mass"
    none = curves_section(measure_curves(score_NC, 0 * label_NC, draws, label_names=NAMES[:2]).to_dict())
    assert not none.drawings
    assert "Mass, Hernia" in none.blocks[1].text
