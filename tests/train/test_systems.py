"""Published systems in training: all parts learn and are read again; only in training Yao 2017 gets true labels."""

import subprocess
import sys

import numpy as np
import pytest
import torch
import yaml
from test_run import TINY
from tiny import MODELS, rows, trainer

from hf_cxr.commands import main
from hf_cxr.config import ModelArguments, parse_arguments
from hf_cxr.inference.classifier import Classifier
from hf_cxr.labels import NIH14
from hf_cxr.models import fresh
from hf_cxr.models.build import build_model, load_weights
from hf_cxr.models.head import head
from hf_cxr.predictions import Predictions
from hf_cxr.processing import build_image_processor
from hf_cxr.run import data
from hf_cxr.run.stages import run

LOSS = {"wang2017": "w_cel", "dnet": "pos_weighted", "yao2017": "bce"}


def built(name, **kwargs):
    torch.manual_seed(0)
    arguments = ModelArguments(architecture=name, model_kwargs=MODELS[name] | kwargs, image_size=32)
    return build_model(arguments, NIH14, head_bias_C=[-1.0] * 14)


@pytest.mark.parametrize("name", LOSS)
@pytest.mark.parametrize("bf16", [False, True], ids=["float32", "bf16"])
def test_every_part_of_a_system_learns_and_it_is_read_as_it_was_saved(tmp_path, name, bf16):
    model = built(name)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    training = trainer(
        tmp_path, model=model, loss=LOSS[name], dataset=rows(16), max_steps=2, per_device_train_batch_size=8, bf16=bf16
    )
    training.train()
    after = model.state_dict()
    same = {key for key, value in after.items() if torch.equal(value, before[key])}
    never = {"classifier.weight", "classifier.bias"} if name == "yao2017" else set()  # its calibration
    assert same == never
    assert all(value.isfinite().all() for value in after.values())
    training.save_model(str(tmp_path / "saved"))
    again = load_weights(tmp_path / "saved").state_dict()
    assert again.keys() == after.keys()
    assert all(torch.equal(value, again[key]) for key, value in after.items())


def test_the_true_labels_reach_the_chain_in_training_and_never_in_evaluation(tmp_path):
    model, given = built("yao2017"), []
    model.register_forward_pre_hook(
        lambda _model, _args, kwargs: given.append(kwargs.get("known_labels")), with_kwargs=True
    )
    dataset = rows(8)
    training = trainer(
        tmp_path, model=model, loss="bce", dataset=dataset, eval_dataset=dataset, max_steps=1,
        per_device_train_batch_size=8, per_device_eval_batch_size=8,
    )  # fmt: skip
    training.train()
    (labels,) = given
    expected = np.stack([row["labels"] for row in dataset])
    assert np.isnan(expected).any()
    labels = labels.numpy()
    order = sorted(range(8), key=lambda place: np.nan_to_num(labels[place], nan=-1).tolist())
    reference = sorted(range(8), key=lambda place: np.nan_to_num(expected[place], nan=-1).tolist())
    np.testing.assert_array_equal(labels[order], expected[reference])
    given.clear()
    training.evaluate()
    training.predict(dataset)
    assert given == [None, None]


def test_the_chain_learns_what_independent_findings_cannot(tmp_path):
    """Noise for images, a coin for the first finding and its opposite for the second: known, it decides the second."""
    rng = np.random.default_rng(0)
    dataset = rows(64)
    for row in dataset:
        row["labels"] = np.full(14, np.nan, np.float32)
        row["labels"][0] = rng.integers(2)
        row["labels"][1] = 1 - row["labels"][0]
    model = built("yao2017", state_size=16)
    trainer(
        tmp_path, model=model, loss="bce", dataset=dataset, max_steps=60, per_device_train_batch_size=32,
        learning_rate=2e-2, lr_scheduler_type="constant",
    ).train()  # fmt: skip
    model.eval()
    images, known = torch.randn(8, 3, 32, 32), torch.full((8, 14), torch.nan)
    with torch.no_grad():
        for first in (0.0, 1.0):
            known[:, 0] = first
            second = model(pixel_values=images, known_labels=known).logits[:, 1].sigmoid()
            assert (second - (1 - first)).abs().max() < 0.1
        greedy = model(pixel_values=images).logits
    assert ((greedy[:, 0] > 0) != (greedy[:, 1] > 0)).all()


def test_an_order_of_other_findings_is_refused_with_its_repair_before_images_are_read(tmp_path, capsys, monkeypatch):
    order = ["b", "a", "c"]
    fresh("yao2017", MODELS["yao2017"] | {"label_order": order}, ["a", "b", "c"], 32).save_pretrained(
        tmp_path / "saved"
    )
    build_image_processor(36, 32).save_pretrained(tmp_path / "saved")
    config = tmp_path / "tiny.yaml"
    own = {key: value for key, value in TINY.items() if key != "model_kwargs"}
    config.write_text(yaml.safe_dump(own | {"phantom_train": 24, "loss": "bce", "num_train_epochs": 1}))
    monkeypatch.setattr(data, "check_run_data", lambda *_: pytest.fail("images were read"))
    words = [
        "train",
        str(config),
        "--model_name_or_path",
        str(tmp_path / "saved"),
        "--output_dir",
        str(tmp_path / "r"),
    ]
    assert main(words) == 2
    message = capsys.readouterr().err
    assert "must name each of the 14 findings once" in message
    assert "give --model_kwargs.label_order null for the data's order" in message
    monkeypatch.undo()
    assert main([*words, "--model_kwargs.label_order", "null"]) == 0
    assert Classifier(tmp_path / "r", device="cpu").model.decoder.order == tuple(range(14))


def test_a_whole_run_calibrates_saves_and_continues(tmp_path, capsys):
    config = tmp_path / "tiny.yaml"
    values = TINY | {
        "architecture": "yao2017",
        "model_kwargs": MODELS["yao2017"],
        "loss": "bce",
        "num_train_epochs": 1,
    }
    config.write_text(yaml.safe_dump(values | {"phantom_train": 24, "disable_tqdm": True}))
    folder = tmp_path / "run"
    report = run(parse_arguments([str(config), "--output_dir", str(folder)]))
    assert report.stock_pipeline["largest_difference"] < 1e-4
    assert "after hf_cxr.register()" in " ".join(report.summary(folder).split())
    classifier = Classifier(folder, device="cpu")
    layer = head(classifier.model)
    assert not torch.equal(layer.bias, torch.zeros(14))  # the calibration
    assert torch.equal(layer.weight, torch.diag(layer.weight.diagonal()))
    assert len(Predictions.load(folder / "predictions" / "test.parquet").logits) == TINY["phantom_test"]
    # A process that has loaded no model before writes its card again.
    card = (folder / "README.md").read_text()
    (folder / "README.md").write_text(card.replace("yao2017", "replaced"))
    assert "yao2017" in card
    code = "import sys; from hf_cxr.commands import main; sys.exit(main(['report', sys.argv[1]]))"
    again = subprocess.run([sys.executable, "-c", code, str(folder)], capture_output=True, text=True)
    assert again.returncode == 0, again.stderr
    assert (folder / "README.md").read_text() == card
    # Another run from its weights; a classifier behind a frozen backbone it does not have.
    words = ["train", str(config), "--model_name_or_path", str(folder), "--output_dir", str(tmp_path / "second")]
    assert main([*words, "--freeze_backbone", "true"]) == 2
    assert "no classifier behind its backbone; leave out freeze_backbone" in capsys.readouterr().err
