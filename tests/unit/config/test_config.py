"""Arguments: the file gives defaults, flags win, a misspelt key is named with its nearest, values are checked once."""

from pathlib import Path

import pytest

from hf_cxr.config import CONFIGS, NOT_SAVED, config_file, known_keys, parse_arguments
from hf_cxr.run.comparing.plan import load_plan
from hf_cxr.run.tuning.search_space import load_search


@pytest.fixture
def config(tmp_path):
    path = tmp_path / "x.yaml"
    text = "loss: focal\nlearning_rate: 1e-4\nmodel_kwargs: {depths: [1, 1, 2, 1]}\nbf16: true\noutput_dir: runs/x\n"
    path.write_text(text)
    return str(path)


def message_of(capsys, argv):
    with pytest.raises(SystemExit) as stop:
        parse_arguments(argv)
    assert stop.value.code == 2
    return capsys.readouterr().err


def test_file_gives_defaults_and_flags_win(config):
    args = parse_arguments([config, "--loss", "asymmetric", "--loss-kwargs.gamma-neg", "2", "--bf16", "false"])
    assert args.loss.loss == "asymmetric"
    assert args.loss.loss_kwargs == {"gamma_neg": 2}
    assert args.training.learning_rate == 1e-4  # a string in YAML 1.1
    assert args.model.model_kwargs["depths"] == [1, 1, 2, 1]
    assert args.training.bf16 is False
    assert parse_arguments([config]).training.bf16 is True


def test_best_is_least_for_a_loss_and_most_for_the_others(config):
    assert parse_arguments([config]).training.greater_is_better is True
    assert parse_arguments([config, "--metric_for_best_model", "loss"]).training.greater_is_better is False
    training = parse_arguments([config, "--metric_for_best_model", "eval_ap"]).training
    assert (training.metric_for_best_model, training.greater_is_better) == ("ap", True)


def test_defaults_are_the_reference_recipe(tmp_path):
    empty = tmp_path / "empty.yaml"
    empty.write_text("")
    args = parse_arguments([str(empty)])
    assert (args.model.resize_size, args.model.image_size, args.model.horizontal_flip) == (256, 224, 0.5)
    training = args.training
    assert (training.optimizer, training.learning_rate, training.weight_decay) == ("adam", 1e-4, 5e-4)
    assert (training.per_device_train_batch_size, training.num_train_epochs) == (32, 30)
    assert (training.metric_for_best_model, training.load_best_model_at_end) == ("auc", True)
    assert args.loss.head_bias == "no_information"


def test_without_a_file_the_quickstart_is_taken():
    assert parse_arguments([]).training.output_dir == "runs/quickstart"


