"""Yao 2017: a chain of conditional probabilities whose products over all label sets add up to 1."""

import itertools

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from tiny import MODELS

from hf_cxr.config import ModelArguments
from hf_cxr.evaluation.calibration import Calibration
from hf_cxr.losses import build_loss
from hf_cxr.models import fresh
from hf_cxr.models.build import build_model, load_weights
from hf_cxr.models.head import fold_into_head
from hf_cxr.systems.densenet import DenseNet
from hf_cxr.systems.yao2017 import Yao2017, Yao2017Config

NAMES = ("Mass", "Nodule", "Hernia", "Edema")
SETS = torch.tensor(list(itertools.product((0.0, 1.0), repeat=4)))  # all 16
UNKNOWN = float("nan")


def tiny(names=NAMES, spread=1.0, **kwargs):
    """Output weights so large that decisions go both ways and matter."""
    torch.manual_seed(0)
    model = fresh("yao2017", MODELS["yao2017"] | kwargs, names, 32).eval()
    torch.nn.init.normal_(model.decoder.labels.weight, std=2.0)
    torch.nn.init.normal_(model.decoder.outputs.weight, std=3.0 * spread)
    return model


@pytest.fixture(scope="module")
def model():
    return tiny()


@pytest.fixture(scope="module")
def images():
    return torch.randn(6, 3, 32, 32, generator=torch.Generator().manual_seed(0))


@torch.no_grad()
@pytest.mark.parametrize("order", [None, ["Edema", "Mass", "Hernia", "Nodule"]])
def test_the_probabilities_of_all_label_sets_add_up_to_1(images, order):
    model = tiny(label_order=order)
    sets = [model.label_set_log_probability(images, row.expand(6, 4)) for row in SETS]
    probability_BS = torch.stack(sets, dim=1).exp()
    torch.testing.assert_close(probability_BS.sum(dim=1), torch.ones(6))
    assert (probability_BS.amax(dim=1) < 0.999).any()
    # A chain and no independent findings: the product of the marginals is another distribution.
    marginal_BC = probability_BS @ SETS
    product_BS = torch.where(SETS == 1, marginal_BC[:, None], 1 - marginal_BC[:, None]).prod(dim=2)
    assert (product_BS - probability_BS).abs().max() > 0.01


@torch.no_grad()
def test_a_finding_depends_on_those_before_it_in_the_order_and_on_no_other(images):
    order = ["Edema", "Mass", "Hernia", "Nodule"]
    model = tiny(label_order=order)
    places = [NAMES.index(name) for name in order]
    for position, changed in enumerate(places):
        absent, present = torch.zeros(6, 4), torch.zeros(6, 4)
        present[:, changed] = 1
        logits = [model(images, known_labels=labels).logits for labels in (absent, present)]
        differs = ((logits[0] - logits[1]).abs() > 1e-6).any(dim=0)
        assert differs[places].tolist() == [later > position for later in range(4)]


@torch.no_grad()
def test_an_unknown_label_is_the_models_own_decision(model, images):
    greedy = model(images).logits
    assert torch.equal(model(images, known_labels=torch.full((6, 4), UNKNOWN)).logits, greedy)
    decided = (greedy > 0).float()
    assert 0 < decided.mean() < 1
    assert torch.equal(model(images, known_labels=decided).logits, greedy)
    some = decided.clone()
    some[:, 1] = UNKNOWN
    assert torch.equal(model(images, known_labels=some).logits, greedy)
    assert not torch.allclose(model(images, known_labels=1 - decided).logits, greedy)


@torch.no_grad()
def test_greedy_decisions_are_each_the_likelier_given_those_before(model, images):
    decided = (model(images).logits > 0).float()
    # The first finding's decision is its marginal's; each later one is compared with the same start and another end.
    for column in range(4):
        other = decided.clone()
        other[:, column] = 1 - other[:, column]
        conditional = model(images, known_labels=other).logits[:, column].sigmoid()
        assert ((conditional > 0.5).float() == decided[:, column]).all()


def test_bce_of_the_true_labels_is_the_negative_log_likelihood(model, images):
    labels = SETS[torch.randint(16, (6,), generator=torch.Generator().manual_seed(0))]
    loss = build_loss("bce", positives_C=[1] * 4, known_C=[2] * 4)
    value = loss(model(images, known_labels=labels).logits, labels)
    expected = -model.label_set_log_probability(images, labels).mean() / 4
    torch.testing.assert_close(value, expected)
    with pytest.raises(ValueError, match="only if each label is 0 or 1"):
        model.label_set_log_probability(images, torch.full((6, 4), UNKNOWN))


@torch.no_grad()
def test_a_mixed_label_is_a_point_between_both(model, images):
    feature_BD = model.densenet(images).mean(dim=(2, 3))
    labels = torch.zeros(6, 4)
    logit = []
    for share in (0.0, 1e-4, 1.0):
        labels[:, 0] = share
        logit.append(model.decoder(feature_BD, labels)[:, 1])
    assert (logit[1] - logit[0]).abs().max() < 1e-2
    assert (logit[2] - logit[0]).abs().max() > 0.1


