"""Options of losses, samplers and models: from YAML and flags to the component, refused at the door, old ones read."""

import json

import pytest

from hf_cxr.arguments.components import ARCHITECTURES, architecture_options, with_defaults
from hf_cxr.arguments.spelling import MOVED, OF_A_RUN, modern_values
from hf_cxr.commands import main
from hf_cxr.config import parse_arguments, without_replaced_options
from hf_cxr.losses import LOSSES, loss_options
from hf_cxr.run.resume import changed_settings, settings_of
from hf_cxr.sampling import SAMPLERS, sampler_options
from hf_cxr.yaml_files import read_yaml

CLASS_AWARE = "loss: class_aware\nloss_kwargs: {margin: 0.3, decoupled: true, class_weights: inverse}\n"


@pytest.fixture
def write(tmp_path):
    def write(text, name="x.yaml"):
        path = tmp_path / name
        path.write_text(text)
        return str(path)

    return write


def refusal(capsys, *words):
    with pytest.raises(SystemExit) as stop:
        parse_arguments(list(words))
    assert stop.value.code == 2
    line = capsys.readouterr().err
    assert line.count("\n") == 1
    return line


# From YAML and the command line


@pytest.mark.parametrize(
    ("flags", "options"),
    [
        ([], {"margin": 0.3, "decoupled": True, "class_weights": "inverse"}),
        (["--loss_kwargs.margin", "1e-1"], {"margin": 0.1, "decoupled": True, "class_weights": "inverse"}),
        (["--loss_kwargs.margin=0"], {"margin": 0, "decoupled": True, "class_weights": "inverse"}),
        (["--loss_kwargs", '{"margin": 0.1}'], {"margin": 0.1}),
        (["--loss_kwargs={margin: 1e-1}", "--loss_kwargs.decoupled", "no"], {"margin": 0.1, "decoupled": False}),
        (["--loss_kwargs.margin", "0.1", "--loss_kwargs", "{}"], {"margin": 0.1}),
        (["--loss", "class_aware"], {"margin": 0.3, "decoupled": True, "class_weights": "inverse"}),
        (["--loss", "bce"], {}),
        (["--loss", "asymmetric", "--loss_kwargs.gamma_neg", "3"], {"gamma_neg": 3}),
    ],
)
def test_flags_go_over_the_files_options_one_by_one(write, flags, options):
    assert parse_arguments([write(CLASS_AWARE), *flags]).loss.loss_kwargs == options


def test_another_sampler_or_model_leaves_the_files_options_behind(write):
    path = write(
        "sampler: mixed\nsampler_kwargs: {oversample_share: 0.1, undersample_ratio: 2}\n"
        "model_kwargs: {embed_dim: 32, drop_path_rate: 0.0}\n"
    )
    args = parse_arguments([path])
    assert args.sampling.sampler_kwargs == {"oversample_share": 0.1, "undersample_ratio": 2}
    assert args.model.model_kwargs == {"embed_dim": 32, "drop_path_rate": 0.0}
    flags = ["--sampler", "class_aware", "--sampler_kwargs.class_aware_no_finding", "false"]
    flags += ["--model_name_or_path", "runs/first", "--model_kwargs.drop_path_rate", "0.2"]
    args = parse_arguments([path, *flags])
    assert args.sampling.sampler_kwargs == {"class_aware_no_finding": False}
    assert args.model.model_kwargs == {"drop_path_rate": 0.2}


def test_config_has_every_option_and_means_the_same_run_again(write, tmp_path):
    args = parse_arguments([write("loss: ldam\nsampler: over\nmodel_kwargs: {embed_dim: 32}\n")])
    values = args.to_dict()
    assert values["loss_kwargs"] == {
        "max_margin": 0.5,
        "logit_scale": 1.0,
        "class_weights": "effective_number",
        "beta": 0.9999,
    }
    assert values["sampler_kwargs"] == {"oversample_share": 0.25}
    assert values["model_kwargs"]["depths"] == [2, 2, 6, 2]
    assert values["model_kwargs"]["embed_dim"] == 32
    again = parse_arguments([write(json.dumps(values), "config.yaml")])
    assert again.to_dict() == values
    assert changed_settings(values, settings_of(args), free=set()) == []
    other = parse_arguments([write(json.dumps(values), "config.yaml"), "--loss_kwargs.max_margin", "0.4"])
    assert changed_settings(values, settings_of(other), free=set()) == ["loss_kwargs.max_margin was 0.5 and is 0.4"]


@pytest.mark.parametrize("name", LOSSES)
def test_defaults_of_every_loss_can_be_given(name):
    values = {"loss": name, "sampler": "shuffle", "architecture": "swin"}
    options = with_defaults(values)["loss_kwargs"]
    args = parse_arguments(["--loss", name, "--loss_kwargs", json.dumps(options)])
    assert with_defaults(args.to_dict())["loss_kwargs"] == options


