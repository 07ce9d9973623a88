"""Every field of transformers' TrainingArguments works here, or is refused in one line before any data are read."""

import dataclasses

import pytest
from transformers import TrainingArguments
from transformers.integrations import integration_utils
from transformers.trainer_utils import SchedulerType

from hf_cxr.arguments import training
from hf_cxr.arguments.schedules import resolve_schedule
from hf_cxr.arguments.trackers import TRACKERS
from hf_cxr.arguments.training import DERIVED, FIXED, FREE, RANGES, CXRTrainingArguments
from hf_cxr.config import parse_arguments

FIELDS = {item.name: item for item in dataclasses.fields(TrainingArguments) if item.init}
# A value that is not the default, for fixed fields whose type is not seen from it.
OTHER = {
    "accelerator_config": {"split_batches": True},
    "debug": "underflow_overflow",
    "deepspeed": "zero.json",
    "fsdp": "full_shard",
    "fsdp_config": {"min_num_params": 1},
    "hub_revision": "dev",
    "include_for_metrics": ["loss"],
    "label_names": ["x"],
    "liger_kernel_config": {"rope": True},
    "neftune_noise_alpha": 5.0,
    "optim_args": "a=1",
    "optim_target_modules": "all-linear",
    "parallelism_config": object(),
}


@pytest.fixture
def empty(tmp_path):
    path = tmp_path / "empty.yaml"
    path.write_text("")
    return str(path)


def refusal(capsys, argv):
    with pytest.raises(SystemExit) as stop:
        parse_arguments(argv, prog="hf-cxr train")
    assert stop.value.code == 2
    err = capsys.readouterr().err
    assert err.startswith("hf-cxr train: ")
    assert err.count("\n") == 1
    return err


def test_every_field_is_in_one_table():
    own = {item.name for item in dataclasses.fields(CXRTrainingArguments) if item.init}
    assert own >= set(FIELDS)
    assert set(FIXED) | set(RANGES) | FREE == own
    assert len(FIXED) + len(RANGES) + len(FREE) == len(own)
    assert set(DERIVED) <= own


@pytest.mark.parametrize("name", sorted(FIXED))
def test_a_fixed_field_takes_its_default_and_nothing_else(name, tmp_path):
    default = CXRTrainingArguments.__dataclass_fields__[name].default
    other = OTHER.get(name, not default if isinstance(default, bool) else f"{default}_other")
    with pytest.raises(ValueError, match=f"^{name} must stay ") as refused:
        CXRTrainingArguments(output_dir=str(tmp_path / "run"), **{name: other})
    assert FIXED[name] in str(refused.value)


@pytest.mark.parametrize("name", sorted(set(RANGES) - {"gradient_checkpointing_kwargs", "activation_checkpointing_kwargs"}))  # fmt: skip  # noqa: E501
def test_a_value_out_of_range_is_refused_with_its_key(name, tmp_path):
    hints = {"torch_compile_backend", "torch_compile_mode", "dataloader_multiprocessing_context", "hub_strategy", "eval_strategy", "save_strategy"}  # fmt: skip  # noqa: E501
    for bad in ["nonsense"] if name in hints else [-7, float("nan")]:
        with pytest.raises(ValueError, match=f"^{name} is {bad}; it must be "):
            CXRTrainingArguments(output_dir=str(tmp_path / "run"), **{name: bad})


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ("--gradient_accumulation_steps 0", ["gradient_accumulation_steps is 0"]),
        ("--seed 4294967296", ["seed is 4294967296"]),
        ("--max_steps 0", ["max_steps is 0"]),
        ("--fp16 true --use_cpu true", ["fp16", "CPU"]),
        ("--dataloader_prefetch_factor 2", ["dataloader_prefetch_factor", "dataloader_num_workers"]),
        ("--dataloader_persistent_workers true", ["dataloader_persistent_workers", "dataloader_num_workers"]),
        ("--eval_strategy steps", ["load_best_model_at_end", "save_strategy epoch"]),
        ("--eval_strategy no", ["load_best_model_at_end", "eval_strategy is no"]),
        ("--eval_strategy no --load_best_model_at_end false --early_stopping_patience 1", ["early_stopping_patience"]),
        ("--early_stopping_threshold 0.1", ["early_stopping_threshold", "without early_stopping_patience"]),
        ("--greater_is_better false", ["greater_is_better"]),
        ("--evaluation_strategy epoch", ["evaluation_strategy", "eval_strategy"]),
        ("--warmup_ratio 0.1", ["warmup_ratio", "warmup_steps"]),
        ("--no_cuda", ["no_cuda", "use_cpu"]),
        ("--lr_scheduler_kwargs {min_lr", ["lr_scheduler_kwargs is {min_lr"]),
        ("--lr_scheduler_kwargs 5", ["lr_scheduler_kwargs is 5", "mapping"]),
        ('--activation_checkpointing_kwargs {"foo":1}', ["activation_checkpointing_kwargs", "use_reentrant"]),
    ],
)
def test_settings_that_cannot_work_are_one_line(empty, capsys, flags, words):
    err = refusal(capsys, [empty, *flags.split(" ")])
    assert all(word in err for word in words)


