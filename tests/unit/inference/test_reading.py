"""Reading ahead: in order, the same pixels and numbers to the bit, bounded, and one image's failure is its own."""

import threading
from pathlib import Path

import numpy as np
import pydicom
import pytest
import tiny
from PIL import Image

from hf_cxr.data.images.grey import ImageError, read_grey, resize_grey
from hf_cxr.files import version_of
from hf_cxr.inference import reading
from hf_cxr.inference.classifier import Classifier
from hf_cxr.inference.reading import BATCHES_AHEAD, NO_VERSION, default_workers, read_ahead

NEAREST = int(Image.Resampling.NEAREST)


@pytest.fixture(scope="module")
def paths(tmp_path_factory) -> list[Path]:
    folder = tmp_path_factory.mktemp("images")
    for number in range(12):
        grey = np.random.default_rng(number).integers(0, 256, (40 + number, 37), dtype=np.uint8)
        Image.fromarray(grey).save(folder / f"{number:02d}.png")
    (folder / "05.png").write_text("broken")
    return sorted(folder.iterdir())


@pytest.fixture(scope="module")
def classifier(tmp_path_factory) -> Classifier:
    return Classifier(tiny.save_model(tmp_path_factory.mktemp("model"), spread=2.0))


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_images_come_in_order_with_their_version_and_one_failure_is_its_own(paths, workers):
    named = ((path, path.name) for path in paths)
    read = list(read_ahead(named, size=36, resample=NEAREST, batch_size=2, workers=workers))
    assert [image.name for image in read] == [path.name for path in paths]
    for path, image in zip(paths, read, strict=True):
        assert image.version == version_of(path)
        if path.name == "05.png":
            assert isinstance(image.pixel_SS, ImageError)
            assert image.pixel_SS.name == "05.png"
        else:
            np.testing.assert_array_equal(image.pixel_SS, resize_grey(read_grey(path), 36, NEAREST))


def flat_dicom(path: Path) -> Path:
    """A file that says 16 bits, whose pixels use 12, without a window."""
    dataset = pydicom.Dataset()
    dataset.file_meta = pydicom.dataset.FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    dataset.SOPClassUID, dataset.SOPInstanceUID = pydicom.uid.DigitalXRayImageStorageForPresentation, "1.2.3"
    dataset.Rows = dataset.Columns = 40
    dataset.SamplesPerPixel, dataset.PixelRepresentation, dataset.PhotometricInterpretation = 1, 0, "MONOCHROME2"
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 16, 16, 15
    dataset.PixelData = np.random.default_rng(0).integers(0, 4096, (40, 40), dtype=np.uint16).tobytes()
    dataset.save_as(path, enforce_file_format=True)
    return path


def test_a_remark_on_how_a_file_was_read_comes_with_its_result(classifier, paths, tmp_path):
    path = flat_dicom(tmp_path / "flat.dcm")
    given = [paths[0], path, path.read_bytes(), pydicom.dcmread(path)]
    sound, *flat = classifier.predict_images(given, batch_size=4, workers=2)
    assert sound.remarks == ()
    for result in flat:
        (remark,) = result.remarks
        assert "its pixels use 12 bits" in remark
        assert result.to_dict()["remarks"] == [remark]


@pytest.mark.parametrize("workers", [1, 2, 5])
def test_numbers_are_the_same_to_the_bit_with_any_workers(classifier, paths, workers):
    expected = list(classifier.predict_images(paths, batch_size=5, workers=0))
    found = list(classifier.predict_images(paths, batch_size=5, workers=workers))
    for one, other in zip(expected, found, strict=True):
        if isinstance(one, ImageError):
            assert str(one) == str(other)
        else:
            assert one.name == other.name
            np.testing.assert_array_equal(one.probability_C, other.probability_C)
    assert np.ptp([one.probability_C for one in found if not isinstance(one, ImageError)], axis=0).max() > 0.1


def test_no_more_than_a_few_batches_are_taken_ahead(classifier, paths):
    taken = []

    def given():
        for number in range(60):
            taken.append(number)
            yield paths[0]

    answers = classifier.predict_images(given(), batch_size=3, workers=2)
    for number in range(1, 11):
        next(answers)
        assert number <= len(taken) <= number + (BATCHES_AHEAD + 1) * 3 + 1
    answers.close()
    assert len(taken) < 60
    assert len(list(classifier.predict_images([paths[0]] * 7, batch_size=3, workers=2))) == 7


def test_files_are_read_in_other_threads_while_the_model_works(classifier, paths, monkeypatch):
    real_read, real_outputs = reading.read_and_resize, Classifier.outputs
    readers, during = set(), threading.Event()

    def read(image, name, **named):
        readers.add(threading.current_thread())
        if image == paths[4]:  # of the second batch
            during.set()
        return real_read(image, name, **named)

    def outputs(self, pixel_B1SS):
        assert during.wait(20)  # the model of the first batch waits for a file of the second
        return real_outputs(self, pixel_B1SS)

    monkeypatch.setattr(reading, "read_and_resize", read)
    monkeypatch.setattr(Classifier, "outputs", outputs)
    assert len(list(classifier.predict_images(paths, batch_size=4, workers=2))) == len(paths)
    assert threading.main_thread() not in readers


def test_images_in_memory_are_read_before_the_caller_goes_on(classifier, paths):
    frame = np.zeros((40, 40), np.uint8)

    def frames():
        for number in range(8):
            frame[:] = np.random.default_rng(number).integers(0, 256, frame.shape, dtype=np.uint8)
            yield frame  # one array, filled again and again

    found = list(classifier.predict_images(frames(), batch_size=2, workers=3))
    alone = [
        classifier.predict(np.random.default_rng(n).integers(0, 256, frame.shape, dtype=np.uint8)) for n in range(8)
    ]
    for one, other in zip(found, alone, strict=True):
        np.testing.assert_allclose(one.probability_C, other.probability_C, atol=1e-6)
    with Image.open(paths[0]) as lazy:
        twice = list(classifier.predict_images([lazy] * 6, batch_size=2, workers=3))
    np.testing.assert_array_equal(twice[0].probability_C, twice[-1].probability_C)


def test_what_is_not_a_file_has_no_version(paths):
    named = [(paths[0].read_bytes(), "bytes"), (np.zeros((4, 4), np.uint8), "array"), ("nowhere.png", "absent")]
    read = list(read_ahead(named, size=4, resample=NEAREST, batch_size=2, workers=1))
    assert [image.version for image in read] == [NO_VERSION] * 3
    assert str(read[2].pixel_SS) == "cannot read absent: No such file or directory"


def test_threads_are_one_for_each_core_of_this_process(monkeypatch):
    monkeypatch.setattr(reading, "usable_cores", lambda: 12)
    assert default_workers() == 12
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "5")
    assert default_workers() == 2
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "50")
    assert default_workers() == 1
