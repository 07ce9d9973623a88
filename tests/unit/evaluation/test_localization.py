"""Maps of a split against boxes: figures, intervals and differences by a slow loop; planted maps; refusals."""

import json

import numpy as np
import pytest

from hf_cxr.evaluation.boxes import score_map
from hf_cxr.evaluation.draws import PatientDraws
from hf_cxr.evaluation.localization import ALL, MEAN, STATISTICS, measure_localization
from hf_cxr.files import plain

NAMES = ("Nodule", "Mass", "Hernia")
PAIRS = 40


def cohort(seed=0):
    """Findings, patients, and three maps of each pair: of the box, of noise, and flat in a third of them."""
    rng = np.random.default_rng(seed)
    findings = rng.choice(["Mass", "Nodule"], PAIRS).tolist()
    patients = [f"p{number}" for number in rng.integers(0, 12, PAIRS)]
    scores = {"random": [], "map": [], "weak": []}
    for number in range(PAIRS):
        boxes = np.concatenate(
            [rng.uniform(0.05, 0.5, (1 + number % 2, 2)), rng.uniform(0.1, 0.4, (1 + number % 2, 2))], 1
        )
        centre = (np.arange(24) + 0.5) / 24
        inside = np.zeros((24, 24))
        for x, y, width, height in boxes:
            across, down = (centre > x) & (centre < x + width), (centre > y) & (centre < y + height)
            inside[np.ix_(down, across)] = 1
        noise = rng.random((24, 24))
        scores["random"].append(score_map(noise, boxes))
        scores["map"].append(score_map(inside + 0.1 * noise, boxes))
        scores["weak"].append(score_map(0.5 * inside + noise if number % 3 else np.zeros((24, 24)), boxes))
    return scores, findings, patients


def measure(scores, findings, patients, **kwargs):
    draws = PatientDraws.of(patients, resamples=60, seed=3)
    options = {"explained": "map", "label_names": NAMES, **kwargs}
    return measure_localization(scores, findings, [f"i{n}" for n in range(len(findings))], draws, **options)


def ratio(scores, statistic, weights, rows):
    """A statistic as its definition says, one pair after another."""
    top = bottom = 0.0
    for row in rows:
        part = STATISTICS[statistic].parts(scores[row])
        top, bottom = top + weights[row] * part[0], bottom + weights[row] * part[1]
    return top / bottom if bottom else np.nan


def test_figures_and_draws_are_those_of_a_slow_loop():
    scores, findings, patients = cohort()
    result = measure(scores, findings, patients)
    assert result.findings == ("Nodule", "Mass")
    draws = PatientDraws.of(patients, resamples=60, seed=3)
    weight_RP = np.concatenate([draws.per_image(weight_RM) for _, weight_RM in draws.blocks()])
    groups = {name: [row for row, finding in enumerate(findings) if finding == name] for name in result.findings}
    groups[ALL] = range(PAIRS)
    for statistic in ("iobb_0.25", "iou_0.3", "pointing", "pointing_near", "energy", "false_iou_0.5"):
        for key in scores:
            place = result.maps.index(key), list(STATISTICS).index(statistic)
            for group, rows in groups.items():
                where = (*place, result.groups.index(group))
                assert result.value_ASG[where] == pytest.approx(ratio(scores[key], statistic, np.ones(PAIRS), rows))
                draw_R = [ratio(scores[key], statistic, weight_P, rows) for weight_P in weight_RP]
                explained_R = [ratio(scores["map"], statistic, weight_P, rows) for weight_P in weight_RP]
                limits = np.nanquantile(draw_R, [0.025, 0.975])
                np.testing.assert_allclose([result.low_ASG[where], result.high_ASG[where]], limits)
                limits = np.nanquantile(np.subtract(explained_R, draw_R), [0.025, 0.975])
                np.testing.assert_allclose(
                    [result.difference_low_ASG[where], result.difference_high_ASG[where]], limits, atol=1e-12
                )
            mean = np.mean([result.value(key, statistic, name) for name in result.findings])
            assert result.value(key, statistic, MEAN) == pytest.approx(mean)