@pytest.mark.parametrize(
    ("argv", "expected"),
    [
        (["--loss_kwarg.gamma", "2"], "unknown key loss_kwarg.gamma in the command line; did you mean loss_kwargs?"),
        (["--loss=bec"], "invalid choice: 'bec'"),
        (["--rotation_degrees", "1000"], "rotation_degrees is 1000.0; it must be between 0 and 180"),
        (["--dataset", "nih"], "dataset nih needs --nih_root"),
        (["--num_train_epochs", "0"], "num_train_epochs is 0.0; it must be above 0"),
        (["--optim", "sgd"], "optim must stay"),
        (["--nih_root", "/data"], "--nih_root is given, but --dataset phantom does not take it: add --dataset nih"),
        (
            ["--images_per_step", "128"],
            "images_per_step is 128, but 32 images x 1 accumulation",
        ),
        (["other.yaml"], "two configs are given"),
        (["--sampler", "overr"], "invalid choice: 'overr'"),
        (["--ema_decay", "1"], "ema_decay is 1.0; it must be 0 to below 1"),
        (["--reweight_from_epoch", "30"], "reweight_from_epoch is 30, and training ends after 30 epochs"),
        (["--feature_oversampling", "5"], "feature_oversampling needs --freeze_backbone true"),
        (
            ["--feature_oversampling", "5", "--freeze_backbone", "true", "--model_name_or_path", "x"],
            "feature_oversampling acts on images drawn again, and the sampler shuffle draws each once at most",
        ),
        (["--freeze_backbone", "true"], "freeze_backbone true needs --model_name_or_path"),
        (["--layer_decay", "0"], "layer_decay is 0.0; it must be above 0, at most 1"),
        (["--head_learning_rate", "0"], "head_learning_rate is 0.0; it must be above 0"),
        (["--freeze_backbone_epochs", "30"], "freeze_backbone_epochs is 30, and training ends after 30 epochs"),
        (
            ["--freeze_backbone_epochs", "1", "--lr_scheduler_type", "reduce_lr_on_plateau"],
            "freeze_backbone_epochs is 1, and lr_scheduler_type reduce_lr_on_plateau sets the rates by a metric",
        ),
        (
            ["--layer_decay", "0.7", "--freeze_backbone", "true", "--model_name_or_path", "x"],
            "layer_decay is 0.7, and with freeze_backbone true the classifier alone is trained",
        ),
        (
            ["--mixup_alpha=0.2", "--dataset=table", "--table=chexpert", "--table_root=.", "--streaming=true"],
            "mixup_alpha reads a second image by its number, and a stream has its own order",
        ),
        (["--mixup_alpha", "-1"], "mixup_alpha is -1.0; it must be 0 (no mixing) or more"),
        (["--mixup_alpha", "0.2", "--loss", "zlpr"], "mixup_alpha is 0.2, and zlpr has no loss of one cell"),
        (
            ["--measure_test", "false", "--eval_strategy", "no", "--load_best_model_at_end", "false"],
            "measure_test false stops after validation, and --eval_strategy no never measures it",
        ),
        (["--metric_for_best_model", "acu"], "metric_for_best_model: acu is not a metric: choose from auc, ap"),
        (["--metric_for_best_model", "mean_average_precision"], "its name is now ap"),
        (["--metric_for_best_model", "eval_macro_auc"], "its name is now auc"),
        (["--remove_unused_columns", "true"], "remove_unused_columns must stay False"),
        (["--operating_point", "best"], "invalid choice: 'best'"),
        (["--operating_point", "sensitivity"], "operating_target: the rule sensitivity for operating points needs a"),
        (["--operating_target", "0.9"], "operating_target: the rule f1 for operating points takes no target; got 0.9"),
        (
            ["--operating_point", "specificity", "--operating_target", "90"],
            "the specificity to reach, such as 0.9; got 90.0, expected above 0 and at most 1",
        ),
        (
            ["--operating_point", "bayes", "--operating_target", "9", "--calibrate", "false"],
            "operating_point bayes needs calibrated probabilities",
        ),
    ],
)
def test_bad_flags_are_one_clear_line(config, capsys, argv, expected):
    assert expected in message_of(capsys, [config, *argv])


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("los: bce\n", "unknown key los in {path}; did you mean loss?"),
        ("loss: bec\n", "loss in {path} is 'bec'; choose from bce, "),
        ("image_size:\n", "image_size in {path} is empty"),
        ("model_kwargs: 2\n", "model_kwargs in {path} is 2; it must be a mapping"),
        ("learning_rate: fast\n", "invalid float value: 'fast'"),
        ("- loss\n", "must contain one 'key: value' a line"),
        ("seed: 2: 3\n", "{path} is not a YAML file: mapping values are not allowed here, line 1"),
    ],
)
def test_bad_files_are_one_clear_line(tmp_path, capsys, text, expected):
    path = tmp_path / "bad.yaml"
    path.write_text(text)
    assert expected.format(path=path) in message_of(capsys, [str(path)])


def test_another_rule_leaves_the_target_of_the_first_behind(tmp_path):
    path = tmp_path / "sensitive.yaml"
    path.write_text("operating_point: sensitivity\noperating_target: 0.9\n")
    for flags, expected in (
        ([], ("sensitivity", 0.9)),
        (["--operating_point", "youden"], ("youden", None)),
        (["--operating_point", "sensitivity"], ("sensitivity", 0.9)),
        (["--operating_point", "cost", "--operating_target", "5"], ("cost", 5.0)),
    ):
        evaluation = parse_arguments([str(path), *flags]).evaluation
        assert (evaluation.operating_point, evaluation.operating_target) == expected


def test_missing_file_names_the_shipped_ones(capsys):
    assert "no such config: nope.yaml (shipped ones: configs/" in message_of(capsys, ["nope.yaml"])


