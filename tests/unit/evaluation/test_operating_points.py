"""Operating points: each rule against a slow search, ties and float32, the round trip, intervals by a slow loop."""

import json

import numpy as np
import pytest
from scipy.special import expit, logit
from sklearn import metrics as reference

from hf_cxr.evaluation.decision import DECISIONS
from hf_cxr.evaluation.draws import PatientDraws
from hf_cxr.evaluation.operating_points import (
    COUNTS,
    OperatingPoint,
    OperatingPoints,
    choose_operating_points,
    measure_operating_points,
    threshold_intervals,
)
from hf_cxr.evaluation.report import evaluate_predictions
from hf_cxr.evaluation.threshold_rules import RULES, cuts_of, redrawn_thresholds

NAN = float("nan")
NAMES = ("Mass", "Edema", "Hernia")
TARGETS = {"sensitivity": 0.8, "specificity": 0.8, "cost": 3.0, "bayes": 3.0}


def draw(seed=0, n=80, distinct=None):
    """Probabilities with unknown cells; with ``distinct``, tied."""
    rng = np.random.default_rng(seed)
    logit_NC = rng.normal((-0.5, -1.5, -2.5), size=(n, len(NAMES)))
    prob_NC = expit(logit_NC.astype(np.float32).astype(np.float64))
    label_NC = (rng.random(prob_NC.shape) < prob_NC).astype(np.float64)
    if distinct:
        prob_NC = np.round(prob_NC * distinct) / distinct
    label_NC[rng.random(label_NC.shape) < 0.1] = NAN
    label_NC[0], label_NC[1] = 1, 0
    return prob_NC, label_NC


def counts_at(prob_N, label_N, threshold):
    """TP, FP, TN, FN by a loop."""
    cells = [(p >= threshold, y) for p, y in zip(prob_N, label_N, strict=True) if not np.isnan(y)]
    return tuple(cells.count(pair) for pair in ((True, 1), (True, 0), (False, 0), (False, 1)))


def goodness(rule, counts, target):
    """What a rule compares; the greater is the better."""
    tp, fp, tn, fn = counts
    sensitivity, specificity = tp / (tp + fn), tn / (tn + fp)
    return {
        "youden": lambda: (round(sensitivity + specificity, 12), -(tp + fp)),
        "f1": lambda: (round(2 * tp / (2 * tp + fp + fn), 12), -(tp + fp)),
        "sensitivity": lambda: (sensitivity >= target, -fp, tp) if sensitivity >= target else (False, 0, 0),
        "specificity": lambda: (specificity >= target, tp, -fp) if specificity >= target else (False, 0, 0),
        "cost": lambda: (-(target * fn + fp), -(tp + fp)),
    }[rule]()


@pytest.mark.parametrize("distinct", [None, 7, 20])
@pytest.mark.parametrize("rule", [name for name in RULES if name != "bayes"])
def test_each_rule_finds_the_best_of_all_thresholds(rule, distinct):
    prob_NC, label_NC = draw(1, 50, distinct)
    target = TARGETS.get(rule)
    points = choose_operating_points(prob_NC, label_NC, rule=rule, target=target, label_names=NAMES)
    for column, name in enumerate(NAMES):
        pair = prob_NC[:, column], label_NC[:, column]
        point = points.by_finding[name]
        every = [counts_at(*pair, threshold) for threshold in (*np.unique(pair[0]), 1.1)]
        chosen = counts_at(*pair, point.threshold)
        assert goodness(rule, chosen, target) == max(goodness(rule, counts, target) for counts in every)
        tp, fp, tn, fn = chosen
        assert (point.positives, point.negatives) == (tp + fn, tn + fp)
        assert (point.sensitivity, point.specificity) == (tp / (tp + fn), tn / (tn + fp))


