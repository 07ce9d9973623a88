"""A second stage on a run: the backbone stays bit by bit, the head starts again, other data are refused."""

import json
import shutil

import numpy as np
import pytest
import torch
import yaml
from test_run import TINY
from tiny import MODELS, SWIN, rows, trainer

from hf_cxr.commands import main
from hf_cxr.config import ModelArguments, parse_arguments
from hf_cxr.data import label_matrix, load_source
from hf_cxr.inference.classifier import Classifier
from hf_cxr.labels import NIH14
from hf_cxr.models import fresh
from hf_cxr.models.build import build_model, load_weights
from hf_cxr.models.head import freeze_backbone, head, head_keys
from hf_cxr.models.record import ModelRecord
from hf_cxr.predictions import Predictions
from hf_cxr.run.stages import run
from hf_cxr.run.training import check_first_stage
from hf_cxr.sampling import expected_counts, expected_draws
from hf_cxr.systems.output_layer import OutputLayer

LAB = {"kind": "converted", "source": "a lab", "licence": None, "saw_test_images": "no"}
SECOND = ("--freeze_backbone", "true", "--sampler", "class_aware", "--num_train_epochs", "1")


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    path = tmp_path_factory.mktemp("stages") / "tiny.yaml"
    path.write_text(yaml.safe_dump(TINY | {"num_train_epochs": 1, "phantom_train": 24, "disable_tqdm": True}))
    return path


def run_stage(config, name, *flags):
    report = run(parse_arguments([str(config), "--output_dir", str(config.parent / name), *flags]))
    return config.parent / name, report


@pytest.fixture(scope="module")
def first(config):
    return run_stage(config, "first", "--ema_decay", "0.9")[0]


@pytest.fixture(scope="module")
def second(config, first):
    return run_stage(config, "second", "--model_name_or_path", str(first), *SECOND)


def test_backbone_stays_to_the_bit_and_the_head_is_another(first, second):
    one, two = (load_weights(folder, "main").state_dict() for folder in (first, second[0]))
    assert all(torch.equal(one[name], two[name]) for name in one if not name.startswith("classifier."))
    assert not torch.equal(one["classifier.weight"], two["classifier.weight"])


def test_over_sampling_in_feature_space_changes_the_head_alone(config, first, second):
    folder, _ = run_stage(config, "smote", "--model_name_or_path", str(first), *SECOND, "--feature_oversampling", "3")
    one, two, three = (load_weights(path, "main").state_dict() for path in (first, second[0], folder))
    assert all(torch.equal(one[name], three[name]) for name in one if not name.startswith("classifier."))
    assert not torch.equal(two["classifier.weight"], three["classifier.weight"])
    assert "over-sampling in feature space: between an image drawn again" in (folder / "README.md").read_text()


def test_report_says_what_the_stages_were(first, second):
    metrics = json.loads((second[0] / "metrics.json").read_text())["protocol"]
    assert metrics["initial_weights"] == f"local folder first, trained on the split {metrics['split_fingerprint']}"
    assert str(first) not in "".join((second[0] / name).read_text() for name in ("README.md", "report.html"))
    assert metrics["stages"]["freeze_backbone"] is True
    assert metrics["sampler"] == {"name": "class_aware", "options": {"class_aware_no_finding": True}}
    assert "second stage: the classifier alone was trained" in (second[0] / "README.md").read_text()
    assert "exponential moving average, decay 0.9" in (first / "README.md").read_text()


def test_the_loss_gets_the_counts_of_the_sampler(config, first, second):
    labels = label_matrix(load_source(parse_arguments([str(config)]).data).splits["train"])
    for folder, name in ((first, "shuffle"), (second[0], "class_aware")):
        told = json.loads((folder / "metrics.json").read_text())["protocol"]["loss"]["prevalence"]
        positives_C, negatives_C = expected_counts(expected_draws(name, labels), labels)
        assert told == pytest.approx(positives_C / (positives_C + negatives_C), abs=1e-6)
    assert told != pytest.approx(labels.mean(axis=0), abs=0.05)


def test_calibration_brings_the_natural_prevalence_back(first, second):
    saved = Predictions.load(second[0] / "predictions" / "validation.parquet")
    natural_C = saved.labels.mean(axis=0)
    assert np.abs(saved.probabilities.mean(axis=0) - natural_C).max() < 0.03
    raw = Classifier(next(second[0].glob("checkpoint-*"))).model.classifier.bias
    assert torch.sigmoid(raw).mean() > natural_C.mean() + 0.1  # it starts where the sampler's prevalence has it


def test_runs_and_snapshots_are_one_ensemble(first, second, tmp_path):
    snapshot = first / "checkpoint-3"
    assert main(["ensemble", str(second[0]), str(snapshot), "--out", str(tmp_path / "both")]) == 0
    written = json.loads((tmp_path / "both" / "metrics.json").read_text())
    assert written["ensemble_of"] == [str(second[0]), str(snapshot)]
    # The snapshot is the checkpoint that the first run ended with: calibrated anew, it is that run again.
    assert main(["ensemble", str(first), str(snapshot), "--out", str(tmp_path / "same")]) == 0
    differences = json.loads((tmp_path / "same" / "metrics.json").read_text())["test_difference_to_members"]
    assert [entry["auc"]["difference"] for entry in differences.values()] == pytest.approx([0, 0], abs=1e-3)


