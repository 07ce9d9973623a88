"""The table of sections: what is left out of a page has the heading that it would have on it."""

import numpy as np
import pytest

from hf_cxr.evaluation.draws import Intervals
from hf_cxr.evaluation.operating_points import choose_operating_points
from hf_cxr.predictions import Predictions
from hf_cxr.reporting.document import Heading
from hf_cxr.reporting.sections.table import TITLES, sections_of
from hf_cxr.run.analysis import ANALYSES, analyse


def predictions(split, seed, images=160):
    rng = np.random.default_rng(seed)
    label_NC = (rng.random((images, 2)) < 0.3).astype(float)
    return Predictions(
        logits=2 * label_NC - 1 + rng.normal(size=label_NC.shape),
        labels=label_NC,
        image_ids=[f"{split}_{row}" for row in range(images)],
        patient_ids=[f"{split} {row // 2}" for row in range(images)],
        label_names=("Mass", "Edema"),
        split=split,
        sex=tuple(rng.choice(["F", "M"], images)),
    )


@pytest.fixture(scope="module")
def analysis():
    test, validation = predictions("test", 0), predictions("validation", 1)
    points = choose_operating_points(validation.probabilities, validation.labels, label_names=test.label_names)
    return analyse(
        test,
        validation=validation,
        points=points,
        prevalence={"Mass": 0.3, "Edema": 0.3},
        intervals=Intervals(resamples=20),
    )


def test_the_titles_are_the_headings_of_the_sections(analysis):
    assert analysis["not_done"] == {}
    headings = {key: section.blocks[0] for key, section in sections_of(analysis).items()}
    assert all(isinstance(block, Heading) for block in headings.values())
    assert {key: block.text for key, block in headings.items()} == {key: TITLES[key] for key in ANALYSES}
    assert set(TITLES) == {*ANALYSES, "input_check"}  # which needs the model, and is no analysis of predictions
