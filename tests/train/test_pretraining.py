"""Pre-training: however a step is cut, stopped or not, the same weights; only training patients' images are opened."""

import json
import shutil

import datasets
import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from pretraining_worker import masked_trainer, step
from test_nih import TEST_IMAGES, write_release
from test_trainer import assert_same_gradients
from tiny import SWIN, rows
from transformers import TrainerCallback

from hf_cxr.commands import main
from hf_cxr.config import DataArguments, parse_pretraining
from hf_cxr.data import load_source
from hf_cxr.data.sources.nih import LICENCE_NOTE
from hf_cxr.files import file_sha256
from hf_cxr.models.record import ModelRecord
from hf_cxr.run.pretraining import pretrain as pretrain_module
from hf_cxr.run.pretraining.data import load_training_images
from hf_cxr.run.pretraining.pretrain import pretrain
from hf_cxr.run.training import trained_on
from hf_cxr.saved_models import read_json

PHANTOMS = {
    "dataset": "phantom",
    "phantom_train": 40,
    "phantom_validation": 16,
    "phantom_test": 16,
    "phantom_size": 36,
}
TINY = {
    **PHANTOMS,
    **SWIN,
    "mask_patch_size": 4,
    "per_device_train_batch_size": 8,
    "num_train_epochs": 2,
    "logging_steps": 1,
    "bf16": False,
}


def write_config(folder, values=TINY, **changes):
    path = folder / "pretrain.yaml"
    path.write_text(yaml.safe_dump(values | changes))
    return str(path)


def test_accumulation_gives_the_gradients_of_the_whole_batch(tmp_path):
    whole, whole_loss, whole_held_out = step(tmp_path / "a", 40)
    cut, cut_loss, cut_held_out = step(tmp_path / "b", 10, 4)
    assert_same_gradients(cut, whole)
    assert cut_loss == pytest.approx(whole_loss, rel=1e-5)
    assert cut_held_out == pytest.approx(whole_held_out, rel=1e-4)
    assert 0.3 < whole_loss < 3


def test_gradients_are_those_of_the_loss_on_masked_pixels(tmp_path):
    gradients, loss, _ = step(tmp_path, 40)
    run = masked_trainer(tmp_path, per_device_train_batch_size=40)
    batch = run.data_collator([run.train_dataset[i] for i in run.sampler])
    pixels = run.pixels.augment(batch["pixel_values"], batch["row"], 0)
    mask = torch.from_numpy(run.masks.draw(batch["row"], 0))
    output = run.model.train()(pixel_values=pixels, bool_masked_pos=mask)
    # transformers' own loss of one batch is the same mean, but for its 1e-5 in the denominator.
    output.loss.backward()
    assert_same_gradients(gradients, {name: value.grad for name, value in run.model.named_parameters()})
    assert loss == pytest.approx(output.loss.item(), rel=1e-4)