def test_a_threshold_is_halfway_between_two_neighbours():
    prob_N1 = np.array([[0.1], [0.2], [0.6], [0.9]])
    label_N1 = np.array([[0.0], [0.0], [1.0], [1.0]])
    for rule in ("youden", "f1", "cost", "sensitivity", "specificity"):
        target = {"cost": 1.0, "sensitivity": 1.0, "specificity": 1.0}.get(rule)
        point = choose_operating_points(prob_N1, label_N1, rule=rule, target=target).by_finding["finding_0"]
        assert (point.threshold, point.sensitivity, point.specificity) == (pytest.approx(0.4), 1, 1)
    bayes = choose_operating_points(prob_N1, label_N1, rule="bayes", target=3).by_finding["finding_0"]
    assert (bayes.threshold, bayes.sensitivity, bayes.specificity) == (0.25, 1, 1)


def test_the_ends_of_the_scores_may_be_chosen():
    """A missed positive that costs nothing to speak of: call none. One that costs everything: call all."""
    prob_N1, label_N1 = np.array([[0.2], [0.4], [0.6]]), np.array([[1.0], [0.0], [0.0]])

    def choose(ratio):
        return choose_operating_points(prob_N1, label_N1, rule="cost", target=ratio).by_finding["finding_0"]

    assert (choose(0.001).threshold, choose(0.001).sensitivity) == (pytest.approx(0.8), 0)
    assert (choose(1000.0).threshold, choose(1000.0).sensitivity) == (pytest.approx(0.1), 1)


def test_cost_is_the_bayes_threshold_where_probabilities_are_calibrated():
    rng = np.random.default_rng(5)
    prob_N1 = rng.beta(1, 3, size=(200_000, 1))
    label_N1 = (rng.random(prob_N1.shape) < prob_N1).astype(np.float64)
    for ratio in (1.0, 4.0):
        chosen = choose_operating_points(prob_N1, label_N1, rule="cost", target=ratio).by_finding["finding_0"]
        assert chosen.threshold == pytest.approx(1 / (1 + ratio), abs=0.03)


def test_calls_do_not_depend_on_the_order_of_the_rows():
    prob_NC, label_NC = draw(2, distinct=9)
    order = np.random.default_rng(0).permutation(len(prob_NC))
    for rule in RULES:
        pair = [
            choose_operating_points(p, y, rule=rule, target=TARGETS.get(rule), label_names=NAMES)
            for p, y in ((prob_NC, label_NC), (prob_NC[order], label_NC[order]))
        ]
        assert pair[0] == pair[1]


def test_a_model_in_float32_makes_the_calls_that_were_measured():
    """Scores one float32 step apart, of which a threshold in between could not be told: they count as equal."""
    rng = np.random.default_rng(3)
    logit_N = np.concatenate(
        [
            np.float32(x) + np.float32(np.spacing(np.float32(x))) * np.arange(40, dtype=np.float32)
            for x in (-9.0, -3.0, 0.1, 2.0, 12.0)
        ]
    ).astype(np.float32)
    prob_N, label_N = expit(logit_N.astype(np.float64)), (rng.random(len(logit_N)) < 0.5)
    cuts = cuts_of(prob_N, label_N)
    assert 5 <= len(cuts.threshold_T) <= 30
    single_N = (np.float32(1) / (np.float32(1) + np.exp(-logit_N))).astype(np.float32)
    for threshold in cuts.threshold_T:
        np.testing.assert_array_equal(single_N >= threshold, prob_N >= threshold)
    # Without that, there would be a cut at every step, and calls would differ.
    middle = (np.unique(prob_N)[1:] + np.unique(prob_N)[:-1]) / 2
    assert any(((single_N >= threshold) != (prob_N >= threshold)).any() for threshold in middle)


def test_findings_with_one_label_or_an_unreachable_target_have_none():
    prob_NC = np.array([[0.2, 0.3, 1.0], [0.8, 0.4, 1.0], [0.5, 0.5, 1.0]])
    label_NC = np.array([[0.0, 0.0, 0.0], [1.0, 0.0, 1.0], [NAN, NAN, 1.0]])
    points = choose_operating_points(prob_NC, label_NC, rule="specificity", target=1.0, label_names=NAMES)
    assert points.without == ("Edema", "Hernia")
    np.testing.assert_array_equal(points.threshold_C(("Hernia", "Mass", "Nodule")), [NAN, 0.5, NAN])
    assert choose_operating_points(prob_NC, label_NC, label_names=NAMES).without == ("Edema",)


