"""Every shipped YAML is parsed as a run would, and says what it reproduces, costs and reached."""

from pathlib import Path

import pytest
import yaml
from accelerate.commands.config.config_args import load_config_from_file

from hf_cxr.config import parse_arguments
from hf_cxr.labels import NIH14
from hf_cxr.models.build import build_model, check_model
from hf_cxr.run import compare
from hf_cxr.run.compare import check_run, final_runs, load_plan, tuning_runs
from hf_cxr.systems import SYSTEMS

CONFIGS = Path(__file__).parents[3] / "configs"


COMPARISONS = sorted(CONFIGS.glob("compare_*.yaml"))


@pytest.fixture(autouse=True, scope="module")
def _each_model_is_checked_once():
    """Runs of a comparison share their model, and a check of it computes its outputs."""
    check, checked = compare.check_training_model, set()

    def once(arguments):
        if repr(arguments.model) not in checked:
            check(arguments)
            checked.add(repr(arguments.model))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(compare, "check_training_model", once)
        yield
    assert checked


@pytest.mark.parametrize("path", sorted(set(CONFIGS.glob("*.yaml")) - set(COMPARISONS)), ids=lambda path: path.name)
def test_config_parses_and_is_a_lab_note(path):
    needs_root = yaml.safe_load(path.read_text())["dataset"] == "nih"
    args = parse_arguments([str(path), *(["--nih_root", "/data"] if needs_root else [])])
    assert args.training.output_dir == f"runs/{path.stem}"
    note = path.read_text()
    assert note.startswith("# ")
    assert "\n# Costs: " in note
    assert "\n# Reached: " in note
    if args.model.model_name_or_path is None:
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
