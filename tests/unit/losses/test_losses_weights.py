"""Class weights from counts, and the loss from its name."""

import inspect
import warnings

import numpy as np
import pytest
import torch

from hf_cxr.losses import (
    CLASS_WEIGHTS,
    LOSSES,
    AsymmetricLoss,
    BinaryCrossEntropyLoss,
    ClassAwareLoss,
    FocalLoss,
    build_loss,
    class_weights,
    loss_options,
)

POSITIVES = [8000, 900, 70, 100]
KNOWN = [50000, 50000, 50000, 5000]


def weights_of(kind, positives=POSITIVES, known=KNOWN, **options):
    if kind == "given":
        options.setdefault("given", [4, 3, 2, 0.5])
    return class_weights(kind, positives, known, **options)


@pytest.mark.parametrize("kind", CLASS_WEIGHTS)
def test_weights_have_mean_one(kind):
    weights = weights_of(kind)
    assert weights.dtype == torch.float32
    assert weights.shape == (4,)
    assert (weights > 0).all()
    assert weights.mean().item() == pytest.approx(1, abs=1e-6)
    assert (weights.std() > 0.1) == (kind != "none")


def test_ratios_are_those_of_the_definition():
    prevalence = np.array(POSITIVES) / np.array(KNOWN)
    for kind, expected in (("inverse", 1 / prevalence), ("sqrt_inverse", prevalence**-0.5), ("given", [4, 3, 2, 0.5])):
        weights = weights_of(kind).numpy()
        np.testing.assert_allclose(weights / weights[0], np.array(expected) / expected[0], rtol=1e-5)
    effective = weights_of("effective_number", beta=0.999).numpy()
    expected = [(1 - 0.999) / (1 - 0.999**n) for n in POSITIVES]
    np.testing.assert_allclose(effective / effective[0], np.array(expected) / expected[0], rtol=1e-5)


def test_effective_number_runs_from_uniform_to_one_over_the_count():
    equal_known = [50000] * 4
    assert weights_of("effective_number", beta=0).tolist() == [1, 1, 1, 1]
    near = weights_of("effective_number", known=equal_known, beta=1 - 1e-9)
    torch.testing.assert_close(near, weights_of("inverse", known=equal_known), rtol=1e-4, atol=0)
    assert not torch.allclose(near, weights_of("effective_number", known=equal_known), rtol=1e-2)


@pytest.mark.parametrize("kind", ["inverse", "sqrt_inverse", "effective_number"])
def test_a_finding_without_positives_is_weighted_as_with_one(kind):
    with pytest.warns(UserWarning, match="no training positives at index 1, 3"):
        weights = class_weights(kind, [50, 0, 5, 0], [100, 100, 100, 0])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert torch.equal(weights, class_weights(kind, [50, 1, 5, 1], [100, 100, 100, 1]))
        class_weights("none", [50, 0, 5, 0], [100, 100, 100, 0])
    assert weights.isfinite().all()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("inverse", [1, -1], [9, 9]), "counts of positives must be finite and not negative; not so at index 1"),
        (("inverse", [1, float("nan")], [9, 9]), "counts of positives .* at index 1"),
        (("inverse", [1, 1], [float("inf"), 9]), "counts of known cells .* at index 0"),
        (("inverse", [1, 10], [9, 9]), "more positives than known cells at index 1"),
        (("inverse", [1, 1], [9]), "2 counts of positives for 1 counts of known cells"),
        (("inverse", [[1]], [[9]]), r"must have shape \(C,\)"),
        (("invers", [1], [9]), "unknown class_weights 'invers'; did you mean inverse"),
        (("given", [1], [9]), "class_weights given needs given_class_weights"),
    ],
)
def test_bad_counts_and_kinds_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        class_weights(*arguments)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kind": "given", "given": [1, 1, 1]}, r"need given weights of shape \(4,\); got \(3,\)"),
        ({"kind": "given", "given": [1, 0, 1, -2]}, "finite and positive; not so at index 1, 3"),
        (
            {"kind": "none", "given": [1, 1, 1, 1]},
            "given_class_weights go with class_weights given",
        ),
        ({"kind": "effective_number", "beta": 1.0}, r"beta must lie in \[0, 1\); got 1.0"),
    ],
)
def test_bad_weight_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        weights_of(**options)