def test_a_planted_map_is_above_noise_and_noise_is_not_above_itself():
    scores, findings, patients = cohort()
    result = measure(scores, findings, patients)
    noise = result.maps.index("random")
    assert result.maps[0] == "map"
    for statistic in ("pointing", "energy", "iou_0.3"):
        place = noise, list(STATISTICS).index(statistic), result.groups.index(ALL)
        assert result.difference_low_ASG[place] > 0.2
        assert result.p_ASG[place] < 0.05
    assert (result.difference_ASG[0] == 0).all()
    again = measure({"map": scores["random"], "random": scores["random"]}, findings, patients)
    assert np.nanmax(np.abs(again.difference_ASG)) == 0
    assert (again.p_ASG[1][:, -2] == 1).all()


def test_counts_say_what_was_measured():
    scores, findings, patients = cohort()
    result = measure(scores, findings, patients)
    assert result.boxes_C.sum() == sum(len(score.iou_K) for score in scores["map"]) == 60
    assert result.pairs_C.tolist() == [findings.count("Nodule"), findings.count("Mass")]
    assert (result.images, result.patients) == (PAIRS, len(set(patients)))
    assert result.flat_A.tolist() == [0, 0, 14]
    assert 0 < result.covered < 1


def test_similarity_is_a_mean_over_the_pairs_where_it_is_defined():
    scores, findings, patients = cohort()
    similarity_P = np.linspace(-1, 1, PAIRS)
    similarity_P[:10] = np.nan
    result = measure(scores, findings, patients, similarity_P=similarity_P)
    value, low, high = result.similarity_G3[result.groups.index(ALL)]
    assert value == pytest.approx(np.nanmean(similarity_P))
    assert low < value < high
    assert np.isnan(measure(scores, findings, patients).similarity_G3).all()


def test_one_patient_has_no_interval():
    scores, findings, patients = cohort()
    findings = ["Hernia" if patient == "p1" else finding for finding, patient in zip(findings, patients, strict=True)]
    result = measure(scores, findings, patients)
    column = result.groups.index("Hernia")
    assert result.patients_C[column] == 1
    assert np.isnan(result.low_ASG[..., column]).all()
    assert np.isnan(result.p_ASG[..., column]).all()
    assert not np.isnan(result.value_ASG[0, :, column]).all()
    assert not np.isnan(result.low_ASG[0, 0, result.groups.index(ALL)])


def test_the_values_are_plain_and_by_name():
    scores, findings, patients = cohort()
    result = measure(scores, findings, patients)
    values = json.loads(json.dumps(plain(result.to_dict()), allow_nan=False))
    assert values["values"]["weak"]["iou_0.3"]["Mass"][0] == pytest.approx(result.value("weak", "iou_0.3", "Mass"))
    assert set(values["differences"]) == {"random", "weak"}
    assert values["counts"]["boxes"] == dict(zip(result.findings, result.boxes_C.tolist(), strict=True))


def test_what_cannot_be_measured_is_refused():
    scores, findings, patients = cohort()
    with pytest.raises(ValueError, match="no box"):
        measure_localization({"map": []}, [], [], PatientDraws.of(patients), explained="map", label_names=NAMES)
    with pytest.raises(ValueError, match="random 3"):
        measure(scores | {"random": scores["random"][:3]}, findings, patients)
    with pytest.raises(ValueError, match="'occlusion'"):
        measure(scores, findings, patients, explained="occlusion")
    with pytest.raises(ValueError, match="'Edema'"):
        measure(scores, ["Edema", *findings[1:]], patients)
    with pytest.raises(ValueError, match="confidence"):
        measure(scores, findings, patients, confidence=1.0)
