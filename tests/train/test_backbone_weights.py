"""Systems with outputs of their own in training, and a backbone inside one that starts from a run's weights."""

import json
import shutil

import pytest
import torch
import yaml
from test_run import TINY
from tiny import MODELS, SWIN, rows, trainer

from hf_cxr.commands import main
from hf_cxr.config import ModelArguments, parse_arguments
from hf_cxr.labels import NIH14
from hf_cxr.models.build import build_model, load_weights
from hf_cxr.models.head import head
from hf_cxr.run.stages import run

NETWORKS = {
    "swinchex": SWIN["model_kwargs"] | {"head_sizes": [8, 4]},
    "csra": {"backbone_config": {"model_type": "swin"} | SWIN["model_kwargs"]},
}


@pytest.mark.parametrize("name", NETWORKS)
def test_every_part_learns_but_the_output_layer_and_it_is_read_as_it_was_saved(tmp_path, name):
    torch.manual_seed(0)
    arguments = ModelArguments(architecture=name, model_kwargs=MODELS[name], image_size=32)
    model = build_model(arguments, NIH14, head_bias_C=[-1.0] * 14)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    training = trainer(
        tmp_path, model=model, dataset=rows(16), max_steps=4, per_device_train_batch_size=8, label_smoothing_factor=0.1
    )
    training.train()
    after = model.state_dict()
    still = {key for key, value in after.items() if torch.equal(value, before[key])}
    assert {key for key in still if key.startswith("classifier.")} == {"classifier.weight", "classifier.bias"}
    assert not [
        key for key in still - {"classifier.weight", "classifier.bias"} if "heads.0" in key or "embeddings" in key
    ]
    training.save_model(str(tmp_path / "saved"))
    again = load_weights(tmp_path / "saved").state_dict()
    assert all(torch.equal(value, again[key]) for key, value in after.items())


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("backbone")


def settings(folder, **changes):
    path = folder / "tiny.yaml"
    path.write_text(
        yaml.safe_dump(TINY | {"num_train_epochs": 1, "phantom_train": 24, "disable_tqdm": True} | changes)
    )
    return str(path)


@pytest.fixture(scope="module")
def first(folder):
    run(parse_arguments([settings(folder), "--output_dir", str(folder / "first")]))
    return folder / "first"


@pytest.fixture(scope="module", params=sorted(NETWORKS))
def second(request, folder, first):
    """A run of a system whose backbone starts from the first run's."""
    config = settings(folder, architecture=request.param, model_kwargs=NETWORKS[request.param], loss="bce")
    out = folder / request.param
    flags = ["--backbone_name_or_path", str(first), "--label_smoothing_factor", "0.1"]
    return out, run(parse_arguments([config, "--output_dir", str(out), *flags])), [config, *flags]


def test_a_whole_run_trains_calibrates_and_says_whose_weights_it_had(second):
    out, report, _ = second
    protocol = json.loads((out / "metrics.json").read_text())["protocol"]
    trained_on = f"trained on the split {protocol['split_fingerprint']}"
    assert protocol["initial_weights"] == f"backbone from local folder first, {trained_on}"
    assert protocol["base_model"] is None
    layer = head(load_weights(out))
    assert not torch.equal(layer.bias, torch.zeros(14))  # the calibration
    assert report.stock_pipeline["largest_difference"] < 1e-4
    assert f"backbone from local folder first, {trained_on}" in (out / "README.md").read_text()


def test_an_unfinished_run_resumes_with_the_same_backbone_alone(second, first, folder, capsys):
    out, _, words = second
    stopped = folder / f"stopped_{out.name}"
    assert main(["train", words[0], *words[1:], "--output_dir", str(stopped), "--measure_test", "false"]) == 0
    other = folder / f"other_{out.name}"
    shutil.copytree(first, other)
    model = load_weights(other)
    with torch.no_grad():
        model.swin.layernorm.weight.add_(1)
    model.save_pretrained(other)
    again = ["train", words[0], "--output_dir", str(stopped), *words[3:], "--backbone_name_or_path"]
    shutil.rmtree(stopped / "stages", ignore_errors=True)
    (stopped / "validation.json").unlink()
    assert main([*again, str(other)]) == 2
    assert "started from different weights from those of" in capsys.readouterr().err
    assert main([*again, str(first)]) == 0
    assert (stopped / "metrics.json").is_file()


def test_a_backbone_that_may_know_test_patients_is_refused(second, capsys):
    out, _, words = second
    assert main(["train", *words, "--phantom_seed", "9", "--output_dir", str(out.parent / "leak")]) == 2
    assert "may have been trained on" in capsys.readouterr().err
