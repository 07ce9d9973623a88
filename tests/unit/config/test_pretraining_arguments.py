"""The keys of pre-training: its own defaults, what it refuses, and a config.yaml that gives the same again."""

import pytest
import yaml

from hf_cxr.arguments.masking import DEFAULTS, pretraining_flags
from hf_cxr.arguments.pretraining import UNUSED
from hf_cxr.config import known_keys, parse_pretraining


@pytest.fixture
def config(tmp_path):
    path = tmp_path / "pretrain.yaml"
    path.write_text("mask_patch_size: 16\nimage_size: 64\n")
    return str(path)


def refused(words, capsys):
    with pytest.raises(SystemExit) as stop:
        parse_pretraining(words)
    assert stop.value.code == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    return error


def test_its_defaults_are_simmims(config):
    args = parse_pretraining([config])
    assert (args.masking.mask_patch_size, args.masking.mask_ratio) == (16, 0.6)
    assert args.training.optimizer == "adamw"
    assert args.training.bf16
    assert args.training.lr_scheduler_type == "cosine"
    assert set(DEFAULTS) < set(known_keys())
    own = set(pretraining_flags().keys) - set(known_keys())
    assert own == {"mask_patch_size", "mask_ratio", "held_out_share", "never_tested"}
    assert not {"loss", "sampler", "ema_decay", "calibrate"} & set(pretraining_flags().keys)


def test_its_config_gives_the_same_again(config, tmp_path):
    words = ["--held_out_share", "0.1", "--never_tested", "--model_kwargs.embed_dim", "32", "--output_dir", "here"]
    args = parse_pretraining([config, *words])
    assert args.masking.never_tested
    assert str(args.training.eval_strategy.value) == "epoch"  # held-out patients are there to be measured
    saved = tmp_path / "config.yaml"
    saved.write_text(yaml.safe_dump(args.to_dict()))
    again = parse_pretraining([str(saved)])
    assert again.to_dict() == args.to_dict()
    assert again.model.model_kwargs["embed_dim"] == 32


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--mask_ratio", "1"], "mask_ratio is 1.0; it must be above 0 and below 1"),
        (["--held_out_share", "0.5"], "held_out_share is 0.5; it must be 0 to below 0.5"),
        (["--mask_patch_size", "0"], "mask_patch_size is 0"),
        (["--mask_ratoi", "0.5"], "did you mean mask_ratio?"),
        (["--loss", "bce"], "unknown key loss in the command line"),
        (["--eval_strategy", "epoch"], "give --held_out_share 0.05"),
        (["--shuffle_labels", "true"], "shuffle_labels must be false in pre-training: no label is looked at"),
        (["--metric_for_best_model", "auc"], "metric_for_best_model must be loss in pre-training"),
        (["--push_to_hub", "true"], "push_to_hub must be false in pre-training"),
        (["--label_smoothing_factor", "0.1"], "label_smoothing_factor must be 0.0"),
        (["--mask_ratio", "much"], "invalid float value"),
    ],
)
def test_what_it_cannot_do_is_one_line(config, words, message, capsys):
    assert message in refused([config, *words], capsys)


def test_a_config_is_needed_and_its_keys_are_checked(tmp_path, capsys):
    assert "configs/pretrain_phantoms.yaml" in refused(["--seed", "1"], capsys)
    (tmp_path / "x.yaml").write_text("mask_ration: 0.5\n")
    assert "unknown key mask_ration in" in (error := refused([str(tmp_path / "x.yaml")], capsys))
    assert "did you mean mask_ratio?" in error
    assert UNUSED.keys() & set(known_keys())
