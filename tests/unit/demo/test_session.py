"""An image in, a prediction out, and heat maps: the numbers are those of Classifier.predict."""

import base64
from io import BytesIO

import numpy as np
import pytest
from demo_models import dicom, png, save_demo_model
from PIL import Image

from hf_cxr.demo.about import PageFacts
from hf_cxr.demo.examples import draw_examples, examples_html
from hf_cxr.demo.limits import Limits
from hf_cxr.demo.pictures import LONGEST, address_of
from hf_cxr.demo.session import Session
from hf_cxr.demo.uploads import GreyImage, UploadError
from hf_cxr.demo.viewer import heat_map_html, image_html, read_html
from hf_cxr.inference.classifier import Classifier
from hf_cxr.models.record import ModelRecord
from hf_cxr.reporting.pictures import shrunk


@pytest.fixture(scope="module")
def session(tmp_path_factory) -> Session:
    return Session(Classifier(save_demo_model(tmp_path_factory.mktemp("model"))), Limits(megabytes=1))


@pytest.mark.parametrize(("content", "name"), [(png(), "a.png"), (dicom(), "a.dcm"), (dicom(stored=16), "b.dcm")])
def test_numbers_are_those_of_predict(session, content, name):
    predicted = session.predict_upload(f"/home/ann/{name}", base64.b64encode(content).decode())
    expected = session.classifier.predict(content, name=name)
    assert np.array_equal(predicted.result.probability_C, expected.probability_C)
    assert predicted.result.to_dict() == expected.to_dict()
    assert np.ptp(expected.probability_C) > 0.1
    assert ("data-doubt" in read_html(predicted)) == bool(expected.remarks) == (name == "b.dcm")
    assert predicted.name == name


def test_a_file_that_the_browser_found_too_large_is_refused_without_its_content(session):
    with pytest.raises(UploadError, match="larger than 1 MB"):
        session.predict_upload("a.png", None, 2_000_000)


def test_a_heat_map_is_over_the_picture_and_differs_between_findings(session):
    grey_HW = np.asarray(Image.open(BytesIO(png())).resize((900, 400)))
    predicted = session.predict(GreyImage("a.png", grey_HW))
    maps = [session.heat_map(predicted, name) for name in session.classifier.label_names[:4]]
    assert {heat.picture_HW3.shape for heat in maps} == {(*shrunk(grey_HW, LONGEST).shape, 3)}
    assert not all(heat.flat for heat in maps)
    assert any(not np.array_equal(maps[0].picture_HW3, heat.picture_HW3) for heat in maps)
    corner = maps[0].picture_HW3[0, 0].astype(int)
    assert abs(corner - round(0.55 * int(predicted.picture_HW[0, 0]))).max() <= 1  # not seen: darker, and no colour
    assert maps[0].cropped
    for name in ("<b>", None, 3):
        with pytest.raises(UploadError, match="no such finding"):
            session.heat_map(predicted, name)
    page = heat_map_html(predicted, maps[0])
    assert "does not see the darker edge" in page
    assert page.count("data:image/jpeg") == 1


def test_pictures_are_small_and_grey_is_without_loss():
    wide_HW = np.zeros((10, 5000), np.uint8)
    assert shrunk(wide_HW, LONGEST).shape == (2, LONGEST)
    small_HW = np.random.default_rng(0).integers(0, 256, (30, 20), dtype=np.uint8)
    assert shrunk(small_HW, LONGEST) is small_HW
    content = base64.b64decode(address_of(small_HW).removeprefix("data:image/png;base64,"))
    assert np.array_equal(np.asarray(Image.open(BytesIO(content))), small_HW)


def test_examples_are_phantoms_and_say_so(session):
    examples = draw_examples(64)
    assert len({example.grey_HW.tobytes() for example in examples}) == len(examples) >= 3
    page = examples_html(examples)
    assert "synthetic phantom" in page
    assert [f'data-example="{number}"' in page for number in range(len(examples))] == [True] * len(examples)
    assert "not a patient" in read_html(session.predict(examples[0].image))


def test_a_files_name_is_never_markup(session):
    page = image_html(session.predict(GreyImage("<img src=x>.png", np.zeros((9, 9), np.uint8))))
    assert "&lt;img src=x&gt;.png, 9 × 9 pixels" in page
    assert page.count("<img") == 1


def test_the_limits_are_those_of_the_models_record(session, tmp_path):
    about = PageFacts.of(session.classifier, tmp_path)
    page = about.header_html() + about.limits_html(session.limits)
    assert page.index("Not a medical device") < page.index("<h1>")
    assert str(tmp_path.parent) not in page
    assert tmp_path.name in page
    for words in ("synthetic phantoms", "assume their prevalences", "Infiltration</th><td>0.180", "1 MB"):
        assert words in page
    other = PageFacts("m", "Swin", 2, type(about.record)(dataset="ChestX-ray14"))
    assert "mined from radiology reports" in other.limits_html(session.limits)
    assert "not calibrated" in other.limits_html(session.limits)
    assert "no input check" in other.limits_html(session.limits)
    unknown = PageFacts("m", "Swin", 2, type(about.record)())
    assert "does not say what it was trained on" in unknown.limits_html(session.limits)


def test_earlier_trainings_and_the_origin_of_the_weights_are_on_the_page(session):
    origin = {"source": "<Ark+>", "licence": None, "saw_test_images": "yes", "kind": "converted"}
    stage = {"dataset": "CheXpert", "split": None, "held_out": None}
    record = ModelRecord(dataset="ChestX-ray14", earlier_stages=[stage], weights_origin=origin)
    page = PageFacts("m", "Swin", 2, record)
    assert "trained on CheXpert, then ChestX-ray14" in page.header_html()
    limits = page.limits_html(session.limits)
    for words in (
        "trained on ChestX-ray14.",
        "oldest first: CheXpert.",
        "&lt;Ark+&gt;",
        "figures on that list are too good",
    ):
        assert words in limits
    assert "no other images" not in limits


def test_a_space_says_whose_computer_it_is(session, monkeypatch):
    about = PageFacts.of(session.classifier, "somebody/chest")
    assert "Hugging Face" not in about.limits_html(session.limits)
    monkeypatch.setenv("SPACE_ID", "somebody/space")
    assert "do not give it images of patients" in about.limits_html(session.limits)