def test_training_needs_a_config(capsys):
    with pytest.raises(SystemExit) as stop:
        parse_arguments(["--seed", "1"], prog="hf-cxr train", needs_config=True)
    assert stop.value.code == 2
    error = capsys.readouterr().err
    assert "configs/quickstart.yaml" in error
    assert error.count("\n") == 1
    with pytest.raises(SystemExit) as stop:
        parse_arguments(["--help"], prog="hf-cxr train", needs_config=True)
    assert stop.value.code == 0


def test_help_lists_the_options_of_every_component(capsys):
    with pytest.raises(SystemExit) as stop:
        parse_arguments(["--help"])
    assert stop.value.code == 0
    printed = capsys.readouterr().out.split()
    for option in (
        *(option for name in LOSSES for option in loss_options(name)),
        *(option for name in SAMPLERS for option in sampler_options(name)),
        *(option for name in ARCHITECTURES for option in architecture_options(name)),
        *(f"{name}:" for name in ARCHITECTURES if name != "swin"),
    ):
        assert option in printed


# What is refused, before data are read


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--loss_kwargs.gama", "1"], ["loss_kwargs", "focal takes no option 'gama'", "did you mean gamma"]),
        (["--loss_kwargs.gamma", "-1"], ["loss_kwargs", "gamma must be finite and not negative", "-1"]),
        (["--loss_kwargs.gamma", "two"], ["loss_kwargs", "gamma is 'two'", "a number"]),
        (["--loss_kwargs.gamma", "true"], ["loss_kwargs", "gamma is True", "a number"]),
        (["--loss_kwargs.gamma"], ["--loss_kwargs.gamma has no value"]),
        (["--loss_kwargs", "2"], ["--loss_kwargs is 2", "a mapping"]),
        (["--loss_kwargs", "{gamma: 1"], ["not valid YAML"]),
        (["--loss_kwargs.class_weights", "invers"], ["unknown class_weights 'invers'", "did you mean inverse"]),
        (["--loss_kwargs.class_weights", "given"], ["needs given_class_weights"]),
        (["--loss_kwargs.given_class_weights", "[1, 2]"], ["class_weights given"]),
        (["--loss_kwargs", "{class_weights: given, given_class_weights: [a, b]}"], ["must be numbers"]),
        (["--loss_kwargs", "{class_weights: effective_number, beta: 1}"], ["beta must lie in [0, 1)"]),
        (["--loss", "zlpr", "--loss_kwargs.class_weights", "inverse"], ["zlpr takes no option 'class_weights'"]),
        (["--reweight_from_epoch", "1"], ["focal has no class weights", "--loss_kwargs.class_weights"]),
        (["--loss", "zlpr", "--label_smoothing_factor", "0.1"], ["label_smoothing_factor", "zlpr"]),
        (["--sampler_kwargs.undersample_ratio", "2"], ["shuffle takes no option 'undersample_ratio'"]),
        (["--sampler", "over", "--sampler_kwargs.oversample_share", "0"], ["oversample_share is 0", "above 0"]),
        (["--model_kwargs.embed_dims", "8"], ["swin takes no option 'embed_dims'", "did you mean embed_dim"]),
        (["--model_kwargs.image_size", "8"], ["swin takes no option 'image_size'"]),
        (["--model_kwargs.qkv_bias", "3"], ["qkv_bias is 3", "true or false"]),
    ],
)
def test_an_option_that_cannot_be_is_one_line(write, capsys, flags, words):
    line = refusal(capsys, write("loss: focal\n"), *flags)
    assert all(word in line for word in words), line


def test_a_comparison_is_not_a_run(write, capsys):
    path = write("base: quickstart.yaml\nmethods: {A: {}}\nbaseline: A\nseeds: [0]\n")
    assert f"use `hf-cxr compare {path}`" in refusal(capsys, path)


def test_a_misspelt_required_flag_is_named(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["evaluate", "--modle", "runs/x", "--nih_root", "data"])
    assert stop.value.code == 2
    assert "unknown word --modle in the command line; did you mean --model?" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["evaluate", "--nih_root", "data"])
    assert "say what to measure: --model" in capsys.readouterr().err
    for words, message in ((["--modle", "runs/x"], "did you mean --model?"), ([], "required: --model")):
        with pytest.raises(SystemExit):
            main(["predict", "a.png", *words])
        assert message in capsys.readouterr().err


# Keys of an earlier version


@pytest.mark.parametrize(
    ("line", "new"),
    [
        ("margin: 0.2", "margin: 0.2 is now loss_kwargs: {margin: 0.2}"),
        ("class_weights: none", "class_weights: none is now loss_kwargs: {class_weights: none}"),
        ("effective_number_beta: 0.9", "effective_number_beta: 0.9 is now loss_kwargs: {beta: 0.9}"),
        ("class_aware_no_finding: no", "class_aware_no_finding: false is now sampler_kwargs: {class_aware_no_f"),
        (
            "swin_depths: [1, 2]\nswin_absolute_embeddings: true",
            "swin_depths: [1, 2], swin_absolute_embeddings: true is now model_kwargs: {depths: [1, 2], use_absolute_e",
        ),
    ],
)
def test_an_old_key_in_a_yaml_is_printed_as_it_is_spelled_now(write, capsys, line, new):
    path = write(f"seed: 1\n{line}\n")
    assert f"{path}: {new}" in refusal(capsys, path)


