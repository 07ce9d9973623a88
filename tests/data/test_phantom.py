"""Laws of the phantoms: who is drawn, that signs are where their boxes are, and that nothing depends on the order."""

import io
import itertools

import datasets
import numpy as np
import pytest
from PIL import Image

from hf_cxr.data.sources import phantom
from hf_cxr.data.sources.phantom import load_phantom
from hf_cxr.labels import NIH14
from hf_cxr.phantom import drawing
from hf_cxr.phantom.cases import SPLITS, draw_cases, label_set_weights, label_sets
from hf_cxr.phantom.findings import SIGNS
from hf_cxr.phantom.lateral import render_lateral
from hf_cxr.phantom.render import render_phantom
from hf_cxr.phantom.thorax import FRAME_CM

# Marginals of Data_Entry_2017_v2020.csv, in the order of NIH14.
POSITIVES = (11559, 2776, 13317, 19894, 5782, 6331, 1431, 5302, 4667, 2303, 2516, 1686, 3385, 227)
DIFFUSE = ("Edema", "Emphysema", "Fibrosis")  # findings without a box: they have no place
BOXED = [name for name in NIH14 if name not in DIFFUSE]


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path)
    datasets.disable_progress_bars()
    yield
    datasets.enable_progress_bars()


def render(findings=(), *, patient=1, image=0, view="PA", size=128, seed=0):
    return render_phantom(findings, view=view, age=55, sex="M", patient=patient, image=image, seed=seed, size=size)


def label_matrix(cases):
    return np.array([case.labels for case in cases])


@pytest.fixture(scope="module")
def many_labels():
    return label_matrix(draw_cases(10000))


def test_the_embedded_table_is_the_release():
    sets, views_SV = label_sets()
    assert views_SV.sum(axis=0).tolist() == [67310, 44810]
    assert len(set(sets)) == len(sets)
    member_CS = np.array([[name in findings for findings in sets] for name in NIH14])
    assert tuple(member_CS @ views_SV.sum(axis=1)) == POSITIVES


def test_a_finding_has_a_sign_and_every_sign_is_a_finding():
    assert tuple(SIGNS) == NIH14


def test_drawn_prevalences_are_the_tables_within_sampling_error():
    cases = list(draw_cases(3000, seed=3))
    expected_C = np.array(POSITIVES) / 112120
    # Images of one patient are alike, so 3,000 images count for fewer: 4 sigma at a design effect of 2.
    tolerance_C = 4 * np.sqrt(2 * expected_C * (1 - expected_C) / len(cases))
    assert (np.abs(label_matrix(cases).mean(axis=0) - expected_C) < tolerance_C).all()
    assert np.mean([case.view == "AP" for case in cases]) == pytest.approx(0.40, abs=0.04)
    assert len(cases) / len({case.patient for case in cases}) == pytest.approx(3.47, abs=0.6)


@pytest.mark.parametrize(
    ("one", "other", "together"),
    [
        ("Atelectasis", "Effusion", True),
        ("Consolidation", "Effusion", True),
        ("Mass", "Nodule", True),
        ("Emphysema", "Pneumothorax", True),
        ("Edema", "Pneumonia", True),
        ("Edema", "Pneumothorax", False),
        ("Cardiomegaly", "Pneumothorax", False),
    ],
)
def test_findings_co_occur_as_in_the_table(many_labels, one, other, together):
    first, second = many_labels[:, NIH14.index(one)], many_labels[:, NIH14.index(other)]
    lift = (first * second).mean() / (first.mean() * second.mean())
    assert (lift > 1.5) if together else (lift < 0.8)


@pytest.mark.parametrize("floor", [0.0, 0.03, 0.1])
def test_prevalence_floor_raises_only_what_is_below_it(floor):
    sets, views_SV = label_sets()
    member_CS = np.array([[name in findings for findings in sets] for name in NIH14])
    weights_S = label_set_weights(floor)
    assert weights_S.sum() == pytest.approx(1)
    assert (member_CS @ weights_S >= floor * 0.999).all()
    if floor == 0:
        assert weights_S == pytest.approx(views_SV.sum(axis=1) / views_SV.sum())
    else:
        assert (member_CS @ weights_S)[NIH14.index("Hernia")] == pytest.approx(floor, rel=1e-3)