@torch.no_grad()
def test_a_calibration_changes_no_decision_and_no_probability_of_a_label_set(images, tmp_path):
    model = tiny()
    labels = SETS[[3, 5, 0, 15, 8, 9]]
    greedy, before = model(images).logits, model.label_set_log_probability(images, labels)
    slope_C, shift_C = np.array([0.5, 2.0, 1.5, 0.1]), np.array([5.0, -5.0, 5.0, -5.0])
    fold_into_head(model, Calibration(slope_C, shift_C, ("affine",) * 4, NAMES, ("",) * 4).fold)
    model.save_pretrained(tmp_path)
    again = load_weights(tmp_path).eval()
    expected = greedy * torch.tensor(slope_C).float() + torch.tensor(shift_C).float()
    torch.testing.assert_close(again(images).logits, expected)
    assert ((expected > 0) != (greedy > 0)).any()
    torch.testing.assert_close(again.label_set_log_probability(images, labels), before)
    assert not {name for name, _ in again.named_parameters() if name.startswith("classifier")}  # never trained


@torch.no_grad()
def test_the_chain_starts_at_the_bias():
    arguments = ModelArguments(architecture="yao2017", model_kwargs=MODELS["yao2017"], image_size=32)
    bias_C = [-3.0, -1.0, 0.5, -2.0]
    model = build_model(arguments, NAMES, head_bias_C=bias_C).eval()
    logits = model(torch.randn(2, 3, 32, 32)).logits
    torch.testing.assert_close(logits, torch.tensor([bias_C]).expand(2, 4), atol=0.1, rtol=0)
    assert logits.std(dim=0).min() > 0


def test_the_image_reaches_the_last_finding_and_the_truth_has_a_gradient(model, images):
    leaf = images.clone().requires_grad_()
    model(leaf).logits[:, 3].sum().backward()
    assert (leaf.grad.abs().sum(dim=(1, 2, 3)) > 0).all()


@torch.no_grad()
def test_the_order_changes_the_chain_and_is_saved(images, tmp_path):
    reverse = tiny(label_order=NAMES[::-1])
    assert reverse.decoder.order == (3, 2, 1, 0)
    assert tiny().decoder.order == (0, 1, 2, 3)
    assert not torch.allclose(reverse(images).logits, tiny()(images).logits)
    reverse.save_pretrained(tmp_path)
    again = load_weights(tmp_path).eval()
    assert again.decoder.order == (3, 2, 1, 0)
    assert torch.equal(again(images).logits, reverse(images).logits)


def test_a_saved_model_goes_on_with_other_findings(tmp_path):
    saved = tiny()
    saved.save_pretrained(tmp_path)
    arguments = ModelArguments(model_name_or_path=str(tmp_path), image_size=32)
    new = build_model(arguments, ("Fibrosis", "Mass", "Pneumonia"), head_bias_C=[-1.0, -2.0, -3.0])
    assert new.decoder.outputs.bias.tolist() == [-1.0, -2.0, -3.0]
    weights = saved.densenet.state_dict()
    assert all(torch.equal(value, weights[name]) for name, value in new.densenet.state_dict().items())


@pytest.mark.parametrize(
    ("order", "message"),
    [
        (["Mass", "Nodule", "Hernia"], "each of the 4 findings once; it differs in Edema"),
        (["Mass", "Nodule", "Hernia", "Oedema"], "it differs in .*Oedema"),
        (["Mass", "Mass", "Nodule", "Hernia", "Edema"], "it differs in a name twice"),
    ],
)
def test_an_order_of_other_findings_is_refused_in_one_line(order, message):
    with pytest.raises(ValueError, match=message) as caught:
        tiny(label_order=order)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["state_size", "input_size", "growth_rate"])
def test_sizes_below_1_are_refused(name):
    with pytest.raises(ValueError, match=f"{name} is 0; it must be 1 or more"):
        tiny(**{name: 0})


def test_the_default_is_compact():
    with torch.device("meta"):
        model = Yao2017(Yao2017Config(num_labels=14))
        assert model(pixel_values=torch.zeros(2, 3, 512, 512)).logits.shape == (2, 14)
    assert 0.8e6 < sum(value.numel() for value in model.densenet.parameters()) < 1.2e6
    assert sum(value.numel() for value in model.decoder.parameters()) < 0.3e6


@torch.no_grad()
def test_the_backbone_takes_a_densenets_weights(images):
    sizes = {key: MODELS["yao2017"][key] for key in ("growth_rate", "depths", "width", "bottleneck")}
    torch.manual_seed(1)
    source = DenseNet(**sizes).eval()
    model = tiny()
    decoder = {name: value.clone() for name, value in model.decoder.state_dict().items()}
    model.load_backbone(source.state_dict(), model.config)
    assert torch.equal(model.densenet(images), source(images))
    assert all(torch.equal(value, decoder[name]) for name, value in model.decoder.state_dict().items())


@torch.no_grad()
def test_the_decoder_is_the_chain_written_out(model, images):
    """Two steps of an LSTM, by its equations."""
    decoder, feature_BD = model.decoder, model.densenet(images).mean(dim=(2, 3))
    hidden, cell = decoder.first_hidden(feature_BD).tanh(), decoder.first_cell(feature_BD)
    logits = []
    for row in (8, 1):  # the start, and Mass present
        x = decoder.image(feature_BD) + decoder.labels.weight[row]
        gates = F.linear(x, decoder.step.weight_ih, decoder.step.bias_ih)
        gates = gates + F.linear(hidden, decoder.step.weight_hh, decoder.step.bias_hh)
        i, f, g, o = gates.chunk(4, dim=1)
        cell = f.sigmoid() * cell + i.sigmoid() * g.tanh()
        hidden = o.sigmoid() * cell.tanh()
        logits.append(decoder.outputs(hidden))
    found = model(images, known_labels=torch.tensor([1.0, 0, 0, 0]).expand(6, 4)).logits
    torch.testing.assert_close(found[:, 0], logits[0][:, 0])
    torch.testing.assert_close(found[:, 1], logits[1][:, 1])
