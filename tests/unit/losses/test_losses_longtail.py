"""Laws of the long-tail losses: the papers' equations, the authors' values, limit cases, unknown cells, extremes."""

import copy
import re
from functools import partial
from pathlib import Path

import loss_batches
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from loss_batches import value_and_gradient

from hf_cxr.losses import LOSSES, bce, build_loss, focal, loss_options
from hf_cxr.losses.elementwise import (
    asymmetric,
    hill,
    ldam,
    logit_adjusted,
    negative_tolerant,
    pos_weighted,
    rebalanced_weight,
    robust_asymmetric,
)
from hf_cxr.sampling import SAMPLERS

POSITIVES = np.array([8000.0, 900.0, 70.0, 400.0])
KNOWN = np.array([50000.0, 50000.0, 50000.0, 5000.0])
ALPHA = POSITIVES / KNOWN

# Each new loss, and with options that take another path through the code or through the equation.
CASES = {
    "pos_weighted": ("pos_weighted", {}),
    "pos_weighted-capped": ("pos_weighted", {"pos_weight_cap": 20.0}),
    "class_balanced": ("class_balanced", {}),
    "class_balanced_focal": ("class_balanced_focal", {"gamma": 1.5}),
    "ldam": ("ldam", {}),
    "ldam-scaled": ("ldam", {"max_margin": 1.0, "logit_scale": 3.0}),
    "distribution_balanced": ("distribution_balanced", {}),
    "distribution_balanced-cross-entropy": (
        "distribution_balanced",
        {"gamma": 0.0, "map_alpha": 0.3, "map_beta": 2.0, "map_mu": 0.5, "negative_scale": 5.0, "bias_scale": 0.2},
    ),
    "robust_asymmetric": ("robust_asymmetric", {}),
    "robust_asymmetric-other": (
        "robust_asymmetric",
        {"gamma_pos": 1.0, "gamma_neg": 0.0, "margin": 0.0, "hill_lambda": 1.2, "epsilon_pos": 0.5},
    ),
    "hill": ("hill", {}),
    "hill-other": ("hill", {"gamma": 0.0, "logit_margin": 0.0, "hill_lambda": 1.75}),
    "logit_adjusted": ("logit_adjusted", {}),
    "logit_adjusted-half": ("logit_adjusted", {"tau": 0.5}),
    "two_way": ("two_way", {}),
    "two_way-other": ("two_way", {"temperature_pos": 1.0, "temperature_neg": 2.0}),
    "w_cel": ("w_cel", {}),
    "zlpr": ("zlpr", {}),
}
LISTWISE = ("two_way", "w_cel", "zlpr")
ADDITIVE = {case: value for case, value in CASES.items() if value[0] not in ("two_way", "w_cel")}


def in_every_case(test):
    return pytest.mark.parametrize(("name", "options"), CASES.values(), ids=CASES)(test)


def build(name, options=None, positives=POSITIVES, known=KNOWN, **kwargs):
    return build_loss(name, positives_C=positives, known_C=known, **(options or {}), **kwargs)


random_batch = partial(loss_batches.random_batch, rows=9, unknown=0.25, dtype=torch.float64)


# ---- the equations, cell by cell and row by row, in extended precision and without a tensor


def sigma(x):
    return 1 / (1 + np.exp(-x))


