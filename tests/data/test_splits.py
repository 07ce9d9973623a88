"""Splits by patient: sizes, stratification, what they may depend on, and what is refused."""

import logging
from itertools import combinations

import datasets
import numpy as np
import pandas as pd
import pytest
from sklearn.model_selection import StratifiedGroupKFold

from hf_cxr.data.splits import (
    check_patients_disjoint,
    patient_folds,
    patient_fractions,
    patient_split,
    split_fingerprint,
)

PREVALENCE = (0.3, 0.1, 0.02, 0.004)


def make_cohort(patients: int = 3000, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Long-tailed findings that recur in a patient, and patients of 1 to 60 images."""
    rng = np.random.default_rng(seed)
    sizes = np.minimum(rng.zipf(1.9, patients), 60)
    ids = np.repeat([f"{number:08d}" for number in range(patients)], sizes)
    ill = rng.random((patients, len(PREVALENCE))) < np.array(PREVALENCE) * 2
    labels = ill[np.repeat(np.arange(patients), sizes)] & (rng.random((len(ids), len(PREVALENCE))) < 0.5)
    return labels.astype(np.float32), ids


def test_size_is_exact_and_patients_are_whole():
    labels, ids = make_cohort()
    for fraction in (0.05, 0.2, 0.5, 0.9):
        chosen = patient_split(labels, ids, fraction=fraction)
        assert chosen.dtype == bool
        assert chosen.sum() == round(fraction * len(ids))
        assert not set(ids[chosen]) & set(ids[~chosen])
    assert patient_split(labels, ids, count=123).sum() == 123


def test_prevalences_agree_and_a_random_cut_would_not():
    labels, ids = make_cohort()
    chosen = patient_split(labels, ids, fraction=0.2)
    one_image = 1 / (0.2 * labels.sum(axis=0))
    shift = labels[chosen].mean(axis=0) / labels[~chosen].mean(axis=0) - 1
    assert (np.abs(shift) < 0.02 + 1.5 * one_image).all()
    no_finding = labels.sum(axis=1) == 0
    assert no_finding[chosen].mean() == pytest.approx(no_finding[~chosen].mean(), rel=0.02)

    random_shift = []
    for seed in range(5):
        some = np.random.default_rng(seed).permutation(np.unique(ids))[: len(np.unique(ids)) // 5]
        is_in = np.isin(ids, some)
        random_shift.append(labels[is_in].mean(axis=0) / labels[~is_in].mean(axis=0) - 1)
    assert np.abs(shift).max() < np.abs(random_shift).max(axis=1).mean() / 3


def test_row_order_does_not_matter_and_the_seed_does():
    labels, ids = make_cohort()
    chosen = patient_split(labels, ids, fraction=0.2, seed=3)
    order = np.random.default_rng(0).permutation(len(ids))
    again = patient_split(labels[order], ids[order], fraction=0.2, seed=3)
    np.testing.assert_array_equal(again, chosen[order])
    assert (patient_split(labels, ids, fraction=0.2, seed=4) != chosen).any()


def test_unknown_is_not_positive():
    labels, ids = make_cohort(500)
    unknown = np.where(labels == 1, 1, np.nan)
    np.testing.assert_array_equal(patient_split(unknown, ids, fraction=0.2), patient_split(labels, ids, fraction=0.2))


@pytest.mark.parametrize("seed", range(40))
def test_nearest_possible_size_against_every_subset(seed, caplog):
    """Patients of awkward sizes: exact where some subset is, else the nearest, with a warning."""
    rng = np.random.default_rng(seed)
    sizes = rng.integers(2, 12, rng.integers(2, 8))
    ids = np.repeat([str(number) for number in range(len(sizes))], sizes)
    labels = (rng.random((len(ids), 3)) < 0.3).astype(float)
    sums = {sum(some) for k in range(1, len(sizes)) for some in combinations(sizes.tolist(), k)}
    for target in range(1, len(ids)):
        nearest = min(sums, key=lambda total: (abs(total - target), total))
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            assert patient_split(labels, ids, count=target, seed=seed).sum() == nearest
        assert bool(caplog.records) == (nearest != target)


def test_refusals_of_a_split():
    labels, ids = np.zeros((4, 2)), ["a", "a", "b", "c"]
    with pytest.raises(ValueError, match="either fraction or count"):
        patient_split(labels, ids)
    with pytest.raises(ValueError, match="either fraction or count"):
        patient_split(labels, ids, fraction=0.5, count=2)
    for size in ({"count": 0}, {"count": 4}, {"fraction": 1.0}, {"fraction": 0.01}):
        with pytest.raises(ValueError, match="of 4 images"):
            patient_split(labels, ids, **size)
    with pytest.raises(ValueError, match=r"two patients.* 1 in 4"):
        patient_split(labels, ["a"] * 4, count=2)
    with pytest.raises(ValueError, match=r"\(3, 2\) .*4 patient ids"):
        patient_split(labels[:3], ids, count=2)
    with pytest.raises(ValueError, match=r"1 of 4 rows.*no patient_id.* row 2"):
        patient_split(labels, ["a", "a", None, "c"], count=2)


SHARES = {"train": 0.7, "validation": 0.1, "test": 0.2}


def largest_deviation(labels: np.ndarray, part_of_row: np.ndarray) -> np.ndarray:
    """(C,) how far a finding's prevalence in some part is from its prevalence in all, as a share of it."""
    parts = [labels[part_of_row == part].mean(axis=0) for part in np.unique(part_of_row)]
    return np.abs(np.array(parts) / labels.mean(axis=0) - 1).max(axis=0)


def owners(ids: np.ndarray, part_of_row: np.ndarray) -> int:
    """The largest number of parts that a patient is in."""
    return pd.DataFrame({"patient": ids, "part": part_of_row}).groupby("patient")["part"].nunique().max()


def test_fractions_are_exact_whole_and_stratified():
    labels, ids = make_cohort()
    names = patient_fractions(labels, ids, SHARES)
    assert {name: (names == name).sum() for name in SHARES} == {
        name: pytest.approx(share * len(ids), abs=1) for name, share in SHARES.items()
    }
    assert owners(ids, names) == 1
    one_image = 1 / (0.1 * labels.sum(axis=0))
    assert (largest_deviation(labels, names) < 0.005 + 1.5 * one_image).all()


@pytest.mark.parametrize("folds", [2, 5, 10])
def test_folds_are_equal_whole_and_stratified(folds):
    labels, ids = make_cohort()
    fold = patient_folds(labels, ids, folds=folds)
    sizes = np.bincount(fold, minlength=folds)
    assert sizes.max() - sizes.min() <= 1
    assert len(sizes) == folds
    assert owners(ids, fold) == 1
    one_image = folds / labels.sum(axis=0)
    # A patient with more images of a finding than a fold's share of them is in some fold.
    largest_patient = pd.DataFrame(labels).groupby(ids).sum().max().to_numpy() * one_image - 1
    bound = np.maximum(0.01 + 1.5 * one_image, largest_patient + 1e-4)
    assert (largest_deviation(labels, fold) < bound).all()


def test_folds_deviate_less_than_those_of_scikit_learn():
    """StratifiedGroupKFold takes one label a row: here the set of findings, or the rarest finding of the row."""
    labels, ids = make_cohort()
    _, sets = np.unique(labels, axis=0, return_inverse=True)
    rarest = np.where(labels.any(axis=1), labels.shape[1] - 1 - labels[:, ::-1].argmax(axis=1), labels.shape[1])
    ours = largest_deviation(labels, patient_folds(labels, ids, folds=5))
    for single in (sets.ravel(), rarest):
        fold = np.zeros(len(ids), dtype=int)
        cuts = StratifiedGroupKFold(5, shuffle=True, random_state=0).split(labels, single, ids)
        for number, (_, rows) in enumerate(cuts):
            fold[rows] = number
        theirs = largest_deviation(labels, fold)
        assert ours.max() <= theirs.max()
        assert ours.mean() < theirs.mean()


def test_folds_and_fractions_depend_on_the_set_of_rows_and_the_seed():
    labels, ids = make_cohort(600)
    order = np.random.default_rng(0).permutation(len(ids))
    for deal in (
        lambda labels, ids, seed: patient_folds(labels, ids, folds=4, seed=seed),
        lambda labels, ids, seed: patient_fractions(labels, ids, SHARES, seed=seed),
    ):
        dealt = deal(labels, ids, 3)
        np.testing.assert_array_equal(deal(labels[order], ids[order], 3), dealt[order])
        assert (deal(labels, ids, 4) != dealt).any()


def test_as_many_folds_as_patients_leave_one_out():
    ids = ["a", "a", "a", "b", "c", "c"]
    fold = patient_folds(np.zeros((6, 1)), ids, folds=3)
    assert len({*zip(ids, fold.tolist(), strict=True)}) == len(set(fold.tolist())) == 3


def test_refusals_of_folds_and_fractions():
    labels, ids = np.zeros((4, 2)), ["a", "a", "b", "c"]
    for folds in (1, 4):
        with pytest.raises(ValueError, match=f"folds is {folds}.*2 to .*patients, 3"):
            patient_folds(labels, ids, folds=folds)
    for shares in ({"train": 1.0}, {"a": 0.5, "b": 0.6}, {"a": 1.2, "b": -0.2}, {"a": float("nan"), "b": 0.5}):
        with pytest.raises(ValueError, match=r"fractions .*sum to 1"):
            patient_fractions(labels, ids, shares)
    with pytest.raises(ValueError, match=r"3 patient.* 2, 1, 1 images.*too few for 4"):
        patient_fractions(labels, ids, dict.fromkeys("abcd", 0.25))
    with pytest.raises(ValueError, match=r"1 of 4 rows.*no patient_id.* row 3"):
        patient_folds(labels, ["a", "a", "b", float("nan")], folds=2)


def splits_of(**patients: list) -> datasets.DatasetDict:
    features = datasets.Features({"image_id": datasets.Value("string"), "patient_id": datasets.Value("string")})
    return datasets.DatasetDict(
        {
            name: datasets.Dataset.from_dict(
                {"image_id": [f"{name}-{row}" for row in range(len(ids))], "patient_id": ids}, features=features
            )
            for name, ids in patients.items()
        }
    )


def test_disjoint_splits_pass():
    check_patients_disjoint(splits_of(train=["1", "1", "2"], validation=["3"], test=["4"]))


def test_shared_patients_are_refused_with_number_and_examples():
    splits = splits_of(train=["1", "2", "3", "4", "5"], validation=["6"], test=["2", "3", "4", "5", "5", "7"])
    with pytest.raises(ValueError, match=r"train and test share 4 patient.* 2, 3, 4\b"):
        check_patients_disjoint(splits)
    # A selection reads its own rows, not those of the table beneath it.
    splits["train"] = splits["train"].select([0])
    check_patients_disjoint(splits)


def test_shared_images_are_refused_even_under_other_patients():
    train = pd.DataFrame({"image_id": ["a", "b"], "patient_id": ["1", "2"]})
    test = {"image_id": ["b", "c"], "patient_id": ["3", "4"]}
    with pytest.raises(ValueError, match=r"train and test share 1 image.* b\b"):
        check_patients_disjoint({"train": train, "test": test})


@pytest.mark.parametrize("missing", [None, "", " "])
def test_a_row_without_a_patient_is_refused(missing):
    with pytest.raises(ValueError, match=r"1 of 2 rows of 'test' .*no patient_id.* row 1"):
        check_patients_disjoint(splits_of(train=["1"], test=["2", missing]))


def test_a_split_without_the_column_is_refused():
    splits = splits_of(train=["1"], test=["2"])
    splits["test"] = splits["test"].remove_columns("patient_id")
    for function in (check_patients_disjoint, split_fingerprint):
        with pytest.raises(ValueError, match=r"'test' .*no column 'patient_id'.* image_id"):
            function(splits)


def test_fingerprint_names_the_assignment_and_nothing_else():
    splits = splits_of(train=["1", "1", "2"], test=["3", "4"])
    name = split_fingerprint(splits)
    assert len(name) == 64
    assert int(name, 16)
    shuffled = datasets.DatasetDict({split: splits[split].shuffle(seed=1) for split in ("test", "train")})
    assert split_fingerprint(shuffled) == name
    assert split_fingerprint({split: rows.to_pandas().assign(age=3) for split, rows in splits.items()}) == name
    assert split_fingerprint({"train": splits["test"], "test": splits["train"]}) != name
    assert split_fingerprint({"train": splits["train"].select([0, 1]), "test": splits["test"]}) != name
    assert split_fingerprint(splits_of(train=["1", "1", "2"], test=["3", "5"])) != name