def test_model_that_knows_test_images_is_refused(config, first):
    with pytest.raises(ValueError, match=r"was trained on the split .* may have been trained on; give the data"):
        run_stage(config, "other", "--model_name_or_path", str(first), *SECOND, "--phantom_seed", "9")
    assert not list((config.parent / "other").glob("checkpoint-*"))


def test_model_of_other_data_is_taken_with_a_warning(config, first, tmp_path, caplog):
    elsewhere = tmp_path / "elsewhere"
    shutil.copytree(first, elsewhere)
    saved = json.loads((elsewhere / "config.json").read_text())
    saved["hf_cxr"] |= {"dataset": "CheXpert", "split": "another"}
    (elsewhere / "config.json").write_text(json.dumps(saved))
    args = parse_arguments([str(config), "--model_name_or_path", str(elsewhere)])
    model = build_model(args.model, NIH14)
    source = load_source(args.data)
    check_first_stage(args, model, source)
    assert "elsewhere was trained on CheXpert: if they share patients" in caplog.text
    caplog.clear()
    model.config.hf_cxr["split"] = source.fingerprint
    check_first_stage(args, model, source)
    assert not caplog.text


def test_every_stage_that_the_weights_went_through_is_looked_at(config, first, second, tmp_path, caplog):
    """A run on other data in between does not hide that the weights know test patients of these."""
    records = [ModelRecord.of(json.loads((folder / "config.json").read_text())) for folder in (first, second[0])]
    assert records[0].earlier_stages is None
    assert list(records[1].earlier_stages) == list(records[0].stages)
    args = parse_arguments([str(config), "--model_name_or_path", str(first)])
    model, source = build_model(args.model, NIH14), load_source(args.data)
    assert records[1].stages[0] == {"dataset": source.name, "split": source.fingerprint, "held_out": None}
    model.config.hf_cxr |= {"dataset": "CheXpert", "split": "another"}

    def check(**stage):
        model.config.hf_cxr["earlier_stages"] = [{"dataset": source.name, "split": "x", "held_out": None} | stage]
        caplog.clear()
        check_first_stage(args, model, source)
        return caplog.text

    with pytest.raises(ValueError, match=r"was trained on the split x of .* may have been trained on"):
        check()
    for same in ({"split": source.fingerprint}, {"held_out": source.held_out}):
        assert "was trained on CheXpert: if they share" in check(**same)
    assert "was trained on MIMIC and CheXpert: if they share" in check(dataset="MIMIC")
    model.config.hf_cxr |= {"split": None, "weights_origin": LAB}  # converted weights have no stage of their own
    model.config.hf_cxr.pop("earlier_stages")
    check_first_stage(args, model, source)
    with pytest.raises(ValueError, match=r"earlier_stages of hf_cxr in config\.json is 'text'; it must be a list"):
        ModelRecord.of({"hf_cxr": {"split": "x", "earlier_stages": "text"}})


def test_frozen_part_is_evaluated_and_gets_no_gradient(tmp_path):
    run_frozen = trainer(tmp_path, drop_path_rate=0.5, per_device_train_batch_size=8, freeze=True)
    seen = []
    run_frozen.model.base_model.register_forward_hook(
        lambda module, inputs, output: seen.append((module.training, output.pooler_output.requires_grad))
    )
    run_frozen.train()
    assert seen == [(False, False)] * 5
    assert run_frozen.model.classifier.weight.requires_grad
    assert not any(parameter.requires_grad for parameter in run_frozen.model.base_model.parameters())
    free = trainer(tmp_path, drop_path_rate=0.5, per_device_train_batch_size=8)
    free.model.base_model.register_forward_hook(lambda module, inputs, output: seen.append(module.training))
    free.train()
    assert seen[5:] == [True] * 5


def test_head_is_kept_for_the_same_findings_alone(tmp_path):
    saved = build_model(ModelArguments(**SWIN), NIH14, head_bias_C=range(14))
    freeze_backbone(saved)
    saved.save_pretrained(tmp_path)
    again = ModelArguments(model_name_or_path=str(tmp_path), image_size=32)
    kept = build_model(again, NIH14, head_bias_C=[9.0] * 14, keep_head=True)
    assert torch.equal(kept.classifier.weight, saved.classifier.weight)
    assert kept.classifier.bias.tolist() == list(range(14))
    assert not torch.equal(build_model(again, NIH14).classifier.weight, saved.classifier.weight)
    with pytest.raises(ValueError, match=r"cannot be kept: it is for 14 classes \(Atelectasis, .* 3 findings \(Mass"):
        build_model(again, ("Mass", "Nodule", "Hernia"), keep_head=True)


@pytest.mark.parametrize("name", MODELS)
def test_a_second_stage_of_any_architecture_trains_the_head_alone(tmp_path, name):
    torch.manual_seed(0)
    model = fresh(name, MODELS[name], NIH14, 32)
    if isinstance(head(model), OutputLayer):  # its findings have outputs of their own, and no one layer behind all
        with pytest.raises(ValueError, match="has no classifier behind its backbone; leave out freeze_backbone"):
            freeze_backbone(model)
        assert all(parameter.requires_grad for parameter in model.parameters())
        return
    freeze_backbone(model)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    trainer(tmp_path, model=model, dataset=rows(8), max_steps=1, per_device_train_batch_size=4).train()
    changed = {key for key, value in model.state_dict().items() if not torch.equal(value, before[key])}
    assert changed == head_keys(model)