def reference_cell(name, z, y, c, row, o):
    """One known cell of finding c; ``row``: the image's targets."""
    p, n, known = sigma(z), np.longdouble(POSITIVES[c]), np.longdouble(KNOWN[c])
    if name == "pos_weighted":
        weight = min((known - n) / n, o.get("pos_weight_cap", np.inf))
        return -weight * np.log(p) if y else -np.log(1 - p)
    per_finding = [(1 - 0.9999) / (1 - np.longdouble(0.9999) ** m) for m in POSITIVES]
    if name.startswith("class_balanced"):
        p_t = p if y else 1 - p
        focusing = (1 - p_t) ** o.get("gamma", 2.0) if name.endswith("focal") else 1
        return -per_finding[c] / np.mean(per_finding) * focusing * np.log(p_t)
    if name == "ldam":
        margin = o.get("max_margin", 0.5) * n**-0.25 / min(POSITIVES) ** -0.25
        scale = o.get("logit_scale", 1.0)
        weight = per_finding[c] / np.mean(per_finding)
        return -weight * np.log(sigma(scale * (z - margin)) if y else sigma(-scale * z))
    if name == "distribution_balanced":
        of_image = sum(1 / np.longdouble(POSITIVES[i]) for i in range(4) if row[i] == 1)
        ratio = (1 / n) / of_image if of_image else np.inf
        weight = o.get("map_alpha", 0.1) + sigma(o.get("map_beta", 10.0) * (ratio - o.get("map_mu", 0.2)))
        scale = o.get("negative_scale", 2.0)
        shifted = z - np.log(known / n - 1) * o.get("bias_scale", 0.05) / scale
        p_t = sigma(shifted) if y else sigma(-scale * shifted)
        return -weight * (1 - p_t) ** o.get("gamma", 2.0) * np.log(p_t) / (1 if y else scale)
    lamb = o.get("hill_lambda", 1.5)
    if name == "robust_asymmetric":
        if y:
            series = (
                np.log(p) + o.get("epsilon_pos", 1.0) * (1 - p) + o.get("epsilon_pos_pow", -2.5) / 2 * (1 - p) ** 2
            )
            return -((1 - p) ** o.get("gamma_pos", 0.0)) * series
        p_m = max(p - np.longdouble(o.get("margin", 0.05)), 0)
        return -(p_m ** o.get("gamma_neg", 4.0)) * np.log(1 - p_m) * (lamb - p) * p**2 * (lamb - (1 - p_m))
    if name == "hill":
        q = sigma(z - o.get("logit_margin", 1.0))
        return -((1 - q) ** o.get("gamma", 2.0)) * np.log(q) if y else (lamb - p) * p**2
    assert name == "logit_adjusted"
    q = sigma(z + o.get("tau", 1.0) * np.log(n / (known - n)))
    return -np.log(q) if y else -np.log(1 - q)


def reference_list(name, z, y, o):
    """One image's loss for zlpr; one image's or one finding's for two_way."""
    positives, negatives = z[y == 1], z[y == 0]
    if name == "zlpr":
        return np.log(1 + np.sum(np.exp(negatives))) + np.log(1 + np.sum(np.exp(-positives)))
    if len(positives) == 0 or len(negatives) == 0:
        return 0.0
    t_pos, t_neg = o.get("temperature_pos", 4.0), o.get("temperature_neg", 1.0)
    ratio = np.sum(np.exp(negatives / t_neg)) ** t_neg * np.sum(np.exp(-positives / t_pos)) ** t_pos
    return np.log(1 + ratio)


def reference(name, logits, targets, options):
    z, y = logits.numpy().astype(np.longdouble), targets.numpy()
    if name == "zlpr":
        return np.mean([reference_list(name, z[b], y[b], options) for b in range(len(z)) if not np.isnan(y[b]).all()])
    if name == "two_way":
        images = [reference_list(name, z[b], y[b], options) for b in range(len(z)) if (y[b] == 1).any()]
        findings = [reference_list(name, z[:, c], y[:, c], options) for c in range(4) if (y[:, c] == 1).any()]
        return np.mean(images) + np.mean(findings)
    if name == "w_cel":  # the paper's sum over the number of cells
        positives, negatives = z[y == 1], z[y == 0]
        number = len(positives) + len(negatives)
        sides = [
            number / len(positives) * -np.log(sigma(positives)),
            number / len(negatives) * np.log1p(np.exp(negatives)),
        ]
        return sum(side.sum() for side in sides) / number
    cells = [
        reference_cell(name, z[b, c], y[b, c], c, y[b], options)
        for b, c in np.ndindex(z.shape)
        if not np.isnan(y[b, c])
    ]
    return np.mean(cells)


@in_every_case
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 2e-7), (torch.float32, 1e-5)], ids=str)
def test_agrees_with_the_equations(name, options, dtype, tolerance):
    # In float64 what the loss keeps of the training counts is still float32.
    for seed in range(5):
        logits, targets = random_batch(seed=seed, dtype=dtype)
        targets[3] = torch.nan
        targets[4] = torch.nan_to_num(targets[4]) * 0  # an image without a finding
        value = build(name, options)(logits, targets)
        assert value.dtype == dtype
        assert value.item() == pytest.approx(float(reference(name, logits, targets, options)), rel=tolerance)
        assert value > 1e-3


