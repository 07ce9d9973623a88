"""Every shipped YAML is parsed as a run would, and says what it reproduces, costs and reached."""

import dataclasses
import re
from pathlib import Path

import pytest
import yaml
from accelerate.commands.config.config_args import load_config_from_file

from hf_cxr.config import parse_arguments, parse_pretraining
from hf_cxr.labels import NIH14
from hf_cxr.losses import LOSSES
from hf_cxr.models.build import build_model, check_model
from hf_cxr.run.comparing import shared_settings
from hf_cxr.run.comparing.compare import check_run, final_runs, load_plan, tuning_runs
from hf_cxr.run.pretraining.pretrain import build_masks
from hf_cxr.run.tuning.search_space import load_search
from hf_cxr.run.tuning.tune import arguments_of
from hf_cxr.systems import SYSTEMS

CONFIGS = Path(__file__).parents[3] / "configs"


COMPARISONS = sorted(CONFIGS.glob("compare_*.yaml"))
SEARCHES = sorted(CONFIGS.glob("tune_*.yaml"))
RUNS = sorted(set(CONFIGS.glob("*.yaml")) - {*COMPARISONS, *SEARCHES})
SYSTEMS_RUNS = sorted(CONFIGS.glob("systems/*.yaml"))
PRETRAINED = {f"runs/{path.stem}": path for path in sorted(CONFIGS.glob("pretrain_*.yaml"))}


@pytest.fixture(autouse=True, scope="module")
def _each_model_is_checked_once():
    """Runs of a comparison share their model, and a check of it computes its outputs."""
    check, checked = shared_settings.check_training_model, set()

    def once(arguments):
        if arguments.model.model_name_or_path in PRETRAINED:
            return  # the first command of the lab note writes it
        if repr(arguments.model) not in checked:
            check(arguments)
            checked.add(repr(arguments.model))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shared_settings, "check_training_model", once)
        yield
    assert checked


@pytest.mark.parametrize("path", RUNS, ids=lambda path: path.name)
def test_config_parses_and_is_a_lab_note(path):
    needs_root = yaml.safe_load(path.read_text())["dataset"] == "nih"
    parse = parse_pretraining if path in PRETRAINED.values() else parse_arguments
    args = parse([str(path), *(["--nih_root", "/data"] if needs_root else [])])
    assert args.training.output_dir == f"runs/{path.stem}"
    note = path.read_text()
    assert note.startswith("# ")
    assert "\n# Costs: " in note
    assert "\n# Reached: " in note
    if parse is parse_pretraining:
        assert build_masks(args, args.model.model_kwargs["patch_size"]).masked > 1
    elif args.model.model_name_or_path is None:
        model = build_model(args.model, NIH14)
        assert sum(parameter.numel() for parameter in model.parameters()) < 2e7


@pytest.mark.parametrize("path", SYSTEMS_RUNS, ids=lambda path: path.name)
def test_config_of_a_published_system_parses_and_is_a_lab_note(path):
    args = parse_arguments([str(path), "--nih_root", "/data"])
    assert args.training.output_dir == f"runs/{path.stem}"
    assert args.model.architecture == path.stem
    assert path.stem in SYSTEMS
    note = path.read_text()
    for part in ("\n# Costs: ", "\n# Reached: "):
        assert part in note
    check_model(args.model)  # on the meta device: shapes, no values


@pytest.mark.parametrize("path", COMPARISONS, ids=lambda path: path.name)
def test_comparison_parses_and_is_a_lab_note(path, tmp_path):
    needs_root = "--nih_root DIR" in path.read_text()
    plan = load_plan(path, ["--nih_root", "/data"] if needs_root else [])
    runs = [*tuning_runs(plan, tmp_path), *final_runs(plan, tmp_path, {})]
    args = [check_run(run, plan) for run in runs]
    assert len({run.folder for run in runs}) == len(runs)
    assert not any(arg.evaluation.measure_test for arg in args[: len(tuning_runs(plan, tmp_path))])
    assert all(arg.evaluation.measure_test for arg in args[len(tuning_runs(plan, tmp_path)) :])
    note = path.read_text()
    assert note.startswith("# ")
    assert "\n# Costs: " in note
    assert "\n# Reached: " in note


