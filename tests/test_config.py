"""Arguments: the file gives defaults, flags win, a misspelt key is named with its nearest, values are checked once."""

import pytest

from hf_cxr.config import known_keys, parse_arguments


@pytest.fixture
def config(tmp_path):
    path = tmp_path / "x.yaml"
    path.write_text("loss: focal\nlearning_rate: 1e-4\nswin_depths: [1, 1, 2, 1]\nbf16: true\noutput_dir: runs/x\n")
    return str(path)


def message_of(capsys, argv):
    with pytest.raises(SystemExit) as stop:
        parse_arguments(argv)
    assert stop.value.code == 2
    return capsys.readouterr().err


def test_file_gives_defaults_and_flags_win(config):
    args = parse_arguments([config, "--loss", "asymmetric", "--gamma-neg", "2", "--bf16", "false"])
    assert args.loss.loss == "asymmetric"
    assert args.loss.options() == {"gamma_neg": 2.0}
    assert args.training.learning_rate == 1e-4  # a string in YAML 1.1
    assert args.model.swin_depths == [1, 1, 2, 1]
    assert args.training.bf16 is False
    assert parse_arguments([config]).training.bf16 is True


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
        (["--gama_neg", "2"], "unknown key gama_neg in the command line; did you mean gamma_neg?"),
        (["--loss=bec"], "invalid choice: 'bec'"),
        (["--rotation_degrees", "1000"], "rotation_degrees is 1000.0; it must be between 0 and 180"),
        (["--dataset", "nih"], "dataset nih needs --nih_root"),
        (["--class_weights", "given"], "class_weights given and given_class_weights go together"),
        (["--remove_unused_columns", "true"], "remove_unused_columns must stay false"),
        (["--swin_num_heads", "1", "2"], "as many numbers as swin_depths has (4)"),
    ],
)
def test_bad_flags_are_one_clear_line(config, capsys, argv, expected):
    assert expected in message_of(capsys, [config, *argv])


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("los: bce\n", "unknown key los in {path}; did you mean loss?"),
        ("loss: bec\n", "loss in {path} is 'bec'; choose from bce, focal"),
        ("swin_depths: 2\n", "swin_depths in {path} is 2; it must be a list"),
        ("learning_rate: fast\n", "invalid float value: 'fast'"),
        ("- loss\n", "must hold one 'key: value' a line"),
        ("margin: 2: 3\n", "mapping values are not allowed here"),
    ],
)
def test_bad_files_are_one_clear_line(tmp_path, capsys, text, expected):
    path = tmp_path / "bad.yaml"
    path.write_text(text)
    assert expected.format(path=path) in message_of(capsys, [str(path)])


def test_missing_file_names_the_shipped_ones(capsys):
    assert "no such config: nope.yaml (shipped ones: configs/" in message_of(capsys, ["nope.yaml"])


def test_resolved_config_has_every_key_and_no_token(config):
    resolved = parse_arguments([config, "--hub_token", "secret"]).to_dict()
    assert set(known_keys()) - set(resolved) <= {"hub_token", "push_to_hub_token"}
    assert "secret" not in str(resolved)
