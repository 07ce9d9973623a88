"""The same radiograph twice: what the hash bears, what the search finds against every pair, what is refused."""

import io
import os
from itertools import combinations
from pathlib import Path

import datasets
import numpy as np
import pandas as pd
import pytest
from PIL import Image
from scipy.ndimage import gaussian_filter

from hf_cxr.data.duplicates import (
    Duplicate,
    check_no_duplicates,
    find_duplicates,
    hash_images,
    perceptual_hash,
)
from hf_cxr.data.images.grey import read_grey
from hf_cxr.data.near_hashes import NEAR, NEAR_COARSE

COARSE_DIGITS = 64


def make_image(seed: int, size: int = 256) -> np.ndarray:
    """Structure at all scales, as in a photograph; no two seeds alike."""
    rng = np.random.default_rng(seed)
    noise = [(scale, rng.standard_normal((size, size))) for scale in (2, 4, 8, 32)]
    image = sum(scale * gaussian_filter(layer, scale, mode="wrap") for scale, layer in noise)
    return np.round(20 + 215 * (image - image.min()) / np.ptp(image)).astype(np.uint8)


def distance(first: str, second: str) -> tuple[int, int]:
    """Bits that differ, of the first 256 and of all."""
    return tuple((int(first[:n], 16) ^ int(second[:n], 16)).bit_count() for n in (COARSE_DIGITS, None))


def is_near(first: str, second: str) -> bool:
    coarse, all_bits = distance(first, second)
    return coarse <= NEAR_COARSE and all_bits <= NEAR


def as_jpeg(image: np.ndarray, quality: int) -> np.ndarray:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "JPEG", quality=quality)
    return np.array(Image.open(buffer))


def resized(image: np.ndarray, size: int, resample: int = Image.Resampling.BILINEAR) -> np.ndarray:
    return np.array(Image.fromarray(image).resize((size, size), resample))