@pytest.mark.parametrize("path", SEARCHES, ids=lambda path: path.name)
def test_search_parses_and_is_a_lab_note(path):
    search = load_search(path)
    for point in search.extremes():
        args = arguments_of(search, point, Path("trial"))
        assert not args.evaluation.measure_test
    note = path.read_text()
    assert note.startswith("# ")
    assert "\n# Costs: " in note
    assert "\n# Reached: " in note
    with pytest.raises(SystemExit, match="2"):
        parse_arguments([str(path)])


STARTING = [path for path in COMPARISONS if any(name in path.read_text() for name in PRETRAINED)]


@pytest.mark.parametrize("path", STARTING, ids=lambda path: path.name)
def test_a_comparison_starts_from_pretrained_weights_of_its_own_model_and_split(path, tmp_path):
    root = ["--nih_root", "/data"] if "--nih_root DIR" in path.read_text() else []
    plan = load_plan(path, root)
    runs = {run.method: check_run(run, plan) for run in final_runs(plan, tmp_path, {})}
    (started,) = [args for args in runs.values() if args.model.model_name_or_path in PRETRAINED]
    pretraining = parse_pretraining([str(PRETRAINED[started.model.model_name_or_path]), *root])
    assert dataclasses.replace(started.data, train_limit=None) == pretraining.data
    assert started.data.train_limit < 1000
    for key in ("image_size", "resize_size", "architecture", "model_kwargs"):
        assert getattr(runs[plan.baseline].model, key) == getattr(pretraining.model, key), key


def test_reference_comparison_has_the_references_six_rows(tmp_path):
    plan = load_plan(CONFIGS / "compare_reference.yaml", ["--nih_root", "/data"])
    assert plan.baseline == "BCE"
    assert len(plan.seeds) >= 3
    assert {"learning_rate", "weight_decay"} <= set(plan.tuning.grid)
    losses = [check_run(run, plan).loss for run in final_runs(plan, tmp_path, {}) if run.values["seed"] == 0]
    assert [(loss.loss, loss.loss_kwargs) for loss in losses] == [
        ("bce", {}),
        ("focal", {}),
        ("asymmetric", {}),
        ("class_aware", {"decoupled": False}),
        ("class_aware", {"margin": 0.0}),
        ("class_aware", {}),
    ]
    assert {loss.head_bias for loss in losses} == {"no_information"}


def resolved(path):
    """Every key of a shipped file as a run would take it."""
    parse = parse_pretraining if path in PRETRAINED.values() else parse_arguments
    needs_root = yaml.safe_load(path.read_text())["dataset"] == "nih"
    return parse([str(path), *(["--nih_root", "/data"] if needs_root else [])]).to_dict()


@pytest.mark.parametrize("path", [*RUNS, *SYSTEMS_RUNS, *COMPARISONS], ids=lambda path: path.name)
def test_a_file_names_its_augmentation(path):
    """Both keys have defaults that augment, so a file that leaves one out augments without saying so."""
    values = yaml.safe_load(path.read_text())
    if path in COMPARISONS:
        values = values["base"]
        if isinstance(values, str):
            return  # of a file that is tested itself
    assert {"horizontal_flip", "rotation_degrees"} <= values.keys()


LOADED = {path: yaml.safe_load(path.read_text()) for path in (*RUNS, *SYSTEMS_RUNS)}
FULL_SIZE = [path for path, values in LOADED.items() if values.get("missing_images") == "error"]


