"""The record of a run's flags: it says what the dataclasses and signatures say, and is used only where it does."""

import json

import pytest
from transformers import HfArgumentParser

from hf_cxr.arguments import flags as flags_module
from hf_cxr.arguments.components import ARCHITECTURES, architecture_options, help_text
from hf_cxr.arguments.flags import RECORD, Flags, current_stamp, recorded_flags
from hf_cxr.arguments.run import ARGUMENTS
from hf_cxr.arguments.signatures import flags_of_signatures
from hf_cxr.config import known_keys, parse_arguments


@pytest.fixture(scope="module")
def read():
    return flags_of_signatures()


@pytest.fixture
def fresh():
    """The record is read again, before and after the test."""
    recorded_flags.cache_clear()
    yield
    recorded_flags.cache_clear()


def test_the_record_is_what_the_signatures_say(read):
    recorded = RECORD.read_text(encoding="utf-8")
    assert recorded == read.to_json(current_stamp()), "run: make format"
    assert Flags.from_json(json.loads(recorded)).to_json(current_stamp()) == recorded


def test_the_parser_is_the_one_that_transformers_makes(read):
    ours, theirs = read.parser(prog="x"), HfArgumentParser(ARGUMENTS, prog="x", allow_abbrev=False)
    assert ours.format_help() == theirs.format_help()
    for words in (
        [],
        ["--bf16", "--no_calibrate", "--learning-rate", "1e-3", "--loss", "focal", "--report_to", "none"],
        ["--bf16", "no", "--load_best_model_at_end=false", "--include_for_metrics", "inputs", "loss", "--seed", "3"],
        ["--hub_private_repo", "0", "--debug", "underflow_overflow", "--torch_compile_mode", "default", "--rest", "1"],
    ):
        (found, rest), (wanted, left) = ours.parse_known_args(words), theirs.parse_known_args(words)
        assert vars(found) == vars(wanted)
        assert rest == left


@pytest.mark.parametrize(
    "words",
    ["--bf16 maybe", "--seed 1.5", "--loss bec", "--optimizer lion", "--debug nothing", "--liger_kernel_config x"],
)
def test_a_bad_value_is_refused_in_the_words_of_argparse(read, capsys, words):
    lines = []
    for parser in (read.parser(prog="x"), HfArgumentParser(ARGUMENTS, prog="x", allow_abbrev=False)):
        with pytest.raises(SystemExit) as stop:
            parser.parse_known_args(words.split())
        assert stop.value.code == 2
        lines.append(capsys.readouterr().err.splitlines()[-1].partition("argument ")[2])
    assert lines[0] == lines[1] != ""


@pytest.mark.parametrize("changed", ["transformers", "sources"])
def test_a_record_of_something_else_is_not_used(fresh, tmp_path, monkeypatch, changed):
    values = json.loads(RECORD.read_text(encoding="utf-8"))
    values["flags"] = [flag for flag in values["flags"] if flag["dest"] != "ema_decay"]
    place = tmp_path / "flags.json"
    monkeypatch.setattr(flags_module, "RECORD", place)
    place.write_text(json.dumps(values))
    assert "ema_decay" not in known_keys()  # it is what is read ...
    recorded_flags.cache_clear()
    values["stamp"][changed] = "another"
    place.write_text(json.dumps(values))
    assert "ema_decay" in known_keys()  # ... while it is of these versions


def test_without_a_record_nothing_is_missing(fresh, tmp_path, monkeypatch, read):
    monkeypatch.setattr(flags_module, "RECORD", tmp_path / "none.json")
    assert recorded_flags().keys == read.keys == known_keys()
    assert parse_arguments(["--ema_decay", "0.5"]).stages.ema_decay == 0.5


def test_a_default_that_is_a_mapping_is_not_shared(read):
    first = read.parser().parse_args([])
    first.loss_kwargs["gamma"] = 1
    assert read.parser().parse_args([]).loss_kwargs == {}


def test_help_lists_an_architecture_that_is_not_recorded(read):
    assert "levit" not in ARCHITECTURES
    lines = help_text("levit", read.components)
    assert all(f"\n    {name}" in lines for name in architecture_options("levit"))
