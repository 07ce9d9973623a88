"""Over-sampling in feature space: points between neighbours of a finding, with the labels that both have."""

import numpy as np
import pytest
import torch
from test_trainer import assert_same_gradients, gradients
from tiny import rows, trainer

from hf_cxr.sampling import EpochSampler, RepeatedRows, expected_draws
from hf_cxr.training.feature_oversampling import FeatureOversampling, features_of, nearest_of_rarest

LABELS = np.array([[1, 0, np.nan], [1, 1, 0], [1, 1, 1], [0, 0, 0], [np.nan, 1, 0]])
FEATURES = torch.tensor([[0.0, 0.0], [1.0, 0.0], [4.0, 0.0], [0.0, 0.1], [0.0, 2.0]])


def test_neighbours_share_the_rarest_finding():
    near = [rows.tolist() for rows in nearest_of_rarest(FEATURES, LABELS, 2)]
    # Rarest: finding 0 for row 0 (3 images, as finding 1; the first of two), 0 for row 1, 2 for row 2, which is alone.
    assert near == [[1, 2], [0, 2], [], [], [1, 2]]
    rng = np.random.default_rng(0)
    labels, features = (rng.random((300, 3)) < [0.5, 0.2, 0.1]).astype(float), torch.from_numpy(rng.random((300, 4)))
    rarity = labels.sum(axis=0)
    for row, found in enumerate(nearest_of_rarest(features, labels, 4)):
        if not labels[row].any():
            assert len(found) == 0
            continue
        rarest = np.where(labels[row] == 1, rarity, np.inf).argmin()
        others = [other for other in np.flatnonzero(labels[:, rarest]) if other != row]
        others.sort(key=lambda other, row=row: float((features[row] - features[other]).norm()))
        assert found.tolist() == others[:4]


def test_first_draws_stay_and_repetitions_move_towards_a_neighbour():
    mixer = FeatureOversampling(FEATURES, LABELS, neighbours=2, seed=1)
    index_B = np.array([0, 1, 5, 6, 7, 8, 14])  # rows 0 and 1; again rows 0, 1, 2, 3; a third time row 4
    partner_B, place_B = mixer.draw(index_B, epoch=0)
    assert partner_B[[0, 1, 4, 5]].tolist() == [0, 1, 2, 3]  # first draws, no neighbour, no finding
    assert (place_B[[0, 1, 4, 5]] == 0).all()
    assert (place_B[[2, 3, 6]] > 0).all()
    assert set(partner_B[[2, 3, 6]]) <= {0, 1, 2}
    again = mixer.draw(index_B, epoch=0)
    assert all(np.array_equal(*pair) for pair in zip(again, (partner_B, place_B), strict=True))
    assert not np.array_equal(mixer.draw(index_B, epoch=1)[1], place_B)


def test_labels_are_what_both_images_say():
    mixer = FeatureOversampling(FEATURES, LABELS, neighbours=1, seed=1)
    index_B = np.array([0, 5, 6, 9])  # row 0; again row 0 (with 1), row 1 (with 0), row 4 (with 1)
    labels = torch.from_numpy(LABELS[index_B % 5]).float()
    mixed = mixer.mix_labels({"row": index_B, "labels": labels, "pixel_values": "kept"}, epoch=0)
    nan = np.nan
    expected = [[1, 0, nan], [1, nan, nan], [1, nan, nan], [nan, 1, 0]]
    np.testing.assert_array_equal(mixed["labels"].numpy(), expected)
    assert mixed["pixel_values"] == "kept"


def frozen(folder, dataset, bank=None, **settings):
    labels = np.stack([row["labels"] for row in dataset])
    sampler = EpochSampler(expected_draws("class_aware", labels), batch_size=32, seed=0)
    mixer = None if bank is None else FeatureOversampling(bank, labels, neighbours=3, seed=0)
    return trainer(
        folder, dataset=RepeatedRows(dataset), sampler=sampler, interpolation=mixer, freeze=True, **settings
    )


@pytest.fixture(scope="module")
def bank(tmp_path_factory):
    dataset = rows()
    run = frozen(tmp_path_factory.mktemp("bank"), dataset)
    found = np.flatnonzero([(row["labels"] == 1).any() for row in dataset])
    return features_of(run.model, run.pixels, dataset, found, device=torch.device("cpu"))


def test_bank_is_what_the_classifier_gets(tmp_path, bank):
    run = frozen(tmp_path, rows())
    seen = []
    run.model.classifier.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    run.predict(rows()[20:24])
    torch.testing.assert_close(bank[20:24], torch.cat(seen))
    assert (bank[0] == 0).all()  # without a known positive: not computed
    assert (bank[20:24] != 0).any(dim=1).all()


def test_classifier_gets_points_between_and_the_loss_their_labels(tmp_path, bank):
    run = frozen(tmp_path, rows(), bank, per_device_train_batch_size=32)
    plain = frozen(tmp_path, rows(), per_device_train_batch_size=32)
    given, targets = {}, {}
    for name, one in (("mixed", run), ("plain", plain)):
        one.model.classifier.register_forward_hook(lambda *call, name=name: given.update({name: call[1][0]}))
        one.loss.register_forward_pre_hook(lambda *call, name=name: targets.update({name: call[1][1]}))
        one.train()
    index_B = np.array(list(run.sampler))
    partner_B, place_B = run.interpolation.draw(index_B, 0)
    assert (place_B > 0).sum() > 3
    place_B1 = torch.from_numpy(place_B)[:, None]
    torch.testing.assert_close(given["mixed"], given["plain"] + place_B1 * (bank[partner_B] - given["plain"]))
    moved = place_B > 0
    assert torch.equal(given["mixed"][~moved], given["plain"][~moved])
    assert torch.isnan(targets["mixed"]).sum() > torch.isnan(targets["plain"]).sum()
    assert (targets["mixed"][moved] == 1).any(dim=1).all()  # the shared finding is in each point


def test_accumulation_gives_the_gradients_of_the_whole_batch(tmp_path, bank):
    settings = {"freeze": True, "dataset": RepeatedRows(rows())}
    labels = np.stack([row["labels"] for row in rows()])
    steps = []
    for name, size, accumulation in (("whole", 32, 1), ("cut", 8, 4)):
        settings["sampler"] = EpochSampler(expected_draws("class_aware", labels), batch_size=32, seed=0)
        settings["interpolation"] = FeatureOversampling(bank, labels, seed=0)
        (step,), _ = gradients(tmp_path / name, size, accumulation, **settings)
        steps.append(step)
    assert_same_gradients(steps[1], steps[0])