@pytest.mark.parametrize("path", FULL_SIZE, ids=lambda path: path.name)
def test_a_recipe_for_the_whole_release_refuses_another_number_of_images_a_step(path):
    values, note = LOADED[path], path.read_text()
    accumulated = values.get("gradient_accumulation_steps", 1)
    assert values["images_per_step"] == values["per_device_train_batch_size"] * accumulated
    line = re.search(r"\n# Several GPUs: (.*)", note).group(1)
    whole_step = "loss" in values and not LOSSES[values["loss"]].additive
    assert line.startswith(
        "refused" if whole_step else f"give --per_device_train_batch_size {values['images_per_step']}"
    )


# What a note says of a recipe -> the keys that make it true.
COSINE = {"lr_scheduler_type": "cosine", "warmup_steps": 500}
NOTES = {
    "systems/wang2017.yaml": {
        "a horizontal flip and no rotation": {"horizontal_flip": 0.5, "rotation_degrees": 0},
        "learning rate 1e-3 with momentum 0.9, weight decay 1e-4": {
            "optimizer": "sgd", "learning_rate": 1e-3, "sgd_momentum": 0.9, "weight_decay": 1e-4,
        },
        "a cosine after 500 steps of warm-up": COSINE,
        "no clipping": {"max_grad_norm": 0},
        "32 images a step": {"images_per_step": 32},
        "12 epochs": {"num_train_epochs": 12},
        "1024 pixels": {"image_size": 1024, "resize_size": 1024},
    },
    "systems/dnet.yaml": {
        "a horizontal flip and no rotation": {"horizontal_flip": 0.5, "rotation_degrees": 0},
        "Adam, 1e-4, a cosine after 500 steps of warm-up, 10 epochs, weight decay 1e-5": {
            "optimizer": "adam", "learning_rate": 1e-4, "num_train_epochs": 10, "weight_decay": 1e-5, **COSINE,
        },
        "gradient norms cut at 1": {"max_grad_norm": 1},
        "32 images a step": {"images_per_step": 32},
        "1024 pixels": {"image_size": 1024, "resize_size": 1024},
    },
    "systems/yao2017.yaml": {
        "rotations to 15 degrees": {"rotation_degrees": 15},
        "only the rotation is here: no flip": {
            "horizontal_flip": 0, "random_resized_crop": None, "brightness": 0, "contrast": 0, "erasing": 0,
        },
        "learning rate 1e-3, weight decay 1e-5, a cosine after 500 steps of warm-up": {
            "optimizer": "adam", "learning_rate": 1e-3, "weight_decay": 1e-5, **COSINE,
        },
        "gradient norms cut at 1, 30 epochs, 32 images a step": {
            "max_grad_norm": 1, "num_train_epochs": 30, "images_per_step": 32,
        },
        "512 pixels": {"image_size": 512, "resize_size": 512},
    },
    "systems/swinchex.yaml": {
        "a flip and a rotation are the augmentation": {
            "horizontal_flip": 0.5, "rotation_degrees": 10, "random_resized_crop": None, "brightness": 0, "erasing": 0,
        },
        "label smoothing 0.1": {"label_smoothing_factor": 0.1},
        "3.125e-5 for 32": {"optimizer": "adamw", "learning_rate": 3.125e-5, "images_per_step": 32},
        "weight decay 0.05": {"weight_decay": 0.05},
        "cut at 5 / 14": {"max_grad_norm": 0.357},
        "30 epochs, 2 of them warm-up": {
            "num_train_epochs": 30, "warmup_steps": 2 * 2163, "lr_scheduler_type": "cosine",
        },
    },
    "nih_swin_base.yaml": {
        "centre crop 224, horizontal flip": {"image_size": 224, "random_resized_crop": None, "horizontal_flip": 0.5},
        "rotation up to 10 degrees": {"rotation_degrees": 10},
        "a constant learning rate, no gradient clipping": {"lr_scheduler_type": "constant", "max_grad_norm": 0},
        "30 epochs, Adam 1e-4 with L2 weight decay 5e-4": {
            "num_train_epochs": 30, "optimizer": "adam", "learning_rate": 1e-4, "weight_decay": 5e-4,
        },
    },
    "pretrain_nih.yaml": {
        "random crops of 67 to 100 % of the area, flips": {
            "random_resized_crop": [0.67, 1.0], "horizontal_flip": 0.5, "rotation_degrees": 0,
        },
        "gradients clipped at 5": {"max_grad_norm": 5},
        "AdamW with weight decay 0.05 and betas 0.9 and 0.999": {
            "optimizer": "adamw", "weight_decay": 0.05, "adam_beta1": 0.9, "adam_beta2": 0.999,
        },
        "10 epochs of warm-up and a cosine": {
            "warmup_steps": 0.1, "num_train_epochs": 100, "lr_scheduler_type": "cosine",
        },
    },
}  # fmt: skip