def test_functions_agree_with_the_equations_in_float64():
    # As above with counts in float64: to the last digits.
    logits, targets = random_batch(unknown=0)
    alpha_C, n_C = torch.tensor(ALPHA), torch.tensor(POSITIVES)
    margin_C = 0.5 * n_C**-0.25 / n_C.min() ** -0.25
    weight_C = 1 / -torch.expm1(n_C * np.log(0.9999))
    found = {
        "pos_weighted": pos_weighted(logits, targets, 1 / alpha_C - 1),
        "ldam": ldam(logits, targets, margin_C) * weight_C / weight_C.mean(),
        "logit_adjusted": logit_adjusted(logits, targets, alpha_C),
        "distribution_balanced": rebalanced_weight(targets, 1 / n_C)
        * negative_tolerant(logits, targets, alpha_C.logit()),
        "hill": hill(logits, targets),
        "robust_asymmetric": robust_asymmetric(logits, targets),
    }
    for name, loss_BC in found.items():
        expected = float(reference(name, logits, targets, {}))
        assert loss_BC.mean().item() == pytest.approx(expected, rel=1e-11), name


def test_values_of_the_authors_code():
    """What the published implementations give for this batch, in float64, as a mean (theirs are sums in part).

    kalelpark/RAL (models/get_optimizer.py, Ralloss), xinyu1205/robust-loss-mlml (Hill), tk1980/TwoWayMultiLabelLoss
    (utils/criterion.py), wutong16/DistributionBalancedLoss (resample_loss.py, with balance_param 1), and the code of
    ZLPR's first author (kexue.fm, archives/7359).
    """
    logits = torch.tensor([[-4.0, -1.5, 0.3, 2.0], [1.0, -0.2, -3.0, 0.7], [-2.5, 3.5, 0.0, -1.0]]).double()
    targets = torch.tensor([[0.0, 1, 0, 1], [1, 0, 0, 0], [0, 0, 1, 1]]).double()
    known = np.full(4, 50000.0)
    for name, options, expected in (
        ("robust_asymmetric", {}, 0.41702409952897673),
        ("robust_asymmetric", {"gamma_neg": 2.0, "gamma_pos": 1.0}, 0.36386956843735363),
        ("hill", {}, 0.5125492048549166),
        ("two_way", {}, 5.89942359583627),
        ("distribution_balanced", {}, 0.28194809860498676),
        ("zlpr", {}, 3.1137338754295207),
    ):
        value = build(name, options, known=known)(logits, targets).item()
        assert value == pytest.approx(expected, rel=2e-7), name


def test_pos_weighted_is_the_one_of_torch():
    logits, targets = random_batch(unknown=0)
    loss = build("pos_weighted")
    assert loss.pos_weight_C.max() > 700
    expected = F.binary_cross_entropy_with_logits(logits, targets, pos_weight=torch.tensor(1 / ALPHA - 1))
    torch.testing.assert_close(loss(logits, targets), expected, rtol=1e-7, atol=0)
    assert build("pos_weighted", {"pos_weight_cap": 20}).pos_weight_C.max() == 20


# ---- limit cases


def test_limit_cases_are_bce():
    logits, targets = random_batch(rows=50, unknown=0)
    expected = bce(logits, targets)
    one, zero = torch.ones(4), torch.zeros(4)
    for found in (
        pos_weighted(logits, targets, one),
        logit_adjusted(logits, targets, one / 7, tau=0.0),
        ldam(logits, targets, zero),
        negative_tolerant(logits, targets, one, gamma=0.0, negative_scale=1.0, bias_scale=0.0),
        rebalanced_weight(targets, one, map_alpha=0.5, map_beta=0.0) * expected,
    ):
        assert torch.equal(found, expected)
    for other in (
        pos_weighted(logits, targets, 1.1 * one),
        logit_adjusted(logits, targets, one / 7, tau=0.1),
        ldam(logits, targets, one / 10),
        negative_tolerant(logits, targets, one, gamma=0.0, negative_scale=1.0, bias_scale=0.1),
        rebalanced_weight(targets, one, map_alpha=0.5, map_beta=0.1) * expected,
    ):
        assert not torch.allclose(other, expected, rtol=1e-3)


