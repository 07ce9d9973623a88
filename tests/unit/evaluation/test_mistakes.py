"""The most confident mistakes: highest negatives, lowest positives, one of a patient, unknown labels in no list."""

import numpy as np
import pytest

from hf_cxr.evaluation.mistakes import confident_mistakes

SCORES = np.array([[0.9], [0.8], [0.7], [0.2], [0.1], [0.6], [0.99]])
LABELS = np.array([[0], [0], [1], [1], [1], [0], [np.nan]])
PATIENTS = ["a", "a", "b", "c", "c", "d", "e"]


def test_they_are_in_order_and_of_different_patients():
    (one,) = confident_mistakes(SCORES, LABELS, PATIENTS, most=5)
    assert one.high_negatives == (0, 5)  # row 1 is of the same patient as row 0
    assert one.low_positives == (4, 2)
    (one,) = confident_mistakes(SCORES, LABELS, PATIENTS, most=1)
    assert (one.high_negatives, one.low_positives) == ((0,), (4,))


def test_each_finding_has_its_own_and_equal_scores_keep_the_order_of_the_rows():
    score_NC = np.column_stack([SCORES[:, 0], np.full(7, 0.5)])
    label_NC = np.column_stack([LABELS[:, 0], [0, 1, 0, 1, 0, 1, 0]])
    one, other = confident_mistakes(score_NC, label_NC, list("abcdefg"), most=2)
    assert one.high_negatives == (0, 1)
    assert (other.high_negatives, other.low_positives) == ((0, 2), (1, 3))
    nothing = confident_mistakes(SCORES, np.full((7, 1), np.nan), PATIENTS, most=2)[0]
    assert (nothing.high_negatives, nothing.low_positives) == ((), ())


def test_bad_input_is_refused():
    with pytest.raises(ValueError, match="at least 1"):
        confident_mistakes(SCORES, LABELS, PATIENTS, most=0)
    with pytest.raises(ValueError, match="no patient id"):
        confident_mistakes(SCORES, LABELS, [*PATIENTS[:-1], None], most=1)