def test_a_config_of_the_package_is_found_from_any_folder_and_a_file_there_wins(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert parse_arguments(["configs/quickstart.yaml", "--seed", "7"]).training.num_train_epochs == 14
    printed = capsys.readouterr().err
    assert f"reading {CONFIGS / 'quickstart.yaml'}, which comes with the package" in printed
    assert load_plan("configs/compare_reference.yaml", ["--nih_root", "x"]).baseline == "BCE"
    assert load_search("configs/tune_phantoms.yaml").name == "tune_phantoms"
    assert parse_arguments(["configs/systems/dnet.yaml", "--nih_root", "x"]).model.architecture == "dnet"
    capsys.readouterr()
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "quickstart.yaml").write_text("num_train_epochs: 3")
    assert parse_arguments(["configs/quickstart.yaml"]).training.num_train_epochs == 3
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    "given", ["quickstart.yaml", "other/quickstart.yaml", "configs/../configs/quickstart.yaml", "configs/nope.yaml"]
)
def test_no_other_path_is_looked_for_in_the_package(given, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert config_file(given) == Path(given)
    assert f"no such config: {given} (shipped ones" in message_of(capsys, [given])


def test_resolved_config_has_every_key_and_no_token(config):
    resolved = parse_arguments([config, "--hub_token", "secret"]).to_dict()
    assert not [key for key in set(known_keys()) - set(resolved) if not key.startswith(NOT_SAVED)]
    assert "secret" not in str(resolved)


@pytest.mark.parametrize(
    ("text", "get", "value"),
    [
        ("learning_rate: 1e-4", lambda args: args.training.learning_rate, 1e-4),
        ("weight_decay: .5", lambda args: args.training.weight_decay, 0.5),
        ("seed: 010", lambda args: args.training.seed, 10),
        ("train_limit: 1e3", lambda args: args.data.train_limit, 1000),
        ("phantom_train: 1_000", lambda args: args.data.phantom_train, 1000),
        ("run_name: 010", lambda args: args.training.run_name, "010"),
        ("model_revision: 1e5", lambda args: args.model.model_revision, "1e5"),
        ("bf16: on", lambda args: args.training.bf16, True),
        ("bf16: 0", lambda args: args.training.bf16, False),
        ("save_strategy: no\nload_best_model_at_end: no", lambda args: args.training.save_strategy, "no"),
        ("report_to: no", lambda args: None, None),
        (
            "loss_kwargs: {class_weights: given, given_class_weights: [1e-1, 2, .5]}",
            lambda args: args.loss.loss_kwargs["given_class_weights"],
            [0.1, 2, 0.5],
        ),
        (
            "lr_scheduler_type: cosine_with_min_lr\nlr_scheduler_kwargs: {min_lr: 1e-6}",
            lambda args: args.training.lr_scheduler_kwargs,
            {"min_lr": 1e-6},
        ),
        ("nih_root: ~/nih\ndataset: nih", lambda args: args.data.nih_root, str(Path.home() / "nih")),
    ],
)
def test_a_value_is_of_its_keys_type_however_yaml_spells_it(tmp_path, capsys, text, get, value):
    path = tmp_path / "x.yaml"
    path.write_text(f"{text}\n")
    if text == "report_to: no":  # the word, not false
        assert "report_to no is not a tracker" in message_of(capsys, [str(path)])
        return
    assert get(parse_arguments([str(path)])) == value


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("seed: 1.5", ["seed", "1.5", "int"]),
        ("seed: true", ["seed", "True"]),
        ("learning_rate: yes", ["learning_rate", "True"]),
        ("learning_rate: [1e-3]", ["learning_rate", "list"]),
        ("learning_rate: {a: 1}", ["learning_rate", "mapping"]),
        ("bf16: maybe", ["bf16", "true or false"]),
        ("loss_kwargs: [margin]", ["loss_kwargs", "mapping"]),
        ("loss_kwargs:", ["loss_kwargs", "empty"]),
        ("output_dir: [a]", ["output_dir", "list"]),
        ("loss: bce\nloss: focal", ["loss occurs twice"]),
        ("lr_scheduler_kwargs: {min_lr: 1, min_lr: 2}", ["min_lr occurs twice"]),
        ("logging_dir: x", ["logging_dir", "leave it out"]),
    ],
)
def test_a_value_of_another_type_is_one_line_with_key_and_file(tmp_path, capsys, text, words):
    path = tmp_path / "bad.yaml"
    path.write_text(f"{text}\n")
    err = message_of(capsys, [str(path)])
    assert all(word in err for word in [*words, str(path)])
    assert err.count("\n") == 1