@pytest.mark.parametrize(
    ("flags", "new"),
    [
        ("--margin 0.2", "--margin 0.2 is now --loss_kwargs.margin 0.2"),
        ("--gamma-neg=2 --seed 3", "--gamma-neg 2 is now --loss_kwargs.gamma_neg 2"),
        ("--swin_depths 1 2 --seed 3", "--swin_depths 1 2 is now --model_kwargs.depths '[1, 2]'"),
        ("--decoupled --seed 3", "--decoupled is now --loss_kwargs.decoupled true"),
        (
            "--no-decoupled --seed 3 --tau=2",
            "--no-decoupled is now --loss_kwargs.decoupled false; --tau 2 is now --loss_kwargs.tau 2",
        ),
    ],
)
def test_an_old_flag_is_printed_as_it_is_spelled_now(write, capsys, flags, new):
    assert new in refusal(capsys, write("seed: 1\n"), *flags.split())


@pytest.fixture
def old_values(write):
    """A run's config.yaml as the version before wrote it: each of the old keys, most without a value."""
    today = parse_arguments([write("", "empty.yaml")]).to_dict()
    new = ("architecture", "loss_kwargs", "sampler_kwargs", "model_kwargs")
    values = {key: value for key, value in today.items() if key not in new} | dict.fromkeys(MOVED)
    swin = {"patch_size": 4, "window_size": 7, "embed_dim": 96, "depths": [2, 2, 6, 2], "num_heads": [3, 6, 12, 24]}
    values |= {f"swin_{key}": value for key, value in swin.items()}
    values |= {"swin_initializer_range": 0.02, "swin_absolute_embeddings": False, "drop_path_rate": 0.1}
    values |= {"effective_number_beta": 0.9999}
    assert values.keys() >= OF_A_RUN
    return values


@pytest.mark.parametrize(
    ("old", "now"),
    [
        ({}, ""),
        ({"margin": 0.1, "class_weights": "none"}, "loss_kwargs: {margin: 0.1, class_weights: none}"),
        (
            {"class_weights": "effective_number", "effective_number_beta": 0.9},
            "loss_kwargs: {class_weights: effective_number, beta: 0.9}",
        ),
        (
            {"sampler": "mixed", "oversample_share": 0.5, "swin_depths": [1, 1], "swin_num_heads": [1, 2]},
            "sampler: mixed\nsampler_kwargs: {oversample_share: 0.5}\n"
            "model_kwargs: {depths: [1, 1], num_heads: [1, 2]}",
        ),
        (
            {"model_name_or_path": "tester/model", "drop_path_rate": 0.0},
            "model_name_or_path: tester/model\nmodel_kwargs: {drop_path_rate: 0.0}",
        ),
    ],
)
def test_an_earlier_runs_settings_are_those_of_the_same_run_now(write, old_values, old, now):
    before, args = old_values | old, parse_arguments([write(f"{now}\n")])
    assert modern_values(modern_values(before)) == modern_values(before)
    assert changed_settings(before, settings_of(args), free=set()) == []
    other = changed_settings(before | {"loss": "focal", "gamma": 1.0, "margin": None}, settings_of(args), free=set())
    assert other == ["loss was focal and is class_aware"]  # and not each option of both
    other = changed_settings(before | {"margin": 0.3}, settings_of(args), free=set())
    assert [line.partition(" was ")[0] for line in other] == ["loss_kwargs.margin"]


def test_an_earlier_runs_config_gives_the_same_arguments(write, old_values):
    path = write(json.dumps(old_values | {"margin": 0.1, "swin_embed_dim": 48}), "config.yaml")
    args = parse_arguments([path])
    assert args.loss.loss_kwargs == {"margin": 0.1}
    assert args.model.model_kwargs["embed_dim"] == 48
    assert modern_values(read_yaml(path))["model_kwargs"] == args.model.model_kwargs
    assert parse_arguments([path, "--loss", "bce"]).loss.loss_kwargs == {}


def test_another_architecture_starts_without_the_weights_that_a_file_names():
    saved = {"model_name_or_path": "a/swin", "model_kwargs": {"drop_path_rate": 0.1}, "seed": 1}
    assert without_replaced_options(saved, {"architecture": "dnet"}) == {"seed": 1}
    assert without_replaced_options(saved, {"loss": "focal"}) == saved
    system = {"architecture": "swinchex", "backbone_name_or_path": "a/swin", "model_kwargs": {"embed_dim": 32}}
    assert without_replaced_options(system, {"architecture": "wang2017"}) == {"architecture": "swinchex"}
    assert "backbone_name_or_path" not in without_replaced_options(system, {"model_name_or_path": "a/run"})
    assert "model_name_or_path" not in without_replaced_options(saved, {"backbone_name_or_path": "a/swin"})
