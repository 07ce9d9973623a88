"""Laws of the losses: the equations, limit cases, extremes, unknown cells, and the no-information logits."""

import copy
import json

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from loss_batches import random_batch, value_and_gradient

from hf_cxr.losses import (
    AsymmetricLoss,
    BinaryCrossEntropyLoss,
    ClassAwareLoss,
    FocalLoss,
    MultiLabelLoss,
    asymmetric,
    bce,
    class_aware,
    count_known_cells,
    focal,
    masked_mean,
)

ALPHA = (0.0016, 0.05, 0.3, 0.9)
WEIGHTS = (1.9, 1.1, 0.7, 0.3)

# Every loss with the options that take another path through the code.
CASES = {
    "bce": (bce, {}),
    "focal": (focal, {}),
    "focal-alpha": (focal, {"gamma": 0.5, "alpha": 0.25}),
    "asymmetric": (asymmetric, {}),
    "asymmetric-no-margin": (asymmetric, {"gamma_pos": 1.0, "gamma_neg": 2.0, "margin": 0.0}),
    "asymmetric-half": (asymmetric, {"gamma_pos": 0.5, "gamma_neg": 0.5, "margin": 0.1}),
    "asymmetric-tiny-margin": (asymmetric, {"gamma_neg": 0.5, "margin": 1e-9}),
    "class-aware": (class_aware, {}),
    "class-aware-no-margin": (class_aware, {"margin": 0.0}),
    "class-aware-coupled": (class_aware, {"decoupled": False, "margin": 0.1}),
}


def in_every_case(test):
    return pytest.mark.parametrize(("function", "options"), CASES.values(), ids=CASES)(test)


def call(function, logit_BC, target_BC, options, alpha_C=ALPHA):
    if function is class_aware:
        return class_aware(logit_BC, target_BC, torch.tensor(alpha_C, dtype=torch.float64), **options)
    return function(logit_BC, target_BC, **options)


def module(function, options, class_weights=WEIGHTS) -> MultiLabelLoss:
    if function is class_aware:
        return ClassAwareLoss(ALPHA, class_weights=class_weights, **options)
    classes = {bce: BinaryCrossEntropyLoss, focal: FocalLoss, asymmetric: AsymmetricLoss}
    return classes[function](class_weights=class_weights, **options)


def reference(function, z, y, options, alpha=None):
    """The papers' equations as they stand, by powers and logarithms of probabilities, in extended precision."""
    p = 1 / (1 + np.exp(-z.astype(np.longdouble)))
    if function is bce:
        return -np.where(y == 1, np.log(p), np.log(1 - p))
    if function is focal:
        p_t = np.where(y == 1, p, 1 - p)
        balance = options.get("alpha")
        alpha_t = 1 if balance is None else np.where(y == 1, balance, 1 - balance)
        return -alpha_t * (1 - p_t) ** options.get("gamma", 2) * np.log(p_t)
    if function is asymmetric:
        p_m = np.maximum(p - np.longdouble(options.get("margin", 0.05)), 0)
        positive = (1 - p) ** options.get("gamma_pos", 0) * np.log(p)
        return -np.where(y == 1, positive, p_m ** options.get("gamma_neg", 4) * np.log(1 - p_m))
    alpha = np.asarray(alpha, dtype=np.longdouble)
    p_m = np.maximum(p - np.longdouble(options.get("margin", 0.2)), 0)
    base = 1 - alpha if options.get("decoupled", True) else alpha
    return -np.where(y == 1, (1 - alpha ** (1 - p)) * np.log(p), (1 - base**p) * np.log(1 - p_m))


# ---- the equations


@in_every_case
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-11), (torch.float32, 4e-6)], ids=str)
def test_agrees_with_the_equations(function, options, dtype, tolerance):
    z = np.linspace(-14, 14, 113, dtype=np.float32)
    z_BC = np.tile(z[:, None], (1, 4))
    for label in (0, 1):
        target_BC = np.full_like(z_BC, label)
        expected = reference(function, z_BC, target_BC, options, alpha=ALPHA).astype(np.float64)
        loss_BC = call(function, torch.from_numpy(z_BC).to(dtype), torch.from_numpy(target_BC).to(dtype), options)
        assert loss_BC.dtype == dtype
        assert (loss_BC >= 0).all()
        # Absolute near 0: at a margin, p - m has the rounding of p.
        np.testing.assert_allclose(loss_BC.double().numpy(), expected, rtol=tolerance, atol=tolerance / 10)
        assert expected.max() > 0.02