def test_limit_cases_among_the_losses():
    logits, targets = random_batch(rows=50, unknown=0)
    positive = targets == 1
    focal_margin = hill(logits, targets, logit_margin=0.0)
    assert torch.equal(focal_margin[positive], focal(logits, targets)[positive])
    robust = robust_asymmetric(logits, targets, gamma_pos=1.0, epsilon_pos=0.0, epsilon_pos_pow=0.0)
    plain = asymmetric(logits, targets, gamma_pos=1.0)
    assert torch.equal(robust[positive], plain[positive])
    p = logits.sigmoid()
    factor = (1.5 - p) * p**2 * (0.5 + (p - 0.05).clamp(min=0))
    torch.testing.assert_close(robust[~positive], (plain * factor)[~positive])
    tolerant = negative_tolerant(logits, targets, torch.ones(4), negative_scale=1.0, bias_scale=0.0)
    assert torch.equal(tolerant, focal(logits, targets))


def test_class_balanced_losses_are_the_plain_ones_with_weights():
    logits, targets = random_batch()
    for name, plain in (("class_balanced", "bce"), ("class_balanced_focal", "focal")):
        assert torch.equal(
            build(name)(logits, targets), build(plain, class_weights="effective_number")(logits, targets)
        )
        assert not torch.equal(build(name)(logits, targets), build(plain)(logits, targets))
        assert torch.equal(build(name, beta=0.0)(logits, targets), build(plain)(logits, targets))


def test_zlpr_of_one_finding_is_bce():
    logits, targets = random_batch(rows=30, unknown=0)
    loss = build("zlpr", positives=[5], known=[9])
    torch.testing.assert_close(loss(logits[:, :1], targets[:, :1]), bce(logits[:, :1], targets[:, :1]).mean())


def test_two_way_does_not_see_a_shift():
    logits, targets = random_batch()
    loss = build("two_way")
    torch.testing.assert_close(loss(logits + 3, targets), loss(logits, targets))
    shifted_findings = logits + torch.tensor([0.0, 1.0, 2.0, 3.0])
    assert not torch.isclose(loss(shifted_findings, targets), loss(logits, targets), rtol=1e-2)


def test_rare_findings_get_the_widest_margin_and_positives_alone():
    loss = build("ldam", class_weights="none")
    assert loss.margin_C.argmax() == POSITIVES.argmin()
    assert loss.margin_C.max() == 0.5
    np.testing.assert_allclose(loss.margin_C[0] / loss.margin_C[2], (70 / 8000) ** 0.25, rtol=1e-6)
    logits, _ = random_batch()
    assert loss(logits, torch.zeros_like(logits)) == bce(logits, torch.zeros_like(logits)).mean()
    assert loss(logits, torch.ones_like(logits)) > bce(logits, torch.ones_like(logits)).mean()