def test_an_output_dir_that_is_a_file_or_below_one_is_refused(empty, capsys):
    assert "output_dir is empty" in refusal(capsys, [empty, "--output_dir", ""])
    for place in (empty, f"{empty}/run"):
        assert f"{empty} is a file" in refusal(capsys, [empty, "--output_dir", place])


# Trackers.


def test_the_trackers_are_those_of_transformers():
    assert set(TRACKERS) == set(integration_utils.INTEGRATION_TO_CALLBACK)


@pytest.mark.parametrize("name", sorted(TRACKERS))
def test_a_tracker_without_its_package_is_named_with_what_to_install(name, empty, capsys, monkeypatch):
    available, repair = TRACKERS[name]
    monkeypatch.setattr(integration_utils, available, lambda: False)
    err = refusal(capsys, [empty, "--report_to", name])
    assert f"report_to {name}" in err
    assert repair in err
    monkeypatch.setattr(integration_utils, available, lambda: True)
    assert parse_arguments([empty, "--report_to", name]).training.report_to == [name]


def test_an_unknown_tracker_has_its_nearest_named(empty, capsys, tmp_path):
    assert "did you mean wandb?" in refusal(capsys, [empty, "--report_to", "wandbb"])
    path = tmp_path / "list.yaml"
    path.write_text("report_to: [none]\n")
    assert parse_arguments([str(path)]).training.report_to == []
    path.write_text("report_to: [mlfow]\n")
    assert "did you mean mlflow?" in refusal(capsys, [str(path)])


# Schedules.

OPTIONS = {
    "cosine_with_min_lr": {"min_lr": 1e-6},
    "cosine_warmup_with_min_lr": {"min_lr": 1e-6},
    "warmup_stable_decay": {"num_decay_steps": 10},
    "greedy": {"min_lr": 1e-6},
}
GIVEN = {"learning_rate": 1e-4, "warmup_steps": 10, "max_steps": 100, "greater_is_better": True}


@pytest.mark.parametrize("name", [kind.value for kind in SchedulerType])
def test_every_schedule_works_with_its_options_and_takes_no_others(name):
    resolved = resolve_schedule(name, OPTIONS.get(name), **GIVEN)
    mode = {"mode": "max"} if name in ("reduce_lr_on_plateau", "greedy") else {}
    assert (resolved or {}) == OPTIONS.get(name, {}) | mode
    with pytest.raises(ValueError, match="nonsense"):
        resolve_schedule(name, OPTIONS.get(name, {}) | {"nonsense": 1}, **GIVEN)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("warmup_stable_decay", None, "needs num_decay_steps in lr_scheduler_kwargs"),
        ("cosine_with_min_lr", None, "min_lr"),
        ("cosine_with_min_lr", {"min_lr": "1e-6"}, "'min_lr': '1e-6'"),
        ("cosine_with_min_lr", {"min_lrr": 1e-6}, "did you mean min_lr"),
        ("polynomial", {"lr_end": 1.0}, "lr_end"),
        ("inverse_sqrt", {"timescale": 0}, "does not work"),
        ("cosine", {"num_cycles": float("nan")}, "num_cycles in lr_scheduler_kwargs is nan"),
        ("greedy", {"min_lr": 1e-3}, "between min_lr 0.001"),
        ("reduce_lr_on_plateau", {"mode": "min"}, "greatest"),
    ],
)
def test_a_schedule_that_would_fail_later_fails_now(name, options, message):
    with pytest.raises(ValueError, match=message):
        resolve_schedule(name, options, **GIVEN)