CHANGES = {
    "JPEG of quality 75": lambda image: as_jpeg(image, 75),
    "JPEG of quality 90": lambda image: as_jpeg(image, 90),
    "half the size": lambda image: resized(image, len(image) // 2),
    "224 pixels": lambda image: resized(image, 224, Image.Resampling.LANCZOS),
    "brighter": lambda image: np.clip(image.astype(int) + 25, 0, 255).astype(np.uint8),
    "darker": lambda image: np.clip(image.astype(int) - 25, 0, 255).astype(np.uint8),
    "more contrast": lambda image: np.clip(1.1 * (image - 127.5) + 127.5, 0, 255).astype(np.uint8),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_changed_copy_is_near_and_another_image_is_not(change):
    for seed in range(3):
        image = make_image(seed)
        assert is_near(perceptual_hash(image), perceptual_hash(CHANGES[change](image)))
        assert not is_near(perceptual_hash(image), perceptual_hash(CHANGES[change](make_image(seed + 100))))


def test_the_hash_is_text_of_one_length_for_every_shape():
    for shape in ((1, 1), (64, 64), (300, 200), (1024, 1024)):
        text = perceptual_hash(np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8))
        assert len(text) == 256
        assert int(text, 16) >= 0
    assert perceptual_hash(make_image(1)) == perceptual_hash(make_image(1))


def test_a_blank_image_has_no_bits_and_doubling_the_contrast_changes_few():
    assert {perceptual_hash(np.full((50, 60), grey, dtype=np.uint8)) for grey in (0, 7, 255)} == {"0" * 256}
    image = make_image(0) // 4
    assert distance(perceptual_hash(2 * image + 9), perceptual_hash(image))[1] < 10  # rounding in shrinking
    assert distance(perceptual_hash(image), "0" * 256)[1] > 400


@pytest.mark.parametrize("image", [np.zeros((3, 4, 3), np.uint8), np.zeros((3, 4)), np.zeros((0, 4), np.uint8)])
def test_only_grey_bytes_are_hashed(image):
    with pytest.raises(ValueError, match=r"perceptual_hash takes \(H, W\) uint8"):
        perceptual_hash(image)


def test_real_radiographs_of_different_patients_are_not_near(release):
    """The table in the module's docstring, on a part of the images."""
    names = sorted(os.listdir(release / "images"))[::7]
    images = {name: read_grey(release / "images" / name) for name in names[:400]}
    hashes = {name: perceptual_hash(image) for name, image in images.items()}
    distances = [distance(hashes[a], hashes[b]) for a, b in combinations(hashes, 2) if a[:8] != b[:8]]
    coarse, all_bits = np.array(distances).T
    assert coarse.min() > NEAR_COARSE
    assert all_bits.min() > 300 > NEAR
    for change in CHANGES.values():
        changed = {name: perceptual_hash(change(images[name])) for name in names[:20]}
        assert all(distance(hashes[name], text)[1] < 130 for name, text in changed.items())


def random_hashes(rng: np.random.Generator, count: int) -> list[str]:
    return [rng.bytes(128).hex() for _ in range(count)]


def flipped(text: str, bits: list[int]) -> str:
    """Those bits changed, counted from the first."""
    return f"{int(text, 16) ^ sum(1 << (1023 - bit) for bit in bits):0256x}"


def table_of(hashes: list[str], *, name: str, digests: list[str] | None = None) -> dict[str, list[str]]:
    ids = [f"{name}-{row}" for row in range(len(hashes))]
    return {"image_id": ids, "file_sha256": digests or list(ids), "perceptual_hash": hashes}


def test_the_limits_hold_to_the_bit():
    rng = np.random.default_rng(0)
    [text] = random_hashes(rng, 1)
    coarse, fine = rng.permutation(256), 256 + rng.permutation(768)
    for bits, near in (
        (coarse[:NEAR_COARSE], True),
        (coarse[: NEAR_COARSE + 1], False),
        (fine[:NEAR], True),
        (fine[: NEAR + 1], False),
        ([*coarse[:NEAR_COARSE], *fine[: NEAR - NEAR_COARSE]], True),
        ([*coarse[:NEAR_COARSE], *fine[: NEAR - NEAR_COARSE + 1]], False),
    ):
        copy = flipped(text, [int(bit) for bit in bits])
        assert is_near(text, copy) == near
        found = find_duplicates({"train": table_of([text], name="train"), "test": table_of([copy], name="test")})
        assert found == [Duplicate("test", "test-0", "train", "train-0", "near", len(bits))] * near


def test_an_inverted_image_is_not_near():
    [text] = random_hashes(np.random.default_rng(0), 1)
    inverted = flipped(text, list(range(1024)))  # 256 differences, which a byte counts as none
    assert find_duplicates({"train": table_of([text, inverted], name="train")}) == []


def test_found_are_all_that_looking_at_every_pair_finds():
    """More rows than a tile has, families of copies, and copies of copies."""
    rng = np.random.default_rng(1)
    hashes = random_hashes(rng, 300)
    for number in range(500):
        source = hashes[rng.integers(len(hashes))]
        bits = rng.permutation(1024)[: rng.integers(0, 330) if number % 3 else 0]
        hashes.append(flipped(source, bits.tolist()))
    order = rng.permutation(len(hashes))
    hashes = [hashes[row] for row in order]
    names = ["train"] * 400 + ["validation"] * 150 + ["test"] * 250
    splits = {
        name: table_of([text for text, side in zip(hashes, names, strict=True) if side == name], name=name)
        for name in ("train", "validation", "test")
    }
    expected = set()
    for across in (True, False):
        for later in range(len(hashes)):
            earlier = [
                distance(hashes[later], hashes[row])[1]
                for row in range(later)
                if (names[row] != names[later]) == across and is_near(hashes[later], hashes[row])
            ]
            if earlier:
                expected.add((later, across, min(earlier)))
    ids = [image for split in splits.values() for image in split["image_id"]]
    found = find_duplicates(splits)
    assert {(ids.index(d.image_id), d.split != d.other_split, d.distance) for d in found} == expected
    assert len(found) == len(expected) > 300
    for duplicate in found:
        this, other = ids.index(duplicate.image_id), ids.index(duplicate.other_image_id)
        assert (names[this], names[other]) == (duplicate.split, duplicate.other_split)
        assert distance(hashes[this], hashes[other])[1] == duplicate.distance


def test_the_same_bytes_are_identical_whatever_the_hash_and_come_before_near_ones():
    rng = np.random.default_rng(2)
    a, b, c = random_hashes(rng, 3)
    train = table_of([a, b], name="train", digests=["1", "2"])
    test = table_of([c, flipped(b, [0, 500]), b], name="test", digests=["1", "2", "3"])
    assert find_duplicates({"train": train, "test": test}) == [
        Duplicate("test", "test-0", "train", "train-0", "identical", 0),
        Duplicate("test", "test-1", "train", "train-1", "identical", 0),
        Duplicate("test", "test-2", "train", "train-1", "near", 0),
        Duplicate("test", "test-2", "test", "test-1", "near", 2),
    ]


def test_across_splits_is_refused_by_name_and_within_one_is_counted():
    rng = np.random.default_rng(3)
    a, b, c = random_hashes(rng, 3)
    splits = {"train": table_of([a, b, a, b], name="train"), "test": table_of([c], name="test")}
    assert check_no_duplicates(splits) == {"train": 2, "test": 0}
    splits["test"] = table_of([c, flipped(b, [3])], name="test")
    with pytest.raises(ValueError, match=r"1 image is also in another split.*test-1 \(test\) is, but for 1 of"):
        check_no_duplicates(splits)
    splits["test"]["file_sha256"][1] = "train-0"
    with pytest.raises(ValueError, match=r"test-1 \(test\) is byte for byte train-0 \(train\)"):
        check_no_duplicates(splits)


def test_datasets_and_frames_are_read_as_dicts_are():
    [text] = random_hashes(np.random.default_rng(4), 1)
    train, test = (table_of([text], name=name) for name in ("train", "test"))
    expected = find_duplicates({"train": train, "test": test})
    assert len(expected) == 1
    assert find_duplicates({"train": datasets.Dataset.from_dict(train), "test": pd.DataFrame(test)}) == expected
    assert find_duplicates({"train": {name: [] for name in train}, "test": test}) == []
    assert find_duplicates({"train": {name: [] for name in train}}) == []


def test_columns_without_valid_hashes_are_refused():
    [text] = random_hashes(np.random.default_rng(5), 1)
    for bad in (text[:-1], text + "0", "g" * 256):
        with pytest.raises(ValueError, match="perceptual_hash of train-0 in 'train' is not 256 hexadecimal digits"):
            find_duplicates({"train": table_of([bad], name="train")})
    with pytest.raises(ValueError, match="1 of 1 rows of 'train' have no file_sha256"):
        find_duplicates({"train": table_of([text], name="train", digests=[None])})
    with pytest.raises(ValueError, match="'train' has no column 'perceptual_hash'"):
        find_duplicates({"train": {"image_id": ["a"], "file_sha256": ["b"]}})
    with pytest.raises(ValueError, match="differ in length: 1, 2, 1"):
        find_duplicates({"train": table_of([text], name="train", digests=["1", "2"])})


def dataset_of(paths: list[Path]) -> datasets.Dataset:
    table = {"image": [str(path) for path in paths], "image_id": [path.name for path in paths]}
    return datasets.Dataset.from_dict(table).cast_column("image", datasets.Image())


def test_image_files_are_hashed_and_broken_ones_named(tmp_path):
    image = make_image(0)
    Image.fromarray(image).save(tmp_path / "a.png")
    (tmp_path / "b.png").write_bytes((tmp_path / "a.png").read_bytes())
    Image.fromarray(image).save(tmp_path / "c.jpg", quality=90)
    hashed = hash_images(
        {"train": dataset_of([tmp_path / "a.png"]), "test": dataset_of([tmp_path / "b.png", tmp_path / "c.jpg"])}
    )
    assert [(d.image_id, d.kind) for d in find_duplicates(hashed)][:2] == [("b.png", "identical"), ("c.jpg", "near")]
    assert hashed["train"]["perceptual_hash"] == [perceptual_hash(image)]

    (tmp_path / "b.png").write_bytes(b"no image")
    with pytest.raises(ValueError, match=r"2 image files cannot be read: .*b\.png: .*d\.png: FileNotFoundError"):
        hash_images({"test": dataset_of([tmp_path / "b.png", tmp_path / "d.png"])})


def test_one_shared_image_is_found_among_many():
    rng = np.random.default_rng(6)
    hashes = random_hashes(rng, 5_000)
    hashes[-1] = flipped(hashes[0], [0, 1, 300])
    splits = {"train": table_of(hashes[:3_000], name="train"), "test": table_of(hashes[3_000:], name="test")}
    assert [str(d) for d in find_duplicates(splits)] == [
        "test-1999 (test) is, but for 3 of 1024 bits, train-0 (train)"
    ]