def test_mapped_points_make_the_same_calls():
    prob_NC, label_NC = draw(4)
    points = choose_operating_points(prob_NC, label_NC, rule="f1", label_names=NAMES)
    slope_C, intercept_C = np.array([0.5, 2.0, 1.0]), np.array([1.0, -3.0, 0.4])
    moved_NC = expit(logit(prob_NC) * slope_C + intercept_C)
    backwards = OperatingPoints(dict(reversed(points.by_finding.items())))  # as config.json may have it
    mapped = backwards.mapped(NAMES, slope_C, intercept_C)
    before, after = points.threshold_C(NAMES), mapped.threshold_C(NAMES)
    assert np.all(before != after)
    np.testing.assert_array_equal(moved_NC >= after, prob_NC >= before)
    with pytest.raises(ValueError, match="slopes above 0"):
        points.mapped(NAMES, -slope_C, intercept_C)
    with pytest.raises(ValueError, match="no slope and intercept for Hernia"):
        points.mapped(NAMES[:2], slope_C[:2], intercept_C[:2])
    bayes = choose_operating_points(prob_NC, label_NC, rule="bayes", target=4, label_names=NAMES)
    assert bayes.mapped(NAMES, slope_C, intercept_C) == bayes


@pytest.mark.parametrize("rule", list(RULES))
def test_threshold_intervals_are_those_of_a_slow_loop(rule):
    """The drawn images, as many times as they were drawn, chosen from again: the same calls of the drawn images."""
    prob_NC, label_NC = draw(12, 60, distinct=12)
    draws = PatientDraws.of([f"p{row // 2:02}" for row in range(60)], resamples=25, seed=3)
    how = {"rule": rule, "target": TARGETS.get(rule)}
    weight_RN = np.concatenate([draws.per_image(weight_RM) for _, weight_RM in draws.blocks()])
    for column in range(3):
        prob_N, label_N = prob_NC[:, column], label_NC[:, column]
        known_N = ~np.isnan(label_N)
        threshold_R = redrawn_thresholds(prob_N[known_N], label_N[known_N] == 1, weight_RN[:, known_N], **how)
        for threshold, weight_N in zip(threshold_R, weight_RN, strict=True):
            rows = np.repeat(np.arange(60), weight_N)
            again = choose_operating_points(prob_N[rows, None], label_N[rows, None], **how).by_finding["finding_0"]
            assert np.isnan(threshold) == (again is None)
            if again is not None:
                np.testing.assert_array_equal(prob_N[rows] >= threshold, prob_N[rows] >= again.threshold)
    points = choose_operating_points(prob_NC, label_NC, label_names=NAMES, **how)
    points = OperatingPoints({**points.by_finding, "Hernia": None})
    intervals = threshold_intervals(prob_NC, label_NC, draws, points, label_names=NAMES, confidence=0.8)
    assert intervals["Hernia"] is None
    threshold_R = redrawn_thresholds(
        *(array[~np.isnan(label_NC[:, 0])] for array in (prob_NC[:, 0], label_NC[:, 0] == 1)),
        weight_RN[:, ~np.isnan(label_NC[:, 0])],
        **how,
    )
    assert intervals["Mass"] == pytest.approx(tuple(np.nanquantile(threshold_R, [0.1, 0.9])))


# What is stored.


def test_json_gives_the_same_points_back():
    prob_NC, label_NC = draw()
    label_NC[:, 1] = 0
    points = choose_operating_points(prob_NC, label_NC, rule="sensitivity", target=0.9, label_names=NAMES)
    assert points.without == ("Edema",)
    assert OperatingPoints.from_dict(json.loads(json.dumps(points.to_dict()))) == points


