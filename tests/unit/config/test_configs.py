"""Every shipped YAML is parsed as a run would, and says what it reproduces, costs and reached."""

import dataclasses
from pathlib import Path

import pytest
import yaml
from accelerate.commands.config.config_args import load_config_from_file

from hf_cxr.config import parse_arguments, parse_pretraining
from hf_cxr.labels import NIH14
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


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("systems/*.yaml")), ids=lambda path: path.name)
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