@pytest.mark.parametrize("name", NOTES)
def test_what_a_note_says_is_what_a_run_does(name):
    path = CONFIGS / name
    note = " ".join(line.removeprefix("#").strip() for line in path.read_text().splitlines() if line.startswith("#"))
    values = resolved(path)
    for words, keys in NOTES[name].items():
        assert words in note
        for key, value in keys.items():
            assert values[key] == value, (words, key)


LEVERS = (
    "layer_decay", "head_learning_rate", "freeze_backbone_epochs", "mixup_alpha", "label_smoothing_factor",
    "ema_decay", "random_resized_crop", "brightness", "contrast", "erasing", "erasing_area",
)  # fmt: skip


@pytest.mark.parametrize("name", ["nih_swin_base_strong.yaml", "nih_convnextv2_base_512.yaml"])
def test_strong_recipes_have_every_lever_and_are_marked_as_not_run(name):
    values = parse_arguments([str(CONFIGS / name), "--nih_root", "/data"]).to_dict()
    defaults = parse_arguments([str(CONFIGS / "nih_swin_base.yaml"), "--nih_root", "/data"]).to_dict()
    assert [lever for lever in LEVERS if values[lever] == defaults[lever]] == []
    assert "\n# Reached: not run yet." in (CONFIGS / name).read_text()
    assert values["images_per_step"] == values["per_device_train_batch_size"]


def test_recipe_comparison_has_a_row_for_each_lever_and_one_for_all():
    methods = load_plan(CONFIGS / "compare_recipe.yaml").methods
    together = methods["All together"]
    assert set(together) == set(LEVERS)
    alone = [values for name, values in methods.items() if name != "Plain" and not name.startswith("All ")]
    assert methods["All against overfitting"].items() <= together.items()
    assert {key for values in alone for key in values} >= set(LEVERS)
    assert all(together[key] == values[key] for values in alone for key in values if key in together)


@pytest.mark.parametrize("path", sorted((CONFIGS / "accelerate").glob("*.yaml")), ids=lambda path: path.name)
def test_accelerate_reads_its_config(path):
    config = load_config_from_file(str(path))
    assert config.mixed_precision == "no"
    assert config.num_processes >= config.num_machines


def test_reference_recipe_is_the_references():
    args = parse_arguments([str(CONFIGS / "nih_swin_base.yaml"), "--nih_root", "/data"])
    assert args.model.model_name_or_path == "microsoft/swin-base-patch4-window7-224"
    assert (args.model.resize_size, args.model.image_size) == (256, 224)
    assert (args.training.optimizer, args.training.learning_rate, args.training.weight_decay) == ("adam", 1e-4, 5e-4)
    assert (args.training.per_device_train_batch_size, args.training.num_train_epochs) == (32, 30)
    assert args.loss.loss == "class_aware"
    assert args.loss.loss_kwargs == {"margin": 0.2, "decoupled": True, "class_weights": "sqrt_inverse"}