GOOD = {
    "threshold": 0.2,
    "rule": "sensitivity",
    "target": 0.9,
    "sensitivity": 0.91,
    "specificity": 0.5,
    "positives": 3,
    "negatives": 9,
}


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([1], "must be a mapping of findings"),
        ({"Mass": 0.3}, "operating point of Mass is 0.3; it must have threshold"),
        ({"Mass": {"threshold": 0.3}}, "operating point of Mass has no rule"),
        ({"Mass": GOOD | {"threshold": 1.4}}, "Mass: threshold is 1.4; it must be a number between 0 and 1"),
        ({"Mass": GOOD | {"threshold": NAN}}, "threshold is nan"),
        ({"Mass": GOOD | {"threshold": "0.5"}}, "threshold is '0.5'"),
        ({"Mass": GOOD | {"threshold": True}}, "threshold is True"),
        ({"Mass": GOOD | {"rule": "best"}}, "'best' is not a rule for operating points: choose from youden"),
        ({"Mass": GOOD | {"target": None}}, "needs a target: the sensitivity to reach"),
        ({"Mass": GOOD | {"target": 1.5}}, "got 1.5, expected above 0 and at most 1"),
        ({"Mass": GOOD | {"rule": "youden", "target": "x"}}, "takes no target; got 'x'"),
        ({"Mass": GOOD | {"positives": 0}}, "positives is 0; it must be a whole number of at least 1"),
        ({"Mass": GOOD | {"negatives": 2.5}}, "negatives is 2.5"),
    ],
)
def test_damaged_points_are_refused_in_one_line(values, message):
    with pytest.raises(ValueError, match=message.replace("(", r"\(")) as caught:
        OperatingPoints.from_dict(values)
    assert "\n" not in str(caught.value)
    assert OperatingPoints.from_dict({"Mass": GOOD, "Edema": None}).by_finding["Mass"] == OperatingPoint(**GOOD)


@pytest.mark.parametrize(
    ("rule", "target"), [("cost", 0.0), ("cost", float("inf")), ("sensitivity", NAN), ("f2", None)]
)
def test_a_rule_that_cannot_be_followed_is_refused(rule, target):
    with pytest.raises(ValueError, match=r"expected|choose from"):
        choose_operating_points(*draw(), rule=rule, target=target)


def test_logits_are_refused():
    prob_NC, label_NC = draw()
    with pytest.raises(ValueError, match="look like logits"):
        choose_operating_points(logit(prob_NC), label_NC)


# What is measured.


def test_figures_and_intervals_are_those_of_a_slow_loop():
    prob_NC, label_NC = draw(6, n=90)
    patient_N = np.random.default_rng(1).integers(25, size=90)
    points = choose_operating_points(*draw(7), label_names=NAMES)
    draws = PatientDraws.of([f"p{number:02}" for number in patient_N], resamples=40, seed=2)
    measured = measure_operating_points(prob_NC, label_NC, draws, points, label_names=NAMES, confidence=0.9)
    called_NC = prob_NC >= points.threshold_C(NAMES)
    weight_RN = np.concatenate([draws.per_image(weight_RM) for _, weight_RM in draws.blocks()])
    for column in range(len(NAMES)):
        known_N = ~np.isnan(label_NC[:, column])
        y, called = label_NC[known_N, column], called_NC[known_N, column]
        counts = [measured.count_C["chosen"][name][column] for name in COUNTS]
        assert counts == reference.confusion_matrix(y, called)[[1, 0, 0, 1], [1, 1, 0, 0]].tolist()
        ppv_R = []
        for weight_N in weight_RN:
            rows = np.repeat(np.flatnonzero(known_N), weight_N[known_N])  # the drawn images, as many times as drawn
            ppv_R.append(reference.precision_score(label_NC[rows, column], called_NC[rows, column]))
        ppv = measured.measured["chosen"]["ppv"]
        assert ppv.value_C[column] == pytest.approx(reference.precision_score(y, called), abs=1e-12)
        np.testing.assert_allclose(ppv.interval(column)[1:], np.quantile(ppv_R, [0.05, 0.95]), atol=1e-12)
    known_NC = ~np.isnan(label_NC)
    f1 = reference.f1_score(label_NC[known_NC], called_NC[known_NC])
    micro = measured.measured["chosen"]["f1"].averages["micro"]
    assert micro.value == pytest.approx(f1, abs=1e-12)
    assert micro.low < micro.value < micro.high
    macro = measured.measured["chosen"]["sensitivity"]
    assert macro.macro == pytest.approx(macro.value_C.mean())
    assert macro.macro_low < macro.macro < macro.macro_high