def test_hill_lets_go_of_certain_negatives():
    z = torch.tensor([[-8.0, 0.0, 8.0]], dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad(hill(z, torch.zeros_like(z)).sum(), z)
    assert gradient[0, 1] > 100 * gradient[0, [0, 2]].abs().max()


# ---- unknown cells, the mean, extremes


@in_every_case
def test_unknown_cells_are_ignored(name, options):
    logits, targets = random_batch(rows=12)
    known = ~targets.isnan()
    loss = build(name, options)
    value, gradient = value_and_gradient(loss, logits, targets)
    assert not gradient[~known].any()
    assert (gradient[known] != 0).sum() > 20
    moved = torch.where(known, logits, 1e3)
    assert torch.equal(loss(moved, targets), value)
    nothing, still = value_and_gradient(loss, logits, torch.full_like(targets, torch.nan))
    assert nothing == 0
    assert not still.any()


@pytest.mark.parametrize(("name", "options"), ADDITIVE.values(), ids=ADDITIVE)
def test_pieces_of_a_step_add_up_to_the_whole(name, options):
    logits, targets = random_batch(rows=12)
    targets[4:6] = torch.nan
    loss = build(name, options)
    assert loss.additive
    value, gradient = value_and_gradient(loss, logits, targets)
    items = loss.count_items(targets)
    assert items == (10 if name == "zlpr" else (~targets.isnan()).sum())
    pieces = [slice(0, 4), slice(4, 6), slice(6, 7), slice(7, 12)]
    assert sum(loss.count_items(targets[piece]) for piece in pieces) == items
    parts = [value_and_gradient(loss, logits[piece], targets[piece], items) for piece in pieces]
    torch.testing.assert_close(sum(part for part, _ in parts), value)
    torch.testing.assert_close(torch.cat([part for _, part in parts]), gradient)
    naive = sum(loss(logits[piece], targets[piece]) for piece in pieces) / len(pieces)
    assert not torch.isclose(naive, value, rtol=1e-3)


@pytest.mark.parametrize("name", ["two_way", "w_cel"])
def test_pieces_of_losses_that_compare_images_do_not_add_up_and_they_say_so(name):
    logits, targets = random_batch(rows=12)
    loss = build(name)
    assert not loss.additive
    halves = (loss(logits[:6], targets[:6]) + loss(logits[6:], targets[6:])) / 2
    assert not torch.isclose(halves, loss(logits, targets), rtol=1e-3)


@in_every_case
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
@pytest.mark.filterwarnings("ignore:no training positives", "ignore:no known training cell")
def test_extremes_are_finite(name, options, dtype):
    extreme = torch.tensor([1e4, 1e3, 200.0, 104.0, 89.0, 40.0, 17.0, 1e-30, 0.0], dtype=dtype)
    z = torch.cat([extreme, -extreme])[:, None].repeat(1, 4)
    z[:, 1] *= -1
    # No positive, positives only, one of a hundred million, no known cell.
    loss = build(name, options, positives=[0, 1000, 1, 0], known=[1000, 1000, 1e8, 0])
    for seed in range(3):
        targets = (torch.rand(z.shape, generator=torch.Generator().manual_seed(seed)) < 0.5).to(dtype)
        for labels in (targets, torch.zeros_like(targets), torch.ones_like(targets)):
            value, gradient = value_and_gradient(loss, z, labels)
            assert value.isfinite()
            assert gradient.isfinite().all()
        value, gradient = value_and_gradient(loss, z, targets)
        assert value.dtype == torch.promote_types(dtype, torch.float32)
        assert value > 0
        assert gradient.any()


@in_every_case
def test_gradient_is_that_of_the_whole_expression(name, options):
    logits, targets = random_batch(rows=4)
    loss = build(name, options)
    assert torch.autograd.gradcheck(lambda z: loss(z, targets), (logits.requires_grad_(),))


# ---- the module


@in_every_case
def test_forward_never_reads_a_value_back(name, options):
    loss = build(name, options).to("meta")
    meta = torch.zeros(3, 4, device="meta")
    assert loss(meta, meta, loss.count_items(meta)).shape == ()


@pytest.mark.parametrize("name", LOSSES)
def test_reweighting_can_be_deferred(name):
    logits, targets = random_batch()
    if name in LISTWISE:
        with pytest.raises(ValueError, match=f"{name} has no class weights here, so re-weighting"):
            build(name).set_reweighting(False)
        return
    loss = build(name, class_weights="inverse")
    weighted = loss(logits, targets)
    loss.set_reweighting(False)
    assert torch.equal(loss(logits, targets), build(name, class_weights="none")(logits, targets))
    assert not torch.isclose(loss(logits, targets), weighted, rtol=1e-2)
    loss.set_reweighting(True)
    assert torch.equal(loss(logits, targets), weighted)


@in_every_case
def test_the_state_travels(name, options):
    logits, targets = random_batch()
    loss, other = build(name, options), build(name, options, positives=KNOWN / 2)
    if loss.state_dict() and name not in LISTWISE:
        other.load_state_dict(loss.state_dict())
    assert torch.equal(other(logits, targets), loss(logits, targets))
    assert {buffer.dtype for buffer in loss.buffers()} <= {torch.float32}
    assert torch.equal(copy.deepcopy(loss)(logits, targets), loss(logits, targets))


def test_every_option_has_a_default_and_a_meaning():
    shared = ["class_weights", "given_class_weights", "beta"]
    for name in LOSSES:
        options = loss_options(name)
        assert all(option.meaning for option in options.values())
        assert (list(options)[-3:] == shared) == (name not in LISTWISE)
        built = build_loss(name, positives_C=[3, 5], known_C=[9, 9], **{key: o.default for key, o in options.items()})
        assert built.describe() == build_loss(name, positives_C=[3, 5], known_C=[9, 9]).describe()
    assert loss_options("ldam")["class_weights"].default == "effective_number"
    assert loss_options("robust_asymmetric")["gamma_neg"].default == 4


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("pos_weighted", {"pos_weight_cap": 0}, "pos_weight_cap must be finite and above 0; got 0"),
        ("ldam", {"max_margin": -1}, "max_margin must be finite and not negative"),
        ("ldam", {"logit_scale": 0}, "logit_scale must be finite and above 0"),
        ("distribution_balanced", {"negative_scale": 0}, "negative_scale must be finite and above 0"),
        ("distribution_balanced", {"map_beta": float("nan")}, "map_beta must be finite"),
        ("hill", {"hill_lambda": 0.9}, "hill_lambda must be finite and at least 1; got 0.9"),
        ("robust_asymmetric", {"epsilon_pos": float("inf")}, "epsilon_pos must be finite"),
        ("robust_asymmetric", {"margin": 1}, "margin must lie"),
        ("logit_adjusted", {"tau": -0.1}, "tau must be finite and not negative"),
        ("two_way", {"temperature_pos": 0}, "temperature_pos must be finite and above 0"),
        ("zlpr", {"class_weights": "inverse"}, "zlpr compares findings .* takes no class weights; got 'inverse'"),
        ("zlpr", {"margin": 0.1}, "zlpr takes no option 'margin'; its options: none"),
    ],
)
def test_bad_options_are_refused(name, options, message):
    with pytest.raises(ValueError, match=message):
        build(name, options)