# ---- build_loss


def build(name, **options):
    return build_loss(name, positives_C=POSITIVES, known_C=KNOWN, **options)


def test_the_table_holds_every_loss_under_its_own_name():
    assert {name: loss_class.name for name, loss_class in LOSSES.items()} == {name: name for name in LOSSES}
    assert {BinaryCrossEntropyLoss, FocalLoss, AsymmetricLoss, ClassAwareLoss} < set(LOSSES.values())


@pytest.mark.parametrize("name", LOSSES)
def test_defaults_are_those_of_the_class(name):
    parameters = inspect.signature(LOSSES[name]).parameters
    own = loss_options(name).keys() & parameters.keys() - {"class_weights"}
    built = build(name, **dict.fromkeys(own))  # None is the default
    assert built.options == {option: parameters[option].default for option in own}
    balanced = dict.fromkeys(["class_balanced", "class_balanced_focal", "ldam"], "effective_number")
    kind = ({"class_aware": "sqrt_inverse"} | balanced).get(name, "none")
    assert built.describe()["class_weights_kind"] == kind
    if name not in ("zlpr", "two_way", "w_cel"):
        assert torch.equal(built.class_weights_C, weights_of(kind))
    assert built(torch.ones(2, 4), torch.eye(2, 4)) > 0


def test_options_reach_the_loss():
    assert build("asymmetric", gamma_neg=3, margin=0).options == {"gamma_pos": 0.0, "gamma_neg": 3.0, "margin": 0.0}
    coupled = build("class_aware", decoupled=False, class_weights="none")
    assert coupled.options == {"margin": 0.2, "decoupled": False}
    assert coupled.class_weights_C.tolist() == [1, 1, 1, 1]
    torch.testing.assert_close(coupled.prevalence_C, torch.tensor(POSITIVES) / torch.tensor(KNOWN))
    given = build("bce", class_weights="given", given_class_weights=[2, 2, 2, 6])
    assert given.describe()["class_weights"] == [0.666667, 0.666667, 0.666667, 2.0]
    effective = build("bce", class_weights="effective_number", beta=0.9)
    assert torch.equal(effective.class_weights_C, weights_of("effective_number", beta=0.9))


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("asymetric", {}, "unknown loss 'asymetric'; did you mean asymmetric\\?; known: bce, "),
        ("asymmetric", {"gama_neg": 3}, "no option 'gama_neg'; did you mean gamma_neg\\?; its options: gamma_pos, "),
        ("asymmetric", {"gama_neg": None}, "no option 'gama_neg'"),
        ("bce", {"margin": 0.1}, "bce takes no option 'margin'; its options: class_weights"),
        ("class_aware", {"prevalence": [0.1] * 4}, "no option 'prevalence'"),
        (
            "bce",
            {"given_class_weights": [1] * 4},
            "given_class_weights go with class_weights given",
        ),
    ],
)
def test_a_wrong_name_or_option_is_refused(name, options, message):
    with pytest.raises(ValueError, match=message):
        build(name, **options)


def test_a_finding_without_known_cells_is_warned_of():
    with pytest.warns(UserWarning, match="no known training cell at index 1") as caught:
        loss = build_loss("class_aware", positives_C=[5, 0], known_C=[10, 0], class_weights="none")
    assert len(caught) == 1
    assert loss.prevalence_C.tolist() == [0.5, 0.5]


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("ldam", "no training positives of Mass: weighted as if there were one"),
        ("distribution_balanced", "no training positives of Mass"),
        ("pos_weighted", "no training positives of Mass"),
        ("class_aware", "prevalence is 0 of Mass: there the class-aware loss's negatives get no gradient"),
    ],
)
def test_warnings_name_findings_whose_names_are_given(name, said):
    with pytest.warns(UserWarning, match="of Mass") as caught:
        build_loss(name, positives_C=[5, 0], known_C=[10, 10], label_names=["Edema", "Mass"])
    assert any(said in str(warning.message) for warning in caught)
    assert not any("index" in str(warning.message) for warning in caught)
