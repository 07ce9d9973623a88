"""Settings files: numbers as YAML 1.2 has them wherever they stand, text that stays text, keys that stand once."""

import math

import pytest
import yaml

from hf_cxr.yaml_files import dump_yaml, parse_yaml, read_yaml


@pytest.mark.parametrize(
    ("written", "value"),
    [
        ("1e-6", 1e-6),
        ("1E5", 1e5),
        (".5", 0.5),
        ("-.5e3", -500.0),
        ("1.", 1.0),
        ("+1", 1),
        ("1_000", 1000),
        ("1_000.5", 1000.5),
        ("010", 10),  # YAML 1.1: eight
        ("08", 8),
        ("0o10", 8),
        ("0x10", 16),
        (".inf", math.inf),
        ("yes", True),
        ("off", False),
        ("~", None),
        ("1:30", "1:30"),  # YAML 1.1: ninety
        ("2020-01-01", "2020-01-01"),
        ("'1e-6'", "1e-6"),
        ('"010"', "010"),
        ("e5", "e5"),
        ("_1", "_1"),
        ("1e-6x", "1e-6x"),
        (".", "."),
        ("-", "-"),
    ],
)
def test_numbers_are_numbers_wherever_they_stand(written, value):
    for text, place in ((f"a: {written}", lambda v: v["a"]), (f"a: {{b: [{written}]}}", lambda v: v["a"]["b"][0])):
        if written == "-" and "[" not in text:
            continue
        read = place(parse_yaml(text))
        assert read == value
        assert type(read) is type(value)


def test_keys_are_text_and_text_keys_have_text_values():
    text = "no: {loss: bce}\n1e-3: 1\nrevision: 0123\nstrategy: no\nempty: ~\nlist: [no]\n"
    values = parse_yaml(text, text_keys={"revision", "strategy", "empty", "list"})
    assert list(values) == ["no", "1e-3", "revision", "strategy", "empty", "list"]
    assert [values[key] for key in ("revision", "strategy", "empty", "list")] == ["0123", "no", None, [False]]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a: 1\nb: 2\na: 3\n", ["a occurs twice", "1 and 3"]),
        ("a: {b: 1, b: 1}", ["b occurs twice"]),
        ("a: b: c", ["not a YAML file", "line 1"]),
        ("a: !!python/object/apply:os.getcwd []", ["not a YAML file"]),
        ("? [1, 2]\n: 3", ["not a YAML file", "one word"]),
        ("{[" * 600, ["not a YAML file", "too deeply"]),
    ],
)
def test_what_cannot_be_read_is_one_line_that_names_the_file(tmp_path, text, words):
    path = tmp_path / "x.yaml"
    path.write_text(text)
    with pytest.raises(ValueError, match=r"x\.yaml") as refused:
        read_yaml(path)
    assert all(word in str(refused.value) for word in words)
    assert "\n" not in str(refused.value)


def test_a_file_in_another_encoding_is_refused_and_a_byte_order_mark_is_not(tmp_path):
    path = tmp_path / "x.yaml"
    path.write_bytes("a: é".encode("latin-1"))
    with pytest.raises(ValueError, match="UTF-8"):
        read_yaml(path)
    path.write_bytes(b"\xef\xbb\xbfa: 1")
    assert read_yaml(path) == {"a": 1}


def test_what_is_merged_gives_way_to_a_mappings_own_keys():
    assert parse_yaml("b: &b {a: 1, c: 2}\nm: {<<: *b, a: 3}")["m"] == {"a": 3, "c": 2}


def test_what_is_written_is_read_back_by_this_reader_and_by_pyyaml():
    words = ["1e-4", "010", "no", "1:30", "2020-01-01", ".5", "1_000", "0o7", "~", "", "a: b", "é", "- x", "0x1"]
    values = {"words": words, "numbers": [1e-5, 1e20, 3, math.inf, True, None], "nested": {"1e-3": {"min_lr": 1e-6}}}
    assert parse_yaml(dump_yaml(values)) == values
    assert yaml.safe_load(dump_yaml(values)) == values