def test_lengths_and_shapes_are_checked():
    with pytest.raises(ValueError, match="ldam was given arrays of different lengths"):
        LOSSES["ldam"]([5, 5], [9, 9], class_weights=[1, 1, 1])
    with pytest.raises(ValueError, match="built for 4 findings; got 3"):
        build("pos_weighted")(torch.zeros(2, 3), torch.zeros(2, 3))
    with pytest.raises(ValueError, match=r"logits \(2, 3\) and targets \(3, 3\)"):
        build("two_way")(torch.zeros(2, 3), torch.zeros(3, 3))
    with pytest.raises(NotImplementedError, match="no loss of one cell: it depends on the labels"):
        build("zlpr").elementwise(torch.zeros(2, 3), torch.zeros(2, 3))


def test_describe_tells_what_came_from_the_counts():
    description = build("pos_weighted", {"pos_weight_cap": 20}).describe()
    assert description["options"] == {"pos_weight_cap": 20.0}
    assert description["pos_weight"] == [5.25, 20.0, 20.0, 11.5]
    assert build("distribution_balanced").describe()["count"] == POSITIVES.tolist()
    assert build("zlpr").describe()["class_weights"] is None


def test_papers_lead_to_functions_and_tests_that_exist():
    here = Path(__file__).parents[2]
    text = (here.parent / "docs" / "papers.md").read_text(encoding="utf-8")
    first_cells = re.findall(r"^\| ((?:`\w+`(?:, )?)+) \|", text, re.MULTILINE)
    assert {*LOSSES, *SAMPLERS} <= set(re.findall(r"`(\w+)`", " ".join(first_cells)))
    tests = "".join(path.read_text(encoding="utf-8") for path in here.rglob("test_*.py"))
    named = set(re.findall(r"`(test_\w+)`", text))
    assert len(named) > 20
    assert not [name for name in named if f"def {name}(" not in tests]
    functions = set(re.findall(r"`(?!\w+_kwargs\.)([a-z]\w*)\.(\w+)`", text))
    assert len(functions) > 15
    package = here.parent / "hf_cxr"
    sources = {
        module: "".join(path.read_text(encoding="utf-8") for path in package.rglob(f"{module}.py"))
        for module, _ in functions
    }
    assert not [f for f in functions if not re.search(rf"^((def|class) )?{f[1]}\b", sources[f[0]], re.MULTILINE)]


