"""The contact sheet: the images of the mistakes themselves, in a place that is never pushed."""

import base64
import html
import re
from io import BytesIO

import datasets
import numpy as np
import pytest
from PIL import Image

from hf_cxr.data.schema import features
from hf_cxr.evaluation.mistakes import confident_mistakes
from hf_cxr.hub.file_list import FIGURES, PREDICTIONS, PUSHED
from hf_cxr.predictions import Predictions
from hf_cxr.reporting.mistakes import CAUTIONS, SHEET, thumbnail
from hf_cxr.run.evaluating.mistakes import SIDE, mistakes_page

NAMES = ("Pleural_Thickening", "<Mass>")
N = 12


def png(level):
    buffer = BytesIO()
    Image.new("L", (300, 150), level).save(buffer, format="PNG")
    return buffer.getvalue()


@pytest.fixture(scope="module")
def predictions():
    rng = np.random.default_rng(0)
    label_NC = (rng.random((N, 2)) < 0.5).astype(np.float32)
    ids = [f"{row:03}.png" for row in range(N)]
    patients = [f"p{row // 2}" for row in range(N)]
    age = np.where(np.arange(N) % 2, np.nan, 40 + np.arange(N))
    return Predictions(rng.normal(size=(N, 2)), label_NC, ids, patients, NAMES, view=["AP", None] * 6, age=age)


@pytest.fixture(scope="module")
def images(predictions):
    """An image whose grey level is ten times its row."""
    columns = {
        "image": [{"bytes": png(10 * row), "path": None} for row in range(N)],
        "labels": predictions.labels.tolist(),
        "image_id": list(predictions.image_ids),
        "patient_id": list(predictions.patient_ids),
        "view": list(predictions.view),
        "age": predictions.age.tolist(),
        "sex": [None] * N,
        "boxes": [[]] * N,
    }
    return datasets.Dataset.from_dict(columns, features=features(NAMES))


def shown(page):
    """Finding -> the rows whose images are shown, in order, read from the pixels; and the ids next to them."""
    found = []
    for part in page.split("<h2")[1:]:
        tiles = re.findall(r'alt="Radiograph (\d+)\.png" src="data:image/png;base64,([^"]+)"', part)
        pictures = [Image.open(BytesIO(base64.b64decode(data))) for _, data in tiles]
        assert {picture.size for picture in pictures} == {(SIDE, SIDE // 2)}
        found.append(([int(row) for row, _ in tiles], [int(np.asarray(one)[0, 0]) // 10 for one in pictures]))
    return found


def test_the_page_shows_the_images_of_the_mistakes(images, predictions):
    page = mistakes_page("run a on <test>", predictions, images, most=3)
    mistakes = confident_mistakes(predictions.probabilities, predictions.labels, predictions.patient_ids, most=3)
    expected = [[*one.high_negatives, *one.low_positives] for one in mistakes]
    assert shown(page) == [(rows, rows) for rows in expected]
    assert len(expected[0]) == 6
    row = expected[0][0]
    assert f"<b>{predictions.probabilities[row, 0]:.3f}</b> {row:03}.png" in page


def test_it_warns_escapes_and_says_what_is_known(images, predictions):
    page = mistakes_page("run a on <test>", predictions, images, most=6)
    assert all(caution in html.unescape(page) for caution in CAUTIONS)
    assert "run a on &lt;test&gt;" in page
    assert "&lt;Mass&gt;" in page
    assert "<Mass>" not in page
    assert "Pleural_Thickening" in page
    assert "AP, 40 years" in page
    assert "view, sex and age unknown" in page


def test_its_place_is_one_that_nothing_is_pushed_from():
    assert not [name for name in (*PUSHED, *PREDICTIONS, *FIGURES) if name.split("/")[0] == SHEET.parts[0]]


def test_small_images_are_not_enlarged_and_pixels_are_kept():
    grey_HW = np.arange(12, dtype=np.uint8).reshape(3, 4)
    picture = Image.open(BytesIO(base64.b64decode(thumbnail(grey_HW, 224))))
    assert np.array_equal(np.asarray(picture), grey_HW)


def test_other_images_and_data_without_images_are_refused(images, predictions):
    with pytest.raises(ValueError, match="of other images"):
        mistakes_page("x", predictions, images.select(range(N - 1, -1, -1)), most=1)
    with pytest.raises(ValueError, match="these data have none"):
        mistakes_page("x", predictions, images.remove_columns("image"), most=1)
    with pytest.raises(ValueError, match="at least 1"):
        mistakes_page("x", predictions, images, most=0)