def test_the_floor_reaches_the_drawn_cases():
    hernia = NIH14.index("Hernia")
    assert label_matrix(draw_cases(3000))[:, hernia].mean() < 0.01
    assert label_matrix(draw_cases(3000, prevalence_floor=0.05))[:, hernia].mean() == pytest.approx(0.05, abs=0.02)


@pytest.mark.parametrize("split", SPLITS)
def test_a_smaller_draw_is_the_head_of_a_larger_one(split):
    assert list(draw_cases(40, split=split)) == list(itertools.islice(draw_cases(400, split=split), 40))
    assert len(list(draw_cases(401, split=split))) == 401
    assert list(draw_cases(40, split=split)) != list(draw_cases(40, split=split, seed=1))


def test_findings_stay_with_a_patient():
    cases = list(draw_cases(6000))
    pairs = [(a, b) for a, b in itertools.pairwise(cases) if a.patient == b.patient]
    after = [("Effusion" in b.findings) for a, b in pairs if "Effusion" in a.findings]
    assert np.mean(after) > 2 * POSITIVES[2] / 112120
    assert {a.sex == b.sex for a, b in pairs} == {True}


def test_patients_never_cross_a_split():
    patients = [{case.patient for case in draw_cases(500, split=split)} for split in SPLITS]
    assert not any(one & other for one, other in itertools.combinations(patients, 2))


def test_rendering_is_deterministic_and_independent_of_the_order():
    first, boxes = render(["Mass", "Edema"], patient=5, image=2)
    render(patient=9)
    render(patient=5, image=0)
    again, boxes_again = render(["Edema", "Mass", "Mass"], patient=5, image=2)
    assert np.array_equal(first, again)
    assert boxes == boxes_again
    for other in ({"patient": 6}, {"image": 3}, {"seed": 1}, {"view": "AP"}):
        assert not np.array_equal(first, render(["Mass", "Edema"], **{"patient": 5, "image": 2} | other)[0])


def test_a_patient_looks_more_like_themselves_than_like_others():
    def coarse(patient, image):
        pixels = render(patient=patient, image=image, size=64)[0].astype(float)
        return (pixels - pixels.mean()) / pixels.std()

    films = {(patient, image): coarse(patient, image) for patient in range(6) for image in range(3)}
    apart = {key: np.abs(films[key[0]] - films[key[1]]).mean() for key in itertools.combinations(films, 2)}
    own = np.mean([distance for (one, other), distance in apart.items() if one[0] == other[0]])
    others = np.mean([distance for (one, other), distance in apart.items() if one[0] != other[0]])
    assert own < 0.8 * others


@pytest.mark.parametrize("view", ["PA", "AP"])
@pytest.mark.parametrize("name", NIH14)
def test_each_finding_changes_the_image_most_where_its_boxes_are(name, view):
    inside, outside = [], []
    for patient in range(4):
        pixels, boxes = render([name], patient=patient, view=view)
        healthy, none = render(patient=patient, view=view)
        change = np.abs(pixels.astype(float) - healthy)
        assert none == []
        assert change.max() > 15
        assert {box["finding"] for box in boxes} == (set() if name in DIFFUSE else {name})
        in_a_box = np.zeros_like(change, dtype=bool)
        for x, y, width, height in (box["bbox"] for box in boxes):
            assert min(x, y) >= 0
            assert min(width, height) > 0
            assert max(x + width, y + height) <= 1
            in_a_box[int(y * 128) : int((y + height) * 128) + 1, int(x * 128) : int((x + width) * 128) + 1] = True
        if boxes:
            inside.append(change[in_a_box].mean())
            outside.append(change[~in_a_box].mean())
    assert len(inside) == (4 if name in BOXED else 0)
    if inside:
        assert np.mean(inside) > 2 * np.mean(outside)