@in_every_case
def test_gradient_is_that_of_the_whole_expression(function, options):
    z = torch.tensor([[-6.0, -3.1, -1.0, -0.2], [0.3, 1.0, 4.0, 9.0]], dtype=torch.float64, requires_grad=True)
    for label in (0.0, 1.0):
        assert torch.autograd.gradcheck(lambda z, y=label: call(function, z, torch.full_like(z, y), options), (z,))
        (gradient,) = torch.autograd.grad(call(function, z, torch.full_like(z, label), options).sum(), z)
        assert gradient.abs().max() > 1e-3


def test_bce_is_the_one_of_torch():
    logits, targets = random_batch(unknown=0)
    torch.testing.assert_close(
        bce(logits, targets), F.binary_cross_entropy_with_logits(logits, targets, reduction="none")
    )


def test_limit_cases_are_bce_to_the_bit():
    logits, targets = random_batch(rows=50, unknown=0)
    expected = bce(logits, targets)
    zeros = torch.zeros(4)
    assert torch.equal(focal(logits, targets, gamma=0), expected)
    assert torch.equal(asymmetric(logits, targets, gamma_pos=0, gamma_neg=0, margin=0), expected)
    assert torch.equal(class_aware(logits, targets, zeros, margin=0, decoupled=False), expected)
    assert not torch.equal(focal(logits, targets, gamma=0.1), expected)
    assert not torch.equal(asymmetric(logits, targets, gamma_pos=0, gamma_neg=0, margin=0.01), expected)
    assert not torch.equal(class_aware(logits, targets, zeros + 0.01, margin=0, decoupled=False), expected)


def test_asymmetric_with_equal_powers_and_no_margin_is_focal():
    logits, targets = random_batch(unknown=0)
    same = asymmetric(logits, targets, gamma_pos=1.5, gamma_neg=1.5, margin=0.0)
    torch.testing.assert_close(same, focal(logits, targets, gamma=1.5))


@pytest.mark.parametrize("function", [asymmetric, class_aware])
def test_margin_is_continuous_at_zero(function):
    logits, targets = random_batch(unknown=0)
    without = call(function, logits, targets, {"margin": 0.0})
    torch.testing.assert_close(call(function, logits, targets, {"margin": 1e-9}), without, rtol=1e-5, atol=1e-7)
    assert not torch.allclose(call(function, logits, targets, {"margin": 1e-2}), without, rtol=1e-5, atol=1e-7)


def test_sides_of_class_aware_mirror_each_other_at_half():
    z = torch.linspace(-30, 30, 61, dtype=torch.float64)[:, None]
    ones, zeros = torch.ones_like(z), torch.zeros_like(z)
    for alpha, mirrored in ((0.5, True), (0.4, False)):
        prevalence = torch.tensor([alpha], dtype=torch.float64)
        positive = class_aware(z, ones, prevalence, margin=0.0)
        negative = class_aware(-z, zeros, prevalence, margin=0.0)
        assert torch.allclose(positive, negative, rtol=1e-12, atol=0) == mirrored


def test_coupling_changes_the_negatives_only():
    logits, _ = random_batch()
    alpha = torch.tensor(ALPHA)
    for label, same in ((1.0, True), (0.0, False)):
        targets = torch.full_like(logits, label)
        coupled = class_aware(logits, targets, alpha, decoupled=False)
        assert torch.equal(class_aware(logits, targets, alpha, decoupled=True), coupled) == same


@pytest.mark.parametrize(
    ("function", "options"),
    [(asymmetric, {}), (asymmetric, {"gamma_neg": 0.5}), (asymmetric, {"gamma_neg": 0.0}), (class_aware, {})],
)
def test_negatives_within_the_margin_have_no_loss_and_no_gradient(function, options):
    z = torch.tensor([[-9.0, -1e-3, 0.0, 1e-2]], requires_grad=True)  # p = 0.5 exactly in column 2
    loss = call(function, z, torch.zeros(1, 4), options | {"margin": 0.5})
    (gradient,) = torch.autograd.grad(loss.sum(), z)
    assert loss[0, :3].tolist() == [0, 0, 0]
    assert gradient[0, :3].tolist() == [0, 0, 0]
    assert loss[0, 3] > 0
    assert gradient[0, 3] > 0


