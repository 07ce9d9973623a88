"""Studies in place of images: against pandas, at the limit of one image a study, and what is refused."""

import numpy as np
import pandas as pd
import pytest

from hf_cxr.evaluation import evaluate_predictions
from hf_cxr.evaluation.studies import STUDY_SCORES, group_studies, pool_labels, pool_scores

NAN = np.nan


@pytest.fixture
def images():
    """40 images of 17 studies of 9 patients, in mixed order; labels partly unknown."""
    rng = np.random.default_rng(5)
    study = np.array([*rng.permutation(17), *rng.integers(0, 17, 23)])
    label_NC = rng.integers(0, 2, (40, 3)).astype(float)
    label_NC[rng.random((40, 3)) < 0.3] = NAN
    return [f"s{one}" for one in study], [f"p{one // 2}" for one in study], rng.random((40, 3)), label_NC


@pytest.mark.parametrize("rule", STUDY_SCORES)
def test_scores_and_labels_are_those_of_a_groupby(images, rule):
    studies, patients, prob_NC, label_NC = images
    groups = group_studies(studies, patients)
    by_study = pd.DataFrame(prob_NC).groupby(studies, sort=False)
    assert groups.ids == tuple(dict.fromkeys(studies))  # in the order of the first images
    assert list(groups.ids) != sorted(groups.ids)
    expected = getattr(by_study, rule)().loc[list(groups.ids)].to_numpy()
    np.testing.assert_allclose(pool_scores(prob_NC, groups, rule), expected, rtol=1e-15)
    label_SC, conflict_SC = pool_labels(label_NC, groups)
    labels = pd.DataFrame(label_NC).groupby(studies, sort=False)
    np.testing.assert_array_equal(label_SC, labels.max().loc[list(groups.ids)].to_numpy())  # NaN where all are
    spread = (labels.max() - labels.min()).loc[list(groups.ids)].to_numpy()
    np.testing.assert_array_equal(conflict_SC, spread == 1)
    assert conflict_SC.any()
    assert np.isnan(label_SC).any()
    assert groups.size_S.tolist() == by_study.size().loc[list(groups.ids)].tolist()
    assert [patients[row] for row in groups.first_S] == list(groups.patient_ids)


@pytest.mark.parametrize("rule", STUDY_SCORES)
def test_studies_of_one_image_are_the_images_to_the_bit(images, rule):
    _, patients, prob_NC, label_NC = images
    groups = group_studies([f"s{row}" for row in range(40)], patients)
    assert np.array_equal(pool_scores(prob_NC, groups, rule), prob_NC)
    label_SC, conflict_SC = pool_labels(label_NC, groups)
    assert np.array_equal(label_SC, label_NC, equal_nan=True)
    assert not conflict_SC.any()
    of_images, of_studies = (
        evaluate_predictions(probs, labels, ids, resamples=20, seed=3).to_dict()
        for probs, labels, ids in (
            (prob_NC, label_NC, patients),
            (pool_scores(prob_NC, groups, rule), label_SC, groups.patient_ids),
        )
    )
    np.testing.assert_equal(of_studies, of_images)  # NaN equals NaN


def test_the_mean_stays_a_probability_and_the_order_of_images_does_not_matter():
    groups = group_studies(["a"] * 7 + ["b"] * 3, ["1"] * 7 + ["2"] * 3)
    assert pool_scores(np.ones((10, 1)), groups).max() == 1
    assert pool_scores(np.zeros((10, 1)), groups).max() == 0
    prob_NC = np.random.default_rng(0).random((10, 2))
    for rule in STUDY_SCORES:
        backwards = group_studies(["b"] * 3 + ["a"] * 7, ["2"] * 3 + ["1"] * 7)
        pooled = pool_scores(prob_NC[::-1], backwards, rule)[::-1]
        np.testing.assert_allclose(pooled, pool_scores(prob_NC, groups, rule), rtol=1e-15)


def test_an_image_without_a_study_is_one_of_its_own():
    groups = group_studies([None, "a", None, "a"], ["1", "1", "1", "1"])
    assert groups.ids == (None, "a", None)
    assert groups.number_N.tolist() == [0, 1, 2, 1]


def test_what_is_refused():
    with pytest.raises(ValueError, match=r"study a is of two patients, 1 and 2 \(row 1\)"):
        group_studies(["a", "a"], ["1", "2"])
    with pytest.raises(ValueError, match="row 1 has no patient"):
        group_studies(["a", "b"], ["1", ""])
    groups = group_studies(["a", "b"], ["1", "2"])
    with pytest.raises(ValueError, match="choose from mean, max"):
        pool_scores([[0.1], [0.2]], groups, "median")
    with pytest.raises(ValueError, match="3 rows for 2 images"):
        pool_labels([[1], [0], [1]], groups)
    with pytest.raises(ValueError, match="outside"):
        pool_scores([[0.1], [1.2]], groups)