def test_images_that_are_left_out_count_nothing_however_the_step_is_cut(tmp_path):
    other = rows()
    for number in (3, 17):
        other[number] = {**other[number], "pixels": np.zeros((36, 36), np.uint8)}
    whole, loss, _ = step(tmp_path / "a", 40, left_out=(3, 17))
    cut, cut_loss, _ = step(tmp_path / "b", 10, 4, left_out=(3, 17), dataset=other)
    assert_same_gradients(cut, whole)
    assert cut_loss == pytest.approx(loss, rel=1e-5)
    assert abs(step(tmp_path / "c", 40)[1] - loss) > 1e-5


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A finished pre-training with held-out patients; tests work on copies."""
    folder = tmp_path_factory.mktemp("pretraining")
    config = write_config(folder, held_out_share=0.25)
    assert main(["pretrain", config, "--output_dir", str(folder / "run")]) == 0
    return folder / "run"


def test_the_folder_says_what_was_done(finished):
    values = read_json(finished / "metrics.json")
    splits = values["protocol"]["splits"]
    assert splits.keys() == {"train", "held_out"}
    assert splits["train"]["images"] + splits["held_out"]["images"] == 40
    assert values["protocol"]["masked_patches"] == [39, 64]
    assert values["model_sha256"] == file_sha256(finished / "model.safetensors")
    assert [entry["epoch"] for entry in values["history"] if "eval_loss" in entry] == [1, 2]
    record = ModelRecord.of(read_json(finished / "config.json"))
    assert record.weights_origin["kind"] == "pretrained"
    assert record.weights_origin["saw_test_images"] == "no"
    page = (finished / "report.html").read_text()
    assert page.count("data:image/png") == 2  # phantoms may be shown
    assert "SimMIM" in page
    with Image.open(finished / "figures" / "reconstructions.png") as picture:
        assert picture.height > picture.width > 300
    assert not (finished / "stages" / "model").exists()


def test_a_stopped_one_goes_on_to_the_same_bytes(finished, tmp_path, monkeypatch):
    config = write_config(tmp_path, held_out_share=0.25, save_strategy="steps", save_steps=1)
    built = pretrain_module.build_trainer

    class Stop(TrainerCallback):
        def on_step_end(self, args, state, control, **kwargs):
            if state.global_step == 5:  # in the second of two epochs, after the checkpoint of step 4
                raise KeyboardInterrupt

    def stopping(*args):
        trainer = built(*args)
        trainer.add_callback(Stop())
        return trainer

    monkeypatch.setattr(pretrain_module, "build_trainer", stopping)
    words = [config, "--output_dir", str(tmp_path / "run")]
    with pytest.raises(KeyboardInterrupt):
        pretrain(parse_pretraining(words))
    assert (tmp_path / "run" / "checkpoint-4").is_dir()
    monkeypatch.setattr(pretrain_module, "build_trainer", built)
    with pytest.raises(ValueError, match=r"other settings \(mask_ratio was 0.6 and is 0.5"):
        pretrain(parse_pretraining([*words, "--mask_ratio", "0.5"]))
    monkeypatch.setattr(pretrain_module, "draw_pretraining", lambda *args: 1 / 0)  # and stopped after training
    with pytest.raises(ZeroDivisionError):
        pretrain(parse_pretraining(words))
    monkeypatch.undo()
    values = pretrain(parse_pretraining(words))
    assert values["training"]["resumed_from"] == "checkpoint-4"
    assert (tmp_path / "run" / "model.safetensors").read_bytes() == (finished / "model.safetensors").read_bytes()
    with pytest.raises(ValueError, match="contains a finished run"):
        pretrain(parse_pretraining(words))


def fine_tune(folder, model, *flags):
    config = folder / "run.yaml"
    short = {"num_train_epochs": 1, "per_device_train_batch_size": 8, "bootstrap_resamples": 20}
    config.write_text(yaml.safe_dump(PHANTOMS | {"image_size": 32, "resize_size": 36} | short))
    words = ["train", str(config), "--model_name_or_path", str(model), "--output_dir", str(folder / "run"), *flags]
    return main(words)


def test_a_run_starts_from_it_on_fewer_images_and_not_on_another_cut(finished, tmp_path, capsys):
    assert fine_tune(tmp_path, finished, "--train_limit", "16") == 0
    words = read_json(tmp_path / "run" / "metrics.json")["protocol"]["initial_weights"]
    assert words.startswith("local folder run, pre-trained without labels on the training images of ")
    assert fine_tune(tmp_path, finished, "--phantom_seed", "1", "--on_existing_run", "move_aside") == 2
    assert "images that are now for validation and test may have been trained on" in capsys.readouterr().err


def test_what_first_weights_bring_along_is_in_record_and_page(finished, tmp_path):
    first = shutil.copytree(finished, tmp_path / "first")
    values = read_json(first / "config.json")
    values["hf_cxr"]["weights_origin"] |= {"source": "a lab", "licence": "CC BY-NC 4.0", "saw_test_images": "yes"}
    (first / "config.json").write_text(json.dumps(values))
    config = write_config(tmp_path, num_train_epochs=1, model_name_or_path=str(first))
    assert main(["pretrain", config, "--output_dir", str(tmp_path / "next")]) == 0
    record = ModelRecord.of(read_json(tmp_path / "next" / "config.json"))
    assert record.weights_origin["saw_test_images"] == "yes"
    assert "CC BY-NC 4.0" in record.weights_origin["licence"]
    assert record.weights_origin["source"].endswith("from a lab")
    assert [stage["split"] for stage in record.stages] == [values["hf_cxr"]["split"], record.split]
    assert record.stages[0]["held_out"] == values["hf_cxr"]["held_out"]
    page = (tmp_path / "next" / "report.html").read_text()
    assert "CC BY-NC 4.0" in page
    assert "The initial weights (a lab) were trained with images of" in page


def test_other_commands_refuse_it_in_one_line(finished, tmp_path, capsys):
    copy = shutil.copytree(finished, tmp_path / "run")
    Image.new("L", (8, 8)).save(tmp_path / "x.png")
    for words, message in (
        (["report", str(copy)], "contains a pre-training"),
        (["predict", str(tmp_path / "x.png"), "--model", str(copy)], "was pre-trained and has no classifier"),
        (["push", str(copy), "you/name", "--dry_run"], "not a complete run folder"),
    ):
        assert main(words) == 2
        error = capsys.readouterr().err
        assert message in error
        assert "reconstructions.png" not in error
    (copy / "metrics.json").unlink()
    assert fine_tune(tmp_path, finished, "--output_dir", str(copy)) == 2
    assert "contains an unfinished run of another command" in capsys.readouterr().err


NIH = {
    "dataset": "nih",
    **SWIN,
    "mask_patch_size": 4,
    "per_device_train_batch_size": 2,
    "num_train_epochs": 1,
    "bf16": False,
}


def test_images_of_validation_and_test_are_not_opened(tmp_path, capsys):
    """The same bytes of weights, whether they are there, broken or gone; and a missing training image is an error."""
    weights = set()
    for state in ("there", "broken", "gone"):
        root = tmp_path / state
        root.mkdir()
        write_release(root)
        config = write_config(tmp_path, NIH, nih_root=str(root))
        args = parse_pretraining([config, "--output_dir", str(tmp_path / f"run-{state}")])
        train = load_training_images(args).splits["train"]
        trained_on = set(train["image_id"])
        assert trained_on.isdisjoint(TEST_IMAGES)
        others = [path for path in (root / "images").iterdir() if path.name not in trained_on]
        assert set(TEST_IMAGES) < {path.name for path in others}  # and those of validation
        for path in others:
            if state == "broken":
                path.write_bytes(b"not an image")
            elif state == "gone":
                path.unlink()
        assert pretrain(args) is not None
        weights.add((tmp_path / f"run-{state}" / "model.safetensors").read_bytes())
    assert len(weights) == 1
    page = (tmp_path / "run-gone" / "report.html").read_text()
    assert page.count("data:image/png") == 1  # the loss; patients' images are in a file of their own
    assert "They show patients" in page
    record = ModelRecord.of(read_json(tmp_path / "run-gone" / "config.json"))
    assert record.licence_note == LICENCE_NOTE
    assert record.weights_origin["saw_test_images"] == "unknown"  # its test list is not the official one
    assert "own test list of" in page

    (tmp_path / "gone" / "images" / min(trained_on)).unlink()
    config = write_config(tmp_path, NIH, nih_root=str(tmp_path / "gone"))
    words = ["pretrain", config, "--output_dir", str(tmp_path / "lacking")]
    assert main(words) == 2
    assert "of the training patients, such as" in capsys.readouterr().err
    assert main([*words, "--missing_images", "skip"]) == 0


TABLE = {"files": "rows.csv", "image_column": "file", "findings": [], "patient_column": "patient", "name": "a clinic"}


def write_images(root, patients=8):
    rng = np.random.default_rng(0)
    lines = ["file,patient"]
    for number in range(2 * patients):
        Image.fromarray(rng.integers(0, 256, (40, 40), dtype=np.uint8)).save(root / f"{number}.png")
        lines.append(f"{number}.png,p{number // 2}")
    (root / "rows.csv").write_text("\n".join(lines))
    (root / "table.yaml").write_text(json.dumps(TABLE))


def test_the_pictures_are_of_every_held_out_image_that_can_be_read(tmp_path, monkeypatch):
    write_images(tmp_path, patients=4)
    data = {"dataset": "table", "table": str(tmp_path / "table.yaml"), "never_tested": True, "held_out_share": 0.25}
    settings = {key: value for key, value in TINY.items() if "phantom" not in key} | data | {"num_train_epochs": 1}
    words = [write_config(tmp_path, settings, per_device_train_batch_size=2), "--unreadable_images", "skip"]
    held_out = load_training_images(parse_pretraining(words)).splits["held_out"]["image_id"]
    assert len(held_out) == 2
    (tmp_path / held_out[0]).write_bytes(b"not an image")
    made, real = [], pretrain_module.reconstructions
    monkeypatch.setattr(pretrain_module, "reconstructions", lambda *args: made.extend(real(*args)) or made)
    values = pretrain(parse_pretraining([*words, "--output_dir", str(tmp_path / "run")]))
    assert values["protocol"]["unreadable_images"] == {"held_out": 1}
    assert values["protocol"]["splits"]["held_out"]["images"] == 1
    with Image.open(tmp_path / held_out[1]) as image:
        sound = np.asarray(image.resize((36, 36), Image.Resampling.BICUBIC))[2:34, 2:34]
    assert len(made) == 1
    assert np.corrcoef(made[0].original_DD.ravel(), sound.ravel())[0, 1] > 0.9


def test_a_stream_without_labels(tmp_path):
    rng = np.random.default_rng(0)
    images = [Image.fromarray(rng.integers(0, 256, (40, 40), dtype=np.uint8)) for _ in range(24)]
    columns = {"image": images, "patient": [f"p{number // 2}" for number in range(24)]}
    schema = datasets.Features({"image": datasets.Image(), "patient": datasets.Value("string")})
    datasets.Dataset.from_dict(columns, features=schema).to_parquet(tmp_path / "rows.parquet", batch_size=5)
    description = TABLE | {"files": "rows.parquet", "image_column": "image"}
    (tmp_path / "table.yaml").write_text(json.dumps(description))
    data = {"dataset": "table", "table": str(tmp_path / "table.yaml"), "streaming": True, "never_tested": True}
    changes = {**{key: value for key, value in TINY.items() if "phantom" not in str(key)}, **data}
    config = write_config(tmp_path, changes, num_train_epochs=1, held_out_share=0.25)
    assert main(["pretrain", config, "--output_dir", str(tmp_path / "run")]) == 0
    values = read_json(tmp_path / "run" / "metrics.json")
    assert [split["images"] for split in values["protocol"]["splits"].values()] == [18, 6]
    assert values["training"]["steps"] == 2
    assert 0.1 < values["history"][-2]["eval_loss"] < 3


def test_a_table_without_labels_and_splits_needs_a_statement_or_a_split_file(tmp_path, capsys):
    write_images(tmp_path)
    data = {"dataset": "table", "table": str(tmp_path / "table.yaml")}
    changes = {**{key: value for key, value in TINY.items() if "phantom" not in str(key)}, **data}
    config = write_config(tmp_path, changes, num_train_epochs=1)
    words = ["pretrain", config, "--output_dir", str(tmp_path / "run")]
    assert main(words) == 2
    assert "a clinic has no test set" in capsys.readouterr().err
    assert main([*words, "--never_tested", "true"]) == 0
    record = ModelRecord.of(read_json(tmp_path / "run" / "config.json"))
    assert record.held_out is None
    assert "it was stated" in record.weights_origin["note"]
    assert record.weights_origin["saw_test_images"] == "unknown"

    split = ["split", "--dataset", "table", "--table", data["table"], "--out", str(tmp_path / "split.csv")]
    assert main([*split, "--fractions", "0.625", "0.125", "0.25"]) == 0
    assert "labelled:" not in capsys.readouterr().out
    words = [*words[:-1], str(tmp_path / "cut"), "--split_file", str(tmp_path / "split.csv")]
    assert main([*words, "--never_tested"]) == 2
    assert "--never_tested is for data without a test set, and a clinic has one of 4 images" in capsys.readouterr().err
    assert main(words) == 0
    protocol = read_json(tmp_path / "cut" / "metrics.json")["protocol"]
    assert (protocol["splits"]["train"]["images"], protocol["saw_test_images"]) == (10, "unknown")

    labelled = TABLE | {"name": "its labels", "findings": ["Mass"], "split_column": "part", "blank": "zero"}
    (tmp_path / "labelled.yaml").write_text(json.dumps(labelled))
    sides = ["train", "train", "validation", "test"]
    rows = [f"{number}.png,p{number // 2},{sides[number // 2 % 4]},{number % 3 % 2}" for number in range(16)]
    (tmp_path / "rows.csv").write_text("\n".join(["file,patient,part,Mass", *rows]))
    source = load_source(DataArguments(dataset="table", table=str(tmp_path / "labelled.yaml")))
    assert trained_on(str(tmp_path / "run"), source) == 8  # all of validation and test
    assert trained_on(str(tmp_path / "nowhere"), source) == 0

    run = tmp_path / "run.yaml"
    run.write_text(yaml.safe_dump(data | SWIN))
    assert main(["train", str(run), "--output_dir", str(tmp_path / "train")]) == 2
    assert "a clinic has no findings: such images can only be used for pre-training" in capsys.readouterr().err