@pytest.mark.parametrize("function", [asymmetric, class_aware])
def test_loss_is_never_negative_beside_the_margin(function):
    # Every float32 around the logit of the margin, where log(1 - p_m) is of the size of its rounding.
    for margin in np.linspace(0.003, 0.97, 300).tolist():
        start = np.float32(np.log(margin / (1 - margin)))
        bits = torch.tensor(start).view(torch.int32) + torch.arange(-500, 500, dtype=torch.int32)
        z = bits.view(torch.float32)[:, None].repeat(1, 4)
        options = {"gamma_neg": 0.0} if function is asymmetric else {}
        loss = call(function, z, torch.zeros_like(z), options | {"margin": margin})
        assert loss.min() == 0
        assert loss.max() > 0


# ---- extremes


@in_every_case
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_extremes_are_finite(function, options, dtype):
    extreme = torch.tensor([1e4, 1e3, 200.0, 104.0, 89.0, 40.0, 17.0, 1e-30, 0.0], dtype=dtype)
    z = torch.cat([extreme, -extreme])[:, None].repeat(1, 4)
    for alpha_C in ((0.0, 1.0, 1e-30, 1e-8), (0.5, 1 - 1e-7, 1e-3, 0.999)):
        for label in (0.0, 1.0):
            targets = torch.full_like(z, label)
            loss, gradient = value_and_gradient(
                lambda z, y=targets, alpha=alpha_C: call(function, z, y, options, alpha).sum(), z
            )
            assert loss.isfinite()
            assert loss > 0
            assert gradient.isfinite().all()
            assert gradient.any()


def test_a_confident_miss_costs_its_logit():
    z = torch.tensor([[-1e4, 1e4]])
    targets = torch.tensor([[1.0, 0.0]])
    assert bce(z, targets).tolist() == [[1e4, 1e4]]
    assert focal(z, targets).tolist() == [[1e4, 1e4]]
    missed = class_aware(z, targets, torch.tensor([0.25, 0.25]), margin=0.2)
    expected = [0.75 * 1e4, 0.25 * -np.log(0.2)]
    np.testing.assert_allclose(missed[0].numpy(), expected, rtol=1e-6)


def test_prevalence_of_zero_or_one_silences_a_side_of_class_aware():
    z = torch.tensor([[-2.0, -2.0, 3.0, 3.0]], requires_grad=True)
    prevalence = torch.tensor([0.0, 1.0, 0.0, 1.0])

    def gradient(label, decoupled):
        loss = class_aware(z, torch.full((1, 4), label), prevalence, margin=0.0, decoupled=decoupled)
        return torch.autograd.grad(loss.sum(), z)[0][0]

    p = torch.sigmoid(z.detach())[0]
    # Where a side's base is 0 its weight is 1: the gradient of cross-entropy.
    torch.testing.assert_close(gradient(1.0, True), torch.where(prevalence == 0, p - 1, 0.0))
    torch.testing.assert_close(gradient(0.0, True), torch.where(prevalence == 1, p, 0.0))
    torch.testing.assert_close(gradient(0.0, False), torch.where(prevalence == 0, p, 0.0))


@in_every_case
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_half_precision_logits_are_widened_first(function, options, dtype):
    features, targets = random_batch()
    layer = torch.nn.Linear(4, 4)
    torch.nn.init.constant_(layer.bias, 5.0)
    loss = module(function, options)
    with torch.autocast("cpu", dtype=dtype):
        logits = layer(5 * features)
        assert logits.dtype == dtype
        value, gradient = value_and_gradient(loss, logits, targets)
    expected, expected_gradient = value_and_gradient(loss, logits.float(), targets)
    assert value.dtype == torch.float32
    assert torch.equal(value, expected)
    assert torch.equal(gradient, expected_gradient.to(dtype))
    assert gradient.any()


def test_float64_stays_float64():
    logits, targets = random_batch(dtype=torch.float64)
    assert module(class_aware, {})(logits, targets).dtype == torch.float64


# ---- unknown cells and the mean