@pytest.mark.parametrize("name", ["Nodule", "Mass"])
def test_a_round_opacity_leaves_the_rest_of_the_image_alone(name):
    (pixels, boxes), (healthy, _) = render([name], patient=3, size=256), render(patient=3, size=256)
    changed = np.argwhere(pixels != healthy) / 256
    near = np.zeros(len(changed), dtype=bool)
    for x, y, width, height in (box["bbox"] for box in boxes):
        row, column, margin = changed[:, 0], changed[:, 1], 2 / 256
        near |= (abs(row - y - height / 2) < height / 2 + margin) & (abs(column - x - width / 2) < width / 2 + margin)
    assert len(changed) > 20
    assert near.all()


def test_three_centimetres_divide_nodules_from_masses():
    def widths(name):
        boxes = itertools.chain.from_iterable(render([name], patient=patient, size=64)[1] for patient in range(40))
        return np.array([box["bbox"][2:] for box in boxes]).max(axis=1) * FRAME_CM

    assert widths("Nodule").max() < 3 < widths("Mass").min()
    assert widths("Nodule").min() > 1


def cardiothoracic_ratio(pixels):
    """The widest bright run about the midline over the way from wall to wall, in the rows of the heart."""
    size = len(pixels)
    ratios = []
    for row in range(int(0.52 * size), int(0.66 * size), 2):
        profile = np.convolve(pixels[row - 3 : row + 4].mean(axis=0), np.ones(7) / 7, mode="same")
        lung = profile < (np.percentile(profile[size // 5 : -size // 5], 5) + profile.max()) / 2
        middle = size // 2
        left, right = middle - np.argmax(lung[middle::-1]), middle + np.argmax(lung[middle:])
        wall_left, wall_right = left - np.argmin(lung[left::-1]), right + np.argmin(lung[right:])
        ratios.append((right - left) / (wall_right - wall_left))
    return max(ratios)


def test_the_heart_fills_half_the_thorax_with_cardiomegaly_only():
    healthy = [cardiothoracic_ratio(render(patient=patient, size=256)[0]) for patient in range(12)]
    large = [cardiothoracic_ratio(render(["Cardiomegaly"], patient=patient, size=256)[0]) for patient in range(12)]
    assert np.median(healthy) < 0.5 < np.median(large)
    assert np.mean(np.array(large) > np.array(healthy)) == 1


def test_an_ap_view_has_a_larger_heart_under_a_higher_diaphragm():
    boxes = {
        view: np.mean(
            [render(["Cardiomegaly"], patient=p, view=view, size=64)[1][0]["bbox"] for p in range(20)], axis=0
        )
        for view in ("PA", "AP")
    }
    bottom = {view: box[1] + box[3] for view, box in boxes.items()}
    assert bottom["AP"] < bottom["PA"]
    healthy = {
        view: np.mean([cardiothoracic_ratio(render(patient=p, view=view, size=256)[0]) for p in range(8)])
        for view in ("PA", "AP")
    }
    assert healthy["AP"] > healthy["PA"]


@pytest.mark.parametrize("size", [64, 96, 512])
def test_an_image_is_the_same_at_every_size(size):
    findings = ["Effusion", "Nodule", "Fibrosis"]
    (small, boxes), (pixels, boxes_there) = render(findings, size=256), render(findings, size=size)
    assert pixels.shape == (size, size)
    assert pixels.dtype == np.uint8
    assert pixels.mean() == pytest.approx(small.mean(), abs=2)
    common = [np.asarray(Image.fromarray(p).resize((32, 32), Image.Resampling.BOX), float) for p in (small, pixels)]
    assert np.abs(common[0] - common[1]).mean() < 3
    for one, other in zip(boxes, boxes_there, strict=True):
        assert one["finding"] == other["finding"]
        assert one["bbox"] == pytest.approx(other["bbox"], abs=0.06)


def test_the_dataset_is_labelled_synthetic_and_has_the_asked_size():
    splits = load_phantom(train=9, validation=4, test=5, size=64)
    assert {name: len(split) for name, split in splits.items()} == {"train": 9, "validation": 4, "test": 5}
    ids = [row for split in splits.values() for row in split["image_id"]]
    assert len(set(ids)) == 18
    assert all(image_id.startswith("synthetic_") for image_id in ids)
    patients = [set(split["patient_id"]) for split in splits.values()]
    assert not any(one & other for one, other in itertools.combinations(patients, 2))
    assert "ynthetic" in splits["train"].info.description
    raw = splits["train"].cast_column("image", datasets.Image(decode=False))[0]["image"]["bytes"]
    image = Image.open(io.BytesIO(raw))
    assert image.mode == "L"
    assert image.text["Description"] == "synthetic phantom, not a patient"
    case = next(iter(draw_cases(1, split="train")))
    pixels, boxes = render_phantom(
        case.findings, view=case.view, age=case.age, sex=case.sex, patient=case.patient, image=0, seed=0, size=64
    )
    row = splits["train"][0]
    assert np.array_equal(np.asarray(row["image"]), pixels)
    assert row["labels"] == case.labels
    assert [box["finding"] for box in row["boxes"]] == [box["finding"] for box in boxes]


def test_the_cache_hits_until_a_parameter_or_the_renderer_changes(monkeypatch):
    rendered = []
    original = render_phantom
    monkeypatch.setattr(drawing, "render_phantom", lambda *a, **k: rendered.append(1) or original(*a, **k))

    def renders(**arguments):
        rendered.clear()
        load_phantom(**{"train": 2, "size": 64} | arguments)
        return len(rendered)

    assert [renders(), renders()] == [2, 0]
    assert [renders(size=65), renders(seed=1), renders(prevalence_floor=0.05)] == [2, 2, 2]
    monkeypatch.setattr(phantom, "RENDERER_VERSION", -1)
    assert [renders(), renders()] == [2, 0]
    monkeypatch.setattr(phantom, "renderer_digest", lambda: "other code")
    assert [renders(), renders()] == [2, 0]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: render(["Efusion"]), "did you mean Effusion"),
        (lambda: render(view="LATERAL"), "'PA' or 'AP'"),
        (lambda: render(size=8), "32 to 2048"),
        (lambda: load_phantom(), "no phantom was asked for"),
        (lambda: load_phantom(train=-1), "0 or more"),
        (lambda: draw_cases(1, split="val"), "unknown split"),
        (lambda: load_phantom(train=1, prevalence_floor=0.7), "prevalence_floor"),
        (lambda: load_phantom(train=1, prevalence_floor=-0.1), "from 0 to 0.3"),
    ],
)
def test_what_cannot_be_drawn_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def lateral(patient=1, size=256, **kwargs):
    return render_lateral(patient=patient, seed=0, size=size, **kwargs)


