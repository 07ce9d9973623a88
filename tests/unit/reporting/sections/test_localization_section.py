"""The section on localisation says what its values say, in every form; pictures of maps show what they should."""

import json

import numpy as np
import pytest

from hf_cxr.evaluation.boxes import score_map
from hf_cxr.evaluation.draws import PatientDraws
from hf_cxr.evaluation.localization import CONTROLS, measure_localization
from hf_cxr.files import plain
from hf_cxr.labels import NIH14
from hf_cxr.reporting.document import Document, Table
from hf_cxr.reporting.overlay import overlay, scaled, under_map
from hf_cxr.reporting.sections.localization import PICTURE, WANG_FINDINGS, WANG_IOBB, localization_section


def values_of(good: bool, **kwargs):
    """What localization.json holds, of maps that know the box, or of noise."""
    rng = np.random.default_rng(0)
    scores = {key: [] for key in ("grad_cam", *CONTROLS)}
    findings, patients = [], []
    for number in range(40):
        box = np.append(rng.uniform(0.05, 0.6, 2), [0.3, 0.25])
        centre = (np.arange(16) + 0.5) / 16
        inside = np.outer(*((centre > low) & (centre < low + size) for low, size in (box[[1, 3]], box[[0, 2]])))
        for key in scores:
            noise = rng.random((16, 16))
            known = good and key == "grad_cam"
            scores[key].append(score_map(inside + 0.2 * noise if known else noise, box[None]))
        findings.append("Mass" if number % 2 else "Nodule")
        patients.append(f"patient-{number // 2}")
    draws = PatientDraws.of(patients, resamples=50, seed=0)
    localization = measure_localization(
        scores, findings, patients, draws, explained="grad_cam", label_names=NIH14, similarity_P=np.full(40, 0.1)
    )
    extra = {"titles": {"grad_cam": "Grad-CAM"}, "grid": [7, 7], "seen": [0, 0, 1, 1], "synthetic": False}
    return json.loads(json.dumps(plain({**localization.to_dict(), **extra, **kwargs}), allow_nan=False))


@pytest.mark.parametrize("good", [True, False])
def test_a_map_is_above_a_control_where_the_interval_of_the_difference_is(good):
    section = localization_section(values_of(good))
    text = Document("Page", section.blocks).to_markdown()
    rows = {control: text.split(f"the {title}: ")[1].split("\n")[0] for control, title in CONTROLS.items()}
    assert all(row.startswith("above it by pointing game, energy") is good for row in rows.values())
    assert "weights: 0.10 (0.10 to 0.10)" in text


def test_a_map_below_a_control_is_said_to_be_below():
    values = values_of(True)
    values["differences"]["centre"]["pointing"]["all boxes"] = [-0.2, -0.3, -0.1, 0.002]
    text = Document("Page", localization_section(values).blocks).to_markdown()
    assert "; below it by pointing game" in text


def test_every_map_and_every_finding_has_its_row_in_every_form():
    values = values_of(True)
    section = localization_section(values)
    document = Document("Page", section.blocks)
    first, _, by_finding, _ = [block for block in section.blocks if isinstance(block, Table)]
    assert [row[0] for row in first.rows] == ["Grad-CAM", *CONTROLS.values()]
    assert [row[0] for row in by_finding.rows] == ["Mass", "Nodule", "all boxes", "mean of findings"]
    assert [row[1] for row in by_finding.rows][:2] == ["20", "20"]
    assert f"{values['values']['grad_cam']['pointing']['all boxes'][0]:.3f}" in first.rows[0][1]
    for form in (document.to_terminal(), document.to_markdown(), document.to_html("."), document.to_latex()):
        assert "middle of the image" in form
        assert "patient-1" not in form


def test_published_figures_have_a_table_of_their_own_and_none_beside_phantoms():
    def tables(**kwargs):
        return [block for block in localization_section(values_of(True, **kwargs)).blocks if isinstance(block, Table)]

    published = tables()[-1]
    assert published.frame.columns[0] == "published"
    assert "Do not rank them" in published.caption
    assert [row[0] for row in published.rows] == [name.replace("_", " ") for name in WANG_FINDINGS]
    assert all(len(figures) == len(WANG_FINDINGS) for figures in WANG_IOBB.values())
    assert len(tables(synthetic=True)) == len(tables()) - 1


def test_the_drawing_has_a_curve_of_each_map():
    figure = localization_section(values_of(True)).drawings[PICTURE]()
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["Grad-CAM", *CONTROLS.values()]
    assert len(figure.axes) == 2


def test_values_without_a_similarity_or_a_finding_are_written_too():
    values = values_of(True)
    values["similarity"] = {group: [None, None, None] for group in values["similarity"]}
    values["values"]["random"]["energy"]["all boxes"] = [None, None, None]
    text = Document("Page", localization_section(values).blocks).to_markdown()
    assert "undefined" in text
    assert "Rank correlation" not in text


def test_a_map_leaves_the_radiograph_where_it_is_low_and_darkens_what_was_not_seen():
    grey_HW = np.full((6, 8), 200, np.uint8)
    map_HW = np.zeros((6, 8), np.float32)
    map_HW[2, 3], map_HW[0] = 5.0, np.nan
    picture = under_map(grey_HW, map_HW)
    assert (picture[5] == 200).all()
    assert (picture[0] < 200).all()
    assert not (picture[2, 3] == 200).all()
    assert (under_map(grey_HW, np.full((6, 8), 3.0)) == 200).all()  # flat: nothing is shown
    assert np.nanmax(scaled(map_HW)) == 1
    assert np.isnan(scaled(map_HW)[0]).all()


def test_a_picture_has_a_panel_for_each_map_and_its_boxes():
    rng = np.random.default_rng(0)
    maps = rng.random((5, 40, 30)).astype(np.float32)
    drawn, detected = {0: [[0.1, 0.1, 0.2, 0.2]]}, {0: [[0, 0, 0.5, 0.5], [0.5, 0.5, 0.5, 0.5]]}
    figure = overlay(
        rng.integers(0, 256, (40, 30), dtype=np.uint8),
        maps,
        [f"$\\frac{{$ {n}" for n in range(5)],
        "a_b $x$",
        drawn=drawn,
        detected=detected,
        seen=(0.1, 0.1, 0.8, 0.8),
    )
    shown = [axis for axis in figure.axes if axis.images]
    assert len(shown) == 6
    assert [len(axis.patches) for axis in shown] == [1, 3, 0, 0, 0, 0]
    figure.canvas.draw()  # a dollar sign begins no formula
    assert "not show that the finding is there" in figure.get_supxlabel().replace("\n", " ")