@in_every_case
def test_unknown_cells_count_as_removed(function, options):
    logits, targets = random_batch(rows=9)
    known = ~targets.isnan()
    assert 0 < known.sum() < known.numel()
    value, gradient = value_and_gradient(module(function, options), logits, targets)

    def by_removal(z):
        total = 0
        for c, (alpha, weight) in enumerate(zip(ALPHA, WEIGHTS, strict=True)):
            rows = known[:, c]
            cells = call(function, z[rows, c : c + 1], targets[rows, c : c + 1], options, alpha_C=(alpha,))
            total = total + weight * cells.sum()
        return total / known.sum()

    expected, expected_gradient = value_and_gradient(by_removal, logits)
    torch.testing.assert_close(value, expected)
    torch.testing.assert_close(gradient, expected_gradient)
    assert not gradient[~known].any()
    assert gradient[known].abs().sum() > 0.01


@in_every_case
def test_a_batch_without_known_cells_gives_zero(function, options):
    logits, targets = random_batch()
    loss = module(function, options)
    value, gradient = value_and_gradient(loss, logits, torch.full_like(targets, torch.nan))
    assert value == 0
    assert torch.equal(gradient, torch.zeros_like(logits))
    assert loss(logits, targets) > 0


@in_every_case
@pytest.mark.parametrize("as_number", [False, True], ids=["tensor", "number"])
def test_micro_batches_add_up_to_the_whole_batch(function, options, as_number):
    logits, targets = random_batch(rows=12)
    targets[4:6] = torch.nan  # a micro-batch without a known cell
    loss = module(function, options)
    value, gradient = value_and_gradient(loss, logits, targets)
    known_cells = count_known_cells(targets)
    pieces = [slice(0, 4), slice(4, 6), slice(6, 7), slice(7, 12)]
    counts = [int(count_known_cells(targets[piece])) for piece in pieces]
    assert len(set(counts)) == len(pieces)
    assert 0 in counts
    known_cells = int(known_cells) if as_number else known_cells
    parts = [value_and_gradient(loss, logits[piece], targets[piece], known_cells) for piece in pieces]
    torch.testing.assert_close(sum(part for part, _ in parts), value)
    torch.testing.assert_close(torch.cat([part for _, part in parts]), gradient)
    naive = sum(loss(logits[piece], targets[piece]) for piece in pieces) / len(pieces)
    assert not torch.isclose(naive, value, rtol=1e-3)


def test_known_cells_may_be_a_fraction_and_zero_is_harmless():
    loss_BC, targets = torch.full((1, 4), 3.0), torch.tensor([[1.0, 0.0, torch.nan, torch.nan]])
    assert masked_mean(loss_BC, targets, known_cells=0.5) == 12
    assert masked_mean(loss_BC, torch.full_like(targets, torch.nan), known_cells=torch.tensor(0)) == 0


def test_class_weights_multiply_their_column():
    logits, targets = random_batch()
    doubled = BinaryCrossEntropyLoss(class_weights=[1, 2, 1, 1])
    per_column = masked_mean(bce(logits, targets.nan_to_num()), targets, torch.tensor([0.0, 1.0, 0.0, 0.0]))
    plain = BinaryCrossEntropyLoss()(logits, targets)
    torch.testing.assert_close(doubled(logits, targets), plain + per_column)
    assert per_column > 0


# ---- the module


def test_shapes_are_checked():
    loss = module(class_aware, {})
    with pytest.raises(ValueError, match=r"logits \(2, 4\) and targets \(3, 4\)"):
        loss(torch.zeros(2, 4), torch.zeros(3, 4))
    with pytest.raises(ValueError, match=r"logits \(4,\) and targets \(4,\)"):
        loss(torch.zeros(4), torch.zeros(4))
    with pytest.raises(ValueError, match="built for 4 findings; got 5"):
        loss(torch.zeros(2, 5), torch.zeros(2, 5))
    with pytest.raises(ValueError, match="built for 4 findings; got 2"):
        loss.no_information_logits([0.1, 0.2])
    assert loss(torch.zeros(2, 4), torch.ones(2, 4)) > 0


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: ClassAwareLoss([0.1, float("nan")]), "prevalence must be finite and in .* at index 1"),
        (lambda: ClassAwareLoss([0.1, 1.5, -0.1]), "prevalence must be .* at index 1, 2"),
        (lambda: ClassAwareLoss([[0.1]]), r"prevalence must have shape \(C,\)"),
        (lambda: ClassAwareLoss([0.1], margin=1.0), r"margin must lie in \[0, 1\); got 1.0"),
        (lambda: ClassAwareLoss([0.1], margin=float("nan")), "margin must lie"),
        (lambda: ClassAwareLoss([0.1], decoupled="no"), "decoupled must be true or false"),
        (lambda: ClassAwareLoss([0.1], class_weights=[1, 1]), "2 class weights for 1 prevalences"),
        (lambda: AsymmetricLoss(gamma_neg=-1), "gamma_neg must be finite and not negative; got -1"),
        (lambda: AsymmetricLoss(margin=-0.1), "margin must lie"),
        (lambda: FocalLoss(gamma=float("inf")), "gamma must be finite"),
        (lambda: FocalLoss(alpha=2), "alpha must lie in"),
        (lambda: BinaryCrossEntropyLoss(class_weights=[1, -1]), "class_weights must be .* at index 1"),
    ],
)
def test_bad_options_are_refused(build, message):
    with pytest.raises(ValueError, match=message):
        build()


