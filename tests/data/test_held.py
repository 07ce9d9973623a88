"""A split that is held in memory has the rows of one that is decoded each time, and decodes each image once."""

import datasets
import numpy as np
import pytest

from hf_cxr.data import DecodedImages
from hf_cxr.data.images import held as held_module
from hf_cxr.data.images.held import HeldImages, held
from hf_cxr.data.sources.phantom import load_phantom


@pytest.fixture
def images(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path)
    datasets.disable_progress_bars()
    splits = load_phantom(train=6, size=64)
    yield DecodedImages(splits["train"], 48, 3, left_out=(2,))
    datasets.enable_progress_bars()


def equal(one, other):
    return (
        np.array_equal(one["pixels"], other["pixels"])
        and np.array_equal(one["labels"], other["labels"], equal_nan=True)
        and one["row"] == other["row"]
    )


def test_rows_are_the_same_and_each_is_decoded_once(images, monkeypatch):
    decoded = []
    inner = DecodedImages.__getitem__
    expected = [images[row] for row in range(6)]
    monkeypatch.setattr(DecodedImages, "__getitem__", lambda self, row: decoded.append(row) or inner(self, row))
    kept = held(images, workers=0)
    assert len(kept) == 6
    for row in (4, 2, 4, 0, 1, 3, 5, 2, 4, 0):
        assert equal(kept[row], expected[row])
        assert kept[row]["pixels"].dtype == np.uint8
    assert sorted(decoded) == list(range(6))
    assert not equal(expected[0], expected[1])
    with pytest.raises(IndexError):
        kept[6]


def test_what_others_decode_and_what_is_large_is_not_held(images, monkeypatch):
    assert isinstance(held(images, workers=0), HeldImages)
    assert held(images, workers=1) is images
    monkeypatch.setattr(held_module, "MOST", 6 * 48**2 - 1)
    assert held(images, workers=0) is images