def test_the_table_of_metrics_gives_the_same_at_these_thresholds():
    prob_NC, label_NC = draw(10)
    patients = [f"p{row // 3:02}" for row in range(len(prob_NC))]
    points = choose_operating_points(*draw(11), label_names=NAMES)
    options = {"label_names": NAMES, "confidence": 0.8}
    draws = PatientDraws.of(patients, resamples=30, seed=4)
    measured = measure_operating_points(prob_NC, label_NC, draws, points, **options).measured["chosen"]
    report = evaluate_predictions(
        prob_NC, label_NC, patients, thresholds=points.threshold_C(NAMES), resamples=30, seed=4, **options
    )
    for key in DECISIONS:
        expected = report.measured["all"][key]
        for name in ("value_C", "low_C", "high_C"):
            np.testing.assert_allclose(getattr(measured[key], name), getattr(expected, name), atol=1e-12)
        np.testing.assert_allclose(measured[key].macro_interval, expected.macro_interval, atol=1e-12)
        np.testing.assert_allclose(
            measured[key].averages["micro"].interval, expected.averages["micro"].interval, atol=1e-12
        )


def test_half_is_measured_too_and_a_finding_without_a_point_is_undefined():
    prob_NC, label_NC = draw(8)
    points = choose_operating_points(*draw(9), rule="f1", label_names=NAMES)
    points = OperatingPoints({name: None if name == "Hernia" else point for name, point in points.by_finding.items()})
    draws = PatientDraws.of([str(row // 2) for row in range(len(prob_NC))], resamples=20)
    other = choose_operating_points(*draw(9), label_names=NAMES)
    values = measure_operating_points(
        prob_NC, label_NC, draws, points, label_names=NAMES, compared={"youden": other}
    ).to_dict()
    json.dumps(values, allow_nan=False)
    assert values["without"] == ["Hernia"]
    chosen, half = values["sets"]["chosen"], values["sets"]["0.5"]
    assert list(values["sets"]) == ["chosen", "youden", "0.5"]
    for key in ("threshold", "true_positives"):
        assert chosen[key]["Hernia"] is None
        assert half[key]["Hernia"] is not None
    assert chosen["sensitivity"]["undefined"] == ["Hernia"]
    assert chosen["sensitivity"]["macro"] == pytest.approx(
        np.mean([chosen["sensitivity"]["value"][name] for name in ("Mass", "Edema")])
    )
    assert half["true_positives"]["Mass"] == ((prob_NC[:, 0] >= 0.5) & (label_NC[:, 0] == 1)).sum()
    assert half["true_positives"] != chosen["true_positives"]


def test_a_name_that_is_taken_and_lengths_that_differ_are_refused():
    prob_NC, label_NC = draw()
    points = choose_operating_points(prob_NC, label_NC, label_names=NAMES)
    draws = PatientDraws.of([str(row) for row in range(len(prob_NC))], resamples=2)
    with pytest.raises(ValueError, match=r"cannot be named '0\.5'"):
        measure_operating_points(prob_NC, label_NC, draws, points, label_names=NAMES, compared={"0.5": points})
    with pytest.raises(ValueError, match="expected 80 images of the draws and 2 findings"):
        measure_operating_points(prob_NC, label_NC, draws, points, label_names=NAMES[:2])