def test_a_schedule_that_watches_a_metric_knows_which_way_is_up(empty):
    flags = [empty, "--lr_scheduler_type", "reduce_lr_on_plateau"]
    assert parse_arguments(flags).training.lr_scheduler_kwargs == {"mode": "max"}
    args = parse_arguments([*flags, "--metric_for_best_model", "loss", "--lr_scheduler_kwargs", "{patience: 1}"])
    assert args.training.lr_scheduler_kwargs == {"patience": 1, "mode": "min"}
    assert args.to_dict()["lr_scheduler_kwargs"] == {"patience": 1}


# Where to resume from.


@pytest.fixture
def stopped(tmp_path):
    run = tmp_path / "run"
    for step in (4, 8):
        (run / f"checkpoint-{step}").mkdir(parents=True)
        (run / f"checkpoint-{step}" / "trainer_state.json").write_text("{}")
    return run


@pytest.mark.parametrize("word", ["true", "True", "yes"])
def test_resume_true_is_the_last_checkpoint_as_without_it(empty, stopped, word):
    training_ = parse_arguments([empty, "--output_dir", str(stopped), "--resume_from_checkpoint", word]).training
    assert (training_.resume_from_checkpoint, training_.on_existing_run) == (None, "resume")


def test_resume_false_does_not_continue_a_run(empty, stopped):
    flags = [empty, "--output_dir", str(stopped), "--resume_from_checkpoint", "false"]
    assert parse_arguments(flags).training.on_existing_run == "error"
    assert parse_arguments([*flags, "--on_existing_run", "move_aside"]).training.on_existing_run == "move_aside"


def test_resume_from_a_path_takes_a_checkpoint_of_the_run_folder_alone(empty, stopped, tmp_path, capsys):
    flags = [empty, "--output_dir", str(stopped), "--resume_from_checkpoint"]
    for path in (stopped / "checkpoint-4", "checkpoint-4"):
        assert parse_arguments([*flags, str(path)]).training.resume_from_checkpoint == str(stopped / "checkpoint-4")
    assert "not a checkpoint" in refusal(capsys, [*flags, str(stopped / "checkpoint-5")])
    assert "not a checkpoint" in refusal(capsys, [*flags, str(stopped)])
    elsewhere = tmp_path / "other" / "checkpoint-1"
    elsewhere.mkdir(parents=True)
    (elsewhere / "trainer_state.json").write_text("{}")
    err = refusal(capsys, [*flags, str(elsewhere)])
    assert f"--output_dir {elsewhere.parent}" in err
    assert f"--model_name_or_path {elsewhere}" in err


# What follows from the machine or from other fields is not pinned by a run's config.yaml.


def test_config_has_what_was_given_and_not_what_the_machine_made_of_it(empty, monkeypatch):
    monkeypatch.setattr(training.torch.accelerator, "is_available", lambda: False)
    args = parse_arguments([empty, "--gradient_checkpointing", "true", "--torch_compile", "true"])
    assert args.training.use_cpu is True
    assert args.training.torch_compile_backend == "inductor"
    saved = args.to_dict()
    assert saved["use_cpu"] is False
    assert saved["dataloader_pin_memory"] is True
    assert saved["torch_compile_backend"] is None
    assert (saved["gradient_checkpointing"], saved["activation_checkpointing"]) == (True, None)
    assert saved["greater_is_better"] is None
    assert not {"local_rank", "resume_from_checkpoint", "on_existing_run"} & set(saved)
    assert parse_arguments([empty, "--use_cpu", "true"]).to_dict()["use_cpu"] is True


def test_what_an_earlier_version_saved_of_its_machine_is_left_behind(tmp_path):
    path = tmp_path / "config.yaml"
    path.write_text("use_cpu: true\ndataloader_pin_memory: false\nlocal_rank: -1\nseed: 3\n")
    saved = parse_arguments([str(path)]).to_dict()
    assert (saved["use_cpu"], saved["dataloader_pin_memory"], saved["seed"]) == (False, True, 3)
    path.write_text("use_cpu: true\n")  # a user's own
    assert parse_arguments([str(path)]).to_dict()["use_cpu"] is True