def test_a_lateral_view_is_one_of_its_patient_and_of_its_size():
    assert np.array_equal(lateral(), lateral())
    assert np.abs(lateral().astype(float) - lateral(patient=2)).mean() > 3
    small, large = (Image.fromarray(lateral(size=size)).resize((32, 32), Image.Resampling.BOX) for size in (64, 512))
    assert np.abs(np.asarray(small, float) - np.asarray(large, float)).mean() < 4
    with pytest.raises(ValueError, match="32 to 2048"):
        lateral(size=20)


def test_a_lateral_view_has_one_spine_behind_and_air_on_both_sides_of_the_heart():
    """Along a row through the heart: sternum, air, heart, air, spine; and a frontal view is nearly symmetric there."""

    def asymmetry(pixels):
        pixels = pixels.astype(float)
        return np.abs(pixels - pixels[:, ::-1]).mean()

    for patient in range(4):
        pixels = lateral(patient)
        assert asymmetry(pixels) > 2 * asymmetry(render(patient=patient, size=256)[0])
        profile = pixels[100:180].mean(0)
        spine = 128 + int(profile[128:].argmax())
        lung = profile[60:spine].min()
        assert profile[spine] > 200 > 160 > lung
        assert profile[:20].max() < 40  # air in front of the chest, which no frontal view has beside the arms