def test_silent_cells_are_warned_of(recwarn):
    ClassAwareLoss([0.1, 0.2])
    ClassAwareLoss([0.0, 0.2], decoupled=False)
    assert not recwarn.list
    with pytest.warns(UserWarning, match="prevalence is 0 at index 1, 3: .*negatives get no gradient"):
        ClassAwareLoss([0.1, 0.0, 0.2, 0.0])
    with pytest.warns(UserWarning, match="prevalence is 1 at index 0: .*loss's positives get no gradient"):
        ClassAwareLoss([1.0, 0.1])
    with pytest.warns(UserWarning, match="prevalence is 1 at index 0: .*positives and negatives get no gradient"):
        ClassAwareLoss([1.0, 0.1], decoupled=False)


def test_buffers_move_and_travel_in_the_state():
    logits, targets = random_batch()
    loss = module(class_aware, {})
    other = ClassAwareLoss([0.5] * 4, class_weights=[1.0] * 4)
    assert set(loss.state_dict()) == {"class_weights_C", "prevalence_C"}
    assert not torch.equal(other(logits, targets), loss(logits, targets))
    other.load_state_dict(loss.state_dict())
    assert torch.equal(other(logits, targets), loss(logits, targets))
    assert {buffer.dtype for buffer in loss.buffers()} == {torch.float32}
    assert {buffer.device.type for buffer in copy.deepcopy(loss).to("meta").buffers()} == {"meta"}


def test_the_loss_keeps_its_own_copy_of_the_arrays():
    weights = torch.ones(4)
    loss = BinaryCrossEntropyLoss(class_weights=weights)
    weights.zero_()
    assert loss.class_weights_C.tolist() == [1, 1, 1, 1]


@in_every_case
def test_forward_never_reads_a_value_back(function, options):
    # On the meta device there is no value: .item(), bool() or a branch on data would raise.
    loss = module(function, options).to("meta")
    known_cells = torch.zeros((), device="meta")
    scalar = loss(torch.zeros(3, 4, device="meta"), torch.zeros(3, 4, device="meta"), known_cells)
    assert scalar.shape == ()


def test_describe_is_plain_json():
    description = ClassAwareLoss(ALPHA, class_weights=WEIGHTS, margin=0.1).describe()
    assert json.loads(json.dumps(description)) == {
        "name": "class_aware",
        "options": {"margin": 0.1, "decoupled": True},
        "class_weights_kind": "given",
        "class_weights": [1.9, 1.1, 0.7, 0.3],
        "prevalence": [0.0016, 0.05, 0.3, 0.9],
    }
    assert BinaryCrossEntropyLoss().describe()["class_weights"] is None
    assert repr(FocalLoss(class_weights=[1, 1])) == "FocalLoss(gamma=2.0, alpha=None, class_weights=given, findings=2)"


def test_the_base_class_names_what_is_missing():
    with pytest.raises(NotImplementedError, match=r"has to define elementwise"):
        MultiLabelLoss()(torch.zeros(1, 2), torch.zeros(1, 2))


# ---- the no-information logits


class GivenCurve(MultiLabelLoss):
    """A loss whose value depends on the logit only."""

    def __init__(self, curve):
        super().__init__()
        self.curve = curve

    def elementwise(self, logit_BC, target_BC):
        return self.curve(logit_BC)


def test_no_information_logits_of_bce_are_the_log_odds():
    alpha = np.array([2e-6, 1e-4, 0.0016, 0.11, 0.4, 0.5, 0.9, 1 - 2e-6])
    z = BinaryCrossEntropyLoss().no_information_logits(alpha)
    assert z.dtype == torch.float64
    np.testing.assert_allclose(z.numpy(), np.log(alpha) - np.log1p(-alpha), rtol=0, atol=1e-6)