def test_w_cel_weighs_both_sides_of_a_batch_alike():
    logits, targets = random_batch(unknown=0.3)
    loss, known = build("w_cel"), ~targets.isnan()
    value = loss(logits, targets)
    # Twice the same batch is the same batch; more negatives of the same logits change nothing either.
    torch.testing.assert_close(loss(logits.repeat(2, 1), targets.repeat(2, 1)), value)
    negatives = torch.where(targets == 0, targets, torch.nan)
    torch.testing.assert_close(
        loss(torch.cat([logits, logits]), torch.cat([targets, negatives])), value, rtol=1e-12, atol=0
    )
    # One side alone is plain cross-entropy, and as many of each are twice that.
    one_sided = torch.where(known, 0.0, torch.nan).double()
    for side in (one_sided, 1 - one_sided):
        torch.testing.assert_close(loss(logits, side), build("bce")(logits, side))
    balanced = torch.tensor([[1.0, 0.0, 0.0, 1.0], [torch.nan, 1.0, 0.0, torch.nan]]).double()
    torch.testing.assert_close(loss(logits[:2], balanced), 2 * build("bce")(logits[:2], balanced))
    assert loss(logits, torch.full_like(targets, torch.nan)) == 0


# ---- the no-information logits


def label_rows(images=4000, seed=0):
    """Labels of which the second finding needs the first; a fifth of the cells unknown."""
    rng = np.random.default_rng(seed)
    labels = (rng.random((images, 4)) < [0.4, 0.3, 0.02, 0.1]).astype(float)
    labels[:, 1] *= labels[:, 0]
    labels[rng.random(labels.shape) < 0.2] = np.nan
    return labels


def on_rows(name, options, labels):
    positives, known = np.nansum(labels, 0), (~np.isnan(labels)).sum(0)
    loss = build(name, options, positives=positives, known=known, class_weights="none")
    return loss, positives / known


@in_every_case
def test_no_information_logits_minimise_the_loss_over_the_training_images(name, options):
    labels = label_rows()
    loss, prevalence = on_rows(name, options, labels)
    z_C = loss.no_information_logits(prevalence, labels)
    assert z_C.dtype == torch.float64
    assert z_C.isfinite().all()

    def at(z_C):
        return loss(z_C.expand(len(labels), 4), torch.tensor(labels)).item()

    least = at(z_C)
    assert min(at(torch.zeros(4).double()), at(torch.full((4,), -2.0).double())) > least
    for c in range(4):
        for step in (-0.05, 0.05, -1.0, 1.0):
            moved = z_C.clone()
            moved[c] += step
            assert at(moved) > least


def test_no_information_logits_know_the_prior():
    labels = label_rows()
    log_odds = torch.tensor(np.nanmean(labels, 0)).logit()
    for name, options, expected in (
        ("logit_adjusted", {}, torch.zeros(4)),
        ("logit_adjusted", {"tau": 0.25}, 0.75 * log_odds),
        ("pos_weighted", {}, torch.zeros(4)),
        ("class_balanced", {}, log_odds),
    ):
        loss, prevalence = on_rows(name, options, labels)
        torch.testing.assert_close(
            loss.no_information_logits(prevalence, labels), expected.double(), rtol=0, atol=2e-6
        )


@pytest.mark.parametrize("name", [*LISTWISE, "distribution_balanced"])
def test_no_information_logits_need_rows_where_findings_act_on_one_another(name):
    labels = label_rows()
    loss, prevalence = on_rows(name, {}, labels)
    with pytest.raises(ValueError, match=f"no-information logits of {name} depend on which findings occur together"):
        loss.no_information_logits(prevalence)
    with pytest.raises(ValueError, match=r"labels must have shape \(images, 4\); got \(4000, 3\)"):
        loss.no_information_logits(prevalence, labels[:, :3])
    draws = np.random.default_rng(1).integers(0, 3, len(labels))
    repeated = np.repeat(labels, draws, axis=0)
    expected = loss.no_information_logits(prevalence, repeated)
    torch.testing.assert_close(loss.no_information_logits(prevalence, labels, draws), expected, rtol=0, atol=1e-5)
    assert not torch.allclose(loss.no_information_logits(prevalence, labels), expected, rtol=0, atol=1e-3)


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.filterwarnings("ignore:no training positives", "ignore:prevalence is", "ignore:no known training cell")
def test_no_information_logits_are_finite_for_findings_without_positives_or_cells(name):
    labels = label_rows(200)
    labels[:, 0], labels[:, 1], labels[:, 2] = 0, 1, np.nan
    positives, known = np.nansum(labels, 0), (~np.isnan(labels)).sum(0)
    loss = build(name, positives=positives, known=known)
    prevalence = positives / np.maximum(known, 1)
    z_C = loss.no_information_logits(prevalence, labels)
    assert z_C.isfinite().all()
    assert z_C.abs().max() < 30