@in_every_case
def test_no_information_logits_are_the_global_minimum(function, options):
    z_C = module(function, options).no_information_logits(ALPHA).numpy()
    grid = np.tile(np.linspace(-14, 14, 4001)[:, None], (1, 4))
    alpha = np.asarray(ALPHA)

    def expected_loss(z):
        ones, zeros = np.ones_like(z), np.zeros_like(z)
        single = np.float32(ALPHA)  # as the loss holds it
        return alpha * reference(function, z, ones, options, single) + (1 - alpha) * reference(
            function, z, zeros, options, single
        )

    found = expected_loss(z_C[None])[0]
    assert (found <= expected_loss(grid).min(axis=0) * (1 + 1e-9)).all()
    assert (found < expected_loss(np.zeros((1, 4)))[0]).sum() >= 3


def test_no_information_probability_of_class_aware():
    """It settles where it settles almost whatever the prevalence: far above it, which is why we calibrate."""
    alpha = [0.0001, 0.0016, 0.01, 0.05, 0.1]
    without = ClassAwareLoss(alpha, margin=0.0).no_information_logits(alpha).sigmoid()
    assert without.min() > 0.530
    assert without.max() < 0.545
    alpha = [0.0001, 0.0016, 0.01, 0.05, 0.11, 0.18]
    shifted = ClassAwareLoss(alpha, margin=0.2).no_information_logits(alpha).sigmoid()
    assert shifted.min() > 0.60
    assert shifted.max() < 0.64
    # Coupled, the optimum is another one: rare findings settle at the margin itself.
    coupled = ClassAwareLoss(alpha, margin=0.2, decoupled=False).no_information_logits(alpha).sigmoid()
    torch.testing.assert_close(coupled[:4], torch.full((4,), 0.2, dtype=torch.float64), rtol=0, atol=1e-6)
    half = ClassAwareLoss([0.5], margin=0.0).no_information_logits([0.5])
    assert abs(half) < 1e-6


@pytest.mark.filterwarnings("ignore:prevalence is")
def test_no_information_logits_are_finite_for_every_prevalence():
    extreme = [0.0, 1.0, float("nan"), 1e-12]
    bound = np.log(1e6)
    z = BinaryCrossEntropyLoss().no_information_logits(extreme)
    np.testing.assert_allclose(z.numpy(), [-bound, bound, 0.0, -bound], rtol=0, atol=1e-5)
    # A finding without positives does not start at probability 1 because its negatives weigh nothing.
    p = ClassAwareLoss([0.0, 1.0, 0.5, 1e-12]).no_information_logits(extreme).sigmoid()
    assert ((p[[0, 1, 3]] > 0.5) & (p[[0, 1, 3]] < 0.65)).all()
    assert p[2] == 0.5  # of which nothing is known
    for wrong in ([1.5], [-0.1], [[0.5]]):
        with pytest.raises(ValueError, match="prevalences must have shape"):
            BinaryCrossEntropyLoss().no_information_logits(wrong)


def test_no_information_logits_leave_the_loss_as_it_was():
    with pytest.warns(UserWarning, match="no gradient"):
        loss = ClassAwareLoss([0.0, 0.1])
    loss.no_information_logits([0.0, 0.1])
    assert loss.prevalence_C.dtype == torch.float32
    assert loss.prevalence_C[0] == 0


@pytest.mark.parametrize(
    ("curve", "nearest"),
    [
        (lambda z: ((z - 3) * (z + 3)) ** 2, -3.0),  # a pair: the negative one
        (lambda z: ((z - 5) * (z + 2)) ** 2, -2.0),  # two minima: the nearer one
        (lambda z: torch.relu(1.23456 - z), 1.23456),  # a plateau: its edge
        (lambda z: torch.zeros_like(z), 0.0),
        (lambda z: ((z - 5) ** 2) * ((z + 2) ** 2 + 0.01), 5.0),  # a local minimum at -2, the global one at 5
        (lambda z: z, -20.0),  # no minimum: the end of the interval
    ],
)
def test_search_finds_the_global_minimum_nearest_to_zero(curve, nearest):
    z = GivenCurve(curve).no_information_logits([0.3, 0.3])
    np.testing.assert_allclose(z.numpy(), [nearest, nearest], rtol=0, atol=1e-6)
